"""What the page says in words: names of measures and nets, small print, and notes."""

from collections.abc import Iterator
from types import MappingProxyType

from whence.interpretable.measures import Measures, ReceptiveFields
from whence.interpretable.reporting.looked import QUANTILE, Subject
from whence.interpretable.reporting.nets import Nets
from whence.reports.filters import Measure

MEASURES = (
    Measure(
        *("location-instability", "Location instability", "lower"),
        "how much the distance from the peak to the landmarks varies, as a share of the diagonal",
    ),
    Measure(
        *("part-interpretability", "Part interpretability", "higher"),
        "share of the pictures with the filter’s best part on which it marks that part",
    ),
    Measure(
        *("part-interpretability-active", "Part interpretability, where active", "higher"),
        "the same over the 100 pictures on which the filter is strongest",
    ),
    Measure(
        *("peak-purity", "Peak purity", "higher"),
        "share of the filter’s 100 largest peaks that lie in one part",
    ),
    Measure(
        *("category-entropy", "Category entropy", "lower"),
        "0 where a filter is active for one class alone, 1 for all alike",
    ),
    Measure(*("dead", "Dead filters", "lower"), "filters that are active on no picture", digits=0),
)
TITLES = MappingProxyType(
    {
        "plain": "Ordinary net",
        "masked": "Ordinary net, masked afterwards",
        "control": "Control",
        "interpretable": "Interpretable net",
    }
)


def summary(measures: Measures) -> dict[str, float]:
    """Return each measure's mean over the filters, and how many are dead."""
    return {name: float(value) for name, value in measures.summary().items()}


def part_of(measures: Measures, k: int) -> str | None:
    """Return the part that a filter stands for: the one on which its part interpretability is highest."""
    return parts_of(measures, k).get("part-interpretability")


def parts_of(measures: Measures, k: int) -> dict[str, str | None]:
    """Return the parts that the measures of a filter are about, each the best by that measure."""
    found: dict[str, str | None] = {}
    if measures.interpretability is not None:
        found["part-interpretability"] = measures.interpretability.best[k]
        found["part-interpretability-active"] = measures.interpretability.active_best[k]
    if measures.purity is not None:
        found["peak-purity"] = measures.purity.best[k]
    return found


def facts(nets: Nets, subject: Subject, fields: ReceptiveFields, size: tuple[int, int]) -> dict[str, str]:
    """Return the small print at the head of the page."""
    trained = nets.training.data if nets.training else {}
    found = {
        "Model": nets.interpretable.spec,
        "Layer": nets.layer,
        "Maps": f"{nets.masked.form.filters} of {size[0]} × {size[1]}",
        "Receptive field": f"{fields.size[0]} × {fields.size[1]} pixels" if fields.size else "not known",
        "Held-out pictures": f"{len(subject.data)} of {subject.source}",
        "Classes": str(len(subject.data.classes)),
    }
    if subject.parts is not None:
        found["Parts"] = ", ".join(subject.parts.names)
        found["Landmarks"] = ", ".join(subject.parts.landmark_names)
    if trained:
        found["Trained on"] = f"{trained.get('pictures', 'some')} pictures of {trained.get('name', 'unknown source')}"
    return found


def notes(nets: Nets, subject: Subject, fields: ReceptiveFields) -> list[str]:
    """Return what a reader must know to read the figures right."""
    return list(_notes(nets, subject, fields))


def _notes(nets: Nets, subject: Subject, fields: ReceptiveFields) -> Iterator[str]:
    if subject.skipped:
        yield f"Pictures that cannot be read and were left out: {len(subject.skipped)}."
    if subject.parts is None:
        yield "Nothing is known of parts: only category entropy and dead filters could be measured."
    if fields.exact:
        yield (
            "A filter counts as active where its map, after the mask where there is one, is above the value that "
            f"{100 * QUANTILE:g} % of all its places exceed. The map is interpolated between the middles of the "
            "cells’ receptive fields, found by experiment; no windows were occluded to see what a cell needs."
        )
    else:
        yield (
            "The middles of the receptive fields could not be found, since they are larger than the picture or not "
            "evenly spread: cells are taken to be spread evenly over the picture."
        )
    if nets.categories is None:
        yield (
            "The training gave the filters no categories: each stands under the class on whose pictures its peak is "
            "highest in the mean."
        )
    elif nets.single and subject.parts is not None:
        yield f"Part interpretability is over the pictures of {subject.data.classes[1]} alone."
    if nets.training is None:
        yield "No course of a training lies beside the model."
