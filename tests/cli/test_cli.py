"""The commands, as a user types them: files, exit codes, one sentence an error, nothing half-written."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from whence.cli import run
from whence.creatures.files import write

BUNDLED = Path(str(files("whence.models"))) / "bundled" / "creatures"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn") / "creatures"
    write(folder, 3, 0)
    return sorted(folder.glob("*.png"))


@pytest.fixture
def bad(tmp_path):
    path = tmp_path / "bad.png"
    path.write_bytes(b"no picture")
    return path


def whence(*arguments):
    return run([str(a) for a in arguments])


def test_explain_writes_all_files_of_the_contract(pictures, tmp_path, capsys):
    out = tmp_path / "out"
    assert whence("explain", *pictures, "--method", "gradient", "--method", "grad-cam", "--out", out) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(out / "report.html")
    assert {p.name for p in out.iterdir()} == {"report.html", "result.json", "maps.npz", "pictures"}
    result = json.loads((out / "result.json").read_text())
    assert result["schema"] == 1
    with np.load(out / "maps.npz", allow_pickle=False) as maps:
        for number, picture in enumerate(result["pictures"]):
            assert picture["status"] == "ok"
            for row in picture["explanations"]:
                key = row["map"].removeprefix("maps.npz#")
                assert key == f"{number}/{row['method']}"
                assert maps[key].dtype == np.float32
                assert list(maps[key].shape) == row["shape"]
        assert maps["0/grad-cam"].shape == (16, 16)
        assert maps["0/gradient"].shape == (3, 64, 64)
    assert list((out / "pictures").glob("*.png"))


def test_the_result_fits_the_published_schema(pictures, tmp_path):
    jsonschema = pytest.importorskip("jsonschema")
    from whence.reports.contents import schema

    whence("explain", pictures[0], "--target", "second", "--target", "0", "--out", tmp_path / "out")
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    jsonschema.validate(result, schema())
    keys = [row["map"] for row in result["pictures"][0]["explanations"]]
    assert keys == ["maps.npz#0/grad-cam", "maps.npz#0/grad-cam~2"]


def test_json_is_exactly_the_result(pictures, tmp_path, capsys):
    assert whence("explain", pictures[0], "--out", tmp_path / "out", "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((tmp_path / "out" / "result.json").read_text())
    assert printed["report"] == str(tmp_path / "out" / "report.html")


def test_one_bad_picture_among_good_ones(pictures, bad, tmp_path, capsys):
    assert whence("explain", pictures[0], bad, pictures[1], "--out", tmp_path / "out") == 3
    assert "bad.png" in capsys.readouterr().err
    status = [p["status"] == "ok" for p in json.loads((tmp_path / "out" / "result.json").read_text())["pictures"]]
    assert status == [True, False, True]


def test_a_folder_of_pictures(pictures, tmp_path):
    assert whence("explain", pictures[0].parent, "--out", tmp_path / "out") == 0
    assert len(json.loads((tmp_path / "out" / "result.json").read_text())["pictures"]) == 3


def model_folder(folder, **changes):
    shutil.copytree(BUNDLED, folder)
    text = (folder / "model.toml").read_text()
    for old, new in changes.items():
        text = text.replace(old, new)
    (folder / "model.toml").write_text(text)
    return folder


class Payload:
    """A pickle that leaves a mark when it is run."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


BAD_INPUT = {
    "no such file": (["explain", "nowhere.png"], "no file nowhere.png"),
    "no such file among good ones": (["explain", "{good}", "nowhere.png"], "no file nowhere.png"),
    "no readable picture": (["explain", "{bad}"], "bad.png"),
    "an empty folder": (["explain", "{empty}"], "holds no picture"),
    "unknown bundled model": (["explain", "{good}", "--model", "creature"], "creatures"),
    "unknown torchvision model": (["explain", "{good}", "--model", "torchvision:resnet51"], "resnet50"),
    "unknown method": (["explain", "{good}", "--method", "gradcam"], "grad-cam"),
    "unknown option": (["explain", "{good}", "--method", "grad-cam:layr=x"], "layer"),
    "bad value": (["explain", "{good}", "--method", "grad-cam:relu=2"], "true or false"),
    "unknown layer": (["explain", "{good}", "--layer", "stem.9"], "no layer 'stem.9'"),
    "a layer for nobody": (["explain", "{good}", "--method", "gradient", "--layer", "stem"], "no option 'layer'"),
    "unknown label": (["explain", "{good}", "--target", "lion"], "9 labels"),
    "target out of range": (["explain", "{good}", "--target", "9"], "0 to 8"),
    "negative target": (["explain", "{good}", "--target", "-1"], "out of range"),
    "unknown truth": (["explain", "{good}", "--truth", "lion"], "9 labels"),
    "a share above 1": (["explain", "{good}", "--share", "2"], "share"),
    "a folder without model.toml": (["explain", "{good}", "--model", "{empty}"], "model.toml"),
    "weights that do not fit": (["explain", "{good}", "--weights", "{other}"], "missing"),
    "a pickle": (["explain", "{good}", "--weights", "{pickle}"], "trust"),
    "a Python file": (["explain", "{good}", "--model", "{python}:net"], "trust"),
    "a model file naming Python code": (["explain", "{good}", "--model", "{coded}"], "trust"),
    "an unknown key": (["explain", "{good}", "--model", "{keyed}"], "antialiased"),
    "weights outside the folder": (["explain", "{good}", "--model", "{escaping}"], "weights"),
    "a stranger's folder": (["explain", "{good}", "--out", "{full}"], "whence"),
    "an unknown device": (["explain", "{good}", "--device", "tpu9"], "tpu9"),
    "an unknown flag": (["explain", "{good}", "--methd", "grad-cam"], "--method"),
    "an unknown command": (["explian"], "explain"),
    "a report of nothing": (["report", "{empty}"], "holds no result"),
    "a used folder for creatures": (["creatures", "draw", "--out", "{full}"], "full"),
    "an impossible size": (["layers", "--size", "0"], "--size"),
}


@pytest.fixture(scope="module")
def places(pictures, tmp_path_factory):
    home = tmp_path_factory.mktemp("places")
    for name in ("empty", "full"):
        (home / name).mkdir()
    (home / "full" / "thesis.txt").write_text("years of work")
    (home / "bad.png").write_bytes(b"no picture")
    (home / "net.py").write_text(f"from pathlib import Path\nPath({str(home / 'ran')!r}).touch()\ndef net(): ...\n")
    (home / "weights.pt").write_bytes(pickle.dumps(Payload(home / "ran")))
    from safetensors.torch import save_file

    save_file({"somewhere.weight": torch.zeros(3)}, home / "other.safetensors")
    coded = model_folder(home / "coded", **{"whence:creature_net": "net.py:net"})
    shutil.copy(home / "net.py", coded / "net.py")
    return {
        "good": pictures[0],
        "bad": home / "bad.png",
        "empty": home / "empty",
        "full": home / "full",
        "other": home / "other.safetensors",
        "pickle": home / "weights.pt",
        "python": home / "net.py",
        "coded": coded,
        "keyed": model_folder(home / "keyed", **{"resize =": "antialiased = true\nresize ="}),
        "escaping": model_folder(home / "escaping", **{"weights.safetensors": "../other.safetensors"}),
        "ran": home / "ran",
    }


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_one_sentence_and_leaves_nothing(case, places, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments, said = BAD_INPUT[case]
    assert run([a.format(**{k: str(v) for k, v in places.items()}) for a in arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert len(printed.err.strip().splitlines()) == 1
    assert printed.err.startswith("error: ")
    assert said in printed.err
    assert list(tmp_path.iterdir()) == []
    assert [p.name for p in places["full"].iterdir()] == ["thesis.txt"]
    assert not places["ran"].exists()


def test_debug_shows_the_traceback(pictures):
    from whence.errors import UnknownNameError

    with pytest.raises(UnknownNameError):
        whence("explain", pictures[0], "--method", "gradcam", "--debug")


def test_a_model_that_fails_by_a_fault_ends_with_1(pictures, tmp_path, capsys, monkeypatch):
    import whence.explaining

    def broken(*args):
        raise ZeroDivisionError("oh")

    monkeypatch.setattr(whence.explaining, "_subject", broken)
    assert run(["explain", str(pictures[0]), "--out", str(tmp_path / "out")]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_report_is_drawn_again_from_its_files(pictures, tmp_path, capsys):
    out = tmp_path / "out"
    whence("explain", pictures[0], "--out", out)
    page = (out / "report.html").read_text()
    (out / "report.html").write_text("lost")
    assert whence("report", out) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(out / "report.html")
    assert (out / "report.html").read_text() == page


def test_a_dead_head_is_said_with_the_methods_that_never_look_at_the_score(tmp_path, capsys):
    (tmp_path / "dead.py").write_text(
        "from torch import nn\n"
        "def make():\n"
        "    head = nn.Linear(4, 3)\n"
        "    nn.init.zeros_(head.weight)\n"
        "    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)\n"
    )
    assert whence("layers", "--model", f"{tmp_path / 'dead.py'}:make", "--trust", "--size", "16") == 0
    said = capsys.readouterr().out
    assert "The head is dead" in said
    assert "(eigen-cam and attention-rollout never look at it)" in said


def test_the_lists(capsys):
    assert whence("methods", "--json") == 0
    listed = {m["name"]: m for m in json.loads(capsys.readouterr().out)}
    assert {"gradient", "grad-cam"} <= set(listed)
    assert listed["grad-cam"]["options"]["relu"] == {"default": False, "expected": "true or false"}
    assert whence("layers", "--json") == 0
    layers = json.loads(capsys.readouterr().out)
    assert layers["chosen"] in [layer["name"] for layer in layers["layers"]]
    assert whence("methods") == whence("layers") == 0
    assert "grad-cam" in capsys.readouterr().out


def test_doctor(capsys):
    assert whence("doctor", "--json") == 0
    checks = {c["check"]: c for c in json.loads(capsys.readouterr().out)}
    assert checks["explanation"]["ok"]
    assert checks["torch"]["found"] == torch.__version__.partition("+")[0]


def test_demo_explains_three_creatures_by_every_method(tmp_path, capsys):
    from whence.registry import METHODS

    assert whence("demo", "--out", tmp_path / "demo", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert len(result["pictures"]) == 3
    for picture in result["pictures"]:
        explained = {row["method"] for row in picture["explanations"]}
        assert explained | {one["method"] for one in picture["left_out"]} == set(METHODS.names())
        assert {"grad-cam", "gradient"} <= explained


def test_the_demo_asks_slow_methods_for_less(monkeypatch):
    from whence import load_model
    from whence.cli.demo import _quick
    from whence.registry import METHODS, MethodFacts
    from whence.results import Passes

    def slow(model, x, target, *, samples: int = 4000, seed: int = 0):
        raise NotImplementedError

    facts = MethodFacts(
        "slow", slow, "Slow", "perturbation", "-", "scores", "sum", "positive",
        lambda options, model: Passes(forward=2 * options["samples"]),
    )  # fmt: skip
    monkeypatch.setitem(METHODS._entries, "slow", facts)
    model = load_model("creatures")
    assert _quick("slow", model, 3).options == {"seed": 3, "samples": 100}
    assert _quick("gradient", model, 3).options == {}


def test_creatures_draw_and_score(tmp_path, capsys):
    assert whence("creatures", "draw", "--count", "4", "--out", tmp_path / "drawn") == 0
    assert len(list((tmp_path / "drawn").glob("*.png"))) == 4
    assert Image.open(tmp_path / "drawn" / "00000.png").size == (64, 64)
    capsys.readouterr()
    assert whence("creatures", "score", "--count", "200", "--maps", "0", "--json") == 0
    assert json.loads(capsys.readouterr().out)["whole"] >= 0.96


def test_creatures_train_writes_a_model_that_explains(pictures, tmp_path):
    assert whence("creatures", "train", "--images", "64", "--epochs", "1", "--out", tmp_path / "net") == 0
    assert whence("explain", pictures[0], "--model", tmp_path / "net", "--out", tmp_path / "out") == 0


def test_half_precision_gives_nearly_the_same_map(pictures, tmp_path):
    for precision in ("float32", "bfloat16"):
        whence("explain", pictures[0], "--precision", precision, "--out", tmp_path / precision)
    full, half = (np.load(tmp_path / p / "maps.npz")["0/grad-cam"] for p in ("float32", "bfloat16"))
    assert 0 < np.abs(full - half).max() < 0.05 * np.abs(full).max()


def test_the_command_itself(pictures, tmp_path):
    script = Path(sys.executable).with_name("whence")
    done = subprocess.run(
        [script, "explain", pictures[0], "--model", "creatures", "--out", tmp_path / "out"],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "80"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    helped = subprocess.run([script, "explain", "--help"], capture_output=True, text=True)
    assert "PICTURE" in helped.stdout
    assert subprocess.run([script, "explain"], capture_output=True).returncode == 2


def test_several_layers_are_several_explanations(pictures, tmp_path):
    layers = ["--layer", "stem", "--layer", "top", "--method", "grad-cam", "--method", "gradient"]
    assert whence("explain", pictures[0], *layers, "--out", tmp_path / "out") == 0
    (picture,) = json.loads((tmp_path / "out" / "result.json").read_text())["pictures"]
    assert [row["layer"] for row in picture["explanations"]] == ["stem", "top", None]


def test_the_version_and_the_help(capsys):
    assert whence("--version") == 0
    assert capsys.readouterr().out.strip() == __import__("whence").__version__
    assert whence() == 0
    assert "explain" in capsys.readouterr().out
