"""Max-sensitivity: equal to captum's for the same disturbances, and closed forms."""

import pytest
import torch
from captum.metrics import sensitivity_max

from metric_samples import answer
from small_nets import Lambda, SmallNet, classifier, drawn, pictures
from whence import attribute
from whence.metrics import measure
from whence.pictures.preprocess import Preprocess


@pytest.fixture(scope="module")
def net():
    return drawn(SmallNet()).eval()


@pytest.mark.parametrize(("method", "options"), [("grad-cam", {}), ("gradient", {}), ("smoothgrad", {"samples": 2})])
def test_it_is_captum_s(net, method, options):
    x = pictures(3)
    made = attribute(net, x, method, target=2, **options)
    found = measure(net, x, made, "max-sensitivity", radius=0.3, samples=4)
    generator = torch.Generator().manual_seed(0)
    noise = 0.3 * torch.stack([2 * torch.rand(3, 16, 16, generator=generator) - 1 for _ in range(4)]).double()

    def explained(inputs):
        batch = inputs[0] if isinstance(inputs, tuple) else inputs
        return (attribute(net, batch, method, target=2, **options).values,)

    def disturbed(inputs):
        return inputs + noise.repeat(3, 1, 1, 1)

    wanted = sensitivity_max(explained, x, disturbed, n_perturb_samples=4)
    torch.testing.assert_close(found.value, wanted, rtol=1e-9, atol=1e-12)
    assert found.value.min() > 0
    assert found.passes.forward > 0


def test_a_map_that_does_not_change_has_none():
    """The slope of a linear model is the same everywhere; input times slope changes with the input."""
    weight = torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(3)).double()

    def forward(net, x):
        score = (x * weight).sum((1, 2, 3))
        return torch.stack((score, -score), dim=1)

    net = Lambda(forward)
    net.register_buffer("like", torch.zeros(1).double())
    x = pictures(1)
    slope, product = (attribute(net, x, name, target=0) for name in ("gradient", "input-x-gradient"))
    assert measure(net, x, slope, "max-sensitivity").value.tolist() == [0]
    found = float(measure(net, x, product, "max-sensitivity", samples=1, radius=0.1).value)
    noise = 0.1 * (2 * torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0)) - 1).double()
    assert found == pytest.approx(float((noise * weight).norm() / (x[0] * weight).norm()), rel=1e-9)


def test_the_radius_is_in_units_of_pixels_where_these_are_known(net):
    x = pictures(1)
    model = classifier(net, preprocess=Preprocess(mean=(0.5,) * 3, std=(0.2,) * 3, crop=(16, 16)))
    made = attribute(net, x, "gradient", target=1)
    plain = measure(net, x, made, "max-sensitivity", radius=0.1, samples=2).value
    scaled = measure(model, x, made, "max-sensitivity", radius=0.02, samples=2).value
    torch.testing.assert_close(plain, scaled, rtol=1e-4, atol=1e-8)


def test_the_class_stays_the_same(net):
    """Each picture's own top class is explained again, also where the disturbed picture has another one."""
    x = pictures(3)
    made = attribute(net, x, "gradient")
    listed = attribute(net, x, "gradient", target=made.target.tolist())
    one, other = (measure(net, x, m, "max-sensitivity", radius=2.0, samples=3).value for m in (made, listed))
    assert torch.equal(one, other)


def test_a_zero_map_has_no_number(net):
    x = pictures(2)
    values = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)).double()
    values[0] = 0
    found = measure(net, x, answer(values, x, 1), "max-sensitivity", samples=1)
    assert found.value.isnan().tolist() == [True, False]
    assert "map is zero" in found.notes[0][0]
    assert found.notes[1] == ()


def test_one_picture_of_a_batch_whose_option_holds_one_entry_a_picture() -> None:
    model, x = classifier(drawn(SmallNet())), pictures(2)
    answer = attribute(model, x, "integrated-gradients", baseline=0.5 * x, steps=2)
    together = measure(model, x, answer, "max-sensitivity", samples=2).value
    alone = measure(model, x[:1], answer.picture(0), "max-sensitivity", samples=2).value
    assert (together[0] - alone[0]).abs() < 1e-9
