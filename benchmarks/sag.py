"""Structured attention graphs: figures are multiples of one plain forward in the best batch.

The floor is one forward for each set of patches that the search asks about. The published search
(variant=reference, its I-GOS guide among it) runs on the same machinery, on a memo that asks about no set twice.
"""

from collections.abc import Iterator
from dataclasses import replace

import torch

import whence
from paired import Run, outside, paired, plain_forward
from score_cam import CHUNK, chunk_of, scaled
from whence.batches import grouped, stacked

LIMIT = "1.15 of the floor; faster than the published search"
PICTURES = ("peacock_n01806143_4756", "racecar_n04037443_1505", "racecar_n04037443_5853")


def runs(rounds: int, repeats: int) -> Iterator[tuple[str, int, Run]]:
    """Yield a paired run for each picture, on MobileNetV2 with its own weights."""
    classifier = whence.load_model(outside("WHENCE_MODELS", "models") / "mobilenetv2" / "squash.toml")
    folder = outside("WHENCE_PHOTOS", "photos") / "sag"
    for name in PICTURES:
        (group,) = grouped(classifier, [folder / f"{name}.jpg"], None)
        x = stacked(list(group))

        def search(variant: str, x: torch.Tensor = x) -> whence.AttentionGraph:
            return whence.attribute(classifier, x, "sag", variant=variant).graphs[0]

        contenders = {"whence": lambda: search("surrogate"), "published": lambda: search("reference")}
        asked = {who: contender().evaluations for who, contender in contenders.items()}
        run = paired(plain_forward(classifier.module, chunk_of(x)), contenders, min(rounds, 3), 1)
        figures = {who: scaled(figure, CHUNK) for who, figure in run.figures.items()}
        case = f"{name}, {asked['whence']} sets against {asked['published']}"
        yield case, 1, replace(run, figures=figures)
