"""Whose fault an error is decides whether a method is left out, a picture fails, or nothing is explained."""

from dataclasses import replace

import pytest
import torch

import whence
from small_nets import SmallNet, drawn
from whence.asking import requests
from whence.creatures import draw
from whence.errors import LayerError, NotFiniteError, OptionError, TargetError, UnsupportedError
from whence.explaining import Job, outcomes
from whence.explanation import Failure
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
    second = model.preprocess(whence.explaining.read(PIXELS[1])).input
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
    broken(LayerError("there is none"))
    with pytest.raises(LayerError):
        list(outcomes(asked(model, "broken:layer=stem", "gradient"), PIXELS))
    with pytest.raises(LayerError, match="no layer 'nowhere'"):
        list(outcomes(asked(model, "grad-cam", "gradient", layer="nowhere"), PIXELS))


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
