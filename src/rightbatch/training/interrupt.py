"""Ctrl-C is heard between two updates."""

import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

_heard: list[threading.Event] = []


def is_interrupt_pending() -> bool:
    """Return whether Ctrl-C was pressed and the update under way has yet to end.

    For whoever waits in that update for what may never come.
    """
    return any(asked.is_set() for asked in _heard)


@contextmanager
def patient_interrupt() -> Generator[threading.Event]:
    """Let the update under way end before Ctrl-C is heard; a second one is heard now.

    Half an update is a state nobody could go on from. Outside of the main thread,
    which alone hears signals, nothing is changed.

    Yields:
        Set once Ctrl-C was pressed.

    Example:
        >>> with patient_interrupt() as interrupted:
        ...     signal.raise_signal(signal.SIGINT)
        ...     interrupted.is_set(), is_interrupt_pending()
        (True, True)
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def note(number: int, frame: Any) -> None:
        if asked.is_set():
            signal.default_int_handler(number, frame)
        asked.set()

    before = signal.signal(signal.SIGINT, note)
    _heard.append(asked)
    try:
        yield asked
    finally:
        _heard.remove(asked)
        signal.signal(signal.SIGINT, before)
