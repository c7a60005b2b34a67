"""Every registered method meets every crafted file: a finite map with its evidence, or the picture's own error."""

import pytest

import whence
from corpus import corpus
from small_nets import SmallViT, drawn, tiny_options
from whence.errors import PictureError
from whence.explaining import Job, outcomes, requests
from whence.explanation import Failure


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    made = corpus(tmp_path_factory.mktemp("corpus"))
    assert len(made) >= 60
    return made


@pytest.fixture(scope="module")
def models():
    """Return by what a method needs a model that it can explain; both see the pictures alike."""
    cnn = whence.load_model("creatures")
    vit = drawn(SmallViT(classes=len(cnn.labels)), shape=(3, 64, 64)).float()
    return {"attention": whence.Classifier(vit, cnn.preprocess, cnn.labels), "anything else": cnn}


@pytest.mark.parametrize("method", whence.methods.names())
def test_a_map_or_the_picture_s_error(method, cases, models):
    attention = whence.methods.facts(method).needs == "attention"
    model = models["attention" if attention else "anything else"]
    plain = [case for case in cases if case.bits is None]
    job = Job(model, requests([method], tiny_options(whence.methods.facts(method))))
    for case, outcome in zip(plain, outcomes(job, [case.path for case in plain]), strict=True):
        if case.error is not None:
            assert isinstance(outcome, Failure), case.name
            assert isinstance(outcome.error, PictureError), case.name
            continue
        assert not isinstance(outcome, Failure), (case.name, outcome)
        subject, (explanation,) = outcome
        assert subject.size == case.pixels.shape[1:], case.name
        assert explanation.map.isfinite().all(), case.name
        assert explanation.heatmap().shape == subject.size, case.name
        assert 0 <= explanation.evidence.removed <= 1, case.name
        assert 0 <= explanation.evidence.kept <= 1, case.name
