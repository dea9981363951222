"""What is noted of rows that hold something that the training rows did not: as decisions, with their number."""

from __future__ import annotations

from typing import Any

import numpy as np

from xpnet.checks import shown
from xpnet.tables.decisions import Decision

GAPS = "missing values"
ODD = "cells that are no"
INFINITE = "numbers that are infinite or too large"


def example(column: Any, where: np.ndarray) -> str:
    """Return how many cells there are, and the first of them with its row, such as "3, such as '?' in row 5"."""
    n, first = int(where.sum()), int(np.argmax(where))
    return f"{n}, {'such as ' if n > 1 else ''}{shown(_plain(column.iloc[first]))} in row {column.index[first]}"


def gaps_noted(column: Any, missing: np.ndarray, filler: str) -> list[Decision]:
    """Return the note of missing values in a column that had none in training.  filler: what stands for them."""
    if not missing.any():
        return []
    n, first = int(missing.sum()), column.index[int(np.argmax(missing))]
    done = f"no training row has any: taken as {filler} of the training rows"
    return [Decision(str(column.name), GAPS, done, detail=f"{n}, in row {first}" + " and others" * (n > 1))]


def odd_noted(column: Any, odd: np.ndarray, called: str) -> list[Decision]:
    """Return the note of cells that are no numbers, or no dates."""
    return _noted(column, odd, f"{ODD} {called}")


def infinite_noted(column: Any, infinite: np.ndarray) -> list[Decision]:
    """Return the note of numbers that are infinite, or become so."""
    return _noted(column, infinite, INFINITE)


def _noted(column: Any, where: np.ndarray, found: str) -> list[Decision]:
    if not where.any():
        return []
    return [Decision(str(column.name), found, "taken as missing", detail=example(column, where))]


def _plain(value: Any) -> Any:
    """Return a scalar of NumPy's or pandas' as one of Python's, for a message."""
    return value.item() if isinstance(value, np.generic) else value if isinstance(value, (int, float)) else str(value)
