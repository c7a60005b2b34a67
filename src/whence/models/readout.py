"""What a method on attention maps asks of a session: the maps of a run, and what they mean."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from whence.models.attention import Attending, Readout, checked_maps, find_readout
from whence.models.classifier import Classifier
from whence.models.session import Recording, Session, opened
from whence.models.taps import recorded


class Attended(NamedTuple):
    """One run: its attention maps are the recording's activations, ``blocks`` is what layers returned beside them."""

    recording: Recording
    blocks: dict[str, Tensor]

    @property
    def maps(self) -> list[Tensor]:
        """The maps, [B, heads, N, N], in the order of the calls."""
        return list(self.recording.activations.values())


def readout(model: Session, x: Float[Tensor, "b c h w"]) -> Readout:
    """Return what attention maps mean at this input size; found out once, on seeded noise, and not counted.

    Raises
    ------
    UnsupportedError
        The model's patches do not attend to one another, all to all, in block after block.
    """
    shape, known, before = tuple(x.shape[1:]), model.classifier.readouts, model.passes
    if shape not in known:
        # What a model draws for itself afterwards must not depend on whether this ran just now.
        with torch.random.fork_rng([x.device] if x.is_cuda else []):
            known[shape] = find_readout(model.module, x, model.run, model.classifier.name)
        model.passes = before
    return known[shape]


def attend(
    model: Session, x: Float[Tensor, "b c h w"], *, gradients: bool = True, layers: Sequence[str] = ()
) -> Attended:
    """Run a batch forward and record every attention map, and what ``layers`` return.

    With ``gradients`` the maps are tensors of the graph. Where several targets share the session, it is run once.
    """

    def run() -> Attended:
        leaf = x.detach().clone().requires_grad_(gradients)
        with (
            torch.set_grad_enabled(gradients),
            recorded(model.module, layers, gradients=gradients) as blocks,
            Attending() as attending,
        ):
            output = model.run(leaf)
        checked_maps(attending.maps, len(x), tuple(x.shape[2:]), model.classifier.name)
        maps = {f"attention {index}": a for index, a in enumerate(attending.maps)}
        for name, tensor in {**maps, **blocks}.items():
            model.finite(tensor, f"the activation of {name!r}")
        return Attended(Recording(output, x, maps, leaf), blocks)

    return model.once(x, ("attention", str(gradients), *layers), run)


def depth(classifier: Classifier) -> int:
    """Return how many attention calls a run makes.

    Raises
    ------
    UnsupportedError
        The model has no attention maps of the kind that these methods read.
    """
    for known in classifier.readouts.values():
        return known.calls
    grey = classifier.like.new_zeros(1, *(classifier.input or (3, 224, 224)))
    with opened(classifier) as model:
        return readout(model, grey).calls
