"""From drawn creatures to a model folder, and how well the bundled one knows them."""

import tomllib
from dataclasses import replace
from importlib.resources import files

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from whence.creatures.code import LABELS
from whence.creatures.drawing import draw_many
from whence.creatures.score import score
from whence.creatures.train import Recipe, fresh_net, train
from whence.errors import ModelError, OptionError, OutputError
from whence.interpretable.labelled import normalised
from whence.models.bundled.creature_net import creature_net

TINY = Recipe(images=24, changed={"epochs": 2, "batch": 8})
SHORT = replace(TINY, changed={"epochs": 1, "batch": 8})
FILES = ["labels.txt", "model.toml", "weights.safetensors"]


def loaded(folder):
    net = creature_net()
    net.load_state_dict(load_file(folder / "weights.safetensors"))
    return net.eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("models") / "tiny"
    train(out, TINY, name='the "tiny" one', threads=1)
    return out


def test_the_net_has_the_parameters_and_the_map_it_promises():
    net = creature_net()
    assert sum(parameter.numel() for parameter in net.parameters()) == 177_113
    assert net.top(net.stages(net.stem(torch.zeros(1, 3, 64, 64)))).shape == (1, 64, 16, 16)
    assert creature_net(4).head.out_features == 4


def test_training_writes_a_model_folder(folder):
    assert sorted(path.name for path in folder.iterdir()) == FILES
    assert sorted(path.name for path in folder.parent.iterdir()) == ["tiny"]
    model = tomllib.loads((folder / "model.toml").read_text())
    assert model["name"] == 'the "tiny" one'
    assert set(model) == {"name", "source", "weights", "labels", "activation", "preprocess"}
    assert tuple((folder / "labels.txt").read_text().split()) == LABELS
    state = load_file(folder / "weights.safetensors")
    assert all(torch.isfinite(value).all() for value in state.values())
    assert {value.dtype for value in state.values()} == {torch.float16, torch.int64}
    assert loaded(folder)(torch.zeros(1, 3, 64, 64)).shape == (1, 9)


def test_the_seed_decides_the_weights(folder, tmp_path):
    train(tmp_path / "again", TINY, threads=1)
    train(tmp_path / "other", replace(TINY, seed=1), threads=1)
    weights = [
        (path / "weights.safetensors").read_bytes() for path in (folder, tmp_path / "again", tmp_path / "other")
    ]
    assert weights[0] == weights[1] != weights[2]


def test_training_leaves_the_global_generators_and_threads_alone(tmp_path):
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    train(tmp_path / "model", SHORT, threads=2)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.get_num_threads() == threads


def test_the_progress_is_told(tmp_path):
    told = []
    train(tmp_path / "model", SHORT, progress=lambda *report: told.append(report))
    assert told[0] == ("drawing", 1, 24)
    assert told[23] == ("drawing", 24, 24)
    assert told[-1] == ("training", 3, 3)


def test_a_folder_with_something_in_it_is_refused_and_kept(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="no empty folder"):
        train(tmp_path, TINY)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_an_interrupted_training_leaves_nothing(tmp_path):
    def interrupt(stage, done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "model", TINY, progress=interrupt)
    assert not list(tmp_path.iterdir())


def test_too_few_pictures_are_refused(tmp_path):
    with pytest.raises(OptionError, match="no batch of 32"):
        train(tmp_path / "model", Recipe(images=20))


@pytest.mark.parametrize(("drop", "missing"), [(0, (0,)), (1, (0, 1)), (2, (0, 0, 1, 2))])
def test_half_of_the_creatures_are_whole(drop, missing):
    assert Recipe(drop=drop).missing == missing


@pytest.mark.parametrize(
    ("net", "variant"), [("cnn", None), ("cnn", "group"), ("cnn", "layer"), ("vit", "cnn"), ("vit", "own")]
)
def test_weights_come_from_the_seed(net, variant):
    first, again, other = (fresh_net(Recipe(net=net, variant=variant, seed=seed)) for seed in (3, 3, 4))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))


def test_the_stem_of_the_transformer_stays_as_it_was(tmp_path):
    train(tmp_path / "vit", replace(SHORT, net="vit"), threads=1)
    bundled, state = (
        load_file(path / "weights.safetensors")
        for path in (files("whence.models.bundled") / "creatures", tmp_path / "vit")
    )
    stem = {name: value for name, value in state.items() if name.startswith("stem.")}
    assert len(stem) > 20
    assert all(torch.equal(value, bundled[name.removeprefix("stem.")]) for name, value in stem.items())
    assert (state["positions"] != fresh_net(replace(SHORT, net="vit")).state_dict()["positions"].half()).any()


def test_a_teacher_changes_what_is_learnt(tmp_path):
    nets = {}
    for name, teacher in (("alone", None), ("taught", "creatures")):
        train(tmp_path / name, replace(SHORT, teacher=teacher), threads=1)
        nets[name] = load_file(tmp_path / name / "weights.safetensors")["head.bias"]
    assert not torch.equal(nets["alone"], nets["taught"])


@pytest.mark.parametrize(
    ("changed", "error", "words"),
    [
        ({"net": "cmm"}, OptionError, "no net 'cmm': there are: cnn, vit"),
        ({"variant": "own"}, ModelError, "no norm 'own'"),
        ({"net": "vit", "variant": "group"}, ModelError, "no stem 'group'"),
        ({"teacher": "nobody"}, ModelError, "'nobody'"),
    ],
)
def test_a_net_that_cannot_be_is_refused(tmp_path, changed, error, words):
    with pytest.raises(error, match=words):
        train(tmp_path / "model", replace(SHORT, **changed))
    assert not list(tmp_path.iterdir())


def test_pictures_are_normalised():
    pixels = torch.tensor([0, 255], dtype=torch.uint8)[:, None, None, None].expand(2, 64, 64, 3)
    black, white = normalised(pixels)
    assert (black == -1).all()
    assert (white == 1).all()


def test_the_score_of_an_oracle_and_of_a_constant(unchecked):
    known = {
        creature.pixels.tobytes(): creature.label for m in range(3) for creature in draw_many(40, 9, missing=(m,))
    }

    def oracle(pixels):
        return torch.nn.functional.one_hot(torch.tensor([known[picture.tobytes()] for picture in pixels]), 9).float()

    told = score(oracle, 40, 9)
    assert (told.whole, told.one_missing, told.two_missing) == (1, 1, 1)
    constant = score(lambda pixels: torch.eye(9)[[4] * len(pixels)], 40, 9)
    labels = np.array([creature.label for creature in draw_many(40, 9)])
    assert constant.whole == pytest.approx(np.mean(labels == 4))
    assert constant.classes[4] == 1


def test_no_creatures_cannot_be_scored():
    with pytest.raises(OptionError, match="1 or more"):
        score(lambda pixels: torch.zeros(len(pixels), 9), 0)


def test_the_bundled_model_knows_the_creatures(unchecked):
    folder = files("whence.models.bundled") / "creatures"
    assert (folder / "weights.safetensors").stat().st_size < 500_000
    net = loaded(folder)

    def predict(pixels):
        with torch.inference_mode():
            return net(normalised(torch.from_numpy(pixels))).softmax(1)

    fresh = list(draw_many(1000, seed=2024))
    guesses = predict(np.stack([creature.pixels for creature in fresh])).argmax(1)
    right = guesses == torch.tensor([creature.label for creature in fresh])
    assert right.double().mean() >= 0.98
    told = score(predict, 100, seed=2025)
    assert told.one_missing >= 0.94
    assert told.two_missing >= 0.88
