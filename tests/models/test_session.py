"""One guarded use of a model."""

import weakref

import pytest
import torch
from torch import Tensor, nn

from small_nets import Lambda, SmallNet, drawn, pictures
from whence import attribute
from whence.attribution import attribute_all
from whence.errors import LayerError, ModelError, NotFiniteError, TargetError
from whence.models import session as session_module
from whence.models.classifier import Classifier
from whence.models.session import chunk_size, move, opened
from whence.pictures.preprocess import Preprocess
from whence.results import Passes

# Passes


@pytest.mark.parametrize(
    ("method", "passes"),
    [("gradient", Passes(forward=3, backward=3)), ("grad-cam", Passes(forward=3, partial=3))],
)
def test_the_passes_of_a_batch_are_its_pictures(method: str, passes: Passes) -> None:
    assert attribute(Classifier(drawn(SmallNet())), pictures(3), method).passes == passes


def test_choosing_a_layer_is_not_counted() -> None:
    model = Classifier(drawn(SmallNet()))
    first, second = (attribute(model, pictures(), "grad-cam").passes for _ in range(2))
    assert first == second


def test_passes_of_all_chunks_are_summed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "_CHUNK_VALUES", 2 * 3 * 16 * 16)
    answer = attribute(Classifier(drawn(SmallNet())), pictures(5), "gradient")
    assert answer.passes == Passes(forward=5, backward=5)
    assert answer.values.shape == (5, 3, 16, 16)


def test_one_picture_is_given_its_even_share() -> None:
    answer = attribute(Classifier(drawn(SmallNet())), pictures(3), "gradient")
    assert answer.picture(1).passes == Passes(forward=1, backward=1)
    assert torch.equal(answer.picture(1).values, answer.values[1:2])


@pytest.mark.parametrize(("side", "count"), [(224, 6), (448, 1), (112, 24), (4000, 1)])
def test_the_larger_the_picture_the_smaller_the_chunk(side: int, count: int) -> None:
    assert chunk_size(torch.empty(3, 3, side, side, device="meta")) == count


# Several targets share a pass


def test_several_targets_share_the_forward_pass_and_give_what_each_gives_alone() -> None:
    model, x = Classifier(drawn(SmallNet())), pictures()
    wanted = [0, "second", "1 - 3", lambda output: output.sum(1)]
    for method in ("gradient", "grad-cam"):
        together = attribute_all(model, x, method, wanted, {})
        assert [answer.passes.forward for answer in together] == [2, 0, 0, 0]
        for target, answer in zip(wanted, together, strict=True):
            assert torch.equal(answer.values, attribute(model, x, method, target=target).values)


def test_a_pass_is_shared_only_by_the_very_same_batch() -> None:
    net, x = drawn(SmallNet()), pictures()
    with opened(Classifier(net), sharing=True) as session:
        session.record(x)
        assert torch.equal(session.record(x.clone() + 1).output, net(x + 1))
        kept = weakref.ref(batch := pictures())
        session.record(batch)
        # Were it freed, the next batch might be taken for it.
        del batch
        assert kept() is not None


def test_a_pass_is_shared_only_for_the_very_same_layers() -> None:
    x = pictures()
    with opened(Classifier(drawn(SmallNet())), sharing=True) as session:
        first = session.record(x, ["stem"])
        assert session.record(x, ["stem"]) is first
        assert list(session.record(x, ["down"]).activations) == ["down"]
        assert session.record(x).input is not None


def test_nothing_is_kept_where_nothing_is_shared() -> None:
    x = pictures()
    with opened(Classifier(drawn(SmallNet()))) as session:
        assert session.record(x) is not session.record(x)
        assert session.passes == Passes(forward=4)


# Errors


def test_an_input_that_the_model_cannot_take_is_refused_with_its_shape_and_the_stated_one() -> None:
    model = Classifier(drawn(SmallNet()), Preprocess(resize=16, crop=16), name="mine")
    match = r"mine cannot take an input of shape \[2, 1, 16, 16\] \(its preprocessing states \[3, 16, 16\]\)"
    with pytest.raises(ModelError, match=match) as error:
        attribute(model, pictures(channels=1), "gradient")
    assert isinstance(error.value.__cause__, RuntimeError)
    assert "\n" not in str(error.value)


def test_not_finite_names_the_first_picture_concerned() -> None:
    with opened(Classifier(SmallNet()), names=["a.png", "b.png", "c.png"]) as session:
        with pytest.raises(NotFiniteError, match=r"b\.png: the map holds NaN or infinity"):
            session.finite(torch.tensor([[0.0], [torch.nan], [torch.inf]]), "the map")
        with pytest.raises(NotFiniteError, match="the batch: tokens"):
            session.finite(torch.full((9, 3, 2), torch.nan), "tokens")
        session.finite(torch.zeros(3, 0), "nothing")


def test_a_score_of_another_length_is_refused() -> None:
    with pytest.raises(TargetError, match="returned 3 numbers for 2 pictures"):
        attribute(Classifier(drawn(SmallNet())), pictures(), "gradient", target=lambda output: output.new_ones(3))


def test_a_layer_without_a_spatial_map_is_refused_with_its_shape() -> None:
    net = drawn(Lambda(lambda n, x: n.head(n.flat(x)[:, :, 0]), flat=nn.Flatten(1, 2), head=nn.Linear(48, 5)))
    with pytest.raises(LayerError, match=r"'flat' returns \[2, 48, 16\] for 2 inputs of 16 x 16"):
        attribute(Classifier(net), pictures(), "grad-cam", layer="flat")


# Inputs


def test_a_batch_is_moved_to_the_models_type_and_off_its_graph() -> None:
    x = pictures().requires_grad_()
    moved = move(Classifier(SmallNet()), x)
    assert moved.dtype == torch.float32
    assert not moved.requires_grad


def test_an_input_made_in_inference_mode_that_is_read_again_behind_the_layer() -> None:
    layers = {"conv": nn.Conv2d(3, 8, 3), "late": nn.Conv2d(3, 8, 3), "head": nn.Linear(8, 5)}
    net = drawn(Lambda(lambda n, x: n.head((n.conv(x) * n.late(x)).mean((2, 3))), **layers))
    with torch.inference_mode():
        x = pictures()
    expected = attribute(Classifier(net), pictures(), "grad-cam", layer="conv").values
    assert torch.equal(attribute(Classifier(net), x, "grad-cam", layer="conv").values, expected)


def test_an_input_that_is_worked_on_in_place_is_whole_again_at_the_next_pass() -> None:
    net = drawn(Lambda(lambda n, x: n.head(x.mul_(2).mean((2, 3))), head=nn.Linear(3, 5)))
    x = pictures()
    with opened(Classifier(net)) as session:
        first, second = session.run(x), session.run(x)
    assert torch.equal(first, second)
    assert torch.equal(x, pictures())


# The modes inside


def test_inside_a_session_the_model_is_in_eval_mode_and_no_graph_is_made() -> None:
    net = drawn(SmallNet()).train()
    with torch.inference_mode(), opened(Classifier(net)) as session:
        assert not any(layer.training for layer in net.modules())
        assert not torch.is_inference_mode_enabled()
        assert not torch.is_grad_enabled()
        assert not session.run(pictures()).requires_grad
    assert all(layer.training for layer in net.modules())


@pytest.mark.parametrize("seed", [0, 7])
def test_what_a_model_draws_depends_on_the_seed_alone(seed: int) -> None:
    drawn_numbers = []
    for _ in range(2):
        torch.rand(5)
        with opened(Classifier(SmallNet()), seed=seed):
            drawn_numbers.append(torch.rand(3))
    assert torch.equal(*drawn_numbers)
    assert torch.equal(drawn_numbers[0], torch.rand(3, generator=torch.Generator().manual_seed(seed)))


def test_a_session_may_be_opened_inside_a_session_of_the_same_model() -> None:
    model, x = Classifier(drawn(SmallNet())), pictures()
    expected = attribute(model, x, "grad-cam", target=1).values

    def target(output: Tensor) -> Tensor:
        assert torch.equal(attribute(model, x, "grad-cam", target=1).values, expected)
        return output[:, 1]

    assert torch.equal(attribute(model, x, "grad-cam", target=target).values, expected)


def test_what_is_kept_for_several_targets_is_of_one_batch_alone() -> None:
    made: list[str] = []
    first, second = pictures(), pictures(seed=1)
    with opened(Classifier(drawn(SmallNet())), sharing=True) as session:
        for x, what in ((first, "a"), (first, "b"), (first, "a"), (second, "a"), (first, "a")):
            session.once(x, (what,), lambda what=what: made.append(what))
        assert session.replay(first, "block") is session.replay(first, "block")
    assert made == ["a", "b", "a", "a"]


def test_a_share_of_a_batch_loses_no_pass() -> None:
    assert Passes(forward=1, partial=16).share(8) == Passes(forward=1, partial=2)
