"""The settings of transformers' image processors, as a ``Preprocess``."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from whence.pictures.preprocess import Preprocess

# Pillow's numbers for its filters, which the processors write down.
_RESAMPLE: dict[int, str] = {0: "nearest", 2: "bilinear", 3: "bicubic"}
# From this side on ConvNeXt's processor squashes, and crops nothing.
_SQUASHED = 384

Size = int | tuple[int, int] | None


def readings(settings: Mapping[str, Any]) -> Iterator[Preprocess]:
    """Yield what a processor's settings can mean: they do not say how ``crop_pct`` is to be taken."""
    interpolation = _RESAMPLE.get(int(settings.get("resample") or 0))
    if interpolation is None:
        return
    mean, std = _moments(settings)
    for resize, crop in _sizes(settings):
        made = Preprocess(resize=resize, crop=crop, interpolation=interpolation, mean=mean, std=std)
        yield made if crop is None else replace(made, round_crop="down")


def _moments(settings: Mapping[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and std for pixels in [0, 1]; the processors' own are for pixels in 0..255 times a factor."""
    white = 255 * settings["rescale_factor"] if settings.get("do_rescale") else 255.0
    normalised = settings.get("do_normalize")
    mean, std = (settings["image_mean"], settings["image_std"]) if normalised else ([0.0], [1.0])
    return tuple(m / white for m in mean), tuple(s / white for s in std)


def _sizes(settings: Mapping[str, Any]) -> Iterator[tuple[Size, Size]]:
    resize = _size(settings.get("size")) if settings.get("do_resize") else None
    crop = _size(settings.get("crop_size"), square=True) if settings.get("do_center_crop") else None
    share = settings.get("crop_pct")
    if isinstance(resize, int) and share:
        yield ((resize, resize), None) if resize >= _SQUASHED else (int(resize / share), resize)
    yield resize, crop


def _size(size: Any, square: bool = False) -> Size:  # noqa: ANN401  (a number or one of several dicts)
    if isinstance(size, int):
        return (size, size) if square else size
    size = {key: value for key, value in dict(size or {}).items() if value is not None}
    match size:
        case {"height": height, "width": width}:
            return height, width
        case {"shortest_edge": edge}:
            return (edge, edge) if square else int(edge)
    return None
