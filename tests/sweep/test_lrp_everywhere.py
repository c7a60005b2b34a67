"""LRP on every architecture: nothing is changed, all is accounted for, and without biases nothing is lost."""

import gc
from functools import partial

import pytest
import torch
from torch import Tensor, nn

import whence
from whence.methods.lrp import named
from whence.models.classifier import Classifier
from whence.models.session import opened
from zoo import build, zoo

ZOO = zoo()
ADDED = ("bias", "beta", "pos_embed", "position_embedding", "cls_token", "class_token", "dist_token", "reg_token")
ADDED += ("distillation_token", "cls_pos", "pos_embedding", "register_tokens", "mask_token", "patch_pos", "pixel_pos")

# What is added there without being a bias, and cannot be set to zero.
ADDS = {
    "timm:edgenext_xx_small": "sines of the position",
    "timm:xcit_nano_12_p16_224": "sines of the position",
    "hf:efficientnet": "margins of zeros before convolutions, to which the box rule gives its share",
    "hf:mobilenet_v2": "a margin of zeros before the first convolution, to which the box rule gives its share",
}


def relative(a: Tensor, b: Tensor) -> float:
    return float(((a - b).abs() / b.abs()).max())


def logits(classifier: Classifier, x: Tensor) -> Tensor:
    with opened(classifier) as session:
        return session.logits(session.run(session.arranged(x)))


def calibrated(module: nn.Module, x: Tensor) -> None:
    """Set the variances of batch norms from one batch, their means to zero, and everything that is added."""
    norms = [layer for layer in module.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    for layer in norms:
        layer.train()
        layer.momentum = 1.0
    with torch.no_grad():
        module(x)
        for layer in norms:
            layer.eval()
            layer.running_mean.zero_()
        for name, parameter in [*module.named_parameters(), *module.named_buffers()]:
            leaf = name.rpartition(".")[2]
            if any(added in leaf for added in ADDED) and "relative" not in name and "bias_table" not in leaf:
                parameter.zero_()


def fails(classifier: Classifier, x: Tensor) -> dict[str, str]:
    """Return what does not hold in float32, by what it is."""
    plain = logits(classifier, x)
    found = {}
    made = whence.attribute(classifier, x, "lrp", composite="lrp-0")
    changed = float((made.score - plain.amax(1)).abs().max() / plain.abs().max())
    if changed > 1e-5:
        found["forward"] = f"the score changes by {changed:.1e}"
    residual = float(made.residual.max())
    if residual > 1e-5:
        found["balance"] = f"{residual:.1e} of the score is not accounted for"
    for name in named.NAMED:
        values = whence.attribute(classifier, x[:1], "lrp", composite=name).values
        if not values.isfinite().all():
            found[name] = "not finite"
    return found


@pytest.mark.sweep
@pytest.mark.parametrize(("spec", "side"), ZOO, ids=[spec for spec, _ in ZOO])
def test_lrp_on(spec, side, counted):
    classifier = build(spec, side)
    x = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    found = fails(classifier, x)
    classifier.module.double()
    calibrated(classifier.module, torch.randn(4, 3, side, side, generator=torch.Generator().manual_seed(2)).double())
    exact = Classifier(classifier.module)
    rounding = float(whence.attribute(exact, x.double(), "lrp", composite="lrp-0").residual.max())
    if "balance" in found and rounding <= 1e-9:
        found["balance"] += f" in float32, {rounding:.1e} in float64: rounding"
        counted["lrp-0 in float32"]["rounding above 1e-5"] += 1
        print(f"{spec}: {found.pop('balance')}")
    made = whence.attribute(exact, x.double(), "lrp", composite=partial(named.auto, epsilon=1e-12))
    kept = relative(made.balance.input, made.balance.start)
    held = float((made.balance.bias.abs() + made.balance.constants.abs()).max())
    if spec in ADDS:
        counted["lrp, zero bias"][f"not exact, for {ADDS[spec]}"] += 1
        assert float(made.residual.max()) <= 1e-9
    elif held > 1e-9:
        found["zero bias"] = f"something is still added: biases {made.balance.bias}, {made.balance.constants}"
    elif kept > 1e-6:
        found["zero bias"] = f"{kept:.1e} is lost, of a score of {float(made.score.abs().min()):.1e}"
    for what in ("forward", "balance", *(["zero bias"] if spec not in ADDS else [])):
        counted[f"lrp, {what}"]["failed" if what in found else "holds"] += 1
    counted["lrp, all composites finite"]["failed" if set(found) & set(named.NAMED) else "holds"] += 1
    print(f"{spec}: auto keeps all but {kept:.1e}, {made.notes[0][0] if made.notes[0] else 'no note'}")
    del classifier, exact
    gc.collect()
    assert not found, "\n".join(f"{what}: {why}" for what, why in found.items())
