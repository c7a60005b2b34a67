"""Quantus' call: numpy in, numpy out, on the input's grid.

Quantus itself needs an older numpy and is not installed beside: the adapter is called as its metrics call it.
"""

import numpy as np
import pytest
import torch

import whence
from small_nets import SIZE, SmallNet, drawn, net_for, pictures, tiny_options
from whence.adapters.quantus import explain_func
from whence.errors import ModelError, OptionError, UnknownNameError, UnsupportedError
from whence.registry import METHODS


@pytest.fixture
def net():
    return drawn(SmallNet())


def metric(model, x_batch, y_batch, explain_func, explain_func_kwargs=None, device=None):
    """What a metric of Quantus does with explain_func, and what it asks of the answer."""
    kwargs = dict(explain_func_kwargs or {})
    if device is not None and "device" not in kwargs:
        kwargs["device"] = device
    a_batch = explain_func(model=model, inputs=x_batch, targets=y_batch, **kwargs)
    assert type(a_batch) is np.ndarray
    assert a_batch.shape[0] == x_batch.shape[0]
    assert a_batch.shape[-2:] == x_batch.shape[-2:]
    assert a_batch.shape[1] in (1, x_batch.shape[1])
    assert len(np.unique(a_batch)) > 1
    return a_batch


@pytest.mark.parametrize("method", METHODS.names())
def test_a_metric_gets_every_methods_own_numbers(method):
    net, x, y = net_for(method), pictures(), np.array([1, 3])
    options = tiny_options(METHODS.facts(method))
    try:
        plain = whence.attribute(net, x, method, target=[1, 3], **options)
    except UnsupportedError:
        pytest.skip("this net cannot be explained by it")
    found = metric(net, x.numpy(), y, explain_func, {"method": method, **options}, device="cpu")
    assert found.shape == (2, 1, SIZE, SIZE)
    assert (found[:, 0] == plain.heatmap().numpy()).all()
    whole = metric(net, x.numpy(), y, explain_func, {"method": method, "reduce_axes": (), **options})
    assert whole.shape == tuple(x.shape)


def test_the_gradient_is_taken_without_a_method(net):
    x = pictures()
    plain = whence.attribute(net, x, "gradient", target=2)
    assert (explain_func(net, x.numpy(), 2)[:, 0] == plain.heatmap().numpy()).all()
    assert (explain_func(net, x, torch.tensor([2, 2]))[:, 0] == plain.heatmap().numpy()).all()


def test_channels_are_summed_as_quantus_does_where_it_is_told_to(net):
    x = pictures()
    values = whence.attribute(net, x, "gradient", target=2).values.numpy()
    assert (explain_func(net, x, 2, method="Saliency", reduce_axes=()) == values).all()
    assert np.allclose(explain_func(net, x, 2, reduce_axes=[1]), values.sum(1, keepdims=True), rtol=1e-12)
    assert explain_func(net, x, 2, reduce_axes=(1,), keepdims=False).shape == (2, SIZE, SIZE)
    assert explain_func(net, x, 2, keepdims=False).shape == (2, SIZE, SIZE)


def test_a_map_with_one_channel_is_summed_once(net):
    x = pictures()
    plain = whence.attribute(net, x, "grad-cam", target=2).heatmap().numpy()
    found = explain_func(net, x, 2, method="grad-cam", reduce_axes=(1,))
    assert found.shape == (2, 1, SIZE, SIZE)
    assert np.allclose(found[:, 0], plain, rtol=1e-12)
    total = explain_func(net, x, 2, method="grad-cam", reduce_axes=(1, 2, 3), keepdims=False)
    assert np.allclose(total, plain.sum((1, 2)), rtol=1e-10)


def test_a_function_is_a_model_where_scores_are_enough(net):
    net.eval()

    def scores(batch):
        with torch.no_grad():
            return net(batch.double())

    plain = whence.attribute(scores, pictures(), "occlusion", target=2, window=6).heatmap().numpy()
    assert (explain_func(scores, pictures().numpy(), 2, method="occlusion", window=6)[:, 0] == plain).all()
    with pytest.raises(ModelError, match="give the module itself"):
        explain_func(scores, pictures().numpy(), 2, method="gradient")


def test_names_and_layers_as_quantus_gives_them(net):
    x = pictures()
    plain = whence.attribute(net, x, "grad-cam", target=2, layer="block.conv").heatmap().numpy()
    for layer in (net.block.conv, "block.conv"):
        assert (explain_func(net, x, 2, method="LayerGradCam", gc_layer=layer)[:, 0] == plain).all()
    assert (explain_func(net, x, 2, method="grad-cam", xai_lib_kwargs={"layer": "block.conv"})[:, 0] == plain).all()


def test_softmax_explains_the_probability(net):
    x = pictures()
    plain = whence.attribute(net, x, "gradient", target=["probability:1", "probability:3"]).heatmap().numpy()
    assert (explain_func(net, x, [1, 3], softmax=True)[:, 0] == plain).all()
    assert (explain_func(net, x, [1, 3], softmax=False)[:, 0] != plain).any()


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"method": "GradShap"}, UnknownNameError, "there is no method 'GradShap'"),
        ({"channel_first": False}, OptionError, "channels first"),
        ({"reduce_axes": (0,)}, OptionError, "give axes 1, 2 or 3"),
        ({"layers": "down"}, OptionError, "no option 'layers'"),
    ],
)
def test_what_has_no_meaning_is_refused(net, arguments, error, said):
    with pytest.raises(error, match=said):
        explain_func(net, pictures(), 1, **arguments)


def test_the_model_is_left_in_train_mode(net):
    net.train()
    explain_func(net, pictures().numpy(), 1, device="cpu")
    assert net.training
