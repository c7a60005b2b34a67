"""The models of the long sweeps: every one untrained, at the smallest input that still leaves a map to explain."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from torchvision import models

from whence import Classifier, load_model
from whence.pictures.preprocess import Preprocess

# Whole numbers of this side fit the strides of nearly all: 2 x 2 places after five halvings.
SIDE = 64


@dataclass(frozen=True)
class Entry:
    """One model of the zoo, the side of its input, and the constructor's option that takes that side."""

    spec: str
    side: int = SIDE
    options: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))


# Where the last map would be 1 x 1, or where the constructor fixes the side.
_TORCHVISION_SIDES = {"alexnet": 96, "inception_v3": 107, "maxvit_t": 224}
# Two patches a side.
_TORCHVISION_PATCHES = {"vit_b_16": 16, "vit_b_32": 32, "vit_l_16": 16, "vit_l_32": 32, "vit_h_14": 14}


def torchvision_zoo() -> list[Entry]:
    """Return all of torchvision's image classifiers, as torchvision lists them."""
    return [_torchvision(name) for name in models.list_models(module=models)]


def _torchvision(name: str) -> Entry:
    if name in _TORCHVISION_PATCHES:
        side = 2 * _TORCHVISION_PATCHES[name]
        return Entry(f"torchvision:{name}", side, {"image_size": side})
    return Entry(f"torchvision:{name}", _TORCHVISION_SIDES.get(name, SIDE))


# The sides of those whose constructor has to be told.
_TIMM_TOLD = {
    "beit_base_patch16_224": 32,
    "cait_xxs24_224": 32,
    "davit_tiny": None,
    "deit_tiny_distilled_patch16_224": 32,
    "levit_128s": 64,
    "maxvit_rmlp_pico_rw_256": None,
    "mixer_b16_224": 32,
    "swin_tiny_patch4_window7_224": 64,
    "tnt_s_legacy_patch16_224": 32,
    "vit_small_patch14_reg4_dinov2": 28,
    "vit_tiny_patch16_224": 32,
}
