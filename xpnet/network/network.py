"""A feed-forward network: an architecture and its parameters.

One sample is one column: X is (n_features, n_samples). Every method takes arrays of the network's backend and
returns new ones. Training is in `xpnet.training.loop`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from xpnet.backend import Backend, asked_device, select_backend
from xpnet.checks import by_their_mean, check_path
from xpnet.cores import memory
from xpnet.engines.choice import make_engine
from xpnet.engines.engine import Engine
from xpnet.engines.placing import place
from xpnet.network.architecture import Architecture, Function
from xpnet.network.forwards import Forwards
from xpnet.network.idle_engines import IdleEngines, Loan
from xpnet.network.inference import feed_samples as feed_samples
from xpnet.network.inference import infer, is_dataset, mean_gradient, mean_loss, of_dataset
from xpnet.network.inputs import InputRange, check_samples
from xpnet.network.layer import Layer
from xpnet.network.losses import Loss
from xpnet.network.model_file import load_model, save_model, tensor_shapes
from xpnet.network.parameters import Layout, Parameters, random_generator
from xpnet.network.programs import RecordsUpdate, inference_program, training_program
from xpnet.network.summary import summary
from xpnet.program.calls import Program
from xpnet.program.shards import Shards

__all__ = ["Network"]

_TYPICAL_BATCH = 32  # samples of a step, where a device is chosen before there are samples

Array = Any


class Network:
    """A network of dense layers on one backend.

    layers: sizes ([784, 100, 200, 10], with `activation`, `output` and `init`), or layers
    ([Dense(784, 100), Activation("relu"), ...]); `Network.from_spec` reads JSON.
    activation: one for all hidden layers, or a list (default "relu").  output: the last layer's (default "identity");
    names of `xpnet.kernels.activations.ACTIVATIONS`, or `CustomActivation` values.
    loss: a name of `xpnet.network.losses.LOSSES`, a value such as `Huber(delta=2.0)`, or a `CustomLoss`.
    init: initialiser of all weights, None for the one that suits each activation.
    normalization: "batch" or "layer", before each hidden activation.  dropout: the rate after each, or a list of rates.
    backend: from `select_backend`.  seed: of the initial weights.  device, dtype: in place of a backend, as for
    `select_backend`; but "auto", the default, is the CPU or a GPU by the operations and launches of a training step of
    32 samples, and `train` chooses anew by its own batch and steps.
    parameters: the `Parameters`, weights and biases as one flat vector with views.
    statistics: running means and variances by name, such as "layers.1.running_mean" (n, 1); {} if there are none.
    inputs: the range of the features that it was trained on last, None before.  has_warned: of rows far outside.
    forwards: the machine code of its predictions, once that repays.
    owned: the parameters followed by the statistics.  device_is_open: whether `train` may move the network.
    Raises ValueError for sizes, names or combinations that cannot work.
    """

    step_keys: Array | None

    def __init__(
        self,
        layers: Sequence[int] | Sequence[Layer],
        *,
        activation: Function | Sequence[Function] | None = None,
        output: Function | None = None,
        loss: str | Loss = "softmax_cross_entropy",
        init: str | None = None,
        normalization: str | None = None,
        dropout: float | Sequence[float] | None = None,
        backend: Backend | None = None,
        device: str | None = None,
        dtype: Any = None,
        seed: int = 0,
    ) -> None:
        architecture = _architecture(
            layers, loss, activation=activation, output=output, init=init, normalization=normalization, dropout=dropout
        )
        self._set_up(architecture, backend, device, dtype)
        _fill(self, _drawn(architecture, random_generator(seed, 0)))

    @classmethod
    def from_spec(
        cls,
        spec: dict[str, Any],
        *,
        backend: Backend | None = None,
        seed: int = 0,
        functions: Mapping[str, Any] | None = None,
    ) -> Network:
        """Make a network from a JSON-ready dict, as `to_spec` returns it, such as

        {"format": 1, "loss": "softmax_cross_entropy", "layers": [{"type": "dense", "n_in": 784, "n_out": 100,
        "init": "he"}, {"type": "activation", "name": "relu"}, ...]}; the loss may be {"name": "huber", "delta": 2.0}.
        functions: the `CustomActivation` and `CustomLoss` values that the spec names, by these names.
        Raises ValueError for any other spec, or a function that is missing.
        """
        architecture = Architecture.from_spec(spec, functions)
        return cls(architecture.layers, loss=architecture.loss, backend=backend, seed=seed)

    def to_spec(self) -> dict[str, Any]:
        """Return the architecture as a JSON-ready dict, including initialisers; `from_spec` reads it."""
        return self.architecture.to_spec()

    def forward(self, X: Array) -> Array:
        """Return the last layer's output (n_outputs, n_samples), before any link, for X (n_inputs, n_samples).

        X: an array of the backend and dtype; bytes, scaled as those that it was trained on; or a Dataset, whose output
        lies on the host.  Warns once of features far outside the range of the training data.
        """
        return of_dataset(self.forward, X, self.backend) if is_dataset(X) else infer(self, "forward", X)[0]

    def predict(self, X: Array) -> Array:
        """Return predictions (n_outputs, n_samples): probabilities, rates (poisson) or the outputs."""
        return of_dataset(self.predict, X, self.backend) if is_dataset(X) else infer(self, "predict", X)[0]

    def classify(self, X: Array) -> Array:
        """Return a label per sample, (n_samples,): the index of the highest output, or 0 or 1 for one output."""
        if is_dataset(X):
            return of_dataset(self.classify, X, self.backend)
        outputs = self.forward(X)
        is_above = outputs[0] > self.architecture.loss.threshold
        return outputs.argmax(axis=0) if len(outputs) > 1 else is_above.astype(np.int64)

    def activations(self, X: Array, *, training: bool = False) -> list[Array]:
        """Return the output (n, n_samples) of every layer in `layers`; training: as in `evaluate_loss`."""
        return infer(self, "activations", X, training)

    def evaluate_loss(self, X: Array, Y: Array, weights: Array | None = None, *, training: bool = False) -> float:
        """Return the mean loss over the samples; Y (n_outputs, n_samples), weights (n_samples,) or None.

        training: as in a training step on these samples as one batch, with the dropout masks of `gradients` and the
        batch's statistics: the function whose gradient `gradients` returns. No state changes.
        """
        return mean_loss(self, X, Y, weights, training)

    def gradients(self, X: Array, Y: Array, weights: Array | None = None) -> Parameters:
        """Return the gradient of the mean loss as `Parameters`; the samples are taken as one batch.

        Targets are not checked: with softmax_cross_entropy the columns of Y must sum to 1. Every call has the same
        dropout masks, and running statistics do not change. Raises ValueError for a BatchNorm and one sample.
        """
        return mean_gradient(self, X, Y, weights)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the network to a safetensors file: named tensors (`layers.0.W`), the spec, the range of its inputs."""
        check_path("path", path, 'network.save("model.safetensors")')
        arrays = {**self.parameters.named, **self.statistics}
        tensors = {name: self.backend.to_host(arrays[name]) for name in tensor_shapes(self.architecture)}
        save_model(path, self.architecture, tensors, self.inputs)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        backend: Backend | None = None,
        functions: Mapping[str, Any] | None = None,
        *,
        device: str | None = None,
        dtype: Any = None,
    ) -> Network:
        """Read a network that `save` wrote, on any backend and in its dtype.

        backend, device, dtype: as for a new network.  functions: its custom activations and losses, by name.
        Raises FileNotFoundError, or ValueError for a foreign file or a missing function.
        """
        check_path("path", path, 'Network.load("model.safetensors")')
        architecture, tensors, inputs = load_model(path, functions)
        network = cls.__new__(cls)
        network._set_up(architecture, backend, device, dtype)
        network.inputs = inputs
        _check_range(path, tensors, network.backend.dtype)
        _fill(network, tensors.items())
        return network

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers, in order."""
        return self.architecture.layers

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy or a pickle needs: no views and no engines, arrays on the host."""
        made = ("parameters", "statistics", "_idle", "forwards")
        return {name: value for name, value in vars(self).items() if name not in made} | _on_host(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._place_on(self.backend)
        _take_up(self, state)

    def __repr__(self) -> str:
        return f"Network({self.architecture}; {self.architecture.layout.count:,} parameters, {self.backend.device})"

    def _repr_html_(self) -> str:
        return summary(self)._repr_html_()

    def engine(self, key: tuple[Any, ...], build: Callable[[], Program]) -> Loan[Engine]:
        """Lend an engine for a Program, kept under `key` for the next call, to one user at a time."""
        return self._idle.lend(key, lambda: make_engine(build(), self.backend, self.owned))

    def check_samples(self, X: Array, Y: Array | None = None, weights: Array | None = None) -> int:
        """Refuse arrays of the wrong library, dtype or shape; return the number of samples."""
        return check_samples(self.backend, self.architecture, X, Y, weights)

    def relative(self, weights: Array | None) -> Array | None:
        """Return checked sample weights (n_samples,) divided by their mean, or None."""
        return None if weights is None else self.backend.to_device(by_their_mean(self.backend.to_host(weights)))

    def training_program(
        self,
        batch: int,
        optimizer: RecordsUpdate,
        weighted: bool,
        seed: int = 0,
        accumulate: int = 1,
        shards: Shards | None = None,
    ) -> Program:
        """Return the Program of one step (`xpnet.network.programs`); weighted: samples have weights."""
        return training_program(self.architecture, batch, optimizer, weighted, seed, accumulate, shards)

    def move(self, backend: Backend) -> None:
        """Move all that training changes to a backend of the same dtype; `parameters` taken before stay behind."""
        arrays = _on_host(self)
        self._place_on(backend)
        _take_up(self, arrays)

    def _set_up(
        self, architecture: Architecture, backend: Backend | None, device: str | None = None, dtype: Any = None
    ) -> None:
        self.architecture = architecture
        _check_backend(backend, device, dtype)
        _check_size(architecture, 4 if backend is None else backend.dtype.itemsize)
        self.inputs: InputRange | None = None
        self.has_warned = False
        self.device_is_open = backend is None and asked_device(device)[0] == "auto"
        float_type = "float32" if dtype is None else dtype
        if self.device_is_open:
            backend = place(training_program(architecture, _TYPICAL_BATCH, None, False), float_type)
        self._place_on(select_backend(device, float_type) if backend is None else backend)

    def _place_on(self, backend: Backend) -> None:
        layout, self.backend = self.architecture.layout, backend
        self.owned = self.backend.zeros(layout.size + layout.n_statistics)
        self.parameters = Parameters(layout, self.owned[: layout.size])
        self.statistics = _statistics(layout, self.owned)
        self.step_keys = None  # the dropout keys after the last `xpnet.step`
        self._idle = IdleEngines()
        self.forwards = Forwards(self.backend, self.owned, self._idle, partial(_inference, self.architecture))


def _check_size(architecture: Architecture, itemsize: int) -> None:
    """Refuse parameters that this machine's memory cannot hold, before a system that promises more than it has."""
    total, layout = memory(), architecture.layout
    needed = (layout.size + layout.n_statistics) * itemsize
    if total is not None and needed > total:
        raise MemoryError(
            f"the network's {layout.count:,} parameters need {needed / 1e9:.3g} GB, this machine has {total / 1e9:.3g} "
            "GB of memory; make its layers narrower"
        )


def _on_host(network: Network) -> dict[str, Any]:
    """Return copies on the host of all that training and steps change, by attribute."""
    to_host, keys = network.backend.to_host, network.step_keys
    return {"owned": to_host(network.owned).copy(), "step_keys": None if keys is None else to_host(keys).copy()}


def _take_up(network: Network, arrays: Mapping[str, Any]) -> None:
    """Give a network what `_on_host` returned."""
    to_device, keys = network.backend.to_device, arrays["step_keys"]
    network.owned[...] = to_device(arrays["owned"])
    network.step_keys = None if keys is None else to_device(keys, np.uint32)


def _check_backend(backend: Any, device: str | None, dtype: Any) -> None:
    if backend is not None and not isinstance(backend, Backend):
        raise TypeError(
            f"backend is {backend!r}; it must be what select_backend returns: backend=xpnet.select_backend('cpu')"
        )
    if backend is not None and not (device is None and dtype is None):
        raise ValueError(
            f"backend is {backend.describe()}, device is {device!r} and dtype is {dtype!r}; "
            "a backend has both: pass backend=, or device= and dtype="
        )


def _drawn(architecture: Architecture, rng: np.random.Generator) -> Iterator[tuple[str, np.ndarray]]:
    """Draw the initial parameters and statistics, named as in files."""
    for i, layer in enumerate(architecture.layers):
        if layer.parameter_shapes():
            yield from ((f"layers.{i}.{name}", value) for name, value in layer.initialize(rng).items())


def _check_range(path: Any, tensors: Mapping[str, np.ndarray], dtype: np.dtype[Any]) -> None:
    for name, value in tensors.items():
        if abs(value).max() > np.finfo(dtype).max:
            raise ValueError(
                f"{path}: tensor {name} has values too large for {dtype}; load it with select_backend(dtype='float64')"
            )


def _fill(network: Network, values: Iterable[tuple[str, np.ndarray]]) -> None:
    """Set parameters and statistics by name, in one copy to a GPU."""
    layout, on_cpu = network.architecture.layout, network.backend.device == "cpu"
    host = network.owned if on_cpu else np.zeros(layout.size + layout.n_statistics, network.backend.dtype)
    arrays = {**Parameters(layout, host[: layout.size]).named, **_statistics(layout, host)}
    for name, value in values:
        arrays[name][...] = value
    if not on_cpu:
        network.owned[...] = network.backend.to_device(host)


def _inference(architecture: Architecture, kind: str, capacity: int) -> Program:
    return inference_program(architecture, capacity, kind)


def _statistics(layout: Layout, owned: Array) -> dict[str, Array]:
    return {place.path: place.view(owned[layout.size :]) for place in layout.statistics}


def _architecture(layers: Any, loss: str | Loss, **with_sizes: Any) -> Architecture:
    """Return the architecture given by sizes and their options, or by layers."""
    if isinstance(layers, (str, dict)) or not isinstance(layers, Sequence):
        raise TypeError(
            f"layers is a {type(layers).__name__}; it must be sizes such as [784, 100, 10], or layers; "
            "a spec goes to Network.from_spec(spec)"
        )
    if all(isinstance(item, (int, np.integer)) and not isinstance(item, bool) for item in layers):
        sizes = [int(item) for item in layers]
        defaults = {"activation": "relu", "output": "identity"}
        given = {name: value for name, value in with_sizes.items() if value is not None}
        return Architecture.of_sizes(sizes, loss=loss, **{"init": None, **defaults, **given})
    if not all(isinstance(item, Layer) for item in layers):
        found = sorted({type(item).__name__ for item in layers})
        raise TypeError(
            f"layers holds {found}; give only sizes, or only layers such as Dense and Activation, "
            "or use Network.from_spec for dicts"
        )
    for name, value in with_sizes.items():
        if value is not None:
            raise ValueError(
                f"{name}={value!r} goes with sizes; with layers, put it into them: "
                'Dense(784, 100, init="he"), Activation("relu"), Dropout(0.5)'
            )
    return Architecture(tuple(layers), loss)
