"""`Dataset`: samples and their targets, checked once so that training need not check again.

One sample is one column: X is (n_features, n_samples), Y is (n_outputs, n_samples). In memory one sample is
contiguous: the stored bases are C-ordered (n_samples, ...) and X and Y are their transposed views, because
a row is gathered from one piece of memory, a column from one for each feature. Next on the path: `xpnet.train`, which
uploads a Dataset once and draws its batches by index.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from xpnet.checks import by_their_mean, check_whole
from xpnet.data.checks import (
    PIECE,
    check_chosen,
    check_finite,
    check_range,
    check_shapes,
    checked_indices,
    checked_scale,
    checked_weights,
    feature_dtype,
    mapped_rows,
    read_only,
    real_array,
    target_dtype,
)
from xpnet.data.classes import holds_classes, labels_of, one_hot, stratified, weights_by_class
from xpnet.data.parts import Columns, JoinedRows

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from xpnet.backend import Backend

__all__ = ["Dataset", "standardize"]

Demands = set[tuple[int, int, str]]  # inputs, outputs and kind of targets: what networks ask of data


class UploadedDataset(NamedTuple):
    """A Dataset's arrays on a backend, one sample a row (the C-ordered bases that batches are gathered from).

    X (n_samples, n_features): uint8 (multiply by scale after gathering) or the backend's dtype
    Y (n_samples, n_outputs): the backend's dtype
    weights (n_samples, 1): the backend's dtype, or None
    scale: factor for uint8 X, or None; nbytes: bytes that crossed to the device, 0 on the CPU
    """

    X: Any
    Y: Any
    weights: Any
    scale: float | None
    n_samples: int
    nbytes: int


class Dataset:
    """Validated, immutable samples in host memory; one sample is one column.

    X (n_features, n_samples): uint8 stands for X * scale, 1/255 if not given; float32 and float64 stay; other types
        become float32, or float64 where float32 cannot hold them.
    Y (n_outputs, n_samples), or (n_samples,) for one output: real numbers, stored as float32 or float64.
    weights (n_samples,): one finite weight >= 0 a sample, not all zero; None means all equal.
    An array whose `.T` is already C-ordered is not copied: do not change it afterwards. Raises TypeError for
    arrays that do not hold real numbers, ValueError for shapes, NaN or infinity, bad weights and a bad scale.
    X may be a `numpy.memmap` of a file larger than memory: `Dataset(rows.T, Y)` with rows = np.load(path,
    mmap_mode="r"). Its type stays, and training reads it in blocks, shuffled less than fully (`xpnet.data.feed`).
    """

    def __init__(
        self, X: ArrayLike, Y: ArrayLike, weights: ArrayLike | None = None, *, scale: float | None = None
    ) -> None:
        features, targets = X if isinstance(X, Columns) else real_array("X", X), real_array("Y", Y)
        check_shapes(features, targets)
        self._scale = checked_scale(scale, features.dtype)
        # A copy of a map keeps the type, and has no `_mmap`.
        self._is_mapped = isinstance(X, Columns) or (isinstance(X, np.memmap) and getattr(X, "_mmap", None) is not None)
        rows: Any = features.T
        self._samples = mapped_rows(rows) if self._is_mapped else read_only(rows, feature_dtype(rows.dtype))
        self._targets = read_only(targets.reshape(-1, features.shape[1]).T, target_dtype(targets))
        check_finite("X", self._samples, "feature")
        check_finite("Y", self._targets, "output")
        self._weights = None if weights is None else checked_weights(weights, self.n_samples)
        self._is_classification: bool | None = None
        self.meets: Demands = set()  # those already checked, so that a data set is looked at once for each

    @classmethod
    def from_labels(
        cls,
        X: ArrayLike,
        labels: ArrayLike,
        n_classes: int | None = None,
        weights: ArrayLike | None = None,
        *,
        scale: float | None = None,
    ) -> Dataset:
        """Return a Dataset whose Y (n_classes, n_samples) holds the labels as one-hot float32 columns.

        labels (n_samples,): whole numbers 0 to n_classes - 1.  n_classes: at least 2; None takes the largest label + 1.
        Raises TypeError for labels that are not numbers, ValueError for labels out of range or not whole.
        """
        return cls(X, one_hot(labels, n_classes).T, weights, scale=scale)

    @property
    def X(self) -> NDArray[Any]:
        """The features (n_features, n_samples): a read-only view; uint8 stands for X * scale."""
        return self._samples.T

    @property
    def Y(self) -> NDArray[Any]:
        """The targets (n_outputs, n_samples): a read-only view, float32 or float64."""
        return self._targets.T

    @property
    def samples(self) -> NDArray[Any]:
        """The features as stored, (n_samples, n_features), C-ordered, read-only."""
        return self._samples

    @property
    def targets(self) -> NDArray[Any]:
        """The targets as stored, (n_samples, n_outputs), C-ordered, read-only."""
        return self._targets

    @property
    def weights(self) -> NDArray[Any] | None:
        """The sample weights (n_samples,), read-only, or None where all samples count alike."""
        return self._weights

    @property
    def scale(self) -> float | None:
        """The factor that uint8 features stand for, or None where X holds floats."""
        return self._scale

    @property
    def is_mapped(self) -> bool:
        """Whether the features lie in a mapped file, to be read in blocks."""
        return self._is_mapped

    @property
    def n_features(self) -> int:
        """Number of features: rows of X."""
        return int(self._samples.shape[1])

    @property
    def n_outputs(self) -> int:
        """Number of outputs: rows of Y."""
        return int(self._targets.shape[1])

    @property
    def n_samples(self) -> int:
        """Number of samples: columns of X and Y."""
        return int(self._samples.shape[0])

    @property
    def is_classification(self) -> bool:
        """Whether Y holds classes: one-hot columns, or for one output only the values 0 and 1."""
        if self._is_classification is None:
            self._is_classification = holds_classes(self._targets)
        return self._is_classification

    @property
    def labels(self) -> NDArray[Any]:
        """The class of every sample, (n_samples,) integers. Raises ValueError where Y holds no classes."""
        return labels_of(self._targets, self.is_classification)

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        for array in (self._samples, self._targets, self._weights):
            if isinstance(array, np.ndarray):
                array.setflags(write=False)

    def __len__(self) -> int:
        return self.n_samples

    def __repr__(self) -> str:
        scaled = "" if self._scale is None else f" x {self._scale:.6g}"
        classes = ", classes" if self.is_classification else ""
        mapped = ", mapped" if self._is_mapped else ""
        weighted = "" if self._weights is None else f", weights {self._weights.dtype}"
        return (
            f"Dataset(X ({self.n_features}, {self.n_samples}) {self._samples.dtype}{scaled}, "
            f"Y ({self.n_outputs}, {self.n_samples}) {self._targets.dtype}{classes}{weighted}{mapped})"
        )

    def subset(self, indices: ArrayLike | slice) -> Dataset:
        """Return the chosen samples as a Dataset: a view for a slice of step 1, otherwise a copy.

        indices: a slice, or (n,) integers from -n_samples to n_samples - 1, in any order and also repeated
        Raises TypeError for indices that are not integers, ValueError for a choice that is empty, out of
        range or of samples whose weights are all zero.
        """
        chosen = indices if isinstance(indices, slice) else checked_indices(indices, self.n_samples)
        part = object.__new__(Dataset)
        part._scale = self._scale
        part._is_mapped = self._is_mapped and isinstance(chosen, slice) and chosen.step in (None, 1)
        if isinstance(self._samples, JoinedRows) and isinstance(chosen, slice) and part._is_mapped:
            part._samples = self._samples.between(chosen)
        else:
            part._samples = read_only(self._samples[chosen], self._samples.dtype)
        part._targets = read_only(self._targets[chosen], self._targets.dtype)
        part._weights = None if self._weights is None else read_only(self._weights[chosen], self._weights.dtype)
        # A subset of classes holds classes; one of other numbers may do so by chance.
        part._is_classification = self._is_classification or None
        part.meets = set(self.meets)
        if part.n_samples == 0:
            raise ValueError(f"subset({indices!r}) holds no sample; choose at least one of the {self.n_samples}.")
        check_chosen(part._weights)
        return part

    def with_class_weight(self, class_weight: str | Mapping[int, float] | Sequence[float]) -> Dataset:
        """Return the same samples with weights multiplied by their class's weight.

        class_weight: {label: weight}, 1 for labels left out, or one weight a class, or "balanced" for
        n_samples / (n_classes * count) over the classes that occur, counted by sample weight if there are any.
        Source: King and Zeng (2001), Logistic Regression in Rare Events Data; scikit-learn's rule.
        Raises ValueError where Y holds no classes, or for unknown labels or bad weights.
        """
        weights = weights_by_class(class_weight, self.labels, self._weights, max(2, self.n_outputs))
        weighted = self.subset(slice(None))
        weighted._weights = checked_weights(weights, self.n_samples)
        return weighted

    def split(self, fraction: float, seed: int = 0, stratify: bool = False) -> tuple[Dataset, Dataset]:
        """Return (train, held_out): a random `fraction` of the samples held out, at least one on each side.

        Both sides keep the samples' order; the same seed gives the same split. `stratify` holds out the same
        fraction of every class (largest remainders make up the total).
        Raises ValueError for a fraction outside (0, 1), a single sample, stratify without classes, or a mapped file.
        """
        is_held_out = _held_out(self, fraction, seed, stratify)
        return self.subset(np.flatnonzero(~is_held_out)), self.subset(np.flatnonzero(is_held_out))

    def batches(self, batch_size: int, seed: int | None = None) -> Iterator[tuple[NDArray[Any], ...]]:
        """Return an iterator of (X, Y), or (X, Y, weights) where there are weights; the last may be short.

        X (n_features, batch), Y (n_outputs, batch), weights (batch,); uint8 features come scaled, as float32.
        seed None goes through the samples in order, a number shuffles them.
        Raises TypeError or ValueError at the call for a batch_size below 1 or a bad seed.
        """
        batch_size = check_whole("batch_size", batch_size, at_least=1)
        return _batches(self, batch_size, None if seed is None else _order(self.n_samples, seed))

    def relative_weights(self) -> NDArray[Any] | None:
        """Return the weights divided by their mean, (n_samples, 1), or None where all samples count alike.

        Weighted means do not change, and no scale of the weights can leave the range of float32.
        """
        return None if self._weights is None else by_their_mean(self._weights).reshape(-1, 1)

    def upload(self, backend: Backend) -> UploadedDataset:
        """Return the arrays on `backend`, in its dtype (uint8 features stay uint8: a quarter of the bytes).

        On the CPU an array that already has the backend's dtype is not copied.
        """
        keeps_bytes = self._samples.dtype == np.uint8
        check_range("X", self._samples, backend.dtype)
        check_range("Y", self._targets, backend.dtype)
        X = backend.to_device(self._samples, dtype=np.dtype(np.uint8) if keeps_bytes else backend.dtype)
        return uploaded(self, X, backend, bytes_of_X=X.nbytes)


def uploaded(dataset: Dataset, X: Any, backend: Backend, bytes_of_X: int) -> UploadedDataset:
    """Return a Dataset's arrays on `backend`, where its features already lie as X."""
    Y, relative = backend.to_device(dataset.targets), dataset.relative_weights()
    weights = None if relative is None else backend.to_device(relative)
    n_floats = Y.size + (0 if relative is None else relative.size)
    nbytes = 0 if backend.device == "cpu" else bytes_of_X + n_floats * backend.dtype.itemsize
    return UploadedDataset(X, Y, weights, dataset.scale, dataset.n_samples, nbytes)


def _held_out(dataset: Dataset, fraction: float, seed: int, stratify: bool) -> NDArray[Any]:
    """Return the mask (n_samples,) of the samples that a split holds out."""
    if dataset.is_mapped:
        raise ValueError(
            f"split would copy {dataset.n_samples} samples out of a mapped file into memory; hold out a slice of it: "
            "dataset.subset(slice(0, n)) and dataset.subset(slice(n, None))."
        )
    if not 0 < fraction < 1:
        raise ValueError(
            f"fraction is {fraction!r}; split needs a number between 0 and 1. To hold out n samples pass "
            f"fraction=n / {dataset.n_samples}."
        )
    if dataset.n_samples < 2:
        raise ValueError("the dataset has 1 sample; split needs at least 2, one for each side. Add samples.")
    if stratify and not dataset.is_classification:
        raise ValueError(
            f"stratify=True needs classes, but Y ({dataset.n_outputs}, {dataset.n_samples}) holds none: "
            "neither one-hot columns nor 0 and 1. Pass stratify=False, or build the dataset with "
            "Dataset.from_labels(X, labels)."
        )
    n_held_out = max(1, min(dataset.n_samples - 1, round(fraction * dataset.n_samples)))
    order = _order(dataset.n_samples, seed)
    held_out = stratified(order, dataset.labels[order], n_held_out) if stratify else order[:n_held_out]
    is_held_out = np.zeros(dataset.n_samples, bool)
    is_held_out[held_out] = True
    return is_held_out


def _order(n_samples: int, seed: int) -> NDArray[Any]:
    return np.random.default_rng(check_whole("seed", seed, at_least=0)).permutation(n_samples)


def _batches(dataset: Dataset, batch_size: int, order: NDArray[Any] | None) -> Iterator[tuple[NDArray[Any], ...]]:
    for start in range(0, dataset.n_samples, batch_size):
        stop = start + batch_size
        rows = slice(start, stop) if order is None else order[start:stop]
        X = dataset.samples[rows]
        if dataset.scale is not None:
            X = np.multiply(X, dataset.scale, dtype=np.float32)
        X = X.astype(feature_dtype(X.dtype), copy=False)  # a mapped file may hold other types
        batch = (X.T, dataset.targets[rows].T)
        yield batch if dataset.weights is None else (*batch, dataset.weights[rows])


def standardize(train: Dataset, *others: Dataset) -> tuple[Dataset, ...]:
    """Return (train, *others) with features shifted and scaled to train's mean 0 and standard deviation 1.

    Weights do not enter; a feature that is constant in train is only centred; uint8 is multiplied by its
    scale first. Computed in float64; the result is float32, or float64 where the input was.
    Raises ValueError for datasets with other numbers of features, or in a mapped file.
    """
    for dataset in (train, *others):
        if not isinstance(dataset, Dataset):
            raise TypeError(
                f"standardize was given a {type(dataset).__name__}; it needs Datasets: Dataset(X, Y), or "
                "Dataset.from_labels(X, labels)."
            )
        if dataset.is_mapped:
            raise ValueError(
                f"standardize would hold {dataset.n_samples} samples of a mapped file in memory; write a standardized "
                "file instead, or pass Dataset(np.array(dataset.X), dataset.Y) if they fit."
            )
    for position, other in enumerate(others):
        if other.n_features != train.n_features:
            raise ValueError(
                f"others[{position}] has {other.n_features} features, train has {train.n_features}; "
                "standardize needs the same features everywhere. Pass datasets made from the same columns."
            )
    mean, deviation = mean_and_deviation(train.samples, _factor(train))
    deviation = np.where(deviation == 0, 1.0, deviation)
    return tuple(_standardized(dataset, mean, deviation) for dataset in (train, *others))


def mean_and_deviation(samples: NDArray[Any], factor: float = 1.0) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return mean and standard deviation (n_features,) of samples (n_samples, n_features) * factor, in float64.

    The deviation divides by n_samples; that of a constant feature is exactly 0.
    """
    lowest, highest = (extreme.astype(np.float64) for extreme in (samples.min(axis=0), samples.max(axis=0)))
    # Divided by a power of 2, which is exact, so that neither sums nor squares leave the range of floats.
    exponents = np.clip(np.frexp(np.maximum(abs(lowest), abs(highest)))[1], -1000, 1000)
    scale = np.ldexp(1.0, -exponents)
    total = np.zeros(samples.shape[1])
    for _, block in _float64_blocks(samples, factor * scale):
        total += block.sum(axis=0)
    # A sum rounds, so a constant is recognised by its extremes: otherwise 0.1 could get a deviation of 1e-17.
    mean = np.where(lowest == highest, lowest * (factor * scale), total / len(samples))
    squares = np.zeros(samples.shape[1])
    for _, block in _float64_blocks(samples, factor * scale):
        squares += np.square(block - mean).sum(axis=0)
    return np.ldexp(mean, exponents), np.ldexp(np.sqrt(squares / len(samples)), exponents)


def _standardized(dataset: Dataset, mean: NDArray[Any], deviation: NDArray[Any]) -> Dataset:
    dtype = np.float64 if dataset.samples.dtype == np.float64 else np.float32
    result = np.empty(dataset.samples.shape, dtype)
    for rows, block in _float64_blocks(dataset.samples, 0.5 * _factor(dataset)):  # halves, whose difference is finite
        result[rows] = (block - 0.5 * mean) / (0.5 * deviation)
    return Dataset(result.T, dataset.Y, dataset.weights)


def _factor(dataset: Dataset) -> float:
    return 1.0 if dataset.scale is None else dataset.scale


def _float64_blocks(samples: NDArray[Any], factor: float | NDArray[Any]) -> Iterator[tuple[slice, NDArray[Any]]]:
    """Yield (rows, samples of these rows in float64, times factor, one or (n_features,)) over all of them."""
    step = max(1, PIECE // samples.shape[1])
    for start in range(0, len(samples), step):
        rows = slice(start, start + step)
        yield rows, np.multiply(samples[rows], factor, dtype=np.float64)
