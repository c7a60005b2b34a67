"""Where the relevance went that a method handed back, in one line; shares may be negative, and above 100 %."""

from dataclasses import dataclass

from whence.reports import words
from whence.reports.contents import BalanceRow, ExplanationRow

# Where someone got more than this many times the start, amounts are told in the place of shares.
_LARGEST = 10
# Who got less than this share is told only if input or biases.
_TOLD = 0.0005
# A map with less than this share has next to nothing of what was handed back.
_LITTLE = 0.05
# A start smaller than this share of what it set in motion is a sum that cancels out, but for rounding.
_NOTHING = 1e-3


@dataclass(frozen=True)
class Part:
    """What someone got, and which share of the start that is; None where shares would say nothing."""

    name: str
    amount: float
    share: float | None

    @property
    def said(self) -> str:
        """The share, or else the amount, in words."""
        return words.number(self.amount) if self.share is None else words.share(self.share)


@dataclass(frozen=True)
class Balance:
    """One explanation's balance: the start, what the layer explained got, and everyone's parts, the input's first."""

    start: float
    at: Part | None
    parts: tuple[Part, ...]

    @property
    def text(self) -> str:
        """Everything in one line."""
        at = f"{self.at.said} at {self.at.name}; in the end " if self.at else ""
        return f"of {words.number(self.start)}: {at}" + ", ".join(f"{p.name} {p.said}" for p in self.parts)

    @property
    def says_little(self) -> bool:
        """Whether next to nothing of what was handed back is in the map."""
        own = self.at or self.parts[0]
        return own.share is not None and abs(own.share) < _LITTLE

    @property
    def widths(self) -> tuple[float, ...]:
        """The parts of a bar of width 100, the map's own first; none where they are no parts of a whole."""
        shares = [part.share for part in ([self.at] if self.at else self.parts)]
        known = [share for share in shares if share is not None and 0 <= share <= 1]
        return tuple(round(100 * share, 2) for share in known) if len(known) == len(shares) else ()


def balance(row: ExplanationRow) -> Balance | None:
    """Return the balance of an explanation; None where its method hands back no relevance."""
    found, layer = row.get("balance"), row["layer"]
    if found is None:
        return None
    got, whole = _amounts(found), _whole(found)
    told = {name: v for name, v in got.items() if name in ("input", "biases") or abs(v) > _TOLD * whole}
    return Balance(
        found["start"] if abs(found["start"]) > _NOTHING * whole else 0.0,
        held(row, layer) if layer else None,
        tuple(_part(found, name, amount) for name, amount in told.items()),
    )


def held(row: ExplanationRow, layer: str) -> Part | None:
    """Return what a layer holds of what is handed back; None where that is not known."""
    found = row.get("balance")
    return _part(found, layer, found["layers"][layer]) if found and layer in found["layers"] else None


def _part(balance: BalanceRow, name: str, amount: float) -> Part:
    start = balance["start"]
    return Part(name, amount, amount / start if start and abs(start) == _whole(balance) else None)


def _whole(balance: BalanceRow) -> float:
    """Return the size of the start, or, where most of what it set in motion cancels out, of the largest amount."""
    largest = max(map(abs, _amounts(balance).values()))
    return largest if largest > _LARGEST * abs(balance["start"]) else abs(balance["start"])


def _amounts(balance: BalanceRow) -> dict[str, float]:
    """Return who got what; what nobody got is unaccounted for."""
    got = {
        "input": balance["input"],
        "biases": balance["bias"],
        "constants": balance["constants"],
        "stabilisers": balance["stabiliser"],
        **balance["other"],
    }
    return {**got, "unaccounted for": balance["start"] - sum(got.values())}
