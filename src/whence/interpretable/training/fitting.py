"""The loop: batches in, weights out; in one process or several, at any precision, taken up again where it ended."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from whence.errors import OptionError
from whence.interpretable.labelled import Labelled
from whence.interpretable.training.batches import Batches, Share, augmented, generator
from whence.interpretable.training.checkpoints import Checkpoint
from whence.interpretable.training.objectives import Objective
from whence.interpretable.training.plan import Plan
from whence.models.extras import library
from whence.models.outputs import logits_of
from whence.models.random import undisturbed

# What is being done, how much of it is done, and how much there is.
Progress = Callable[[str, int, int], None]
# What is to be said of an epoch: called with its number, after it.
Epoch = Callable[[int], dict[str, Any]]

_MIXED = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}


def accelerator(plan: Plan) -> Any:  # noqa: ANN401  (a library without types)
    """Return what runs the plan: this process's device, its precision, and the processes that share its batches.

    Raises
    ------
    MissingExtraError
        accelerate is not installed.
    OptionError
        There is no such device here.
    """
    accelerate = library("accelerate", "training")
    # One for each training: it would keep the precision of the last one otherwise.
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
    try:
        made = accelerate.Accelerator(cpu=plan.device == "cpu", mixed_precision=_MIXED[plan.precision])
    except (ValueError, RuntimeError) as error:
        raise OptionError(f"precision={plan.precision!r} on {plan.device}: {error}") from error
    if made.device.type != plan.device:
        raise OptionError(f"device={plan.device!r}: there is none here, give {made.device.type!r}")
    return made


@dataclass(frozen=True)
class Running:
    """One training as it runs: what a checkpoint holds, but for its place."""

    net: nn.Module
    optimiser: Any
    schedule: Any
    objective: Objective
    scaler: Any = None

    def state(self) -> dict[str, Any]:
        """Return all that the next step depends on."""
        return {name: part.state_dict() for name, part in vars(self).items() if part is not None}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        for name, part in vars(self).items():
            if part is not None:
                part.load_state_dict(state[name])


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
    machine with one number of threads.

    Raises
    ------
    OptionError
        The device or the precision cannot be had, or a batch cannot be shared equally.
    OutputError
        The checkpoint is of another training.
    """
    run = accelerator(plan)
    share = Share(run.process_index, run.num_processes)
    stage, tell = progress or ("", lambda *_: None)
    with _trainable(net, plan), undisturbed(plan.seed):
        steps = plan.steps(len(data))
        optimiser = torch.optim.AdamW(
            [p for p in net.parameters() if p.requires_grad], lr=plan.rate, weight_decay=plan.decay
        )
        module, optimiser = run.prepare(net.to(run.device), optimiser)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser.optimizer, plan.rate, total_steps=max(2, plan.epochs * steps), pct_start=plan.warm_up
        )
        running = Running(net, optimiser.optimizer, schedule, objective, run.scaler)
        saved = checkpoint.read() if checkpoint else None
        done, course = (saved["step"], saved["course"]) if saved else (0, [])
        if saved:
            running.restore(saved["running"])
        batches = Batches(plan, len(data), share, done)
        for step, (x, labels) in enumerate(loader(data, plan, batch_sampler=batches), done):
            draw_from(run.device, plan.seed, step, share.rank)
            inputs = x.to(run.device, memory_format=torch.channels_last)
            if plan.augment:
                inputs = augmented(inputs, plan, step, share)
            with run.autocast():
                loss = objective(module, inputs.to(_float_type(net)), labels.to(run.device))
            optimiser.zero_grad()
            run.backward(loss)
            optimiser.step()
            if not optimiser.step_was_skipped:
                schedule.step()
            tell(stage, step + 1, plan.epochs * steps)
            ended = (step + 1) % steps == 0
            if ended:
                course.append({"epoch": (step + 1) // steps, **objective.course(), **(epoch or _silent)(step)})
            if checkpoint and run.is_main_process and (ended or checkpoint.due()):
                checkpoint.write({"step": step + 1, "course": course, "running": running.state()})
        run.unwrap_model(module, keep_fp32_wrapper=False)
        run.wait_for_everyone()
    return course


def loader(data: Labelled, plan: Plan, **how: Any) -> DataLoader[Any]:  # noqa: ANN401
    """Return what reads the data in batches; the global generator is left alone."""
    return DataLoader(data, num_workers=plan.workers, generator=torch.Generator(), **how)


def draw_from(device: torch.device, *at: int) -> None:
    """Let what the net draws by itself, as dropout does, depend on the place in the training alone."""
    torch.set_rng_state(generator(*at).get_state())
    if device.type == "cuda":
        torch.cuda.set_rng_state(generator(*at, device=device).get_state(), device)


def _silent(_: int) -> dict[str, Any]:
    return {}


def _float_type(net: nn.Module) -> torch.dtype:
    return next(p.dtype for p in net.parameters() if p.is_floating_point())


@contextmanager
def _trainable(net: nn.Module, plan: Plan) -> Iterator[None]:
    """Put the net into training mode inside, but for what the plan keeps as it is."""
    still = [module for path in plan.frozen for module in net.get_submodule(path).modules()]
    fixed = [parameter for path in plan.frozen for parameter in net.get_submodule(path).parameters()]
    if plan.frozen_statistics:
        still += [module for module in net.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    learning = [parameter for parameter in fixed if parameter.requires_grad]
    net.train().to(memory_format=torch.channels_last)
    for module in still:
        module.training = False
    for parameter in learning:
        parameter.requires_grad = False
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad = True
        net.to(memory_format=torch.contiguous_format).train(False)


@torch.no_grad()
def accuracy(net: nn.Module, data: Labelled, plan: Plan) -> float:
    """Return the share of pictures whose class the net gives, in evaluation mode; it is put back afterwards."""
    modes = {module: module.training for module in net.modules()}
    right = 0
    try:
        net.train(False)
        like = next(net.parameters())
        for x, labels in loader(data, plan, batch_size=max(plan.batch, 64)):
            right += int((guessed(net(x.to(like))) == labels.to(like.device)).sum())
    finally:
        for module, training in modes.items():
            module.training = training
    return right / len(data)


def guessed(output: Any) -> Tensor:  # noqa: ANN401  (models return anything)
    """Return the class of the highest logit; of a single one, whether it is above zero."""
    logits = logits_of(output)
    return (logits[:, 0] > 0).long() if logits.shape[1] == 1 else logits.argmax(1)
