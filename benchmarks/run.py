"""`make bench`: speed beside the peers, each call between two plain forwards, all benches or those named."""

import argparse
import importlib
import inspect
import os
import platform
from importlib.metadata import version

import torch

# grad-cam draws progress bars into the table.
os.environ.setdefault("TQDM_DISABLE", "1")
BENCHES = (
    "grad_cam",
    "cams",
    "ablation_cam",
    "score_cam",
    "integrated_gradients",
    "occlusion",
    "rise",
    "lrp",
    "igos",
    "sag",
    "study",
    "study_workers",
)


def table(name: str, rounds: int, repeats: int) -> None:
    """Print one bench: what its figures are multiples of, and a row for each paired run."""
    bench = importlib.import_module(name)
    print(f"\n{inspect.getdoc(bench)}\n\nLimit: {bench.LIMIT}.\n")
    header: tuple[str, ...] = ()
    for case, batch, run in bench.runs(rounds, repeats):
        if tuple(run.figures) != header:
            header = tuple(run.figures)
            print("| what | batch | plain forward | spread | " + " | ".join(header) + " |")
            print("|---|---|---|---|" + "---|" * len(header))
        cells = [f"{figure.wall:.2f} ({figure.cpu:.2f})" for figure in run.figures.values()]
        steady = f"{run.spread:.0%}" + ("" if run.trusted else ", not counted")
        print(f"| {case} | {batch} | {run.plain_ms:.1f} ms | {steady} | " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("benches", nargs="*", default=BENCHES, metavar="BENCH", help=" ".join(BENCHES))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    peers = ", ".join(f"{name} {version(name)}" for name in ("torch", "captum", "torchcam", "grad-cam", "zennit"))
    print(f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads; {peers}")
    print(
        "Wall time (in brackets: CPU time) as a multiple of one plain no-gradient forward, or of the floor that the"
    )
    print(f"bench names; median of {asked.rounds} interleaved rounds, or of fewer where a call takes many seconds.")
    print("A run counts only where the plain forward spread at most 20 %.")
    for name in asked.benches:
        table(name, asked.rounds, asked.repeats)


if __name__ == "__main__":
    main()
