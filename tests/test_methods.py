"""What holds for every registered method: its facts, its plan of cost, and that one file adds one."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import whence
from small_nets import SmallViT, drawn, tiny_options
from whence.errors import UnsupportedError
from whence.registry import METHODS
from whence.results import Passes

# These skip channels that are dead for a picture, or refine until a map stands still.
DEPENDS_ON_THE_PICTURE = {"ablation-cam", "score-cam", "integrated-gradients", "sag"}
README = Path(__file__).parents[1] / "README.md"


@pytest.fixture(scope="module")
def model():
    return whence.load_model("creatures")


@pytest.mark.parametrize("method", METHODS.names())
def test_the_plan_of_cost_is_what_is_counted(method, model):
    """What depends on the picture may be less: a channel that is dead for it is not run."""
    facts = METHODS.facts(method)
    if facts.needs == "attention":
        model = whence.Classifier(drawn(SmallViT()), model.preprocess)
    x = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    options = tiny_options(facts)
    plan = facts.cost(facts.checked(options), model)
    try:
        taken = whence.attribute(model, x, method, **options).passes
    except UnsupportedError:
        pytest.skip("not for the bundled model")
    three = Passes(3 * plan.forward, 3 * plan.backward, 3 * plan.partial)
    if method in DEPENDS_ON_THE_PICTURE:
        assert taken.forward <= three.forward
        assert taken.backward <= three.backward
        assert 0.1 * three.partial <= taken.partial <= three.partial
    else:
        assert taken == three


@pytest.mark.parametrize("method", METHODS.names())
def test_facts_are_complete(method):
    facts = METHODS.facts(method)
    assert facts.sentence.endswith(".")
    assert re.fullmatch(r"arXiv:\d{4}\.\d{4,5}|doi:.+|-", facts.paper)
    assert re.fullmatch(r"[a-z0-9+-]+", method)
    assert all(option.expected for option in facts.options.values())


def test_the_readme_s_method_in_one_file_works(tmp_path):
    """The code of the README, put where it says, appears in the lists, with its options, and explains."""
    code = next(
        block for block in re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), re.S) if "@method" in block
    )
    (tmp_path / "gradient_norm.py").write_text(code)
    (tmp_path / "announced-1.dist-info").mkdir()
    (tmp_path / "announced-1.dist-info" / "METADATA").write_text("Name: announced\nVersion: 1\n")
    (tmp_path / "announced-1.dist-info" / "entry_points.txt").write_text("[whence.methods]\nany = gradient_norm\n")
    script = (
        "import torch, whence; m = whence.load_model('creatures'); x = torch.randn(2, 3, 64, 64); "
        "a = whence.attribute(m, x, 'gradient-norm', power=2.0); assert a.values.shape == (2, 1, 64, 64); "
        "g = whence.attribute(m, x, 'gradient').values; assert torch.allclose(a.values, (g**2).sum(1, True)); "
        "assert 'gradient-norm' in whence.methods.names()"
    )
    subprocess.run([sys.executable, "-c", script], check=True, env={"PYTHONPATH": str(tmp_path)})


@pytest.mark.parametrize("layer", [None, "top", "all"])
@pytest.mark.parametrize("start", ["one-hot", "sglrp", "sglrp-two-pass", "clrp1", "clrp1-code", "clrp2"])
def test_the_plan_of_lrp_holds_for_every_start(model, start, layer):
    facts = METHODS.facts("lrp")
    plan = facts.cost(facts.checked({"start": start, "layer": layer}), model)
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert whence.attribute(model, x, "lrp", start=start, layer=layer).passes == plan
