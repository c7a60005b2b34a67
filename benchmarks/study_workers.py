"""The same study by one worker and by two: what an engine costs, and what a second worker gains.

Plain is the `local` engine: one thread in this process, the job made and the models loaded. The others start their
workers, who load the models, and for Ray its own processes; the unit of each row is the whole run by `local`. Two
workers of two cores cannot take less than 0.5. (CPU time is this process's alone and says nothing here.)
"""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import whence
from paired import Run, outside, paired
from whence.creatures.files import write
from whence.studies.planning import Given, Settings, planned
from whence.studies.running import carry_out

LIMIT = "none; for one worker 1 and the start, for two workers half of that"
WORKERS = (1, 2)


def contenders(
    spec: str, folder: Path, settings: Settings, out: Path
) -> tuple[Callable[[], None], dict[str, Callable[[], None]]]:
    """Return a study by the local engine, and the same on the others."""
    classifier = whence.load_model(spec)
    job = planned(folder, [(Given(spec), classifier)], settings)

    def local() -> None:
        shutil.rmtree(out, ignore_errors=True)
        carry_out(job, out, models=[classifier])

    def on(engine: str, workers: int) -> Callable[[], None]:
        def run() -> None:
            shutil.rmtree(out, ignore_errors=True)
            carry_out(job, out, engine=engine, workers=workers)

        return run

    return local, {f"{engine}, {n}": on(engine, n) for engine in ("processes", "ray") for n in WORKERS}


def runs(rounds: int, repeats: int) -> Iterator[tuple[str, int, Run]]:
    """Yield a paired run for a study of seconds, and for one of a minute."""
    photos = outside("WHENCE_PHOTOS", "photos")
    mobilenet = os.fspath(outside("WHENCE_MODELS", "models") / "mobilenetv2")
    with TemporaryDirectory() as place:
        drawn = Path(place) / "creatures"
        write(drawn, 2000, 7)
        for name, spec, folder, settings in (
            ("2000 creatures, grad-cam", "creatures", drawn, Settings(shard=250, batch=32)),
            (
                "photos, mobilenetv2, smoothgrad of 6",
                mobilenet,
                photos,
                Settings(methods=["smoothgrad:samples=6"], shard=8, batch=8),
            ),
        ):
            local, others = contenders(spec, folder, settings, Path(place) / "study")
            yield name, settings.batch, paired(local, others, min(rounds, 3), 1)
