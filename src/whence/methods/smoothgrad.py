"""SmoothGrad: the gradient, averaged over noisy copies of the picture."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from whence.methods.combinators.noise import noise
from whence.methods.combinators.running import Variant
from whence.methods.gradient import gradient
from whence.models.session import Session
from whence.models.targets import TargetSpec
from whence.registry import method
from whence.results import Answer, Passes


@method(
    "smoothgrad",
    title="SmoothGrad",
    family="propagation",
    paper="arXiv:1706.03825",
    needs="gradients",
    reduce="abs-max",
    show="positive",
    cost=lambda options, model: Passes(forward=1 + options["samples"], backward=options["samples"]),
)
def smoothgrad(
    model: Session,
    x: Float[Tensor, "b *shape"],
    target: Sequence[TargetSpec],
    *,
    samples: int = 50,
    sigma: int | float = 0.15,
    variant: Variant = "mean",
    seed: int = 0,
) -> Answer:
    """Gradient, averaged over noisy copies of the picture.

    Smilkov et al. 2017, section 3: the mean of dS/dx at x + N(0, s^2), where s is ``sigma`` times the range
    (max - min) of the picture's own values. ``square`` is SmoothGrad-squared (Hooker et al. 2019), ``variance``
    VarGrad (Adebayo et al. 2018), with divisor n.
    """
    return noise(gradient, model, x, target, samples=samples, sigma=sigma, variant=variant, seed=seed)
