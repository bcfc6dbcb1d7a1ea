"""Ctrl-C is heard between two updates."""

import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any


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
        ...     interrupted.is_set()
        True
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
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)
