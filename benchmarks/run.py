"""`make bench`: speed beside the peers, as multiples of one plain forward of the same batch."""

import argparse
import platform
from importlib.metadata import version

import torch

import grad_cam


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    peers = ", ".join(f"{name} {version(name)}" for name in ("torch", "captum", "torchcam", "grad-cam"))
    print(f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads; {peers}")
    print("Wall time as a multiple of one plain no-gradient forward (in brackets: by CPU time); median of")
    print(f"{asked.rounds} interleaved rounds. A run counts only where the plain forward spread at most 20 %.\n")
    print(f"Grad-CAM, from a batch to its maps; floor {grad_cam.FLOOR}, limit {grad_cam.LIMIT}\n")
    names = ("whence", "captum", "torch-cam", "grad-cam")
    print("| net | batch | plain forward | spread | " + " | ".join(names) + " |")
    print("|---|---|---|---|" + "---|" * len(names))
    for net, batch, run in grad_cam.runs(asked.rounds, asked.repeats):
        cells = [f"{run.figures[n].wall:.2f} ({run.figures[n].cpu:.2f})" for n in names]
        steady = f"{run.spread:.0%}" + ("" if run.trusted else ", not counted")
        print(f"| {net} | {batch} | {run.plain_ms:.1f} ms | {steady} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
