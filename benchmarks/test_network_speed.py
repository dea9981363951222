"""One training step, one epoch, predict: checked against a float64 computation, then timed."""

from __future__ import annotations

import numpy as np
import pytest

import xpnet
from xpnet.engines.replay import Replay
from xpnet.timing.harness import synthetic_data

NETWORKS = {
    "2-9-6-1": ([2, 9, 6, 1], {"activation": "sigmoid", "output": "sigmoid", "loss": "squared_error"}, 32),
    "784-15-10": ([784, 15, 10], {"activation": "sigmoid", "output": "sigmoid", "loss": "squared_error"}, 50),
    "784-100-200-10": ([784, 100, 200, 10], {}, 32),
    "784-512-512-10": ([784, 512, 512, 10], {}, 128),
}


@pytest.fixture(params=NETWORKS)
def case(request):
    return NETWORKS[request.param]


def outputs(network, X):
    """The last layer's output in float64, samples as rows: another form than the kernels'."""
    A = np.asarray(X, float)
    weights = [network.backend.to_host(W).astype(float) for W in network.parameters.weights]
    biases = [network.backend.to_host(b).astype(float) for b in network.parameters.biases]
    dense = iter(zip(weights, biases, strict=True))
    for layer in network.layers:
        if isinstance(layer, xpnet.Dense):
            W, b = next(dense)
            A = A @ W.T + b.T
        else:
            A = np.maximum(A, 0.0) if layer.name == "relu" else np.exp(-np.logaddexp(0.0, -A))
    return A


def mean_loss(network, X, Y):
    A = outputs(network, X)
    if network.architecture.loss.name == "squared_error":
        return 0.5 * ((A - Y) ** 2).sum(axis=1).mean()
    return (np.log(np.exp(A).sum(axis=1)) - (A * Y).sum(axis=1)).mean()


def program_cost(program, backend):
    flops, moved = sum(call.flops for call in program.calls), sum(call.bytes for call in program.calls)
    return {"flops": flops, "bytes": moved * backend.dtype.itemsize // 4}


def tolerance(backend):
    return 1e-4 if backend.dtype == np.float32 else 1e-10


def test_training_step(case, backend, timed):
    sizes, options, batch = case
    network = xpnet.Network(sizes, backend=backend, **options)
    program = network.training_program(batch, xpnet.SGD(), False)
    X, Y, order = synthetic_data(sizes[0], sizes[-1], batch, 1)
    data = {"X": (backend.to_device(X), None), "Y": (backend.to_device(Y), None)}
    engine = Replay(program, backend, network.parameters.flat, data)
    rows = xpnet.SGD(lr=1e-3).slot_rows(1)
    expected = mean_loss(network, X[order], Y[order])
    assert engine.run(order, rows)[0, 0] / batch == pytest.approx(expected, rel=tolerance(backend))
    assert mean_loss(network, X[order], Y[order]) < expected  # the step went downhill
    timed(lambda: engine.run(order, rows), **program_cost(program, backend))


def test_epoch(backend, timed):
    network = xpnet.Network([784, 100, 200, 10], backend=backend)
    X, Y, _ = synthetic_data(784, 10, 32, 1)
    X, Y = X[:2048], Y[:2048]
    dataset = xpnet.Dataset(X.T, Y.T)
    before = mean_loss(network, X, Y)
    history = xpnet.train(network, dataset, xpnet.SGD(lr=0.01), epochs=1, batch_size=32)
    assert history[0]["train_loss"] == pytest.approx(before, rel=tolerance(backend))
    assert mean_loss(network, X, Y) < before
    program = network.training_program(32, xpnet.SGD(), False)
    cost = {name: 64 * value for name, value in program_cost(program, backend).items()}
    timed(lambda: xpnet.train(network, dataset, xpnet.SGD(lr=1e-3), epochs=1, batch_size=32), **cost)


@pytest.mark.parametrize("n_samples", [1, 1000])
def test_predict(n_samples, backend, timed):
    network = xpnet.Network([784, 100, 200, 10], backend=backend)
    X = np.random.default_rng(0).random((n_samples, 784))
    device_X = backend.to_device(X.T)
    A = outputs(network, backend.to_host(device_X).T)
    P = np.exp(A - A.max(axis=1, keepdims=True))
    P /= P.sum(axis=1, keepdims=True)
    assert abs(backend.to_host(network.predict(device_X)).T - P).max() <= tolerance(backend)
    flops = 2 * n_samples * sum(W.size for W in network.parameters.weights)
    moved = (network.architecture.layout.count + n_samples * 1094) * backend.dtype.itemsize
    timed(lambda: network.predict(device_X), flops=flops, bytes=moved)
