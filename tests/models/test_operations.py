"""Intercepted operations: every way to write a rectifier is guided, and nothing else is touched."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack

from small_nets import Lambda, drawn, pictures, relative
from whence.models.operations import Intercepted, guided, named, rectifiers


class Guide(torch.autograd.Function):
    """The formula itself: g * 1[0 < x < top] * 1[g > 0]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, top: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.top = top
        return x.clamp(0, top)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return g * (x > 0) * (x < ctx.top) * (g > 0), None


def net(rectify: Callable[[Tensor], Tensor]) -> nn.Module:
    """Return a net with two rectifiers, whose sums reach above 6."""

    def forward(n: nn.Module, x: Tensor) -> Tensor:
        x = rectify(4 * n.first(x))
        return n.head(rectify(4 * n.second(x)).mean((2, 3)))

    layers = {"first": nn.Conv2d(3, 6, 3), "second": nn.Conv2d(6, 8, 3), "head": nn.Linear(8, 5)}
    return drawn(Lambda(forward, **layers))


def gradient(model: nn.Module, x: Tensor) -> Tensor:
    leaf = x.clone().requires_grad_()
    return torch.autograd.grad(model(leaf)[:, 1].sum(), leaf)[0]


def guided_gradient(model: nn.Module, x: Tensor) -> Tensor:
    with guided():
        return gradient(model, x)


def ignoring(operation: Callable[[Tensor], object]) -> Callable[[Tensor], Tensor]:
    """Return a rectifier that works in place and whose return value nobody looks at."""

    def rectify(x: Tensor) -> Tensor:
        operation(x)
        return x

    return rectify


def through_a_view(x: Tensor) -> Tensor:
    """Rectify the first channels in place, through a view, and the others as a copy."""
    x[:, :3].relu_()
    return torch.cat((x[:, :3], x[:, 3:].relu()), dim=1)


RECTIFIERS: dict[str, Callable[[Tensor], Tensor]] = {
    "nn.ReLU": nn.ReLU(),
    "nn.ReLU in place": nn.ReLU(inplace=True),
    "F.relu": F.relu,
    "F.relu by keyword": lambda x: F.relu(input=x),
    "F.relu in place": lambda x: F.relu(x, True),
    "F.relu_": F.relu_,
    "torch.relu": torch.relu,
    "torch.relu by keyword": lambda x: torch.relu(input=x),
    "torch.relu_": torch.relu_,
    "Tensor.relu": Tensor.relu,
    "Tensor.relu_": Tensor.relu_,
    "aten": torch.ops.aten.relu,
    "aten overload": torch.ops.aten.relu.default,
    "clamp": lambda x: x.clamp(0),
    "clamp by keyword": lambda x: torch.clamp(x, min=0.0),
    "clamp by keyword alone": lambda x: torch.clamp(input=x, min=0),
    "clip": lambda x: x.clip(min=0),
    "clamp_min": lambda x: torch.clamp_min(x, 0),
    "Tensor.clamp_min": lambda x: x.clamp_min(min=0),
    "threshold": nn.Threshold(0, 0),
    "threshold in place": nn.Threshold(0.0, 0.0, inplace=True),
    "torch.threshold": lambda x: torch.threshold(x, 0, 0),
    "relu_ ignored": ignoring(Tensor.relu_),
    "F.relu in place ignored": ignoring(lambda x: F.relu(x, inplace=True)),
    "nn.ReLU in place ignored": ignoring(nn.ReLU(inplace=True)),
    "clamp_ ignored": ignoring(lambda x: x.clamp_(min=0)),
    "clamp_min_ ignored": ignoring(lambda x: x.clamp_min_(0)),
    "a view": through_a_view,
}
BOUNDED: dict[str, Callable[[Tensor], Tensor]] = {
    "nn.ReLU6": nn.ReLU6(),
    "nn.ReLU6 in place": nn.ReLU6(inplace=True),
    "F.relu6": F.relu6,
    "F.relu6 in place": lambda x: F.relu6(x, inplace=True),
    "nn.Hardtanh": nn.Hardtanh(0, 6),
    "F.hardtanh": lambda x: F.hardtanh(x, min_val=0.0, max_val=6.0),
    "hardtanh_ ignored": ignoring(lambda x: F.hardtanh_(x, 0.0, 6.0)),
    "clamp": lambda x: x.clamp(0, 6),
    "clamp_ ignored": ignoring(lambda x: x.clamp_(min=0, max=6)),
}
OTHERS: dict[str, Callable[[Tensor], Tensor]] = {
    "hardtanh": F.hardtanh,
    "clamp from below 0": lambda x: x.clamp(min=-1),
    "clamp from above 0": lambda x: x.clamp(min=0.5),
    "clamp to 6": lambda x: x.clamp(max=6),
    "clamp_min": lambda x: x.clamp_min(-0.5),
    "threshold": lambda x: F.threshold(x, 0.5, 0.0),
    "threshold to another value": lambda x: F.threshold(x, 0.0, -1.0),
    "leaky relu": F.leaky_relu,
    "elu": F.elu,
    "gelu": F.gelu,
    "silu": F.silu,
    "hardswish": F.hardswish,
    "softplus": F.softplus,
    "tanh": torch.tanh,
    "abs": torch.abs,
}


@pytest.mark.parametrize("form", RECTIFIERS)
def test_every_form_of_the_rectifier_is_guided(form: str) -> None:
    x = pictures()
    expected = gradient(net(lambda x: Guide.apply(x, torch.inf)), x)
    model = net(RECTIFIERS[form])
    assert relative(gradient(model, x), expected) > 0.1
    assert relative(guided_gradient(model, x), expected) <= 1e-12


@pytest.mark.parametrize("form", BOUNDED)
def test_a_bounded_rectifier_is_guided_and_passes_nothing_back_above_its_bound(form: str) -> None:
    x = pictures()
    expected = gradient(net(lambda x: Guide.apply(x, 6.0)), x)
    assert relative(gradient(net(lambda x: Guide.apply(x, torch.inf)), x), expected) > 0.1
    assert relative(guided_gradient(net(BOUNDED[form]), x), expected) <= 1e-12


@pytest.mark.parametrize("form", OTHERS)
def test_what_is_no_rectifier_keeps_its_gradient(form: str) -> None:
    model, x = net(OTHERS[form]), pictures()
    with guided():
        output = model(x.requires_grad_())
    assert rectifiers(output.sum()) == (False, False)
    assert torch.equal(guided_gradient(model, x), gradient(model, x))


@pytest.mark.parametrize("form", [*RECTIFIERS, *BOUNDED])
def test_the_forward_pass_is_the_same(form: str) -> None:
    model, x = net({**RECTIFIERS, **BOUNDED}[form]), pictures()
    expected = model(x)
    with guided():
        assert torch.equal(model(x), expected)
        with torch.no_grad():
            assert torch.equal(model(x), expected)


def test_a_rectifier_that_writes_elsewhere_runs_as_it_is() -> None:
    x, out = pictures(), torch.empty(0).double()
    with guided(), torch.no_grad():
        torch.clamp(x.requires_grad_(), min=0, out=out)
    assert torch.equal(out, x.detach().clamp(min=0))


def encoder(activation: Any) -> nn.Module:
    """Return a net around torch's own encoder layer, whose rectifier is a function that the layer calls."""
    layers = {
        "patch": nn.Conv2d(3, 12, 4, stride=4),
        "encoder": nn.TransformerEncoderLayer(12, 3, 24, activation=activation, batch_first=True),
        "head": nn.Linear(12, 5),
    }
    made = Lambda(lambda n, x: n.head(n.encoder(n.patch(x).flatten(2).transpose(1, 2)).mean(1)), **layers)
    return drawn(made).eval()


@pytest.mark.parametrize("frozen", [False, True])
def test_the_rectifier_inside_torchs_encoder_layer_is_guided(frozen: bool) -> None:
    x = pictures()
    expected = gradient(encoder(lambda x: Guide.apply(x, torch.inf)), x)
    model = encoder("relu").requires_grad_(not frozen)
    assert relative(gradient(model, x), expected) > 0.01
    assert relative(guided_gradient(model, x), expected) <= 1e-12


def test_a_rectifier_in_a_script_or_compiled_function_is_missed_and_told() -> None:
    x = pictures()
    scripted = net(torch.jit.script(lambda_relu))
    compiled = net(torch.compile(lambda_relu, backend="aot_eager"))
    for model in (scripted, scripted, compiled):
        with guided():
            score = model(x.clone().requires_grad_())[:, 1]
        assert rectifiers(score).missed
    with guided():
        score = net(F.relu)(x.clone().requires_grad_())[:, 1]
    assert rectifiers(score) == (True, False)


def lambda_relu(x: Tensor) -> Tensor:
    return torch.relu(x)


def from_0(x: Tensor) -> Tensor:
    return torch.clamp(x, min=0)


def from_0_to_6(x: Tensor) -> Tensor:
    return torch.clamp(x, 0, 6)


def at_least_0(x: Tensor) -> Tensor:
    return torch.clamp_min(x, 0)


def relu6(x: Tensor) -> Tensor:
    return F.relu6(x)


def hardtanh(x: Tensor) -> Tensor:
    return F.hardtanh(x, 0.0, 6.0)


def from_below_0(x: Tensor) -> Tensor:
    return F.hardtanh(torch.clamp_min(torch.clamp(x, -1.0, 6.0), -0.5))


@pytest.mark.filterwarnings("ignore:.*torch.jit.script. is deprecated:FutureWarning")
@pytest.mark.parametrize("function", [from_0, from_0_to_6, at_least_0, relu6, hardtanh])
def test_every_other_rectifier_in_a_script_is_missed_and_told(function: Callable[[Tensor], Tensor]) -> None:
    model = net(torch.jit.script(function))
    with guided():
        assert rectifiers(model(pictures().requires_grad_())[:, 1]) == (False, True)
    with guided():
        assert rectifiers(net(function)(pictures().requires_grad_())[:, 1]) == (True, False)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script. is deprecated:FutureWarning")
def test_what_a_script_cuts_off_below_0_is_no_rectifier() -> None:
    model = net(torch.jit.script(from_below_0))
    with guided():
        assert rectifiers(model(pictures().requires_grad_())[:, 1]) == (False, False)


# The mode itself


def test_a_table_replaces_functions_and_methods() -> None:
    calls = []

    def doubled(function: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        calls.append(function)
        return 2 * function(*args, **kwargs)

    x = pictures()
    with Intercepted(dict.fromkeys(named("softmax"), doubled)):
        outputs = [F.softmax(x, dim=1), x.softmax(1), torch.softmax(input=x, dim=1)]
        untouched = x.sigmoid()
    assert all(torch.equal(output, 2 * x.softmax(1)) for output in outputs)
    assert torch.equal(untouched, x.sigmoid())
    assert set(calls) == {F.softmax, Tensor.softmax, torch.softmax}


def test_the_name_of_an_operation_stands_for_all_its_forms() -> None:
    assert {F.relu, torch.relu, Tensor.relu, torch.ops.aten.relu, torch.ops.aten.relu.default} <= set(named("relu"))
    assert {F.threshold, torch.threshold} <= set(named("threshold"))
    assert torch.relu_ not in named("relu")
    assert named("no such operation") == ()


def test_modes_compose() -> None:
    """An inner mode's replacement reaches the outer mode, and another mode sees what is not in the table."""
    seen = []

    class Watch(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append(func)
            return func(*args, **(kwargs or {}))

    def plus(amount: float) -> Callable[..., Tensor]:
        return lambda function, *args, **kwargs: function(*args, **kwargs) + amount

    x = pictures()
    with Watch(), Intercepted({torch.exp: plus(1)}), Intercepted({torch.exp: plus(10)}):
        y = torch.exp(x).tanh()
    assert torch.equal(y, (x.exp() + 1 + 10).tanh())
    assert torch.exp in seen
    assert Tensor.tanh in seen


def test_two_modes_that_guide_change_nothing_more() -> None:
    model, x = net(F.relu), pictures()
    expected = guided_gradient(model, x)
    with guided():
        assert torch.equal(guided_gradient(model, x), expected)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_the_mode_is_gone_after_an_error(error: type[BaseException]) -> None:
    def raising(function: Callable[..., Tensor], *args: Any) -> Tensor:
        raise error("stop")

    before = len(_get_current_function_mode_stack())
    with pytest.raises(error, match="stop"), Intercepted({torch.exp: raising}):
        torch.exp(pictures())
    assert len(_get_current_function_mode_stack()) == before
    assert torch.isfinite(torch.exp(pictures())).all()


def test_other_threads_see_nothing_of_it() -> None:
    model, x = net(F.relu), pictures()
    expected, found = gradient(model, x), []
    with guided():
        thread = threading.Thread(target=lambda: found.append(gradient(model, x)))
        thread.start()
        thread.join()
    assert torch.equal(found[0], expected)


def test_a_composite_function_is_seen_as_one_call() -> None:
    calls = []

    def noted(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        calls.append(function)
        return function(*args, **kwargs)

    table = dict.fromkeys((*named("softmax", "scaled_dot_product_attention"), F.multi_head_attention_forward), noted)
    attention = nn.MultiheadAttention(12, 3, batch_first=True).eval()
    tokens = torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(0))
    with Intercepted(table):
        attention(tokens, tokens, tokens)
    assert calls == [F.multi_head_attention_forward]
