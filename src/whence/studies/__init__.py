"""Studies of whole folders: every picture explained, shard by shard, with nothing lost and nothing doubled."""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from whence.errors import MissingExtraError

if TYPE_CHECKING:
    from whence.studies.elsewhere import work
    from whence.studies.job import Job
    from whence.studies.shard import Worker
    from whence.studies.starting import plan, run
    from whence.studies.study import Study, open

_HOMES = {
    "Job": "whence.studies.job",
    "Study": "whence.studies.study",
    "Worker": "whence.studies.shard",
    "open": "whence.studies.study",
    "plan": "whence.studies.starting",
    "run": "whence.studies.starting",
    "work": "whence.studies.elsewhere",
}

__all__ = ["Job", "Study", "Worker", "open", "plan", "run", "work"]

if find_spec("pyarrow") is None:
    raise MissingExtraError("pyarrow is needed for studies: pip install 'whence[study]'")


def __getattr__(name: str) -> Any:  # noqa: ANN401  (the type checker reads the imports above)
    """Import a public name from its home."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'whence.studies' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return the public names."""
    return list(__all__)
