"""Rows that lie in several arrays, such as mapped files, and are read where they are indexed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Rows:
    """Rows (n_samples, n_features) of several arrays, one after the other.

    parts: arrays (n, n_features) of one type.
    checked: the rows that this process looks at for NaN and infinity, None for all; other processes look at the others.
    """

    ndim = 2

    def __init__(self, parts: Sequence[NDArray[Any]], checked: slice | None = None) -> None:
        self._parts = list(parts)
        self._starts = np.cumsum([0, *map(len, parts)])
        self.dtype, self.checked = parts[0].dtype, checked
        self.shape = (int(self._starts[-1]), int(parts[0].shape[1]))
        self.size = self.shape[0] * self.shape[1]
        self.nbytes = self.size * self.dtype.itemsize

    @property
    def T(self) -> Columns:
        """The same samples, one a column."""
        return Columns(self)

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[:], dtype)

    def __getitem__(self, chosen: Any) -> NDArray[Any]:
        """Return rows by a slice or by whole numbers (n,) from 0; those of a range in one part are a view."""
        if isinstance(chosen, slice):
            start, stop, step = chosen.indices(len(self))
            if step != 1:
                return self[np.arange(start, stop, step)]
            found = self._cut(start, stop) or [self._parts[0][:0]]
            return found[0] if len(found) == 1 else np.concatenate(found)
        places = np.asarray(chosen)
        places = np.where(places < 0, places + len(self), places)
        rows = np.empty((len(places), self.shape[1]), self.dtype)
        owners = np.searchsorted(self._starts, places, "right") - 1
        for owner in np.unique(owners):
            is_its = owners == owner
            rows[is_its] = self._parts[owner][places[is_its] - self._starts[owner]]
        return rows

    def between(self, chosen: slice) -> Rows:
        """Return the rows of a range, left where they lie."""
        start, stop, _ = chosen.indices(len(self))
        return Rows(self._cut(start, stop) or [self._parts[0][:0]])

    def _cut(self, start: int, stop: int) -> list[NDArray[Any]]:
        """Return what a range has of each part."""
        found = []
        for part, first in zip(self._parts, self._starts.tolist(), strict=False):
            begin, end = max(start - first, 0), min(stop - first, len(part))
            if begin < end:
                found.append(part[begin:end])
        return found


class Columns:
    """Samples that lie in rows, seen as columns (n_features, n_samples), as a Dataset takes them.

    T: the rows.
    """

    ndim = 2

    def __init__(self, rows: Rows) -> None:
        self.T, self.dtype, self.size = rows, rows.dtype, rows.size
        self.shape = rows.shape[::-1]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self.T, dtype).T
