"""Studies written by hand, without any model: every number in them is known."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from whence.pictures.read import read
from whence.studies import parts
from whence.studies.job import FILE, Cell, Job, ModelEntry, PictureEntry
from whence.studies.study import Study
from whence.studies.tables import table

LABELS = ("cat", "dog", "owl")
METRIC = "deletion:grid=2"
CELLS = (Cell(0, "grad-cam", "grad-cam:layer=top"), Cell(0, "gradient", "gradient"), Cell(1, "gradient", "gradient"))
FAILED = 2


def drawn(root: Path, count: int) -> list[str]:
    """Write pictures that differ, and return their names."""
    root.mkdir(parents=True, exist_ok=True)
    names = [f"{i:03d}.png" for i in range(count)]
    for i, name in enumerate(names):
        pixels = np.random.default_rng(i).integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).resize((24, 16)).save(root / name)
    return names


def job(root: Path, names: list[str], **changes: object) -> Job:
    """Return a job over pictures that need not be there, of two models and three cells."""
    pictures = tuple(PictureEntry(name, "0" * 64, LABELS[i % 3]) for i, name in enumerate(names))
    if all((root / name).is_file() for name in names):
        pictures = tuple(replace(one, sha256=read(root / one.name).sha256) for one in pictures)
    model = ModelEntry("a", "a", None, "f" * 64, "Preprocess()", "softmax", "float32", (3, 8, 8), LABELS)
    made = Job(
        root=root, pictures=pictures, models=(model, replace(model, name="b", fingerprint="e" * 64)), cells=CELLS,
        metrics=(METRIC,), judges=False, target=None, seed=0, bits=None, device="cpu", batch=2, shard=2, threads=1,
        maps="float32", versions={"whence": "0.1.0"},
    )  # fmt: skip
    return replace(made, **changes)


def row(job: Job, number: int, place: int) -> dict[str, object]:
    """Return a row: ``FAILED`` failed on the first cell; odd ones are wrong; the first one took the longest."""
    cell, entry = job.cells[place], job.pictures[number]
    truth = LABELS.index(entry.truth)
    given = (truth + number % 2) % 3
    head = {
        "number": number, "picture": entry.name, "sha256": entry.sha256, "truth": entry.truth, "truth_index": truth,
        "model": job.models[cell.model].name, "method": cell.method, "host": "here",
        "seconds": 0.5 + 4 * (number == 0),
    }  # fmt: skip
    if (number, place) == (FAILED, 0):
        return {**head, "status": "PictureError", "error": f"{Path(entry.name).name!r} is empty: get the file again"}
    shape = (1, 2, 2) if place == 0 else (3, 8, 8)
    values = np.arange(np.prod(shape), dtype=np.float32).reshape(shape) + 100 * number + 10 * place
    return {
        **head, "status": "ok", "predicted": given, "predicted_label": LABELS[given], "target": given,
        "target_label": LABELS[given], "correct": given == truth, "predicted_probability": 1 - number / 100,
        "probability": 1 - number / 100, "score": float(number), METRIC: number / 50 + place / 10, "forward": 1,
        "backward": int(place > 0), "partial": int(place == 0), "notes": ["told"] if number == 0 else [],
        "residual": 10.0 ** -(number + 1) if place == 2 else None, "box": [0.0, 4.0, 16.0, 20.0],
        **({} if job.maps == "none" else {"map_": values.astype(job.maps)}),
    }  # fmt: skip


def study(folder: Path, job: Job, made=row) -> Study:
    """Write a study and open it."""
    (folder / parts.FOLDER).mkdir(parents=True)
    (folder / FILE).write_text(job.text())
    for shard in reversed(job.shards):
        held = [made(job, number, place) for number in job.slice(shard) for place in range(len(job.cells))]
        parts.write(folder, job, shard, table(job, held))
    return Study(folder, job)


def rewritten(study: Study, shard: int, change) -> None:
    """Write a part again with its table changed."""
    path = parts.path(study.folder, shard)
    pq.write_table(change(pq.read_table(path)), path)
