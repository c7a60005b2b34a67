"""Numbers and evidence in plain words."""

import unicodedata
from dataclasses import dataclass

from whence.reports.contents import EvidenceRow, PictureRow, TargetRow

# What is left of the probability: at least this share says that nothing was lost, at most the other that most was.
_UNHARMED, _RUINED = 0.9, 0.5
# Below this probability the class is not the model's answer, and no share of the picture can be what it needs.
_UNSAID = 0.05

# Keeps a number and its unit on one line.
_SPACE = "\N{NO-BREAK SPACE}"
_REMOVED = {"blurred": "blurred away", "black": "blacked out"}


@dataclass(frozen=True)
class Finding:
    """One conclusion from the evidence: a word or two, and the sentence behind it."""

    lead: str
    sentence: str


def percent(share: float) -> str:
    """Return a share of 1 in per cent; what is not quite nothing or everything is never rounded to it."""
    if 0 < share < 0.0005:
        return f"<{_SPACE}0.1{_SPACE}%"
    if 0.9995 < share < 1:
        return f">{_SPACE}99.9{_SPACE}%"
    return f"{100 * share:.1f}".removesuffix(".0") + f"{_SPACE}%"


def share(value: float) -> str:
    """Return a share that may be negative or above 1, in per cent; a tiny one with its digits."""
    if abs(value) < 0.0005:
        return f"{number(100 * value)}{_SPACE}%"
    return percent(value) if value > 0 else f"−{percent(-value)}"


def number(value: float) -> str:
    """Return a number with three digits that count."""
    return f"{value:.3g}".replace("-", "−")


def measured(target: TargetRow, value: float) -> str:
    """Return a probability in per cent, or a score as a number."""
    return number(value) if target["probability"] is None else percent(value)


def before(target: TargetRow) -> float:
    """Return the target's probability, or else its score, on the whole picture."""
    return target["score"] if target["probability"] is None else target["probability"]


def label(target: TargetRow) -> str:
    """Return the target's name."""
    return target["label"] or ("the given function" if target["index"] < 0 else f"class {target['index']}")


def labelled(target: TargetRow) -> str:
    """Return the target's name with what the model says of it."""
    return f"{label(target)}, {measured(target, before(target))}"


def taken_away(evidence: EvidenceRow) -> str:
    """Return what was done to the important share."""
    return _REMOVED.get(evidence["baseline"], f"replaced by “{evidence['baseline']}”")


def findings(target: TargetRow, evidence: EvidenceRow) -> tuple[Finding, Finding]:
    """Return what follows from removing the important share, and from keeping it alone."""
    first, without, alone = (measured(target, v) for v in (before(target), evidence["removed"], evidence["kept"]))
    if target["probability"] is None:
        return (
            Finding("Removed.", f"Without this part the score goes from {first} to {without}."),
            Finding("Kept.", f"With this part alone the score is {alone}."),
        )
    if target["probability"] < _UNSAID:
        told = f"The model gives the class only {first} to begin with: there is little to take away or to keep."
        return Finding("Says little.", told), Finding("Says little.", f"This part alone gives {alone}.")
    return _needed(target["probability"], evidence["removed"], first, without), _sufficient(
        target["probability"], evidence["kept"], first, alone
    )


def _needed(probability: float, removed: float, first: str, without: str) -> Finding:
    if removed <= _RUINED * probability:
        return Finding("Needed.", f"Without this part the probability falls from {first} to {without}.")
    if removed < _UNHARMED * probability:
        return Finding("Partly needed.", f"Without this part the probability goes down from {first} to {without}.")
    kept = "is still" if removed <= probability else f"rises from {first} to"
    return Finding(
        "Not needed.", f"Without this part the probability {kept} {without}: the rest of the picture is enough."
    )


def _sufficient(probability: float, kept: float, first: str, alone: str) -> Finding:
    if kept >= _UNHARMED * probability:
        return Finding("Sufficient.", f"This part alone gives {alone}: the model needs nothing else.")
    if kept > _RUINED * probability:
        return Finding("Partly sufficient.", f"This part alone gives {alone}, the whole picture {first}.")
    return Finding("Not sufficient.", f"This part alone gives only {alone}: the model needs more than it.")


def verdict(picture: PictureRow) -> str | None:
    """Return whether the top class is the true one; None where the truth was not given."""
    if picture["truth"] is None or not picture["top"]:
        return None
    return "right" if picture["top"][0]["label"] == picture["truth"] else "wrong"


def short(path: str) -> str:
    """Return the last part of a path or address."""
    return path.replace("\\", "/").rstrip("/").rpartition("/")[2] or path or "picture"


def cut(text: str, longest: int) -> str:
    """Return text of at most ``longest`` letters."""
    return text if len(text) <= longest else text[: longest - 3] + "..."


def plain(text: str) -> str:
    """Return text in the ASCII letters that Pillow's own font can draw."""
    spelt = unicodedata.normalize("NFKD", text.translate({0x2212: "-", 0x201C: '"', 0x201D: '"'}))
    return "".join(c if " " <= c <= "~" else "?" for c in spelt if not unicodedata.combining(c))
