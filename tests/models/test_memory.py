"""The heap's free end is kept while a model is in use, and returned afterwards."""

import os
import subprocess
import sys
import threading

import pytest

from small_nets import SmallNet, drawn, pictures
from whence import attribute
from whence.models import memory
from whence.models.classifier import Classifier

BACK = (-1, 64 << 20)
KEPT = [(-3, 32 << 20), (-1, 2**31 - 1)]

# Twenty passes of two hundred maps of 1 MiB each, a million pages; how many of them are waited for.
PASSES = """
import resource
import torch
from whence.models.memory import kept

def passes(count):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(count):
        maps = [torch.ones(1 << 18) for _ in range(200)]
        del maps
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

torch.set_num_threads(1)
passes(2)
with kept():
    print(passes(20))
"""


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Return a list that fills with what is set."""
    made: list[tuple[int, int]] = []
    monkeypatch.setattr(memory, "_mallopt", lambda: lambda name, value: made.append((name, value)) or 1)
    return made


def test_a_session_keeps_and_returns(calls: list[tuple[int, int]]) -> None:
    attribute(Classifier(drawn(SmallNet())), pictures(), "gradient")
    assert calls == [*KEPT, BACK]


def test_an_error_returns(calls: list[tuple[int, int]]) -> None:
    with pytest.raises(ZeroDivisionError), memory.kept():
        raise ZeroDivisionError
    assert calls == [*KEPT, BACK]


def test_the_last_of_several_returns(calls: list[tuple[int, int]]) -> None:
    with memory.kept():
        thread = threading.Thread(target=lambda: attribute(Classifier(drawn(SmallNet())), pictures(), "gradient"))
        thread.start()
        thread.join()
        assert calls == KEPT
    assert calls == [*KEPT, BACK]


@pytest.mark.skipif(not hasattr(os, "register_at_fork"), reason="there are no forks")
def test_a_child_knows_of_none() -> None:
    with memory._USERS.lock:
        memory._USERS.count += 1
        child = os.fork()
        if not child:
            free = not memory._USERS.lock.locked() and not memory._USERS.count
            os._exit(0 if free else 1)
        memory._USERS.count -= 1
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("name", ["MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"])
def test_what_the_user_has_set_stands(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "1")
    assert memory._mallopt.__wrapped__() is None


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_other_systems_have_nothing_to_set(platform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    assert memory._mallopt.__wrapped__() is None


@pytest.mark.skipif(memory._mallopt() is None, reason="there is no glibc, or it is set by the user")
def test_pages_are_waited_for_once() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", PASSES], check=True, capture_output=True, text=True, env=environment)
    # 20,000 to 340,000 where the heap's end is returned after every pass.
    assert int(done.stdout) < 5000
