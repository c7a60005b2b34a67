"""What filters are measured on: their maps of test pictures, and the truth about the pictures."""

from dataclasses import dataclass
from functools import cached_property
from math import hypot

from jaxtyping import Bool, Float, Int
from torch import Tensor

from whence.errors import OptionError
from whence.interpretable.measures.receptive import ReceptiveFields
from whence.models.masked.templates import centres


@dataclass(frozen=True, eq=False)
class Maps:
    """The maps of K filters on N test pictures.

    Attributes
    ----------
    values
        As the model hands them on: rectified and, for a masked layer, masked.
    labels
        The pictures' classes.
    fields
        Where the cells look.
    size
        Height and width of the model's input.

    Raises
    ------
    OptionError
        There are no pictures, the lengths do not agree, or a value is below zero or NaN.
    """

    values: Float[Tensor, "n k h w"]
    labels: Int[Tensor, " n2"]
    fields: ReceptiveFields
    size: tuple[int, int]

    def __post_init__(self) -> None:
        n, _, h, w = self.values.shape
        if not n or len(self.labels) != n:
            raise OptionError(
                f"there are maps of {n} pictures and {len(self.labels)} labels: give one label a picture"
            )
        if (len(self.fields.rows), len(self.fields.columns)) != (h, w):
            raise OptionError(
                f"the maps are {h} x {w} and the receptive fields {len(self.fields.rows)} x "
                f"{len(self.fields.columns)}: find the fields of the same layer at the same input size"
            )
        if not bool((self.values >= 0).all()):
            raise OptionError("the maps hold values below zero or NaN: measure them behind a rectifier")

    @cached_property
    def peaks(self) -> Float[Tensor, "n k"]:
        """The maps' largest values."""
        return self.values.amax((2, 3))

    @cached_property
    def active(self) -> Bool[Tensor, "n k"]:
        """Which maps are not silent: a map without a value above zero has no peak to speak of."""
        return self.peaks > 0

    @cached_property
    def cells(self) -> Int[Tensor, "n k 2"]:
        """The (row, column) of each map's largest value, the first of several in reading order."""
        return centres(self.values, "argmax")

    @property
    def diagonal(self) -> float:
        """The diagonal of the model's input, in pixels."""
        return hypot(*self.size)


@dataclass(frozen=True, eq=False)
class Parts:
    """Where the parts of what is seen in N pictures are.

    Attributes
    ----------
    names
        Of the P parts.
    places
        Which pixels of the model's input show each part; none where a picture does not contain it.
    landmark_names
        Of the L landmarks.
    landmarks
        Their (row, column) in pixels, the first pixel's middle is 0; NaN where a picture has none.

    Raises
    ------
    OptionError
        There are not as many names as parts or landmarks.
    """

    names: tuple[str, ...]
    places: Bool[Tensor, "n p height width"]
    landmark_names: tuple[str, ...]
    landmarks: Float[Tensor, "n l 2"]

    def __post_init__(self) -> None:
        for what, names, there in (
            ("parts", self.names, self.places.shape[1]),
            ("landmarks", self.landmark_names, self.landmarks.shape[1]),
        ):
            if len(names) != there:
                raise OptionError(f"there are {there} {what} and {len(names)} names for them: give one name each")

    @cached_property
    def contained(self) -> Bool[Tensor, "n p"]:
        """Which pictures show which part."""
        return self.places.flatten(2).any(2)

    @cached_property
    def present(self) -> Bool[Tensor, "n l"]:
        """Which pictures have which landmark."""
        return ~self.landmarks.isnan().any(2)

    def check(self, maps: Maps) -> None:
        """Refuse maps of other pictures.

        Raises
        ------
        OptionError
            Their number or their size is not that of the parts.
        """
        n, _, height, width = self.places.shape
        if (n, len(self.landmarks)) != (len(maps.values),) * 2 or (height, width) != maps.size:
            raise OptionError(
                f"the maps are of {len(maps.values)} pictures of {maps.size[0]} x {maps.size[1]}, the parts of {n} "
                f"of {height} x {width}, the landmarks of {len(self.landmarks)}: give the truth of the same "
                "pictures, on the model's input"
            )
