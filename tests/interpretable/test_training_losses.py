"""What a training says and does, with each loss: the course, categories, silent filters, one category."""

from dataclasses import replace
from itertools import chain

import pytest
import torch
from torch import nn

from training_toys import FILTERS, LAYER, net, recipe, spots
from whence.errors import LayerError, ModelError, NotFiniteError, OptionError
from whence.interpretable import LOSSES, interpretable
from whence.interpretable.labelled import relabelled
from whence.interpretable.losses import LABELLED
from whence.interpretable.strength import Strength
from whence.interpretable.training import Plan, accuracy, fit, train
from whence.interpretable.training.batches import Batches, Share, augmented
from whence.interpretable.training.objectives import Filters, Task
from whence.models.masked.mask import masks

DATA, HELD_OUT = spots(24), spots(9, seed=1)
ALL = [*LOSSES, None]
KEYS = {"phase", "epoch", "accuracy", "task"}
WITH_MASK = KEYS | {"filters", "weight", "prior", "inter_category", "spatial", "changed", "categories"}


def finite(trained):
    return all(bool(t.isfinite().all()) for n in trained.nets.values() for t in n.state_dict().values())


# the course


@pytest.fixture(scope="module", params=ALL, ids=str)
def trained(request):
    return request.param, train(net(), DATA, HELD_OUT, recipe(request.param, epochs=3))


def test_the_course_has_all_that_is_promised(trained):
    loss, found = trained
    phases = [(entry["phase"], entry["epoch"]) for entry in found.course]
    assert phases == [("plain", 1)] + [(name, n) for name in ("control", "interpretable") for n in (1, 2, 3)]
    for entry in found.course:
        assert set(entry) == (WITH_MASK if entry["phase"] == "interpretable" else KEYS)
        assert 0 <= entry["accuracy"] <= 1
        none = {key for key, value in entry.items() if value is None}
        first = {"changed"} if entry["phase"] == "interpretable" and entry["epoch"] == 1 else set()
        assert none == first | ({"filters", "weight"} if loss is None and "filters" in entry else set())
    assert finite(found)


def test_the_terms_are_those_of_the_mutual_information(trained):
    """Their sum is the mean loss of a filter; the prior is that of 6 x 6 places and no place."""
    _, found = trained
    for entry in found.course:
        if entry["phase"] == "interpretable":
            assert entry["prior"] == pytest.approx(-torch.tensor(37.0).log().item(), rel=1e-6)
            assert entry["inter_category"] >= 0
            assert entry["spatial"] >= 0


def test_categories_are_classes_and_stay_once_settled(trained):
    _, found = trained
    first, second, third = (e for e in found.course if e["phase"] == "interpretable")
    assert len(first["categories"]) == FILTERS
    assert set(first["categories"]) <= {0, 1, 2}
    for before, after in ((first, second), (second, third)):
        assert after["changed"] == sum(a != b for a, b in zip(before["categories"], after["categories"], strict=True))
    assert third["changed"] == 0
    assert bool(found.interpretable.interpretable.categories.frozen)
    assert found.interpretable.interpretable.categories.assigned().tolist() == third["categories"]


def test_the_accuracy_at_the_end_is_that_of_the_last_epochs(trained):
    _, found = trained
    last = {entry["phase"]: entry["accuracy"] for entry in found.course}
    assert found.accuracy == last
    plan = Plan(epochs=1)
    for name, one in found.nets.items():
        right = sum(int(one(x[None].double()).argmax()) == label for x, label in HELD_OUT)
        assert found.accuracy[name] == right / len(HELD_OUT) == accuracy(one, HELD_OUT, plan)


def test_categories_change_until_they_are_settled():
    """The moving averages stand still from the settled share of the steps on, and not before."""
    steps, seen = 8, {}
    for settled in (0.25, 0.5, 1.0):
        found, after = train_steps(settled, steps)
        seen[settled] = after
        assert bool(found.interpretable.categories.frozen)
    assert seen == {0.25: 2, 0.5: 4, 1.0: 8}


def train_steps(settled, steps):
    """Return the net, and after which step its categories' averages changed last."""
    made = interpretable(net(), DATA.x[:2].double(), LAYER, classes=3)
    categories = made.interpretable.categories
    changed, before = [0], [categories.activation.clone()]

    def look(_, done, __):
        if not torch.equal(categories.activation, before[0]):
            changed[0], before[0] = done, categories.activation.clone()

    objective = Filters(
        made, "paper", Strength(), smoothing=0.0, options={}, densities=None, settled=max(1, int(settled * steps))
    )
    fit(made, DATA, Plan(epochs=2, batch=6), objective, progress=("", look))
    return made, changed[0]


# what the losses do


def concentration(model, x):
    """Return the share of activation inside the diamond around each map's peak."""
    with model.recording() as raw, torch.no_grad():
        model(x)
    inside = raw[0] * (masks(raw[0], 4.0, "argmax") > 0)
    mass = raw[0].sum((0, 2, 3)).clamp(min=1e-12)
    return float((inside.sum((0, 2, 3)) / mass).mean())


@pytest.mark.parametrize("loss", [*LOSSES])
def test_filters_gather_around_one_place(loss):
    x = DATA.x.double()
    options = {"epochs": 4, "rate": 1e-2, "augment": False}
    weak, strong = (
        train(net(dropout=0.0), DATA, HELD_OUT, recipe(loss, relative=r, control=False, **options))
        for r in (0.0, 3.0)
    )
    if loss == "mutual-information":
        ends = [[e["inter_category"] + e["spatial"] for e in t.course if "spatial" in e][-1] for t in (weak, strong)]
        assert ends[1] < ends[0] - 0.01
    else:
        assert concentration(strong.interpretable, x) > concentration(weak.interpretable, x) + 0.01


def test_a_strength_of_zero_is_the_mask_alone():
    one, other = (
        train(net(), DATA, HELD_OUT, recipe(loss, **o)) for loss, o in ((None, {}), ("paper", {"relative": 0.0}))
    )
    states = [t.interpretable.state_dict() for t in (one, other)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert [e["weight"] for e in other.course if e["phase"] == "interpretable"] == [0, 0]


def silent():
    """Return a net one of whose filters is dead, and one of whose filters fires nowhere but in one picture."""
    made = net()
    with torch.no_grad():
        made[3].bias[0] = -1e4
        made[3].bias[1] = -3.0
    return made


@pytest.mark.parametrize("loss", ALL, ids=str)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_silent_filters_give_no_nan(loss, precision):
    model = silent() if precision == "float32" else silent().float()
    found = train(model, DATA, HELD_OUT, recipe(loss, precision=precision))
    assert finite(found)
    assert not any(value != value for e in found.course for value in e.values() if isinstance(value, float))


@pytest.mark.parametrize("loss", ALL, ids=str)
def test_a_layer_that_is_all_silent_gives_no_nan(loss):
    made = net()
    with torch.no_grad():
        made[3].bias.fill_(-1e4)
    assert finite(train(made, DATA, HELD_OUT, recipe(loss)))


def test_a_loss_that_is_not_finite_ends_the_training():
    with pytest.raises(NotFiniteError, match="give a lower learning rate"):
        train(
            net(),
            replace(DATA, x=torch.where(torch.arange(24)[:, None, None, None] == 9, torch.inf, DATA.x)),
            HELD_OUT,
            recipe(None),
        )


# one category


@pytest.mark.parametrize("loss", ALL, ids=str)
def test_one_category_stands_against_the_others(loss):
    data, held_out = relabelled(DATA, "high"), relabelled(HELD_OUT, "high")
    found = train(net(1), data, held_out, recipe(loss))
    assert found.interpretable.interpretable.categories is None
    assert finite(found)
    for entry in found.course:
        assert entry.get("categories") is None
        assert entry.get("changed") is None
        right = entry["accuracy"] * 9
        assert right == round(right)
    for name, one in found.nets.items():
        right = sum((one(x[None].double()).item() > 0) == bool(label) for x, label in held_out)
        assert found.accuracy[name] == right / 9


def test_one_logit_learns_the_logistic_loss():
    """The mean over the batch of log(1 + e^-z) for the category and log(1 + e^z) for the others."""
    data, model = relabelled(DATA, "high"), net(1, dropout=0.0)
    plan = Plan(epochs=1, batch=24, augment=False, frozen_statistics=True, smoothing=0.0)
    with torch.no_grad():
        z = model(DATA.x.double())[:, 0]
    expected = sum((1 + (-v if label else v).exp()).log() for v, label in zip(z, data.labels, strict=True)) / 24
    (entry,) = fit(model, data, plan, Task())
    assert entry["task"] == pytest.approx(float(expected), rel=1e-12)


# batches and progress


@pytest.mark.parametrize(("count", "batch"), [(20, 6), (6, 6), (5, 6), (13, 1)])
def test_each_picture_is_seen_at_most_once_an_epoch(count, batch):
    plan = Plan(epochs=3, batch=batch)
    batches = list(Batches(plan, count, Share()))
    each = plan.steps(count)
    assert len(batches) == 3 * each == len(Batches(plan, count, Share()))
    orders = [list(chain.from_iterable(batches[n * each :][:each])) for n in range(3)]
    for order in orders:
        assert len(set(order)) == len(order) == each * plan.pictures(count) > count - batch
        assert set(order) <= set(range(count))
    assert count < 6 or orders[0] != orders[1]
    for start in range(len(batches) + 1):
        assert list(Batches(plan, count, Share(), start)) == batches[start:]


def test_processes_share_each_batch():
    plan = Plan(epochs=2, batch=6)
    whole = list(Batches(plan, 20, Share()))
    shares = [list(Batches(plan, 20, Share(rank, 3))) for rank in range(3)]
    assert [list(chain.from_iterable(parts)) for parts in zip(*shares, strict=True)] == whole
    x = torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    parts = [augmented(x[2 * rank :][:2], plan, 5, Share(rank, 3)) for rank in range(3)]
    assert torch.equal(torch.cat(parts), augmented(x, plan, 5, Share()))
    assert not torch.equal(augmented(x, plan, 5, Share()), augmented(x, plan, 6, Share()))
    with pytest.raises(OptionError, match="a batch of 6 pictures cannot be shared by 4 processes"):
        Share(0, 4).rows(6)


def test_progress_is_told_of_each_step_of_each_phase():
    told = []
    train(net(), DATA, HELD_OUT, recipe(), progress=lambda *now: told.append(now))
    phases = (("plain", 4), ("control", 8), ("interpretable", 8))
    assert told == [(name, n, total) for name, total in phases for n in range(1, total + 1)]


# what is left as it was


def test_what_is_no_net_for_these_pictures_is_refused():
    with pytest.raises(ModelError, match="gives 4 logits for pictures of 3 classes"):
        train(net(4), DATA, HELD_OUT, recipe())
    with pytest.raises(ModelError, match="gives 1 logits for pictures of 3 classes"):
        train(net(1), DATA, HELD_OUT, recipe())
    with pytest.raises(LayerError, match="no layer '44'"):
        train(net(), DATA, HELD_OUT, recipe(layer="44"))
    with pytest.raises(LayerError, match="layer '7' has no map"):
        train(net(), DATA, HELD_OUT, recipe(layer="7"))


@pytest.mark.parametrize("loss", ALL, ids=str)
def test_more_classes_than_filters_need_a_loss_without_categories(loss):
    many = spots(27, classes=3)
    nine = replace(many, labels=torch.arange(27) % 9, classes=tuple("abcdefghi"))
    if loss in LABELLED:
        with pytest.raises(OptionError, match="6 filters cannot stand for 9 classes"):
            train(net(9), nine, nine, recipe(loss))
    else:
        found = train(net(9), nine, nine, recipe(loss))
        assert found.interpretable.interpretable.categories is None
        assert [e["categories"] for e in found.course if e["phase"] == "interpretable"] == [None, None]


def test_a_mask_that_leaves_one_place_is_warned_of():
    small = replace(DATA, x=DATA.x[..., :8, :8])
    with pytest.warns(UserWarning, match="a single one of the 4 x 4 places of layer '4'"):
        train(net(), small, replace(HELD_OUT, x=HELD_OUT.x[..., :8, :8]), recipe())


@pytest.mark.parametrize("changes", [{"precision": "bfloat16"}, {"frozen_statistics": True}, {"frozen": ("0", "1")}])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("stopped", [False, True])
def test_a_training_changes_weights_and_nothing_else(changes, last, stopped):
    model = net().float()
    model.to(memory_format=torch.channels_last if last else torch.contiguous_format)
    model[2].train()
    model[8].bias.requires_grad = False
    everything = {name: (dict(vars(m)), m.training, list(m._forward_hooks)) for name, m in model.named_modules()}
    formats = [p.stride() for p in model.parameters()]
    before = {name: t.clone() for name, t in model.state_dict().items()}
    random, threads = torch.get_rng_state(), torch.get_num_threads()

    def stop(*_):
        if stopped:
            raise RuntimeError

    try:
        fit(model, DATA, Plan(epochs=1, batch=6, **changes), Task(), progress=("", stop))
    except RuntimeError:
        assert stopped
    assert {n: (dict(vars(m)), m.training, list(m._forward_hooks)) for n, m in model.named_modules()} == everything
    assert [p.stride() for p in model.parameters()] == formats
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == ["8.bias"]
    assert all(p.grad is None and p.dtype == torch.float32 for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.get_num_threads() == threads
    after = model.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    kept = {"8.bias"}
    if "frozen_statistics" in changes:
        kept |= {"1.running_mean", "1.running_var", "1.num_batches_tracked"}
    if "frozen" in changes:
        kept |= {name for name in before if name.startswith(("0.", "1."))}
    assert moved == set(before) - kept


def test_the_model_given_is_not_changed():
    model, other = net(), net()
    train(model, DATA, HELD_OUT, recipe())
    assert all(
        torch.equal(a, b) for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True)
    )


def test_half_precision_trains_in_it_and_keeps_weights_and_filter_losses_exact(monkeypatch):
    types = set()

    def spied(x, **options):
        types.add((x.dtype, torch.is_autocast_enabled("cpu")))
        found = LOSSES["mutual-information"](x, **options)
        types.add(found.dtype)
        return found

    monkeypatch.setattr("whence.interpretable.losses.LOSSES", {**LOSSES, "all-positive": spied})
    half, single = (
        train(net().float(), DATA, HELD_OUT, recipe("all-positive", precision=p)) for p in ("bfloat16", "float32")
    )
    assert types == {(torch.bfloat16, True), (torch.float32, False), torch.float32}
    for one in half.nets.values():
        assert {p.dtype for p in one.parameters()} == {torch.float32}
    ends = [[e["task"] for e in t.course] for t in (half, single)]
    assert ends[0] != ends[1]
    assert ends[0] == pytest.approx(ends[1], rel=0.05)


def test_float16_is_refused_on_the_cpu():
    with pytest.raises(OptionError, match=r"float16.* on the cpu give 'bfloat16'"):
        Plan(epochs=1, precision="float16")


@pytest.mark.parametrize("device", ["cuda", "mps", "tpu9"])
def test_a_device_that_is_not_there_is_refused(device):
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(OptionError, match=f"device='{device}': there is none here, give 'c"):
        fit(net(), DATA, Plan(epochs=1, device=device), Task())


def test_a_wrapper_without_ours_is_the_plain_net():
    found = train(net(), DATA, HELD_OUT, recipe())
    state = {k: v for k, v in found.interpretable.state_dict().items() if not k.startswith("interpretable.")}
    fresh = net(seed=5)
    fresh.load_state_dict(state)
    x = HELD_OUT.x.double()
    assert torch.equal(fresh(x), found.interpretable.plain()(x))
    assert isinstance(found.plain, nn.Sequential)


# what is weighed, and what is refused


def test_pictures_of_rare_classes_weigh_more():
    """The share that goes to the loss is that of each filter's category, as it is at that step."""
    model = interpretable(net(), torch.stack([DATA[0][0]]), LAYER, classes=3)
    shares = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    given = {"smoothing": 0.0, "options": {}, "densities": shares, "settled": 9}
    objective = Filters(model, "label-aware", Strength(), **given)
    for favourite in (torch.arange(FILTERS) % 3, (torch.arange(FILTERS) + 1) % 3):
        model.interpretable.categories.activation.copy_(torch.eye(3)[:, favourite])
        model.interpretable.categories.seen.fill_(True)
        assert objective._options()["density"].tolist() == shares[favourite].tolist()
    assert Filters(model, "paper", Strength(), **given)._options() == {}


def test_weights_that_are_no_numbers_are_no_result():
    with pytest.raises(NotFiniteError, match="has become NaN or infinite"):
        train(net(), DATA, HELD_OUT, replace(recipe("paper", epochs=2), options={"gain": float("nan")}))


@pytest.mark.parametrize("rate", [float("nan"), float("inf"), 0.0])
def test_a_rate_that_is_none_is_refused(rate):
    with pytest.raises(OptionError, match="rate"):
        Plan(epochs=1, rate=rate)


def test_what_is_frozen_is_named_as_in_the_plain_net():
    plan = replace(recipe(None).plan, frozen=("0",))
    found = train(net(), DATA, HELD_OUT, replace(recipe("all-positive"), plan=plan))
    start = found.plain.state_dict()["0.weight"]
    assert all(torch.equal(one.state_dict()["0.weight"], start) for one in found.nets.values())
    with pytest.raises(OptionError, match="has no such submodule"):
        train(net(), DATA, HELD_OUT, replace(recipe(None), plan=replace(plan, frozen=("model.0",))))


def test_no_pictures_are_refused():
    with pytest.raises(OptionError, match="0 held out"):
        train(net(), DATA, spots(0), recipe(None))


def test_data_sets_that_do_not_tell_their_classes_are_refused(unchecked):
    pairs = torch.utils.data.TensorDataset(torch.rand(4, 1, 12, 12), torch.arange(4))
    with pytest.raises(OptionError, match="a TensorDataset does not tell its classes: give picture_folder"):
        train(net(), pairs, HELD_OUT, recipe(None))
