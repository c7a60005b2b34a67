"""Memory that a pass gives back is kept for the next one, while a model is in use.

The C library of Linux returns the end of its heap to the system whenever more than 64 MiB of it are free, as they are
after every pass, so that the next pass waits for the same pages again: for a tenth of the time, on rented machines.
"""

import ctypes
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from threading import Lock

Set = Callable[[int, int], int]

# The names by which glibc knows its settings, see mallopt(3).
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
# What it comes to by itself in a process that has given back a block of 32 MiB, and more than which it never takes.
_OWN_TRIM, _OWN_MMAP = 64 << 20, 32 << 20
_NEVER = 2**31 - 1


@cache
def _mallopt() -> Set | None:
    """Return what sets them; None where there is no such library, or the user has set them."""
    stated = any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ)
    if sys.platform != "linux" or stated:
        return None
    return getattr(ctypes.CDLL(None), "mallopt", None)


class _Users:
    """How many blocks keep memory just now, in all threads."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Know of none: also in a child, which may have been made while a thread that it lacks held the lock."""
        self.count, self.lock = 0, Lock()

    def add(self, change: int, mallopt: Set) -> None:
        """Set the heap for the first, and back after the last."""
        with self.lock:
            before, self.count = self.count, self.count + change
            if not before:
                mallopt(_MMAP_THRESHOLD, _OWN_MMAP)
                mallopt(_TRIM_THRESHOLD, _NEVER)
            elif not self.count:
                mallopt(_TRIM_THRESHOLD, _OWN_TRIM)


_USERS = _Users()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_USERS.begin)


@contextmanager
def kept() -> Iterator[None]:
    """Keep the heap's free end inside the block; what is free is returned with the first large block after it."""
    mallopt = _mallopt()
    if mallopt is None:
        yield
        return
    _USERS.add(1, mallopt)
    try:
        yield
    finally:
        _USERS.add(-1, mallopt)
