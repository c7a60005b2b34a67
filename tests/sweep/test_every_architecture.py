"""On every architecture a layer is found by itself, and every method that needs one gives a finite map there."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch.utils._pytree import tree_flatten, tree_unflatten

import whence
from whence.attribution import NO_EVIDENCE
from whence.errors import UnsupportedError
from whence.models.classifier import Classifier
from whence.models.layers import Candidate
from whence.models.session import opened
from whence.models.taps import main_leaf
from whence.registry import METHODS
from zoo import build, zoo

ZOO = zoo()
# These run the model once for every channel, and so on the first few alone.
LOOPING = ("ablation-cam", "score-cam")
FEW = 16
SWEPT = tuple(name for name in METHODS.names() if METHODS.facts(name).needs in ("layer", "attention"))


def test_the_zoo_is_large():
    libraries = [spec.partition(":")[0] for spec, _ in ZOO]
    assert libraries.count("torchvision") >= 80
    assert libraries.count("timm") >= 30
    assert libraries.count("hf") >= 15


@contextmanager
def few_channels(classifier: Classifier, chosen: Candidate) -> Iterator[None]:
    """Let the layer return zero in all channels but the first, which costs those methods nothing."""
    axis = 1 if chosen.layout.kind == "channels-first" else -1

    def keep_few(layer, args, output):
        mask = torch.zeros(chosen.channels)
        mask[:FEW] = 1
        leaves, structure = tree_flatten(output)
        at = main_leaf(leaves)
        leaves[at] = leaves[at] * (mask.reshape(-1, 1, 1) if axis == 1 else mask)
        return tree_unflatten(leaves, structure)

    path, _, call = chosen.name.partition("#")
    assert not call, "hooks cannot tell the calls of a module apart"
    handle = classifier.module.get_submodule(path).register_forward_hook(keep_few)
    try:
        yield
    finally:
        handle.remove()


def explained(classifier: Classifier, method: str, x: torch.Tensor, chosen: Candidate) -> str:
    """Return how it went: a map, a sentence that says why not, or an assertion's error."""
    try:
        if method in LOOPING:
            with few_channels(classifier, chosen):
                made = whence.attribute(classifier, x, method)
        else:
            made = whence.attribute(classifier, x, method)
    except UnsupportedError as error:
        return f"refused: {error}"
    assert made.values.isfinite().all()
    flat = made.values.flatten(1)
    varied = flat.amax(1) > flat.amin(1)
    silent = torch.tensor([NO_EVIDENCE in notes for notes in made.notes])
    assert (varied | silent).all(), f"{method} gives a constant map"
    # Where Grad-CAM is nowhere positive there is nothing that guided Grad-CAM could show, and the map says so.
    assert method == "guided-grad-cam" or not silent.any(), f"{method} finds no evidence"
    return "zero with its note" if silent.any() else "map"


@pytest.mark.sweep
@pytest.mark.parametrize(("spec", "side"), ZOO, ids=[spec for spec, _ in ZOO])
def test_every_method_on(spec, side, counted):
    classifier = build(spec, side)
    x = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    with opened(classifier) as session:
        catalogue = session.catalogue(x)
    assert not catalogue.dead
    chosen = next(c for c in catalogue.candidates if c.name == catalogue.chosen)
    kind = "every path" if chosen.cut else "not every path"
    print(f"{spec}: {chosen.name} {' x '.join(map(str, chosen.shape))} {chosen.layout.kind}, {kind}")
    failed = {}
    for method in SWEPT:
        try:
            said = explained(classifier, method, x, chosen)
            assert "\n" not in said
            counted[method][said.partition(":")[0]] += 1
        except Exception as error:  # the other methods are still to be seen
            failed[method] = f"{type(error).__name__}: {error}"
            counted[method]["failed"] += 1
            continue
        if METHODS.facts(method).needs == "layer" and method != "cam" and said.startswith("refused"):
            failed[method] = said
    del classifier
    gc.collect()
    assert not failed, "\n".join(f"{method}: {why}" for method, why in failed.items())
