"""One guarded use of a model: lock, eval and restore, random state, counted passes, chunks, finite checks."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from math import prod
from typing import Any, NamedTuple, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from whence.errors import ModelError, NotFiniteError
from whence.models import targets
from whence.models.classifier import Classifier
from whence.models.guard import guarded
from whence.models.layers import Catalogue, Layout, layout_of, survey
from whence.models.memory import kept
from whence.models.outputs import logits_of
from whence.models.replay import Replay
from whence.models.running import Runner
from whence.models.taps import recorded, replaced
from whence.models.targets import TargetSpec
from whence.pictures.preprocess import PixelRange
from whence.results import Passes, Score

# The largest chunk: so many colour pictures of 224 pixels, or as many values of another size. On a CPU more are
# slower: of most nets some map then exceeds 32 MiB, and the C library gives such memory back after every use.
_CHUNK_VALUES = 6 * 3 * 224 * 224
_CHUNK_VALUES_GPU = 64 * 3 * 224 * 224
# How many passes pay for finding out, once an input size, how a model is folded.
_MANY = 16

T = TypeVar("T")


@dataclass(frozen=True)
class Recording:
    """One forward pass of ``batch``: what the model returned, and the tensors recorded (or its input, a leaf)."""

    output: Any
    batch: Tensor
    activations: dict[str, Tensor] = field(default_factory=dict)
    input: Tensor | None = None
    folded: bool = False


class Tapped(NamedTuple):
    """What a layer returned, as maps [B, K, h, w], and the gradient of the score with respect to it."""

    activation: Float[Tensor, "b k h w"]
    gradient: Float[Tensor, "b k h w"]


def chunk_size(x: Float[Tensor, "b *shape"]) -> int:
    """Return how many pictures of a batch go through the model at once."""
    return max(1, (_CHUNK_VALUES_GPU if x.is_cuda else _CHUNK_VALUES) // max(1, prod(x.shape[1:])))


def move(classifier: Classifier, x: Float[Tensor, "b *shape"]) -> Float[Tensor, "b *shape"]:
    """Return a batch on the model's device and in its type."""
    return x.detach().to(classifier.like)


class Session:
    """What a method may do with a model; opened by ``opened``, closed at its block's end."""

    def __init__(self, classifier: Classifier, module: nn.Module, names: Sequence[str], sharing: bool) -> None:
        self.classifier = classifier
        self.module = module
        self.scale = classifier.scale
        self.names = names
        self.passes = Passes()
        self.sharing = sharing
        self.runner = Runner(classifier, module)
        self._counted, self._expected = 0, 0
        self._kept_of: Tensor | None = None
        self._kept: dict[tuple[str, ...], Any] = {}
        self._asked: Sequence[TargetSpec] = ()

    @property
    def pixels(self) -> PixelRange | None:
        """What black and white become in the model's input, None where that is not known."""
        return self.classifier.pixels

    def arranged(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return a batch in the memory order in which the model runs fastest."""
        return self.runner.arranged(x)

    def run(self, x: Float[Tensor, "b *shape"], *, folded: bool = False, watched: bool = False) -> Any:  # noqa: ANN401
        """Return what the model returns for a batch, in one counted forward pass.

        With ``folded`` it takes less time, once that is prepared, but its layers do not return what is theirs;
        ``watched`` says that a mode is to see what else happens in it.
        """
        self.passes += Passes(forward=len(x))
        if not folded:
            return self.runner.run(x)
        return self.runner.folding(x).outputs(x, self.runner.run, watched=watched)

    def expect(self, count: int) -> None:
        """Tell that so many pictures more are to be run, of which nothing but outputs and gradients is looked at."""
        self._expected += count

    def _count(self, count: int) -> None:
        self._counted += count
        self._expected = max(0, self._expected - count)

    @property
    def many(self) -> bool:
        """Whether so many are expected that it pays to fold."""
        return self._counted + self._expected >= _MANY

    def record(
        self,
        x: Float[Tensor, "b *shape"],
        layers: Sequence[str] = (),
        *,
        folded: bool = False,
        watched: bool = False,
    ) -> Recording:
        """Run a batch forward and record layers for gradients, or, without layers, the input itself.

        Where several targets share the session, the pass for the same batch and layers is run once; ``folded``
        and ``watched`` are for passes without layers, as for ``run``.
        """
        if layers:
            return self.once(x, ("record", *layers), lambda: self._recorded_layers(x, layers))
        return self.once(x, ("record", f"{watched=}"), lambda: self._recorded_input(x, folded, watched))

    def once(self, x: Float[Tensor, "b *shape"], what: tuple[str, ...], make: Callable[[], T]) -> T:
        """Return what ``make`` makes of a batch; where targets share the session, made once and kept.

        What was kept of another batch goes first: methods that change the picture ask for many.
        """
        if not self.sharing:
            return make()
        if self._kept_of is not x:
            self._kept_of, self._kept = x, {}
        if what not in self._kept:
            self._kept[what] = make()
        made: T = self._kept[what]
        return made

    def _recorded_input(self, x: Tensor, folded: bool, watched: bool) -> Recording:
        self._count(len(x))
        leaf = x.detach().clone().requires_grad_()
        with torch.enable_grad():
            return Recording(self.run(leaf, folded=folded, watched=watched), x, input=leaf, folded=folded)

    def _recorded_layers(self, x: Tensor, layers: Sequence[str]) -> Recording:
        with recorded(self.module, layers, gradients=True) as activations:
            output = self.run(x)
            traced = torch.is_grad_enabled()
        if not traced:
            # The layer stands in a block that the model runs without gradients, whose end put our mode back too.
            with torch.enable_grad(), recorded(self.module, layers, gradients=True) as activations:
                output = self.run(x)
        for name, activation in activations.items():
            self.finite(activation, f"the activation of layer {name!r}")
        return Recording(output, x, activations)

    def logits(self, output: Any) -> Float[Tensor, "b k"]:  # noqa: ANN401
        """Return the logits in what the model returned.

        Raises
        ------
        ModelError
            There are none, there are not as many as labels, or a single one under a softmax.
        """
        logits = logits_of(output)
        classes, labels = logits.shape[1], self.scale.labels
        if labels is not None and len(labels) != classes:
            raise ModelError(
                f"{self.classifier.name} has {classes} classes and {len(labels)} labels: give one label a class"
            )
        if classes == 1 and self.scale.activation == "softmax":
            raise ModelError(
                f"{self.classifier.name} returns a single logit, whose softmax is always 1: "
                "give its Classifier activation='sigmoid'"
            )
        return logits

    def score(self, output: Any, target: Sequence[TargetSpec], rows: Int[Tensor, " n"] | None = None) -> Score:  # noqa: ANN401
        """Return the number that each picture's target names.

        Where the batch holds changed pictures, ``rows`` says which picture each was made of.

        Raises
        ------
        TargetError, NotFiniteError
            A target names no class, or its score is NaN or infinite.
        """
        with torch.enable_grad():
            score = targets.scores(output, self.logits, target, self.scale)
        self.finite(score.value, "the score", rows)
        self._asked = target
        return score

    def fixed(self, output: Any, target: Sequence[TargetSpec]) -> list[TargetSpec]:  # noqa: ANN401
        """Return each picture's target with its classes settled by what the model returned for the whole picture."""
        return targets.fixed(output, self.logits, target, self.scale)

    def scores(
        self,
        make: Callable[[Int[Tensor, " n"]], Tensor],
        rows: Int[Tensor, " n"],
        target: Sequence[TargetSpec],
        batch: int,
        replay: Replay | None = None,
    ) -> Float[Tensor, " n"]:
        """Return the scores of many changed pictures, ``batch`` at a time, without gradients.

        ``make`` returns those with the given numbers, the i-th of which is made of picture ``rows[i]``: inputs, or,
        with a ``replay``, activations of its layer. ``target`` holds one settled target a picture.
        """
        found = []
        self._count(len(rows))
        for numbers in torch.split(torch.arange(len(rows)), batch):
            mine = rows[numbers]
            made = make(numbers)
            output = self.run(made, folded=self.many) if replay is None else self.replayed(replay, made, mine)
            found.append(self.score(output, [target[row] for row in mine.tolist()], mine).value)
        return torch.cat(found)

    def slope(
        self, x: Float[Tensor, "n *shape"], target: Sequence[TargetSpec], rows: Int[Tensor, " n"] | None = None
    ) -> tuple[Score, Float[Tensor, "n *shape"]]:
        """Return the score and its gradient with respect to the input; ``rows`` as for ``score``."""
        recording = self.record(x, folded=self.many)
        score = self.score(recording.output, target, rows)
        (gradient,) = self.gradients(score.value, recording, rows)
        return score, gradient

    def tap(
        self, x: Float[Tensor, "b c h w"], layer: str | Sequence[str] | None, target: Sequence[TargetSpec]
    ) -> tuple[Score, dict[str, Tapped]]:
        """Return the score, and activation and gradient of the layers asked for, in the order in which they run."""
        recording = self.record(x, self.layers(layer, x))
        score = self.score(recording.output, target)
        return score, self.tapped(recording, score)

    def tapped(self, recording: Recording, score: Score) -> dict[str, Tapped]:
        """Return activation and gradient of the layers recorded, as maps, in the order in which they run."""
        found: dict[str, Tapped] = {}
        for (name, a), g in zip(recording.activations.items(), self.gradients(score.value, recording), strict=True):
            layout = self.layout(name, a, recording.batch)
            found[name] = Tapped(layout.to_maps(a.detach()), layout.to_maps(g))
        return found

    def gradients(
        self,
        score: Float[Tensor, " b"],
        recording: Recording,
        rows: Int[Tensor, " b"] | None = None,
        *,
        again: bool = False,
    ) -> tuple[Tensor, ...]:
        """Return d score / d tensor for each tensor recorded; zeros where the score does not depend on it.

        The rows of a batch are independent, so that the sum's gradient holds every picture's own. With ``again`` the
        graph is kept for another call.

        Raises
        ------
        NotFiniteError
            A gradient is NaN or infinite.
        ModelError
            No gradient flows although the score does depend on a tensor: the model or the target cuts it off.
        """
        tensors = list(recording.activations.values())
        if recording.input is not None and not tensors:
            tensors = [recording.input]
        self.passes += Passes(**{"partial" if recording.input is None else "backward": len(score)})
        found: Sequence[Tensor | None] = [None] * len(tensors)
        if score.requires_grad:
            found = torch.autograd.grad(
                score, tensors, torch.ones_like(score), allow_unused=True, retain_graph=self.sharing or again
            )
        names = list(recording.activations or ["input"])
        for name, g in zip(names, found, strict=True):
            if g is None:
                self._refuse_cut(score, recording, name)
            else:
                self.finite(g, f"the gradient at {name!r}", rows)
        return tuple(torch.zeros_like(t) if g is None else g for g, t in zip(found, tensors, strict=True))

    def _refuse_cut(self, score: Tensor, recording: Recording, name: str) -> None:
        """Refuse a score to which no gradient flows, and which changes nonetheless with what was recorded."""

        def disturbed(t: Tensor) -> Tensor:
            return t * torch.rand(t.shape, generator=torch.Generator().manual_seed(0)).to(t)

        if recording.folded:
            output = self.runner.folding(recording.batch).outputs(disturbed(recording.batch), self.runner.run)
        elif recording.input is not None:
            output = self.runner.run(disturbed(recording.batch))
        else:
            with replaced(self.module, name, disturbed):
                output = self.runner.run(recording.batch)
        if not torch.equal(self.score(output, self._asked).value, score.detach()):
            raise ModelError(
                f"{self.classifier.name}: the score changes with {name!r}, but no gradient flows back to it: "
                "something between them runs under no_grad or detaches, choose a layer after it or another method"
            )

    def layers(self, asked: str | Sequence[str] | None, x: Float[Tensor, "b c h w"]) -> tuple[str, ...]:
        """Return the layers asked for, or the one chosen for this model and input size."""
        if asked is None:
            return (self.catalogue(x).chosen,)
        return (asked,) if isinstance(asked, str) else tuple(asked)

    def catalogue(self, x: Float[Tensor, "b c h w"]) -> Catalogue:
        """Return the layers that can be explained at this input size; surveyed once, on seeded noise."""
        shape = tuple(x.shape[1:])
        known = self.classifier.catalogues
        if shape not in known:
            # What a model draws for itself afterwards must not depend on whether it was surveyed just now.
            with torch.random.fork_rng([x.device] if x.is_cuda else []):
                known[shape] = survey(self.module, x, self.runner.run)
        return known[shape]

    def layout(self, name: str, activation: Float[Tensor, "..."], x: Float[Tensor, "b c h w"]) -> Layout:
        """Return where in a layer's output lie batch, channels and places."""
        shape = tuple(activation.shape)
        if len(shape) == 3 and shape[0] == shape[1] > 2:
            # As many tokens as pictures: only the survey, which runs two pictures, tells which axis is which.
            known = {candidate.name: candidate.layout for candidate in self.catalogue(x).candidates}
            if name in known:
                return known[name]
        return layout_of(name, shape, len(x), tuple(x.shape[2:]))

    def replay(self, x: Float[Tensor, "b c h w"], layer: str) -> Replay:
        """Return a way to run only what comes after a layer, on other activations; counted as a partial pass.

        Where several targets share the session, it is made once for the same batch and layer.
        """
        return self.once(x, ("replay", layer), lambda: self._new_replay(x, layer))

    def _new_replay(self, x: Tensor, layer: str) -> Replay:
        replay = Replay(self.module, x, layer, self.runner.through, self.classifier.plans)
        self.passes += Passes(forward=len(x)) if replay.plan.reason else Passes(partial=len(x))
        self.finite(replay.activation, f"the activation of layer {layer!r}")
        return replay

    def replayed(self, replay: Replay, activations: Float[Tensor, "..."], rows: Int[Tensor, " n"]) -> Any:  # noqa: ANN401
        """Return what the model returns for replaced activations; a full pass each where nothing can be skipped."""
        output = replay.outputs(activations, rows)
        self.passes += Passes(forward=len(rows)) if replay.plan.reason else Passes(partial=len(rows))
        return output

    def tail(self, replay: Replay, target: Sequence[TargetSpec]) -> tuple[Any, Score, Tensor]:
        """Run what comes after a layer on the layer's own activation.

        The result is the output, the score, and the score's gradient with respect to the activation: zeros where
        none flows, also where the score does depend on it.
        """
        leaf = replay.activation.detach().clone().requires_grad_()
        with torch.enable_grad():
            output = self.replayed(replay, leaf, torch.arange(len(target)))
        score = self.score(output, target)
        gradient = None
        if score.value.requires_grad:
            self.passes += Passes(partial=len(score.value))
            with suppress(NotImplementedError):  # an operation of the model's own may have no derivative
                (gradient,) = torch.autograd.grad(score.value, leaf, torch.ones_like(score.value), allow_unused=True)
        return output, score, torch.zeros_like(leaf) if gradient is None else gradient

    def finite(self, tensor: Float[Tensor, "b *rest"], what: str, of: Int[Tensor, " b"] | None = None) -> None:
        """Refuse NaN and infinity; ``of`` says of which picture each row is, where it is not its own.

        Raises
        ------
        NotFiniteError
            Naming the first picture concerned.
        """
        # A sum is finite only where all its terms are, and takes one pass; where it is not, the terms are looked at.
        if bool(tensor.sum().isfinite()) or bool(tensor.isfinite().all()):
            return
        rows: Bool[Tensor, " b"] = ~tensor.isfinite().reshape(len(tensor), -1).all(1)
        first = int(rows.nonzero()[0])
        # A layer of another layout holds no batch on its first axis.
        whose = range(len(rows)) if of is None and len(rows) == len(self.names) else [] if of is None else of.tolist()
        picture = self.names[whose[first]] if self.names and whose else "the batch"
        raise NotFiniteError(f"{picture}: {what} holds NaN or infinity")


@contextmanager
def opened(
    classifier: Classifier, *, names: Sequence[str] = (), seed: int = 0, sharing: bool = False
) -> Iterator[Session]:
    """Open a session: everything of the model is as before when the block ends, however it ends.

    Raises
    ------
    NotFiniteError
        A parameter has changed and holds NaN or infinity.
    """
    with guarded(classifier, seed) as module, kept():
        yield Session(classifier, module, names, sharing)
