"""Counts over a whole sweep, printed at its end."""

from collections import Counter, defaultdict

import pytest

COUNTS: defaultdict[str, Counter[str]] = defaultdict(Counter)


@pytest.fixture
def counted() -> defaultdict[str, Counter[str]]:
    """For each method, on how many models it gave a map, refused with a sentence, or failed."""
    return COUNTS


def pytest_terminal_summary(terminalreporter) -> None:
    for method, counts in sorted(COUNTS.items()):
        said = ", ".join(f"{kind} {count}" for kind, count in sorted(counts.items()))
        terminalreporter.write_line(f"{method}: {said}, of {sum(counts.values())} models")
