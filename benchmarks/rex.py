"""ReX (rex-xai) on the pictures of the attention graphs: which pixels it says suffice, and what they are worth.

WHENCE_PHOTOS=... WHENCE_MODELS=... python benchmarks/rex.py --out rex.csv

rex-xai needs numpy 1: it lives in an environment of its own, which is made where it is missing. ReX is given the
inputs as whence prepares them; whence's model then says what each set of pixels keeps.
"""

import argparse
import csv
import os
import subprocess
import tempfile
import venv
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

import whence
from paired import outside
from whence.models.classifier import Classifier
from whence.models.session import opened
from whence.pictures.baselines import make_baseline
from whence.pictures.read import read

REX = "rex-xai==0.4.1"
# The same on both sides, so that one model runs in both.
SHARED = ("torch", "torchvision", "timm", "safetensors")
ENVIRONMENT = Path(__file__).parents[1] / ".venv-rex"
MODEL = Path("mobilenetv2", "squash.toml")
HEAD = (
    "picture", "class", "p", "area", "stays first", "p kept", "evaluations", "seconds (CPU)",
    "several: found", "disjoint", "their areas", "p kept", "evaluations", "seconds (CPU)",
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One explanation: the run's whole cost stands in each of its rows.

    ``found`` is how many explanations the run found, overlapping ones counted; ``area`` this one's share of the
    input's pixels, ``top`` whether the class stays first where all else is black, and ``kept`` the share of the whole
    picture's probability that is left there.
    """

    picture: str
    label: str
    probability: float
    run: str
    found: int
    area: float
    top: bool
    kept: float
    evaluations: int
    seconds: float
    cpu: float


def environment(folder: Path) -> Path:
    """Return the Python of ReX's environment, with all installed that it needs."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
    shared = [f"{name}=={version(name).split('+')[0]}" for name in SHARED]
    subprocess.run([python, "-m", "pip", "install", "--quiet", REX, *shared], check=True)
    return python


def by_rex(python: Path, x: Float[Tensor, "1 c h w"], options: Sequence[str]) -> dict[str, np.ndarray]:
    """Return what ReX finds: in each array one entry an explanation."""
    with tempfile.TemporaryDirectory() as folder:
        picture, found = Path(folder, "picture.npy"), Path(folder, "found.npz")
        np.save(picture, x.numpy())
        runner = Path(__file__).with_name("rex_runner.py")
        one_thread = {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
        subprocess.run([python, runner, picture, found, *options], env=os.environ | one_thread, check=True)
        with np.load(found) as arrays:
            return dict(arrays)


def probabilities(model: Classifier, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
    """Return the model's probabilities."""
    with opened(model) as session:
        return session.scale.probabilities(session.logits(session.run(x)))


def rows(
    model: Classifier, name: str, x: Float[Tensor, "1 c h w"], black: float, found: dict[str, np.ndarray]
) -> list[Row]:
    """Return what our model says of ReX's explanations of one picture.

    Raises
    ------
    RuntimeError
        ReX saw another model or another picture.
    """
    index, told = int(found["class"][0]), float(found["probability"][0])
    mask: Bool[Tensor, "n h w"] = torch.from_numpy(found["mask"])
    whole = float(probabilities(model, x)[0, index])
    if abs(whole - told) > 1e-4:
        raise RuntimeError(f"{name}: ReX's model gives class {index} {told:.5f}, and whence's {whole:.5f}")
    alone = probabilities(model, torch.where(mask[:, None], x, black))
    return [
        Row(
            name, model.scale.label(index), whole, str(found["run"][n]), int(found["found"][n]),
            float(mask[n].float().mean()), int(alone[n].argmax()) == index, float(alone[n, index]) / whole,
            int(found["evaluations"][n]), float(found["seconds"][n]), float(found["cpu"][n]),
        )
        for n in range(len(mask))
    ]  # fmt: skip


def line(one: Row, *several: Row) -> str:
    """Return one picture's line of the table: its one explanation, and those of the run that looks for several."""
    first = f"{one.area:.1%} | {'yes' if one.top else 'no'} | {one.kept:.0%} | {_cost(one)}"
    rest = ""
    if several:
        areas, kept = ", ".join(f"{row.area:.1%}" for row in several), ", ".join(f"{row.kept:.0%}" for row in several)
        rest = f" {several[0].found} | {len(several)} | {areas} | {kept} | {_cost(several[0])} |"
    return f"| {one.picture} | {one.label} | {one.probability:.3f} | {first} |{rest}"


def _cost(row: Row) -> str:
    return f"{row.evaluations} | {row.seconds:.0f} ({row.cpu:.0f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("rex.csv"), help="one row an explanation")
    parser.add_argument("--environment", type=Path, default=ENVIRONMENT, help="where rex-xai is or will be installed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--spotlights", type=int, default=10, help="1: one explanation a picture, much faster")
    asked = parser.parse_args()
    file = outside("WHENCE_MODELS", "models") / MODEL
    model, python = whence.load_model(str(file)), environment(asked.environment)
    assert model.preprocess is not None
    print(f"{REX}, torch {version('torch')}, {model.name}, one thread, seed {asked.seed}\n")
    columns = HEAD if asked.spotlights > 1 else HEAD[:8]
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|", flush=True)
    with asked.out.open("w", newline="") as out:
        writer = csv.DictWriter(out, [field.name for field in fields(Row)])
        writer.writeheader()
        for path in sorted((outside("WHENCE_PHOTOS", "photos") / "sag").glob("*.jpg")):
            x = model.preprocess(read(path)).input[None]
            # ReX takes one number for all channels.
            (black,) = set(make_baseline("black", x, model.pixels).flatten().tolist())
            options = (f"--model={file}", f"--mask-value={black}", f"--seed={asked.seed}")
            found = by_rex(python, x, (*options, f"--spotlights={asked.spotlights}"))
            own = rows(model, path.stem, x, black, found)
            writer.writerows(asdict(row) for row in own)
            out.flush()
            print(line(*own), flush=True)


if __name__ == "__main__":
    main()
