"""Losses: each function gives the loss of every sample and its gradient together, so the two cannot part ways.

The cross-entropies hold their own link function (softmax, sigmoid) and take the weighted input Z of an identity last
layer; `link` functions turn that Z into probabilities for predictions. `mean_over_batch` turns per-sample values into
the batch's mean, weighted or not. The update rules come next.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from xpnet.kernels.activations import sigmoid

Array = Any


def squared_error(xp: Any, A: Array, Y: Array, L: Array, dA: Array, work: Array) -> None:
    """L = 1/2 sum over outputs of (A - Y)^2, dA = A - Y, for each sample.

    A, Y (n_out, batch): output and target.  L (1, batch): receives the loss of each sample.
    dA (n_out, batch): receives its gradient by A.  work (n_out, batch): scratch.
    Source: Nielsen, eq. 6 (there the mean over the batch).
    """
    xp.subtract(A, Y, out=dA)
    xp.multiply(dA, dA, out=work)
    xp.sum(work, axis=0, keepdims=True, out=L)
    xp.multiply(L, 0.5, out=L)


def log_softmax(xp: Any, Z: Array, out: Array, work: Array, row: Array) -> None:
    """log P = Z - max Z - log sum exp(Z - max Z), over the outputs of each sample; never overflows.

    Z, out (n_out, batch): weighted input and log probabilities.
    work (n_out, batch), row (1, batch): scratch.
    Source: Goodfellow, Bengio and Courville, Deep Learning, eqs. 6.29 and 6.30.
    """
    xp.max(Z, axis=0, keepdims=True, out=row)
    xp.subtract(Z, row, out=out)
    xp.exp(out, out=work)
    xp.sum(work, axis=0, keepdims=True, out=row)
    xp.log(row, out=row)
    xp.subtract(out, row, out=out)


def softmax_cross_entropy(xp: Any, Z: Array, Y: Array, L: Array, dZ: Array, work: Array) -> None:
    """L = -sum over outputs of Y log softmax(Z), dZ = softmax(Z) - Y, for each sample.

    Z (n_out, batch): weighted input.  Y (n_out, batch): target probabilities; each column sums to 1.
    L (1, batch): receives the loss of each sample.  dZ (n_out, batch): receives its gradient.
    work (n_out, batch): scratch.
    Source: Bishop, Pattern Recognition and Machine Learning, eqs. 4.108 and 4.109.
    """
    log_softmax(xp, Z, dZ, work, L)
    xp.multiply(dZ, Y, out=work)
    xp.sum(work, axis=0, keepdims=True, out=L)
    xp.multiply(L, -1.0, out=L)
    xp.exp(dZ, out=dZ)
    xp.subtract(dZ, Y, out=dZ)


def softmax(xp: Any, Z: Array, out: Array, work: Array, row: Array) -> None:
    """P = exp(log_softmax(Z)): class probabilities; each column sums to 1.

    Z, out, work (n_out, batch): weighted input, probabilities, scratch.  row (1, batch): scratch.
    """
    log_softmax(xp, Z, out, work, row)
    xp.exp(out, out=out)


def sigmoid_cross_entropy(xp: Any, Z: Array, Y: Array, L: Array, dZ: Array, work: Array) -> None:
    """L = sum over outputs of max(Z, 0) - Z Y + log(1 + exp(-|Z|)), dZ = sigmoid(Z) - Y, for each sample.

    Z, Y (n_out, batch): weighted input and target probabilities in [0, 1].
    L (1, batch): receives the loss of each sample.  dZ (n_out, batch): receives its gradient.
    work (n_out, batch): scratch.
    Source: Nielsen, eq. 57, in the form that neither overflows nor cancels.
    """
    # max(Z, 0) - Z Y comes first: it is exact for Y = 0 and 1, and the small logarithm is added to what is left.
    xp.maximum(Z, 0.0, out=dZ)
    xp.multiply(Z, Y, out=work)
    xp.subtract(dZ, work, out=dZ)
    xp.abs(Z, out=work)
    xp.multiply(work, -1.0, out=work)
    xp.exp(work, out=work)
    xp.log1p(work, out=work)
    xp.add(work, dZ, out=work)
    xp.sum(work, axis=0, keepdims=True, out=L)
    sigmoid(xp, Z, dZ)
    xp.subtract(dZ, Y, out=dZ)


def sigmoid_link(xp: Any, Z: Array, out: Array, work: Array, row: Array) -> None:
    """P = sigmoid(Z): the probability of each output, independently.

    Z, out (n_out, batch): weighted input and probabilities.  work, row: not used; links share one signature.
    """
    sigmoid(xp, Z, out)


def mean_over_batch(xp: Any, L: Array, dA: Array, total: Array) -> None:
    """total = sum of L over the batch, dA = dA / batch: from per-sample values to those of the mean loss.

    L (1, batch): losses.  dA (n_out, batch): their gradients, scaled in place.
    total (1, 1): receives the SUM of the losses, so that an epoch can weigh samples and not steps.
    """
    xp.sum(L, axis=1, keepdims=True, out=total)
    xp.multiply(dA, 1.0 / L.shape[1], out=dA)


def weighted_mean_over_batch(xp: Any, L: Array, w: Array, dA: Array, total: Array, total_weight: Array) -> None:
    """total = sum of w L, total_weight = sum of w, dA = dA w / total_weight: the weighted mean's values.

    L, w (1, batch): losses and sample weights; L is scaled in place, w ends as w / total_weight.
    dA (n_out, batch): gradients, scaled in place.  total, total_weight (1, 1): receive SUMS.
    A batch whose weights are all zero has gradient zero.
    """
    xp.multiply(L, w, out=L)
    xp.sum(L, axis=1, keepdims=True, out=total)
    xp.sum(w, axis=1, keepdims=True, out=total_weight)
    xp.maximum(total_weight, 1e-30, out=total_weight)
    xp.divide(w, total_weight, out=w)
    xp.multiply(dA, w, out=dA)


@dataclass(frozen=True)
class Loss:
    """A loss and what goes with it.

    pair: the function above.  link: from the last layer's output to predictions, None where that output is one.
    threshold: where a single output is cut into classes 0 and 1.
    """

    pair: Callable[..., None]
    link: Callable[..., None] | None
    threshold: float

    @property
    def needs_identity_output(self) -> bool:
        """Whether the loss holds its own link, so that the last layer must have none."""
        return self.link is not None


LOSSES: dict[str, Loss] = {
    "squared_error": Loss(squared_error, None, 0.5),
    "softmax_cross_entropy": Loss(softmax_cross_entropy, softmax, 0.0),
    "sigmoid_cross_entropy": Loss(sigmoid_cross_entropy, sigmoid_link, 0.0),
}
