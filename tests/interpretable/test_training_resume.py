"""A training that is stopped, wherever, and run again gives what one gives that ran through."""

import os
import signal
import threading
from dataclasses import replace

import pytest
import torch

from training_toys import RECIPE, net, recipe, same, spots
from whence.errors import ModelError, OutputError
from whence.interpretable.labelled import Chosen
from whence.interpretable.training import Plan, fit, train
from whence.interpretable.training.checkpoints import Checkpoint, fingerprint
from whence.interpretable.training.objectives import Task

pytestmark = pytest.mark.usefixtures("interruptible")

DATA, HELD_OUT = spots(20), spots(9, seed=1)
# 3 steps an epoch: 3 of the plain net, 6 of the control, 6 with the mask.
STEPS = [("plain", n) for n in range(1, 4)] + [
    (name, n) for name in ("control", "interpretable") for n in range(1, 7)
]


class Stopped(Exception):
    pass


def stops(at, error):
    """Return a progress that raises when it is told of one step."""

    def told(phase, done, total):
        if (phase, done) == at:
            raise error

    return told


@pytest.fixture(scope="module")
def through():
    return train(net(), DATA, HELD_OUT, RECIPE)


def equal(one, other):
    assert all(same(one.nets[name], other.nets[name]) for name in other.nets)
    assert one.course == other.course
    assert one.accuracy == other.accuracy


@pytest.mark.parametrize("at", STEPS, ids=lambda at: f"{at[0]} {at[1]}")
def test_a_training_goes_on_wherever_it_was_stopped(at, through, tmp_path):
    error = KeyboardInterrupt if STEPS.index(at) % 2 else Stopped
    with pytest.raises(error):
        train(net(), DATA, HELD_OUT, RECIPE, checkpoints=tmp_path, progress=stops(at, error))
    told = []
    again = train(net(), DATA, HELD_OUT, RECIPE, checkpoints=tmp_path, progress=lambda *now: told.append(now[:2]))
    assert told == STEPS[STEPS.index(at) + 1 :]  # nothing is done twice
    equal(again, through)


def test_a_training_stopped_again_and_again_goes_on(through, tmp_path):
    for at in STEPS[::4]:
        with pytest.raises(Stopped):
            train(net(), DATA, HELD_OUT, RECIPE, checkpoints=tmp_path, progress=stops(at, Stopped))
    equal(train(net(), DATA, HELD_OUT, RECIPE, checkpoints=tmp_path), through)


def test_steps_that_no_checkpoint_holds_are_done_again(through, tmp_path):
    """As after a kill: the file is that of an earlier step."""
    kept = {}

    def keep(phase, done, total):
        file = tmp_path / f"{phase}.pt"
        if done == 3:
            kept["then"] = file.read_bytes()
        if (phase, done) == ("interpretable", 5):
            file.write_bytes(kept["then"])
            os._exit(0)

    pid = os.fork()
    if pid == 0:
        train(net(), DATA, HELD_OUT, RECIPE, checkpoints=tmp_path, progress=keep)
        os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
    told = []
    again = train(net(), DATA, HELD_OUT, RECIPE, checkpoints=tmp_path, progress=lambda *now: told.append(now[:2]))
    assert told == [("interpretable", n) for n in (4, 5, 6)]
    equal(again, through)


def test_checkpoints_are_written_as_often_as_asked_for(tmp_path):
    path, plan = tmp_path / "one.pt", Plan(epochs=2, batch=6)
    seen = {}
    for every in (0.0, 60.0):
        checkpoint = Checkpoint(path, {}, every=every)
        steps = seen[every] = []
        told = ("", lambda *_, file=checkpoint, steps=steps: steps.append(file.path.exists() and file.read()["step"]))
        fit(net(), DATA, plan, Task(), checkpoint=checkpoint, progress=told)
        path.unlink()
    assert seen == {0.0: [1, 2, 3, 4, 5, 6], 60.0: [False, False, 3, 3, 3, 6]}


# Ctrl-C


@pytest.mark.parametrize("step", [2, 3])
def test_ctrl_c_in_the_middle_of_a_step_waits_for_its_end(step, tmp_path):
    class Pressed(Task):
        seen = 0

        def __call__(self, *args):
            self.seen += 1
            if self.seen == step:
                os.kill(os.getpid(), signal.SIGINT)
            return super().__call__(*args)

    plan, path = RECIPE.plan, tmp_path / "one.pt"
    whole, stopped = net(), net()
    course = fit(whole, DATA, plan, Task())
    with pytest.raises(KeyboardInterrupt):
        fit(stopped, DATA, plan, Pressed(), checkpoint=Checkpoint(path, {}))
    assert Checkpoint(path, {}).read()["step"] == step
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert not any(module.training for module in stopped.modules())
    again = net()
    assert fit(again, DATA, plan, Task(), checkpoint=Checkpoint(path, {})) == course
    assert same(again, whole)


def test_ctrl_c_pressed_twice_ends_at_once(tmp_path):
    class Pressed(Task):
        def __call__(self, *args):
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            raise AssertionError

    with pytest.raises(KeyboardInterrupt):
        fit(net(), DATA, RECIPE.plan, Pressed(), checkpoint=Checkpoint(tmp_path / "one.pt", {}))
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_after_the_last_step_is_not_lost():
    def press(_):
        os.kill(os.getpid(), signal.SIGINT)
        return {}

    with pytest.raises(KeyboardInterrupt):
        fit(net(), DATA, Plan(epochs=1, batch=6), Task(), epoch=press)


def test_a_training_outside_the_main_thread_leaves_ctrl_c_alone():
    one, other = net(), net()
    plan = Plan(epochs=1, batch=6)
    thread = threading.Thread(target=fit, args=(one, DATA, plan, Task()))
    thread.start()
    thread.join()
    fit(other, DATA, plan, Task())
    assert same(one, other)


# what is refused


@pytest.fixture
def begun(tmp_path):
    with pytest.raises(Stopped):
        train(net(), DATA, HELD_OUT, RECIPE, checkpoints=tmp_path, progress=stops(("control", 2), Stopped))
    return tmp_path


OTHER = {
    "epochs": (net(), DATA, recipe(epochs=3), r"plan\.epochs was 2, and is 3"),
    "loss": (net(), DATA, recipe("paper"), "loss was 'mutual-information', and is 'paper'"),
    "option": (net(), DATA, recipe(options={"gain": 4.0}), r"options was {}, and is {'gain': 4.0}"),
    "model": (net(seed=1), DATA, RECIPE, "model was '[0-9a-f]{16}', and is"),
    "pictures": (net(), spots(20, seed=3), RECIPE, "pictures was"),
    "as many pictures": (net(), spots(19), RECIPE, "pictures was"),
}


@pytest.mark.parametrize("what", OTHER)
def test_another_training_is_refused(what, begun):
    model, data, other, words = OTHER[what]
    before = (begun / "control.pt").read_bytes()
    with pytest.raises(OutputError, match=words) as error:
        train(model, data, HELD_OUT, other, checkpoints=begun)
    assert "another folder" in str(error.value)
    assert (begun / "control.pt").read_bytes() == before


def test_other_held_out_pictures_are_refused(begun):
    with pytest.raises(OutputError, match="held-out pictures was"):
        train(net(), DATA, spots(9, seed=2), RECIPE, checkpoints=begun)


def test_the_device_and_the_workers_may_be_others(begun, through):
    again = train(net(), DATA, HELD_OUT, recipe(workers=1), checkpoints=begun)
    equal(again, through)


@pytest.mark.parametrize("damage", ["cut", "words", "another file"])
def test_a_damaged_checkpoint_is_refused(damage, begun):
    file = begun / "control.pt"
    if damage == "another file":
        torch.save({"weights": torch.zeros(2)}, file)
    else:
        file.write_bytes(file.read_bytes()[:500] if damage == "cut" else b"words")
    with pytest.raises(ModelError, match=r"control\.pt is .*remove it to begin anew$"):
        train(net(), DATA, HELD_OUT, RECIPE, checkpoints=begun)
    file.unlink()
    train(net(), DATA, HELD_OUT, RECIPE, checkpoints=begun)


def test_a_fingerprint_tells_pictures_and_classes_apart():
    data, rows = spots(6), torch.tensor([0, 1, 2, 3, 4, 5])
    prints = {
        fingerprint(one)
        for one in (
            data,
            spots(6, seed=1),
            spots(5),
            replace(data, classes=("a", "b", "c")),
            replace(data, labels=data.labels.flip(0)),
            Chosen(data, rows.flip(0), data.labels, data.classes),
        )
    }
    assert len(prints) == 6
    assert fingerprint(Chosen(data, rows, data.labels, data.classes)) == fingerprint(data) == fingerprint(spots(6))
