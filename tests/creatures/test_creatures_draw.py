"""What is drawn is what the truth says."""

from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whence.creatures import NAMES, PARTS, WORDS, draw, draw_many
from whence.creatures.drawing import _placed
from whence.creatures.pose import Pose
from whence.creatures.raster import stencil
from whence.creatures.shapes import Build, extent
from whence.errors import OptionError

BODY = {"body", "wing", "head", "eye"}


def same(one, other):
    return np.array_equal(one.pixels, other.pixels) and np.array_equal(one.parts, other.parts)


def grown(mask):
    """Return a mask with the neighbours of its pixels."""
    padded = np.pad(mask, 1)
    height, width = mask.shape
    return np.any([padded[y : y + height, x : x + width] for y in range(3) for x in range(3)], axis=0)


@pytest.mark.parametrize("size", [32, 64, 100])
def test_the_sizes_and_types(size):
    creature = draw(3, size=size)
    assert creature.pixels.shape == (size, size, 3)
    assert creature.parts.shape == (size, size)
    assert creature.pixels.dtype == creature.parts.dtype == np.uint8
    assert creature.variants == WORDS[creature.label]
    assert creature.parts.max() < len(NAMES)


@given(st.integers(0, 2**32), st.integers(0, 8))
@settings(max_examples=20, deadline=None)
def test_the_same_seed_gives_the_same_creature(seed, label):
    assert same(draw(seed, label), draw(seed, label))


def test_seeds_and_steps_of_a_generator_differ():
    generator = np.random.default_rng(0)
    drawn = [draw(0), draw(1), draw(generator), draw(generator)]
    pictures = {creature.pixels.tobytes() for creature in drawn}
    assert len(pictures) == 3
    assert same(drawn[0], drawn[2])


def test_the_global_generator_is_left_alone():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    draw(0)
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002


@pytest.mark.parametrize("options", [{}, {"missing": (0, 1, 2), "tags": 0.5}], ids=["plain", "varied"])
def test_a_creature_is_the_same_whatever_the_count(options):
    few, many = list(draw_many(3, 7, **options)), list(islice(draw_many(5, 7, **options), 3))
    assert all(map(same, few, many))
    assert len({creature.pixels.tobytes() for creature in few}) == 3


@pytest.mark.parametrize("label", range(9))
def test_every_part_of_a_species_is_seen(label):
    creature = draw(label, label, occluders=False)
    bare = {"crest"} if WORDS[label][1] == 0 else set()
    expected = BODY | set(PARTS) - bare
    assert set(creature.centroids) == expected
    assert {NAMES[number] for number in np.unique(creature.parts)} == expected | {"background"}


def amodal(seed, part):
    """Return every pixel that a part touches, hidden or not."""
    stance = np.random.default_rng(seed).spawn(6)[1]
    return stencil(_placed(stance, draw(seed).variants, 64)[part], 64).whole > 0


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("seed", range(8))
def test_a_part_left_out_changes_only_the_pixels_where_it_was(part, seed):
    whole, without = draw(seed), draw(seed, drop=[part])
    assert without.missing == (part,)
    assert without.label == whole.label
    touched, seen = amodal(seed, part), whole.parts == NAMES.index(part)
    changed = np.any(whole.pixels != without.pixels, axis=2)
    assert not np.any((changed | seen) & ~touched)
    assert NAMES.index(part) not in without.parts
    assert np.array_equal(whole.parts[~seen], without.parts[~seen])


def test_keep_is_the_complement_of_drop():
    assert same(draw(5, keep=["beak", "tail"]), draw(5, drop=["crest", "feet"]))
    assert draw(5, keep=[]).missing == PARTS


@pytest.mark.parametrize("seed", range(12))
def test_the_middle_of_a_part_lies_near_its_pixels(seed):
    creature = draw(seed, occluders=False)
    for name, (x, y) in creature.centroids.items():
        rows, columns = np.nonzero(creature.parts == NAMES.index(name))
        # The wing covers the middle of the body, and legs stand on both sides of the middle of the feet.
        assert np.hypot(columns - x, rows - y).min() < (8 if name in {"body", "feet"} else 3)


@pytest.mark.parametrize("seed", range(20))
def test_the_frame_is_filled(seed):
    generator = np.random.default_rng(seed)
    build = Build.drawn(generator)
    (corners,) = Pose.drawn(generator, build, 64).place((extent(build),))
    assert 0.84 * 64 <= np.ptp(corners, axis=0).max() <= 0.98 * 64
    assert corners.min() >= -0.5
    assert corners.max() <= 63.5


def test_a_square_covers_its_own_pixels():
    square = np.array([(9.5, 19.5), (29.5, 19.5), (29.5, 39.5), (9.5, 39.5)])
    covered = stencil((square,), 64)
    assert covered.centroid == pytest.approx((19.5, 29.5), abs=0.3)
    assert covered.inner.sum() == pytest.approx(400, rel=0.1)
    assert np.all(covered.inner[20:39, 10:29] == 1)


def test_a_tag_hides_a_corner_and_nothing_else():
    plain, tagged = draw(4), draw(4, tag=2)
    plate = tagged.parts == NAMES.index("tag")
    y, x = np.nonzero(plate)
    assert (np.ptp(x) + 1, np.ptp(y) + 1) == pytest.approx((18, 11), abs=1)
    changed = np.any(plain.pixels != tagged.pixels, axis=2)
    assert not np.any(changed & ~grown(plate))
    assert np.ptp(tagged.pixels[plate].astype(int)) > 150


def test_tags_are_of_the_own_class_or_of_another():
    creatures = list(draw_many(10, 2, tags=1.0))
    for creature, others in zip(creatures, draw_many(10, 2, tags=0.0), strict=True):
        assert creature.label == others.label
        assert not np.array_equal(creature.pixels, others.pixels)


def test_occluders_hide_some_of_the_creatures():
    hidden = [NAMES.index("occluder") in creature.parts for creature in draw_many(60, 3)]
    assert 0.15 < np.mean(hidden) < 0.5
    assert all(NAMES.index("occluder") not in creature.parts for creature in draw_many(10, 3, occluders=False))


@pytest.mark.parametrize("missing", [(0,), (1,), (2,), (4,)])
def test_so_many_parts_are_missing(missing):
    assert {len(creature.missing) for creature in draw_many(8, 1, missing=missing)} == set(missing)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: draw(0, 9), "no class 9"),
        (lambda: draw(0, -1), "no class -1"),
        (lambda: draw(0, tag=12), "no class 12"),
        (lambda: draw(0, drop=["wing"]), "'wing'"),
        (lambda: draw(0, drop=["beak"], keep=["tail"]), "not both"),
        (lambda: list(draw_many(-1, 0)), "start at 0"),
        (lambda: list(draw_many(1, 0, missing=(5,))), "0 to 4"),
        (lambda: list(draw_many(1, 0, missing=())), "0 to 4"),
    ],
)
def test_what_cannot_be_drawn_is_said(call, words):
    with pytest.raises(OptionError, match=words):
        call()
