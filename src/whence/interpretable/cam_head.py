"""A head for CAM, fitted to a model that stays as it is."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor
from torch.utils.data import DataLoader

from whence.errors import ModelError
from whence.interpretable.labelled import Labelled, Progress
from whence.models.cam_head import CamHead
from whence.models.classifier import Classifier
from whence.models.session import Session, move, opened
from whence.models.wrapped import Wrapped, refuse_keys

_BATCH = 64
# The squared weights count so much beside the mean loss of a picture: enough for a minimum where classes are apart.
_DECAY = 1e-4
_SAME = 1e-6
# Rounds of so many steps, until no derivative of the loss is larger.
_ROUNDS, _STEPS, _FLAT = 100, 50, 1e-9


@dataclass(frozen=True, eq=False)
class Fitted:
    """A model with its head for CAM, and what the head costs.

    Attributes
    ----------
    module
        The model with the new head; the model in it is the one that was given.
    before, after
        Shares of the held-out pictures that the model's own head and the new one know. ``before`` is None where the
        model's labels are not the classes of the pictures.
    """

    module: CamHead
    before: float | None
    after: float

    @property
    def change(self) -> float | None:
        """How much more of the pictures the new head knows; negative where it costs something."""
        return None if self.before is None else self.after - self.before


def cam_head(
    classifier: Classifier,
    train: Labelled,
    held_out: Labelled,
    layer: str | None = None,
    *,
    progress: Progress | None = None,
) -> Fitted:
    """Put the mean of each map of a layer, and one linear layer that is fitted here, in the place of what follows it.

    The model itself does not change. Each picture goes through it once, to the layer; the linear layer is then the
    multinomial logistic regression on the means. That is a convex problem: the answer depends on the pictures alone.

    Parameters
    ----------
    layer
        As ``whence layers`` lists them; None takes the one that would be explained.

    Raises
    ------
    LayerError
        The layer does not exist, or has no map of more than one place.
    ModelError
        The model has a wrapper already, or cannot take the inputs.
    NotFiniteError
        The layer returns NaN or infinity.
    """
    _refuse_wrapped(classifier)
    report = progress or (lambda stage, done, total: None)
    named = _with_head(classifier, train, layer)
    with opened(Classifier(named)) as session:
        means, labels = _means(session, train, report)
        weight, bias = regression(means.double(), labels, len(train.classes))
        # On the module itself, of which a session may use a copy.
        with torch.no_grad():
            named.cam_head.weight.copy_(weight)
            named.cam_head.bias.copy_(bias)
        means, labels = _means(session, held_out, report)
        after = _share(named.cam_head(means).argmax(1) == labels)
    return Fitted(named, _own_accuracy(classifier, held_out, report), after)


def _refuse_wrapped(classifier: Classifier) -> None:
    if isinstance(classifier.module, Wrapped):
        table = classifier.module.form.table
        raise ModelError(
            f"{classifier.name} has a part [{table}], and takes no CAM head beside it: give its plain model"
        )
    refuse_keys(classifier.module, CamHead.ours)


def _with_head(classifier: Classifier, train: Labelled, layer: str | None) -> CamHead:
    """Return the model with a head that is zero, as wide as the layer."""
    with opened(classifier) as session:
        x = move(classifier, train[0][0][None])
        (name,) = session.layers(layer, x)
        activation = session.record(x, [name]).activations[name]
        filters = session.layout(name, activation, x).channels(activation.shape)
    made = CamHead(classifier.module, name, filters, len(train.classes))
    made.cam_head.to(activation)
    return made


def _batches(data: Labelled, stage: str, report: Progress) -> Iterator[tuple[Tensor, Tensor]]:
    # A generator of its own: without one a loader draws from the global one.
    done = 0
    for x, labels in DataLoader(data, batch_size=_BATCH, generator=torch.Generator()):
        yield x, labels
        done += len(labels)
        report(stage, done, len(data))


def _means(session: Session, data: Labelled, report: Progress) -> tuple[Float[Tensor, "n k"], Int[Tensor, " n"]]:
    """Return the mean of each map of each picture, and the classes."""
    module = session.module
    assert isinstance(module, CamHead)
    means, labels = [], []
    for x, own in _batches(data, "pooling", report):
        pooled = module.pooled(move(session.classifier, x))
        session.finite(pooled, "the mean of a map")
        means.append(pooled)
        labels.append(own.to(pooled.device))
    return torch.cat(means), torch.cat(labels)


def _own_accuracy(classifier: Classifier, data: Labelled, report: Progress) -> float | None:
    """Return the share of pictures that the model's own head knows, None where it has other classes."""
    if classifier.labels is None or sorted(classifier.labels) != sorted(data.classes):
        return None
    place = torch.tensor([data.classes.index(label) for label in classifier.labels])
    right = []
    with opened(classifier) as session:
        for x, labels in _batches(data, "comparing", report):
            logits = session.logits(session.run(move(classifier, x)))
            session.finite(logits, "what the model says")
            right.append(place[logits.argmax(1).cpu()] == labels)
    return _share(torch.cat(right))


def _share(right: Tensor) -> float:
    return float(right.double().mean())


def regression(
    x: Float64[Tensor, "n k"], labels: Int[Tensor, " n"], classes: int
) -> tuple[Float64[Tensor, "c k"], Float64[Tensor, " c"]]:
    """Return weights W and bias b of softmax(W x + b), by multinomial logistic regression.

    The minimum of mean(-log p(label)) + decay / 2 |V|^2, with V the weights on x brought to mean 0 and variance 1,
    so that the penalty does not depend on the layer's scale; the biases sum to 0. Full-batch L-BFGS in float64.
    """
    mean, std = x.mean(0), x.std(0, correction=0)
    # A map that is always the same, but for rounding, tells nothing: its weight stays next to 0.
    std = torch.where(std > _SAME * x.abs().amax(0), std, 1)
    z = torch.cat(((x - mean) / std, torch.ones_like(x[:, :1])), 1)
    v = z.new_zeros(classes, z.shape[1])
    for _ in range(_ROUNDS):
        v = _lower(z, labels, v)
        if float(loss(z, labels, v)[1].abs().max()) < _FLAT:
            break
    weight = v[:, :-1] / std
    bias = v[:, -1] - weight @ mean
    return weight, bias - bias.mean()


def _lower(z: Float64[Tensor, "n k"], labels: Int[Tensor, " n"], v: Float64[Tensor, "c k"]) -> Float64[Tensor, "c k"]:
    """Return weights of a lower loss, by L-BFGS in coordinates in which the loss bends about alike in all directions.

    Where maps are like each other, or classes are far apart, it would take thousands of steps without these.
    """
    p = (z @ v.T).softmax(1)
    bend = (p * (1 - p)).mean(1)
    hessian = (z * bend[:, None]).T @ z / len(z) + _DECAY * torch.eye(z.shape[1]).to(z)
    root = torch.linalg.cholesky(hessian)
    theta, back = v @ root, torch.linalg.inv(root)
    optimiser = torch.optim.LBFGS(
        [theta], max_iter=_STEPS, tolerance_grad=0, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure() -> float:
        value, gradient = loss(z, labels, theta @ back)
        theta.grad = gradient @ back.T
        return float(value)

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    lowered: Tensor = theta @ back
    return lowered


def loss(
    z: Float64[Tensor, "n k"], labels: Int[Tensor, " n"], v: Float64[Tensor, "c k"]
) -> tuple[Float64[Tensor, ""], Float64[Tensor, "c k"]]:
    """Return the penalised mean loss of softmax(V z), and its gradient; the last of z is 1, and has no penalty."""
    log_p = (z @ v.T).log_softmax(1)
    rows = torch.arange(len(z), device=z.device)
    penalised = torch.cat((v[:, :-1], torch.zeros_like(v[:, -1:])), 1)
    value = -log_p[rows, labels].mean() + _DECAY / 2 * penalised.square().sum()
    error = log_p.exp()
    error[rows, labels] -= 1
    return value, error.T @ z / len(z) + _DECAY * penalised
