"""Captum's call, whence's numbers: ``from whence.adapters.captum import IntegratedGradients``.

There is a class for every method, named as Captum names it where it has the method (``Saliency``, ``LayerGradCam``,
``NoiseTunnel``) and after the method otherwise (``ScoreCam``, ``GradCamPlusPlus``, ``AttentionRollout``);
``Attribution(model, "grad-cam")`` takes any method by its own name.

What is returned are the numbers of the method as ``whence.attribute`` gives them, with its own defaults, and not
Captum's, which differ in places: in their defaults, in what stands for a missing feature, at functions that are no
modules and at modules that run twice.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from whence.adapters.shared import CAPTUM_NAMES, classifier_of, layer_name, method_of, on_input
from whence.attribution import attribute
from whence.errors import OptionError, PictureError, TargetError, nearest
from whence.models.targets import Targets, per_picture
from whence.registry import METHODS, Option
from whence.results import Attribution as Answer
from whence.results import concatenated

# What stands after the inputs where arguments are given without names.
_ORDER = {
    "Saliency": ("target", "abs", "additional_forward_args"),
    "IntegratedGradients": (
        *("baselines", "target", "additional_forward_args", "n_steps", "method"),
        *("internal_batch_size", "return_convergence_delta"),
    ),
    "Occlusion": ("sliding_window_shapes", "strides", "baselines", "target", "additional_forward_args"),
    "NoiseTunnel": ("nt_type", "nt_samples", "nt_samples_batch_size", "stdevs", "draw_baseline_from_distrib"),
}
_OTHERWISE = ("target", "additional_forward_args")
# Arguments that say what whence does anyway; any other value of theirs has no counterpart.
_ONLY = {
    "abs": False,
    "additional_forward_args": None,
    "attribute_to_layer_input": False,
    "attr_dim_summation": True,
    "device_ids": None,
    "draw_baseline_from_distrib": False,
    "feature_mask": None,
    "grad_kwargs": None,
    "interpolate_mode": "bilinear",
    "multiply_by_inputs": True,
}
# Arguments that change no number.
_NO_MATTER = ("show_progress", "verbose")
_HOW_MANY = ("internal_batch_size", "perturbations_per_eval", "nt_samples_batch_size")
_RENAMED = {"n_steps": "steps", "nt_samples": "samples", "relu_attributions": "relu"}
_RULES = {
    "gausslegendre": "gauss-legendre",
    "riemann_left": "left",
    "riemann_right": "right",
    "riemann_middle": "midpoint",
    "riemann_trapezoid": "trapezoid",
}
_VARIANTS = {"smoothgrad": "mean", "smoothgrad_sq": "square", "vargrad": "variance"}


class Attribution:
    """Any method of whence's, called as one of Captum's.

    Parameters
    ----------
    model
        A module that classifies pictures, or a Classifier; a function too for methods that need scores alone.
    method
        A name that ``whence.methods.names()`` lists, or a combination such as ``"noise.gradient"``.
    layer
        A module of the model or its dotted name, for the methods that need one; chosen by itself if not given.
    options
        The method's own, and what the class takes in Captum.
    """

    def __init__(self, model: object, method: str, layer: nn.Module | str | None = None, **options: object) -> None:
        self.method = METHODS.facts(method).name
        self.classifier = classifier_of(model, self.method)
        given = {} if layer is None else {"layer": layer_name(self.classifier, layer)}
        self.options = {**given, **self._translated(options)}

    def attribute(self, inputs: Any, *given: object, **arguments: object) -> Any:  # noqa: ANN401  (as in Captum)
        """Return the method's values, and its residuals too where ``return_convergence_delta=True`` asks for them.

        Parameters
        ----------
        inputs
            [B, C, H, W], or a tuple that holds only this; then a tuple is returned.
        given, arguments
            Captum's, in its order or by name: ``target`` (a class number, a list or tensor with one a picture, a
            tensor with one element, a tuple with one number or a list of these), ``baselines`` (0, zeros, the name of
            a baseline, or a tensor where the method takes one), ``n_steps``, ``method``, ``internal_batch_size``,
            ``sliding_window_shapes``, ``strides``, ``nt_samples`` and so on; and the method's own options.
            Without a target each picture's top class is
            explained; all of whence's targets work too.

        Returns
        -------
        Tensor
            Of the inputs' shape, a map with one channel repeated in each; for methods that explain a layer or the
            attention [B, 1, h, w] in the layer's own resolution. The residual [B] is what the method misses of its
            own law, relative; not Captum's difference in units of the score.

        Raises
        ------
        OptionError
            An argument has no counterpart, or a value of it has none.
        WhenceError
            As ``whence.attribute``.
        """
        x, boxed = _single(inputs)
        call = _named(given, _ORDER.get(type(self).__name__, _OTHERWISE), arguments)
        delta = call.pop("return_convergence_delta", False)
        target = _target(call.pop("target", None), len(x))
        answer = self._answer(x, target, call)
        values = self._shaped(answer, x).to(x.device)
        found = (values,) if boxed else values
        if not delta:
            return found
        if answer.residual is None:
            raise OptionError(f"{self.method} has no law to miss: leave return_convergence_delta out")
        return found, answer.residual.to(x.device)

    def _answer(self, x: Float[Tensor, "b c h w"], target: Targets, call: Mapping[str, object]) -> Answer:
        options = {**self.options, **self._translated(call, x)}
        return attribute(self.classifier, x, self.method, target=target, **options)

    def _shaped(self, answer: Answer, x: Float[Tensor, "b c h w"]) -> Tensor:
        """Return the values in the shape that Captum gives them."""
        if METHODS.facts(self.method).needs in ("layer", "attention") and answer.values.shape[1] == 1:
            return answer.values
        return on_input(answer, int(x.shape[1]))

    def _translated(self, arguments: Mapping[str, object], x: Tensor | None = None) -> dict[str, object]:
        """Return whence's options for Captum's arguments."""
        known = METHODS.facts(self.method).options
        found: dict[str, object] = {}
        for name, value in arguments.items():
            if name in known:
                found[name] = layer_name(self.classifier, value) if isinstance(value, nn.Module) else value
            elif name in _HOW_MANY:
                found |= {"batch": value} if "batch" in known and value is not None else {}
            elif name in _ONLY:
                _refuse_others(name, value)
            elif name not in _NO_MATTER:
                found |= self._renamed(name, value, x)
        return found

    def _renamed(self, name: str, value: object, x: Tensor | None) -> dict[str, object]:
        """Return the option that one of Captum's arguments is called here, with its value."""
        known = METHODS.facts(self.method).options
        if name == "baselines" and "baseline" in known:
            return {"baseline": _baseline(value, known["baseline"])}
        if name == "method" and "rule" in known:
            return {"rule": _RULES.get(str(value), value)}
        if name in ("sliding_window_shapes", "strides") and "window" in known:
            side = _side(name, value, x)
            return {} if side is None else {"window" if name == "sliding_window_shapes" else "stride": side}
        if name == "nt_type" and "variant" in known:
            return {"variant": _VARIANTS.get(str(value), value)}
        if _RENAMED.get(name) in known:
            return {_RENAMED[name]: value}
        raise OptionError(f"{self.method} has nothing that Captum's {name!r} would mean: {nearest(name, known)}")


class _Named(Attribution):
    """The class of one method, ``of``."""

    of: ClassVar[str]

    def __init__(self, model: object, layer: nn.Module | str | None = None, **options: object) -> None:
        super().__init__(model, self.of, layer, **options)


class _Saliency(_Named):
    """Captum's Saliency: the gradient's absolute values, or with ``abs=False`` the gradient itself."""

    def attribute(self, inputs: Any, *given: object, **arguments: object) -> Any:  # noqa: ANN401
        """Return the gradient, as ``Attribution.attribute`` does; its absolute values unless ``abs=False``."""
        call = _named(given, _ORDER["Saliency"], arguments)
        absolute = call.pop("abs", True)
        values = super().attribute(inputs, **call)
        if not absolute:
            return values
        return (values[0].abs(),) if isinstance(values, tuple) else values.abs()


class NoiseTunnel(Attribution):
    """Captum's NoiseTunnel: another method over noisy copies of the picture.

    ``nt_type`` and ``nt_samples`` are the variant and samples of ``noise.METHOD``. ``stdevs`` is in units of the
    input, as in Captum; whence's own ``sigma``, which is taken without it, is a share of each picture's range. Over
    ``Saliency`` the mean is taken of the gradient with its sign, which is SmoothGrad.
    """

    def __init__(self, attribution_method: Attribution) -> None:
        inner = attribution_method
        name = f"noise.{inner.method}"
        known = METHODS.facts(name).options
        # An option that both have is called METHOD.OPTION in the combination.
        called = {option: f"{inner.method}.{option}" for option in inner.options}
        options: dict[str, Any] = {called[o] if called[o] in known else o: v for o, v in inner.options.items()}
        super().__init__(inner.classifier, name, **options)

    def _answer(self, x: Float[Tensor, "b c h w"], target: Targets, call: Mapping[str, object]) -> Answer:
        call = dict(call)
        stdevs = call.pop("stdevs", None)
        if stdevs is None:
            return super()._answer(x, target, call)
        spread = _number("stdevs", stdevs)
        pieces = []
        for picture, own in zip(x, per_picture(target, len(x)), strict=True):
            extent = float(picture.max() - picture.min())
            if extent == 0:
                raise OptionError(f"stdevs={stdevs}: a picture of one colour has no range to measure noise by")
            pieces.append(super()._answer(picture[None], own, {**call, "sigma": spread / extent}))
        return concatenated(pieces)


def _single(inputs: object) -> tuple[Float[Tensor, "b c h w"], bool]:
    """Return the one input, and whether it came in a tuple."""
    boxed = isinstance(inputs, tuple)
    found = inputs if isinstance(inputs, tuple) else (inputs,)
    if len(found) != 1 or not isinstance(found[0], Tensor) or found[0].ndim != 4:
        raise PictureError("attribute takes one batch of pictures [B, C, H, W], as a tensor or in a tuple alone")
    return found[0], boxed


def _named(given: tuple[object, ...], order: tuple[str, ...], arguments: Mapping[str, object]) -> dict[str, Any]:
    """Return all arguments by name."""
    if len(given) > len(order) or set(order[: len(given)]) & set(arguments):
        raise OptionError(f"attribute takes after the inputs, each once: {', '.join(order)}")
    return {**dict(zip(order, given, strict=False)), **arguments}


def _target(target: Any, count: int) -> Any:  # noqa: ANN401  (Captum's, and whence's)
    """Return whence's target for Captum's."""
    if isinstance(target, Tensor):
        found = target.flatten().tolist() if target.ndim < 2 or target.shape[1:].numel() == 1 else None
        if found is None:
            raise TargetError(f"a target tensor of shape {list(target.shape)}: give one number a picture, [{count}]")
        return found[0] if len(found) == 1 else found
    if isinstance(target, tuple):
        return _of_tuple(target)
    if isinstance(target, list):
        return [_of_tuple(one) if isinstance(one, tuple) else one for one in target]
    return target


def _of_tuple(target: tuple[object, ...]) -> Any:  # noqa: ANN401
    if len(target) != 1:
        raise TargetError(f"target {target}: of outputs [batch, classes] a tuple names one class, (3,)")
    return target[0]


def _baseline(value: Any, option: Option) -> object:  # noqa: ANN401
    value = value[0] if isinstance(value, tuple) and len(value) == 1 else value
    zero = not bool(value.any()) if isinstance(value, Tensor) else isinstance(value, int | float) and value == 0
    if value is None or zero:
        return "zeros"
    if isinstance(value, str) or (isinstance(value, Tensor) and option.accepts(value)):
        return value
    found = f"a tensor {list(value.shape)}" if isinstance(value, Tensor) else repr(value)
    raise OptionError(f"baselines: {found} is no baseline here: give 0, or a name as 'black', 'blurred' or 'uniform'")


def _side(name: str, value: Any, x: Tensor | None) -> int | None:  # noqa: ANN401
    """Return the side of a window, or its step, that is given for [C, H, W] or as one number."""
    if value is None or isinstance(value, int):
        return value
    shape = value[0] if len(value) == 1 and isinstance(value[0], tuple) else value
    channels = int(x.shape[1]) if x is not None else shape[0]
    if len(shape) != 3 or shape[1] != shape[2] or (name == "sliding_window_shapes" and shape[0] != channels):
        raise OptionError(f"{name}={value}: windows are square and span all channels, give ({channels}, side, side)")
    return int(shape[1])


def _number(name: str, value: Any) -> float:  # noqa: ANN401
    value = value[0] if isinstance(value, tuple) and len(value) == 1 else value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise OptionError(f"{name}={value!r}: give one number")
    return float(value)


def _refuse_others(name: str, value: object) -> None:
    if not (isinstance(value, type(_ONLY[name])) and value == _ONLY[name]):
        raise OptionError(f"whence has nothing for Captum's {name}={value!r}: leave it out, or give {_ONLY[name]!r}")


@cache
def _class(name: str, method: str) -> type[_Named]:
    """Return the class of one method."""
    base = _Saliency if name == "Saliency" else _Named
    about = f"Captum's call of ``{method}``.\n\n{METHODS.facts(method).sentence}"
    return type(name, (base,), {"of": method, "__doc__": about, "__module__": __name__})


def __getattr__(name: str) -> Any:  # noqa: ANN401
    """Return the class that a method is called by."""
    method = CAPTUM_NAMES.get(name) or (method_of(name) if name[:1].isupper() else None)
    if method is None:
        known = [] if name.startswith("_") else [*CAPTUM_NAMES, "NoiseTunnel", *METHODS.names()]
        raise AttributeError(f"there is no method {name!r} for Captum's call: {nearest(name, known)}")
    return _class(name, method)
