"""One net's filters on a set of pictures: their measures, their categories, and where they are active."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from whence.interpretable.labelled import Labelled
from whence.interpretable.measures import Maps, Measures, Parts, PerFilter, ReceptiveFields, maps_of, measured
from whence.interpretable.measures.part_interpretability import thresholds
from whence.models.classifier import Classifier
from whence.models.masked.mask import Mask

# P(x > T_f) over all places and pictures, as the measures have it.
QUANTILE = 0.005
_BATCH = 64


@dataclass(frozen=True, eq=False)
class Subject:
    """Held-out pictures: where they come from, their names, and where their parts are, if that is known.

    ``skipped`` is one sentence for each that could not be read.
    """

    source: str
    data: Labelled
    names: Sequence[str]
    parts: Parts | None
    skipped: Sequence[str] = ()

    def batches(self) -> Iterator[Float[Tensor, "b c h w"]]:
        """Yield the inputs."""
        for start in range(0, len(self.data), _BATCH):
            yield torch.stack([self.data[i][0] for i in range(start, min(start + _BATCH, len(self.data)))])


@dataclass(frozen=True, eq=False)
class Looked:
    """What was seen of a net's K filters, after the mask where there is one.

    Attributes
    ----------
    favourite
        The class on whose pictures each filter's peak is highest, in the mean.
    threshold
        T_f, above which a filter counts as active.
    top, peaks
        The pictures with each filter's largest peaks, and these.
    maps
        The filters' maps of these pictures.
    """

    measures: Measures
    favourite: Int[Tensor, " k"]
    threshold: Float[Tensor, " k"]
    top: Int[Tensor, "t k"]
    peaks: Float[Tensor, "t k"]
    maps: Float[Tensor, "t k h w"]

    def values(self) -> dict[str, Float[Tensor, " k"]]:
        """Return the measures of each filter by name, those that could be taken."""
        found: dict[str, PerFilter] = {}
        if self.measures.interpretability is not None:
            found["part-interpretability"] = self.measures.interpretability.filters
            found["part-interpretability-active"] = self.measures.interpretability.active
        if self.measures.instability is not None:
            found["location-instability"] = self.measures.instability.filters
        if self.measures.purity is not None:
            found["peak-purity"] = self.measures.purity.filters
        found["category-entropy"] = self.measures.entropy
        return {name: one.values for name, one in found.items()}


def look(
    classifier: Classifier,
    subject: Subject,
    fields: ReceptiveFields,
    *,
    layer: str | None = None,
    mask: Mask | None = None,
    categories: Int[Tensor, " k"] | None = None,
    tops: int,
) -> Looked:
    """Run the pictures through a net, and measure its filters; ``tops`` is how many pictures of each are kept.

    The other options are those of ``maps_of`` and ``measured``.

    Raises
    ------
    WhenceError
        As these two.
    """
    values = maps_of(classifier, subject.batches(), layer, mask=mask)
    size = (subject.data[0][0].shape[1], subject.data[0][0].shape[2])
    maps = Maps(values, subject.data.labels, fields, size)
    peaks, top = maps.peaks.topk(min(tops, len(values)), 0)
    return Looked(
        measured(maps, subject.parts, categories, quantile=QUANTILE),
        _favourite(maps),
        thresholds(values, QUANTILE),
        top,
        peaks,
        values[top, torch.arange(values.shape[1])],
    )


def _favourite(maps: Maps) -> Int[Tensor, " k"]:
    """Return the class of the highest mean peak; the first one on a tie."""
    classes = int(maps.labels.max()) + 1
    total = maps.peaks.new_zeros(classes, maps.peaks.shape[1]).index_add_(0, maps.labels, maps.peaks)
    count = maps.labels.bincount(minlength=classes)
    return (total / count.clamp(min=1)[:, None]).argmax(0)
