"""Keras: a network as a `.keras` file that `keras.models.load_model` opens, and back.

Keras writes the file. Reading one needs h5py alone: its JSON and its arrays are read, and nothing in it is executed.
"""

from __future__ import annotations

import io
import os
import re
import sys
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from xpnet.checks import one_line, shown
from xpnet.exporting.imported import Part, network_of
from xpnet.exporting.subject import Subject
from xpnet.exporting.torch_modules import layer_name
from xpnet.files import AT_MOST, check_regular, parse_json
from xpnet.network.custom import CustomActivation
from xpnet.network.dropout import Dropout
from xpnet.network.layer import Layer
from xpnet.network.layers import Activation, Dense
from xpnet.network.losses import Loss
from xpnet.network.network import Network
from xpnet.network.normalization import BatchNorm, LayerNorm

__all__ = ["from_keras"]

_CONFIG, _WEIGHTS = "config.json", "model.weights.h5"
_NEEDS = "which is not installed. Run: pip install 'xpnet[keras]'"
# xpnet's activations -> Keras's of the same function, by name. Its gelu and leaky_relu are others by default.
_ACTIVATIONS = {
    **{"identity": "linear", "log_softmax": "log_softmax"},
    **{name: name for name in ("sigmoid", "tanh", "relu", "elu", "selu", "softplus", "silu", "hard_sigmoid")},
}
_LINKS = {
    "softmax_cross_entropy": "softmax",
    "sigmoid_cross_entropy": "sigmoid",
    "negative_log_likelihood": "exponential",
    "poisson": "exponential",
}
_NAMES = {"swish": "silu", "linear": "identity"}
_KNOWN = "Dense, Activation, Dropout, BatchNormalization or LayerNormalization"


def keras_file(subject: Subject) -> bytes:
    """Return the file of a Sequential that predicts what the network does, as Keras writes it.

    Raises ImportError without Keras, or ValueError for a layer or a link that it has not.
    """
    network = subject.network
    link = _link_of(network.architecture.loss)
    made = [_made_of(i, layer) for i, layer in enumerate(network.layers)]
    keras = _keras()
    layers, dtype = keras.layers, str(network.backend.dtype)
    model = keras.Sequential([keras.Input((subject.n_inputs,), dtype=dtype if subject.scale is None else "uint8")])
    if subject.scale is not None:
        model.add(layers.Rescaling(subject.scale, dtype=dtype))
    arrays = subject.arrays
    for i, (layer, (kind, options)) in enumerate(zip(network.layers, made, strict=True)):
        model.add(getattr(layers, kind)(**options, dtype=dtype))
        names = [*layer.parameter_shapes(), *layer.statistic_shapes()]
        model.layers[-1].set_weights(
            [arrays[f"layers.{i}.{name}"].T if name == "W" else arrays[f"layers.{i}.{name}"].ravel() for name in names]
        )
    if link is not None:
        model.add(layers.Activation(link, dtype=dtype))
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        model.save(path)
        return path.read_bytes()


def _link_of(loss: Loss) -> str | None:
    if loss.link is None:
        return None
    if loss.name not in _LINKS:
        raise ValueError(
            f"the loss {loss.name!r} has a link of your own, which Keras has not; export it to onnx, numpy or c, "
            "or give the network another loss"
        )
    return _LINKS[loss.name]


def _made_of(place: int, layer: Layer) -> tuple[str, dict[str, Any]]:
    """Return the class of a layer of Keras and its options."""
    if isinstance(layer, Dense):
        return "Dense", {"units": layer.n_out, "use_bias": layer.bias is not None}
    if isinstance(layer, Dropout):
        return "Dropout", {"rate": layer.rate}
    if isinstance(layer, BatchNorm):
        return "BatchNormalization", {"momentum": 1.0 - layer.momentum, "epsilon": layer.eps}
    if isinstance(layer, LayerNorm):
        return "LayerNormalization", {"epsilon": layer.eps}
    if isinstance(layer, Activation) and not isinstance(layer.function, CustomActivation):
        if layer.name == "leaky_relu":
            return "LeakyReLU", {"negative_slope": 0.01}
        if layer.name in _ACTIVATIONS:
            return "Activation", {"activation": _ACTIVATIONS[layer.name]}
    raise ValueError(
        f"layer {place} is {layer_name(layer)}, which Keras has no layer for; export the network to onnx, numpy or c, "
        "or give it another activation"
    )


def _keras() -> Any:
    """Return Keras, on its NumPy back end unless another is chosen or installed."""
    with _back_end():
        try:
            import keras
        except ImportError as error:
            if find_spec("keras") is not None:
                raise ImportError(
                    f"Keras cannot be imported ({one_line(error)}); it needs a back end; pip install 'xpnet[keras]'"
                ) from None
            raise ImportError(f"an export to Keras needs keras, {_NEEDS}") from None
    return keras


@contextmanager
def _back_end() -> Iterator[None]:
    """Have Keras, if it is imported now and nobody has chosen, take a back end that is installed."""
    name = "KERAS_BACKEND"
    if "keras" in sys.modules or name in os.environ or find_spec("tensorflow") is not None:
        yield
        return
    os.environ[name] = next((each for each in ("torch",) if find_spec(each) is not None), "numpy")
    try:
        yield
    finally:
        del os.environ[name]


@dataclass(frozen=True)
class _Read:
    """A layer as a file or a model tells it: name, class, options, and arrays in Keras's order."""

    name: str
    kind: str
    config: dict[str, Any]
    arrays: Sequence[np.ndarray]

    def option(self, name: str, default: Any) -> Any:
        """Return an option, or Keras's default."""
        return self.config.get(name, default)

    def needs(self, name: str, *allowed: Any) -> None:
        """Refuse an option that makes another function of the layer."""
        found = self.config.get(name, allowed[0])
        if found not in allowed:
            raise ValueError(
                f"layer {shown(self.name)} is {self.kind} with {name}={shown(found)}, xpnet has {name}={allowed[0]!r} "
                f"alone; train with {self.kind}({name}={allowed[0]!r})"
            )


def from_keras(model: Any, *, loss: str | Loss | None = None, backend: Any = None) -> Network:
    """Return a network with the layers and weights of Keras's model, which predicts what it does.

    model: a Sequential of Dense, Activation, Dropout, BatchNormalization and LayerNormalization, or its `.keras` file.
    loss: None for one with which `predict` returns what the model does; a softmax or sigmoid at the end is its link.
    backend: None for the CPU in the float type of the weights.
    Raises ValueError for a layer that xpnet has not, or a file that holds no such model.
    """
    if isinstance(model, (str, os.PathLike)):
        path = Path(model)
        config, take = _read(path)
        try:
            found = list(_layers_of(config, take))
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"the config of {path} is none of a model ({type(error).__name__}: {one_line(error)}); save it again"
            ) from None
    elif hasattr(model, "get_config") and hasattr(model, "layers"):
        weights = {layer.name: [np.asarray(each) for each in layer.get_weights()] for layer in model.layers}
        whole = {"class_name": type(model).__name__, "config": model.get_config()}
        found = list(_layers_of(whole, lambda kind, number, name: weights.get(name, [])))
    else:
        raise TypeError(
            f"the model is a {type(model).__name__}; it must be a keras.Sequential or the path of a .keras file; "
            "pass one of these"
        )
    scale, parts = None, list[Part]()
    for layer in found:
        if layer.kind == "Rescaling" and not parts and scale is None:
            layer.needs("offset", 0.0, 0)
            scale = float(layer.option("scale", 1.0))
        else:
            parts += _parts_of(layer)
    return network_of(parts, loss, backend, scale)


def _layers_of(whole: Any, take: Callable[[str, int, str], Sequence[np.ndarray]]) -> Iterator[_Read]:
    """Yield the layers of a Sequential's config.  take: returns arrays by class, its number in the model, and name."""
    if whole["class_name"] != "Sequential":
        raise ValueError(
            f"the model is a {shown(whole['class_name'])}; it must be a Sequential; make one of its layers: "
            "keras.Sequential(model.layers)"
        )
    numbers = dict[str, int]()
    for each in whole["config"]["layers"]:
        kind, config = each["class_name"], each["config"]
        number = numbers[kind] = numbers.get(kind, -1) + 1
        yield _Read(config["name"], kind, config, take(kind, number, config["name"]))


def _dense(layer: _Read) -> list[Part]:
    bias = bool(layer.option("use_bias", True))
    if [array.ndim for array in layer.arrays] != [2, 1][: 1 + bias]:
        _refuse_arrays(layer, "a matrix" + " and a bias" * bias)
    W = layer.arrays[0].T
    arrays = {"W": W} | ({"b": layer.arrays[1]} if bias else {})
    dense = Part(Dense(W.shape[1], W.shape[0], bias="zeros" if bias else None), arrays)
    return [dense, *_function(layer, layer.option("activation", "linear"))]


def _function(layer: _Read, name: Any) -> list[Part]:
    """Return the part of an activation by Keras's name."""
    ours = _NAMES.get(name, name) if isinstance(name, str) else ""
    if ours == "identity":
        return []
    if ours in ("softmax", "exponential"):
        return [Part(ours)]
    if ours not in _ACTIVATIONS:
        raise ValueError(
            f"layer {shown(layer.name)} has the activation {shown(name)}, which xpnet has not as Keras has it; it must "
            f"be one of {', '.join(_ACTIVATIONS.values())}; train with one of these"
        )
    return [Part(Activation(ours))]


def _normalized(made: Callable[[int], Layer], statistics: Sequence[str], layer: _Read) -> list[Part]:
    """Return the part of a normalization.  made: makes the layer of a size.  statistics: that it keeps, in order."""
    layer.needs("axis", -1, [-1], 1, [1])
    names = ["gamma"] * bool(layer.option("scale", True)) + ["beta"] * bool(layer.option("center", True))
    names += statistics
    sizes = {array.shape for array in layer.arrays}
    if len(layer.arrays) != len(names) or len(sizes) > 1 or not names or len(next(iter(sizes))) != 1:
        _refuse_arrays(layer, " and ".join(names) or "a scale")
    arrays = dict(zip(names, layer.arrays, strict=True))
    ((n,),) = sizes
    dtype = layer.arrays[0].dtype
    return [Part(made(n), {"gamma": np.ones(n, dtype), "beta": np.zeros(n, dtype)} | arrays)]


def _batch_norm(layer: _Read) -> list[Part]:
    momentum, eps = layer.option("momentum", 0.99), layer.option("epsilon", 1e-3)
    layer.needs("renorm", False)
    return _normalized(lambda n: BatchNorm(n, 1.0 - momentum, eps), ["running_mean", "running_variance"], layer)


def _layer_norm(layer: _Read) -> list[Part]:
    layer.needs("rms_scaling", False)
    return _normalized(lambda n: LayerNorm(n, layer.option("epsilon", 1e-3)), [], layer)


def _with_settings(name: str, settings: dict[str, tuple[Any, ...]], layer: _Read) -> list[Part]:
    for setting, allowed in settings.items():
        layer.needs(setting, *allowed)
    return _function(layer, name) if name != "leaky_relu" else [Part(Activation(name))]


_LAYERS: dict[str, Callable[[_Read], list[Part]]] = {
    "InputLayer": lambda layer: [],
    "Flatten": lambda layer: [],
    "Dense": _dense,
    "Activation": lambda layer: _function(layer, layer.option("activation", "linear")),
    "Dropout": lambda layer: [Part(Dropout(layer.option("rate", 0.0)))],
    "BatchNormalization": _batch_norm,
    "LayerNormalization": _layer_norm,
    "Softmax": partial(_with_settings, "softmax", {"axis": (-1, 1)}),
    "ReLU": partial(_with_settings, "relu", {"max_value": (None,), "negative_slope": (0.0, 0), "threshold": (0.0, 0)}),
    "LeakyReLU": partial(_with_settings, "leaky_relu", {"negative_slope": (0.01,)}),
    "ELU": partial(_with_settings, "elu", {"alpha": (1.0, 1)}),
}


def _parts_of(layer: _Read) -> list[Part]:
    if layer.kind not in _LAYERS:
        raise ValueError(
            f"layer {shown(layer.name)} is {shown(layer.kind)}, which xpnet has not; it must be {_KNOWN}; replace it"
        )
    return _LAYERS[layer.kind](layer)


def _refuse_arrays(layer: _Read, needed: str) -> None:
    shapes = ", ".join(str(array.shape) for array in layer.arrays) or "none"
    raise ValueError(
        f"layer {shown(layer.name)}, {layer.kind}, has arrays {shapes}; it needs {needed}; save the model again"
    )


def _read(path: Path) -> tuple[Any, Callable[[str, int, str], Sequence[np.ndarray]]]:
    """Return the config of a .keras file, and what takes a layer's arrays out of it."""
    try:
        import h5py
    except ImportError:
        raise ImportError(f"a .keras file needs h5py, {_NEEDS}") from None
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; `xpnet export --to keras` writes one")
    check_regular(path)
    try:
        with zipfile.ZipFile(path) as archive:
            for name in (_CONFIG, _WEIGHTS):
                if archive.getinfo(name).file_size > AT_MOST:
                    raise ValueError(f"its {name} has more than {AT_MOST} bytes")
            config, weights = parse_json(archive.read(_CONFIG)), io.BytesIO(archive.read(_WEIGHTS))
        file = h5py.File(weights, "r")
    except (OSError, KeyError, ValueError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"{path} is not a whole .keras file ({one_line(error)}); save the model again") from None
    return config, partial(_arrays_of, h5py, file, path)


def _arrays_of(h5py: Any, file: Any, path: Path, kind: str, number: int, name: str) -> list[np.ndarray]:
    """Return the arrays of a layer in a file, which lie under its class and number, in order."""
    words = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", kind))
    group = re.sub("([a-z])([A-Z])", r"\1_\2", words).lower()  # as Keras makes names of classes
    place = f"layers/{group}_{number}/vars" if number else f"layers/{group}/vars"
    found = list[np.ndarray]()
    while (item := _item(h5py, file, f"{place}/{len(found)}")) is not None:
        array = np.asarray(item[()])
        if array.dtype not in (np.float64, np.float32, np.float16) or not np.isfinite(array).all():
            raise ValueError(
                f"{path}: array {len(found)} of layer {shown(name)} is {array.dtype}, or has NaN or infinity; all "
                "weights must be finite floats; train the model again"
            )
        found.append(array if array.dtype == np.float64 else array.astype(np.float32))
    return found


def _item(h5py: Any, file: Any, place: str) -> Any:
    """Return an array that lies in the file itself, None for what is none: no link leads out of it."""
    group = file
    for name in place.split("/"):
        if not isinstance(group, h5py.Group) or not isinstance(group.get(name, getlink=True), h5py.HardLink):
            return None
        group = group[name]
    is_inside = isinstance(group, h5py.Dataset) and group.external is None and not group.is_virtual
    return group if is_inside else None
