"""From a folder, models and methods to a job; what is wrong with them is refused before anything is done."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from core_samples import LABELS, net, pictures, plan, table
from small_nets import SmallViT, drawn
from whence.errors import ModelError, OptionError, PictureError, UnknownLayerError, UnknownNameError, WhenceError
from whence.pictures.preprocess import Preprocess
from whence.studies.job import Cell
from whence.studies.planning import Given, Settings, passes, planned


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return pictures(tmp_path_factory.mktemp("planning") / "p", 3)


def test_a_job_holds_what_was_asked(root):
    first, second = net(), net(1, 20, name="other", labels=None, activation="sigmoid", precision="bfloat16")
    job = plan(root, first, second, methods=["gradient", "grad-cam:relu=true"], metrics=["deletion:grid=4"], seed=3)
    assert [entry.name for entry in job.pictures] == ["000.png", "001.png", "002.png"]
    assert [(one.name, one.fingerprint, one.input) for one in job.models] == [
        ("net", first.fingerprint, (3, 16, 16)), ("other", second.fingerprint, (3, 20, 20))
    ]  # fmt: skip
    assert [(one.labels, one.activation, one.precision) for one in job.models] == [
        (LABELS, "softmax", "float32"), (None, "sigmoid", "bfloat16")
    ]  # fmt: skip
    assert job.cells == tuple(
        cell
        for model in (0, 1)
        for cell in (
            Cell(model, "gradient", "gradient"),
            Cell(model, "grad-cam:relu=true", "grad-cam:relu=true,layer=relu#1"),
        )
    )
    assert job.methods == ("gradient", "grad-cam:relu=true")
    assert job.metrics == ("deletion:grid=4",)
    assert (job.seed, job.batch, job.shard, job.threads, job.device, job.trust) == (3, 4, 6, 1, "cpu", False)
    assert job.versions["torch"] == torch.__version__


@pytest.mark.parametrize(("device", "batch"), [("cpu", 32), ("cuda", 128)])
def test_a_gpu_gets_larger_batches(root, monkeypatch, device, batch):
    model = net()
    monkeypatch.setattr(type(model), "like", SimpleNamespace(device=torch.device(device)))
    for asked, expected in ((None, batch), (8, 8)):
        job = planned(root, [(Given("net"), model)], Settings(methods=["gradient"], batch=asked))
        assert (job.device, job.batch) == (device, expected)


def test_the_same_again_is_the_same_job_wherever_it_is_asked_from(root, monkeypatch):
    job = plan(root)
    assert plan(root) == job
    monkeypatch.chdir(root.parent)
    beside = plan(Path(root.name))
    assert beside == job
    assert beside.root == root
    monkeypatch.chdir(root)
    assert os.path.samefile(plan(Path(".")).root, root)
    assert plan(Path(".")).fingerprint == job.fingerprint


def test_where_a_model_was_found_is_no_part_of_the_fingerprint(root):
    model = net()
    jobs = [planned(root, [(Given(spec, weights), model)], Settings()) for spec, weights in (("a", None), ("b", "w"))]
    assert jobs[0].fingerprint == jobs[1].fingerprint
    assert [(job.models[0].spec, job.models[0].weights) for job in jobs] == [("a", None), ("b", "w")]


def test_the_seed_goes_to_the_methods_that_draw(root):
    job = plan(root, methods=["smoothgrad:samples=2", "smoothgrad:samples=2,seed=9"], seed=5)
    assert [cell.request for cell in job.cells] == ["smoothgrad:seed=5,samples=2", "smoothgrad:seed=9,samples=2"]


def test_what_is_asked_twice_in_other_words_is_done_once(root):
    asked = ["grad-cam:relu=true", "gradient", "grad-cam:relu=True", "gradient"]
    job = plan(root, methods=asked, metrics=["deletion:grid=4", "deletion:grid=4", "deletion:grid=8"])
    assert [cell.method for cell in job.cells] == ["grad-cam:relu=true", "gradient"]
    assert job.metrics == ("deletion:grid=4", "deletion:grid=8")


def test_the_layer_is_chosen_for_each_model_and_one_that_is_named_stays(root):
    transformer = net(net=drawn(SmallViT()), name="vit")
    job = plan(root, net(), transformer, methods=["grad-cam"])
    first, second = (cell.request.partition("layer=")[2] for cell in job.cells)
    assert first == "relu#1"
    assert second.startswith(("blocks", "norm"))
    assert plan(root, methods=["grad-cam:layer=stem"]).cells[0].request == "grad-cam:layer=stem"
    assert plan(root, methods=["grad-cam:layer=stem+down"]).cells[0].request == "grad-cam:layer=stem+down"


def test_models_of_one_name_are_told_apart(root):
    names = ["net", "net", "net~2", "net", "a~b", "a~b"]
    made = [job.name for job in plan(root, *(net(name=name) for name in names)).models]
    assert made == ["net", "net~2", "net~2~2", "net~3", "a~b", "a~b~2"]


@pytest.mark.parametrize(("batch", "method", "shard"), [
    (32, "gradient", 512), (100, "gradient", 500), (700, "gradient", 512), (4, "rise:samples=4000", 4),
    (8, "rise:samples=4000", 4), (4, "rise:samples=20000", 1),
])  # fmt: skip
def test_a_shard_is_whole_batches_of_about_as_much_work(root, batch, method, shard):
    job = plan(root, methods=[method], batch=batch, shard=None)
    assert job.shard == shard
    assert shard % batch == 0 or shard < batch


def test_more_models_and_methods_make_smaller_shards(root):
    wanted = {"methods": ["rise:samples=1000"], "shard": None, "batch": 1}
    one = plan(root, **wanted).shard
    assert plan(root, net(), net(name="two"), **wanted).shard == one // 2
    cost = plan(root, methods=["rise:samples=1000"]).cells[0]
    assert cost.request == "rise:seed=0,samples=1000"


def test_passes_are_what_the_method_says(root):
    from whence.asking import MethodRequest

    assert passes(MethodRequest.read("gradient"), net()) == 2
    assert passes(MethodRequest.read("rise:samples=10"), net()) == 11


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"methods": []}, OptionError, "no method is asked for"),
        ({"methods": ["grad-cm"]}, UnknownNameError, "grad-cam"),
        ({"methods": ["grad-cam:lair=top"]}, OptionError, "layer"),
        ({"methods": ["rise:samples=many"]}, OptionError, "a whole number"),
        ({"metrics": ["deletoin"]}, UnknownNameError, "deletion"),
        ({"metrics": ["deletion:gird=4"]}, OptionError, "grid"),
        ({"metrics": ["pointing"]}, OptionError, "pointing needs the place of the true evidence"),
        ({"batch": 0}, OptionError, "batch=0: give 1 or more"),
        ({"shard": 0}, OptionError, "shard=0: give 1 or more"),
        ({"threads": -1}, OptionError, "threads=-1: give 1 or more"),
        ({"bits": 99}, OptionError, "bits=99"),
        ({"bits": 0}, OptionError, "bits=0"),
        ({"target": "truth"}, OptionError, "not every picture's true class is known"),
    ],
)
def test_what_is_wrong_is_one_sentence(root, settings, error, said):
    with pytest.raises(error, match=said) as found:
        plan(root, **settings)
    assert isinstance(found.value, WhenceError)
    assert "\n" not in str(found.value)


def test_maps_are_of_a_type_that_is_kept(root, unchecked):
    with pytest.raises(OptionError, match="maps='float64': give float32, float16, none"):
        plan(root, maps="float64")


def test_the_truth_may_be_explained_where_all_of_it_is_known(tmp_path):
    root = pictures(tmp_path / "p", 2)
    truth = table(tmp_path, {"000.png": "ant", "001.png": "yak"})
    job = plan(root, truth=truth, target="truth")
    assert [entry.truth for entry in job.pictures] == ["ant", "yak"]
    truth.write_text("file,label\n000.png,ant\n")
    with pytest.raises(OptionError, match="not every picture's true class is known"):
        plan(root, truth=truth, target="truth")


def test_no_model_and_a_model_without_one_size_are_refused(root):
    with pytest.raises(OptionError, match="no model is given"):
        planned(root, [], Settings())
    for preprocess in (None, Preprocess(resize=20), Preprocess()):
        with pytest.raises(ModelError, match="does not state one size of its inputs"):
            plan(root, net(preprocess=preprocess))


def test_judges_need_the_same_classes(root):
    with pytest.raises(ModelError, match="only where they tell the same classes"):
        plan(root, net(), net(name="two", labels=LABELS[::-1]), judges=True, metrics=["deletion:grid=4"])


def test_a_folder_without_pictures_is_refused_here(tmp_path):
    with pytest.raises(PictureError, match="holds no picture"):
        plan(tmp_path)


def test_planning_leaves_the_generator_and_the_threads_as_they_were(root):
    model = net()
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    plan(root, model, methods=["grad-cam", "gradient"], threads=2)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_a_layer_that_does_not_exist_is_met_when_pictures_are_explained(root):
    from whence.studies.shard import Worker

    model = net()
    with pytest.raises(UnknownLayerError, match="nowhere"):
        Worker(plan(root, model, methods=["grad-cam:layer=nowhere"]), [model]).explain(0)
