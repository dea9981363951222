"""Describe a network apart from its weights: a list of layers and a loss, checked as a whole.

It is given as sizes, layers or JSON and always stored as a list of layers. `Network` adds the parameters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

from xpnet.checks import check_option, is_built_in, shown
from xpnet.kernels.activations import ACTIVATIONS
from xpnet.network.custom import CustomActivation, CustomLoss
from xpnet.network.dropout import Dropout
from xpnet.network.layer import Layer
from xpnet.network.layers import LAYERS, Activation, Dense, layer_from_spec, own_function
from xpnet.network.losses import LOSSES, Loss, loss_of
from xpnet.network.parameters import Layout

SPEC_FORMAT = 1
NORMALIZATIONS: dict[str, Any] = {
    name.removesuffix("_norm"): layer for name, layer in LAYERS.items() if name.endswith("_norm")
}
Function = str | CustomActivation  # an activation, or its name


@dataclass(frozen=True)
class Architecture:
    """Layers and a loss, or its name; every Dense has its initialiser and every size fits the next."""

    layers: tuple[Layer, ...]
    loss: Loss

    def __init__(self, layers: tuple[Layer, ...], loss: str | Loss) -> None:
        object.__setattr__(self, "layers", layers)
        object.__setattr__(self, "loss", loss_of(loss))
        self._check()
        object.__setattr__(self, "layers", _with_initialisers(self.layers))
        self.layout  # noqa: B018  too large a network is refused here, before anything is allocated

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy or a pickle needs; all else follows from it."""
        return {"layers": self.layers, "loss": self.loss}

    def _check(self) -> None:
        if not self.layers or not isinstance(self.layers[0], Dense):
            raise ValueError(
                "the first layer must be Dense, so that the number of inputs is known: begin with Dense(n_in, n_out)"
            )
        n_outputs = self.layers[0].n_in
        for layer in self.layers:
            n_outputs = layer.output_size(n_outputs)
        _refuse_cancelled_bias(self.layers)
        named: dict[str, Activation] = {}
        for layer in self.layers:  # names in files must be unique
            if isinstance(layer, Activation) and named.setdefault(layer.name, layer) != layer:
                raise ValueError(f"two activations of your own are called {layer.name!r}; give one another name")
        own = [name for name, layer in named.items() if isinstance(layer.function, CustomActivation)]
        if isinstance(self.loss, CustomLoss) and self.loss.name in own:
            raise ValueError(
                f"an activation and the loss of your own are both called {self.loss.name!r}, and "
                "functions= could give back only one of them; give one another name"
            )
        last = next(layer for layer in reversed(self.layers) if not (layer.is_identity or layer.only_in_training))
        output = last.name if isinstance(last, Activation) else "identity"
        if self.loss.output == "identity" and output != "identity":
            raise ValueError(
                f"{self.loss.name} applies its own link and needs output='identity', the last layer is "
                f"{output!r}; drop it, or use loss='squared_error'"
            )
        if self.loss.output not in (None, output):
            raise ValueError(
                f"{self.loss.name} needs output={self.loss.output!r}, the last layer is {output!r}; "
                "change it, or use loss='softmax_cross_entropy' with output='identity'"
            )
        if self.loss.targets == "distributions" and n_outputs == 1:
            raise ValueError(
                f"{self.loss.name} on 1 output is always 0; use loss='sigmoid_cross_entropy', or 2 outputs"
            )

    @classmethod
    def of_sizes(
        cls,
        sizes: Sequence[int],
        activation: Function | Sequence[Function],
        output: Function,
        init: str | None,
        loss: str | Loss,
        dropout: float | Sequence[float] | None = None,
        normalization: str | None = None,
    ) -> Architecture:
        """Make dense layers of these sizes; `activation` follows each hidden one, `output` the last.

        `normalization` comes before each hidden activation, `dropout` after it.
        """
        if len(sizes) < 2:
            raise ValueError(f"layers is {list(sizes)}; it must hold at least inputs and outputs, such as [784, 10]")
        n_hidden = len(sizes) - 2
        one_for_all = isinstance(activation, (str, CustomActivation))
        if not one_for_all and (callable(activation) or not hasattr(activation, "__iter__")):
            raise TypeError(
                f"activation is {activation!r}; it must be a name such as 'relu', a list of names, or a "
                "CustomActivation(name, forward, backward)"
            )
        given: list[Any] = [activation] if one_for_all else list(activation)  # type: ignore[arg-type]
        for name in given:
            _check_function("activation", name)  # even without a hidden layer to use it
        names = given * n_hidden if one_for_all else given
        if len(names) != n_hidden:
            raise ValueError(
                f"activation has {len(names)} names for {n_hidden} hidden layers; give one name for all, "
                "or one per hidden layer (the last layer's is `output`)"
            )
        _check_function("output", output)
        if normalization is not None:
            check_option("normalization", normalization, NORMALIZATIONS)
        layers: list[Layer] = []
        for n_in, n_out, name, rate in zip(sizes[:-2], sizes[1:-1], names, _rates(dropout, n_hidden), strict=True):
            normalized = [] if normalization is None else [NORMALIZATIONS[normalization](n_out)]
            bias = None if any(layer.cancels_bias for layer in normalized) else "zeros"
            layers += [Dense(n_in, n_out, init=init, bias=bias), *normalized]
            layers += [layer for layer in (Activation(name), Dropout(rate)) if not layer.is_identity]
        layers.append(Dense(sizes[-2], sizes[-1], init=init))
        layers += [layer for layer in [Activation(output)] if not layer.is_identity]
        return cls(tuple(layers), loss)

    @classmethod
    def from_spec(cls, spec: Any, functions: Mapping[str, Any] | None = None) -> Architecture:
        """Read {"format": 1, "loss": ..., "layers": [...]}; raises ValueError for anything else.

        functions: the `CustomActivation` and `CustomLoss` values that the spec names, by these names.
        """
        if not isinstance(spec, dict):
            raise ValueError(f"the spec is a {type(spec).__name__}; it must be a dict with format, loss and layers")
        for key in spec:
            check_option("key of the spec", key, ("format", "loss", "layers"))
        if spec.get("format") is True or spec.get("format") != SPEC_FORMAT:
            raise ValueError(
                f"the spec has format {shown(spec.get('format'))}; this version reads format {SPEC_FORMAT}"
            )
        layers = spec.get("layers")
        if not isinstance(layers, list):
            raise ValueError(f"layers of the spec is {shown(layers)}; it must be a list of dicts")
        loss = own_function("loss", spec.get("loss"), CustomLoss, LOSSES, functions)
        return cls(tuple(layer_from_spec(layer, functions) for layer in layers), loss)

    def to_spec(self) -> dict[str, Any]:
        """Return the architecture as a JSON-ready dict, which `from_spec` reads."""
        return {
            "format": SPEC_FORMAT,
            "loss": self.loss.to_spec(),
            "layers": [layer.to_spec() for layer in self.layers],
        }

    @property
    def is_built_in(self) -> bool:
        """Whether all layers, functions and the loss are xpnet's, whose kernels never change."""
        functions = [layer.function for layer in self.layers if isinstance(layer, Activation)]
        own = (CustomActivation, CustomLoss)
        parts = (*self.layers, self.loss, *functions)
        return all(is_built_in(type(part)) and not isinstance(part, own) for part in parts if part is not None)

    @property
    def dense(self) -> tuple[tuple[int, Dense], ...]:
        """(index in `layers`, layer) of the dense layers."""
        return tuple((i, layer) for i, layer in enumerate(self.layers) if isinstance(layer, Dense))

    @cached_property
    def layout(self) -> Layout:
        """The layout of the layers' parameters and running statistics."""
        shapes = [(layer, layer.parameter_shapes()) for layer in self.layers]
        return Layout.of(
            ({name: shape[name] for name in shape if name in layer.matrices} for layer, shape in shapes),
            ({name: shape[name] for name in shape if name not in layer.matrices} for layer, shape in shapes),
            (layer.statistic_shapes() for layer in self.layers),
        )

    @cached_property
    def n_inputs(self) -> int:
        """Number of features that the first layer takes."""
        return self.dense[0][1].n_in

    @cached_property
    def n_outputs(self) -> int:
        """Number of outputs of the last layer."""
        n_outputs = self.n_inputs
        for layer in self.layers:
            n_outputs = layer.output_size(n_outputs)
        return n_outputs

    def __str__(self) -> str:
        sizes = "-".join(map(str, [self.n_inputs, *(layer.n_out for _, layer in self.dense)]))
        names = list(dict.fromkeys(layer.name for layer in self.layers if isinstance(layer, Activation)))
        names += dict.fromkeys(layer.type for layer in self.layers if not isinstance(layer, (Dense, Activation)))
        return f"{sizes} {' '.join(names) or 'linear'}, {self.loss}"


def _rates(dropout: float | Sequence[float] | None, n_hidden: int) -> list[float]:
    """Return a rate for every hidden layer."""
    rates = list(dropout) if isinstance(dropout, (list, tuple)) else None
    if rates is None:
        return [Dropout(0.0 if dropout is None else dropout).rate] * n_hidden  # type: ignore[arg-type]
    if len(rates) != n_hidden:
        raise ValueError(
            f"dropout has {len(rates)} rates for {n_hidden} hidden layers; give one rate for all, "
            "or one per hidden layer"
        )
    return rates


def _refuse_cancelled_bias(layers: tuple[Layer, ...]) -> None:
    """Refuse a bias before a layer that cancels it: its gradient is rounding noise, which Adam would follow."""
    kept = [layer for layer in layers if not layer.is_identity]
    for layer, after in pairwise(kept):
        if isinstance(layer, Dense) and layer.bias is not None and after.cancels_bias:
            raise ValueError(
                f"Dense({layer.n_in}, {layer.n_out}) has a bias, which the {type(after).__name__} after it "
                f"cancels; write Dense({layer.n_in}, {layer.n_out}, bias=None)"
            )


def _with_initialisers(layers: tuple[Layer, ...]) -> tuple[Layer, ...]:
    """Choose the initialiser of every Dense whose `init` is None, by the activation that follows."""
    settled: list[Layer] = []
    suited = "glorot"
    for layer in reversed(layers):
        if isinstance(layer, Dense) and layer.init is None:
            layer = replace(layer, init=suited)
        settled.append(layer)
        suited = layer.suited_init or suited
    return tuple(reversed(settled))


def _check_function(argument: str, found: Any) -> None:
    if not isinstance(found, CustomActivation):
        check_option(argument, found, ACTIVATIONS)
