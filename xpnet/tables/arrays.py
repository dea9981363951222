"""Files of plain rows (.npy, or Parquet of numbers): one, several, or a folder of them is a data set."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xpnet.checks import one_line, shown
from xpnet.data.checks import NotFinite
from xpnet.data.dataset import Dataset
from xpnet.data.feed import POOL_BYTES
from xpnet.data.parts import JoinedRows
from xpnet.files import check_readable
from xpnet.parallel.communicator import Communicator
from xpnet.tables.files import FOLDER_ENDS, Names, called, check_one_kind, each, expanded, files_in, is_rows, kind_of
from xpnet.tables.formats import READERS, ROWS, TABLE, Reader, check_installed, either, suffix_of, suffixes
from xpnet.tables.stored_rows import SUFFIX, stored_rows

__all__ = ["load_rows"]

AS_CLASSES, AS_NUMBERS = "Y.astype(np.int64)", "Y.astype(float)"  # what to save so that labels are classes, or targets
NUMBERED = "number the classes with X = np.unique(X, return_inverse=True)[1], and write that with "  # if they are texts
X, Y = "xy"  # how the names of rows and of their targets begin that lie in one folder, in either case


def load_rows(
    rows: Names, targets: Names | None = None, weights: Names | None = None, *, communicator: Communicator | None = None
) -> Dataset:
    """Return the Dataset in files of rows, which are read in blocks while it trains if they are large.

    rows: the name of a file (n_samples, n_features), of several, of a folder of them, or a pattern such as
    "X-*.npy".  Their rows follow each other in the order of the names.
    targets: the same, of integers (n_samples,), which are classes, or of anything else, rows of targets. None for a
    folder in which each file X*.npy has its file y*.npy.  weights: the same, of numbers (n_samples,).
    Of Parquet files targets and weights are names of columns, and all other columns are features: numbers. A group of
    rows is read at a time, and should have some MiB (row_group_size of pandas).
    communicator: the processes that load them; each looks at its part of the rows for NaN and infinity.
    Raises FileNotFoundError, and ValueError for files that are no such arrays or do not fit each other.
    """
    fault, dataset = None, None
    share = (0, 1) if communicator is None else (communicator.rank, communicator.size)
    try:
        dataset = _loaded(_named(rows), targets, weights, share)
    except (OSError, ValueError, TypeError) as error:
        fault = error
    for rank, cause in enumerate([] if communicator is None else communicator.gather(fault and one_line(fault))):
        if fault is None and cause is not None:
            raise ValueError(f"rank {rank}: {cause}")
    if dataset is None:
        assert fault is not None
        raise fault
    return dataset


def _loaded(names: list[str], targets: Names | None, weights: Names | None, share: tuple[int, int]) -> Dataset:
    check_one_kind(names)
    if kind_of(names) == TABLE:
        return _of_parquet(names, targets, weights, share)
    if targets is None:
        _pairs(names)  # refuses what is no folder of them
    given, held = names if targets is None else _named(targets), None if weights is None else _named(weights)
    return read_rows(names, given, held, share=share)[0]


def _of_parquet(names: list[str], targets: Names | None, weights: Names | None, share: tuple[int, int]) -> Dataset:
    """Return the Dataset in Parquet files, or in folders of them; targets and weights are columns."""
    paths = [path for name in names for path in (files_in(name, TABLE) if name.endswith(FOLDER_ENDS) else [name])]
    other = next((path for path in paths if suffix_of(path) != SUFFIX), None)
    if other is not None or not paths:
        raise ValueError(
            f"{other or called(names)} is no file of rows; it must be a {either([*suffixes(ROWS), SUFFIX])} file; "
            "train other tables by xpnet train FILE --target COLUMN, or xpnet.TableClassifier"
        )
    if not isinstance(targets, str) or not (weights is None or isinstance(weights, str)):
        raise ValueError(
            f"targets is {shown(targets)} and weights is {shown(weights)}; of {called(paths)} they must be names of "
            "columns: targets='COLUMN'"
        )
    parts, Y, given = stored_rows(paths, targets, weights)
    return _dataset(called(paths), f"its column {targets!r}", weights, _joined(parts, None, share), Y, given)


def _named(names: Names) -> list[str]:
    given: list[Any] = each(names) if isinstance(names, (str, os.PathLike, list, tuple)) else [names]
    if not given or not all(isinstance(name, (str, os.PathLike)) for name in given):
        held = next((type(name).__name__ for name in given if not isinstance(name, (str, os.PathLike))), "no name")
        raise TypeError(
            f"load_rows was given {held}; it needs names of files or of a folder; of arrays with one sample a row make "
            "Dataset(X.T, Y.T), or Dataset.from_labels(X.T, Y) for classes"
        )
    found = [expanded(os.fspath(name)) for name in given]
    return [name for part in found for name in each(part)]


def read_rows(
    names: Names,
    targets: Names,
    weights: Names | None = None,
    is_whole: bool | None = None,
    share: tuple[int, int] = (0, 1),
) -> tuple[Dataset, np.dtype[Any]]:
    """Return the samples in files of rows, and the type of the targets, which are read whole, as weights are.

    targets: the folder of the rows itself where they lie beside these.
    is_whole: whether the rows are read into memory, None: if they are no more than are held at a time anyway; else rows
    stay in their files, to be read in blocks.  share: number of this process and of all that look at the rows.
    """
    is_beside = each(names) == each(targets) and each(names)[0].endswith(FOLDER_ENDS)
    files, target_files = _pairs(names) if is_beside else (files_of(names), files_of(targets))
    parts, labels = [open_rows(Path(path)) for path in files], _opened(target_files)
    _check_alike(files, parts)
    for path, part in zip(files, parts, strict=True):
        if isinstance(part, np.memmap) and not part.flags.c_contiguous:
            raise ValueError(
                f"{path} is stored in Fortran order, column after column, and a row cannot be read in one go; "
                f"write it with {rows_reader(Path(path)).saved_by.format('np.ascontiguousarray(X)')}"
            )
    given = None if weights is None else _together(_opened(files_of(weights)))
    Y = _together(labels)
    if len(files) == len(labels):
        for path, part, other, its in zip(files, parts, target_files, labels, strict=True):
            _check_counts(path, [part], other, its)
    _check_counts(called(names), parts, called(targets), Y)
    _check_targets(called(targets), rows_reader(Path(target_files[0])), Y)
    return _dataset(called(names), called(targets), weights, _joined(parts, is_whole, share), Y, given), Y.dtype


def _check_counts(name: str, parts: list[np.ndarray], other: str, Y: np.ndarray) -> None:
    """Refuse targets of another number of samples than the rows; a line of labels (1, n) is one of n."""
    n = sum(map(len, parts))
    if Y.ndim and len(Y) != n and not Y.size == n == max(Y.shape):
        raise ValueError(
            f"{name} has {n} rows and {other} has {len(Y)}; there must be one target for each row; "
            "write both files again"
        )


def _joined(parts: Sequence[Any], is_whole: bool | None, share: tuple[int, int]) -> Any:
    """Return the rows (n_samples, n_features) of all parts, in memory or in their files."""
    if is_whole or (is_whole is None and sum(part.nbytes for part in parts) <= POOL_BYTES):
        return _together(parts)
    if len(parts) == 1 and share[1] == 1 and isinstance(parts[0], np.ndarray):
        return parts[0]
    rank, size = share
    n = sum(map(len, parts))
    return JoinedRows(parts, None if size == 1 else slice(rank * n // size, (rank + 1) * n // size))


def _together(arrays: Sequence[Any]) -> np.ndarray:
    """Return arrays one after the other, in memory."""
    return np.array(arrays[0]) if len(arrays) == 1 else np.concatenate(arrays)


def _dataset(name: str, targets: str, weights: Names | None, rows: Any, Y: np.ndarray, given: Any) -> Dataset:
    try:
        if Y.dtype.kind in "iu" and Y.size == max(Y.shape, default=0):  # (n,), or a column of them
            return Dataset.from_labels(rows.T, Y.reshape(-1), weights=given)
        return Dataset(rows.T, Y.reshape(-1) if Y.ndim < 2 else Y.T, given)
    except NotFinite as error:
        one = error.name if error.name == "X" or Y.ndim > 1 else f"{error.name}[:, None]"
        raise ValueError(
            f"{name} and {targets}: {error.found}; all must be finite; keep the good rows of both files: "
            f"keep = np.isfinite({one}).all(axis=1); X[keep], Y[keep]"
        ) from None
    except (ValueError, TypeError) as error:
        names = [name, targets, *([] if weights is None else [called(weights)])]
        raise ValueError(f"{' and '.join(dict.fromkeys(names))}: {error}") from None


def _check_targets(name: str, reader: Reader, Y: np.ndarray) -> None:
    """Refuse yes and no, and negative classes."""
    if Y.dtype.kind == "b":
        raise ValueError(
            f"{name} holds bool; it must hold whole numbers for classes, or floats for targets: "
            f"write it with {reader.saved_by.format(AS_CLASSES)}"
        )
    if Y.dtype.kind == "i" and Y.min(initial=0) < 0:
        row = int(np.argmin(Y.reshape(-1)))
        raise ValueError(
            f"{name} holds the label {Y.reshape(-1)[row]} in row {row}; classes must be whole numbers from "
            "0; number them so, or save targets that are measured as floats"
        )


def files_of(names: Names) -> list[str]:
    """Return the files of rows that are named, those in a folder in the order of their names.

    Of a folder with files x*.npy and y*.npy, the former, in either case.
    """
    return [path for name in each(names) for path in (_rows_in(name) if name.endswith(FOLDER_ENDS) else [name])]


def _rows_in(folder: str) -> list[str]:
    found = files_in(folder, ROWS)
    if not found:
        raise ValueError(f"{folder} holds no rows; it must hold {either(suffixes(ROWS))} files; name another folder")
    begins = {os.path.basename(path)[0].lower() for path in found}
    return [path for path in found if os.path.basename(path)[0].lower() == X] if {X, Y} <= begins else found


def _pairs(names: Names) -> tuple[list[str], list[str]]:
    """Return the files of rows and of targets in folders, in which each of either has its partner."""
    rows, targets = list[str](), list[str]()
    for folder in each(names):
        found = files_in(folder, ROWS) if folder.endswith(FOLDER_ENDS) else []
        its = {
            letter: {name[1:]: name for name in map(os.path.basename, found) if name[0].lower() == letter}
            for letter in (X, Y)
        }
        if sum(os.path.basename(path)[0].lower() in (X, Y) for path in found) > len(its[X]) + len(its[Y]):
            raise ValueError(
                f"{folder} holds names that differ by a capital alone, as X.npy and x.npy do; each of a pair "
                "must be there once; remove one of them, or name rows and targets apart"
            )
        for rest in sorted(its[X].keys() ^ its[Y].keys()):
            name, partner = (its[X][rest], Y) if rest in its[X] else (its[Y][rest], X.upper())
            raise ValueError(
                f"{os.path.join(folder, name)} stands alone; rows and targets in one folder go in pairs, and it needs "
                f"{partner + rest}; write that file, or name the targets apart"
            )
        if not its[X]:
            raise ValueError(
                f"{folder} holds no pair of rows and targets such as X-1.npy and y-1.npy; it must, where no targets "
                "are named; name them"
            )
        rows += [os.path.join(folder, its[X][rest]) for rest in sorted(its[X])]
        targets += [os.path.join(folder, its[Y][rest]) for rest in sorted(its[X])]
    return rows, targets


def _opened(files: Sequence[str]) -> list[np.ndarray]:
    """Return the arrays of files of targets or weights."""
    found = [open_array(Path(path)) for path in files]
    _check_alike(files, found)
    return found


def _check_alike(files: Sequence[str], arrays: Sequence[np.ndarray]) -> None:
    """Refuse arrays of other types or other columns than those of the first."""
    for path, array in zip(files, arrays, strict=True):
        kinds = [f"{one.dtype} {('n', *one.shape[1:])[: one.ndim]}".replace("'", "") for one in (array, arrays[0])]
        if kinds[0] != kinds[1]:
            raise ValueError(
                f"{path} holds {kinds[0]} and {files[0]} holds {kinds[1]}; files that are read together must be alike; "
                "write them with the same columns and type"
            )


def rows_reader(path: Path) -> Reader:
    """Return the reader of a file of plain rows; for an unknown suffix, the first format's."""
    suffix = suffix_of(path)
    return READERS[suffix if suffix is not None and is_rows(path) else suffixes(ROWS)[0]]


def open_array(path: Path) -> np.ndarray:
    """Return the array of real numbers in a file, mapped if its format can be; raises one line for any other file."""
    reader = rows_reader(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; write one with {reader.saved_by.format('rows')}")
    check_installed(reader)
    check_readable(path)
    save = reader.saved_by.format("X")
    try:
        array: np.ndarray = reader.read(path)
    except Exception as error:  # a hostile header fails in many ways: SyntaxError, TokenError, MemoryError, ...
        cure = f"{NUMBERED}{save}" if "Python objects" in str(error) else f"write it with {save}"
        raise ValueError(f"{path} is not a whole {reader.called} file of numbers ({one_line(error)}); {cure}") from None
    if array.dtype.kind not in "fiub":
        cure = NUMBERED if array.dtype.kind in "US" else "write it with "
        raise ValueError(f"{path} holds {array.dtype}; it must hold one array of real numbers; {cure}{save}")
    return array


def open_rows(path: Path, n_features: int | None = None) -> np.ndarray:
    """Return the rows (n_samples, n_features) of a file, as many features as the network takes where that is given."""
    rows = open_array(path)
    n = "n_features" if n_features is None else str(n_features)
    if rows.size == 0:
        raise ValueError(f"{path} is {rows.shape} and so is empty; write rows (n_samples, {n}) into it")
    if rows.ndim != 2 or (n_features is not None and rows.shape[1] != n_features):
        needed = "it must be" if n_features is None else "the network needs"
        raise ValueError(
            f"{path} is {rows.shape}; {needed} rows (n_samples, {n}); "
            "reshape it with X.reshape(len(X), -1), or transpose it"
        )
    return rows


def open_all_rows(names: Names, n_features: int) -> Any:
    """Return the rows (n_samples, n_features) of one file, of several, or of a folder."""
    files = files_of(names)
    parts = [open_rows(Path(path), n_features) for path in files]
    _check_alike(files, parts)
    return parts[0] if len(parts) == 1 else JoinedRows(parts)
