"""What holds for every registered metric, discovered and never listed."""

import json
import re

import pytest
import torch

from metric_samples import tiny
from small_nets import SmallNet, drawn, pictures
from whence import attribute, metrics
from whence.cli import run
from whence.errors import OptionError, UnknownNameError
from whence.metrics import measure
from whence.metrics.measuring import claim
from whence.models.classifier import Classifier
from whence.registry import METRICS

DESIGNED = [
    "deletion", "drop", "increase", "infidelity", "insertion", "max-sensitivity", "pointing", "randomisation",
    "relevance-mass", "road", "sparseness",
]  # fmt: skip


@pytest.fixture(scope="module")
def net():
    return drawn(SmallNet()).eval()


@pytest.fixture(scope="module")
def region():
    places = torch.zeros(2, 16, 16, dtype=torch.bool)
    places[:, 3:12, 5:15] = True
    return places


def test_all_of_the_design_are_there():
    assert set(DESIGNED) <= set(metrics.names())


@pytest.mark.parametrize("metric", METRICS.names())
def test_facts_are_complete(metric):
    facts = METRICS.facts(metric)
    assert facts.sentence.endswith(".")
    assert re.fullmatch(r"arXiv:\d{4}\.\d{4,5}|doi:.+|-", facts.paper)
    assert facts.family in ("faithfulness", "robustness", "complexity", "localisation", "sanity")
    assert facts.needs in ("map", "scores", "region", "method")
    assert facts.better in ("higher", "lower")
    assert facts.title
    assert all(option.expected for option in facts.options.values())


@pytest.mark.parametrize("method", ["grad-cam", "gradient"])
@pytest.mark.parametrize("metric", METRICS.names())
def test_a_batch_gives_what_single_pictures_give_and_the_same_every_time(net, region, metric, method):
    x = pictures(2)
    made = attribute(net, x, method, target=[1, 3])
    options = tiny(METRICS.facts(metric))
    found = measure(net, x, made, metric, region=region, **options)
    again = measure(net, x, made, metric, region=region, **options)
    assert found.value.shape == (2,)
    assert found.value.is_floating_point()
    assert torch.equal(found.value, again.value)
    assert len(found.notes) in (0, 2)
    if found.curve is not None:
        assert found.curve.value.shape == (2, len(found.curve.share))
    for row in range(2):
        one = slice(row, row + 1)
        single = measure(net, x[one], made.picture(row), metric, region=region[one], **options)
        torch.testing.assert_close(single.value, found.value[one], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("metric", METRICS.names())
def test_what_needs_no_model_runs_none(net, region, metric):
    x = pictures(2)
    of = claim(Classifier(net), x, attribute(net, x, "gradient", target=1), None, region=region)
    facts = METRICS.facts(metric)
    found = facts.function(of, **facts.checked(tiny(facts)))
    ran = (found.passes.forward, found.passes.backward) != (0, 0)
    assert ran == (facts.needs in ("scores", "method"))


@pytest.mark.parametrize("metric", METRICS.names())
def test_the_model_is_untouched(metric, region):
    net, x = drawn(SmallNet()).train(), pictures(2)
    made = attribute(net, x, "gradient", target=1)
    state = {name: (t, t._version, t.clone()) for name, t in net.state_dict().items()}
    rng = torch.get_rng_state()
    measure(net, x, made, metric, region=region, **tiny(METRICS.facts(metric)))
    assert all(torch.equal(t, old) and t._version == version for t, version, old in state.values())
    assert all(module.training for module in net.modules())
    assert all(p.requires_grad and p.grad is None for p in net.parameters())
    assert torch.equal(torch.get_rng_state(), rng)


@pytest.mark.parametrize("metric", [name for name in METRICS.names() if METRICS.facts(name).needs != "map"])
def test_a_function_s_own_number_can_be_measured(net, region, metric):
    x = pictures(2)

    def spread(output):
        return output.std(1)

    made = attribute(net, x, "gradient", target=spread)
    found = measure(net, x, made, metric, target=spread, region=region, **tiny(METRICS.facts(metric)))
    assert found.value.isfinite().all()
    if METRICS.facts(metric).needs in ("scores", "method"):
        with pytest.raises(Exception, match="give it as the target"):
            measure(net, x, made, metric, region=region, **tiny(METRICS.facts(metric)))


def test_an_unknown_metric_is_named(net):
    x = pictures(1)
    made = attribute(net, x, "gradient", target=1)
    with pytest.raises(UnknownNameError, match="there is no metric 'deletoin': did you mean 'deletion'"):
        measure(net, x, made, "deletoin")


@pytest.mark.parametrize("metric", METRICS.names())
def test_an_unknown_option_is_named(net, region, metric):
    x = pictures(2)
    made = attribute(net, x, "gradient", target=1)
    with pytest.raises(OptionError, match=f"^{metric} has no option 'colour'") as caught:
        measure(net, x, made, metric, region=region, colour=3)
    assert "\n" not in str(caught.value)


def test_maps_of_other_pictures_are_refused(net):
    x = pictures(2)
    made = attribute(net, x, "gradient", target=1)
    with pytest.raises(OptionError, match="2 maps for inputs of 16 x 16, and pictures of shape"):
        measure(net, x[:1], made, "deletion")


def test_the_command_lists_them_all(capsys):
    assert run(["metrics"]) == 0
    listed = capsys.readouterr().out
    assert all(re.search(rf"^{name} ", listed, re.M) for name in METRICS.names())
    assert run(["metrics", "--json"]) == 0
    table = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in table] == list(METRICS.names())
    assert table[0]["options"]["steps"] == {"default": 50, "expected": "a whole number"}
    assert all(row["better"] in ("higher", "lower") and row["about"].endswith(".") for row in table)
