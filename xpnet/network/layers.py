"""The layers of a network: immutable descriptions that select kernels.

A layer holds no parameters and no state. `Dropout`, `BatchNorm` and `LayerNorm` are in separate modules.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import numpy as np

from xpnet.checks import check_number, check_option, check_whole, shown
from xpnet.kernels.activations import ACTIVATIONS, ActivationFunction
from xpnet.kernels.affine import affine, affine_backward
from xpnet.network.custom import CustomActivation
from xpnet.network.dropout import Dropout
from xpnet.network.layer import Array, Layer
from xpnet.network.normalization import BatchNorm, LayerNorm
from xpnet.network.parameters import BIAS_INITIALISERS, WEIGHT_INITIALISERS, Shape, draw_biases, draw_weights

__all__ = ["Activation", "Dense"]


@dataclass(frozen=True)
class Dense(Layer):
    """Z = W X + b, every output connected to every input.

    n_in, n_out: number of inputs and outputs.
    init: "normal", "inverse_sqrt", "glorot", "he" or "lecun"; None lets the network choose by the next activation
    (used alone: "glorot").  bias: initially "zeros", "normal" or a number; None for no bias, as before a BatchNorm.
    """

    n_in: int
    n_out: int
    init: str | None = None
    bias: str | float | None = "zeros"

    type: ClassVar[str] = "dense"
    matrices: ClassVar[tuple[str, ...]] = ("W",)
    suited_init: ClassVar[str] = "glorot"  # of a preceding layer without an activation between

    @property
    def needs_input(self) -> bool:
        """True: the backward reads X."""
        return True

    def __post_init__(self) -> None:
        for name in ("n_in", "n_out"):
            object.__setattr__(self, name, check_whole(name, getattr(self, name), at_least=1))
        if self.init is not None:
            check_option("Dense init", self.init, WEIGHT_INITIALISERS)
        if self.bias is not None and self.bias not in BIAS_INITIALISERS:
            object.__setattr__(self, "bias", _constant_bias(self.bias))

    def parameter_shapes(self) -> dict[str, Shape]:
        """Return the shapes of W and, unless there is none, b."""
        weights = {"W": (self.n_out, self.n_in)}
        return weights if self.bias is None else {**weights, "b": (self.n_out, 1)}

    def initialize(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Draw {"W": (n_out, n_in), "b": (n_out, 1)}, b only if there is one, in float64 on the host."""
        W = draw_weights(self.init or "glorot", self.n_in, self.n_out, rng)
        return {"W": W} if self.bias is None else {"W": W, "b": draw_biases(self.bias, self.n_out, rng)}

    def output_size(self, n_in: int) -> int:
        """Return the number of outputs for `n_in` features; raises ValueError if it needs another number."""
        if n_in != self.n_in:
            raise ValueError(
                f"Dense({self.n_in}, {self.n_out}) follows a layer with {n_in} outputs; "
                f"write Dense({n_in}, {self.n_out})"
            )
        return self.n_out

    def forward_into(self, xp: Any, arrays: dict[str, Array], X: Array, out: Array) -> None:
        """Write Z (n_out, batch) for X (n_in, batch) into `out`."""
        affine(xp, arrays["W"], arrays.get("b"), X, out)

    def backward_into(
        self, xp: Any, arrays: dict[str, Array], trace: Array, dZ: Array, grads: dict[str, Array], dX: Array | None
    ) -> None:
        """Write the gradients for dZ (n_out, batch) into grads["W"], grads["b"] and, unless None, dX (n_in, batch)."""
        affine_backward(xp, arrays["W"], trace, dZ, grads["W"], grads.get("b"), dX)


@dataclass(frozen=True)
class Activation(Layer):
    """A = f(Z).  name: one of `xpnet.kernels.activations.ACTIVATIONS`, such as "relu", or a `CustomActivation`.

    function: the named function, None for "identity".
    """

    name: str
    function: ActivationFunction | None = field(init=False, repr=False)

    type: ClassVar[str] = "activation"

    def __init__(self, name: str | CustomActivation) -> None:
        if isinstance(name, CustomActivation):
            function: ActivationFunction | None = name
            name = name.name
        else:
            function = ACTIVATIONS[check_option("activation", name, ACTIVATIONS)]
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "function", function)

    def __setstate__(self, state: dict[str, Any]) -> None:
        # A pickle holds xpnet's function of its time, whose kernels may have used other scratch.
        self.__dict__.update({**state, "function": ACTIVATIONS.get(state["name"], state["function"])})

    @property
    def is_identity(self) -> bool:
        """Whether the output is the input, without computation."""
        return self.function is None

    @property
    def needs_input(self) -> bool:
        """Whether the backward reads Z, which then must not be overwritten."""
        return self.function is not None and self.function.from_input

    @property
    def needs_output(self) -> bool:
        """Whether the backward reads A."""
        return not self.needs_input

    @property
    def scratch(self) -> tuple[str, ...]:
        """See `ActivationFunction`."""
        return () if self.function is None else self.function.scratch

    @property
    def backward_scratch(self) -> tuple[str, ...]:
        """See `ActivationFunction`."""
        return () if self.function is None else self.function.backward_scratch

    @property
    def kinks(self) -> tuple[float, ...]:
        """Values of Z where the slope, or its derivative, jumps."""
        return () if self.function is None else self.function.kinks

    @property
    def suited_init(self) -> str:
        """See ACTIVATIONS."""
        return "glorot" if self.function is None else self.function.init

    def forward_into(self, xp: Any, arrays: dict[str, Array], Z: Array, out: Array) -> None:
        """Write A for Z, both (n, batch), into `out`."""
        if self.function is not None:
            self.function.forward(xp, Z, out, *arrays["scratch"])

    def backward_into(
        self, xp: Any, arrays: dict[str, Array], trace: Array, dA: Array, grads: dict[str, Array], dX: Array | None
    ) -> None:
        """Write dZ for dA, both (n, batch), into dX."""
        if self.function is not None:
            self.function.backward(xp, trace, dA, dX, *arrays["backward_scratch"])

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any], functions: Mapping[str, Any] | None = None) -> Self:
        """See `Layer.from_spec`."""
        name = own_function("activation", spec.get("name"), CustomActivation, ACTIVATIONS, functions)
        return super().from_spec({**spec, "name": name} if "name" in spec else spec)


# From type to class, for specs and model files.
LAYERS: dict[str, type[Layer]] = {layer.type: layer for layer in (Dense, Activation, Dropout, BatchNorm, LayerNorm)}


def layer_from_spec(spec: Any, functions: Mapping[str, Any] | None = None) -> Layer:
    """Make a layer from a dict such as {"type": "dense", "n_in": 784, "n_out": 100, "init": "he"}.

    functions: custom activations by name.
    Raises ValueError for an unknown type, an unknown or a missing key, or a bad value.
    """
    if not isinstance(spec, dict):
        raise ValueError(
            f'a layer of the spec is {shown(spec)}; it must be a dict such as {{"type": "activation", "name": "relu"}}'
        )
    return LAYERS[check_option("layer type", spec.get("type"), LAYERS)].from_spec(spec, functions)


def own_function(
    kind: str, name: Any, needed: type, known: Collection[str], functions: Mapping[str, Any] | None
) -> Any:
    """Return functions[name] if it exists, else the name; refuse a name that xpnet does not know either."""
    if not isinstance(functions, (Mapping, type(None))):
        raise ValueError(
            f"functions is {functions!r}; it must be a dict of your own activations and losses by name: "
            "functions={'mine': mine}"
        )
    if not isinstance(name, str) or name in known:
        return name
    if functions is None or name not in functions:
        try:
            return check_option(kind, name, known)
        except ValueError as error:
            raise ValueError(
                f"{error}; if it is one of your own, pass functions={{{name!r}: your {needed.__name__}}}"
            ) from None
    if not isinstance(functions[name], needed):
        raise ValueError(f"functions[{name!r}] is {functions[name]!r}; it must be the {needed.__name__} of that name")
    if functions[name].name != name:
        raise ValueError(
            f"functions[{name!r}] is the {needed.__name__} called {functions[name].name!r}; it must be the "
            f"one called {name!r}: give each under its own name"
        )
    return functions[name]


def _constant_bias(bias: Any) -> float:
    if isinstance(bias, str):
        check_option("Dense bias", bias, (*BIAS_INITIALISERS, "or a finite number"))
    return check_number("Dense bias", bias, example="0.1, or 'zeros' or 'normal', or None for no bias")
