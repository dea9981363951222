"""Sums over a shard of a batch, and the mean over all shards: several processes compute a step together.

Each shard computes sums over its samples; these are added, and only then divided: a mean of means would weigh the
samples of a small shard more.
"""

from __future__ import annotations

from typing import Any

Array = Any


def sum_over_shard(xp: Any, L: Array, n_samples: float, total: Array, samples: Array) -> None:
    """total = sum of L over the shard, samples = n_samples; the gradients of the losses stay as they are.

    L (1, n_samples): losses.  n_samples: a Python float.  total, samples (1, 1): receive the two.
    """
    xp.sum(L, axis=1, keepdims=True, out=total)
    xp.greater(total, total, out=samples)  # 0, also where the loss is not a number
    xp.add(samples, n_samples, out=samples)


def weighted_sum_over_shard(xp: Any, L: Array, w: Array, dA: Array, total_weight: Array) -> None:
    """L = w L, dA = w dA, total_weight = sum of w over the shard.

    L, w (1, n_samples): losses, and sample weights.  dA (n_out, n_samples): gradients.  total_weight (1, 1).
    """
    xp.multiply(L, w, out=L)
    xp.multiply(dA, w, out=dA)
    xp.sum(w, axis=1, keepdims=True, out=total_weight)


def share_of_statistics(xp: Any, statistics: Array, n_samples: float, out: Array) -> None:
    """out = n_samples statistics: what a shard adds to the mean of the running statistics over all samples.

    statistics, out (n,): as the shard alone would leave them, and their share.  n_samples: a Python float.
    """
    xp.multiply(statistics, n_samples, out=out)


def mean_over_shards(xp: Any, gradient: Array, total_weight: Array) -> None:
    """gradient = gradient / total_weight: from sums over all shards to the mean over all samples.

    gradient (n,): sums over all shards.  total_weight (1, 1): samples of the batch, or the sum of their weights, which
    is at least 1e-37, of which float32 keeps all digits: a batch whose weights are all zero has gradient zero.
    """
    xp.maximum(total_weight, 1e-37, out=total_weight)
    xp.divide(gradient, total_weight, out=gradient)


def merged_statistics(xp: Any, total: Array, samples: Array, statistics: Array) -> None:
    """statistics = total / samples: the mean over all samples of what each shard left.

    total, statistics (n,): the shards' sum, and the running statistics.  samples (1, 1): of the batch.
    """
    xp.divide(total, samples, out=statistics)


def tell(xp: Any, total: Array, result: Array) -> None:
    """result = total: the sum over all shards as a result of the step.

    total, result (1, 1).
    """
    xp.multiply(total, 1.0, out=result)
