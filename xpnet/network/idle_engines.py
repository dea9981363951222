"""Keep the engines of a network's Programs and lend each to one user at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from xpnet.engines.engine import Engine

_KEPT = 8


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
        del self._idle[:-_KEPT]

    def _take(self, key: Any) -> Engine | None:
        for entry in tuple(self._idle):
            if entry[0] == key:
                try:
                    self._idle.remove(entry)
                except ValueError:  # another thread was faster
                    continue
                return entry[1]
        return None
