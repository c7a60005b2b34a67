"""The models of the long sweeps: every one untrained, at a small input that still leaves a map to explain.

``zoo()`` lists them as (spec, side of the input), ``build(spec, side)`` makes one.
"""

import torchvision

from whence.models.classifier import Classifier
from whence.models.load import load_model
from whence.pictures.preprocess import Preprocess

# Five halvings leave 2 x 2 places; a transformer of plain patches takes two patches a side.
SIDE = 64

# Where five halvings of SIDE would leave 1 x 1, and where the architecture takes one side alone.
_TORCHVISION_SIDES = {"alexnet": 96, "inception_v3": 107, "maxvit_t": 224}
_TORCHVISION_TOLD = {"vit_b_16": 32, "vit_b_32": 64, "vit_l_16": 32, "vit_l_32": 64, "vit_h_14": 28}

_TIMM_SIDES = {
    **dict.fromkeys(("convnext_tiny", "resnetv2_50", "mobilevit_xxs", "edgenext_xx_small", "poolformer_s12"), SIDE),
    **dict.fromkeys(("davit_tiny", "mobilenetv3_small_075", "regnety_002", "dpn68", "inception_next_atto"), SIDE),
    **dict.fromkeys(("efficientnet_b0", "mobileone_s0", "rexnet_100", "seresnet18"), SIDE),
    **dict.fromkeys(("nf_resnet50", "hrnet_w18_small", "pvt_v2_b0", "repvgg_a0", "ghostnet_100", "vgg11"), SIDE),
    "xcit_nano_12_p16_224": 32,
    "efficientformer_l1": 224,
}
_TIMM_TOLD = {
    "beit_base_patch16_224": 32,
    "cait_xxs24_224": 32,
    "deit_tiny_distilled_patch16_224": 32,
    "levit_128s": 64,
    "maxvit_nano_rw_256": 64,
    "mixer_s32_224": 64,
    "swin_tiny_patch4_window7_224": 64,
    "tnt_s_patch16_224": 32,
    "vit_small_patch14_reg4_dinov2": 28,
    "vit_tiny_patch16_224": 32,
}

_TRANSFORMERS_SIDES = {
    **dict.fromkeys(("bit", "convnext", "convnextv2", "cvt", "efficientnet", "focalnet", "mobilenet_v2"), SIDE),
    **dict.fromkeys(("mobilevit", "poolformer", "regnet", "resnet", "segformer", "swiftformer"), SIDE),
}
_TRANSFORMERS_TOLD = {
    "beit": 32,
    "deit": 32,
    "dinov2": 28,
    "levit": 64,
    "pvt": 64,
    "swin": 64,
    "swinv2": 64,
    "vit": 32,
}
# Its windows have to fit into the last map.
_TRANSFORMERS_OPTIONS = {"swin": {"window_size": 2}}

# By library: the option that tells the side, and the sides of the models that need it.
_TOLD = {
    "torchvision": ("image_size", _TORCHVISION_TOLD),
    "timm": ("img_size", _TIMM_TOLD),
    "hf": ("image_size", _TRANSFORMERS_TOLD),
}


def zoo() -> list[tuple[str, int]]:
    """Return every model's spec and the side of its input."""
    return [
        *_entries("torchvision", {name: _torchvision_side(name) for name in _torchvision_names()}),
        *_entries("timm", {**_TIMM_SIDES, **_TIMM_TOLD}),
        *_entries("hf", {**_TRANSFORMERS_SIDES, **_TRANSFORMERS_TOLD}),
    ]


def build(spec: str, side: int) -> Classifier:
    """Build one model of the zoo with random weights, for square pictures of the given side."""
    library, _, name = spec.partition(":")
    option, told = _TOLD[library]
    options = _TRANSFORMERS_OPTIONS.get(name, {}) if library == "hf" else {}
    model = load_model(spec, weights="random", **({option: side} if name in told else {}), **options)
    preprocess = Preprocess(resize=(side, side), mean=(0.5,), std=(0.25,))
    return Classifier(model.module, preprocess, model.labels, model.name, spec=spec)


def _torchvision_names() -> list[str]:
    names = torchvision.models.list_models(module=torchvision.models)
    assert len(names) >= 80, "torchvision lists fewer classifiers than it had"
    return names


def _torchvision_side(name: str) -> int:
    return _TORCHVISION_TOLD.get(name) or _TORCHVISION_SIDES.get(name, SIDE)


def _entries(library: str, sides: dict[str, int]) -> list[tuple[str, int]]:
    return [(f"{library}:{name}", side) for name, side in sorted(sides.items())]
