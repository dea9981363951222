"""What every layer can be asked, with the answers that most of them give. The layers come next."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from xpnet.network.parameters import Shape

Array = Any


class Layer:
    """Base of all layers: immutable descriptions that say which kernels they run, and hold no parameters or state.

    `arrays` is what a layer works on, by name: its parameters, its running statistics and its working arrays.
    """

    type: ClassVar[str]
    only_in_training: ClassVar[bool] = False  # whether predictions leave it out
    is_random: ClassVar[bool] = False  # whether it works on `index`, `key` and `stride` of a counter, in training

    @property
    def needs_input(self) -> bool:
        """Whether the backward reads the input, which then may not be overwritten."""
        return False

    @property
    def needs_output(self) -> bool:
        """Whether the backward reads the output, which then may not be overwritten."""
        return False

    @property
    def scratch(self) -> tuple[str, ...]:
        """Forms, as for `working`, of what `arrays["scratch"]` holds; it keeps nothing from forward to backward."""
        return ()

    @property
    def is_identity(self) -> bool:
        """Whether the output is the input, so that nothing need be computed."""
        return False

    def parameter_shapes(self) -> dict[str, Shape]:
        """Name and shape of each parameter."""
        return {}

    def statistic_shapes(self) -> dict[str, Shape]:
        """Name and shape of each running statistic, which training steps write and predictions read."""
        return {}

    def working(self, training: bool) -> dict[str, str]:
        """Name and form of the arrays that it needs besides: "matrix" and "bits" (uint32) (n, batch), "row" (1, batch),
        "column" (n, 1). What the forward leaves there is there in the backward."""
        return {}

    def initialize(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Draw what lives on, parameters and statistics, on the host; {} if there is nothing."""
        return {}

    def output_size(self, n_in: int) -> int:
        """Number of outputs when fed `n_in` features; raises ValueError if it takes another number."""
        return n_in

    def forward_into(self, xp: Any, arrays: dict[str, Array], X: Array, out: Array) -> None:
        """Write the output for X (n_in, batch) into `out`, as predictions need it."""
        raise NotImplementedError

    def train_into(self, xp: Any, arrays: dict[str, Array], X: Array, out: Array) -> None:
        """Write the output for X (n_in, batch) into `out`, as a training step needs it."""
        self.forward_into(xp, arrays, X, out)

    def backward_into(
        self, xp: Any, arrays: dict[str, Array], trace: Array, dA: Array, grads: dict[str, Array], dX: Array | None
    ) -> None:
        """Write the gradients for dA into `grads` and, unless None, dX; trace: the input or output, as it needs."""
        raise NotImplementedError

    def advance_into(self, xp: Any, arrays: dict[str, Array]) -> None:
        """Move on what lives on besides the parameters; after the backward, in steps that update."""

    def advance(self, params: dict[str, Array], trace: Any, xp: Any = np) -> None:
        """Used alone: move on, in place, what lives on in `params` besides the parameters; trace: of `forward`."""

    def to_spec(self) -> dict[str, Any]:
        """The layer as a JSON-ready dict."""
        raise NotImplementedError


def allocate_working(layer: Layer, n: int, batch: int, xp: Any, dtype: Any) -> dict[str, Array]:
    """The working arrays of a layer that is used alone, in training."""
    shapes = {"matrix": (n, batch), "bits": (n, batch), "row": (1, batch), "column": (n, 1)}
    return {
        name: xp.empty(shapes[form], dtype=np.uint32 if form == "bits" else dtype)
        for name, form in layer.working(training=True).items()
    }
