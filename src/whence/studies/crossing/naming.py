"""The columns of a study's rows that hold what one model says of another's maps: named here alone."""

from collections.abc import Iterable, Sequence

_BASE = ":base"


def auc(metric: str, judge: str) -> str:
    """Return the column of the area under a metric's curve on the judge."""
    return f"{metric}@{judge}"


def base(metric: str, judge: str) -> str:
    """Return the column of the judge's probability of the metric's substrate alone, with nothing of the picture."""
    return f"{metric}{_BASE}@{judge}"


def full(judge: str) -> str:
    """Return the column of the judge's probability on the whole picture."""
    return f"full@{judge}"


def columns(metrics: Sequence[str], judge: str) -> list[str]:
    """Return the names of a judge's columns, in the order in which they stand."""
    return [full(judge), *(column(metric, judge) for metric in metrics for column in (auc, base))]


def metrics(names: Iterable[str], judge: str) -> list[str]:
    """Return the metrics, as they were asked for, of which these columns hold what a judge says."""
    ending = f"{_BASE}@{judge}"
    return [name.removesuffix(ending) for name in names if name.endswith(ending)]
