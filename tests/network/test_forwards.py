"""Predictions by machine code: right, as many as there are threads, and compiled once that is repaid, by counts."""

from __future__ import annotations

import copy
import pickle
import sys
import threading

import numpy as np
import pytest

import xpnet
from xpnet import Dataset, Network
from xpnet.engines import choice
from xpnet.engines.llvm import forward
from xpnet.network import forwards

RNG = np.random.default_rng(0)
COUNTS = [1, 2, 255, 257, 700]


@pytest.fixture
def at_once(monkeypatch):
    """Has every prediction compiled."""
    pytest.importorskip("llvmlite")
    monkeypatch.setattr(forwards, "compiling_cost", lambda program: 0.0)


def compiled(network, X, method="predict"):
    """Return what a method of a network returns by machine code."""
    found = getattr(network, method)(X)
    assert any(loss.code for loss in network.forwards._losses.values())
    return found


def reference(network, X, method="predict"):
    """Return the same in float64, replayed."""
    other = Network(network.layers, loss=network.architecture.loss, device="cpu", dtype="float64")
    other.owned[...] = network.owned
    with other.forwards.replayed():
        return getattr(other, method)(X.astype(float))


WIDE = {"layers": [20, 64, 64, 3]}
NETWORKS = [
    pytest.param({"layers": [5, 7, 3]}, id="narrow", marks=pytest.mark.full),
    pytest.param(WIDE, id="wide", marks=pytest.mark.full),
    pytest.param({"layers": [5, 7, 1], "loss": "sigmoid_cross_entropy"}, id="binary", marks=pytest.mark.full),
    pytest.param(
        {"layers": [5, 9, 2], "activation": "tanh", "normalization": "batch", "dropout": 0.3, "loss": "squared_error"},
        id="normalized",
        marks=pytest.mark.full,
    ),
    pytest.param({"layers": [5, 7, 3], "normalization": "layer", "dtype": "float64"}, id="64", marks=pytest.mark.full),
]


def test_predictions_are_right_at_every_number_of_samples(at_once, monkeypatch):
    monkeypatch.setattr(forward, "FEW_NUMBERS", 1000)  # so that 255 rows of a block are read where they lie
    check_predictions({"layers": [5, 7, 3]}, ["predict"])


@pytest.mark.full
def test_predictions_by_products_of_blas_are_right(at_once, monkeypatch):
    monkeypatch.setattr(forward, "BLOCK_LEAST_FLOPS", 6e5)
    check_predictions(WIDE, ["predict"])


@pytest.mark.parametrize("options", NETWORKS)
def test_predictions_of_other_networks_are_right(options, at_once):
    check_predictions(options, ["predict", "forward"])


def check_predictions(options, methods):
    network = Network(device="cpu", seed=3, **options)
    network.owned[...] += RNG.uniform(0.1, 0.3, network.owned.shape)  # biases and statistics too
    X = RNG.standard_normal((network.architecture.n_inputs, max(COUNTS))).astype(network.backend.dtype)
    bound = 1e-12 if network.backend.dtype == np.float64 else 2e-5
    for method in methods:
        expected = reference(network, X, method)
        scale = abs(expected).max()
        for n in COUNTS:
            whole = np.asfortranarray(X[:, :n])
            whole.setflags(write=False)
            for given in (X[:, :n], whole):  # rows that are strided, and rows in a piece that may not be written
                assert abs(compiled(network, given, method) - expected[:, :n]).max() <= bound * scale
    np.testing.assert_array_equal(network.classify(X), reference(network, X, "classify"))


def test_results_are_the_callers_own_and_follow_the_weights(at_once):
    network = Network([5, 7, 3], device="cpu")
    X = RNG.standard_normal((5, 300)).astype(np.float32)
    for n in (1, 300):
        first = compiled(network, X[:, :n])
        kept = first.copy()
        second = network.predict(2 * X[:, :n])
        np.testing.assert_array_equal(first, kept)
        second[...] = 0.0
        np.testing.assert_array_equal(network.predict(X[:, :n]), kept)
    network.owned[...] *= 2.0
    assert abs(network.predict(X) - reference(network, X)).max() < 1e-6
    for made in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        made.owned[...] = 0.0
        np.testing.assert_allclose(made.predict(X), 1 / 3, rtol=1e-6)


def test_a_nan_and_an_infinity_come_through(at_once):
    network = Network([5, 7, 3], device="cpu")
    X = np.ones((5, 3), np.float32)
    X[2, 1], X[1, 2] = np.nan, np.inf
    assert np.isnan(compiled(network, X)).all(axis=0).tolist() == [False, True, True]


def test_threads_share_code_and_no_memory(at_once, monkeypatch):
    monkeypatch.setattr(forwards, "_n_threads", lambda code, n_samples: 3)
    network = Network([5, 7, 3], device="cpu")
    X = RNG.standard_normal((5, 1100)).astype(np.float32)
    expected = compiled(network, X)
    assert abs(expected - reference(network, X)).max() < 1e-6
    wrong = []

    def predicts(n):
        wrong.extend(n for _ in range(30) if not np.array_equal(network.predict(X[:, :n]), expected[:, :n]))

    threads = [threading.Thread(target=predicts, args=(n,)) for n in (1100, 512, 256)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len({id(loss.code) for loss in network.forwards._losses.values()}) == 1


@pytest.fixture
def asked(monkeypatch):
    """Lists how the code of forward passes is asked for; there is none."""
    asks = []

    def none(program, backend):
        asks.append(program.capacity)

    monkeypatch.setattr(forwards, "forward_code", none)
    return asks


def test_what_replay_has_lost_decides_by_counts(asked, monkeypatch):
    monkeypatch.setattr(forwards, "compiling_gain", lambda program: 1.0)
    monkeypatch.setattr(forwards, "compiling_cost", lambda program: 100.0)
    network, X = Network([5, 3], device="cpu"), np.ones((5, 2000), np.float32)
    for _ in range(33):
        network.predict(X[:, :1000]), network.forward(X[:, :1]), network.predict(X)  # one step, one and two
    assert not asked  # 99 of 100
    network.predict(X)
    assert asked == [256]
    for _ in range(66):
        network.forward(X[:, :1])
    assert asked == [256]
    for _ in range(200):
        network.predict(X), network.forward(X[:, :1])
    assert asked == [256, 1]  # each kind, and one sample, by itself, and never again


def test_a_first_prediction_compiles_nothing(asked):
    network = Network([64, 100, 10], device="cpu")
    for n in (1, 32, 10_000):
        network.predict(np.ones((64, n), np.float32))
    assert not asked


def test_predictions_of_a_training_are_replayed_and_not_counted(asked, monkeypatch):
    monkeypatch.setattr(forwards, "compiling_cost", lambda program: 0.0)
    network = Network([5, 3], device="cpu")
    dataset = Dataset.from_labels(RNG.random((5, 30)), RNG.integers(0, 3, 30), 3)

    class Predicts(xpnet.Callback):
        def on_epoch_end(self, record, network):
            network.predict(dataset.X.astype(np.float32))

    options = {"epochs": 2, "validation": dataset, "metrics": ("f1",), "callbacks": [Predicts()], "progress": False}
    xpnet.train(network, dataset, xpnet.SGD(0.1), **options)
    assert not asked
    network.predict(np.ones((5, 4), np.float32))
    assert asked == [256]


def test_without_a_compiler_or_with_calls_that_cannot_be_printed_all_is_replayed(monkeypatch):
    monkeypatch.setattr(forwards, "compiling_cost", lambda program: 0.0)
    X = np.ones((5, 4), np.float32)
    for name, failure in (("_is_installed", None), ("forward_text", choice.CannotPrint("a word"))):

        def fails(*given, failure=failure):
            if failure is not None:
                raise failure
            return False

        with monkeypatch.context() as patch:
            patch.setattr(choice, name, fails)
            network = Network([5, 3], device="cpu")
            first = network.predict(X)
            np.testing.assert_array_equal(network.predict(X), first)
            assert [loss.code for loss in network.forwards._losses.values()] == [None]


def test_an_activation_that_asks_for_the_number_of_samples_is_replayed(at_once):
    def forward(xp, Z, out):
        xp.multiply(Z, 1.0 / Z.shape[1], out=out)

    share = xpnet.CustomActivation("share", forward, lambda xp, A, dA, out: xp.multiply(dA, 1.0 / A.shape[1], out=out))
    network, X = Network([5, 3, 2], activation=share, loss="squared_error", device="cpu"), np.ones((5, 7), np.float32)
    np.testing.assert_allclose(network.predict(X), reference(network, X), rtol=1e-6)
    np.testing.assert_allclose(network.predict(X), reference(network, X), rtol=1e-6)
    assert [loss.code for loss in network.forwards._losses.values()] == [None]


def python_calls(function):
    """Return how many Python functions a call enters."""
    entered = []
    sys.setprofile(lambda frame, event, argument: entered.append(event) if event == "call" else None)
    try:
        function()
    finally:
        sys.setprofile(None)
    return len(entered)


def test_a_prediction_of_one_row_enters_few_functions(at_once):
    network, x = Network([5, 7, 3], device="cpu"), np.ones((5, 1), np.float32)
    with network.forwards.replayed():
        network.predict(x)
        assert python_calls(lambda: network.predict(x)) <= 40
    compiled(network, x)
    assert network.forwards.run("predict", x) is not None
    assert python_calls(lambda: network.predict(x)) <= 22
