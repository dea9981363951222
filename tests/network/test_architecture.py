"""Three ways to say what a network is, one internal form, and everything that cannot work."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import pytest
from refusals import says

from xpnet import Activation, Dense, Huber, Network, select_backend
from xpnet.network.architecture import Architecture

CPU = select_backend("cpu")
SPEC = {
    "format": 1,
    "loss": "softmax_cross_entropy",
    "layers": [
        {"type": "dense", "n_in": 784, "n_out": 100, "init": "he", "bias": "zeros"},
        {"type": "activation", "name": "relu"},
        {"type": "dense", "n_in": 100, "n_out": 10, "init": "glorot", "bias": "zeros"},
    ],
}
make = partial(Network, backend=CPU)


def changed(**keys):
    return {**SPEC, **keys}


# Three ways in, one form


def test_three_ways_in_give_the_same_network():
    networks = [
        make([784, 100, 10]),
        make([784, 100, 10], activation="relu", output="identity", loss="softmax_cross_entropy"),
        make((np.int64(784), 100, 10), activation=["relu"]),
        make([Dense(784, 100), Activation("relu"), Dense(100, 10)]),
        make([Dense(784, 100, init="he"), Activation("relu"), Dense(100, 10, init="glorot")]),
        Network.from_spec(SPEC, backend=CPU),
        Network.from_spec(json.loads(json.dumps(SPEC)), backend=CPU),
    ]
    for network in networks:
        assert network.to_spec() == SPEC
        assert network.architecture == networks[0].architecture
        np.testing.assert_array_equal(network.parameters.flat, networks[0].parameters.flat)


@pytest.mark.parametrize(
    "architecture",
    [
        Architecture.of_sizes([3, 2], "relu", "identity", None, "softmax_cross_entropy"),
        Architecture.of_sizes([3, 4, 5, 1], ["tanh", "sigmoid"], "sigmoid", "normal", "squared_error"),
        Architecture((Dense(3, 2, bias=0.5), Activation("identity"), Activation("tanh")), "squared_error"),
        Architecture((Dense(3, 4), Dense(4, 2, bias="normal"), Activation("identity")), "sigmoid_cross_entropy"),
        Architecture((Dense(3, 2),), Huber(2.5)),
        Architecture((Dense(3, 2), Activation("log_softmax")), "negative_log_likelihood"),
    ],
    ids=str,
)
def test_specs_go_through_json_and_back(architecture):
    assert Architecture.from_spec(json.loads(json.dumps(architecture.to_spec()))) == architecture


def test_sizes_of_numpy_make_a_spec_of_python_ints():
    """A width computed with NumPy must be saved like any other, and must not overflow in 32 bits."""
    network = make([Dense(np.int32(3), np.int64(2))])
    assert json.loads(json.dumps(network.to_spec()))["layers"][0]["n_in"] == 3
    with pytest.raises(ValueError, match="the network has 4,900,070,016 parameters"):
        Architecture((Dense(np.int32(70000), np.int32(70000)),), "squared_error")


def test_one_activation_for_each_hidden_layer():
    architecture = Architecture.of_sizes([3, 4, 5, 2], ["tanh", "relu"], "sigmoid", "normal", "squared_error")
    assert architecture.layers == (
        Dense(3, 4, init="normal"),
        Activation("tanh"),
        Dense(4, 5, init="normal"),
        Activation("relu"),
        Dense(5, 2, init="normal"),
        Activation("sigmoid"),
    )


def test_identity_between_sizes_adds_no_layer():
    architecture = Architecture.of_sizes([3, 4, 2], "identity", "identity", None, "squared_error")
    assert [layer.type for layer in architecture.layers] == ["dense", "dense"]


def test_sizes_and_places():
    architecture = Architecture.of_sizes([784, 100, 200, 10], "relu", "identity", None, "softmax_cross_entropy")
    assert (architecture.n_inputs, architecture.n_outputs) == (784, 10)
    assert [i for i, _ in architecture.dense] == [0, 2, 4]
    assert [place.shape for place in architecture.layout.places] == [
        (100, 784),
        (100, 1),
        (200, 100),
        (200, 1),
        (10, 200),
        (10, 1),
    ]
    assert str(architecture) == "784-100-200-10 relu, softmax_cross_entropy"
    assert str(Architecture.of_sizes([3, 2], "relu", "identity", None, "squared_error")) == "3-2 linear, squared_error"


@pytest.mark.parametrize(
    ("layers", "inits"),
    [
        ((Dense(3, 4), Activation("relu"), Dense(4, 2)), ["he", "glorot"]),
        ((Dense(3, 4), Activation("tanh"), Dense(4, 2), Activation("relu")), ["glorot", "he"]),
        ((Dense(3, 4), Activation("sigmoid"), Dense(4, 2), Activation("tanh")), ["glorot", "glorot"]),
        ((Dense(3, 4), Dense(4, 2)), ["glorot", "glorot"]),
        ((Dense(3, 4), Activation("leaky_relu"), Dense(4, 2), Activation("gelu")), ["he", "he"]),
        ((Dense(3, 4), Activation("selu"), Dense(4, 2), Activation("hard_sigmoid")), ["lecun", "glorot"]),
        ((Dense(3, 4, init="normal"), Activation("relu"), Dense(4, 2, init="he")), ["normal", "he"]),
    ],
    ids=str,
)
def test_the_default_initialiser_follows_the_activation(layers, inits):
    architecture = Architecture(layers, "squared_error")
    assert [layer.init for _, layer in architecture.dense] == inits
    assert layers[0].init in (None, "normal")  # what was passed is left as it was


# Refusals


@pytest.mark.parametrize(
    ("make", "error", "parts"),
    [
        # mixtures of the three
        (partial(make, [784, Dense(100, 10)]), TypeError, ["['Dense', 'int']", "only sizes", "Network.from_spec"]),
        (partial(make, [Dense(3, 2), {"type": "activation"}]), TypeError, ["'dict'", "Network.from_spec"]),
        (partial(make, [3, True]), TypeError, ["'bool'", "only sizes"]),
        (partial(make, [3, 2.0]), TypeError, ["'float'", "only sizes"]),
        (partial(make, ["784", "10"]), TypeError, ["'str'", "only sizes"]),
        (
            partial(make, SPEC),
            TypeError,
            ["layers is a dict", "it must be sizes such as [784, 100, 10]", "Network.from_spec(spec)"],
        ),
        (partial(make, "784,10"), TypeError, ["layers is a str", "[784, 100, 10]"]),
        (partial(make, 784), TypeError, ["layers is a int", "[784, 100, 10]"]),
        (
            partial(make, [Dense(3, 2)], activation="relu"),
            ValueError,
            ["activation='relu' goes with sizes", "with layers, put it into them", 'Activation("relu")'],
        ),
        (partial(make, [Dense(3, 2)], output="tanh"), ValueError, ["output='tanh'", "Activation("]),
        (partial(make, [Dense(3, 2)], init="he"), ValueError, ["init='he'", 'Dense(784, 100, init="he")']),
        # sizes
        (
            partial(make, []),
            ValueError,
            ["layers is []", "it must hold at least inputs and outputs", "such as [784, 10]"],
        ),
        (partial(make, [784]), ValueError, ["layers is [784]", "[784, 10]"]),
        (partial(make, [784, 0, 10]), ValueError, ["n_out is 0", "at least 1"]),
        (partial(make, [-3, 2]), ValueError, ["n_in is -3", "at least 1"]),
        (partial(make, [10**6, 10**6, 10]), ValueError, ["parameters", "2,147,483,647", "narrower"]),
        (partial(make, [784, 10**30]), ValueError, ["parameters", "2,147,483,647", "narrower"]),
        (
            partial(make, [3, 4, 2], activation=["relu", "tanh"]),
            ValueError,
            ["2 names for 1 hidden", "give one name for all", "or one per hidden layer", "`output`"],
        ),
        (partial(make, [3, 2], activation=["relu"]), ValueError, ["1 names for 0 hidden", "`output`"]),
        # names
        (partial(make, [3, 4, 2], activation="rleu"), ValueError, ["'rleu'", "did you mean 'relu'?"]),
        (partial(make, [3, 2], activation="rleu"), ValueError, ["'rleu'", "did you mean 'relu'?"]),
        (partial(make, [3, 2], output="softmax"), ValueError, ["output is 'softmax'", "'identity'"]),
        (partial(make, [3, 2], init="hee"), ValueError, ["'hee'", "did you mean 'he'?"]),
        (partial(make, [3, 2], loss="crossentropy"), ValueError, ["loss is 'crossentropy'", "did you mean"]),
        (partial(make, [3, 2], seed=-1), ValueError, ["seed is -1", "at least 0"]),
        # layers that do not fit
        (partial(make, [Activation("relu")]), ValueError, ["first layer must be Dense", "Dense(n_in, n_out)"]),
        (
            partial(make, [Dense(3, 4), Activation("relu"), Dense(5, 2)]),
            ValueError,
            ["Dense(5, 2)", "4 outputs", "Dense(4, 2)"],
        ),
        # losses and what they need
        (
            partial(make, [3, 2], output="sigmoid"),
            ValueError,
            ["softmax_cross_entropy", "output='identity'", "'sigmoid'", "loss='squared_error'"],
        ),
        (
            partial(make, [Dense(3, 2), Activation("tanh")], loss="sigmoid_cross_entropy"),
            ValueError,
            ["sigmoid_cross_entropy", "output='identity'", "'tanh'", "loss='squared_error'"],
        ),
        (
            partial(make, [Dense(3, 2), Activation("relu"), Activation("identity")]),
            ValueError,
            ["softmax_cross_entropy", "'relu'"],
        ),
        (partial(make, [3, 4, 1]), ValueError, ["1 output", "sigmoid_cross_entropy", "2 outputs"]),
        (partial(make, [3, 2], loss="poisson", output="relu"), ValueError, ["poisson", "output='identity'", "'relu'"]),
        (
            partial(make, [3, 2], loss="negative_log_likelihood"),
            ValueError,
            ["output='log_softmax'", "'identity'", "loss='softmax_cross_entropy'"],
        ),
        (
            partial(make, [3, 1], loss="negative_log_likelihood", output="log_softmax"),
            ValueError,
            ["negative_log_likelihood on 1 output"],
        ),
        (
            partial(make, [3, 2], loss=Huber),
            ValueError,
            ["loss is the class Huber", "it must be an instance", "Huber()"],
        ),
    ],
)
def test_refusals(make, error, parts):
    with pytest.raises(error) as raised:
        make()
    says(raised, *parts)


@pytest.mark.parametrize(
    ("spec", "parts"),
    [
        ([784, 10], ["the spec is a list", "dict"]),
        (None, ["the spec is a NoneType", "dict"]),
        ({}, ["format", "None", "format 1"]),
        (changed(format=2), ["format 2", "reads format 1"]),
        (changed(format="1"), ["format '1'", "reads format 1"]),
        (changed(format=True), ["format True", "reads format 1"]),
        (changed(lost="softmax_cross_entropy"), ["key of the spec is 'lost'", "did you mean 'loss'?"]),
        (changed(optimizer="sgd"), ["key of the spec is 'optimizer'", "'format', 'loss', 'layers'"]),
        ({key: SPEC[key] for key in ("format", "layers")}, ["loss is None", "'squared_error'"]),
        ({key: SPEC[key] for key in ("format", "loss")}, ["layers", "None", "list of dicts"]),
        (changed(loss={"name": "hubr"}), ["loss is 'hubr'", "did you mean 'huber'?"]),
        (changed(loss={"name": ["huber"]}), ["loss is ['huber']", "'huber'"]),
        (changed(loss={"delta": 1.0}), ["loss is None", "'huber'"]),
        (changed(loss={"name": "huber", "detla": 1.0}), ["key of a huber loss is 'detla'", "did you mean 'delta'?"]),
        (
            changed(loss={"name": "huber", "delta": "1"}),
            ["delta of huber is '1'", "it must be a number of at least 1.17549e-38"],
        ),
        (
            changed(loss={"name": "huber", "delta": 10**400}),
            ["delta of huber is", "a finite number of at least 1.17549e-38"],
        ),
        (changed(loss={"name": "softmax_cross_entropy", "smoothing": 1}), ["smoothing", "of at least 0 and below 1"]),
        (changed(loss="softmax"), ["loss is 'softmax'", "did you mean 'softmax_cross_entropy'?"]),
        (changed(layers=[]), ["first layer must be Dense"]),
        (changed(layers="relu"), ["layers of the spec is 'relu'", "list of dicts"]),
        (changed(layers=[784, 10]), ["a layer of the spec is 784", "dict"]),
        (changed(layers=SPEC["layers"][::-1]), ["Dense(784, 100)", "10 outputs", "Dense(10, 100)"]),
        (changed(layers=[*SPEC["layers"], {"type": "activation", "name": "relu"}]), ["output='identity'", "'relu'"]),
        (changed(layers=[{"type": "dense", "n_in": 10**9, "n_out": 10**9}]), ["parameters", "narrower"]),
        (changed(layers=[{"type": "dense", "n_in": 5, "n_out": 1}]), ["1 output", "sigmoid_cross_entropy"]),
    ],
)
def test_bad_specs_are_value_errors(spec, parts):
    """A model file holds a spec: nothing in one may end in another error than ValueError."""
    with pytest.raises(ValueError) as raised:
        Network.from_spec(spec, backend=CPU)
    says(raised, *parts)


@pytest.mark.full
def test_a_long_chain_is_settled_in_one_pass():
    """A hostile model file may hold a hundred thousand layers without initialisers."""
    layers = tuple(Dense(1, 1) for _ in range(20_000))
    assert {layer.init for layer in Architecture(layers, "squared_error").layers} == {"glorot"}


@pytest.mark.parametrize("activation", [np.tanh, 3])
def test_an_activation_that_is_no_name_is_refused(activation):
    with pytest.raises(TypeError) as refusal:
        Architecture.of_sizes([2, 3, 1], activation, "identity", None, "squared_error")
    says(refusal, f"activation is {activation!r}", "'relu'", "CustomActivation")
