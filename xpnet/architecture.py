"""What a network is, apart from its weights: a list of layers and a loss, checked as a whole.

There are three ways in (sizes, layers, JSON) and one internal form, the list of layers. `Network` adds parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from xpnet.kernels.activations import ACTIVATIONS
from xpnet.kernels.losses import LOSSES
from xpnet.layers import Activation, Dense, Layer, layer_from_spec
from xpnet.options import check_option
from xpnet.parameters import Layout

SPEC_FORMAT = 1


@dataclass(frozen=True)
class Architecture:
    """Layers and the name of a loss; every Dense knows its initialiser and every size fits the one before it."""

    layers: tuple[Layer, ...]
    loss: str

    def __post_init__(self) -> None:
        check_option("loss", self.loss, LOSSES)
        if not self.layers or not isinstance(self.layers[0], Dense):
            raise ValueError("the first layer must be Dense, so that the number of inputs is known: "
                             "begin with Dense(n_in, n_out)")  # fmt: skip
        n_outputs = self.layers[0].n_in
        for layer in self.layers:
            n_outputs = layer.output_size(n_outputs)
        last = next(layer for layer in reversed(self.layers) if not layer.is_identity)
        if LOSSES[self.loss].needs_identity_output and isinstance(last, Activation):
            raise ValueError(f"{self.loss} applies its own link and needs output='identity', the last layer is "
                             f"{last.name!r}; drop it, or use loss='squared_error'")  # fmt: skip
        if self.loss == "softmax_cross_entropy" and n_outputs == 1:
            raise ValueError("softmax_cross_entropy on 1 output is always 0; use loss='sigmoid_cross_entropy', "
                             "or 2 outputs")  # fmt: skip
        object.__setattr__(self, "layers", _with_initialisers(self.layers))
        self.layout  # noqa: B018  too large a network is refused here, before anything is allocated

    @classmethod
    def of_sizes(
        cls, sizes: Sequence[int], activation: str | Sequence[str], output: str, init: str | None, loss: str
    ) -> Architecture:
        """Dense layers of these sizes; `activation` after each hidden one, `output` after the last."""
        if len(sizes) < 2:
            raise ValueError(f"layers is {list(sizes)}; needed are at least inputs and outputs, such as [784, 10]")
        n_hidden = len(sizes) - 2
        for name in [activation] if isinstance(activation, str) else activation:
            check_option("activation", name, ACTIVATIONS)  # also where there is no hidden layer to use it
        names = [activation] * n_hidden if isinstance(activation, str) else list(activation)
        if len(names) != n_hidden:
            raise ValueError(f"activation has {len(names)} names for {n_hidden} hidden layers; give one name for all, "
                             "or one per hidden layer (the last layer's is `output`)")  # fmt: skip
        check_option("output", output, ACTIVATIONS)
        layers: list[Layer] = []
        for n_in, n_out, name in zip(sizes[:-1], sizes[1:], [*names, output], strict=True):
            layers.append(Dense(n_in, n_out, init=init))
            if not Activation(name).is_identity:
                layers.append(Activation(name))
        return cls(tuple(layers), loss)

    @classmethod
    def from_spec(cls, spec: Any) -> Architecture:
        """Read {"format": 1, "loss": ..., "layers": [...]}; raises ValueError for anything else."""
        if not isinstance(spec, dict):
            raise ValueError(f"the spec is a {type(spec).__name__}; needed is a dict with format, loss and layers")
        for key in spec:
            check_option("key of the spec", key, ("format", "loss", "layers"))
        if spec.get("format") is True or spec.get("format") != SPEC_FORMAT:
            raise ValueError(f"the spec has format {spec.get('format')!r}; this version reads format {SPEC_FORMAT}")
        layers = spec.get("layers")
        if not isinstance(layers, list):
            raise ValueError(f"layers of the spec is {layers!r}; needed is a list of dicts")
        return cls(tuple(layer_from_spec(layer) for layer in layers), check_option("loss", spec.get("loss"), LOSSES))

    def to_spec(self) -> dict[str, Any]:
        """The architecture as a JSON-ready dict, which `from_spec` reads back."""
        return {"format": SPEC_FORMAT, "loss": self.loss, "layers": [layer.to_spec() for layer in self.layers]}

    @property
    def dense(self) -> tuple[tuple[int, Dense], ...]:
        """(index in `layers`, layer) of the layers that have parameters."""
        return tuple((i, layer) for i, layer in enumerate(self.layers) if isinstance(layer, Dense))

    @property
    def layout(self) -> Layout:
        """Where the parameters of the dense layers lie."""
        return Layout.of((layer.n_out, layer.n_in) for _, layer in self.dense)

    @property
    def n_inputs(self) -> int:
        """Number of features that the first layer takes."""
        return self.dense[0][1].n_in

    @property
    def n_outputs(self) -> int:
        """Number of outputs of the last layer."""
        return self.dense[-1][1].n_out

    def __str__(self) -> str:
        sizes = "-".join(map(str, [self.n_inputs, *(layer.n_out for _, layer in self.dense)]))
        names = list(dict.fromkeys(layer.name for layer in self.layers if isinstance(layer, Activation)))
        return f"{sizes} {' '.join(names) or 'linear'}, {self.loss}"


def _with_initialisers(layers: tuple[Layer, ...]) -> tuple[Layer, ...]:
    """Settle every Dense whose `init` is None: "he" before relu, else "glorot" (the papers' own pairings)."""
    following = [*layers[1:], None]
    return tuple(
        replace(layer, init="he" if next_layer == Activation("relu") else "glorot")
        if isinstance(layer, Dense) and layer.init is None
        else layer
        for layer, next_layer in zip(layers, following, strict=True)
    )
