"""Run ReX on a picture that is already prepared; started by rex.py inside the environment that holds rex-xai.

All settings are ReX's own defaults, but for the masked value, the seed, the CPU and the number of spotlights.
"""

import argparse
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from rex_xai.explanation.explanation import Explanation
from rex_xai.explanation.multi_explanation import MultiExplanation
from rex_xai.explanation.rex import calculate_responsibility, predict_target
from rex_xai.input.config import CausalArgs
from rex_xai.input.input_data import Data
from rex_xai.responsibility.prediction import default_prediction_function
from safetensors.torch import load_file
from torch import Tensor, nn


class Meter:
    """A prediction function that counts the pictures it is given, and the time since it was made."""

    def __init__(self, predict: Callable[..., Any]) -> None:
        self.predict, self.pictures = predict, 0
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def __call__(self, pictures: Tensor, target: Any = None) -> Any:  # noqa: ANN401
        """Return ReX's predictions."""
        self.pictures += len(pictures)
        return self.predict(pictures, target)

    def read(self) -> np.ndarray:
        """Return pictures, wall seconds and CPU seconds up to now."""
        return np.array([self.pictures, time.perf_counter() - self.wall, time.process_time() - self.cpu])


def loaded(path: Path) -> nn.Module:
    """Return the timm model that a model file names."""
    told = tomllib.loads(path.read_text())
    model = timm.create_model(told["source"].removeprefix("timm:"), **told["options"])
    model.load_state_dict(load_file(path.parent / told["weights"]))
    return model.eval()


def settings(seed: int, spotlights: int) -> CausalArgs:
    """Return ReX's settings."""
    args = CausalArgs()
    args.seed, args.spotlights = seed, spotlights
    args.gpu = args.progress_bar = False
    return args


def prepared(x: Tensor, mask_value: float) -> Data:
    """Return an input [1, C, H, W] as ReX takes it."""
    data = Data(None, x.shape, mode="RGB")
    data.data = x
    data.set_mask_value(mask_value)
    return data


def masks(found: Any) -> tuple[list[Tensor], int]:  # noqa: ANN401
    """Return the pixels of each explanation kept, and how many were found before the overlapping ones left.

    A spotlight that found nothing stands in ReX's list as an empty explanation.
    """
    if not isinstance(found, MultiExplanation):
        return [found.sufficiency_mask[0]], 1
    kept = found.separate_by(found.args.permitted_overlap)[0]
    return [found.explanations[i][0] for i in kept], sum(bool(mask.any()) for mask in found.explanations)


def rows(model: nn.Module, data: Data, args: CausalArgs) -> Iterator[dict[str, Any]]:
    """Yield one row for each explanation: the single one, then the several; both rest on one responsibility map."""
    predict = Meter(default_prediction_function(model))
    data.target = predict_target(data, args, predict)
    maps, facts = calculate_responsibility(data, args, predict)
    mapped = predict.read()
    for kind in (Explanation, MultiExplanation) if args.spotlights > 1 else (Explanation,):
        before = predict.read()
        found = kind(maps, predict, data, args, facts)
        found.extract()
        kept, count = masks(found)
        cost = dict(zip(("evaluations", "seconds", "cpu"), mapped + predict.read() - before, strict=True))
        target = {"class": data.target.classification, "probability": data.target.confidence}
        run = {"run": "one" if kind is Explanation else "several", "found": count}
        yield from ({**run, **target, **cost, "mask": mask.numpy()} for mask in kept)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("picture", type=Path, help="a .npy file [1, C, H, W], as the model takes it")
    parser.add_argument("out", type=Path, help="the .npz file to write: one entry an explanation in each array")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--mask-value", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--spotlights", type=int, required=True)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    data = prepared(torch.from_numpy(np.load(asked.picture)), asked.mask_value)
    found = list(rows(loaded(asked.model), data, settings(asked.seed, asked.spotlights)))
    np.savez_compressed(asked.out, **{name: np.array([row[name] for row in found]) for name in found[0]})


if __name__ == "__main__":
    main()
