"""The work table, its data, and a float64 reference that every system must agree with before it is timed.

Samples are rows here, (n_samples, n): the layout in which xpnet, too, keeps its data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

N_SAMPLES = 8192  # as in xpnet.timing.harness: 26 MB of 784 float32 features
N_FIXED = 1024  # the first samples, on which the loss is taken after the checked steps
CHECKED_STEPS = 20

Parameters = list[tuple[np.ndarray, np.ndarray]]  # W (n_out, n_in) and b (n_out,) of each layer


@dataclass(frozen=True)
class Work:
    """Plain SGD on one network.

    sizes: units of each layer.  hidden, output: activations.  loss: "squared_error" (half the sum over the outputs,
    mean over the batch) or "softmax_cross_entropy".  origin: where the setting comes from.
    checked_steps: the steps after which the losses are compared.
    """

    sizes: tuple[int, ...]
    hidden: str
    output: str
    loss: str
    batch: int
    lr: float
    origin: str
    checked_steps: int = CHECKED_STEPS

    @classmethod
    def of_json(cls, fields: Mapping[str, Any]) -> Work:
        """Return the work whose `dataclasses.asdict` went through JSON, which knows no tuples."""
        return cls(**{**fields, "sizes": tuple(fields["sizes"])})

    def __str__(self) -> str:
        loss = {"squared_error": "squared error", "softmax_cross_entropy": "softmax cross-entropy"}[self.loss]
        return f"{'-'.join(map(str, self.sizes))} {self.hidden}, {loss}, batch {self.batch}"


def _sigmoids(*sizes: int, batch: int, lr: float, origin: str) -> Work:
    return Work(sizes, "sigmoid", "sigmoid", "squared_error", batch, lr, origin)


def _relus(*sizes: int, loss: str, batch: int, lr: float, origin: str = "", checked: int = CHECKED_STEPS) -> Work:
    return Work(sizes, "relu", "identity", loss, batch, lr, origin, checked)


# The learning rates let 20 steps change the loss by several per cent, so that agreement after them means something.
# They are low enough not to amplify rounding: at 0.01 work 6 drifts from float64 by 1e-3 in float32, at 0.003 by 1e-8.
WORKS = {
    1: _sigmoids(784, 15, 10, batch=50, lr=0.5, origin="examples.functional_loop"),
    2: _sigmoids(784, 30, 10, batch=10, lr=0.5, origin="examples.digits_sgd"),
    3: _sigmoids(2, 9, 6, 1, batch=1, lr=0.5, origin="examples.circles_and_blobs"),
    4: _sigmoids(2, 9, 6, 1, batch=32, lr=0.5, origin="examples.circles_and_blobs, in batches"),
    5: _relus(784, 100, 200, 10, loss="softmax_cross_entropy", batch=32, lr=0.01, origin="examples.mnist_relu"),
    6: _relus(784, 512, 512, 10, loss="softmax_cross_entropy", batch=128, lr=0.003),
    7: _relus(1024, 2048, 2048, 1024, loss="squared_error", batch=1024, lr=1e-4),
    8: _relus(784, 100, 200, 10, loss="softmax_cross_entropy", batch=128, lr=0.01),
    9: _relus(784, 100, 200, 10, loss="softmax_cross_entropy", batch=1024, lr=0.01),
    10: _relus(784, 4096, 4096, 10, loss="softmax_cross_entropy", batch=8192, lr=0.001, checked=3),
}
# The works of each device by default, in their order, since time may run out: the widest is of no use on a CPU.
WORKS_OF = {"cpu": (1, 2, 3, 4, 5, 6, 7), "cuda": (10, 5, 8, 9)}
# What `reference` returned for the widest work: a step of it in float64 is 10^12 operations.
KEPT = {WORKS[10]: {"loss_sum": 9.113241773375368, "loss_before": 3.362075019529845, "loss_after": 2.6936278963897244}}


@dataclass(frozen=True)
class Data:
    """X (n_samples, n_inputs) in [0, 1) and Y (n_samples, n_outputs), float32.

    Y is one-hot where the last layer is a classifier's or has 10 units, and random numbers for other regressions.
    """

    X: np.ndarray
    Y: np.ndarray


def make_data(work: Work) -> Data:
    """Return the data of a work, the same in every process."""
    rng = np.random.default_rng(1)
    X = rng.random((N_SAMPLES, work.sizes[0]), dtype=np.float32)
    n_outputs = work.sizes[-1]
    if n_outputs == 1:  # exclusive or of the two halves of the unit square, as small examples have it
        Y = ((X[:, :1] > 0.5) != (X[:, 1:2] > 0.5)).astype(np.float32)
    elif n_outputs == 10 or work.loss == "softmax_cross_entropy":
        Y = np.eye(n_outputs, dtype=np.float32)[rng.integers(0, n_outputs, N_SAMPLES)]
    else:
        Y = rng.random((N_SAMPLES, n_outputs), dtype=np.float32)
    return Data(X, Y)


def initial_parameters(work: Work) -> Parameters:
    """Return the weights that every system starts from, float32; biases are 1, so that the outputs start off target."""
    rng = np.random.default_rng(2)
    gain = 2.0 if work.hidden == "relu" else 1.0
    return [
        ((rng.standard_normal((n_out, n_in)) * np.sqrt(gain / n_in)).astype(np.float32), np.ones(n_out, np.float32))
        for n_in, n_out in zip(work.sizes, work.sizes[1:], strict=False)
    ]


def make_order(n_indices: int) -> np.ndarray:
    """Return the first `n_indices` of an endless sequence of shuffled epochs, always the same one."""
    rng = np.random.default_rng(3)
    epochs = [rng.permutation(N_SAMPLES) for _ in range(-(-n_indices // N_SAMPLES))]
    return np.concatenate(epochs)[:n_indices]


def mean_loss(work: Work, parameters: Parameters, data: Data) -> float:
    """Return the mean loss on the fixed samples, in float64."""
    wide = [(W.astype(float), b.astype(float)) for W, b in parameters]
    Y = data.Y[:N_FIXED].astype(float)
    return _loss_and_slope(work, _forward(work, wide, data.X[:N_FIXED].astype(float))[-1], Y)[0]


def reference(work: Work, data: Data, dtype: Any = np.float64) -> dict[str, float]:
    """Train the checked steps in float64, and return what every system must agree with.

    loss_sum: sum of the steps' losses.  loss_before, loss_after: mean loss on the fixed samples.
    dtype: another one shows what rounding does to a work.
    """
    parameters = [(W.astype(dtype), b.astype(dtype)) for W, b in initial_parameters(work)]
    loss_before, loss_sum = mean_loss(work, parameters, data), 0.0
    for samples in make_order(work.checked_steps * work.batch).reshape(work.checked_steps, work.batch):
        outputs = _forward(work, parameters, data.X[samples].astype(dtype))
        loss, D = _loss_and_slope(work, outputs[-1], data.Y[samples].astype(dtype))
        loss_sum += loss
        updated = []
        for i in reversed(range(len(parameters))):
            W, b = parameters[i]
            D = D * _slope(work.hidden if i < len(parameters) - 1 else work.output, outputs[i + 1])
            updated.append((W - work.lr * D.T @ outputs[i], b - work.lr * D.sum(0)))
            D = D @ W
        parameters = updated[::-1]
    return {"loss_sum": loss_sum, "loss_before": loss_before, "loss_after": mean_loss(work, parameters, data)}


def expected_losses(work: Work) -> dict[str, float]:
    """Return what `reference` returns for a work, or has returned where it would take minutes."""
    return KEPT.get(work) or reference(work, make_data(work))


def _forward(work: Work, parameters: Parameters, X: np.ndarray) -> list[np.ndarray]:
    """Return X and every layer's output."""
    outputs = [X]
    for i, (W, b) in enumerate(parameters):
        Z = outputs[-1] @ W.T + b
        name = work.hidden if i < len(parameters) - 1 else work.output
        outputs.append(
            {
                "sigmoid": lambda Z: 1.0 / (1.0 + np.exp(-Z)),
                "relu": lambda Z: np.maximum(Z, 0.0),
                "tanh": np.tanh,
                "identity": lambda Z: Z,
            }[name](Z)
        )
    return outputs


def _slope(name: str, A: np.ndarray) -> np.ndarray:
    """Return the derivative of an activation, from its output."""
    return {
        "sigmoid": lambda A: A * (1.0 - A),
        "relu": lambda A: (A > 0.0).astype(A.dtype),
        "tanh": lambda A: 1.0 - A * A,
        "identity": np.ones_like,
    }[name](A)


def _loss_and_slope(work: Work, A: np.ndarray, Y: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the mean loss and its gradient by the last layer's output."""
    if work.loss == "squared_error":
        return 0.5 * float(((A - Y) ** 2).sum()) / len(Y), (A - Y) / len(Y)
    P = np.exp(A - A.max(axis=1, keepdims=True))
    P /= P.sum(axis=1, keepdims=True)
    return -float(np.log((P * Y).sum(axis=1)).mean()), (P - Y) / len(Y)
