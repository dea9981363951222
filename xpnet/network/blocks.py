"""Predict block by block, so that few samples are held at a time, wherever their rows lie."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from xpnet.backend import Backend
from xpnet.program.calls import BATCH

BLOCK = 16 * BATCH  # rows that are converted, or copied to a device, at a time


def predicted_blocks(
    infer: Callable[[Any], Any], rows: Any, ready: Callable[[Any], Any], n_held: int = BLOCK
) -> Iterator[Any]:
    """Yield the results of a method of a network for rows, block by block, on the network's device.

    infer: such as network.predict.  rows (n_samples, n_features): an array, a mapped file or a sparse matrix.
    ready: converts a slice of rows to an array of the network's backend and dtype.  n_held: rows of a slice.
    """
    for start in range(0, rows.shape[0], n_held):
        yield infer(ready(rows[start : start + n_held]).T)


def predict_in_blocks(
    backend: Backend, infer: Callable[[Any], Any], rows: Any, ready: Callable[[Any], Any], n_held: int = BLOCK
) -> np.ndarray:
    """Return the results of a method of a network for all rows, on the host: (n_outputs, n_samples), or (n_samples,).

    backend: the network's.  The other arguments are those of `predicted_blocks`.
    """
    return np.concatenate([backend.to_host(part) for part in predicted_blocks(infer, rows, ready, n_held)], axis=-1)
