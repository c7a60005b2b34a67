"""Everything that the page about a trained model's filters shows, as plain data."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from whence.errors import OptionError
from whence.interpretable.labelled import Progress
from whence.interpretable.measures import ReceptiveFields, receptive_fields
from whence.interpretable.reporting.active import active
from whence.interpretable.reporting.looked import Looked, Subject, look
from whence.interpretable.reporting.nets import Nets
from whence.interpretable.reporting.said import MEASURES, TITLES, facts, notes, part_of, parts_of, summary
from whence.interpretable.reporting.templates import templates
from whence.interpretable.reporting.walks import walk
from whence.models.classifier import Classifier
from whence.pictures.preprocess import as_seen
from whence.reports.filters import Filter, FilterReport, Net, Pair, Shot, Walk

# How many pictures of each filter are shown, how many filters of a picture, and pictures of how many classes.
TOPS, STEPS, CLASSES = 6, 5, 3


class Asked(NamedTuple):
    """A picture whose filters are to be shown one by one: its name, its class if known, and its input."""

    name: str
    label: str | None
    x: Float[Tensor, "c h w"]


@dataclass(frozen=True, eq=False)
class Collected:
    """All nets on the same pictures; ``ordinary`` is the one that stands beside the interpretable one."""

    nets: Nets
    subject: Subject
    fields: ReceptiveFields
    looked: dict[str, Looked]

    @property
    def ordinary(self) -> str | None:
        """The control, or else the plain net; None where there is neither."""
        return next((name for name in ("control", "plain") if name in self.looked), None)

    def classifier(self, key: str) -> Classifier:
        """Return the net of that name."""
        found = {"plain": self.nets.plain, "control": self.nets.control}.get(key)
        return found or self.nets.interpretable

    def category(self, key: str, k: int) -> str | None:
        """Return the category of a filter: that of the training, or else its favourite class on these pictures."""
        looked, trained = self.looked[key], self.nets.categories
        if bool(looked.measures.dead[k]):
            return None
        index = trained if key == "interpretable" and trained is not None else looked.favourite
        return self.subject.data.classes[int(index[k])]

    def filter(self, key: str, k: int) -> Filter:
        """Return one filter of one net."""
        looked = self.looked[key]
        values = {name: float(one[k]) for name, one in looked.values().items()}
        parts = {name: part for name, part in parts_of(looked.measures, k).items() if part is not None}
        return Filter(self.category(key, k), part_of(looked.measures, k), values, parts, tuple(self._shots(key, k)))

    def _shots(self, key: str, k: int) -> Iterator[Shot]:
        looked, pixels = self.looked[key], self.classifier(key).pixels
        count = int((looked.peaks[:, k] > 0).sum())
        inputs = [self.subject.data[i] for i in looked.top[:count, k].tolist()]
        size = (inputs[0][0].shape[1], inputs[0][0].shape[2]) if inputs else (1, 1)
        places = active(looked.maps[:count, k], looked.threshold[k].expand(count), self.fields, size)
        for row, (x, label) in enumerate(inputs):
            name = self.subject.names[int(looked.top[row, k])]
            seen, where = as_seen(x, pixels), places[row].numpy()
            yield Shot(name, self.subject.data.classes[label], float(looked.peaks[row, k]), seen, where)


def collect(
    nets: Nets,
    subject: Subject,
    asked: Sequence[Asked] = (),
    *,
    filters: int = 64,
    progress: Progress | None = None,
) -> FilterReport:
    """Run and measure all nets on the same pictures.

    Parameters
    ----------
    subject
        Held-out pictures, whose classes are those of the model in its order.
    asked
        The pictures whose filters are shown one by one; without any the first one of each of the first classes.
    filters
        How many are shown, those that are best.
    progress
        Told ``(stage, done, total)``.

    Raises
    ------
    OptionError
        The pictures have other classes than the model, or those asked for are of another size.
    WhenceError
        A net cannot be run on the pictures, or has other maps than the interpretable one.
    """
    tell = progress or (lambda stage, done, total: None)
    _check(nets, subject, asked)
    found = _collected(nets, subject, tell)
    order = _order(found)
    own = found.looked["interpretable"]
    h, w = own.maps.shape[2:]
    training = nets.training
    return FilterReport(
        whence=version("whence"),
        model=nets.interpretable.name,
        facts=facts(nets, subject, found.fields, (h, w)),
        recipe={} if training is None else training.recipe,
        accuracy={} if training is None else training.accuracy,
        measures=[m for m in MEASURES if m.key in own.measures.summary()],
        nets=[Net(key, TITLES[key], summary(one.measures)) for key, one in found.looked.items()],
        templates=templates(nets.masked, h, w),
        course=() if training is None else training.course,
        ordinary=None if found.ordinary is None else TITLES[found.ordinary],
        pairs=_pairs(found, order[:filters], tell),
        left_out=max(0, len(order) - filters),
        walks=list(_walks(found, asked or list(_first(subject)))),
        parts=() if subject.parts is None else subject.parts.names,
        notes=notes(nets, subject, found.fields),
    )


def _collected(nets: Nets, subject: Subject, tell: Progress) -> Collected:
    """Run every net that there is; the order is that of the table."""
    fields = receptive_fields(nets.interpretable, subject.data[0][0][None])
    mask = nets.masked.interpretable.mask
    single = nets.categories if nets.single else None
    runs = {
        "plain": (nets.plain, nets.layer, None),
        "masked": (nets.plain, nets.layer, mask),
        "control": (nets.control, nets.layer, None),
        "interpretable": (nets.interpretable, None, None),
    }
    looked = {}
    for done, (key, (net, layer, after)) in enumerate(runs.items(), 1):
        if net is not None:
            looked[key] = look(net, subject, fields, layer=layer, mask=after, categories=single, tops=TOPS)
        tell("measuring nets", done, len(runs))
    return Collected(nets, subject, fields, looked)


def _check(nets: Nets, subject: Subject, asked: Sequence[Asked]) -> None:
    """Refuse pictures among whose classes are not the filters' categories, and such as have other maps."""
    classes, count = nets.masked.form.classes, len(subject.data.classes)
    if classes is not None and classes != count:
        raise OptionError(
            f"the filters of {nets.interpretable.name} stand for {classes} classes and {subject.source} has {count}: "
            "give pictures of the classes that it was trained on"
        )
    wanted = list(subject.data[0][0].shape)
    for one in asked:
        if list(one.x.shape) != wanted:
            raise OptionError(
                f"{one.name} makes an input of {list(one.x.shape)}, the held-out pictures one of {wanted}: give one "
                "of their size"
            )


def _order(found: Collected) -> list[int]:
    """Return the filters, the best first: by part interpretability, or else by how few classes they fire for."""
    own = found.looked["interpretable"]
    values = own.values()
    goodness = values.get("part-interpretability", -values["category-entropy"])
    return goodness.nan_to_num(nan=-torch.inf).argsort(descending=True, stable=True).tolist()


def _pairs(found: Collected, order: Sequence[int], tell: Progress) -> list[Pair]:
    """Return the filters in that order, category by category."""
    pairs = []
    for done, k in enumerate(order, 1):
        other = None if found.ordinary is None else found.filter(found.ordinary, k)
        pairs.append(Pair(k, found.filter("interpretable", k), other))
        tell("drawing filters", done, len(order))
    places = {name: place for place, name in enumerate(found.subject.data.classes)}
    return sorted(pairs, key=lambda pair: places.get(pair.interpretable.category or "", len(places)))


def _first(subject: Subject) -> Iterator[Asked]:
    """Yield the first picture of each of the first classes that have any."""
    labels = subject.data.labels.tolist()
    for label in sorted(set(labels))[:CLASSES]:
        index = labels.index(label)
        yield Asked(subject.names[index], subject.data.classes[label], subject.data[index][0])


def _walks(found: Collected, asked: Sequence[Asked]) -> Iterator[Walk]:
    own = found.looked["interpretable"]
    names = [(found.category("interpretable", k), part_of(own.measures, k)) for k in range(len(own.threshold))]
    for one in asked:
        yield walk(found.nets, one.x, found.fields, own.threshold, names, name=one.name, label=one.label, count=STEPS)
