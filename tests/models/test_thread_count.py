"""How many threads torch uses inside a block, and that it uses as many as before afterwards."""

import pytest
import torch

from whence.models.threads import threads


@pytest.fixture(autouse=True)
def three():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("count", "inside"), [(1, 1), (2, 2), (None, 3)])
def test_so_many_are_used_inside_and_as_many_as_before_afterwards(count, inside):
    with threads(count):
        assert torch.get_num_threads() == inside
    assert torch.get_num_threads() == 3


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_puts_them_back_too(error):
    def stopped():
        with threads(1):
            raise error

    with pytest.raises(error):
        stopped()
    assert torch.get_num_threads() == 3


def test_one_block_stands_in_another():
    with threads(2):
        with threads(1):
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
