"""Normalize each feature over the batch, or each sample over its features; forward beside backward.

`normalize` serves both; its axis is 1 for means over the batch, 0 for means over the features. A backward reads only
what it keeps: xhat and the inverse deviation.
"""

from __future__ import annotations

from typing import Any

Array = Any


def normalize(
    xp: Any, X: Array, axis: int, eps: float, mean: Array, variance: Array, inverse: Array, xhat: Array, work: Array
) -> None:
    """xhat = (X - mean) / sqrt(variance + eps): mean and (biased) variance over one axis, 1 the batch, 0 the features.

    X, xhat, work (n, batch): input, result, scratch; work may be X.
    mean, variance, inverse (n, 1) for axis 1, (1, batch) for axis 0: receive the mean, the variance and
    1 / sqrt(variance + eps); variance and inverse may be the same array.
    Corrected two-pass: the mean's rounding, which 1 / sqrt(eps) would enlarge, is the mean of X - mean.
    Source: Ioffe and Szegedy (2015), algorithm 1; Ba, Kiros and Hinton (2016); Chan, Golub and LeVeque (1983).
    """
    xp.sum(X, axis=axis, keepdims=True, out=mean)
    xp.multiply(mean, 1.0 / X.shape[axis], out=mean)
    xp.subtract(X, mean, out=xhat)
    xp.sum(xhat, axis=axis, keepdims=True, out=inverse)
    xp.multiply(inverse, 1.0 / X.shape[axis], out=inverse)
    xp.subtract(xhat, inverse, out=xhat)
    xp.add(mean, inverse, out=mean)
    xp.multiply(xhat, xhat, out=work)
    xp.sum(work, axis=axis, keepdims=True, out=variance)
    xp.multiply(variance, 1.0 / X.shape[axis], out=variance)
    xp.add(variance, eps, out=inverse)
    xp.sqrt(inverse, out=inverse)
    xp.divide(1.0, inverse, out=inverse)
    xp.multiply(xhat, inverse, out=xhat)


def scale_and_shift(xp: Any, xhat: Array, gamma: Array, beta: Array, out: Array) -> None:
    """Y = gamma * xhat + beta: each feature gets its own scale and offset.

    xhat, out (n, batch): normalized values and result.  gamma, beta (n, 1): parameters.
    Source: Ioffe and Szegedy (2015), algorithm 1, last line.
    """
    xp.multiply(xhat, gamma, out=out)
    xp.add(out, beta, out=out)


def batch_norm_backward(
    xp: Any, gamma: Array, xhat: Array, inverse: Array, dY: Array, dgamma: Array, dbeta: Array, dX: Array, scale: Array
) -> None:
    """dX = gamma * inverse * (dY - (dbeta + xhat * dgamma) / batch), dgamma = sum of dY * xhat, dbeta = sum of dY.

    gamma, inverse (n, 1), xhat (n, batch): as after the forward.  dY (n, batch): gradient by the output.
    dgamma, dbeta (n, 1): receive sums over the batch.  dX (n, batch): receives the gradient by the input.
    scale (n, 1): scratch.
    Source: Ioffe and Szegedy (2015), section 3, its six equations joined.
    """
    xp.sum(dY, axis=1, keepdims=True, out=dbeta)
    xp.multiply(dY, xhat, out=dX)
    xp.sum(dX, axis=1, keepdims=True, out=dgamma)
    xp.multiply(xhat, dgamma, out=dX)
    xp.add(dX, dbeta, out=dX)
    xp.multiply(dX, -1.0 / dY.shape[1], out=dX)
    xp.add(dX, dY, out=dX)
    xp.multiply(gamma, inverse, out=scale)
    xp.multiply(dX, scale, out=dX)


def layer_norm_backward(
    xp: Any,
    gamma: Array,
    xhat: Array,
    inverse: Array,
    dY: Array,
    dgamma: Array,
    dbeta: Array,
    dX: Array,
    row: Array,
    work: Array,
) -> None:
    """dX = inverse * (G - mean of G - xhat * mean of G * xhat), G = gamma * dY, means over the features.

    gamma (n, 1), inverse (1, batch), xhat (n, batch): as after the forward.  dY (n, batch).
    dgamma, dbeta (n, 1): receive the sums over the batch of dY * xhat and dY.
    dX (n, batch): receives the gradient by the input.  row (1, batch), work (n, batch): scratch.
    Source: Ba, Kiros and Hinton (2016), Layer Normalization, differentiated.
    """
    xp.sum(dY, axis=1, keepdims=True, out=dbeta)
    xp.multiply(dY, xhat, out=work)
    xp.sum(work, axis=1, keepdims=True, out=dgamma)
    xp.multiply(work, gamma, out=work)
    xp.sum(work, axis=0, keepdims=True, out=row)
    xp.multiply(row, 1.0 / dY.shape[0], out=row)
    xp.multiply(xhat, row, out=work)
    xp.multiply(dY, gamma, out=dX)
    xp.sum(dX, axis=0, keepdims=True, out=row)
    xp.multiply(row, 1.0 / dY.shape[0], out=row)
    xp.subtract(dX, row, out=dX)
    xp.subtract(dX, work, out=dX)
    xp.multiply(dX, inverse, out=dX)


def update_running(xp: Any, running: Array, value: Array, momentum: float, factor: float) -> None:
    """running = (1 - momentum) * running + momentum * factor * value: a moving average of the batches' statistics.

    running, value (n, 1): the average and this batch's value, which is overwritten.
    factor: 1 for a mean, batch / (batch - 1) to make a biased variance unbiased.
    Source: Ioffe and Szegedy (2015), section 3.1; momentum as PyTorch counts it.
    """
    xp.multiply(running, 1.0 - momentum, out=running)
    xp.multiply(value, momentum * factor, out=value)
    xp.add(running, value, out=running)


def batch_norm_inference(
    xp: Any, X: Array, gamma: Array, beta: Array, mean: Array, variance: Array, eps: float, scale: Array, out: Array
) -> None:
    """Y = (X - mean) * gamma / sqrt(variance + eps) + beta: with the running statistics, sample by sample.

    X, out (n, batch): input and result; they may be the same array.  gamma, beta, mean, variance (n, 1).
    scale (n, 1): scratch.
    Source: Ioffe and Szegedy (2015), algorithm 2, line 11.
    """
    xp.add(variance, eps, out=scale)
    xp.sqrt(scale, out=scale)
    xp.divide(gamma, scale, out=scale)
    xp.subtract(X, mean, out=out)
    xp.multiply(out, scale, out=out)
    xp.add(out, beta, out=out)
