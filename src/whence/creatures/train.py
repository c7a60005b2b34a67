"""How the classifiers of the creatures are made: drawn pictures in, a model folder out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

import torch
from torch import nn

from whence.creatures.code import LABELS
from whence.creatures.folders import new_folder
from whence.creatures.labelled import PREPROCESS, drawn, lacking
from whence.errors import OptionError, nearest
from whence.interpretable.training import Plan, Progress, fast_precision, fit
from whence.interpretable.training.objectives import Distilled, Task
from whence.models.bundled.creature_net import creature_net
from whence.models.bundled.creature_vit import creature_vit
from whence.models.load import load_model
from whence.models.random import undisturbed
from whence.models.threads import threads as using
from whence.models.writing import Origin, write

# The bundled net on whose first layers the transformer stands.
_STEM = "creatures"


@dataclass(frozen=True)
class Kind:
    """An architecture: the source that a model file names, its constructor, its one option, and how it learns."""

    source: str
    construct: Callable[..., nn.Module]
    option: str
    plan: Callable[[str | None], Plan]


def _cnn_plan(norm: str | None) -> Plan:
    # At the others' rate the net with layer norms learnt nothing in its first epochs.
    return Plan(epochs=12, rate=1e-3 if norm == "layer" else 3e-3, precision=fast_precision())


def _vit_plan(stem: str | None) -> Plan:
    if stem == "own":
        return Plan(epochs=12, rate=1.5e-3)
    return Plan(epochs=8, rate=1.5e-3, frozen=("stem",))


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "cnn": Kind("whence:creature_net", creature_net, "norm", _cnn_plan),
        "vit": Kind("whence:creature_vit", creature_vit, "stem", _vit_plan),
    }
)


@dataclass(frozen=True)
class Recipe:
    """All that decides the weights; the defaults made the bundled model ``creatures``.

    Half of the pictures show whole creatures; in the others, one to ``drop`` of the four deciding parts are missing,
    so that a part that was removed is nothing strange to the net.

    Parameters
    ----------
    images
        How many creatures are drawn.
    drop
        Up to how many parts are missing.
    tags
        The share of creatures that wear the tag of their own class, as for
        :func:`~whence.creatures.drawing.draw_many`: with 1, and five epochs, it made ``creatures-confounded``.
    net
        ``cnn``, or ``vit``: a transformer.
    variant
        Of the CNN its norms, ``batch``, ``group`` or ``layer``; of the transformer its stem: ``cnn``, the first
        layers of ``creatures``, kept as they are, or ``own``.
    teacher
        A model of the creatures whose answers are learnt beside the labels.
    seed
        Of the pictures, the weights and the order.
    changed
        Fields of the net's plan that are not as usual.

    Raises
    ------
    OptionError
        There is no such net, or a plan cannot be so.
    """

    images: int = 14_000
    drop: int = 2
    tags: float | None = None
    net: str = "cnn"
    variant: str | None = None
    teacher: str | None = None
    seed: int = 0
    changed: Mapping[str, object] = field(default_factory=dict)

    @property
    def kind(self) -> Kind:
        """The architecture."""
        if self.net not in KINDS:
            raise OptionError(f"there is no net {self.net!r}: {nearest(self.net, KINDS)}")
        return KINDS[self.net]

    @property
    def options(self) -> dict[str, str]:
        """The architecture's options."""
        return {} if self.variant is None else {self.kind.option: self.variant}

    @property
    def plan(self) -> Plan:
        """How the net is trained."""
        return replace(self.kind.plan(self.variant), seed=self.seed, **self.changed)  # type: ignore[arg-type]

    @property
    def missing(self) -> tuple[int, ...]:
        """How many parts are missing: each of these numbers equally often."""
        return lacking(self.drop)


def train(
    out: Path,
    recipe: Recipe,
    *,
    name: str | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> None:
    """Draw creatures, train the net on them and write it as a model folder, its weights in half precision.

    The model's name is that of its folder, if not given.
    The same recipe gives the same weights on one machine with the same number of threads.

    Raises
    ------
    OutputError
        If ``out`` is not a new or an empty folder.
    OptionError
        If the recipe has fewer pictures than a batch, no epoch, or a net that does not exist.
    """
    plan = recipe.plan
    if recipe.images < plan.batch or not plan.epochs:
        raise OptionError(f"{recipe.images} pictures in {plan.epochs} epochs make no batch of {plan.batch}")
    with new_folder(out) as folder, using(threads):
        net = fresh_net(recipe)
        teacher = load_model(recipe.teacher).module if recipe.teacher else None
        data = drawn(recipe.images, recipe.seed, missing=recipe.missing, tags=recipe.tags, progress=progress)
        objective = Distilled(teacher, plan.smoothing) if teacher else Task(plan.smoothing)
        fit(net, data, plan, objective, progress=None if progress is None else ("training", progress))
        write(
            folder,
            net,
            Origin(recipe.kind.source, recipe.options),
            name=name or out.resolve().name,
            labels=LABELS,
            preprocess=PREPROCESS,
            half=True,
        )


def fresh_net(recipe: Recipe) -> nn.Module:
    """Return the net with weights drawn from the recipe's seed: the CNN's convolutions by He's rule."""
    with undisturbed(recipe.seed):
        net = recipe.kind.construct(len(LABELS), **recipe.options)
    if recipe.net == "vit" and recipe.variant != "own":
        state = load_model(_STEM).module.state_dict()
        stem = net.get_submodule("stem")
        stem.load_state_dict({key: state[key] for key in stem.state_dict()})
    elif recipe.net == "cnn":
        generator = torch.Generator().manual_seed(recipe.seed)
        for module in net.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu", generator=generator)
    return net
