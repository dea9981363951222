"""The data of a command: a named data set, a table, or a file of rows with their labels in another."""

from __future__ import annotations

import argparse
import glob
import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from xpnet.checks import check_option, shown
from xpnet.commands.arguments import CommandParser, Several, UsageError, checked, option
from xpnet.commands.image_data import FORM, add_images, check_images, read_images, read_other_images
from xpnet.commands.reading_options import check_stray, from_kept, reading_of, to_kept
from xpnet.commands.samples import Samples
from xpnet.commands.split_options import add_split, check_split, other_files, split_of
from xpnet.commands.tables import OPTIONS, add_table, check_table, find_target, fit_table, forced_texts, kept_target
from xpnet.data.dataset import Dataset
from xpnet.datasets.images import ImageFormat
from xpnet.datasets.mnist import FAMILY, SAMPLE, load_from, load_mnist_sample, named_directory
from xpnet.files import absolute
from xpnet.parallel.communicator import Communicator
from xpnet.recipe.samples import Data, Fitted, TableSamples
from xpnet.tables.arrays import AS_CLASSES, AS_NUMBERS, read_rows, rows_reader
from xpnet.tables.decisions import Decision, refuse
from xpnet.tables.files import (
    FOLDER_ENDS,
    Names,
    absolute_names,
    called,
    check_one_kind,
    each,
    expanded,
    is_rows,
    is_table,
    kind_of,
    naming,
    read_table,
)
from xpnet.tables.formats import IMAGES, ROWS, TABLE, either, example, suffixes
from xpnet.tables.magnitudes import said_of_magnitudes
from xpnet.tables.preprocessing import Preprocessing
from xpnet.tables.splitting import LAST, STRATIFY, Split, held_out, kind_and_column, said_of_rows
from xpnet.tables.table import Reading
from xpnet.tables.target import Target

NAMES = (SAMPLE, *FAMILY)
_FILES = ("dataset", "labels", "weights", "validation", "test")


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
        help=f"DATA: {', '.join(NAMES)}, a table ({either(suffixes(TABLE))}, needs --target), a file of rows "
        f"(n_samples, n_features) ({either(suffixes(ROWS))}), which may be larger than memory, or {FORM}; "
        "tables and files of rows may be several that are alike, or a folder of them, a table - for stdin (default: "
        "%(default)s)",
    )
    add_table(group)
    group.add_argument(
        "--labels",
        type=checked(expanded),
        action=Several,
        metavar=example(ROWS, "Y"),
        help="of files of rows: integers (n_samples,) are classes, anything else is rows of targets; may be left out "
        "where a folder holds pairs such as X-1.npy and y-1.npy",
    )
    group.add_argument(
        "--weights",
        metavar=f"COLUMN|{example(ROWS, 'W')}",
        help="a weight for each row: a column of a table; of a file of rows another (n_samples,)",
    )
    group.add_argument(
        "--class-weight",
        type=option("class_weight", ("balanced",)),
        metavar="balanced",
        help="weigh the training samples so that all classes count alike",
    )
    group.add_argument("--data-dir", help="folder with the four IDX files (default: $XPNET_DATA, else download)")
    add_images(group)
    add_split(command, group)


def check_data(arguments: argparse.Namespace) -> None:
    """Refuse options that do not fit each other, whatever the data hold; raises UsageError."""
    check_one_kind(arguments.dataset)
    check_table(arguments)
    check_images(arguments)
    check_split(arguments)
    if not is_table(arguments.dataset):
        check_stray(arguments, arguments.dataset)
    name, is_file, form = called(arguments.dataset), is_rows(arguments.dataset), f"--dataset {example(ROWS, 'X')}"
    if is_file and arguments.labels is None and not each(arguments.dataset)[0].endswith(FOLDER_ENDS):
        raise UsageError(f"--dataset {name} is a file and needs its labels: add --labels {example(ROWS, 'Y')}")
    if not is_file and arguments.labels is not None:
        raise UsageError(f"--labels goes with {form}, {name} has its own labels; leave it out")
    if not is_file and not is_table(arguments.dataset) and arguments.weights is not None:
        raise UsageError(f"--weights goes with {form}, not with {name}; leave it out")
    if arguments.data_dir is not None and name not in FAMILY:
        raise UsageError(f"--data-dir goes with --dataset {' or '.join(FAMILY)}, not with {name}; leave it out")


def load_data(arguments: argparse.Namespace, loaded: Loaded) -> Data:
    """Hold out what the options say of samples, or name in other files; raises UsageError for what does not fit them.

    The split that was chosen, if none was named, becomes that of the options.
    """
    samples, is_asked = loaded.samples, arguments.split is not None
    split = split_of(arguments, samples)
    values = samples.values(split)
    mask = mask_of(split, samples, values)
    data = _divided(loaded, split, mask)
    has_folds = getattr(arguments, "folds", None) is not None
    said = [*data.said, *said_of_rows(split, mask, samples.labels, samples.classes, values, has_folds)]
    if isinstance(samples, TableSamples):
        if arguments.strict and data.table is not None:
            with naming(samples.name):
                refuse([*data.table.decisions, *said])
    elif loaded.labels_dtype is not None:
        said += said_of_magnitudes(data.training)
    if samples.is_large and not is_asked and mask.any():
        found, done = "it is large, and read in blocks", f"its last {mask.sum()} samples are held out"
        said.append(Decision(Path(samples.name).name, found, done, "--split", False))
    arguments.split = str(split)
    return weighed(arguments, replace(data, said=said))


def weighed(arguments: argparse.Namespace, data: Data) -> Data:
    """Return the data with the weights that --class-weight asks for; raises UsageError where there are no classes."""
    if arguments.class_weight is None:
        return data
    if not data.training.is_classification:
        labels = called(arguments.dataset if arguments.labels is None else arguments.labels)
        where = f"--labels {labels}" if is_rows(arguments.dataset) else f"--target {arguments.target}"
        raise UsageError(
            f"--class-weight {arguments.class_weight} needs classes, and {where} "
            "holds other targets; leave it out, or give whole numbers (n_samples,)"
        )
    return replace(data, training=data.training.with_class_weight(arguments.class_weight))


def load_samples(arguments: argparse.Namespace) -> Loaded:
    """Load the samples that the options name, after `check_data`, none of them held out."""
    name, kind = called(arguments.dataset), kind_of(arguments.dataset)
    data_dir = named_directory(name, arguments.data_dir) if name in FAMILY else None
    labels = arguments.dataset if arguments.labels is None else arguments.labels  # beside the rows in their folder
    source = {
        "dataset": name if kind is None else absolute_names(arguments.dataset),
        "labels": absolute_names(labels) if kind == ROWS else None,
        "data_dir": None if data_dir is None else os.path.realpath(data_dir),
    }
    if arguments.weights is not None:
        source["weights"] = arguments.weights if kind == TABLE else absolute_names(expanded(arguments.weights))
    source |= {flag: absolute(path) for flag, path in other_files(arguments).items()}
    if kind == TABLE:
        source |= {key: getattr(arguments, key) for key in OPTIONS}
        fitted, found = partial(fit_table, arguments), partial(find_target, arguments)
        return _read_rows(source, reading_of(arguments), forced_texts(arguments), arguments.dtype, fitted, found)
    if kind == IMAGES:
        return _read_images(source, arguments.image_size)
    is_whole = arguments.split is not None and kind_and_column(arguments.split)[0] != LAST
    return _read(
        source, data_dir, None if arguments.split is None else is_whole, getattr(arguments, "communicator", None)
    )


def load_again(data: dict[str, Any], data_dir: str | None, table: Preprocessing | None, dtype: str) -> Data:
    """Load the data of a run, by the data section of its config.json.

    data_dir: where they lie now, if elsewhere.  table, dtype: the preprocessing and float type of a run on a table.
    """
    name = data.get("dataset")
    is_of_images = data.get("images") is not None
    if table is None and not is_of_images and not (_are_texts(name) and name and is_rows(name)):
        check_option("dataset of the run", name, NAMES)
        if data_dir is not None and name == SAMPLE:
            raise UsageError(f"--data-dir is {data_dir} and the run's data, {name}, lie in the package; leave it out")
    elif (table is not None or is_of_images) and not (_are_texts(name) and name):
        raise ValueError(
            f"the config of the run has the data {shown(name)}; it must be a path, or a list of paths; restore it"
        )
    elif table is None and not is_of_images and data.get("labels") is None:
        raise ValueError(f"the config of the run has no labels for {name}; train again, or restore it")
    elif data_dir is not None:  # the files have moved, under their names
        files = [key for key in _FILES if key != "weights" or table is None]  # of a table they are a column
        moved = {key: _moved(data[key], data_dir) for key in files if data.get(key) is not None}
        data, data_dir = {**data, **moved}, None
    n_validation = data.get("n_validation", 0)
    spec = data.get("split")  # runs of before have none, and held out the last samples
    split = Split(LAST, n_validation) if spec is None else Split.from_spec(spec)
    if table is not None:
        kept = table
        loaded = _read_rows(
            data,
            from_kept(data),
            table.text_columns,
            dtype,
            lambda frame, *known: kept,
            lambda frame: kept_target(kept, frame),
        )
    elif is_of_images:
        loaded = _read_images(data)
    else:
        folder = named_directory(name, data_dir or data.get("data_dir")) if name in FAMILY else None
        loaded = _read(data, folder, split.kind != LAST)
    n = loaded.samples.n
    if spec is None and n_validation >= n:
        left = f"{n_validation}, which leaves none of the {n} samples of {name} to train on"
        raise ValueError(
            f"n_validation of the run is {left}; restore config.json, or name the run's data with --data-dir"
        )
    had = data.get("n_training", 0) + (0 if "validation" in data else n_validation)
    if spec is not None and n != had:
        raise ValueError(
            f"{loaded.samples.name} has {n} samples and the run had {had} (n_training and n_validation), so that those "
            "held out cannot be told; restore both, or name the run's data with --data-dir"
        )
    return _divided(loaded, split, mask_of(split, loaded.samples, loaded.samples.values(split)))


@dataclass(frozen=True)
class Loaded:
    """Samples that have been read: those to divide, and a test set of their own.

    source: what finds them again.  labels_dtype: of a file of labels.  images: the format of images.
    said: what was decided about the data.
    """

    samples: Samples | TableSamples
    source: dict[str, Any]
    test: Dataset | None = None
    labels_dtype: np.dtype[Any] | None = None
    images: ImageFormat | None = None
    said: Sequence[Decision] = ()


def mask_of(split: Split, samples: Samples | TableSamples, values: np.ndarray | None) -> np.ndarray:
    """Return the mask (n,) of the samples that a split holds out.  values (n,): those of its column."""
    labels = samples.labels if split.kind == STRATIFY else None
    with naming(samples.name) if samples.is_table else nullcontext():
        return held_out(split, samples.n, labels, values)


def _divided(loaded: Loaded, split: Split, mask: np.ndarray) -> Data:
    """Hold out the samples of a mask, and read the files that are to validate and to test."""
    samples, source = loaded.samples, loaded.source
    files = {key: source[key] for key in ("validation", "test") if source.get(key) is not None}
    (training, *rest), table, noted = samples.cut([~mask, mask] if mask.any() else [~mask])
    parts = {"validation": rest[0] if rest else None, "test": loaded.test}
    if isinstance(samples, TableSamples) and table is not None:
        for key, path in files.items():
            parts[key] = _read_other(path, from_kept(source), table, samples.dtype, noted)
    elif loaded.images is not None:
        parts |= {key: read_other_images(path, loaded.images) for key, path in files.items()}
    said = (*loaded.said, *noted)
    return Data(
        training,
        parts["validation"],
        parts["test"],
        source,
        split,
        table=table,
        labels_dtype=loaded.labels_dtype,
        images=loaded.images,
        said=said,
    )


def _read_other(path: str, reading: Reading, table: Preprocessing, dtype: str, noted: list[Decision]) -> Dataset:
    """Read the rows of another file as those of the training were.

    reading: of these.  noted: takes what is done with the others.
    """
    other = Reading(decimal=reading.decimal, na_values=reading.na_values)
    frame = read_table(path, other, table.text_columns).frame
    with naming(path):
        rows, _, left_out = kept_target(table, frame)
        own = list(left_out)
        dataset = table.dataset(rows, dtype, own)
    name = Path(path).name
    noted += [replace(each, column=f"{name}: {each.column}" if each.column else name) for each in own]
    return dataset


def _read(
    source: dict[str, Any], data_dir: Path | None, is_whole: bool | None, processes: Communicator | None = None
) -> Loaded:
    """Read a data set or files of rows.

    is_whole: as for `read_rows`.  processes: that look at the rows together, and meet afterwards.
    """
    name = source["dataset"]
    if not is_rows(name):
        training, test = load_mnist_sample() if name == SAMPLE else load_from(name, data_dir)
        return Loaded(Samples(name, training), source, test)
    share = (0, 1) if processes is None else (processes.rank, processes.size)
    dataset, dtype = read_rows(name, source["labels"], source.get("weights"), is_whole, share)
    return Loaded(Samples(called(name), dataset, dataset.is_mapped and is_whole is None), source, labels_dtype=dtype)


def _read_images(source: dict[str, Any], side: int | None = None) -> Loaded:
    """Read a folder of images.  side: pixels asked for; a run has kept the format of its images."""
    folder = source["dataset"]
    dataset, form, kept, said = read_images(folder, side, source.get("images"))
    samples = Samples(called(folder), dataset, names=form.classes)
    return Loaded(samples, source | {"images": kept}, images=form, said=said)


def _read_rows(
    source: dict[str, Any],
    reading: Reading,
    text_columns: Sequence[str],
    dtype: str,
    fitted: Fitted,
    find: Callable[[Any], tuple[Any, Target, tuple[Decision, ...]]],
) -> Loaded:
    """Read a table.  fitted: see `TableSamples`.  find: returns the rows with a target, that, and what was left out."""
    names = source["dataset"]
    read = read_table(names, reading, text_columns)
    with naming(called(names)):
        frame, target, left_out = find(read.frame)
    decimal, decisions = read.reading.decimal or ".", (*read.decisions, *left_out)

    def fitted_to(*given: Any) -> Preprocessing:
        return fitted(*given).with_decimal(decimal)

    samples = TableSamples(called(names), frame, target.with_decimal(decimal), fitted_to, dtype, decisions)
    return Loaded(samples, source | to_kept(read.reading))


def describe_labels(data: Data) -> str | None:
    """Return a line that says how a file of labels was read, by its type; None for other data."""
    training = data.training
    if data.labels_dtype is None:
        return None
    if data.labels_dtype.kind in "iu" and training.is_classification:
        n, n_there = training.n_outputs, len(np.unique(training.labels))
        few = f", {n_there} of them in the rows to train on: if they are numbers to predict, write them with "
        save = rows_reader(Path(each(data.source["labels"])[0])).saved_by.format(AS_NUMBERS)
        return f"labels: {n} class{'es' * (n != 1)}" + f"{few}{save}" * (2 * n_there < n)
    hint = ""
    if training.n_outputs == 1 and (np.floor(training.Y) == training.Y).all():
        save = rows_reader(Path(each(data.source["labels"])[0])).saved_by.format(AS_CLASSES)
        hint = f"; they are whole: if they are classes, write them with {save}"
    n = training.n_outputs
    return f"labels: {n} target{'s' * (n != 1)} a sample, numbers and not classes{hint}"


def _are_texts(names: Any) -> bool:
    return all(isinstance(name, str) for name in (names if isinstance(names, list) else [names]))


def _moved(names: Names, folder: str) -> str | list[str]:
    """Return the names of files in another folder."""
    paths = [
        str(Path(folder) / Path(name).name) + (os.sep if name.endswith(FOLDER_ENDS) else "") for name in each(names)
    ]
    return paths if isinstance(names, list) else paths[0]


def _dataset(text: str) -> str | list[str]:
    if kind_of(text) is not None and not glob.has_magic(text):
        return text
    try:
        if text not in NAMES and kind_of(expanded(text)) is not None:
            return expanded(text)
        files = f"a file of rows ({either(suffixes(ROWS))}) or a table ({either(suffixes(TABLE))})"
        return check_option("dataset", text, NAMES, f", or name {files}")
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
