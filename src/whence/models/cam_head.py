"""The head that CAM is made for: the mean of each map of a layer, and one linear layer behind it."""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from whence.errors import LayerError, OptionError
from whence.models.layers import layout_of
from whence.models.taps import ended_at
from whence.models.wrapped import Wrapped, WrapperForm


class CamHead(Wrapped):
    """A model up to ``layer``, the mean of each of its maps over all places, and ``cam_head``, a linear layer.

    Zhou et al. 2016 (arXiv:1512.04150). The model's own rest is never run, and nothing is patched into ``model``:
    the pass ends when the layer has returned. Of a layer of tokens those of patches are pooled, without class and
    register tokens. Before it is fitted the linear layer is zero.
    """

    ours = "cam_head"
    form: "CamForm"

    def __init__(self, model: nn.Module, layer: str, filters: int, classes: int) -> None:
        super().__init__()
        self.model, self.form = model, CamForm(layer, filters, classes)
        # Its usual start would be drawn from the global generator.
        self.cam_head: nn.Linear = nn.utils.skip_init(  # type: ignore[no-untyped-call]
            nn.Linear, filters, classes
        )
        for parameter in self.cam_head.parameters():
            nn.init.zeros_(parameter)
        self.training = self.cam_head.training = model.training

    @property
    def num_classes(self) -> int:
        """How many classes it tells apart."""
        return self.form.classes

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        """Return the logits; errors as for ``pooled``."""
        logits: Tensor = self.cam_head(self.pooled(x))
        return logits

    def pooled(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b filters"]:
        """Return the mean of each map of the layer.

        Raises
        ------
        LayerError
            The layer does not exist or run, has no map, or has not as many maps as the head has weights.
        """
        layer, filters = self.form.layer, self.form.filters
        with ended_at(self.model, layer) as returned:
            self.model(x)
        means = _maps(layer, returned[0], len(x), tuple(x.shape[2:])).mean((2, 3))
        if means.shape[1] != filters:
            raise LayerError(f"layer {layer!r} has {means.shape[1]} maps, and its CAM head is for {filters}")
        return means


def _maps(layer: str, output: Tensor, batch: int, size: Sequence[int]) -> Float[Tensor, "b k h w"]:
    layout = layout_of(layer, tuple(output.shape), batch, size)
    if layout.sequence_first or layout.grid == (1, 1):
        raise LayerError(
            f"layer {layer!r} returns {list(output.shape)}: choose one whose output holds the batch first, and a map "
            "of more than one place"
        )
    return layout.to_maps(output)


@dataclass(frozen=True)
class CamForm(WrapperForm):
    """What a CAM head is made of, but for the model and the weights: what a model folder states of it.

    Parameters
    ----------
    layer
        Path of the module behind which the head stands.
    filters
        How many maps it returns.
    classes
        How many classes the head tells apart.
    """

    table = "cam-head"

    layer: str
    filters: int
    classes: int

    def around(self, model: nn.Module) -> CamHead:
        """Return the model with a head that is zero.

        Raises
        ------
        OptionError
            There is no filter or no class.
        """
        if min(self.filters, self.classes) < 1:
            raise OptionError(
                f"a CAM head of {self.filters} filters and {self.classes} classes: give at least 1 each"
            )
        return CamHead(model, self.layer, self.filters, self.classes)
