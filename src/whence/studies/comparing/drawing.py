"""Both models' maps over a picture, and what places gained and lost."""

import json
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from whence.asking import MethodRequest
from whence.errors import WhenceError
from whence.graphs.patches import Style
from whence.pictures.read import Picture
from whence.registry import METHODS
from whence.reports.colours import scale_of
from whence.reports.comparing_results import Pair, Shot
from whence.reports.images import photo, resized, shrunk
from whence.reports.overlay import lay, on_grid, placed
from whence.results import reduced
from whence.studies.comparing.measures import shares
from whence.studies.comparing.reading import Row
from whence.studies.thumbnails import SIDE, Pixels, drawn

if TYPE_CHECKING:
    from whence.studies.study import Study

_QUALITY = 75


def shot(study: "Study", pair: Pair, method: str) -> Shot:
    """Return a picture with both maps and their difference over it, or why it cannot be shown."""
    job = study.job
    how = METHODS.facts(MethodRequest.read(method).method).reduce
    try:
        picture = study.picture(pair.number)
        maps = [study.map(pair.number, model.name, method) for model in job.models]
        rows = [study.row(pair.number, model.name, method) for model in job.models]
        p, q = (shares(reduced(one[None], how)) for one in maps)
        grid = job.models[0].input[1:]
        over = (drawn(picture, one, row, grid) for one, row in zip(maps, rows, strict=True))
        first, second, gained = (
            photo(pixels, _QUALITY) for pixels in (*over, _gained(picture, q - p, rows[0], grid))
        )
    except WhenceError as error:
        return Shot(pair, None, str(error))
    return Shot(pair, (first, second, gained))


def _gained(picture: Picture, gained: Float[Tensor, "1 h w"], row: Row, grid: tuple[int, int]) -> Pixels:
    """Return a difference of shares over a picture; alone where it is not known what the model saw of it."""
    style: Style = json.loads(row["graph"])["style"] if row["graph"] else "centred"
    heat = on_grid(torch.nan_to_num(gained).float().numpy(), "sum", grid, style)
    small = shrunk(picture.rgb8(), SIDE)
    if row.get("box") is None:
        size = (small.shape[0], max(1, round(small.shape[0] * grid[1] / grid[0])))
        return resized(scale_of(heat, "all").rgb(heat), size)
    lies = placed({"picture": list(picture.size), "grid": list(grid), "box": list(row["box"])}, _size(small))
    return lay(small, heat, "all", lies).blended()


def _size(pixels: Pixels) -> tuple[int, int]:
    return pixels.shape[0], pixels.shape[1]


def plain(cells: Float[Tensor, "g k"]) -> Float[np.ndarray, "g k"] | None:
    """Return a mean over pictures as the page takes it, None where no picture says it."""
    return None if bool(cells.isnan().any()) else cells.numpy()
