"""The folder of a study: new or that of the same job, and written by one run at a time."""

import json
import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from whence.errors import OutputError, WhenceError
from whence.studies import parts
from whence.studies.job import FILE, Job, difference

# Locked while a run is at work; hidden, so that nobody who reads the whole folder takes it for a part.
_RUNNING = ".running"


@dataclass(frozen=True)
class Place:
    """The folder of a study that a run holds.

    ``died_in`` is the shard in whose middle the last run here ended, if it explained it in its own process.
    """

    folder: Path
    running: TextIO
    died_in: int | None

    def mark(self, shard: int | None) -> None:
        """Write down which shard this process explains now, for the next run should this one die of it."""
        self.running.seek(0)
        self.running.truncate()
        json.dump({"host": platform.node(), "pid": os.getpid(), "shard": shard}, self.running)
        self.running.flush()


@contextmanager
def held(folder: Path, job: Job) -> Iterator[Place]:
    """Make a study's folder, or go on in it; one that is made here is removed again if nothing could be done.

    Raises
    ------
    OutputError
        The folder holds something else, another job, or a run that is at work; or it cannot be written.
    """
    if not _holds_nothing(folder):
        _check(folder, job)
    with _removed_if_unused(folder), ExitStack() as stack:
        try:
            place = stack.enter_context(_taken(folder, job))
        except OSError as error:
            raise parts.unwritten(folder, error) from error
        yield place


@contextmanager
def _taken(folder: Path, job: Job) -> Iterator[Place]:
    """Lock a study's folder; the system takes the lock away when this process ends, however it ends."""
    (folder / parts.FOLDER).mkdir(parents=True, exist_ok=True)
    with (folder / parts.FOLDER / _RUNNING).open("a+", encoding="utf-8") as running:
        _lock(running, folder)
        place = Place(folder, running, _told(running).get("shard"))
        parts.remove_drafts(folder)
        _write_job(folder / FILE, job.text())
        place.mark(place.died_in)
        try:
            yield place
        finally:
            parts.remove_drafts(folder)


def _holds_nothing(folder: Path) -> bool:
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file: name a new folder, or that of the same study")
    return not folder.exists() or all(map(parts.is_draft, folder.iterdir()))


def _check(folder: Path, job: Job) -> None:
    """Refuse a folder of anything but this job."""
    if not (folder / FILE).exists():
        raise OutputError(f"{folder} holds other files and no study: name a new folder, or that of the same study")
    made = Job.load(folder)
    if made.fingerprint != job.fingerprint:
        raise OutputError(
            f"{folder} holds a study of another job ({difference(job, made)}): "
            "give what it was begun with to go on, or a new folder"
        )


@contextmanager
def _removed_if_unused(folder: Path) -> Iterator[None]:
    """Leave a folder that held nothing as it was, where an error comes before the first part."""
    new, empty = not folder.exists(), _holds_nothing(folder)
    try:
        yield
    except WhenceError:
        if empty and not any((folder / parts.FOLDER).glob("*.parquet")):
            shutil.rmtree(folder / parts.FOLDER, ignore_errors=True)
            with suppress(OSError):
                (folder / FILE).unlink(missing_ok=True)
                if new:
                    folder.rmdir()
        raise


def _write_job(target: Path, text: str) -> None:
    """Write the job; again where the pictures were moved."""
    if not target.exists() or target.read_text(encoding="utf-8") != text:
        parts.write_text(target, text)


def _lock(file: TextIO, folder: Path) -> None:
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        who = "process {pid} on {host}".format_map({"pid": "unknown", "host": "some host", **_told(file)})
        raise OutputError(f"another run is at work in {folder} ({who}): wait for it, or stop it first") from None
    except OSError:
        # Some shared disks have no locks: two runs at once would do the work twice, no more.
        return


def _told(file: TextIO) -> dict[str, Any]:
    """Return what the last run wrote down, nothing where that was torn."""
    file.seek(0)
    try:
        return dict(json.load(file))
    except (ValueError, TypeError):
        return {}
