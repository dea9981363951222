"""Update rules on the flat parameter vector: one rule moves the whole network."""

from __future__ import annotations

from typing import Any

Array = Any


def sgd(xp: Any, theta: Array, gradient: Array, lr: Any) -> None:
    """theta = theta - lr * gradient: stochastic gradient descent.

    theta, gradient: same shape.  lr: learning rate, a Python float or a 1-element array.
    The gradient is overwritten by the step taken, which saves a vector of its size.
    Source: Nielsen, eqs. 20 and 21.
    """
    xp.multiply(gradient, lr, out=gradient)
    xp.subtract(theta, gradient, out=theta)
