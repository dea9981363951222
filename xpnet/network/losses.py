"""The losses that a network can be trained with: which kernel, which link, which targets, and the loss's parameters.

A loss is a small frozen value, such as `Huber(delta=2.0)`; its name alone stands for it with its default parameters.
The equations are in `xpnet.kernels.losses`, a loss of one's own is a `xpnet.CustomLoss`.
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
    """A loss and what goes with it; a subclass sets what differs.

    name: in specs and messages.  kernel(xp, A, Y, L, dA, work, **parameters): one of `xpnet.kernels.losses`.
    link(xp, A, out, *link_scratch): from the last layer's output to predictions, None where that output is one.
    link_scratch: "matrix" (n_out, batch) or "row" (1, batch) for each array that it is given for use on the way.
    output: the activation that the last layer must have, None for any.
    threshold: where a single output of the last layer is cut into classes 0 and 1.
    targets: what Y must hold: "numbers", "counts" (>= 0), "probabilities" (0 to 1), "distributions" (these, and each
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
        """For each kink, where A lies above it, for host arrays (n_out, n_samples): [] for a smooth loss."""
        return []

    def to_spec(self) -> str | dict[str, Any]:
        """The name, or with parameters that are not the defaults {"name": "huber", "delta": 2.0}."""
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
        """Whether A > Y."""
        return [A > Y]


@dataclass(frozen=True)
class Huber(Loss):
    """The squared error up to a residual of `delta`, the absolute error beyond; delta > 0."""

    delta: float = 1.0

    name = "huber"
    kernel = staticmethod(kernels.huber)

    def __post_init__(self) -> None:
        limits = np.finfo(np.float32)  # in which a smaller one is 0, and a larger one infinite
        least, most = float(limits.tiny), float(limits.max)
        example = "1.0, which float32 can hold"
        delta = check_number("delta of huber", self.delta, at_least=least, at_most=most, example=example)
        object.__setattr__(self, "delta", delta)

    def sides(self, A: Any, Y: Any) -> list[Any]:
        """Whether the residual lies above -delta, and above delta."""
        residual = A - Y
        return [residual > -self.delta, residual > self.delta]


@dataclass(frozen=True)
class Poisson(Loss):
    """The negative log likelihood of counts whose log rate is the last layer's output; predictions are rates.

    Rates are capped at exp(80); above, the gradient goes on with that value.
    """

    name = "poisson"
    kernel = staticmethod(kernels.poisson)
    link = staticmethod(kernels.rate)
    output = "identity"
    threshold = math.log(0.5)
    targets = "counts"


@dataclass(frozen=True)
class Hinge(Loss):
    """The hinge loss for targets 0 and 1: one output, or one score a class against the rest; predictions are scores."""

    name = "hinge"
    kernel = staticmethod(kernels.hinge)
    threshold = 0.0
    targets = "classes"

    def sides(self, A: Any, Y: Any) -> list[Any]:
        """Whether the margin lies above 1."""
        return [(2.0 * Y - 1.0) * A > 1.0]


@dataclass(frozen=True)
class SoftmaxCrossEntropy(Loss):
    """Cross-entropy of softmax(Z) with the targets; one class a sample.

    smoothing: from 0 to below 1; every class gets smoothing / n_outputs of the target, the true one keeps the rest.
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
    """Cross-entropy of sigmoid(Z) with the targets, summed over the outputs, each a yes or no of its own.

    smoothing: from 0 to below 1; targets move towards 1/2 by that part of the way, as in Keras (BinaryCrossentropy).
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
    """Minus the log probability of the target, for log probabilities: it needs output="log_softmax", as in PyTorch.

    The two together are softmax_cross_entropy, which is one kernel and cheaper; predictions are probabilities.
    """

    name = "negative_log_likelihood"
    kernel = staticmethod(kernels.negative_log_likelihood)
    link = staticmethod(kernels.exp_link)
    output = "log_softmax"
    threshold = math.log(0.5)
    targets = "distributions"


# One table from name to class, from which specs, model files and the command line know a loss and its parameters.
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
    """Return the loss that a name, a spec such as {"name": "huber", "delta": 1.0}, or a Loss says.

    Raises ValueError for anything else, naming the nearest name.
    """
    if isinstance(found, type) and issubclass(found, Loss):
        raise ValueError(f"loss is the class {found.__name__}; needed is a value of it: {found.__name__}()")
    if isinstance(found, Loss):
        return found
    if not isinstance(found, dict):
        return LOSSES[check_option("loss", found, LOSSES)]()
    name = check_option("loss", found.get("name"), LOSSES)
    loss: Loss = from_spec(LOSSES[name], found, "name", f"{name} loss")
    return loss


def _smoothing(loss: SoftmaxCrossEntropy | SigmoidCrossEntropy) -> float:
    return check_number(f"smoothing of {loss.name}", loss.smoothing, at_least=0, below=1, example="0.1")
