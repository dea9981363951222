"""Losses: each function computes the loss of every sample and its gradient together, so that the two always agree.

The cross-entropies and poisson include their link function (softmax, sigmoid, exp) and take the weighted input Z of an
identity last layer; `link` functions turn the last layer's output into predictions. `mean_over_batch` turns
per-sample values into the batch's mean, weighted or not. `xpnet.network.losses` says which loss goes with which link.
"""

from __future__ import annotations

from typing import Any

from xpnet.kernels.activations import log_softmax, sigmoid

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


def smooth(xp: Any, Y: Array, smoothing: float, share: float, out: Array) -> None:
    """out = (1 - smoothing) Y + smoothing * share: targets moved towards `share`, the same for every class.

    Y, out (n_out, batch): targets; two arrays.
    Source: Szegedy et al. (2016), Rethinking the Inception Architecture, section 7, with share = 1 / n_out.
    """
    xp.multiply(Y, 1.0 - smoothing, out=out)
    xp.add(out, smoothing * share, out=out)


def softmax_cross_entropy(
    xp: Any, Z: Array, Y: Array, L: Array, dZ: Array, work: Array, smoothing: float = 0.0
) -> None:
    """L = -sum over outputs of Y log softmax(Z), dZ = softmax(Z) - Y, for each sample.

    Z (n_out, batch): weighted input.  Y (n_out, batch): target probabilities; each column sums to 1.
    L (1, batch): receives the loss of each sample.  dZ (n_out, batch): receives its gradient.
    work (n_out, batch): scratch.  smoothing: above 0, Y stands for (1 - smoothing) Y + smoothing / n_out.
    Source: Bishop, Pattern Recognition and Machine Learning, eqs. 4.108 and 4.109.
    """
    share = 1.0 / Y.shape[0]
    log_softmax(xp, Z, dZ, work, L)
    if smoothing:
        smooth(xp, Y, smoothing, share, work)
    xp.multiply(dZ, work if smoothing else Y, out=work)
    xp.sum(work, axis=0, keepdims=True, out=L)
    xp.multiply(L, -1.0, out=L)
    xp.exp(dZ, out=dZ)
    if smoothing:
        smooth(xp, Y, smoothing, share, work)
    xp.subtract(dZ, work if smoothing else Y, out=dZ)


def softmax(xp: Any, Z: Array, out: Array, work: Array, row: Array) -> None:
    """P = exp(log_softmax(Z)): class probabilities; each column sums to 1.

    Z, out, work (n_out, batch): weighted input, probabilities, scratch.  row (1, batch): scratch.
    Source: Bishop, Pattern Recognition and Machine Learning, eq. 4.104.
    """
    log_softmax(xp, Z, out, work, row)
    xp.exp(out, out=out)


def sigmoid_cross_entropy(
    xp: Any, Z: Array, Y: Array, L: Array, dZ: Array, work: Array, smoothing: float = 0.0
) -> None:
    """L = sum over outputs of max(Z, 0) - Z Y + log(1 + exp(-|Z|)), dZ = sigmoid(Z) - Y, for each sample.

    Z, Y (n_out, batch): weighted input and target probabilities in [0, 1].
    L (1, batch): receives the loss of each sample.  dZ (n_out, batch): receives its gradient.
    work (n_out, batch): scratch.  smoothing: above 0, Y stands for (1 - smoothing) Y + smoothing / 2.
    Source: Nielsen, eq. 63, in the form that neither overflows nor cancels.
    """
    # max(Z, 0) - Z Y comes first: it is exact for Y = 0 and 1; the small logarithm is added last.
    xp.maximum(Z, 0.0, out=dZ)
    if smoothing:
        smooth(xp, Y, smoothing, 0.5, work)
    xp.multiply(Z, work if smoothing else Y, out=work)
    xp.subtract(dZ, work, out=dZ)
    xp.abs(Z, out=work)
    xp.multiply(work, -1.0, out=work)
    xp.exp(work, out=work)
    xp.log1p(work, out=work)
    xp.add(work, dZ, out=work)
    xp.sum(work, axis=0, keepdims=True, out=L)
    sigmoid(xp, Z, dZ)
    if smoothing:
        smooth(xp, Y, smoothing, 0.5, work)
    xp.subtract(dZ, work if smoothing else Y, out=dZ)


def absolute_error(xp: Any, A: Array, Y: Array, L: Array, dA: Array, work: Array) -> None:
    """L = sum over outputs of |A - Y|, dA = sign(A - Y), for each sample; the slope at A = Y is taken as 0.

    A, Y (n_out, batch): output and target.  L (1, batch): receives the loss of each sample.
    dA (n_out, batch): receives its gradient by A.  work (n_out, batch): scratch.
    Source: Hastie, Tibshirani and Friedman, The Elements of Statistical Learning, section 10.6.
    """
    xp.subtract(A, Y, out=dA)
    xp.abs(dA, out=work)
    xp.sum(work, axis=0, keepdims=True, out=L)
    xp.sign(dA, out=dA)


def huber(xp: Any, A: Array, Y: Array, L: Array, dA: Array, work: Array, delta: float) -> None:
    """L = sum over outputs of G (R - G / 2), dA = G, with R = A - Y and G = R clipped to [-delta, delta].

    That is R^2 / 2 up to delta, and delta (|R| - delta / 2) beyond.
    A, Y (n_out, batch): output and target.  L (1, batch): receives the loss of each sample.
    dA (n_out, batch): receives its gradient by A.  work (n_out, batch): scratch.
    Source: Huber (1964), Robust Estimation of a Location Parameter.
    """
    xp.subtract(A, Y, out=dA)
    xp.maximum(dA, -delta, out=work)
    xp.minimum(work, delta, out=work)
    xp.multiply(work, 0.5, out=work)
    xp.subtract(dA, work, out=dA)
    xp.multiply(dA, work, out=dA)
    xp.sum(dA, axis=0, keepdims=True, out=L)
    xp.multiply(L, 2.0, out=L)
    xp.multiply(work, 2.0, out=dA)


def rate(xp: Any, Z: Array, out: Array) -> None:
    """R = exp(Z): the rate of a Poisson distribution with the log link.

    Z, out (n_out, batch): weighted input and rate.
    Never overflows: inputs above 80 give exp(80) = 5.5e34, which float32 can still hold.
    Source: McCullagh and Nelder, Generalized Linear Models, chapter 6.
    """
    xp.minimum(Z, 80.0, out=out)
    xp.exp(out, out=out)


def poisson(xp: Any, Z: Array, Y: Array, L: Array, dZ: Array, work: Array) -> None:
    """L = sum over outputs of exp(Z) - Y Z, dZ = exp(Z) - Y, for each sample; log Y!, a constant, is left out.

    Z (n_out, batch): weighted input, the logarithm of the rate.  Y (n_out, batch): counts, >= 0.
    L (1, batch): receives the loss of each sample.  dZ (n_out, batch): receives its gradient.
    work (n_out, batch): scratch.
    exp(Z) is capped at exp(80), see `rate`; beyond, dZ is still exp(80) - Y and not the cap's derivative -Y, so that
    training can return from there.
    Source: McCullagh and Nelder, Generalized Linear Models, chapter 6.
    """
    rate(xp, Z, dZ)
    xp.multiply(Z, Y, out=work)
    xp.subtract(dZ, work, out=work)
    xp.sum(work, axis=0, keepdims=True, out=L)
    xp.subtract(dZ, Y, out=dZ)


def hinge(xp: Any, A: Array, Y: Array, L: Array, dA: Array, work: Array) -> None:
    """L = sum over outputs of max(0, 1 - S A), dA = -S where S A < 1, else 0, with S = 2 Y - 1, for each sample.

    A (n_out, batch): scores, above 0 for "yes".  Y (n_out, batch): 0 or 1; one-hot columns: one class versus the rest.
    L (1, batch): receives the loss of each sample.  dA (n_out, batch): receives its gradient by A.
    work (n_out, batch): scratch.
    Source: Bishop, Pattern Recognition and Machine Learning, eq. 7.44.
    """
    xp.multiply(Y, -2.0, out=dA)
    xp.add(dA, 1.0, out=dA)
    xp.multiply(dA, A, out=work)
    xp.add(work, 1.0, out=work)
    xp.maximum(work, 0.0, out=work)
    xp.sum(work, axis=0, keepdims=True, out=L)
    xp.greater(work, 0.0, out=work)
    xp.multiply(dA, work, out=dA)


def negative_log_likelihood(xp: Any, A: Array, Y: Array, L: Array, dA: Array, work: Array) -> None:
    """L = -sum over outputs of Y A, dA = -Y, for each sample.

    A (n_out, batch): log probabilities.  Y (n_out, batch): target probabilities; each column sums to 1.
    L (1, batch): receives the loss of each sample.  dA (n_out, batch): receives its gradient by A.
    work (n_out, batch): scratch.
    Source: Bishop, Pattern Recognition and Machine Learning, eq. 4.108.
    """
    xp.multiply(Y, -1.0, out=dA)
    xp.multiply(dA, A, out=work)
    xp.sum(work, axis=0, keepdims=True, out=L)


def exp_link(xp: Any, A: Array, out: Array) -> None:
    """P = exp(A): probabilities of log probabilities.

    A, out (n_out, batch): log probabilities and probabilities.
    """
    xp.exp(A, out=out)


def mean_over_batch(xp: Any, L: Array, dA: Array, total: Array) -> None:
    """total = sum of L over the batch, dA = dA / batch: the loss and the gradient of its mean.

    L (1, batch): losses.  dA (n_out, batch): their gradients, scaled in place.
    total (1, 1): receives the SUM of the losses, so that an epoch can average over samples, not steps.
    """
    xp.sum(L, axis=1, keepdims=True, out=total)
    xp.multiply(dA, 1.0 / L.shape[1], out=dA)


def weighted_mean_over_batch(xp: Any, L: Array, w: Array, dA: Array, total: Array, total_weight: Array) -> None:
    """total = sum of w L, total_weight = sum of w, dA = dA w / total_weight: the weighted mean's values.

    L, w (1, batch): losses and sample weights; L is scaled in place, w ends as w / total_weight.
    dA (n_out, batch): gradients, scaled in place.  total, total_weight (1, 1): receive SUMS.
    A batch whose weights are all zero has gradient zero; total_weight is at least 1e-37, of which float32 keeps all
    digits.
    """
    xp.multiply(L, w, out=L)
    xp.sum(L, axis=1, keepdims=True, out=total)
    xp.sum(w, axis=1, keepdims=True, out=total_weight)
    xp.maximum(total_weight, 1e-37, out=total_weight)
    xp.divide(w, total_weight, out=w)
    xp.multiply(dA, w, out=dA)
