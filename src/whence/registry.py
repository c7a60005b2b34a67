"""Methods and metrics by name, with their facts.

Everything that lists, checks or documents a method reads its facts and its signature: nothing is listed twice.
"""

import inspect
import re
import threading
import types
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from importlib import import_module
from importlib.metadata import entry_points
from pkgutil import iter_modules
from textwrap import shorten
from typing import Any, Generic, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np
from torch import Tensor

from whence.errors import OptionError, UnknownNameError, nearest
from whence.results import Passes


@dataclass(frozen=True)
class Option:
    """One hyper-parameter: its name, the types it takes (``choices`` for a Literal) and its default."""

    name: str
    types: tuple[type, ...]
    default: object
    choices: tuple[object, ...] = ()
    many: bool = False

    def accepts(self, value: object) -> bool:
        """Return whether ``value`` may be given."""
        if self.many and isinstance(value, list | tuple):
            return bool(value) and all(self.accepts(item) for item in value)
        if value is None:
            return type(None) in self.types
        if self.choices and value in self.choices:
            return True
        if isinstance(value, bool):
            return bool in self.types
        return isinstance(value, self.types) or (isinstance(value, int) and float in self.types)

    def settled(self, value: object) -> object:
        """Return a list as a tuple, and one value as a tuple of one where the default is a tuple."""
        if isinstance(value, list):
            return tuple(value)
        return (value,) if isinstance(self.default, tuple) and not isinstance(value, tuple) else value

    def read(self, text: str) -> object:
        """Return the value that a text on the command line means; ``+`` joins a list.

        Raises
        ------
        OptionError
            The text is none of the option's types.
        """
        if self.many and "+" in text:
            return tuple(self.read(part) for part in text.split("+"))
        for value in _readings(text):
            if self.accepts(value):
                return value
        raise OptionError(f"option {self.name}={text!r}: expected {self.expected}")

    @property
    def expected(self) -> str:
        """Return in words what may be given."""
        words = {
            int: "a whole number",
            float: "a number",
            bool: "true or false",
            str: "a name",
            dict: "a table",
            type(None): "none",
            Callable: "a function",
        }
        kinds = [kind for kind in self.types if not self.choices or kind is not type(None)]
        return " or ".join((*map(str, self.choices), *(words.get(kind, kind.__name__) for kind in kinds)))


def _readings(text: str) -> Iterator[object]:
    """Yield what a text can mean, the narrowest first."""
    words: dict[str, object] = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        yield words[text.lower()]
    for kind in (int, float):
        try:
            yield kind(text)
        except ValueError:
            continue
    yield text


def _leaves(annotation: object) -> Iterator[object]:
    if get_origin(annotation) in (Union, types.UnionType):
        for part in get_args(annotation):
            yield from _leaves(part)
    else:
        yield annotation


def _option(parameter: inspect.Parameter, annotation: object) -> Option:
    kinds: list[type] = []
    choices: list[object] = []
    many = False
    for leaf in _leaves(annotation):
        origin = get_origin(leaf)
        if origin is Literal:
            choices += get_args(leaf)
        elif origin in (dict, Callable):
            kinds.append(origin)
        elif isinstance(origin, type):
            many = True
            kinds += [kind for part in get_args(leaf) for kind in _leaves(part) if isinstance(kind, type)]
        elif isinstance(leaf, type):
            kinds.append(leaf)
    return Option(parameter.name, tuple(dict.fromkeys(kinds)), parameter.default, tuple(choices), many)


def shaped(value: Tensor | np.ndarray) -> str:
    """Return what is said of a tensor or array where its numbers would be too many."""
    return f"{'tensor' if isinstance(value, Tensor) else 'array'} {list(value.shape)}"


def _said(value: object) -> str:
    """Return a value for an error's one line."""
    if isinstance(value, Tensor | np.ndarray):
        return shaped(value)
    if isinstance(value, tuple):
        return shorten(f"({', '.join(map(_said, value))})", 100, placeholder=" ...")
    return shorten(repr(value), 100, placeholder=" ...")


@dataclass(frozen=True)
class Facts:
    """What is known of a method or metric without running it."""

    name: str
    function: Callable[..., Any]
    title: str

    @cached_property
    def sentence(self) -> str:
        """Return the first sentence of the docstring."""
        return (inspect.getdoc(self.function) or "").partition("\n\n")[0].replace("\n", " ")

    @cached_property
    def options(self) -> Mapping[str, Option]:
        """Return the hyper-parameters: the keyword-only parameters of the function."""
        hints = get_type_hints(self.function)
        parameters = inspect.signature(self.function).parameters.values()
        return {p.name: _option(p, hints.get(p.name, str)) for p in parameters if p.kind is p.KEYWORD_ONLY}

    def checked(self, options: Mapping[str, object]) -> dict[str, object]:
        """Return every option with its value, the given ones over the defaults.

        Raises
        ------
        OptionError
            An option does not exist, or its value is of no type that it takes.
        """
        for name, value in options.items():
            if name not in self.options:
                raise OptionError(f"{self.name} has no option {name!r}: {nearest(name, self.options)}")
            if not self.options[name].accepts(value):
                raise OptionError(f"{self.name}: {name}={_said(value)}, expected {self.options[name].expected}")
        return {name: option.settled(options.get(name, option.default)) for name, option in self.options.items()}


@dataclass(frozen=True)
class MethodFacts(Facts):
    """A method's facts.

    ``family`` says how it works, ``needs`` what it asks of the model, ``reduce`` how channels become one map,
    ``show`` whether the map is to be read with its sign. A ``class_agnostic`` method gives the same map for every
    class. ``cost(options, model)`` says how many passes one picture takes, before it is run.
    """

    family: Literal["perturbation", "propagation", "activation"]
    paper: str
    needs: Literal["scores", "gradients", "layer", "attention"]
    reduce: Literal["sum", "abs-sum", "abs-max"]
    show: Literal["positive", "signed"]
    cost: Callable[[Mapping[str, object], Any], Passes]
    class_agnostic: bool = False


@dataclass(frozen=True)
class MetricFacts(Facts):
    """A metric's facts.

    ``family`` says what it judges and ``better`` which way; with an option of ``lower_when`` at its value there
    lower is better. ``needs`` says what it asks for: the ``map`` alone, the model's ``scores``, the true ``region``
    in the picture, or the ``method``, which it runs again. ``along`` says over what its curves are drawn.
    """

    family: Literal["faithfulness", "robustness", "complexity", "localisation", "sanity"]
    paper: str
    needs: Literal["map", "scores", "region", "method"]
    better: Literal["higher", "lower"]
    lower_when: Mapping[str, object] = field(default_factory=dict)
    along: str = "share of the area"

    def better_for(self, options: Mapping[str, object]) -> Literal["higher", "lower"]:
        """Return which way is better with some options."""
        turned = any(options.get(name) == value for name, value in self.lower_when.items())
        return "lower" if turned else self.better


@dataclass(frozen=True)
class CombinatorFacts(Facts):
    """Facts of what runs another method several times over and combines the answers.

    Its function takes the other method, ``inner(model, x, target) -> Answer``, before ``model``, ``x`` and
    ``target``. ``cost(options, passes)`` says how many passes it makes of those of one run. ``sets`` names the option
    of the other method that it fills in itself, and its own option that holds the values: for each of these it calls
    ``inner(model, x, target, **{name: value})``, and ``passes`` are those of all these runs.
    """

    cost: Callable[[Mapping[str, object], Passes], Passes]
    sets: tuple[str, str] | None = None

    def over(self, inner: MethodFacts) -> MethodFacts:
        """Return the combination's facts: its options are those of both.

        ``seed`` goes to both. Any other name that both have is the combinator's, and the inner method's own stands
        behind its name: ``grad-cam.samples``.

        Raises
        ------
        OptionError
            The inner method has no option that the combinator could set.
        """
        filled, values = self.sets or ("", "")
        if filled and filled not in inner.options:
            having = [name for name in METHODS.names() if filled in METHODS.facts(name).options]
            raise OptionError(
                f"{self.name}.{inner.name}: {inner.name} has no option {filled!r}, which {self.name} sets; "
                f"methods that have it: {', '.join(having) or 'none'}"
            )
        outer = {name for name in self.options if name != "seed"}
        # How each of the inner method's options is called in the combination.
        called = {n: f"{inner.name}.{n}" if n in outer else n for n in inner.options if n != filled}

        def for_inner(options: Mapping[str, object]) -> dict[str, object]:
            return {name: options[key] for name, key in called.items()}

        def function(model: Any, x: Any, target: Any, **options: Any) -> Any:  # noqa: ANN401
            own = {name: options[name] for name in self.options}
            return self.function(partial(inner.function, **for_inner(options)), model, x, target, **own)

        def cost(options: Mapping[str, Any], model: Any) -> Passes:  # noqa: ANN401
            own = for_inner(options)
            runs = [{**own, filled: value} for value in options[values]] if filled else [own]
            return self.cost(options, sum((inner.cost(run, model) for run in runs), Passes()))

        function.__doc__ = self.function.__doc__
        made = replace(
            inner,
            name=f"{self.name}.{inner.name}",
            function=function,
            title=f"{self.title} of {inner.title}",
            cost=cost,
        )
        # What cached_property would read off the signature.
        inners = {key: replace(inner.options[name], name=key) for name, key in called.items()}
        vars(made)["options"] = {**inners, **self.options}
        return made


F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T", bound=Facts)


class Registry(Generic[T]):
    """Everything of one kind, found in a package's modules and in the entry point group of the same name."""

    def __init__(
        self, kind: str, package: str, facts: type[T], derived: Callable[[str, "Registry[T]"], T] | None = None
    ) -> None:
        self.kind = kind
        self.package = package
        self._facts = facts
        self._derived = derived
        self._entries: dict[str, T] = {}
        self._discovered = False
        self._lock = threading.RLock()

    def register(self, name: str, **facts: Any) -> Callable[[F], F]:  # noqa: ANN401  (checked by the facts' class)
        """Return a decorator that enters a function under ``name`` with its facts."""

        def enter(function: F) -> F:
            if name in self._entries or not re.fullmatch(r"[a-z0-9+-]+", name):
                raise ValueError(f"a {self.kind} is named once, by letters a-z, digits, + and -: not {name!r}")
            self._entries[name] = self._facts(name=name, function=function, **facts)
            return function

        return enter

    def names(self) -> tuple[str, ...]:
        """Return all names, in alphabetical order."""
        self._discover()
        return tuple(sorted(self._entries))

    def facts(self, name: str) -> T:
        """Return the facts of ``name``.

        Raises
        ------
        UnknownNameError
            There is none of that name.
        """
        self._discover()
        if self._derived and "." in name:
            return self._derived(name, self)
        if name not in self._entries:
            raise UnknownNameError(f"there is no {self.kind} {name!r}: {nearest(name, self._entries)}")
        return self._entries[name]

    def _discover(self) -> None:
        """Import the package's own modules and those that others have announced."""
        with self._lock:
            if self._discovered:
                return
            for module in iter_modules(import_module(self.package).__path__, self.package + "."):
                import_module(module.name)
            self._discovered = True
            for entry in entry_points(group=self.package):
                try:
                    entry.load()
                except Exception as error:  # a stranger's package may fail in any way, and must not take ours along
                    warnings.warn(f"{self.kind} {entry.name!r} of {entry.value!r} is left out: {error}", stacklevel=2)


def _combined(name: str, methods: Registry[MethodFacts]) -> MethodFacts:
    """Return the facts of ``COMBINATOR.METHOD``, which may be a combination itself."""
    outer, _, inner = name.partition(".")
    return COMBINATORS.facts(outer).over(methods.facts(inner))


COMBINATORS = Registry("combinator", "whence.methods.combinators", CombinatorFacts)
combinator = COMBINATORS.register
METRICS = Registry("metric", "whence.metrics", MetricFacts)
metric = METRICS.register
METHODS = Registry("method", "whence.methods", MethodFacts, _combined)
method = METHODS.register
