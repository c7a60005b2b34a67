"""With which relevance the pass back starts at the logits."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from whence.errors import OptionError, UnsupportedError
from whence.methods.lrp.balance import per_picture, scaled
from whence.methods.lrp.propagation import Propagation
from whence.methods.lrp.tags import maker
from whence.models.session import Recording, Session
from whence.models.targets import Fixed, TargetSpec
from whence.results import Balance, Score

Start = Literal["one-hot", "sglrp", "sglrp-two-pass", "clrp1", "clrp1-code", "clrp2"]
INPUT = ""


@dataclass(frozen=True, eq=False)
class Back:
    """Relevance that came back: maps by layer, the input's by the empty name, and the balance."""

    maps: Mapping[str, Tensor]
    balance: Balance

    def minus(self, other: "Back", factor: Float[Tensor, " b"] | None = None) -> "Back":
        """Return the difference of two maps, the second times ``factor``."""
        factor = torch.ones_like(self.balance.start) if factor is None else factor
        maps = {name: r - scaled(other.maps[name], factor) for name, r in self.maps.items()}
        return Back(maps, self.balance.minus(other.balance, factor))

    def positive(self) -> "Back":
        """Return the positive part of every map."""
        before = self.balance
        cut = {name: r.clamp(min=0) for name, r in self.maps.items()}
        sums = {name: per_picture(r, len(before.start)) for name, r in cut.items()}
        other = {**before.other, "clipped": before.input - sums[INPUT]}
        layers = {name: sums[name] for name in before.layers}
        return Back(cut, replace(before, input=sums[INPUT], other=other, layers=layers))

    def scaled(self, factor: Float[Tensor, " b"]) -> "Back":
        """Return everything times a factor."""
        maps = {name: scaled(r, factor) for name, r in self.maps.items()}
        return Back(maps, self.balance.mapped(lambda amount: amount * factor))


@dataclass(frozen=True, eq=False)
class Run:
    """A forward pass through which relevance can be handed back, more than once."""

    model: Session
    propagation: Propagation
    recording: Recording

    def back(self, score: Float[Tensor, " b"], start: Float[Tensor, " b"], *, again: bool = False) -> Back:
        """Hand back what a score of the output holds, ``start`` of it."""
        ledger = self.propagation.begin(again=again or self.model.sharing)
        (g,) = self.model.gradients(score, self.recording, again=again)
        r = g if self.propagation.root_carries_relevance else g * self.recording.batch
        return Back({INPUT: r, **ledger.layers}, ledger.balance(start, r))

    def sloped(self, target: list[TargetSpec]) -> Back:
        """Hand back the score's derivative with respect to each logit: of a class, 1.

        Where a function reads what no linear operation returns, as a norm does, that could not be handed on: there it
        is value times derivative.
        """
        total = torch.zeros(len(target), dtype=torch.float64, device=self.recording.batch.device)
        named = torch.tensor([not callable(t) for t in target]).to(total)
        for value, g in _slopes(self.model, self.recording, target):
            factor = _quotient(g, value.detach())
            if maker(value) is None:
                factor = scaled(factor, named) + scaled(g, 1 - named)
            total = total + per_picture(value * factor, len(target))
        return self.back(total, total.detach())

    def explained(self, score: Score, target: list[TargetSpec], start: Start) -> Back:
        """Hand back from a target.

        Raises
        ------
        OptionError
            The start is one for a class, and the target something else.
        """
        if start == "one-hot":
            return self.back(score.value, _started(self.model, self.recording, target))
        return self._contrasted(score, target, start)

    def _contrasted(self, score: Score, target: list[TargetSpec], start: Start) -> Back:
        if any(not isinstance(t, Fixed) or t.measure != "logit" for t in target):
            raise OptionError(f"lrp: start={start} starts at a class: give a class as the target")
        logits = self.model.logits(self.recording.output)
        if self.model.scale.activation != "softmax" or logits.shape[1] < 2:
            raise OptionError(f"lrp: start={start} sets a class against the others, which a softmax of two needs")
        z, t = logits.detach(), score.index[:, None]
        own = torch.zeros_like(z).scatter_(1, t, 1.0)
        p = z.softmax(1)
        p_t, z_t = p.gather(1, t), z.gather(1, t)
        if start == "sglrp":
            # dp_t / dz_n; Iwana et al. 2019, equation 6.
            return self._from(logits, own * p_t - p_t * p)
        if start == "sglrp-two-pass":
            mine = self._from(logits, own * p_t * (1 - p_t), again=True)
            dual = self._from(logits, (1 - own) * p_t * p)
            sums = (back.maps[INPUT].flatten(1).sum(1, dtype=torch.float64) for back in (mine, dual))
            return mine.minus(dual, _quotient(*sums))
        if start == "clrp2":
            return self._against_negated(logits, own * z_t, score.index)
        mine = self._from(logits, own * z_t, again=True)
        if start == "clrp1":
            # Gu et al. 2018, section 3: the others share z_t.
            return mine.minus(self._from(logits, (1 - own) * z_t / (z.shape[1] - 1))).positive()
        dual = self._from(logits, (1 - own) * z.abs())
        return _unit(mine).minus(_unit(dual)).positive()

    def _from(
        self,
        logits: Float[Tensor, "b k"],
        r: Float[Tensor, "b k"],
        *,
        again: bool = False,
        signs: Tensor | None = None,
    ) -> Back:
        """Hand back relevance of the logits that is not in proportion to them."""
        node = maker(logits)
        if node is None:
            factor = torch.where(logits == 0, 0, r / logits).detach()
            return self.back((logits * factor).sum(1), r.sum(1), again=again)
        node.given, node.negated = r, signs
        try:
            return self.back(logits.sum(1), r.sum(1), again=again)
        finally:
            node.given = node.negated = None

    def _against_negated(
        self, logits: Float[Tensor, "b k"], r: Float[Tensor, "b k"], index: Int[Tensor, " b"]
    ) -> Back:
        """Hand back against what comes through the weights of each picture's class negated. Gu et al. 2018, CLRP2.

        By LRP-0 and by epsilon both would be the same, so that the last operation deals by z+ in their place.
        """
        if maker(logits) is None:
            raise UnsupportedError(
                "lrp: start=clrp2 negates weights of the last linear layer, and the logits are not what one returns: "
                "take start=clrp1"
            )
        found = self._from(logits, r, again=True, signs=torch.ones_like(r[0]))
        for label in sorted(set(index.tolist())):
            signs = torch.ones_like(r[0])
            signs[label] = -1
            rows = (index == label).to(r)[:, None]
            found = found.minus(self._from(logits, r * rows, again=True, signs=signs))
        return found.positive()


def _quotient(a: Tensor, b: Tensor) -> Tensor:
    return torch.where(b == 0, 0, a / b)


def _unit(back: Back) -> Back:
    """Return a map divided by its own sum."""
    total = back.maps[INPUT].flatten(1).sum(1, dtype=torch.float64)
    return back.scaled(_quotient(torch.ones_like(total), total))


def _started(model: Session, recording: Recording, target: list[TargetSpec]) -> Float[Tensor, " b"]:
    """Return the sum of the output's values, each times the score's derivative: what is handed back."""
    shares = (per_picture(value.detach() * g, len(target)) for value, g in _slopes(model, recording, target))
    return sum(shares, start=torch.zeros(len(target), dtype=torch.float64, device=recording.batch.device))


def _slopes(model: Session, recording: Recording, target: list[TargetSpec]) -> list[tuple[Tensor, Tensor]]:
    """Return what of the output the score depends on, each with the score's derivative with respect to it."""
    output = recording.output
    if not any(callable(t) for t in target):
        output = model.logits(output)
    values, structure = tree_flatten(output)
    at = [i for i, value in enumerate(values) if isinstance(value, Tensor) and value.is_floating_point()]
    if not at:
        # An output of the model's own kind, which cannot be looked into.
        whole = model.score(recording.output, target).value
        return [(whole, torch.ones_like(whole))]
    parts = [values[i] for i in at]
    leaves = [part.detach().clone().requires_grad_() for part in parts]
    for i, leaf in zip(at, leaves, strict=True):
        values[i] = leaf
    score = model.score(tree_unflatten(values, structure), target).value
    if not score.requires_grad:
        return []
    found = torch.autograd.grad(score, leaves, torch.ones_like(score), allow_unused=True)
    return [(part, g) for part, g in zip(parts, found, strict=True) if g is not None]
