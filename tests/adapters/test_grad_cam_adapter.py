"""grad-cam's call gives maps in [0, 1] made of the method's own numbers."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import whence
from small_nets import SIZE, SmallNet, SmallViT, drawn, pictures, tiny_options
from whence.adapters import grad_cam as ours
from whence.errors import LayerError, OptionError, TargetError
from whence.registry import METHODS

CAMS = [n for n in METHODS.names() if METHODS.facts(n).needs == "layer" and METHODS.facts(n).family == "activation"]
THEIRS = {
    "GradCAM": "grad-cam",
    "GradCAMPlusPlus": "grad-cam++",
    "XGradCAM": "xgrad-cam",
    "LayerCAM": "layer-cam",
    "HiResCAM": "hires-cam",
    "EigenCAM": "eigen-cam",
    "ScoreCAM": "score-cam",
    "AblationCAM": "ablation-cam",
}


def scaled(cam):
    cam = cam - cam.min()
    return cam / (cam.max() + 1e-7)


def drawn_as_theirs(values):
    """[B, 1, h, w] as grad-cam shows it, picture by picture."""
    maps = []
    for cam in values[:, 0].clamp(min=0):
        wide = F.interpolate(scaled(cam)[None, None], size=(SIZE, SIZE), mode="bilinear", align_corners=False)
        maps.append(scaled(wide[0, 0]))
    return torch.stack(maps).numpy()


@pytest.fixture
def net():
    return drawn(SmallNet())


@pytest.mark.parametrize("method", CAMS)
def test_every_cam_is_made_of_the_methods_own_numbers(method, net):
    options = tiny_options(METHODS.facts(method))
    plain = whence.attribute(net, pictures(), method, target=[1, 3], layer="down", **options)
    name = next((name for name, known in THEIRS.items() if known == method), method.upper().replace("-", ""))
    cam = getattr(ours, name)(model=net, target_layers=[net.down])
    found = cam(input_tensor=pictures(), targets=[ours.ClassifierOutputTarget(1), ours.ClassifierOutputTarget(3)])
    assert found.shape == (2, SIZE, SIZE)
    assert found.dtype == np.float32
    assert np.abs(found - drawn_as_theirs(plain.values)).max() < 1e-6


@pytest.mark.parametrize(("name", "method"), [pair for pair in THEIRS.items() if pair[1] in METHODS.names()])
def test_the_names_are_grad_cams(name, method):
    peer = pytest.importorskip("pytorch_grad_cam")
    assert getattr(ours, name).of == method
    assert getattr(ours, name).__name__ == getattr(peer, name).__name__


@pytest.mark.parametrize("layers", [["down"], ["block", "down"]])
@pytest.mark.parametrize("aug_smooth", [False, True])
def test_grad_cams_own_picture_is_the_same(net, layers, aug_smooth):
    peer = pytest.importorskip("pytorch_grad_cam")
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    still = drawn(SmallNet(inplace=False)).eval()
    modules = [getattr(still, layer) for layer in layers]
    asked = {"targets": [ClassifierOutputTarget(1), ClassifierOutputTarget(3)], "aug_smooth": aug_smooth}
    with peer.GradCAM(model=still, target_layers=modules) as cam:
        expected = cam(input_tensor=pictures(), **asked)
    with ours.GradCAM(model=still, target_layers=modules) as cam:
        found = cam(input_tensor=pictures(), **asked)
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    assert np.abs(found - expected).max() < 1e-5


def test_eigen_smooth_is_theirs_up_to_the_sign(net):
    pytest.importorskip("pytorch_grad_cam")
    from pytorch_grad_cam.utils.svd_on_activations import get_2d_projection

    plain = whence.attribute(net, pictures(), "grad-cam", target=1, layer="down")
    weighed = (plain.weights[:, :, None, None] * plain.activation).numpy()
    theirs = torch.from_numpy(get_2d_projection(weighed.copy())).double()
    found = ours.GradCAM(net, [net.down])(pictures(), [ours.ClassifierOutputTarget(1)] * 2, eigen_smooth=True)
    for row in range(2):
        either = [drawn_as_theirs(sign * theirs[row : row + 1, None])[0] for sign in (1, -1)]
        with_sum = [
            np.corrcoef((sign * theirs[row]).flatten(), plain.values[row].flatten())[0, 1] for sign in (1, -1)
        ]
        assert np.abs(found[row] - either[int(np.argmax(with_sum))]).max() < 1e-5


def test_eigen_smooth_needs_weights(net):
    with pytest.raises(OptionError, match="no weight for each channel"):
        ours.LayerCAM(net, [net.down])(pictures(), eigen_smooth=True)


def test_without_targets_each_top_class_is_explained_and_kept_under_augmentation(net):
    x = pictures(4)
    with torch.no_grad():
        top = drawn(SmallNet()).eval()(x).argmax(1).tolist()
    cam = ours.GradCAM(net, [net.down])
    for aug_smooth in (False, True):
        named = cam(x, [ours.ClassifierOutputTarget(c) for c in top], aug_smooth=aug_smooth)
        assert (cam(x, None, aug_smooth=aug_smooth) == named).all()


@pytest.mark.parametrize(("asked", "rank"), [([None] * 8, 0), (["second"] * 8, 1), (None, 0)])
def test_under_augmentation_the_class_is_that_of_the_unchanged_picture(net, monkeypatch, asked, rank):
    """With a head for which brightness alone decides between the classes."""
    x, counted = pictures(8), []
    with torch.no_grad():
        settled = net.eval()(x).topk(2, dim=1).indices[:, rank].tolist()
        changed = [net(factor * x).topk(2, dim=1).indices[:, rank].tolist() for factor in (-1.0, 0.0)]
    assert all(other != settled for other in changed)
    monkeypatch.setattr(ours, "_CONTRASTS", (-1.0, 1.0, 0.0))
    cam = ours.GradCAM(net, [net.down])
    assert (cam(x, asked, aug_smooth=True) == cam(x, settled, aug_smooth=True)).all()

    def attribute(*given, **options):
        counted.append(1)
        return whence.attribute(*given, **options)

    monkeypatch.setattr(ours, "attribute", attribute)
    cam(x, asked, aug_smooth=True)
    assert len(counted) == 6


def test_a_target_may_be_any_callable_on_a_pictures_output(net):
    cam = ours.GradCAM(net, [net.down])
    by_call = cam(pictures(), [lambda row: row[1] - row[2]] * 2)
    by_name = cam(pictures(), ["1 - 2"] * 2)
    assert np.abs(by_call - by_name).max() < 1e-6
    different = cam(pictures(), [lambda row: row[1], ours.ClassifierOutputTarget(3)])
    assert (different == cam(pictures(), [1, 3])).all()


def test_their_targets_that_measure_something_else_are_called():
    pytest.importorskip("pytorch_grad_cam")
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget

    found = ours._target(ClassifierOutputSoftmaxTarget(1))
    logits = torch.tensor([[0.0, 1.0, 3.0]])
    assert torch.equal(found(logits), logits.softmax(1)[:, 1])


def test_targets_that_are_none_are_refused(net):
    cam = ours.GradCAM(net, [net.down])
    with pytest.raises(TargetError, match="1 targets for 2 pictures"):
        cam(pictures(), [ours.ClassifierOutputTarget(1)])
    with pytest.raises(TargetError, match="no ClassifierOutputTarget"):
        cam(pictures(), [1.5, 2.5])
    with pytest.raises(TargetError, match="out of range"):
        cam(pictures(), [ours.ClassifierOutputTarget(-1)] * 2)


def test_layers_are_modules_of_the_model(net):
    assert ours.GradCAM(net, [net.block.conv, "down"]).layers == ("block.conv", "down")
    with pytest.raises(LayerError, match="no part of SmallNet"):
        ours.GradCAM(net, [torch.nn.Conv2d(3, 3, 1)])
    for wrong in (net.down, "down", []):
        with pytest.raises(LayerError, match="a list with at least one"):
            ours.GradCAM(net, wrong)


def test_reshape_transform_is_not_needed():
    net = drawn(SmallViT())
    with pytest.warns(UserWarning, match="not needed") as said:
        cam = ours.GradCAM(net, [net.blocks[0]], reshape_transform=lambda tokens: 1 / 0)
    assert len(said) == 1
    assert cam(pictures()).shape == (2, SIZE, SIZE)


def test_errors_come_out_of_the_block_and_the_model_is_as_it_was(net):
    net.train()
    with pytest.raises(TargetError), ours.GradCAM(net, [net.down]) as cam:
        cam(pictures(), [7, 7])
    with pytest.raises(IndexError), ours.GradCAM(net, [net.down]):
        raise IndexError
    assert net.training
    assert all(not module._forward_hooks for module in net.modules())


def test_outputs_are_the_models(net):
    cam = ours.GradCAM(net, [net.down])
    with pytest.raises(OptionError, match="before the first call"):
        _ = cam.outputs
    cam(pictures())
    with torch.no_grad():
        assert torch.equal(cam.outputs, drawn(SmallNet()).eval()(pictures()))


@pytest.mark.skipif("score-cam" not in METHODS.names(), reason="not registered")
def test_batch_size_is_the_methods_batch(net, monkeypatch):
    seen = []
    monkeypatch.setattr(ours, "attribute", lambda *given, **options: seen.append(options) or 1 / 0)
    for name, expected in (("ScoreCAM", {"layer": "down", "batch": 5}), ("GradCAM", {"layer": "down"})):
        cam = getattr(ours, name)(net, [net.down])
        cam.batch_size = 5
        with pytest.raises(ZeroDivisionError):
            cam(pictures(), [1, 1])
        assert {key: value for key, value in seen[-1].items() if key != "target"} == expected


def test_a_zero_map_is_zero():
    net = drawn(SmallNet())
    with torch.no_grad():
        net.head.weight.zero_()
    found = ours.GradCAM(net, [net.down])(pictures(), [1, 1])
    assert (found == 0).all()


def test_methods_that_make_no_map_of_a_layer_have_no_class():
    for name in ("IntegratedGradients", "GuidedGradCam", "FullGrad"):
        with pytest.raises(AttributeError, match="no method"):
            getattr(ours, name)
