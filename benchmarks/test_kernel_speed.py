"""Every kernel, alone: checked against float64 NumPy in another form, then timed."""

from __future__ import annotations

import numpy as np
import pytest

from xpnet.engines.replay import Replay
from xpnet.kernels.accuracy import right_class, right_side
from xpnet.kernels.activations import (
    elu,
    elu_backward,
    gelu,
    gelu_backward,
    gelu_gate,
    hard_sigmoid,
    hard_sigmoid_backward,
    leaky_relu,
    leaky_relu_backward,
    log_softmax,
    log_softmax_backward,
    relu,
    relu_backward,
    selu,
    selu_backward,
    sigmoid,
    sigmoid_backward,
    silu,
    silu_backward,
    softplus,
    softplus_backward,
    tanh,
    tanh_backward,
)
from xpnet.kernels.affine import affine, affine_backward
from xpnet.kernels.dropout import advance_key, apply_mask, dropout_mask, hash_bits
from xpnet.kernels.losses import (
    absolute_error,
    exp_link,
    hinge,
    huber,
    mean_over_batch,
    negative_log_likelihood,
    poisson,
    rate,
    sigmoid_cross_entropy,
    smooth,
    softmax,
    softmax_cross_entropy,
    squared_error,
    weighted_mean_over_batch,
)
from xpnet.kernels.normalization import (
    batch_norm_backward,
    batch_norm_inference,
    layer_norm_backward,
    normalize,
    scale_and_shift,
    update_running,
)
from xpnet.kernels.updates import (
    accumulate,
    accumulated_mean,
    adagrad,
    adam,
    adam_rate,
    average,
    average_of_one,
    clip_norm,
    clip_value,
    corrected_root,
    decoupled_decay,
    l1_gradient,
    l2_gradient,
    lion,
    max_norm,
    momentum,
    nadam,
    nadam_rates,
    nesterov,
    rmsprop,
    sgd,
)
from xpnet.program.recorder import record

SIZES = [(10, 32), (512, 128)]  # outputs, batch


def _softmax(Z):
    E = np.exp(Z - Z.max(axis=0))
    return E / E.sum(axis=0)


def _sigmoid(Z):
    return np.exp(-np.logaddexp(0.0, -Z))


def _gate(Z):
    return np.tanh(np.sqrt(2.0 / np.pi) * (Z + 0.044715 * Z**3))


def _gelu_slope(Z):
    return 0.5 * (1.0 + _gate(Z) + Z * (1.0 - _gate(Z) ** 2) * np.sqrt(2.0 / np.pi) * (1.0 + 0.134145 * Z**2))


def _residual(v):
    return v["A"] - v["Y"]


def _one_hot(A):
    return (np.arange(len(A))[:, None] == np.arange(A.shape[1]) % len(A)).astype(float)


def _right(A, Y):
    return (A.argmax(axis=0) == Y.argmax(axis=0)).astype(float)[None]


def _adam_mean(v):
    return 0.9 * v["M"] + 0.1 * v["G"]


def _adam_root(v):
    return ((0.99 * v["V"] + 0.01 * v["G"] ** 2) / 0.5) ** 0.5 + 1e-3


def _nadam_rates(v):
    h = 1 - 0.96 * (1 - v["h"])
    mu, next_mu = (0.4 * (1 + warmth) for warmth in (h, 1 - 0.96 * (1 - h)))
    product = (1 - v["c1"]) * mu
    return {"r": 0.1 * (1 - mu) / (1 - product), "q": 0.1 * next_mu / (1 - product * next_mu)}


def _hash(index, key):
    x = (index.astype(np.int64).astype(object) + int(key[0, 0])) % 2**32
    x = ((x ^ (x // 2**16)) * 0x7FEB352D) % 2**32
    x = ((x ^ (x // 2**15)) * 0x846CA68B) % 2**32
    return (x ^ (x // 2**16)).astype(float)


def _normalized(X, axis):
    mean, variance = X.mean(axis, keepdims=True), X.var(axis, keepdims=True)
    inverse = (variance + 1e-5) ** -0.5
    return {"mean": mean, "variance": variance, "inverse": inverse, "xhat": X * inverse - mean * inverse}


def _norm_gradients(v, axis):
    G = v["gamma"] * v["D"]
    centred = G - G.mean(axis, keepdims=True) - v["xhat"] * (G * v["xhat"]).mean(axis, keepdims=True)
    return {
        "dgamma": (v["D"] * v["xhat"]).sum(1)[:, None],
        "dbeta": v["D"].sum(1)[:, None],
        "O": centred * v["inverse"],
    }


# name: (kernel, inputs, outputs, scratch, {output: expected from float64 inputs}); letters of inputs and outputs are
# buffers: m a matrix (n, batch), r a row (1, batch), s a scalar, W a square matrix (n, n), c a column (n, 1), v a
# column of numbers above 0, u and k a matrix and a number of uint32, f a flat vector (n * n,), F one of squares.
KERNELS = {
    "affine": (
        lambda xp, b: affine(xp, b["W"], b["b"], b["A"], b["Z"]),
        {"W": "W", "b": "c", "A": "m"},
        {"Z": "m"},
        {},
        lambda v: {"Z": v["W"] @ v["A"] + v["b"]},
    ),
    "affine_backward": (
        lambda xp, b: affine_backward(xp, b["W"], b["A"], b["D"], b["dW"], b["db"], b["dA"]),
        {"W": "W", "A": "m", "D": "m"},
        {"dW": "W", "db": "c", "dA": "m"},
        {},
        lambda v: {"dW": v["D"] @ v["A"].T, "db": v["D"].sum(1)[:, None], "dA": v["W"].T @ v["D"]},
    ),
    "sigmoid": (
        lambda xp, b: sigmoid(xp, b["Z"], b["A"]),
        {"Z": "m"},
        {"A": "m"},
        {},
        lambda v: {"A": _sigmoid(v["Z"])},
    ),
    "sigmoid_backward": (
        lambda xp, b: sigmoid_backward(xp, b["A"], b["D"], b["O"]),
        {"A": "m", "D": "m"},
        {"O": "m"},
        {},
        lambda v: {"O": v["D"] * (v["A"] - v["A"] ** 2)},
    ),
    "tanh": (
        lambda xp, b: tanh(xp, b["Z"], b["A"]),
        {"Z": "m"},
        {"A": "m"},
        {},
        lambda v: {"A": 2.0 * _sigmoid(2.0 * v["Z"]) - 1.0},
    ),
    "tanh_backward": (
        lambda xp, b: tanh_backward(xp, b["A"], b["D"], b["O"]),
        {"A": "m", "D": "m"},
        {"O": "m"},
        {},
        lambda v: {"O": v["D"] - v["D"] * v["A"] ** 2},
    ),
    "relu": (
        lambda xp, b: relu(xp, b["Z"], b["A"]),
        {"Z": "m"},
        {"A": "m"},
        {},
        lambda v: {"A": np.where(v["Z"] > 0, v["Z"], 0.0)},
    ),
    "relu_backward": (
        lambda xp, b: relu_backward(xp, b["A"], b["D"], b["O"]),
        {"A": "m", "D": "m"},
        {"O": "m"},
        {},
        lambda v: {"O": np.where(v["A"] > 0, v["D"], 0.0)},
    ),
    "leaky_relu": (
        lambda xp, b: leaky_relu(xp, b["Z"], b["A"], b["work"]),
        {"Z": "m"},
        {"A": "m"},
        {"work": "m"},
        lambda v: {"A": np.where(v["Z"] > 0, v["Z"], v["Z"] / 100)},
    ),
    "leaky_relu_backward": (
        lambda xp, b: leaky_relu_backward(xp, b["A"], b["D"], b["O"]),
        {"A": "m", "D": "m"},
        {"O": "m"},
        {},
        lambda v: {"O": np.where(v["A"] > 0, v["D"], v["D"] / 100)},
    ),
    "elu": (
        lambda xp, b: elu(xp, b["Z"], b["A"], b["work"]),
        {"Z": "m"},
        {"A": "m"},
        {"work": "m"},
        lambda v: {"A": np.where(v["Z"] > 0, v["Z"], np.expm1(v["Z"]))},
    ),
    "elu_backward": (
        lambda xp, b: elu_backward(xp, b["A"], b["D"], b["O"]),
        {"A": "m", "D": "m"},
        {"O": "m"},
        {},
        lambda v: {"O": np.where(v["A"] > 0, v["D"], v["D"] * (v["A"] + 1))},
    ),
    "selu": (
        lambda xp, b: selu(xp, b["Z"], b["A"], b["work"]),
        {"Z": "m"},
        {"A": "m"},
        {"work": "m"},
        lambda v: {"A": np.where(v["Z"] > 0, 1.0507009873554805 * v["Z"], 1.7580993408473766 * np.expm1(v["Z"]))},
    ),
    "selu_backward": (
        lambda xp, b: selu_backward(xp, b["A"], b["D"], b["O"], b["work"]),
        {"A": "m", "D": "m"},
        {"O": "m"},
        {"work": "m"},
        lambda v: {"O": v["D"] * np.where(v["A"] > 0, 1.0507009873554805, v["A"] + 1.7580993408473766)},
    ),
    "softplus": (
        lambda xp, b: softplus(xp, b["Z"], b["A"]),
        {"Z": "m"},
        {"A": "m"},
        {},
        lambda v: {"A": np.logaddexp(0.0, v["Z"])},
    ),
    "softplus_backward": (
        lambda xp, b: softplus_backward(xp, b["Z"], b["D"], b["O"]),
        {"Z": "m", "D": "m"},
        {"O": "m"},
        {},
        lambda v: {"O": v["D"] * _sigmoid(v["Z"])},
    ),
    "silu": (
        lambda xp, b: silu(xp, b["Z"], b["A"]),
        {"Z": "m"},
        {"A": "m"},
        {},
        lambda v: {"A": v["Z"] * _sigmoid(v["Z"])},
    ),
    "silu_backward": (
        lambda xp, b: silu_backward(xp, b["Z"], b["D"], b["O"], b["work"]),
        {"Z": "m", "D": "m"},
        {"O": "m"},
        {"work": "m"},
        lambda v: {"O": v["D"] * (_sigmoid(v["Z"]) + v["Z"] * _sigmoid(v["Z"]) * _sigmoid(-v["Z"]))},
    ),
    "gelu_gate": (
        lambda xp, b: gelu_gate(xp, b["Z"], b["A"]),
        {"Z": "m"},
        {"A": "m"},
        {},
        lambda v: {"A": (1.0 + _gate(v["Z"])) / 2},
    ),
    "gelu": (
        lambda xp, b: gelu(xp, b["Z"], b["A"]),
        {"Z": "m"},
        {"A": "m"},
        {},
        lambda v: {"A": v["Z"] / 2 * (1 + _gate(v["Z"]))},
    ),
    "gelu_backward": (
        lambda xp, b: gelu_backward(xp, b["Z"], b["D"], b["O"], b["work"], b["work2"]),
        {"Z": "m", "D": "m"},
        {"O": "m"},
        {"work": "m", "work2": "m"},
        lambda v: {"O": v["D"] * _gelu_slope(v["Z"])},
    ),
    "hard_sigmoid": (
        lambda xp, b: hard_sigmoid(xp, b["Z"], b["A"]),
        {"Z": "m"},
        {"A": "m"},
        {},
        lambda v: {"A": np.clip((v["Z"] + 3) / 6, 0, 1)},
    ),
    "hard_sigmoid_backward": (
        lambda xp, b: hard_sigmoid_backward(xp, b["A"], b["D"], b["O"]),
        {"A": "m", "D": "m"},
        {"O": "m"},
        {},
        lambda v: {"O": np.where((v["A"] > 0) & (v["A"] < 1), v["D"] / 6, 0.0)},
    ),
    "log_softmax_backward": (
        lambda xp, b: log_softmax_backward(xp, b["A"], b["D"], b["O"], b["row"]),
        {"A": "m", "D": "m"},
        {"O": "m"},
        {"row": "r"},
        lambda v: {"O": v["D"] - np.exp(v["A"]) * v["D"].sum(0)},
    ),
    "absolute_error": (
        lambda xp, b: absolute_error(xp, b["A"], b["Y"], b["L"], b["D"], b["work"]),
        {"A": "m", "Y": "m"},
        {"L": "r", "D": "m"},
        {"work": "m"},
        lambda v: {"L": abs(_residual(v)).sum(0)[None], "D": np.where(v["A"] > v["Y"], 1.0, -1.0)},
    ),
    "huber": (
        lambda xp, b: huber(xp, b["A"], b["Y"], b["L"], b["D"], b["work"], 1.0),
        {"A": "m", "Y": "m"},
        {"L": "r", "D": "m"},
        {"work": "m"},
        lambda v: {
            "L": np.where(abs(_residual(v)) < 1, _residual(v) ** 2 / 2, abs(_residual(v)) - 0.5).sum(0)[None],
            "D": np.clip(_residual(v), -1, 1),
        },
    ),
    "rate": (lambda xp, b: rate(xp, b["Z"], b["A"]), {"Z": "m"}, {"A": "m"}, {}, lambda v: {"A": np.e ** v["Z"]}),
    "exp_link": (
        lambda xp, b: exp_link(xp, b["Z"], b["A"]),
        {"Z": "m"},
        {"A": "m"},
        {},
        lambda v: {"A": np.e ** v["Z"]},
    ),
    "poisson": (
        lambda xp, b: poisson(xp, b["Z"], b["Y"], b["L"], b["D"], b["work"]),
        {"Z": "m", "Y": "y"},
        {"L": "r", "D": "m"},
        {"work": "m"},
        lambda v: {"L": (np.e ** v["Z"] - v["Y"] * v["Z"]).sum(0)[None], "D": np.e ** v["Z"] - v["Y"]},
    ),
    "hinge": (
        lambda xp, b: hinge(xp, b["A"], b["Y"], b["L"], b["D"], b["work"]),
        {"A": "m", "Y": "y"},
        {"L": "r", "D": "m"},
        {"work": "m"},
        lambda v: {
            "L": np.clip(1 - v["A"] * (2 * v["Y"] - 1), 0, None).sum(0)[None],
            "D": np.where(v["A"] * (2 * v["Y"] - 1) < 1, 1 - 2 * v["Y"], 0.0),
        },
    ),
    "negative_log_likelihood": (
        lambda xp, b: negative_log_likelihood(xp, b["A"], b["Y"], b["L"], b["D"], b["work"]),
        {"A": "m", "Y": "y"},
        {"L": "r", "D": "m"},
        {"work": "m"},
        lambda v: {"L": -(v["A"] * v["Y"]).sum(0)[None], "D": -v["Y"]},
    ),
    "smooth": (
        lambda xp, b: smooth(xp, b["Y"], 0.1, 0.5, b["O"]),
        {"Y": "y"},
        {"O": "m"},
        {},
        lambda v: {"O": np.where(v["Y"] > 0, 0.95, 0.05)},
    ),
    "squared_error": (
        lambda xp, b: squared_error(xp, b["A"], b["Y"], b["L"], b["D"], b["work"]),
        {"A": "m", "Y": "m"},
        {"L": "r", "D": "m"},
        {"work": "m"},
        lambda v: {"L": 0.5 * ((v["A"] - v["Y"]) ** 2).sum(0)[None], "D": v["A"] - v["Y"]},
    ),
    "log_softmax": (
        lambda xp, b: log_softmax(xp, b["Z"], b["O"], b["work"], b["row"]),
        {"Z": "m"},
        {"O": "m"},
        {"work": "m", "row": "r"},
        lambda v: {"O": np.log(_softmax(v["Z"]))},
    ),
    "softmax": (
        lambda xp, b: softmax(xp, b["Z"], b["O"], b["work"], b["row"]),
        {"Z": "m"},
        {"O": "m"},
        {"work": "m", "row": "r"},
        lambda v: {"O": _softmax(v["Z"])},
    ),
    "softmax_cross_entropy": (
        lambda xp, b: softmax_cross_entropy(xp, b["Z"], b["Y"], b["L"], b["D"], b["work"]),
        {"Z": "m", "Y": "y"},
        {"L": "r", "D": "m"},
        {"work": "m"},
        lambda v: {"L": -np.log((_softmax(v["Z"]) * v["Y"]).sum(0))[None], "D": _softmax(v["Z"]) - v["Y"]},
    ),
    "sigmoid_cross_entropy": (
        lambda xp, b: sigmoid_cross_entropy(xp, b["Z"], b["Y"], b["L"], b["D"], b["work"]),
        {"Z": "m", "Y": "y"},
        {"L": "r", "D": "m"},
        {"work": "m"},
        lambda v: {"L": np.logaddexp(0.0, v["Z"] * (1 - 2 * v["Y"])).sum(0)[None], "D": _sigmoid(v["Z"]) - v["Y"]},
    ),
    "mean_over_batch": (
        lambda xp, b: mean_over_batch(xp, b["L"], b["D"], b["total"]),
        {"L": "r", "D": "m"},
        {"total": "s"},
        {},
        lambda v: {"total": v["L"].sum().reshape(1, 1)},
    ),
    "weighted_mean_over_batch": (
        lambda xp, b: weighted_mean_over_batch(xp, b["L"], b["w"], b["D"], b["t"], b["s"]),
        {"L": "r", "w": "p", "D": "m"},
        {"t": "s", "s": "s"},
        {},
        lambda v: {"t": (v["L"] * v["w"]).sum().reshape(1, 1), "s": v["w"].sum().reshape(1, 1)},
    ),
    "right_class": (
        lambda xp, b: right_class(xp, b["A"], b["Y"], b["work"], b["row"]),
        {"A": "m", "Y": "y"},
        {"row": "r"},
        {"work": "m"},
        lambda v: {"row": _right(v["A"], v["Y"])},
    ),
    "right_side": (
        lambda xp, b: right_side(xp, b["A"], b["Y"], 0.0, b["work"], b["work2"], b["row"]),
        {"A": "1", "Y": "h"},
        {"row": "r"},
        {"work": "1", "work2": "1"},
        lambda v: {"row": ((v["A"] > 0) == (v["Y"] > 0)).astype(float)},
    ),
    "sgd": (
        lambda xp, b: sgd(xp, b["T"], b["G"], 0.1),
        {"T": "m", "G": "m"},
        {},
        {},
        lambda v: {"T": v["T"] - 0.1 * v["G"]},
    ),
    "momentum": (
        lambda xp, b: momentum(xp, b["T"], b["G"], b["V"], 0.1, 0.9),
        {"T": "f", "G": "f", "V": "f"},
        {},
        {},
        lambda v: {"T": v["T"] - 0.1 * (0.9 * v["V"] + v["G"])},
    ),
    "nesterov": (
        lambda xp, b: nesterov(xp, b["T"], b["G"], b["V"], 0.1, 0.9),
        {"T": "f", "G": "f", "V": "f"},
        {},
        {},
        lambda v: {"T": v["T"] - 0.1 * (1.9 * v["G"] + 0.9 * v["V"])},
    ),
    "adagrad": (
        lambda xp, b: adagrad(xp, b["T"], b["G"], b["S"], b["work"], 0.1, 1e-3),
        {"T": "f", "G": "f", "S": "F"},
        {},
        {"work": "f"},
        lambda v: {"T": v["T"] - 0.1 * v["G"] / (np.hypot(v["S"] ** 0.5, v["G"]) + 1e-3)},
    ),
    "rmsprop": (
        lambda xp, b: rmsprop(xp, b["T"], b["G"], b["S"], b["work"], 0.1, 0.9, 1e-3),
        {"T": "f", "G": "f", "S": "F"},
        {},
        {"work": "f"},
        lambda v: {"T": v["T"] - 0.1 * v["G"] / ((0.9 * v["S"] + 0.1 * v["G"] ** 2) ** 0.5 + 1e-3)},
    ),
    "adam": (
        lambda xp, b: adam(xp, b["T"], b["G"], b["M"], b["V"], b["work"], 0.5, 0.1, 0.9, 0.99, 1e-3),
        {"T": "f", "G": "f", "M": "f", "V": "F"},
        {},
        {"work": "f"},
        lambda v: {"T": v["T"] - 0.1 * _adam_mean(v) / _adam_root(v)},
    ),
    "nadam": (
        lambda xp, b: nadam(xp, b["T"], b["G"], b["M"], b["V"], b["work"], 0.5, 0.1, 0.2, 0.9, 0.99, 1e-3),
        {"T": "f", "G": "f", "M": "f", "V": "F"},
        {},
        {"work": "f"},
        lambda v: {"T": v["T"] - (0.1 * v["G"] + 0.2 * _adam_mean(v)) / _adam_root(v)},
    ),
    "lion": (
        lambda xp, b: lion(xp, b["T"], b["G"], b["M"], b["work"], 0.1, 0.9, 0.99),
        {"T": "f", "G": "f", "M": "f"},
        {},
        {"work": "f"},
        lambda v: {"T": v["T"] - 0.1 * np.sign(_adam_mean(v)), "M": 0.99 * v["M"] + 0.01 * v["G"]},
    ),
    "adam_rate": (
        lambda xp, b: adam_rate(xp, b["c1"], b["c2"], b["rate"], 0.1, 0.9, 0.99),
        {"c1": "s", "c2": "s"},
        {"rate": "s"},
        {},
        lambda v: {"rate": 0.1 / (0.9 * v["c1"] + 0.1)},
    ),
    "nadam_rates": (
        lambda xp, b: nadam_rates(xp, b["h"], b["c1"], b["c2"], b["r"], b["q"], 0.1, 0.8, 0.99, 0.96),
        {"h": "s", "c1": "s", "c2": "s"},
        {"r": "s", "q": "s"},
        {},
        lambda v: _nadam_rates(v),
    ),
    "average": (
        lambda xp, b: average(xp, b["M"], b["G"], b["work"], 0.9),
        {"M": "f", "G": "f"},
        {},
        {"work": "f"},
        lambda v: {"M": _adam_mean(v)},
    ),
    "average_of_one": (
        lambda xp, b: average_of_one(xp, b["c"], 0.9),
        {"c": "s"},
        {},
        {},
        lambda v: {"c": 1 - 0.9 * (1 - v["c"])},
    ),
    "corrected_root": (
        lambda xp, b: corrected_root(xp, b["V"], 0.5, 1e-3, b["O"]),
        {"V": "F"},
        {"O": "f"},
        {},
        lambda v: {"O": (2 * v["V"]) ** 0.5 + 1e-3},
    ),
    "l1_gradient": (
        lambda xp, b: l1_gradient(xp, b["W"], b["G"], b["work"], 0.1),
        {"W": "f", "G": "f"},
        {},
        {"work": "f"},
        lambda v: {"G": v["G"] + np.copysign(0.1, v["W"])},
    ),
    "l2_gradient": (
        lambda xp, b: l2_gradient(xp, b["W"], b["G"], b["work"], 0.1),
        {"W": "f", "G": "f"},
        {},
        {"work": "f"},
        lambda v: {"G": v["G"] + 0.1 * v["W"]},
    ),
    "clip_value": (
        lambda xp, b: clip_value(xp, b["G"], 0.5),
        {"G": "f"},
        {},
        {},
        lambda v: {"G": np.clip(v["G"], -0.5, 0.5)},
    ),
    "clip_norm": (
        lambda xp, b: clip_norm(xp, b["G"], b["work"], b["s"], 1.0),
        {"G": "f"},
        {"s": "s"},
        {"work": "f"},
        lambda v: {"G": v["G"] / (np.linalg.norm(v["G"]) + 1e-6)},
    ),
    "decoupled_decay": (
        lambda xp, b: decoupled_decay(xp, b["W"], b["work"], b["s"], b["lr"], 0.1),
        {"W": "f", "lr": "s"},
        {"s": "s"},
        {"work": "f"},
        lambda v: {"W": v["W"] * (1 - 0.1 * v["lr"][0, 0])},
    ),
    "max_norm": (
        lambda xp, b: max_norm(xp, b["W"], b["work"], b["norms"], 1.0),
        {"W": "W"},
        {"norms": "c"},
        {"work": "W"},
        lambda v: {"W": v["W"] / np.maximum(np.linalg.norm(v["W"], axis=1), 1.0)[:, None]},
    ),
    "accumulate": (
        lambda xp, b: accumulate(xp, b["G"], 3.0, b["T"], b["s"]),
        {"G": "f", "T": "f", "s": "s"},
        {},
        {},
        lambda v: {"T": v["T"] + 3 * v["G"], "s": v["s"] + 3},
    ),
    "accumulated_mean": (
        lambda xp, b: accumulated_mean(xp, b["T"], b["s"], b["G"]),
        {"T": "f", "s": "s"},
        {"G": "f"},
        {},
        lambda v: {"G": v["T"] / v["s"][0, 0], "T": 0 * v["T"]},
    ),
    "hash_bits": (
        lambda xp, b: hash_bits(xp, b["index"], b["key"], b["bits"], b["spare"]),
        {"index": "u", "key": "k"},
        {"bits": "u"},
        {"spare": "u"},
        lambda v: {"bits": _hash(v["index"], v["key"])},
    ),
    "dropout_mask": (
        lambda xp, b: dropout_mask(xp, b["bits"], 0.25, b["mask"]),
        {"bits": "u"},
        {"mask": "m"},
        {},
        lambda v: {"mask": np.where(v["bits"] / 2**32 < 0.25, 0.0, 4 / 3)},
    ),
    "apply_mask": (
        lambda xp, b: apply_mask(xp, b["X"], b["mask"], b["O"]),
        {"X": "m", "mask": "m"},
        {"O": "m"},
        {},
        lambda v: {"O": v["mask"] * v["X"]},
    ),
    "advance_key": (
        lambda xp, b: advance_key(xp, b["key"], 2**32 - 16),
        {"key": "k"},
        {},
        {},
        lambda v: {"key": (v["key"].astype(float) - 16) % 2**32},
    ),
    "normalize over the batch": (
        lambda xp, b: normalize(xp, b["X"], 1, 1e-5, b["mean"], b["variance"], b["inverse"], b["xhat"], b["work"]),
        {"X": "m"},
        {"mean": "c", "variance": "c", "inverse": "c", "xhat": "m"},
        {"work": "m"},
        lambda v: _normalized(v["X"], 1),
    ),
    "normalize over the features": (
        lambda xp, b: normalize(xp, b["X"], 0, 1e-5, b["mean"], b["variance"], b["inverse"], b["xhat"], b["work"]),
        {"X": "m"},
        {"mean": "r", "variance": "r", "inverse": "r", "xhat": "m"},
        {"work": "m"},
        lambda v: _normalized(v["X"], 0),
    ),
    "scale_and_shift": (
        lambda xp, b: scale_and_shift(xp, b["xhat"], b["gamma"], b["beta"], b["O"]),
        {"xhat": "m", "gamma": "c", "beta": "c"},
        {"O": "m"},
        {},
        lambda v: {"O": v["beta"] + v["xhat"] * v["gamma"]},
    ),
    "batch_norm_backward": (
        lambda xp, b: batch_norm_backward(
            xp, b["gamma"], b["xhat"], b["inverse"], b["D"], b["dgamma"], b["dbeta"], b["O"], b["scale"]
        ),
        {"gamma": "c", "xhat": "m", "inverse": "v", "D": "m"},
        {"dgamma": "c", "dbeta": "c", "O": "m"},
        {"scale": "c"},
        lambda v: _norm_gradients(v, 1),
    ),
    "layer_norm_backward": (
        lambda xp, b: layer_norm_backward(
            xp, b["gamma"], b["xhat"], b["inverse"], b["D"], b["dgamma"], b["dbeta"], b["O"], b["row"], b["work"]
        ),
        {"gamma": "c", "xhat": "m", "inverse": "p", "D": "m"},
        {"dgamma": "c", "dbeta": "c", "O": "m"},
        {"row": "r", "work": "m"},
        lambda v: _norm_gradients(v, 0),
    ),
    "update_running": (
        lambda xp, b: update_running(xp, b["running"], b["value"], 0.1, 1.25),
        {"running": "c", "value": "c"},
        {},
        {},
        lambda v: {"running": v["running"] + 0.1 * (1.25 * v["value"] - v["running"])},
    ),
    "batch_norm_inference": (
        lambda xp, b: batch_norm_inference(
            xp, b["X"], b["gamma"], b["beta"], b["mean"], b["variance"], 1e-5, b["scale"], b["O"]
        ),
        {"X": "m", "gamma": "c", "beta": "c", "mean": "c", "variance": "v"},
        {"O": "m"},
        {"scale": "c"},
        lambda v: {"O": v["beta"] + v["gamma"] * (v["X"] - v["mean"]) * (v["variance"] + 1e-5) ** -0.5},
    ),
}


def _allocate(recorder, letter, name, n):
    if letter in "my":
        return recorder.batch_matrix(name, n)
    if letter in "1h":
        return recorder.batch_matrix(name, 1)
    if letter in "rp":
        return recorder.batch_vector(name)
    if letter == "s":
        return recorder[name]
    if letter in "fF":
        return recorder.flat(name, n * n)
    if letter == "u":
        return recorder.batch_matrix(name, n, "uint32")
    if letter == "k":
        return recorder.scalar_in(recorder.flat(f"{name} memory", 1, "uint32"), name, 0)
    size = n * n if letter == "W" else n
    flat = recorder.flat(f"{name} memory", size)
    return recorder.matrix_in(flat, name, 0, (n, n)) if letter == "W" else recorder.column_in(flat, name, 0, n)


def _values(letter, n, batch, rng):
    shape = {
        "m": (n, batch),
        "y": (n, batch),
        "1": (1, batch),
        "h": (1, batch),
        "W": (n, n),
        "c": (n, 1),
        "v": (n, 1),
        "s": (1, 1),
        "f": (n * n,),
        "F": (n * n,),
    }
    if letter in "uk":
        return rng.integers(2**32, size=(n, batch) if letter == "u" else (1, 1), dtype=np.uint32)
    values = rng.standard_normal(shape.get(letter, (1, batch)))
    if letter == "y":
        return _one_hot(values)
    return (values > 0).astype(float) if letter == "h" else abs(values) if letter in "pvsF" else values


@pytest.mark.parametrize("size", SIZES, ids=lambda size: "x".join(map(str, size)))
@pytest.mark.parametrize("name", KERNELS)
def test_kernel(name, size, backend, timed):
    kernel, inputs, outputs, scratch, expect = KERNELS[name]
    n, batch = size
    letters = {**inputs, **outputs, **scratch}

    def build(recorder):
        buffers = {key: _allocate(recorder, letter, key, n) for key, letter in letters.items()}
        kernel(recorder.xp, buffers)

    results = tuple(key for key, letter in letters.items() if letter == "s")
    program = record(build, batch=batch, n_parameters=0, results=results)
    engine = Replay(program, backend, backend.zeros(0))
    rng = np.random.default_rng(0)
    values = {key: _values(letter, n, batch, rng) for key, letter in inputs.items()}
    types = {key: np.uint32 if letter in "uk" else backend.dtype for key, letter in letters.items()}
    values = {key: value.astype(types[key]).astype(float) for key, value in values.items()}  # as the kernel sees them
    engine.feed(batch, **{key: backend.to_device(value, types[key]) for key, value in values.items()})
    engine.execute(batch)
    tolerance = 1e-5 if backend.dtype == np.float32 else 1e-12
    for key, expected in expect(values).items():
        found = backend.to_host(engine.read(key, batch))
        assert abs(found - expected).max() <= tolerance * max(1.0, abs(expected).max())
    flops, moved = sum(call.flops for call in program.calls), sum(call.bytes for call in program.calls)
    timed(lambda: engine.execute(batch), flops=flops, bytes=moved * backend.dtype.itemsize // 4)
