"""Ctrl-C and termination: a run that trains ends where it can be left, its checkpoint written."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType

from xpnet.network.network import Network
from xpnet.training.callbacks import Callback
from xpnet.training.checkpoint import save_checkpoint
from xpnet.training.records import Moment


class Terminated(BaseException):
    """A signal other than Ctrl-C arrived that ends the process."""


class Interruption(Callback):
    """Keeps a signal until the run can be left, then writes a checkpoint to `path` and raises.

    It raises KeyboardInterrupt or Terminated. A second signal, or one while nothing is trained, raises at once.
    """

    only_watches = True

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = path
        self._trains, self._asked = False, False
        self._error: type[BaseException] = Terminated

    def listening(self) -> AbstractContextManager[None]:
        """Handle the signals meanwhile."""
        return handled_by(self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._error = KeyboardInterrupt if number == signal.SIGINT else Terminated
        if self._asked or not self._trains:
            raise self._error
        self._asked = True

    def on_train_begin(self, network: Network, n_epochs: int, n_steps: int) -> None:
        self._trains = True

    def on_pause(self, moment: Callable[[], Moment]) -> None:
        if self._asked:
            self._trains = False
            save_checkpoint(self.path, moment())
            raise self._error

    def on_train_end(self, network: Network) -> None:
        was_training, self._trains = self._trains, False
        if was_training and self._asked:  # too late for the last pause
            raise self._error


@contextmanager
def handled_by(receive: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Handle the signals that end a process meanwhile; ignored ones stay ignored, except SIGTERM.

    Python hands signals to the main thread alone: in another one nothing is done.
    """
    handlers = {number: signal.getsignal(number) for number in _signals()}
    for number, handler in handlers.items():
        if number == signal.SIGTERM or handler not in (signal.SIG_IGN, None):
            signal.signal(number, receive)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


@contextmanager
def signals_ignored() -> Iterator[None]:
    """Ignore signals while something must be written."""
    handlers = {number: signal.signal(number, signal.SIG_IGN) for number in _signals()}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _signals() -> list[signal.Signals]:
    """Return the signals of Ctrl-C, termination, and a closing terminal or connection: SIGHUP, on Windows SIGBREAK.

    None in a thread beside the main one, which may not handle any.
    """
    if threading.current_thread() is not threading.main_thread():
        return []
    names = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
    return [getattr(signal, name) for name in names if hasattr(signal, name)]
