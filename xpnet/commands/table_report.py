"""What `evaluate` and the end of `train` tell of a table's model: each target or class, beside simpler models."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from xpnet.checks import one_line, shown
from xpnet.commands.report import figure
from xpnet.commands.wording import table as as_table
from xpnet.data.dataset import Dataset
from xpnet.network.network import Network
from xpnet.tables.model import outputs_of
from xpnet.tables.preprocessing import Preprocessing
from xpnet.tables.target import Target
from xpnet.training import metrics
from xpnet.training.evaluation import threshold_of

MOST_CLASSES = 10  # that a report tells of
MOST_COLUMNS = 20  # whose importance is told
LONGEST = 24  # letters of a name
REPEATS = 5  # of a column's permutation
CHEAP = 2e9  # multiplications of a linear model
ERRORS = {"RMSE": metrics.root_mean_squared_error, "MAE": metrics.mean_absolute_error, "R2": metrics.r2}


def report_of(network: Network, dataset: Dataset, table: Preprocessing, training: Dataset | None) -> dict[str, Any]:
    """Return the report of a network on a data set, ready for JSON.

    training: the rows that it was trained on, which the simpler models learn from; None where they are not at hand.
    A regression has the errors of the network, of the mean and of least squares by target; classes have precision,
    recall and f1 by class, the confusion matrix, and accuracies of the most frequent class and of least squares.
    """
    known = dataset if training is None else training
    simple = None if training is None else _linear(training, dataset.X)
    if table.target.task == "regression":
        return {"targets": dict(_targets(network, dataset, table.target, known, simple))}
    P = outputs_of(network, dataset.X, network.forward)
    if not np.isfinite(P).all():
        return {}
    found = _classes(P, dataset, table.target.classes, threshold_of(network))
    found["always"] = _always(known, dataset, table.target.classes)
    if simple is not None:
        found["least_squares"] = {"accuracy": metrics.accuracy(simple, dataset.Y, dataset.weights)}
    if network.architecture.loss.link is not None:
        found["calibration_error"] = _calibration_error(outputs_of(network, dataset.X, network.predict), dataset)
    return found


def importance_of(network: Network, dataset: Dataset, table: Preprocessing, seed: int = 0) -> dict[str, Any]:
    """Return by how much the score falls when a column's values are dealt to other rows, {column: {mean, deviation}}.

    The score is accuracy, of a regression R2; of REPEATS permutations. The largest fall comes first.
    Source: Breiman (2001), Random forests, section 10, on whole columns.
    """
    rng, X, mixed = np.random.default_rng(seed), dataset.X, dataset.X.copy()
    whole, end, found = _score(network, dataset, X, table), 0, {}
    for column in table.columns:
        features, end = slice(end, end + column.n_features), end + column.n_features
        falls = []
        for _ in range(REPEATS):
            mixed[features] = X[features][:, rng.permutation(X.shape[1])]
            falls.append(whole - _score(network, dataset, mixed, table))
        mixed[features] = X[features]
        found[column.name] = {"mean": float(np.mean(falls)), "deviation": float(np.std(falls, ddof=1))}
    return dict(sorted(found.items(), key=lambda item: -item[1]["mean"]))


def lines_of(report: dict[str, Any], width: int | None) -> Iterator[str]:
    """Yield the lines of a report.  width: of the terminal."""
    if "targets" in report:
        rows = [["", *ERRORS]]
        for name, models in report["targets"].items():
            for model, errors in models.items():
                called = one_line(name, LONGEST) if model == "network" else f"  {model}"
                rows.append([called, *(_number(errors[error]) for error in ERRORS)])
        yield as_table(rows, (0,), (), width)
    if "classes" in report:
        yield _class_table(report, width)
        told = [f"always {shown(report['always']['class'])}: accuracy {figure(report['always']['accuracy'])}"]
        if "least_squares" in report:
            told.append(f"least squares on the classes: {figure(report['least_squares']['accuracy'])}")
        if "calibration_error" in report:
            off = figure(report["calibration_error"])
            told.append(f"the probability of the predicted class is off by {off} in the mean")
        yield ", ".join(told)
    if "importance" in report:
        falls = list(report["importance"].items())
        rows = [["column", f"{'R2' if 'targets' in report else 'accuracy'} falls by", "deviation"]]
        rows += [
            [one_line(name, LONGEST), *(f"{value:.4f}" for value in fall.values())]
            for name, fall in falls[:MOST_COLUMNS]
        ]
        yield as_table(rows, (0,), (2,), width)
        if len(falls) > MOST_COLUMNS:
            yield f"and {len(falls) - MOST_COLUMNS} more columns, which count less"


def _targets(
    network: Network, dataset: Dataset, target: Target, known: Dataset, simple: np.ndarray | None
) -> Iterator[tuple[str, dict[str, Any]]]:
    Y, means = target.in_units(dataset.Y), np.average(target.in_units(known.Y), axis=1, weights=known.weights)
    models = {
        "network": target.in_units(outputs_of(network, dataset.X, network.predict)),
        "the mean alone": np.broadcast_to(means[:, None], Y.shape),
    }
    if simple is not None:
        models["least squares"] = target.in_units(simple)
    finite = {called: P for called, P in models.items() if np.isfinite(P).all()}
    for i, name in enumerate(target.names):
        yield name, {called: _errors(P[i : i + 1], Y[i : i + 1], dataset.weights) for called, P in finite.items()}


def _errors(P: np.ndarray, Y: np.ndarray, weights: np.ndarray | None) -> dict[str, float]:
    return {error: function(P, Y, weights) for error, function in ERRORS.items()}


def _classes(P: np.ndarray, dataset: Dataset, names: tuple[Any, ...], threshold: float) -> dict[str, Any]:
    counts = metrics.confusion_matrix(P, dataset.Y, dataset.weights, threshold=threshold)
    columns = metrics.by_class(P, dataset.Y, dataset.weights, threshold=threshold) | {"rows": counts.sum(axis=1)}
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    classes = {str(name): dict(zip(columns, row, strict=True)) for name, row in zip(names, rows, strict=True)}
    return {"classes": classes, "confusion": counts.tolist()}


def _always(known: Dataset, dataset: Dataset, names: tuple[Any, ...]) -> dict[str, Any]:
    """Return the class that is most frequent among known rows, and the accuracy of always saying it."""
    shares = [_shares(each) for each in (known, dataset)]
    most = int(shares[0].argmax())
    return {"class": str(names[most]), "accuracy": float(shares[1][most])}


def _shares(dataset: Dataset) -> np.ndarray:
    means = np.average(dataset.Y, axis=1, weights=dataset.weights)
    return np.array([1 - means[0], means[0]]) if len(means) == 1 else means


def _calibration_error(P: np.ndarray, dataset: Dataset) -> float:
    """Return the mean distance between the probability of the predicted class and how often it is right, by tenths."""
    P, Y = (np.vstack([1 - rows, rows]) if len(rows) == 1 else rows for rows in (P, dataset.Y))
    held, said, right = metrics.calibration(P.max(axis=0), Y.argmax(axis=0) == P.argmax(axis=0), dataset.weights)
    return float(np.abs(said - right).sum() / held.sum())


def _linear(training: Dataset, X: np.ndarray) -> np.ndarray | None:
    """Return what least squares on the training rows predict for X (n_features, n), None if that is not cheap."""
    A, n_features = training.X, training.n_features
    if training.n_samples * (n_features + 1.0) ** 2 > CHEAP:
        return None
    root = 1.0 if training.weights is None else np.sqrt(training.weights)[:, None]
    ones = np.ones((1, A.shape[1]))
    left, right = np.vstack([A, ones]).T.astype(np.float64), training.Y.T.astype(np.float64)
    B = np.linalg.lstsq(root * left, root * right, rcond=None)[0]
    return np.asarray(B.T @ np.vstack([X, np.ones((1, X.shape[1]))]))


def _score(network: Network, dataset: Dataset, X: np.ndarray, table: Preprocessing) -> float:
    if table.target.task == "regression":
        return metrics.r2(outputs_of(network, X, network.predict), dataset.Y, dataset.weights)
    P = outputs_of(network, X, network.forward)
    return metrics.accuracy(P, dataset.Y, dataset.weights, threshold=threshold_of(network))


def _class_table(report: dict[str, Any], width: int | None) -> str:
    classes = list(report["classes"].items())
    told = list(range(len(classes)))
    if len(classes) > MOST_CLASSES:
        told = sorted(sorted(told, key=lambda i: -classes[i][1]["rows"])[:MOST_CLASSES])
    names = [one_line(name, LONGEST) for name, _ in classes]
    as_columns = names if len(classes) <= MOST_CLASSES else []
    rows = [["class", "precision", "recall", "f1", "rows", *(f"-> {name}" for name in as_columns)]]
    for i in told:
        *shares, n = classes[i][1].values()
        cells = [_count(count) for count in report["confusion"][i]] if as_columns else []
        rows.append([names[i], *map(figure, shares), _count(n), *cells])
    if len(classes) > MOST_CLASSES:
        rows.append([f"and {len(classes) - MOST_CLASSES} more, of fewer rows", "", "", "", ""])
    return as_table(rows, (0,), range(len(rows[0]) - 1, 4, -1), width)


def _count(n: float) -> str:
    return f"{n:.0f}" if float(n).is_integer() else f"{n:.4g}"


def _number(value: float) -> str:
    """Return an error in the target's units with five digits, or four decimals of small ones."""
    if abs(value) < 1e-2 or abs(value) >= 1e6:
        return f"{value:.5g}"
    return f"{value:.{max(0, min(4, 6 - len(f'{abs(value):.0f}')))}f}"
