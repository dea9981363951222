"""The losses of a network: their kernels, links, targets and parameters.

A loss is a small frozen value, such as `Huber(delta=2.0)`; its name stands for it with default parameters. The
equations are in `xpnet.kernels.losses`; a custom loss is an `xpnet.CustomLoss`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from xpnet.checks import check_number, check_option
from xpnet.kernels import losses as kernels
from xpnet.kernels.activations import sigmoid
from xpnet.specs import defaults_of, from_spec, values_of

__all__ = ["Huber", "SigmoidCrossEntropy", "SoftmaxCrossEntropy"]

Array = Any


class Loss:
    """Base of all losses; a subclass sets the fields that differ.

    name: for specs and messages.  kernel(xp, A, Y, L, dA, work, **parameters): one of `xpnet.kernels.losses`.
    link(xp, A, out, *link_scratch): from the last layer's output to predictions, None if they are the same.
    link_scratch: "matrix" (n_out, batch) or "row" (1, batch) for each scratch array of the link.
    output: the activation that the last layer must have, None for any.
    threshold: separates classes 0 and 1 of a single output of the last layer.
    targets: the contents of Y: "numbers", "counts" (>= 0), "probabilities" (0 to 1), "distributions" (these, and each
    column sums to 1) or "classes" (0 or 1).
    """

    name: str
    kernel: Callable[..., None]
    link: Callable[..., None] | None = None
    link_scratch: tuple[str, ...] = ()
    output: str | None = None
    threshold: float = 0.5
    targets: str = "numbers"

    @property
    def parameters(self) -> dict[str, Any]:
        """The loss's parameters by name, such as {"delta": 1.0}."""
        return values_of(self)

    def losses_into(self, xp: Any, A: Array, Y: Array, L: Array, dA: Array, work: Array) -> None:
        """Write the loss of each sample into L (1, batch) and its gradient by A into dA (n_out, batch)."""
        self.kernel(xp, A, Y, L, dA, work, **self.parameters)

    def sides(self, A: Any, Y: Any) -> list[Any]:
        """Return, for each kink, where A is above it, for host arrays (n_out, n_samples); [] for a smooth loss."""
        return []

    def to_spec(self) -> str | dict[str, Any]:
        """Return the name, or with non-default parameters a dict such as {"name": "huber", "delta": 2.0}."""
        defaults = defaults_of(type(self))
        changed = {name: value for name, value in values_of(self).items() if value != defaults[name]}
        return {"name": self.name, **changed} if changed else self.name

    def __str__(self) -> str:
        spec = self.to_spec()
        if isinstance(spec, str):
            return spec
        return f"{self.name}({', '.join(f'{key}={value:g}' for key, value in spec.items() if key != 'name')})"


@dataclass(frozen=True)
class SquaredError(Loss):
    """Half the squared error, summed over the outputs."""

    name = "squared_error"
    kernel = staticmethod(kernels.squared_error)


@dataclass(frozen=True)
class AbsoluteError(Loss):
    """The absolute error, summed over the outputs: its minimum is the median."""

    name = "absolute_error"
    kernel = staticmethod(kernels.absolute_error)

    def sides(self, A: Any, Y: Any) -> list[Any]:
        """Return where A > Y."""
        return [A > Y]


@dataclass(frozen=True)
class Huber(Loss):
    """The squared error up to a residual of `delta`, the absolute error beyond; delta > 0."""

    delta: float = 1.0

    name = "huber"
    kernel = staticmethod(kernels.huber)

    def __post_init__(self) -> None:
        limits = np.finfo(np.float32)  # where a smaller delta is 0 and a larger one infinite
        least, most = float(limits.tiny), float(limits.max)
        example = "1.0, which float32 can hold"
        delta = check_number("delta of huber", self.delta, at_least=least, at_most=most, example=example)
        object.__setattr__(self, "delta", delta)

    def sides(self, A: Any, Y: Any) -> list[Any]:
        """Return where the residual is above -delta, and above delta."""
        residual = A - Y
        return [residual > -self.delta, residual > self.delta]


@dataclass(frozen=True)
class Poisson(Loss):
    """The negative log likelihood of counts whose log rate is the last layer's output; predictions are rates.

    Rates are capped at exp(80), in the gradient too.
    """

    name = "poisson"
    kernel = staticmethod(kernels.poisson)
    link = staticmethod(kernels.rate)
    output = "identity"
    threshold = math.log(0.5)
    targets = "counts"


@dataclass(frozen=True)
class Hinge(Loss):
    """The hinge loss for targets 0 and 1: one output, or a score per class against the rest; predictions are scores."""

    name = "hinge"
    kernel = staticmethod(kernels.hinge)
    threshold = 0.0
    targets = "classes"

    def sides(self, A: Any, Y: Any) -> list[Any]:
        """Return where the margin is above 1."""
        return [(2.0 * Y - 1.0) * A > 1.0]


@dataclass(frozen=True)
class SoftmaxCrossEntropy(Loss):
    """Cross-entropy of softmax(Z) with the targets; one class per sample.

    smoothing: from 0 to below 1; every class gets smoothing / n_outputs of the target, the true one the rest as well.
    The loss reported, in evaluation too, is the smoothed one, as in PyTorch (CrossEntropyLoss) and Keras.
    """

    smoothing: float = 0.0

    name = "softmax_cross_entropy"
    kernel = staticmethod(kernels.softmax_cross_entropy)
    link = staticmethod(kernels.softmax)
    link_scratch = ("matrix", "row")
    output = "identity"
    threshold = 0.0
    targets = "distributions"

    def __post_init__(self) -> None:
        object.__setattr__(self, "smoothing", _smoothing(self))


@dataclass(frozen=True)
class SigmoidCrossEntropy(Loss):
    """Cross-entropy of sigmoid(Z) with the targets, summed over the outputs, which are independent.

    smoothing: from 0 to below 1; targets move that fraction towards 1/2, as in Keras (BinaryCrossentropy).
    The loss reported, in evaluation too, is the smoothed one.
    """

    smoothing: float = 0.0

    name = "sigmoid_cross_entropy"
    kernel = staticmethod(kernels.sigmoid_cross_entropy)
    link = staticmethod(sigmoid)
    output = "identity"
    threshold = 0.0
    targets = "probabilities"

    def __post_init__(self) -> None:
        object.__setattr__(self, "smoothing", _smoothing(self))


@dataclass(frozen=True)
class NegativeLogLikelihood(Loss):
    """Minus the log probability of the target; requires output="log_softmax", as in PyTorch.

    Together they equal softmax_cross_entropy, a single cheaper kernel; predictions are probabilities.
    """

    name = "negative_log_likelihood"
    kernel = staticmethod(kernels.negative_log_likelihood)
    link = staticmethod(kernels.exp_link)
    output = "log_softmax"
    threshold = math.log(0.5)
    targets = "distributions"


# From name to class, for specs, model files and the command line.
LOSSES: dict[str, Callable[..., Loss]] = {
    loss.name: loss
    for loss in (
        SquaredError,
        SoftmaxCrossEntropy,
        SigmoidCrossEntropy,
        AbsoluteError,
        Huber,
        Poisson,
        Hinge,
        NegativeLogLikelihood,
    )
}


def loss_of(found: Any) -> Loss:
    """Return the loss given by a name, a spec such as {"name": "huber", "delta": 1.0}, or a Loss.

    Raises ValueError for anything else and suggests the nearest name.
    """
    if isinstance(found, type) and issubclass(found, Loss):
        raise ValueError(f"loss is the class {found.__name__}; it must be an instance: {found.__name__}()")
    if isinstance(found, Loss):
        return found
    if not isinstance(found, dict):
        return LOSSES[check_option("loss", found, LOSSES)]()
    name = check_option("loss", found.get("name"), LOSSES)
    loss: Loss = from_spec(LOSSES[name], found, "name", f"{name} loss")
    return loss


def _smoothing(loss: SoftmaxCrossEntropy | SigmoidCrossEntropy) -> float:
    return check_number(f"smoothing of {loss.name}", loss.smoothing, at_least=0, below=1, example="0.1")
