"""Small studies for tests of engines, models that kill and models that are slow, and programs that run them."""

import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from whence.creatures import draw_many
from whence.models.load import load_model
from whence.studies.job import Cell, Job, ModelEntry, PictureEntry
from whence.studies.planning import Given, Settings, planned
from whence.studies.shard import Worker
from whence.studies.study import open as opened
from whence.studies.tables import UNSTEADY, table

MODELS = """
import os, signal, time
import torch
from whence import Classifier, load_model

class Odd(torch.nn.Module):
    def __init__(self, odd):
        super().__init__()
        self.net, self.odd = load_model("creatures").module, odd

    def forward(self, x):
        self.odd(x)
        return self.net(x)

def die(x):
    red = (x[:, 0] == 1).flatten(1).all(1) & (x[:, 1:] == -1).flatten(1).all(1)
    if red.any():
        os.kill(os.getpid(), signal.SIGKILL)

def made(odd):
    known = load_model("creatures")
    return Classifier(Odd(odd), preprocess=known.preprocess, labels=known.labels, name=odd.__name__)

def rest(x):
    time.sleep(0.3)

def deadly():
    return made(die)

def slow():
    return made(rest)
"""

# Where other programs fill the memory Ray kills its actors; here they should die of what a test does to them.
RAY = {"RAY_memory_monitor_refresh_ms": "0"}

# Without `if __name__ == "__main__"`, as in a notebook's cells.
PROGRAM = """
import pickle, sys
from whence.studies.running import carry_out
job, out, options = pickle.load(open(sys.argv[1], "rb"))
print(carry_out(job, out, **options))
"""


def pictures(folder, count=16, red=()):
    """Draw creatures into a folder; those of the numbers in ``red`` are red all over."""
    folder.mkdir(parents=True)
    for number, creature in enumerate(draw_many(count, 1)):
        pixels = np.full_like(creature.pixels, [255, 0, 0]) if number in red else creature.pixels
        Image.fromarray(pixels).save(folder / f"{number:03d}.png")
    return folder


def plan(root, model="creatures", **settings):
    """Return a job of small shards; ``model`` may be a function of MODELS."""
    spec = model
    if model != "creatures":
        file = root.parent / "models.py"
        file.write_text(MODELS)
        spec = f"{file}:{model}"
    made = load_model(spec, trust=True)
    wanted = {"methods": ["gradient"], "batch": 4, "shard": 4, **settings}
    return planned(root, [(Given(spec), made)], Settings(**wanted), trust=True)


def bare(count=10, shard=4):
    """Return a job of no pictures that exist, and no model."""
    entry = ModelEntry("net", "nowhere", None, "f", "p", "softmax", "float32", (3, 4, 4), ("a", "b"))
    names = tuple(PictureEntry(f"{i:03d}.png", f"{i:064d}") for i in range(count))
    return Job(
        Path("nowhere"), names, (entry,), (Cell(0, "gradient", "gradient"),), (), False, None, 0, None, "cpu",
        batch=2, shard=shard, threads=1, maps="float32", versions={},
    )  # fmt: skip


def rows(job, shard, status=lambda number: "ok"):
    """Return made-up rows of a shard of ``bare``."""
    value = np.random.default_rng(shard).standard_normal((3, 16, 16)).astype(np.float32)
    own = job.slice(shard)
    return table(job, [{"number": n, "sha256": "s", "status": status(n), "map_": value} for n in own])


def expected(job, holes=()):
    """Return the rows that a job has, by the pure function alone, without the columns that change."""
    worker = Worker(job)
    made = [worker.explain(shard, frozenset(holes) & frozenset(job.slice(shard))) for shard in job.shards]
    return steady(pa.concat_tables(made, promote_options="default"))


def found(out):
    """Return the rows that a study's folder holds, without the columns that change."""
    return steady(opened(out).table(maps=True))


def steady(rows):
    return rows.drop_columns(UNSTEADY).replace_schema_metadata()


def leftovers(out):
    return [path for path in Path(out).rglob("*") if path.suffix == ".tmp"]


def program(folder, job, out, **options):
    """Start a program that runs a study."""
    told = folder / "told.pickle"
    told.write_bytes(pickle.dumps((job, out, options)))
    file = folder / "program.py"
    file.write_text(PROGRAM)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **RAY}
    return subprocess.Popen(
        [sys.executable, file, told], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def workers(parent):
    """Return the processes that work for one."""
    listed = subprocess.run(["ps", "-ewwo", "pid,args"], capture_output=True, text=True, check=True).stdout
    return [int(line.split()[0]) for line in listed.splitlines() if line.endswith(f" {parent}") and "serve()" in line]


def actors(root):
    """Return the actors of the Ray that a process has started, and of no other."""
    listed = subprocess.run(["ps", "-ewwo", "pid,ppid,args"], capture_output=True, text=True, check=True).stdout
    found = [
        (int(pid), int(parent), args) for pid, parent, args in (x.split(None, 2) for x in listed.splitlines()[1:])
    ]
    own = {root}
    while more := {pid for pid, parent, _ in found if parent in own} - own:
        own |= more
    return [pid for pid, _, args in found if pid in own and args.startswith("ray::_Explainer")]


def until(condition, seconds=90):
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)


def done(out):
    return len(list(Path(out).glob("parts/*.parquet")))
