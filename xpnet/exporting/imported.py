"""Networks of other libraries as networks of xpnet, from a list of layers and their arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np

from xpnet.backend import Backend, select_backend
from xpnet.network.inputs import InputRange
from xpnet.network.layer import Layer
from xpnet.network.layers import Activation, Dense
from xpnet.network.losses import Loss
from xpnet.network.network import Network
from xpnet.network.normalization import BatchNorm

# The last function of a module that is the link of a loss, and that loss; for the others there is "squared_error".
LINKS = {"softmax": "softmax_cross_entropy", "sigmoid": "sigmoid_cross_entropy", "exponential": "poisson"}


@dataclass(frozen=True)
class Part:
    """A layer with its arrays, by their names here; or, as `layer`, the name of a link."""

    layer: Layer | str
    arrays: dict[str, np.ndarray] = field(default_factory=dict)


def network_of(
    parts: Sequence[Part], loss: str | Loss | None, backend: Backend | None = None, scale: float | None = None
) -> Network:
    """Return the network of layers in order.

    loss: None for one with which `predict` returns what the module does.  scale: of rows of bytes that it takes.
    A bias before a BatchNorm, which xpnet has not, goes into its running mean.
    Raises ValueError for layers that cannot follow each other, and for weights that are not finite.
    """
    for number, part in enumerate(parts):
        wrong = [name for name, array in part.arrays.items() if not np.isfinite(array).all()]
        if wrong:
            raise ValueError(
                f"{wrong[0]} of layer {number} holds NaN or infinity, all weights must be finite; "
                "train the module again"
            )
    parts = _without_cancelled_biases(parts)
    loss, parts = _without_link(parts, loss)
    inside = next((part.layer for part in parts if isinstance(part.layer, str)), None)
    if inside is not None:
        raise ValueError(
            f"the module has {inside} before its end, where xpnet has none; a link must be the last layer; "
            "leave it out, or take another activation"
        )
    layers = [part.layer for part in parts if isinstance(part.layer, Layer)]
    dtypes = {array.dtype for part in parts for array in part.arrays.values()}
    if backend is None:
        backend = select_backend("cpu", "float64" if np.dtype(np.float64) in dtypes else "float32")
    network = Network(layers, loss=loss, backend=backend)
    arrays: dict[str, Any] = {**network.parameters.named, **network.statistics}
    for i, part in enumerate(parts):
        for name, value in part.arrays.items():
            arrays[f"layers.{i}.{name}"][...] = backend.to_device(value.reshape(arrays[f"layers.{i}.{name}"].shape))
    if scale is not None:
        network.inputs = InputRange(0.0, 255.0 * scale, scale)
    return network


def _without_link(parts: list[Part], loss: str | Loss | None) -> tuple[str | Loss, list[Part]]:
    """Return the loss, and the layers without the link that it has."""
    names = [part.layer.name if isinstance(part.layer, Activation) else part.layer for part in parts]
    link = names[-1] if names else None
    linked = "negative_log_likelihood" if names[-2:] == ["log_softmax", "exponential"] else LINKS.get(str(link))
    if linked is None or (loss is not None and link == "sigmoid"):
        return "squared_error" if loss is None else loss, parts
    called = loss if isinstance(loss, str) or loss is None else loss.name
    if called not in (None, linked):
        raise ValueError(
            f"the module ends in {link} and loss is {called!r}, which it does not go with; it must be {linked!r}; "
            "leave loss out"
        )
    return loss or linked, parts[:-1]


def _without_cancelled_biases(parts: Sequence[Part]) -> list[Part]:
    """Return the layers with each bias before a BatchNorm taken out of its running mean."""
    found = list(parts)
    for i, (part, after) in enumerate(pairwise(parts)):
        is_cancelled = isinstance(part.layer, Dense) and isinstance(after.layer, BatchNorm) and "b" in part.arrays
        if is_cancelled and isinstance(part.layer, Dense):
            mean = after.arrays["running_mean"] - part.arrays["b"]
            found[i] = Part(replace(part.layer, bias=None), {"W": part.arrays["W"]})
            found[i + 1] = Part(after.layer, after.arrays | {"running_mean": mean})
    return found
