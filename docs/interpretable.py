"""Print the tables of docs/interpretable.md: `python docs/interpretable.py --folder nets`.

Nets that are not in the folder yet are trained first: about 20 minutes of one core a seed. --seeds says how many.
"""

import argparse
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from statistics import mean, stdev

import torch
from torch import Tensor

import whence
from whence.creatures import draw_many
from whence.creatures.anatomy import creature_parts
from whence.creatures.labelled import MISSING, PREPROCESS, drawn
from whence.creatures.train import Recipe as Creatures
from whence.creatures.train import train as train_creatures
from whence.interpretable.labelled import normalised
from whence.interpretable.measures import (
    Maps,
    Parts,
    effective_radius,
    maps_of,
    measured,
    part_interpretability,
    receptive_fields,
)
from whence.interpretable.training import Plan, Recipe, fast_precision
from whence.interpretable.training.folder import Data, train_into
from whence.interpretable.training.starting import Start
from whence.models.classifier import Classifier
from whence.models.masked.mask import Mask

# Creatures that no net was trained on.
FRESH, COUNT = 70_000, 1350
LAYER = "top"
# The loss beside which the control is trained.
CONTROLLED = "all-positive"
LOSSES: Mapping[str, tuple[str | None, Mapping[str, object]]] = {
    "label-aware": ("label-aware", {}),
    "all-positive": ("all-positive", {}),
    "paper": ("paper", {}),
    "matlab": ("matlab", {}),
    "mutual-information": ("mutual-information", {}),
    "mask alone": (None, {}),
}
MEASURES = {
    "accuracy": "right",
    "location-instability": "location instability",
    "part-interpretability": "part interpretability",
    "round 4": "on discs of 4 pixels",
    "effective": "on discs of the effective field",
    "part-interpretability-active": "of active pictures",
    "peak-purity": "peak purity",
    "category-entropy": "category entropy",
}
# On how many creatures the effective receptive field is measured.
LOOKED_AT = 48
# Discs of other radii in pixels, and the nets that are measured on them too.
RADII = (2, 4, 6, 8, 10, 12, 16)
SWEPT = ("control", "control, mask afterwards", "label-aware")


def plain(seed: int, home: Path) -> Start:
    """Return the plain net of a seed; that of seed 0 is the bundled one."""
    if seed == 0:
        return Start.load("creatures")
    folder = home / f"plain-{seed}"
    if not folder.exists():
        train_creatures(folder, Creatures(seed=seed), threads=1)
    return Start.load(str(folder))


@cache
def data(seed: int) -> Data:
    """Return the pictures that a seed's nets are trained and tested on while they learn."""
    return Data("creatures", drawn(14_000, seed, missing=MISSING), drawn(COUNT, seed + 1), PREPROCESS)


def trained(name: str, seed: int, home: Path) -> Path:
    """Return the folder of the net that one loss made, with the control where it was trained along."""
    loss, options = LOSSES[name]
    folder = home / f"{name.replace(' ', '-')}-{seed}"
    if not (folder / "model.toml").exists():
        plan = Plan(epochs=3, rate=1.2e-3, precision=fast_precision(), seed=seed)
        recipe = Recipe(plan=plan, loss=loss, options=options, control=name == CONTROLLED)
        train_into(folder, plain(seed, home), data(seed), recipe, half=True)
        print("trained", folder, flush=True)
    return folder


@cache
def fresh() -> tuple[Sequence[Tensor], Tensor, Parts]:
    """Return fresh creatures in batches, their classes and their parts."""
    creatures = list(draw_many(COUNT, FRESH))
    x = torch.cat([normalised(torch.from_numpy(creature.pixels)[None]) for creature in creatures])
    labels = torch.tensor([creature.label for creature in creatures])
    return x.split(250), labels, creature_parts(creatures)


def figures(model: Classifier, radii: Mapping[str, float], mask: Mask | None = None) -> dict[str, float]:
    """Return the accuracy and all measures of a model on fresh creatures, and part interpretability on discs."""
    batches, labels, parts = fresh()
    with torch.no_grad():
        guesses = torch.cat([model.module(x).argmax(1) for x in batches])
    layer = None if hasattr(model.module, "interpretable") else LAYER
    values = maps_of(model, batches, layer, mask=mask)
    fields = receptive_fields(model, batches[0][:1], layer or "interpretable")
    maps = Maps(values, labels, fields, (64, 64))
    right = (guesses == labels).double().mean().item()
    discs = {
        name: part_interpretability(maps, parts, region="round", radius=radius).filters.mean
        for name, radius in radii.items()
    }
    return {"accuracy": right, **discs, **measured(maps, parts, region="bilinear").summary()}


def of_seed(seed: int, home: Path) -> dict[str, dict[str, float]]:
    """Return the figures of all nets of a seed; discs are as large for all, by what the control's cells look at."""
    folders = {name: trained(name, seed, home) for name in LOSSES}
    start, control = (whence.load_model(folders[CONTROLLED] / name) for name in ("plain", "control"))
    nets = {
        "plain": (start, None),
        "plain, mask afterwards": (start, Mask()),
        "control": (control, None),
        "control, mask afterwards": (control, Mask()),
        **{name: (whence.load_model(folder), None) for name, folder in folders.items()},
    }
    radius = effective_radius(control, fresh()[0][0][:LOOKED_AT], LAYER)
    print(f"seed {seed}: effective receptive field of the control, {radius:.2f} pixels", flush=True)
    few = {"round 4": 4.0, "effective": radius}
    many = few | {f"round {r}": float(r) for r in RADII}
    return {name: figures(net, many if name in SWEPT else few, mask) for name, (net, mask) in nets.items()}


def said(numbers: Sequence[float]) -> str:
    """Return a mean and its spread over the seeds."""
    spread = f" ± {stdev(numbers):.3f}" if len(numbers) > 1 else ""
    return f"{mean(numbers):.3f}{spread}"


def table(head: Sequence[object], rows: Sequence[Sequence[object]]) -> str:
    """Return a table as Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("interpretable-nets"))
    parser.add_argument("--seeds", type=int, default=3)
    asked = parser.parse_args()
    asked.folder.mkdir(exist_ok=True)
    torch.set_num_threads(1)
    found = [of_seed(seed, asked.folder) for seed in range(asked.seeds)]
    rows = [[name, *(said([one[name][key] for one in found]) for key in MEASURES)] for name in found[0]]
    print(table([f"{COUNT} fresh creatures, {asked.seeds} seeds", *MEASURES.values()], rows))
    ratios = [
        [name, *(said([one[name][key] / one["control"][key] for one in found]) for key in MEASURES)]
        for name in LOSSES
    ]
    print(table(["over the control's", *MEASURES.values()], ratios))
    discs = [f"round {r}" for r in RADII]
    swept = [[name, *(said([one[name][key] for one in found]) for key in discs)] for name in SWEPT]
    for other in SWEPT[:2]:
        over = (said([one[SWEPT[2]][key] / one[other][key] for one in found]) for key in discs)
        swept.append([f"{SWEPT[2]} over {other}", *over])
    print(table(["radius of the discs in pixels", *RADII], swept))


if __name__ == "__main__":
    main()
