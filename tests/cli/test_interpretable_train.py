"""`whence interpretable train`: what it writes, how it goes on after a kill, and what it refuses."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import whence
from whence.cli import run

COMMAND = Path(sys.executable).with_name("whence")
NET = """
from torch import nn


def tiny(classes: int = 3, places: int = 8) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.ReLU(),
        nn.Conv2d(8, 6, 3, 2, 1), nn.ReLU(), nn.Dropout(0.2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, classes),
    )
"""
TOML = """
name = "tiny"
source = "net.py:tiny"
[preprocess]
resize = [16, 16]
"""
COLOURS = {"blue": (20, 30, 200), "green": (20, 200, 40), "red": (220, 20, 30)}


def write_pictures(root, count=8, colours=COLOURS):
    """Write pictures of one coloured square somewhere on grey, the colour of which is the class."""
    generator = torch.Generator().manual_seed(0)
    for name, colour in colours.items():
        (root / name).mkdir(parents=True)
        for index in range(count):
            picture = Image.new("RGB", (16, 16), (128, 128, 128))
            i, j = torch.randint(11, (2,), generator=generator).tolist()
            picture.paste(colour, (i, j, i + 5, j + 5))
            picture.save(root / name / f"{index}.png")
    return root


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return write_pictures(tmp_path_factory.mktemp("data") / "squares")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    folder.mkdir()
    (folder / "net.py").write_text(NET)
    (folder / "model.toml").write_text(TOML)
    return folder


def arguments(pictures, model, out, *more):
    told = ["interpretable", "train", pictures, "-m", model, "--weights", "random", "--trust", "--batch", 6]
    return [str(one) for one in (*told, "--plain-epochs", 1, "--epochs", 2, "--held-out", 0.25, "--out", out, *more)]


@pytest.fixture(scope="module")
def trained(pictures, model, tmp_path_factory):
    out = tmp_path_factory.mktemp("trained") / "out"
    assert run(arguments(pictures, model, out)) == 0
    return out


def state(folder):
    return load_file(folder / "weights.safetensors")


def test_it_writes_model_folders_and_the_course(trained):
    files = {"model.toml", "weights.safetensors", "labels.txt", "net.py"}
    assert {path.name for path in trained.iterdir()} == files | {"plain", "control", "training.json"}
    assert {path.name for path in (trained / "plain").iterdir()} == files
    assert {path.name for path in (trained / "control").iterdir()} == files
    said = json.loads((trained / "training.json").read_text())
    assert said["data"]["classes"] == ["blue", "green", "red"]
    assert (said["data"]["pictures"], said["data"]["held_out"], said["data"]["skipped"]) == (18, 6, [])
    assert set(said["accuracy"]) == {"interpretable", "plain", "control"}
    phases = [(entry["phase"], entry["epoch"]) for entry in said["course"]]
    assert phases == [("plain", 1), *((name, n) for name in ("control", "interpretable") for n in (1, 2))]
    assert said["layer"] == "4"
    assert said["new"] == []


def test_what_it_writes_loads_and_explains(trained):
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    for folder in (trained, trained / "plain", trained / "control"):
        loaded = whence.load_model(folder, trust=True)
        assert loaded.labels == ("blue", "green", "red")
        assert whence.attribute(loaded, x, "grad-cam").values.isfinite().all()
    # The wrapper's own keys are those of the plain net.
    wrapper, plain = whence.load_model(trained, trust=True).module, whence.load_model(trained / "plain", trust=True)
    plain.module.load_state_dict({k: v for k, v in state(trained).items() if not k.startswith("interpretable.")})
    assert torch.equal(plain.module(x), wrapper.plain()(x))


def test_json_is_what_the_file_says(pictures, model, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(arguments(pictures, model, out, "--json", "--no-control", "--loss", "none", "--half")) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed.pop("folder") == str(out)
    assert printed == json.loads((out / "training.json").read_text())
    assert printed["recipe"]["loss"] is None
    assert not (out / "control").exists()
    assert {t.dtype for name, t in state(out).items() if name[0].isdecimal()} == {torch.float16}


# stopped and run again


def started(told):
    return subprocess.Popen(
        [COMMAND, *told],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )


def wait_for(path, process):
    for _ in range(6000):
        if path.exists():
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    raise AssertionError(path)


@pytest.mark.usefixtures("interruptible")
def test_a_training_that_was_killed_and_then_stopped_goes_on(pictures, model, tmp_path, capsys):
    more = ("--epochs", 25)
    killed = started(arguments(pictures, model, tmp_path / "out", *more))
    wait_for(tmp_path / "out" / "checkpoints" / "control.pt", killed)
    killed.kill()
    killed.communicate()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["checkpoints"]
    stopped = started(arguments(pictures, model, tmp_path / "out", *more))
    wait_for(tmp_path / "out" / "checkpoints" / "interpretable.pt", stopped)
    stopped.send_signal(signal.SIGINT)
    printed, told = stopped.communicate()
    assert stopped.returncode == 1
    assert (printed, told) == ("", "stopped: run the same command again, and it goes on from there\n")

    other = arguments(pictures, model, tmp_path / "out", *more, "--rate", 1e-3)
    assert run(other) == 2
    assert "plan.rate was 0.0012, and is 0.001" in capsys.readouterr().err
    elsewhere = write_pictures(tmp_path / "others", 9)
    assert run(arguments(elsewhere, model, tmp_path / "out", *more)) == 2
    assert "pictures was" in capsys.readouterr().err

    assert run(arguments(pictures, model, tmp_path / "out", *more)) == 0
    assert not (tmp_path / "out" / "checkpoints").exists()
    assert run(arguments(pictures, model, tmp_path / "through", *more)) == 0
    for name in (".", "plain", "control"):
        one, through = state(tmp_path / "out" / name), state(tmp_path / "through" / name)
        assert all(torch.equal(one[key], through[key]) for key in through)
    said = [json.loads((tmp_path / out / "training.json").read_text()) for out in ("out", "through")]
    assert all(said[0][key] == said[1][key] for key in ("course", "accuracy", "recipe", "data", "layer"))


# bad input


def test_a_broken_picture_is_named_or_left_out(model, tmp_path, capsys):
    data = write_pictures(tmp_path / "data")
    (data / "green" / "3.png").write_bytes((data / "green" / "3.png").read_bytes()[:60])
    assert run(arguments(data, model, tmp_path / "out")) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    assert "green/3.png" in told.err
    assert not (tmp_path / "out").exists()
    for out, more in (("out", []), ("json", ["--json"])):
        assert run(arguments(data, model, tmp_path / out, "--skip-broken", *more)) == 0
        assert f"left out: {data}/green/3.png" in capsys.readouterr().err
        said = json.loads((tmp_path / out / "training.json").read_text())["data"]
        assert said["skipped"][0].startswith(f"{data}/green/3.png")
        assert said["pictures"] + said["held_out"] == 23


BAD = {
    "no such folder": ({"data": "{tmp}/nowhere"}, "there is no folder"),
    "an empty class": ({"data": "{tmp}/empty"}, "holds no picture"),
    "one class": ({"data": "{tmp}/one"}, "only the class 'blue'"),
    "a class of one picture": ({"data": "{tmp}/few"}, "has one picture"),
    "unknown model": ({"more": ["-m", "creature"]}, "creatures"),
    "unknown layer": ({"more": ["--layer", "9"]}, "no layer '9'"),
    "a layer without a map": ({"more": ["--layer", "7"]}, "layer '7' has no map"),
    "unknown loss": ({"more": ["--loss", "mutual"]}, "mutual-information"),
    "unknown option of a loss": ({"more": ["--loss", "paper:bta=2"]}, "beta"),
    "an option that is no number": ({"more": ["--loss", "paper:beta=much"]}, "beta"),
    "unknown category": ({"more": ["--category", "rde"]}, "did you mean 'red'"),
    "float16": ({"more": ["--precision", "float16"]}, "bfloat16"),
    "a device that is not there": ({"more": ["--device", "mps"]}, "device='mps'"),
    "no such device": ({"more": ["--device", "tpu9"]}, "tpu9"),
    "a numbered device": ({"more": ["--device", "cuda:1"]}, "CUDA_VISIBLE_DEVICES=1"),
    "a rate of nothing": ({"more": ["--rate", "0"]}, "rate"),
    "a share of nothing": ({"more": ["--held-out", "0"]}, "between 0 and 1"),
    "signed maps": ({"more": ["--layer", "3", "--not-added"]}, "below zero"),
    "a used folder": ({"out": "{tmp}/few"}, "choose a new folder"),
    "a file": ({"out": "{tmp}/few/blue/0.png"}, "is a file"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_one_sentence_and_leaves_nothing(what, pictures, model, tmp_path, capsys):
    write_pictures(tmp_path / "empty", 2)
    for path in (tmp_path / "empty" / "red").iterdir():
        path.unlink()
    write_pictures(tmp_path / "one", 2, {"blue": COLOURS["blue"]})
    write_pictures(tmp_path / "few", 1)
    changed, words = BAD[what]
    data, out = (
        changed[name].format(tmp=tmp_path) if name in changed else usual
        for name, usual in (("data", pictures), ("out", tmp_path / "out"))
    )
    before = sorted(tmp_path.rglob("*"))
    assert run(arguments(data, model, out, *changed.get("more", []))) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("error: ")
    assert told.err.count("\n") == 1
    assert words in told.err
    assert sorted(tmp_path.rglob("*")) == before


def test_more_classes_than_filters_need_a_loss_without_categories(model, tmp_path, capsys):
    data = write_pictures(tmp_path / "data", 2, {f"c{n}": (30 * n, 9, 9) for n in range(7)})
    for loss in ("paper", "matlab"):
        assert run(arguments(data, model, tmp_path / "out", "--loss", loss)) == 2
        assert "6 filters cannot stand for 7 classes" in capsys.readouterr().err
        assert not (tmp_path / "out").exists()
    assert run(arguments(data, model, tmp_path / "out", "--loss", "all-positive", "--held-out", 0.5)) == 0
    said = json.loads((tmp_path / "out" / "training.json").read_text())
    assert [e["categories"] for e in said["course"] if e["phase"] == "interpretable"] == [None, None]
    assert said["new"] == ["8.weight", "8.bias"]


# one category


def test_one_category_has_one_logit_and_a_sigmoid(pictures, model, tmp_path):
    out = tmp_path / "out"
    assert run(arguments(pictures, model, out, "--category", "green", "--loss", "matlab")) == 0
    loaded = whence.load_model(out, trust=True)
    assert loaded.labels == ("green",)
    assert loaded.scale.activation == "sigmoid"
    explained = whence.explain(loaded, pictures / "green" / "0.png", "grad-cam")
    assert explained.label == "green"
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert loaded.module(x).shape == (2, 1)
    assert whence.attribute(loaded, x, "gradient", target="green").values.isfinite().all()
    said = json.loads((out / "training.json").read_text())
    assert said["data"]["classes"] == ["others", "green"]
    # It may go on from itself.
    again = ["interpretable", "train", str(pictures), "-m", str(out / "plain"), "--trust", "--category", "green"]
    more = ["--epochs", "1", "--out", str(tmp_path / "again"), "--no-control", "--batch", "6"]
    assert run([*again, *more]) == 0
    assert json.loads((tmp_path / "again" / "training.json").read_text())["new"] == []


def test_a_model_that_is_masked_already_is_refused(trained, pictures, tmp_path, capsys):
    assert (
        run(["interpretable", "train", str(pictures), "-m", str(trained), "--trust", "--out", str(tmp_path / "o")])
        == 2
    )
    assert "give the plain model" in capsys.readouterr().err


def test_the_creatures_are_drawn(tmp_path):
    told = ["interpretable", "train", "creatures", "--count", "18", "--epochs", "1", "--no-control", "--batch", "18"]
    (tmp_path / "one").mkdir()
    import whence.cli.datasets as datasets

    assert datasets.HELD_OUT == 1350
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "HELD_OUT", 9)
        assert run([*told, "--out", str(tmp_path / "out")]) == 0
    said = json.loads((tmp_path / "out" / "training.json").read_text())
    assert (said["data"]["name"], said["data"]["pictures"], said["data"]["held_out"]) == ("creatures", 18, 9)
    assert [entry["phase"] for entry in said["course"]] == ["interpretable"]
