"""On a GPU every method gives what it gives on the CPU, in half precision nearly so, and touches nothing."""

import json

import pytest
import torch
from torch import nn

import whence
from small_nets import tiny_options
from whence.cli import run
from whence.creatures import draw
from whence.creatures.files import write
from whence.errors import UnsupportedError
from whence.models.session import move, opened

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
METHODS = whence.methods.names()
SPECS = ["torchvision:resnet18", "torchvision:mobilenet_v2", "torchvision:convnext_tiny", "torchvision:swin_t"]


@pytest.fixture(scope="module", params=SPECS)
def pair(request):
    """The same model on both devices, in float64, where rounding hides nothing."""
    made = [whence.load_model(request.param, weights="random", device=device) for device in ("cpu", "cuda")]
    return [whence.Classifier(model.module.double(), model.preprocess, model.labels) for model in made]


def inputs(count=2, side=96, dtype=torch.float64):
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(0), dtype=dtype)


def explained(model, x, method):
    """Explain, or skip where the method is none for the model."""
    try:
        return whence.attribute(model, x, method, target=3, **tiny_options(whence.methods.facts(method)))
    except UnsupportedError as error:
        pytest.skip(str(error))


def relative(a, b):
    return float((a.cpu().double() - b.cpu().double()).abs().max() / b.abs().max())


@pytest.mark.parametrize("method", METHODS)
def test_the_gpu_s_map_is_the_cpu_s(pair, method):
    here, there = (explained(model, inputs(), method) for model in pair)
    assert there.values.is_cuda
    assert there.layer == here.layer
    assert relative(there.values, here.values) < 1e-9
    assert relative(there.heatmap(), here.heatmap()) < 1e-9


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_autocast_is_near(method, precision):
    """The measured deviation of half precision, with room: 8 bits of mantissa through some fifty layers."""
    model = whence.load_model("torchvision:resnet18", weights="random", device="cuda")
    full = explained(model, inputs(dtype=torch.float32), method)
    model.precision = precision
    half = explained(model, inputs(dtype=torch.float32), method)
    assert half.values.dtype == torch.float32
    a, b = half.heatmap().flatten(1), full.heatmap().flatten(1)
    assert torch.cosine_similarity(a, b).min() > 0.97


@pytest.mark.parametrize("method", METHODS)
def test_a_model_of_halves_is_explained(method):
    model = whence.load_model("torchvision:resnet18", weights="random", device="cuda")
    half = whence.Classifier(model.module.half())
    made = explained(half, inputs(), method)
    assert made.values.dtype == torch.float32
    assert made.values.isfinite().all()


def test_a_layer_before_an_in_place_operation_gives_its_own_values_there_too():
    def net(inplace):
        layers = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.ReLU(inplace), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
        )
        for p in layers.parameters():
            p.data.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
        return whence.Classifier(layers.cuda().double())

    a, b = (whence.attribute(net(inplace), inputs(), "grad-cam", layer="0").values for inplace in (True, False))
    assert torch.equal(a, b)
    assert a.min() < 0


def test_the_generators_of_the_gpu_are_untouched():
    model = whence.Classifier(
        nn.Sequential(nn.Conv2d(3, 8, 3), nn.Dropout(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).cuda()
    )
    before = torch.cuda.get_rng_state()
    whence.attribute(model, inputs(), "gradient")
    assert torch.equal(before, torch.cuda.get_rng_state())


def test_a_replay_is_a_full_run(pair):
    model = pair[1]
    x = move(model, inputs())
    with opened(model, names=["a", "b"]) as session:
        layer = session.catalogue(x).chosen
        replay = session.replay(x, layer)
        rows = torch.tensor([1, 0, 1])
        out = session.replayed(replay, replay.activation[rows.cuda()], rows)
        full = session.run(x)
    assert not replay.plan.reason
    assert relative(out, full[rows.cuda()]) < 1e-9


def test_explain_and_the_command_line(tmp_path):
    model = whence.load_model("creatures", device="cuda")
    on_gpu, on_cpu = (whence.explain(m, draw(0).pixels) for m in (model, whence.load_model("creatures")))
    assert not on_gpu.map.is_cuda
    assert relative(on_gpu.map, on_cpu.map) < 1e-3
    write(tmp_path / "drawn", 2, 0)
    for precision in ("float32", "bfloat16"):
        out = tmp_path / precision
        command = [
            "explain",
            str(tmp_path / "drawn"),
            "--device",
            "cuda",
            "--precision",
            precision,
            "--out",
            str(out),
        ]
        assert run(command) == 0
        assert json.loads((out / "result.json").read_text())["pictures"][1]["status"] == "ok"


def test_a_batch_on_the_gpu_gives_what_single_pictures_give(pair):
    x = inputs(3)
    together = whence.attribute(pair[1], x, "grad-cam", target=[1, 2, 3])
    for i in range(3):
        alone = whence.attribute(pair[1], x[i : i + 1], "grad-cam", target=i + 1)
        assert relative(together.values[i : i + 1], alone.values) < 1e-9
