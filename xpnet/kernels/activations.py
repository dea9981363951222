"""Activation functions, each beside its backward. The losses come next.

Every backward is computed from the activation's OUTPUT, so a forward may overwrite its input (`out` may be `Z`). `out`
of a backward must be another array than `A` and `dA`: it serves as scratch on the way.
"""

from __future__ import annotations

from typing import Any

Array = Any


def sigmoid(xp: Any, Z: Array, out: Array) -> None:
    """A = 1 / (1 + exp(-Z)): the logistic function.

    Z, out (n, batch): weighted input and activation; they may be the same array.
    Never overflows: inputs below -80 give sigmoid(-80) = 1.8e-35, which float32 can still hold.
    Source: Nielsen, eq. 3.
    """
    xp.maximum(Z, -80.0, out=out)
    xp.multiply(out, -1.0, out=out)
    xp.exp(out, out=out)
    xp.add(out, 1.0, out=out)
    xp.divide(1.0, out, out=out)


def sigmoid_backward(xp: Any, A: Array, dA: Array, out: Array) -> None:
    """dZ = dA * A * (1 - A): the derivative of the logistic function, from its output.

    A, dA, out (n, batch): activation, gradient by it, and gradient by the weighted input.
    """
    xp.subtract(1.0, A, out=out)
    xp.multiply(out, A, out=out)
    xp.multiply(out, dA, out=out)


def tanh(xp: Any, Z: Array, out: Array) -> None:
    """A = tanh(Z): the hyperbolic tangent.

    Z, out (n, batch): weighted input and activation; they may be the same array.
    """
    xp.tanh(Z, out=out)


def tanh_backward(xp: Any, A: Array, dA: Array, out: Array) -> None:
    """dZ = dA * (1 - A^2): the derivative of tanh, from its output.

    A, dA, out (n, batch): activation, gradient by it, and gradient by the weighted input.
    """
    xp.multiply(A, A, out=out)
    xp.subtract(1.0, out, out=out)
    xp.multiply(out, dA, out=out)


def relu(xp: Any, Z: Array, out: Array) -> None:
    """A = max(Z, 0): the rectified linear unit; NaN stays NaN.

    Z, out (n, batch): weighted input and activation; they may be the same array.
    Source: Glorot, Bordes and Bengio (2011), Deep Sparse Rectifier Neural Networks.
    """
    xp.maximum(Z, 0.0, out=out)


def relu_backward(xp: Any, A: Array, dA: Array, out: Array) -> None:
    """dZ = dA where A > 0, else 0: the slope of relu at 0 is taken as 0.

    A, dA, out (n, batch): activation, gradient by it, and gradient by the weighted input.
    """
    xp.greater(A, 0.0, out=out)
    xp.multiply(out, dA, out=out)


# One table from name to pair. None: the identity records nothing, its output IS its input.
ACTIVATIONS: dict[str, tuple[Any, Any] | None] = {
    "identity": None,
    "sigmoid": (sigmoid, sigmoid_backward),
    "tanh": (tanh, tanh_backward),
    "relu": (relu, relu_backward),
}
