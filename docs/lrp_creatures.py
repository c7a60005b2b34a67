"""Print the tables of docs/creatures.md on relevance, and draw their figure: `python docs/lrp_creatures.py`.

--count says how many creatures are explained.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

import whence
from lrp_maps import coloured, sheet
from whence.creatures import Creature, draw, draw_many
from whence.creatures.debugging import deciding_places
from whence.metrics.relevance_mass import mass_inside
from whence.results import Attribution

FIGURE = Path(__file__).parent / "figures" / "lrp-creatures.png"
COMPOSITES = (
    "lrp-0",
    "epsilon-plus",
    "epsilon-plus-flat",
    "epsilon-alpha2-beta1",
    "epsilon-alpha2-beta1-flat",
    "epsilon-gamma-box",
    "montavon",
    "excitation-backprop",
    "cp-lrp",
)
BIASES = ("absorb", "ignore", "distribute")
OTHERS = ("grad-cam", "gradient", "input-x-gradient")
SEED = 2024
DRAWN = ("lrp-0", "epsilon-plus", "epsilon-plus-flat", "epsilon-alpha2-beta1", "epsilon-gamma-box", "cp-lrp")


def inputs(creatures: Sequence[Creature]) -> Float[Tensor, "b 3 h w"]:
    return torch.from_numpy(np.stack([c.pixels for c in creatures])).permute(0, 3, 1, 2).float() / 127.5 - 1


def row(name: str, answer: Attribution, where: Bool[Tensor, "b h w"]) -> str:
    """Return one line of a table."""
    line, balance = f"| {name} | {mass_inside(answer.heatmap(), where).mean():.3f}", answer.balance
    if balance is None:
        return line + " | | | |"
    amounts = (balance.input, balance.bias, balance.stabiliser)
    return line + "".join(f" | {(amount / balance.start).mean():.3f}" for amount in amounts) + " |"


def tables(count: int) -> str:
    """Return both tables: composites, and what becomes of biases."""
    model, creatures = whence.load_model("creatures"), list(draw_many(count, SEED))
    x, where = inputs(creatures), deciding_places(creatures)

    def line(name: str, method: str, **options: str) -> str:
        return row(name, whence.attribute(model, x, method, **options), where)

    head = "in the parts | input | biases | stabilisers |"
    lines = [f"| composite | {head}", "|---" * 5 + "|"]
    lines += [line(name, "lrp", composite=name) for name in ("auto", *COMPOSITES)]
    lines += [line(f"*{name}*", name) for name in OTHERS]
    uniform = where.float().mean((1, 2)).mean()
    lines += [f"| *the same everywhere* | {uniform:.3f} | | | |", "", f"| bias | {head}", "|---" * 5 + "|"]
    lines += [
        line(f"{composite}, {bias}", "lrp", composite=composite, bias=bias)
        for composite in ("epsilon-plus-flat", "epsilon-gamma-box")
        for bias in BIASES
    ]
    return "\n".join(lines)


def figure() -> Image.Image:
    """Return two creatures, each by several composites."""
    model, rows = whence.load_model("creatures"), []
    for creature in (draw(3), draw(8)):
        x = inputs([creature])
        maps = [coloured(whence.attribute(model, x, "lrp", composite=name).heatmap()[0]) for name in DRAWN]
        rows.append((model.labels[creature.label], [creature.pixels, *maps]))
    return sheet(["the picture", *DRAWN], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200)
    print(tables(parser.parse_args().count))
    figure().save(FIGURE, optimize=True)


if __name__ == "__main__":
    main()
