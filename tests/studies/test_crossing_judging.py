"""A map judged on another model: closed forms, the way over the picture, and what is refused."""

from dataclasses import replace

import pytest
import torch

from crossing_samples import answer, heat, probability
from small_nets import SmallNet, SmallViT, drawn, pictures
from whence.asking import MetricRequest
from whence.attribution import attribute
from whence.errors import ModelError, OptionError, PictureError, TargetError
from whence.metrics import measure
from whence.models.classifier import Classifier
from whence.pictures.preprocess import Geometry, Preprocess
from whence.pictures.read import read
from whence.results import spread
from whence.studies.crossing import asked, carried, columns, judged, same_labels

REQUESTS = asked(["deletion:grid=4,steps=8,substrate=zeros", "insertion:grid=4,steps=8,substrate=zeros"])
DELETION, INSERTION = (request.text for request in REQUESTS)
NAMES = ["one.png", "two.png"]
WHOLE = Geometry((16, 16), (16, 16), (0.0, 0.0, 16.0, 16.0))


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


def on(net, x, maps, classes=(0, 0), requests=REQUESTS, seen=(WHOLE, WHOLE), judge_seen=(WHOLE, WHOLE), **options):
    model = net if isinstance(net, Classifier) else Classifier(net, name="judge")
    return judged(answer(maps, x), seen, model, x, judge_seen, classes, requests, NAMES, **options)


def test_a_map_judged_on_its_own_model_gives_the_metric_itself():
    net, x = drawn(SmallNet()).eval(), pictures(2)
    with torch.enable_grad():
        made = attribute(net, x, "gradient", target=[3, 1])
    found = judged(made, [WHOLE] * 2, Classifier(net, name="own"), x, [WHOLE] * 2, [3, 1], REQUESTS, NAMES)
    whole = net(x).softmax(1)[torch.arange(2), torch.tensor([3, 1])]
    nothing = net(torch.zeros_like(x)).softmax(1)[torch.arange(2), torch.tensor([3, 1])]
    torch.testing.assert_close(found.full, whole)
    for request in REQUESTS:
        expected = measure(net, x, made, request.metric, **request.options)
        assert torch.equal(found.auc[request.text], expected.value)
        torch.testing.assert_close(found.base[request.text], nothing)


def test_the_area_is_that_of_a_curve_by_hand():
    """The judge looks at the left half; the map has all its weight there, or all of it elsewhere."""
    judge = probability(lambda x: 0.1 + 0.8 * x[:, 0, :, :8].mean((1, 2)))
    x = torch.ones(2, 1, 16, 16).double()
    left = torch.zeros(1, 1, 4, 4).double()
    left[..., :2] = 1
    maps = torch.cat((left, -left))
    sharp = asked(["deletion:grid=4,edges=sharp,steps=8,substrate=zeros"])[0]
    more = asked(["insertion:grid=4,edges=sharp,steps=8,substrate=zeros"])[0]
    found = on(judge, x, maps, requests=[sharp, more])
    # Down from 0.9 over half the area and 0.1 for the other half; or 0.9 for half, and then down.
    torch.testing.assert_close(found.auc[sharp.text], torch.tensor([0.3, 0.7]).double())
    torch.testing.assert_close(found.auc[more.text], torch.tensor([0.7, 0.3]).double())
    torch.testing.assert_close(found.full, torch.tensor([0.9, 0.9]).double())
    for request in (sharp, more):
        torch.testing.assert_close(found.base[request.text], torch.tensor([0.1, 0.1]).double())


def test_the_class_is_the_one_that_is_given():
    net, x = drawn(SmallNet()).eval(), pictures(2)
    found = on(net, x, heat(2, 4, 4), classes=(4, 2))
    torch.testing.assert_close(found.full, net(x).softmax(1)[torch.arange(2), torch.tensor([4, 2])])


def test_a_batch_gives_what_single_pictures_give():
    net, x, maps = drawn(SmallViT()).eval(), pictures(2), heat(2, 4, 4)
    both = on(net, x, maps)
    for row in range(2):
        own = slice(row, row + 1)
        model = Classifier(net, name="judge")
        one = judged(answer(maps[own], x[own]), [WHOLE], model, x[own], [WHOLE], [0], REQUESTS, NAMES[own])
        for name, values in one.columns.items():
            torch.testing.assert_close(values[0], both.columns[name][row])


def test_columns_are_named_by_metric_and_judge():
    found = on(drawn(SmallNet()).eval(), pictures(2), heat(2, 4, 4))
    assert list(found.columns) == columns([DELETION, INSERTION], "judge")
    assert list(found.columns) == [
        "full@judge",
        f"{DELETION}@judge",
        f"{DELETION}:base@judge",
        f"{INSERTION}@judge",
        f"{INSERTION}:base@judge",
    ]
    assert found.columns[f"{INSERTION}:base@judge"] is found.base[INSERTION]


def test_noise_is_drawn_from_the_seed():
    net, x, maps = drawn(SmallNet()).eval(), pictures(2), heat(2, 4, 4)
    model = Classifier(net, Preprocess(resize=(16, 16)), name="judge")
    noisy = asked(["insertion:grid=4,steps=4,substrate=uniform"])
    first, again, other = (on(model, x, maps, requests=noisy, seed=seed) for seed in (1, 1, 2))
    (text,) = first.auc
    assert torch.equal(first.auc[text], again.auc[text])
    assert not torch.equal(first.base[text], other.base[text])


def test_nothing_is_resampled_where_both_models_see_the_same():
    x = pictures(2)
    maps = answer(heat(2, 5, 7), x)
    same = carried(maps, [WHOLE, None], [WHOLE, None], (16, 16), NAMES)
    assert torch.equal(same.values[:, 0], maps.heatmap())
    assert torch.equal(same.heatmap(), maps.heatmap())


@pytest.mark.parametrize("reduce", ["sum", "abs-sum", "abs-max"])
def test_channels_and_styles_are_settled_on_the_maps_own_grid(reduce):
    x = pictures(2)
    values = torch.cat((heat(2, 4, 4), heat(2, 4, 4, seed=1)), dim=1)
    maps = replace(answer(values, x), reduce=reduce, style="tents")
    found = carried(maps, [WHOLE] * 2, [WHOLE] * 2, (16, 16), NAMES)
    assert torch.equal(found.heatmap(), spread(values, reduce, (16, 16), "tents"))


def test_a_map_goes_over_the_picture_to_where_the_judge_sees_it():
    """One model sees the whole picture in 8 x 8, the other its middle in 12 x 12: a plane stays one."""
    mine = Geometry((48, 64), (8, 8), (0.0, 0.0, 48.0, 64.0))
    theirs = Geometry((48, 64), (12, 12), (12.0, 20.0, 36.0, 44.0))
    centre = (torch.arange(8).double() + 0.5) / 8
    plane = (2 * centre * 48)[:, None] - (centre * 64)[None, :]
    x = torch.zeros(1, 1, 8, 8)
    found = carried(answer(plane[None, None], x), [mine], [theirs], (12, 12), NAMES[:1])
    down, right = 12 + (torch.arange(12).double() + 0.5) * 2, 20 + (torch.arange(12).double() + 0.5) * 2
    torch.testing.assert_close(found.values[0, 0], 2 * down[:, None] - right[None, :], rtol=0, atol=1e-3)
    assert found.input_size == (12, 12)


def test_a_spot_is_found_again_by_a_judge_of_another_preprocessing():
    """The judge's own input has its bright spot where the carried map has its highest value."""
    pixels = torch.zeros(60, 90, 3, dtype=torch.uint8)
    pixels[22:30, 40:48] = 255
    whole, middle = Preprocess(resize=(24, 24)), Preprocess(resize=40, crop=32)
    picture = read(pixels.numpy())
    mine, theirs = whole(picture), middle(picture)
    maps = answer(mine.input.mean(0)[None, None].double(), mine.input[None])
    found = carried(maps, [mine.geometry], [theirs.geometry], (32, 32), NAMES[:1]).values[0, 0]
    bright = theirs.input.mean(0)
    at, expected = divmod(int(found.argmax()), 32), divmod(int(bright.argmax()), 32)
    assert abs(at[0] - expected[0]) <= 3
    assert abs(at[1] - expected[1]) <= 3


def test_what_one_of_the_two_did_not_see_counts_as_nothing():
    mine = Geometry((8, 8), (4, 4), (0.0, 0.0, 8.0, 4.0))
    theirs = Geometry((8, 8), (8, 8), (0.0, 0.0, 8.0, 8.0))
    x = torch.zeros(1, 1, 4, 4)
    found = carried(answer(torch.full((1, 1, 4, 4), -1.0), x), [mine], [theirs], (8, 8), NAMES[:1]).values[0, 0]
    assert (found[:, :4] == -1).all()
    assert (found[:, 4:] == 0).all()


def test_an_unknown_place_on_the_picture_is_an_error_where_the_grids_differ():
    maps = answer(heat(2, 4, 4), pictures(2))
    for seen, judge_seen in (([WHOLE, None], [WHOLE, WHOLE]), ([WHOLE] * 2, [WHOLE, None])):
        assert len(carried(maps, seen, judge_seen, (16, 16), NAMES)) == 2
        smaller = [one and Geometry((16, 16), (12, 12), WHOLE.box) for one in judge_seen]
        with pytest.raises(PictureError, match=r"two\.png: .* 16 x 16 and 12 x 12"):
            carried(maps, seen, smaller, (12, 12), NAMES)


def test_geometries_of_two_pictures_are_refused():
    other = Geometry((20, 16), (16, 16), WHOLE.box)
    with pytest.raises(PictureError, match=r"one\.png: .* 16 x 16 and 20 x 16"):
        carried(answer(heat(2, 4, 4), pictures(2)), [WHOLE] * 2, [other] * 2, (16, 16), NAMES)


def test_a_class_that_the_judge_does_not_have_is_refused():
    net, x = drawn(SmallNet()).eval(), pictures(2)
    with pytest.raises(TargetError, match="5 classes"):
        on(net, x, heat(2, 4, 4), classes=(0, 7))
    with pytest.raises(TargetError, match="explain a class"):
        on(net, x, heat(2, 4, 4), classes=(0, -1))


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        ([], "deletion and insertion"),
        (["sparseness"], "deletion and insertion"),
        (["insertion"], "own cells"),
        (["deletion:grid=8", "insertion:grid=map"], "own cells"),
        (["insertion:grid=8,scale=range"], "leave scale"),
        (["insertion:grid=8,variant=igos-pp"], "leave scale"),
    ],
)
def test_metrics_that_cannot_compare_models_are_refused(metrics, said):
    with pytest.raises(OptionError, match=said):
        asked(metrics)


def test_other_metrics_of_a_study_are_left_out():
    assert [one.text for one in asked(["sparseness", "insertion:grid=8", "deletion:grid=pixels"])] == [
        "insertion:grid=8",
        "deletion:grid=pixels",
    ]


def test_a_metric_without_a_curve_is_refused_by_the_judge_too():
    with pytest.raises(OptionError, match="alone"):
        on(drawn(SmallNet()).eval(), pictures(2), heat(2, 4, 4), requests=[MetricRequest("sparseness", {})])


def named(name, labels):
    return Classifier(drawn(SmallNet()), labels=labels, name=name)


def test_models_of_the_same_classes_may_judge_each_other():
    same_labels([named("a", "vwxyz"), named("b", "vwxyz"), named("c", "vwxyz")])
    same_labels([named("a", None), named("b", None)])
    same_labels([named("a", "vwxyz")])


@pytest.mark.parametrize(
    ("labels", "said"),
    [("vwxyw", "class 4 is 'z' for a and 'w' for b"), ("vwx", "a has 5 labels and b has 3"), (None, "b has 0")],
)
def test_models_of_other_classes_may_not(labels, said):
    with pytest.raises(ModelError, match=said):
        same_labels([named("a", "vwxyz"), named("b", labels)])
