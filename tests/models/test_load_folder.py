"""Model folders: every rule of model.toml, and the real models."""

import csv
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from whence.errors import ModelError, TrustError
from whence.models.load import load_model
from whence.pictures.read import read

REPOSITORY = Path(__file__).resolve().parents[2]
MODELS = Path(os.environ.get("WHENCE_MODELS", REPOSITORY.parent / "shared" / "models"))
PHOTOS = Path(os.environ.get("WHENCE_PHOTOS", REPOSITORY.parent / "shared" / "photos"))

TOML = """
name = "Small"
source = "torchvision:squeezenet1_1"
options = { num_classes = 3 }
weights = "weights.safetensors"
labels = "labels.txt"

[preprocess]
resize = 72
crop = [64, 64]
interpolation = "bicubic"
antialias = false
mean = [0.5, 0.5, 0.5]
std = [0.25, 0.25, 0.25]
"""


@pytest.fixture(scope="module")
def state():
    return load_model("torchvision:squeezenet1_1", weights="random", num_classes=3).module.state_dict()


@pytest.fixture
def home(tmp_path, state):
    home = tmp_path / "small"
    home.mkdir()
    (home / "model.toml").write_text(TOML)
    (home / "labels.txt").write_text("cat\ndog\nfish\n")
    save_file(state, home / "weights.safetensors")
    return home


def edit(home, old, new):
    text = (home / "model.toml").read_text()
    assert old in text
    (home / "model.toml").write_text(text.replace(old, new))


def test_a_folder_and_its_toml_file_are_the_same_model(home, state):
    for spec in (home, str(home), home / "model.toml"):
        model = load_model(spec)
        assert (model.name, model.labels, model.input) == ("Small", ("cat", "dog", "fish"), (3, 64, 64))
        assert model.spec == str(spec)
        assert not model.preprocess.antialias
        assert all(torch.equal(value, state[name]) for name, value in model.module.state_dict().items())


def test_a_working_directory_changes_nothing(home, monkeypatch):
    monkeypatch.chdir(home)
    assert load_model(".").name == load_model("model.toml").name == "Small"


def test_what_is_not_stated_is_not_there(home):
    (home / "model.toml").write_text('source = "torchvision:squeezenet1_1"\nweights = "weights.safetensors"\n')
    model = load_model(home, num_classes=3)
    assert (model.name, model.labels, model.preprocess) == ("small", None, None)


def test_weights_of_the_caller_go_before_the_file(home):
    edit(home, 'weights = "weights.safetensors"', "")
    assert load_model(home, weights="random", seed=5).input == (3, 64, 64)
    with pytest.raises(ModelError, match="names no weights: add weights"):
        load_model(home)


def test_sigmoid(home):
    edit(home, "options", 'activation = "sigmoid"\noptions')
    assert load_model(home).scale.activation == "sigmoid"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("name", "nmae", ["no key 'nmae'", "'name'"]),
        ("mean", "maen", ["no key 'preprocess.maen'", "'mean'"]),
        ('name = "Small"', "name = 3", ["name = 3 is not a text"]),
        ("{ num_classes = 3 }", '"none"', ["options = 'none' is not a table"]),
        ("resize = 72", 'resize = "72"', ["preprocess.resize = '72' is not a whole number or [height, width]"]),
        ("resize = 72", "resize = true", ["preprocess.resize = True"]),
        ("resize = 72", "resize = 0", ["preprocess.resize = 0 is no size"]),
        ("[64, 64]", "[64, 64, 3]", ["preprocess.crop"]),
        ("[0.5, 0.5, 0.5]", "0.5", ["preprocess.mean = 0.5 is not a list of numbers"]),
        ("[0.5, 0.5, 0.5]", "[0.5, 0.5]", ["2 values for 3 channels"]),
        ("[0.25, 0.25, 0.25]", "[0.25, 0.25, 0]", ["must be positive"]),
        ("antialias = false", 'antialias = "no"', ["is not true or false"]),
        ('"bicubic"', '"cubic"', ["'cubic' is unknown"]),
        ("options", 'activation = "relu"\noptions', ["is not 'softmax' or 'sigmoid'"]),
        ("torchvision:squeezenet1_1", "keras:resnet", ["source = 'keras:resnet' is unknown", "whence:NAME"]),
        ("torchvision:squeezenet1_1", "torchvision:squeezenet1_", ["'squeezenet1_1'"]),
        ("torchvision:squeezenet1_1", "whence:creature_ne", ["no architecture of whence"]),
        ("num_classes", "number", ["its constructor failed"]),
        ("weights.safetensors", "w.safetensors", ["no such file"]),
        ("labels.txt", "l.txt", ["labels = 'l.txt' cannot be read"]),
        ('name = "Small"', "name = ", ["cannot be read as TOML"]),
        ('source = "torchvision:squeezenet1_1"', "", ["has no source"]),
    ],
)
def test_a_file_that_breaks_a_rule(home, old, new, words):
    edit(home, old, new)
    with pytest.raises(ModelError) as caught:
        load_model(home)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_a_folder_without_a_model_file(tmp_path):
    with pytest.raises(ModelError, match=r"there is no .*model\.toml: a model folder holds"):
        load_model(tmp_path)


@pytest.mark.parametrize("key", ["weights", "labels"])
@pytest.mark.parametrize("how", ["above", "absolute", "absolute inside", "link"])
def test_no_path_leaves_the_folder(home, key, how):
    file = {"weights": "weights.safetensors", "labels": "labels.txt"}[key]
    outside = home.parent / file
    (home / file).rename(outside)
    path = {"above": f"../{file}", "absolute": str(outside), "absolute inside": str(home / file), "link": "link"}[how]
    if how == "absolute inside":
        outside.rename(home / file)
    (home / "link").symlink_to(outside)
    edit(home, f'{key} = "{file}"', f'{key} = "{path}"')
    with pytest.raises(ModelError, match=f"{key} = .* leaves the model's folder"):
        load_model(home)


def test_a_link_inside_the_folder_is_followed(home):
    (home / "link").symlink_to(home / "labels.txt")
    edit(home, "labels.txt", "link")
    assert load_model(home).labels == ("cat", "dog", "fish")


def test_python_inside_the_folder_needs_trust(home):
    (home / "net.py").write_text(
        "from pathlib import Path\nfrom torchvision.models import squeezenet1_1 as net\n"
        "Path(__file__).with_name('ran').touch()\n"
    )
    edit(home, "torchvision:squeezenet1_1", "net.py:net")
    with pytest.raises(TrustError):
        load_model(home)
    assert not (home / "ran").exists()
    assert load_model(home, trust=True).labels == ("cat", "dog", "fish")
    (home / "net.py").rename(home.parent / "net.py")
    edit(home, "net.py:net", "../net.py:net")
    with pytest.raises(ModelError, match="leaves the model's folder"):
        load_model(home, trust=True)


def test_a_pickle_in_the_folder_needs_trust(home, state):
    torch.save(state, home / "weights.pt")
    edit(home, "weights.safetensors", "weights.pt")
    with pytest.raises(TrustError):
        load_model(home)
    assert load_model(home, trust=True).labels


@pytest.mark.parametrize(
    ("text", "words"), [("cat\n\nfish\n", "line 2 is empty"), ("cat\ndog\n", "2 labels for a model of 3 classes")]
)
def test_labels_that_do_not_fit(home, text, words):
    edit(home, "torchvision:squeezenet1_1", "timm:mobilenetv3_small_050")
    (home / "labels.txt").write_text(text)
    with pytest.raises(ModelError, match=words):
        load_model(home, weights="random")


def test_labels_of_other_systems(home):
    (home / "labels.txt").write_bytes("\ufeffcat\r\ndog\u2028s\r\ncat\r\n".encode())
    assert load_model(home).labels == ("cat", "dog\u2028s", "cat")


def test_a_folder_never_asks_the_hub(home):
    edit(home, "torchvision:squeezenet1_1", "hf:google/vit-base-patch16-224")
    with pytest.raises(ModelError, match="never asks the hub"):
        load_model(home)


def test_a_type_of_transformers_in_a_folder(home):
    edit(home, "torchvision:squeezenet1_1", "hf:resnet")
    edit(home, "num_classes = 3", "num_labels = 3, depths = [1, 1, 1, 1]")
    assert load_model(home, weights="random").labels == ("cat", "dog", "fish")


needs_models = pytest.mark.skipif(
    not (MODELS / "mobilenetv2").is_dir() or not PHOTOS.is_dir(),
    reason="the real models and photos are not here: set $WHENCE_MODELS and $WHENCE_PHOTOS",
)


def misses(files=None):
    """Return by how much each photo's probability differs from the published one."""
    model = load_model(MODELS / "mobilenetv2")
    with (PHOTOS / "labels.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if files is None or row["file"] in files]
    for row in rows:
        picture = read(PHOTOS / row["file"])
        # The published figures were made without turning pictures upright.
        if any("EXIF" in said for said in picture.decoded):
            continue
        with torch.no_grad():
            probabilities = model.module(model.preprocess(picture).input[None]).softmax(1)[0]
        yield abs(float(probabilities[int(row["index"])]) - float(row["mobilenetv2_probability"]))


@needs_models
def test_the_real_model_classifies_photos():
    files = {"goldfish.jpg", "goldfinch.jpg", "lynx.jpg", "bison.jpg", "desk.jpg", "baboon.jpg"}
    assert max(misses(files)) < 0.02


@needs_models
@pytest.mark.sweep
def test_the_real_model_classifies_all_photos():
    assert max(misses()) < 0.02


@needs_models
@pytest.mark.parametrize("spec", ["mobilenetv2_slim", "mobilenetv2/squash.toml"])
def test_the_other_real_models_load(spec):
    assert len(load_model(MODELS / spec).labels) == 1000
