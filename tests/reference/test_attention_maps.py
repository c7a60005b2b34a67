"""The maps of transformers against brute force over their explicit attention, and LeGrad against torch-cam's."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import timm.models.beit
import timm.models.deit
import timm.models.vision_transformer
import torch
import transformers
from torch import Tensor, nn
from torchvision.models.vision_transformer import VisionTransformer

from small_nets import SmallViT, drawn, pictures, relative
from whence import attribute
from whence.models.classifier import Classifier

SIDE, GRID = 32, (4, 4)
TARGETS = [1, 3]
SMALL = {"img_size": SIDE, "patch_size": 8, "embed_dim": 12, "depth": 3, "num_heads": 3, "num_classes": 5}


@dataclass(frozen=True)
class Explicit:
    """A run with attention as the model's library makes it when asked: every tensor is one of the graph.

    ``maps`` [B, heads, N, N] and ``tokens`` [B, N, C] after each block; ``tail`` makes logits of such tokens;
    ``read`` is the weight of each row, written by hand.
    """

    logits: Tensor
    maps: list[Tensor]
    tokens: list[Tensor]
    tail: Callable[[Tensor], Tensor]
    prefix: int
    read: Tensor


def rows(prefix: list[float], patches: float, count: int = 16) -> Tensor:
    return torch.tensor(prefix + [patches] * count).double()


def of_timm(net: nn.Module, x: Tensor, read: Tensor) -> Explicit:
    """Let timm compute its attention unfused, and look at what goes into the values' product."""
    maps: list[Tensor] = []
    tokens: list[Tensor] = []
    handles = []
    for block in net.blocks:
        block.attn.fused_attn = False
        handles.append(block.attn.attn_drop.register_forward_hook(lambda _, __, output: maps.append(output)))
        handles.append(block.register_forward_hook(lambda _, __, output: tokens.append(output)))
    with torch.enable_grad():
        logits = net(x.clone().requires_grad_())
    for handle in handles:
        handle.remove()
    for block in net.blocks:
        block.attn.fused_attn = True
    return Explicit(logits, maps, tokens, lambda t: net.forward_head(net.norm(t)), net.num_prefix_tokens, read)


def of_transformers(net: nn.Module, x: Tensor, read: Tensor) -> Explicit:
    net.set_attn_implementation("eager")
    output = net(x.clone().requires_grad_(), output_attentions=True, output_hidden_states=True)
    net.set_attn_implementation("sdpa")

    def tail(t: Tensor) -> Tensor:
        normed = net.dinov2.layernorm(t)
        return net.classifier(torch.cat((normed[:, 0], normed[:, 1:].mean(1)), 1))

    return Explicit(output.logits, list(output.attentions), list(output.hidden_states[1:]), tail, 1, read)


def of_small(net: SmallViT, x: Tensor, read: Tensor) -> Explicit:
    """Write the small net out."""
    t = net.patch(x.clone().requires_grad_()).flatten(2).transpose(1, 2)
    t = t if net.cls_token is None else torch.cat((net.cls_token.expand(len(x), -1, -1), t), 1)
    maps, tokens = [], []
    for block in net.blocks:
        q, k, v = (s.unflatten(2, (3, 4)).transpose(1, 2) for s in block.attn.qkv(block.norm1(t)).split(12, 2))
        maps.append((q @ k.mT / 2).softmax(3))
        t = t + block.attn.proj((maps[-1] @ v).transpose(1, 2).flatten(2))
        t = t + block.mlp(block.norm2(t))
        tokens.append(t)

    def tail(t: Tensor) -> Tensor:
        normed = net.norm(t)
        return net.head(normed[:, 0] if net.cls_token is not None else normed.mean(1))

    return Explicit(tail(t), maps, tokens, tail, int(net.cls_token is not None), read)


def timms(**options: object) -> nn.Module:
    return timm.models.vision_transformer.VisionTransformer(**SMALL, **options)


def dinov2() -> nn.Module:
    sizes = {"image_size": SIDE, "patch_size": 8, "hidden_size": 12, "num_hidden_layers": 3, "num_attention_heads": 3}
    return transformers.Dinov2ForImageClassification(transformers.Dinov2Config(**sizes, num_labels=5))


def beit() -> nn.Module:
    return timm.models.beit.Beit(**SMALL, use_abs_pos_emb=False, use_rel_pos_bias=True)


CASES: dict[str, tuple[Callable[[], nn.Module], Callable[..., Explicit], Tensor]] = {
    "small": (SmallViT, of_small, rows([1.0], 0)),
    "small, mean": (lambda: SmallViT(token=False), of_small, rows([], 1 / 16)),
    "timm": (timms, of_timm, rows([1.0], 0)),
    "timm, registers": (lambda: timms(reg_tokens=4), of_timm, rows([1.0, 0, 0, 0, 0], 0)),
    "timm, mean beside a class token": (lambda: timms(global_pool="avg"), of_timm, rows([0.0], 1 / 16)),
    "timm, distilled": (
        lambda: timm.models.deit.VisionTransformerDistilled(**SMALL),
        of_timm,
        rows([0.5, 0.5], 0),
    ),
    "beit": (beit, of_timm, rows([0.0], 1 / 16)),
    "dinov2": (dinov2, of_transformers, rows([0.5], 0.5 / 16)),
}


def case(name: str) -> tuple[nn.Module, Tensor, Explicit]:
    build, explicit, read = CASES[name]
    side = 16 if name.startswith("small") else SIDE
    net, x = drawn(build().eval(), shape=(3, side, side)), pictures(size=side)
    with torch.enable_grad():
        return net, x, explicit(net, x, read)


def picked(logits: Tensor) -> Tensor:
    return logits[torch.arange(2), torch.tensor(TARGETS)].sum()


def as_map(run: Explicit, values: Tensor) -> Tensor:
    return values[:, run.prefix :].reshape(2, 1, *GRID).detach()


def ours(net: nn.Module, x: Tensor, method: str, **options: object) -> Tensor:
    return attribute(Classifier(net), x, method, target=TARGETS, **options).values


@pytest.mark.parametrize("heads", ["mean", "max", "min"])
@pytest.mark.parametrize("name", CASES)
def test_attention_rollout(name: str, heads: str) -> None:
    net, x, run = case(name)
    product = torch.eye(run.maps[0].shape[-1]).double().expand(2, -1, -1)
    for a in run.maps:
        over = {"mean": a.mean(1), "max": a.max(1).values, "min": a.min(1).values}[heads]
        layer = 0.5 * over + 0.5 * torch.eye(a.shape[-1]).double()
        product = layer / layer.sum(-1, keepdim=True) @ product
    expected = as_map(run, torch.einsum("q,bqk->bk", run.read, product))
    assert (expected > 0).all()
    assert relative(ours(net, x, "attention-rollout", heads=heads), expected) <= 1e-10


@pytest.mark.parametrize("name", CASES)
def test_generic_attention(name: str) -> None:
    net, x, run = case(name)
    gradients = torch.autograd.grad(picked(run.logits), run.maps)
    start = torch.eye(run.maps[0].shape[-1]).double().expand(2, -1, -1)
    relevance = start
    for a, g in zip(run.maps, gradients, strict=True):
        relevance = relevance + (g * a).relu().mean(1) @ relevance
    expected = as_map(run, torch.einsum("q,bqk->bk", run.read, relevance - start))
    assert expected.any()
    assert relative(ours(net, x, "generic-attention"), expected) <= 1e-10
    plain = as_map(run, torch.einsum("q,bqk->bk", run.read, relevance))
    # The identity shows only where patches are read, and there by one number.
    shift = plain - expected
    assert relative(shift, torch.full_like(shift, float(run.read[-1]))) <= 1e-10 or not shift.any()


@pytest.mark.parametrize("name", CASES)
def test_legrad(name: str) -> None:
    net, x, run = case(name)
    relevances = []
    for a, tokens in zip(run.maps, run.tokens, strict=True):
        (g,) = torch.autograd.grad(picked(run.tail(tokens)), a, retain_graph=True)
        relevances.append(g.relu().mean((1, 2)))
    assert relative(run.tail(run.tokens[-1]).detach(), run.logits.detach()) <= 1e-10
    expected = as_map(run, sum(relevances) / len(relevances))
    assert expected.any()
    assert relative(ours(net, x, "legrad"), expected) <= 1e-10


def torchvisions() -> tuple[nn.Module, Tensor]:
    net = VisionTransformer(SIDE, 8, num_layers=3, num_heads=3, hidden_dim=12, mlp_dim=24, num_classes=5)
    return drawn(net.eval(), shape=(3, SIDE, SIDE)), pictures(size=SIDE)


def torch_cams(net: nn.Module, x: Tensor, projection: Callable[[Tensor], Tensor] | None) -> Tensor:
    peers = pytest.importorskip("torchcam.methods")
    with peers.LeGrad(net, list(net.encoder.layers), score_projection=projection) as extractor, torch.enable_grad():
        scores = net(x)
        return extractor(TARGETS, scores, normalized=False)[0][:, None]


def test_legrad_is_torch_cams_where_it_reads_the_class_token() -> None:
    net, x = torchvisions()
    expected = torch_cams(net, x, lambda tokens: net.heads(net.encoder.ln(tokens)[:, 0]))
    assert expected.any()
    assert relative(ours(net, x, "legrad"), expected) <= 1e-10


def test_torch_cam_by_itself_scores_the_mean_of_all_tokens_which_this_model_never_reads() -> None:
    net, x = torchvisions()
    expected = torch_cams(net, x, None)
    assert relative(ours(net, x, "legrad"), expected) > 0.1
    by_hand = torch_cams(net, x, lambda tokens: net.heads(net.encoder.ln(tokens.mean(1))))
    assert relative(expected, by_hand) <= 1e-12


@pytest.mark.parametrize("method", ["attention-rollout", "generic-attention", "legrad"])
def test_a_rectangular_picture_has_a_rectangular_map(method: str) -> None:
    net = drawn(SmallViT())
    assert ours(net, pictures(size=(16, 32)), method).shape == (2, 1, 4, 8)


def test_a_head_that_reads_only_a_register_takes_its_row() -> None:
    """Nothing goes by the token's place or name: the head of this one reads its second token."""
    build = timms(reg_tokens=4)
    build.forward_head = lambda tokens, pre_logits=False: build.head(tokens[:, 1])
    net, x = drawn(build.eval(), shape=(3, SIDE, SIDE)), pictures(size=SIDE)
    run = of_timm(net, x, rows([0.0, 1.0, 0, 0, 0], 0))
    gradients = torch.autograd.grad(picked(run.logits), run.maps)
    row = run.read.expand(2, 1, -1)
    for a, g in zip(reversed(run.maps), reversed(gradients), strict=True):
        row = row + row @ (g * a).relu().mean(1)
    assert relative(ours(net, x, "generic-attention"), as_map(run, row[:, 0])) <= 1e-10
