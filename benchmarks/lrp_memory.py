"""Peak memory of LRP over the loaded model, beside a plain forward and backward pass: each in its own process."""

import argparse
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch

import whence
from lrp import CASES, PEERS, forward_and_backward, zennit

WAYS = ("plain", *(f"{who} {name}" for name in PEERS for who in ("whence", "zennit")))


def memory(what: str) -> int:
    """Return this process's resident memory now (VmRSS) or at its peak (VmHWM), in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what))


def work(way: str, model: str, x: torch.Tensor) -> Callable[[], object]:
    """Return one of the ways to draw a map, or the plain pass."""
    classifier = whence.load_model(f"torchvision:{model}", weights="random")
    for parameter in classifier.module.parameters():
        parameter.requires_grad = False
    who, _, composite = way.partition(" ")
    if who == "plain":
        return forward_and_backward(classifier.module, x)
    if who == "zennit":
        return zennit(classifier.module, x, PEERS[composite], CASES[model])
    return lambda: whence.attribute(classifier, x, "lrp", composite=composite)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--one", nargs=2, metavar=("MODEL", "WAY"), help="measure one, in this process")
    asked = parser.parse_args()
    if asked.one:
        model, way = asked.one
        run = work(way, model, torch.randn(asked.batch, 3, asked.side, asked.side))
        before = memory("VmRSS")
        # Forget the peak of loading.
        Path("/proc/self/clear_refs").write_text("5")
        run()
        print((memory("VmHWM") - before) / 1024)
        return
    print(f"| model, batch {asked.batch} at {asked.side} | " + " | ".join(WAYS) + " |")
    print("|---" * (len(WAYS) + 1) + "|")
    for model in CASES:
        size = ["--batch", str(asked.batch), "--side", str(asked.side)]
        found = [
            float(subprocess.check_output([sys.executable, __file__, *size, "--one", model, way])) for way in WAYS
        ]
        cells = [f"{mib:.0f} MiB ({mib / found[0]:.2f})" for mib in found]
        print(f"| {model} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
