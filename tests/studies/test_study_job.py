"""The job: what decides its fingerprint, its way to a file and back, and in what two of them differ."""

import json
import random
from dataclasses import fields, replace
from pathlib import Path

import pytest

from core_samples import net, pictures, plan
from whence.errors import ModelError, OutputError
from whence.models.load import load_model
from whence.pictures.preprocess import Preprocess
from whence.studies.job import FILE, Cell, Job, ModelEntry, PictureEntry, difference

MODEL = ModelEntry("net", "spec", None, "f" * 64, "p", "softmax", "float32", (3, 8, 8), ("ant", "bee"))
JOB = Job(
    root=Path("here"), pictures=(PictureEntry("a.png", "0" * 64, "ant"), PictureEntry("b.png", "1" * 64)),
    models=(MODEL,), cells=(Cell(0, "gradient", "gradient"),), metrics=("deletion",), judges=False, target=None,
    seed=0, bits=None, device="cpu", batch=2, shard=2, threads=1, maps="float32",
    versions={"whence": "1", "torch": "2"},
)  # fmt: skip
# For each field of a job others that are another job.
OTHER = {
    "pictures": [
        JOB.pictures[:1],
        JOB.pictures[::-1],
        (replace(JOB.pictures[0], name="c.png"), JOB.pictures[1]),
        (replace(JOB.pictures[0], sha256="2" * 64), JOB.pictures[1]),
        (replace(JOB.pictures[0], truth="bee"), JOB.pictures[1]),
    ],
    "models": [
        (MODEL, MODEL),
        *(
            (replace(MODEL, **changed),)
            for changed in (
                {"name": "other"},
                {"fingerprint": "e" * 64},
                {"preprocessing": "q"},
                {"activation": "sigmoid"},
                {"precision": "bfloat16"},
                {"input": (3, 8, 9)},
                {"labels": ("ant", "cat")},
                {"labels": None},
            )
        ),
    ],
    "cells": [
        (),
        (Cell(1, "gradient", "gradient"),),
        (Cell(0, "gradient", "gradient:x"),),
        (Cell(0, "other", "gradient"),),
    ],
    "metrics": [(), ("deletion", "insertion")],
    "judges": [True],
    "target": ["truth", "0"],
    "seed": [1],
    "bits": [12],
    "device": ["cuda"],
    "batch": [1],
    "shard": [1],
    "threads": [2],
    "maps": ["float16", "none"],
    "versions": [{"whence": "1", "torch": "3"}, {"whence": "1"}],
}
SAME = {
    "root": Path("elsewhere"),
    "trust": True,
    "models": (replace(MODEL, spec="elsewhere", weights="w.safetensors"),),
}
CHANGES = [(name, value) for name, values in OTHER.items() for value in values]


def test_every_field_of_a_job_decides_its_rows_or_is_named_here():
    assert {field.name for field in fields(Job)} == OTHER.keys() | {"root", "trust"}
    assert {field.name for field in fields(ModelEntry)} == {
        "name", "spec", "weights", "fingerprint", "preprocessing", "activation", "precision", "input", "labels"
    }  # fmt: skip


@pytest.mark.parametrize(("name", "value"), CHANGES)
def test_what_decides_the_rows_is_in_the_fingerprint(name, value):
    other = replace(JOB, **{name: value})
    assert other.fingerprint != JOB.fingerprint
    assert difference(other, JOB) != "nothing else"


@pytest.mark.parametrize("name", SAME)
def test_where_things_lie_is_not_in_the_fingerprint(name):
    other = replace(JOB, **{name: SAME[name]})
    assert other.fingerprint == JOB.fingerprint
    assert difference(other, JOB) == "nothing else"


def test_the_order_of_a_table_is_not_in_the_fingerprint():
    assert replace(JOB, versions={"torch": "2", "whence": "1"}).fingerprint == JOB.fingerprint


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"pictures": JOB.pictures[:1]}, "2 pictures, not all of which are the 1 asked for"),
        ({"pictures": (replace(JOB.pictures[0], truth="bee"), JOB.pictures[1])}, "with other true classes"),
        ({"models": (replace(MODEL, fingerprint="e" * 64),)}, "the models net, and net with other weights is"),
        ({"models": (replace(MODEL, precision="float16", labels=None),)}, "net with other precision and labels is"),
        ({"models": (MODEL, replace(MODEL, name="two"))}, "the models net, and net and two is"),
        ({"cells": (Cell(0, "saliency", "gradient"),)}, "gradient, and saliency is asked"),
        ({"cells": (Cell(0, "rise", "rise:samples=9"),)}, "gradient, and rise:samples=9 is asked"),
        ({"seed": 7}, "seed 0, and 7 is asked"),
        ({"target": "truth"}, "target None, and truth is asked"),
        ({"maps": "none"}, "maps float32, and none is asked"),
    ],
)
def test_the_difference_names_what_was_there_and_what_is_asked(change, said):
    assert said in difference(replace(JOB, **change), JOB)


def test_a_job_comes_back_from_its_file(tmp_path):
    odd = replace(JOB, pictures=(PictureEntry("é/\udcff.png", "0" * 64), *JOB.pictures), target="a - b", bits=12)
    for job in (JOB, odd, replace(JOB, models=(replace(MODEL, labels=None),), trust=True)):
        (tmp_path / FILE).write_text(job.text(), encoding="utf-8")
        assert Job.load(tmp_path) == job
        assert Job.load(str(tmp_path)).fingerprint == job.fingerprint


def test_a_planned_job_comes_back_from_its_file(tmp_path):
    job = plan(pictures(tmp_path / "p"), net(), net(1, 20), methods=["gradient", "grad-cam"], metrics=["sparseness"])
    (tmp_path / FILE).write_text(job.text(), encoding="utf-8")
    assert Job.load(tmp_path) == job


def test_every_value_of_a_file_that_decides_rows_is_guarded(tmp_path):
    """Changed at random places, a job is refused or says the same."""
    rng = random.Random(0)
    text = JOB.text()
    for place in rng.sample(range(len(text)), 120):
        changed = text[:place] + rng.choice('0a"]') + text[place + 1 :]
        (tmp_path / FILE).write_text(changed, encoding="utf-8")
        try:
            found = Job.load(tmp_path)
        except OutputError:
            continue
        assert found.fingerprint == JOB.fingerprint


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", "{}", '{"schema": 1}', "\udcff"])
def test_a_file_that_is_no_job_is_one_sentence(tmp_path, text):
    (tmp_path / FILE).write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(OutputError, match="cannot be read"):
        Job.load(tmp_path)


@pytest.mark.parametrize("name", [*json.loads(JOB.text())])
def test_a_file_without_one_of_its_values_is_refused(tmp_path, name):
    values = json.loads(JOB.text())
    del values[name]
    (tmp_path / FILE).write_text(json.dumps(values))
    with pytest.raises(OutputError, match="cannot be read"):
        Job.load(tmp_path)


def test_a_file_of_another_version_is_refused(tmp_path):
    values = {**json.loads(JOB.text()), "schema": 99}
    del values["batch"]
    (tmp_path / FILE).write_text(json.dumps(values))
    with pytest.raises(OutputError, match=r"of another version of whence \(its schema is 99, and 1 is read here\)"):
        Job.load(tmp_path)


def test_a_file_that_was_changed_is_refused(tmp_path):
    values = json.loads(JOB.text())
    values["seed"] = 1
    (tmp_path / FILE).write_text(json.dumps(values))
    with pytest.raises(OutputError, match="was changed after the study began"):
        Job.load(tmp_path)


def test_a_folder_without_a_job_is_no_study(tmp_path):
    with pytest.raises(OutputError, match="holds no study: name a folder that `whence study run` made"):
        Job.load(tmp_path)


@pytest.mark.parametrize(("count", "shard"), [(1, 1), (7, 3), (6, 3), (5, 100)])
def test_the_shards_hold_each_picture_once(count, shard):
    job = replace(JOB, pictures=tuple(PictureEntry(f"{i}.png", "0") for i in range(count)), shard=shard)
    assert [number for one in job.shards for number in job.slice(one)] == list(range(count))
    assert all(0 < len(job.slice(one)) <= shard for one in job.shards)


def test_models_are_loaded_again_as_they_were():
    made = load_model("creatures")
    entry = ModelEntry(
        "creatures~2", "creatures", None, made.fingerprint, made.preprocessing, "softmax", "bfloat16", made.input,
        made.labels,
    )  # fmt: skip
    (found,) = replace(JOB, models=(entry,)).load_models()
    assert (found.name, found.precision, found.fingerprint) == ("creatures~2", "bfloat16", made.fingerprint)
    for changed in (
        {"fingerprint": "0" * 64},
        {"preprocessing": "other"},
        {"labels": made.labels[::-1]},
        {"activation": "sigmoid"},
    ):
        with pytest.raises(ModelError, match="creatures is another model than the study began with"):
            replace(JOB, models=(replace(entry, **changed),)).load_models()


def test_a_preprocessing_prints_itself_in_one_line_without_addresses():
    assert net().preprocessing == repr(Preprocess(resize=(16, 16), mean=(0.5,), std=(0.25,)))
    assert net(preprocess=lambda image: image).preprocessing == net(preprocess=lambda image: image).preprocessing
    assert " at 0x" not in net(preprocess=lambda image: image).preprocessing
    assert net(preprocess=None).preprocessing == "None"
