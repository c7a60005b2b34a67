"""Whose fault an error is decides whether a method is left out, a picture fails, or nothing is explained."""

from dataclasses import replace

import pytest
import torch

import whence
from small_nets import SmallNet, drawn
from whence.asking import requests
from whence.creatures import draw
from whence.errors import (
    LayerError,
    NotFiniteError,
    OptionError,
    TargetError,
    UnknownLayerError,
    UnsupportedError,
)
from whence.explaining import Job, outcomes
from whence.explanation import Failure
from whence.pictures.read import read
from whence.registry import METHODS, MethodFacts
from whence.results import Passes

PIXELS = [draw(seed).pixels for seed in range(3)]


@pytest.fixture(scope="module")
def model():
    return whence.load_model("creatures")


@pytest.fixture
def broken(monkeypatch):
    """Return a way to register a method that raises on some pictures, under the name ``broken``."""

    def register(error, applies=lambda x: True):
        def method(model, x, target, *, layer: str | None = None):
            if any(applies(picture) for picture in x):
                raise error
            return METHODS.facts("gradient").function(model, x, target)

        METHODS.names()
        facts = MethodFacts(
            "broken", method, "Broken", "propagation", "-", "gradients", "sum", "signed",
            lambda options, model: Passes(),
        )  # fmt: skip
        monkeypatch.setitem(METHODS._entries, "broken", facts)

    return register


def asked(model, *methods, **options):
    return Job(model, requests(methods, options), leave_out=True)


@pytest.mark.parametrize("error", [UnsupportedError("no"), NotFiniteError("no"), LayerError("no layer has a map")])
def test_a_method_that_cannot_is_left_out(model, broken, error):
    broken(error)
    for subject, explanations in outcomes(asked(model, "broken", "gradient"), PIXELS):
        assert [(one.method, one.reason) for one in subject.left_out] == [("broken", str(error))]
        assert [e.method for e in explanations] == ["gradient"]
        assert all(e.subject is subject for e in explanations)


def test_only_the_picture_that_it_cannot_explain_misses_it(model, broken):
    """The others of the batch keep it, in the order of the methods asked for."""
    second = model.preprocess(read(PIXELS[1])).input
    broken(NotFiniteError("no"), lambda x: torch.equal(x, second))
    made = list(outcomes(asked(model, "broken", "gradient"), PIXELS))
    assert [[one.method for one in subject.left_out] for subject, _ in made] == [[], ["broken"], []]
    assert [[e.method for e in es] for _, es in made] == [
        ["broken", "gradient"],
        ["gradient"],
        ["broken", "gradient"],
    ]
    alone = next(iter(outcomes(asked(model, "broken", "gradient"), PIXELS[2:])))[1]
    assert torch.allclose(made[2][1][0].map, alone[0].map, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("error", [TargetError("no"), OptionError("no")])
def test_the_users_own_mistake_is_an_error_for_all(model, broken, error):
    broken(error)
    with pytest.raises(type(error), match="no"):
        list(outcomes(asked(model, "broken", "gradient"), PIXELS))


def test_a_layer_that_the_user_named_must_be_one(model, broken):
    broken(UnknownLayerError("there is none"))
    with pytest.raises(LayerError, match="there is none"):
        list(outcomes(asked(model, "broken:layer=stem", "gradient"), PIXELS))
    with pytest.raises(LayerError, match="no layer 'nowhere'"):
        list(outcomes(asked(model, "grad-cam", "gradient", layer="nowhere"), PIXELS))


def test_a_picture_too_small_for_any_map_fails_alone():
    """The others, also those after it, are explained."""
    net = whence.Classifier(drawn(SmallNet()))
    sizes = {"large": 16, "small": 1, "larger": 20}
    inputs = [torch.rand(3, side, side, dtype=torch.float64) for side in sizes.values()]
    for leave_out in (False, True):
        first, second, third = outcomes(Job(net, requests(["grad-cam"], {}), leave_out=leave_out), inputs)
        assert isinstance(second, Failure)
        assert "no layer has a spatial map for inputs of 1 x 1" in str(second.error)
        assert [one[1][0].method for one in (first, third)] == ["grad-cam"] * 2


def test_a_layer_that_has_no_map_for_one_picture_fails_it_alone(model, broken):
    second = model.preprocess(read(PIXELS[1])).input
    broken(LayerError("layer 'stem' has no map"), lambda x: torch.equal(x, second))
    made = list(outcomes(asked(model, "broken:layer=stem", "gradient"), PIXELS))
    assert [isinstance(one, Failure) for one in made] == [False, True, False]


@pytest.mark.parametrize("refused", [{1}, {0}, {2}, {0, 1}])
def test_a_method_that_refuses_some_pictures_explains_the_others(model, broken, refused):
    inputs = [model.preprocess(read(pixels)).input for pixels in PIXELS]
    broken(UnsupportedError("not this target"), lambda x: any(torch.equal(x, inputs[i]) for i in refused))
    made = list(outcomes(asked(model, "broken", "gradient"), PIXELS))
    assert [[one.method for one in subject.left_out] for subject, _ in made] == [
        ["broken"] if i in refused else [] for i in range(3)
    ]


def test_cam_refuses_the_target_of_one_picture_alone():
    net, inputs = whence.Classifier(drawn(SmallNet())), [*torch.rand(3, 3, 16, 16, dtype=torch.float64)]
    job = Job(net, requests(["cam", "gradient"], {}), [["probability:1", 2, 3]], leave_out=True)
    assert [len(subject.left_out) for subject, _ in outcomes(job, inputs)] == [1, 0, 0]


def test_a_model_that_is_refused_is_not_tried_with_every_picture(model, broken):
    tries = []
    broken(UnsupportedError("not this model"), lambda x: tries.append(1) or True)
    made = list(outcomes(asked(model, "broken", "gradient"), PIXELS * 2))
    assert [len(subject.left_out) for subject, _ in made] == [1] * 6
    assert len(tries) == 3


def test_a_picture_that_no_method_can_explain_fails(model, broken):
    broken(UnsupportedError("first"))
    made = list(outcomes(asked(model, "broken", "broken"), PIXELS[:2]))
    assert all(isinstance(one, Failure) and str(one.error) == "first" for one in made)
    assert isinstance(next(iter(outcomes(asked(model, "broken"), PIXELS[:1]))), Failure)


def test_in_python_nothing_is_left_out_silently(model, broken):
    broken(UnsupportedError("not this model"))
    with pytest.raises(UnsupportedError, match="not this model"):
        whence.explain(model, PIXELS[0], ["gradient", "broken"])
    job = replace(asked(model, "broken", "gradient"), leave_out=False)
    assert all(isinstance(one, Failure) for one in outcomes(job, PIXELS))


def test_device_and_precision_are_said():
    double = whence.Classifier(drawn(SmallNet()))
    x = torch.zeros(3, 16, 16, dtype=torch.float64)
    found = whence.explain(double, x, "gradient").model
    assert (found.device, found.precision) == ("cpu", "float64")
    halved = whence.load_model("creatures")
    halved.precision = "bfloat16"
    assert whence.explain(halved, PIXELS[0], "gradient").model.precision == "bfloat16"
