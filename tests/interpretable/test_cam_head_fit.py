"""The head for CAM is the regression that it says it is, and nothing else of the model changes."""

import pytest
import torch
from torch import nn

import whence
from small_nets import Lambda, SmallNet, drawn, relative
from whence.errors import LayerError, ModelError, NotFiniteError, UnknownLayerError
from whence.interpretable.cam_head import cam_head, loss, regression
from whence.interpretable.labelled import Pixels, split
from whence.models.cam_head import CamHead
from whence.models.classifier import Classifier
from whence.models.masked.wrapper import interpretable

N, K, C = 60, 5, 3
CLASSES = ("red", "green", "blue")


def points(seed=0, spread=1.0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(N) % C
    centres = torch.randn(C, K, generator=generator, dtype=torch.float64)
    return 3 + centres[labels] + spread * torch.randn(N, K, generator=generator, dtype=torch.float64), labels


def coloured(count=30, size=8):
    """Return noise, brighter in the channel of its class."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % C
    pixels = torch.randint(128, (count, size, size, 3), generator=generator)
    pixels += 100 * torch.eye(3, dtype=torch.long)[labels][:, None, None, :]
    return Pixels(pixels.byte(), labels, CLASSES)


def fitted(layer="block", net=None, labels=None, **options):
    net = net or drawn(SmallNet(classes=C), shape=(3, 8, 8))
    train, held_out = split(coloured(), 0.3)
    return cam_head(Classifier(net, labels=labels), train, held_out, layer, **options)


# The regression


def with_one(z):
    return torch.cat((z, torch.ones(len(z), 1, dtype=torch.float64)), 1)


def test_the_gradient_is_that_of_the_loss():
    z, labels = points()
    v = torch.randn(C, K + 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    leaf = v.clone().requires_grad_()
    log_p = (z @ leaf[:, :-1].T + leaf[:, -1]).log_softmax(1)
    expected = -sum(log_p[n, labels[n]] for n in range(N)) / N + 1e-4 / 2 * (leaf[:, :-1] ** 2).sum()
    value, gradient = loss(with_one(z), labels, v)
    assert torch.allclose(value, expected, rtol=1e-12)
    assert torch.allclose(gradient, *torch.autograd.grad(expected, leaf), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("spread", [1.0, 0.01])
@pytest.mark.parametrize("alike", [0.0, 1e-3])
def test_at_the_answer_the_gradient_is_zero_also_where_classes_are_apart_or_maps_alike(spread, alike):
    x, labels = points(spread=spread)
    if alike:
        x = torch.cat((x, x + alike * points(1)[0]), 1)
    weight, bias = regression(x, labels, C)
    mean, std = x.mean(0), x.std(0, correction=0)
    v = torch.cat((weight * std, (bias + weight @ mean)[:, None]), 1)
    assert float(loss(with_one((x - mean) / std), labels, v)[1].abs().max()) < 1e-6
    assert abs(float(bias.sum())) < 1e-9


def test_it_depends_on_no_scale_no_shift_and_no_order():
    x, labels = points()
    weight, bias = regression(x, labels, C)
    order = torch.randperm(N, generator=torch.Generator().manual_seed(0))
    factor, shift = torch.tensor([1e-3, 1.0, 50.0, 1.0, 1.0]).double(), torch.arange(K).double()
    other, moved = regression((x * factor + shift)[order], labels[order], C)
    assert relative(other * factor, weight) < 1e-5
    said = (x * factor + shift) @ other.T + moved
    assert (
        relative(said - said.mean(1, keepdim=True), (x @ weight.T + bias).sub((x @ weight.T + bias).mean(1, True)))
        < 1e-5
    )


def test_a_feature_that_never_changes_tells_nothing():
    x, labels = points()
    weight, bias = regression(x, labels, C)
    constant = torch.cat((x, torch.full((N, 1), 0.1, dtype=torch.float64)), 1)
    wider, same = regression(constant, labels, C)
    assert float(wider[:, K].abs().max()) < 1e-6
    assert relative(wider[:, :K], weight) < 1e-5
    assert relative(same, bias) < 1e-5


# The head


def test_it_knows_what_is_easy_and_says_what_changed():
    found = fitted(labels=CLASSES)
    assert found.after == 1
    assert found.before is not None
    assert found.change == found.after - found.before
    assert isinstance(found.module, CamHead)


def test_only_the_head_is_new():
    net = drawn(SmallNet(classes=C), shape=(3, 8, 8)).train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    found = fitted(net=net)
    assert found.module.plain() is net
    assert net.training
    state = found.module.state_dict()
    assert set(state) - set(before) == {"cam_head.weight", "cam_head.bias"}
    assert all(torch.equal(state[key], value) for key, value in before.items())
    assert state["cam_head.weight"].any()


def test_the_head_is_the_regression_on_the_means_of_the_maps():
    net = drawn(SmallNet(classes=C), shape=(3, 8, 8)).eval()
    train, _ = split(coloured(), 0.3)
    x = torch.stack([train[i][0] for i in range(len(train))]).double()
    with torch.no_grad():
        means = net.block(net.relu(net.stem(x))).mean((2, 3))
    weight, bias = regression(means, train.labels, C)
    head = fitted(net=net).module.cam_head
    assert torch.allclose(head.weight, weight, rtol=1e-9)
    assert torch.allclose(head.bias, bias, rtol=1e-9)


def test_every_picture_goes_through_the_model_once_to_the_layer():
    seen, behind = [], []
    net = Lambda(
        lambda net, x: net.behind(net.maps(x)),
        maps=Lambda(lambda _, x: (seen.append(len(x)), x + 1)[1]),
        behind=Lambda(lambda _, x: (behind.append(len(x)), x.mean((2, 3)))[1]),
    )
    train, held_out = split(coloured(), 0.3)
    cam_head(Classifier(net), train, held_out, "maps")
    # One picture shows how many maps there are.
    assert sum(seen) == len(train) + len(held_out) + 1
    assert sum(behind) == 1


def test_what_the_own_head_knows_is_told_by_the_names_of_its_labels():
    def share(labels):
        return fitted(net=net, labels=labels, layer="maps").before

    net = Lambda(lambda net, x: net.maps(x).mean((2, 3)), maps=nn.ReLU())
    assert share(CLASSES) == 1
    assert share(("blue", "red", "green")) == 0
    assert share(("red", "green", "cyan")) is None
    assert share(None) is None
    assert fitted(net=net, labels=None, layer="maps").change is None


def test_it_depends_on_the_pictures_alone():
    state = torch.get_rng_state()
    net = drawn(SmallNet(classes=C), shape=(3, 8, 8))
    torch.set_rng_state(state)
    first, second = fitted(net=net), fitted(net=net)
    assert torch.equal(first.module.cam_head.weight, second.module.cam_head.weight)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_default_layer_is_the_one_that_is_explained():
    assert fitted(None).module.form.layer == "relu#1"


def test_progress_is_told_for_all_pictures():
    told = []
    fitted(labels=CLASSES, progress=lambda *what: told.append(what))
    assert told == [("pooling", 21, 21), ("pooling", 9, 9), ("comparing", 9, 9)]


def test_cam_explains_the_result():
    found = fitted()
    x = torch.stack([coloured()[0][0]]).double()
    values = whence.attribute(Classifier(found.module), x, "cam", target=0, layer="model.block").values
    score = found.module(x)[0, 0] - found.module.cam_head.bias[0]
    assert torch.allclose(values.mean(), score, rtol=1e-9)


# Errors


@pytest.mark.parametrize(
    ("layer", "error", "words"),
    [
        ("blok", UnknownLayerError, "did you mean 'block'"),
        ("relu#7", LayerError, "never ran"),
        ("head", LayerError, "no map"),
    ],
)
def test_a_layer_without_maps_is_refused(layer, error, words):
    with pytest.raises(error, match=words):
        fitted(layer)


def test_a_layer_of_one_place_is_refused():
    net = Lambda(lambda net, x: net.pool(x).flatten(1), pool=nn.AdaptiveAvgPool2d(1))
    with pytest.raises(LayerError, match="a map of more than one place"):
        fitted("pool", net)


def test_a_model_with_a_wrapper_is_refused():
    net = drawn(SmallNet(classes=C), shape=(3, 8, 8))
    masked = interpretable(net, torch.zeros(1, 3, 8, 8, dtype=torch.float64), "block")
    with pytest.raises(ModelError, match=r"\[interpretable\].*give its plain model"):
        fitted("block", masked)
    with pytest.raises(ModelError, match=r"\[cam-head\].*give its plain model"):
        fitted("block", fitted().module)


def test_a_model_with_keys_of_that_name_is_refused():
    net = Lambda(lambda net, x: net.cam_head(x.mean((2, 3))), cam_head=nn.Linear(3, C))
    with pytest.raises(ModelError, match=r"keys under 'cam_head[.]' of its own"):
        fitted("cam_head", net)


def test_infinite_maps_are_named():
    net = Lambda(
        lambda net, x: net.maps(x).mean((2, 3)), maps=Lambda(lambda _, x: torch.where(x > 0.77, torch.inf, x))
    )
    with pytest.raises(NotFiniteError, match="holds NaN or infinity"):
        fitted("maps", net)
