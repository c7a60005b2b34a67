"""Where a creature stands: from the body's frame to the pixels of the picture."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from whence.creatures.shapes import Build, Shape, extent


@dataclass(frozen=True)
class Pose:
    """A turn, a mirroring, a scale and a shift: pixel = point @ ``matrix`` + ``shift``.

    Pixels are (x, y), and the middle of the first pixel is (0, 0).
    """

    matrix: Float[np.ndarray, "2 2"]
    shift: Float[np.ndarray, "2"]

    @classmethod
    def drawn(cls, generator: np.random.Generator, build: Build, size: int) -> "Pose":
        """Draw a pose in which the creature fills 84 to 98 % of a frame of ``size`` pixels.

        What is measured is the box around all variants of all parts, so that neither the scale nor the place betrays
        the species, nor a part that is left out.
        """
        angle, fill = generator.uniform(-0.38, 0.38), generator.uniform(0.84, 0.98)
        cosine, sine, facing = np.cos(angle), np.sin(angle), generator.choice([-1.0, 1.0])
        matrix = np.array([[cosine, sine], [-sine, cosine]]) * [facing, 1.0]
        corners = extent(build) @ matrix
        low, high = corners.min(axis=0), corners.max(axis=0)
        scale = fill * size / (high - low).max()
        room = size - scale * (high - low)
        return cls(matrix * scale, generator.uniform(0, 1, 2) * room - scale * low - 0.5)

    def place(self, shape: Shape) -> Shape:
        """Return a shape of the body's frame in pixels."""
        return tuple(polygon @ self.matrix + self.shift for polygon in shape)
