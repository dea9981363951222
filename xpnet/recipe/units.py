"""What a model makes of a table, in the target's own terms: errors in its units, classes by their names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from xpnet.data.dataset import Dataset
from xpnet.network.network import Network
from xpnet.tables.model import outputs_of
from xpnet.tables.preprocessing import Preprocessing
from xpnet.training.callbacks import Callback
from xpnet.training.evaluation import evaluate
from xpnet.training.metrics import METRICS
from xpnet.training.records import VALIDATION, Record

DEFAULT_METRICS = ["mean_absolute_error", "r2"]  # of a regression, whose loss is not in the target's units


class InUnits(Callback):
    """Measures the metrics of a regression in the target's units, before other callbacks look at a record."""

    only_watches = True

    def __init__(self, dataset: Dataset, table: Preprocessing, metrics: Sequence[str]) -> None:
        self._dataset, self._table, self._metrics = dataset, table, metrics

    def on_measured(self, record: Record, network: Network) -> None:
        measured = _in_units(network, self._dataset, self._table, self._metrics)
        record.update({VALIDATION + name: value for name, value in measured.items()})


def measured_on(
    network: Network, dataset: Dataset, metrics: Sequence[str], table: Preprocessing | None
) -> dict[str, Any]:
    """Return what `xpnet.evaluate` returns, the metrics of a table's regression in the target's units."""
    if table is None or table.target.task != "regression":
        return evaluate(network, dataset, metrics)
    return evaluate(network, dataset) | _in_units(network, dataset, table, metrics)


def metrics_for(metrics: list[str], table: Preprocessing | None) -> list[str]:
    """Return the metrics asked for, or else the defaults of a table's regression."""
    is_regression = table is not None and table.target.task == "regression"
    return DEFAULT_METRICS if is_regression and not metrics else metrics


def _in_units(network: Network, dataset: Dataset, table: Preprocessing, metrics: Sequence[str]) -> dict[str, float]:
    if not metrics:
        return {}
    P, Y = (table.target.in_units(rows) for rows in (outputs_of(network, dataset.X, network.predict), dataset.Y))
    if not np.isfinite(P).all():
        return dict.fromkeys(metrics, float("nan"))
    return {name: METRICS[name].function(P, Y, dataset.weights) for name in metrics}
