"""The rows of a shard: what attribute() says of the same batches, and what becomes of pictures that fail."""

import json
import shutil

import pytest
import torch
from torch import Tensor

import whence
from core_samples import LABELS, net, picture, pictures, plan, steady, table
from small_nets import Lambda, SmallNet, SmallViT, drawn, tiny_options
from whence.asking import written
from whence.errors import ModelError, TargetError, UnsupportedError
from whence.models.load import load_model
from whence.pictures.read import read
from whence.registry import METHODS
from whence.studies import shard as shards
from whence.studies.loading import DIED
from whence.studies.shard import Worker, of_the_machine
from whence.studies.tables import MAP, columns, map_of

BROKEN = 2


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return pictures(tmp_path_factory.mktemp("shard") / "p", 6)


@pytest.fixture
def own(root, tmp_path):
    """The same pictures, which a test may change."""
    return shutil.copytree(root, tmp_path / "p")


def batch(root, model, numbers):
    return torch.stack([model.preprocess(read(root / f"{number:03d}.png")).input for number in numbers])


def maps(rows, where=None):
    """Return the maps of the rows that have one, in order, whatever their shapes."""
    found = {}
    for name in rows.column_names:
        if name.startswith(MAP):
            column = rows[name].combine_chunks()
            numbers = [i for i, valid in enumerate(column.is_valid().to_pylist()) if valid]
            found |= dict(zip(numbers, map_of(column.drop_null()), strict=True))
    return [torch.tensor(found[i]) for i in sorted(found) if where is None or i in where]


def same(one, other):
    """Return whether rows and maps are the same, to the bit."""
    return steady(one).equals(steady(other))


def only(rows, numbers):
    return rows.take([i for i, number in enumerate(rows["number"].to_pylist()) if number in numbers])


def test_there_is_one_row_for_each_picture_model_and_method_in_order(root):
    models = [net(), net(1, 20, name="two")]
    job = plan(root, *models, methods=["gradient", "grad-cam"], batch=2, shard=4)
    rows = [Worker(job, models).explain(number) for number in job.shards]
    for made, numbers in zip(rows, ([0, 1, 2, 3], [4, 5]), strict=True):
        assert list(zip(*(made[name].to_pylist() for name in ("number", "model", "method")), strict=True)) == [
            (number, model, method)
            for number in numbers
            for model in ("net", "two")
            for method in ("gradient", "grad-cam")
        ]
        assert made["picture"].to_pylist() == [f"{number:03d}.png" for number in numbers for _ in range(4)]
        assert set(made["status"].to_pylist()) == {"ok"}
        assert made.column_names[: len(columns(job))] == list(columns(job))
    assert made["sha256"].to_pylist()[0] == job.pictures[4].sha256
    assert same(Worker(job, models).explain(1), rows[1])


@pytest.mark.parametrize("name", METHODS.names())
def test_the_numbers_are_those_of_attribute_on_the_same_batches(root, name):
    facts = METHODS.facts(name)
    model = net(net=drawn(SmallViT() if facts.needs == "attention" else SmallNet()))
    options = tiny_options(facts)
    text = ":".join(filter(None, (name, written(options))))
    job = plan(root, model, methods=[text], batch=4, shard=6)
    rows = Worker(job, [model]).explain(0)
    found, told = maps(rows), rows.to_pylist()
    assert {row["method"] for row in told} == {text}
    for numbers in ([0, 1, 2, 3], [4, 5]):
        x = batch(root, model, numbers)
        answer = whence.attribute(model, x, name, **options)
        probabilities = answer.logits.double().softmax(1)
        for i, number in enumerate(numbers):
            values, row = answer.values[i], told[number]
            assert torch.equal(found[number].reshape(values.shape), values)
            top = int(answer.target[i])
            assert (row["target"], row["target_label"], row["layer"]) == (top, LABELS[top], answer.layer)
            assert (row["predicted"], row["predicted_label"]) == (top, LABELS[top])
            assert row["score"] == float(answer.score[i])
            assert row["residual"] == (None if answer.residual is None else float(answer.residual[i]))
            assert row["probability"] == row["predicted_probability"] == float(probabilities[i, top])
            each = answer.passes.share(len(x))
            assert (row["forward"], row["backward"], row["partial"]) == (each.forward, each.backward, each.partial)
            assert row["notes"] == list(answer.notes[i])
            assert row["seconds"] > 0
            graph = answer.graphs[i].to_json() if answer.graphs else None
            assert (None if row["graph"] is None else json.loads(row["graph"])) == json.loads(json.dumps(graph))


@pytest.mark.parametrize("target", ["bee", "3", "second", "ant - eel", "probability:cat", "log-odds:top"])
def test_targets_are_those_of_attribute(root, target):
    model = net()
    rows = Worker(plan(root, model, target=target), [model]).explain(0)
    answer = whence.attribute(model, batch(root, model, range(4)), "gradient", target=target)
    assert rows["target"].to_pylist()[:4] == answer.target.tolist()
    assert rows["score"].to_pylist()[:4] == answer.score.tolist()
    assert all(torch.equal(one, other) for one, other in zip(maps(rows), answer.values, strict=False))
    assert rows["predicted"].to_pylist()[:4] == answer.logits.argmax(1).tolist()
    assert rows["probability"].to_pylist()[:4] == answer.logits.double().softmax(1)[
        range(4), answer.target
    ].tolist()  # fmt: skip


def test_batches_are_cut_within_a_shard_and_tell_their_pictures(root):
    sizes, told = [], []
    model = net()
    job = plan(root, model, batch=2, shard=5)
    module = model.module
    module.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    rows = Worker(job, [model]).explain(0, tell=told.append)
    assert told == [2, 2, 1]
    assert sizes[-3:] != [5]
    assert rows.num_rows == 5
    lone = whence.attribute(net(), batch(root, model, [4]), "gradient").values[0]
    assert torch.equal(maps(rows)[4], lone)


@pytest.mark.parametrize("methods", [["gradient", "grad-cam"], ["ablation-cam", "integrated-gradients:steps=4"]])
def test_a_picture_that_cannot_be_read_is_one_row_and_changes_no_other(own, methods):
    models = [net(), net(1, 20, name="two")]
    wanted = {"methods": methods, "metrics": ["deletion:grid=4"], "batch": 4, "shard": 6}
    whole = Worker(plan(own, *models, **wanted), models).explain(0)
    (own / f"{BROKEN:03d}.png").write_bytes(b"no picture at all")
    job = plan(own, *models, **wanted)
    rows = Worker(job, models).explain(0)
    others = set(range(6)) - {BROKEN}
    assert same(only(rows, others), only(whole, others))
    failed = only(rows, {BROKEN}).to_pylist()
    assert [(row["model"], row["method"]) for row in failed] == [
        (model, method) for model in ("net", "two") for method in methods
    ]
    for row in failed:
        assert row["status"] == "PictureError"
        assert "002.png" in row["error"]
        absent = {"predicted", "target", "score", "residual", "deletion:grid=4", "forward", "layer", "notes"}
        assert {row[name] for name in absent} == {None}
        assert row["sha256"] == job.pictures[BROKEN].sha256
        assert not [name for name in row if name.startswith(MAP) and row[name] is not None]


def test_a_hole_is_not_touched_and_changes_no_other(own):
    model = net()
    job = plan(own, model, batch=4, shard=6)
    whole = Worker(job, [model]).explain(0)
    (own / f"{BROKEN:03d}.png").unlink()
    rows = Worker(job, [model]).explain(0, frozenset({BROKEN}))
    others = set(range(6)) - {BROKEN}
    assert same(only(rows, others), only(whole, others))
    (failed,) = only(rows, {BROKEN}).to_pylist()
    assert failed["status"] == DIED
    assert failed["error"] == "the process that explained it died each time"


def test_a_picture_that_changed_or_went_is_refused(own):
    model = net()
    job = plan(own, model)
    picture(own / "001.png", 77)
    (own / "003.png").unlink()
    rows = Worker(job, [model]).explain(0).to_pylist()
    assert [row["status"] for row in rows] == ["ok", "PictureError", "ok", "PictureError", "ok", "ok"]
    assert "another picture than when the study began" in rows[1]["error"]
    assert "003.png" in rows[3]["error"]
    assert rows[1]["sha256"] == job.pictures[1].sha256


def test_a_shard_of_nothing_but_broken_pictures_has_its_rows(own):
    for path in own.iterdir():
        path.write_bytes(b"")
    model = net()
    rows = Worker(plan(own, model), [model]).explain(0)
    assert rows["status"].to_pylist() == ["PictureError"] * 6
    assert not [name for name in rows.column_names if name.startswith(MAP)]


def raising(error, seed=BROKEN):
    """Return a net that raises an error at a batch that holds a certain picture."""
    inner = drawn(SmallNet()).float()

    def forward(module: Lambda, x: Tensor) -> Tensor:
        if any(torch.equal(one, marked) for one in x.detach()):
            raise error
        return module.inner(x)

    made = net(net=Lambda(forward, inner=inner))
    marked = torch.full((3, 16, 16), 9.0)
    return made, lambda root: marked.copy_(batch(root, made, [seed])[0])


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (RuntimeError("broken"), "ModelError"),
        (ZeroDivisionError("broken"), "ZeroDivisionError"),
        (KeyError("broken"), "KeyError"),
        (AttributeError("broken"), "AttributeError"),
        (OSError("broken"), "OSError"),
        (Exception("broken"), "Exception"),
    ],
)
def test_a_picture_at_which_the_model_raises_anything_is_one_row(root, error, kind):
    model, mark = raising(error)
    job = plan(root, model, methods=["gradient", "grad-cam"])
    mark(root)
    rows = Worker(job, [model]).explain(0)
    statuses = {(row["number"], row["status"]) for row in rows.to_pylist()}
    assert statuses == {(number, kind if number == BROKEN else "ok") for number in range(6)}
    assert all("broken" in row["error"] for row in only(rows, {BROKEN}).to_pylist())
    # Those of its batch were explained one by one, and the others together as ever.
    plain = net()
    alone = whence.attribute(plain, batch(root, plain, [0]), "gradient").values[0]
    together = whence.attribute(plain, batch(root, plain, [4, 5]), "gradient").values
    assert torch.equal(maps(rows, {0})[0], alone)
    assert torch.equal(maps(rows, {8})[0], together[0])
    assert same(Worker(job, [model]).explain(0), rows)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError(), SystemExit()])
def test_what_ends_a_process_is_no_row(root, error):
    model, mark = raising(error)
    job = plan(root, model)
    mark(root)
    with pytest.raises(type(error)):
        Worker(job, [model]).explain(0)


def test_a_method_that_raises_for_one_picture_is_one_row(root, monkeypatch):
    real = shards.attribute_all

    def spied(model, x, method, wanted, options, *, names, seed):
        if "002.png" in names and method == "gradient":
            raise AssertionError("never\nexpected")
        return real(model, x, method, wanted, options, names=names, seed=seed)

    monkeypatch.setattr(shards, "attribute_all", spied)
    model = net()
    rows = Worker(plan(root, model, methods=["gradient", "grad-cam"]), [model]).explain(0).to_pylist()
    assert {(row["number"], row["method"]) for row in rows if row["status"] != "ok"} == {(BROKEN, "gradient")}
    (failed,) = [row for row in rows if row["status"] != "ok"]
    assert (failed["status"], failed["error"]) == ("AssertionError", "never expected")


def test_a_method_that_the_model_does_not_support_is_an_error_and_no_rows(root):
    models = [net(), net(net=drawn(SmallViT()), name="vit")]
    with pytest.raises(UnsupportedError, match="attention"):
        Worker(plan(root, *models, methods=["gradient", "attention-rollout"]), models).explain(0)


def test_a_target_that_no_model_knows_is_an_error_and_no_rows(root, own):
    model = net()
    for target in ("zebra", "17", "ant - zebra"):
        with pytest.raises(TargetError):
            Worker(plan(root, model, target=target), [model]).explain(0)
    for path in own.iterdir():
        path.write_bytes(b"")
    with pytest.raises(TargetError):
        Worker(plan(own, model, target="zebra"), [model]).explain(0)


def test_two_models_see_a_picture_as_their_own_preprocessing_makes_it(root):
    models = [net(), net(0, 24, name="large")]
    job = plan(root, *models, methods=["gradient", "grad-cam", "grad-cam:layer=stem"], shard=6, batch=6)
    rows = Worker(job, models).explain(0)
    assert {name for name in rows.column_names if name.startswith(MAP)} == {
        "map_3x16x16", "map_3x24x24", "map_1x8x8", "map_1x12x12", "map_1x16x16", "map_1x24x24"
    }  # fmt: skip
    for place, model in enumerate(models):
        for method, options in (("gradient", {}), ("grad-cam", {}), ("grad-cam", {"layer": "stem"})):
            text = ":".join([method, *(f"{key}={value}" for key, value in options.items())])
            own = [i for i, row in enumerate(rows.select(["model", "method"]).to_pylist())
                   if (row["model"], row["method"]) == (job.models[place].name, text)]  # fmt: skip
            answer = whence.attribute(model, batch(root, model, range(6)), method, **options)
            assert all(torch.equal(a, b) for a, b in zip(maps(rows, set(own)), answer.values, strict=True))


def test_of_several_layers_the_row_holds_the_map_of_the_last(root):
    model = net()
    rows = Worker(plan(root, model, methods=["grad-cam:layer=stem+down"], batch=6), [model]).explain(0)
    answer = whence.attribute(model, batch(root, model, range(6)), "grad-cam", layer=("stem", "down"))
    assert rows["layer"].to_pylist() == [answer.layer] * 6
    assert all(torch.equal(a, b) for a, b in zip(maps(rows), answer.values, strict=True))


def test_true_classes_are_explained_and_compared(root, tmp_path):
    names = ["ant", "BEE", "yak", "dog", "eel", "ant"]
    truth = table(tmp_path, {f"{i:03d}.png": name for i, name in enumerate(names)})
    models = [net(), net(labels=("yak", "ant", "bee", "x", "y"), name="other"), net(labels=None, name="mute")]
    job = plan(root, *models, truth=truth, target="truth", batch=6)
    rows = Worker(job, models).explain(0).to_pylist()
    known = {"net": [0, 1, None, 3, 4, 0], "other": [1, 2, 0, None, None, 1], "mute": [None] * 6}
    for row in rows:
        index = known[row["model"]][row["number"]]
        assert row["truth"] == names[row["number"]]
        assert row["truth_index"] == index
        assert row["target"] == index
        if index is None:
            assert row["status"] == "TargetError"
            assert row["error"] == f"{row['model']} has no class of the name of the true one"
        else:
            assert row["status"] == "ok"
            assert row["correct"] == (row["predicted"] == index)
    assert {row["correct"] for row in rows} >= {False}
    # Explained with the others of the batch, not without those that have no class.
    wanted = [0, 1, None, 3, 4, 0]
    answer = whence.attribute(models[0], batch(root, models[0], range(6)), "gradient", target=wanted)
    found = Worker(plan(root, models[0], truth=truth, target="truth", batch=6), models[:1]).explain(0)
    assert all(torch.equal(a, answer.values[i]) for a, i in zip(maps(found), (0, 1, 3, 4, 5), strict=True))


def test_without_a_target_the_true_class_is_compared_with_the_top_one(root, tmp_path):
    model = net()
    x = batch(root, model, range(6))
    guesses = model.module(x).argmax(1).tolist()
    labels = [LABELS[guess] if i % 2 else LABELS[guess - 1] for i, guess in enumerate(guesses)]
    truth = table(tmp_path, {f"{i:03d}.png": label for i, label in enumerate(labels[:5])})
    rows = Worker(plan(root, model, truth=truth), [model]).explain(0).to_pylist()
    assert [row["correct"] for row in rows] == [False, True, False, True, False, None]
    assert [row["truth_index"] for row in rows[:5]] == [LABELS.index(label) for label in labels[:5]]
    assert [row["predicted"] for row in rows] == guesses


def test_where_sigmoids_end_at_one_the_top_class_is_still_the_one_explained(root):
    inner = drawn(SmallNet()).float()
    loud = Lambda(lambda module, x: 60 + 10 * module.inner(x).sigmoid(), inner=inner)
    model = net(net=loud, activation="sigmoid")
    rows = Worker(plan(root, model), [model]).explain(0).to_pylist()
    assert {row["predicted_probability"] for row in rows} == {1.0}
    assert [row["predicted"] for row in rows] == [row["target"] for row in rows]
    assert len({row["predicted"] for row in rows} | {0}) > 1


@pytest.mark.parametrize("kind", ["float32", "float16", "none"])
def test_maps_are_kept_in_the_type_asked_for(root, kind):
    model = net()
    rows = Worker(plan(root, model, maps=kind, batch=6), [model]).explain(0)
    answer = whence.attribute(model, batch(root, model, range(6)), "gradient")
    found = maps(rows)
    assert len(found) == (0 if kind == "none" else 6)
    for one, value in zip(found, answer.values, strict=False):
        assert torch.equal(one, value.to(getattr(torch, kind)))
    assert rows["score"].to_pylist() == answer.score.tolist()


def test_the_threads_are_those_of_the_job_inside_and_those_of_before_afterwards(root):
    seen = []
    inner = drawn(SmallNet()).float()
    model = net(net=Lambda(lambda module, x: (seen.append(torch.get_num_threads()), module.inner(x))[1], inner=inner))
    job = plan(root, model, threads=2)
    seen.clear()
    before = torch.get_num_threads()
    Worker(job, [model]).explain(0)
    assert set(seen) == {2}
    assert torch.get_num_threads() == before
    model, mark = raising(KeyboardInterrupt())
    job = plan(root, model, threads=2)
    mark(root)
    with pytest.raises(KeyboardInterrupt):
        Worker(job, [model]).explain(0)
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("loaders", [0, 2])
def test_explaining_leaves_model_and_generators_as_they_were(root, loaders):
    model = net()
    model.module.train()
    model.module.requires_grad_(False)
    kept = {name: tensor.clone() for name, tensor in model.module.state_dict().items()}
    job = plan(root, model, methods=["smoothgrad:samples=2", "grad-cam"], metrics=["deletion:grid=4"])
    state = torch.get_rng_state()
    Worker(job, [model], loaders=loaders).explain(0)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.module.training
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in model.module.parameters())
    assert all(torch.equal(tensor, kept[name]) for name, tensor in model.module.state_dict().items())
    assert not any(module._forward_hooks for module in model.module.modules())


def test_what_is_random_outside_changes_no_row(root):
    model = net()
    job = plan(root, model, methods=["smoothgrad:samples=2", "rise:samples=4"])
    with torch.random.fork_rng():
        torch.manual_seed(1)
        first = Worker(job, [model]).explain(0)
        torch.manual_seed(2)
        assert same(Worker(job, [net()]).explain(0), first)


def test_models_are_loaded_by_their_specs_where_none_are_given(tmp_path, unchecked):
    root = pictures(tmp_path / "p", 2)
    model = load_model("creatures")
    job = plan(root, model, methods=["grad-cam"])
    assert same(Worker(job).explain(0), Worker(job, [model]).explain(0))


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("no more")])
def test_what_the_machine_lacks_is_no_fault_of_a_picture(error):
    wrapped = ModelError("the model runs out of memory")
    wrapped.__cause__ = error
    assert of_the_machine(error)
    assert of_the_machine(wrapped)
    assert not of_the_machine(ModelError("the model cannot take it"))
    assert not of_the_machine(RuntimeError())
