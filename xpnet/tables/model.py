"""A network that was trained on a table, and the table's preprocessing: raw rows in, predictions in its terms out."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xpnet.backend import DTYPES
from xpnet.checks import check_number, check_option, check_path, shown
from xpnet.files import parse_json, read_whole, write_atomically
from xpnet.network.blocks import predict_in_blocks
from xpnet.network.network import Network
from xpnet.tables.decisions import LISTED
from xpnet.tables.frames import as_pandas, with_stripped_names
from xpnet.tables.preprocessing import Preprocessing
from xpnet.tables.stored import from_json, to_json

__all__ = ["TableModel", "load"]

CONFIG, MODEL, TABLE = "config.json", "model.safetensors", "table.json"  # of a run on a table
FAR = 2.0  # times the largest feature in training
USUAL = 3.0  # standard deviations: a few training rows do not show how large a feature can be


@dataclass(frozen=True, repr=False)
class TableModel:
    """Predicts the target of raw rows: frames of pandas or polars, with the columns of the training rows in any order.

    Gaps, unknown categories and other columns are taken and warned of. A frame of predictions is of the same library,
    of pandas with the same index.
    """

    network: Network
    preprocessing: Preprocessing

    def __repr__(self) -> str:
        table = self.preprocessing
        return (
            f"TableModel({', '.join(table.target.names)} of {len(table.columns)} columns; {self.network.architecture})"
        )

    def predict(self, frame: Any, threshold: float | None = None) -> Any:
        """Return a frame (n, n_targets): values in the target's units, or the class of each row.

        threshold: of two classes, the probability from which on a row is of the second, instead of where the loss cuts.
        Raises ValueError for missing columns.
        """
        return _like(frame, lambda rows: self.values(self.encode(rows), threshold))

    def predict_proba(self, frame: Any) -> Any:
        """Return a frame (n, n_classes) of probabilities, a column a class; raises ValueError where there are none."""
        return _like(frame, lambda rows: self.probabilities(self.encode(rows)))

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write what `load` and the command line's predict read into a new folder, or an empty one.

        Raises FileExistsError for a folder that holds something.
        """
        folder = Path(check_path("folder", folder, 'model.save("models/houses")'))
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise FileExistsError(f"{folder} is not an empty folder; a model needs one of its own; name another")
        folder.mkdir(parents=True, exist_ok=True)
        network, table = self.network, self.preprocessing
        config = {
            "spec": network.to_spec(),
            "data": {"dataset": [], "target": list(table.target.names)},
            "backend": {"dtype": str(network.backend.dtype)},
        }
        write_atomically(folder / TABLE, (to_json(table) + "\n").encode())
        network.save(folder / MODEL)
        write_atomically(folder / CONFIG, (json.dumps(config, indent=2) + "\n").encode())

    def values(self, X: np.ndarray, threshold: float | None = None) -> dict[str, np.ndarray]:
        """Return what `predict` does, columns by name, of encoded rows X (n_features, n)."""
        target = self.preprocessing.target
        if threshold is not None:
            second = self._second(check_number("threshold", threshold, above=0, below=1, example="0.5"), X)
            return {target.names[0]: np.array(target.classes)[second.astype(np.intp)]}
        network = self.network
        if target.task == "regression":
            return dict(zip(target.names, target.in_units(outputs_of(network, X, network.predict)), strict=True))
        return {target.names[0]: np.array(target.classes)[outputs_of(network, X, network.classify)]}

    def probabilities(self, X: np.ndarray) -> dict[str, np.ndarray]:
        """Return what `predict_proba` does, columns by name, of encoded rows X (n_features, n)."""
        self.check_has_probabilities()
        return self.scores(X)

    def check_takes_threshold(self) -> None:
        """Refuse a model that has not the probabilities of two classes; raises ValueError."""
        task = self.preprocessing.target.task
        if task != "binary":
            raise ValueError(f"a threshold goes with two classes, and the task is {task}; leave it out")
        self.check_has_probabilities()

    def check_has_probabilities(self) -> None:
        """Refuse a model without probabilities; raises ValueError."""
        target, loss = self.preprocessing.target, self.network.architecture.loss
        if target.task == "regression":
            raise ValueError(f"{', '.join(target.names)} is a regression, which has no probabilities; take its values")
        if loss.link is None:
            raise ValueError(f"the loss {loss.name} has outputs and no probabilities; train with a cross-entropy")

    def scores(self, X: np.ndarray) -> dict[str, np.ndarray]:
        """Return the probability of each class, or the outputs where the loss has no link to probabilities."""
        target = self.preprocessing.target
        P = outputs_of(self.network, X, self.network.predict)
        if target.task == "binary" and self.network.architecture.loss.link is not None:
            P = np.stack([1.0 - P[0], P[0]])
        return by_class(self.network, P, target.classes)

    def encode(self, frame: Any) -> np.ndarray:
        """Return X (n_features, n) of raw rows, after warning of values far outside those of the training rows."""
        frame = with_stripped_names(frame)
        X = self.preprocessing.transform(frame, self.network.backend.dtype)
        self.warn_of_columns(X, frame)
        return X

    def warn_of_columns(self, X: np.ndarray, frame: Any) -> None:
        """Warn of columns with values far outside those of the training rows, where the network would name features.

        X (n_features, n): of the rows of the frame.
        """
        warn_of_far(self.far_in(X, frame), stacklevel=5)

    def far_in(self, X: np.ndarray, frame: Any) -> dict[str, tuple[float, str]]:
        """Return the columns with values far outside those of the training rows: the size of the farthest, and where.

        Far is twice as far from the mean, in standard deviations, as any value of any column in training, and 6 of them
        at least. The network warns of none by itself then.
        """
        known = self.network.inputs
        if X.size == 0 or known is None:
            return {}
        bound = FAR * max(abs(known.low), abs(known.high), USUAL)
        end, found = 0, dict[str, tuple[float, str]]()
        for column in self.preprocessing.columns:
            features, end = X[end : end + column.n_features], end + column.n_features
            if features.size and (size := float(np.abs(features).max())) > bound:
                cells, place = frame[column.name], int(np.abs(features).max(axis=0).argmax())
                found[column.name] = size, f"{shown(str(cells.iloc[place]))} in row {cells.index[place]}"
        self.network.has_warned = self.network.has_warned or bool(found)
        return found

    def _second(self, threshold: float, X: np.ndarray) -> np.ndarray:
        """Return which rows (n,) are of the second class."""
        self.check_takes_threshold()
        _, second = self.probabilities(X).values()
        return np.asarray(second >= threshold)


def warn_of_far(found: dict[str, tuple[float, str]], stacklevel: int) -> None:
    """Warn of columns with values far outside those of the training rows, as `TableModel.far_in` returns them."""
    if not found:
        return
    told = [f"{shown(name)} (such as {where})" for name, (_, where) in found.items()]
    more = f" and {len(told) - LISTED} more" if len(told) > LISTED else ""
    warnings.warn(
        f"values of {', '.join(told[:LISTED])}{more} are far outside those of the training rows; predictions for "
        "them are guesses; check their units",
        stacklevel=stacklevel,
    )


def by_class(network: Network, P: np.ndarray, classes: Sequence[Any]) -> dict[str, np.ndarray]:
    """Return predictions (n_outputs, n) as columns: the probability of each class, or what a loss without any gives."""
    called = "output" if network.architecture.loss.link is None else "probability"
    return {f"{called}_{label}": p for label, p in zip(classes[-len(P) :], P, strict=True)}


def outputs_of(network: Network, X: np.ndarray, infer: Callable[[Any], Any]) -> np.ndarray:
    """Return what `network.predict` or `classify` gives, (..., n), for X (n_features, n), which is on the host."""
    return predict_in_blocks(network.backend, infer, X.T, network.backend.to_device)


def load(run: str | os.PathLike[str], device: str | None = None) -> TableModel:
    """Return the model of a run that `xpnet train` left of a table.

    run: its directory.  device: as for a network.  Raises FileNotFoundError, or ValueError for a run on other data.
    """
    folder = Path(check_path("run", run, 'xpnet.load("runs/houses")'))
    if not (folder / TABLE).is_file():
        of_rows = (folder / MODEL).is_file()
        cure = f'xpnet.Network.load("{folder / MODEL}") loads its network' if of_rows else "`xpnet train` makes one"
        raise FileNotFoundError(f"{folder} is no run on a table, it has no {TABLE}; {cure}")
    table = read_preprocessing(folder)
    network = Network.load(folder / MODEL, device=device, dtype=dtype_of(_config_of(folder)))
    check_fit(folder / TABLE, network, table)
    return TableModel(network, table)


def read_preprocessing(run: Path) -> Preprocessing:
    """Read the preprocessing of a run that was trained on a table."""
    path = run / TABLE
    if not path.is_file():
        raise FileNotFoundError(f"{run} was trained on a table and has no {TABLE}; train again, or restore it")
    try:
        return from_json(read_whole(path).decode())
    except ValueError as error:
        raise ValueError(f"{path}: {error}; train again, or restore it") from None


def check_fit(path: Path, network: Network, table: Preprocessing) -> None:
    """Refuse a preprocessing that is not this network's.  path: of its file."""
    sizes = (network.architecture.n_inputs, network.architecture.n_outputs)
    if sizes != (table.n_features, table.target.n_outputs):
        raise ValueError(
            f"{path} gives {table.n_features} features and {table.target.n_outputs} "
            f"outputs, the model has {sizes[0]} and {sizes[1]}; train again, or restore them"
        )


def dtype_of(config: dict[str, Any]) -> str:
    """Return the float type of a run by its config.json, that of files which do not name it."""
    stored = config.get("backend")
    found = stored.get("dtype", "float32") if isinstance(stored, dict) else "float32"
    return check_option("dtype of the run", found, DTYPES)


def read_json(path: Path) -> Any:
    """Return the value in a run's file of JSON; raises ValueError for what is none."""
    try:
        return parse_json(read_whole(path))
    except ValueError:
        raise ValueError(f"{path} is not JSON; train again, or restore it") from None


def _config_of(run: Path) -> dict[str, Any]:
    found = read_json(run / CONFIG) if (run / CONFIG).exists() else {}
    return found if isinstance(found, dict) else {}


def _like(frame: Any, columns_of: Callable[[Any], dict[str, np.ndarray]]) -> Any:
    """Return the columns found for a frame as a frame of its library."""
    import pandas

    rows = as_pandas(frame)
    if len(rows) == 0:
        raise ValueError("the frame has no rows to predict; it must have one at least; give others")
    if rows is frame:
        return pandas.DataFrame(columns_of(frame), index=frame.index)
    return type(frame)(columns_of(rows))
