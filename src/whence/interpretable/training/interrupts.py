"""Ctrl-C in a training: held back until a step is whole."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def held_back() -> Iterator[Callable[[], bool]]:
    """Give what says whether Ctrl-C was pressed inside the block; pressed twice it ends at once what runs.

    Where nobody asked, it is raised at the block's end. Outside the main thread, and where somebody else handles
    Ctrl-C, nothing is held back.
    """
    pressed: list[int] = []

    def hold(number: int, _: Any) -> None:  # noqa: ANN401  (a frame)
        pressed.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield lambda: False
        return
    signal.signal(signal.SIGINT, hold)
    try:
        yield lambda: bool(pressed)
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if pressed:
        raise KeyboardInterrupt


def ignored(_: int) -> None:
    """Leave Ctrl-C to the process that started this one, a reader of pictures."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
