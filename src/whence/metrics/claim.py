"""Claim: maps that are to be measured, with all that a metric may ask about them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor

from whence.errors import OptionError, TargetError
from whence.models.classifier import Classifier
from whence.models.session import Session, opened
from whence.models.targets import Fixed, TargetSpec
from whence.results import Attribution


@dataclass(frozen=True, eq=False)
class Claim:
    """Maps of one method for a batch: from there, it says, the decision comes.

    Attributes
    ----------
    classifier, x
        The model, and its inputs [B, C, H, W].
    answer
        The maps.
    target
        What they explain, settled: one target a picture.
    names
        How a user knows the pictures.
    region
        [B, H, W] on the input's grid: where the true evidence lies, where that is known.
    """

    classifier: Classifier
    x: Float[Tensor, "b c h w"]
    answer: Attribution
    target: Sequence[TargetSpec]
    names: Sequence[str]
    region: Bool[Tensor, "b h w"] | None = None

    @property
    def heat(self) -> Float[Tensor, "b h w"]:
        """The signed map of each picture on the input's grid: the one that is ranked."""
        return self.answer.heatmap().to(self.x.device)

    @property
    def measured(self) -> list[TargetSpec]:
        """What is measured: the probability of the class explained, the score itself where the target is no class.

        Raises
        ------
        TargetError
            A function of the model's output was explained, and is not given.
        """
        pairs = zip(self.answer.target.tolist(), self.explained, strict=True)
        return [Fixed("probability", (index,)) if index >= 0 else target for index, target in pairs]

    @property
    def explained(self) -> Sequence[TargetSpec]:
        """What was explained, settled.

        Raises
        ------
        TargetError
            A function of the model's output was explained, and is not given.
        """
        if None in self.target:
            raise TargetError("these maps explain a function of the model's output: give it as the target")
        return self.target

    def true_region(self, metric: str) -> Bool[Tensor, "b h w"]:
        """Return the true regions.

        Raises
        ------
        OptionError
            None is given.
        """
        if self.region is None:
            raise OptionError(f"{metric} compares the map with the place of the true evidence: give its region")
        return self.region

    @contextmanager
    def opened(self) -> Iterator[Session]:
        """Open a session on the model."""
        with opened(self.classifier, names=self.names) as session:
            yield session
