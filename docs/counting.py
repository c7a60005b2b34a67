"""Print what `whence study count` found over several seeds: `python docs/counting.py COUNT0 COUNT1 ...`.

The folders hold the same kinds of models in the same order, each of another seed; all others are compared with the
first kind. Of the pictures that all models of a seed classify correctly.
"""

import argparse
import json
from pathlib import Path
from statistics import mean, stdev
from typing import Any

KEYS = {
    "roots": "sets",
    "compatible:0": "sets apart",
    "size": "patches of a set",
    "sub:0.8": "SUB at 0.8",
    "sub:0.5": "SUB at 0.5",
    "share:0.5": "share at 0.5",
    "area": "area",
}


def group(folder: Path) -> dict[str, Any]:
    """Return the group of pictures that every model has right."""
    told = json.loads((folder / "count.json").read_text(encoding="utf-8"))
    return next(one for one in told["groups"] if one["key"] == "correct")


def spread(values: list[float]) -> str:
    """Return a mean and its standard deviation over the seeds."""
    return f"{mean(values):.3g}" + (f" ± {stdev(values):.2g}" if len(values) > 1 else "")


def against(groups: list[dict[str, Any]], kind: int, key: str) -> str:
    """Return the difference from the first kind, and in how many seeds its interval leaves out 0."""
    pairs = []
    for of in groups:
        first, other = (of["summaries"][number]["model"] for number in (0, kind))
        found = next(one for one in of["differences"] if (one["first"], one["second"]) == (first, other))
        pairs.append(found["estimates"][key])
    sure = sum(pair["low"] > 0 or pair["high"] < 0 for pair in pairs)
    return f"{-mean(pair['mean'] for pair in pairs):+.3g} ({sure} of {len(pairs)})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--names", nargs="+", required=True, help="of the kinds of models, in their order")
    asked = parser.parse_args()
    groups = [group(folder) for folder in asked.folders]
    print("| mean ± spread over the seeds |", " | ".join(KEYS.values()), "|")
    print("|---" * (len(KEYS) + 1) + "|")
    for kind, name in enumerate(asked.names):
        figures = [of["summaries"][kind]["figures"] for of in groups]
        print("|", name, "|", " | ".join(spread([one[key]["mean"] for one in figures]) for key in KEYS), "|")
    print(f"\n| minus {asked.names[0]} |", " | ".join(KEYS.values()), "|")
    print("|---" * (len(KEYS) + 1) + "|")
    for kind, name in enumerate(asked.names[1:], 1):
        print("|", name, "|", " | ".join(against(groups, kind, key) for key in KEYS), "|")
    print("\npictures:", ", ".join(str(of["pictures"]) for of in groups))


if __name__ == "__main__":
    main()
