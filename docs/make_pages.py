"""The generated parts of the docs: facts and options on each method's page, their index, and the README's table.

Each page holds the line ``<!-- facts -->``; what is made stands between it and ``<!-- end of facts -->``. Everything
else on a page is written by hand.
"""

import re
import sys
from functools import cache
from pathlib import Path

from whence import Classifier, load_model
from whence.errors import WhenceError
from whence.models.random import draw
from whence.registry import COMBINATORS, METHODS, CombinatorFacts, MethodFacts, Option

PAGES = Path(__file__).parent / "methods"
README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- facts -->", "<!-- end of facts -->"
FIRST, LAST = "<!-- methods -->", "<!-- end of methods -->"

FAMILIES = {
    "activation": "Activation: what a layer saw, weighed by what it did to the score",
    "propagation": "Propagation: the score sent back through the network",
    "perturbation": "Perturbation: the picture changed, and the score looked at again",
}
NEEDS = {
    "scores": "the scores alone",
    "gradients": "gradients",
    "layer": "a layer with a map",
    "attention": "attention maps",
}
REDUCED = {"sum": "their sum", "abs-sum": "the sum of their sizes", "abs-max": "the largest of their sizes"}
SHOWN = {"positive": "what speaks for the class", "signed": "with its sign"}


def made(page: str, name: str) -> str:
    """Return a page with its facts as they are now."""
    if BEGIN not in page:
        raise SystemExit(f"{name}.md has no line {BEGIN}: add it after the first paragraph")
    return re.sub(f"{BEGIN}(?:.*?{END})?", lambda _: facts(METHODS.facts(name)), page, count=1, flags=re.S)


def listed(readme: str) -> str:
    """Return the README with its table of methods as they are now."""
    every = [METHODS.facts(name) for name in METHODS.names()]
    lines = [FIRST, "| family | methods |", "|---|---|"]
    for family in FAMILIES:
        links = (f"[`{m.name}`](docs/methods/{m.name}.md)" for m in every if m.family == family)
        lines.append(f"| {family} | {', '.join(links)} |")
    return re.sub(f"{FIRST}.*?{LAST}", lambda _: "\n".join([*lines, LAST]), readme, count=1, flags=re.S)


def facts(method: MethodFacts) -> str:
    """Return the block of facts and options."""
    rows = {
        "name": f"`{method.name}`",
        "family": method.family,
        "asks of the model": NEEDS[method.needs],
        "channels become one map by": REDUCED[method.reduce],
        "is shown": SHOWN[method.show],
        "the same for every class": "yes" if method.class_agnostic else "no",
        "paper": paper(method.paper),
        "passes for one picture": planned(method),
    }
    lines = [BEGIN, "", "| | |", "|---|---|", *(f"| {name} | {text} |" for name, text in rows.items()), ""]
    if method.options:
        lines += ["| option | default | accepts |", "|---|---|---|"]
        lines += [f"| `{o.name}` | `{said(o.default)}` | {accepted(o)} |" for o in method.options.values()]
    else:
        lines.append("No options.")
    return "\n".join([*lines, "", END])


def paper(source: str) -> str:
    """Return a paper as a link."""
    kind, _, number = source.partition(":")
    address = {"arXiv": "https://arxiv.org/abs/", "doi": "https://doi.org/"}
    return f"[{source}]({address[kind]}{number})" if number else "none"


@cache
def _model() -> Classifier:
    return load_model("torchvision:resnet18", weights="random")


@cache
def _transformer() -> Classifier:
    """Return a narrow ViT, as deep as the usual ones."""
    from torchvision.models import VisionTransformer

    net = VisionTransformer(224, 32, num_layers=12, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=10)
    draw(net, 0, (3, 224, 224))
    return Classifier(net)


def planned(method: MethodFacts) -> str:
    """Return the passes that a method plans with its defaults, where the plan can say."""
    attention = method.needs == "attention"
    try:
        passes = method.cost(method.checked({}), _transformer() if attention else _model())
    except WhenceError:
        return "depends on the model"
    of = "a ViT of 12 blocks" if attention else "ResNet-18"
    counts = {"forward": passes.forward, "backward": passes.backward, "partial": passes.partial}
    return ", ".join(f"{n} {kind}" for kind, n in counts.items() if n) + f" (planned; {of}, 224 pixels)"


def said(value: object) -> str:
    """Return a value as it is written on the command line."""
    if isinstance(value, list | tuple):
        return "+".join(map(said, value))
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def accepted(option: Option) -> str:
    """Return in words what an option takes."""
    choices = " or ".join(f"`{choice}`" for choice in option.choices) or option.expected
    for both in ("a whole number or a number", "a number or a whole number"):
        choices = choices.replace(both, "a number")
    return choices + (", several joined by `+`" if option.many else "")


def index() -> str:
    """Return the page that lists all methods by family, and the combinators."""
    every = [METHODS.facts(name) for name in METHODS.names()]
    lines = [
        "# Methods",
        "",
        "Every method that whence has, by family. This page is made by `make docs` from the methods' own facts;",
        "`whence methods` prints the same. Each page says what a method does, when it lies, and how it is called.",
    ]
    for family, heading in FAMILIES.items():
        lines += ["", f"## {heading}", "", "| method | asks for | paper | |", "|---|---|---|---|"]
        lines += [
            f"| [`{m.name}`]({m.name}.md) | {NEEDS[m.needs]} | {paper(m.paper)} | {m.sentence} |"
            for m in every
            if m.family == family
        ]
    lines += ["", "## Combinators: `COMBINATOR.METHOD` runs a method several times over", ""]
    lines += ["| combinator | options | |", "|---|---|---|"]
    lines += [_combinator(COMBINATORS.facts(name)) for name in COMBINATORS.names()]
    return "\n".join([*lines, "", "See [combinators](../combinators.md).", ""])


def _combinator(facts: CombinatorFacts) -> str:
    options = ", ".join(f"`{o.name}={said(o.default)}`" for o in facts.options.values())
    return f"| `{facts.name}` | {options or 'none'} | {facts.sentence} |"


def main() -> None:
    """Write what is generated into the pages that are there; say which are missing."""
    missing = [name for name in METHODS.names() if not (PAGES / f"{name}.md").exists()]
    for name in METHODS.names():
        if name not in missing:
            page = PAGES / f"{name}.md"
            page.write_text(made(page.read_text("utf-8"), name), "utf-8")
    (PAGES / "README.md").write_text(index(), "utf-8")
    README.write_text(listed(README.read_text("utf-8")), "utf-8")
    if missing:
        sys.exit(f"no page for: {', '.join(missing)}")


if __name__ == "__main__":
    main()
