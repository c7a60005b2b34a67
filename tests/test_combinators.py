"""Combinators: any method, run several times over, through every way to ask for one."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from typer.testing import CliRunner

import whence
from small_nets import Lambda, SmallNet, drawn, pictures, relative
from whence import attribute, cli
from whence.attribution import attribute_all
from whence.cli import app
from whence.errors import NotFiniteError, OptionError, UnknownNameError
from whence.methods.combinators import running
from whence.methods.combinators.noise import UNSIGNED
from whence.methods.guided_backprop import NO_RECTIFIER
from whence.models.classifier import Classifier
from whence.pictures.baselines import make_baseline
from whence.registry import COMBINATORS, METHODS, MethodFacts
from whence.results import Answer, Attribution, Passes, Score

PIXELS = np.random.default_rng(0).integers(0, 255, (70, 80, 3), dtype=np.uint8)
VARIANTS = ("mean", "square", "variance")


def run(method: str, x: Tensor, net: nn.Module | None = None, target: Any = 1, **options: object) -> Attribution:
    return attribute(Classifier(net or drawn(SmallNet())), x, method, target=target, **options)


def noisy(x: Tensor, samples: int, sigma: float, seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    spans = sigma * torch.stack([picture.max() - picture.min() for picture in x]).reshape(-1, 1, 1, 1)
    return [x + spans * torch.randn(x.shape[1:], generator=generator).to(x) for _ in range(samples)]


# noise


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("method", ["grad-cam", "guided-grad-cam", "input-x-gradient"])
def test_noise_is_the_moment_over_noisy_copies(method: str, variant: str) -> None:
    net, x = drawn(SmallNet()), pictures(3)
    maps = torch.stack([run(method, copy, net).values for copy in noisy(x, 5, 0.3, seed=4)])
    expected = {"mean": maps.mean(0), "square": (maps**2).mean(0), "variance": maps.var(0, correction=0)}[variant]
    answer = run(f"noise.{method}", x, net, samples=5, sigma=0.3, variant=variant, seed=4)
    assert expected.abs().max() > 0
    assert relative(answer.values, expected) <= 1e-10
    clean = run(method, x, net)
    assert relative(answer.values, clean.values) > 0.01
    torch.testing.assert_close(answer.score, clean.score)
    assert answer.layer == clean.layer
    assert answer.weights is None
    assert all((UNSIGNED in notes) == (variant != "mean") for notes in answer.notes)


def test_the_variance_of_a_map_that_does_not_change_is_exactly_small() -> None:
    """Streamed moments do not cancel: in float32 a gradient of 1e4 whose variance is 0 leaves nothing."""
    net = Lambda(lambda n, x: 1e4 * n.head(x.mean((2, 3))), head=nn.Linear(3, 5))
    answer = attribute(Classifier(net), pictures().float(), "noise.gradient", target=1, variant="variance")
    assert answer.values.abs().max() == 0


def test_the_class_is_that_of_the_unchanged_picture() -> None:
    """Under much noise the top class of the copies is another one."""
    net, x = drawn(SmallNet()), pictures(6)
    top = net(x).argmax(1)
    copies = noisy(x, 4, 3.0, seed=0)
    assert any((net(copy).argmax(1) != top).any() for copy in copies)
    for method, options in (
        ("noise.grad-cam", {"samples": 4, "sigma": 3.0}),
        ("noise.noise.gradient", {"samples": 4, "sigma": 3.0}),
        ("flips.gradient", {"factors": (-3.0, 0.1)}),
    ):
        free, told = (run(method, x, net, target=t, **options) for t in (None, top.tolist()))
        assert torch.equal(free.values, told.values)
        assert torch.equal(free.target, top)


def test_a_target_is_a_contrast_or_a_callable_there_too() -> None:
    x = pictures()
    a, b, both = (run("noise.gradient", x, target=t, samples=3).values for t in (1, 3, "1 - 3"))
    assert relative(both, a - b) <= 1e-10
    called = run("noise.gradient", x, target=lambda output: output[:, 1] - output[:, 3], samples=3)
    assert relative(called.values, a - b) <= 1e-10
    assert called.target.tolist() == [-1, -1]


@pytest.mark.parametrize("method", ["noise.grad-cam", "flips.gradient", "smoothgrad", "noise.flips.input-x-gradient"])
def test_a_batch_gives_what_single_pictures_give(method: str) -> None:
    net, x = drawn(SmallNet()), pictures(4)
    options = {"samples": 3} if "samples" in METHODS.facts(method).options else {}
    together = run(method, x, net, target=None, **options)
    singles = torch.cat([run(method, x[i : i + 1], net, target=None, **options).values for i in range(4)])
    assert relative(together.values, singles) <= 1e-10


@pytest.mark.parametrize("held", [1, 2, 5, 6, 100])
def test_as_many_run_together_as_a_chunk_holds_and_no_more(held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    net, x = drawn(SmallNet()), pictures(2)
    expected = run("noise.grad-cam", x, net, samples=5)
    monkeypatch.setattr(running, "chunk_size", lambda x: held)
    sizes = []
    handle = net.stem.register_forward_hook(lambda _, inputs, __: sizes.append(len(inputs[0])))
    answer = run("noise.grad-cam", x, net, samples=5)
    handle.remove()
    assert relative(answer.values, expected.values) <= 1e-10
    assert answer.passes == expected.passes
    assert max(sizes) == 2 * min(max(1, held // 2), 5)


def test_noise_takes_no_nonsense() -> None:
    for options in ({"samples": 0}, {"sigma": -0.1}):
        with pytest.raises(OptionError, match=r"samples=0: give at least 1|sigma=-0\.1: give at least 0"):
            run("noise.gradient", pictures(), **options)
    with pytest.raises(OptionError, match="variant='median', expected mean or square or variance"):
        run("noise.gradient", pictures(), variant="median")


def test_an_error_names_the_picture_and_the_session_goes_on() -> None:
    """A net whose gradient is infinite where one picture is exactly 0; both of its copies are of that picture."""
    net = Lambda(lambda n, x: n.head(x.abs().sqrt().mean((2, 3))), head=nn.Linear(3, 5))
    x = pictures(3)
    x[1, 0, 0, 0] = 0
    with pytest.raises(NotFiniteError, match=r"picture 1 of the batch: the gradient"):
        run("noise.gradient", x, drawn(net), samples=2, sigma=0.0)


def test_notes_are_kept_once() -> None:
    layers = {"conv": nn.Conv2d(3, 4, 3), "head": nn.Linear(4, 5)}
    net = drawn(Lambda(lambda n, x: n.head(n.conv(x).tanh().mean((2, 3))), **layers))
    answer = run("noise.guided-backprop", pictures(), net, samples=3)
    assert answer.notes == ((NO_RECTIFIER,), (NO_RECTIFIER,))


def answered(value: Tensor, *notes: tuple[str, ...]) -> Answer:
    """Return an answer without a model."""
    return Answer(value, Score(torch.zeros(len(value)), torch.zeros(len(value), dtype=torch.long)), notes=notes)


def test_a_note_is_kept_where_every_run_of_the_picture_has_it() -> None:
    maps = torch.zeros(2, 1, 1, 1)
    made = running.combined([answered(maps, ("a", "b"), ("b",)), answered(maps, ("b", "c"), ("c",))])
    assert made.notes == (("b",), ())
    assert running.combined([answered(maps), answered(maps, ("a",), ("b",))]).notes == ((), ())
    options = {"steps": 15, "tol": 1e-6}
    assert all("still changed by" in notes[0] for notes in run("integrated-gradients", pictures(), **options).notes)
    assert run("noise.integrated-gradients", pictures(), samples=3, **options).notes == ((), ())


@pytest.mark.parametrize("variant", VARIANTS)
def test_moments_of_maps_in_half_precision_are_carried_in_single_precision(variant: str) -> None:
    """In bfloat16 the mean would stand still where a step is less than 1/256 of it."""
    values = 1 + torch.arange(512).reshape(-1, 1, 1, 1, 1) / 256
    maps = values.bfloat16()
    made = running.combined((answered(one) for one in maps), variant).values
    whole = maps.double()
    expected = {"mean": whole.mean(0), "square": (whole**2).mean(0), "variance": whole.var(0, correction=0)}[variant]
    assert relative(made.double(), expected) <= 1e-5


@pytest.mark.parametrize("method", ["noise.integrated-gradients", "flips.integrated-gradients"])
@pytest.mark.parametrize("several", [False, True])
def test_a_tensor_that_holds_one_entry_a_picture_goes_to_that_picture_s_copies(method: str, several: bool) -> None:
    net, x = drawn(SmallNet()), pictures(3)
    own = pictures(3, seed=5)
    options = {"steps": 3, "tol": None} | ({"samples": 4} if method.startswith("noise") else {})

    def found(rows: slice) -> Tensor:
        baseline = (own[rows], "zeros") if several else own[rows]
        return run(method, x[rows], net, baseline=baseline, **options).values

    singles = torch.cat([found(slice(i, i + 1)) for i in range(3)])
    assert relative(found(slice(None)), singles) <= 1e-10
    shared = run(method, x, net, baseline=own[:1], **options).values
    assert relative(shared[:1], run(method, x[:1], net, baseline=own[:1], **options).values) <= 1e-10


def test_the_maps_of_several_layers_are_combined_each() -> None:
    net, x = drawn(SmallNet()), pictures()
    answer = run("noise.grad-cam", x, net, layer=("relu", "down"), samples=3, seed=2)
    assert list(answer.layers) == ["relu", "down"]
    for layer, values in answer.layers.items():
        assert relative(values, run("noise.grad-cam", x, net, layer=layer, samples=3, seed=2).values) <= 1e-10
    mirrored = run("flips.grad-cam", x, net, layer=("relu", "down"))
    for layer, values in mirrored.layers.items():
        assert relative(values, run("flips.grad-cam", x, net, layer=layer).values) <= 1e-10


# flips


@pytest.mark.parametrize("method", ["grad-cam", "gradient"])
def test_flips_is_the_mean_over_mirrored_pictures_and_contrasts(method: str) -> None:
    net, x = drawn(SmallNet()), pictures(size=(16, 20))
    maps = []
    for factor in (0.9, 1.0, 1.1):
        maps += [run(method, factor * x, net).values, run(method, factor * x.flip(3), net).values.flip(3)]
    answer = run(f"flips.{method}", x, net)
    assert relative(answer.values, torch.stack(maps).mean(0)) <= 1e-10
    assert relative(answer.values, maps[2]) > 0.01
    torch.testing.assert_close(answer.score, run(method, x, net).score)


def test_a_mirrored_picture_has_the_mirrored_map_whatever_the_net() -> None:
    net, x = drawn(SmallNet()), pictures()
    straight, mirrored = run("flips.grad-cam", x, net).values, run("flips.grad-cam", x.flip(3), net).values
    assert relative(mirrored.flip(3), straight) <= 1e-10


def test_the_pictures_are_those_of_grad_cam_s_smoothing() -> None:
    """It mirrors and multiplies the same; it cuts and scales each map to [0, 1] before the mean, we do not."""
    peer = pytest.importorskip("pytorch_grad_cam")
    net, x = drawn(SmallNet()), pictures(1)
    theirs = [t.augment_image(x) for t in peer.GradCAM(net, [net.down]).tta_transforms]
    seen: list[Tensor] = []
    handle = net.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach().clone()))
    run("flips.gradient", x, net)
    handle.remove()
    ours = torch.cat(seen)
    assert len(theirs) == 6
    for picture in theirs:
        assert min(relative(one[None], picture) for one in ours) <= 1e-12


def test_flips_takes_no_factor_of_0() -> None:
    with pytest.raises(OptionError, match="leaves nothing"):
        run("flips.gradient", pictures(), factors=(1.0, 0.0))


# expected


def difference(model: Any, x: Tensor, target: Sequence[Any], *, baseline: str = "zeros", seed: int = 0) -> Answer:
    """Return the picture less a baseline, as a map, and twice that as a part."""
    score = model.score(model.run(x), target)
    values = x - make_baseline(baseline, x, model.pixels, seed=seed)[0]
    return Answer(values, score, residual=score.value, parts={"twice": 2 * values})


def unseeded(model: Any, x: Tensor, target: Sequence[Any], *, baseline: str = "zeros") -> Answer:
    """Return the same, without a seed."""
    return difference(model, x, target, baseline=baseline)


@pytest.fixture
def with_baseline(monkeypatch: pytest.MonkeyPatch) -> None:
    METHODS.names()
    for function in (difference, unseeded):
        facts = MethodFacts(
            name=function.__name__, function=function, title="Difference", family="perturbation", paper="-",
            needs="scores", reduce="sum", show="signed", cost=lambda options, model: Passes(forward=1),
        )  # fmt: skip
        monkeypatch.setitem(METHODS._entries, function.__name__, facts)


@pytest.mark.usefixtures("with_baseline")
def test_expected_is_the_mean_over_baselines_and_draws() -> None:
    model = whence.load_model("creatures")
    x = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    names = ("black", "uniform", "blurred", "uniform")
    answer = attribute(model, x, "expected.difference", target=1, baselines=names, seed=5)
    seeds = (5, 5, 5, 6)
    made = [make_baseline(name, x, model.pixels, seed=s)[0] for name, s in zip(names, seeds, strict=True)]
    assert relative(answer.values, x - torch.stack(made).mean(0)) <= 1e-5
    assert not torch.equal(made[1], made[3])
    assert answer.passes == Passes(forward=8)
    assert dict(answer.options) == {"baselines": names, "seed": 5}
    one = attribute(model, x, "expected.difference", target=1, baselines="black")
    assert torch.allclose(one.values, x - made[0])


@pytest.mark.usefixtures("with_baseline")
@pytest.mark.parametrize("method", ["noise.difference", "flips.difference", "expected.difference"])
def test_extra_maps_are_combined_too_and_what_holds_for_one_run_is_left_out(method: str) -> None:
    answer = run(method, pictures())
    assert relative(answer.parts["twice"], 2 * answer.values) <= 1e-10
    assert answer.residual is None


@pytest.mark.usefixtures("with_baseline")
def test_expected_refuses_what_has_no_baseline_or_no_draw() -> None:
    with pytest.raises(OptionError, match=r"grad-cam has no option 'baseline'.*methods that have it: .*difference"):
        METHODS.facts("expected.grad-cam")
    with pytest.raises(OptionError, match="has no option 'baseline'"):
        attribute(drawn(SmallNet()), pictures(), "expected.difference", target=1, baseline="zeros")
    for baselines, said in ((("zeros", "zeros"), "give each once"), ((), "expected a name")):
        with pytest.raises(OptionError, match=said):
            run("expected.unseeded", pictures(), baselines=baselines)
    with pytest.raises(UnknownNameError, match="no baseline 'blured': did you mean 'blurred'"):
        run("expected.difference", pictures(), baselines=("blured",))


@pytest.mark.parametrize("method", [n for n in METHODS.names() if "baseline" in METHODS.facts(n).options])
def test_every_method_with_a_baseline_runs_over_several(method: str) -> None:
    net, x = drawn(SmallNet()), pictures()
    own = {name: 3 for name in ("samples", "steps", "iterations") if name in METHODS.facts(method).options}
    maps = [run(method, x, net, baseline=name, **own).values for name in ("zeros", "blurred")]
    assert relative(run(f"expected.{method}", x, net, **own).values, torch.stack(maps).mean(0)) <= 1e-8


# Facts and options


def test_the_options_are_those_of_both() -> None:
    facts = METHODS.facts("noise.grad-cam")
    assert set(facts.options) == {"layer", "relu", "samples", "sigma", "variant", "seed"}
    assert facts.title == "Noise tunnel of Grad-CAM"
    assert facts.sentence == "Mean, mean square or variance of a method's maps over noisy copies of the picture."
    assert (facts.reduce, facts.show, facts.needs) == ("sum", "positive", "layer")


def test_an_option_of_both_is_the_combinator_s_and_the_inner_one_stands_behind_its_method_s_name() -> None:
    facts = METHODS.facts("noise.smoothgrad")
    defaults = {name: option.default for name, option in facts.options.items()}
    assert defaults == {
        "samples": 20, "sigma": 0.15, "variant": "mean", "seed": 0,
        "smoothgrad.samples": 50, "smoothgrad.sigma": 0.15, "smoothgrad.variant": "mean",
    }  # fmt: skip
    net, x = drawn(SmallNet()), pictures()
    options = {"samples": 2, "sigma": 0.4, "smoothgrad.samples": 3, "smoothgrad.variant": "square", "seed": 9}
    answer = run("noise.smoothgrad", x, net, **options)
    inner = [run("smoothgrad", copy, net, samples=3, variant="square", seed=9) for copy in noisy(x, 2, 0.4, seed=9)]
    assert relative(answer.values, torch.stack([one.values for one in inner]).mean(0)) <= 1e-10
    with pytest.raises(OptionError, match=r"noise\.smoothgrad: smoothgrad\.samples='many', expected a whole number"):
        facts.checked({"smoothgrad.samples": "many"})


@pytest.mark.parametrize("method", ["noise.grad-cam", "flips.guided-grad-cam", "noise.flips.gradient", "smoothgrad"])
def test_the_plan_of_cost_is_what_is_counted(method: str) -> None:
    model, x = whence.load_model("creatures"), torch.zeros(3, 3, 64, 64)
    facts = METHODS.facts(method)
    options = {"samples": 4} if "samples" in facts.options else {}
    plan = facts.cost(facts.checked(options), model)
    assert attribute(model, x, method, **options).passes == Passes(
        3 * plan.forward, 3 * plan.backward, 3 * plan.partial
    )


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("expected.integrated-gradients", {"baselines": ("zeros", "uniform", "black"), "draws": 4, "steps": 3}),
        ("noise.expected.integrated-gradients", {"baselines": ("uniform",), "steps": 3, "samples": 2}),
        ("expected.occlusion", {"baselines": ("zeros", "black"), "window": 32}),
    ],
)
def test_the_plan_of_cost_over_baselines_counts_each_as_it_is(method: str, options: dict[str, object]) -> None:
    """A random baseline takes several draws."""
    model, x = whence.load_model("creatures"), pictures(2, size=64).float()
    facts = METHODS.facts(method)
    plan = facts.cost(facts.checked(options), model)
    taken = attribute(model, x, method, **options).passes
    assert taken == Passes(2 * plan.forward, 2 * plan.backward, 2 * plan.partial)


def test_smoothgrad_is_noise_over_the_gradient() -> None:
    net, x = drawn(SmallNet()), pictures()
    for variant in VARIANTS:
        options = {"samples": 4, "sigma": 0.2, "variant": variant, "seed": 3}
        a, b = run("smoothgrad", x, net, **options), run("noise.gradient", x, net, **options)
        assert torch.equal(a.values, b.values)
        assert a.passes == b.passes == Passes(forward=10, backward=8)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nois.grad-cam", r"no combinator 'nois': did you mean 'noise'\?"),
        ("noise.grad-cm", r"no method 'grad-cm': did you mean 'grad-cam'"),
        ("grad-cam.noise", r"no combinator 'grad-cam': there are: expected, flips, noise"),
        ("noise.", r"no method ''"),
        (".gradient", r"no combinator ''"),
        ("noise.flip.gradient", r"no combinator 'flip': did you mean 'flips'\?"),
    ],
)
def test_an_unknown_name_is_told_with_what_there_is(name: str, said: str) -> None:
    with pytest.raises(UnknownNameError, match=said):
        METHODS.facts(name)


def test_an_unknown_option_is_told_with_what_there_is() -> None:
    with pytest.raises(OptionError, match=r"noise\.grad-cam has no option 'sample': did you mean 'samples'"):
        METHODS.facts("noise.grad-cam").checked({"sample": 3})


def test_combinators_have_their_facts() -> None:
    assert COMBINATORS.names() == ("expected", "flips", "noise")
    for name in COMBINATORS.names():
        assert COMBINATORS.facts(name).sentence.endswith(".")
        assert all(option.expected for option in COMBINATORS.facts(name).options.values())


def test_the_page_s_combinator_in_one_file_works(monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[1] / "docs" / "combinators.md").read_text("utf-8")
    code = next(block for block in re.findall(r"```python\n(.*?)```", page, re.S) if "@combinator" in block)
    COMBINATORS.names()
    monkeypatch.setattr(COMBINATORS, "_entries", dict(COMBINATORS._entries))
    exec(code, {})
    net, x = drawn(SmallNet()), pictures()
    maps = [run("grad-cam", x.rot90(k, (2, 3)), net).values.rot90(-k, (2, 3)) for k in range(4)]
    answer = run("turns.grad-cam", x, net)
    assert relative(answer.values, torch.stack(maps).mean(0)) <= 1e-10
    plan = METHODS.facts("turns.grad-cam").cost({"layer": None, "relu": False}, None)
    assert answer.passes == Passes(2 * plan.forward, 2 * plan.backward, 2 * plan.partial)


# Through every way to ask


def test_several_targets_and_several_combinations_at_once() -> None:
    model = Classifier(drawn(SmallNet()))
    x = pictures()
    both = attribute_all(model, x, "noise.grad-cam", [1, "3 - 1"], {"samples": 3})
    for answer, target in zip(both, (1, "3 - 1"), strict=True):
        assert (
            relative(answer.values, attribute(model, x, "noise.grad-cam", target=target, samples=3).values) <= 1e-10
        )


def test_explain_and_load(tmp_path: Path) -> None:
    model = whence.load_model("creatures")
    methods = ["noise.grad-cam:samples=2", "flips.gradient", "noise.grad-cam:samples=3,sigma=0.3"]
    made = whence.explain(model, PIXELS, methods, target=(0, 1))
    first = made[0][1]
    assert first.options["samples"] == 2
    assert "grad-cam" in first.method
    first.save(tmp_path / "one")
    again = whence.Explanation.load(tmp_path / "one")
    assert again.method == "noise.grad-cam"
    assert torch.equal(again.map, first.map)


def test_the_command_line(tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "p.png")
    out = tmp_path / "out"
    arguments = ["explain", str(tmp_path / "p.png"), "--out", str(out), "--json", "--target", "0", "--target", "1"]
    arguments += ["--method", "noise.grad-cam:samples=20,sigma=0.1", "--method", "flips.grad-cam:factors=1"]
    arguments += ["--method", "noise.smoothgrad:samples=2,smoothgrad.samples=2"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    rows = json.loads((out / "result.json").read_text())["pictures"][0]["explanations"]
    assert [row["map"].partition("/")[2] for row in rows] == [
        "noise.grad-cam", "noise.grad-cam~2", "flips.grad-cam", "flips.grad-cam~2", "noise.smoothgrad",
        "noise.smoothgrad~2",
    ]  # fmt: skip
    assert rows[0]["options"] == {
        "layer": None, "relu": False, "samples": 20, "sigma": 0.1, "variant": "mean", "seed": 0,
    }  # fmt: skip
    assert rows[2]["options"]["factors"] == [1]
    assert rows[4]["options"]["smoothgrad.samples"] == 2
    with np.load(out / "maps.npz") as maps:
        assert {f"0/{row['map'].partition('/')[2]}" for row in rows} == set(maps.files)
    before = (out / "report.html").read_text()
    assert "Noise tunnel of Grad-CAM" in before
    assert CliRunner().invoke(app, ["report", str(out)]).exit_code == 0
    assert (out / "report.html").read_text() == before


@pytest.mark.parametrize(
    ("method", "said"), [("noize.grad-cam", "did you mean 'noise'"), ("expected.gradient", "no option 'baseline'")]
)
def test_the_command_line_tells_what_is_wrong(
    method: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "p.png")
    out = tmp_path / "out"
    assert cli.run(["explain", str(tmp_path / "p.png"), "--out", str(out), "--method", method]) == 2
    assert said in capsys.readouterr().err
    assert not out.exists()


def test_the_list_of_methods_names_the_combinators() -> None:
    done = CliRunner().invoke(app, ["methods"])
    assert "noise.grad-cam:samples=20,sigma=0.1" in done.stdout.splitlines()[-1]
    assert all(name in done.stdout.splitlines()[-1] for name in COMBINATORS.names())
    listed = json.loads(CliRunner().invoke(app, ["methods", "--json"]).stdout)
    assert [row["name"] for row in listed] == list(METHODS.names())


# Promises


@pytest.mark.parametrize("method", ["noise.guided-backprop", "flips.grad-cam", "noise.flips.guided-grad-cam"])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_in_any_run_leaves_everything_as_it_was(method: str, error: type[BaseException]) -> None:
    from promises.test_untouched import untouched

    net, x = drawn(SmallNet()).train(), pictures()
    for fatal in (1, 2):
        calls = 0

        def target(output: Tensor) -> Tensor:
            nonlocal calls
            calls += 1
            if calls == fatal:  # noqa: B023
                raise error("stop")
            return output[:, 1]

        with untouched(net, x), pytest.raises(error, match="stop"):
            run(method, x, net, target=target)
