"""Check what a Dataset is given: types, shapes, finite values, weights, labels, indices.

Every refusal says what was found, what is needed and the call that fixes it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from xpnet.checks import check_number, refuse_masked
from xpnet.data.parts import Columns, JoinedRows

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

# Checks and conversions walk over the data in pieces of this many elements: no full-size temporary is made.
PIECE = 1 << 20

# Integers up to here are exact in float32.
_FLOAT32_INTEGERS = 1 << 24


def real_array(name: str, value: Any) -> NDArray[Any]:
    """Return `value` as a host array of real numbers, not copied where it is one."""
    array = _host_array(name, value)
    if array.dtype.kind not in "biuf":
        raise TypeError(
            f"{name} has dtype {array.dtype}; a Dataset needs real numbers. Convert it, for example with "
            f"np.asarray({name}, dtype=np.float32)."
        )
    return array


def _host_array(name: str, value: Any) -> NDArray[Any]:
    if hasattr(value, "__cuda_array_interface__"):
        raise TypeError(
            f"{name} is a {type(value).__name__} in GPU memory; a Dataset lives in host memory, train "
            f"uploads it. Pass {name}.get() (CuPy) or {name}.cpu() (PyTorch)."
        )
    refuse_masked(**{name: value})
    try:
        return np.asarray(value)
    except (TypeError, ValueError) as error:
        reason = str(error).split("\n")[0]
        raise TypeError(
            f"{name} is a {type(value).__name__} that NumPy cannot read ({reason}); a Dataset needs "
            "an array of real numbers in host memory. Pass a NumPy array."
        ) from None


def check_shapes(X: NDArray[Any] | Columns, Y: NDArray[Any]) -> None:
    """Refuse shapes that do not fit, and say which array to transpose where rows were given."""
    if X.ndim != 2:
        raise ValueError(
            f"X is {X.shape}; a Dataset needs two dimensions, (n_features, n_samples). {_flattening(X, Y)}"
        )
    if Y.ndim not in (1, 2):
        raise ValueError(
            f"Y is {Y.shape}; a Dataset needs (n_outputs, n_samples) or (n_samples,). Reshape it, for "
            "example with Y.reshape(-1, n_samples)."
        )
    for name, array in (("X", X), ("Y", Y)):
        if array.size == 0:
            raise ValueError(
                f"{name} is {array.shape} and so is empty; a Dataset needs at least one sample, one feature "
                "and one output. Check the selection or file that it came from."
            )
    if X.shape[1] == Y.shape[-1]:
        return
    found = f"X is {X.shape} and Y is {Y.shape}: {X.shape[1]} and {Y.shape[-1]} samples"
    if X.shape[0] == Y.shape[-1]:
        raise ValueError(f"{found}. X looks row-wise: X is {X.shape}; one sample is one column: pass X.T.")
    if Y.ndim == 2 and X.shape[1] == Y.shape[0]:
        raise ValueError(f"{found}. Y looks row-wise: Y is {Y.shape}; one sample is one column: pass Y.T.")
    if Y.ndim == 2 and X.shape[0] == Y.shape[0]:
        raise ValueError(f"{found}. Both look row-wise; one sample is one column: pass X.T and Y.T.")
    raise ValueError(f"{found}; a Dataset needs one column of Y for each column of X. Pass as many of each.")


def _flattening(X: NDArray[Any] | Columns, Y: NDArray[Any]) -> str:
    """Return the call that makes X two-dimensional, judged by which of its axes counts the samples."""
    n_samples = Y.shape[-1] if Y.ndim else 1
    if X.ndim < 2:
        return "One feature: pass X.reshape(1, -1). One sample: pass X.reshape(-1, 1)."
    if X.shape[-1] != n_samples and X.shape[0] == n_samples:
        return f"One sample is one column: pass X.reshape({n_samples}, -1).T."
    return f"Flatten it with X.reshape(-1, {X.shape[-1]})."


def checked_scale(scale: float | None, dtype: np.dtype[Any]) -> float | None:
    """Return the factor of uint8 features, 1/255 unless given, and None for features of another type."""
    if dtype != np.uint8:
        if scale is not None:
            raise ValueError(
                f"scale is {scale!r} but X has dtype {dtype}; scale is for uint8 only. Leave it out, or "
                "multiply X by it."
            )
        return None
    return 1 / 255 if scale is None else check_number("scale", scale, above=0, example="scale=1/255")


def feature_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the type that features of `dtype` are stored in: uint8, or a native float32 or float64."""
    if dtype == np.uint8:
        return dtype
    at_least_float32 = np.result_type(dtype, np.float32)
    return np.dtype(np.float32 if at_least_float32 == np.float32 else np.float64)


def target_dtype(Y: NDArray[Any]) -> np.dtype[Any]:
    """Return float32 for targets, except where they are float64 or integers too large for it."""
    if Y.dtype.kind in "iu":
        exact = int(Y.min()) >= -_FLOAT32_INTEGERS and int(Y.max()) <= _FLOAT32_INTEGERS
        return np.dtype(np.float32 if exact else np.float64)
    return feature_dtype(Y.dtype)


def read_only(array: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return a C-ordered, read-only view, or a copy where order or type demand one."""
    # The flag is set on a view of our own: the caller's array stays as writeable as it was.
    view = np.ascontiguousarray(array, dtype=dtype).view()
    view.setflags(write=False)
    return view


def mapped_rows(rows: Any) -> Any:
    """Return a read-only view of rows in a mapped file, refused where a sample is not contiguous in it."""
    if isinstance(rows, JoinedRows):
        return rows
    if not rows.flags.c_contiguous:
        raise ValueError(
            f"X is a memmap whose file does not hold samples as rows: ({rows.shape[1]}, {rows.shape[0]}), C-ordered. "
            "Save it with np.save(path, np.ascontiguousarray(X.T)) and pass np.load(path, mmap_mode='r').T."
        )
    view = rows.view()
    view.setflags(write=False)
    return view


class NotFinite(ValueError):
    """Samples with NaN or infinity.  found: what and where, for the words of a command."""

    def __init__(self, name: str, n_bad: int, place: str) -> None:
        super().__init__(name, n_bad, place)
        which = "values that are" if n_bad > 1 else "value that is"
        self.name, self.found = name, f"{name} holds {n_bad} {which} NaN or infinite, {place}"

    def __str__(self) -> str:
        return (
            f"{self.found}; a Dataset needs finite numbers. Keep the good samples with keep = "
            f"np.isfinite({self.name}).all(axis=0) and X[:, keep], Y[:, keep], or fill the gaps."
        )


def check_finite(name: str, base: NDArray[Any] | JoinedRows, row_name: str) -> None:
    """Refuse NaN and infinity in a base (n_samples, n), naming the first by its row and column in `name`."""
    if base.dtype.kind in "biu":
        return
    n_bad, first, found = 0, -1, None
    start, stop, _ = (base.checked if isinstance(base, JoinedRows) and base.checked else slice(None)).indices(len(base))
    step = max(1, PIECE // base.shape[1])
    for begin in range(start, stop, step):
        piece = base[begin : min(begin + step, stop)]
        finite = np.isfinite(piece)
        if not finite.all():
            n_bad += int(np.count_nonzero(~finite))
            if first < 0:
                place = int(np.argmin(finite))
                first, found = begin * base.shape[1] + place, piece.flat[place]
    if n_bad:
        sample, row = divmod(first, base.shape[1])
        raise NotFinite(name, n_bad, f"the first at {row_name} {row}, sample {sample} ({found})")


def check_range(name: str, base: NDArray[Any], dtype: np.dtype[Any]) -> None:
    """Refuse numbers in a base (n_samples, n) that would be infinite in `dtype`."""
    if base.dtype.kind != "f" or base.dtype.itemsize <= dtype.itemsize:
        return
    largest = max(abs(float(base.min())), abs(float(base.max())))
    if largest > float(np.finfo(dtype).max):
        raise ValueError(
            f"{name} holds a number of size {largest:g}, too large for {dtype}. Scale it, or compute in "
            "float64, with dtype='float64' (--dtype float64)."
        )


def checked_weights(weights: ArrayLike, n_samples: int) -> NDArray[Any]:
    """Return weights (n_samples,) as finite floats of at least 0, not all zero."""
    given = real_array("weights", weights)
    if given.shape != (n_samples,):
        fix = "Pass weights.ravel()." if given.size == n_samples else "Pass one weight for each column of X."
        raise ValueError(f"weights is {given.shape}; a Dataset of {n_samples} samples needs ({n_samples},). {fix}")
    stored = read_only(given, feature_dtype(np.result_type(given.dtype, np.float32)))
    bad = ~(np.isfinite(stored) & (stored >= 0))
    if bad.any():
        first = int(np.argmax(bad))
        raise ValueError(
            f"weights is {stored[first]} at sample {first} ({np.count_nonzero(bad)} such in all); weights "
            "must be finite and at least 0. Give a sample that should not count the weight 0."
        )
    if not stored.any():
        raise ValueError(
            "weights are all zero; at least one must be above 0. Leave weights out to count all samples alike."
        )
    return stored


def check_chosen(weights: NDArray[Any] | None) -> None:
    """Refuse a choice of samples whose weights are all zero."""
    if weights is not None and not weights.any():
        raise ValueError(
            f"the weights of the {len(weights)} samples chosen are all zero; at least one must be "
            "above 0. Choose other samples, or build the Dataset without weights."
        )


def checked_labels(labels: ArrayLike) -> NDArray[Any]:
    """Return labels (n_samples,) that are whole numbers >= 0, in the type they came in."""
    numbers = _host_array("labels", labels)
    if numbers.dtype.kind not in "biuf":
        raise TypeError(
            f"labels have dtype {numbers.dtype}; Dataset.from_labels needs whole numbers from 0. Number them "
            "with np.unique(labels, return_inverse=True)[1]."
        )
    if numbers.ndim != 1 or numbers.size == 0:
        raise ValueError(
            f"labels is {numbers.shape}; Dataset.from_labels needs (n_samples,), one label a sample. Pass "
            "labels.ravel(), or Dataset(X, Y) where they are one-hot columns already."
        )
    bad = numbers < 0
    if numbers.dtype.kind == "f":
        # NaN compares unequal to itself and infinity is no class either.
        bad |= (numbers != np.floor(numbers)) | ~np.isfinite(numbers)
    if bad.any():
        first = int(np.argmax(bad))
        raise ValueError(
            f"label {numbers[first]} at sample {first}; labels must be whole numbers from 0. Number the "
            "classes with np.unique(labels, return_inverse=True)[1]; for targets that are measured pass "
            "Dataset(X, Y)."
        )
    return numbers


def checked_indices(indices: ArrayLike, n_samples: int) -> NDArray[Any]:
    """Return indices (n,) as whole numbers within the data set."""
    chosen = np.asarray(indices)
    if chosen.size == 0 and chosen.ndim == 1:
        chosen = chosen.astype(np.intp)  # an empty list is float64
    if chosen.dtype.kind not in "iu" or chosen.ndim != 1:
        raise TypeError(
            f"indices are {chosen.dtype} of shape {chosen.shape}; subset needs a slice or integers of shape "
            "(n,). Pass np.flatnonzero(mask) for a mask, [i] for one sample."
        )
    bad = (chosen < -n_samples) | (chosen >= n_samples)
    if bad.any():
        raise ValueError(
            f"index {chosen[np.argmax(bad)]} is out of range; the dataset has {n_samples} samples: pass 0 to "
            f"{n_samples - 1}."
        )
    return chosen
