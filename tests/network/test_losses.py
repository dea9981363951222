"""Losses as values: names, parameters and specs; weights as repetitions, in losses, gradients, training and metrics."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from refusals import says

import xpnet
from xpnet import SGD, Dataset, Huber, Network, SigmoidCrossEntropy, SoftmaxCrossEntropy, select_backend
from xpnet.network.losses import LOSSES, loss_of

CPU = select_backend("cpu", "float64")
VALUES = [*(make() for make in LOSSES.values()), Huber(2.0), SoftmaxCrossEntropy(0.1), SigmoidCrossEntropy(0.1)]


@pytest.mark.parametrize("loss", VALUES, ids=str)
def test_specs_go_through_json_and_back(loss):
    assert loss_of(json.loads(json.dumps(loss.to_spec()))) == loss
    with pytest.raises(dataclasses.FrozenInstanceError):
        loss.anything = 1


def test_specs_by_hand():
    """Plain names stay plain, so that older versions read the file; {"name": ...} holds what is not a default."""
    assert [make().to_spec() for make in LOSSES.values()] == list(LOSSES)
    assert loss_of("huber") == Huber() == Huber(delta=1) == loss_of({"name": "huber", "delta": 1.0})
    assert Huber(2).to_spec() == {"name": "huber", "delta": 2.0} and str(Huber(2)) == "huber(delta=2)"
    assert SoftmaxCrossEntropy(0.1).to_spec() == {"name": "softmax_cross_entropy", "smoothing": 0.1}
    network = Network([3, 2], loss=Huber(2.0), backend=CPU)
    assert repr(network) == "Network(3-2 linear, huber(delta=2); 8 parameters, cpu)"
    assert Network.from_spec(network.to_spec(), backend=CPU).architecture == network.architecture


def test_a_loss_with_parameters_is_saved_and_loaded(tmp_path):
    network = Network([3, 4], loss=SoftmaxCrossEntropy(smoothing=0.1), backend=CPU)
    network.save(tmp_path / "m")
    assert Network.load(tmp_path / "m", CPU).architecture.loss == SoftmaxCrossEntropy(0.1)


@pytest.mark.parametrize(
    ("make", "kind", "parts"),
    [
        (lambda: Huber(0), ValueError, ["delta of huber is 0", "of at least 1.17549e-38"]),
        (lambda: Huber(float("nan")), ValueError, ["delta of huber is nan", "a finite number"]),
        (
            lambda: Huber(1e-50),
            ValueError,
            ["delta of huber is 1e-50", "of at least 1.17549e-38", "1.0, which float32 can hold"],
        ),
        (
            lambda: Huber(1e300),
            ValueError,
            ["delta of huber is 1e+300", "at most 3.40282e+38", "1.0, which float32 can hold"],
        ),
        (lambda: Huber("1"), TypeError, ["delta of huber is '1'", "it must be a number"]),
        (lambda: Huber(True), TypeError, ["delta of huber is True", "it must be a number"]),
        (
            lambda: SoftmaxCrossEntropy(1.0),
            ValueError,
            ["smoothing of softmax_cross_entropy is 1", "of at least 0 and below 1"],
        ),
        (
            lambda: SigmoidCrossEntropy(-0.1),
            ValueError,
            ["smoothing of sigmoid_cross_entropy is -0.1", "at least 0 and below 1"],
        ),
        (
            lambda: SigmoidCrossEntropy(None),
            TypeError,
            ["smoothing of sigmoid_cross_entropy is None", "a number of at least 0"],
        ),
    ],
)
def test_refusals(make, kind, parts):
    with pytest.raises(kind) as error:
        make()
    says(error, *parts)


def network_for(loss, n_outputs=3):
    return Network(
        [4, 5, n_outputs], activation="tanh", output=loss.output or "identity", loss=loss, backend=CPU, seed=3
    )


def targets_for(loss, n_outputs, n_samples, rng):
    if loss.targets == "counts":
        return rng.poisson(2.0, (n_outputs, n_samples)).astype(float)
    if loss.targets in ("distributions", "classes"):
        return np.eye(n_outputs)[:, rng.integers(n_outputs, size=n_samples)]
    return rng.random((n_outputs, n_samples))


@pytest.mark.parametrize("loss", VALUES, ids=str)
def test_weight_k_equals_repeating_the_sample_k_times(loss):
    """In the loss, the gradient, a full-batch step, the evaluation and the metrics."""
    rng = np.random.default_rng(1)
    X, Y, times = rng.standard_normal((4, 9)), targets_for(loss, 3, 9, rng), np.array([3, 0, 1, 2, 1, 1, 0, 4, 1])
    repeated = np.repeat(X, times, axis=1), np.repeat(Y, times, axis=1)
    weights = times.astype(float)
    one, other = network_for(loss), network_for(loss)
    assert one.evaluate_loss(X, Y, weights) == pytest.approx(other.evaluate_loss(*repeated), rel=1e-13)
    gradients = one.gradients(X, Y, weights).flat, other.gradients(*repeated).flat
    np.testing.assert_allclose(*gradients, rtol=0, atol=1e-13 * abs(gradients[0]).max())
    for network, dataset in ((one, Dataset(X, Y, weights)), (other, Dataset(*repeated))):
        xpnet.train(network, dataset, SGD(lr=0.1), epochs=1)
    np.testing.assert_allclose(one.parameters.flat, other.parameters.flat, rtol=0, atol=1e-13)
    metrics = ["r2", "mean_absolute_error", "mean_squared_error"]
    if loss.targets in ("distributions", "classes"):
        metrics += ["roc_auc", "f1", "precision", "recall", "top_k_accuracy", "accuracy"]
    found = xpnet.evaluate(one, Dataset(X, Y, weights), metrics)
    expected = xpnet.evaluate(other, Dataset(*repeated), metrics)
    for name in found.keys() - {"n", "correct"}:  # these are counts of samples
        assert found[name] == pytest.approx(expected[name], rel=1e-12, abs=1e-12), name


@pytest.mark.parametrize("name", ["softmax_cross_entropy", "sigmoid_cross_entropy"])
def test_smoothing_is_that_of_the_targets(name):
    """A parameter of the loss in place of changed data: the loss reported is the smoothed one."""
    rng = np.random.default_rng(2)
    X, Y = rng.standard_normal((4, 9)), np.eye(3)[:, rng.integers(3, size=9)]
    smoothed = 0.8 * Y + 0.2 * (1 / 3 if name == "softmax_cross_entropy" else 0.5)
    plain, smoothing = network_for(loss_of(name)), network_for(loss_of({"name": name, "smoothing": 0.2}))
    np.testing.assert_allclose(smoothing.gradients(X, Y).flat, plain.gradients(X, smoothed).flat, rtol=0, atol=1e-15)
    found = xpnet.evaluate(smoothing, Dataset(X, Y))
    assert found["loss"] == pytest.approx(plain.evaluate_loss(X, smoothed), rel=1e-13)
    assert found["accuracy"] == xpnet.evaluate(plain, Dataset(X, Y))["accuracy"]


@pytest.mark.in_turn(loss=VALUES)
def test_training_lowers_every_loss_on_every_backend(backend, loss):
    rng = np.random.default_rng(4)
    X = rng.standard_normal((4, 40))
    Y = targets_for(loss, 3, 40, rng)
    network = Network([4, 8, 3], activation="silu", output=loss.output or "identity", loss=loss, backend=backend)
    history = xpnet.train(network, Dataset(X, Y), SGD(lr=0.02), epochs=5, batch_size=7)
    assert history[-1]["train_loss"] < history[0]["train_loss"]


@pytest.mark.parametrize(
    ("loss", "Y", "parts"),
    [
        ("poisson", -1.0, ["poisson needs targets of at least 0", "has -1", "loss='squared_error'"]),
        ("hinge", 0.5, ["hinge needs targets 0 and 1 only", "has others between", "use labels of classes"]),
        ("hinge", -1.0, ["hinge needs targets from 0 to 1", "has -1 to -1", "use labels of classes"]),
        ("sigmoid_cross_entropy", 2.0, ["sigmoid_cross_entropy needs targets from 0 to 1"]),
        (
            "negative_log_likelihood",
            1.0,
            ["negative_log_likelihood needs", "of each sample to sum to 1", "use labels of classes"],
        ),
    ],
)
def test_targets_that_a_loss_cannot_take(loss, Y, parts):
    dataset = Dataset(np.ones((4, 5)), np.full((3, 5), Y))
    with pytest.raises(ValueError) as error:
        xpnet.evaluate(network_for(loss_of(loss)), dataset)
    says(error, *parts)


@pytest.mark.parametrize("loss", ["squared_error", "absolute_error", "huber"])
def test_losses_of_numbers_take_all(loss):
    xpnet.evaluate(network_for(loss_of(loss)), Dataset(np.ones((4, 5)), np.full((3, 5), -7.5)))


def test_predictions_behind_the_link():
    X = np.random.default_rng(0).standard_normal((4, 5))
    for loss in ("poisson", "negative_log_likelihood"):
        network = network_for(loss_of(loss))
        np.testing.assert_allclose(network.predict(X), np.exp(network.forward(X)), rtol=1e-14)
    network = network_for(loss_of("hinge"), n_outputs=1)
    np.testing.assert_array_equal(network.predict(X), network.forward(X))
    np.testing.assert_array_equal(network.classify(X), (network.forward(X)[0] > 0).astype(int))
