"""Captum's call gives the method's own numbers, in Captum's shapes."""

import inspect

import pytest
import torch

import whence
from small_nets import SIZE, SmallNet, drawn, net_for, pictures, relative, tiny_options
from whence.adapters import captum as ours
from whence.errors import LayerError, ModelError, OptionError, PictureError, TargetError, UnsupportedError
from whence.registry import METHODS

# Captum's names of methods that it has, as far as they are registered here.
THEIRS = {
    "Saliency": "gradient",
    "InputXGradient": "input-x-gradient",
    "IntegratedGradients": "integrated-gradients",
    "GuidedBackprop": "guided-backprop",
    "GuidedGradCam": "guided-grad-cam",
    "LayerGradCam": "grad-cam",
    "Occlusion": "occlusion",
}
NAMES = [name for name, method in THEIRS.items() if method in METHODS.names()]


def attributed(net, x, method, **options):
    return whence.attribute(net, x, method, **options)


@pytest.fixture
def net():
    return drawn(SmallNet())


@pytest.mark.parametrize("method", METHODS.names())
def test_every_method_gives_its_own_numbers(method):
    net, x, options = net_for(method), pictures(), tiny_options(METHODS.facts(method))
    try:
        plain = attributed(net, x, method, target=3, **options)
    except UnsupportedError:
        pytest.skip("this net cannot be explained by it")
    values = ours.Attribution(net, method, **options).attribute(x, target=3)
    if METHODS.facts(method).needs in ("layer", "attention") and plain.values.shape[1] == 1:
        assert torch.equal(values, plain.values)
    else:
        assert values.shape == x.shape
        expected = plain.values if plain.values.shape == x.shape else plain.heatmap()[:, None].expand_as(x)
        assert torch.equal(values, expected)


@pytest.mark.parametrize("method", METHODS.names())
def test_every_method_has_a_class_of_its_own(method):
    name = "".join(part.capitalize() for part in method.replace("++", "-plus-plus").replace("+", "-plus").split("-"))
    found = getattr(ours, name)
    assert (found.__name__, found.of) == (name, method)
    assert found is getattr(ours, name)
    assert found(net_for(method)).method == method


@pytest.mark.parametrize("name", NAMES)
def test_captums_names_mean_captums_methods(name):
    assert getattr(ours, name).of == THEIRS[name]


@pytest.mark.parametrize("name", NAMES)
def test_captums_own_call_fits(name, net):
    """Arguments without names stand where Captum's signature has them, and its defaults are taken."""
    peer = pytest.importorskip("captum.attr")
    signature = inspect.signature(getattr(peer, name).attribute)
    order = [p for p in signature.parameters if p not in ("self", "inputs")]
    known = ours._ORDER.get(name, ours._OTHERWISE)
    assert tuple(order)[: len(known)] == known
    x, call = pictures(), getattr(ours, name)(net, *([net.down] if "Cam" in name else []))
    given = {"sliding_window_shapes": (3, 4, 4), "strides": (3, 2, 2), "n_steps": 4, "target": 2}
    given |= {"baselines": 0, "method": "riemann_middle", "internal_batch_size": 5}
    named = {key: given[key] for key in order if key in given}
    by_name = call.attribute(x, **named)
    in_order = [given.get(key, signature.parameters[key].default) for key in known[: len(known)]]
    assert torch.equal(call.attribute(x, *in_order), by_name)


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("Occlusion", "IntegratedGradients", "GuidedGradCam")])
def test_shapes_and_numbers_are_captums_where_the_method_is_the_same(name):
    peer = pytest.importorskip("captum.attr")
    net, x = drawn(SmallNet(inplace=False)).eval(), pictures()
    layer = [net.down] if "Cam" in name else []
    expected = getattr(peer, name)(net, *layer).attribute(x, target=1).detach()
    assert relative(getattr(ours, name)(net, *layer).attribute(x, target=1), expected) < 1e-10


def test_saliency_takes_absolute_values_unless_told_otherwise(net):
    x, plain = pictures(), attributed(net, pictures(), "gradient", target=1).values
    saliency = ours.Saliency(net)
    assert torch.equal(saliency.attribute(x, target=1), plain.abs())
    assert torch.equal(saliency.attribute(x, 1, False), plain)
    assert torch.equal(saliency.attribute((x,), target=1)[0], plain.abs())
    assert torch.equal(ours.Attribution(net, "gradient").attribute(x, target=1), plain)


@pytest.mark.parametrize(
    ("target", "means"),
    [
        (2, 2),
        (None, None),
        ([1, 3], [1, 3]),
        ((4,), 4),
        ([(1,), (3,)], [1, 3]),
        (torch.tensor(2), 2),
        (torch.tensor([2]), 2),
        (torch.tensor([[2]]), 2),
        (torch.tensor([1, 3]), [1, 3]),
        (torch.tensor([[1], [3]]), [1, 3]),
        ("3 - 1", "3 - 1"),
    ],
)
def test_targets_of_every_kind(net, target, means):
    values = ours.Attribution(net, "gradient").attribute(pictures(), target=target)
    assert torch.equal(values, attributed(net, pictures(), "gradient", target=means).values)


def test_a_target_from_topk(net):
    x = pictures(1)
    with torch.no_grad():
        top = net.eval()(x).topk(1).indices
    assert top.shape == (1, 1)
    assert torch.equal(
        ours.Saliency(net).attribute(x, target=top), attributed(net, x, "gradient", target=int(top)).values.abs()
    )


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ((1, 2), "names one class"),
        (torch.tensor([[1, 2], [3, 4]]), "one number a picture"),
        ([1, 2, 3], "3 targets for 2 pictures"),
        (-1, "out of range"),
        (5, "out of range"),
    ],
)
def test_targets_that_name_no_class_are_refused(net, target, said):
    with pytest.raises(TargetError, match=said):
        ours.Saliency(net).attribute(pictures(), target=target)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"additional_forward_args": (1,)}, "leave it out, or give None"),
        ({"feature_mask": torch.ones(1)}, "leave it out"),
        ({"n_step": 3}, "nothing that Captum's 'n_step' would mean"),
        ({"return_convergence_delta": True}, "no law to miss"),
    ],
)
def test_arguments_without_a_counterpart_are_refused(net, arguments, said):
    with pytest.raises(OptionError, match=said):
        ours.Saliency(net).attribute(pictures(), target=1, **arguments)


def test_too_many_arguments_and_one_given_twice_are_refused(net):
    with pytest.raises(OptionError, match="each once: target, abs"):
        ours.Saliency(net).attribute(pictures(), 1, True, None, 4)
    with pytest.raises(OptionError, match="each once"):
        ours.Saliency(net).attribute(pictures(), 1, target=1)


def test_arguments_that_change_nothing_are_taken(net):
    x = pictures()
    call = ours.LayerGradCam(net, net.down)
    plain = call.attribute(x, target=1)
    same = call.attribute(x, target=1, attribute_to_layer_input=False, attr_dim_summation=True, grad_kwargs=None)
    assert torch.equal(plain, same)
    assert plain.shape == (2, 1, SIZE // 2, SIZE // 2)
    relu = call.attribute(x, target=1, relu_attributions=True)
    assert torch.equal(relu, plain.clamp(min=0))


def test_a_layer_is_a_module_or_its_name(net):
    x = pictures()
    by_module = ours.LayerGradCam(net, net.block.conv).attribute(x, target=1)
    assert torch.equal(by_module, attributed(net, x, "grad-cam", layer="block.conv", target=1).values)
    assert torch.equal(by_module, ours.Attribution(net, "grad-cam", layer="block.conv").attribute(x, target=1))
    with pytest.raises(LayerError, match="no part of SmallNet"):
        ours.LayerGradCam(net, torch.nn.Conv2d(3, 3, 1))


def test_a_tuple_of_one_input_gives_a_tuple(net):
    found = ours.InputXGradient(net).attribute((pictures(),), target=1)
    assert isinstance(found, tuple)
    assert len(found) == 1
    for wrong in ((pictures(), pictures()), pictures()[0], "x"):
        with pytest.raises(PictureError, match="one batch of pictures"):
            ours.InputXGradient(net).attribute(wrong, target=1)


def test_a_function_is_no_model(net):
    with pytest.raises(ModelError, match="give the module itself"):
        ours.Saliency(lambda x: net(x))


def test_a_function_is_a_model_where_scores_are_enough(net):
    net.eval()
    x = pictures()

    def scores(batch):
        with torch.no_grad():
            return net(batch.double())

    plain = attributed(scores, x, "occlusion", target=1, window=6, stride=3).heatmap()[:, None].expand_as(x)
    assert torch.equal(ours.Occlusion(scores).attribute(x, (3, 6, 6), 3, target=1), plain)
    assert ours.NoiseTunnel(ours.Rise(scores, samples=4, grid=2)).method == "noise.rise"


def test_a_tensor_as_baseline_goes_to_a_method_that_takes_it(net):
    x, baseline = pictures(), pictures(seed=4)
    options = {"target": 1, "steps": 3, "tol": None}
    for one in (baseline, baseline[:1], (baseline,)):
        values = ours.IntegratedGradients(net, tol=None).attribute(x, one, 1, n_steps=3)
        given = one[0] if isinstance(one, tuple) else one
        assert torch.equal(values, attributed(net, x, "integrated-gradients", baseline=given, **options).values)


def test_occlusions_windows(net):
    x, call = pictures(), ours.Occlusion(net)
    plain = attributed(net, x, "occlusion", target=1, window=6, stride=3).heatmap()[:, None].expand_as(x)
    assert torch.equal(call.attribute(x, (3, 6, 6), (3, 3, 3), target=1), plain)
    assert torch.equal(call.attribute(x, sliding_window_shapes=((3, 6, 6),), strides=3, target=1), plain)
    assert torch.equal(call.attribute(x, (3, 6, 6), 3, baselines=torch.zeros(1, 3, 1, 1), target=1), plain)
    for wrong in ((1, 6, 6), (3, 6, 4), (6, 6)):
        with pytest.raises(OptionError, match=r"give \(3, side, side\)"):
            call.attribute(x, wrong, target=1)
    with pytest.raises(OptionError, match="no baseline here"):
        call.attribute(x, (3, 6, 6), baselines=torch.ones(1, 3, 1, 1), target=1)


@pytest.mark.skipif("integrated-gradients" not in METHODS.names(), reason="not registered")
@pytest.mark.parametrize("rule", ours._RULES)
def test_integrated_gradients_arguments(net, rule):
    x = pictures()
    values, delta = ours.IntegratedGradients(net).attribute(
        x, 0, target=1, n_steps=5, method=rule, internal_batch_size=4, return_convergence_delta=True
    )
    plain = attributed(net, x, "integrated-gradients", target=1, steps=5, rule=ours._RULES[rule])
    assert relative(values, plain.values) < 1e-10
    assert torch.equal(delta, plain.residual)
    assert delta.shape == (2,)


@pytest.mark.parametrize(("nt_type", "variant"), ours._VARIANTS.items())
def test_the_noise_tunnel_is_noise_over_the_method(net, nt_type, variant):
    x = pictures()
    tunnel = ours.NoiseTunnel(ours.Saliency(net))
    values = tunnel.attribute(x, nt_type=nt_type, nt_samples=3, nt_samples_batch_size=2, target=1, sigma=0.2, seed=5)
    plain = attributed(net, x, "noise.gradient", samples=3, sigma=0.2, variant=variant, seed=5, target=1)
    assert torch.equal(values, plain.values)


def test_stdevs_are_in_units_of_the_input_for_each_picture(net):
    x = pictures()
    values = ours.NoiseTunnel(ours.InputXGradient(net)).attribute(x, nt_samples=3, stdevs=0.5, target=[1, 2])
    for i, target in enumerate((1, 2)):
        sigma = 0.5 / float(x[i].max() - x[i].min())
        options = {"samples": 3, "sigma": sigma, "variant": "mean"}
        plain = attributed(net, x[i : i + 1], "noise.input-x-gradient", target=target, **options)
        assert torch.equal(values[i : i + 1], plain.values)
    with pytest.raises(OptionError, match="a picture of one colour"):
        ours.NoiseTunnel(ours.InputXGradient(net)).attribute(torch.ones(1, 3, SIZE, SIZE), stdevs=1.0, target=1)


def test_the_noise_tunnel_keeps_the_inner_methods_options(net):
    inner = ours.LayerGradCam(net, "block", relu=True)
    values = ours.NoiseTunnel(inner).attribute(pictures(), nt_samples=2, target=1)
    plain = attributed(net, pictures(), "noise.grad-cam", samples=2, layer="block", relu=True, target=1)
    assert torch.equal(values, plain.values)
    rise = ours.NoiseTunnel(ours.Rise(net, samples=4, grid=2))
    assert rise.options == {"rise.samples": 4, "grid": 2}


def test_a_method_that_does_not_exist_says_which_are_like_it():
    with pytest.raises(AttributeError, match="did you mean 'Saliency'"):
        _ = ours.Salience
    with pytest.raises(ImportError, match="cannot import name 'DeepLiftShap'"):
        from whence.adapters.captum import DeepLiftShap  # noqa: F401
