"""Rows that lie in several arrays, such as mapped files, and are read where they are indexed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


Piece = tuple[Any, int, int]  # a part, and where its rows begin and end


class JoinedRows:
    """Rows (n_samples, n_features) of several arrays, one after the other.

    parts: arrays (n, n_features) of one type, or what is indexed like them.
    checked: the rows that this process looks at for NaN and infinity, None for all; other processes look at the others.
    """

    ndim = 2

    def __init__(self, parts: Sequence[Any], checked: slice | None = None) -> None:
        self._lay([(part, 0, len(part)) for part in parts])
        self.checked = checked

    def _lay(self, pieces: list[Piece]) -> None:
        self._pieces, first = pieces, pieces[0][0]
        self._starts = np.cumsum([0, *(end - begin for _, begin, end in pieces)])
        self.dtype, self.checked = first.dtype, None
        self.shape = (int(self._starts[-1]), int(first.shape[1]))
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
            found: list[NDArray[Any]] = [part[begin:end] for part, begin, end in self._cut(start, stop)]
            return found[0] if len(found) == 1 else np.concatenate(found)
        places = np.asarray(chosen)
        places = np.where(places < 0, places + len(self), places)
        rows = np.empty((len(places), self.shape[1]), self.dtype)
        owners = np.searchsorted(self._starts, places, "right") - 1
        for owner in np.unique(owners):
            is_its, (part, begin, _) = owners == owner, self._pieces[owner]
            rows[is_its] = part[places[is_its] - self._starts[owner] + begin]
        return rows

    def between(self, chosen: slice) -> JoinedRows:
        """Return the rows of a range, left where they lie."""
        start, stop, _ = chosen.indices(len(self))
        rows = object.__new__(JoinedRows)
        rows._lay(self._cut(start, stop))
        return rows

    def _cut(self, start: int, stop: int) -> list[Piece]:
        """Return what a range has of each part; of an empty one nothing of the first."""
        found = []
        for (part, offset, last), first in zip(self._pieces, self._starts.tolist(), strict=False):
            begin, end = offset + max(start - first, 0), min(offset + stop - first, last)
            if begin < end:
                found.append((part, begin, end))
        return found or [(self._pieces[0][0], 0, 0)]


class Columns:
    """Samples that lie in rows, seen as columns (n_features, n_samples), as a Dataset takes them.

    T: the rows.
    """

    ndim = 2

    def __init__(self, rows: JoinedRows) -> None:
        self.T, self.dtype, self.size = rows, rows.dtype, rows.size
        self.shape = rows.shape[::-1]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self.T, dtype).T
