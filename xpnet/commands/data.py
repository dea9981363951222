"""The data of a command: a named data set, a table, or rows in a .npy file with their labels in another."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from xpnet import datasets
from xpnet.checks import check_option
from xpnet.commands.arguments import CommandParser, UsageError, option
from xpnet.commands.tables import OPTIONS, add_table, check_table, fit_table, naming
from xpnet.data.dataset import Dataset
from xpnet.datasets.mnist import named_directory
from xpnet.tables.files import is_table, read_table
from xpnet.tables.preprocessing import Preprocessing

LOADERS: dict[str, Callable[[str | None], tuple[Dataset, Dataset]]] = {
    "mnist-sample": lambda data_dir: datasets.load_mnist_sample(),
    "mnist": datasets.load_mnist,
    "fashion-mnist": datasets.load_fashion_mnist,
}
# Fraction or number of training samples, the last ones, that are held out for validation.
VALIDATION = {"mnist-sample": "0.1", "mnist": "10000", "fashion-mnist": "10000"}
VALIDATION_OF_FILES = "0.1"
LOSS_OF_TASK = {"regression": "squared_error", "binary": "sigmoid_cross_entropy", "multiclass": "softmax_cross_entropy"}
_FILES = ("dataset", "labels", "weights")


class _NothingLeft(ValueError):
    """All samples would be held out."""


@dataclass(frozen=True)
class Data:
    """What a run trains on and is judged by; `source` finds it again and goes into config.json.

    table: the preprocessing of a table.
    """

    training: Dataset
    validation: Dataset | None
    test: Dataset | None
    source: dict[str, Any]
    table: Preprocessing | None = None

    @property
    def n_validation(self) -> int:
        """Number of samples held out."""
        return 0 if self.validation is None else self.validation.n_samples

    @property
    def default_loss(self) -> str:
        """The loss that suits the targets."""
        if self.table is not None:
            return LOSS_OF_TASK[self.table.target.task]
        has_classes = self.training.is_classification and self.training.n_outputs > 1
        return "softmax_cross_entropy" if has_classes else "squared_error"


def add_data(command: CommandParser) -> None:
    """Add the options that name data; --dataset may be left out before its value."""
    command.word_for = "dataset"
    group = command.add_argument_group("data")
    group.add_argument(
        "--dataset",
        type=_dataset,
        default="mnist-sample",
        metavar="NAME|T.csv|X.npy",
        help=f"DATA: {', '.join(LOADERS)}, a table (.csv or .parquet, "
        "needs --target), or a file of rows (n_samples, n_features), which may be larger than memory "
        "(default: %(default)s)",
    )
    add_table(group)
    group.add_argument(
        "--labels",
        metavar="Y.npy",
        help="of a file of rows: integers (n_samples,) are classes, anything else is rows of targets",
    )
    group.add_argument("--weights", metavar="W.npy", help="of a file of rows: a weight (n_samples,) for each")
    group.add_argument(
        "--class-weight",
        type=option("class_weight", ("balanced",)),
        metavar="balanced",
        help="weigh the training samples so that all classes count alike",
    )
    group.add_argument("--data-dir", help="folder with the four IDX files (default: $XPNET_DATA, else download)")
    group.add_argument(
        "--validation",
        type=_part,
        metavar="N|FRACTION",
        help="training samples to hold out, the last ones; 0 for none "
        "(default: 10000 of mnist and fashion-mnist, 0.1 of the others)",
    )


def check_data(arguments: argparse.Namespace) -> None:
    """Refuse options that do not fit each other, whatever the data hold; raises UsageError."""
    check_table(arguments)
    name, is_file = arguments.dataset, arguments.dataset.endswith(".npy")
    if is_file and arguments.labels is None:
        raise UsageError(f"--dataset {name} is a file and needs its labels: add --labels Y.npy")
    if not is_file and arguments.labels is not None:
        raise UsageError(f"--labels goes with --dataset X.npy, {name} has labels of its own; leave it out")
    if not is_file and arguments.weights is not None:
        raise UsageError(f"--weights goes with --dataset X.npy, not with {name}; leave it out")
    if arguments.data_dir is not None and name not in ("mnist", "fashion-mnist"):
        raise UsageError(f"--data-dir goes with --dataset mnist or fashion-mnist, not with {name}; leave it out")


def load_data(arguments: argparse.Namespace) -> Data:
    """Load what the options name; raises UsageError if they do not fit each other."""
    check_data(arguments)
    name, is_rows = arguments.dataset, arguments.dataset.endswith(".npy")
    is_file, data_dir = is_rows or is_table(name), None
    if not is_file and name != "mnist-sample":  # that one lies in the package
        data_dir = named_directory(name, arguments.data_dir)
    source = {
        "dataset": str(Path(name).resolve()) if is_file else name,
        "labels": str(Path(arguments.labels).resolve()) if is_rows else None,
        "data_dir": None if data_dir is None else str(data_dir.resolve()),
    }
    if arguments.weights is not None:
        source["weights"] = str(Path(arguments.weights).resolve())
    if is_table(name):
        source |= {key: getattr(arguments, key) for key in OPTIONS}
    n_validation = arguments.validation or VALIDATION.get(name, VALIDATION_OF_FILES)
    try:
        if is_table(name):
            data = _load_table(source, n_validation, lambda frame: fit_table(arguments, frame), (), arguments.dtype)
        else:
            data = _load(source, n_validation)
    except _NothingLeft as error:
        raise UsageError(f"--validation {error}; give fewer") from None
    if arguments.class_weight is None:
        return data
    if not data.training.is_classification:
        where = f"--labels {arguments.labels}" if is_rows else f"--target {arguments.target}"
        raise UsageError(
            f"--class-weight {arguments.class_weight} needs classes, and {where} "
            "holds other targets; leave it out, or give whole numbers (n_samples,)"
        )
    return replace(data, training=data.training.with_class_weight(arguments.class_weight))


def load_again(data: dict[str, Any], data_dir: str | None, table: Preprocessing | None, dtype: str) -> Data:
    """Load the data of a run, by the data section of its config.json.

    data_dir: where they lie now, if elsewhere.  table, dtype: of a run trained on a table, its preprocessing and float.
    """
    name = data.get("dataset")
    if not (isinstance(name, str) and (name.endswith(".npy") or table is not None)):
        check_option("dataset of the run", name, LOADERS)
        if data_dir is not None and name == "mnist-sample":
            raise UsageError(f"--data-dir is {data_dir} and the run's data, {name}, lie in the package; leave it out")
    elif table is None and data.get("labels") is None:
        raise ValueError(f"the config of the run has no labels for {name}; train again, or restore it")
    elif data_dir is not None:  # the files have moved, under their names
        moved = {key: str(Path(data_dir) / Path(data[key]).name) for key in _FILES if data.get(key) is not None}
        data, data_dir = {**data, **moved}, None
    n_validation = str(data.get("n_validation", 0))
    try:
        if table is not None:
            return _load_table(data, n_validation, lambda frame: table, table.text_columns, dtype)
        return _load({**data, "data_dir": data_dir or data.get("data_dir")}, n_validation)
    except _NothingLeft as error:
        raise ValueError(
            f"n_validation of the run is {error}; restore config.json, or name the run's data with --data-dir"
        ) from None


def _load(source: dict[str, Any], n_validation: str) -> Data:
    name = source["dataset"]
    test = None
    if name.endswith(".npy"):
        training = _read_files(Path(name), Path(source["labels"]), source.get("weights"))
    else:
        training, test = LOADERS[name](source["data_dir"])
    training, validation = _hold_out(name, training, n_validation)
    return Data(training, validation, test, source)


def _load_table(
    source: dict[str, Any],
    n_validation: str,
    fitted: Callable[[Any], Preprocessing],
    text_columns: Sequence[str],
    dtype: str,
) -> Data:
    """Read a table and hold out its last rows before anything is learnt from them."""
    path = Path(source["dataset"])
    frame = read_table(path, text_columns)
    border = _border(str(path), len(frame), n_validation)
    with naming(path):
        table = fitted(frame.iloc[:border])
        training = table.dataset(frame.iloc[:border], dtype)
        validation = table.dataset(frame.iloc[border:], dtype) if border < len(frame) else None
    return Data(training, validation, None, source, table)


def _read_files(path: Path, labels_path: Path, weights_path: str | None) -> Dataset:
    """Rows stay in their file, to be read in blocks; labels and weights are read whole."""
    rows, labels = open_rows(path), np.array(open_array(labels_path))
    if not rows.flags.c_contiguous:
        raise ValueError(
            f"{path} is stored in Fortran order, column after column, and a row cannot be read in one go; "
            "write it with np.save(path, np.ascontiguousarray(X))"
        )
    if labels.dtype.kind == "b":
        raise ValueError(
            f"{labels_path} holds bool; needed are whole numbers for classes, or floats for targets: "
            "write it with np.save(path, Y.astype(np.int64))"
        )
    weights = None if weights_path is None else np.array(open_array(Path(weights_path)))
    try:
        if labels.dtype.kind in "iu" and labels.size == max(labels.shape, default=0):  # (n,), or a column of them
            return Dataset.from_labels(rows.T, labels.reshape(-1), weights=weights)
        return Dataset(rows.T, labels.reshape(-1) if labels.ndim < 2 else labels.T, weights)
    except (ValueError, TypeError) as error:
        names = " and ".join(str(name) for name in (path, labels_path, weights_path) if name is not None)
        text, is_gap, _ = str(error).partition(" Keep the good samples")  # whose advice is about columns
        if is_gap:
            text += " Keep the good rows of both files: keep = np.isfinite(X).all(axis=1); X[keep], Y[keep]."
        raise type(error)(f"{names}: {text}") from None


def describe_labels(data: Data) -> str | None:
    """A line that says what was made of a file of labels, whose type decides it; None for other data."""
    path, training = data.source.get("labels"), data.training
    if path is None or data.table is not None:
        return None
    if open_array(Path(path)).dtype.kind in "iu" and training.is_classification:
        return f"labels: {training.n_outputs} classes"
    hint = ""
    if training.n_outputs == 1 and (np.floor(training.Y) == training.Y).all():
        hint = "; they are whole: if they are classes, write them with np.save(path, Y.astype(np.int64))"
    return f"labels: {training.n_outputs} targets a sample, numbers and not classes{hint}"


def open_array(path: Path) -> np.ndarray:
    """Map the array of real numbers in a .npy file; raises FileNotFoundError or ValueError in one line."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; write one with np.save(path, rows)")
    try:
        # Mapped, since a header may declare more than the file and the memory hold.
        array = np.load(path, allow_pickle=False, mmap_mode="r")
    except Exception as error:  # a hostile header fails in many ways: SyntaxError, TokenError, MemoryError, ...
        cause = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"{path} is not a whole .npy file of numbers ({cause}); write it with np.save(path, X)"
        ) from None
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiub":
        raise ValueError(f"{path} does not hold one array of real numbers; write it with np.save(path, X)")
    return array


def open_rows(path: Path, n_features: int | None = None) -> np.ndarray:
    """Map rows (n_samples, n_features), as many features as the network takes where that is given."""
    rows = open_array(path)
    n = "n_features" if n_features is None else str(n_features)
    if rows.size == 0:
        raise ValueError(f"{path} is {rows.shape} and so is empty; write rows (n_samples, {n}) into it")
    if rows.ndim != 2 or (n_features is not None and rows.shape[1] != n_features):
        needed = "needed are" if n_features is None else "the network needs"
        raise ValueError(
            f"{path} is {rows.shape}, {needed} rows (n_samples, {n}); "
            "reshape it with X.reshape(len(X), -1), or transpose it"
        )
    return rows


def _hold_out(name: str, dataset: Dataset, text: str) -> tuple[Dataset, Dataset | None]:
    """Split off the last N samples, or the last fraction; "0" for none."""
    border = _border(name, dataset.n_samples, text)
    if border == dataset.n_samples:
        return dataset, None
    return dataset.subset(slice(0, border)), dataset.subset(slice(border, dataset.n_samples))


def _border(name: str, n_samples: int, text: str) -> int:
    """How many samples are left to train on when the last N, or the last fraction, are held out."""
    wanted = float(text)
    count = round(wanted * n_samples) if wanted < 1.0 else int(wanted)
    if wanted > 0.0 and count == 0:
        raise UsageError(f"--validation {text} of {n_samples} samples of {name} is none; give more, or 0 for none")
    if count >= n_samples:
        raise _NothingLeft(f"{text}, which leaves none of the {n_samples} samples of {name} to train on")
    return n_samples - count


def _dataset(text: str) -> str:
    if text.endswith(".npy") or is_table(text):
        return text
    try:
        return check_option("dataset", text, (*LOADERS, "a file X.npy", "a table T.csv"))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _part(text: str) -> str:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not (0.0 <= value < 1.0 or (value >= 1.0 and value.is_integer())):
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither a number of samples nor a fraction below 1; write one such as 1000 or 0.1"
        )
    return text
