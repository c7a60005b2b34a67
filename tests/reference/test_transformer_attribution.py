"""Transformer attribution against its formulas, written out for relevance itself on explicit attention."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import pytest
import timm.models.vision_transformer
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.vision_transformer import VisionTransformer

from small_nets import AttentionBlock, SmallNet, SmallViT, drawn, pictures, relative
from whence import attribute
from whence.errors import UnsupportedError
from whence.methods.lrp import named
from whence.methods.lrp.operations import table
from whence.methods.lrp.propagation import Propagation
from whence.models.classifier import Classifier

METHOD = "transformer-attribution"
Variant = Literal["attn-lrp", "official"]
VARIANTS: tuple[Variant, ...] = ("attn-lrp", "official")
TARGETS = [1, 3]
HEADS = 3


@dataclass(frozen=True)
class Parts:
    """A transformer's modules by what they do; queries, keys and values come of one matrix."""

    norm1: nn.Module
    qkv: tuple[Tensor, Tensor]
    proj: nn.Module
    norm2: nn.Module
    first: nn.Module
    second: nn.Module


@dataclass(frozen=True)
class Net:
    """A transformer, and how to write it out: ``embed`` makes its tokens, ``token`` says that it reads the first."""

    module: nn.Module
    embed: Callable[[Tensor], Tensor]
    blocks: list[Parts]
    norm: nn.Module
    head: nn.Module
    token: bool
    side: int


def biased(net: nn.Module, side: int) -> nn.Module:
    """Return the net drawn, with biases that are not zero."""
    net = drawn(net.eval(), shape=(3, side, side))
    generator = torch.Generator().manual_seed(1)
    for name, parameter in net.named_parameters():
        if name.endswith("bias"):
            parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator).double()
    return net


def small(token: bool = True) -> Net:
    net = biased(SmallViT(token=token), 16)

    def embed(x: Tensor) -> Tensor:
        t = net.patch(x).flatten(2).transpose(1, 2)
        return torch.cat((net.cls_token.expand(len(x), -1, -1), t), 1) if token else t

    blocks = [
        Parts(b.norm1, (b.attn.qkv.weight, b.attn.qkv.bias), b.attn.proj, b.norm2, b.mlp[0], b.mlp[2])
        for b in net.blocks
    ]
    return Net(net, embed, blocks, net.norm, net.head, token, 16)


def torchvisions() -> Net:
    net = biased(VisionTransformer(32, 8, num_layers=3, num_heads=3, hidden_dim=12, mlp_dim=24, num_classes=5), 32)

    def embed(x: Tensor) -> Tensor:
        t = torch.cat((net.class_token.expand(len(x), -1, -1), net._process_input(x)), 1)
        return t + net.encoder.pos_embedding

    blocks = [
        Parts(b.ln_1, (a.in_proj_weight, a.in_proj_bias), a.out_proj, b.ln_2, b.mlp[0], b.mlp[3])
        for b in net.encoder.layers
        for a in [b.self_attention]
    ]
    return Net(net, embed, blocks, net.encoder.ln, net.heads.head, True, 32)


def timms(depth: int = 3, **options: object) -> nn.Module:
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 12, "num_heads": 3, "num_classes": 5}
    return timm.models.vision_transformer.VisionTransformer(**sizes, depth=depth, **options)


NETS = {"small": small, "small, mean": lambda: small(token=False), "torchvision": torchvisions}


def z_plus(x: Tensor, weight: Tensor, r: Tensor) -> Tensor:
    """Positive contributions alone, those of negative inputs and weights among them; biases get nothing."""
    x, w = x[..., None, :], weight
    contributions = (x * w).clamp(min=0)
    return (contributions / (contributions.sum(-1, keepdim=True) + 1e-6) * r[..., None]).sum(-2)


def through_norm(x: Tensor, norm: nn.Module, r: Tensor, variant: str) -> Tensor:
    if variant == "official":
        return r
    slope = r / norm(x) * norm.weight
    return x * (slope - slope.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + norm.eps).sqrt()


def through_sum(a: Tensor, b: Tensor, r: Tensor, variant: str) -> tuple[Tensor, Tensor]:
    shares = a / (a + b) * r, b / (a + b) * r
    if variant == "attn-lrp":
        return shares
    # The paper's normalisation, for each picture.
    sums = [share.sum((1, 2), keepdim=True) for share in shares]
    size = sums[0].abs() + sums[1].abs()
    whole = r.sum((1, 2), keepdim=True)
    scaled = [share * (s.abs() / size * whole / s) for share, s in zip(shares, sums, strict=True)]
    return scaled[0], scaled[1]


def through_softmax(scores: Tensor, a: Tensor, r: Tensor, variant: str) -> Tensor:
    return r if variant == "official" else scores * (r - a * r.sum(-1, keepdim=True))


def through_product(a: Tensor, b: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
    s = r / (a @ b)
    return a * (s @ b.mT) / 2, b * (a.mT @ s) / 2


def written_out(net: Net, x: Tensor, variant: str) -> Tensor:
    """Return the map by the formulas of the paper and the rules of the variant."""
    tokens = net.embed(x.clone().requires_grad_())
    runs = []
    for part in net.blocks:
        inner = part.norm1(tokens)
        q, k, v = F.linear(inner, *part.qkv).unflatten(2, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        scores = q @ k.mT / q.shape[-1] ** 0.5
        a = scores.softmax(-1)
        mixed = (a @ v).transpose(1, 2).flatten(2)
        attended = part.proj(mixed)
        between = tokens + attended
        normed = part.norm2(between)
        active = F.gelu(part.first(normed))
        out = part.second(active)
        runs.append((tokens, inner, q, k, v, scores, a, mixed, attended, between, normed, active, out))
        tokens = between + out
    last = net.norm(tokens)
    read = last[:, 0] if net.token else last.mean(1)
    logits = net.head(read)
    picked = torch.arange(len(x)), torch.tensor(TARGETS)
    gradients = torch.autograd.grad(logits[picked].sum(), [run[6] for run in runs])
    with torch.no_grad():
        r = z_plus(read, net.head.weight, torch.zeros_like(logits).index_put(picked, torch.ones(2).double()))
        r = (
            torch.cat((r[:, None], torch.zeros_like(last[:, 1:])), 1)
            if net.token
            else last / last.sum(1, True) * r[:, None]
        )
        r = through_norm(tokens, net.norm, r, variant)
        row = torch.zeros(last.shape[1]).double().index_fill(0, torch.tensor([0]), 1.0)
        row = row if net.token else torch.full_like(row, 1 / len(row))
        start = row.expand(len(x), 1, -1)
        rows = start
        for part, run, g in zip(reversed(net.blocks), reversed(runs), reversed(gradients), strict=True):
            tokens, inner, q, k, v, scores, a, mixed, attended, between, normed, active, out = run
            r, branch = through_sum(between, out, r, variant)
            branch = z_plus(normed, part.first.weight, z_plus(active, part.second.weight, branch))
            r = r + through_norm(between, part.norm2, branch, variant)
            r, branch = through_sum(tokens, attended, r, variant)
            branch = z_plus(mixed, part.proj.weight, branch).unflatten(2, (HEADS, -1)).transpose(1, 2)
            of_a, of_v = through_product(a, v, branch)
            of_q, of_k = through_product(q, k.mT, through_softmax(scores, a, of_a, variant))
            branch = torch.stack((of_q, of_k.mT, of_v)).permute(1, 3, 0, 2, 4).flatten(2)
            r = r + through_norm(tokens, part.norm1, z_plus(inner, part.qkv[0], branch), variant)
            rows = rows + rows @ (g * of_a).clamp(min=0).mean(1)
    grid = net.side // 4 if isinstance(net.module, SmallViT) else net.side // 8
    return (rows - start)[:, 0, int(net.token) :].reshape(-1, 1, grid, grid)


def ours(net: nn.Module, x: Tensor, variant: str = "attn-lrp", target: object = TARGETS) -> Tensor:
    return attribute(Classifier(net), x, METHOD, target=target, variant=variant).values


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", NETS)
def test_it_is_what_the_formulas_say(name: str, variant: str) -> None:
    net = NETS[name]()
    x = pictures(size=net.side)
    expected = written_out(net, x, variant)
    assert expected.any()
    assert relative(ours(net.module, x, variant), expected) <= 1e-10


def test_the_variants_differ() -> None:
    net, x = small().module, pictures()
    assert relative(ours(net, x), ours(net, x, "official")) > 0.01


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_batch_gives_what_single_pictures_give(variant: str) -> None:
    """In the authors' code sums are normalised over the batch, so that pictures change one another's maps."""
    net, x = biased(timms(), 32), pictures(3, size=32)
    singles = torch.cat([ours(net, one[None], variant, [2]) for one in x])
    assert relative(ours(net, x, variant, [2, 2, 2]), singles) <= 1e-10


@pytest.mark.parametrize("variant", VARIANTS)
def test_explicit_attention_gives_what_fused_attention_gives(variant: str) -> None:
    net, x = biased(timms(reg_tokens=4), 32), pictures(size=32)
    fused = ours(net, x, variant)
    for block in net.blocks:
        block.attn.fused_attn = False
    assert relative(ours(net, x, variant), fused) <= 1e-10


class Inplace(AttentionBlock):
    """A block whose sums are written into one of their summands."""

    def forward(self, x: Tensor) -> Tensor:
        attended = self.attn(self.norm1(x))
        attended += x
        out = self.mlp(self.norm2(attended))
        out += attended
        return out


@pytest.mark.parametrize("variant", VARIANTS)
def test_sums_in_place_are_sums(variant: str) -> None:
    net, x = small().module, pictures()
    expected = ours(net, x, variant)
    for block in net.blocks:
        block.__class__ = Inplace
    assert relative(ours(net, x, variant), expected) <= 1e-10


@pytest.mark.parametrize("variant", VARIANTS)
def test_pictures_on_the_second_axis_are_told_apart(variant: str) -> None:
    """Tokens lie before pictures here, so that a picture's sum is one over the first axis and the last."""

    class Turned(SmallViT):
        def forward(self, x: Tensor) -> Tensor:
            x = self.patch(x).flatten(2).permute(2, 0, 1)
            x = torch.cat((self.cls_token.expand(-1, x.shape[1], -1), x))
            for block in self.blocks:
                x = x + block.attn(block.norm1(x).transpose(0, 1)).transpose(0, 1)
                x = x + block.mlp(block.norm2(x))
            return self.head(self.norm(x)[0])

    net, x = biased(Turned(), 16), pictures()
    plain = biased(SmallViT(), 16)
    assert relative(ours(net, x, variant), ours(plain, x, variant)) <= 1e-10


def test_the_map_is_of_the_class() -> None:
    net, x = small().module, pictures(1)
    maps = [ours(net, x, target=label) for label in (0, 1, 2)]
    assert relative(maps[1], maps[0]) > 0.1
    assert relative(maps[2], maps[0]) > 0.1
    assert torch.equal(ours(net, x, target=lambda output: output[:, 1]), maps[1])
    assert relative(ours(net, x, target="1 - 2"), maps[1]) > 0.1


@pytest.mark.parametrize("variant", VARIANTS)
def test_relevance_starts_as_one_whatever_the_logit(variant: str) -> None:
    """A map that began with the logit would turn about with its sign."""
    net, x = small().module, pictures()
    before = ours(net, x, variant)
    logits = net(x)[torch.arange(2), TARGETS]
    net.head.bias.data = net.head.bias.data - logits.detach().max() - 1
    assert (net(x)[torch.arange(2), TARGETS] < 0).all()
    assert relative(ours(net, x, variant), before) <= 1e-10


def test_what_rounding_does_to_either_variant() -> None:
    """The official rules divide by values near zero, twelve blocks of which make much of little."""
    net, x = biased(timms(depth=12), 32), pictures(size=32)
    exact = {variant: ours(net, x, variant) for variant in VARIANTS}
    net.float()
    off = {variant: relative(ours(net, x.float(), variant).double(), exact[variant]) for variant in VARIANTS}
    assert off["attn-lrp"] <= 1e-3
    assert off["official"] > 10 * off["attn-lrp"]


def test_small_numbers_are_not_lost_beside_the_identity() -> None:
    net, x = biased(SmallViT(token=False), 16), pictures()
    net.head.weight.data *= 1e-7
    exact = ours(net, x)
    assert relative(ours(net.float(), x.float()).double(), exact) <= 1e-3


def test_a_model_without_attention_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="grad-cam"):
        ours(drawn(SmallNet()), pictures())


def test_maps_are_watched_where_they_have_relevance() -> None:
    """A probe sees half of what a block's values and map get together; a constant map has none."""
    net = small()
    x = pictures()
    seen = {}
    for name in ("attn-lrp", "cp-lrp"):
        run = Propagation(
            net.module, named.NAMED[name](), table(), pixels=None, bias="absorb", count=2, attention=True
        )
        leaf = x.clone().requires_grad_()
        with run:
            output = net.module(leaf)
        torch.autograd.grad(output[:, 0].sum(), leaf)
        seen[name] = run.maps, {n: r.shape for n, r in run.ledger.layers.items()}
    shape = torch.Size([2, HEADS, 17, 17])
    assert seen["attn-lrp"] == (2, {"attention 1": shape, "attention 0": shape})
    assert seen["cp-lrp"] == (0, {})
