"""The interface of all layers, with defaults that suit most.

A layer with parameters is a frozen dataclass that defines its `type`, `parameter_shapes`, `initialize`, `forward_into`
and `backward_into`, and stands in the table LAYERS of `xpnet.network.layers`; a layer without parameters needs only
`type` and the last two. If its type ends in "_norm", what stands before that is a choice of --normalization. A network
records these; `forward`, `backward` and `advance`, for a layer used alone, run the same on new arrays.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Self

import numpy as np

from xpnet.network.parameters import Shape
from xpnet.specs import from_spec, values_of

Array = Any


class Layer:
    """Base of all layers: immutable descriptions that select kernels and hold no parameters or state.

    arrays: in all methods, a layer's parameters, running statistics and working arrays by name.
    params: the parameters and running statistics alone.
    """

    type: ClassVar[str]  # in specs and model files
    # Names of its weight matrices (n_out, n_in), to which l1, l2, weight decay and max-norm apply; other parameters and
    # the running statistics are columns (n, 1). The output of a layer with matrices is called Z and numbers the layers.
    matrices: ClassVar[tuple[str, ...]] = ()
    cancels_bias: ClassVar[bool] = False  # whether it subtracts the mean, and so a preceding bias
    least_batch: ClassVar[int] = 1  # samples that a training step needs
    only_in_training: ClassVar[bool] = False  # whether it is inactive in predictions
    is_random: ClassVar[bool] = False  # whether training uses a counter: `index`, `key`, `stride`

    @property
    def kinks(self) -> tuple[float, ...]:
        """Values of the input where the slope, or its derivative, jumps."""
        return ()

    @property
    def suited_init(self) -> str | None:
        """The initialiser that suits preceding weights; None leaves the choice to the next layer."""
        return None

    @property
    def needs_input(self) -> bool:
        """Whether the backward reads the input, which then must not be overwritten."""
        return False

    @property
    def needs_output(self) -> bool:
        """Whether the backward reads the output, which then must not be overwritten."""
        return False

    @property
    def scratch(self) -> tuple[str, ...]:
        """Forms, as in `working`, of the arrays in `arrays["scratch"]`, which the forward overwrites."""
        return ()

    @property
    def backward_scratch(self) -> tuple[str, ...]:
        """Forms of the arrays in `arrays["backward_scratch"]`, for the backward; the two may share arrays."""
        return ()

    @property
    def is_identity(self) -> bool:
        """Whether the output is the input, without computation."""
        return False

    def parameter_shapes(self) -> dict[str, Shape]:
        """Return the shape of each parameter by name."""
        return {}

    def statistic_shapes(self) -> dict[str, Shape]:
        """Return the shape of each running statistic by name; training steps write them, predictions read them."""
        return {}

    def working(self, training: bool) -> dict[str, str]:
        """Return the form of each working array by name; the backward finds them as the forward left them.

        Forms: "matrix" and "bits" (uint32) are (n, batch), "row" is (1, batch), "column" (n, 1).
        """
        return {}

    def initialize(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Draw the initial parameters and statistics by name, on the host; {} if there are none."""
        return {}

    def output_size(self, n_in: int) -> int:
        """Return the number of outputs for `n_in` features; raises ValueError if it needs another number."""
        return n_in

    def forward_into(self, xp: Any, arrays: dict[str, Array], X: Array, out: Array) -> None:
        """Write the output for X (n_in, batch) into `out`, as in predictions."""
        raise NotImplementedError

    def train_into(self, xp: Any, arrays: dict[str, Array], X: Array, out: Array) -> None:
        """Write the output for X (n_in, batch) into `out`, as in a training step."""
        self.forward_into(xp, arrays, X, out)

    def backward_into(
        self, xp: Any, arrays: dict[str, Array], trace: Array, dA: Array, grads: dict[str, Array], dX: Array | None
    ) -> None:
        """Write the gradients for dA into `grads` and, unless None, dX; trace: the input or output that it reads."""
        raise NotImplementedError

    def advance_into(self, xp: Any, arrays: dict[str, Array]) -> None:
        """Advance running statistics and random keys; called after the backward in steps that update."""

    def forward(self, params: dict[str, Array], X: Array, xp: Any = np) -> tuple[Array, dict[str, Array]]:
        """Return the output and the trace for `backward`, as in a training step, for X (n_in, batch).

        Raises ValueError for another n_in, or a batch that is too small.
        """
        n, batch = self.output_size(X.shape[0]), X.shape[1]
        check_batch([self], batch)
        trace = {name: _empty(form, n, batch, xp, X.dtype) for name, form in self.working(training=True).items()}
        A = _empty("matrix", n, batch, xp, X.dtype)
        if self.is_identity:
            A[...] = X
        else:
            scratch = [_empty(form, n, batch, xp, X.dtype) for form in self.scratch]
            with np.errstate(over="ignore"):  # the sigmoid's exp(-Z) may be infinite, and A 0
                self.train_into(xp, {**params, **trace, "scratch": scratch}, X, A)
        return A, {**trace, "trace": X if self.needs_input else A}

    def backward(
        self, params: dict[str, Array], trace: dict[str, Array], dA: Array, xp: Any = np
    ) -> tuple[Array, dict[str, Array]]:
        """Return dX (n_in, batch) and the gradients by name, summed over the batch, for dA (n_out, batch)."""
        n, batch = dA.shape
        dX = xp.empty(trace["trace"].shape, dtype=dA.dtype)
        grads = {name: xp.empty(shape, dtype=dA.dtype) for name, shape in self.parameter_shapes().items()}
        if self.is_identity:
            dX[...] = dA
        else:
            scratch = [_empty(form, n, batch, xp, dA.dtype) for form in self.backward_scratch]
            with np.errstate(over="ignore"):
                arrays = {**params, **trace, "backward_scratch": scratch}
                self.backward_into(xp, arrays, trace["trace"], dA, grads, dX)
        return dX, grads

    def advance(self, params: dict[str, Array], trace: dict[str, Array], xp: Any = np) -> None:
        """Advance statistics and keys in `params` in place; call it once for each trace of `forward`."""
        self.advance_into(xp, {**params, **trace})

    def to_spec(self) -> dict[str, Any]:
        """Return the layer as a JSON-ready dict."""
        return {"type": self.type, **values_of(self)}

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any], functions: Mapping[str, Any] | None = None) -> Self:
        """Make the layer of a dict from `to_spec`; functions: custom activations by name.

        Raises ValueError for an unknown or a missing key, or a bad value.
        """
        layer: Self = from_spec(cls, spec, "type", f"{cls.type} layer")
        return layer


def check_batch(layers: Iterable[Layer], batch: int) -> None:
    """Refuse a training step of fewer samples than its layers need."""
    for layer in layers:
        if batch < layer.least_batch:
            raise ValueError(
                f"a training step has {batch} sample{'s' * (batch > 1)} and {layer} needs {layer.least_batch} or more; "
                f"give it {layer.least_batch} or more, or take another layer, such as LayerNorm(n)"
            )


def left_out(layers: Iterable[Layer], n_samples: int, batch: int) -> int:
    """Return the samples that an epoch leaves out: those of a last step that is too small for a layer."""
    short = n_samples % batch
    return short if any(short < layer.least_batch for layer in layers) else 0


def _empty(form: str, n: int, batch: int, xp: Any, dtype: Any) -> Array:
    shape = {"matrix": (n, batch), "bits": (n, batch), "row": (1, batch), "column": (n, 1)}[form]
    return xp.empty(shape, dtype=np.uint32 if form == "bits" else dtype)
