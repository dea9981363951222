"""Check the inputs of a network: arrays of its library and dtype, one sample per column."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from xpnet.backend import Backend
from xpnet.checks import refuse_masked
from xpnet.network.architecture import Architecture

Array = Any
FAR = 10  # times the width of the range that rows were trained in, from which on they look like rows in other units


@dataclass(frozen=True)
class InputRange:
    """In what range the features lay that a network was trained on.

    low, high: of all features.  scale: the factor of uint8 ones, which the range has in it; None for others.
    """

    low: float
    high: float
    scale: float | None = None

    def is_far(self, low: float, high: float) -> bool:
        """Whether finite features in that range are far outside; predictions of others are NaN or infinite anyway."""
        margin = FAR * (self.high - self.low)
        is_far = low < self.low - margin or high > self.high + margin
        return bool(is_far and np.isfinite(low) and np.isfinite(high))

    def advice(self, low: float, high: float) -> str:
        """Say what features in a range far outside may be, and what would help."""
        cure = "scale them as the training data were"
        if self.scale is not None:
            cure = f"bytes are scaled by {self.scale:.6g}: pass them as uint8 or as a Dataset"
        return (
            f"the features are {low:.6g} to {high:.6g}, far outside {self.low:.6g} to {self.high:.6g}, in which the "
            f"network was trained; {cure}"
        )


def scaled_rows(backend: Backend, rows: Array, scale: float | None) -> Array:
    """Return rows of features on the backend in its dtype; scale: the factor of uint8 ones."""
    values = backend.to_device(rows)
    return values if scale is None else values * float(scale)


def check_samples(
    backend: Backend, architecture: Architecture, X: Array, Y: Array | None = None, weights: Array | None = None
) -> int:
    """Refuse arrays of the wrong library, dtype or shape; return the number of samples."""
    _check_array(backend, "X", X, architecture.n_inputs)
    n_samples: int = X.shape[1]
    if Y is not None:
        _check_array(backend, "Y", Y, architecture.n_outputs)
        if Y.shape[1] != n_samples:
            raise ValueError(f"X has {n_samples} samples (columns) and Y has {Y.shape[1]}; give one column per sample")
    if weights is not None:
        _check_side(backend, "weights", weights)
        if tuple(weights.shape) != (n_samples,):
            raise ValueError(
                f"weights is {tuple(weights.shape)}; it must be ({n_samples},), one number per sample; "
                f"reshape it with weights.reshape({n_samples})"
            )
        values = backend.to_host(weights)
        if not (values.min() >= 0.0 and values.max() < np.inf):  # so that NaN fails too
            raise ValueError(
                "weights hold a number below 0, infinity or NaN; they must be finite and at least "
                "0: give a sample that should not count the weight 0"
            )
    return n_samples


def _check_side(backend: Backend, name: str, array: Array) -> None:
    """Refuse anything but an array of the network's library and dtype."""
    if not backend.owns(array):
        side = f"{type(array).__module__.partition('.')[0]}.{type(array).__qualname__}"
        convert = f"pass network.backend.to_device({name})"
        if backend.device == "cpu" and hasattr(array, "columns"):
            convert = f"pass network.backend.to_device({name}.to_numpy().T), one sample a column"
        elif backend.device == "cpu" and hasattr(array, "get"):
            convert = f"pass backend.to_host({name}), with the backend that it came from"
        raise TypeError(f"{name} is a {side}, the network uses {backend.name} on {backend.device}; {convert}")
    refuse_masked(**{name: array})
    backend.check_here(**{name: array})
    if name == "X" and array.dtype == np.uint8:
        raise TypeError(
            f"X is uint8, the network computes in {backend.dtype}; pass network.backend.to_device(X) scaled as its "
            "training data were, or predict a Dataset, which has the scale of its bytes"
        )
    if array.dtype != backend.dtype:
        raise TypeError(
            f"{name} is {array.dtype}, the network computes in {backend.dtype}; pass network.backend.to_device({name})"
        )


def _check_array(backend: Backend, name: str, array: Array, n_rows: int) -> None:
    if type(array) is not np.ndarray or array.dtype != backend.dtype or backend.xp is not np:
        _check_side(backend, name, array)
    shape = array.shape
    if len(shape) == 2 and shape[0] == n_rows and shape[1] > 0:
        return
    raise ValueError(_shape_message(name, tuple(shape), n_rows))


def _shape_message(name: str, shape: tuple[int, ...], n_rows: int) -> str:
    wanted = f"{name} is {shape}; it must be ({n_rows}, n_samples)"
    if len(shape) == 2 and shape[1] == n_rows:
        return f"{name} is {shape}; one sample is one column: pass {name}.T"
    if len(shape) == 1 and n_rows == 1:
        return f"{wanted}; one sample is one column: pass {name}.reshape(1, -1)"
    if len(shape) == 1 and shape[0] == n_rows:
        return f"{wanted}; one sample is one column: pass {name}.reshape({n_rows}, 1)"
    if len(shape) > 2 and int(np.prod(shape[:-1])) == n_rows:
        return f"{wanted}; flatten it with {name}.reshape({n_rows}, -1)"
    if len(shape) > 2 and int(np.prod(shape[1:])) == n_rows:
        return f"{wanted}; flatten it with {name}.reshape({shape[0]}, -1).T"
    return f"{wanted} with at least one sample; give one row per {'feature' if name == 'X' else 'output'}"
