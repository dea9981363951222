"""NumPy as textbooks write it: samples are columns, every result is a fresh array, layers are lists."""

from __future__ import annotations

import numpy as np

from ..works import Data, Parameters, Work, initial_parameters


def sigma(x):
    """Return the logistic function in its robust form."""
    return np.where(x >= 0, 1 / (1 + np.exp(-x)), 1 - 1 / (1 + np.exp(x)))


def sigma_prime(x):
    return sigma(x) * (1 - sigma(x))


def tanh_prime(x):
    return 1 - np.tanh(x) ** 2


def relu(x):
    return np.maximum(0, x)


def relu_prime(x):
    return (x > 0).astype(x.dtype)


def softmax(z):
    e = np.exp(z - z.max(axis=0, keepdims=True))
    return e / e.sum(axis=0, keepdims=True)


class System:
    comparable, whole_epochs = True, False

    @staticmethod
    def unusable(device: str) -> str | None:
        return None if device == "cpu" else "NumPy works on a CPU"

    def __init__(self, work: Work, data: Data, threads: int, device: str) -> None:
        self.work = work
        self.X, self.Y = np.ascontiguousarray(data.X.T), np.ascontiguousarray(data.Y.T)
        functions = {"sigmoid": (sigma, sigma_prime), "tanh": (np.tanh, tanh_prime), "relu": (relu, relu_prime)}
        self.f, self.f_prime = functions[work.hidden]

    def reset(self) -> None:
        self.weights, self.biases = [], []
        for W, b in initial_parameters(self.work):
            self.weights.append(W)
            self.biases.append(b.reshape(-1, 1))

    def run(self, order: np.ndarray) -> float:
        total, batch = 0.0, self.work.batch
        with np.errstate(over="ignore"):  # the form above computes both of its branches
            for k in range(0, len(order), batch):
                samples = order[k : k + batch]
                total += self.step(self.X[:, samples], self.Y[:, samples])
        return total

    def step(self, x, y):
        batch, last = x.shape[1], len(self.weights) - 1
        z_inputs, activations = [], [x]
        for k, (W, b) in enumerate(zip(self.weights, self.biases, strict=True)):
            z = np.dot(W, activations[-1]) + b
            z_inputs.append(z)
            activations.append(self.f(z) if k < last or self.work.output == "sigmoid" else z)
        loss, delta = self.loss(activations[-1], y)
        if self.work.output == "sigmoid":
            delta = delta * sigma_prime(z_inputs[-1])
        gradients = []
        for k in range(last, -1, -1):
            gradients.append((np.dot(delta, activations[k].T), delta.sum(axis=1, keepdims=True)))
            if k > 0:
                delta = np.dot(self.weights[k].T, delta) * self.f_prime(z_inputs[k - 1])
        eta = self.work.lr / batch
        for k, (dW, db) in enumerate(reversed(gradients)):
            self.weights[k] = self.weights[k] - eta * dW
            self.biases[k] = self.biases[k] - eta * db
        return loss / batch

    def loss(self, a, y):
        """Sum over the batch, and its gradient by the last layer's output."""
        if self.work.loss == "squared_error":
            return 0.5 * np.sum((a - y) ** 2), a - y
        p = softmax(a)
        return -np.sum(np.log(np.sum(p * y, axis=0))), p - y

    def parameters(self) -> Parameters:
        return [(W, b.ravel()) for W, b in zip(self.weights, self.biases, strict=True)]

    def versions(self) -> dict[str, str]:
        return {"numpy": np.__version__}
