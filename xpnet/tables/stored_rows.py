"""Parquet files of numbers as rows that are read a group of rows at a time, for data larger than memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from xpnet.checks import shown
from xpnet.data.checks import feature_dtype
from xpnet.tables.files import check_same_columns
from xpnet.tables.formats import READERS, check_installed, unreadable
from xpnet.tables.sources import Source

SUFFIX = ".parquet"


class StoredFile:
    """A Parquet file whose columns are numbers; keeps the group of rows that it read last."""

    def __init__(self, path: str) -> None:
        import pyarrow
        import pyarrow.parquet

        try:
            self.file = pyarrow.parquet.ParquetFile(path, memory_map=True)
        except (OSError, pyarrow.ArrowException) as error:
            raise ValueError(unreadable(Source(Path(path)), SUFFIX, error)) from None
        self.path, schema = path, self.file.schema_arrow
        self.types = {name: str(kind) for name, kind in zip(schema.names, schema.types, strict=True)}
        self.sizes = [self.file.metadata.row_group(i).num_rows for i in range(self.file.num_row_groups)]
        self._kept: tuple[Any, Any] = None, None

    def rows(self, group: int | None, columns: tuple[str, ...]) -> np.ndarray:
        """Return some columns of a group of rows (n, n_columns), or of all; a gap is NaN."""
        if self._kept[0] != (group, columns):
            table = self.file.read(list(columns)) if group is None else self.file.read_row_group(group, list(columns))
            found = [table.column(name).to_numpy() for name in columns]
            self._kept = (group, columns), np.column_stack(found) if found else np.empty((table.num_rows, 0))
        kept: np.ndarray = self._kept[1]
        return kept


class RowGroup:
    """The rows (n_samples, n_features) of a group in a file, read when they are indexed."""

    ndim = 2

    def __init__(self, file: StoredFile, group: int, columns: tuple[str, ...], dtype: np.dtype[Any]) -> None:
        self._file, self._group, self._columns, self.dtype = file, group, columns, dtype
        self.shape = (file.sizes[group], len(columns))
        self.nbytes = self.shape[0] * self.shape[1] * dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, chosen: Any) -> np.ndarray:
        return self._file.rows(self._group, self._columns)[chosen].astype(self.dtype)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype)


def stored_rows(paths: list[str], target: str, weights: str | None) -> tuple[list[RowGroup], np.ndarray, Any]:
    """Return the rows of Parquet files, the values (n_samples,) of the target column, and of weights, or None.

    All other columns are features, in the order of the first file.
    """
    check_installed(READERS[SUFFIX])
    files = [StoredFile(path) for path in paths]
    first = files[0]
    for file in files:
        _check_types(file, first)
    for name in (target, weights):
        if name is not None and name not in first.types:
            raise ValueError(
                f"{first.path} has no column {name!r}; it has {shown(list(first.types), 200)}; name one of them"
            )
    columns = tuple(name for name in first.types if name not in (target, weights))
    kinds = [np.dtype(first.file.schema_arrow.field(name).type.to_pandas_dtype()) for name in columns]
    dtype = feature_dtype(np.result_type(np.float32, *kinds))
    parts = [RowGroup(file, i, columns, dtype) for file in files for i, size in enumerate(file.sizes) if size]
    if not parts:
        raise ValueError(f"{first.path} holds no rows; it must have one for each sample; write them, or name others")
    Y, given = (
        None if name is None else np.concatenate([file.rows(None, (name,)).reshape(-1) for file in files])
        for name in (target, weights)
    )
    assert Y is not None
    return parts, Y, given


def _check_types(file: StoredFile, first: StoredFile) -> None:
    """Refuse columns that are no numbers, and other columns or types than those of the first file."""
    import pyarrow

    check_same_columns(first.path, list(first.types), file.path, list(file.types))
    for name, kind in file.types.items():
        found = file.file.schema_arrow.field(name).type
        if not (pyarrow.types.is_integer(found) or pyarrow.types.is_floating(found)):
            raise ValueError(
                f"{file.path} has {kind} in column {name!r}; it must hold numbers, as rows do; leave the column out, "
                "or train it as a table: xpnet train FILE --target COLUMN, or xpnet.TableClassifier"
            )
        if kind != first.types[name]:
            raise ValueError(
                f"{file.path} has {kind} in column {name!r}, and {first.path} has {first.types[name]}; files that are "
                "read together must be alike; write them with the same types"
            )
