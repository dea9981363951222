"""What is noted of rows that hold something that the training rows did not: as decisions, with their number."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from xpnet.checks import shown
from xpnet.tables.decisions import Decision


@dataclass(frozen=True)
class Note(Decision):
    """A decision about cells of new rows, so that those of several parts of a table add up.

    n: how many cells there are.  cell: the first of them, None for a missing one.  row: where it stands.
    """

    n: int = 0
    cell: str | None = None
    row: Any = None


GAPS = "missing values"
ODD = "cells that are no"
INFINITE = "numbers that are infinite or too large"


def example(column: Any, where: np.ndarray) -> str:
    """Return how many cells there are, and the first of them with its row, such as "3, such as '?' in row 5"."""
    return _detail(*_first(column, where))


def _first(column: Any, where: np.ndarray) -> tuple[int, str, Any]:
    """Return how many cells there are, the first of them, and its row."""
    first = int(np.argmax(where))
    return int(where.sum()), shown(_plain(column.iloc[first])), column.index[first]


def together(notes: Iterable[Decision]) -> list[Decision]:
    """Return the notes of all parts of a table as those of one: a note for each column and kind, with the first row."""
    found: dict[tuple[str, str, str], Decision] = {}
    for note in notes:
        key = note.column, note.found, note.done
        before = found.setdefault(key, note)
        if isinstance(before, Note) and isinstance(note, Note) and before is not note:
            n = before.n + note.n
            found[key] = replace(before, n=n, detail=_detail(n, before.cell, before.row))
    return list(found.values())


def _detail(n: int, cell: str | None, row: Any) -> str:
    if cell is None:
        return f"{n}, in row {row}" + " and others" * (n > 1)
    return f"{n}, {'such as ' if n > 1 else ''}{cell} in row {row}"


def gaps_noted(column: Any, missing: np.ndarray, filler: str) -> list[Decision]:
    """Return the note of missing values in a column that had none in training.  filler: what stands for them."""
    if not missing.any():
        return []
    n, row = int(missing.sum()), column.index[int(np.argmax(missing))]
    done = f"no training row has any: taken as {filler} of the training rows"
    return [Note(str(column.name), GAPS, done, detail=_detail(n, None, row), n=n, row=row)]


def odd_noted(column: Any, odd: np.ndarray, called: str) -> list[Decision]:
    """Return the note of cells that are no numbers, or no dates."""
    return cells_noted(column, odd, f"{ODD} {called}")


def infinite_noted(column: Any, infinite: np.ndarray) -> list[Decision]:
    """Return the note of numbers that are infinite, or become so."""
    return cells_noted(column, infinite, INFINITE)


def cells_noted(column: Any, where: np.ndarray, found: str, done: str = "taken as missing") -> list[Decision]:
    """Return the note of cells (n,) of a column.  found: what they are.  done: what is done with them."""
    if not where.any():
        return []
    n, cell, row = _first(column, where)
    return [Note(str(column.name), found, done, detail=_detail(n, cell, row), n=n, cell=cell, row=row)]


def _plain(value: Any) -> Any:
    """Return a scalar of NumPy's or pandas' as one of Python's, for a message."""
    return value.item() if isinstance(value, np.generic) else value if isinstance(value, (int, float)) else str(value)
