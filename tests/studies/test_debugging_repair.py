"""A model trained again without the wrong reason."""

import copy

import pytest
import torch
from torch import nn

from whence.errors import ModelError, OptionError
from whence.interpretable.labelled import Inputs
from whence.interpretable.training import Plan, accuracy, fit
from whence.interpretable.training.objectives import Task
from whence.models.classifier import Classifier
from whence.studies.debugging.regions import filled, masked
from whence.studies.debugging.repair import Masked, repair, trials

PLAN = Plan(epochs=6, rate=0.05, batch=20, augment=False, smoothing=0.0, decay=0.0)
PLATE = torch.tensor([0, 0, 3, 3])


def pictures(count=200, plate="own", seed=0):
    """Return pictures of two classes: a faint sign in the middle, and a plate in a corner."""
    generator = torch.Generator().manual_seed(seed)
    x, labels = 0.2 * torch.randn(count, 1, 12, 12, generator=generator), torch.arange(count) % 2
    sign = (2.0 * labels - 1)[:, None, None, None]
    x[:, :, 5:8, 5:8] += 0.4 * sign
    if plate != "none":
        x[:, :, :2, :2] = 2 * sign if plate == "own" else -2 * sign
    return Inputs(x, labels, ("left", "right"))


@pytest.fixture(scope="module")
def confounded():
    generator = torch.Generator().manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(144, 2))
    nn.init.zeros_(net[1].bias)
    nn.init.normal_(net[1].weight, std=0.01, generator=generator)
    fit(net, pictures(), PLAN, Task())
    return Classifier(net, labels=("left", "right"), name="confounded")


def test_what_was_learnt_from_the_plate_is_unlearnt(confounded):
    training = pictures()
    before = {name: value.clone() for name, value in confounded.module.state_dict().items()}
    made = repair(confounded, training, PLATE.expand(200, 4), PLAN)
    tests = {plate: pictures(100, plate, seed=1) for plate in ("own", "swapped", "none")}
    own, swapped, none = trials(confounded, made, tests, PLAN)
    assert own.before == 1
    assert swapped.before < 0.1
    assert none.after > 0.9
    assert swapped.after > swapped.before + 0.3
    assert swapped.before == accuracy(confounded.module, tests["swapped"], PLAN)
    assert made.name == "confounded, repaired"
    assert made.labels == confounded.labels
    assert all(torch.equal(value, before[name]) for name, value in confounded.module.state_dict().items())


def test_a_fresh_net_may_be_trained_in_its_place(confounded):
    net = nn.Sequential(nn.Flatten(), nn.Linear(144, 2))
    nn.init.zeros_(net[1].weight)
    made = repair(confounded, pictures(), PLATE.expand(200, 4), PLAN, net=net)
    assert made.module is net
    (swapped,) = trials(confounded, made, {"swapped": pictures(100, "swapped", seed=1)}, PLAN)
    assert swapped.after > 0.9


def test_masked_pictures_are_the_pictures_without_their_regions():
    data = pictures(6)
    regions = torch.zeros(6, 4, dtype=torch.long)
    regions[2] = PLATE
    made = Masked(data, regions)
    assert len(made) == 6
    assert torch.equal(made.labels, data.labels)
    assert made.classes == data.classes
    assert torch.equal(made[1][0], data[1][0])
    assert torch.equal(made[2][0], masked(data[2][0], filled(PLATE, (12, 12))))
    assert not torch.equal(made[2][0], data[2][0])
    assert made[2][1] == data[2][1]


def test_progress_is_told(confounded):
    told = []
    plan = Plan(epochs=1, batch=20, augment=False)
    repair(confounded, pictures(40), PLATE.expand(40, 4), plan, progress=lambda *at: told.append(at))
    assert told == [("training", 1, 2), ("training", 2, 2)]


def test_what_cannot_be_repaired_is_refused(confounded):
    data = pictures(10)
    with pytest.raises(OptionError, match="9 regions for 10 pictures"):
        repair(confounded, data, PLATE.expand(9, 4), PLAN)
    with pytest.raises(OptionError, match="nothing to repair"):
        repair(confounded, data, torch.zeros(10, 4, dtype=torch.long), PLAN)
    unknown = Inputs(data.inputs, torch.full((10,), -1), data.classes)
    with pytest.raises(OptionError, match="class of some training pictures is not known"):
        repair(confounded, unknown, PLATE.expand(10, 4), PLAN)
    with pytest.raises(ModelError, match="is a function and cannot be trained"):
        repair(Classifier(lambda x: x.flatten(1)[:, :2]), data, PLATE.expand(10, 4), PLAN)


def test_a_test_without_pictures_is_refused(confounded):
    with pytest.raises(OptionError, match="the test 'swapped' holds no picture"):
        trials(confounded, copy.copy(confounded), {"swapped": pictures(0)}, PLAN)
