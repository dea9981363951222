"""One training of a network; of a table a second one, at a tenth of the rate, if the first diverges."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from xpnet.network.network import Network
from xpnet.recipe.samples import Data
from xpnet.recipe.units import InUnits
from xpnet.training.callbacks import Callback, ReduceOnPlateau
from xpnet.training.loop import TrainingDiverged, epochs
from xpnet.training.optimizers import Optimizer

LOWER = 0.1  # the second rate, in parts of the first


@dataclass(frozen=True)
class Attempt:
    """A network that is not yet trained, and what trains it.

    options: keywords of `xpnet.training.loop.epochs`.  plateau, stops: callbacks that see its records.
    metrics: measured on the samples held out.
    """

    network: Network
    optimizer: Optimizer
    options: Mapping[str, Any]
    plateau: Sequence[ReduceOnPlateau] = ()
    stops: Sequence[Callback] = ()
    metrics: Sequence[str] = ()

    def records(self, data: Data, **more: Any) -> Iterator[dict[str, Any]]:
        """Return the records of its epochs, as they are over.  more: further keywords."""
        return epochs(
            self.network,
            data.training,
            self.optimizer,
            **self.options,
            validation=data.validation,
            metrics=self.metrics,
            is_alone=True,
            **more,
        )

    def last_record(self, data: Data) -> dict[str, Any]:
        """Train to the end, and return the last record."""
        *_, record = self.records(data, callbacks=self.watchers(data))
        return record

    def watchers(self, data: Data) -> list[Callback]:
        """Return the callbacks that see each record first: measures of a regression in its units, and what ends it."""
        is_regression = data.table is not None and data.table.target.task == "regression"
        if data.table is None or data.validation is None or not is_regression:
            return [*self.plateau, *self.stops]
        return [InUnits(data.validation, data.table, self.metrics), *self.plateau, *self.stops]

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Lend the network its averaged weights, if the optimizer averages and has made an update."""
        with ExitStack() as stack:
            if self.optimizer.ema is not None and self.optimizer.steps_done > 0:
                stack.enter_context(self.optimizer.averaging(self.network))
            yield


def attempt_that_ends(make: Callable[[], Attempt], lower: Callable[[], Any], data: Data) -> Attempt:
    """Return an attempt that was trained to the end.

    lower: has `make` take the rate LOWER times the one before, for a table whose first attempt diverges.
    """
    attempt = make()
    try:
        attempt.last_record(data)
    except TrainingDiverged:
        if data.table is None:
            raise
        lower()
        attempt = make()
        attempt.last_record(data)
    return attempt
