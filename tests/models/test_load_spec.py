"""load_model: what a spec may be, and what is said where it is none."""

import importlib
import subprocess
import sys
from importlib import resources
from types import ModuleType
from urllib.error import URLError

import pytest
import torch

from whence.errors import MissingExtraError, ModelError, TrustError
from whence.models import extras, folder
from whence.models.classifier import Classifier
from whence.models.load import load_model

CODE = """
from pathlib import Path
from torch import nn
from whence.models.classifier import Classifier
Path(__file__).with_name("ran").touch()
def net(classes=3):
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, classes))
def labelled():
    return Classifier(net(2), None, ["a", "b"], "two")
def nothing():
    return 7
"""


@pytest.fixture
def code(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(CODE)
    return path


def test_torchvision_has_labels_preprocessing_and_evaluation_mode():
    model = load_model("torchvision:squeezenet1_1", weights="random")
    assert (model.input, model.labels[1], model.spec) == ((3, 224, 224), "goldfish", "torchvision:squeezenet1_1")
    assert not model.module.training
    assert {p.dtype for p in model.module.parameters()} == {torch.float32}


def test_options_reach_the_constructor_and_other_classes_lose_the_labels():
    model = load_model("torchvision:squeezenet1_1", weights="random", num_classes=5)
    assert model.labels is None
    assert model.module(torch.zeros(1, 3, 64, 64)).shape == (1, 5)


def test_the_preprocessing_follows_the_size_that_the_constructor_is_told():
    assert load_model("torchvision:vit_b_32", weights="random", image_size=64).input == (3, 64, 64)
    assert load_model("timm:vit_tiny_patch16_224", weights="random", img_size=32, depth=1).input == (3, 32, 32)


def test_timm_knows_the_words_of_imagenet():
    assert load_model("timm:mobilenetv3_small_050", weights="random").labels[1].startswith("goldfish")
    grey = load_model("timm:mobilenetv3_small_050", weights="random", in_chans=1, num_classes=4)
    assert (grey.input, grey.labels) == ((1, 224, 224), None)


def test_a_transformers_type_builds_its_default():
    model = load_model("hf:ViT", weights="random", num_hidden_layers=1, image_size=32, num_labels=7)
    assert model.input == (3, 32, 32)
    assert model.module(torch.zeros(1, 3, 32, 32)).logits.shape == (1, 7)


def test_a_transformers_type_with_several_classifiers_builds_the_first():
    model = load_model("hf:deit", weights="random", num_hidden_layers=1, image_size=32)
    assert type(model.module).__name__ == "DeiTForImageClassification"


def test_transformers_log_is_left_as_it_was():
    log = importlib.import_module("transformers").utils.logging
    before = log.get_verbosity(), log.is_progress_bar_enabled()
    load_model("hf:resnet", weights="random", depths=[1, 1, 1, 1])
    assert (log.get_verbosity(), log.is_progress_bar_enabled()) == before


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("torchvision:resnet5", ["no such image classifier", "'resnet50'"]),
        ("torchvision:fasterrcnn_resnet50_fpn", ["no such image classifier"]),
        ("torchvision:deeplabv3_resnet50", ["no such image classifier"]),
        ("timm:resnet5", ["no such model", "'resnet50'"]),
        ("hf:vitt", ["names no folder", "'vit'"]),
        ("creatues", ["no file or folder", "torchvision:NAME", "model.toml"]),
        ("no/such/folder", ["no file or folder"]),
        ("no/such/model.toml", ["there is no", "model.toml"]),
        ("nothing.py:net", ["no file 'nothing.py'"]),
    ],
)
def test_a_spec_that_names_nothing(spec, words):
    with pytest.raises(ModelError) as caught:
        load_model(spec, weights="random", trust=True)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_model_file(tmp_path):
    (tmp_path / "cat.jpg").touch()
    with pytest.raises(ModelError, match="is no model file: give torchvision:NAME"):
        load_model(tmp_path / "cat.jpg")


def test_a_type_of_transformers_has_no_weights_of_its_own():
    with pytest.raises(ModelError, match="without weights of its own"):
        load_model("hf:vit")


@pytest.mark.parametrize("spec", ["torchvision:squeezenet1_1", "timm:vit_tiny_patch16_224", "hf:vit"])
def test_an_option_that_does_not_exist(spec):
    with pytest.raises(ModelError, match="colour"):
        load_model(spec, weights="random", colour=3)


def test_a_device_that_does_not_exist():
    with pytest.raises(ModelError, match="device 'sofa' cannot be used"):
        load_model("torchvision:squeezenet1_1", weights="random", device="sofa")


def test_published_weights_that_do_not_exist():
    with pytest.raises(ModelError, match="there are no weights 'IMAGENET1K_V9', did you mean 'IMAGENET1K_V1'"):
        load_model("torchvision:resnet18", weights="IMAGENET1K_V9")


def test_no_network_says_what_to_do_instead(monkeypatch):
    def offline(*_, **__):
        raise URLError("no route to host")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    with pytest.raises(ModelError, match=r"cannot be downloaded .*no route.* weights=FILE, or weights=\"random\""):
        load_model("torchvision:squeezenet1_1")


@pytest.mark.parametrize("error", [URLError("no route to host"), RuntimeError("no route to host")])
def test_a_failed_download_of_timm_is_no_fault_of_the_constructor(monkeypatch, error):
    def offline(*_, **__):
        raise error

    monkeypatch.setattr("timm.models._builder.load_pretrained", offline)
    with pytest.raises(ModelError, match=r"weights cannot be downloaded .*no route.* weights=FILE") as caught:
        load_model("timm:mobilenetv3_small_050")
    assert "constructor" not in str(caught.value)


def test_an_option_that_timm_refuses_is_the_constructors(monkeypatch):
    def offline(*_, **__):
        raise URLError("no route to host")

    monkeypatch.setattr("timm.models._builder.load_pretrained", offline)
    with pytest.raises(ModelError, match=r"its constructor failed .*colour"):
        load_model("timm:mobilenetv3_small_050", colour="red")


def test_a_failed_download_of_transformers_says_so(monkeypatch):
    def offline(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", offline)
    with pytest.raises(ModelError, match=r"weights cannot be downloaded .*no route.* weights=FILE"):
        load_model("hf:google/vit-base-patch16-224")


def test_published_weights_are_read_without_running_code(monkeypatch):
    seen = {}

    def served(url, **options):
        seen.update(options)
        return load_model("torchvision:squeezenet1_1", weights="random", seed=3).module.state_dict()

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", served)
    model = load_model("torchvision:squeezenet1_1", weights="IMAGENET1K_V1")
    assert seen["weights_only"] is True
    assert seen["check_hash"] is True
    assert torch.equal(
        model.module.classifier[1].weight,
        load_model("torchvision:squeezenet1_1", weights="random", seed=3).module.classifier[1].weight,
    )


def test_a_published_head_is_never_replaced_by_a_random_one(monkeypatch):
    timm = importlib.import_module("timm")
    make = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda *a, pretrained=False, **k: make(*a, **k))
    with pytest.raises(ModelError, match="have a head of 1000 classes"):
        load_model("timm:mobilenetv3_small_050", num_classes=3)


def test_a_python_file_needs_trust_and_is_not_run_without(code):
    with pytest.raises(TrustError, match=r"runs the Python code of .* give trust=True"):
        load_model(f"{code}:net")
    assert not code.with_name("ran").exists()


def test_a_python_file_with_trust(code):
    before = set(sys.modules)
    model = load_model(f"{code}:net", trust=True, weights="random", classes=4)
    assert code.with_name("ran").exists()
    assert model.module(torch.zeros(1, 3, 8, 8)).shape == (1, 4)
    assert "mine" not in sys.modules
    assert all(name.startswith("whence_model_") for name in set(sys.modules) - before)


def test_a_python_file_may_return_a_classifier(code):
    model = load_model(f"{code}:labelled", trust=True)
    assert isinstance(model, Classifier)
    assert (model.labels, model.name, model.module.training) == (("a", "b"), "two", False)


@pytest.mark.parametrize(
    ("function", "words"),
    [("nett", "no function 'nett', did you mean 'net'"), ("nothing", "nothing returned int, let it return a torch")],
)
def test_a_python_file_without_a_model(code, function, words):
    with pytest.raises(ModelError, match=words):
        load_model(f"{code}:{function}", trust=True)


def test_a_python_file_that_fails(tmp_path):
    (tmp_path / "bad.py").write_text("1 / 0")
    with pytest.raises(ModelError, match=r"bad\.py failed \(ZeroDivisionError"):
        load_model(f"{tmp_path / 'bad.py'}:net", trust=True)


def test_bundled_models_are_found_by_listing(monkeypatch, tmp_path):
    (tmp_path / "bundled" / "beetles").mkdir(parents=True)
    (tmp_path / "bundled" / "beetles" / "model.toml").write_text('source = "timm:resnet18"')
    monkeypatch.setattr(folder, "files", lambda package: tmp_path)
    assert list(folder.bundled()) == ["beetles"]
    with pytest.raises(ModelError, match="did you mean 'beetles'"):
        load_model("betles")


@pytest.mark.parametrize("name", list(folder.bundled()))
def test_every_bundled_model_loads(name):
    assert load_model(name).labels


def test_the_architectures_of_whence_are_functions_of_their_own_name():
    home = resources.files("whence.models") / "bundled"
    for path in home.iterdir():
        if path.name.endswith(".py") and not path.name.startswith("_"):
            name = path.name.removesuffix(".py")
            assert callable(getattr(importlib.import_module(f"whence.models.bundled.{name}"), name))


def test_a_missing_library_names_its_extra(monkeypatch):
    def absent(name: str) -> ModuleType:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(extras, "import_module", absent)
    with pytest.raises(
        MissingExtraError,
        match=r"torchvision is needed for 'torchvision:resnet50': pip install 'whence\[torchvision\]'",
    ):
        load_model("torchvision:resnet50")


@pytest.mark.parametrize(
    "fault",
    [RuntimeError("operator torchvision::nms does not exist"), OSError("undefined symbol: _ZN5torch3jit17parse")],
)
@pytest.mark.parametrize("spec", ["torchvision:resnet50", "timm:resnet50", "hf:vit"])
def test_torch_and_torchvision_that_do_not_fit(monkeypatch, fault, spec):
    def broken(name: str) -> ModuleType:
        raise fault

    monkeypatch.setattr(extras, "import_module", broken)
    with pytest.raises(MissingExtraError) as caught:
        load_model(spec)
    said = str(caught.value)
    assert str(fault) in said
    assert extras._version("torch") in said
    assert extras._version("torchvision") in said
    assert "pip install --upgrade torch torchvision" in said


def test_no_library_is_imported_before_it_is_used():
    code = "import sys, whence.models.load as l; print({'torchvision', 'timm', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
