"""Lead the other processes of a training: tell them what to run, and what came of it.

Process 0 runs the loop with all its callbacks and decides. The others run what it tells them, step by step at the same
time, and take from it whatever else changes: see `xpnet.training.following`.
"""

from __future__ import annotations

import zlib
from collections.abc import Generator
from typing import Any

import numpy as np

from xpnet.data.feed import Feed
from xpnet.engines.engine import Engine, EpochsRun, RunsEpochs
from xpnet.network.network import Network
from xpnet.parallel.communicator import Communicator
from xpnet.training.guard import TrainingDiverged
from xpnet.training.optimizers import Optimizer
from xpnet.training.records import Record
from xpnet.training.schedules import Constant

RUN, EPOCHS, LOAD, RECORD, END = "run", "epochs", "load", "record", "end"  # what the others are told
SHARED = "Every process of the training ends with this error."  # a note on one that all have


class RankFailed(RuntimeError):
    """Another process of the training failed; the message names its rank and the cause."""


class Others:
    """The other processes of a training that this one leads; none where it is alone.

    is_watched: whether network or optimizer may be changed between two calls of the engine.
    """

    def __init__(self, communicator: Communicator, network: Network, is_watched: bool) -> None:
        self._communicator, self._network, self._is_watched = communicator, network, is_watched
        self._sent: int | None = None  # a checksum of what the others have, None where they have nothing yet
        self._runs = False

    def run(self, engine: Engine, feed: Feed, order: np.ndarray, rows_in: np.ndarray) -> np.ndarray:
        """Run steps on all processes; order and rows_in are those of `Engine.run`, the order as the feed yields it."""
        if self._communicator.size == 1:
            return engine.run(order, rows_in)
        changed = self._sent is None or (self._is_watched and self._sent != self._checksum(engine))
        self._communicator.broadcast((RUN, order, rows_in, self._arrays(engine) if changed else None))
        self._runs = True
        rows_out = engine.run(feed.placed(order), rows_in)
        self._runs = False
        self._sent = self._checksum(engine) if self._is_watched else 0
        return rows_out

    def run_epochs(
        self, engine: Engine, epochs: RunsEpochs, orders: np.ndarray, rows_in: np.ndarray, copies: bool
    ) -> EpochsRun:
        """Run epochs of the engine on all processes, from where this one is; the rest as for `RunsEpochs.run`."""
        if self._communicator.size == 1:
            return epochs.run(orders, rows_in, copies)
        self._communicator.broadcast((EPOCHS, orders, rows_in, self._arrays(engine)))
        self._runs = True
        ran = epochs.run(orders, rows_in, copies)
        self._runs, self._sent = False, None  # what comes next may be of an epoch before the last one
        return ran

    def load(self, blocks: np.ndarray, order: np.ndarray) -> None:
        """Let the others read their samples of a pool of blocks; the arguments are those of `Blocks.load`."""
        if self._communicator.size > 1:
            self._communicator.broadcast((LOAD, blocks, order))

    def led(self, records: Generator[Record], optimizer: Optimizer) -> Generator[Record]:
        """Yield the records and tell them to the others, and at the end what all of them end with, or the error."""
        error: BaseException | None = None
        try:
            for record in records:
                self._communicator.broadcast((RECORD, record))
                yield record
        except GeneratorExit:
            records.close()  # may run epochs once more
            raise
        except BaseException as found:
            error = found
            if self._runs:  # the others wait within a step
                self._communicator.abort(f"rank 0: {cause_of(error)}")
            error.add_note(SHARED)
            raise
        finally:
            self._communicator.broadcast((END, *self._end(optimizer), told_of(error)))

    def _end(self, optimizer: Optimizer) -> tuple[Any, ...]:
        """Return what the others end with: the weights, the optimizer's state, its constant rate."""
        _, *state = optimizer.snapshot().packed()
        lr = optimizer.lr if isinstance(optimizer.schedule, Constant) else None
        return self._network.backend.to_host(self._network.owned), state, lr

    def _arrays(self, engine: Engine) -> list[np.ndarray]:
        return [self._network.backend.to_host(array) for array in (self._network.owned, engine.state, engine.keys)]

    def _checksum(self, engine: Engine) -> int:
        total = 0
        for array in self._arrays(engine):
            total = zlib.crc32(array.view(np.uint8).data, total)
        return total


def is_shared(error: BaseException) -> bool:
    """Whether every process of the training has this error."""
    return isinstance(error, RankFailed) or SHARED in getattr(error, "__notes__", ())


def cause_of(error: BaseException | None) -> str:
    """Return an error in one line, by its type where it has no text."""
    return " ".join(str(error).split()) or type(error).__name__


def told_of(error: BaseException | None) -> tuple[str, tuple[str, ...]] | None:
    """Return an error as the others are told of it; None for none."""
    if isinstance(error, TrainingDiverged):
        return "diverged", (error.cause, error.cure)
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", ()
    return None if error is None else ("failed", (f"rank 0: {cause_of(error)}",))


def error_of(told: tuple[str, tuple[str, ...]]) -> BaseException:
    """Return the error that the others raise: a divergence and an interrupt as they are, all else as that of rank 0."""
    kinds: dict[str, type[BaseException]] = {"diverged": TrainingDiverged, "interrupted": KeyboardInterrupt}
    error = kinds.get(told[0], RankFailed)(*told[1])
    error.add_note(SHARED)
    return error
