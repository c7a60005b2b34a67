"""One job, the same rows from every engine: this process, several, Ray; what dies is replaced on each."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest

from engine_samples import RAY, actors, expected, found, pictures, plan, program, workers
from whence.errors import OptionError, UnknownNameError
from whence.models.load import load_model
from whence.studies.running import carry_out
from whence.studies.study import open as opened

pytest.importorskip("ray")


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    return plan(pictures(tmp_path_factory.mktemp("engines") / "pictures", 12), methods=["gradient", "grad-cam"])


@pytest.fixture(scope="module")
def digest(job, tmp_path_factory):
    """What one process makes, which is what the pure function makes."""
    out = tmp_path_factory.mktemp("digest") / "out"
    told = []
    summary = carry_out(job, out, models=[load_model("creatures")], progress=lambda *said: told.append(said))
    assert (summary.done, summary.pictures, summary.rows, summary.failed) == (3, 12, 24, 0)
    assert not summary.interrupted
    assert told[0] == ("explaining", 0, 12)
    assert told[-1] == ("explaining", 12, 12)
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)
    assert found(out) == expected(job)
    return opened(out).digest()


@pytest.fixture(scope="module")
def deadly(tmp_path_factory):
    """A job whose second picture kills whoever explains it."""
    return plan(pictures(tmp_path_factory.mktemp("deadly") / "pictures", 3, red=[1]), "deadly", shard=2)


@pytest.fixture(scope="module")
def cluster():
    """A Ray that was there before."""
    import ray

    os.environ.update(RAY)
    ray.init(address="local", num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    yield ray.get_runtime_context().gcs_address
    ray.shutdown()


def test_two_processes_make_what_one_makes(job, digest, tmp_path):
    summary = carry_out(job, tmp_path / "out", engine="processes", workers=2)
    assert (summary.done, summary.deaths, summary.failed) == (3, 0, 0)
    assert opened(tmp_path / "out").digest() == digest
    assert not workers(os.getpid())


def test_pictures_decoded_beside_the_model_make_the_same(job, digest, tmp_path):
    carry_out(job, tmp_path / "out", loaders=1, models=[load_model("creatures")])
    assert opened(tmp_path / "out").digest() == digest


def test_a_ray_that_starts_by_itself_makes_what_one_process_makes(job, digest, tmp_path):
    """In a program without a guard, whose standard output holds nothing of Ray's."""
    done = program(tmp_path, job, tmp_path / "out", engine="ray", workers=2)
    out, err = done.communicate()
    assert done.returncode == 0, err
    assert re.fullmatch(r"Summary\(done=3, .*failed=0, interrupted=False, deaths=0, .*\)\n", out)
    assert opened(tmp_path / "out").digest() == digest


def test_a_cluster_is_joined_by_its_address(job, digest, tmp_path, cluster):
    done = program(tmp_path, job, tmp_path / "out", engine="ray", ray_address=cluster)
    out, err = done.communicate()
    assert done.returncode == 0, err
    assert "Summary(done=3" in out
    assert opened(tmp_path / "out").digest() == digest


def test_an_actor_that_is_killed_is_replaced(job, digest, tmp_path, cluster):
    killed = []

    def kill(stage, done, total):
        if done and not killed:
            killed.extend(actors(os.getpid()))
            for process in killed:
                os.kill(process, signal.SIGKILL)

    carry_out(job, tmp_path / "out", engine="ray", workers=1, progress=kill)
    assert killed
    assert opened(tmp_path / "out").digest() == digest


@pytest.mark.parametrize("engine", ["processes", "ray"])
def test_a_picture_that_kills_is_isolated_and_named(deadly, tmp_path, engine, request, capfd):
    if engine == "ray":
        request.getfixturevalue("cluster")
    summary = carry_out(deadly, tmp_path, engine=engine, workers=1)
    # Twice the shard, three times the picture alone.
    assert (summary.done, summary.rows, summary.failed, summary.deaths) == (2, 3, 1, 5)
    assert found(tmp_path) == expected(deadly, holes=[1])
    (failed,) = opened(tmp_path).failed.to_pylist()
    assert (failed["picture"], failed["status"]) == ("001.png", "worker died")
    assert capfd.readouterr().out == ""


def test_a_picture_that_kills_the_whole_program_is_isolated_by_the_next_run(deadly, tmp_path):
    out = tmp_path / "out"
    first = program(tmp_path, deadly, out)
    first.communicate(timeout=120)
    assert first.returncode == -signal.SIGKILL
    assert carry_out(deadly, out, models=deadly.load_models()).failed == 1
    assert found(out) == expected(deadly, holes=[1])


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("127.0.0.1:1", "no Ray cluster can be joined at 127.0.0.1:1 .*refused.*ray start --head"),
        ("nowhere", "no Ray cluster can be joined at nowhere"),
        ("ray://127.0.0.1:10001", "only HOST:PORT or auto"),
    ],
)
def test_an_address_where_no_ray_is_is_one_sentence(job, tmp_path, address, said):
    """Before it, no Ray is there in this process."""
    import ray

    ray.shutdown()
    start = time.monotonic()
    with pytest.raises(OptionError, match=said) as caught:
        carry_out(job, tmp_path / "out", engine="ray", ray_address=address)
    assert time.monotonic() - start < 30
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_without_ray_it_is_said_what_to_install(job, tmp_path):
    code = (
        "import sys; sys.modules['ray'] = None\n"
        "from whence.errors import MissingExtraError\n"
        "try:\n    import whence.studies.engines.ray\n"
        "except MissingExtraError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'whence[ray]'" in done.stdout


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"engine": "rey"}, UnknownNameError, "did you mean 'ray'"),
        ({"workers": 0}, OptionError, "workers=0: give 1 or more"),
        ({"loaders": -1}, OptionError, "loaders=-1: give 0 or more"),
    ],
)
def test_what_is_no_engine_or_number_is_refused(job, tmp_path, options, error, said):
    with pytest.raises(error, match=said):
        carry_out(job, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()
