"""A wrong reason, found and repaired: `python docs/study_debug.py [--grey] [--fresh] [--out FOLDER]`.

A model that reads the tags in the corners of its pictures: its wrong reason is found in 500 of them without being
named, masked in the training pictures, and unlearnt. With --grey the pictures are files of one channel of 16 bits, as
x-ray pictures are, and a model of one channel is trained on them first. With --fresh the repaired model begins with
fresh weights. --out is where the page goes.
"""

import argparse
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

import whence
from whence.asking import MethodRequest
from whence.creatures import LABELS, Creature, draw_many
from whence.creatures.debugging import tag_places
from whence.creatures.train import Recipe, fresh_net
from whence.interpretable.labelled import Labelled, PictureFolder, Pixels, picture_folder
from whence.interpretable.training import Plan, fast_precision, fit
from whence.interpretable.training.objectives import Task
from whence.pictures.preprocess import Preprocess
from whence.reports.debugging_page import mean_map
from whence.reports.debugging_results import Repair
from whence.studies.debugging import Explained, Findings, explained, repair, report, search, trials, write
from whence.studies.debugging.regions import filled

SEARCHED, TESTED = 500, 500
TRAINED = {"colour": 4000, "grey": 2000}
# The seeds of the pictures that are searched, trained on, and tested with.
SEED, TRAINING, TEST = 1, 100, 7
TAGS = {"own tag": 1.0, "another's": 0.0, "no tag": None}
METHOD = "grad-cam"
GREY = Preprocess(resize=(64, 64), channels=1, mean=(0.5,), std=(0.5,))
LUMA = np.array([0.299, 0.587, 0.114])


@dataclass(frozen=True)
class Story:
    """Pictures to search, to train and to test with; ``tags`` says where the searched ones' tags are."""

    searched: Labelled
    tags: Tensor
    training: Labelled
    tests: Mapping[str, Labelled]


def creatures(count: int, seed: int, tags: float | None) -> list[Creature]:
    return list(draw_many(count, seed, tags=tags))


def in_colour(drawn: Sequence[Creature]) -> Pixels:
    pixels = torch.from_numpy(np.stack([one.pixels for one in drawn]))
    return Pixels(pixels, torch.tensor([one.label for one in drawn]), LABELS)


def in_files(drawn: Sequence[Creature], root: Path) -> PictureFolder:
    """Write creatures as grey pictures of 16 bits, and read them as anyone's."""
    for label in LABELS:
        (root / label).mkdir(parents=True)
    for number, one in enumerate(drawn):
        grey = np.rint(one.pixels @ LUMA / 255 * 65535).astype(np.uint16)
        Image.fromarray(grey).save(root / LABELS[one.label] / f"{number:05}.png")
    return picture_folder(root, GREY)


def colour_story() -> Story:
    searched = creatures(SEARCHED, SEED, 1.0)
    training = in_colour(creatures(TRAINED["colour"], TRAINING, 1.0))
    tests = {name: in_colour(creatures(TESTED, TEST, tags)) for name, tags in TAGS.items()}
    return Story(in_colour(searched), tag_places(searched), training, tests)


def grey_story(root: Path) -> Story:
    drawn = creatures(SEARCHED, SEED, 1.0)
    searched = in_files(drawn, root / "searched")
    order = [int(file.stem) for file in searched.files]
    training = in_files(creatures(TRAINED["grey"], TRAINING, 1.0), root / "training")
    tests = {name: in_files(creatures(TESTED, TEST, tags), root / name) for name, tags in TAGS.items()}
    return Story(searched, tag_places(drawn)[order], training, tests)


def grey_net() -> nn.Module:
    """Return a fresh creature-net for pictures of one channel."""
    net = fresh_net(Recipe())
    net.stem[0] = nn.Conv2d(1, 16, 3, 2, 1, bias=False)
    nn.init.kaiming_normal_(
        net.stem[0].weight, mode="fan_out", nonlinearity="relu", generator=torch.Generator().manual_seed(0)
    )
    return net


def grey_model(training: PictureFolder) -> whence.Classifier:
    """Train a model on grey pictures with their own tags."""
    net, plan = grey_net(), Plan(epochs=10, rate=3e-3, precision=fast_precision())
    fit(net, training, plan, Task(plan.smoothing))
    return whence.Classifier(net, GREY, training.classes, "creatures-grey-confounded")


def told(name: str, pictures: Explained, found: Findings, tags: Tensor) -> None:
    """Print what was found, and how many of the regions hit a tag."""
    on = found.regions(pictures)
    masked = torch.stack([filled(box, pictures.size) for box in on])
    flagged = on.any(1)
    print(f"{name}: {found.clusters.count} clusters, {int(found.suspicious.sum())} suspicious")
    for number, one in enumerate(found.checks, 1):
        size = len(found.clusters.rows(number - 1))
        print(
            f"  {number:2}  pictures {size:3}  changed {one.changed:6.1%}  lost {one.lost:6.1%}"
            f"  elsewhere {one.elsewhere:6.1%}  alike {one.alike:6.1%}  score {one.score:.2f}"
        )
    if flagged.any():
        covered = (masked & tags).sum((1, 2)) / tags.sum((1, 2))
        print(
            f"  regions of suspicious clusters: {int(flagged.sum())} of {len(flagged)} pictures; more than half of "
            f"the tag lies in {(covered[flagged] > 0.5).double().mean():.1%} of them, all of it in "
            f"{(covered[flagged] == 1).double().mean():.1%}; they cover {masked[flagged].double().mean():.1%} of the "
            f"picture, tags {tags.double().mean():.1%}"
        )


def run(
    model: whence.Classifier, control: whence.Classifier | None, story: Story, fresh: nn.Module | None, out: Path
) -> None:
    request = MethodRequest.read(METHOD)
    for one in filter(None, (control, model)):
        pictures = explained(one, story.searched, request)
        found = search(one, pictures)
        told(one.name, pictures, found, story.tags)
    regions = found.regions(explained(model, story.training, request))
    plan = Plan(epochs=5 if fresh is None else 9, rate=3e-3, precision=fast_precision())
    made = repair(model, story.training, regions, plan, net=fresh)
    tried = trials(model, made, story.tests, plan)
    masked = int(regions.any(1).sum())
    print(f"masked in {masked} of {len(regions)} training pictures, trained for {plan.epochs} epochs more")
    print(f"{'accuracy':12}{'before':>8}{'after':>8}")
    for trial in tried:
        print(f"{trial.name:12}{trial.before:8.1%}{trial.after:8.1%}")
    again = search(made, explained(made, story.searched, request))
    print(f"searched again, after the repair: {int(again.suspicious.sum())} of {again.clusters.count} suspicious")
    facts = {
        "Epochs": str(plan.epochs),
        "Highest rate": str(plan.rate),
        "Weights": "fresh" if fresh else "the model's own",
    }
    print(write(report(model, found, METHOD, repair=Repair(masked, len(regions), facts, tried)), out))


def clusters(count: int = 5) -> list[tuple[str, np.ndarray]]:
    """Return the mean maps of the most suspicious clusters over the mean pictures, each with what is said of it."""
    model = whence.load_model("creatures-confounded")
    drawn = in_colour(creatures(SEARCHED, SEED, 1.0))
    found = report(model, search(model, explained(model, drawn, MethodRequest.read(METHOD))), METHOD)
    pairs = zip(found.clusters[:count], found.looks, strict=False)
    return [(f"{one.pictures} pictures: {one.check.score:.2f}", mean_map(look)) for one, look in pairs]


@contextmanager
def folder(asked: str | None) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as made:
        yield Path(asked or made)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--grey", action="store_true")
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--out")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    began = perf_counter()
    with folder(asked.out) as out, tempfile.TemporaryDirectory() as root:
        if asked.grey:
            story = grey_story(Path(root))
            run(grey_model(story.training), None, story, grey_net() if asked.fresh else None, out)
        else:
            fresh = fresh_net(Recipe()) if asked.fresh else None
            run(whence.load_model("creatures-confounded"), whence.load_model("creatures"), colour_story(), fresh, out)
    print(f"{perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
