"""The network as plain functions on a dict: forward, backward, update, in that order.

    model = initialize_model([784, 15, 10])
    yhat, model = forward(X, model)
    model = backward(Y, model)
    model = update(0.5, model)

Every layer is a sigmoid and the loss is 0.5 * squared error, SUMMED over the batch (a `Network` takes the mean). The
kernels are those of `Network`, on NumPy or CuPy arrays; only here is the library inferred from the arrays. A model
holds nlayers, weights, biases; after `forward` also activations and z_inputs; after `backward` also grad_weights and
grad_biases; `update` removes these four.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from xpnet.backend import Backend
from xpnet.checks import check_whole, refuse_masked
from xpnet.kernels.activations import sigmoid, sigmoid_backward
from xpnet.kernels.affine import affine, affine_backward
from xpnet.kernels.losses import squared_error
from xpnet.kernels.updates import sgd
from xpnet.network.parameters import draw_biases, draw_weights, random_generator

Array = Any
Model = dict[str, Any]

_LIBRARIES = ("numpy", "cupy")
_WORKING_KEYS = ("z_inputs", "activations", "grad_weights", "grad_biases")


class CallOrderError(KeyError):
    """The model lacks a key; the message names the call that adds it."""

    def __str__(self) -> str:
        return str(self.args[0])  # KeyError would print the message in quotes


def initialize_model(dimensions: Sequence[int], *, backend: Backend | None = None, seed: int | None = None) -> Model:
    """Return {"weights": [W (n_out, n_in), ...], "biases": [b (n_out, 1), ...], "nlayers": number of layers}.

    dimensions: inputs, hidden units, outputs, such as [784, 15, 10].  Weights and biases are standard normal.
    backend: where the arrays live and their dtype; None: NumPy in float64.  seed: None draws new numbers each time.
    Raises ValueError for fewer than two dimensions or one below 1.
    """
    sizes = [check_whole("a dimension", size, at_least=1) for size in dimensions]
    if len(sizes) < 2:
        raise ValueError(f"dimensions is {list(dimensions)}; it must hold inputs and outputs, such as [784, 15, 10]")
    rng = np.random.default_rng() if seed is None else random_generator(seed, 0)
    weights, biases = [], []
    for n_in, n_out in pairwise(sizes):
        W, b = draw_weights("normal", n_in, n_out, rng), draw_biases("normal", n_out, rng)
        weights.append(W if backend is None else backend.to_device(W))
        biases.append(b if backend is None else backend.to_device(b))
    return {"weights": weights, "biases": biases, "nlayers": len(weights)}


def sigma(x: Array) -> Array:
    """Return the logistic function 1 / (1 + exp(-x)) of every element; far below 0 it is 0, without a warning."""
    x = _floats(x)
    xp = _namespace(x=x)
    out = xp.empty(x.shape, dtype=x.dtype)
    with np.errstate(over="ignore"):  # exp(-x) may be infinite, and the result 0
        sigmoid(xp, x, out)
    return out


def sigma_prime(x: Array) -> Array:
    """Return the derivative sigma(x) (1 - sigma(x)) of every element."""
    A = sigma(x)
    xp = _namespace(x=A)
    out = xp.empty(A.shape, dtype=A.dtype)
    sigmoid_backward(xp, A, xp.ones(A.shape, dtype=A.dtype), out)
    return out


def loss(yhat: Array, y: Array) -> Array:
    """Return 0.5 * the sum of (yhat - y)^2 over outputs and samples, a number (on a GPU: an array of one)."""
    losses, _ = _squared_error(yhat, y)
    return losses.sum()


def loss_prime(yhat: Array, y: Array) -> Array:
    """Return the loss's gradient by yhat, yhat - y, of the same shape."""
    return _squared_error(yhat, y)[1]


def forward(x: Array, model: Model) -> tuple[Array, Model]:
    """Return the output (n_L, batch) and the model with activations [a0 = x, ..., aL] and z_inputs [z1, ..., zL].

    x (n_0, batch): one sample is one column.
    Raises ValueError for another number of features, TypeError for arrays of two libraries.
    """
    xp = _namespace(x=x, weights=model["weights"][0])
    n_features = model["weights"][0].shape[1]
    if x.ndim != 2 or x.shape[0] != n_features:
        fix = "pass x.T" if x.ndim == 2 and x.shape[1] == n_features else f"reshape it to ({n_features}, batch)"
        raise ValueError(f"x is {tuple(x.shape)}, the model expects ({n_features}, batch), a sample a column; {fix}")
    activations, z_inputs = [x], []
    for W, b in zip(model["weights"], model["biases"], strict=True):
        z = xp.empty((W.shape[0], x.shape[1]), dtype=W.dtype)
        a = xp.empty(z.shape, dtype=W.dtype)
        affine(xp, W, b, activations[-1], z)
        with np.errstate(over="ignore"):
            sigmoid(xp, z, a)
        z_inputs.append(z)
        activations.append(a)
    model["activations"], model["z_inputs"] = activations, z_inputs
    for key in ("grad_weights", "grad_biases"):  # of an earlier batch: `update` must not use them
        model.pop(key, None)
    return activations[-1], model


def backward(y: Array, model: Model) -> Model:
    """Return the model with grad_weights and grad_biases, the gradients of the loss summed over the batch.

    y (n_L, batch): targets of the x that `forward` saw.  Raises CallOrderError, a KeyError, without that call.
    """
    activations = _needed(model, "activations", "forward(x, model)")
    _needed(model, "z_inputs", "forward(x, model)")
    dA = _squared_error(activations[-1], y)[1]
    xp = _namespace(y=y)
    grad_weights: list[Array] = []
    grad_biases: list[Array] = []
    for layer in range(model["nlayers"] - 1, -1, -1):
        W, a, a_before = model["weights"][layer], activations[layer + 1], activations[layer]
        dZ = xp.empty(a.shape, dtype=a.dtype)
        sigmoid_backward(xp, a, dA, dZ)
        dW, db = xp.empty(W.shape, dtype=W.dtype), xp.empty((W.shape[0], 1), dtype=W.dtype)
        dA = xp.empty(a_before.shape, dtype=W.dtype) if layer > 0 else None
        affine_backward(xp, W, a_before, dZ, dW, db, dA)
        grad_weights.insert(0, dW)
        grad_biases.insert(0, db)
    model["grad_weights"], model["grad_biases"] = grad_weights, grad_biases
    return model


def update(eta: float, model: Model) -> Model:
    """Return the model after one step of gradient descent with learning rate eta, without the working keys.

    Raises CallOrderError, a KeyError, unless `forward` and `backward` were called.
    """
    for values, gradients in (("weights", "grad_weights"), ("biases", "grad_biases")):
        _needed(model, gradients, "forward(x, model), then backward(y, model)")
        new_values = []
        for theta, gradient in zip(model[values], model[gradients], strict=True):
            moved = theta.copy()  # the caller may still hold the old arrays
            sgd(_namespace(theta=theta), moved, gradient.copy(), float(eta))  # the kernel overwrites it
            new_values.append(moved)
        model[values] = new_values
    for key in _WORKING_KEYS:
        del model[key]
    return model


def _squared_error(yhat: Array, y: Array) -> tuple[Array, Array]:
    yhat, y = _floats(yhat), _floats(y)
    xp = _namespace(yhat=yhat, y=y)
    if yhat.shape != y.shape:
        raise ValueError(
            f"yhat is {tuple(yhat.shape)} and y is {tuple(y.shape)}; give y one column per sample, as x has"
        )
    matrix = (yhat.shape[0], -1) if yhat.ndim else (1, 1)
    A, Y = yhat.reshape(matrix), y.reshape(matrix)
    losses = xp.empty((1, A.shape[1]), dtype=A.dtype)
    dA, work = xp.empty(A.shape, dtype=A.dtype), xp.empty(A.shape, dtype=A.dtype)
    squared_error(xp, A, Y, losses, dA, work)
    return losses, dA.reshape(yhat.shape)


def _needed(model: Model, key: str, call: str) -> Any:
    if key not in model:
        raise CallOrderError(f"the model has no {key!r} yet; call {call} first")
    return model[key]


def _floats(x: Array) -> Array:
    """Return `x` as an array of float32 or float64; numbers, lists and integers become float64 on the host."""
    refuse_masked(x=x)
    if isinstance(x, (int, float, list, tuple, np.number)):
        x = np.asarray(x)
    kind = getattr(getattr(x, "dtype", None), "kind", None)
    if kind not in ("f", "i", "u", "b"):
        raise TypeError(f"x is a {type(x).__name__}; it must be an array of real numbers: np.asarray(x, dtype=float)")
    if kind != "f":
        return x.astype(np.float64)
    return x.astype(np.float32) if x.dtype.itemsize == 2 else x  # float16 cannot hold exp(80)


def _namespace(**arrays: Array) -> Any:
    """Return the array library of these arrays; raises TypeError if there is none, or two."""
    found = {name: type(array).__module__.partition(".")[0] for name, array in arrays.items()}
    libraries = set(found.values())
    if len(libraries) > 1:
        parts = " and ".join(f"{name} is a {library} array" for name, library in found.items())
        raise TypeError(f"{parts}; move one with backend.to_device or backend.to_host")
    (library,) = libraries
    module = sys.modules.get(library)
    if not hasattr(module, "matmul"):
        name, array = next(iter(arrays.items()))
        raise TypeError(
            f"{name} is a {type(array).__name__}; it must be a {' or '.join(_LIBRARIES)} array: np.asarray({name})"
        )
    return module
