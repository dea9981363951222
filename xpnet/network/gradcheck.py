"""Check gradients against central differences, for xpnet's kernels and custom ones.

A directional derivative needs two evaluations for any number of parameters (as in HIPS/autograd's check_grads);
`numerical_gradient` goes element by element, for small cases.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from xpnet.network.parameters import Parameters

if TYPE_CHECKING:
    from xpnet.network.network import Network

__all__ = ["check_gradients", "numerical_gradient"]


def numerical_gradient(f: Callable[[np.ndarray], float], x: np.ndarray, h: float = 1e-6) -> np.ndarray:
    """Return df/dx by central differences, (f(x + h) - f(x - h)) / 2h for each element; x, float64, is unchanged.

    2h is the difference of the two x as they are rounded.  Raises ValueError where h is lost beside an x.
    Source: Press et al., Numerical Recipes, eqs. 5.7.4 and 5.7.7.
    """
    x = np.array(x, dtype=np.float64)
    gradient = np.empty_like(x)
    for index in np.ndindex(x.shape):
        kept = x[index]
        ends = kept + h, kept - h
        if ends[0] == ends[1]:
            raise ValueError(f"h is {h:g}, which {kept:g} + h rounds away; it must change each x: pass a larger h")
        x[index] = ends[0]
        above = float(f(x))
        x[index] = ends[1]
        below = float(f(x))
        x[index] = kept
        gradient[index] = (above - below) / (ends[0] - ends[1])
    return gradient


def check_gradients(
    network: Network, X: Any, Y: Any, weights: Any = None, *, directions: int = 3, seed: int = 0, h: float = 1e-5
) -> float:
    """Return the largest error of the network's gradient along random directions; at most 1e-7 if it is correct.

    X, Y, weights: as for `Network.gradients`; the loss is that of a training step, with one fixed mask of dropout.
    Along each unit direction v, the slope (loss(theta + h v) - loss(theta - h v)) / 2h is compared with v . gradient;
    the error is relative to the gradient's norm. A direction along which a unit or a loss passes a kink within h is
    redrawn, since the slope is undefined or not constant there.
    Raises TypeError unless the network computes in float64, RuntimeError if every direction meets a kink.
    """
    if network.backend.dtype != np.float64:
        raise TypeError(
            f"the network computes in {network.backend.dtype}, differences need float64: "
            "make it with select_backend(dtype='float64')"
        )
    flat, to_host = network.parameters.flat, network.backend.to_host
    gradient = to_host(network.gradients(X, Y, weights).flat).copy()
    norm = float(np.linalg.norm(gradient))
    theta = to_host(flat).copy()
    rng = np.random.default_rng(seed)
    worst = 0.0
    try:
        for _ in range(directions):
            slope, v = _slope(network, theta, X, Y, weights, rng, h)
            worst = max(worst, abs(slope - float(v @ gradient)) / max(norm, 1e-12))
    finally:
        flat[...] = network.backend.to_device(theta)
    return worst


def _slope(
    network: Network, theta: np.ndarray, X: Any, Y: Any, weights: Any, rng: np.random.Generator, h: float
) -> tuple[float, np.ndarray]:
    """Draw a unit direction without a kink and return the loss's slope along it, and the direction."""
    inside = _parameter_mask(network)
    for _ in range(100):
        v = rng.standard_normal(theta.size) * inside
        v /= np.linalg.norm(v)
        losses, sides = [], []
        for sign in (1.0, -1.0):
            network.parameters.flat[...] = network.backend.to_device(theta + sign * h * v)
            losses.append(network.evaluate_loss(X, Y, weights, training=True))
            sides.append(_sides(network, X, Y))
        if all(np.array_equal(above, below) for above, below in zip(*sides, strict=True)):
            return (losses[0] - losses[1]) / (2.0 * h), v
    raise RuntimeError("100 random directions all met a kink; use fewer samples, a smaller h, or another seed")


def _sides(network: Network, X: Any, Y: Any) -> list[np.ndarray]:
    """Return, for each kink of an activation or of the loss, on which side of it every number lies."""
    to_host = network.backend.to_host
    values = [to_host(A) for A in (X, *network.activations(X, training=True))]
    inputs = zip(network.layers, values[:-1], strict=True)
    sides = [Z - kink > 0.0 for layer, Z in inputs for kink in layer.kinks]
    return [*sides, *network.architecture.loss.sides(values[-1], to_host(Y))]


def _parameter_mask(network: Network) -> np.ndarray:
    """Return 1 where theta holds a parameter, 0 in the padding between views."""
    mask = Parameters(network.architecture.layout, np.zeros(network.architecture.layout.size))
    for view in mask.named.values():
        view[...] = 1.0
    return mask.flat
