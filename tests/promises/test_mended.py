"""What once went wrong between the parts: random state over threads, seeds, precision, strangers' files, errors."""

import json
import threading
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import whence
from whence.creatures import draw
from whence.errors import ModelError, OutputError, PictureError, TargetError, TrustError
from whence.explaining import Job, MethodRequest, outcomes
from whence.explanation import Failure
from whence.metrics.ranking import top_share
from whence.models.targets import Scale
from whence.pictures.preprocess import Preprocess
from whence.registry import MethodFacts, Registry
from whence.reports import folder
from whence.results import Answer, Passes, Score

PIXELS = draw(0).pixels


@pytest.fixture(scope="module")
def model():
    return whence.load_model("creatures")


class Noisy(nn.Module):
    """A model that draws numbers in eval mode."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.conv(x).relu().mean((2, 3))) + torch.randn(len(x), 3)


def test_two_models_in_two_threads_leave_the_generator_as_it_was():
    models = [whence.Classifier(Noisy()) for _ in range(2)]
    x = torch.randn(1, 3, 16, 16)
    before = torch.get_rng_state()

    def work(model):
        for _ in range(30):
            whence.attribute(model, x, "gradient")

    threads = [threading.Thread(target=work, args=(m,)) for m in models]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert torch.equal(before, torch.get_rng_state())


def test_the_seed_reaches_the_model_in_every_part():
    classifier = whence.Classifier(Noisy(), preprocess=Preprocess())
    first, again, other = (whence.explain(classifier, PIXELS, "gradient", seed=seed, target=0) for seed in (1, 1, 2))
    assert first.attribution.score == again.attribution.score
    assert first.attribution.score != other.attribution.score
    # The score comes from the same draw as the probability beside it.
    log = whence.explain(classifier, PIXELS, "gradient", seed=1, target="log-probability:0")
    assert float(log.attribution.score.exp()) == pytest.approx(first.probability, rel=1e-5)


def test_evidence_is_a_probability_for_each_class_and_a_score_for_each_callable(model):
    mixed = whence.explain(model, [PIXELS, PIXELS], target=[lambda logits: logits[:, 0], 3])
    alone = whence.explain(model, PIXELS, target=3)
    assert mixed[1].evidence.removed == pytest.approx(alone.evidence.removed, abs=1e-5)
    assert "function" in mixed[0].notes[0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_every_mask_has_the_same_area_in_half_precision(dtype):
    heat = torch.randn(2, 224, 224, generator=torch.Generator().manual_seed(0)).to(dtype)
    assert torch.allclose(top_share(heat, 0.064).sum((1, 2)), torch.tensor(0.064 * 224**2), rtol=1e-5)


def test_an_autocast_of_the_user_s_changes_nothing(model):
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    plain = whence.attribute(model, x, "gradient")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = whence.attribute(model, x, "gradient")
    assert torch.equal(plain.values, inside.values)


def test_everything_that_a_method_returns_is_checked(model, monkeypatch):
    from whence import attribution

    def method(session, x, target):
        score = session.score(session.run(x), target)
        return Answer(x.sum(1, keepdim=True), score, parts={"mask": torch.full_like(x[:, :1], torch.inf)})

    facts = MethodFacts(
        name="broken", function=method, title="Broken", family="activation", paper="-", needs="scores", reduce="sum",
        show="signed", cost=lambda options, model: Passes(forward=1),
    )  # fmt: skip
    monkeypatch.setattr(attribution.METHODS, "facts", lambda name: facts)
    with pytest.raises(whence.errors.NotFiniteError, match="mask"):
        whence.attribute(model, torch.zeros(1, 3, 64, 64), "broken")


def test_one_picture_that_cannot_be_prepared_is_one_failure(model, tmp_path):
    Image.fromarray(np.zeros((1, 2_000_000), np.uint8)).save(tmp_path / "thread.png")
    oblong = whence.Classifier(model.module, preprocess=Preprocess(resize=64, crop=64), labels=model.labels)
    made = list(outcomes(Job(oblong, [MethodRequest("gradient", {})]), [PIXELS, tmp_path / "thread.png"]))
    assert not isinstance(made[0], Failure)
    assert isinstance(made[1], Failure)
    assert "oblong" in str(made[1].error)


def test_what_a_preprocessing_raises_is_told(model):
    def broken(picture):
        raise KeyError("mean")

    with pytest.raises(PictureError, match="KeyError: 'mean'"):
        whence.explain(whence.Classifier(model.module, preprocess=broken), PIXELS)


def test_a_wrong_target_is_told_at_once(model):
    passes = []
    counted = whence.Classifier(model.module, model.preprocess, model.labels)
    # The memory order is found once for a model, by passes of its own.
    list(outcomes(Job(counted, [MethodRequest("gradient", {})], (None,)), [PIXELS]))
    handle = model.module.register_forward_hook(lambda *args: passes.append(1))
    try:
        with pytest.raises(TargetError, match="lion"):
            list(outcomes(Job(counted, [MethodRequest("gradient", {})], ("lion",)), [PIXELS] * 40))
    finally:
        handle.remove()
    # One to classify, one to explain.
    assert len(passes) <= 2


def test_threads_discover_the_methods_together():
    found = []
    registry = Registry("method", "whence.methods", MethodFacts)
    known = whence.methods.names()
    registry._entries = {name: whence.methods.facts(name) for name in known}
    threads = [threading.Thread(target=lambda: found.append(registry.names())) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [known] * 6


@pytest.mark.parametrize("name", ["my method", "../evil", "", "Größe"])
def test_a_method_s_name_can_stand_in_a_file_name(name):
    with pytest.raises(ValueError, match="named"):
        whence.registry.METHODS.register(name, title="x")(lambda: None)


def test_labels_of_several_classes_are_told_apart():
    scale = Scale("softmax", ("crane", "tench", "crane"))
    assert [scale.label(i) for i in range(3)] == ["crane (0)", "tench", "crane (2)"]


@pytest.mark.parametrize(
    "option", ["pretrained = true", 'checkpoint_path = "/tmp/x.pth"', 'weights = "IMAGENET1K_V1"']
)
def test_a_model_file_may_not_load_by_its_options(option, tmp_path):
    (tmp_path / "model.toml").write_text(f'source = "timm:resnet18"\noptions = {{ {option} }}\n')
    with pytest.raises(TrustError, match="loads files by itself"):
        whence.load_model(tmp_path, weights="random")


@pytest.fixture
def saved(model, tmp_path):
    whence.explain(model, PIXELS).save(tmp_path / "saved")
    return tmp_path / "saved"


@pytest.mark.parametrize("place", range(0, 400, 13))
def test_a_damaged_result_is_one_clear_error_or_none(saved, place):
    raw = bytearray((saved / "maps.npz").read_bytes())
    raw[place * len(raw) // 400] ^= 0xFF
    (saved / "maps.npz").write_bytes(raw)
    with suppress(OutputError):
        folder.read(saved)


@pytest.mark.parametrize("geometry", [{"picture": [0, 0]}, {"box": [0.0, 1.0, 2.0]}, {"grid": [10**9, 10**9]}])
def test_a_geometry_that_cannot_be_is_one_clear_error(saved, geometry):
    result = json.loads((saved / "result.json").read_text())
    result["pictures"][0]["geometry"].update(geometry)
    (saved / "result.json").write_text(json.dumps(result))
    with pytest.raises(OutputError, match="damaged"):
        folder.redraw(saved)


def test_what_a_user_put_into_pictures_stays(model, saved):
    (saved / "pictures" / "mine.txt").write_text("mine")
    whence.explain(model, PIXELS).save(saved)
    assert (saved / "pictures" / "mine.txt").read_text() == "mine"


def test_pictures_of_one_name_are_told_apart_by_their_paths(model, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.fromarray(PIXELS).save(tmp_path / name / "x.png")
    names = [e.subject.name for e in whence.explain(model, [tmp_path / n / "x.png" for n in ("a", "b")])]
    assert [Path(name).parent.name for name in names] == ["a", "b"]


def test_a_report_says_which_number_was_explained(model):
    plain, contrast = whence.explain(model, PIXELS, target=(0, "0 - 1"))
    assert plain.notes == ()
    assert contrast.notes == ("the number explained is '0 - 1'",)
    assert "%" not in repr(whence.explain(model, PIXELS, target=lambda y: 100 * y[:, 0])).partition("most")[0]


def test_scripts_end_in_a_clear_error():
    script = torch.jit.script(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    with pytest.raises((ModelError, whence.errors.LayerError)):
        whence.attribute(whence.Classifier(script), torch.zeros(1, 3, 16, 16), "grad-cam", layer="0")


def test_an_explanation_s_tensors_lie_on_the_cpu(model):
    one = whence.explain(model, PIXELS).attribution
    moved = one.cpu()
    assert moved.values.device.type == "cpu"
    assert moved.options is one.options
    score = Score(torch.zeros(1), torch.zeros(1, dtype=torch.int64))
    assert Answer(torch.zeros(1, 1, 2, 2), score) != Answer(torch.zeros(1, 1, 2, 2), score)
