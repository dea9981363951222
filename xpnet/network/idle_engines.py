"""Keep the engines of a network's Programs and lend each to one user at a time."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from typing import Any, Generic, Protocol, TypeVar

from xpnet.engines.memory import Memory

# Predictions of all sizes need a dozen for each way to predict. Of large ones few are kept.
_KEPT, _MOST, _MOST_BYTES = 8, 64, 1 << 26


class HasMemory(Protocol):
    """An engine, or anything else that works on a memory of its own."""

    memory: Memory


T = TypeVar("T", bound=HasMemory)


class IdleEngines:
    """The engines not in use, by key; each engine has one user, so that threads can share a network."""

    def __init__(self) -> None:
        self._idle: list[tuple[Any, HasMemory]] = []

    def lend(self, key: Any, make: Callable[[], T]) -> Loan[T]:
        """Lend an engine kept under `key`, or a new one, for a `with` block, and keep it after one that succeeds."""
        return Loan(self, key, make)

    def keep(self, key: Any, engine: HasMemory, is_new: bool) -> None:
        """Keep an engine for the next user.  is_new: whether it was kept never before."""
        self._idle.append((key, engine))
        if is_new:  # those that come back were kept before, so that no others need to go
            self._trim()

    def _trim(self) -> None:
        """Let the engines go that were not used for longest: all but 64 of 64 MiB, or 8 of whatever size."""
        if len(self._idle) > _KEPT:
            sizes = [engine.memory.nbytes for _, engine in reversed(tuple(self._idle))]
            fitting = sum(total <= _MOST_BYTES for total in accumulate(sizes))
            del self._idle[: -max(_KEPT, min(fitting, _MOST))]

    def take(self, key: Any) -> Any:
        """Return an engine kept under `key`, None without one; whoever takes it gives it back by `keep`."""
        for entry in reversed(tuple(self._idle)):
            if entry[0] == key:
                try:
                    self._idle.remove(entry)
                except ValueError:  # another thread was faster
                    continue
                return entry[1]
        return None


class Loan(Generic[T]):
    """An engine for a `with` block; a generator would take a small prediction as long as some of its products."""

    __slots__ = ("_engine", "_idle", "_is_new", "_key", "_make")

    def __init__(self, idle: IdleEngines, key: Any, make: Callable[[], T]) -> None:
        self._idle, self._key, self._make = idle, key, make

    def __enter__(self) -> T:
        kept = self._idle.take(self._key)
        self._is_new = kept is None
        self._engine: T = self._make() if kept is None else kept
        return self._engine

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is None:
            self._idle.keep(self._key, self._engine, self._is_new)
