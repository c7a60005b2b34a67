"""The claim of docs/lrp_listing.md: the listing's map knows the first layer alone, that of `lrp` all of them."""

import re
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
import torch

import whence
from whence.creatures import draw

DOCS = Path(__file__).parents[1] / "docs"

pytest.importorskip("torchvision")


@pytest.fixture(scope="module")
def page() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(DOCS)
        return import_module("lrp_listing")


@pytest.fixture(scope="module")
def nets() -> tuple[torch.nn.Module, torch.nn.Module]:
    first, second = (
        whence.load_model("torchvision:resnet18", weights="random", seed=seed).module.double() for seed in (0, 1)
    )
    return first, second


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("redrawn", [("layer3",), ("layer3", "layer2", "layer1", "bn1")], ids="+".join)
def test_the_listing_makes_the_same_map_whatever_stands_above_its_first_layer(page, nets, x, redrawn) -> None:
    assert torch.equal(page.listing(page.backbone(*nets), x), page.listing(page.backbone(*nets, redrawn), x))


@pytest.mark.parametrize("composite", ["epsilon", "epsilon-plus"])
def test_the_map_of_lrp_changes_with_the_layer_on_top(page, nets, x, composite) -> None:
    before, after = (page.propagated(page.backbone(*nets, redrawn), x, composite) for redrawn in ((), ("layer3",)))
    assert (before - after).abs().max() > 1e-3 * before.abs().max()


def test_the_listing_is_the_picture_times_the_sums_of_the_first_weights(page, nets, x) -> None:
    """With z the layer's own output, s is 1: what is left is x W^T 1, whatever the picture shows."""
    net = page.backbone(*nets)
    inputs = x.clone().requires_grad_()
    (back,) = torch.autograd.grad(net.conv1(inputs).sum(), inputs)
    torch.testing.assert_close(page.listing(net, x), x * back, rtol=1e-3, atol=1e-5)


def test_the_page_quotes_what_its_command_prints(page) -> None:
    _, made = page.explained(draw(3).pixels, page.loaded(), page.STEPS[:1])
    head, _, row = page.table(made, page.CREATURE).splitlines()
    lines = (DOCS / "lrp_listing.md").read_text("utf-8").splitlines()
    quoted = lines[lines.index(head) + 2]
    # The last digits hang on how many threads run.
    numbers, expected = (list(map(float, re.findall(r"-?\d\.\d+", line))) for line in (row, quoted))
    assert numbers == pytest.approx(expected, abs=0.03)
    assert row.split("|")[1:3] == quoted.split("|")[1:3] == [" layer3 ", " the same bits "]
