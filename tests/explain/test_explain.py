"""explain(): from pictures to Explanations, as a user would call it."""

import numpy as np
import pytest
import torch
from PIL import Image

import whence
from small_nets import SmallNet, drawn
from whence import batches
from whence.asking import requests
from whence.creatures import draw
from whence.errors import OptionError, OutputError, PictureError, TargetError, UnknownNameError, WhenceError
from whence.explaining import Job, outcomes
from whence.explanation import Failure
from whence.pictures.read import read
from whence.registry import METHODS

CREATURES = [draw(seed) for seed in range(3)]
PIXELS = [creature.pixels for creature in CREATURES]


@pytest.fixture(scope="module")
def model():
    return whence.load_model("creatures")


@pytest.fixture(scope="module")
def one(model):
    return whence.explain(model, PIXELS[0])


def test_an_explanation_says_what_the_contract_lists(one, model):
    assert one.method == "grad-cam"
    assert one.label == model.labels[CREATURES[0].label]
    assert 0.5 < one.probability <= 1
    assert one.map.shape == (16, 16)
    assert one.heatmap().shape == one.seen.shape == (64, 64)
    assert one.seen.all()
    assert [c.probability for c in one.top] == sorted((c.probability for c in one.top), reverse=True)
    assert one.top[0].label == one.label
    assert one.options == {"layer": None, "relu": False}
    assert one.attribution.layer is not None
    assert one.residual is None
    assert one.graph is None
    assert (one.passes.forward, one.passes.backward) == (1, 0)
    assert one.seconds > 0
    assert one.notes == ()
    assert one.evidence.share == 0.064
    assert one.evidence.baseline == "blurred"
    assert one.model.fingerprint == model.fingerprint
    assert one.attribution.channels(3).maps.shape == (1, 3, 16, 16)


def test_one_picture_gives_one_and_lists_give_lists_picture_first(model):
    assert isinstance(whence.explain(model, PIXELS[0]), whence.Explanation)
    assert [e.subject.sha256 for e in whence.explain(model, PIXELS)] == [
        whence.explain(model, p).subject.sha256 for p in PIXELS
    ]
    by_method = whence.explain(model, PIXELS[0], ["gradient", "grad-cam"])
    assert [e.method for e in by_method] == ["gradient", "grad-cam"]
    both = whence.explain(model, PIXELS[:2], ["gradient", "grad-cam"])
    assert [[e.method for e in row] for row in both] == [["gradient", "grad-cam"]] * 2


def test_a_batch_gives_what_single_pictures_give(model):
    together = whence.explain(model, PIXELS, ["gradient", "grad-cam"])
    for row, pixels in zip(together, PIXELS, strict=True):
        for e, alone in zip(row, whence.explain(model, pixels, ["gradient", "grad-cam"]), strict=True):
            assert torch.allclose(e.map, alone.map, rtol=1e-4, atol=1e-5 * float(alone.map.abs().max()))
            assert e.evidence.removed == pytest.approx(alone.evidence.removed, abs=1e-4)


def test_several_targets_share_one_forward(model):
    first, second = whence.explain(model, PIXELS[0], target=(None, "second"))
    assert first.label == first.top[0].label
    assert second.label == first.top[1].label
    assert (first.passes.forward, second.passes.forward) == (1, 0)
    alone = whence.explain(model, PIXELS[0], target="second")
    assert torch.allclose(second.map, alone.map, atol=1e-6)


def test_a_list_of_targets_is_one_per_picture(model):
    made = whence.explain(model, PIXELS, target=[0, "second", model.labels[3]])
    assert [int(e.attribution.target[0]) for e in made][::2] == [0, 3]
    with pytest.raises(TargetError, match="2 targets for 3 pictures"):
        whence.explain(model, PIXELS, target=[0, 1])


def test_contrast_and_callable(model):
    contrast = whence.explain(model, PIXELS[0], target=f"{model.labels[0]} - {model.labels[1]}")
    assert contrast.label == model.labels[0]
    called = whence.explain(model, PIXELS[0], target=lambda logits: logits[:, 0] - logits[:, 1])
    assert called.label is None
    assert called.probability is None
    assert int(called.attribution.target[0]) == -1
    assert torch.allclose(called.map, contrast.map, atol=1e-6)


def test_every_kind_of_picture_gives_the_same_map(model, tmp_path):
    path = tmp_path / "creature.png"
    Image.fromarray(PIXELS[0]).save(path)
    tensor = torch.from_numpy(PIXELS[0]).permute(2, 0, 1)
    kinds = [path, str(path), path.read_bytes(), path.open("rb"), Image.fromarray(PIXELS[0]), PIXELS[0], tensor]
    kinds += [PIXELS[0].astype(np.float32) / 255, tensor.double() / 255]
    maps = [whence.explain(model, kind).map for kind in kinds]
    assert all(torch.allclose(m, maps[0], atol=1e-5) for m in maps)


def test_without_preprocessing_only_tensors_are_taken(model):
    bare = whence.Classifier(model.module)
    e = whence.explain(bare, model.preprocess(read(PIXELS[0])).input)
    assert torch.allclose(e.map, whence.explain(model, PIXELS[0]).map, atol=1e-6)
    assert "input" in e.notes[0]
    with pytest.raises(PictureError, match="no preprocessing"):
        whence.explain(bare, PIXELS[0])


def test_a_bare_module_is_taken(model):
    x = torch.zeros(3, 64, 64)
    assert whence.explain(model.module, x, target=0).map.shape == (16, 16)


def test_evidence_of_a_larger_share_removes_more(model):
    small, large = (whence.explain(model, PIXELS[0], share=share).evidence for share in (0.01, 0.5))
    assert large.removed < small.removed
    with pytest.raises(OptionError, match="share"):
        whence.explain(model, PIXELS[0], share=1.5)


def test_evidence_is_what_the_model_gives_for_its_pictures(model, one):
    """The pictures shown are the ones that gave the numbers, to the rounding of 8 bits."""
    for shown, number in zip(one.pictures, (one.evidence.removed, one.evidence.kept), strict=True):
        e = whence.explain(model, shown, target=one.label)
        assert e.probability == pytest.approx(number, abs=0.02)


def test_truth_is_shown_and_checked(model):
    assert whence.explain(model, PIXELS[0], truth="2").subject.truth == model.labels[2]
    with pytest.raises(TargetError, match="9"):
        whence.explain(model, PIXELS[0], truth="99")


def test_targets_may_be_numpys_or_torchs(model):
    three = whence.explain(model, PIXELS[0], target=3)
    for kind in (np.int64(3), np.array(3), torch.tensor(3)):
        found = whence.explain(model, PIXELS[0], target=kind)
        assert torch.equal(found.map, three.map)
        assert found.label == three.label
    for kinds in (np.array([3, 5]), torch.tensor([3, 5]), [np.int64(3), torch.tensor(5)]):
        found = whence.explain(model, PIXELS[:2], target=kinds)
        assert [e.label for e in found] == [model.labels[3], model.labels[5]]
    several = whence.explain(model, PIXELS[:2], target=(np.int64(1), torch.tensor([3, 5])))
    assert [[int(e.attribution.target[0]) for e in row] for row in several] == [[1, 3], [1, 5]]
    for wrong in (np.array([3, 5, 1]), (2, [3, 5, 1])):
        with pytest.raises(TargetError, match="3 targets for 2 pictures"):
            whence.explain(model, PIXELS[:2], target=wrong)
    with pytest.raises(TargetError, match="none of"):
        whence.explain(model, PIXELS[0], target=np.float64(3.5))


def test_an_option_with_one_entry_a_picture_is_each_pictures_own(monkeypatch):
    """Also where a group of pictures is shorter than the option, and where a picture between them fails."""
    monkeypatch.setattr(batches, "_TOGETHER", 2)
    net = whence.Classifier(drawn(SmallNet()))
    first, second, third = torch.rand(3, 3, 16, 16, dtype=torch.float64)
    baselines = torch.rand(3, 3, 16, 16, dtype=torch.float64)
    options = {"target": 1, "steps": 3, "tol": None}
    found = whence.explain(net, [first, second, third], "integrated-gradients", baseline=baselines, **options)
    for e, picture, baseline in zip(found, (first, second, third), baselines, strict=True):
        alone = whence.explain(net, picture, "integrated-gradients", baseline=baseline, **options)
        assert torch.allclose(e.map, alone.map, rtol=1e-10, atol=1e-14)
        assert e.options["baseline"].shape == (1, 3, 16, 16)
    mixed = [first, "no tensor", second]
    job = Job(net, requests(["integrated-gradients:steps=3,tol=none"], {"baseline": baselines}), [1])
    one, failed, other = outcomes(job, mixed)
    assert isinstance(failed, Failure)
    assert torch.allclose(one[1][0].map, found[0].map, rtol=1e-10, atol=1e-14)
    alone = whence.explain(net, second, "integrated-gradients", baseline=baselines[2], **options)
    assert torch.allclose(other[1][0].map, alone.map, rtol=1e-10, atol=1e-14)
    with pytest.raises(OptionError, match=r"shape \[3, 3, 16, 16\] for 2 pictures"):
        whence.explain(net, [first, second], "integrated-gradients", baseline=baselines, **options)


def test_a_picture_as_baseline_where_none_is_taken_is_said_in_one_line(model):
    with pytest.raises(OptionError, match=r"^occlusion: baseline=tensor \[3, 64, 64\], expected a name$"):
        whence.explain(model, PIXELS[0], "occlusion", baseline=PIXELS[1])
    taking = [
        name
        for name in METHODS.names()
        if "baseline" in METHODS.facts(name).options
        and METHODS.facts(name).options["baseline"].accepts(torch.zeros(3, 4, 4))
    ]
    assert taking == ["integrated-gradients"]
    assert f"(``{taking[0]}``), it may be a picture too" in whence.explain.__doc__


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        ({"method": "grad-kam"}, UnknownNameError, "grad-cam"),
        ({"method": "grad-cam", "layers": "x"}, OptionError, "layer"),
        ({"method": "gradient", "layer": "stem"}, OptionError, "no option 'layer'"),
        ({"method": "grad-cam:relu=perhaps"}, OptionError, "true or false"),
        ({"method": "grad-cam:relu"}, OptionError, "key=value"),
        ({"layer": "nowhere"}, WhenceError, "no layer 'nowhere'"),
        ({"target": "lion"}, TargetError, "9 labels"),
        ({"target": 9}, TargetError, "0 to 8"),
        ({"target": -1}, TargetError, "out of range"),
    ],
)
def test_errors_are_sentences(model, call, error, said):
    with pytest.raises(error, match=said):
        whence.explain(model, PIXELS[0], **call)


def test_options_reach_the_methods_that_have_them(model):
    gradient, cam = whence.explain(model, PIXELS[0], ["gradient", "grad-cam"], relu=True)
    assert gradient.options == {}
    assert cam.options["relu"] is True
    assert cam.map.min() >= 0


def test_saved_and_loaded_it_is_the_same(one, tmp_path):
    page = one.save(tmp_path / "saved")
    assert page == tmp_path / "saved" / "report.html"
    back = whence.Explanation.load(tmp_path / "saved")
    assert torch.equal(back.map, one.map)
    assert torch.allclose(back.heatmap(), one.heatmap(), atol=1e-6)
    same = ("method", "label", "probability", "evidence", "passes", "notes", "top", "model", "seed", "residual")
    for name in same:
        assert getattr(back, name) == getattr(one, name), name
    assert (back.subject.shown == one.subject.shown).all()
    back.save(tmp_path / "again")
    with pytest.raises(OptionError, match="holds 1 explanations"):
        whence.Explanation.load(tmp_path / "saved", index=1)


def test_it_is_not_saved_into_a_stranger_s_folder(one, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match="whence"):
        one.save(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_it_shows_itself_in_a_notebook(one):
    html = one._repr_html_()
    assert len(html) < 200_000
    assert "<script" not in html
    assert one._repr_png_().startswith(b"\x89PNG")
    assert one.label in repr(one)


def test_unknown_geometry_keeps_the_map_on_the_input_grid(model):
    turned = whence.Classifier(
        model.module,
        preprocess=lambda picture: torch.from_numpy(np.array(picture.rotate(45))).permute(2, 0, 1) / 127.5 - 1,
        labels=model.labels,
    )
    e = whence.explain(turned, PIXELS[0])
    assert e.heatmap().shape == (64, 64)
    assert "input grid" in e.notes[0]


def test_batch_notes_and_silence(model):
    dead = whence.Classifier(torch.nn.Sequential(*_dead_layers()), preprocess=model.preprocess)
    e = whence.explain(dead, PIXELS[0], target=0)
    assert (e.map == 0).all()
    assert any("no evidence" in note for note in e.notes)
    e._repr_png_()


def _dead_layers():
    head = torch.nn.Linear(4, 3)
    torch.nn.init.zeros_(head.weight)
    return torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), head
