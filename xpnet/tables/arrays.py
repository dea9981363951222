"""Files of plain rows (.npy), as mapped arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from xpnet.checks import one_line
from xpnet.files import check_readable
from xpnet.tables.files import is_rows
from xpnet.tables.formats import READERS, ROWS, Reader, check_installed, suffix_of, suffixes


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
        array = reader.read(path)
    except Exception as error:  # a hostile header fails in many ways: SyntaxError, TokenError, MemoryError, ...
        raise ValueError(
            f"{path} is not a whole {reader.called} file of numbers ({one_line(error)}); write it with {save}"
        ) from None
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiub":
        raise ValueError(f"{path} does not hold one array of real numbers; write it with {save}")
    return array


def open_rows(path: Path, n_features: int | None = None) -> np.ndarray:
    """Return rows (n_samples, n_features), as many features as the network takes where that is given."""
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
