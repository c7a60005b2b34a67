"""A picture of a study with its map over it, small."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from whence.asking import MethodRequest
from whence.graphs.patches import Style
from whence.pictures.read import Picture
from whence.registry import METHODS
from whence.reports import words
from whence.reports.colours import scale_of
from whence.reports.images import resized, shrunk
from whence.reports.look import DEFAULT
from whence.reports.overlay import lay, on_grid, placed

Pixels = UInt8[np.ndarray, "H W 3"]

SIDE = 176
# Between a picture and its map, where it is not known how one lies on the other.
_GAP = 4


def drawn(
    picture: Picture, values: Float[Tensor, "c h w"] | None, row: Mapping[str, Any], grid: tuple[int, int]
) -> Pixels:
    """Return a picture with its map over it, or beside it where it is not known what the model saw of it.

    ``row`` is the map's row in the study; ``grid`` is (H, W) of the model's input. Without a map, the picture alone.
    """
    small = shrunk(picture.rgb8(), SIDE)
    if values is None:
        return small
    facts = METHODS.facts(MethodRequest.read(row["method"]).method)
    style: Style = json.loads(row["graph"])["style"] if row["graph"] else "centred"
    heat = on_grid(values.numpy(), facts.reduce, grid, style)
    sign = DEFAULT.sign_for(facts.show, facts.reduce)
    if row.get("box") is None:
        size = (small.shape[0], max(1, round(small.shape[0] * grid[1] / grid[0])))
        coloured = resized(scale_of(heat, sign).rgb(heat), size)
        return np.hstack((small, np.full((size[0], _GAP, 3), 255, np.uint8), coloured))
    place = placed(
        {"picture": list(picture.size), "grid": list(grid), "box": list(row["box"])}, (small.shape[0], small.shape[1])
    )
    return lay(small, heat, sign, place).blended()


def said(row: Mapping[str, Any]) -> str:
    """Return what the model says of a picture, and what was explained where that is another class."""
    if row["predicted_label"] is None:
        return f"explained: {row['target_label']}"
    answer = f"{row['predicted_label']}, {words.percent(row['predicted_probability'])}"
    truth = f"; it is {row['truth']}" if row["correct"] is False else ""
    other = f"; explained: {row['target_label']}" if row["target"] != row["predicted"] else ""
    return answer + truth + other
