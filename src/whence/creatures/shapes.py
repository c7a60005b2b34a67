"""The outlines of every part, as polygons in the body's own frame.

The frame has its origin in the middle of the body, x forwards to the beak and y down to the feet; the whole creature
spans about 2 in both. A part's polygons may overlap: together they are one part.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from whence.creatures.code import PARTS, Part

Polygon = Float[np.ndarray, "_ 2"]
Shape = tuple[Polygon, ...]
Point = tuple[float, float]

# The variant of a part that no species has: each has its own three, 0 to 2.
STRANGE = 3

_TURN = np.linspace(0, 2 * np.pi, 24, endpoint=False)
_CIRCLE = np.stack([np.cos(_TURN), np.sin(_TURN)], axis=1)


@dataclass(frozen=True)
class Build:
    """What differs between two creatures of one species: proportions (factors about 1) and angles (radians)."""

    length: float = 1.0
    height: float = 1.0
    head: float = 1.0
    reach: float = 1.0
    nod: float = 0.0
    wag: float = 0.0
    stride: float = 1.0

    @classmethod
    def drawn(cls, generator: np.random.Generator) -> "Build":
        """Draw the proportions and angles of one creature."""
        length, height, head, reach, stride = generator.uniform(0.88, 1.12, 5).tolist()
        nod, wag = generator.uniform(-0.25, 0.25, 2).tolist()
        return cls(length, height, head, reach, nod, wag, stride)


def ellipse(centre: Point, radii: Point) -> Polygon:
    """Return an ellipse, 24 corners."""
    return _CIRCLE * radii + centre


def limb(path: Sequence[Point] | Polygon, widths: Sequence[float]) -> Polygon:
    """Return a path thickened to ``widths``, one for each of its n points: 2n corners."""
    points = np.asarray(path, dtype=float)
    steps = np.diff(points, axis=0)
    along = np.concatenate([steps[:1], steps[:-1] + steps[1:], steps[-1:]])
    along /= np.hypot(along[:, 0], along[:, 1])[:, None]
    aside = np.stack([-along[:, 1], along[:, 0]], axis=1) * np.asarray(widths)[:, None] / 2
    return np.concatenate([points + aside, (points - aside)[::-1]])


def turned(shape: Shape, angle: float) -> Shape:
    """Turn a shape about the origin, clockwise on the screen."""
    cosine, sine = np.cos(angle), np.sin(angle)
    return tuple(polygon @ np.array([[cosine, sine], [-sine, cosine]]) for polygon in shape)


def moved(shape: Shape, to: Point) -> Shape:
    """Move the origin of a shape."""
    return tuple(polygon + to for polygon in shape)


def _cone() -> Shape:
    return (np.array([(0.1, -0.17), (0.64, 0.03), (0.1, 0.17)]),)


def _hook() -> Shape:
    bow = [(0.1, -0.03), (0.34, -0.08), (0.5, -0.01), (0.57, 0.14), (0.52, 0.3)]
    return (limb(bow, [0.26, 0.24, 0.2, 0.13, 0.02]),)


def _spoon() -> Shape:
    return limb([(0.1, 0.03), (0.45, 0.03)], [0.09, 0.07]), ellipse((0.52, 0.03), (0.13, 0.15))


def _trumpet() -> Shape:
    above = [(0.1, -0.07), (0.3, -0.06), (0.43, -0.12), (0.49, -0.23)]
    below = [(0.49, 0.25), (0.43, 0.15), (0.3, 0.08), (0.1, 0.09)]
    return (np.array(above + below),)


def _spikes() -> Shape:
    spike = (np.array([(-0.09, -0.1), (0.0, -0.55), (0.09, -0.1)]),)
    return turned(spike, -0.75) + turned(spike, -0.1) + turned(spike, 0.55)


def _ball() -> Shape:
    return limb([(-0.03, -0.1), (-0.06, -0.4)], [0.07, 0.06]), ellipse((-0.06, -0.43), (0.14, 0.14))


def _hat() -> Shape:
    return limb([(-0.3, -0.16), (0.3, -0.16)], [0.08, 0.08]), limb([(0.0, -0.16), (0.0, -0.5)], [0.28, 0.32])


def _fan() -> Shape:
    spread = np.linspace(-0.62, 0.62, 9)
    arc = 0.66 * np.stack([-np.cos(spread), np.sin(spread)], axis=1)
    return (np.concatenate([[(0.05, 0.1), (0.05, -0.1)], arc]),)


def _fork() -> Shape:
    prongs = [[(0.05, 0.0), (-0.25, side * 0.06), (-0.68, side * 0.34)] for side in (-1, 1)]
    return tuple(limb(prong, [0.16, 0.15, 0.07]) for prong in prongs)


def _band() -> Shape:
    return (limb([(0.05, 0.0), (-0.4, 0.02), (-0.74, 0.0)], [0.17, 0.14, 0.14]),)


def _curl() -> Shape:
    turn, radius = np.linspace(0.5 * np.pi, 2.45 * np.pi, 14), np.linspace(0.21, 0.17, 14)
    coil = np.stack([-radius * np.cos(turn) - 0.46, radius * np.sin(turn)], axis=1)
    return (limb(np.concatenate([[(0.05, 0.05), (-0.2, 0.17)], coil]), [0.14, 0.13, *[0.12] * 14]),)


def _clawed() -> Shape:
    toes = [limb([(0.0, 0.32), tip], [0.1, 0.03]) for tip in ((-0.14, 0.58), (0.05, 0.62), (0.22, 0.54))]
    return (limb([(0.0, 0.0), (0.0, 0.36)], [0.1, 0.1]), *toes)


def _webbed() -> Shape:
    return limb([(0.0, 0.0), (0.0, 0.36)], [0.07, 0.07]), np.array([(-0.02, 0.3), (-0.15, 0.6), (0.24, 0.6)])


def _stilt() -> Shape:
    return limb([(0.0, 0.0), (0.0, 0.64)], [0.065, 0.055]), ellipse((0.0, 0.36), (0.075, 0.065))


def _wheel() -> Shape:
    return limb([(0.0, 0.0), (0.0, 0.4)], [0.08, 0.08]), ellipse((0.0, 0.46), (0.16, 0.16))


# The beaks point forwards and the crests up, from the middle of the head; the tails point backwards from the trunk,
# and the feet are one leg, down from where it leaves the trunk. The last of each is STRANGE.
_BEAKS = (_cone(), _hook(), _spoon(), _trumpet())
_CRESTS: tuple[Shape, ...] = ((), _spikes(), _ball(), _hat())
_TAILS = (_fan(), _fork(), _band(), _curl())
_LEGS = (_clawed(), _webbed(), _stilt(), _wheel())


def body(build: Build) -> Shape:
    """Return the trunk with its neck."""
    trunk = ellipse((0.0, 0.02), (0.44 * build.length, 0.28 * build.height))
    return trunk, limb([(0.16, 0.0), (0.32, -0.22), _head_place(build)], [0.42, 0.32, 0.24])


def wing(build: Build) -> Shape:
    """Return the folded wing, on the trunk."""
    folded = (ellipse((0.0, 0.0), (0.25 * build.length, 0.13 * build.height)),)
    return moved(turned(folded, -0.25 - 0.5 * build.wag), (-0.1, 0.03))


def head(build: Build) -> Shape:
    """Return the round head."""
    return (ellipse(_head_place(build), (0.21 * build.head, 0.2 * build.head)),)


def eye(build: Build) -> Shape:
    """Return the eye, in front on the head."""
    return _on_head((ellipse((0.06, -0.05), (0.065, 0.065)),), build)


def beak(variant: int, build: Build) -> Shape:
    """Return a straight cone, a hook bent down, or a spoon: a thin stalk with a disc; strange: a trumpet."""
    return _on_head(_BEAKS[variant], build)


def crest(variant: int, build: Build) -> Shape:
    """Return nothing, three spikes, or a ball on a stalk; strange: a top hat."""
    return _on_head(_CRESTS[variant], build)


def tail(variant: int, build: Build) -> Shape:
    """Return a broad fan, a fork of two prongs, or one long band; strange: a curl."""
    return moved(turned(_TAILS[variant], build.wag - 0.1), (-0.32 * build.length, -0.03))


def feet(variant: int, build: Build) -> Shape:
    """Return two legs with three claws each, with webs, or bare stilts with a knee; strange: with wheels."""
    leg = _LEGS[variant]
    return moved(leg, (-0.19 * build.stride, 0.2)) + moved(leg, (0.2 * build.stride, 0.2))


def _head_place(build: Build) -> Point:
    return (0.42 * build.length, -0.42 * build.reach)


def _on_head(shape: Shape, build: Build) -> Shape:
    return moved(turned(shape, build.nod), _head_place(build))


_DECIDING = {"beak": beak, "crest": crest, "tail": tail, "feet": feet}


def deciding(part: Part, variant: int, build: Build) -> Shape:
    """Return one of the three variants, 0 to 2, of a part that decides, or its ``STRANGE`` one."""
    return _DECIDING[part](variant, build)


def extent(build: Build) -> Float[np.ndarray, "n 2"]:
    """Return the corners of every variant of every part at once: the room of all species of this build."""
    variants = [deciding(part, variant, build) for part in PARTS for variant in range(STRANGE)]
    return np.concatenate([polygon for shape in (body(build), head(build), *variants) for polygon in shape])
