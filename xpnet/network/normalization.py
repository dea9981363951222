"""Batch and layer normalization as layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from xpnet.checks import check_number, check_whole
from xpnet.kernels.normalization import (
    batch_norm_backward,
    batch_norm_inference,
    layer_norm_backward,
    normalize,
    scale_and_shift,
    update_running,
)
from xpnet.network.layer import Array, Layer
from xpnet.network.parameters import Shape

__all__ = ["BatchNorm", "LayerNorm"]


@dataclass(frozen=True)
class _Normalization(Layer):
    """Base of both: n features, each with a scale gamma and an offset beta."""

    n: int

    backward_kernel: ClassVar[Callable[..., None]]
    backward_works_on: ClassVar[tuple[str, ...]]  # the working arrays that the kernel overwrites

    def __post_init__(self) -> None:
        object.__setattr__(self, "n", check_whole("n", self.n, at_least=1))

    def _check_eps(self, eps: float) -> None:
        limits = np.finfo(np.float32)  # where a smaller eps is 0, and a constant feature 0 / 0
        least, most = float(limits.tiny), float(limits.max)
        example = "1e-5, which float32 can hold; leave it out for the default"
        eps = check_number(f"{self._called} eps", eps, at_least=least, at_most=most, example=example)
        object.__setattr__(self, "eps", eps)

    @property
    def _called(self) -> str:
        return type(self).__name__

    def parameter_shapes(self) -> dict[str, Shape]:
        """Return the shapes of gamma and beta, (n, 1) each."""
        return {"gamma": (self.n, 1), "beta": (self.n, 1)}

    def initialize(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Return {"gamma": ones, "beta": zeros}, (n, 1) each; nothing is drawn."""
        return {"gamma": np.ones((self.n, 1)), "beta": np.zeros((self.n, 1))}

    def output_size(self, n_in: int) -> int:
        """Return the number of outputs, `n_in`; raises ValueError if it is not n."""
        if n_in != self.n:
            raise ValueError(
                f"{self._called}({self.n}) follows a layer with {n_in} outputs; write {self._called}({n_in})"
            )
        return n_in

    def backward_into(
        self, xp: Any, arrays: dict[str, Array], trace: Array, dY: Array, grads: dict[str, Array], dX: Array | None
    ) -> None:
        """Write the gradients for dY (n, batch) into grads["gamma"], grads["beta"] and dX (n, batch)."""
        gamma, xhat, inverse = (arrays[name] for name in ("gamma", "xhat", "inverse"))
        spare = (arrays[name] for name in self.backward_works_on)
        self.backward_kernel(xp, gamma, xhat, inverse, dY, grads["gamma"], grads["beta"], dX, *spare)


@dataclass(frozen=True)
class BatchNorm(_Normalization):
    """Y = gamma * (X - mean) / sqrt(variance + eps) + beta, mean and variance of each feature over the batch.

    n: number of features.  Predictions use running statistics instead, which training steps update:
    running = (1 - momentum) * running + momentum * batch's, as in PyTorch, with the unbiased variance (divided by
    n_samples - 1). Sample weights do not affect the statistics. A training step needs two samples or more.
    Raises ValueError for a bad n, momentum (above 0, at most 1) or eps (above 0, in float32).
    Source: Ioffe and Szegedy (2015), Batch Normalization, algorithms 1 and 2.
    """

    momentum: float = 0.1
    eps: float = 1e-5

    type: ClassVar[str] = "batch_norm"
    backward_kernel = staticmethod(batch_norm_backward)
    backward_works_on = ("scale",)
    cancels_bias: ClassVar[bool] = True
    least_batch: ClassVar[int] = 2  # the variance of one sample is 0, whatever the sample

    def __post_init__(self) -> None:
        super().__post_init__()
        example = "0.1; leave it out for the default"
        momentum = check_number(f"{self._called} momentum", self.momentum, above=0, at_most=1, example=example)
        object.__setattr__(self, "momentum", momentum)
        self._check_eps(self.eps)

    def statistic_shapes(self) -> dict[str, Shape]:
        """Return the shapes of running_mean and running_variance, (n, 1) each."""
        return {"running_mean": (self.n, 1), "running_variance": (self.n, 1)}

    def working(self, training: bool) -> dict[str, str]:
        """Return the forms of the batch's statistics and normalized values, or of a scratch column."""
        columns = {"mean": "column", "variance": "column", "inverse": "column", "scale": "column"}
        return {"xhat": "matrix", **columns} if training else {"scale": "column"}

    def initialize(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Return gamma and running_variance of ones, beta and running_mean of zeros, (n, 1) each; nothing is drawn."""
        statistics = {"running_mean": np.zeros((self.n, 1)), "running_variance": np.ones((self.n, 1))}
        return {**super().initialize(rng), **statistics}

    def forward_into(self, xp: Any, arrays: dict[str, Array], X: Array, out: Array) -> None:
        """Write Y for X, both (n, batch), into `out`, using the running statistics."""
        batch_norm_inference(
            xp,
            X,
            arrays["gamma"],
            arrays["beta"],
            arrays["running_mean"],
            arrays["running_variance"],
            self.eps,
            arrays["scale"],
            out,
        )

    def train_into(self, xp: Any, arrays: dict[str, Array], X: Array, out: Array) -> None:
        """Write Y for X, both (n, batch), into `out`, using the batch's statistics."""
        normalize(xp, X, 1, self.eps, arrays["mean"], arrays["variance"], arrays["inverse"], arrays["xhat"], out)
        scale_and_shift(xp, arrays["xhat"], arrays["gamma"], arrays["beta"], out)

    def advance_into(self, xp: Any, arrays: dict[str, Array]) -> None:
        """Move the running statistics towards the batch's."""
        batch = arrays["xhat"].shape[1]
        update_running(xp, arrays["running_mean"], arrays["mean"], self.momentum, 1.0)
        update_running(xp, arrays["running_variance"], arrays["variance"], self.momentum, batch / max(batch - 1, 1))


@dataclass(frozen=True)
class LayerNorm(_Normalization):
    """Y = gamma * (X - mean) / sqrt(variance + eps) + beta, mean and variance of each sample over its n features.

    n: number of features.  It has no running statistics: training and prediction are the same.
    Raises ValueError for a bad n or eps (above 0, in float32).
    Source: Ba, Kiros and Hinton (2016), Layer Normalization.
    """

    eps: float = 1e-5

    type: ClassVar[str] = "layer_norm"
    backward_kernel = staticmethod(layer_norm_backward)
    backward_works_on = ("mean", "work")

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_eps(self.eps)

    def working(self, training: bool) -> dict[str, str]:
        """Return the forms of each sample's statistics, the normalized values and, for the backward, scratch."""
        arrays = {"mean": "row", "inverse": "row", "xhat": "matrix"}
        return {**arrays, "work": "matrix"} if training else arrays

    def forward_into(self, xp: Any, arrays: dict[str, Array], X: Array, out: Array) -> None:
        """Write Y for X, both (n, batch), into `out`."""
        inverse = arrays["inverse"]  # the variance is not needed again
        normalize(xp, X, 0, self.eps, arrays["mean"], inverse, inverse, arrays["xhat"], out)
        scale_and_shift(xp, arrays["xhat"], arrays["gamma"], arrays["beta"], out)
