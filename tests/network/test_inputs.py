"""What a network does with features in other units than those that it was trained on."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
from refusals import refusal, says
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import xpnet
from xpnet import SGD, Dataset, Network


def of_bytes(backend, n=60):
    """A network trained on bytes, and its data."""
    rng = np.random.default_rng(0)
    X = rng.integers(256, size=(5, n)).astype(np.uint8)
    data = Dataset.from_labels(X, (X[0] > 127).astype(int))
    network = Network([5, 4, 2], backend=backend)
    xpnet.train(network, data, SGD(), epochs=2, batch_size=8)
    return network, data


def by_hand(network, X):
    """The probabilities of a network with one hidden layer of relu, in float64."""
    (W1, W2), (b1, b2) = ([network.backend.to_host(p).astype(float) for p in part] for part in
                          (network.parameters.weights, network.parameters.biases))  # fmt: skip
    Z = W2 @ np.maximum(W1 @ X + b1, 0) + b2
    return np.exp(Z) / np.exp(Z).sum(axis=0)


def test_bytes_are_scaled_wherever_they_come_from(backend):
    network, data = of_bytes(backend)
    expected = by_hand(network, data.X / 255)
    floats = backend.to_device(data.X / 255)
    for X in (data, data.X, floats, backend.to_device(data.X, np.uint8)):
        np.testing.assert_allclose(backend.to_host(network.predict(X)), expected, rtol=1e-4, atol=1e-6)
        np.testing.assert_array_equal(backend.to_host(network.classify(X)), expected.argmax(axis=0))
    assert xpnet.evaluate(network, data)["accuracy"] == np.mean(expected.argmax(axis=0) == data.labels)
    scores = np.log(expected) - np.log(expected).mean(axis=0)
    outputs = network.forward(data)
    np.testing.assert_allclose(outputs - outputs.mean(axis=0), scores, rtol=1e-4, atol=1e-5)


def test_a_data_set_of_floats_is_predicted_as_it_is(float64_cpu, tmp_path):
    X = np.random.default_rng(0).standard_normal((3, 40))
    data, network = Dataset(X, X[:1]), Network([3, 1], loss="squared_error", backend=float64_cpu)
    xpnet.train(network, data, SGD(), epochs=1, batch_size=8)
    np.testing.assert_array_equal(network.predict(data), network.predict(X))
    np.save(tmp_path / "rows.npy", np.ascontiguousarray(X.T))
    mapped = Dataset(np.load(tmp_path / "rows.npy", mmap_mode="r").T, X[:1])
    np.testing.assert_array_equal(network.predict(mapped), network.predict(X))


def test_rows_far_outside_are_warned_of_once(float64_cpu, tmp_path):
    network, data = of_bytes(float64_cpu)
    raw = data.X.astype(float)
    network.save(tmp_path / "model.safetensors")
    for asked in (network, Network.load(tmp_path / "model.safetensors", float64_cpu)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            asked.predict(raw / 255), asked.predict(data), asked.predict(raw / 100)
        with pytest.warns(UserWarning, match="far outside") as found:
            asked.predict(raw)
            asked.classify(raw)
        assert len(found) == 1
        says(found[0].message, "the features are 0 to 255", "far outside 0 to 1", "pass them as uint8 or as a Dataset")
    network, _ = of_bytes(float64_cpu)
    with pytest.warns(UserWarning, match="far outside"):
        xpnet.evaluate(network, Dataset(raw, data.Y))
    standardised = Dataset((raw - 127) / 74, data.Y)
    xpnet.train(network := Network([5, 2], backend=float64_cpu), standardised, SGD(), epochs=1)
    with pytest.warns(UserWarning, match="scale them as the training data were") as found:
        network.predict(raw)
    says(found[0].message, "the features are 0 to 255", "far outside -1.7", "scale them as the training data were")


def test_bytes_without_a_scale_are_refused(float64_cpu):
    network, data = of_bytes(float64_cpu)
    fresh = Network([5, 2], backend=float64_cpu)
    xpnet.step(network, SGD(), data.X / 255.0, data.Y.astype(float))  # of features that nobody has looked at
    for unknown in (fresh, network):
        with refusal(TypeError, "X is uint8", "computes in float64", "pass network.backend.to_device(X) scaled"):
            unknown.predict(data.X)


@pytest.mark.parametrize(
    "inputs", [3, {"low": 0.0}, {"low": 0.0, "high": 1.0, "scale": -1.0}, {"low": 2.0, "high": 1.0, "scale": None},
               {"low": 0, "high": 10, "scale": None}, {"low": float("nan"), "high": 1.0, "scale": None}]
)  # fmt: skip
def test_a_range_that_cannot_be_is_refused(float64_cpu, tmp_path, inputs):
    path = tmp_path / "model.safetensors"
    of_bytes(float64_cpu)[0].save(path)
    with safe_open(path, framework="numpy") as file:
        spec = json.loads(file.metadata()["spec"])
    assert spec["inputs"] == {"low": 0.0, "high": 1.0, "scale": 1 / 255}
    save_file(load_file(path), path, {"spec": json.dumps(spec | {"inputs": inputs})})
    with refusal(ValueError, "inputs of the spec is", "needed are finite", "use a file that `Network.save` wrote"):
        Network.load(path)
