"""run(): from a folder to a study in one call."""

import os

import pytest

from core_samples import net, pictures, plan, table
from whence import studies
from whence.errors import MissingExtraError, OptionError, OutputError, PictureError, UnknownNameError, WhenceError
from whence.studies.shard import Worker
from whence.studies.tables import UNSTEADY


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return pictures(tmp_path_factory.mktemp("starting") / "p", 5)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def test_a_classifier_in_memory_is_explained(root, out):
    model = net()
    told = []
    study = studies.run(root, model, out, methods=["gradient", "grad-cam"], metrics="deletion:grid=4", shard=2,
                        batch=2, progress=lambda *said: told.append(said))  # fmt: skip
    assert study.complete
    assert study.folder == out
    job = plan(root, model, methods=["gradient", "grad-cam"], metrics=["deletion:grid=4"], shard=2, batch=2)
    assert study.job == job
    rows = study.table()
    first = Worker(job, [model]).explain(0)
    plain = [name for name in rows.column_names if name not in UNSTEADY]
    assert rows.select(plain).slice(0, 4).to_pylist() == first.select(plain).to_pylist()
    assert (out / "report.html").is_file()
    assert {stage for stage, _, _ in told} >= {"hashing", "explaining"}


def test_a_second_run_does_nothing_again(root, out):
    model = net()
    first = studies.run(root, model, out, methods="gradient", shard=2)
    before = {path.name: path.stat().st_mtime_ns for path in (out / "parts").glob("*.parquet")}
    calls = []
    model.module.register_forward_pre_hook(lambda *_: calls.append(1))
    again = studies.run(root, model, out, methods="gradient", shard=2)
    assert {path.name: path.stat().st_mtime_ns for path in (out / "parts").glob("*.parquet")} == before
    assert again.digest() == first.digest()
    assert not calls


def test_specs_and_classifiers_may_stand_beside_each_other(root, out, unchecked):
    study = studies.run(root, ["creatures", net(name="creatures")], str(out), methods=("gradient",), batch=5)
    assert [model.name for model in study.job.models] == ["creatures", "creatures~2"]
    assert study.table().num_rows == 10


def test_a_table_of_the_truth_is_read(root, out, tmp_path):
    truth = table(tmp_path, {f"{i:03d}.png": "cat" for i in range(5)})
    study = studies.run(root, [net()], out, methods="gradient", truth=os.fspath(truth), target="truth")
    assert study.table()["target_label"].to_pylist() == ["cat"] * 5


@pytest.mark.parametrize("engine", ["processes", "ray"])
def test_a_classifier_in_memory_is_for_this_process_alone(root, out, engine):
    with pytest.raises(OptionError, match=f"engine='{engine}' loads models in other processes"):
        studies.run(root, net(), out, engine=engine)
    assert not out.exists()


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        ({"methods": "grad-cm"}, UnknownNameError),
        ({"methods": []}, OptionError),
        ({"metrics": ["pointing"]}, OptionError),
        ({"target": "zebra"}, WhenceError),
        ({"target": "truth"}, OptionError),
        ({"engine": "steam"}, WhenceError),
        ({"method": "gradient"}, OptionError),
        ({"workers": 0}, OptionError),
        ({"loaders": -1}, OptionError),
        ({"bits": 40}, OptionError),
        ({"truth": "missing.csv"}, PictureError),
    ],
)
def test_what_is_wrong_leaves_no_folder(root, out, asked, error):
    with pytest.raises(error):
        studies.run(root, net(), out, **asked)
    assert not out.exists()


def test_a_wrong_folder_or_model_leaves_no_folder(root, out):
    with pytest.raises(PictureError, match="there is no folder"):
        studies.run(root / "missing", net(), out)
    with pytest.raises(WhenceError, match="names no model"):
        studies.run(root, "no-such-model", out)
    with pytest.raises(OptionError, match="no model is given"):
        studies.run(root, [], out)
    assert not out.exists()


def test_the_folder_of_another_study_is_left_as_it_was(root, out):
    first = studies.run(root, net(), out, methods="gradient")
    digest, text = first.digest(), (out / "job.json").read_text()
    with pytest.raises(OutputError, match="seed 0, and 1 is asked"):
        studies.run(root, net(), out, methods="gradient", seed=1)
    assert (out / "job.json").read_text() == text
    assert studies.open(out).digest() == digest


def test_the_public_names_are_found_and_no_others():
    assert {name: getattr(studies, name).__name__ for name in studies.__all__} == {
        name: name for name in ("Job", "Study", "Worker", "open", "plan", "run", "work")
    }
    with pytest.raises(AttributeError, match="no attribute 'walk'"):
        _ = studies.walk


def test_without_pyarrow_the_extra_is_named(monkeypatch):
    import importlib

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'whence\[study\]'"):
        importlib.reload(studies)
