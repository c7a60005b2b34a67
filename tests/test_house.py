"""The house stands as it was planned: imports, sizes of files, who may touch what, public names."""

import ast
import gc
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import whence

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "whence"
FILES = sorted(SOURCE.rglob("*.py"))

LEAVES = (
    *("taps.py", "session.py", "layers.py", "attention.py", "readout.py", "folding.py"),
    *("carried.py", "start.py", "pooling.py", "areas.py", "objective.py", "effective.py"),
)


def test_imports_run_one_way():
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


@cache
def parsed(path: Path) -> ast.Module:
    # A collection in the middle of it makes Python 3.11 lose count of how deep it is, and raise a SystemError.
    gc.disable()
    try:
        return ast.parse(path.read_text("utf-8"))
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("allowed", "names"),
    [
        ("models/taps.py", {"register_forward_hook", "register_forward_pre_hook", "register_full_backward_hook"}),
        ("models/taps.py", {"register_module_forward_hook", "register_hook", "register_full_backward_pre_hook"}),
        (("interpretable/", "models/random.py", "models/sources/"), {"train"}),
        ("nowhere", {"requires_grad_"}),
        ("interpretable/", {"backward", "zero_grad"}),
    ],
)
def test_only_one_file_touches(allowed, names):
    """Methods that change a module are called in one file alone; a fresh leaf of our own may require gradients."""
    for path in FILES:
        if str(path.relative_to(SOURCE)).startswith(allowed):
            continue
        for node in ast.walk(parsed(path)):
            called = node.func.attr if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) else ""
            ours = called == "requires_grad_" and path.name in LEAVES
            assert called not in names or ours, f"{path.name}:{node.lineno} calls {called}"


def test_eval_is_called_only_on_modules_that_are_being_made():
    """A user's module is never switched: the session clears and restores flags."""
    makers = ("creatures/", "models/sources/", "models/folder.py", "models/load.py", "models/random.py")
    for path in FILES:
        if str(path.relative_to(SOURCE)).startswith(makers):
            continue
        calls = [n for n in ast.walk(parsed(path)) if isinstance(n, ast.Call)]
        assert not [n.lineno for n in calls if isinstance(n.func, ast.Attribute) and n.func.attr == "eval"], path


def test_no_file_is_longer_than_400_lines():
    long = {str(p.relative_to(ROOT)): n for p in FILES if (n := len(p.read_text("utf-8").splitlines())) > 400}
    assert not long


def test_public_names_are_frozen():
    assert sorted(whence.__all__) == [
        "AttentionGraph",
        "Classifier",
        "Evaluation",
        "Explanation",
        "adapters",
        "attribute",
        "evaluate",
        "explain",
        "interpretable",
        "load_model",
        "methods",
        "metrics",
        "studies",
    ]
    assert all(getattr(whence, name) is not None for name in whence.__all__)


def test_import_loads_no_torch():
    code = "import sys, whence; assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_optional_libraries_are_imported_only_on_use():
    code = (
        "import sys, whence; whence.load_model, whence.explain, whence.attribute; whence.methods.names(); "
        "assert not {'torchvision', 'timm', 'transformers', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
