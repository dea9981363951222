"""Plain rows in units that a network learns slowly or not at all: they are taken as they are, and that is said."""

from __future__ import annotations

import numpy as np

from xpnet.data.dataset import Dataset
from xpnet.tables.decisions import Decision

LARGE = 100.0  # the root mean square of a column from which on it is said
SMALL = 0.01  # the largest magnitude of a column, but 0, up to which it is said


def said_of_magnitudes(training: Dataset) -> list[Decision]:
    """Return what must be said of features and targets far from 1; of files read in blocks and of bytes, of targets."""
    arrays = {"targets": ("Y", training.targets)}
    if not training.is_mapped and training.scale is None:
        arrays = {"features": ("X", training.samples)} | arrays
    found = []
    for called, (name, rows) in arrays.items():
        largest = np.maximum(rows.max(axis=0), -rows.min(axis=0))
        n_far = int(np.count_nonzero(_is_large(rows, largest) | ((largest > 0) & (largest < SMALL))))
        if n_far:
            several = f" ({n_far} of {rows.shape[1]} columns are far from 1)" if rows.shape[1] > 1 else ""
            done = "taken as they are, though a network learns numbers near 1 best"
            option = f"save ({name} - {name}.mean(axis=0)) / {name}.std(axis=0), or train on a table, which is scaled"
            found.append(
                Decision("", f"{called} of {rows.min():.3g} to {rows.max():.3g}{several}", done, option, False)
            )
    return found


def _is_large(rows: np.ndarray, largest: np.ndarray) -> np.ndarray:
    """Whether the root mean square of each column is large; squares are added of what cannot overflow."""
    scale = np.where(largest > 0, largest, 1)
    return np.asarray(largest * np.sqrt(np.mean(np.square(rows / scale), axis=0)) > LARGE)
