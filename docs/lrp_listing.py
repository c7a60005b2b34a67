"""The table and the figure of docs/lrp_listing.md: `python docs/lrp_listing.py`.

The photo's rows are printed where $WHENCE_PHOTOS is set.
"""

import os
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

import whence
from lrp_maps import Pixels, coloured, ranks_alike, sheet
from whence.creatures import draw
from whence.models.classifier import Classifier
from whence.pictures.preprocess import as_seen
from whence.pictures.read import PictureSource, read

Maps = dict[str, Tensor]

FIGURE = Path(__file__).parent / "figures" / "lrp-listing.png"
LAYERS = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3")
# Drawn anew one after the other, from the top.
STEPS = ("layer3", "layer2", "layer1", "bn1", "conv1")
CREATURE, PHOTO = "creature", "zebra.jpg"


def listing(net: nn.Module, x: Float[Tensor, "1 c h w"]) -> Tensor:
    """Return the map that the listing makes."""
    if isinstance(net, nn.Sequential):
        layers: list[nn.Module] = list(net)
    else:
        # A block, without its shortcut.
        layers = [net.get_submodule(name) for name in ("conv1", "bn1", "relu", "conv2", "bn2", "relu")]
    values = [x]
    for layer in layers:
        values.append(layer(values[-1]).detach())
    # What comes from above is not even handed in: every Sequential begins anew with its own output.
    relevance = values[-1]
    for layer, a, output in reversed(list(zip(layers, values, values[1:], strict=False))):
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d):
            a = a.clone().requires_grad_()
            z = layer(a)
            s = (output / (z + 1e-9)).detach()  # ``relevance / (z + 1e-9)`` would be the rule
            (back,) = torch.autograd.grad((z * s).sum(), a)
            relevance = (a * back).detach()
        elif next(layer.children(), None) is not None:
            relevance = listing(layer, a)
    return relevance


def total(features: Float[Tensor, "b c h w"]) -> Float[Tensor, " b"]:
    """Return the number that is explained: a backbone's features, summed."""
    return features.flatten(1).sum(1)


def propagated(net: nn.Module, x: Float[Tensor, "1 c h w"], composite: str) -> Tensor:
    """Return the map of `lrp`."""
    return whence.attribute(Classifier(net), x, "lrp", target=total, composite=composite).values


MAPS: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
    "listing": listing,
    "lrp epsilon": lambda net, x: propagated(net, x, "epsilon"),
    "lrp epsilon-plus": lambda net, x: propagated(net, x, "epsilon-plus"),
}


def backbone(net: nn.Module, other: nn.Module, redrawn: Sequence[str] = ()) -> nn.Sequential:
    """Return a ResNet up to layer3, some of its layers taken from another one whose weights were drawn apart."""
    parts = {name: (other if name in redrawn else net).get_submodule(name) for name in LAYERS}
    return nn.Sequential(OrderedDict(parts)).eval()


def cascade(
    x: Float[Tensor, "1 c h w"], nets: tuple[nn.Module, nn.Module], steps: Sequence[str] = STEPS
) -> list[Maps]:
    """Return all maps, summed over the colours, as the net is and after each step."""
    return [
        {name: make(backbone(*nets, steps[:count]), x)[0].sum(0) for name, make in MAPS.items()}
        for count in range(len(steps) + 1)
    ]


def table(made: Sequence[Maps], subject: str) -> str:
    """Return the rank correlations with the first maps, as lines of Markdown."""

    def said(name: str, heat: Tensor) -> str:
        first = made[0][name]
        return "the same bits" if torch.equal(heat, first) else f"{ranks_alike(heat, first):.3f}"

    lines = [f"| {subject}, drawn anew | {' | '.join(MAPS)} |", "|---" * (1 + len(MAPS)) + "|"]
    for count, maps in enumerate(made[1:], start=1):
        name = STEPS[0] if count == 1 else f"... and {STEPS[count - 1]}"
        lines.append(f"| {name} | {' | '.join(said(*one) for one in maps.items())} |")
    return "\n".join(lines)


def loaded() -> tuple[Classifier, Classifier]:
    """Return the net, and the one from which its layers are drawn anew."""
    first, second = (whence.load_model("torchvision:resnet34", weights="random", seed=seed) for seed in (0, 1))
    return first, second


def explained(
    picture: PictureSource, models: tuple[Classifier, Classifier], steps: Sequence[str] = STEPS
) -> tuple[Tensor, list[Maps]]:
    """Return a picture as the nets see it, and its maps."""
    assert models[0].preprocess is not None
    x = models[0].preprocess(read(picture)).input[None]
    return x, cascade(x, (models[0].module, models[1].module), steps)


def figure(seen: Pixels, made: Sequence[Maps]) -> Image.Image:
    """Return a picture's maps, as the net is and after each step."""
    rows = [(name, [seen, *(coloured(maps[name]) for maps in made)]) for name in MAPS]
    return sheet(["the picture", "as the net is", STEPS[0], *(f"... and {name}" for name in STEPS[1:])], rows)


def creature() -> tuple[Pixels, list[Maps]]:
    """Return the creature as the nets see it, and its maps."""
    models = loaded()
    x, made = explained(draw(3).pixels, models)
    return as_seen(x[0], models[0].pixels), made


def main() -> None:
    seen, made = creature()
    print(table(made, CREATURE))
    if "WHENCE_PHOTOS" in os.environ:
        photo = Path(os.environ["WHENCE_PHOTOS"]) / PHOTO
        print("\n" + table(explained(photo, loaded())[1], PHOTO))
    figure(seen, made).save(FIGURE, optimize=True)


if __name__ == "__main__":
    main()
