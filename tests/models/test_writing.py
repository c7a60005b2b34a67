"""A model folder that was written is read as the same model."""

import tomllib
from dataclasses import replace

import pytest
import torch

from whence.errors import ModelError
from whence.interpretable import interpretable
from whence.models.load import load_model
from whence.models.writing import Origin, toml, write
from whence.pictures.foreign import ForeignPreprocess
from whence.pictures.preprocess import Preprocess

X = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def again(folder, model, module=None, spec=None, options=None, **changed):
    folder.mkdir(exist_ok=True)
    write(
        folder,
        module or model.module,
        Origin.of(spec or model.spec, options or {}),
        **{"name": model.name, "labels": model.labels, "preprocess": model.preprocess, **changed},
    )
    return load_model(folder, trust=True)


@pytest.mark.parametrize(
    ("spec", "options"),
    [
        ("torchvision:squeezenet1_1", {"num_classes": 3}),
        ("torchvision:googlenet", {"num_classes": 3}),
        ("timm:mobilenetv2_035", {"num_classes": 3}),
    ],
)
def test_a_library_s_model_comes_back(tmp_path, spec, options):
    model = load_model(spec, weights="random", **options)
    found = again(tmp_path, model, options=options, labels=["a", "b", "c"])
    assert torch.equal(found.module(X), model.module(X))
    assert (found.name, found.labels, found.preprocess) == (model.name, ("a", "b", "c"), model.preprocess)


def test_a_bundled_model_comes_back_in_half_precision_to_the_bit(tmp_path):
    model = load_model("creatures")
    found = again(tmp_path, model, half=True)
    assert torch.equal(found.module(X), model.module(X))
    assert again(tmp_path / "2", found, spec=str(tmp_path)).fingerprint == model.fingerprint


def test_a_python_file_goes_with_the_model(tmp_path):
    code = tmp_path / "mine.py"
    code.write_text(
        "import torch\ndef net(classes=2):\n"
        "    nn = torch.nn\n"
        "    return nn.Sequential(nn.Conv2d(3, classes, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())\n"
    )
    model = load_model(f"{code}:net", trust=True, classes=4)
    found = again(tmp_path / "out", model, options={"classes": 4})
    assert (tmp_path / "out" / "mine.py").read_text() == code.read_text()
    assert torch.equal(found.module(X), model.module(X))


@pytest.mark.parametrize("added", [False, True])
def test_a_masked_model_comes_back_with_its_categories(tmp_path, added):
    model = load_model("creatures")
    wrapped = interpretable(model.module, X, classes=9, added=added, beta=torch.linspace(2, 5, 64)).train()
    wrapped.interpretable.categories.update(torch.rand(2, 64, 4, 4), torch.tensor([3, 7]))
    found = again(tmp_path, model, wrapped.eval()).module
    assert torch.equal(found(X), wrapped(X))
    assert found.form == wrapped.form
    assert torch.equal(found.interpretable.categories.assigned(), wrapped.interpretable.categories.assigned())


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('layer = "top"', 'layer = "tip"', "has no layer 'tip'"),
        ("filters = 64", "filters = 6", "6 filters cannot stand for 9 classes"),
        ("filters = 64", "", r"\[interpretable\] has no filters"),
        ("filters = 64", 'filters = "many"', "interpretable.filters = 'many' is not a whole number"),
        ("filters = 64", "filters = 64\nbeta = true", "interpretable.beta = True is not a number"),
        ("filters = 64", "filters = 64\ngamma = 1", "there is no key 'interpretable.gamma'"),
    ],
)
def test_a_faulty_table_is_named(tmp_path, old, new, words):
    model = load_model("creatures")
    again(tmp_path, model, interpretable(model.module, X, classes=9))
    path = tmp_path / "model.toml"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(Exception, match=words):
        load_model(tmp_path).module(X)


def test_a_preprocessing_that_cannot_be_stated_is_refused(tmp_path):
    model = load_model("creatures")
    with pytest.raises(ModelError, match="is a function, which a model file cannot state"):
        again(tmp_path, model, preprocess=ForeignPreprocess(lambda picture: X[0]))


def test_every_part_of_a_preprocessing_is_stated(tmp_path):
    model = load_model("creatures")
    stated = replace(
        Preprocess(resize=70, crop=(64, 60), interpolation="bicubic", antialias=False, channels=3),
        mean=(0.1, 0.2, 0.3),
        std=(0.5,),
        round_crop="down",
    )
    assert again(tmp_path, model, preprocess=stated).preprocess == stated


def test_toml_says_what_it_was_given():
    table = {"name": 'a "b" \\ é\n', "on": True, "list": [1, 2.5], "options": {"x y": "z", "deep": {"a": 1}}}
    assert tomllib.loads(toml(table)) == table


def test_half_precision_leaves_the_categories_alone_and_refuses_what_it_cannot_hold(tmp_path):
    model = load_model("creatures")
    wrapped = interpretable(model.module, X, classes=9)
    averages = 5 + 1e-4 * torch.rand(9, 64, generator=torch.Generator().manual_seed(1))
    wrapped.interpretable.categories.activation.copy_(averages)
    wrapped.interpretable.categories.seen.fill_(True)
    found = again(tmp_path, model, wrapped, half=True).module.interpretable.categories
    assert torch.equal(found.activation, averages)
    large = model.module
    with torch.no_grad():
        large.head.bias[0] = 1e5
    with pytest.raises(ModelError, match=r"'head\.bias' holds numbers beyond half precision"):
        again(tmp_path / "2", model, half=True)


def test_a_mask_that_is_off_cannot_be_stated(tmp_path):
    model = load_model("creatures")
    wrapped = interpretable(model.module, X)
    wrapped.interpretable.mask.on = False
    with pytest.raises(ModelError, match="the mask of 'creatures' is off"):
        again(tmp_path, model, wrapped)


def test_weights_under_two_names_and_any_name_come_back(tmp_path):
    code = tmp_path / "tied.py"
    code.write_text(
        "from torch import nn\n"
        "class Tied(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.a = nn.Conv2d(3, 4, 3)\n"
        "        self.b = self.a\n"
        "    def forward(self, x):\n"
        "        return self.b(x).mean((2, 3))\n"
        "def net():\n"
        "    return Tied()\n"
    )
    model = load_model(f"{code}:net", trust=True)
    found = again(tmp_path / "out", model, name="tied 🦆")
    assert found.name == "tied 🦆"
    assert torch.equal(found.module(X), model.module(X))


@pytest.mark.parametrize("value", [None, float("inf"), [1, None]])
def test_what_no_model_file_can_state_is_refused(value):
    with pytest.raises(ModelError, match="cannot be stated in a model file"):
        toml({"options": {"a": value}})
