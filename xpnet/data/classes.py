"""Classes among the targets: labels to one-hot columns and back, class weights, stratified choices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from xpnet.checks import check_number, check_option, check_whole, within_one
from xpnet.data.checks import PIECE, checked_labels

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

# Labels whose one-hot columns exceed this size are nearly always identifiers.
_MAX_ONE_HOT_BYTES = 1 << 30


def one_hot(labels: ArrayLike, n_classes: int | None) -> NDArray[Any]:
    """Return labels (n_samples,) as one-hot float32 rows (n_samples, n_classes); None takes the largest label + 1."""
    numbers = checked_labels(labels)
    largest = int(numbers.max())
    if n_classes is None:
        n_classes = max(2, largest + 1)
    n_classes = check_whole("n_classes", n_classes, at_least=2)
    if largest >= n_classes:
        where = int(np.argmax(numbers >= n_classes))
        raise ValueError(
            f"label {int(numbers[where])} at sample {where}, but n_classes={n_classes} allows 0 to "
            f"{n_classes - 1}. Pass n_classes={largest + 1} or more, or leave it out."
        )
    one_hot_bytes = n_classes * len(numbers) * np.dtype(np.float32).itemsize
    if one_hot_bytes > _MAX_ONE_HOT_BYTES:
        raise ValueError(
            f"one-hot columns of {n_classes} classes (largest label {largest}) for {len(numbers)} "
            f"samples would take {one_hot_bytes / 2**30:.1f} GiB; the limit is "
            f"{_MAX_ONE_HOT_BYTES / 2**30:.0f} GiB. If the labels are identifiers, number them with "
            "np.unique(labels, return_inverse=True)[1]."
        )
    targets = np.zeros((len(numbers), n_classes), np.float32)
    targets[np.arange(len(numbers)), numbers.astype(np.intp)] = 1
    return targets


def holds_classes(targets: NDArray[Any]) -> bool:
    """Whether rows (n_samples, n_outputs) are one-hot, or for one output all 0 or 1."""
    step = max(1, PIECE // targets.shape[1])
    for start in range(0, len(targets), step):
        block = targets[start : start + step]
        ones = block == 1
        if not (ones | (block == 0)).all():
            return False
        if targets.shape[1] > 1 and not (ones.sum(axis=1) == 1).all():
            return False
    return True


def labels_of(targets: NDArray[Any], are_classes: bool) -> NDArray[Any]:
    """Return the class (n_samples,) of each row of targets (n_samples, n_outputs)."""
    n_samples, n_outputs = targets.shape
    if not are_classes:
        raise ValueError(
            f"Y is ({n_outputs}, {n_samples}) and holds no classes; labels needs one-hot "
            "columns or one row of 0 and 1. Build the dataset with Dataset.from_labels(X, labels)."
        )
    labels: NDArray[Any] = targets[:, 0].astype(np.intp) if n_outputs == 1 else targets.argmax(axis=1)
    return labels


def weights_by_class(
    class_weight: str | Mapping[int, float] | Sequence[float],
    labels: NDArray[Any],
    weights: NDArray[Any] | None,
    n_classes: int,
) -> NDArray[Any]:
    """Return the weights (n_samples,), or ones, times those of the classes: see `Dataset.with_class_weight`."""
    per_class = np.ones(n_classes)
    if isinstance(class_weight, str):
        check_option("class_weight", class_weight, ("balanced", "or a dict or a list of weights"))
        counts = np.bincount(labels, None if weights is None else within_one(weights)[0], n_classes)
        present = counts > 0
        per_class[present] = counts.sum() / (present.sum() * counts[present])
    elif isinstance(class_weight, Mapping):
        unknown = [
            label for label in class_weight if not (isinstance(label, (int, np.integer)) and 0 <= label < n_classes)
        ]
        if unknown:
            raise ValueError(
                f"class_weight has the label {unknown[0]!r}; Y holds the labels 0 to {n_classes - 1}; leave it out"
            )
        for label, weight in class_weight.items():
            per_class[label] = _class_weight(int(label), weight)
    else:
        per_class = np.asarray(class_weight, np.float64)
        if per_class.shape != (n_classes,):
            raise ValueError(
                f"class_weight is {per_class.shape}; it must be ({n_classes},), one weight a class; "
                "pass a dict to name some of them"
            )
        per_class = np.array([_class_weight(label, weight) for label, weight in enumerate(per_class.tolist())])
    return per_class[labels] * (1.0 if weights is None else weights)


def _class_weight(label: int, weight: Any) -> float:
    return check_number(f"class_weight[{label}]", weight, at_least=0, example=f"class_weight={{{label}: 1.0}}")


def stratified(order: NDArray[Any], labels: NDArray[Any], n_chosen: int, on_both_sides: bool = False) -> NDArray[Any]:
    """Return `n_chosen` sample indices, taken from `order` in proportion to the classes; labels: of these samples.

    on_both_sides: of each class one sample is left at least, and one chosen if it has two and n_chosen allows.
    """
    class_sizes = np.bincount(labels)
    # Whole-number arithmetic: quotas n_chosen * size / n_samples, exact, rounded down.
    quotas, remainders = np.divmod(n_chosen * class_sizes, len(order))
    largest_first = np.argsort(-remainders, kind="stable")
    quotas[largest_first[: n_chosen - quotas.sum()]] += 1
    if on_both_sides:
        _spread(quotas, class_sizes, n_chosen)
    chosen = [order[labels == label][:quota] for label, quota in enumerate(quotas)]
    return np.concatenate(chosen)


def _spread(quotas: NDArray[Any], class_sizes: NDArray[Any], n_chosen: int) -> None:
    """Change the quotas so that no class is missing on a side where it need not, in their sum as little as can be."""
    most = np.maximum(class_sizes - 1, 0)
    least = np.minimum(most, 1 if np.count_nonzero(most) <= n_chosen else 0)
    quotas[...] = np.clip(quotas, least, most)
    shares = n_chosen * class_sizes / class_sizes.sum()
    while (off := n_chosen - quotas.sum()) and (may := quotas < most if off > 0 else quotas > least).any():
        quotas[np.argmax(np.where(may, np.sign(off) * (shares - quotas), -np.inf))] += np.sign(off)
