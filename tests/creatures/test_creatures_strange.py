"""A strange creature is a known one but for the parts that no species has."""

import csv

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from whence.cli import run
from whence.creatures import NAMES, PARTS, WORDS, draw, draw_many
from whence.creatures.drawing import _placed
from whence.creatures.files import write
from whence.creatures.raster import stencil
from whence.creatures.shapes import STRANGE, Build, body, deciding, extent, head
from whence.errors import OptionError


def same(one, other):
    return np.array_equal(one.pixels, other.pixels) and np.array_equal(one.parts, other.parts)


def amodal(creature, seed, part, strange):
    """Return every pixel that a part touches in its own shape, or in the strange one, hidden or not."""
    stance = np.random.default_rng(seed).spawn(6)[1]
    outline = _placed(stance, creature.variants, 64, strange)[part]
    return stencil(outline, 64).whole > 0 if outline else np.zeros((64, 64), dtype=bool)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("seed", range(8))
def test_a_strange_part_changes_only_the_pixels_of_both_shapes(part, seed):
    known, strange = draw(seed), draw(seed, strange=[part])
    assert strange.strange == (part,)
    assert (strange.label, strange.variants, strange.missing) == (known.label, known.variants, ())
    before, after = amodal(known, seed, part, ()), amodal(known, seed, part, (part,))
    changed = np.any(known.pixels != strange.pixels, axis=2)
    assert not np.any(changed & ~before & ~after)
    assert np.array_equal(known.parts[~before & ~after], strange.parts[~before & ~after])
    assert changed.sum() > 20
    assert not np.any((strange.parts == NAMES.index(part)) & ~after)
    rest = set(PARTS) - {part}
    assert {name: known.centroids.get(name) for name in rest} == {name: strange.centroids.get(name) for name in rest}


@given(st.integers(0, 2**32), st.sets(st.sampled_from(PARTS)), st.sets(st.sampled_from(PARTS)))
@settings(max_examples=10, deadline=None)
def test_strange_parts_do_not_hang_on_each_other_nor_on_the_species(seed, strange, more):
    one = draw(seed, strange=strange | more)
    assert same(one, draw(seed, strange=more | strange))
    assert one.strange == tuple(part for part in PARTS if part in strange | more)
    if one.strange == PARTS:
        assert same(one, draw(seed, (one.label + 1) % 9, strange=PARTS))


def test_a_strange_part_keeps_its_colour():
    """The feet are of one colour, but for how the light falls."""
    for seed in range(5):
        colours = [
            np.median(creature.pixels[creature.parts == NAMES.index("feet")], axis=0)
            for creature in (draw(seed, occluders=False), draw(seed, strange=["feet"], occluders=False))
        ]
        assert colours[0] / colours[0].sum() == pytest.approx(colours[1] / colours[1].sum(), abs=0.03)


def test_a_bare_species_gets_a_strange_crest():
    label = next(label for label, word in enumerate(WORDS) if word[1] == 0)
    assert "crest" in draw(1, label, strange=["crest"]).centroids
    assert "crest" not in draw(1, label).centroids


@pytest.mark.parametrize("part", PARTS)
def test_no_species_has_the_shape(part):
    own = [deciding(part, variant, Build()) for variant in range(4)]
    seen = [stencil(tuple(100 * p + 150 for p in shape), 300).inner > 0.5 for shape in own if shape]
    for known in seen[:-1]:
        assert (known & seen[-1]).sum() / (known | seen[-1]).sum() < 0.7
    areas = [shape.sum() for shape in seen]
    assert 0.5 * min(areas[:-1]) < areas[-1] < 1.5 * max(areas[:-1])


@pytest.mark.parametrize("seed", range(20))
def test_strange_shapes_stay_in_the_room_of_the_known_ones(seed):
    build = Build.drawn(np.random.default_rng(seed))
    for angle in np.linspace(-0.38, 0.38, 9):
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        room = extent(build) @ turn
        for part in PARTS:
            corners = np.concatenate(deciding(part, STRANGE, build)) @ turn
            assert np.all(corners.min(0) >= room.min(0)), part
            assert np.all(corners.max(0) <= room.max(0)), part


def test_the_room_is_that_of_the_known_shapes_alone():
    build = Build()
    shapes = [body(build), head(build), *(deciding(part, variant, build) for part in PARTS for variant in (0, 1, 2))]
    assert np.array_equal(extent(build), np.concatenate([polygon for shape in shapes for polygon in shape]))


@pytest.mark.parametrize("options", [{}, {"missing": (0, 1, 2), "tags": 0.5}], ids=["plain", "varied"])
@pytest.mark.parametrize("strange", [1, 2])
def test_all_but_the_strange_parts_is_drawn_as_without(options, strange):
    known, odd = list(draw_many(8, 7, **options)), list(draw_many(8, 7, strange=strange, **options))
    for one, other in zip(known, odd, strict=True):
        assert len(other.strange) == strange
        assert one.strange == ()
        assert (one.label, one.missing, one.tag) == (other.label, other.missing, other.tag)
        # The eye is in front of all that decides, so that it is seen in both.
        place = (one.parts == other.parts) & (one.parts == NAMES.index("eye"))
        assert place.any()
        assert np.array_equal(one.pixels[place], other.pixels[place])


def test_the_strange_parts_are_chosen_at_random_and_the_same_whatever_else_is_asked():
    one, two, few = (list(draw_many(count, 3, strange=n)) for count, n in ((14, 1), (14, 2), (3, 2)))
    assert {creature.strange[0] for creature in one} == set(PARTS)
    assert all(set(a.strange) < set(b.strange) for a, b in zip(one, two, strict=True))
    assert all(same(a, b) for a, b in zip(few, two[:3], strict=True))
    tagged = list(draw_many(14, 3, strange=2, tags=0.5, missing=(1,)))
    assert [creature.strange for creature in tagged] == [creature.strange for creature in two]
    assert not any(set(creature.strange) & set(creature.missing) for creature in tagged)
    # Every part goes with any other; of the six pairs five are among these.
    assert len({creature.strange for creature in two}) == 5


def test_all_four_can_be_strange():
    (creature,) = draw_many(1, 0, strange=4)
    assert creature.strange == PARTS


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: draw(0, strange=["wing"]), "'wing'"),
        (lambda: draw(0, strange=["beak", "tail"], drop=["beak"]), "beak cannot be both strange and left out"),
        (lambda: draw(0, strange=["tail"], keep=["beak"]), "tail cannot be both"),
        (lambda: list(draw_many(1, 0, strange=5)), "0 to 4"),
        (lambda: list(draw_many(1, 0, strange=-1)), "0 to 4"),
        (lambda: list(draw_many(1, 0, strange=3, missing=(0, 2))), "strange=3 with missing=\\(0, 2\\)"),
    ],
)
def test_what_cannot_be_strange_is_said(call, words):
    with pytest.raises(OptionError, match=words):
        call()


def test_files_hold_what_is_strange(tmp_path):
    write(tmp_path / "out", 4, 11, missing=(1,), strange=2)
    with (tmp_path / "out" / "creatures.csv").open(newline="") as table:
        rows = list(csv.DictReader(table))
    for row, creature in zip(rows, draw_many(4, 11, missing=(1,), strange=2), strict=True):
        assert tuple(row["strange"].split("+")) == creature.strange
        assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / row["file"])), creature.pixels)


def test_the_command_draws_strange_creatures(tmp_path, capsys):
    def drawn(out, *more):
        return run(["creatures", "draw", "-n", "2", "--out", str(tmp_path / out), *more])

    assert drawn("odd", "--strange", "3") == 0
    with (tmp_path / "odd" / "creatures.csv").open(newline="") as table:
        assert [len(row["strange"].split("+")) for row in csv.DictReader(table)] == [3, 3]
    capsys.readouterr()
    assert drawn("not", "--strange", "3", "--missing", "2") == 2
    assert "strange=3" in capsys.readouterr().err
    assert not (tmp_path / "not").exists()
