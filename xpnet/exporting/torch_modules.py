"""PyTorch: a network as the state of an nn.Sequential and the lines that build it, and back.

Neither needs PyTorch: modules and tensors are asked for what they hold.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from xpnet.checks import check_option, one_line, shown
from xpnet.exporting.imported import Part, network_of
from xpnet.exporting.subject import Subject, in_quotes
from xpnet.files import check_readable, parse_json, tensor_bytes
from xpnet.kernels.activations import ACTIVATIONS
from xpnet.network.architecture import Architecture
from xpnet.network.custom import CustomActivation, CustomLoss
from xpnet.network.dropout import Dropout
from xpnet.network.layer import Layer
from xpnet.network.layers import Activation, Dense
from xpnet.network.losses import Loss
from xpnet.network.network import Network
from xpnet.network.normalization import BatchNorm, LayerNorm

__all__ = ["from_torch"]

SPEC = "xpnet"  # the key of the architecture in the metadata of a file
# Each activation as PyTorch's module, with the arguments that differ from its defaults.
_ACTIVATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "identity": ("Identity", {}),
    "sigmoid": ("Sigmoid", {}),
    "tanh": ("Tanh", {}),
    "relu": ("ReLU", {}),
    "leaky_relu": ("LeakyReLU", {}),
    "elu": ("ELU", {}),
    "selu": ("SELU", {}),
    "softplus": ("Softplus", {}),
    "silu": ("SiLU", {}),
    "gelu": ("GELU", {"approximate": "tanh"}),
    "hard_sigmoid": ("Hardsigmoid", {}),
    "log_softmax": ("LogSoftmax", {"dim": 1}),
}
# What modules must have where their arguments make other functions of them.
_SETTINGS: dict[str, dict[str, tuple[Any, ...]]] = {
    "LeakyReLU": {"negative_slope": (0.01,)},
    "ELU": {"alpha": (1.0,)},
    "Softplus": {"beta": (1, 1.0), "threshold": (20, 20.0)},
    "GELU": {"approximate": ("tanh",)},
    "LogSoftmax": {"dim": (1, -1)},
    "Softmax": {"dim": (1, -1)},
    "Flatten": {"start_dim": (1,), "end_dim": (-1,)},
    "BatchNorm1d": {"track_running_stats": (True,)},
}
_LINKS = {
    "softmax_cross_entropy": "torch.softmax(module(X), dim=1)",
    "sigmoid_cross_entropy": "torch.sigmoid(module(X))",
    "negative_log_likelihood": "torch.exp(module(X))",
    "poisson": "torch.exp(module(X).clamp(max=80.0))",
}
# xpnet's names of arrays -> PyTorch's.
_NAMES = {
    "dense": {"W": "weight", "b": "bias"},
    "batch_norm": {
        "gamma": "weight",
        "beta": "bias",
        "running_mean": "running_mean",
        "running_variance": "running_var",
    },
    "layer_norm": {"gamma": "weight", "beta": "bias"},
}
_KNOWN = "Linear, an activation, Dropout, BatchNorm1d or LayerNorm"
_PAGE = '''\
"""{network}, in PyTorch; its weights are those of {stem}.safetensors, beside this file. Written by xpnet."""

from functools import partial
from itertools import pairwise
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

module = nn.Sequential(
{modules}
){double}
module.load_state_dict(load_file(Path(__file__).with_suffix(".safetensors")))
module.eval()


def predict(X):
    """Return {called} (n_samples, {n_outputs}) of rows X (n_samples, {n_inputs}){scaled}."""
    with torch.no_grad():
        return {result}
'''


def torch_files(subject: Subject, stem: str) -> tuple[bytes, bytes]:
    """Return the page that builds the module, and its state as a safetensors file.

    stem: the name of both files, without suffix.  Raises ValueError for a layer or a link that PyTorch has not.
    """
    network = subject.network
    modules = [_module_of(i, layer) for i, layer in enumerate(network.layers)]
    loss = network.architecture.loss
    if loss.link is not None and loss.name not in _LINKS:
        raise ValueError(
            f"the loss {loss.name!r} has a link of your own, which PyTorch has not; export it to onnx, numpy or c, "
            "or give the network another loss"
        )
    P = _LINKS.get(loss.name, "module(X)")
    page = _PAGE.format(
        network=in_quotes(network.architecture),
        stem=in_quotes(stem),
        modules="\n".join(f"    nn.{module}," for module in modules),
        double=".double()" if network.backend.dtype == np.float64 else "",
        called=subject.called,
        n_outputs=network.architecture.n_outputs,
        n_inputs=subject.n_inputs,
        scaled="" if subject.scale is None else f", bytes times {subject.scale!r}",
        result=P,
    )
    spec = network.to_spec()
    if isinstance(loss, CustomLoss):  # without a link, so that predictions are those of any other such loss
        spec["loss"] = "squared_error"
    return page.encode(), tensor_bytes(_state_of(subject), SPEC, spec)


def _module_of(place: int, layer: Layer) -> str:
    """Return the text that makes a layer's module."""
    if isinstance(layer, Dense):
        return f"Linear({layer.n_in}, {layer.n_out}{'' if layer.bias is not None else ', bias=False'})"
    if isinstance(layer, Dropout):
        return f"Dropout({layer.rate!r})"
    if isinstance(layer, BatchNorm):
        return f"BatchNorm1d({layer.n}, eps={layer.eps!r}, momentum={layer.momentum!r})"
    if isinstance(layer, LayerNorm):
        return f"LayerNorm({layer.n}, eps={layer.eps!r})"
    if isinstance(layer, Activation) and not isinstance(layer.function, CustomActivation):
        name, options = _ACTIVATIONS[layer.name]
        return f"{name}({', '.join(f'{key}={value!r}' for key, value in options.items())})"
    raise ValueError(
        f"layer {place} is {layer_name(layer)}, a function of your own, which other libraries have not; export the "
        "network to onnx, numpy or c, or give it another activation"
    )


def layer_name(layer: Layer) -> str:
    """Return what a layer is called in a message: an activation by its name."""
    return shown(layer.name) if isinstance(layer, Activation) else type(layer).__name__


def _state_of(subject: Subject) -> dict[str, np.ndarray]:
    """Return the arrays of the module by PyTorch's names."""
    found, arrays = dict[str, np.ndarray](), subject.arrays
    for i, layer in enumerate(subject.network.layers):
        for ours, name in _NAMES.get(layer.type, {}).items():
            if f"layers.{i}.{ours}" in arrays:
                array = arrays[f"layers.{i}.{ours}"]
                found[f"{i}.{name}"] = array if ours == "W" else array.reshape(-1)
        if isinstance(layer, BatchNorm):
            found[f"{i}.num_batches_tracked"] = np.array(0, np.int64)
    return found


def from_torch(
    module: Any,
    *,
    activation: str | Sequence[str] | None = None,
    output: str = "identity",
    loss: str | Loss | None = None,
    backend: Any = None,
) -> Network:
    """Return a network with the layers and weights of PyTorch's module, which predicts what it does in evaluation.

    module: an nn.Sequential of Linear, the activations of xpnet, Dropout, BatchNorm1d and LayerNorm; a state_dict of
    one, or a safetensors file with one.
    activation: of a state_dict, which does not hold them: one for all gaps between its numbers, or a list; output: that
    of the last layer.
    loss: None for one with which `predict` returns what the module does; a Softmax or a Sigmoid at the end is its link.
    backend: None for the CPU in the float type of the weights.
    Raises ValueError for a layer that xpnet has not, or a file that is no state_dict.
    """
    if isinstance(module, (str, os.PathLike)):
        state, spec = _read(Path(module))
        if spec is not None and activation is None:
            return network_of(_parts_of_spec(state, spec), loss or spec.loss, backend)
    elif isinstance(module, Mapping):
        state = {str(name): _array(tensor) for name, tensor in module.items()}
    else:
        return network_of(_parts_of_module(module), loss, backend)
    return network_of(_parts_of_state(state, activation, output), loss, backend)


def _array(tensor: Any) -> np.ndarray:
    """Return a tensor of any device, or an array, as an array of floats on the host."""
    if hasattr(tensor, "detach"):
        tensor = tensor.detach().cpu()
        tensor = tensor if str(tensor.dtype) == "torch.float64" else tensor.float()
        tensor = tensor.numpy()
    found = np.asarray(tensor)
    try:
        return found if found.dtype == np.float64 else found.astype(np.float32)
    except (TypeError, ValueError):
        raise ValueError(
            f"the module has {shown(tensor)} among its weights, which must be arrays of numbers; "
            "pass module.state_dict()"
        ) from None


def _parts_of_module(module: Any) -> list[Part]:
    """Return the parts of an nn.Sequential, also of those inside it."""
    if type(module).__name__ != "Sequential" or not hasattr(module, "named_children"):
        raise TypeError(
            f"the module is a {type(module).__name__}; it must be an nn.Sequential, its state_dict or a file of one; "
            "pass model.net, say, if that is its Sequential"
        )
    parts = list[Part]()
    for name, child in module.named_children():
        kind = type(child).__name__
        if kind == "Sequential":
            parts += _parts_of_module(child)
        elif kind not in _MODULES:
            raise ValueError(f"layer {name} is {kind}, which xpnet has not; it must be {_KNOWN}; replace it")
        else:
            _check_settings(name, child)
            parts += _MODULES[kind](child)
    return parts


def _check_settings(name: str, module: Any) -> None:
    """Refuse a module whose arguments make another function of it."""
    kind = type(module).__name__
    for setting, allowed in _SETTINGS.get(kind, {}).items():
        found = getattr(module, setting, allowed[0])
        if found not in allowed:
            raise ValueError(
                f"layer {name} is {kind} with {setting}={found!r}, xpnet has {setting}={allowed[0]!r} alone; "
                f"train with {kind}({setting}={allowed[0]!r})"
            )


def _linear(module: Any) -> list[Part]:
    W = _array(module.weight)
    if module.bias is None:
        return [Part(Dense(W.shape[1], W.shape[0], bias=None), {"W": W})]
    return [Part(Dense(W.shape[1], W.shape[0]), {"W": W, "b": _array(module.bias)})]


def _batch_norm(module: Any) -> list[Part]:
    arrays = {"running_mean": _array(module.running_mean), "running_variance": _array(module.running_var)}
    momentum = 0.1 if module.momentum is None else module.momentum  # None is a mean over all batches
    return [Part(BatchNorm(module.num_features, momentum, module.eps), arrays | _affine(module, module.num_features))]


def _layer_norm(module: Any) -> list[Part]:
    (n,) = module.normalized_shape
    return [Part(LayerNorm(n, module.eps), _affine(module, n))]


def _affine(module: Any, n: int) -> dict[str, np.ndarray]:
    gamma = np.ones(n, np.float32) if module.weight is None else _array(module.weight)
    beta = np.zeros(n, np.float32) if module.bias is None else _array(module.bias)
    return {"gamma": gamma, "beta": beta}


def _activation(name: str, module: Any) -> list[Part]:
    return [Part(Activation(name))]


_MODULES: dict[str, Callable[[Any], list[Part]]] = {
    "Linear": _linear,
    "BatchNorm1d": _batch_norm,
    "LayerNorm": _layer_norm,
    "Dropout": lambda module: [Part(Dropout(module.p))],
    "Softmax": lambda module: [Part("softmax")],
    "Flatten": lambda module: [],
    "Identity": lambda module: [],
    **{kind: partial(_activation, name) for name, (kind, _) in _ACTIVATIONS.items() if kind != "Identity"},
}


def _parts_of_state(state: Mapping[str, np.ndarray], activation: Any, output: str) -> list[Part]:
    """Return the parts of a state_dict, with an activation in each gap between the numbers of its layers."""
    layers = _layers_of_state(state)
    places = sorted(layers)
    gaps = [place for place, after in pairwise(places) if after > place + 1]
    if gaps and activation is None:
        raise ValueError(
            f"a state_dict does not tell activations, and this one has {len(gaps)} layers without weights; "
            "pass activation='relu', say, or the module itself"
        )
    names = [activation] * len(gaps) if isinstance(activation, (str, type(None))) else list(activation)
    if len(names) != len(gaps):
        raise ValueError(
            f"activation has {len(names)} names for {len(gaps)} gaps in the state_dict; give one name for all, "
            "or one for each"
        )
    after_place = dict(zip(gaps, names, strict=True))
    parts = list[Part]()
    for place in places:
        parts.append(_part_of_state(place, layers[place]))
        if place in after_place:
            parts.append(Part(Activation(check_option("activation", after_place[place], ACTIVATIONS))))
    if output != "identity":
        parts.append(Part(Activation(check_option("output", output, ACTIVATIONS))))
    return parts


def _layers_of_state(state: Mapping[str, np.ndarray]) -> dict[int, dict[str, np.ndarray]]:
    """Return the arrays of each layer by its number; raises ValueError for names that no nn.Sequential has."""
    layers = dict[int, dict[str, np.ndarray]]()
    for name, array in state.items():
        place, _, kind = name.rpartition(".")
        number = place.rpartition(".")[2]
        if not number.isdecimal():
            raise ValueError(
                f"the state_dict has {shown(name)}, the names of an nn.Sequential are such as '0.weight'; "
                "pass that of the Sequential, model.net.state_dict() say"
            )
        layers.setdefault(int(number), {})[kind] = array
    if not layers:
        raise ValueError("the state_dict is empty, it must hold a layer at least; pass module.state_dict()")
    return layers


def _part_of_state(place: int, arrays: Mapping[str, np.ndarray]) -> Part:
    """Return the layer that arrays of these names and shapes are of."""
    kinds, weight = {name: array.ndim for name, array in arrays.items() if array.ndim}, arrays.get("weight")
    is_dense = weight is not None and weight.ndim == 2 and kinds in ({"weight": 2}, {"weight": 2, "bias": 1})
    if weight is not None and is_dense and len(arrays.get("bias", weight)) == len(weight):
        bias = {"b": arrays["bias"]} if "bias" in arrays else {}
        return Part(Dense(weight.shape[1], weight.shape[0], bias="zeros" if bias else None), {"W": weight, **bias})
    for layer, ours in ((BatchNorm, _NAMES["batch_norm"]), (LayerNorm, _NAMES["layer_norm"])):
        fits = kinds == dict.fromkeys(ours.values(), 1) and len({len(arrays[name]) for name in kinds}) == 1
        if weight is not None and fits:
            return Part(layer(len(weight)), {name: arrays[theirs] for name, theirs in ours.items()})
    found = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
    raise ValueError(
        f"layer {place} of the state_dict has {found}, which no layer of xpnet has; it must be of {_KNOWN}; replace it"
    )


def _parts_of_spec(state: Mapping[str, np.ndarray], architecture: Architecture) -> list[Part]:
    """Return the parts of a file that xpnet wrote; raises ValueError for other arrays than its spec needs."""
    parts, layers = list[Part](), _layers_of_state(state)
    for i, layer in enumerate(architecture.layers):
        shapes, found = {**layer.parameter_shapes(), **layer.statistic_shapes()}, layers.get(i, {})
        arrays = {name: found.get(_NAMES[layer.type][name], np.empty(0)) for name in shapes}
        for name, shape in shapes.items():
            if arrays[name].size != shape[0] * shape[1]:
                raise ValueError(
                    f"the {_NAMES[layer.type][name]} of layer {i} has {arrays[name].size} numbers, the spec of the "
                    f"file needs {shape[0] * shape[1]}; export the network again"
                )
        parts.append(Part(layer, arrays))
    return parts


def _read(path: Path) -> tuple[dict[str, np.ndarray], Architecture | None]:
    """Return the arrays of a safetensors file, and the architecture that stands in it, if any."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; `xpnet export --to torch` writes one")
    check_readable(path)
    if path.suffix.lower() != ".safetensors":
        raise ValueError(
            f"{path} is no .safetensors file, and others can run code when they are read; load it yourself, "
            "with torch.load(path, weights_only=True), and pass what that returns"
        )
    try:
        with safe_open(path, framework="numpy") as file:
            text = (file.metadata() or {}).get(SPEC)
            state = {name: _array(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118  it is no dict
    except (SafetensorError, TypeError) as error:  # TypeError: a type that NumPy has not
        raise ValueError(f"{path} is not a whole safetensors file ({one_line(error)}); save it again") from None
    if text is None and "layers.0.W" in state:
        raise ValueError(
            f"{path} is a network of xpnet, and must be the state_dict of a module; "
            f"take xpnet.Network.load({str(path)!r})"
        )
    try:
        return state, None if text is None else Architecture.from_spec(parse_json(text))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
