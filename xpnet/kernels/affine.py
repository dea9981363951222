"""The affine map of a dense layer. Read this kernel first."""

from __future__ import annotations

from typing import Any

Array = Any


def affine(xp: Any, W: Array, b: Array | None, A: Array, out: Array) -> None:
    """Z = W A + b: the weighted input of a layer.

    W (n_out, n_in): weights.  b (n_out, 1): biases, or None.
    A (n_in, batch): the previous layer's output.
    out (n_out, batch): receives Z.
    Source: Nielsen, Neural Networks and Deep Learning, eq. 25 without its sigma.
    """
    xp.matmul(W, A, out=out)
    if b is not None:
        xp.add(out, b, out=out)


def affine_backward(
    xp: Any, W: Array, A: Array, dZ: Array, dW: Array, db: Array | None, dA: Array | None = None
) -> None:
    """db = sum of dZ over the batch, dW = dZ A^T, dA = W^T dZ: the gradients of an affine map.

    W (n_out, n_in): weights.  A (n_in, batch): the map's input.  dZ (n_out, batch): gradient by its output.
    dW (n_out, n_in), db (n_out, 1): receive sums over the batch; db is None without b.
    dA (n_in, batch): receives the gradient by the input; None where it is not needed (the first layer).
    Source: Nielsen, eqs. BP2 to BP4.
    """
    # db comes before the products so that it follows the activation's backward and can join its kernel.
    if db is not None:
        xp.sum(dZ, axis=1, keepdims=True, out=db)
    if dA is not None:
        xp.matmul(W.T, dZ, out=dA)
    xp.matmul(dZ, A.T, out=dW)
