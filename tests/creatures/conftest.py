import pytest
from jaxtyping import config


@pytest.fixture
def unchecked():
    """Draw many creatures without the check of every shape, which takes ten times as long as the drawing."""
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)
