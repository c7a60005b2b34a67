"""LRP of transformers against plain autograd on a forward pass of its own, written with what each rule detaches.

Relevance is value times gradient of that pass, as in LXT: norms have their deviation detached, activations are their
input times a constant; CP-LRP detaches queries and keys; AttnLRP halves every product of two signals, which gives
queries and keys a quarter and values a half.
"""

import copy
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.swin_transformer import SwinTransformer, swin_t
from torchvision.models.vision_transformer import VisionTransformer

from small_nets import Attention, SmallViT, drawn, pictures, relative
from whence import attribute
from whence.methods.lrp import named, rules
from whence.methods.lrp.composites import Composite
from whence.models.classifier import Classifier
from whence.results import Attribution

SIZE, LAYERS, HEADS, E = 64, 4, 4, 1e-6


def vit() -> VisionTransformer:
    net = VisionTransformer(
        image_size=SIZE, patch_size=16, num_layers=LAYERS, num_heads=HEADS, hidden_dim=32, mlp_dim=64, num_classes=10
    )
    return drawn(net, shape=(3, SIZE, SIZE)).eval()


@dataclass
class Rules:
    """``gamma`` of convolutions, of dense layers and of the projections of attention; ``attn`` for AttnLRP."""

    convolution: float | None = None
    dense: float | None = None
    projection: float | None = None
    attn: bool = False


class Explained:
    """The forward pass of a VisionTransformer whose gradient, times the value, is its relevance."""

    def __init__(self, net: VisionTransformer, chosen: Rules) -> None:
        self.net, self.rules = net, chosen

    def __call__(self, x: Tensor) -> Tensor:
        net, one = self.net, self.rules

        def patches(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
            return F.conv2d(x, weight, stride=16) + bias[:, None, None]

        x = self.favoured(patches, x, net.conv_proj.weight, net.conv_proj.bias, one.convolution)
        x = x.flatten(2).transpose(1, 2)
        x = torch.cat([net.class_token.expand(len(x), -1, -1), x], 1) + net.encoder.pos_embedding
        for block in net.encoder.layers:
            x = x + self.attention(block.self_attention, self.norm(block.ln_1, x))
            h = self.linear(self.norm(block.ln_2, x), block.mlp[0].weight, block.mlp[0].bias, one.dense)
            x = x + self.linear(h * (F.gelu(h) / h).detach(), block.mlp[3].weight, block.mlp[3].bias, one.dense)
        head = net.heads.head
        return self.linear(self.norm(net.encoder.ln, x)[:, 0], head.weight, head.bias, one.dense)

    def favoured(self, apply, x: Tensor, weight: Tensor, bias: Tensor, gamma: float | None) -> Tensor:
        """Run a linear layer; where there is a gamma, its gradient deals out by generalised LRP-gamma."""
        y = apply(x, weight, bias)
        if gamma is None:
            return y
        up, down = weight + gamma * weight.clamp(min=0), weight + gamma * weight.clamp(max=0)
        b_up, b_down = bias + gamma * bias.clamp(min=0), bias + gamma * bias.clamp(max=0)
        above, below, none = x.clamp(min=0), x.clamp(max=0), torch.zeros_like(bias)
        positive = apply(above, up, b_up) + apply(below, down, none)
        negative = apply(above, down, b_down) + apply(below, up, none)
        z = torch.where(y > 0, positive, negative)
        share = y / (z + E * z.sign())
        return y.detach() + (z - z.detach()) * share.detach()

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor, gamma: float | None) -> Tensor:
        return self.favoured(lambda x, w, b: x @ w.T + b, x, weight, bias, gamma)

    def norm(self, layer: nn.LayerNorm, x: Tensor) -> Tensor:
        deviation = (x.var(-1, correction=0, keepdim=True) + layer.eps).sqrt().detach()
        return (x - x.mean(-1, keepdim=True)) / deviation * layer.weight + layer.bias

    def attention(self, layer: nn.MultiheadAttention, x: Tensor) -> Tensor:
        qkv = self.linear(x, layer.in_proj_weight, layer.in_proj_bias, self.rules.projection)
        q, k, v = qkv.unflatten(2, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        if self.rules.attn:
            q, k, v = (part(t, share) for t, share in ((q, 0.25), (k, 0.25), (v, 0.5)))
        else:
            q, k = q.detach(), k.detach()
        weights = (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).softmax(-1)
        out = (weights @ v).transpose(1, 2).flatten(2)
        return self.linear(out, layer.out_proj.weight, layer.out_proj.bias, self.rules.projection)


def part(x: Tensor, share: float) -> Tensor:
    """Return x, of whose gradient only a share goes on."""
    return share * x + (1 - share) * x.detach()


def expected(net: VisionTransformer, chosen: Rules, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the relevance of the input, and that of everything that is added: biases, token, positions."""
    x = x.clone().requires_grad_()
    added = {name: p for name, p in net.named_parameters() if "bias" in name}
    added |= {name: p for name, p in net.named_parameters() if name.endswith(("class_token", "pos_embedding"))}
    score = Explained(net, chosen)(x).max(1).values.sum()
    of_input, *of_added = torch.autograd.grad(score, [x, *added.values()])
    return x.detach() * of_input, sum((p * g).sum() for p, g in zip(added.values(), of_added, strict=True)).detach()


def ours(net: nn.Module, composite: str | Composite, x: Tensor, **options: object) -> Attribution:
    return attribute(Classifier(net.eval()), x, "lrp", composite=composite, **options)


def gammas(convolution: float, dense: float) -> tuple[tuple[str, rules.Rule], ...]:
    by = rules.generalised_gamma
    return (("conv_proj", by(convolution, E)), ("*.mlp.*", by(dense, E)), ("heads.*", by(dense, E)))


ATTN = ("attention", "attn")
CASES = {
    "cp": (Composite("cp", ()), Rules()),
    "attn": (Composite("attn", (ATTN,)), Rules(attn=True)),
    # The gammas of LXT's example; its projections of attention have none.
    "cp, gamma .25 and .05": (Composite("cp", gammas(0.25, 0.05)), Rules(0.25, 0.05)),
    "cp, gamma 100 and 1": (Composite("cp", gammas(100, 1)), Rules(100, 1)),
    "attn, gamma .25 and .05": (Composite("attn", (ATTN, *gammas(0.25, 0.05))), Rules(0.25, 0.05, attn=True)),
    "cp-lrp": (named.cp_lrp(E), Rules(0.25, 0.05, 0.05)),
    "attn-lrp": (named.attn_lrp(E), Rules(0.25, 0.05, 0.05, attn=True)),
}


@pytest.mark.parametrize("case", CASES)
def test_the_map_of_a_vision_transformer_is_the_formula(case: str) -> None:
    net, x, (composite, chosen) = vit(), pictures(2, size=SIZE), CASES[case]
    assert relative(Explained(net, chosen)(x).detach(), net(x).detach()) <= 1e-12
    r, _ = expected(net, chosen, x)
    answer = ours(net, composite, x)
    assert r.min() < 0 < r.max()
    assert relative(answer.values, r) <= 1e-12
    assert answer.residual.max() <= 1e-12


def test_cp_lrp_hands_on_all_to_input_biases_token_and_positions() -> None:
    net, x = vit(), pictures(2, size=SIZE)
    r, added = expected(net, Rules(), x)
    answer = ours(net, Composite("cp", ()), x)
    score, balance = net(x).detach().max(1).values, answer.balance
    assert relative(r.sum() + added, score.sum()) <= 1e-12
    assert relative((balance.bias + balance.constants).sum(), added) <= 1e-12
    assert relative(balance.input + balance.bias + balance.constants, score) <= 1e-12


class Written(nn.Module):
    """Attention with one matrix, written out or by torch's function, with a mask."""

    def __init__(self, inner: Attention, mask: str, fused: bool) -> None:
        super().__init__()
        self.inner, self.mask, self.fused = inner, mask, fused

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.inner.qkv(x).unflatten(2, (3, self.inner.heads, -1)).permute(2, 0, 3, 1, 4)
        generator = torch.Generator().manual_seed(2)
        bias = torch.randn(q.shape[2], q.shape[2], generator=generator, dtype=x.dtype)
        seen = (bias < 1).tril() | torch.eye(len(bias), dtype=torch.bool)
        if self.fused:
            masks = {"none": {}, "added": {"attn_mask": bias}, "seen": {"attn_mask": seen}}
            masks["causal"] = {"is_causal": True}
            out = F.scaled_dot_product_attention(q, k, v, scale=0.3, **masks[self.mask])
        else:
            scores = q @ k.transpose(-2, -1) * 0.3
            if self.mask == "added":
                scores = scores + bias
            if self.mask in ("seen", "causal"):
                kept = seen if self.mask == "seen" else torch.ones_like(seen).tril()
                scores = scores.masked_fill(~kept, -torch.inf)
            out = scores.softmax(-1) @ v
        return self.inner.proj(out.transpose(1, 2).flatten(2))


@pytest.mark.parametrize("mask", ["none", "added", "seen", "causal"])
@pytest.mark.parametrize("composite", ["cp-lrp", "attn-lrp", "lrp-0"])
def test_attention_that_is_written_out_is_torchs_own(composite: str, mask: str) -> None:
    net, x = drawn(SmallViT()), pictures(2)
    answers = []
    for fused in (True, False):
        twin = copy.deepcopy(net)
        for block in twin.blocks:
            block.attn = Written(block.attn, mask, fused)
        answers.append(ours(twin, composite, x))
    assert relative(answers[1].values, answers[0].values) <= 1e-12
    # A bias added to scores takes its share of what comes to them, where scores are signals.
    assert answers[0].residual.max() <= 1e-12
    assert answers[1].residual.max() <= 1e-12


def small_swin() -> nn.Module:
    """Return a Swin transformer whose windows overhang its maps, and are shifted."""
    return SwinTransformer(
        patch_size=[4, 4], embed_dim=12, depths=[2, 2], num_heads=[2, 2], window_size=[3, 3], num_classes=10
    )


@pytest.mark.parametrize("composite", ["lrp-0", "cp-lrp", "attn-lrp", "epsilon-plus-flat", "preset-a-flat-until-3"])
@pytest.mark.parametrize("build", [small_swin, swin_t])
def test_a_swin_transformer_computes_what_it_does_and_its_balance_adds_up(build, composite: str) -> None:
    if build is swin_t and composite != "cp-lrp":
        return
    net, x = drawn(build(), shape=(3, SIZE, SIZE)).eval(), pictures(2, size=SIZE)
    answer = ours(net, composite, x)
    assert relative(answer.score, net(x).detach().max(1).values) <= 1e-14
    assert answer.values.abs().amax((1, 2, 3)).min() > 0
    assert answer.residual.max() <= 1e-10
    assert not any("without a rule" in note for notes in answer.notes for note in notes)


def test_the_map_of_a_swin_transformer_by_lrp_0_is_the_gradient_with_norms_and_maps_of_attention_held() -> None:
    """Held by putting constants in their places, at the values they have."""
    net, x = drawn(small_swin(), shape=(3, SIZE, SIZE)).eval(), pictures(2, size=SIZE)

    def norm(x: Tensor, shape: tuple[int, ...], weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        deviation = (x.var(-1, correction=0, keepdim=True) + eps).sqrt().detach()
        return (x - x.mean(-1, keepdim=True)) / deviation * weight + bias

    softmax, gelu = F.softmax, F.gelu
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(F, "layer_norm", norm)
        patch.setattr(F, "softmax", lambda x, dim: softmax(x, dim).detach())
        patch.setattr(F, "gelu", lambda x, approximate="none": x * (gelu(x) / x).detach())
        leaf = x.clone().requires_grad_()
        output = net(leaf)
        (g,) = torch.autograd.grad(output.max(1).values.sum(), leaf)
    assert relative(output.detach(), net(x).detach()) <= 1e-12
    assert relative(ours(net, "lrp-0", x).values, x * g) <= 1e-12
