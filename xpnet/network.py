"""A feed-forward network: an architecture, its parameters, and what can be asked of the two.

One sample is one column: X is (n_features, n_samples). Every method takes arrays of the network's own backend and
returns fresh ones. Training lives in `xpnet.training`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from xpnet.architecture import Architecture
from xpnet.backend import Backend, select_backend
from xpnet.executors.replay import Replay
from xpnet.kernels.losses import LOSSES
from xpnet.layers import Activation, Dense, Layer
from xpnet.model_file import load_model, save_model, tensor_shapes
from xpnet.parameters import Parameters, random_generator
from xpnet.program import Program
from xpnet.steps import RecordsUpdate, evaluation_program, inference_program, training_program

Array = Any
CHUNK = 1024  # samples that inference and evaluation hold at a time
_IDLE_ENGINES = 8


class Network:
    """A network of dense layers on one backend.

    layers: sizes ([784, 100, 200, 10], with `activation`, `output` and `init`), or layers
    ([Dense(784, 100), Activation("relu"), ...]); `Network.from_spec` reads JSON.
    activation: name for all hidden layers or a list of one each (default "relu").  output: the last layer's
    activation (default "identity").  loss: "squared_error", "softmax_cross_entropy" or "sigmoid_cross_entropy".
    init: initialiser of all weights, None for the one that suits each activation.
    backend: from `select_backend`; None selects one.  seed: of the initial weights, the same on every device.
    parameters: the `Parameters`, weights and biases as one flat vector with views.
    Raises ValueError for sizes, names or combinations that cannot work.
    """

    def __init__(
        self,
        layers: Sequence[int] | Sequence[Layer],
        *,
        activation: str | Sequence[str] | None = None,
        output: str | None = None,
        loss: str = "softmax_cross_entropy",
        init: str | None = None,
        backend: Backend | None = None,
        seed: int = 0,
    ) -> None:
        architecture = _architecture(layers, activation, output, loss, init)
        self._set_up(architecture, backend)
        rng = random_generator(seed, 0)
        self._fill([layer.initialize(rng) for _, layer in architecture.dense])

    @classmethod
    def from_spec(cls, spec: dict[str, Any], *, backend: Backend | None = None, seed: int = 0) -> Network:
        """Make a network of a JSON-ready dict, as `to_spec` returns it:

        {"format": 1, "loss": "softmax_cross_entropy", "layers": [{"type": "dense", "n_in": 784, "n_out": 100,
        "init": "he"}, {"type": "activation", "name": "relu"}, ...]}.  Raises ValueError for any other.
        """
        architecture = Architecture.from_spec(spec)
        return cls(architecture.layers, loss=architecture.loss, backend=backend, seed=seed)

    def to_spec(self) -> dict[str, Any]:
        """The architecture as a JSON-ready dict, initialisers included; `from_spec` reads it back."""
        return self.architecture.to_spec()

    def forward(self, X: Array) -> Array:
        """Return the last layer's output (n_outputs, n_samples), before any link, for X (n_inputs, n_samples)."""
        return self._infer("forward", X)[0]

    def predict(self, X: Array) -> Array:
        """Return predictions (n_outputs, n_samples): probabilities after a cross-entropy, else the outputs."""
        return self._infer("predict", X)[0]

    def classify(self, X: Array) -> Array:
        """Return a label (n_samples,) per sample: the highest output, or 0 and 1 where there is one output."""
        outputs = self.forward(X)
        if len(outputs) > 1:
            return outputs.argmax(axis=0)
        return (outputs[0] > LOSSES[self.architecture.loss].threshold).astype(np.int64)

    def activations(self, X: Array) -> list[Array]:
        """Return the output (n, n_samples) of every layer in `layers`: Z of a dense one, A of an activation."""
        return self._infer("activations", X)

    def evaluate_loss(self, X: Array, Y: Array, weights: Array | None = None) -> float:
        """Return the mean loss over the samples; Y (n_outputs, n_samples), weights (n_samples,) or None."""
        n_samples = self.check_samples(X, Y, weights)
        total, total_weight = 0.0, 0.0
        with self.engine(
            ("evaluate_loss", weights is not None, _capacity(n_samples)),
            lambda: evaluation_program(self.architecture, _capacity(n_samples), weights is not None, False),
        ) as engine:
            for part, size in _chunks(n_samples, engine.program.capacity):
                feed_samples(engine, size, X[:, part], Y[:, part], None if weights is None else weights[part])
                engine.execute(size)
                results = engine.read_results()
                total += results["loss"]
                total_weight += results.get("weight", size)
        return total / total_weight

    def gradients(self, X: Array, Y: Array, weights: Array | None = None) -> Parameters:
        """Return the gradient of the mean loss as `Parameters`; the samples are taken as one batch."""
        n_samples = self.check_samples(X, Y, weights)
        with self.engine(
            ("gradients", weights is not None, n_samples),
            lambda: training_program(self.architecture, n_samples, None, weights is not None),
        ) as engine:
            feed_samples(engine, n_samples, X, Y, weights)
            engine.execute(n_samples)
            return Parameters(self.architecture.layout, engine.read("gradient", n_samples).copy())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the network to a safetensors file: named tensors (`layers.0.W`) and the spec."""
        arrays = [item for pair in zip(self.parameters.weights, self.parameters.biases, strict=True) for item in pair]
        names = tensor_shapes(self.architecture)
        tensors = {name: self.backend.to_host(array) for name, array in zip(names, arrays, strict=True)}
        save_model(path, self.architecture, tensors)

    @classmethod
    def load(cls, path: str | os.PathLike[str], backend: Backend | None = None) -> Network:
        """Read a network that `save` wrote, on any backend and in its dtype.

        Raises FileNotFoundError, or ValueError for a file that is truncated, hostile or not ours.
        """
        architecture, tensors = load_model(path)
        network = cls.__new__(cls)
        network._set_up(architecture, backend)
        dtype = network.backend.dtype
        for name, value in tensors.items():
            if abs(value).max() > np.finfo(dtype).max:
                raise ValueError(f"{path}: tensor {name} has values too large for {dtype}; "
                                 "load it with select_backend(dtype='float64')")  # fmt: skip
        network._fill([{"W": tensors[f"layers.{i}.W"], "b": tensors[f"layers.{i}.b"]} for i, _ in architecture.dense])
        return network

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers, in order."""
        return self.architecture.layers

    def __repr__(self) -> str:
        return f"Network({self.architecture}; {self.architecture.layout.count:,} parameters, {self.backend.device})"

    @contextmanager
    def engine(self, key: tuple[Any, ...], build: Callable[[], Program]) -> Iterator[Replay]:
        """Lend an engine for a Program, kept under `key` for the next time.

        Whoever holds it is its only user, so that two threads may use one network at once.
        """
        engine = self._take_idle(key) or Replay(build(), self.backend, self.parameters.flat)
        yield engine
        self._idle.append((key, engine))
        del self._idle[:-_IDLE_ENGINES]

    def _take_idle(self, key: tuple[Any, ...]) -> Replay | None:
        for entry in tuple(self._idle):
            if entry[0] == key:
                try:
                    self._idle.remove(entry)
                except ValueError:  # another thread was faster
                    continue
                return entry[1]
        return None

    def training_program(self, batch: int, optimizer: RecordsUpdate, weighted: bool, accumulate: int = 1) -> Program:
        """The Program of one training step; `describe()` tells it in text."""
        return training_program(self.architecture, batch, optimizer, weighted, accumulate)

    def _set_up(self, architecture: Architecture, backend: Backend | None) -> None:
        self.architecture = architecture
        self.backend = select_backend() if backend is None else backend
        layout = architecture.layout
        self.parameters = Parameters(layout, self.backend.zeros(layout.size))
        self._idle: list[tuple[tuple[Any, ...], Replay]] = []

    def _fill(self, values: list[dict[str, np.ndarray]]) -> None:
        """Move initial or loaded weights, given per dense layer, to the device in one copy."""
        host = Parameters(self.architecture.layout, np.zeros(self.architecture.layout.size))
        for W, b, value in zip(host.weights, host.biases, values, strict=True):
            W[...], b[...] = value["W"], value["b"]
        self.parameters.flat[...] = self.backend.to_device(host.flat)

    def _infer(self, kind: str, X: Array) -> list[Array]:
        n_samples = self.check_samples(X)
        capacity = _capacity(n_samples)
        names = [f"output{i}" for i in range(len(self.layers) if kind == "activations" else 1)]
        with self.engine((kind, capacity), lambda: inference_program(self.architecture, capacity, kind)) as engine:
            sizes = [engine.program.buffers[name].shape[0] for name in names]
            results = [self.backend.xp.empty((n_samples, size), dtype=self.backend.dtype).T for size in sizes]
            for part, size in _chunks(n_samples, capacity):
                engine.feed(size, X=X[:, part])
                engine.execute(size)
                for name, result in zip(names, results, strict=True):
                    result[:, part] = engine.read(name, size)
        return results

    def check_samples(self, X: Array, Y: Array | None = None, weights: Array | None = None) -> int:
        """Refuse arrays of the wrong side, dtype or shape; returns the number of samples."""
        self._check_array("X", X, self.architecture.n_inputs)
        n_samples = int(X.shape[1])
        if Y is not None:
            self._check_array("Y", Y, self.architecture.n_outputs)
            if Y.shape[1] != n_samples:
                raise ValueError(f"X has {n_samples} samples (columns) and Y has {Y.shape[1]}; give as many of both")
        if weights is not None:
            self._check_side("weights", weights)
            if tuple(weights.shape) != (n_samples,):
                raise ValueError(f"weights is {tuple(weights.shape)}, needed is ({n_samples},), one number a sample; "
                                 f"reshape it with weights.reshape({n_samples})")  # fmt: skip
        return n_samples

    def _check_side(self, name: str, array: Array) -> None:
        """Refuse what is not an array of the network's library and dtype."""
        backend = self.backend
        if not backend.owns(array):
            side = f"{type(array).__module__.partition('.')[0]}.{type(array).__qualname__}"
            convert = f"pass backend.to_device({name})"
            if backend.device == "cpu" and hasattr(array, "get"):
                convert = f"pass backend.to_host({name}), of the backend that it came from"
            raise TypeError(f"{name} is a {side}, the network uses {backend.name} on {backend.device}; {convert}")
        if array.dtype != backend.dtype:
            raise TypeError(f"{name} is {array.dtype}, the network computes in {backend.dtype}; "
                            f"pass backend.to_device({name})")  # fmt: skip

    def _check_array(self, name: str, array: Array, n_rows: int) -> None:
        self._check_side(name, array)
        shape = tuple(array.shape)
        if len(shape) == 2 and shape[0] == n_rows and shape[1] > 0:
            return
        raise ValueError(_shape_message(name, shape, n_rows))


def feed_samples(engine: Replay, size: int, X: Array, Y: Array, weights: Array | None) -> None:
    """Put one batch into the buffers of a Program that gathers X, Y and perhaps weights."""
    if weights is None:
        engine.feed(size, X=X, Y=Y)
    else:
        engine.feed(size, X=X, Y=Y, w=weights.reshape(1, size))


def _architecture(
    layers: Any, activation: str | Sequence[str] | None, output: str | None, loss: str, init: str | None
) -> Architecture:
    if isinstance(layers, (str, dict)) or not isinstance(layers, Sequence):
        raise TypeError(f"layers is a {type(layers).__name__}; needed are sizes such as [784, 100, 10], or layers; "
                        "a spec goes to Network.from_spec(spec)")  # fmt: skip
    if all(isinstance(item, (int, np.integer)) and not isinstance(item, bool) for item in layers):
        sizes = [int(item) for item in layers]
        hidden = "relu" if activation is None else activation
        return Architecture.of_sizes(sizes, hidden, output or "identity", init, loss)
    if not all(isinstance(item, (Dense, Activation)) for item in layers):
        found = sorted({type(item).__name__ for item in layers})
        raise TypeError(f"layers holds {found}; give sizes only, or Dense and Activation only, "
                        "or use Network.from_spec for dicts")  # fmt: skip
    for name, value in (("activation", activation), ("output", output), ("init", init)):
        if value is not None:
            raise ValueError(f"{name}={value!r} goes with sizes; with layers, put it into them: "
                             'Dense(784, 100, init="he"), Activation("relu")')  # fmt: skip
    return Architecture(tuple(layers), loss)


def _shape_message(name: str, shape: tuple[int, ...], n_rows: int) -> str:
    wanted = f"{name} is {shape}, needed is ({n_rows}, n_samples)"
    if len(shape) == 2 and shape[1] == n_rows:
        return f"{name} is {shape}; one sample is one column: pass {name}.T"
    if len(shape) == 1 and n_rows == 1:
        return f"{wanted}; one sample is one column: pass {name}.reshape(1, -1)"
    if len(shape) == 1 and shape[0] == n_rows:
        return f"{wanted}; one sample is one column: pass {name}.reshape({n_rows}, 1)"
    if len(shape) > 2 and int(np.prod(shape[:-1])) == n_rows:
        return f"{wanted}; flatten it with {name}.reshape({n_rows}, -1)"
    if len(shape) > 2 and int(np.prod(shape[1:])) == n_rows:
        return f"{wanted}; flatten it with {name}.reshape({shape[0]}, -1).T"
    return f"{wanted} with at least one sample; give one row per {'feature' if name == 'X' else 'output'}"


def _capacity(n_samples: int) -> int:
    """Buffer size for inference: the next power of two, at most CHUNK, so that few different ones are kept."""
    return min(CHUNK, 1 << (n_samples - 1).bit_length())


def _chunks(n_samples: int, capacity: int) -> Iterator[tuple[slice, int]]:
    for start in range(0, n_samples, capacity):
        stop = min(start + capacity, n_samples)
        yield slice(start, stop), stop - start
