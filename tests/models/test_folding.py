"""Batch norms folded into the convolutions before them: the same outputs and gradients, and no model mistaken."""

from collections.abc import Callable

import pytest
import torch
import torchvision
from folded_nets import assert_folds, folded, small
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from small_nets import Lambda, SmallNet, drawn, pictures, relative
from whence import attribute
from whence.attribution import attribute_all
from whence.models import session as session_module
from whence.models.classifier import Classifier
from whence.models.folding import folding_of
from whence.models.session import opened
from whence.results import Passes


class Counted(nn.BatchNorm2d):
    """A norm that counts how often it computes: a folded one hands on its input itself."""

    computed = 0

    def forward(self, x: Tensor) -> Tensor:
        output = super().forward(x)
        self.computed += output is not x
        return output


# Nets that fold


@pytest.mark.parametrize("inplace", [True, False])
def test_a_small_net(inplace: bool) -> None:
    assert_folds(drawn(SmallNet(inplace=inplace)), 2)


@pytest.mark.parametrize(
    ("name", "count"),
    [("resnet18", 20), ("mobilenet_v2", 52), ("mobilenet_v3_small", 34), ("efficientnet_b0", 49), ("googlenet", 57)],
)
def test_published_nets(name: str, count: int) -> None:
    options = {"init_weights": False, "aux_logits": False} if name == "googlenet" else {}
    net = drawn(torchvision.models.get_model(name, **options), shape=(3, 64, 64))
    assert_folds(net, count, pictures(2, size=64))


@pytest.mark.parametrize("last", [False, True])
def test_both_memory_orders(last: bool) -> None:
    x = pictures(3).contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
    assert_folds(drawn(SmallNet()), 2, x)


def test_a_folded_norm_computes_nothing() -> None:
    net = small(lambda net, z: net.norm(z), norm=Counted(8))
    fold = folded(net, pictures())
    net.norm.computed = 0
    fold.outputs(pictures(), net)
    assert net.norm.computed == 0


def test_a_convolution_that_runs_twice_before_the_same_norm() -> None:
    def twice(net: nn.Module, z: Tensor) -> Tensor:
        return net.norm(net.again(net.norm(net.again(z))))

    assert_folds(small(twice, again=nn.Conv2d(8, 8, 3), norm=nn.BatchNorm2d(8)), 1)


@given(
    seed=st.integers(0, 2**16),
    bias=st.booleans(),
    affine=st.booleans(),
    scale=st.floats(1e-6, 1e3),
    groups=st.sampled_from([1, 2, 4]),
)
@settings(deadline=None, max_examples=40)
def test_any_norm(seed: int, bias: bool, affine: bool, scale: float, groups: int) -> None:
    make = torch.Generator().manual_seed(seed)
    conv = nn.Conv2d(4, 8, 3, bias=bias, groups=groups)
    norm = nn.BatchNorm2d(8, affine=affine)
    net = nn.Sequential(conv, norm, nn.Flatten()).double().eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=make, dtype=torch.float64))
        norm.running_mean.copy_(torch.randn(8, generator=make))
        norm.running_var.copy_(scale * torch.rand(8, generator=make))
    assert_folds(net, 1, pictures(2, channels=4, size=6, seed=seed))


# Nets that do not


def written(net: nn.Module, z: Tensor) -> Tensor:
    """Change in place what the convolution returned before the norm reads it."""
    return net.norm(torch.relu_(z))


def read_twice(net: nn.Module, z: Tensor) -> Tensor:
    """Read it beside the norm."""
    return net.norm(z) + z


def two_norms(net: nn.Module, z: Tensor) -> Tensor:
    """Read it by two norms."""
    return net.norm(z) + 2 * net.other(z)


def in_between(net: nn.Module, z: Tensor) -> Tensor:
    """Let something else stand between them."""
    return net.norm(torch.relu(z))


def by_another(net: nn.Module, z: Tensor) -> Tensor:
    """Call the convolution twice, and read it by another norm each time."""
    return net.other(net.again(net.norm(net.again(z))))


def once_bare(net: nn.Module, z: Tensor) -> Tensor:
    """Call the convolution twice, and read it by the norm once."""
    return net.again(net.norm(net.again(z)))


def computed(net: nn.Module, z: Tensor) -> Tensor:
    """Convolve with weights that are made anew in every pass."""
    return net.norm(torch.nn.functional.conv2d(z, net.again.weight / 2))


@pytest.mark.parametrize("function", [written, read_twice, two_norms, in_between, by_another, once_bare, computed])
def test_what_cannot_be_folded(function: Callable[..., Tensor]) -> None:
    layers = {"norm": nn.BatchNorm2d(8), "other": nn.BatchNorm2d(8), "again": nn.Conv2d(8, 8, 1)}
    assert_folds(small(function, **layers), 0)


def test_a_norm_by_the_statistics_of_the_batch() -> None:
    layers = {"norm": nn.BatchNorm2d(8, track_running_stats=False), "other": nn.BatchNorm2d(8)}
    net = small(lambda net, z: net.other(net.again(net.norm(z))), again=nn.Conv2d(8, 8, 1), **layers)
    assert list(folded(net, pictures()).pairs) == [id(net.again.weight)]


def dead(net: nn.Module, z: Tensor) -> Tensor:
    """Read it a second time where the first picture shows nothing of it."""
    return net.norm(z) + 50 * torch.relu(z - 5)


def looked_into(net: nn.Module, z: Tensor) -> Tensor:
    """Take a way that the values decide."""
    y = net.norm(z)
    return y + z if float(y.detach().mean()) > 0 else y


def without_version(net: nn.Module, z: Tensor) -> Tensor:
    """Read it with statistics that are made anew in every pass."""
    n = net.norm
    return torch.nn.functional.batch_norm(z, n.running_mean.clone(), n.running_var)


@pytest.mark.parametrize("function", [dead, looked_into, read_twice, without_version])
def test_what_cannot_be_folded_and_shows_it_for_other_pictures(function: Callable[..., Tensor]) -> None:
    net = small(function, norm=nn.BatchNorm2d(8)).eval()
    for first in (torch.zeros(1, 3, 16, 16).double(), pictures(1) / 100, -pictures(1)):
        fold = folding_of(net, first, lambda x: net(x.clone()))
        assert not fold.pairs
        assert torch.equal(fold.outputs(9 * pictures(), net), net(9 * pictures()))


def stirred_norms(net: nn.Module) -> nn.Module:
    """Give norms statistics by which a lost factor shows."""
    for number, norm in enumerate(m for m in net.modules() if isinstance(m, nn.BatchNorm2d)):
        make = torch.Generator().manual_seed(number)
        norm.running_var.copy_(0.2 + 3 * torch.rand(norm.num_features, generator=make))
    return net


def recomputed(net: nn.Module, z: Tensor) -> Tensor:
    """Compute the convolution again on the way back, where nothing is replaced any more."""
    z = checkpoint(net.again, z, use_reentrant=False) if z.requires_grad else net.again(z)
    return net.norm(z)


def hooked(net: nn.Module, z: Tensor) -> Tensor:
    """Look at the gradient of what the convolution returned."""
    z = net.again(z)
    if z.requires_grad:
        z.register_hook(lambda g: g.clamp(min=0))
    return net.norm(z)


def read_with_gradients(net: nn.Module, z: Tensor) -> Tensor:
    """Read it a second time where gradients are recorded."""
    z = net.again(z)
    return net.norm(z) + (z.exp() / 10 if z.requires_grad else 0)


def read_for_several(net: nn.Module, z: Tensor) -> Tensor:
    """Read it a second time for several pictures."""
    z = net.again(z)
    return net.norm(z) + (z if len(z) > 1 else 0)


def written_for_several(net: nn.Module, z: Tensor) -> Tensor:
    """Write to what a clamp returned for several pictures."""
    z = torch.nn.functional.relu6(net.norm(net.again(z)), inplace=True)
    return z.add_(1) if len(z) > 1 else z


def held(net: nn.Module, z: Tensor) -> Tensor:
    """Hold what the convolution returned, for whoever asks later."""
    net.seen = net.again(z)
    return net.norm(net.seen)


def by_index(net: nn.Module, z: Tensor) -> Tensor:
    """Treat some pictures in another way, by their numbers."""
    z = net.again(z)
    rows = torch.where(z.mean((1, 2, 3)) > 0)[0]
    return net.norm(z).index_add(0, rows, z[rows])


def by_mask(net: nn.Module, z: Tensor) -> Tensor:
    """Treat some pictures in another way, by a mask."""
    y = net.norm(net.again(z))
    return y + len(y[z.mean((1, 2, 3)) > 0])


@pytest.mark.parametrize(
    "function",
    [recomputed, hooked, read_with_gradients, read_for_several, written_for_several, held, by_index, by_mask],
)
def test_what_one_picture_without_gradients_does_not_show(function: Callable[..., Tensor]) -> None:
    layers = {"again": nn.Conv2d(8, 8, 1), "norm": nn.BatchNorm2d(8)}
    assert_folds(stirred_norms(small(function, **layers)), 0)


def test_a_net_that_computes_again_to_save_memory() -> None:
    net = torchvision.models.densenet121(memory_efficient=True)
    assert_folds(stirred_norms(drawn(net, shape=(3, 64, 64))), 0, pictures(1, size=64))


def test_a_bias_that_is_computed() -> None:
    def biased(net: nn.Module, z: Tensor) -> Tensor:
        return net.norm(torch.nn.functional.conv2d(z, net.again.weight, z.mean((0, 2, 3))))

    net = small(biased, again=nn.Conv2d(8, 8, 1), norm=nn.BatchNorm2d(8)).eval()
    fold = folded(net, pictures())
    assert relative(fold.outputs(5 * pictures(), net), net(5 * pictures())) <= 1e-12


def test_an_error_that_passes_by_is_not_held_against_the_model() -> None:
    net = small(lambda net, z: net.norm(z), norm=nn.BatchNorm2d(8))
    fold, x = folded(net, pictures()), pictures()
    handle = net.norm.register_forward_hook(lambda module, args, output: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        fold.outputs(x, net)
    handle.remove()
    assert fold.pairs


class Said:
    """What a model may return: an object that torch does not look into."""

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits


def test_an_output_that_torch_does_not_look_into() -> None:
    net = small(lambda net, z: net.norm(z), norm=nn.BatchNorm2d(8)).eval()
    assert len(folding_of(net, pictures(), lambda x: Said(net(x))).pairs) == 1
    assert not folding_of(net, pictures(), lambda x: Said(net(x).argmax(1))).pairs


def test_a_script_module() -> None:
    net = drawn(SmallNet(inplace=False)).eval()
    assert_folds(torch.jit.trace(net, pictures()), 0)


# Models that take another way later


def test_a_way_that_depends_on_the_batch() -> None:
    net = small(lambda net, z: net.norm(z) if len(z) <= 2 else z * 2, norm=nn.BatchNorm2d(8))
    x = pictures(3)
    fold = folded(net, x)
    assert fold.pairs
    assert relative(fold.outputs(x[:1], net), net(x[:1])) <= 1e-12
    assert relative(fold.outputs(x, net), net(x)) <= 1e-12
    # From then on nothing is run twice.
    assert not fold.pairs


def test_a_map_that_is_written_to_for_several_pictures() -> None:
    net = small(lambda net, z: net.norm(z if len(z) <= 2 else z.relu_()), norm=nn.BatchNorm2d(8))
    fold, x = folded(net, pictures()), pictures(3)
    assert fold.pairs
    assert relative(fold.outputs(x, net), net(x)) <= 1e-12


def test_a_hook_that_changes_what_the_convolution_returns() -> None:
    net = small(lambda net, z: net.norm(z), norm=nn.BatchNorm2d(8))
    fold, x = folded(net, pictures()), pictures()
    net.conv.register_forward_hook(lambda module, args, output: output * 3)
    assert fold.pairs
    assert relative(fold.outputs(x, net), net(x)) <= 1e-12


def test_an_error_in_the_middle_leaves_nothing_behind() -> None:
    net = small(lambda net, z: net.norm(z), norm=nn.BatchNorm2d(8))
    fold, x = folded(net, pictures()), pictures()
    own = net(x)
    handle = net.norm.register_forward_hook(lambda module, args, output: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        fold.outputs(x, net)
    handle.remove()
    assert torch.equal(net(x), own)


# Clamps


def clamped(net: nn.Module, z: Tensor) -> Tensor:
    """Use both clamps in place."""
    return net.cut(net.norm(net.again(net.six(net.norm(z)))))


def clamped_and_written(net: nn.Module, z: Tensor) -> Tensor:
    """Write to what a clamp returned, which autograd must then know as it was."""
    z = net.six(net.norm(z))
    z += 1
    return z * z


CLAMPS = {"six": nn.ReLU6(inplace=True), "cut": nn.Hardtanh(-0.5, 0.25, inplace=True)}


def test_clamps_in_place() -> None:
    assert_folds(small(clamped, norm=nn.BatchNorm2d(8), again=nn.Conv2d(8, 8, 1), **CLAMPS), 2)


def test_clamps_whose_result_is_written_to() -> None:
    assert_folds(small(clamped_and_written, norm=nn.BatchNorm2d(8), **CLAMPS), 0)


def test_a_clamp_keeps_one_map() -> None:
    """Torch's own keeps what it read beside what it returned."""
    net = small(lambda net, z: net.six(net.norm(z)), norm=nn.BatchNorm2d(8), **CLAMPS)
    fold, kept = folded(net, pictures()), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        fold.outputs(pictures().requires_grad_(), net)
    maps = {t.data_ptr() for t in kept if t.shape == (2, 8, 14, 14)}
    assert len(maps) == 1


# Sessions


def test_one_pass_is_run_as_it_is_and_many_are_folded() -> None:
    model, x = Classifier(drawn(SmallNet())), pictures()
    attribute(model, x, "gradient")
    assert not model.foldings
    answer = attribute(model, x, "integrated-gradients", steps=12, tol=None)
    assert len(model.foldings[3, 16, 16].pairs) == 2
    assert answer.passes == Passes(forward=2 * 14, backward=2 * 12)


def test_new_weights_are_looked_at_anew() -> None:
    net, x = drawn(SmallNet()), pictures()
    model = Classifier(net)
    before = attribute(model, x, "rise", target=0, samples=20).values
    with torch.no_grad():
        net.stem[1].weight *= -2
    after = attribute(model, x, "rise", target=0, samples=20).values
    assert relative(after, before) > 1e-3
    assert torch.equal(after, attribute(Classifier(net), x, "rise", target=0, samples=20).values)


def test_weights_written_to_behind_their_versions() -> None:
    net, x = drawn(SmallNet()), pictures()
    model = Classifier(net)
    for change in (
        lambda: None,
        lambda: net.block.conv.weight.data.mul_(-2),
        lambda: net.block.conv.weight.data[-1:].mul_(3),
        lambda: net.block.bn.running_var.data.mul_(3),
    ):
        change()
        for method, options in (("rise", {"samples": 20}), ("lrp", {})):
            known = attribute(model, x, method, target=0, **options).values
            assert torch.equal(known, attribute(Classifier(net), x, method, target=0, **options).values)


def test_input_sizes_share_the_folded_weights() -> None:
    model = Classifier(drawn(SmallNet()))
    for size in (16, 12):
        attribute(model, pictures(size=size), "lrp")
    one, other = model.foldings.values()
    assert one.pairs.keys() == other.pairs.keys()
    assert all(one.pairs[key] is other.pairs[key] for key in one.pairs)


def test_a_score_that_the_picture_does_not_reach_is_told_folded_too() -> None:
    """Folded and plain runs round differently, which is no sign of a gradient that was cut off."""

    def forward(net: nn.Module, x: Tensor) -> Tensor:
        return net.head(net.norm(net.conv(x.new_ones(x.shape))).mean((2, 3)))

    net = Lambda(forward, conv=nn.Conv2d(3, 8, 3), norm=nn.BatchNorm2d(8), head=nn.Linear(8, 5))
    model = Classifier(drawn(net).float())
    for method in ("lrp", "integrated-gradients"):
        answer = attribute(model, pictures().float(), method, target=0)
        assert "no evidence" in " ".join(answer.notes[0])


@pytest.mark.parametrize(
    ("method", "options"), [("rise", {"samples": 10}), ("occlusion", {"window": 8, "stride": 4})]
)
def test_the_whole_picture_goes_the_way_of_the_changed_ones(
    method: str, options: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    ways = []
    own = session_module.Session.run

    def run(self: session_module.Session, x: Tensor, *, folded: bool = False, watched: bool = False) -> object:
        ways.append(folded)
        return own(self, x, folded=folded, watched=watched)

    monkeypatch.setattr(session_module.Session, "run", run)
    attribute(Classifier(drawn(SmallNet())), pictures(1), method, target=0, **options)
    assert len(set(ways)) == 1


def test_targets_share_the_folded_pass() -> None:
    model, x = Classifier(drawn(SmallNet())), pictures(4)
    passes = [a.passes for a in attribute_all(model, x, "gradient", [0, 1, 2, 3, 4], {})]
    assert [p.forward for p in passes] == [4, 0, 0, 0, 0]


MANY = {
    "integrated-gradients": {"steps": 12, "tol": None},
    "rise": {"samples": 20},
    "occlusion": {},
    "score-cam": {},
    "igos++": {"iterations": 3, "baseline": "zeros"},
    "extremal-perturbation": {"iterations": 12, "baseline": "zeros"},
    "sag": {"grid": 3, "roots": 2, "budget": 40, "baseline": "zeros"},
}


@pytest.mark.parametrize("method", MANY)
def test_methods_give_the_same_and_leave_the_model_alone(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net, x = drawn(SmallNet()), pictures()
    state = {name: (t.clone(), t._version) for name, t in net.state_dict(keep_vars=True).items()}
    model = Classifier(net)
    folded = attribute(model, x, method, **MANY[method])
    assert [len(folding.pairs) for folding in model.foldings.values()] == [2]
    assert all(torch.equal(t, state[name][0]) for name, t in net.state_dict().items())
    assert all(t._version == state[name][1] for name, t in net.state_dict(keep_vars=True).items())
    assert all(p.grad is None for p in net.parameters())
    monkeypatch.setattr(session_module, "_MANY", 10**9)
    plain = attribute(Classifier(net), x, method, **MANY[method])
    assert relative(folded.values, plain.values) <= 1e-9
    assert folded.passes == plain.passes


def test_half_precision_is_not_folded() -> None:
    model = Classifier(drawn(SmallNet()).float(), precision="bfloat16")
    with opened(model) as session:
        session.expect(100)
        session.scores(lambda n: pictures(3).float()[n], torch.arange(3), [0, 0, 0], 3)
    assert not model.foldings
