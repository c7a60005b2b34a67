"""Several processes do what one does: weights, course and categories; only the first one speaks and writes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from training_toys import net, recipe, spots
from whence.cli import run
from whence.creatures.files import write
from whence.interpretable import LOSSES
from whence.interpretable.training import train

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without torch.distributed")

TESTS = Path(__file__).parents[1]
COMMAND = Path(sys.executable).with_name("whence")
# In the code Z+ is scored by the batch's last maps, which are each process's own.
OPTIONS = {"matlab": {"flip": False}}
CASES = [
    (loss, norm) for loss in (*LOSSES, None) for norm in ("group", "frozen") if norm == "group" or loss == "matlab"
]

SCRIPT = """
import sys, warnings
import torch
torch.set_num_threads(1)
from test_training_processes import CASES, trained
from training_toys import net, recipe, spots
from whence.errors import OptionError
from whence.interpretable.training import Plan, fit
from whence.interpretable.training.objectives import Task
from whence.models.masked import ranks

found = {case: trained(*case) for case in CASES}
found = {case: ({n: m.state_dict() for n, m in t.nets.items()}, t.course, t.accuracy) for case, t in found.items()}
model = net()
before = set(vars(model))
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    fit(model, spots(12), Plan(epochs=1, batch=6), Task())
words = [str(w.message) for w in told if "batch norms take their statistics" in str(w.message)]
left = set(vars(model)) - before
try:
    fit(net(), spots(12), Plan(epochs=1, batch=5), Task())
except OptionError as error:
    refused = str(error)
rank = torch.distributed.get_rank()
torch.save((found, words, left, refused), f"{sys.argv[1]}/{rank}.pt")
torch.distributed.barrier()
"""


def trained(loss, norm):
    """Train without dropout, which each process draws for itself."""
    model = net(dropout=0.0, norm=nn.GroupNorm(2, 8) if norm == "group" else None)
    how = recipe(loss, options=OPTIONS.get(loss, {}), frozen_statistics=norm == "frozen")
    return train(model, spots(20), spots(9, seed=1), how)


def torchrun(*told):
    """Run two processes, and return what they printed."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    path = os.pathsep.join([str(TESTS), str(TESTS / "interpretable")])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    return subprocess.run([*command, *map(str, told)], capture_output=True, text=True, env=environment)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    (folder / "both.py").write_text(SCRIPT)
    done = torchrun(folder / "both.py", folder)
    assert done.returncode == 0, done.stderr
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2)]


def close(one, other, tolerance):
    """Compare two courses, number by number."""
    assert [set(entry) for entry in one] == [set(entry) for entry in other]
    for a, b in zip(one, other, strict=True):
        for name, value in a.items():
            exact = not isinstance(value, float)
            assert value == b[name] if exact else value == pytest.approx(b[name], rel=tolerance, abs=tolerance), name


@pytest.mark.parametrize("case", CASES, ids=str)
def test_two_processes_train_what_one_does(two, case):
    single = trained(*case)
    for found, *_ in two:
        states, course, accuracy = found[case]
        assert accuracy == single.accuracy
        close(course, single.course, 1e-6)
        for name, one in single.nets.items():
            for key, value in one.state_dict().items():
                assert torch.allclose(states[name][key], value, rtol=1e-6, atol=1e-6), (name, key)


def test_both_processes_hold_the_same_bits(two):
    for case in CASES:
        (states, course, _), (others, other, _) = two[0][0][case], two[1][0][case]
        assert [e.get("categories") for e in course] == [e.get("categories") for e in other]
        for name, state in states.items():
            assert all(torch.equal(state[key], others[name][key]) for key in state)


def test_statistics_of_parts_of_a_batch_are_warned_of_once(two):
    assert [len(words) for _, words, *_ in two] == [1, 0]
    assert "one of 2: freeze them" in two[0][1][0]


def test_nothing_is_left_on_the_net(two):
    assert [left for *_, left, _ in two] == [set(), set()]


def test_a_batch_that_cannot_be_shared_is_refused(two):
    assert {refused for *_, refused in two} == {
        "a batch of 5 pictures cannot be shared by 2 processes: give another batch"
    }


# the command

NET = """
from torch import nn


def tiny(classes: int = 9) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.GroupNorm(2, 8), nn.ReLU(), nn.Conv2d(8, 12, 3, 2, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, classes),
    )
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """Return the arguments but for OUT."""
    folder = tmp_path_factory.mktemp("command")
    (folder / "net.py").write_text(NET)
    (folder / "model.toml").write_text('source = "net.py:tiny"\n[preprocess]\nresize = [32, 32]\n')
    write(folder / "drawn", 36, 0)
    for index, path in enumerate(sorted((folder / "drawn").glob("*.png"))):
        (folder / "data" / str(index % 2)).mkdir(parents=True, exist_ok=True)
        path.rename(folder / "data" / str(index % 2) / path.name)
    usual = ["interpretable", "train", folder / "data", "-m", folder, "--weights", "random", "--trust"]
    return [str(one) for one in (*usual, "--plain-epochs", 1, "--epochs", 2, "--held-out", 0.2)]


def test_the_command_shares_its_batches(told, tmp_path):
    done = torchrun(COMMAND, *told, "--batch", "8", "--out", tmp_path / "two")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("right of") == 1
    assert "warning:" not in done.stderr
    assert run([*told, "--batch", "8", "--out", str(tmp_path / "one")]) == 0
    courses = [json.loads((tmp_path / out / "training.json").read_text())["course"] for out in ("one", "two")]
    close(*courses, 1e-4)
    for name in (".", "plain", "control"):
        one, two = (load_file(tmp_path / out / name / "weights.safetensors") for out in ("one", "two"))
        assert max(float((one[key].double() - two[key].double()).abs().max()) for key in one) < 1e-4
    assert {p.name for p in (tmp_path / "two").rglob("*")} == {p.name for p in (tmp_path / "one").rglob("*")}


def test_an_error_is_told_once(told, tmp_path):
    done = torchrun(COMMAND, *told, "--batch", "7", "--out", tmp_path / "out")
    assert done.returncode != 0
    assert done.stdout == ""
    assert done.stderr.count("a batch of 7 pictures cannot be shared by 2 processes") == 1
    assert "exitcode  : 2" in done.stderr
    assert not (tmp_path / "out").exists()
