"""Running only what comes after a layer gives what a full run with the layer's output replaced gives."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from small_nets import Lambda, SmallNet, SmallViT, drawn, pictures, relative
from whence.errors import LayerError, NotFiniteError
from whence.models.classifier import Classifier
from whence.models.load import load_model
from whence.models.outputs import logits_of
from whence.models.session import opened
from whence.models.taps import replaced
from whence.results import Passes

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script. is deprecated:FutureWarning")

ROWS = torch.tensor([2, 0, 0, 1, 2])


def disturbed(activation: Tensor, rows: Tensor, axis: int = 0) -> Tensor:
    """Return the activations of ``rows``, every value scaled by a factor of its own."""
    picked = activation.index_select(axis, rows)
    return picked * torch.rand(picked.shape, generator=torch.Generator().manual_seed(5)).to(picked)


def replayed(net: nn.Module, layer: str, x: Tensor, rows: Tensor = ROWS, axis: int = 0) -> tuple[Tensor, Tensor, str]:
    """Return the logits of a replay and of a full run on the same activations, and why full runs were needed."""
    with opened(Classifier(net)) as session:
        replay = session.replay(x, layer)
        activations = disturbed(replay.activation, rows, axis)
        before = activations.clone()
        short = logits_of(session.replayed(replay, activations, rows)).clone()
        assert torch.equal(activations, before)
        with replaced(session.module, layer, lambda _: activations.clone()):
            full = logits_of(session.module(x[rows].clone()))
        return short.detach(), full.detach(), replay.plan.reason


def assert_replays(net: nn.Module, layer: str, x: Tensor | None = None, axis: int = 0) -> None:
    short, full, reason = replayed(net, layer, pictures(3) if x is None else x, axis=axis)
    assert reason == ""
    assert relative(short, full) <= 1e-12
    # The disturbance must matter, or nothing is shown.
    assert full.std(0).max() > 1e-9


def assert_falls_back(net: nn.Module, layer: str, match: str = "") -> None:
    short, full, reason = replayed(net, layer, pictures(3))
    assert reason
    assert match in reason
    assert relative(short, full) <= 1e-12


def small(function: Callable[..., object], **layers: nn.Module) -> nn.Module:
    """Return a drawn net: ``function`` over a first convolution, its layers, and a head on the mean of eight maps."""
    net = Lambda(function, conv=nn.Conv2d(3, 8, 3, padding=1), **layers, head=nn.Linear(8, 5))
    return drawn(net)


# Small nets

SMALL_LAYERS = ["stem", "stem.0", "stem.1", "relu", "block", "block.conv", "block.bn", "block.relu", "down", "relu#1"]


@pytest.mark.parametrize("layer", SMALL_LAYERS)
@pytest.mark.parametrize("inplace", [True, False])
def test_every_layer_of_a_small_net(layer: str, inplace: bool) -> None:
    assert_replays(drawn(SmallNet(inplace=inplace)), layer)


@pytest.mark.parametrize(
    "layer", ["patch", "blocks.0", "blocks.0.attn", "blocks.1.attn.qkv", "blocks.1.norm2", "norm"]
)
@pytest.mark.parametrize("token", [True, False])
def test_every_layer_of_a_small_transformer(layer: str, token: bool) -> None:
    assert_replays(drawn(SmallViT(token=token)), layer)


@pytest.mark.parametrize("rows", [[0], [1], [0, 1, 2], [2, 1, 0], [1, 1, 1, 1], [0, 2] * 5])
def test_any_mixture_of_pictures(rows: list[int]) -> None:
    short, full, reason = replayed(drawn(SmallNet()), "block.bn", pictures(3), torch.tensor(rows))
    assert reason == ""
    assert short.shape == (len(rows), 5)
    assert relative(short, full) <= 1e-12


def test_the_activation_of_a_replay_is_what_the_layer_returned() -> None:
    net, x = drawn(SmallNet()), pictures(3)
    with opened(Classifier(net)) as session:
        activation = session.replay(x, "block.bn").activation
    assert torch.equal(activation, net.block.bn(net.block.conv(net.stem(x).relu())))


def test_a_second_replay_and_a_second_session_give_the_same() -> None:
    model, x = Classifier(drawn(SmallNet())), pictures(3)
    outputs = []
    for _ in range(2):
        with opened(model) as session:
            replay = session.replay(x, "block.bn")
            outputs += [session.replayed(replay, disturbed(replay.activation, ROWS), ROWS) for _ in range(2)]
    assert all(torch.equal(output, outputs[0]) for output in outputs)


def test_a_gradient_flows_through_a_replay() -> None:
    net, x = drawn(SmallNet()), pictures(3)
    with opened(Classifier(net)) as session:
        replay = session.replay(x, "block")
        leaf = replay.activation.clone().requires_grad_()
        with torch.enable_grad():
            score = session.replayed(replay, leaf, torch.arange(3))[:, 1].sum()
        (gradient,) = torch.autograd.grad(score, leaf)
    activation = net.block(net.stem(x).relu_()).detach().requires_grad_()
    score = net.head(net.down(activation).relu().mean((2, 3)))[:, 1].sum()
    torch.testing.assert_close(gradient, torch.autograd.grad(score, activation)[0], rtol=1e-12, atol=1e-15)


# The trunk is skipped


class Counted(nn.Module):
    """An identity that counts its calls and the pictures in them."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.calls.append(len(x))
        return x.clone()


def test_a_replay_does_not_run_what_comes_before_the_layer() -> None:
    layers = {"before": Counted(), "layer": nn.Conv2d(8, 8, 3), "after": Counted()}
    net = small(lambda n, x: n.head(n.after(n.layer(n.before(n.conv(x)))).relu().mean((2, 3))), **layers)
    with opened(Classifier(net)) as session:
        replay = session.replay(pictures(3), "layer")
        for layer in (net.before, net.after):
            layer.calls.clear()
        session.replayed(replay, disturbed(replay.activation, ROWS), ROWS)
    assert net.before.calls == []
    assert net.after.calls == [5]


def test_a_recording_ends_at_the_layer() -> None:
    layers = {"layer": nn.Conv2d(8, 8, 3), "after": Counted()}
    net = small(lambda n, x: n.head(n.after(n.layer(n.conv(x))).relu().mean((2, 3))), **layers)
    model, x = Classifier(net), pictures(3)
    with opened(model) as session:
        session.replay(x, "layer")
        net.after.calls.clear()
        session.replay(x, "layer")
    assert net.after.calls == []


def test_replays_count_as_partial_passes_and_full_runs_as_full_ones() -> None:
    def passes(net: nn.Module) -> Passes:
        with opened(Classifier(net)) as session:
            replay = session.replay(pictures(3), "conv")
            session.replayed(replay, replay.activation[ROWS], ROWS)
            return session.passes

    scripted = torch.jit.script(nn.Sequential(nn.ReLU()))
    assert passes(small(lambda n, x: n.head(n.conv(x).relu().mean((2, 3))))) == Passes(partial=8)
    net = small(lambda n, x: n.head(n.script(n.conv(x)).mean((2, 3))), script=scripted)
    assert passes(net) == Passes(forward=8)


# The pitfalls, each with a net made for it


@pytest.mark.parametrize(
    "function",
    [
        lambda n, x: n.head((n.layer(a := n.conv(x)) + a.add_(1)).relu_().mean((2, 3))),
        lambda n, x: n.head(F.relu_(n.layer(F.relu_(n.conv(x)))).mean((2, 3))),
        lambda n, x: n.head(n.layer(n.conv(x).mul_(2)).sub_(1).exp_().mean((2, 3))),
    ],
    ids=["after the layer", "before and after", "chained"],
)
def test_records_that_are_written_to_in_place(function: Callable[..., object]) -> None:
    """Pitfalls 1 and 2: a record is overwritten later; an expanded record cannot be written to."""
    net = small(function, layer=nn.Conv2d(8, 8, 3, padding=1))
    assert_replays(net, "layer")
    short, full, _ = replayed(net, "layer", pictures(1), torch.zeros(4, dtype=torch.int64))
    assert relative(short, full) <= 1e-12


def test_an_in_place_module_whose_input_is_read_later_needs_full_runs() -> None:
    """Pitfall 3: its record comes back in a replay, but its input is no longer rectified."""

    def forward(net: nn.Module, x: Tensor) -> Tensor:
        a = net.conv(x)
        b = net.layer(net.relu(a))
        return net.head((b + a).mean((2, 3)))

    net = small(forward, relu=nn.ReLU(inplace=True), layer=nn.Conv2d(8, 8, 3, padding=1))
    assert_falls_back(net, "layer", "differs")


def test_a_model_that_writes_to_its_input() -> None:
    """Only then is a picture that is replayed many times copied."""
    layer = nn.Conv2d(8, 8, 3, padding=1)

    def forward(net: nn.Module, x: Tensor) -> Tensor:
        x -= 0.5
        return net.head((net.layer(net.conv(x)) * x.mean()).mean((2, 3)))

    net, x, rows = small(forward, layer=layer), pictures(2), torch.ones(4, dtype=torch.int64)
    before = x.clone()
    for _ in range(2):
        with opened(Classifier(net)) as session:
            replay = session.replay(x, "layer")
            assert replay.plan.reason == ""
            assert replay.plan.writes_input
            outputs = [session.replayed(replay, replay.activation[rows], rows) for _ in range(2)]
        assert relative(outputs[1], outputs[0]) <= 1e-12
        assert relative(outputs[0], net(x[rows].clone()).detach()) <= 1e-12
    assert torch.equal(x, before)


def test_a_record_that_is_written_to_before_the_layer_alone_is_not_copied_for_every_row() -> None:
    """A norm whose output an in-place rectifier overwrites: in a replay both return what they recorded."""
    net = small(
        lambda n, x: n.head(n.layer(n.relu(n.norm(n.conv(x)))).mean((2, 3))),
        norm=nn.BatchNorm2d(8),
        relu=nn.ReLU(inplace=True),
        layer=nn.Conv2d(8, 8, 3, padding=1),
    )
    assert_replays(net, "layer")
    with opened(Classifier(net)) as session:
        plan = session.replay(pictures(3), "layer").plan
    assert "norm" in {call.path for call in plan.copied}
    assert plan.written == frozenset()


def test_an_alias_whose_input_is_written_to_later() -> None:
    def forward(net: nn.Module, x: Tensor) -> Tensor:
        a = net.conv(x)
        b = net.alias(a)
        c = net.layer(b)
        b += 1
        return net.head((a * c).mean((2, 3)))

    layers = {"alias": nn.Identity(), "layer": nn.Conv2d(8, 8, 3, padding=1)}
    short, full, _ = replayed(small(forward, **layers), "layer", pictures(3))
    assert relative(short, full) <= 1e-12


def test_operations_outside_of_modules_run_again() -> None:
    """Pitfall 4."""
    net = small(
        lambda n, x: n.head(n.layer(torch.cat((n.conv(x), x.mean(1, keepdim=True)), dim=1)).mean((2, 3))),
        layer=nn.Conv2d(9, 8, 3),
    )
    assert_replays(net, "layer")


class Windows(nn.Module):
    """Cuts [B, C, 16, 16] into 16 windows of [16 places, C]: the batch becomes batch times windows."""

    def forward(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (4, 4)).unflatten(4, (4, 4)).permute(0, 2, 4, 3, 5, 1).reshape(-1, 16, x.shape[1])


def unwindowed(x: Tensor) -> Tensor:
    return x.unflatten(0, (-1, 16)).mean((1, 2))


def test_windows_merged_into_the_batch_are_taken_apart() -> None:
    """Pitfall 5."""
    layers = {"windows": Windows(), "inside": nn.Linear(8, 8), "later": nn.Conv2d(8, 8, 1)}

    def forward(net: nn.Module, x: Tensor) -> Tensor:
        a = net.conv(x)
        windows = net.windows(a)
        b = net.later(a).relu()
        return net.head(unwindowed(net.inside(windows) * windows) + b.mean((2, 3)))

    assert_replays(small(forward, **layers), "later")


def test_a_layer_inside_of_windows_is_replaced_for_all_windows_of_a_picture() -> None:
    layers = {"windows": Windows(), "inside": nn.Linear(8, 8), "mix": nn.Linear(8, 8)}
    net = small(lambda n, x: n.head(unwindowed(n.mix(n.inside(n.windows(n.conv(x)))).relu())), **layers)
    x = pictures(3)
    of_windows = (ROWS[:, None] * 16 + torch.arange(16)).flatten()
    with opened(Classifier(net)) as session:
        replay = session.replay(x, "inside")
        assert replay.plan.reason == ""
        activations = disturbed(replay.activation, of_windows)
        short = session.replayed(replay, activations, ROWS)
        with replaced(net, "inside", lambda _: activations):
            assert relative(short, net(x[ROWS]).detach()) <= 1e-12


def test_a_batch_that_does_not_come_first() -> None:
    turned = Lambda(lambda _, x: x.flatten(2).permute(2, 0, 1))
    layers = {"turned": turned, "layer": nn.Linear(8, 8), "mix": nn.Linear(8, 8)}

    def forward(net: nn.Module, x: Tensor) -> Tensor:
        tokens = net.turned(net.conv(x))
        return net.head((net.mix(net.layer(tokens)).relu() + tokens).mean(0))

    assert_replays(small(forward, **layers), "layer", axis=1)


def test_records_that_do_not_depend_on_the_batch() -> None:
    table = Lambda(lambda n, _: n.scale)
    table.scale = nn.Parameter(torch.zeros(8, 1, 1))
    layers = {"table": table, "layer": nn.Conv2d(8, 8, 1)}
    net = small(lambda n, x: n.head((n.layer(n.conv(x) * n.table(x)) * n.table(x)).mean((2, 3))), **layers)
    assert_replays(net, "layer")


def test_a_record_without_a_batch_that_is_written_to_is_whole_again_at_the_next_replay() -> None:
    table = Lambda(lambda n, _: n.scale.detach().clone())
    table.scale = nn.Parameter(torch.zeros(8, 1, 1))

    def forward(net: nn.Module, x: Tensor) -> Tensor:
        scale = net.table(x)
        return net.head((net.layer(net.conv(x)) * scale.mul_(2)).mean((2, 3)))

    net, x = small(forward, table=table, layer=nn.Conv2d(8, 8, 1)), pictures(3)
    with opened(Classifier(net)) as session:
        replay = session.replay(x, "layer")
        outputs = [session.replayed(replay, replay.activation[ROWS], ROWS) for _ in range(3)]
    assert replay.plan.reason == ""
    for output in outputs:
        assert relative(output, net(x[ROWS]).detach()) <= 1e-12


def test_calls_inside_a_record_are_counted() -> None:
    """A module that ran inside of a recorded one, then by itself, then behind the layer."""

    def forward(net: nn.Module, x: Tensor) -> Tensor:
        a = net.shared(net.body(net.conv(x)).relu())
        return net.head(net.shared(net.layer(a)).relu().mean((2, 3)))

    shared = nn.Conv2d(8, 8, 1)
    net = small(forward, shared=shared, body=nn.Sequential(shared, nn.ReLU()), layer=nn.Conv2d(8, 8, 1))
    assert_replays(net, "layer")
    assert_replays(net, "shared#1")


def test_a_path_that_depends_on_the_batch_size_needs_full_runs() -> None:
    """Pitfall 6, seen for two pictures."""

    def forward(net: nn.Module, x: Tensor) -> Tensor:
        a = net.conv(x)
        a = net.many(a) if len(x) > 1 else a
        return net.head(net.layer(a).mean((2, 3)))

    assert_falls_back(small(forward, many=nn.Conv2d(8, 8, 1), layer=nn.Conv2d(8, 8, 1)), "layer", "another way")


@pytest.mark.parametrize("limit", [2, 3, 4])
def test_a_path_that_changes_only_for_larger_batches_needs_full_runs(limit: int) -> None:
    """Pitfall 6, not to be seen for two pictures: only in the recording of three, or in the replay of five."""

    def forward(net: nn.Module, x: Tensor) -> Tensor:
        a = net.conv(x)
        if len(x) > limit:
            a = a + net.pre(a)
        return net.head(net.layer(net.pre(a)).relu().mean((2, 3)))

    net = small(forward, pre=nn.Conv2d(8, 8, 1), layer=nn.Conv2d(8, 8, 1))
    assert_falls_back(net, "layer", "another way")


def test_a_layer_that_sees_the_batch_in_pieces_is_refused() -> None:
    def forward(net: nn.Module, x: Tensor) -> Tensor:
        return torch.cat([net.head(net.layer(net.conv(piece)).relu().mean((2, 3))) for piece in x.split(2)])

    net = small(forward, layer=nn.Conv2d(8, 8, 1))
    with opened(Classifier(net)) as session:
        replay = session.replay(pictures(1), "layer")
        with pytest.raises(LayerError, match=r"'layer' returns \[2, 8, 16, 16\], not \[6, 8, 16, 16\]"):
            session.replayed(replay, replay.activation.expand(6, -1, -1, -1), torch.zeros(6, dtype=torch.int64))


def test_a_batch_size_that_a_module_remembers_needs_full_runs() -> None:
    """Pitfall 6: the module that would set it anew is skipped."""

    class Sizes(nn.Module):
        count = 0

        def forward(self, x: Tensor) -> Tensor:
            Sizes.count = len(x)
            return x.clone()

    layers = {"sizes": Sizes(), "layer": nn.Conv2d(8, 8, 1)}
    net = small(lambda n, x: n.head(n.layer(n.sizes(n.conv(x))).view(Sizes.count, 8, -1).mean(2)), **layers)
    assert_falls_back(net, "layer")


def test_a_batch_size_that_a_module_returns_needs_full_runs() -> None:
    counted = Lambda(lambda _, x: (x.clone(), len(x)))

    def forward(net: nn.Module, x: Tensor) -> Tensor:
        a, count = net.counted(net.conv(x))
        return net.head(net.layer(a).sum((2, 3)) / (256 * count / len(x)))

    assert_falls_back(small(forward, counted=counted, layer=nn.Conv2d(8, 8, 1)), "layer", "picture by picture")


@pytest.mark.parametrize(
    ("pack", "unpack"),
    [
        (lambda a: (a, [a + 1, None]), lambda p: p[0] * p[1][0]),
        (lambda a: {"maps": a, "sizes": (16, 16), "name": "maps"}, lambda p: p["maps"]),
        (lambda a: [a.mean((2, 3), keepdim=True), (a,)], lambda p: p[0] + p[1][0]),
    ],
    ids=["tuple", "dict", "list"],
)
def test_nested_containers_are_taken_apart(pack: Callable[[Tensor], Any], unpack: Callable[[Any], Tensor]) -> None:
    """Pitfall 7."""

    def forward(net: nn.Module, x: Tensor) -> Tensor:
        packed = net.pack(net.conv(x))
        return net.head((net.layer(unpack(packed)) * unpack(packed)).mean((2, 3)))

    assert_replays(small(forward, pack=Lambda(lambda _, a: pack(a)), layer=nn.Conv2d(8, 8, 1)), "layer")


@dataclass
class Opaque:
    """A container that nothing can look into."""

    maps: Tensor


def test_containers_that_cannot_be_taken_apart_need_full_runs() -> None:
    """Pitfall 7: broadcasting would hide it for a single picture."""

    def forward(net: nn.Module, x: Tensor) -> Tensor:
        packed = net.pack(net.conv(x))
        return net.head((net.layer(packed.maps) * packed.maps).mean((2, 3)))

    net = small(forward, pack=Lambda(lambda _, a: Opaque(a)), layer=nn.Conv2d(8, 8, 1))
    assert_falls_back(net, "layer", "picture by picture")


@pytest.mark.parametrize(
    "sloppy",
    [lambda a: a.squeeze(), lambda a: a.unbind(0), lambda a: a.flatten(0, 2)[: 20 * len(a) + 8]],
    ids=["axis that vanishes", "more for more", "no multiple"],
)
def test_records_of_a_shape_that_does_not_grow_with_the_batch_need_full_runs(sloppy: Callable[..., Any]) -> None:
    def forward(net: nn.Module, x: Tensor) -> Tensor:
        a = net.conv(x)
        net.sloppy(a)
        return net.head(net.layer(a).mean((2, 3)))

    net = small(forward, sloppy=Lambda(lambda _, a: sloppy(a)), layer=nn.Conv2d(8, 8, 1))
    assert_falls_back(net, "layer")


@pytest.mark.parametrize("layer", ["relu#2", "unused", "none"])
def test_a_layer_that_is_never_reached_is_an_error(layer: str) -> None:
    """Pitfall 8."""
    net = drawn(SmallNet())
    net.unused = nn.ReLU()
    with opened(Classifier(net)) as session, pytest.raises(LayerError, match=layer.split("#")[0]):
        session.replay(pictures(), layer)


def test_a_layer_inside_a_fused_transformer_layer_needs_full_runs() -> None:
    """Pitfall 8: the fused path calls no inner module; hooks lead it away from that path."""
    encoder = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    layers = {"encoder": encoder}
    net = small(lambda n, x: n.head(n.encoder(n.conv(x).flatten(2).transpose(1, 2)).mean(1)), **layers)
    net.eval()
    x = pictures(3, size=4)
    short, full, reason = replayed(net, "encoder.norm1", x)
    assert reason
    torch.testing.assert_close(short, full, rtol=1e-10, atol=1e-12)


def test_script_modules_need_full_runs() -> None:
    """Pitfall 9."""
    script = torch.jit.script(nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU()))
    layers = {"script": script, "layer": nn.Conv2d(8, 8, 1)}
    net = small(lambda n, x: n.head(n.layer(n.script(n.conv(x))).mean((2, 3))), **layers)
    assert_falls_back(net, "layer", "script module")


def test_full_runs_that_work_in_place_leave_the_given_activations_alone() -> None:
    layers = {"script": torch.jit.script(nn.Sequential(nn.ReLU())), "layer": nn.Conv2d(8, 8, 1)}
    net = small(lambda n, x: n.head(n.layer(n.script(n.conv(x))).relu_().mean((2, 3))), **layers)
    assert_falls_back(net, "layer", "script module")


@pytest.mark.parametrize("scale", [lambda *_: None, lambda _, __, output: 2 * output], ids=["watching", "changing"])
@pytest.mark.parametrize("hooked", ["conv", "layer", "after"])
def test_hooks_of_the_user_act_in_replays_as_in_full_runs(hooked: str, scale: Callable[..., Any]) -> None:
    """Pitfall 10."""
    layers = {"layer": nn.Conv2d(8, 8, 1), "after": nn.Conv2d(8, 8, 1)}
    net = small(lambda n, x: n.head(n.after(n.layer(n.conv(x)).relu()).mean((2, 3))), **layers)
    net.get_submodule(hooked).register_forward_hook(scale)
    short, full, _ = replayed(net, "layer", pictures(3))
    assert relative(short, full) <= 1e-12


@pytest.mark.parametrize("normed", [parametrizations.weight_norm, parametrizations.spectral_norm])
def test_parametrised_weights_are_records_without_a_batch(normed: Callable[[nn.Module], nn.Module]) -> None:
    """Pitfall 10."""
    layers = {"layer": normed(nn.Conv2d(8, 8, 3).double()), "after": normed(nn.Conv2d(8, 8, 3).double())}
    net = Lambda(
        lambda n, x: n.head(n.after(n.layer(n.conv(x)).relu()).mean((2, 3))),
        conv=normed(nn.Conv2d(3, 8, 3).double()),
        **layers,
        head=nn.Linear(8, 5),
    )
    assert_replays(net.double().eval(), "layer")


def test_a_model_in_train_mode_is_replayed_in_eval_mode() -> None:
    """Pitfall 11."""
    net, x = drawn(SmallNet()).train(), pictures(3)
    with opened(Classifier(net)) as session:
        replay = session.replay(x, "down")
        assert replay.plan.reason == ""
        output = session.replayed(replay, replay.activation[ROWS], ROWS)
    assert relative(output, net.eval()(x[ROWS]).detach()) <= 1e-12


def test_an_error_that_the_model_catches_itself() -> None:
    def forward(net: nn.Module, x: Tensor) -> Tensor:
        a = net.conv(x)
        try:
            a = net.narrow(a)
        except RuntimeError:
            a = net.wide(a)
        return net.head((net.layer(a) + net.wide(a)).mean((2, 3)))

    layers = {"narrow": nn.Conv2d(3, 8, 1), "wide": nn.Conv2d(8, 8, 1), "layer": nn.Conv2d(8, 8, 1)}
    short, full, _ = replayed(small(forward, **layers), "layer", pictures(3))
    assert relative(short, full) <= 1e-12


def test_a_model_whose_modules_are_exchanged_is_planned_anew() -> None:
    net, x = drawn(SmallNet()), pictures(3)
    model = Classifier(net)
    for _ in range(2):
        with opened(model) as session:
            replay = session.replay(x, "block")
            assert replay.plan.reason == ""
            output = session.replayed(replay, replay.activation[ROWS], ROWS)
        assert relative(output, net(x[ROWS]).detach()) <= 1e-12
        net.stem, net.down = drawn(SmallNet(), seed=1).stem, drawn(SmallNet(), seed=1).down


def test_an_activation_that_is_not_finite_is_refused() -> None:
    net = small(lambda n, x: n.head(n.log(n.conv(x)).nan_to_num().mean((2, 3))), log=Lambda(lambda _, x: x.log()))
    with opened(Classifier(net)) as session, pytest.raises(NotFiniteError, match="the activation of layer 'log'"):
        session.replay(pictures(), "log")


# Architectures

LARGE = [
    ("torchvision:resnet18", {}, 64, ["layer4", "layer4.1.bn2", "layer3.0.downsample.1", "layer4.0.relu"]),
    ("torchvision:googlenet", {}, 64, ["inception5b", "inception4a.branch2.1.bn"]),
    ("torchvision:densenet121", {}, 64, ["features.norm5", "features.denseblock4.denselayer15.conv2"]),
    ("torchvision:mobilenet_v3_small", {}, 64, ["features.11", "features.4.block.2.fc2"]),
    ("torchvision:swin_t", {}, 64, ["features.7.1", "features.5.3.attn"]),
    ("torchvision:convnext_tiny", {}, 64, ["features.7.2", "features.7.1.block.0"]),
    ("timm:vit_tiny_patch16_224", {"img_size": 64}, 64, ["blocks.10", "blocks.11.norm1", "blocks.9.attn"]),
    ("timm:resnetv2_50", {"layers": (1, 1, 1, 1), "channels": (32, 64, 128, 256), "stem_chs": 16}, 64, ["stages.3"]),
]


@pytest.mark.parametrize(("spec", "options", "side", "layers"), LARGE, ids=[case[0] for case in LARGE])
def test_layers_of_published_architectures(spec: str, options: dict[str, Any], side: int, layers: list[str]) -> None:
    net = load_model(spec, weights="random", **options).module.double()
    rows, x = torch.tensor([1, 0, 1]), pictures(2, size=side)
    for layer in layers:
        short, full, reason = replayed(net, layer, x, rows)
        assert reason == ""
        assert relative(short, full) <= 1e-12
        assert full.std(0).max() > 1e-9


def transformers_net(kind: str) -> nn.Module:
    """Build a tiny net of transformers."""
    transformers = pytest.importorskip("transformers")
    vit = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=32, patch_size=8
    )
    swin = transformers.SwinConfig(
        image_size=32, patch_size=4, embed_dim=8, depths=[2, 2], num_heads=[1, 2], window_size=4
    )
    resnet = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    config = {"ViT": vit, "Swin": swin, "ResNet": resnet}[kind]
    return getattr(transformers, f"{kind}ForImageClassification")(config).eval()


@pytest.mark.parametrize("kind", ["ViT", "Swin", "ResNet"])
def test_layers_of_transformers_nets(kind: str) -> None:
    net = drawn(transformers_net(kind), shape=(3, 32, 32))
    x, rows = pictures(2, size=32), torch.tensor([1, 0, 1])
    with opened(Classifier(net)) as session:
        candidates = session.catalogue(x).candidates
    for candidate in candidates[:: max(1, len(candidates) // 4)]:
        short, full, reason = replayed(net, candidate.name, x, rows)
        assert reason == ""
        assert relative(short, full) <= 1e-12
