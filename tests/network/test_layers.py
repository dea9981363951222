"""Layers used alone: initialize, forward, backward, on every backend; and what their descriptions refuse."""

from __future__ import annotations

import dataclasses
import json
from functools import partial

import numpy as np
import pytest
from refusals import says

from xpnet import Activation, Dense
from xpnet.kernels.activations import ACTIVATIONS
from xpnet.network.layers import layer_from_spec

C = np.sqrt(2 / np.pi)
FUNCTIONS = {
    "identity": (lambda z: z, lambda z: np.ones_like(z)),
    "sigmoid": (lambda z: 1 / (1 + np.exp(-z)), lambda z: np.exp(-z) / (1 + np.exp(-z)) ** 2),
    "tanh": (np.tanh, lambda z: 1 / np.cosh(z) ** 2),
    "relu": (lambda z: np.where(z > 0, z, 0.0), lambda z: np.where(z > 0, 1.0, 0.0)),
    "leaky_relu": (lambda z: np.where(z > 0, z, z / 100), lambda z: np.where(z > 0, 1.0, 0.01)),
    "elu": (lambda z: np.where(z > 0, z, np.expm1(z)), lambda z: np.exp(np.minimum(z, 0))),
    "selu": (
        lambda z: np.where(z > 0, 1.0507009873554805 * z, 1.7580993408473766 * np.expm1(z)),
        lambda z: np.where(z > 0, 1.0507009873554805, 1.7580993408473766 * np.exp(z)),
    ),
    "softplus": (lambda z: np.logaddexp(0, z), lambda z: 1 / (1 + np.exp(-z))),
    "silu": (lambda z: z / (1 + np.exp(-z)), lambda z: (1 + np.exp(-z) * (1 + z)) / (1 + np.exp(-z)) ** 2),
    "gelu": (
        lambda z: z / (1 + np.exp(-2 * C * (z + 0.044715 * z**3))),
        lambda z: (
            0.5
            + 0.5 * np.tanh(C * (z + 0.044715 * z**3))
            + z / 2 * C * (1 + 0.134145 * z**2) / np.cosh(C * (z + 0.044715 * z**3)) ** 2
        ),
    ),
    "hard_sigmoid": (lambda z: np.clip(z / 6 + 0.5, 0, 1), lambda z: np.where(abs(z) < 3, 1 / 6, 0.0)),
}


def tolerance(backend):
    return 1e-5 if backend.dtype == np.float32 else 1e-12


def close(backend, found, expected):
    """Compare an array of the backend with float64 NumPy, relative to the largest element."""
    assert backend.owns(found) and found.dtype == backend.dtype and tuple(found.shape) == np.shape(expected)
    error = abs(backend.to_host(found) - expected).max()
    return error <= tolerance(backend) * max(1.0, abs(np.asarray(expected)).max())


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


@pytest.mark.parametrize("batch", [1, 7])
def test_dense_alone(backend, batch):
    layer = Dense(4, 3, init="glorot", bias="normal")
    params = layer.initialize(np.random.default_rng(0))
    X, dZ = draw(4, batch), draw(3, batch, seed=1)
    on_device = {name: backend.to_device(value) for name, value in params.items()}
    Z, trace = layer.forward(on_device, backend.to_device(X), xp=backend.xp)
    assert close(backend, Z, np.einsum("ij,jk->ik", params["W"], X) + params["b"])
    dX, grads = layer.backward(on_device, trace, backend.to_device(dZ), xp=backend.xp)
    assert grads.keys() == {"W", "b"}
    assert close(backend, grads["W"], np.einsum("ik,jk->ij", dZ, X))
    assert close(backend, grads["b"], dZ.sum(axis=1, keepdims=True))
    assert close(backend, dX, np.einsum("ij,ik->jk", params["W"], dZ))


@pytest.mark.parametrize("batch", [1, 7])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_activation_alone(backend, name, batch):
    layer, (f, slope) = Activation(name), FUNCTIONS[name]
    assert layer.initialize(np.random.default_rng(0)) == {}
    Z, dA = draw(3, batch), draw(3, batch, seed=1)
    A, trace = layer.forward({}, backend.to_device(Z), xp=backend.xp)
    assert close(backend, A, f(Z))
    dZ, grads = layer.backward({}, trace, backend.to_device(dA), xp=backend.xp)
    assert grads == {} and close(backend, dZ, dA * slope(Z))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_layers_leave_their_inputs_alone_and_return_fresh_arrays(name):
    dense, activation = Dense(3, 3), Activation(name)
    params = dense.initialize(np.random.default_rng(0))
    for layer, values in ((dense, params), (activation, {})):
        X, dA = draw(3, 5), draw(3, 5, seed=1)
        for array in (X, dA, *values.values()):
            array.setflags(write=False)
        A, trace = layer.forward(values, X)
        dX, grads = layer.backward(values, trace, dA)
        for made in (A, dX, *grads.values()):
            assert not any(np.shares_memory(made, given) for given in (X, dA, *values.values()))


@pytest.mark.parametrize("batch", [1, 7])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_chain_of_layers_against_central_differences(name, batch):
    """design.md section 4: forward down the chain keeping traces, backward up it; the loss is sum(G * A)."""
    layers = [Dense(4, 3, bias="normal"), Activation(name), Dense(3, 2, bias="normal"), Activation("tanh")]
    rng = np.random.default_rng(3)
    params = [layer.initialize(rng) for layer in layers]
    X, G = draw(4, batch), draw(2, batch, seed=1)

    def forward(X):
        traces = []
        for layer, values in zip(layers, params, strict=True):
            X, trace = layer.forward(values, X)
            traces.append(trace)
        return X, traces

    _, traces = forward(X)
    gradient, grads = G, []
    for layer, values, trace in zip(layers[::-1], params[::-1], traces[::-1], strict=True):
        gradient, of_layer = layer.backward(values, trace, gradient)
        grads.insert(0, of_layer)

    def check(array, found, h=1e-5):
        expected = np.empty_like(found)
        for index in np.ndindex(array.shape):
            kept = array[index]
            losses = []
            for shift in (h, -h):
                array[index] = kept + shift
                losses.append((G * forward(X)[0]).sum())
            array[index] = kept
            expected[index] = (losses[0] - losses[1]) / (2 * h)
        assert np.linalg.norm(found - expected) <= 1e-7 * np.linalg.norm(expected)

    assert FUNCTIONS.keys() == ACTIVATIONS.keys() - {"log_softmax"}
    check(X, gradient)
    for values, of_layer in zip(params, grads, strict=True):
        assert of_layer.keys() == values.keys()
        for key in values:
            check(values[key], of_layer[key])


def test_an_activation_over_the_outputs_of_a_sample_alone(backend):
    """log_softmax takes a row for scratch, and its backward mixes the outputs."""
    Z, dA = draw(3, 5), draw(3, 5, seed=1)
    A, trace = Activation("log_softmax").forward({}, backend.to_device(Z), xp=backend.xp)
    assert close(backend, A, Z - np.log(np.exp(Z).sum(axis=0)))
    dZ, _ = Activation("log_softmax").backward({}, trace, backend.to_device(dA), xp=backend.xp)
    assert close(backend, dZ, dA - np.exp(Z) / np.exp(Z).sum(axis=0) * dA.sum(axis=0))


def test_layers_hold_no_state():
    layer = Dense(3, 2)
    for attribute in ("n_in", "init", "W"):
        with pytest.raises((dataclasses.FrozenInstanceError, TypeError)):
            setattr(layer, attribute, 1)
    assert vars(layer) == {"n_in": 3, "n_out": 2, "init": None, "bias": "zeros"}
    with pytest.raises(dataclasses.FrozenInstanceError):
        Activation("relu").name = "tanh"
    assert Dense(3, 2) == Dense(3, 2) != Dense(3, 2, init="he")


def test_initialize_draws_on_the_host_in_float64():
    params = Dense(30, 20, init="he", bias=0.5).initialize(np.random.default_rng(0))
    assert params["W"].shape == (20, 30) and params["b"].shape == (20, 1)
    assert params["W"].dtype == params["b"].dtype == np.float64
    assert np.all(params["b"] == 0.5) and 0.2 < params["W"].std() < 0.32
    alone = Dense(30, 20).initialize(np.random.default_rng(0))
    glorot = Dense(30, 20, init="glorot").initialize(np.random.default_rng(0))
    np.testing.assert_array_equal(alone["W"], glorot["W"])


def test_dense_refuses_another_number_of_features():
    layer = Dense(784, 10)
    params = layer.initialize(np.random.default_rng(0))
    with pytest.raises(ValueError) as error:
        layer.forward(params, np.zeros((28, 5)))
    says(error, "Dense(784, 10)", "28", "784")


# Descriptions


@pytest.mark.parametrize(
    ("make", "error", "parts"),
    [
        (partial(Dense, 0, 3), ValueError, ["n_in is 0", "at least 1"]),
        (partial(Dense, 3, -2), ValueError, ["n_out is -2", "at least 1"]),
        (partial(Dense, True, 3), ValueError, ["n_in is True", "at least 1"]),
        (partial(Dense, 3, 2.0), TypeError, ["n_out is 2.0", "float", "whole number"]),
        (partial(Dense, "3", 2), TypeError, ["n_in is '3'", "str", "whole number"]),
        (partial(Dense, 3, 2, init="xavier"), ValueError, ["Dense init is 'xavier'", "'glorot'"]),
        (partial(Dense, 3, 2, init="gorot"), ValueError, ["'gorot'", "did you mean 'glorot'?"]),
        (partial(Dense, 3, 2, init=1.0), ValueError, ["Dense init is 1.0", "'he'"]),
        # a bias may be a number too, and the message must say so
        (partial(Dense, 3, 2, bias="zero"), ValueError, ["Dense bias is 'zero'", "did you mean 'zeros'?", "number"]),
        (partial(Dense, 3, 2, bias=True), TypeError, ["Dense bias is True", "'zeros'", "number"]),
        (partial(Dense, 3, 2, bias=False), TypeError, ["Dense bias is False", "'zeros'", "None for no bias"]),
        (partial(Dense, 3, 2, bias=np.nan), ValueError, ["Dense bias is nan", "finite number", "'zeros'"]),
        (partial(Dense, 3, 2, bias=-np.inf), ValueError, ["Dense bias is -inf", "finite number"]),
        (partial(Dense, 3, 2, bias=10**400), ValueError, ["Dense bias is", "finite number"]),
        (partial(Activation, "softmax"), ValueError, ["activation is 'softmax'", "'relu'"]),
        (partial(Activation, "ReLu"), ValueError, ["'ReLu'", "did you mean 'relu'?"]),
        (partial(Activation, None), ValueError, ["activation is None", "'relu'"]),
    ],
)
def test_refusals(make, error, parts):
    with pytest.raises(error) as raised:
        make()
    says(raised, *parts)


@pytest.mark.parametrize(
    "layer",
    [
        Dense(3, 2),
        Dense(3, 2, init="he", bias="normal"),
        Dense(3, 2, bias=0.5),
        Dense(np.int64(3), np.int32(2)),
        Activation("tanh"),
        Activation("identity"),
    ],
    ids=repr,
)
def test_specs_go_through_json_and_back(layer):
    spec = layer.to_spec()
    assert layer_from_spec(json.loads(json.dumps(spec))) == layer


def test_specs_by_hand():
    assert Dense(3, 2).to_spec() == {"type": "dense", "n_in": 3, "n_out": 2, "init": None, "bias": "zeros"}
    assert Activation("relu").to_spec() == {"type": "activation", "name": "relu"}
    assert layer_from_spec({"type": "dense", "n_in": 3, "n_out": 2}) == Dense(3, 2)


@pytest.mark.parametrize(
    ("spec", "parts"),
    [
        (
            "relu",
            ["a layer of the spec is 'relu'", "it must be a dict", 'such as {"type": "activation", "name": "relu"}'],
        ),
        (["dense"], ["a layer of the spec is ['dense']", "dict"]),
        ({}, ["layer type is None", "'dense', 'activation'"]),
        ({"type": "conv"}, ["layer type is 'conv'", "'dense', 'activation'"]),
        ({"type": "Dense"}, ["layer type is 'Dense'", "did you mean 'dense'?"]),
        ({"type": ["dense"]}, ["layer type is ['dense']", "'dense', 'activation'"]),
        ({"type": "dense", "n_in": 3, "nout": 2}, ["key of a dense layer is 'nout'", "did you mean 'n_out'?"]),
        ({"type": "activation", "name": "relu", "n_in": 3}, ["activation layer is 'n_in'", "'name'"]),
        ({"type": "dense", 3: 2}, ["key of a dense layer is 3", "'n_in'"]),
        ({"type": "dense", "n_in": 3}, ["the dense layer", "lacks a key", "it needs ", "n_out"]),
        ({"type": "activation"}, ["the activation layer", "lacks", "name"]),
        ({"type": "dense", "n_in": 3, "n_out": 0}, ["n_out is 0", "at least 1"]),
        # a value of the wrong type is not a missing key
        ({"type": "dense", "n_in": "784", "n_out": 10}, ["n_in is '784'", "whole number"]),
        ({"type": "dense", "n_in": 784.0, "n_out": 10}, ["n_in is 784.0", "whole number"]),
        ({"type": "dense", "n_in": 784, "n_out": None}, ["n_out is None", "whole number"]),
        ({"type": "dense", "n_in": 3, "n_out": 2, "bias": [0]}, ["Dense bias is [0]", "'zeros'"]),
        ({"type": "activation", "name": 5}, ["activation is 5", "'relu'"]),
    ],
    ids=str,
)
def test_bad_specs_are_value_errors(spec, parts):
    """A model file holds a spec, so whatever is in it must be a ValueError that says what is wrong."""
    with pytest.raises(ValueError) as error:
        layer_from_spec(spec)
    says(error, *parts)
