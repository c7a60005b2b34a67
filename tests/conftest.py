"""Every test runs with the shapes of all signatures checked."""

import os
import signal
from pathlib import Path

from jaxtyping import config, install_import_hook

hook = install_import_hook("whence", "beartype.beartype")
hook.__enter__()

import pytest  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(1)


def _outside(variable: str, folder: str) -> Path:
    return Path(os.environ.get(variable) or Path(__file__).parents[2] / "shared" / folder)


@pytest.fixture(scope="session")
def photos() -> Path:
    """The folder of photos that lies outside the repository."""
    folder = _outside("WHENCE_PHOTOS", "photos")
    if not folder.is_dir():
        pytest.skip(f"no photos at {folder}: set WHENCE_PHOTOS")
    return folder


@pytest.fixture(scope="session")
def models() -> Path:
    """The folder of real models that lies outside the repository."""
    folder = _outside("WHENCE_MODELS", "models")
    if not folder.is_dir():
        pytest.skip(f"no models at {folder}: set WHENCE_MODELS")
    return folder


@pytest.fixture
def unchecked():
    """Run without the check of every shape: drawing many creatures takes ten times as long with it."""
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)


@pytest.fixture
def interruptible():
    """Let Ctrl-C arrive here and in processes started from here: a shell in the background hands it down ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
