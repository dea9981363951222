"""Merge networks into one that gives the mean of what they give: an ordinary network, only wider."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from xpnet.network.layer import Layer
from xpnet.network.layers import Activation, Dense
from xpnet.network.network import Network

__all__ = ["deep_linear", "mean_network"]

Tensors = list[dict[str, np.ndarray]]  # the parameters of each layer by name


def mean_network(networks: Sequence[Network], parts: Sequence[float] | None = None) -> Network:
    """Return one network whose last dense layer gives the mean of those of the others; dropout is left out.

    networks: on one backend, with the same activations; their hidden layers, of any sizes, stand side by side.
    parts: of each in the mean, None for equal ones.
    Of networks k W is all W_k below one another in the first layer, blocks on the diagonal in the next, and all
    part_k W_k beside one another in the last. Raises ValueError for layers that tie the units of a layer together.
    """
    shares = [1.0 / len(networks)] * len(networks) if parts is None else parts
    layers, tensors = list[Layer](), Tensors()
    kept = list(zip(*(_kept(network) for network in networks), strict=True))
    last = max(place for place, (part, *_) in enumerate(kept) if part[1])
    for place, found in enumerate(kept):
        layer, arrays = found[0][0], [each for _, each in found]
        made = {}
        if isinstance(layer, Dense):
            made = _joined(arrays, shares, place == 0, place == last)
            layer = replace(layer, n_in=made["W"].shape[1], n_out=made["W"].shape[0])
        layers.append(layer)
        tensors.append(made)
    return _made(layers, tensors, networks[0])


def deep_linear(linear: Network, like: Network) -> Network:
    """Return what a network of one dense layer gives as a network of `like`'s depth, by relu(z) - relu(-z) = z.

    like: a network whose hidden activations are all relu.
    """
    (arrays,) = (arrays for _, arrays in _kept(linear) if arrays)
    depth, n_outputs = len(like.architecture.dense) - 1, len(arrays["W"])
    if depth == 0:
        return linear
    pair = np.eye(2 * n_outputs, dtype=arrays["W"].dtype)
    last = {"W": np.hstack([pair[:n_outputs, :n_outputs], -pair[:n_outputs, :n_outputs]])}
    Ws = [np.vstack([arrays["W"], -arrays["W"]]), *[pair] * (depth - 1)]
    layers, tensors = list[Layer](), Tensors()
    for W in Ws:
        layers += [Dense(W.shape[1], W.shape[0]), Activation("relu")]
        tensors += [{"W": W, "b": np.zeros((len(W), 1), W.dtype)}, {}]
    return _made([*layers, Dense(2 * n_outputs, n_outputs)], [*tensors, last | {"b": arrays["b"]}], linear)


def _kept(network: Network) -> Iterator[tuple[Layer, dict[str, np.ndarray]]]:
    """Yield each layer that predictions need, with its parameters on the host."""
    named, to_host = network.parameters.named, network.backend.to_host
    for i, layer in enumerate(network.layers):
        if isinstance(layer, (Dense, Activation)):
            names = layer.parameter_shapes()
            yield layer, {name: to_host(named[f"layers.{i}.{name}"]) for name in names}
        elif not layer.only_in_training:
            raise ValueError(
                f"layer {i} is {layer.type}, which ties the units of its layer together, and networks are merged unit "
                "by unit; build them of Dense, Activation and Dropout"
            )


def _joined(
    arrays: Sequence[dict[str, np.ndarray]], shares: Sequence[float], is_first: bool, is_last: bool
) -> dict[str, np.ndarray]:
    """Join the parameters of a dense layer of each network."""
    dtype = arrays[0]["W"].dtype
    if is_last:
        arrays = [
            {name: (value * share).astype(dtype) for name, value in each.items()}
            for each, share in zip(arrays, shares, strict=True)
        ]
    Ws = [each["W"] for each in arrays]
    if is_first and is_last:
        W = np.sum(Ws, axis=0)
    elif is_first:
        W = np.vstack(Ws)
    else:
        W = np.hstack(Ws) if is_last else _on_the_diagonal(Ws)
    if "b" not in arrays[0]:
        return {"W": W}
    bs = [each["b"] for each in arrays]
    return {"W": W, "b": np.sum(bs, axis=0) if is_last else np.vstack(bs)}


def _on_the_diagonal(blocks: Sequence[np.ndarray]) -> np.ndarray:
    shapes = np.array([block.shape for block in blocks])
    made = np.zeros(shapes.sum(axis=0), blocks[0].dtype)
    for block, (row, column) in zip(blocks, shapes.cumsum(axis=0) - shapes, strict=True):
        made[row : row + block.shape[0], column : column + block.shape[1]] = block
    return made


def _made(layers: Sequence[Layer], tensors: Tensors, like: Network) -> Network:
    """Return the network of these layers and parameters, with the loss and the backend of another."""
    network = Network(layers, loss=like.architecture.loss, backend=like.backend)
    network.inputs = like.inputs
    for i, made in enumerate(tensors):
        for name, value in made.items():
            network.parameters.named[f"layers.{i}.{name}"][...] = like.backend.to_device(value)
    return network
