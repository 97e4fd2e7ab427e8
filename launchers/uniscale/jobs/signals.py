"""Signals for a loop that supervises: each wakes it, and the ending ones are told to it."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from types import FrameType


@contextmanager
def ending(end: Callable[[int], None]) -> Iterator[int]:
    """Call ``end`` for SIGINT, SIGTERM and SIGHUP; yields what becomes readable at each signal.

    A child's death (SIGCHLD) wakes too. An ignored signal (nohup) stays ignored.
    """

    def told(number: int, _frame: FrameType | None) -> None:
        end(number)

    def wake(_number: int, _frame: FrameType | None) -> None:
        """Nothing: that the signal came is what wakes the loop."""

    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    os.set_blocking(reader, False)
    handlers: Mapping[int, Callable[[int, FrameType | None], None]] = {
        signal.SIGINT: told, signal.SIGTERM: told, signal.SIGHUP: told, signal.SIGCHLD: wake,
    }  # fmt: skip
    taken = {
        number: signal.signal(number, handler)
        for number, handler in handlers.items()
        if signal.getsignal(number) is not signal.SIG_IGN or number == signal.SIGCHLD
    }
    old = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    try:
        yield reader
    finally:
        signal.set_wakeup_fd(old)
        # The next Ctrl-C ends the wait for what does not stop.
        for number, handler in taken.items():
            signal.signal(number, handler)
        os.close(writer)
        os.close(reader)


def wait(wakeup: int | None, patience: float, others: tuple[int, ...] = ()) -> list[int]:
    """Wait for a signal, for one of ``others`` to be readable, or ``patience`` seconds.

    Gives those of ``others`` that are readable.
    """
    watched = others if wakeup is None else (wakeup, *others)
    readable, _, _ = select.select(watched, [], [], patience)
    if wakeup is not None and wakeup in readable:
        with suppress(BlockingIOError):
            os.read(wakeup, 4096)
    return [number for number in readable if number != wakeup]
