"""Print the table of docs/interpretable.md on other methods, draw its figure: `python docs/interpretable_maps.py`.

Grad-CAM and layer-wise relevance propagation on a net whose filters mean one part each, beside the net that it was
made from. --count says how many creatures are explained.
"""

import argparse
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

import whence
from lrp_creatures import inputs
from lrp_maps import coloured, ranks_alike, sheet
from whence.creatures import LABELS, draw, draw_many
from whence.creatures.debugging import deciding_places
from whence.metrics.pointing import pointing_hits
from whence.metrics.relevance_mass import mass_inside

FIGURE = Path(__file__).parent / "figures" / "interpretable.png"
MODELS = ("creatures", "creatures-interpretable")
METHODS = ("grad-cam", "layer-cam", "hires-cam", "lrp", "integrated-gradients")
DRAWN = ("grad-cam", "lrp")
SEED = 2024


def share(heat: Float[Tensor, "b h w"], where: Bool[Tensor, "b h w"]) -> str:
    """Return the mean share of what speaks for the class that lies there."""
    return f"{mass_inside(heat, where).nanmean():.3f}"


def table(count: int) -> str:
    """Return how the maps of both nets lie on the deciding parts, and how alike they are."""
    creatures = list(draw_many(count, SEED))
    x, where = inputs(creatures), deciding_places(creatures)
    nets = [whence.load_model(name) for name in MODELS]
    lines = [
        "| method | mass in the parts: both nets | highest place in a part: both nets | ranks alike |",
        "|---" * 4 + "|",
    ]
    for method in METHODS:
        maps = [whence.attribute(net, x, method).heatmap() for net in nets]
        mass = ", ".join(share(heat, where) for heat in maps)
        hits = ", ".join(f"{pointing_hits(heat, where).mean():.3f}" for heat in maps)
        alike = torch.tensor([ranks_alike(one, other) for one, other in zip(*maps, strict=True)]).mean()
        lines.append(f"| {method} | {mass} | {hits} | {alike:.2f} |")
    area = where.float().mean().item()
    return "\n".join([*lines, f"| *the same everywhere* | {area:.3f} | {area:.3f} | |"])


def figure() -> Image.Image:
    """Return three creatures, each as both nets explain it."""
    nets, rows = [whence.load_model(name) for name in MODELS], []
    for creature in (draw(3), draw(8), draw(12)):
        x = inputs([creature])
        maps = [coloured(whence.attribute(net, x, method).heatmap()[0]) for method in DRAWN for net in nets]
        rows.append((LABELS[creature.label], [creature.pixels, *maps]))
    names = [f"{method}, {kind}" for method in DRAWN for kind in ("plain", "masked")]
    return sheet(["the picture", *names], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200)
    print(table(parser.parse_args().count))
    figure().save(FIGURE, optimize=True)


if __name__ == "__main__":
    main()
