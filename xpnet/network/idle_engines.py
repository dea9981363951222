"""Keep the engines of a network's Programs and lend each to one user at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import accumulate
from typing import Any

from xpnet.engines.engine import Engine

# Predictions of all sizes need a dozen for each way to predict. Of large ones few are kept.
_KEPT, _MOST, _MOST_BYTES = 8, 64, 1 << 26


class IdleEngines:
    """The engines not in use, by key; each engine has one user, so that threads can share a network."""

    def __init__(self) -> None:
        self._idle: list[tuple[Any, Engine]] = []

    @contextmanager
    def lend(self, key: Any, make: Callable[[], Engine]) -> Iterator[Engine]:
        """Lend an engine kept under `key`, or a new one, and keep it afterwards."""
        engine = self._take(key) or make()
        yield engine
        self._idle.append((key, engine))
        self._trim()

    def _trim(self) -> None:
        """Let the engines go that were not used for longest: all but 64 of 64 MiB, or 8 of whatever size."""
        if len(self._idle) > _KEPT:
            sizes = [engine.memory.nbytes for _, engine in reversed(tuple(self._idle))]
            fitting = sum(total <= _MOST_BYTES for total in accumulate(sizes))
            del self._idle[: -max(_KEPT, min(fitting, _MOST))]

    def _take(self, key: Any) -> Engine | None:
        for entry in tuple(self._idle):
            if entry[0] == key:
                try:
                    self._idle.remove(entry)
                except ValueError:  # another thread was faster
                    continue
                return entry[1]
        return None
