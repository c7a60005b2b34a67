"""Attention maps are the formula's, the model returns what it returns anyway, and nothing is left behind."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import timm.models.beit
import timm.models.cait
import timm.models.deit
import timm.models.vision_transformer
import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, _len_torch_function_stack, wrap_torch_function
from torchvision.models.vision_transformer import VisionTransformer

from small_nets import Lambda, SmallNet, SmallViT, drawn, pictures, relative
from whence import attribute
from whence.attribution import attribute_all
from whence.errors import ModelError, UnsupportedError
from whence.models.attention import Attending, Readout, attention_map, unguarded
from whence.models.classifier import Classifier
from whence.models.outputs import logits_of
from whence.models.readout import attend, depth, readout
from whence.models.session import opened
from whence.pictures.preprocess import Preprocess

METHODS = ("attention-rollout", "generic-attention", "legrad")
SIDE = 32
SMALL = {"img_size": SIDE, "patch_size": 8, "embed_dim": 12, "depth": 2, "num_heads": 3, "num_classes": 5}
CONFIG = {
    "image_size": SIDE,
    "patch_size": 8,
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 24,
    "num_labels": 5,
}


def seeded(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


# The formula


def masks() -> dict[str, dict[str, object]]:
    blind = seeded(5, 7) > 0
    blind[2] = False
    floating = seeded(2, 1, 5, 7)
    floating[0, 0, 1, 3] = -torch.inf
    return {
        "plain": {},
        "scale": {"scale": 0.3},
        "boolean": {"attn_mask": seeded(2, 3, 5, 7) > -0.5},
        "a query that sees nothing": {"attn_mask": blind},
        "floating": {"attn_mask": floating},
        "causal": {"is_causal": True},
    }


@pytest.mark.parametrize("case", masks())
def test_fused_attention_is_the_map_times_the_values(case: str) -> None:
    q, k, v = seeded(2, 3, 5, 4).requires_grad_(), seeded(2, 3, 7, 4, seed=1), seeded(2, 3, 7, 6, seed=2)
    expected = F.scaled_dot_product_attention(q, k, v, **masks()[case])
    with Attending() as attending:
        output = F.scaled_dot_product_attention(q, k, v, **masks()[case])
    ours, theirs = (torch.autograd.grad(o.square().sum(), q, retain_graph=True)[0] for o in (output, expected))
    assert relative(ours, theirs) <= 1e-10
    a, output, expected = attending.maps[0].detach(), output.detach(), expected.detach()
    assert relative(output, expected) <= 1e-12
    assert relative(a @ v, expected) <= 1e-12
    assert relative(a.sum(-1), torch.where(a.any(-1), 1.0, 0.0).double()) <= 1e-12


def test_grouped_queries_share_their_keys() -> None:
    q, k, v = seeded(2, 6, 5, 4), seeded(2, 2, 7, 4, seed=1), seeded(2, 2, 7, 4, seed=2)
    expected = F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
    with Attending() as attending:
        output = F.scaled_dot_product_attention(query=q, key=k, value=v, enable_gqa=True)
    assert relative(output, expected) <= 1e-12
    assert relative(attending.maps[0], attention_map(q, k.repeat_interleave(3, 1))) <= 1e-12


# What is recorded is what the model computes


def torchvisions() -> nn.Module:
    return VisionTransformer(SIDE, 8, num_layers=2, num_heads=3, hidden_dim=12, mlp_dim=24, num_classes=5)


def timms(**options: object) -> nn.Module:
    return timm.models.vision_transformer.VisionTransformer(**SMALL, **options)


def distilled() -> nn.Module:
    return timm.models.deit.VisionTransformerDistilled(**SMALL)


def beit() -> nn.Module:
    return timm.models.beit.Beit(**SMALL, use_abs_pos_emb=False, use_rel_pos_bias=True)


def hf(kind: str, implementation: str = "sdpa", **options: object) -> nn.Module:
    config = getattr(transformers, f"{kind}Config")(**CONFIG, **options)
    config._attn_implementation = implementation
    return getattr(transformers, f"{kind}ForImageClassification")(config)


def encoder() -> nn.Module:
    """Return a net of torch's own encoder layers, whose fast path runs where nobody looks."""
    layer = nn.TransformerEncoderLayer(12, 3, 24, batch_first=True)
    blocks = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    return Lambda(
        lambda n, x: n.head(n.blocks(n.patch(x).flatten(2).transpose(1, 2)).mean(1)),
        patch=nn.Conv2d(3, 12, 8, stride=8),
        blocks=blocks,
        head=nn.Linear(12, 5),
    )


CLS, PATCHES = [0], list(range(16))
# Builder, prefix tokens, tokens that the head reads.
NETS: dict[str, tuple[Callable[[], nn.Module], int, list[int]]] = {
    "torchvision": (torchvisions, 1, CLS),
    "torch's encoder": (encoder, 0, PATCHES),
    "timm": (timms, 1, CLS),
    "timm, registers": (lambda: timms(reg_tokens=4), 5, CLS),
    "timm, mean": (lambda: timms(global_pool="avg"), 1, [p + 1 for p in PATCHES]),
    "timm, no class token": (lambda: timms(global_pool="avg", class_token=False), 0, PATCHES),
    "timm, distilled": (distilled, 2, [0, 1]),
    "timm, beit": (beit, 1, [p + 1 for p in PATCHES]),
    "vit": (lambda: hf("ViT"), 1, CLS),
    "deit": (lambda: hf("DeiT"), 2, CLS),
    "beit": (lambda: hf("Beit", use_relative_position_bias=True), 1, [p + 1 for p in PATCHES]),
    "dinov2": (lambda: hf("Dinov2"), 1, [0, *(p + 1 for p in PATCHES)]),
    "dinov2, eager": (lambda: hf("Dinov2", "eager"), 1, [0, *(p + 1 for p in PATCHES)]),
}
built: dict[str, nn.Module] = {}


def net_of(name: str) -> nn.Module:
    if name not in built:
        built[name] = drawn(NETS[name][0]().eval(), shape=(3, SIDE, SIDE))
    return built[name]


def attended(net: nn.Module, x: Tensor, gradients: bool = False) -> tuple[list[Tensor], Readout, Tensor]:
    with opened(Classifier(net)) as session:
        found = attend(session, x, gradients=gradients)
        return found.maps, readout(session, x), logits_of(found.recording.output)


@pytest.mark.parametrize("name", NETS)
def test_the_readout_and_the_output(name: str) -> None:
    _, prefix, read = NETS[name]
    net, x = net_of(name), pictures(3, size=SIDE)
    for gradients in (False, True):
        maps, found, logits = attended(net, x, gradients)
        assert [a.shape for a in maps] == [(3, 3, 16 + prefix, 16 + prefix)] * 2
        assert (found.layout.prefix, found.layout.grid, found.calls) == (prefix, (4, 4), 2)
        assert found.read.nonzero().flatten().tolist() == read
        assert len(set(found.blocks)) == 2
        assert relative(logits.detach(), logits_of(net(x)).detach()) <= 1e-12
        assert relative(sum(a.sum(3) for a in maps), torch.full((3, 3, 16 + prefix), 2.0).double()) <= 1e-12
        assert all(a.requires_grad == gradients for a in maps)


@pytest.mark.parametrize("name", NETS)
def test_all_three_methods_explain_it_picture_by_picture(name: str) -> None:
    model, x = Classifier(net_of(name)), pictures(2, size=SIDE)
    for method in METHODS:
        answer = attribute(model, x, method, target=1)
        assert answer.values.shape == (2, 1, 4, 4)
        assert (answer.values.flatten(1).amax(1) > answer.values.flatten(1).amin(1)).all()
        alone = attribute(model, x[1:], method, target=1).values
        assert relative(answer.values[1:], alone) <= 1e-10


@contextmanager
def seen(modules: list[nn.Module]) -> Iterator[list[Tensor]]:
    """Fill a list with the first input of every module."""
    kept: list[Tensor] = []
    handles = [m.register_forward_pre_hook(lambda _, args: kept.append(args[0])) for m in modules]
    yield kept
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("name", ["torchvision", "torch's encoder"])
def test_the_maps_of_multi_head_attention_are_the_weights_that_it_returns(name: str) -> None:
    net, x = net_of(name), pictures(size=SIDE)
    modules = [m for m in net.modules() if isinstance(m, nn.MultiheadAttention)]
    recorded_maps = attended(net, x)[0]
    with torch.enable_grad(), seen(modules) as inputs:
        net(x)
    for module, tokens, a in zip(modules, inputs, recorded_maps, strict=True):
        assert relative(a, module(tokens, tokens, tokens, average_attn_weights=False)[1]) <= 1e-10


@pytest.mark.parametrize("name", ["timm", "timm, registers", "timm, distilled", "timm, beit"])
def test_the_maps_of_timm_are_those_that_it_makes_without_fusing(name: str) -> None:
    net, x = net_of(name), pictures(size=SIDE)
    attentions = [m for m in net.modules() if hasattr(m, "fused_attn")]
    assert all(m.fused_attn for m in attentions)
    recorded_maps = attended(net, x)[0]
    for m in attentions:
        m.fused_attn = False
    try:
        with seen([m.attn_drop for m in attentions]) as made:
            net(x)
        unfused = attended(net, x)[0]
    finally:
        for m in attentions:
            m.fused_attn = True
    for a, b, expected in zip(recorded_maps, unfused, made, strict=True):
        assert relative(a, expected.detach()) <= 1e-10
        assert torch.equal(b, expected)


@pytest.mark.parametrize(
    ("kind", "options", "limit"),
    # The explicit code of these two makes its softmax in float32.
    [("ViT", {}, 1e-6), ("Beit", {"use_relative_position_bias": True}, 1e-6), ("Dinov2", {}, 1e-10)],
)
def test_the_maps_of_transformers_are_those_that_its_explicit_code_returns(
    kind: str, options: dict[str, object], limit: float
) -> None:
    fused, x = drawn(hf(kind, **options).eval(), shape=(3, SIDE, SIDE)), pictures(size=SIDE)
    eager = hf(kind, "eager", **options).eval().double()
    eager.load_state_dict(fused.state_dict())
    expected = eager(x, output_attentions=True).attentions
    for a, b, c in zip(attended(fused, x)[0], attended(eager, x)[0], expected, strict=True):
        assert relative(a, c.detach()) <= limit
        assert torch.equal(b, c) or relative(b, c.detach()) <= 1e-7


def test_queries_and_keys_of_a_fused_transformer_give_its_maps() -> None:
    net, x = net_of("vit"), pictures(size=SIDE)
    layers = [m for name, m in net.named_modules() if name.endswith(("q_proj", "k_proj", ".query", ".key"))]
    with seen(layers) as inputs:
        net(x)
    heads = [layer(tokens).unflatten(2, (3, 4)).transpose(1, 2) for layer, tokens in zip(layers, inputs, strict=True)]
    for q, k, a in zip(heads[::2], heads[1::2], attended(net, x)[0], strict=True):
        assert relative(a, (q @ k.transpose(2, 3) / 2).softmax(3).detach()) <= 1e-10


def test_multi_head_attention_that_returns_its_weights_and_attention_without_heads() -> None:
    def explicit(n: nn.Module, x: Tensor) -> Tensor:
        tokens = n.patch(x).flatten(2).transpose(1, 2)
        tokens = tokens + n.attention(tokens, tokens, tokens, need_weights=True)[0]
        tokens = tokens + (tokens @ tokens.transpose(1, 2)).softmax(dim=2) @ tokens
        return n.head(tokens.mean(1))

    layers = {"patch": nn.Conv2d(3, 12, 8, stride=8), "attention": nn.MultiheadAttention(12, 3, batch_first=True)}
    net, x = drawn(Lambda(explicit, **layers, head=nn.Linear(12, 5)), shape=(3, SIDE, SIDE)), pictures(size=SIDE)
    maps, found, _ = attended(net, x)
    assert [a.shape for a in maps] == [(2, 3, 16, 16), (2, 1, 16, 16)]
    tokens = net.patch(x).flatten(2).transpose(1, 2)
    assert relative(maps[0], net.attention(tokens, tokens, tokens, average_attn_weights=False)[1].detach()) <= 1e-12
    assert found.read.all()


def test_the_weights_of_the_rows() -> None:
    like = torch.zeros(1, 1).double()
    expectations = {"timm": (1, 0), "timm, distilled": (1, 0), "timm, mean": (0, 1), "dinov2": (0.5, 0.5)}
    for name, expected in expectations.items():
        found = attended(net_of(name), pictures(size=SIDE))[1]
        weights = found.weights(like)[0]
        prefix, patches = weights.split([found.layout.prefix, 16])
        assert float(prefix.sum()) == pytest.approx(expected[0])
        assert patches.tolist() == pytest.approx([expected[1] / 16] * 16)


# Refusals


def tokens_of(function: Callable[..., Tensor], **layers: nn.Module) -> nn.Module:
    """Return a drawn net: ``function`` over 4 x 4 patches of 8 channels, and a head on the mean of the result."""
    net = Lambda(
        lambda n, x: n.head(function(n, n.patch(x).flatten(2).transpose(1, 2)).mean(1)),
        patch=nn.Conv2d(3, 8, 8, stride=8),
        **layers,
        head=nn.Linear(8, 5),
    )
    return drawn(net, shape=(3, SIDE, SIDE))


def self_attention(q: Tensor, k: Tensor | None = None) -> Tensor:
    k = q if k is None else k
    return F.scaled_dot_product_attention(q[:, None], k[:, None], k[:, None])[:, 0]


def windows(_: nn.Module, t: Tensor) -> Tensor:
    return t + self_attention(t.reshape(-1, 4, 8)).reshape(t.shape)


def pooling(_: nn.Module, t: Tensor) -> Tensor:
    t = t + self_attention(t)
    t = t.unflatten(1, (8, 2)).mean(2)
    return t + self_attention(t)


def side_by_side(_: nn.Module, t: Tensor) -> Tensor:
    return t + self_attention(t) + self_attention(t + 1)


def frozen(_: nn.Module, t: Tensor) -> Tensor:
    with torch.no_grad():
        t = t + self_attention(t)
    return t + self_attention(t)


def channels(_: nn.Module, t: Tensor) -> Tensor:
    return t + self_attention(t.transpose(1, 2)).transpose(1, 2)


REFUSED = {
    "a CNN": (lambda: drawn(SmallNet()), "has no attention between patches"),
    "a mixer": (lambda: tokens_of(lambda n, t: t + n.mix(t.mT).mT, mix=nn.Linear(16, 16)), "has no attention"),
    "windows": (lambda: tokens_of(windows), "within windows or groups"),
    "fewer keys": (lambda: tokens_of(lambda _, t: t + self_attention(t, t[:, ::2])), "16 queries, 8 keys"),
    "one query": (
        lambda: tokens_of(lambda _, t: self_attention((t + self_attention(t)).mean(1, True), t)),
        "a query of their own",
    ),
    "pooling": (lambda: tokens_of(pooling), "changes the number of its tokens"),
    "channels": (lambda: tokens_of(channels), "no grid of the picture's patches"),
    "side by side": (lambda: tokens_of(side_by_side), "block after block"),
    "without gradients": (lambda: tokens_of(frozen), "block after block"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_model_whose_attention_is_something_else_is_refused(case: str) -> None:
    build, why = REFUSED[case]
    model = Classifier(build(), name="the net")
    for method in METHODS:
        with pytest.raises(UnsupportedError, match=rf"^the net .*{why}.*take grad-cam[^.\n]*$"):
            attribute(model, pictures(size=SIDE), method)


def test_a_model_that_is_refused_has_no_depth() -> None:
    preprocess = Preprocess(resize=(16, 16), mean=(0.5,), std=(0.25,))
    with pytest.raises(UnsupportedError, match="take grad-cam"):
        depth(Classifier(drawn(SmallNet()), preprocess))
    assert depth(Classifier(drawn(SmallViT()), preprocess)) == 2


def test_class_attention_is_refused() -> None:
    net = timm.models.cait.Cait(**{**SMALL, "depth": 1}, depth_token_only=1)
    with pytest.raises(UnsupportedError, match="class attention"):
        attribute(drawn(net.eval(), shape=(3, SIDE, SIDE)), pictures(size=SIDE), "generic-attention")


def test_a_model_that_behaves_otherwise_when_it_is_intercepted_is_refused() -> None:
    def sly(_: nn.Module, t: Tensor) -> Tensor:
        return t + self_attention(t) * (1 + 1e-8 * torch.overrides.has_torch_function((t,)))

    with pytest.raises(ModelError, match=r"returns something else, off by \d\.\de-"):
        attribute(tokens_of(sly), pictures(size=SIDE), "attention-rollout")


def test_legrad_needs_a_layer_that_returns_the_tokens_of_a_block() -> None:
    net = tokens_of(lambda n, t: t + self_attention(n.norm(t)), norm=nn.LayerNorm(8))
    x = pictures(size=SIDE)
    assert attribute(net, x, "generic-attention").values.any()
    with pytest.raises(UnsupportedError, match="no layers that return the tokens of a block"):
        attribute(net, x, "legrad")


# Nothing is left behind


def functions() -> tuple[object, ...]:
    return F.scaled_dot_product_attention, F.multi_head_attention_forward, F.softmax, vars(F)["has_torch_function"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_in_the_model_leaves_no_mode_and_no_function(error: type[BaseException]) -> None:
    net, before = net_of("torchvision"), functions()
    state = {name: dict(vars(m)) for name, m in net.named_modules()}
    left = 0

    def fail(*_: object) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise error("stop")

    handle = net.encoder.layers[1].self_attention.out_proj.register_forward_pre_hook(fail)
    inside = net.encoder.layers[1].mlp.register_forward_pre_hook(fail)
    for at in (1, 2, 3):
        left = at
        with pytest.raises((error, ModelError), match="stop"):
            attribute(Classifier(net), pictures(size=SIDE), "generic-attention")
        assert _len_torch_function_stack() == 0
        assert functions() == before
    handle.remove()
    inside.remove()
    assert {name: dict(vars(m)) for name, m in net.named_modules()} == state


def test_another_thread_is_neither_recorded_nor_intercepted() -> None:
    net, x, others = net_of("timm"), pictures(size=SIDE), pictures(3, size=SIDE, seed=1)
    with torch.no_grad():
        expected = net(others)
    inside, done = threading.Event(), threading.Event()
    outputs: list[Tensor] = []
    depths: list[int] = []

    def plain() -> None:
        inside.wait()
        with torch.no_grad():
            outputs.append(net(others))
        depths.append(_len_torch_function_stack())
        done.set()

    def meet(*_: object) -> None:
        if threading.current_thread() is threading.main_thread():
            inside.set()
            done.wait()

    handle = net.blocks[0].mlp.register_forward_pre_hook(meet)
    thread = threading.Thread(target=plain)
    thread.start()
    with torch.no_grad(), Attending() as attending:
        net(x)
    thread.join()
    handle.remove()
    assert depths == [0]
    assert torch.equal(outputs[0], expected)
    assert [len(a) for a in attending.maps] == [2, 2]


# What it costs


def test_several_targets_share_one_run() -> None:
    x, model = pictures(size=SIDE), Classifier(net_of("timm"))
    for method, rest in [("attention-rollout", (0, 0)), ("generic-attention", (2, 0)), ("legrad", (0, 8))]:
        first, second = attribute_all(model, x, method, [1, 3], {})
        assert (second.passes.forward, second.passes.backward, second.passes.partial) == (0, *rest)
        for target, answer in ((1, first), (3, second)):
            assert torch.equal(answer.values, attribute(model, x, method, target=target).values)


def test_the_readout_is_found_once_for_a_size() -> None:
    calls = 0

    def counting(*_: object) -> None:
        nonlocal calls
        calls += 1

    net = drawn(SmallViT())
    net.patch.register_forward_hook(counting)
    model, found = Classifier(net), []
    for size in (16, 16, 24, 24):
        calls = 0
        attribute(model, pictures(size=size), "generic-attention")
        found.append(calls)
    assert found[1] == found[3] == 1
    assert found[0] > 1
    assert found[2] > 1


def test_a_function_that_torch_decorates_is_copied_though_it_holds_itself():
    """Otherwise copying what it holds would never end."""

    @wrap_torch_function(lambda x: (x,))
    def doubled(x: Tensor) -> Tensor:
        return 2 * x

    seen = []

    class Mode(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            seen.append(func)
            return unguarded(func)(*args) if func is doubled else func(*args, **(kwargs or {}))

    with Mode():
        y = doubled(torch.ones(3))
    assert seen.count(doubled) == 1
    assert y.tolist() == [2, 2, 2]
