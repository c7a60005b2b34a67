"""Weights: safetensors, pickles with trust alone, and what does not fit."""

import pickle

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from whence.errors import ModelError, TrustError
from whence.models.load import load_model
from whence.models.weights import fit

SPEC = "torchvision:squeezenet1_1"


class Marker:
    """Its pickle writes a file when it is read."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


@pytest.fixture(scope="module")
def state():
    return load_model(SPEC, weights="random", seed=1, num_classes=4).module.state_dict()


def same(model, state):
    return all(torch.equal(value, state[name]) for name, value in model.module.state_dict().items())


def test_safetensors(tmp_path, state):
    save_file(state, tmp_path / "w.safetensors")
    assert same(load_model(SPEC, weights=tmp_path / "w.safetensors", num_classes=4), state)


def test_half_precision_becomes_float32(tmp_path, state):
    save_file({name: value.half() for name, value in state.items()}, tmp_path / "w.safetensors")
    model = load_model(SPEC, weights=tmp_path / "w.safetensors", num_classes=4)
    assert {p.dtype for p in model.module.parameters()} == {torch.float32}
    assert torch.equal(model.module.classifier[1].weight, state["classifier.1.weight"].half().float())


def test_a_file_of_a_transformers_model_with_its_older_names(tmp_path):
    options = {"num_hidden_layers": 1, "hidden_size": 12, "num_attention_heads": 2, "image_size": 32, "num_labels": 3}
    first = load_model("hf:vit", weights="random", **options)
    first.module.save_pretrained(tmp_path)
    again = load_model("hf:vit", weights=tmp_path / "model.safetensors", **options)
    assert same(again, first.module.state_dict())


def test_a_transformers_folder_loads_and_needs_all_of_its_weights(tmp_path):
    options = {"num_hidden_layers": 1, "hidden_size": 12, "num_attention_heads": 2, "image_size": 32, "num_labels": 3}
    first = load_model("hf:vit", weights="random", **options)
    first.module.save_pretrained(tmp_path)
    assert same(load_model(f"hf:{tmp_path}"), first.module.state_dict())
    state = {name: value for name, value in first.module.state_dict().items() if "classifier" not in name}
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"2 missing \(classifier\.bias, classifier\.weight\)"):
        load_model(f"hf:{tmp_path}")


def test_a_transformers_folder_of_pickles_is_not_read(tmp_path):
    first = load_model("hf:vit", weights="random", num_hidden_layers=1, hidden_size=12, num_attention_heads=2)
    first.module.config.save_pretrained(tmp_path)
    torch.save({"x": Marker(tmp_path / "ran")}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"cannot be downloaded or read .*model\.safetensors"):
        load_model(f"hf:{tmp_path}")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("suffix", ["pt", "pth", "bin"])
def test_a_pickle_is_refused_and_not_run(tmp_path, suffix):
    path = tmp_path / f"w.{suffix}"
    path.write_bytes(pickle.dumps(Marker(tmp_path / "ran")))
    with pytest.raises(TrustError, match=r"is a pickle, .* convert it to \.safetensors, or give trust=True"):
        load_model(SPEC, weights=path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: {"state_dict": s, "epoch": 3},
        lambda s: {"model_state_dict": s},
        lambda s: {"model": {f"module.{name}": value for name, value in s.items()}},
        lambda s: {f"_orig_mod.module.{name}": value for name, value in s.items()},
    ],
)
def test_a_trusted_pickle_out_of_its_container(tmp_path, state, wrap):
    torch.save(wrap(state), tmp_path / "w.pth")
    assert same(load_model(SPEC, weights=tmp_path / "w.pth", trust=True, num_classes=4), state)


def test_a_trusted_pickle_of_a_whole_module(tmp_path, state):
    torch.save(load_model(SPEC, weights="random", seed=1, num_classes=4).module, tmp_path / "w.pt")
    assert same(load_model(SPEC, weights=tmp_path / "w.pt", trust=True, num_classes=4), state)


def test_trust_runs_what_the_pickle_holds(tmp_path, state):
    torch.save({"state_dict": state, "note": Marker(tmp_path / "ran")}, tmp_path / "w.pt")
    load_model(SPEC, weights=tmp_path / "w.pt", trust=True, num_classes=4)
    assert (tmp_path / "ran").exists()


def test_what_does_not_fit_is_named(tmp_path, state):
    wrong = {name: value for name, value in state.items() if name != "features.0.bias"}
    wrong["classifier.1.bias"] = torch.zeros(9)
    wrong["extra"] = torch.zeros(1)
    save_file(wrong, tmp_path / "w.safetensors")
    with pytest.raises(ModelError) as caught:
        load_model(SPEC, weights=tmp_path / "w.safetensors", num_classes=4)
    for words in (
        "1 missing (features.0.bias)",
        "1 unexpected (extra)",
        "1 misshaped (classifier.1.bias [9] for [4])",
        "num_classes=4",
    ):
        assert words in str(caught.value)


def test_of_many_misfits_the_first_are_named():
    with pytest.raises(ModelError, match=r"4 missing \(0\.weight, 0\.bias, 1\.weight, \.\.\.\)"):
        fit(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), {}, asked="it", source="w")


def test_counters_of_batch_norms_may_be_absent():
    norm = nn.BatchNorm1d(2)
    state = {name: value for name, value in norm.state_dict().items() if name != "num_batches_tracked"}
    fit(norm, state, asked="it", source="w")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("w.safetensors", b"\x08\0\0\0\0\0\0\0{}", "is damaged or cut short"),
        ("w.safetensors", b"", "is damaged or cut short"),
        ("w.pt", b"PK\x03\x04 no zip", "is damaged or cut short"),
        ("w.pt", pickle.dumps([1, 2], protocol=2), "damaged|holds list"),
        ("w.onnx", b"", "kind of file is not known"),
    ],
)
def test_files_that_are_no_weights(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=words):
        load_model(SPEC, weights=tmp_path / name, trust=True)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ModelError, match="there is no such file"):
        load_model(SPEC, weights=tmp_path / "w.safetensors")
