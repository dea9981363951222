"""Every kernel against an independent float64 computation, central differences, and its limits."""

from __future__ import annotations

import ast
import inspect
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import xpnet.kernels
from xpnet.kernels import updates
from xpnet.kernels.accuracy import right_class, right_side
from xpnet.kernels.activations import (
    ACTIVATIONS,
    elu,
    elu_backward,
    exp_minus_one,
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
from xpnet.kernels.dropout import advance_key, apply_mask, dropout_mask, hash_bits, shifted_key
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
from xpnet.kernels.shards import (
    mean_over_shards,
    merged_statistics,
    share_of_statistics,
    sum_over_shard,
    tell,
    weighted_sum_over_shard,
)
from xpnet.kernels.updates import sgd
from xpnet.network.losses import LOSSES, Huber, SigmoidCrossEntropy, SoftmaxCrossEntropy
from xpnet.program.calls import WORDS

# NumPy, but only the Program's words: a kernel that says another one fails in every test below.
XP = SimpleNamespace(**{word: getattr(np, word) for word in WORDS})
SHAPES = [(5, 7), (1, 7), (5, 1), (1, 1)]
MODULES = sorted(Path(xpnet.kernels.__file__).parent.glob("[a-z]*.py"))


def draw(rng, *shape):
    """Normal numbers that float32 holds exactly, so that both float types see the same inputs."""
    return (rng.standard_normal(shape) * 2.0).astype(np.float32).astype(np.float64)


def one_hot(rng, n, batch):
    return np.eye(n)[:, rng.integers(n, size=batch)]


def scratch(n, batch):
    return np.full((n, batch), np.nan)  # what reads it before writing it gives NaN


# For each kernel: its inputs and scratch, and what each array it writes should hold, or (before, after) where it also
# reads it. The expectations take another way than the kernels: sums over indices, textbook definitions, branches.


def case_affine(rng, n, batch):
    W, b, A = draw(rng, n, 4), draw(rng, n, 1), draw(rng, 4, batch)
    return affine, {"W": W, "b": b, "A": A}, {"out": np.stack([W @ a + b[:, 0] for a in A.T], axis=1)}


def case_affine_backward(rng, n, batch):
    W, A, dZ = draw(rng, n, 4), draw(rng, 4, batch), draw(rng, n, batch)
    dW = sum(np.outer(dz, a) for dz, a in zip(dZ.T, A.T, strict=True))
    return (
        affine_backward,
        {"W": W, "A": A, "dZ": dZ},
        {"dW": dW, "db": sum(dZ.T)[:, None], "dA": np.einsum("ij,ik->jk", W, dZ)},
    )


def case_first_affine_backward(rng, n, batch):
    kernel, inputs, expected = case_affine_backward(rng, n, batch)
    del expected["dA"]  # nobody needs the gradient by the data
    return kernel, inputs, expected


def case_sigmoid(rng, n, batch):
    Z = draw(rng, n, batch)
    return sigmoid, {"Z": Z}, {"out": 0.5 + 0.5 * np.tanh(Z / 2)}


def case_sigmoid_backward(rng, n, batch):
    Z, dA = draw(rng, n, batch), draw(rng, n, batch)
    A = (1 / (1 + np.exp(-Z))).astype(np.float32).astype(np.float64)
    return sigmoid_backward, {"A": A, "dA": dA}, {"out": dA * (A - A**2)}


def case_tanh(rng, n, batch):
    Z = draw(rng, n, batch)
    return tanh, {"Z": Z}, {"out": (np.exp(2 * Z) - 1) / (np.exp(2 * Z) + 1)}


def case_tanh_backward(rng, n, batch):
    A, dA = np.tanh(draw(rng, n, batch)).astype(np.float32).astype(np.float64), draw(rng, n, batch)
    return tanh_backward, {"A": A, "dA": dA}, {"out": dA * (1 - A) * (1 + A)}


def case_relu(rng, n, batch):
    Z = draw(rng, n, batch)
    return relu, {"Z": Z}, {"out": np.where(Z > 0, Z, 0)}


def case_relu_backward(rng, n, batch):
    A, dA = draw(rng, n, batch).clip(0), draw(rng, n, batch)
    return relu_backward, {"A": A, "dA": dA}, {"out": np.where(A > 0, dA, 0)}


def case_leaky_relu(rng, n, batch):
    Z = draw(rng, n, batch)
    return leaky_relu, {"Z": Z, "work": scratch(n, batch)}, {"out": np.where(Z > 0, Z, Z / 100)}


def case_leaky_relu_backward(rng, n, batch):
    Z, dA = draw(rng, n, batch), draw(rng, n, batch)
    return leaky_relu_backward, {"A": Z, "dA": dA}, {"out": np.where(Z > 0, dA, dA / 100)}


def case_elu(rng, n, batch):
    Z = draw(rng, n, batch)
    return elu, {"Z": Z, "work": scratch(n, batch)}, {"out": np.where(Z > 0, Z, np.expm1(Z))}


def case_exp_minus_one(rng, n, batch):
    Z = draw(rng, n, batch)
    return exp_minus_one, {"Z": Z}, {"out": np.where(Z < 0, np.expm1(Z), -1e-30)}


def case_elu_backward(rng, n, batch):
    A, dA = np.maximum(draw(rng, n, batch), -0.75), draw(rng, n, batch)
    return elu_backward, {"A": A, "dA": dA}, {"out": dA * np.where(A > 0, 1, 1 + A)}


SELU_RIGHT, SELU_LEFT = 1.0507009873554804934193349852946, 1.7580993408473768599402175208123  # scale, scale alpha


def case_selu(rng, n, batch):
    Z = draw(rng, n, batch)
    expected = np.where(Z > 0, SELU_RIGHT * Z, SELU_LEFT * np.expm1(Z))
    return selu, {"Z": Z, "work": scratch(n, batch)}, {"out": expected}


def case_selu_backward(rng, n, batch):
    A, dA = np.maximum(draw(rng, n, batch), -1.5), draw(rng, n, batch)
    expected = dA * np.where(A > 0, SELU_RIGHT, A + SELU_LEFT)
    return selu_backward, {"A": A, "dA": dA, "work": scratch(n, batch)}, {"out": expected}


def case_softplus(rng, n, batch):
    Z = 10 * draw(rng, n, batch)
    return softplus, {"Z": Z}, {"out": np.logaddexp(0, Z)}


def case_softplus_backward(rng, n, batch):
    Z, dA = draw(rng, n, batch), draw(rng, n, batch)
    return softplus_backward, {"Z": Z, "dA": dA}, {"out": dA / (1 + np.exp(-Z))}


def case_silu(rng, n, batch):
    Z = draw(rng, n, batch)
    return silu, {"Z": Z}, {"out": Z / (1 + np.exp(-Z))}


def case_silu_backward(rng, n, batch):
    Z, dA = draw(rng, n, batch), draw(rng, n, batch)
    expected = dA * (1 + np.exp(-Z) + Z * np.exp(-Z)) / (1 + np.exp(-Z)) ** 2
    return silu_backward, {"Z": Z, "dA": dA, "work": scratch(n, batch)}, {"out": expected}


def gelu_angle(Z):
    return np.sqrt(2 / np.pi) * (Z + 0.044715 * Z**3)


def case_gelu_gate(rng, n, batch):
    Z = draw(rng, n, batch)
    return gelu_gate, {"Z": Z}, {"out": 1 / (1 + np.exp(-2 * gelu_angle(Z)))}


def case_gelu(rng, n, batch):
    Z = draw(rng, n, batch)
    return gelu, {"Z": Z}, {"out": Z / (1 + np.exp(-2 * gelu_angle(Z)))}


def case_gelu_backward(rng, n, batch):
    Z, dA = draw(rng, n, batch), draw(rng, n, batch)
    gate, turn = 1 / (1 + np.exp(-2 * gelu_angle(Z))), np.sqrt(2 / np.pi) * (1 + 3 * 0.044715 * Z**2)
    expected = dA * (gate + Z * gate * (1 - gate) * 2 * turn)
    inputs = {"Z": Z, "dA": dA, "work": scratch(n, batch), "work2": scratch(n, batch)}
    return gelu_backward, inputs, {"out": expected}


def case_hard_sigmoid(rng, n, batch):
    Z = draw(rng, n, batch)
    return hard_sigmoid, {"Z": Z}, {"out": np.clip((Z + 3) / 6, 0, 1)}


def case_hard_sigmoid_backward(rng, n, batch):
    A, dA = np.clip(draw(rng, n, batch), 0, 1), draw(rng, n, batch)
    return hard_sigmoid_backward, {"A": A, "dA": dA}, {"out": np.where((A > 0) & (A < 1), dA / 6, 0)}


def case_log_softmax_backward(rng, n, batch):
    Z, dA = draw(rng, n, batch), draw(rng, n, batch)
    P = (np.exp(Z) / np.exp(Z).sum(axis=0)).astype(np.float32).astype(np.float64)
    jacobians = [np.eye(n) - np.outer(np.ones(n), p) for p in P.T]  # d log P_i / d Z_j
    expected = np.stack([J.T @ d for J, d in zip(jacobians, dA.T, strict=True)], axis=1)
    inputs = {"A": np.log(P), "dA": dA, "row": scratch(1, batch)}
    return log_softmax_backward, inputs, {"out": expected}


def case_squared_error(rng, n, batch):
    A, Y = draw(rng, n, batch), draw(rng, n, batch)
    L = [[np.linalg.norm(a - y) ** 2 / 2 for a, y in zip(A.T, Y.T, strict=True)]]
    return squared_error, {"A": A, "Y": Y, "work": scratch(n, batch)}, {"L": L, "dA": A - Y}


def case_log_softmax(rng, n, batch):
    Z = draw(rng, n, batch)
    inputs = {"Z": Z, "work": scratch(n, batch), "row": scratch(1, batch)}
    return log_softmax, inputs, {"out": Z - np.log(np.exp(Z).sum(axis=0))}


def case_softmax(rng, n, batch):
    Z = draw(rng, n, batch)
    inputs = {"Z": Z, "work": scratch(n, batch), "row": scratch(1, batch)}
    return softmax, inputs, {"out": np.exp(Z) / np.exp(Z).sum(axis=0)}


def case_softmax_cross_entropy(rng, n, batch):
    Z, Y = draw(rng, n, batch), one_hot(rng, n, batch)
    P = np.exp(Z) / np.exp(Z).sum(axis=0)
    L = -np.log(P[Y.argmax(axis=0), np.arange(batch)])[None]
    return softmax_cross_entropy, {"Z": Z, "Y": Y, "work": scratch(n, batch)}, {"L": L, "dZ": P - Y}


def case_sigmoid_cross_entropy(rng, n, batch):
    Z, Y = draw(rng, n, batch), rng.integers(5, size=(n, batch)) / 4  # soft targets too
    P = 1 / (1 + np.exp(-Z))
    L = -(Y * np.log(P) + (1 - Y) * np.log(1 - P)).sum(axis=0, keepdims=True)
    return sigmoid_cross_entropy, {"Z": Z, "Y": Y, "work": scratch(n, batch)}, {"L": L, "dZ": P - Y}


def case_smooth(rng, n, batch):
    Y = one_hot(rng, n, batch)
    return smooth, {"Y": Y, "smoothing": 0.25, "share": 1 / n}, {"out": 0.75 * Y + 0.25 / n}


def case_smoothed_softmax_cross_entropy(rng, n, batch):
    Z, Y = draw(rng, n, batch), one_hot(rng, n, batch)
    P, smoothed = np.exp(Z) / np.exp(Z).sum(axis=0), 0.9 * Y + 0.1 / n
    L = -(smoothed * np.log(P)).sum(axis=0, keepdims=True)
    inputs = {"Z": Z, "Y": Y, "work": scratch(n, batch), "smoothing": 0.1}
    return softmax_cross_entropy, inputs, {"L": L, "dZ": P - smoothed}


def case_smoothed_sigmoid_cross_entropy(rng, n, batch):
    Z, Y = draw(rng, n, batch), rng.integers(2, size=(n, batch))
    P, smoothed = 1 / (1 + np.exp(-Z)), np.where(Y == 1, 0.95, 0.05)
    L = -(smoothed * np.log(P) + (1 - smoothed) * np.log(1 - P)).sum(axis=0, keepdims=True)
    inputs = {"Z": Z, "Y": Y, "work": scratch(n, batch), "smoothing": 0.1}
    return sigmoid_cross_entropy, inputs, {"L": L, "dZ": P - smoothed}


def case_absolute_error(rng, n, batch):
    A, Y = draw(rng, n, batch), draw(rng, n, batch)
    expected = {"L": [[np.linalg.norm(a - y, 1) for a, y in zip(A.T, Y.T, strict=True)]], "dA": np.where(A > Y, 1, -1)}
    return absolute_error, {"A": A, "Y": Y, "work": scratch(n, batch)}, expected


def case_huber(rng, n, batch):
    A, Y, delta = draw(rng, n, batch), draw(rng, n, batch), 1.5
    r = np.abs(A - Y)
    L = np.where(r <= delta, r**2 / 2, delta * (r - delta / 2)).sum(axis=0, keepdims=True)
    dA = np.where(r <= delta, A - Y, delta * np.sign(A - Y))
    return huber, {"A": A, "Y": Y, "work": scratch(n, batch), "delta": delta}, {"L": L, "dA": dA}


def case_rate(rng, n, batch):
    Z = draw(rng, n, batch)
    return rate, {"Z": Z}, {"out": np.e**Z}


def case_exp_link(rng, n, batch):
    A = -abs(draw(rng, n, batch))
    return exp_link, {"A": A}, {"out": np.e**A}


def case_poisson(rng, n, batch):
    Z, Y = draw(rng, n, batch), rng.integers(9, size=(n, batch))
    Z = np.minimum(Z, 3.0)
    probability = np.exp(-np.exp(Z)) * np.exp(Z) ** Y  # less the factor 1 / Y!
    L = -np.log(probability).sum(axis=0, keepdims=True)
    return poisson, {"Z": Z, "Y": Y, "work": scratch(n, batch)}, {"L": L, "dZ": np.exp(Z) - Y}


def case_hinge(rng, n, batch):
    A, Y = draw(rng, n, batch), rng.integers(2, size=(n, batch))
    L = np.where(Y == 1, np.clip(1 - A, 0, None), np.clip(1 + A, 0, None)).sum(axis=0, keepdims=True)
    dA = np.where(Y == 1, np.where(A < 1, -1, 0), np.where(A > -1, 1, 0))
    return hinge, {"A": A, "Y": Y, "work": scratch(n, batch)}, {"L": L, "dA": dA}


def case_negative_log_likelihood(rng, n, batch):
    A, Y = -abs(draw(rng, n, batch)), one_hot(rng, n, batch)
    L = -A[Y.argmax(axis=0), np.arange(batch)][None]
    return negative_log_likelihood, {"A": A, "Y": Y, "work": scratch(n, batch)}, {"L": L, "dA": -Y}


def case_mean_over_batch(rng, n, batch):
    L, dA = draw(rng, 1, batch), draw(rng, n, batch)
    return mean_over_batch, {"L": L}, {"dA": (dA, dA / batch), "total": [[L.mean() * batch]]}


def case_weighted_mean_over_batch(rng, n, batch):
    L, dA, w = draw(rng, 1, batch), draw(rng, n, batch), abs(draw(rng, 1, batch))
    return (
        weighted_mean_over_batch,
        {},
        {
            "L": (L, L * w),
            "w": (w, w / w.sum()),
            "dA": (dA, dA * w / w.sum()),
            "total": [[np.average(L[0], weights=w[0]) * w.sum()]],
            "total_weight": [[w.sum()]],
        },
    )


def case_sum_over_shard(rng, n, batch):
    L = draw(rng, 1, batch)
    return sum_over_shard, {"L": L, "n_samples": float(batch)}, {"total": [[L.mean() * batch]], "samples": [[batch]]}


def case_weighted_sum_over_shard(rng, n, batch):
    L, dA, w = draw(rng, 1, batch), draw(rng, n, batch), abs(draw(rng, 1, batch))
    expected = {"L": (L, L * w), "dA": (dA, dA @ np.diag(w[0])), "total_weight": [[w.mean() * batch]]}
    return weighted_sum_over_shard, {"w": w}, expected


def case_share_of_statistics(rng, n, batch):
    statistics = draw(rng, n, 1)
    return share_of_statistics, {"statistics": statistics, "n_samples": 3.0}, {"out": sum([statistics] * 3)}


def case_mean_over_shards(rng, n, batch):
    gradient, weight = draw(rng, n, 1), abs(draw(rng, 1, 1))
    return mean_over_shards, {}, {"gradient": (gradient, gradient / weight[0, 0]), "total_weight": (weight, weight)}


def case_merged_statistics(rng, n, batch):
    total, samples = draw(rng, n, 1), abs(draw(rng, 1, 1))
    return merged_statistics, {"total": total, "samples": samples}, {"statistics": total / samples[0, 0]}


def case_tell(rng, n, batch):
    total = draw(rng, 1, 1)
    return tell, {"total": total}, {"result": total}


def case_sgd(rng, n, batch):
    theta, gradient = draw(rng, n * batch), draw(rng, n * batch)
    moved = [t - 0.25 * g for t, g in zip(theta, gradient, strict=True)]
    return sgd, {"lr": 0.25}, {"theta": (theta, moved), "gradient": (gradient, gradient / 4)}


def case_sgd_with_a_slot(rng, n, batch):
    kernel, inputs, expected = case_sgd(rng, n, batch)
    return kernel, {"lr": np.full((1,), inputs["lr"])}, expected


# Updates, an element at a time in textbook form. `work` is scratch, and what a kernel leaves in a gradient is nobody's.


def vectors(rng, n, batch, *names):
    """theta, gradient and non-negative averages, as an optimizer has them in the middle of a run."""
    values = {name: abs(draw(rng, n * batch)) + 0.1 for name in names}
    return {"theta": draw(rng, n * batch), "gradient": draw(rng, n * batch), **values}


def case_momentum(rng, n, batch):
    now = vectors(rng, n, batch, "velocity")
    v = 0.75 * now["velocity"] + now["gradient"]
    return (
        updates.momentum,
        {"lr": 0.25, "mu": 0.75},
        {
            "theta": (now["theta"], now["theta"] - 0.25 * v),
            "velocity": (now["velocity"], v),
            "gradient": (now["gradient"], 0.25 * v),
        },
    )


def case_nesterov(rng, n, batch):
    now = vectors(rng, n, batch, "damped")
    v = now["damped"] + now["gradient"]  # damped is 0.75 v of the step before
    step = 0.25 * (now["gradient"] + 0.75 * v)
    return (
        updates.nesterov,
        {"lr": 0.25, "mu": 0.75},
        {
            "theta": (now["theta"], now["theta"] - step),
            "damped": (now["damped"], 0.75 * v),
            "gradient": (now["gradient"], step),
        },
    )


def case_momentum_of_steps(rng, n, batch):
    now = vectors(rng, n, batch, "velocity")
    v = 0.75 * now["velocity"] + 0.25 * now["gradient"]
    return (
        updates.momentum_of_steps,
        {"lr": 0.25, "mu": 0.75},
        {
            "theta": (now["theta"], now["theta"] - v),
            "velocity": (now["velocity"], v),
            "gradient": (now["gradient"], 0.25 * now["gradient"]),
        },
    )


def case_nesterov_of_steps(rng, n, batch):
    now = vectors(rng, n, batch, "damped")
    v = now["damped"] + 0.25 * now["gradient"]  # damped is 0.75 v of the step before
    step = 0.25 * now["gradient"] + 0.75 * v
    return (
        updates.nesterov_of_steps,
        {"lr": 0.25, "mu": 0.75},
        {
            "theta": (now["theta"], now["theta"] - step),
            "damped": (now["damped"], 0.75 * v),
            "gradient": (now["gradient"], step),
        },
    )


def case_adagrad(rng, n, batch):
    now = vectors(rng, n, batch, "squares")
    s = now["squares"] + now["gradient"] ** 2
    step = 0.25 * now["gradient"] / (s**0.5 + 0.01)
    return (
        updates.adagrad,
        {"work": scratch(1, n * batch)[0], "lr": 0.25, "eps": 0.01},
        {
            "theta": (now["theta"], now["theta"] - step),
            "squares": (now["squares"], s),
            "gradient": (now["gradient"], step),
        },
    )


def case_rmsprop(rng, n, batch):
    now = vectors(rng, n, batch, "squares")
    s = now["squares"] + 0.25 * (now["gradient"] ** 2 - now["squares"])
    step = 0.5 * now["gradient"] / (s**0.5 + 0.01)
    return (
        updates.rmsprop,
        {"work": scratch(1, n * batch)[0], "lr": 0.5, "alpha": 0.75, "eps": 0.01},
        {
            "theta": (now["theta"], now["theta"] - step),
            "squares": (now["squares"], s),
            "gradient": (now["gradient"], step),
        },
    )


def case_adam(rng, n, batch):
    now = vectors(rng, n, batch, "m", "v")
    m, v = (0.75 * now["m"] + 0.25 * now["gradient"], 0.875 * now["v"] + 0.125 * now["gradient"] ** 2)
    step = 0.5 * m / ((v / 0.3) ** 0.5 + 0.01)
    constants = {"c2": np.full(1, 0.3), "rate": 0.5, "beta1": 0.75, "beta2": 0.875, "eps": 0.01}
    return (
        updates.adam,
        {"work": scratch(1, n * batch)[0], **constants},
        {
            "theta": (now["theta"], now["theta"] - step),
            "m": (now["m"], m),
            "v": (now["v"], v),
            "gradient": (now["gradient"], step),
        },
    )


def case_adam_rate(rng, n, batch):
    t = n * batch
    before, after = (np.full(1, 1 - 0.75**k) for k in (t - 1, t))
    before2, after2 = (np.full(1, 1 - 0.875**k) for k in (t - 1, t))
    return (
        updates.adam_rate,
        {"lr": np.full(1, 0.5), "beta1": 0.75, "beta2": 0.875},
        {"c1": (before, after), "c2": (before2, after2), "rate": (np.full(1, np.nan), 0.5 / after)},
    )


def case_nadam(rng, n, batch):
    now = vectors(rng, n, batch, "m", "v")
    m, v = (0.75 * now["m"] + 0.25 * now["gradient"], 0.875 * now["v"] + 0.125 * now["gradient"] ** 2)
    root = (v / 0.3) ** 0.5 + 0.01
    constants = {"c2": np.full(1, 0.3), "rate": 0.5, "next_rate": 0.4, "beta1": 0.75, "beta2": 0.875, "eps": 0.01}
    return (
        updates.nadam,
        {"work": scratch(1, n * batch)[0], **constants},
        {
            "theta": (now["theta"], now["theta"] - (0.5 * now["gradient"] + 0.4 * m) / root),
            "m": (now["m"], m),
            "v": (now["v"], v),
            "gradient": (now["gradient"], 0.4 * m / root),
        },
    )


def case_uncorrected_eps(rng, n, batch):
    return updates.uncorrected_eps, {"c2": np.full(1, 0.25), "eps": 0.3}, {"out": (np.full(1, np.nan), [0.6])}


def case_nadam_rates(rng, n, batch):
    t = n * batch
    mu = 0.75 * (1 - 0.5 * 0.96 ** np.arange(1.0, t + 2))
    c1 = [1 - mu[:k].prod() for k in (t - 1, t, t + 1)]
    names = {
        "warmth": [1 - 0.96 ** (t - 1), 1 - 0.96**t],
        "c1": c1[:2],
        "c2": [1 - 0.875 ** (t - 1), 1 - 0.875**t],
        "rate": [np.nan, 0.5 * (1 - mu[t - 1]) / c1[1]],
        "next_rate": [np.nan, 0.5 * mu[t] / c1[2]],
    }
    expected = {name: (np.full(1, before), np.full(1, after)) for name, (before, after) in names.items()}
    return updates.nadam_rates, {"lr": np.full(1, 0.5), "beta1": 0.75, "beta2": 0.875, "decay": 0.96}, expected


def case_lion(rng, n, batch):
    now = vectors(rng, n, batch, "m")
    m, g = now["m"], now["gradient"]
    return (
        updates.lion,
        {"work": scratch(1, n * batch)[0], "lr": 0.25, "beta1": 0.75, "beta2": 0.875},
        {
            "theta": (now["theta"], now["theta"] - 0.25 * np.sign(0.75 * m + 0.25 * g)),
            "m": (m, 0.875 * m + 0.125 * g),
            "gradient": (g, 0.125 * g),
        },
    )


def case_l1_gradient(rng, n, batch):
    W, dW = draw(rng, n, batch), draw(rng, n, batch)
    W[0, 0] = 0.0
    slopes = np.where(W > 0, 0.5, np.where(W < 0, -0.5, 0.0))
    return updates.l1_gradient, {"W": W, "work": scratch(n, batch), "l1": 0.5}, {"dW": (dW, dW + slopes)}


def case_l2_gradient(rng, n, batch):
    W, dW = draw(rng, n, batch), draw(rng, n, batch)
    return updates.l2_gradient, {"W": W, "work": scratch(n, batch), "l2": 0.5}, {"dW": (dW, dW + W / 2)}


def case_clip_value(rng, n, batch):
    gradient = draw(rng, n * batch)
    clipped = [g if abs(g) < 1 else np.sign(g) for g in gradient]
    return updates.clip_value, {"limit": 1.0}, {"gradient": (gradient, clipped)}


def case_clip_norm(rng, n, batch):
    gradient = draw(rng, n * batch)
    factor = min(1.0, 2.0 / (np.linalg.norm(gradient) + 1e-6))
    return (
        updates.clip_norm,
        {"work": scratch(1, n * batch)[0], "limit": 2.0},
        {"gradient": (gradient, gradient * factor), "factor": (np.full(1, np.nan), [factor])},
    )


def case_decoupled_decay(rng, n, batch):
    W = draw(rng, n, batch)
    return (
        updates.decoupled_decay,
        {"work": scratch(n, batch), "lr": np.full(1, 0.5), "decay": 0.25},
        {"W": (W, W * (1 - 0.5 * 0.25)), "rate": (np.full(1, np.nan), [0.125])},
    )


def case_max_norm(rng, n, batch):
    W = draw(rng, n, batch)
    factors = np.array([min(1.0, 2.0 / max(np.linalg.norm(row), 1e-30)) for row in W])[:, None]
    return updates.max_norm, {"work": scratch(n, batch), "limit": 2.0}, {"W": (W, W * factors), "norms": factors}


def case_accumulate(rng, n, batch):
    gradient, total = draw(rng, n * batch), draw(rng, n * batch)
    return (
        updates.accumulate,
        {"weight": 3.0},
        {
            "gradient": (gradient, 3 * gradient),
            "total": (total, total + 3 * gradient),
            "total_weight": (np.full(1, 4.0), [7.0]),
        },
    )


def case_accumulated_mean(rng, n, batch):
    total = draw(rng, n * batch)
    return (
        updates.accumulated_mean,
        {"total_weight": np.full(1, 4.0)},
        {"total": (total, 0 * total), "gradient": (scratch(1, n * batch)[0], total / 4)},
    )


def case_forget_weight(rng, n, batch):
    return updates.forget_weight, {}, {"total_weight": (np.full(1, 4.0), [0.0])}


def case_penalty_rate_of_samples(rng, n, batch):
    return (
        updates.penalty_rate,
        {"l2": np.full(1, 0.6), "weight": float(batch)},
        {"rate": (np.full(1, np.nan), [0.6 / batch])},
    )


def case_penalty_rate_of_weights(rng, n, batch):
    weight = np.full(1, float(batch - 1))  # 0 too
    rate = [0.6 / (batch - 1) if batch > 1 else 0.0]
    return (
        updates.penalty_rate,
        {"l2": np.full(1, 0.6), "weight": np.maximum(weight, 1e-37)},
        {"rate": (np.full(1, np.nan), rate)},
    )


def case_summed_l2_gradient(rng, n, batch):
    W, dW = draw(rng, n * batch), draw(rng, n * batch)
    return (
        updates.summed_l2_gradient,
        {"W": W, "work": scratch(1, n * batch)[0], "rate": 0.3},
        {"dW": (dW, dW + 0.3 * W), "penalty": (np.full(1, np.nan), [0.15 * (W @ W)])},
    )


def case_average(rng, n, batch):
    mean, value = draw(rng, n * batch), draw(rng, n * batch)
    inputs = {"value": value, "work": scratch(1, n * batch)[0], "beta": 0.75}
    return updates.average, inputs, {"mean": (mean, mean + 0.25 * (value - mean))}


def case_average_of_one(rng, n, batch):
    before, after = (np.full(1, 1 - 0.875**t) for t in (n * batch - 1, n * batch))
    return updates.average_of_one, {"beta": 0.875}, {"c": (before, after)}


def case_corrected_root(rng, n, batch):
    v = abs(draw(rng, n * batch))
    return (
        updates.corrected_root,
        {"v": v, "c2": 0.3, "eps": 0.01},
        {"out": (scratch(1, n * batch)[0], (v / 0.3) ** 0.5 + 0.01)},
    )


def case_right_class(rng, n, batch):
    n = max(n, 2)
    A, Y = draw(rng, n, batch), one_hot(rng, n, batch)
    row = (A.argmax(axis=0) == Y.argmax(axis=0))[None]
    return right_class, {"A": A, "Y": Y, "work": scratch(n, batch)}, {"row": row}


def case_right_side(rng, n, batch):
    A, Y = draw(rng, 1, batch), rng.integers(2, size=(1, batch))
    inputs = {"A": A, "Y": Y, "threshold": 0.3, "work": scratch(1, batch), "work2": scratch(1, batch)}
    return right_side, inputs, {"row": (A > 0.3) == (Y == 1)}


def wrapped(function, *arrays):
    """A function of Python's integers, modulo 2^32, element by element."""
    flat = [int(function(*map(int, items))) % 2**32 for items in zip(*(a.ravel() for a in arrays), strict=True)]
    return np.array(flat, np.uint32).reshape(arrays[0].shape)


def lowbias32(x):
    x = ((x ^ (x >> 16)) * 0x7FEB352D) % 2**32
    x = ((x ^ (x >> 15)) * 0x846CA68B) % 2**32
    return x ^ (x >> 16)


def draw_bits(rng, *shape):
    return rng.integers(2**32, size=shape, dtype=np.uint32)


def case_hash_bits(rng, n, batch):
    index, key = draw_bits(rng, n, batch), draw_bits(rng, 1, 1)
    bits = wrapped(lambda i: lowbias32((i + int(key[0, 0])) % 2**32), index)
    return hash_bits, {"index": index, "key": key, "spare": np.empty_like(index)}, {"bits": bits}


def case_dropout_mask(rng, n, batch):
    bits = draw_bits(rng, n, batch)
    return dropout_mask, {"bits": bits, "rate": 0.25}, {"mask": np.where(bits / 2**32 < 0.25, 0, 4 / 3)}


def case_apply_mask(rng, n, batch):
    X, mask = draw(rng, n, batch), 2.0 * rng.integers(2, size=(n, batch))
    return apply_mask, {"X": X, "mask": mask}, {"out": np.where(mask > 0, X + X, 0)}


def case_advance_key(rng, n, batch):
    key = draw_bits(rng, 1, 1)
    return advance_key, {"stride": 0xFFFFFFF0}, {"key": (key, wrapped(lambda k: k - 16, key))}


def case_shifted_key(rng, n, batch):
    key = draw_bits(rng, 1, 1)
    return shifted_key, {"key": key, "offset": 0xFFFFFFF0}, {"out": wrapped(lambda k: k - 16, key)}


def case_normalize_over_the_batch(rng, n, batch, axis=1):
    X, eps = draw(rng, n, batch), 0.01
    mean, variance = X.mean(axis, keepdims=True), X.var(axis, keepdims=True)
    return (
        normalize,
        {"X": X, "axis": axis, "eps": eps, "work": scratch(n, batch)},
        {
            "mean": mean,
            "variance": variance,
            "inverse": (variance + eps) ** -0.5,
            "xhat": (X - mean) / np.sqrt(variance + eps),
        },
    )


def case_normalize_over_the_features(rng, n, batch):
    return case_normalize_over_the_batch(rng, n, batch, axis=0)


def case_scale_and_shift(rng, n, batch):
    xhat, gamma, beta = draw(rng, n, batch), draw(rng, n, 1), draw(rng, n, 1)
    return scale_and_shift, {"xhat": xhat, "gamma": gamma, "beta": beta}, {"out": np.diagflat(gamma) @ xhat + beta}


def normalized_gradient(xhat, inverse, d):
    """The gradient by x of a vector's normalized values, by its Jacobian (I - 1/m - xhat xhat^T / m) / deviation."""
    m = len(xhat)
    return (np.eye(m) - 1 / m - np.outer(xhat, xhat) / m) @ d * inverse


def case_batch_norm_backward(rng, n, batch):
    gamma, xhat, inverse, dY = draw(rng, n, 1), draw(rng, n, batch), abs(draw(rng, n, 1)), draw(rng, n, batch)
    rows = zip(xhat, inverse[:, 0], gamma * dY, strict=True)
    return (
        batch_norm_backward,
        {"gamma": gamma, "xhat": xhat, "inverse": inverse, "dY": dY, "scale": scratch(n, 1)},
        {
            "dgamma": np.einsum("ij,ij->i", dY, xhat)[:, None],
            "dbeta": sum(dY.T)[:, None],
            "dX": np.stack([normalized_gradient(*row) for row in rows]),
        },
    )


def case_layer_norm_backward(rng, n, batch):
    gamma, xhat, inverse, dY = draw(rng, n, 1), draw(rng, n, batch), abs(draw(rng, 1, batch)), draw(rng, n, batch)
    columns = zip(xhat.T, inverse[0], (gamma * dY).T, strict=True)
    inputs = {"gamma": gamma, "xhat": xhat, "inverse": inverse, "dY": dY}
    return (
        layer_norm_backward,
        {**inputs, "row": scratch(1, batch), "work": scratch(n, batch)},
        {
            "dgamma": np.einsum("ij,ij->i", dY, xhat)[:, None],
            "dbeta": sum(dY.T)[:, None],
            "dX": np.stack([normalized_gradient(*column) for column in columns], axis=1),
        },
    )


def case_update_running(rng, n, batch):
    running, value = draw(rng, n, 1), draw(rng, n, 1)
    return (
        update_running,
        {"momentum": 0.25, "factor": 1.5},
        {"running": (running, running - 0.25 * (running - 1.5 * value)), "value": (value, 0.375 * value)},
    )


def case_batch_norm_inference(rng, n, batch):
    X, gamma, beta, mean, variance = draw(rng, n, batch), *(draw(rng, n, 1) for _ in range(4))
    inputs = {"X": X, "gamma": gamma, "beta": beta, "mean": mean, "variance": abs(variance), "eps": 0.01}
    columns = zip(*(array[:, 0] for array in (gamma, beta, mean, abs(variance))), strict=True)
    expected = [g * (x - m) / np.sqrt(v + 0.01) + b for x, (g, b, m, v) in zip(X, columns, strict=True)]
    return batch_norm_inference, {**inputs, "scale": scratch(n, 1)}, {"out": expected}


CASES = {name[5:]: value for name, value in dict(globals()).items() if name.startswith("case_")}


def test_every_kernel_has_a_case():
    modules = [import_module(f"xpnet.kernels.{path.stem}") for path in MODULES]
    kernels = {
        name
        for module in modules
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__ == module.__name__
    }
    assert len(kernels) >= 44
    assert kernels == {case(np.random.default_rng(0), 2, 2)[0].__name__ for case in CASES.values()}


def typed(value, dtype):
    """A fresh array in `dtype`; bits stay bits."""
    return np.array(value, np.uint32 if getattr(value, "dtype", None) == np.uint32 else dtype)


def unwritten(value):
    """What an array of that kind holds before anyone writes it."""
    bits = getattr(value, "dtype", None) == np.uint32
    return np.full(np.shape(value), 0xA5A5A5A5, np.uint32) if bits else scratch(*np.shape(value))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_elu_and_selu_keep_all_digits_below_zero(dtype):
    Z = np.append(-np.logspace(-37, 2.2, 999), 0.0).astype(dtype)[None]
    exact = np.expm1(Z.astype(np.float64))
    with np.errstate(all="ignore"):
        for kernel, factor in ((elu, 1.0), (selu, SELU_LEFT)):
            out, work = np.empty_like(Z), np.empty_like(Z)
            kernel(np, Z, out, work)
            np.testing.assert_allclose(out, factor * exact, rtol=3 * np.finfo(dtype).eps)
            assert out[0, -1] == 0.0


@pytest.mark.pairwise(name=list(CASES), dtype=[np.float64, np.float32], shape=SHAPES)
def test_kernel(name, dtype, shape):
    tolerance = 1e-13 if dtype == np.float64 else 1e-5
    kernel, inputs, expected = CASES[name](np.random.default_rng(1), *shape)
    inputs = {key: typed(value, dtype) if np.ndim(value) else value for key, value in inputs.items()}
    kept = {key: np.copy(value) for key, value in inputs.items()}
    # An array that is only written starts as NaN: a kernel that reads it is found out.
    pairs = {key: value if type(value) is tuple else (unwritten(value), value) for key, value in expected.items()}
    outputs = {key: typed(before, dtype) for key, (before, _) in pairs.items()}
    assert kernel(XP, **inputs, **outputs) is None
    for key, (_, after) in pairs.items():
        error = np.abs(outputs[key] - np.array(after, float)).max()
        exact = outputs[key].dtype == np.uint32
        assert error <= (0 if exact else tolerance * max(1.0, np.abs(after).max())), key
    for key in inputs.keys() - {"work", "work2", "row", "scale", "spare"}:
        np.testing.assert_array_equal(inputs[key], kept[key], err_msg=f"{name} changed {key}")


def test_modules_import_no_array_library():
    """Kernels take their namespace as an argument, so that one text serves every engine."""
    allowed = {"__future__", "typing", "collections.abc", "dataclasses"}
    assert len(MODULES) >= 5
    for path in (*MODULES, MODULES[0].with_name("__init__.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0
                names = [node.module]
            else:
                continue
            for name in names:
                assert name in allowed or name.startswith("xpnet.kernels."), f"{path.name} imports {name}"


# Backward kernels against central differences, which know no derivative


def differences(f, x, h=1e-5):
    """df/dx of a scalar function, element by element."""
    gradient = np.empty_like(x)
    for index in np.ndindex(x.shape):
        above, below = x.copy(), x.copy()
        above[index] += h
        below[index] -= h
        gradient[index] = (f(above) - f(below)) / (2 * h)
    return gradient


def close_to_differences(gradient, f, x):
    expected = differences(f, x)
    return np.linalg.norm(gradient - expected) <= 1e-7 * np.linalg.norm(expected)


FUNCTIONS = {name: function for name, function in ACTIVATIONS.items() if function}
VALUES = [*(make() for make in LOSSES.values()), Huber(0.3), SoftmaxCrossEntropy(0.2), SigmoidCrossEntropy(0.2)]


def scratch_of(forms, shape, dtype=float):
    """What a kernel of an activation takes besides its arrays, as NaN."""
    shapes = {"matrix": shape, "row": (1, shape[1])}
    return [np.full(shapes[form], np.nan, dtype) for form in forms]


def activate(name, Z):
    """A and the value that the backward reads."""
    A = np.full_like(Z, np.nan)
    FUNCTIONS[name].forward(XP, Z, A, *scratch_of(FUNCTIONS[name].scratch, Z.shape, Z.dtype))
    return A, Z if FUNCTIONS[name].from_input else A


def slope_of(name, Z, dA):
    """dZ for Z and dA."""
    dZ = np.full_like(Z, np.nan)
    scratch = scratch_of(FUNCTIONS[name].backward_scratch, Z.shape, Z.dtype)
    FUNCTIONS[name].backward(XP, activate(name, Z)[1], dA, dZ, *scratch)
    return dZ


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_activation_backward_is_the_derivative_of_forward(name, shape):
    rng = np.random.default_rng(2)
    Z, dA = draw(rng, *shape), draw(rng, *shape)
    Z += np.sign(Z) * 1e-3  # away from the kinks
    if name == "log_softmax" and shape[0] == 1:
        np.testing.assert_array_equal(slope_of(name, Z, dA), np.zeros(shape))
        return
    assert close_to_differences(slope_of(name, Z, dA), lambda Z: (dA * activate(name, Z)[0]).sum(), Z)


def losses_of(loss, A, Y):
    """L and dA of a loss, from scratch that holds NaN."""
    L, dA, work = (np.full(shape, np.nan, A.dtype) for shape in ((1, A.shape[1]), A.shape, A.shape))
    loss.losses_into(XP, A, Y, L, dA, work)
    return L, dA


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("loss", VALUES, ids=str)
def test_loss_gradient_is_the_derivative_of_the_loss(loss, shape):
    rng = np.random.default_rng(3)
    n, batch = max(shape[0], 2) if loss.targets == "distributions" else shape[0], shape[1]
    A, Y = draw(rng, n, batch), rng.dirichlet(np.ones(n + 1), batch).T[:n]
    if loss.targets == "distributions":
        Y /= Y.sum(axis=0)
    if loss.targets == "classes":
        Y = np.round(Y)
        A[0, 0] = 0.3  # inside the margin, so that not all is 0
    assert close_to_differences(losses_of(loss, A, Y)[1], lambda A: losses_of(loss, A, Y)[0].sum(), A)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_affine_backward_is_the_derivative_of_affine(shape):
    rng = np.random.default_rng(4)
    n, batch = shape
    W, b, A, dZ = draw(rng, n, 3), draw(rng, n, 1), draw(rng, 3, batch), draw(rng, n, batch)

    def projected(W, b, A):
        Z = np.empty((n, batch))
        affine(XP, W, b, A, Z)
        return (dZ * Z).sum()

    dW, db, dA = np.empty_like(W), np.empty_like(b), np.empty_like(A)
    affine_backward(XP, W, A, dZ, dW, db, dA)
    assert close_to_differences(dW, lambda W: projected(W, b, A), W)
    assert close_to_differences(db, lambda b: projected(W, b, A), b)
    assert close_to_differences(dA, lambda A: projected(W, b, A), A)


@pytest.mark.parametrize(
    ("kernel", "penalty"),
    [(updates.l1_gradient, lambda W: 0.3 * abs(W).sum()), (updates.l2_gradient, lambda W: 0.15 * (W**2).sum())],
    ids=["l1", "l2"],
)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_penalty_s_gradient_is_its_derivative(kernel, penalty, shape):
    W = draw(np.random.default_rng(8), *shape)
    W += np.sign(W) * 1e-3  # away from the kink of l1
    dW = np.zeros_like(W)
    kernel(XP, W, dW, np.full_like(W, np.nan), 0.3)
    assert close_to_differences(dW, penalty, W)


# Edges. pytest turns warnings into errors, so an overflow in any of these fails, but where exp(-Z) may be infinite.


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sigmoid_at_extreme_inputs(dtype):
    Z = np.array([[-np.inf, -1e30, -1000, -90, 90, 1000, 1e30, np.inf]], dtype)
    A = np.empty_like(Z)
    with np.errstate(over="ignore"):
        sigmoid(XP, Z, A)
    tiny = 0.0 if dtype == np.float32 else 1 / (1 + np.exp(90.0))  # exp(90) is infinite in float32
    np.testing.assert_allclose(A[0], [0, 0, 0, tiny, 1, 1, 1, 1], rtol=1e-15)
    Z = np.linspace(-87, 87, 1001, dtype=dtype)[None]
    A = np.empty_like(Z)
    sigmoid(XP, Z, A)
    rtol = 8 * np.finfo(dtype).eps
    np.testing.assert_allclose(
        A, np.exp(-np.logaddexp(0.0, -Z.astype(float))), rtol=rtol * (1 if dtype == np.float32 else 8)
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sigmoid_cross_entropy_at_extreme_inputs(dtype):
    Z = np.array([[1000, 1000, -1000, -1000, 1000, -1000]], dtype)
    Y = np.array([[0, 1, 0, 1, 0.25, 0.25]], dtype)
    L, dZ, work = np.empty_like(Z), np.empty_like(Z), np.empty_like(Z)
    with np.errstate(over="ignore"):
        sigmoid_cross_entropy(XP, Z, Y, L, dZ, work)
    np.testing.assert_allclose(L[0], [1000, 0, 0, 1000, 750, 250], rtol=1e-6)
    np.testing.assert_allclose(dZ[0], [1, 0, 0, -1, 0.75, -0.25], rtol=1e-6, atol=1e-30)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sigmoid_cross_entropy_does_not_cancel(dtype):
    """A confident right answer has a small loss, exp(-Z), where 1 - sigmoid(Z) would be 0 in float32."""
    Z, Y = np.array([[30, -30]], dtype), np.array([[1, 0]], dtype)
    L, dZ, work = np.empty_like(Z), np.empty_like(Z), np.empty_like(Z)
    sigmoid_cross_entropy(XP, Z, Y, L, dZ, work)
    np.testing.assert_allclose(L[0], np.exp(-30.0), rtol=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_softmax_cross_entropy_at_extreme_inputs(dtype):
    Z = np.array([[1000, 1000, -1000, 1e30], [-1000, -1000, -1001, -1e30], [0, 0, -1e5, 1e30]], dtype)
    Y = np.array([[1, 0, 1, 0], [0, 0, 0, 0], [0, 1, 0, 1]], dtype)
    L, dZ, P = np.empty((1, 4), dtype), np.empty_like(Z), np.empty_like(Z)
    work, row = np.empty_like(Z), np.empty_like(L)
    softmax_cross_entropy(XP, Z, Y, L, dZ, work)
    softmax(XP, Z, P, work, row)
    s = 1 / (1 + np.exp(-1.0))
    expected = np.array([[1, 1, s, 0.5], [0, 0, 1 - s, 0], [0, 0, 0, 0.5]])
    np.testing.assert_allclose(P, expected, rtol=1e-6, atol=1e-30)
    np.testing.assert_allclose(L[0], [0, 1000, -np.log(s), np.log(2)], rtol=1e-6)
    np.testing.assert_allclose(dZ, expected - Y, rtol=1e-6, atol=1e-30)


def test_slope_of_relu_at_zero_is_zero():
    A, dA = np.array([[0.0, -0.0, 1e-30]]), np.array([[5.0, 5.0, 5.0]])
    dZ = np.empty_like(A)
    relu_backward(XP, A, dA, dZ)
    np.testing.assert_array_equal(dZ, [[0, 0, 5]])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_nan_travels_through_activations(name):
    A, _ = activate(name, np.array([[np.nan, 1.0]]))
    assert np.isnan(A[0, 0]) and np.isfinite(A[0, 1])


EXTREMES = {  # at -1e4 and 1e4: the value, and the slope
    "sigmoid": ([0, 1], [0, 0]),
    "tanh": ([-1, 1], [0, 0]),
    "relu": ([0, 1e4], [0, 1]),
    "leaky_relu": ([-100, 1e4], [0.01, 1]),
    "elu": ([-1, 1e4], [0, 1]),
    "selu": ([-SELU_LEFT, 1e4 * SELU_RIGHT], [0, SELU_RIGHT]),
    "softplus": ([0, 1e4], [0, 1]),
    "silu": ([0, 1e4], [0, 1]),
    "gelu": ([0, 1e4], [0, 1]),
    "hard_sigmoid": ([0, 1], [0, 0]),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", sorted(FUNCTIONS.keys() - {"log_softmax"}))
def test_activations_at_extreme_inputs(name, dtype):
    Z, (value, slope) = np.array([[-1e4, 1e4]], dtype), EXTREMES[name]
    with np.errstate(over="ignore" if name in ("sigmoid", "silu", "softplus", "gelu") else "raise"):
        np.testing.assert_allclose(activate(name, Z)[0][0], value, rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(slope_of(name, Z, np.ones_like(Z))[0], slope, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_log_softmax_at_extreme_inputs(dtype):
    Z = np.array([[1e4, -1e4], [-1e4, 1e4]], dtype)
    np.testing.assert_array_equal(activate("log_softmax", Z)[0], [[0, -2e4], [-2e4, 0]])
    dA = np.array([[1, 1], [0, 0]], dtype)
    np.testing.assert_array_equal(slope_of("log_softmax", Z, dA), [[0, 1], [0, -1]])


def test_softplus_does_not_cancel():
    """Far left it is exp(Z), which log(1 + exp(Z)) in one float32 would round to 0."""
    Z = np.array([[-30, -80]], np.float32)
    np.testing.assert_allclose(activate("softplus", Z)[0], np.exp(Z.astype(float)), rtol=1e-5)
    np.testing.assert_allclose(slope_of("softplus", Z, np.ones_like(Z)), np.exp(Z.astype(float)), rtol=1e-5)


def test_gelu_and_hard_sigmoid_do_not_cancel():
    """Far left 1 + tanh would round to 0 where gelu does not, and near -3 Z / 6 + 1/2 has few right digits."""
    Z = np.array([[-4.0, -6.0, -8.0]], np.float32)
    angle = np.sqrt(2 / np.pi) * (Z + 0.044715 * Z.astype(float) ** 3)
    np.testing.assert_allclose(activate("gelu", Z)[0], Z * np.exp(2 * angle) / (1 + np.exp(2 * angle)), rtol=1e-5)
    Z = np.array([[-2.9999, -2.999]], np.float32)
    np.testing.assert_allclose(activate("hard_sigmoid", Z)[0], (Z.astype(float) + 3) / 6, rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("loss", VALUES, ids=str)
def test_losses_are_finite_at_extreme_inputs(loss, dtype):
    A = np.array([[1e4, -1e4, 1e4, -1e4], [-1e4, 1e4, 1e4, 0]], dtype)
    with np.errstate(over="ignore" if loss.name == "sigmoid_cross_entropy" else "raise"):
        L, dA = losses_of(loss, A, np.array([[1, 1, 0, 0], [0, 0, 1, 1]], dtype))
    assert np.isfinite(L).all() and np.isfinite(dA).all()


@pytest.mark.parametrize(
    ("name", "at", "slope"),
    [
        ("relu", 0, 0),
        ("leaky_relu", 0, 0.01),
        ("elu", 0, 1),
        ("selu", 0, SELU_LEFT),
        ("hard_sigmoid", -3, 0),
        ("hard_sigmoid", 3, 0),
    ],
)
def test_slopes_at_the_kinks(name, at, slope):
    np.testing.assert_allclose(slope_of(name, np.array([[float(at)]]), np.ones((1, 1))), slope, rtol=1e-15)


@pytest.mark.parametrize(
    ("loss", "A", "Y", "losses", "slopes"),
    [
        (absolute_error, [0.5, 0.0, 2.0], [0.5, 0.0, 1.0], [0.0, 0.0, 1.0], [0.0, 0.0, 1.0]),
        (hinge, [1.0, -1.0, 0.0], [1.0, 0.0, 1.0], [0.0, 0.0, 1.0], [0.0, 0.0, -1.0]),
    ],
)
def test_slopes_of_losses_at_their_kinks(loss, A, Y, losses, slopes):
    """The slope is taken as 0 where the loss becomes 0."""
    L, dA = np.full((1, 3), np.nan), np.full((1, 3), np.nan)
    loss(np, np.array([A]), np.array([Y]), L, dA, np.empty((1, 3)))
    assert (L.tolist(), dA.tolist()) == ([losses], [slopes])


def test_selu_keeps_mean_0_and_variance_1():
    """What the two constants are for: Klambauer et al., the fixed point of eqs. 4 and 5."""
    z = np.linspace(-12, 12, 200_001)[None]
    density = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi) * (z[0, 1] - z[0, 0])
    A, _ = activate("selu", z)
    assert abs((A * density).sum()) < 1e-9 and abs((A**2 * density).sum() - 1) < 1e-8


def test_log_softmax_and_its_likelihood_are_the_cross_entropy():
    rng = np.random.default_rng(8)
    Z, Y = draw(rng, 4, 9), one_hot(rng, 4, 9)
    L, dA = losses_of(LOSSES["negative_log_likelihood"](), activate("log_softmax", Z)[0], Y)
    expected, dZ = losses_of(SoftmaxCrossEntropy(), Z, Y)
    np.testing.assert_allclose(L, expected, rtol=1e-13)
    np.testing.assert_allclose(slope_of("log_softmax", Z, dA), dZ, rtol=1e-12, atol=1e-14)


def test_smoothing_0_records_no_more_calls():
    """Networks without smoothing pay nothing for it."""
    counted = []

    def counting(word):
        return lambda *args, **kwargs: (counted.append(word), getattr(np, word)(*args, **kwargs))

    A, Y = np.zeros((3, 2)), np.eye(3)[:, :2]
    counts = []
    for smoothing in (0.0, 0.1):
        counted.clear()
        xp = SimpleNamespace(**{word: counting(word) for word in WORDS})
        SoftmaxCrossEntropy(smoothing).losses_into(xp, A, Y, np.empty((1, 2)), np.empty((3, 2)), np.empty((3, 2)))
        counts.append(len(counted))
    assert counts == [11, 15]


@pytest.mark.parametrize("loss", VALUES, ids=str)
def test_nan_travels_into_the_loss(loss):
    """The divergence guard looks at the loss alone, so a NaN anywhere must reach the sum."""
    A, Y = np.zeros((3, 2)), np.eye(3)[:, :2]
    A[2, 1] = np.nan
    (L, dA), total = losses_of(loss, A, Y), np.empty((1, 1))
    assert np.isfinite(L[0, 0]) and np.isnan(L[0, 1])
    mean_over_batch(XP, L, dA, total)
    assert np.isnan(total[0, 0])


@pytest.mark.parametrize("name", [name for name, function in FUNCTIONS.items() if not function.from_input])
def test_an_activation_may_overwrite_its_input(name):
    Z = draw(np.random.default_rng(5), 4, 6)
    A, _ = activate(name, Z)
    FUNCTIONS[name].forward(XP, Z, Z, *scratch_of(FUNCTIONS[name].scratch, Z.shape))
    np.testing.assert_array_equal(Z, A)


# Means over the batch


def weighted(L, w, dA):
    """The weighted mean's values, from copies: the kernel writes over its arguments."""
    L, w, dA, total, total_weight = L.copy(), w.copy(), dA.copy(), np.empty((1, 1)), np.empty((1, 1))
    weighted_mean_over_batch(XP, L, w, dA, total, total_weight)
    return dA, total[0, 0], total_weight[0, 0]


def test_weight_k_equals_repeating_the_sample_k_times():
    rng, times = np.random.default_rng(6), np.array([3, 0, 1, 2])
    X, L, dA = draw(rng, 2, 4), draw(rng, 1, 4), draw(rng, 3, 4)
    scaled, total, total_weight = weighted(L, times[None].astype(float), dA)
    repeated, repeated_total = np.repeat(dA, times, axis=1), np.empty((1, 1))
    mean_over_batch(XP, np.repeat(L, times, axis=1), repeated, repeated_total)
    np.testing.assert_allclose(total, repeated_total[0, 0], rtol=1e-14)
    assert total_weight == 6
    np.testing.assert_allclose(scaled @ X.T, repeated @ np.repeat(X, times, axis=1).T, rtol=1e-13)


def test_the_size_of_all_weights_does_not_matter():
    rng = np.random.default_rng(7)
    L, w, dA = draw(rng, 1, 4), rng.random((1, 4)), draw(rng, 3, 4)
    np.testing.assert_allclose(weighted(L, 1e-6 * w, dA)[0], weighted(L, 1e6 * w, dA)[0], rtol=1e-12)


def test_a_batch_whose_weights_are_all_zero_has_gradient_zero():
    dA, total, total_weight = weighted(np.ones((1, 3)), np.zeros((1, 3)), np.ones((2, 3)))
    np.testing.assert_array_equal(dA, np.zeros((2, 3)))
    assert total == 0 and total_weight < 1e-20  # the epoch's mean does not count the batch


# Right answers


def count_right_classes(A, Y):
    work, row = np.empty_like(A), np.empty((1, A.shape[1]))
    right_class(XP, A, Y, work, row)
    return row[0].tolist()


def test_right_class_counts_ties_and_nan_as_wrong():
    A = np.array([[2, 2, 0, np.nan, 5, 1], [1, 2, 0, 9, np.nan, 2], [0, 1, 0, 0, 0, -1]], float)
    Y = np.array([[1, 1, 1, 0, 1, 0], [0, 0, 0, 1, 0, 1], [0, 0, 0, 0, 0, 0]], float)
    assert count_right_classes(A, Y) == [1, 0, 0, 0, 0, 1]


def test_right_class_with_negative_scores_and_two_classes():
    """Log probabilities are all negative: the 0 of the other classes' products must not win."""
    A = np.array([[-0.1, -3.0], [-2.5, -0.2]])
    assert count_right_classes(A, np.eye(2)) == [1, 1]
    assert count_right_classes(A, np.eye(2)[::-1]) == [0, 0]


@pytest.mark.parametrize("threshold", [0.0, 0.5])
def test_right_side_takes_the_threshold_for_class_0_and_nan_for_wrong(threshold):
    A = np.array([[1, 1, -1, -1, 0, 0, np.nan, np.nan, np.inf]]) + threshold
    Y = np.array([[1, 0, 1, 0, 0, 1, 0, 1, 1]], float)
    work, work2, row = np.empty_like(A), np.empty_like(A), np.empty_like(A)
    with np.errstate(invalid="ignore"):
        right_side(XP, A, Y, threshold, work, work2, row)
    assert row[0].tolist() == [1, 0, 0, 1, 1, 0, 0, 0, 0]


@pytest.mark.parametrize("loss", VALUES, ids=str)
def test_a_single_output_is_cut_where_its_prediction_is_one_half(loss):
    cut = np.full((1, 1), loss.threshold)
    if loss.name == "softmax_cross_entropy":  # its two logits differ by the threshold; it refuses one output
        cut = np.array([[loss.threshold], [0.0]])
    P = cut.copy()
    if loss.link:
        loss.link(XP, cut, P, *scratch_of(loss.link_scratch, cut.shape))
    assert P[0, 0] == (0.0 if loss.name == "hinge" else 0.5)
