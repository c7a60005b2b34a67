"""What a training starts from: a model with as many logits as there are classes, and how it is built again."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from whence.errors import ModelError
from whence.models.classifier import Classifier
from whence.models.load import load_model
from whence.models.outputs import logits_of
from whence.models.session import move, opened
from whence.models.writing import Origin

# What the constructors call the number of classes.
_COUNT = {
    **dict.fromkeys(("torchvision", "timm"), ("num_classes",)),
    "hf": ("num_labels",),
    "whence": ("classes",),
}


@dataclass(frozen=True)
class Start:
    """A model to train, where it comes from, and what it was given.

    ``new`` names the parameters that were drawn anew, since there are other classes than before.
    """

    classifier: Classifier
    origin: Origin
    new: tuple[str, ...] = ()

    @classmethod
    def load(cls, spec: str, *, weights: str | None = None, trust: bool = False, seed: int = 0) -> "Start":
        """Load a model as ``load_model`` does.

        Raises
        ------
        WhenceError
            As ``load_model``; a model whose layer is masked already is refused.
        """
        origin = Origin.of(spec, {})
        if origin.file and origin.file.form:
            raise ModelError(f"{spec!r} is in a wrapper already: give the plain model, such as its folder plain/")
        return cls(load_model(spec, weights=weights, trust=trust, seed=seed), origin)

    def with_labels(self, labels: Sequence[str], *, trust: bool = False, seed: int = 0) -> "Start":
        """Return the model with a logit for each label: itself, where its own labels are these or are not known.

        Else one that is built anew, with all weights of it but those that hang on the number of logits.

        Raises
        ------
        ModelError
            It has another number of logits, and its constructor takes none.
        """
        count = len(labels)
        if logits(self.classifier) == count and self.classifier.labels in (None, tuple(labels)):
            return self
        origin, made = self._built(count, trust, seed)
        own, before = made.state_dict(), self.classifier.module.state_dict()
        other = self._built(count + 1, trust, seed)[1].state_dict()
        same = {name for name, t in own.items() if name in other and other[name].shape == t.shape}
        kept = {name: t for name, t in before.items() if name in same and own[name].shape == t.shape}
        made.load_state_dict(kept, strict=False)
        old = self.classifier
        new = Classifier(made, old.preprocess, None, old.name, spec=old.spec)
        if logits(new) != count:
            raise ModelError(
                f"{old.name} was built for {count} logits and gives {logits(new)}: let its function return as many "
                "as it is asked for"
            )
        return Start(new, origin, tuple(name for name in own if name not in kept))

    def _built(self, count: int, trust: bool, seed: int) -> tuple[Origin, nn.Module]:
        names = _COUNT.get(self.origin.source.partition(":")[0], ("num_classes", "classes"))
        fault: ModelError | None = None
        for name in names:
            origin = replace(self.origin, options={**self.origin.options, name: count})
            try:
                return origin, origin.built(self.classifier.input, trust=trust, seed=seed)
            except ModelError as error:
                fault = error
        raise ModelError(
            f"{self.classifier.name} gives {logits(self.classifier)} logits, {count} are needed, and it cannot be "
            f"built with {' or '.join(f'{name}={count}' for name in names)} ({fault}): let it take one of these"
        )


@torch.no_grad()
def logits(classifier: Classifier) -> int:
    """Return how many logits a model gives."""
    shape = classifier.input or (3, 224, 224)
    with opened(classifier) as session:
        return logits_of(session.run(move(classifier, torch.zeros(2, *shape)))).shape[1]
