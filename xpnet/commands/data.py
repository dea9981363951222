"""The data of a command: a named data set, a table, or a file of rows with their labels in another."""

from __future__ import annotations

import argparse
import glob
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from xpnet.checks import check_option, shown
from xpnet.commands.arguments import CommandParser, Several, UsageError, option
from xpnet.commands.reading_options import check_stray, from_kept, reading_of, to_kept
from xpnet.commands.tables import OPTIONS, add_table, check_table, fit_table, naming
from xpnet.data.checks import NotFinite
from xpnet.data.dataset import Dataset
from xpnet.datasets.mnist import FAMILY, load_from, load_mnist_sample, named_directory
from xpnet.files import absolute
from xpnet.tables.files import (
    Names,
    absolute_names,
    called,
    each,
    expanded,
    is_rows,
    is_table,
    kind_of,
    open_array,
    open_rows,
    read_table,
    rows_reader,
)
from xpnet.tables.formats import ROWS, TABLE, either, example, suffixes
from xpnet.tables.preprocessing import Preprocessing
from xpnet.tables.table import Reading

SAMPLE = "mnist-sample"  # lies in the package, the others of NAMES in a folder
NAMES = (SAMPLE, *FAMILY)
# Fraction or number of training samples, the last ones, that are held out for validation.
VALIDATION = dict.fromkeys(FAMILY, "10000")
VALIDATION_OF_OTHERS = "0.1"
LOSS_OF_TASK = {"regression": "squared_error", "binary": "sigmoid_cross_entropy", "multiclass": "softmax_cross_entropy"}
AS_CLASSES = "Y.astype(np.int64)"  # what to save so that labels are classes
_FILES = ("dataset", "labels", "weights")


class _NothingLeft(ValueError):
    """All samples would be held out."""


@dataclass(frozen=True)
class Data:
    """The data that a run trains on and is judged by; `source` finds them again and goes into config.json.

    table: the preprocessing of a table.  labels_dtype: of a file of labels, whose type says whether they are classes.
    """

    training: Dataset
    validation: Dataset | None
    test: Dataset | None
    source: dict[str, Any]
    table: Preprocessing | None = None
    labels_dtype: np.dtype[Any] | None = None

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
        action=Several,
        default=SAMPLE,
        metavar=f"NAME|{example(TABLE, 'T')}|{example(ROWS, 'X')}",
        help=f"DATA: {', '.join(NAMES)}, a table ({either(suffixes(TABLE))}, needs --target), or a file of rows "
        f"(n_samples, n_features) ({either(suffixes(ROWS))}), which may be larger than memory; "
        "tables may be several with the same columns, a folder of them, or - for stdin (default: %(default)s)",
    )
    add_table(group)
    group.add_argument(
        "--labels",
        metavar=example(ROWS, "Y"),
        help="of a file of rows: integers (n_samples,) are classes, anything else is rows of targets",
    )
    group.add_argument(
        "--weights", metavar=example(ROWS, "W"), help="of a file of rows: a weight (n_samples,) for each"
    )
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
        f"(default: 10000 of {' and '.join(FAMILY)}, {VALIDATION_OF_OTHERS} of the others)",
    )


def check_data(arguments: argparse.Namespace) -> None:
    """Refuse options that do not fit each other, whatever the data hold; raises UsageError."""
    check_table(arguments)
    if not is_table(arguments.dataset):
        check_stray(arguments, arguments.dataset)
    name, is_file, form = called(arguments.dataset), is_rows(arguments.dataset), f"--dataset {example(ROWS, 'X')}"
    if is_file and arguments.labels is None:
        raise UsageError(f"--dataset {name} is a file and needs its labels: add --labels {example(ROWS, 'Y')}")
    if not is_file and arguments.labels is not None:
        raise UsageError(f"--labels goes with {form}, {name} has its own labels; leave it out")
    if not is_file and arguments.weights is not None:
        raise UsageError(f"--weights goes with {form}, not with {name}; leave it out")
    if arguments.data_dir is not None and name not in FAMILY:
        raise UsageError(f"--data-dir goes with --dataset {' or '.join(FAMILY)}, not with {name}; leave it out")


def load_data(arguments: argparse.Namespace) -> Data:
    """Load the data that the options name, after `check_data`; raises UsageError if the options do not fit them."""
    name, kind = called(arguments.dataset), kind_of(arguments.dataset)
    data_dir = named_directory(name, arguments.data_dir) if name in FAMILY else None
    source = {
        "dataset": name if kind is None else absolute_names(arguments.dataset),
        "labels": absolute(arguments.labels) if kind == ROWS else None,
        "data_dir": None if data_dir is None else os.path.realpath(data_dir),
    }
    if arguments.weights is not None:
        source["weights"] = absolute(arguments.weights)
    if kind == TABLE:
        source |= {key: getattr(arguments, key) for key in OPTIONS}
    n_validation = arguments.validation or VALIDATION.get(name, VALIDATION_OF_OTHERS)
    try:
        if kind == TABLE:
            reading = reading_of(arguments)
            fitted = partial(fit_table, arguments)
            data = _load_table(source, n_validation, fitted, (), arguments.dtype, reading)
        else:
            data = _load(source, n_validation, data_dir)
    except _NothingLeft as error:
        raise UsageError(f"--validation {error}; give fewer") from None
    if arguments.class_weight is None:
        return data
    if not data.training.is_classification:
        where = f"--labels {arguments.labels}" if kind == ROWS else f"--target {arguments.target}"
        raise UsageError(
            f"--class-weight {arguments.class_weight} needs classes, and {where} "
            "holds other targets; leave it out, or give whole numbers (n_samples,)"
        )
    return replace(data, training=data.training.with_class_weight(arguments.class_weight))


def load_again(data: dict[str, Any], data_dir: str | None, table: Preprocessing | None, dtype: str) -> Data:
    """Load the data of a run, by the data section of its config.json.

    data_dir: where they lie now, if elsewhere.  table, dtype: the preprocessing and float type of a run on a table.
    """
    name = data.get("dataset")
    if table is None and not (isinstance(name, str) and is_rows(name)):
        check_option("dataset of the run", name, NAMES)
        if data_dir is not None and name == SAMPLE:
            raise UsageError(f"--data-dir is {data_dir} and the run's data, {name}, lie in the package; leave it out")
    elif table is not None and not (_are_texts(name) and name):
        raise ValueError(
            f"the config of the run has the data {shown(name)}; it must be a path, or a list of paths; restore it"
        )
    elif table is None and data.get("labels") is None:
        raise ValueError(f"the config of the run has no labels for {name}; train again, or restore it")
    elif data_dir is not None:  # the files have moved, under their names
        moved = {key: _moved(data[key], data_dir) for key in _FILES if data.get(key) is not None}
        data, data_dir = {**data, **moved}, None
    n_validation = str(data.get("n_validation", 0))
    try:
        if table is not None:
            return _load_table(data, n_validation, lambda frame: table, table.text_columns, dtype, from_kept(data))
        folder = named_directory(name, data_dir or data.get("data_dir")) if name in FAMILY else None
        return _load(data, n_validation, folder)
    except _NothingLeft as error:
        raise ValueError(
            f"n_validation of the run is {error}; restore config.json, or name the run's data with --data-dir"
        ) from None


def _load(source: dict[str, Any], n_validation: str, data_dir: Path | None) -> Data:
    name = source["dataset"]
    test = labels_dtype = None
    if is_rows(name):
        training, labels_dtype = _read_files(Path(name), Path(source["labels"]), source.get("weights"))
    else:
        training, test = load_mnist_sample() if name == SAMPLE else load_from(name, data_dir)
    training, validation = _hold_out(name, training, n_validation)
    return Data(training, validation, test, source, labels_dtype=labels_dtype)


def _load_table(
    source: dict[str, Any],
    n_validation: str,
    fitted: Callable[[Any], Preprocessing],
    text_columns: Sequence[str],
    dtype: str,
    reading: Reading,
) -> Data:
    """Read a table and hold out its last rows before anything is learnt from them."""
    names = source["dataset"]
    read = read_table(names, reading, text_columns)
    frame, source = read.frame, source | to_kept(read.reading)
    border = _border(called(names), len(frame), n_validation)
    with naming(called(names)):
        table = fitted(frame.iloc[:border])
        training = table.dataset(frame.iloc[:border], dtype)
        validation = table.dataset(frame.iloc[border:], dtype) if border < len(frame) else None
    return Data(training, validation, None, source, table)


def _read_files(path: Path, labels_path: Path, weights_path: str | None) -> tuple[Dataset, np.dtype[Any]]:
    """Return the samples and the type of the labels.

    Rows that are mapped stay in their file, to be read in blocks; labels and weights are read whole.
    """
    rows, labels = open_rows(path), np.array(open_array(labels_path))
    if isinstance(rows, np.memmap) and not rows.flags.c_contiguous:
        raise ValueError(
            f"{path} is stored in Fortran order, column after column, and a row cannot be read in one go; "
            f"write it with {rows_reader(path).saved_by.format('np.ascontiguousarray(X)')}"
        )
    if labels.dtype.kind == "b":
        raise ValueError(
            f"{labels_path} holds bool; it must hold whole numbers for classes, or floats for targets: "
            f"write it with {rows_reader(labels_path).saved_by.format(AS_CLASSES)}"
        )
    if labels.dtype.kind == "i" and labels.min(initial=0) < 0:
        row = int(np.argmin(labels.reshape(-1)))
        raise ValueError(
            f"{labels_path} holds the label {labels.reshape(-1)[row]} in row {row}; classes must be whole numbers from "
            "0; number them so, or save targets that are measured as floats"
        )
    weights = None if weights_path is None else np.array(open_array(Path(weights_path)))
    try:
        if labels.dtype.kind in "iu" and labels.size == max(labels.shape, default=0):  # (n,), or a column of them
            return Dataset.from_labels(rows.T, labels.reshape(-1), weights=weights), labels.dtype
        return Dataset(rows.T, labels.reshape(-1) if labels.ndim < 2 else labels.T, weights), labels.dtype
    except NotFinite as error:
        raise ValueError(
            f"{path} and {labels_path}: {error.found}; all must be finite; keep the good rows of both files: "
            "keep = np.isfinite(X).all(axis=1); X[keep], Y[keep]"
        ) from None
    except (ValueError, TypeError) as error:
        names = " and ".join(str(name) for name in (path, labels_path, weights_path) if name is not None)
        raise ValueError(f"{names}: {error}") from None


def describe_labels(data: Data) -> str | None:
    """Return a line that says how a file of labels was read, by its type; None for other data."""
    training = data.training
    if data.labels_dtype is None:
        return None
    if data.labels_dtype.kind in "iu" and training.is_classification:
        return f"labels: {training.n_outputs} class{'es' * (training.n_outputs != 1)}"
    hint = ""
    if training.n_outputs == 1 and (np.floor(training.Y) == training.Y).all():
        save = rows_reader(Path(data.source["labels"])).saved_by.format(AS_CLASSES)
        hint = f"; they are whole: if they are classes, write them with {save}"
    n = training.n_outputs
    return f"labels: {n} target{'s' * (n != 1)} a sample, numbers and not classes{hint}"


def _hold_out(name: str, dataset: Dataset, text: str) -> tuple[Dataset, Dataset | None]:
    """Split off the last N samples, or the last fraction; "0" for none."""
    border = _border(name, dataset.n_samples, text)
    if border == dataset.n_samples:
        return dataset, None
    return dataset.subset(slice(0, border)), dataset.subset(slice(border, dataset.n_samples))


def _border(name: str, n_samples: int, text: str) -> int:
    """Return how many samples are left to train on when the last N, or the last fraction, are held out."""
    wanted = float(text)
    count = round(wanted * n_samples) if wanted < 1.0 else int(wanted)
    if wanted > 0.0 and count == 0:
        raise UsageError(f"--validation {text} of {n_samples} samples of {name} is none; give more, or 0 for none")
    if count >= n_samples:
        raise _NothingLeft(f"{text}, which leaves none of the {n_samples} samples of {name} to train on")
    return n_samples - count


def _are_texts(names: Any) -> bool:
    return all(isinstance(name, str) for name in (names if isinstance(names, list) else [names]))


def _moved(names: Names, folder: str) -> str | list[str]:
    """Return the names of files in another folder."""
    paths = [str(Path(folder) / Path(name).name) for name in each(names)]
    return paths if isinstance(names, list) else paths[0]


def _dataset(text: str) -> str | list[str]:
    if kind_of(text) is not None and not glob.has_magic(text):
        return text
    try:
        if text not in NAMES and kind_of(expanded(text)) is not None:
            return expanded(text)
        return check_option("dataset", text, NAMES)
    except ValueError as error:
        files = f"a file of rows ({either(suffixes(ROWS))}) or a table ({either(suffixes(TABLE))})"
        found, hint, near = str(error).partition("; did you mean")
        raise argparse.ArgumentTypeError(f"{found}, or name {files}{hint}{near}") from None


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
