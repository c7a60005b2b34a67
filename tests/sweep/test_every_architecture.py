"""On every architecture a layer is found by itself, and Grad-CAM gives a finite map there that is no constant."""

import gc

import pytest
import torch

import whence
from whence.models.session import opened
from zoo import build, zoo

ZOO = zoo()


def test_the_zoo_is_large():
    libraries = [spec.partition(":")[0] for spec, _ in ZOO]
    assert libraries.count("torchvision") >= 80
    assert libraries.count("timm") >= 25
    assert libraries.count("hf") >= 15


@pytest.mark.sweep
@pytest.mark.parametrize(("spec", "side"), ZOO, ids=[spec for spec, _ in ZOO])
def test_grad_cam_on(spec, side, record_property):
    classifier = build(spec, side)
    x = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    made = whence.attribute(classifier, x, "grad-cam")
    with opened(classifier) as session:
        catalogue = session.catalogue(x)
    chosen = next(c for c in catalogue.candidates if c.name == catalogue.chosen)
    kind = "every path" if chosen.cut else "not every path"
    print(f"{spec}: {made.layer} {' x '.join(map(str, chosen.shape))} {chosen.layout.kind}, {kind}")
    assert not catalogue.dead
    assert made.layer == catalogue.chosen
    assert made.values.isfinite().all()
    assert made.notes == ((), ())
    flat = made.values.flatten(1)
    assert (flat.amax(1) > flat.amin(1)).all()
    del classifier, made
    gc.collect()
