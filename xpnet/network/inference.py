"""What a network is asked for arrays of samples: outputs, the mean loss, its gradient; on engines that it keeps."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from xpnet.backend import Backend
from xpnet.engines.engine import Engine
from xpnet.network.blocks import predict_in_blocks
from xpnet.network.inputs import InputRange, scaled_rows
from xpnet.network.parameters import Parameters
from xpnet.network.programs import evaluation_program, inference_program, training_program
from xpnet.program.calls import BATCH

Array = Any
_ONLY = ("output0",)  # of a Program with one output
Network = Any  # of `xpnet.network.network`, which imports this


def infer(network: Network, kind: str, X: Array, training: bool = False) -> list[Array]:
    """Return the outputs of an `inference_program` of that kind for X (n_inputs, n_samples).

    training: as in a training step on these samples as one batch.
    """
    if network.inputs is not None and network.inputs.scale is not None and getattr(X, "dtype", None) == np.uint8:
        X = scaled_rows(network.backend, X, network.inputs.scale)
    n_samples = network.check_samples(X)
    if network.backend.device == "cpu":  # a GPU would wait
        warn_of_inputs(network, lambda: InputRange(float(X.min()), float(X.max())))
    if kind != "activations":
        found = network.forwards.run(kind, X)
        if found is not None:
            return [found]
    capacity, seed = (n_samples, 0) if training else (_capacity(n_samples), None)
    names = [f"output{i}" for i in range(len(network.layers))] if kind == "activations" else _ONLY
    with network.engine(
        (kind, capacity, seed), lambda: inference_program(network.architecture, capacity, kind, seed)
    ) as engine:
        if kind != "activations" and not network.forwards.replays(kind, n_samples, engine.program):
            return infer(network, kind, X)
        if n_samples <= capacity:
            return [found.T.copy().T for found in _outputs(engine, names, X)]
        sizes = [engine.program.buffers[name].shape[0] for name in names]
        results = [network.backend.xp.empty((n_samples, size), dtype=network.backend.dtype).T for size in sizes]
        for part, _ in _chunks(n_samples, capacity):
            for result, found in zip(results, _outputs(engine, names, X[:, part]), strict=True):
                result[:, part] = found
    return results


def _outputs(engine: Engine, names: Sequence[str], X: Array) -> list[Array]:
    """Return the engine's buffers of these names for the samples X: views, valid until the next step."""
    n = X.shape[1]
    engine.feed(n, X=X)
    engine.execute(n)
    return [engine.read(name, n) for name in names]


def mean_loss(network: Network, X: Array, Y: Array, weights: Array | None, training: bool) -> float:
    """See `Network.evaluate_loss`."""
    n_samples, weights = network.check_samples(X, Y, weights), network.relative(weights)
    weighted, total, total_weight = weights is not None, 0.0, 0.0
    capacity, seed = (n_samples, 0) if training else (_capacity(n_samples), None)
    with network.engine(
        ("evaluate_loss", weighted, capacity, seed),
        lambda: evaluation_program(network.architecture, capacity, weighted, False, seed),
    ) as engine:
        for part, size in _chunks(n_samples, engine.program.capacity):
            feed_samples(engine, size, X[:, part], Y[:, part], None if weights is None else weights[part])
            engine.execute(size)
            results = engine.read_results()
            total += results["loss"]
            total_weight += results.get("weight", size)
    return total / total_weight


def mean_gradient(network: Network, X: Array, Y: Array, weights: Array | None) -> Parameters:
    """See `Network.gradients`."""
    n_samples, weights = network.check_samples(X, Y, weights), network.relative(weights)
    with network.engine(
        ("gradients", weights is not None, n_samples),
        lambda: training_program(network.architecture, n_samples, None, weights is not None),
    ) as engine:
        feed_samples(engine, n_samples, X, Y, weights)
        engine.execute(n_samples)
        return Parameters(network.architecture.layout, engine.read("gradient", n_samples).copy())


def of_dataset(infer: Callable[[Array], Array], dataset: Any, backend: Backend) -> np.ndarray:
    """Return what a method of a network gives for the samples of a Dataset, on the host."""
    return predict_in_blocks(backend, infer, dataset.samples, lambda rows: scaled_rows(backend, rows, dataset.scale))


def warn_of_inputs(network: Network, range_of: Callable[[], InputRange | None]) -> None:
    """Warn, once, if features are far outside the range that the network was trained in.

    range_of: returns theirs, None if it is not known; called only where a warning may follow, as it reads all of them.
    """
    if network.inputs is None or network.has_warned:
        return
    found = range_of()
    if found is not None and network.inputs.is_far(found.low, found.high):
        network.has_warned = True
        warnings.warn(network.inputs.advice(found.low, found.high), stacklevel=5)


def is_dataset(X: Any) -> bool:
    """Whether X has rows of samples and their scale, as a Dataset."""
    return hasattr(X, "samples") and hasattr(X, "scale")


def feed_samples(engine: Engine, size: int, X: Array, Y: Array, weights: Array | None) -> None:
    """Copy one batch into the buffers of a Program that gathers X, Y and perhaps weights."""
    if weights is None:
        engine.feed(size, X=X, Y=Y)
    else:
        engine.feed(size, X=X, Y=Y, w=weights.reshape(1, size))


def _capacity(n_samples: int) -> int:
    """Return the capacity for inference: the next power of two, at most BATCH, so that few engines are kept."""
    return min(BATCH, 1 << (n_samples - 1).bit_length())


def _chunks(n_samples: int, capacity: int) -> Iterator[tuple[slice, int]]:
    for start in range(0, n_samples, capacity):
        stop = min(start + capacity, n_samples)
        yield slice(start, stop), stop - start
