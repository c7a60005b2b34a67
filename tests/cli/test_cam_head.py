"""`whence interpretable cam-head`, from pictures to a folder that CAM explains."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import whence
from whence.cli import run
from whence.cli.cam_head import CREATURES
from whence.creatures.labelled import drawn
from whence.interpretable.cam_head import cam_head
from whence.models.load import load_model
from whence.models.writing import Origin, write
from whence.pictures.preprocess import Preprocess
from whence.pictures.read import read


@pytest.fixture
def pictures(tmp_path):
    """Six dark and six bright pictures, in a folder each."""
    generator = np.random.default_rng(0)
    for name, brightness in (("dark", 40), ("bright", 200)):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for index in range(6):
            pixels = brightness + generator.integers(40, size=(20, 24, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "pictures" / name / f"{index}.png")
    return tmp_path / "pictures"


def command(data, out, *more, model="creatures"):
    return run(["interpretable", "cam-head", str(data), "--model", str(model), "--out", str(out), *map(str, more)])


def is_cam(folder, layer, x):
    """Whether CAM and Grad-CAM on a folder's model are the weights in the folder on the maps of its layer."""
    model = load_model(folder)
    head = model.module
    maps = {}
    hook = head.model.get_submodule(layer).register_forward_hook(lambda _, __, out: maps.update(a=out.detach()))
    head(x)
    hook.remove()
    expected = torch.einsum("k,bkhw->bhw", head.cam_head.weight[1].detach(), maps["a"])
    cam, grad_cam = (
        whence.attribute(model, x, method, target=1, layer=f"model.{layer}").values[:, 0]
        for method in ("cam", "grad-cam")
    )
    places = expected[0].numel()
    slack = 1e-4 * float(expected.abs().max())
    return torch.allclose(cam, expected, atol=slack) and torch.allclose(grad_cam * places, expected, atol=slack)


def test_a_folder_of_pictures_becomes_a_model_folder(pictures, tmp_path, capsys):
    out = tmp_path / "out"
    assert command(pictures, out, "--layer", "stages.1", "--held-out", "0.34") == 0
    said = capsys.readouterr().out
    assert said.splitlines() == [
        "of 4 held-out pictures  right",
        "----------------------  -------",
        "CAM head                100.00%",
        "",
        str(out),
    ]
    assert {path.name for path in out.iterdir()} == {"model.toml", "weights.safetensors", "labels.txt"}
    model = load_model(out)
    assert (model.labels, model.name) == (("bright", "dark"), "creatures with a CAM head at stages.1")
    x = torch.stack([model.preprocess(read(pictures / "dark" / f"{i}.png")).input for i in range(2)])
    assert model.module(x).argmax(1).tolist() == [1, 1]
    assert is_cam(out, "stages.1", x)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "pictures"]


def test_explain_takes_the_folder_with_no_layer_given(pictures, tmp_path):
    out = tmp_path / "out"
    assert command(pictures, out, "--layer", "stages.1") == 0
    picture, report = pictures / "dark" / "0.png", tmp_path / "report"
    assert run(["explain", str(picture), "--model", str(out), "--method", "cam", "--out", str(report)]) == 0
    (row,) = json.loads((report / "result.json").read_text())["pictures"][0]["explanations"]
    assert (row["target"]["label"], row["layer"]) == ("dark", "model.stages.1")


def test_a_library_s_model_at_a_layer_in_its_middle(pictures, tmp_path, capsys):
    pytest.importorskip("torchvision")
    plain, out = tmp_path / "plain", tmp_path / "out"
    plain.mkdir()
    model = load_model("torchvision:resnet18", weights="random")
    preprocess = Preprocess(resize=(48, 32), mean=(0.5,), std=(0.5,))
    write(plain, model.module, Origin.of("torchvision:resnet18", {}), name="net", labels=None, preprocess=preprocess)
    assert command(pictures, out, "--layer", "layer2", "--json", model=plain) == 0
    told = json.loads(capsys.readouterr().out)
    assert 0 <= told.pop("after") <= 1
    none = {"before": None, "change": None}
    assert told == {"folder": str(out), "layer": "layer2", "train": 10, "held_out": 2, **none}
    x = torch.stack([preprocess(read(pictures / "dark" / f"{i}.png")).input for i in range(2)])
    assert x.shape == (2, 3, 48, 32)
    assert is_cam(out, "layer2", x)


def test_on_creatures_an_early_layer_costs_accuracy_and_the_last_one_hardly_any(unchecked, tmp_path):
    model = load_model("creatures")
    train, held_out = drawn(300, 2), drawn(100, 3)
    found = {layer: cam_head(model, train, held_out, layer) for layer in ("stages.0", "stages.1", "top")}
    assert found["top"].before == found["stages.0"].before > 0.95
    assert found["stages.0"].after < found["stages.1"].after < found["top"].after
    assert abs(found["top"].change) < 0.05
    settings = {"name": "mine", "labels": train.classes, "preprocess": model.preprocess}
    write(tmp_path, found["stages.1"].module, Origin.of("creatures", {}), **settings)
    assert is_cam(tmp_path, "stages.1", torch.stack([held_out[i][0] for i in range(3)]))


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--layer", "stages.9"), "has no layer 'stages.9': did you mean"),
        (("--layer", "head"), "layer 'head' has no map"),
        (("--layer", "pool"), "a map of more than one place"),
        (("--held-out", "0"), "a share of 0.0 cannot be held out"),
        (("--weights", "nowhere.safetensors"), "nowhere.safetensors"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(pictures, tmp_path, capsys, more, words):
    assert command(pictures, tmp_path / "out", *more) == 2
    said = capsys.readouterr().err
    assert words in said
    assert len(said.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["pictures"]


def test_a_broken_picture_or_an_empty_class_is_named(pictures, tmp_path, capsys):
    (pictures / "dark" / "0.png").write_bytes(b"no picture")
    assert command(pictures, tmp_path / "out") == 2
    assert f"{pictures}/dark/0.png: " in capsys.readouterr().err
    assert command(pictures, tmp_path / "left-out", "--skip-broken", "--layer", "stages.1") == 0
    assert f"left out: {pictures}/dark/0.png: " in capsys.readouterr().err
    (pictures / "empty").mkdir()
    assert command(pictures, tmp_path / "out", "--skip-broken") == 2
    assert "empty holds no picture" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_is_there_already_is_not_overwritten(pictures, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("words")
    assert command(pictures, tmp_path / "out") == 2
    assert "is there already" in capsys.readouterr().err
    assert (tmp_path / "out" / "mine").read_text() == "words"


def test_creatures_are_drawn_for_models_that_take_them(tmp_path, pictures, capsys):
    assert command(CREATURES, tmp_path / "out", "--held-out", "0.5") == 2
    assert "--held-out is for folders" in capsys.readouterr().err
    path = tmp_path / "net.py"
    path.write_text(
        "from torch import nn\ndef net():\n    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1))\n"
    )
    for data, words in ((CREATURES, "give a folder of pictures"), (pictures, "states no preprocessing")):
        assert command(data, tmp_path / "out", "--weights", "random", "--trust", model=f"{path}:net") == 2
        assert words in capsys.readouterr().err
