"""Optimizers: each records its update on the flat vectors and says what its slots hold at every step."""

from __future__ import annotations

import math

import numpy as np

from xpnet.kernels.updates import sgd
from xpnet.program import Buffer, Recorder


class SGD:
    """Stochastic gradient descent: theta = theta - lr * gradient.

    lr: the learning rate, a finite number above 0; it may be changed between epochs or steps.
    Source: Nielsen, Neural Networks and Deep Learning, eqs. 20 and 21.
    """

    slots: tuple[str, ...] = ("lr",)

    def __init__(self, lr: float = 0.1) -> None:
        self.lr = lr

    @property
    def lr(self) -> float:
        """The learning rate; setting it checks it."""
        return self._lr

    @lr.setter
    def lr(self, value: float) -> None:
        if isinstance(value, bool) or not isinstance(value, (int, float, np.floating, np.integer)):
            raise TypeError(f"lr is {value!r}; needed is a number above 0, such as SGD(lr=0.1)")
        if not math.isfinite(value) or value <= 0:
            raise ValueError(f"lr is {value}; needed is a finite number above 0, such as SGD(lr=0.1)")
        self._lr = float(value)

    def record(self, recorder: Recorder, theta: Buffer, gradient: Buffer) -> None:
        """Record the update's calls."""
        sgd(recorder.xp, theta, gradient, recorder["lr"])

    def slot_rows(self, n_steps: int) -> np.ndarray:
        """What the slots hold in each of the next `n_steps` steps: (n_steps, 1) in float64."""
        return np.full((n_steps, 1), self._lr)

    def __repr__(self) -> str:
        return f"SGD(lr={self._lr})"
