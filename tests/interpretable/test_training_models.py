"""Nets of torchvision, timm and transformers, bundled ones and Python files: trained, and given a new head."""

import json

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import whence
from whence.cli import run
from whence.errors import ModelError, TrustError
from whence.interpretable.training.starting import Start, logits

SIDE = 64


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    generator = torch.Generator().manual_seed(0)
    for name in ("cat", "dog", "eel"):
        (root / name).mkdir()
        for index in range(3):
            noise = torch.randint(256, (SIDE, SIDE, 3), generator=generator, dtype=torch.uint8)
            Image.fromarray(noise.numpy()).save(root / name / f"{index}.png")
    return root


def model_folder(root, source, options="{}"):
    root.mkdir()
    toml = f'source = "{source}"\noptions = {options}\n[preprocess]\nresize = [{SIDE}, {SIDE}]\n'
    (root / "model.toml").write_text(toml)
    return root


MODELS = {
    "resnet18": ("torchvision:resnet18", "{}", ["--layer", "layer3"], "layer3"),
    "mobilenet": ("timm:mobilenetv3_small_050", "{}", ["--layer", "blocks.2"], "blocks.2"),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_net_of_a_library_trains_and_stays_the_same_net(name, pictures, tmp_path):
    source, options, more, layer = MODELS[name]
    folder, out = model_folder(tmp_path / "model", source, options), tmp_path / "out"
    told = ["interpretable", "train", pictures, "-m", folder, "--weights", "random", "--batch", 6, "--out", out]
    assert run([str(one) for one in (*told, "--plain-epochs", 0, "--epochs", 1, "--no-control", *more)]) == 0
    said = json.loads((out / "training.json").read_text())
    assert said["layer"] == layer
    assert [entry["phase"] for entry in said["course"]] == ["interpretable"]
    loaded = whence.load_model(out)
    state = load_file(out / "weights.safetensors")
    assert all(bool(t.isfinite().all()) for t in state.values())
    fresh = whence.load_model(folder, weights="random", num_classes=3).module
    fresh.load_state_dict({key: t for key, t in state.items() if not key.startswith("interpretable.")})
    x = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(fresh(x), loaded.module.plain()(x))
        assert not torch.equal(fresh(x), loaded.module(x))
    assert whence.attribute(loaded, x, "grad-cam").values.isfinite().all()


def test_a_map_of_2_x_2_is_warned_of_and_one_place_refused(pictures, tmp_path, capsys):
    folder, out = model_folder(tmp_path / "model", "torchvision:resnet18"), tmp_path / "out"
    told = ["interpretable", "train", pictures, "-m", folder, "--weights", "random", "--batch", 6, "--out", out]
    told = [str(one) for one in (*told, "--plain-epochs", 0, "--epochs", 1, "--no-control")]
    assert run([*told, "--layer", "avgpool"]) == 2
    assert "more than one place" in capsys.readouterr().err
    assert run(told) == 0
    printed = capsys.readouterr()
    assert "warning: the mask leaves a single one of the 2 x 2 places of layer 'layer4" in printed.err
    assert "layer layer4" in printed.out


# another number of classes

PYTHON = """
from torch import nn


def net(num_classes: int = 5, wide: bool = False) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.LazyLinear(num_classes))


def deaf(num_classes: int = 5) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))


def closed() -> nn.Module:
    return deaf()
"""
HEADS = {
    "torchvision:resnet18": ("random", ("fc.weight", "fc.bias")),
    "timm:mobilenetv3_small_050": ("random", ("classifier.weight", "classifier.bias")),
    "hf:resnet": ("random", ("classifier.1.weight", "classifier.1.bias")),
    "creatures": (None, ("head.weight", "head.bias")),
}


@pytest.mark.parametrize("spec", HEADS)
@pytest.mark.parametrize("count", [1, 4])
def test_another_number_of_classes_gets_a_new_last_layer(spec, count):
    weights, new = HEADS[spec]
    start = Start.load(spec, weights=weights)
    assert start.with_labels(start.classifier.labels or [str(n) for n in range(logits(start.classifier))]) is start
    made = start.with_labels([str(n) for n in range(count)])
    assert made.new == new
    assert logits(made.classifier) == count
    before, after = (one.classifier.module.state_dict() for one in (start, made))
    assert list(before) == list(after)
    assert all(torch.equal(before[name], after[name]) for name in before if name not in new)
    assert made.classifier.preprocess is start.classifier.preprocess
    assert made.classifier.labels is None
    again = made.origin.built(made.classifier.input)
    assert [t.shape for t in again.state_dict().values()] == [t.shape for t in after.values()]


def test_other_classes_of_the_same_number_get_a_new_last_layer():
    start = Start.load("creatures")
    made = start.with_labels([*start.classifier.labels[:8], "dodo"])
    assert made.new == ("head.weight", "head.bias")
    before, after = (one.classifier.module.state_dict() for one in (start, made))
    assert all(torch.equal(before[name], after[name]) for name in before if name not in made.new)
    assert not torch.equal(before["head.weight"], after["head.weight"])


@pytest.fixture
def python(tmp_path):
    (tmp_path / "nets.py").write_text(
        PYTHON.replace("nn.LazyLinear(num_classes)", "nn.Linear(4 * 62 * 62, num_classes)")
    )
    return tmp_path / "nets.py"


def test_a_python_file_is_built_for_as_many_classes(python):
    folder = model_folder(python.parent / "model", "nets.py:net", "{ wide = true }")
    python.rename(folder / "nets.py")
    start = Start.load(str(folder), weights="random", trust=True)
    made = start.with_labels("abc", trust=True)
    assert made.new == ("4.weight", "4.bias")
    assert made.origin.options == {"wide": True, "num_classes": 3}
    with pytest.raises(TrustError):
        start.with_labels("abc")


@pytest.mark.parametrize(
    ("function", "words"),
    [("closed", "cannot be built with num_classes=3 or classes=3"), ("deaf", "was built for 3 logits and gives 5")],
)
def test_a_function_that_cannot_give_as_many_is_refused(python, function, words):
    start = Start.load(f"{python}:{function}", weights="random", trust=True)
    with pytest.raises(ModelError, match=words):
        start.with_labels("abc", trust=True)
