"""Metrics against scikit-learn's, with and without weights and ties; what they refuse, and `evaluate(metrics=)`."""

from __future__ import annotations

import warnings
from functools import partial

import numpy as np
import pytest
from refusals import says
from sklearn import metrics as sk

import xpnet
from xpnet import Dataset, Network, select_backend
from xpnet.training import metrics

CPU = select_backend("cpu", "float64")
CASES = [(n, tied, weighted) for n in (1, 2, 4) for tied in (False, True) for weighted in (False, True)]


def samples(n_outputs, tied, weighted, seed=0, n=60):
    """P, Y (n_outputs, n) and weights, of which some are 0; the labels, for scikit-learn."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(max(2, n_outputs), size=n)
    Y = labels[None].astype(float) if n_outputs == 1 else np.eye(n_outputs)[:, labels]
    P = rng.random((n_outputs, n)) + 0.3 * Y
    if tied:
        P = np.round(4 * P) / 4
    return P, Y, rng.integers(4, size=n) / 2 if weighted else None, labels


def agrees(found, expected):
    return type(found) is float and abs(found - expected) <= 1e-12


@pytest.mark.parametrize(("n", "tied", "weighted"), CASES)
def test_classes_as_scikit_learn_counts_them(n, tied, weighted):
    P, Y, w, labels = samples(n, tied, weighted)
    predicted = (P[0] > 0.5).astype(int) if n == 1 else P.argmax(axis=0)
    assert agrees(metrics.accuracy(P, Y, w), sk.accuracy_score(labels, predicted, sample_weight=w))
    np.testing.assert_allclose(
        metrics.confusion_matrix(P, Y, w), sk.confusion_matrix(labels, predicted, sample_weight=w), atol=1e-12
    )
    for ours, theirs in (
        (metrics.precision, sk.precision_score),
        (metrics.recall, sk.recall_score),
        (metrics.f1, sk.f1_score),
    ):
        for average in ("macro", "micro", "weighted", *(["binary"] if n <= 2 else [])):
            expected = theirs(labels, predicted, average=average, sample_weight=w, zero_division=0)
            assert agrees(ours(P, Y, w, average=average), expected), (ours, average)
        assert ours(P, Y, w) == ours(P, Y, w, average="binary" if n == 1 else "macro")


@pytest.mark.parametrize(("n", "tied", "weighted"), CASES)
def test_areas_and_ranks_as_scikit_learn_has_them(n, tied, weighted):
    P, Y, w, labels = samples(n, tied, weighted)
    expected = sk.roc_auc_score(labels if n == 1 else Y.T, P[0] if n == 1 else P.T, sample_weight=w)
    assert agrees(metrics.roc_auc(P, Y, w), expected)
    if n == 4:
        shares = P / P.sum(axis=0)
        expected = sk.roc_auc_score(labels, shares.T, multi_class="ovr", sample_weight=w)
        assert agrees(metrics.roc_auc(shares, Y, w), expected)
        for k in (1, 2, 3):
            expected = sk.top_k_accuracy_score(labels, P.T, k=k, sample_weight=w)
            assert agrees(metrics.top_k_accuracy(P, Y, w, k=k), expected)


@pytest.mark.parametrize(("n", "tied", "weighted"), CASES)
def test_errors_as_scikit_learn_has_them(n, tied, weighted):
    P, Y, w, _ = samples(n, tied, weighted)
    Y = 3 * Y + np.random.default_rng(5).standard_normal(Y.shape)
    Y[0, : 30 if n > 1 else 1] = 2.0
    for ours, theirs in (
        (metrics.r2, sk.r2_score),
        (metrics.mean_absolute_error, sk.mean_absolute_error),
        (metrics.mean_squared_error, sk.mean_squared_error),
        (metrics.root_mean_squared_error, sk.root_mean_squared_error),
    ):
        assert agrees(ours(P, Y, w), theirs(Y.T, P.T, sample_weight=w)), ours


@pytest.mark.parametrize("P", [[[2.0, 2.0, 2.0]], [[2.0, 2.0, 2.5]]])
def test_r2_of_a_constant(P):
    Y = np.full((1, 3), 2.0)
    assert metrics.r2(P, Y) == sk.r2_score(Y[0], P[0])


@pytest.mark.parametrize("weights", [None, [1.0, 1.0, 1.0, 0.0]])
def test_r2_knows_a_constant_whose_mean_is_rounded(weights):
    """Three times 0.1: there scikit-learn's score is the quotient of a residual and a rounding."""
    Y = np.array([[0.1, 0.1, 0.1] if weights is None else [0.1, 0.1, 0.1, 7.0]])
    assert metrics.r2(Y + 0.1, Y, weights) == 0.0 and metrics.r2(Y, Y, weights) == 1.0


@pytest.mark.parametrize("unit", [1e-200, 1e200, 1e307])
def test_r2_does_not_depend_on_the_unit(unit):
    Y, P = np.array([[1.0, 2.0, 3.0, 4.0]]), np.array([[1.0, 2.0, 3.0, 5.0]])
    assert metrics.r2(unit * P, unit * Y) == pytest.approx(0.8, rel=1e-12)  # 1 - 1 / 5


def test_r2_of_one_sample_is_nan_as_in_scikit_learn():
    with pytest.warns(UserWarning, match="not well-defined"):
        assert np.isnan(sk.r2_score([1.0], [2.0]))
    assert np.isnan(metrics.r2([[2.0]], [[1.0]]))


def test_weight_k_equals_k_copies():
    P, Y, _, _ = samples(4, True, False)
    times = np.random.default_rng(1).integers(4, size=60)
    for name, row in metrics.METRICS.items():
        metric = row.function
        repeated = metric(np.repeat(P, times, axis=1), np.repeat(Y, times, axis=1))
        assert agrees(metric(P, Y, times.astype(float)), repeated), name


def test_a_class_that_is_never_predicted_or_never_true_counts_0():
    P, Y = np.eye(3)[:, [0, 0, 1]], np.eye(3)[:, [0, 1, 1]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = sk.f1_score([0, 1, 1], [0, 0, 1], labels=range(3), average="macro", zero_division=0)
    assert agrees(metrics.f1(P, Y), expected)


def test_the_base_rate_is_the_mean_of_the_targets():
    """Tutorial 001: decision_boundary = np.average(y)."""
    P, Y = np.array([[0.1, 0.3, 0.26, 0.2]]), np.array([[0.0, 1.0, 0.0, 0.0]])
    assert metrics.precision(P, Y, threshold="base_rate") == 0.5  # the cut is 0.25: the third is called 1, too
    assert metrics.accuracy(P, Y) == metrics.accuracy(P, Y, threshold="base_rate") == 0.75
    assert metrics.accuracy(P, Y, threshold=0.28) == 1.0
    assert metrics.recall(P, Y, threshold="base_rate") == 1.0 and metrics.recall(P, Y) == 0.0
    w = np.array([1.0, 0.2, 1.0, 1.0])
    assert metrics.recall(P, Y, w, threshold="base_rate") == 1.0  # 0.2 / 3.2 now, and all lie above
    assert agrees(metrics.precision(P, Y, w, threshold="base_rate"), 0.2 / 3.2)


def test_no_area_without_both_classes():
    P = np.random.default_rng(0).random((1, 5))
    assert np.isnan(metrics.roc_auc(P, np.ones((1, 5)))) and np.isnan(metrics.roc_auc(P, np.zeros((1, 5))))


@pytest.mark.parametrize(
    ("call", "parts"),
    [
        (partial(metrics.accuracy, np.ones((2, 5)), np.ones((5, 2))), ["(2, 5)", "(5, 2)", "a sample is a column"]),
        (partial(metrics.r2, np.ones(5), np.ones(5)), ["(5,)", "(n_outputs, n_samples)"]),
        (
            partial(metrics.r2, np.full((1, 2), np.nan), np.ones((1, 2))),
            ["hold NaN or infinity", "needs finite numbers", "a lower learning rate, or remove the samples"],
        ),
        (
            partial(metrics.r2, np.ones((1, 2)), np.ones((1, 2)), np.ones(3)),
            ["weights is (3,)", "it must be (2,)", "one finite number >= 0 a sample"],
        ),
        (partial(metrics.r2, np.ones((1, 2)), np.ones((1, 2)), np.zeros(2)), ["weights", "not all zero"]),
        (
            partial(metrics.f1, np.ones((3, 2)), np.eye(3)[:, :2], average="binary"),
            ["average is 'binary'", "for 3 classes", "choose one of 'macro'"],
        ),
        (partial(metrics.f1, np.ones((3, 2)), np.eye(3)[:, :2], average="makro"), ["did you mean 'macro'?"]),
        (
            partial(metrics.f1, np.ones((3, 2)), np.ones((3, 2))),
            ["Y holds no classes", "it must be one-hot columns", "use labels of classes"],
        ),
        (
            partial(metrics.roc_auc, np.ones((1, 2)), np.full((1, 2), 0.5)),
            ["Y holds numbers other than 0 and 1", "roc_auc needs classes", "use labels of classes"],
        ),
        (partial(metrics.accuracy, np.ones((1, 2)), np.ones((1, 2)), threshold="base"), ["'base_rate'"]),
        (
            partial(metrics.top_k_accuracy, np.ones((3, 2)), np.eye(3)[:, :2], k=4),
            ["k is 4", "there are 3 outputs", "k must be at most the outputs, which must be at least 2"],
        ),
        (partial(metrics.top_k_accuracy, np.ones((1, 2)), np.ones((1, 2))), ["1 outputs", "at least 2"]),
    ],
)
def test_refusals(call, parts):
    with pytest.raises(ValueError) as error:
        call()
    says(error, *parts)


# evaluate(metrics=)


@pytest.mark.parametrize("weighted", [False, True])
def test_evaluate_measures_the_predictions(backend, weighted):
    rng = np.random.default_rng(3)
    n = 1500  # two chunks
    weights = rng.random(n) if weighted else None
    dataset = Dataset.from_labels(rng.integers(0, 256, (5, n), dtype=np.uint8), rng.integers(3, size=n), 3, weights)
    network = Network([5, 4, 3], backend=backend)
    found = xpnet.evaluate(network, dataset, metrics=("roc_auc", "f1"))
    assert found.keys() == {"loss", "n", "accuracy", "correct", "roc_auc", "f1"}
    assert {key: found[key] for key in found if key not in ("roc_auc", "f1")} == xpnet.evaluate(network, dataset)
    X = backend.to_device(dataset.X.astype(float) / 255)
    P = backend.to_host(network.predict(X)).astype(float)
    tolerance = 1e-12 if backend.dtype == np.float64 else 2e-3  # two float32 predictions may change places
    assert abs(found["roc_auc"] - sk.roc_auc_score(dataset.Y.T, P.T, sample_weight=weights)) <= tolerance
    expected = sk.f1_score(dataset.labels, P.argmax(axis=0), average="macro", sample_weight=weights)
    assert abs(found["f1"] - expected) <= tolerance


@pytest.mark.parametrize(("loss", "cut"), [("squared_error", 0.5), ("sigmoid_cross_entropy", 0.5), ("hinge", 0.0)])
def test_evaluate_cuts_a_single_output_where_the_loss_does(loss, cut):
    rng = np.random.default_rng(3)
    dataset = Dataset(rng.standard_normal((5, 80)), rng.integers(2, size=80))
    network = Network([5, 4, 1], loss=loss, backend=CPU, seed=2)
    found = xpnet.evaluate(network, dataset, metrics=["recall"])["recall"]
    assert found == sk.recall_score(dataset.labels, network.predict(np.array(dataset.X))[0] > cut)
    assert found == sk.recall_score(dataset.labels, network.classify(np.array(dataset.X)))


def test_evaluate_refuses_unknown_metrics():
    network, dataset = Network([2, 2], backend=CPU), Dataset.from_labels(np.ones((2, 3)), [0, 1, 1])
    with pytest.raises(ValueError) as error:
        xpnet.evaluate(network, dataset, metrics=("roc_auk",))
    says(error, "metric is 'roc_auk'", "did you mean 'roc_auc'?")
    with pytest.raises(TypeError) as error:
        xpnet.evaluate(network, dataset, metrics="f1")
    says(error, "metrics is the text 'f1'", "it must be a list of names", "metrics=('f1',)")


@pytest.mark.filterwarnings("ignore:the features are .* far outside")
def test_predictions_that_are_not_finite_do_not_end_a_sound_training(tmp_path):
    """The validation has a sample beyond what float32 can multiply."""
    rng = np.random.default_rng(3)
    X, Y = rng.standard_normal((3, 30)), rng.standard_normal((1, 30))
    far = X.copy()
    far[:, 0] = 3e38
    network = Network([3, 1], loss="squared_error", backend=select_backend("cpu", "float32"))
    network.parameters.weights[0][...] = 5.0
    stopping, file = xpnet.EarlyStopping(2, "val_r2"), xpnet.HistoryFile(tmp_path / "history.jsonl")
    with np.errstate(all="ignore"):
        history = xpnet.train(
            network,
            Dataset(X, Y),
            xpnet.SGD(0.01),
            epochs=5,
            validation=Dataset(far, Y),
            metrics=["r2", "mean_absolute_error"],
            callbacks=[stopping, file],
        )
    assert np.isnan(history.column("val_r2")).all() and np.isnan(history.column("val_mean_absolute_error")).all()
    assert history[-1]["stopped"] == "no better val_r2 in 2 epochs" and "chosen_epoch" not in history[-1]
    assert np.isfinite(history.column("train_loss")).all()
    assert '"val_r2": null' in (tmp_path / "history.jsonl").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", metrics.METRICS)
def test_no_scale_of_the_weights_changes_a_metric(name):
    """Their sum, or a product of two, may leave the range of floats."""
    rng = np.random.default_rng(0)
    P, Y, w = rng.random((3, 200)), np.eye(3)[rng.integers(3, size=200)].T, rng.integers(1, 9, 200) / 8
    expected = metrics.METRICS[name].function(P, Y, w)
    for size in (2.0**1023, 2.0**-300, 2.0**-1060):
        assert metrics.METRICS[name].function(P, Y, w * size) == pytest.approx(expected, rel=1e-13)
