"""The loop: batches in, weights out; in one process or several, at any precision, taken up again where it ended."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.data import DataLoader

from whence.errors import NotFiniteError, OptionError, nearest
from whence.interpretable.labelled import Labelled, Progress
from whence.interpretable.training.batches import Batches, Share, augmented, generator
from whence.interpretable.training.checkpoints import Checkpoint
from whence.interpretable.training.interrupts import held_back, ignored
from whence.interpretable.training.objectives import Objective
from whence.interpretable.training.plan import Plan
from whence.models.extras import library
from whence.models.masked import ranks
from whence.models.outputs import logits_of
from whence.models.wrapped import Wrapped

# What is to be said of an epoch: called with its number, from 1 on, after it.
Epoch = Callable[[int], dict[str, Any]]

_BatchNorm = nn.modules.batchnorm._BatchNorm


@contextmanager
def accelerator(plan: Plan) -> Iterator[Any]:
    """Give what runs the plan: this process's device, and the processes that share its batches.

    Raises
    ------
    MissingExtraError
        accelerate is not installed.
    OptionError
        There is no such device here.
    """
    accelerate = library("accelerate", "training")
    shared = [
        getattr(accelerate.state, f"{name}State")._shared_state for name in ("Accelerator", "Partial", "Gradient")
    ]
    before = [dict(state) for state in shared]
    # One for each training: it would keep the device of the last one otherwise.
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
    try:
        made = accelerate.Accelerator(cpu=plan.device == "cpu", mixed_precision="no")
        if made.device.type != plan.device:
            raise OptionError(f"device={plan.device!r}: there is none here, give {made.device.type!r}")
        yield made
    finally:
        # What the user's own use of the library has set.
        for state, kept in zip(shared, before, strict=True):
            state.clear()
            state.update(kept)


@dataclass
class _Training:
    """One training as it runs; ``module`` is the net, or what shares its batches among processes."""

    net: nn.Module
    module: nn.Module
    plan: Plan
    objective: Objective
    device: torch.device
    share: Share
    steps: int
    checkpoint: Checkpoint | None
    done: int = 0
    course: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Make what the weights are changed by, and go on from the checkpoint where there is one."""
        plan, halved = self.plan, self.plan.precision == "float16"
        learning = [p for p in self.net.parameters() if p.requires_grad]
        self.optimiser = torch.optim.AdamW(learning, lr=plan.rate, weight_decay=plan.decay)
        total = max(2, self.steps)
        # A rise of one step exactly is a division by zero in torch.
        rise = plan.warm_up + 1e-6 if plan.warm_up * total == 1 else plan.warm_up
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimiser, plan.rate, total_steps=total, pct_start=rise
        )
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=halved)
        saved = self.checkpoint.read() if self.checkpoint else None
        if saved:
            self.done, self.course = saved["step"], saved["course"]
            for name, part in self._parts().items():
                part.load_state_dict(saved["running"][name])

    def _parts(self) -> dict[str, Any]:
        """Return all that the next step depends on, but for its number."""
        names = ("net", "optimiser", "schedule", "scaler", "objective")
        return {name: getattr(self, name) for name in names}

    def write(self) -> None:
        """Write the checkpoint, if there is to be one, and if this process is the one that writes."""
        if self.checkpoint and self.share.rank == 0:
            running = {name: part.state_dict() for name, part in self._parts().items()}
            self.checkpoint.write({"step": self.done, "course": self.course, "running": running})

    def step(self, x: Tensor, labels: Tensor) -> None:
        """Change the weights by one batch."""
        draw_from(self.device, self.plan.seed, 2, self.done, self.share.rank)
        inputs = x.to(self.device, memory_format=torch.channels_last)
        if self.plan.augment:
            inputs = augmented(inputs, self.plan, self.done, self.share)
        precision = getattr(torch, self.plan.precision)
        self.optimiser.zero_grad()
        with torch.autocast(self.device.type, precision, enabled=precision != torch.float32):
            loss = self.objective(self.module, inputs.to(_float_type(self.net)), labels.to(self.device))
        # Of all processes, so that all end where one must.
        check_finite(ranks.summed(loss.detach()), "the loss")
        torch.autograd.backward(self.scaler.scale(loss))
        before = self.scaler.get_scale()
        self.scaler.step(self.optimiser)
        self.scaler.update()
        # Where gradients overflowed nothing was learnt.
        if self.scaler.get_scale() >= before:
            self.schedule.step()
        self.done += 1


def fit(
    net: nn.Module,
    data: Labelled,
    plan: Plan,
    objective: Objective,
    *,
    checkpoint: Checkpoint | None = None,
    epoch: Epoch | None = None,
    progress: tuple[str, Progress] | None = None,
) -> list[dict[str, Any]]:
    """Train the net in place, and return what ``epoch`` and the objective said of each epoch.

    Where there is a checkpoint the training goes on from it, with the same weights in the end, to the bit on one
    machine with one number of threads. Ctrl-C, and whatever ``progress`` raises, leave one.

    In several processes each batch norm takes its statistics of this process's part of a batch, and what it keeps of
    them is the first process's: with ``frozen_statistics`` the processes do what one would.

    Raises
    ------
    OptionError
        There is no such device here, or a batch cannot be shared equally.
    OutputError
        The checkpoint is of another training.
    ModelError
        It is damaged.
    NotFiniteError
        The loss is NaN or infinite.
    """
    stage, tell = progress or ("", lambda *_: None)
    each = plan.steps(len(data))
    with (
        accelerator(plan) as run,
        _trainable(net, plan),
        torch.random.fork_rng([run.device] if run.device.type == "cuda" else []),
        _prepared(run, net) as module,
        held_back() as interrupted,
    ):
        share = Share(run.process_index, run.num_processes)
        share.rows(plan.pictures(len(data)))
        _warn_of_statistics(net, share)
        at = _Training(net, module, plan, objective, run.device, share, plan.epochs * each, checkpoint)
        batches = Batches(plan, len(data), share, at.done)
        for x, labels in loader(data, plan, batch_sampler=batches):
            at.step(x, labels)
            if ended := at.done % each == 0:
                number = at.done // each
                at.course.append({"epoch": number, **objective.course(), **(epoch(number) if epoch else {})})
            if ended or interrupted() or (checkpoint and checkpoint.due()):
                at.write()
            if interrupted():
                raise KeyboardInterrupt
            try:
                tell(stage, at.done, at.steps)
            except BaseException:
                at.write()
                raise
        for name, parameter in net.named_parameters():
            check_finite(parameter, f"parameter {name!r}")
        run.wait_for_everyone()
    return at.course


def check_finite(tensor: Tensor, what: str) -> None:
    """Refuse to go on with NaN or infinity.

    Raises
    ------
    NotFiniteError
        Naming what holds it.
    """
    if not bool(tensor.detach().isfinite().all()):
        raise NotFiniteError(
            f"in the training {what} has become NaN or infinite: give a lower learning rate or a weaker filter loss, "
            "in a new folder"
        )


def loader(data: Labelled, plan: Plan, **how: Any) -> DataLoader[Any]:  # noqa: ANN401
    """Return what reads the data in batches; the global generator is left alone."""
    return DataLoader(data, num_workers=plan.workers, generator=torch.Generator(), worker_init_fn=ignored, **how)


def draw_from(device: torch.device, *at: int) -> None:
    """Let what the net draws by itself, as dropout does, depend on the place in the training alone."""
    torch.set_rng_state(generator(*at).get_state())
    if device.type == "cuda":
        torch.cuda.set_rng_state(generator(*at, device=device).get_state(), device)


@contextmanager
def _prepared(run: Any, net: nn.Module) -> Iterator[nn.Module]:  # noqa: ANN401
    """Give what shares the net's batches among the processes; what accelerate leaves on the net goes again."""
    before = set(vars(net))
    try:
        yield run.prepare_model(net)
    finally:
        for name in set(vars(net)) - before:
            delattr(net, name)


def _float_type(net: nn.Module) -> torch.dtype:
    return next(p.dtype for p in net.parameters() if p.is_floating_point())


def _warn_of_statistics(net: nn.Module, share: Share) -> None:
    if (
        share.processes > 1
        and share.rank == 0
        and any(isinstance(m, _BatchNorm) and m.training for m in net.modules())
    ):
        warnings.warn(
            f"batch norms take their statistics of each process's part of a batch, one of {share.processes}: freeze "
            "them to train as one process would",
            stacklevel=3,
        )


@contextmanager
def _trainable(net: nn.Module, plan: Plan) -> Iterator[None]:
    """Put the net into training mode inside, but for what the plan keeps as it is; afterwards all is as it was."""
    last = any(_is_channels_last(p) for p in net.parameters())
    kept = frozen_modules(net, plan)
    still = [module for one in kept for module in one.modules()]
    fixed = [parameter for one in kept for parameter in one.parameters()]
    if plan.frozen_statistics:
        still += [module for module in net.modules() if isinstance(module, _BatchNorm)]
    learning = [parameter for parameter in fixed if parameter.requires_grad]
    with _modes_kept(net):
        net.train().to(memory_format=torch.channels_last)
        for module in still:
            module.training = False
        for parameter in learning:
            parameter.requires_grad = False
        try:
            yield
        finally:
            net.zero_grad()
            for parameter in learning:
                parameter.requires_grad = True
            net.to(memory_format=torch.channels_last if last else torch.contiguous_format)


@contextmanager
def _modes_kept(net: nn.Module) -> Iterator[None]:
    """Put every module back into the mode that it was in."""
    modes = {module: module.training for module in net.modules()}
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def frozen_modules(net: nn.Module, plan: Plan) -> list[nn.Module]:
    """Return the submodules that the plan keeps as they are, by their paths in the net without a wrapper.

    Raises
    ------
    OptionError
        There is no such submodule.
    """
    plain = net.plain() if isinstance(net, Wrapped) else net
    paths = dict(plain.named_modules())
    for path in plan.frozen:
        if path not in paths:
            raise OptionError(f"frozen={path!r}: the model has no such submodule, {nearest(path, paths)}")
    return [paths[path] for path in plan.frozen]


def _is_channels_last(p: Tensor) -> bool:
    return p.ndim == 4 and not p.is_contiguous() and p.is_contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def accuracy(net: nn.Module, data: Labelled, plan: Plan) -> float:
    """Return the share of pictures whose class the net gives, in evaluation mode; it is put back afterwards."""
    right = 0
    with _modes_kept(net):
        net.train(False)
        like = next(net.parameters())
        for x, labels in loader(data, plan, batch_size=max(plan.batch, 64)):
            logits = logits_of(net(x.to(like)))
            check_finite(logits, "what the net says")
            right += int((guessed(logits) == labels.to(like.device)).sum())
    return right / len(data)


def guessed(logits: Float[Tensor, "b k"]) -> Int[Tensor, " b"]:
    """Return the class of the highest logit; of a single one, whether it is above zero."""
    return (logits[:, 0] > 0).long() if logits.shape[1] == 1 else logits.argmax(1)
