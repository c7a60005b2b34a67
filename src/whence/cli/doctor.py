"""`whence doctor`: is everything in place?"""

import platform
import sys
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

import typer

from whence.cli import console
from whence.cli.console import DEFAULT_MODEL, Debug, Json

_CORE = ("torch", "numpy", "pillow", "safetensors", "typer", "jinja2", "jaxtyping")
_EXTRAS = ("torchvision", "timm", "transformers")


def doctor(json: Json = False, debug: Debug = False) -> None:
    """Check the installation: versions, optional libraries, devices, and one real explanation."""
    checks = [
        ("whence", True, f"{version('whence')} on Python {sys.version.split()[0]}, {platform.platform()}"),
        *((name, True, version(name)) for name in _CORE),
        *(_extra(name) for name in _EXTRAS),
        _devices(),
        _explanation(),
    ]
    if json:
        console.result([{"check": name, "ok": ok, "found": found} for name, ok, found in checks])
    else:
        console.table(("check", "ok", "found"), [(name, "yes" if ok else "NO", found) for name, ok, found in checks])
    if not all(ok for _, ok, _ in checks):
        raise typer.Exit(1)


def _extra(name: str) -> tuple[str, bool, str]:
    """An optional library may be absent; one that is there must import."""
    try:
        found = version(name)
    except PackageNotFoundError:
        return name, True, f"not installed, optional: pip install 'whence[{name}]'"
    try:
        import_module(name)
    except Exception as error:
        fits = f"{found} does not fit torch {version('torch')}: pip install --upgrade torch {name}"
        return name, False, f"{fits} ({str(error).partition(chr(10))[0]})"
    return name, True, found


def _devices() -> tuple[str, bool, str]:
    import torch

    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return "devices", True, ", ".join(["cpu", *names]) + f"; {torch.get_num_threads()} threads"


def _explanation() -> tuple[str, bool, str]:
    """Explain a drawn creature by the bundled model."""
    from whence.creatures import draw
    from whence.explaining import explain
    from whence.models.load import load_model

    creature = draw(0)
    made = explain(load_model(DEFAULT_MODEL), creature.pixels)
    return "explanation", True, f"{made.label} {made.probability:.1%} in {1000 * made.seconds:.0f} ms"
