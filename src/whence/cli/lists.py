"""`whence methods`, `whence metrics` and `whence layers`: what there is to choose from."""

from typing import TYPE_CHECKING, Annotated

import typer

from whence.cli import console
from whence.cli.console import DEFAULT_MODEL, Debug, Json, Model, Trust, Weights
from whence.errors import OptionError

if TYPE_CHECKING:
    from whence.registry import Facts


def methods(json: Json = False, debug: Debug = False) -> None:
    """List the methods with their facts and options."""
    from whence.registry import COMBINATORS, METHODS

    known = [METHODS.facts(name) for name in METHODS.names()]
    if json:
        console.result(
            [
                {
                    "name": m.name,
                    "title": m.title,
                    "family": m.family,
                    "paper": m.paper,
                    "needs": m.needs,
                    "reduce": m.reduce,
                    "show": m.show,
                    "class_agnostic": m.class_agnostic,
                    "about": m.sentence,
                    "options": _options(m),
                }
                for m in known
            ]
        )
        return
    rows = [
        (
            m.name,
            m.family,
            m.needs,
            m.paper,
            _defaults(m),
            m.sentence,
        )
        for m in known
    ]
    console.table(("name", "family", "needs", "paper", "options", "what it shows"), rows)
    combinators = ", ".join(COMBINATORS.names())
    console.say(f"Before a method may stand a combinator ({combinators}): noise.grad-cam:samples=20,sigma=0.1")


def metrics(json: Json = False, debug: Debug = False) -> None:
    """List the metrics, which say how good a map is, with their facts and options."""
    from whence.registry import METRICS

    known = [METRICS.facts(name) for name in METRICS.names()]
    if json:
        console.result(
            [
                {
                    "name": m.name,
                    "title": m.title,
                    "family": m.family,
                    "paper": m.paper,
                    "needs": m.needs,
                    "better": m.better,
                    "about": m.sentence,
                    "options": _options(m),
                }
                for m in known
            ]
        )
        return
    rows = [(m.name, m.family, m.needs, m.better, m.paper, _defaults(m), m.sentence) for m in known]
    console.table(("name", "family", "needs", "better", "paper", "options", "what it says"), rows)


def _options(facts: "Facts") -> dict[str, dict[str, object]]:
    return {o.name: {"default": o.default, "expected": o.expected} for o in facts.options.values()}


def _defaults(facts: "Facts") -> str:
    return ", ".join(f"{o.name}={o.default}" for o in facts.options.values())


def layers(
    model: Model = DEFAULT_MODEL,
    weights: Weights = None,
    size: Annotated[
        int | None, typer.Option(help="Side of the input, for models that do not state one. [default: 224]")
    ] = None,
    json: Json = False,
    trust: Trust = False,
    debug: Debug = False,
) -> None:
    """List the layers of a model that can be explained, with the one that is chosen by itself.

    `every path` says that all of the picture's influence on the score goes through the layer; `coverage`, which share
    of its places can change the score.
    """
    import torch

    from whence.models.load import load_model
    from whence.models.session import move, opened

    if size is not None and size < 1:
        raise OptionError(f"--size {size}: give a side of at least 1 pixel")
    classifier = load_model(model, weights=weights, trust=trust)
    channels, height, width = classifier.input or (3, 224, 224)
    shape = (channels, size or height, size or width)
    with opened(classifier) as session:
        found = session.catalogue(move(classifier, torch.zeros(1, *shape)))
    if json:
        console.result(
            {
                "input": list(shape),
                "chosen": found.chosen,
                "dead": found.dead,
                "layers": [
                    {
                        "name": c.name,
                        "shape": list(c.shape),
                        "layout": c.layout.kind,
                        "every_path": c.cut,
                        "coverage": c.coverage,
                    }
                    for c in found.candidates
                ],
            }
        )
        return
    rows = [
        (
            "*" if c.name == found.chosen else "",
            c.name,
            " x ".join(str(n) for n in c.shape),
            c.layout.kind,
            "yes" if c.cut else "no",
            f"{c.coverage:.0%}",
        )
        for c in found.candidates
    ]
    console.table(("", "layer", "map", "layout", "every path", "coverage"), rows)
    if found.dead:
        console.say(
            "The head is dead: no output of the model depends on the picture, and every map of a method"
            " that looks at the score will be zero (eigen-cam and attention-rollout never look at it)."
        )
    console.say(f"* is chosen for inputs of {' x '.join(str(n) for n in shape)}")
