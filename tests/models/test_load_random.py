"""weights="random": from the seed alone, and alive everywhere."""

import pytest
import torch
from torch import nn

from whence.errors import ModelError
from whence.models.load import load_model
from whence.models.random import draw, undisturbed

ALIVE = [
    ("torchvision:vit_b_32", {"image_size": 64}),  # a head of zeros
    ("torchvision:convnext_tiny", {}),  # a layer scale of 1e-6
    ("torchvision:resnet18", {}),  # statistics at 0 and 1
    ("torchvision:swin_v2_t", {}),  # norms behind the branches
    ("torchvision:efficientnet_b0", {}),  # gates
    ("timm:cait_xxs24_224", {"img_size": 32}),
    ("timm:nf_resnet26", {}),  # a residual gain of 0
    ("timm:swinv2_cr_tiny_224", {"img_size": 64}),  # norms of weight 0
    ("hf:beit", {"image_size": 32, "num_hidden_layers": 2}),
]


def logits(model, x):
    output = model.module(x)
    return getattr(output, "logits", output)


@pytest.mark.parametrize(("spec", "options"), ALIVE, ids=[spec for spec, _ in ALIVE])
def test_every_model_answers_to_its_picture(spec, options):
    model = load_model(spec, weights="random", **options)
    side = options.get("image_size", options.get("img_size", 64))
    x = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1)).requires_grad_()
    y = logits(model, x)
    (gradient,) = torch.autograd.grad(y[0].max(), x)
    assert y.isfinite().all()
    assert 0.01 < y.std() < 30
    assert (y[0] - y[1]).abs().mean() > 1e-3 * y.std()
    assert gradient[0].abs().max() > 1e-6


@pytest.mark.parametrize(
    ("spec", "options"),
    [
        ("torchvision:resnet18", {}),
        ("timm:vit_tiny_patch16_224", {"depth": 1}),
        ("hf:vit", {"num_hidden_layers": 1, "image_size": 32}),
    ],
)
def test_the_seed_decides_and_the_global_generator_is_left_alone(spec, options):
    state = torch.get_rng_state()
    first, again, other = (
        load_model(spec, weights="random", seed=seed, **options).module.state_dict() for seed in (1, 1, 2)
    )
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    weights = [name for name in first if name.endswith("weight") and first[name].ndim > 1]
    assert not any(torch.equal(first[name], other[name]) for name in weights)


def test_the_global_generator_does_not_decide():
    first = load_model("torchvision:vit_b_32", weights="random", image_size=64).module.state_dict()
    torch.rand(3)
    again = load_model("torchvision:vit_b_32", weights="random", image_size=64).module.state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)


class Parts(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(8, 64, 3)
        self.gate = nn.Conv2d(64, 64, 1)
        self.norm = nn.LayerNorm(64)
        self.batch = nn.BatchNorm2d(64)
        self.scale = nn.Parameter(1e-6 * torch.ones(64))
        self.gain = nn.Parameter(torch.zeros(()))
        self.temperature = nn.Parameter(torch.full((4,), 2.3))
        self.position = nn.Parameter(0.02 * torch.randn(1, 50, 64))
        self.head = nn.Linear(64, 500)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.norm.weight)


def test_the_rules():
    parts = Parts()
    draw(parts.requires_grad_(False), 0, None)
    assert parts.conv.weight.var() == pytest.approx(2 / 72, rel=0.1)
    assert parts.gate.weight.var() == pytest.approx(0.2 / 64, rel=0.1)
    assert parts.head.weight.var() == pytest.approx(1 / 64, rel=0.1)
    assert 0.01 < parts.head.bias.std() < 0.03
    assert parts.norm.weight.eq(1).all()
    assert parts.norm.bias.eq(0).all()
    for asleep in (parts.scale, parts.gain):
        assert asleep.min() >= 0.25
        assert asleep.max() <= 0.75
    assert parts.temperature.eq(2.3).all()
    assert parts.position.std() == pytest.approx(0.02, rel=0.1)


def test_batch_norms_measure_what_reaches_them_and_are_left_as_they_were():
    module = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16, momentum=0.3), nn.ReLU())
    draw(module, 0, (3, 32, 32))
    norm = module[1]
    assert norm.running_mean.abs().max() > 0
    assert norm.running_var.unique().numel() == 1
    assert (norm.momentum, norm.training) == (0.3, False)


def test_a_module_that_does_not_take_its_own_input():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(7, 2))
    with pytest.raises(ModelError, match=r"pictures of \[3, 32, 32\]"):
        draw(module, 0, (3, 32, 32))


def test_undisturbed_repeats_and_restores():
    state = torch.get_rng_state()
    draws = []
    for _ in range(2):
        with undisturbed(4):
            draws.append(torch.rand(3))
    assert torch.equal(*draws)
    assert torch.equal(torch.get_rng_state(), state)
