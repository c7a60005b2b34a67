"""Two processes that share a batch find what one finds on the whole of it."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from whence.interpretable import LOSSES, Categories, Interpretable, Strength, filter_loss, interpretable

B, K, C = 6, 4, 3
LABELS = torch.tensor([0, 0, 1, 0, 1, 0])  # in halves class 1 is on both sides, class 2 nowhere


def maps() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(B, K, 3, 5, generator=generator, dtype=torch.float64).clamp(min=0)


def options(name: str) -> dict[str, bool]:
    return {"flip": False} if name == "matlab" else {}


def losses(x: Tensor, labels: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Return each loss and its gradient; filter k is of class k mod 3, that of class 2 without a picture."""
    positive = labels[:, None] == torch.arange(K) % C
    found = {}
    for name in LOSSES:
        leaf = x.clone().requires_grad_()
        loss = filter_loss(name, leaf, positive, **options(name))
        found[name] = loss.detach(), torch.autograd.grad(loss.sum(), leaf)[0]
    return found


def categories(x: Tensor, labels: Tensor) -> dict[str, Tensor]:
    found = Categories(C, K).double()
    found.update(x, labels)
    found.update(x.flip(1) * 2, labels)
    return {**found.state_dict(), "assigned": found.assigned()}


def net() -> Interpretable:
    generator = torch.Generator().manual_seed(1)
    model = nn.Sequential(
        nn.Conv2d(1, K, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(K, C)
    ).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return interpretable(model, torch.zeros(1, 1, 4, 4), "1", classes=C, added=True)


def training(wrapper: Interpretable, called: nn.Module, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Return the strength and all gradients after one step of a training."""
    with wrapper.recording() as raw:
        logits = called(x)
    task = nn.functional.cross_entropy(logits, labels)
    filters = filter_loss("mutual-information", raw[0]).sum()
    strength = Strength().after(task, filters, raw[0])
    (task + strength.weight * filters).backward()
    found = {name: p.grad.clone() for name, p in wrapper.named_parameters()}
    return {**found, "strength": torch.tensor(strength.weight, dtype=torch.float64)}


def pictures() -> Tensor:
    return torch.randn(B, 1, 4, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def on_rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    half, uneven = slice(3 * rank, 3 * rank + 3), slice(0, 4) if rank == 0 else slice(4, 6)
    wrapper = net()
    called = nn.parallel.DistributedDataParallel(wrapper)
    found = {
        "losses": losses(maps()[half], LABELS[half]),
        "uneven": losses(maps()[uneven], LABELS[uneven])["mutual-information"],
        "categories": categories(maps()[uneven], LABELS[uneven]),
        "training": training(wrapper, called, pictures()[half], LABELS[half]),
        "keys": {key.removeprefix("module.") for key in called.state_dict()} ^ set(wrapper.state_dict()),
    }
    called.load_state_dict(called.state_dict(), strict=True)
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    if not dist.is_available():
        pytest.skip("this torch knows no processes")
    folder: Path = tmp_path_factory.mktemp("ranks")
    mp.spawn(on_rank, (str(folder),), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2)]


@pytest.mark.parametrize("name", LOSSES)
def test_losses_and_their_gradients(ranks: list[dict], name: str) -> None:
    """Each process finds the gradient of the sum over both, which DistributedDataParallel halves again."""
    loss, gradient = losses(maps(), LABELS)[name]
    both = torch.cat([rank["losses"][name][1] for rank in ranks]) / 2
    torch.testing.assert_close(both, gradient, rtol=0, atol=1e-10)
    torch.testing.assert_close(sum(rank["losses"][name][0] for rank in ranks) / 2, loss, rtol=0, atol=1e-10)
    assert float(gradient.abs().max()) > 1e-5


def test_the_exact_information_over_uneven_parts(ranks: list[dict]) -> None:
    loss, gradient = losses(maps(), LABELS)["mutual-information"]
    for rank in ranks:
        torch.testing.assert_close(rank["uneven"][0], loss, rtol=0, atol=1e-10)
    both = torch.cat([rank["uneven"][1] for rank in ranks]) / 2
    torch.testing.assert_close(both, gradient, rtol=0, atol=1e-10)


def test_categories(ranks: list[dict]) -> None:
    whole = categories(maps(), LABELS)
    for rank in ranks:
        for key, value in whole.items():
            torch.testing.assert_close(rank["categories"][key], value, rtol=0, atol=1e-12)
    assert all(torch.equal(value, ranks[1]["categories"][key]) for key, value in ranks[0]["categories"].items())


def test_a_step_of_a_training(ranks: list[dict]) -> None:
    wrapper = net()
    whole = training(wrapper, wrapper, pictures(), LABELS)
    assert float(whole["strength"]) > 0
    for rank in ranks:
        assert not rank["keys"]
        for key, value in whole.items():
            torch.testing.assert_close(rank["training"][key], value, rtol=0, atol=1e-10)
