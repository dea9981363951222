"""When a search ends before its last trial: at its time limit, or at a signal, which lets the best so far be saved."""

from __future__ import annotations

import signal
import time
from contextlib import AbstractContextManager
from types import FrameType

from xpnet.commands.signals import Terminated, handled_by


class Ending:
    """Says whether a search is over.  seconds: its time limit, None for none.

    reason: why it is over, None as long as it is not.  error: that of the signal that ended it.
    """

    def __init__(self, seconds: float | None) -> None:
        self._seconds, self._end = seconds, None if seconds is None else time.monotonic() + seconds
        self.error: type[BaseException] | None = None

    @property
    def reason(self) -> str | None:
        """Why the search is over."""
        if self.error is not None:
            return "interrupted" if self.error is KeyboardInterrupt else "terminated"
        is_late = self._end is not None and time.monotonic() >= self._end
        return f"after {self._seconds:g} s" if is_late else None

    def is_over(self) -> bool:
        """Whether the search is over."""
        return self.reason is not None

    def listening(self) -> AbstractContextManager[None]:
        """Take the first signal as the end of the search meanwhile; a second one raises at once."""
        return handled_by(self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        error = KeyboardInterrupt if number == signal.SIGINT else Terminated
        if self.error is not None:
            raise error
        self.error = error
