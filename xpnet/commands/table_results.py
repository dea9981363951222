"""What a model makes of a table, in the target's own terms: errors in its units, classes by their names."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from xpnet.checks import shown
from xpnet.data.dataset import Dataset
from xpnet.network.blocks import predict_in_blocks
from xpnet.network.network import Network
from xpnet.tables.decisions import LISTED
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


def outputs_of(network: Network, X: np.ndarray, infer: Callable[[Any], Any]) -> np.ndarray:
    """Return what `network.predict` or `classify` gives, (..., n), for X (n_features, n), which is on the host."""
    return predict_in_blocks(network.backend, infer, X.T, network.backend.to_device)


def predictions(network: Network, X: np.ndarray, table: Preprocessing, labels_only: bool) -> dict[str, np.ndarray]:
    """Return columns of predictions: values in the target's units, or the class and what the model gives each class.

    These are probabilities where the loss has a link to them (the cross-entropies), otherwise the outputs.
    """
    target, P = table.target, outputs_of(network, X, network.predict)
    if target.task == "regression":
        return dict(zip(target.names, target.in_units(P), strict=True))
    loss = network.architecture.loss
    called = "output" if loss.link is None else "probability"
    if target.task == "binary" and loss.link is not None:
        P = np.stack([1.0 - P[0], P[0]])
    columns = {target.names[0]: np.array(target.classes)[outputs_of(network, X, network.classify)]}
    if not labels_only:
        columns |= {f"{called}_{label}": p for label, p in zip(target.classes[-len(P) :], P, strict=True)}
    return columns


def warn_of_columns(network: Network, X: np.ndarray, table: Preprocessing, frame: Any) -> None:
    """Warn of columns with values far outside those of the training rows, where the network would name features.

    X (n_features, n): of the rows of the frame.
    """
    known = network.inputs
    if known is None or not known.is_far(float(X.min()), float(X.max())):
        return
    network.has_warned = True
    end, told = 0, list[str]()
    for column in table.columns:
        features, end = X[end : end + column.n_features], end + column.n_features
        if features.size and known.is_far(float(features.min()), float(features.max())):
            cells, place = frame[column.name], int(np.abs(features).max(axis=0).argmax())
            told.append(f"{shown(column.name)} (such as {shown(str(cells.iloc[place]))} in row {cells.index[place]})")
    if told:
        more = f" and {len(told) - LISTED} more" if len(told) > LISTED else ""
        warnings.warn(
            f"far outside the training rows are values of {', '.join(told[:LISTED])}{more}; predictions for them are "
            "guesses; check their units",
            stacklevel=2,
        )


def _in_units(network: Network, dataset: Dataset, table: Preprocessing, metrics: Sequence[str]) -> dict[str, float]:
    if not metrics:
        return {}
    P, Y = (table.target.in_units(rows) for rows in (outputs_of(network, dataset.X, network.predict), dataset.Y))
    if not np.isfinite(P).all():
        return dict.fromkeys(metrics, float("nan"))
    return {name: METRICS[name].function(P, Y, dataset.weights) for name in metrics}
