"""Prepare scikit-learn's rows for training, sparse ones and those on a GPU included.

`side_of` tells where an array lies. `dataset_of` makes the Dataset that suits, whose columns are views of the rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from xpnet.backend import Backend
from xpnet.data.checks import check_finite, checked_weights, feature_dtype, read_only, target_dtype
from xpnet.data.dataset import Dataset, UploadedDataset, uploaded
from xpnet.data.feed import rows_held
from xpnet.network.blocks import predicted_blocks
from xpnet.network.network import Network
from xpnet.program.calls import BATCH

Array = Any
PREDICTED = 8 * BATCH  # the most rows made dense, or copied to a GPU, at a time
_KINDS = {1: "cpu", 2: "cuda"}  # kDLCPU and kDLCUDA of DLPack's DLDeviceType
_OTHERS = {3: "in page-locked memory of the host (kDLCUDAHost)", 13: "in memory that CUDA moves (kDLCUDAManaged)"}


def side_of(array: Any) -> str:
    """Return "cuda" for an array that says it lies on a GPU, "cpu" for all else, lists and frames too.

    Raises TypeError for an array on another kind of device.
    """
    if isinstance(array, np.ndarray) or not hasattr(array, "__dlpack_device__"):
        return "cpu"
    kind = int(array.__dlpack_device__()[0])
    if kind not in _KINDS:
        place = _OTHERS.get(kind, f"on a device of DLPack's kind {kind}")
        raise TypeError(f"{_name(array)} lies {place}; it must lie on the CPU or a CUDA GPU: copy it to the host first")
    return _KINDS[kind]


def check_sides(**arrays: Any) -> str:
    """Return the side that all arrays lie on, None among them left out; raises TypeError if they lie on two."""
    sides = {name: side_of(array) for name, array in arrays.items() if array is not None}
    (first, side), *others = sides.items()
    for name, other in others:
        if other != side:
            raise TypeError(
                f"{first} is a {_name(arrays[first])} on {side} and {name} a {_name(arrays[name])} on "
                f"{other}; pass both on one side, such as cupy.asarray({name if side == 'cuda' else first})"
            )
    return side


def check_device(X: Any, device: str) -> None:
    """Refuse rows on a GPU for a network on the CPU."""
    if side_of(X) == "cuda" and device == "cpu":
        raise TypeError(
            f"X is a {_name(X)} on cuda and the network is on cpu; pass X.get(), or move the estimator: "
            "device='cuda' before fit, .to('cuda') after it"
        )


def imported(array: Any, backend: Backend | None) -> Any:
    """Return what a DLPack producer holds as an array of NumPy, or of the backend's library on a GPU; not copied."""
    if side_of(array) == "cuda":
        assert backend is not None
        array = array if backend.owns(array) else backend.xp.from_dlpack(array)
        backend.check_here(X=array)
        return array
    if isinstance(array, np.ndarray) or not hasattr(array, "__dlpack__") or hasattr(array, "columns"):
        return array  # frames have columns
    return np.from_dlpack(array)


def on_host(array: Any, backend: Backend) -> Any:
    """Return the array, copied from the GPU where it lies there; all else as it is."""
    return backend.to_host(imported(array, backend)) if side_of(array) == "cuda" else array


def dataset_of(X: Array, Y: np.ndarray, weights: np.ndarray | None, backend: Backend) -> Dataset:
    """Return rows X (n_samples, n_features) and targets Y (n_samples, n_outputs) as a Dataset.

    X: a host array, a CSR matrix, or an array of the backend on a GPU.
    """
    if side_of(X) == "cuda":
        return DeviceDataset(X, Y, weights)
    if not hasattr(X, "toarray"):
        return Dataset(X.T, Y.T, weights)
    if X.shape[0] <= rows_held(X.shape[1] * backend.dtype.itemsize):  # as many rows as a mapped file would hold
        return Dataset(X.toarray().T, Y.T, weights)
    return SparseDataset(X, Y, weights)


def outputs_for_rows(network: Network, X: Array, linked: bool) -> Array:
    """Return the outputs (n_samples, n_outputs) for checked rows, on their side.  linked: through the loss's link."""
    backend, on_cpu = network.backend, side_of(X) == "cpu"
    # A sparse matrix is never the backend's; there is one part where nothing must be copied.
    n_held = X.shape[0] if backend.owns(X) else min(PREDICTED, rows_held(X.shape[1] * backend.dtype.itemsize))
    infer = network.predict if linked else network.forward
    parts = [part.T for part in predicted_blocks(infer, X, lambda rows: dense(rows, backend), n_held)]
    if on_cpu:
        parts = [backend.to_host(part) for part in parts]
    outputs = parts[0] if len(parts) == 1 else (np if on_cpu else backend.xp).concatenate(parts)
    if on_cpu and np.isnan(np.minimum.reduce(outputs, None)):  # NaN would be read as the first class
        row = int(np.isnan(outputs).any(axis=1).argmax())
        raise ValueError(
            f"the network's output for row {row} of X is NaN: its features are too "
            f"large for {backend.dtype}, or the training diverged; scale the features as those of the "
            "training, or fit again with a lower learning_rate_init"
        )
    return outputs


def dense(X: Array, backend: Backend) -> Array:
    """Return rows, perhaps of a sparse matrix, as an array of the backend in its dtype."""
    return backend.to_device(X.toarray() if hasattr(X, "toarray") else X)


class DenseRows:
    """Rows of a CSR matrix; a slice of them comes as a dense array."""

    def __init__(self, matrix: Any) -> None:
        self._matrix, self.shape, self.dtype = matrix, matrix.shape, matrix.dtype

    def __getitem__(self, rows: slice) -> np.ndarray:
        dense: np.ndarray = self._matrix[rows].toarray()
        return dense


class _RowDataset(Dataset):
    """The base of the data sets below: targets and weights on the host; of the features, only their rows."""

    def __init__(self, rows: Any, Y: np.ndarray, weights: np.ndarray | None, is_mapped: bool) -> None:
        self._samples = rows
        self._scale, self._is_mapped, self._is_classification = None, is_mapped, None
        self.meets = set()
        self._targets = read_only(Y, target_dtype(Y))
        check_finite("Y", self._targets, "output")
        self._weights = None if weights is None else checked_weights(weights, rows.shape[0])


class SparseDataset(_RowDataset):
    """A CSR matrix whose rows become dense block by block, as those of a mapped file are read: see `xpnet.data.feed`.

    X (n_samples, n_features): finite numbers.  Y (n_samples, n_outputs).  weights (n_samples,) or None.
    """

    def __init__(self, X: Any, Y: np.ndarray, weights: np.ndarray | None = None) -> None:
        super().__init__(DenseRows(X), Y, weights, is_mapped=True)


class DeviceDataset(_RowDataset):
    """Features that lie on a GPU and stay there.

    X (n_samples, n_features): an array of the backend's library.  Y (n_samples, n_outputs) and weights (n_samples,),
    or None, on the host.
    """

    def __init__(self, X: Any, Y: np.ndarray, weights: np.ndarray | None = None) -> None:
        super().__init__(X, Y, weights, is_mapped=False)

    def upload(self, backend: Backend) -> UploadedDataset:
        """Return the arrays on `backend`: the features as they are, or in its dtype where they have another."""
        X = self._samples if self._samples.dtype == backend.dtype else self._samples.astype(backend.dtype)
        if not X.flags.c_contiguous:
            X = X.copy()
        return uploaded(self, X, backend, bytes_of_X=0)


def float_type(X: Any, dtype: Any) -> Any:
    """Return `dtype`, or, if that is None, the float type of X."""
    return feature_dtype(X.dtype) if dtype is None else dtype


def _name(array: Any) -> str:
    return f"{type(array).__module__.partition('.')[0]}.{type(array).__qualname__}"
