"""The estimators against scikit-learn's own, and in its company: pipelines, searches, pickles, frames, sparse rows.

Where both shuffle nothing and start from the same weights, the two must agree number by number.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
import tracemalloc
import warnings

import fakecupy
import numpy as np
import pandas as pd
import pytest
import sklearn
from refusals import refusal, says
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_digits, load_iris, make_multilabel_classification
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import get_scorer, roc_auc_score
from sklearn.model_selection import GridSearchCV, cross_val_score, cross_validate
from sklearn.neural_network import MLPClassifier as TheirClassifier
from sklearn.neural_network import MLPRegressor as TheirRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, scale

import xpnet
from xpnet import MLPClassifier, MLPRegressor, from_sklearn
from xpnet.engines.llvm import native
from xpnet.engines.llvm.epochs import Epochs
from xpnet.engines.llvm.step import StepPrinter
from xpnet.engines.replay import EpochsInTurn
from xpnet.estimators import base
from xpnet.estimators.inputs import split
from xpnet.program.recorder import Recorder
from xpnet.training import ahead

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

IRIS_X, IRIS_Y = scale(load_iris().data), load_iris().target
DIABETES_X, DIABETES_Y = scale(load_diabetes().data), scale(load_diabetes().target)
BINARY_Y = np.where(IRIS_Y == 0, "setosa", "other")
LABELS_X, LABELS_Y = make_multilabel_classification(120, 10, n_classes=4, random_state=0)


def both(ours, theirs, X, y, sample_weight=None, **settings):
    """Fit xpnet's and scikit-learn's estimator with the same settings and return them."""
    settings = {"random_state": 3, "max_iter": 8, "hidden_layer_sizes": (12, 7)} | settings
    return [kind(**settings).fit(X, y, sample_weight) for kind in (ours, theirs)]


def outputs(estimator, X):
    return estimator.predict_proba(X) if hasattr(estimator, "predict_proba") else estimator.predict(X)


# --- the same numbers as scikit-learn's ------------------------------------------------------------------------------


@pytest.mark.full
@pytest.mark.parametrize(
    "settings",
    [
        {"solver": "sgd", "alpha": 0.5, "batch_size": 64},  # the last batch is short: the penalty goes by its samples
        {"solver": "sgd", "nesterovs_momentum": False, "activation": "logistic"},
        {"solver": "sgd", "momentum": 0.0, "activation": "tanh", "hidden_layer_sizes": 5},
        {"solver": "adam", "activation": "identity", "alpha": 0.1, "epsilon": 1e-12},
        {"solver": "adam", "activation": "logistic", "hidden_layer_sizes": ()},  # whose first weights go by it too
        {"solver": "lbfgs", "alpha": 0.3, "max_iter": 15},
        {"solver": "sgd", "early_stopping": True, "batch_size": 50},
        {
            "solver": "sgd",
            "learning_rate": "adaptive",
            "learning_rate_init": 0.5,
            "momentum": 0.0,
            "max_iter": 60,
            "n_iter_no_change": 2,
            "tol": 0.01,
        },
        {"solver": "sgd", "learning_rate": "invscaling", "learning_rate_init": 0.5, "momentum": 0.0},
    ],
)
@pytest.mark.parametrize("data", ["classes", "two classes", "labels", "numbers"])
def test_trains_as_scikit_learn_does(settings, data):
    kinds = (MLPRegressor, TheirRegressor) if data == "numbers" else (MLPClassifier, TheirClassifier)
    X, y = {
        "classes": (IRIS_X, IRIS_Y),
        # early stopping of scikit-learn 1.7 takes no texts
        "two classes": (IRIS_X, (IRIS_Y == 0) * 1 if "early_stopping" in settings else BINARY_Y),
        "labels": (LABELS_X / 10, LABELS_Y),
        "numbers": (DIABETES_X, DIABETES_Y),
    }[data]
    ours, theirs = both(*kinds, X, y, shuffle=False, **settings)
    np.testing.assert_allclose(outputs(ours, X), outputs(theirs, X), rtol=0, atol=1e-7)
    if data != "numbers":
        np.testing.assert_array_equal(ours.predict(X), theirs.predict(X))
    for name in ("n_iter_", "n_layers_", "n_outputs_", "out_activation_", "n_features_in_"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert [W.shape for W in ours.coefs_] == [W.shape for W in theirs.coefs_]
    for found, needed in zip(ours.intercepts_, theirs.intercepts_, strict=True):
        np.testing.assert_allclose(found, needed, atol=1e-6)
    if settings["solver"] != "lbfgs":
        np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, rtol=1e-7)
        assert ours.best_loss_ == pytest.approx(theirs.best_loss_)
        assert ours.t_ == theirs.t_
    if settings.get("early_stopping"):
        np.testing.assert_allclose(ours.validation_scores_, theirs.validation_scores_, atol=1e-9)
        assert ours.best_validation_score_ == pytest.approx(theirs.best_validation_score_)
    assert ours.score(X, y) == pytest.approx(theirs.score(X, y))


@pytest.mark.parametrize(("solver", "batch_size"), [("sgd", 150), ("sgd", 32), ("adam", 40), ("lbfgs", 150)])
def test_sample_weights_as_in_scikit_learn(solver, batch_size):
    weights = np.random.default_rng(0).uniform(0.0, 4.0, len(IRIS_X))
    settings = {"solver": solver, "alpha": 0.5, "shuffle": False, "batch_size": batch_size}
    ours, theirs = both(MLPClassifier, TheirClassifier, IRIS_X, IRIS_Y, weights, **settings)
    np.testing.assert_allclose(ours.predict_proba(IRIS_X), theirs.predict_proba(IRIS_X), atol=1e-6)
    if solver != "lbfgs":
        np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, rtol=1e-9)
        assert ours.best_loss_ == pytest.approx(theirs.best_loss_, rel=1e-9)


@pytest.mark.parametrize("epsilon", [1e-8, 1e-3])
def test_epsilon_of_adam_is_that_of_scikit_learn(epsilon):
    """It is added to the uncorrected root, which at the first steps is a thirtieth of the corrected one."""
    settings = {"solver": "adam", "epsilon": epsilon, "shuffle": False, "max_iter": 40}
    ours, theirs = both(MLPRegressor, TheirRegressor, DIABETES_X, DIABETES_Y, **settings)
    for found, needed in zip(ours.coefs_, theirs.coefs_, strict=True):
        np.testing.assert_allclose(found, needed, rtol=0, atol=1e-9)


@pytest.mark.full
@pytest.mark.parametrize("solver", ["sgd", "adam"])
def test_alpha_does_not_depend_on_the_weights_of_other_calls(solver):
    """Nor on those of a fit before."""
    weights = np.random.default_rng(0).uniform(0.0, 2e-3, len(IRIS_X))
    ours, theirs = (
        kind(solver=solver, alpha=0.1, random_state=0, shuffle=False, batch_size=40, max_iter=2)
        for kind in (MLPClassifier, TheirClassifier)
    )
    for given in (weights, None, None, 1e4 * weights, None):
        ours.partial_fit(IRIS_X, IRIS_Y, given, classes=[0, 1, 2])
        theirs.partial_fit(IRIS_X, IRIS_Y, sample_weight=given, classes=[0, 1, 2])
    ours.set_params(alpha=0.3).partial_fit(IRIS_X, IRIS_Y), theirs.set_params(alpha=0.3).partial_fit(IRIS_X, IRIS_Y)
    np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, rtol=1e-9)
    for found, needed in zip(ours.coefs_, theirs.coefs_, strict=True):
        np.testing.assert_allclose(found, needed, rtol=0, atol=1e-9)
    for kind in (ours, theirs):
        kind.set_params(max_iter=3).fit(IRIS_X, IRIS_Y, weights).partial_fit(IRIS_X, IRIS_Y)
        kind.set_params(alpha=0.0).partial_fit(IRIS_X, IRIS_Y).set_params(alpha=0.2).partial_fit(IRIS_X, IRIS_Y)
    np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, rtol=1e-9)
    np.testing.assert_allclose(ours.predict_proba(IRIS_X), theirs.predict_proba(IRIS_X), atol=1e-9)
    assert ours.best_loss_ == ours.loss_  # of the samples of the last call alone


@pytest.mark.parametrize("way", ["sgd", "lbfgs", "partial_fit"])
def test_alpha_by_weights_of_any_size(way):
    """Weights of 1e308 count as if there was no penalty, such as weights of 1e300; ever smaller ones end in words."""
    weights = np.random.default_rng(0).uniform(0.5, 1.0, len(IRIS_X))

    def fitted(size, **settings):
        solver = way if way == "lbfgs" else "sgd"
        model = MLPClassifier((5,), solver=solver, random_state=0, max_iter=3, **{"alpha": 0.1} | settings)
        if way != "partial_fit":
            return model.fit(IRIS_X, IRIS_Y, size * weights)
        return model.partial_fit(IRIS_X, IRIS_Y, size * weights, classes=[0, 1, 2])

    for found, needed in zip(fitted(1e308).coefs_, fitted(1.0, alpha=0.0).coefs_, strict=True):
        np.testing.assert_allclose(found, needed, rtol=1e-9)
    # a mean of 7.6e307 is one, and not infinity
    for found, needed in zip(fitted(1e308, alpha=1e307).coefs_, fitted(1.0, alpha=0.1).coefs_, strict=True):
        np.testing.assert_allclose(found, needed, rtol=1e-9)
    with refusal(ValueError, "sample_weight has a mean of", "must be a finite float64", "pass alpha=0"):
        fitted(1e-310)


def test_weights_of_a_batch_that_are_small_or_zero():
    """Weights that float32 has no numbers for count by their size beside each other; without weight nothing moves."""
    settings = {"hidden_layer_sizes": (5,), "solver": "sgd", "random_state": 0, "shuffle": False, "alpha": 0.1}
    weights, X = np.random.default_rng(0).uniform(0.5, 1.0, len(IRIS_X)), IRIS_X.astype(np.float32)
    tiny, plain = (
        MLPClassifier(**settings | {"alpha": 0.0}).partial_fit(X, IRIS_Y, size * weights, classes=[0, 1, 2])
        for size in (1e-60, 1.0)
    )
    np.testing.assert_allclose(tiny.predict_proba(X), plain.predict_proba(X), rtol=1e-5)
    later = np.where(np.arange(150) < 50, 0.0, weights)  # the first of three batches has no weight
    whole, rest = (
        MLPClassifier(**settings, batch_size=50).partial_fit(IRIS_X[part], IRIS_Y[part], later[part], classes=[0, 1, 2])
        for part in (slice(0, 150), slice(50, 150))
    )
    for found, needed in zip(whole.coefs_, rest.coefs_, strict=True):
        np.testing.assert_allclose(found, needed, rtol=1e-12)
    assert whole.loss_ == pytest.approx(rest.loss_ * 2 / 3)


@pytest.mark.parametrize("changed", [{"solver": "adam"}, {"momentum": 0.5}, {"learning_rate_init": 0.3}])
def test_settings_of_the_solver_count_from_the_next_partial_fit_on(changed):
    """An optimizer of another kind starts anew; one of the same kind keeps its state."""
    settings = {"solver": "sgd", "shuffle": False, "random_state": 0, "batch_size": 150, "alpha": 0.0}
    settings |= {"learning_rate_init": 0.1, "nesterovs_momentum": False, "hidden_layer_sizes": ()}
    model = MLPRegressor(**settings).partial_fit(IRIS_X, IRIS_Y)
    W, v = model.coefs_[0].copy(), None
    for turn in range(2):  # the rest by hand, from v = the first step
        residual = IRIS_X @ W + model.intercepts_[0] - IRIS_Y[:, None]
        gradient = IRIS_X.T @ residual / 150
        if turn == 0:
            first = MLPRegressor(**settings | {"max_iter": 1})
            at_first = first.fit(IRIS_X, IRIS_Y)
            start = MLPRegressor(**settings | {"learning_rate_init": 1e-300, "max_iter": 1}).fit(IRIS_X, IRIS_Y)
            v = start.coefs_[0] - at_first.coefs_[0]
            model.set_params(**changed)
        model.partial_fit(IRIS_X, IRIS_Y)
        if changed.get("solver") == "adam":  # its first step is the rate, by sign
            if turn == 0:
                np.testing.assert_allclose(W - model.coefs_[0], 0.1 * np.sign(gradient), rtol=1e-5)
        else:
            v = changed.get("momentum", 0.9) * v + changed.get("learning_rate_init", 0.1) * gradient
            np.testing.assert_allclose(W - model.coefs_[0], v, rtol=1e-9)
        W = model.coefs_[0].copy()


def test_several_outputs_and_rates():
    Y = np.stack([DIABETES_Y, DIABETES_X[:, 0] ** 2], axis=1)
    ours, theirs = both(MLPRegressor, TheirRegressor, DIABETES_X, Y, solver="sgd", shuffle=False)
    assert ours.predict(DIABETES_X).shape == Y.shape
    np.testing.assert_allclose(ours.predict(DIABETES_X), theirs.predict(DIABETES_X), atol=1e-7)
    ours, theirs = both(
        MLPRegressor, TheirRegressor, DIABETES_X, DIABETES_Y**2, loss="poisson", solver="sgd", shuffle=False
    )
    np.testing.assert_allclose(ours.predict(DIABETES_X), theirs.predict(DIABETES_X), rtol=1e-6)
    assert ours.out_activation_ == theirs.out_activation_ == "exp"


@pytest.mark.parametrize("rates", [{}, {"learning_rate": "invscaling", "learning_rate_init": 0.3, "momentum": 0.0}])
def test_partial_fit_goes_on_as_scikit_learn_does(rates):
    settings = {"solver": "sgd", "shuffle": False, "random_state": 0, "batch_size": 20} | rates
    ours, theirs = MLPClassifier(**settings), TheirClassifier(**settings)
    for turn, part in enumerate((slice(0, 70), slice(60, 150), slice(20, 90))):
        classes = [0, 1, 2] if turn == 0 else None
        if turn == 2:  # a pickle keeps the optimizer's state
            ours = pickle.loads(pickle.dumps(ours))
        ours.partial_fit(IRIS_X[part], IRIS_Y[part], classes=classes)
        theirs.partial_fit(IRIS_X[part], IRIS_Y[part], classes=classes)
    np.testing.assert_allclose(ours.predict_proba(IRIS_X), theirs.predict_proba(IRIS_X), atol=1e-12)
    np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, rtol=1e-10)
    assert ours.t_ == theirs.t_ == 230
    with refusal(ValueError, "classes not in", "[7]", "was fitted with [0 1 2]", "Fit a new one"):
        ours.partial_fit(IRIS_X, np.full(150, 7))
    assert not hasattr(MLPClassifier(solver="lbfgs"), "partial_fit")
    labels = MLPClassifier(random_state=0).partial_fit(LABELS_X, LABELS_Y)  # no classes= needed
    labels.partial_fit(LABELS_X, LABELS_Y, classes=range(4))
    assert labels.predict(LABELS_X).shape == LABELS_Y.shape
    labels = MLPClassifier(random_state=0).partial_fit(LABELS_X, LABELS_Y, classes=range(4))
    assert labels.predict(LABELS_X).shape == LABELS_Y.shape
    for begun, y in ((labels, LABELS_Y[:, 0]), (MLPClassifier(max_iter=1).fit(LABELS_X, LABELS_Y[:, 0]), LABELS_Y)):
        with refusal(ValueError, "y is (120", "MLPClassifier was fitted with", "give y as then, or fit a new one"):
            begun.partial_fit(LABELS_X, y)
    assert MLPRegressor().partial_fit(DIABETES_X, DIABETES_Y).n_iter_ == 1
    with refusal(ValueError, "classes must be passed", "on the first call to partial_fit", "classes=np.unique(all_y)"):
        MLPClassifier().partial_fit(IRIS_X, IRIS_Y)


def test_warm_start_goes_on():
    model = MLPClassifier(warm_start=True, max_iter=5, random_state=0).fit(IRIS_X, IRIS_Y)
    first = model.loss_
    model.fit(IRIS_X, IRIS_Y)
    assert len(model.loss_curve_) == 10 and model.loss_ < first and model.n_iter_ == 5
    assert len(model.set_params(max_iter=2).fit(IRIS_X, IRIS_Y, validation=(IRIS_X, IRIS_Y)).validation_scores_) == 2
    for y in (IRIS_Y + 1, np.minimum(IRIS_Y, 1)):
        with refusal(ValueError, f"Previously got [0 1 2], `y` has {np.unique(y)}", "same classes", "warm_start=False"):
            model.fit(IRIS_X, y)


@pytest.mark.parametrize("kinds", [(MLPClassifier, TheirClassifier), (MLPRegressor, TheirRegressor)])
def test_weights_that_are_assigned_count(kinds):
    """In predictions, scores and further training: whole lists, one layer, or a part of one."""
    ours, theirs = both(*kinds, IRIS_X, IRIS_Y, solver="sgd", momentum=0.0, shuffle=False)
    rng = np.random.default_rng(0)
    given = (
        [rng.standard_normal(W.shape) for W in theirs.coefs_],
        [rng.standard_normal(len(b)) for b in theirs.intercepts_],
    )
    for model in (ours, theirs):
        model.coefs_, model.intercepts_ = ([array.copy() for array in arrays] for arrays in given)
        model.coefs_[1] = 2 * model.coefs_[1]
        model.intercepts_[0][2] = 0.5
    assert ours.score(IRIS_X, IRIS_Y) == pytest.approx(theirs.score(IRIS_X, IRIS_Y))
    np.testing.assert_allclose(outputs(ours, IRIS_X), outputs(theirs, IRIS_X), rtol=0, atol=1e-12)
    ours.partial_fit(IRIS_X, IRIS_Y), theirs.partial_fit(IRIS_X, IRIS_Y)
    for found, needed in zip(ours.coefs_ + ours.intercepts_, theirs.coefs_ + theirs.intercepts_, strict=True):
        np.testing.assert_allclose(found, needed, rtol=0, atol=1e-12)
    kept = pickle.loads(pickle.dumps(ours.coefs_))
    assert type(kept) is list and not np.shares_memory(kept[0], ours.coefs_[0])
    with refusal(ValueError, "coefs_ has 1 arrays", "the network has 3 layers", "one array a layer"):
        ours.coefs_ = kept[:1]
    with refusal(ValueError, "intercepts_[0] is (5,)", "the network's is (12,)", "other hidden_layer_sizes"):
        ours.intercepts_[0] = np.zeros(5)
    for found, needed in zip(ours.coefs_, kept, strict=True):
        np.testing.assert_array_equal(found, needed)


def test_weights_that_are_assigned_before_the_first_fit_begin_a_warm_start():
    given = [np.full((4, 2), 0.1), np.full((2, 3), 0.2)]
    warm, cold = (
        MLPClassifier(2, max_iter=1, warm_start=is_warm, learning_rate_init=1e-9) for is_warm in (True, False)
    )
    for model in (warm, cold):
        model.coefs_ = [array.copy() for array in given]
        model.fit(IRIS_X, IRIS_Y)
    assert all(np.allclose(found, needed, atol=1e-6) for found, needed in zip(warm.coefs_, given, strict=True))
    assert not np.allclose(cold.coefs_[0], given[0], atol=1e-3)


def test_learning_rate__is_the_rate_in_use():
    settings = {"solver": "sgd", "learning_rate_init": 0.5, "random_state": 0, "hidden_layer_sizes": 4}
    model = MLPClassifier(**settings, learning_rate="adaptive", tol=0.5, max_iter=3000).fit(IRIS_X, IRIS_Y)
    assert 1e-7 < model.learning_rate_ < 1e-6
    model = MLPClassifier(**settings, learning_rate="invscaling", power_t=0.25, max_iter=2, warm_start=True)
    for n_samples in (300, 600):
        assert model.fit(IRIS_X, IRIS_Y).learning_rate_ == pytest.approx(0.5 / (n_samples + 1) ** 0.25)
    assert model.partial_fit(IRIS_X, IRIS_Y).learning_rate_ == pytest.approx(0.5 / 751**0.25)


@pytest.mark.parametrize("early_stopping", [False, True])
def test_a_warm_start_is_judged_by_its_own_data(early_stopping):
    """The first fit scores far better than the second ever can."""
    settings = {"early_stopping": early_stopping, "random_state": 0, "max_iter": 30, "n_iter_no_change": 2, "tol": 0}
    rng = np.random.default_rng(0)
    hard, noise = rng.standard_normal((200, 4)), rng.standard_normal(200)
    model = MLPRegressor(warm_start=True, learning_rate_init=0.02, **settings).fit(IRIS_X, IRIS_X[:, 0])
    first = model.best_validation_score_ if early_stopping else model.best_loss_
    model.fit(hard, noise)
    assert model.n_iter_ > 4
    if early_stopping:
        assert len(model.validation_scores_) == model.n_iter_
        assert model.best_validation_score_ == max(model.validation_scores_) < first
    else:
        assert model.best_loss_ == min(model.loss_curve_[-model.n_iter_ :]) > first


# --- settings of xpnet's own -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", ["adamw", "nadam", "lion", "rmsprop", "adagrad"])
def test_other_solvers_learn(solver):
    model = MLPClassifier(solver=solver, max_iter=60, learning_rate_init=0.01, random_state=0).fit(IRIS_X, IRIS_Y)
    assert model.score(IRIS_X, IRIS_Y) > 0.93 and model.loss_curve_[-1] < model.loss_curve_[0]


@pytest.mark.full
@pytest.mark.parametrize(
    "settings",
    [
        {"activation": ["relu", "gelu"]},
        {"dropout": 0.2},
        {"dropout": [0.3, 0.0]},
        {"schedule": "cosine"},
        {"schedule": "one_cycle"},
        {"schedule": xpnet.Step(0.02, every=20)},
        {"class_weight": "balanced"},
        {"class_weight": {0: 2.0, 1: 1.0}},
        {"loss": xpnet.SoftmaxCrossEntropy(smoothing=0.1)},
        {"loss": "hinge"},
        {"dtype": "float32"},
        {"solver": "adamw", "weight_decay": 0.1},
    ],
    ids=str,
)
def test_settings_change_the_model(settings):
    common = {"hidden_layer_sizes": (20, 10), "max_iter": 40, "learning_rate_init": 0.02, "random_state": 0}
    model = clone(MLPClassifier(**common | settings)).fit(IRIS_X, IRIS_Y)
    plain = MLPClassifier(**common | {"solver": settings.get("solver", "adam")}).fit(IRIS_X, IRIS_Y)
    assert model.score(IRIS_X, IRIS_Y) > 0.8
    if settings.get("class_weight") != "balanced":  # the classes are of one size
        assert abs(model.coefs_[0] - plain.coefs_[0]).max() > 1e-8
    assert model.network_.backend.dtype == settings.get("dtype", "float64")
    assert hasattr(model, "predict_proba") == (settings.get("loss") != "hinge")


def test_class_weight_is_a_sample_weight():
    by_class, by_sample = {"setosa": 5.0}, np.where(BINARY_Y == "setosa", 5.0, 1.0)
    one, other = (MLPClassifier(random_state=0, max_iter=5, class_weight=given) for given in (by_class, None))
    one.fit(IRIS_X, BINARY_Y), other.fit(IRIS_X, BINARY_Y, by_sample)
    np.testing.assert_allclose(one.predict_proba(IRIS_X), other.predict_proba(IRIS_X), rtol=1e-12)


def test_callbacks_validation_and_scorers(capsys):
    seen = []

    class Watch(xpnet.Callback):
        def on_measured(self, record, network):
            seen.append(record["epoch"])
            return "enough" if record["epoch"] == 4 else None

    model = MLPClassifier(random_state=0, callbacks=[Watch()], verbose=True)
    model.fit(IRIS_X[:100], BINARY_Y[:100], validation=(IRIS_X[100:], BINARY_Y[100:]))
    assert seen == [0, 1, 2, 3, 4] and model.n_iter_ == 4 and len(model.validation_scores_) == 4
    assert model.validation_scores_[-1] == model.score(IRIS_X[100:], BINARY_Y[100:])
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [
        f"Iteration 1, loss = {model.loss_curve_[0]:.8f}",
        f"Validation score: {model.validation_scores_[0]:f}",
    ]
    assert lines[-1] == "enough. Stopping."

    frame = pd.DataFrame(IRIS_X, columns=list("abcd"))
    stopped = MLPClassifier(
        early_stopping=True, scoring="roc_auc", n_iter_no_change=3, random_state=0, learning_rate_init=0.05
    )
    stopped.fit(frame, BINARY_Y, validation=(frame, BINARY_Y))
    assert stopped.best_validation_score_ == roc_auc_score(BINARY_Y == "setosa", stopped.predict_proba(frame)[:, 1])
    assert stopped.n_iter_ < 200 and stopped.best_validation_score_ == max(stopped.validation_scores_)


def test_convergence():
    with pytest.warns(ConvergenceWarning, match="max_iter=2 epochs are over"):
        MLPClassifier(max_iter=2).fit(IRIS_X, IRIS_Y)
    with pytest.warns(ConvergenceWarning, match="lbfgs ended after 2 iterations"):
        MLPRegressor(solver="lbfgs", max_iter=2).fit(DIABETES_X, DIABETES_Y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = MLPClassifier(tol=1.0, n_iter_no_change=4, random_state=0).fit(IRIS_X, IRIS_Y)
    assert model.n_iter_ == 6  # the first is better than nothing, the next 5 are more than 4


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ({"solver": "adan"}, ["solver is 'adan'", "choose one of", "did you mean 'adam'"]),
        ({"alpha": -1}, ["alpha is -1", "at least 0"]),
        ({"max_iter": 0}, ["max_iter is 0", "at least 1"]),
        ({"hidden_layer_sizes": (5, 0)}, ["hidden_layer_sizes"]),
        ({"activation": "rely"}, ["did you mean 'relu'"]),
        ({"activation": ["relu", "tanh"]}, ["2 items", "for 1 hidden", "give one for all, or one per hidden layer"]),
        (
            {"solver": "lbfgs", "dropout": 0.5},
            ["dropout is 0.5", "may not change from call to call", "use solver='adam'"],
        ),
        ({"weight_decay": 0.1}, ["weight_decay is 0.1", "solver 'adam' has none", "use solver='adamw'"]),
        (
            {"schedule": "cosine", "learning_rate": "adaptive"},
            ["schedule is 'cosine'", "both set the rate", "leave learning_rate='constant'"],
        ),
        ({"callbacks": xpnet.Budget(steps=1)}, ["callbacks is ", "it must be a list", "[xpnet.Budget(seconds=60)]"]),
        ({"shuffle": "False"}, ["shuffle is 'False'", "pass", "shuffle=True or False"]),
        ({"learning_rate_init": 0}, ["learning_rate_init is 0"]),
        ({"loss": "poisson"}, ["loss poisson", "is for counts, not for classes", "use loss='log_loss'"]),
        ({"loss": "sigmoid_cross_entropy"}, ["do not add up to 1"]),
        (
            {"solver": "lbfgs", "callbacks": [xpnet.Budget(steps=1)]},
            [
                "callbacks goes by epochs and steps",
                "solver 'lbfgs' has none",
                "use solver='adam', or leave callbacks out",
            ],
        ),
        ({"solver": "lbfgs", "schedule": "cosine"}, ["epochs and steps"]),
        ({"schedule": 3}, ["schedule is 3", "it must be ", "xpnet.Step(0.1, every=1000)"]),
        ({"engine": "compile"}, ["engine is 'compile'", "did you mean 'compiled'"]),
        (
            {"solver": "lbfgs", "engine": "compiled"},
            ["engine is 'compiled'", "runs steps, and solver 'lbfgs' has none", "use solver='adam', or engine='auto'"],
        ),
        (
            {"solver": "lbfgs", "precision": "tf32"},
            [
                "precision is 'tf32'",
                "which steps have, and solver 'lbfgs' has none",
                "use solver='adam', or precision='fp32'",
            ],
        ),
        ({"precision": "tf32"}, ["precision is 'tf32'", "on the cpu", "take device='cuda'"]),
        ({"precision": "half"}, ["precision is 'half'", "choose one of 'fp32', 'tf32'"]),
        ({"device": "gpu"}, ["cuda"]),
        ({"validation_fraction": 1.0}, ["below 1"]),
        ({"momentum": 1.0}, ["momentum is 1.0", "below 1"]),
        ({"beta_1": -1}, ["beta_1 is -1", "of at least 0"]),
        ({"beta_2": np.nan}, ["beta_2 is nan"]),
        ({"epsilon": 0}, ["epsilon is 0", "such as epsilon=1e-8"]),
        ({"solver": "adamw", "weight_decay": -1}, ["weight_decay is -1"]),
        ({"class_weight": {0: 1.0, 7: 2.0}}, ["the label 7", "the classes are [0, 1, 2]", "leave it out"]),
        ({"class_weight": {1: np.nan}}, ["class_weight[1] is nan", "finite number of at least 0"]),
        ({"class_weight": {1: -2.0}}, ["class_weight[1] is -2.0", "of at least 0"]),
        (
            {"class_weight": dict.fromkeys(range(3), 0)},
            ["class_weight is {", "150 samples have the weight 0", "leave class_weight out"],
        ),
    ],
)
def test_refusals(settings, parts):
    with refusal((TypeError, ValueError), *parts):
        MLPClassifier(**settings).fit(IRIS_X, IRIS_Y)


@pytest.mark.full
def test_the_engine_of_a_fit(monkeypatch):
    """By max_iter, whatever ends the fit before; the same numbers but for rounding; partial_fit is replayed."""

    class Engines(xpnet.Callback):
        def __init__(self):
            self.seen = []

        def on_epoch_end(self, record, network):
            self.seen.append(record["engine"])

    monkeypatch.setattr(xpnet.engines.choice, "COMPILE_SECONDS", (1.0, 0.0))
    monkeypatch.setattr(xpnet.engines.choice, "GAIN_SECONDS", (1e-3, 0.0, 0.0))
    models = []
    for max_iter, engine, name in ((2, "auto", "replay"), (1000, "auto", "compiled"), (1000, "replay", "replay")):
        engines = Engines()
        model = MLPClassifier(
            (7,),
            max_iter=max_iter,
            engine=engine,
            callbacks=[xpnet.Budget(steps=9), engines],
            batch_size=50,
            random_state=0,
        )
        models.append(model.fit(IRIS_X, IRIS_Y))
        assert set(engines.seen) == {name} and model.get_params()["engine"] == engine
    _, compiled, replayed = models
    np.testing.assert_allclose(outputs(compiled, IRIS_X), outputs(replayed, IRIS_X), rtol=0, atol=1e-9)
    assert np.isfinite(outputs(compiled.partial_fit(IRIS_X, IRIS_Y), IRIS_X)).all()


def test_losses_of_other_targets_are_refused():
    with pytest.raises(ValueError, match="y has several labels"):
        MLPClassifier(loss=xpnet.SoftmaxCrossEntropy()).fit(LABELS_X, LABELS_Y)
    with refusal(ValueError, "loss hinge", "is for classes, not for numbers", "use loss='squared_error'"):
        MLPRegressor(loss="hinge").fit(IRIS_X, IRIS_Y == 0)


@pytest.mark.parametrize(
    ("validation", "parts"),
    [
        (IRIS_X, ["validation is a ndarray", "pass validation=(X, y)", "or (X, y, sample_weight)"]),
        ((IRIS_X,), ["validation is a tuple"]),
        ((IRIS_X[:, :3], IRIS_Y), ["expecting 4 features"]),
        ((IRIS_X, IRIS_Y[:5]), ["X of validation has 150 samples", "y has 5", "give as many of both"]),
        ((IRIS_X, IRIS_Y.astype(str)), ["classes not in"]),
        ((IRIS_X, IRIS_Y + 1), ["classes not in", "[3]"]),
        ((IRIS_X, IRIS_Y, -np.ones(150)), ["Negative values", "`sample_weight`", "weights must be at least 0"]),
        ((IRIS_X, IRIS_Y, np.ones(3)), ["(3,)"]),
    ],
    ids=str,
)
def test_refused_validation(validation, parts):
    with refusal((TypeError, ValueError), *parts):
        MLPClassifier(max_iter=2).fit(IRIS_X, IRIS_Y, validation=validation)
    with refusal(ValueError, "validation is scored after each epoch", "solver 'lbfgs' has none", "use solver='adam'"):
        MLPClassifier(solver="lbfgs").fit(IRIS_X, IRIS_Y, validation=validation)


def test_validation_of_a_column_scores_as_a_row_does():
    with pytest.warns(UserWarning, match="column-vector"):
        model = MLPClassifier(max_iter=5).fit(IRIS_X, IRIS_Y, validation=(IRIS_X, IRIS_Y[:, None]))
    assert model.validation_scores_[-1] == model.score(IRIS_X, IRIS_Y)
    with refusal(ValueError, "y of validation has 2 outputs", "that of the training 1", "give as many"):
        MLPRegressor().fit(IRIS_X, IRIS_Y, validation=(IRIS_X, IRIS_X[:, :2]))
    with refusal(ValueError, "the weight 0", "pass validation=(X, y)", "leave out the samples without weight"):
        MLPClassifier(early_stopping=True).fit(IRIS_X, IRIS_Y, np.eye(1, 150)[0])


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"hidden_layer_sizes": 7}, "hidden_layer_sizes"),
        ({"activation": "tanh"}, "activation"),
        ({"dropout": 0.5}, "dropout"),
        ({"loss": "hinge"}, "loss"),
        ({"dtype": "float32"}, "dtype"),
    ],
)
def test_a_network_does_not_go_on_with_other_layers(changed, named):
    model = MLPClassifier(max_iter=2, random_state=0, warm_start=True).fit(IRIS_X, IRIS_Y).set_params(**changed)
    for go_on in (model.fit, model.partial_fit):
        with refusal(
            ValueError, named, "was changed after", "cannot continue with that", "start again: clone(estimator), or "
        ):
            go_on(IRIS_X, IRIS_Y)
    model.set_params(warm_start=False).fit(IRIS_X, IRIS_Y).partial_fit(IRIS_X, IRIS_Y)


def test_class_weight_of_partial_fit():
    settings, batch = {"max_iter": 2, "random_state": 0}, IRIS_Y > 0  # without the class that has a weight
    weighted, plain = (
        MLPClassifier(**settings, class_weight=given).partial_fit(IRIS_X[batch], IRIS_Y[batch], classes=[0, 1, 2])
        for given in ({0: 5.0}, None)
    )
    np.testing.assert_array_equal(weighted.predict_proba(IRIS_X), plain.predict_proba(IRIS_X))
    by_sample = plain.partial_fit(IRIS_X, IRIS_Y, np.where(batch, 1.0, 5.0))
    np.testing.assert_allclose(
        weighted.partial_fit(IRIS_X, IRIS_Y).predict_proba(IRIS_X), by_sample.predict_proba(IRIS_X), rtol=1e-12
    )
    with refusal(
        ValueError,
        "class_weight is 'balanced'",
        "cannot know",
        "pass a dict of weights",
        "class_weight={0: 1.0, 1: 5.0}",
    ):
        MLPClassifier(class_weight="balanced").partial_fit(IRIS_X, IRIS_Y, classes=[0, 1, 2])


def test_a_fit_that_fails_leaves_nothing_half_new():
    model = MLPClassifier(max_iter=2, random_state=0).fit(IRIS_X, IRIS_Y)
    with refusal(ValueError, "Sample weights", "at least one non-zero number"):
        model.fit(IRIS_X, BINARY_Y, np.zeros(150))
    assert set(model.predict(IRIS_X)) <= {0, 1, 2}
    with refusal(ValueError, "Sample weights", "at least one non-zero number"):
        clone(model).fit(IRIS_X, BINARY_Y, np.zeros(150))
    fresh = MLPClassifier()
    with refusal(ValueError, "classes not in", "[2]", "Fit a new one"):
        fresh.partial_fit(IRIS_X, IRIS_Y, classes=[0, 1])
    assert not hasattr(fresh, "classes_")


class Failing(xpnet.Callback):
    """Raises at a point of the training."""

    def __init__(self, point):
        self.point = point
        for name in ("on_train_begin", "on_steps", "on_measured", "on_epoch_end", "on_train_end"):
            if name == point:
                setattr(self, name, self._fail)

    def _fail(self, *arguments):
        if self.point != "on_epoch_end" or arguments[0]["epoch"] > 1:
            raise OSError(self.point)


def attributes_of(model):
    """All that an estimator was fitted to, with what it predicts and how a partial_fit would go on."""
    found = {name: value for name, value in vars(model).items() if name.endswith("_") or name.startswith("_")}
    network, optimizer = found.pop("network_"), found.pop("_optimizer")
    left = None if optimizer is None else optimizer.snapshot()
    state = [network.owned, *([] if left is None else [left.state, left.keys])]
    lr = None if optimizer is None else (optimizer.lr, optimizer.steps_done, optimizer.l2_summed)
    found["the range of the inputs"] = network.inputs
    return pickle.dumps([found, [array.copy() for array in state], network.step_keys, lr, model.predict(IRIS_X[:9])])


SPOILT = {  # settings and arguments of a fit that is refused late, or fails in the middle
    "weights": ({}, {"sample_weight": np.full(150, -1.0)}),
    "weights of nothing": ({}, {"sample_weight": np.zeros(150)}),
    "class weights of nothing": ({"class_weight": dict.fromkeys(range(3), 0.0)}, {}),
    "a class weight that is none": ({"class_weight": {0: np.nan}}, {}),
    "classes": ({}, {"y": np.linspace(0.0, 1.0, 150)}),
    "classes of nothing": ({}, {"y": np.full(150, np.nan)}),
    "features": ({}, {"X": np.full((150, 4), np.inf)}),
    "lengths": ({}, {"X": np.ones((149, 4))}),
    "layers": ({"hidden_layer_sizes": (5, 0)}, {}),
    "an activation": ({"activation": "rely"}, {}),
    "a loss": ({"loss": "poisson"}, {}),
    "dropout": ({"dropout": 1.5}, {}),
    "a dtype": ({"dtype": "float16"}, {}),
    "a schedule": ({"schedule": "cosines"}, {}),
    "a validation": ({}, {"validation": (IRIS_X, IRIS_Y + 1)}),
    "a scoring": ({"scoring": "accuracies", "early_stopping": True}, {}),
    "a scorer": ({"scoring": lambda *_: 1 / 0, "early_stopping": True}, {}),
    "too few to hold out": ({"early_stopping": True, "validation_fraction": 0.001}, {}),
    "a callback": ({"callbacks": ["none"]}, {}),
    "divergence": ({"solver": "sgd", "learning_rate_init": 1e300}, {}),
    **{point: ({"callbacks": [Failing(point)]}, {}) for point in ("on_train_begin", "on_steps", "on_measured")},
    **{point: ({"callbacks": [Failing(point)]}, {}) for point in ("on_epoch_end", "on_train_end")},
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("way", ["fit", "warm", "partial_fit"])
def test_whatever_a_fit_raises_leaves_the_estimator_as_before(way):
    settings = {"hidden_layer_sizes": 5, "random_state": 0, "max_iter": 3, "warm_start": way == "warm"}
    model = MLPClassifier(**settings).partial_fit(IRIS_X, IRIS_Y, classes=[0, 1, 2]).partial_fit(IRIS_X, IRIS_Y)
    before, plain = attributes_of(model), model.get_params()
    raised = 0
    for name, (changed, arguments) in SPOILT.items():
        arguments = {"X": IRIS_X, "y": IRIS_Y} | arguments
        if way == "partial_fit":
            arguments.pop("validation", None)
        try:
            getattr(model.set_params(**plain).set_params(**changed), way.replace("warm", "fit"))(**arguments)
        except Exception:
            raised += 1
            assert attributes_of(model.set_params(**plain)) == before, name
        else:
            assert way == "partial_fit", name  # which knows neither epochs nor callbacks
            model = MLPClassifier(**settings).partial_fit(IRIS_X, IRIS_Y, classes=[0, 1, 2])
            before = attributes_of(model.partial_fit(IRIS_X, IRIS_Y))
    assert raised >= (12 if way == "partial_fit" else len(SPOILT))


def test_an_interrupt_before_the_training_leaves_the_estimator_as_before(monkeypatch):
    model = MLPClassifier(max_iter=2, random_state=0).fit(IRIS_X, IRIS_Y)
    before = attributes_of(model)

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("xpnet.estimators.base.fit_epochs", interrupted)
    with pytest.raises(KeyboardInterrupt):
        model.fit(IRIS_X, BINARY_Y)
    assert attributes_of(model) == before


@pytest.mark.filterwarnings("ignore:overflow")
def test_a_training_that_runs_away_is_said():
    y = 1e3 * IRIS_X[:, 0]
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        with refusal(ArithmeticError, "the loss", "lower", "scale the"):
            MLPRegressor(solver="sgd", learning_rate_init=1.0, random_state=0).fit(IRIS_X, y)
    with pytest.warns(
        ConvergenceWarning, match="far above the .* that it began with; lower learning_rate_init"
    ) as found:
        MLPRegressor(  # it flies away, and then stays there
            hidden_layer_sizes=5, solver="adam", learning_rate_init=1e6, random_state=0, max_iter=40, activation="tanh"
        ).fit(IRIS_X, IRIS_X[:, 0])
    says(
        found[0].message, "ended at a loss of", "that it began with", "lower learning_rate_init, or scale the features"
    )
    with refusal(ValueError, "Solver produced non-finite parameter weights", "Here the loss is", "lower learning_rate"):
        MLPRegressor(solver="sgd", learning_rate_init=1e300, random_state=0, batch_size=50).partial_fit(IRIS_X, y)


@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid")
@pytest.mark.parametrize(
    ("size", "settings", "words"),
    [
        (1e300, {"solver": "lbfgs"}, "lbfgs ended after 0 iterations before it converged"),
        (1.0, {"alpha": 1e308, "learning_rate_init": 1e-300, "max_iter": 3}, "with its penalty is inf in epoch 1, and"),
        (1.0, {"solver": "sgd", "learning_rate_init": 1.0, "early_stopping": True}, "weights of the best validation"),
    ],
)
def test_where_scikit_learn_keeps_finite_weights_the_fit_ends_with_finite_ones(size, settings, words):
    """And says so, as it does of all trainings that do not converge."""
    X, y = size * IRIS_X, 1e3 * IRIS_X[:, 0]
    theirs = TheirRegressor(random_state=0, **settings).fit(X, y)
    with pytest.warns(ConvergenceWarning, match=words) as found:
        ours = MLPRegressor(random_state=0, **settings).fit(X, y)
    assert all(np.isfinite(array).all() for model in (ours, theirs) for array in model.coefs_)
    assert not np.isfinite([ours.loss_, theirs.loss_]).any()
    assert "scale the features" in str(found[-1].message)
    if "early_stopping" in settings:
        assert ours.best_validation_score_ == pytest.approx(theirs.best_validation_score_)
        assert np.isnan(ours.validation_scores_[-1]) and len(ours.validation_scores_) == ours.n_iter_


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_no_class_is_missing_where_samples_are_held_out(classes):
    """Of five samples of a rare class some are trained on and some are held out, whatever the seed."""
    y = np.repeat(np.arange(classes), [5, *[95] * (classes - 1)])
    X = np.random.default_rng(0).standard_normal((len(y), 3))
    for seed in range(15):
        model = MLPClassifier(validation_fraction=0.1)
        model._targets(y, True)
        Y = model._targets(y, False)
        model.network_ = xpnet.Network([3, 2], backend=xpnet.select_backend("cpu"))
        _, trained, _, held = split(model, X, Y, None, y, np.random.RandomState(seed))
        assert len(held.y) == -(-len(y) // 10) and len(trained) + len(held.y) == len(y)
        counts = np.bincount(held.y, minlength=classes)
        assert 1 <= counts[0] <= 4
    single = np.repeat(np.arange(classes), [1, *[20] * (classes - 1)])  # a class of one sample is trained on
    model = MLPClassifier(early_stopping=True, max_iter=2, random_state=0)
    with pytest.warns(ConvergenceWarning):
        model.fit(X[: len(single)], single)
    few = clone(model)
    with refusal(
        ValueError, "The validation set is too small", "of 4 samples is 1, and 2", "raise validation_fraction"
    ):
        MLPRegressor(early_stopping=True).fit(X[:4], range(4))
    with refusal(ValueError, "only 1 member", "'other'", "['False'] in scikit-learn's codes", "two samples or more"):
        few.fit(X[:4], ["zero", "other", "zero", "zero"])


@pytest.mark.parametrize("kind", ["binary", "multilabel", "multiclass"])
def test_probabilities_that_round_have_their_logarithms(kind):
    """And of two classes both are as exact as they can be: 1 - p would be 0 where p rounds to 1."""
    y = {"binary": IRIS_Y > 0, "multilabel": np.stack([IRIS_Y > 0, IRIS_Y > 1], 1).astype(int), "multiclass": IRIS_Y}
    model = MLPClassifier((), max_iter=1).fit(IRIS_X.astype(np.float32), y[kind])
    rows, slopes = np.zeros((5, 4), np.float32), 64 * np.linspace(1, -1, model.network_.architecture.n_outputs)
    rows[:, 0] = [-1.5, -0.25, 0.125, 0.25, 1.5]
    model.network_.parameters.flat[...] = 0
    model.network_.parameters.weights[0][:, 0] = slopes
    logits = rows[:, :1].astype(float) * slopes
    if kind == "multiclass":
        needed = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    else:
        needed = -np.logaddexp(0, -np.hstack([-logits, logits]) if kind == "binary" else -logits)
    if kind == "multilabel":  # scikit-learn's own test asks for the logarithm of what is rounded near 1
        needed = np.where(needed > np.log(0.5), np.log(np.maximum(model.predict_proba(rows), 0.5)), needed)
    atol = 2e-7 if kind == "multiclass" else 1e-37
    np.testing.assert_allclose(model.predict_log_proba(rows), needed, rtol=1e-5, atol=atol)
    is_normal = needed > -80  # the others are hardly numbers of float32
    np.testing.assert_allclose(model.predict_proba(rows)[is_normal], np.exp(needed)[is_normal], rtol=1e-5)


def test_a_score_that_is_no_number_is_no_gain():
    model = MLPClassifier(
        scoring=lambda *_: float("nan"), early_stopping=True, n_iter_no_change=3, random_state=0, max_iter=50
    )
    assert model.fit(IRIS_X, IRIS_Y).n_iter_ == 4 and np.isnan(model.validation_scores_).all()


def test_early_stopping_sees_the_validation():
    stop = xpnet.EarlyStopping(patience=2)
    reach = xpnet.StopAtScore(0.6, "val_accuracy")
    for callbacks in ([stop], [reach]):
        model = MLPClassifier(callbacks=callbacks, random_state=0, learning_rate_init=0.02)
        model.fit(IRIS_X[::2], IRIS_Y[::2], validation=(IRIS_X[1::2], IRIS_Y[1::2]))
        assert model.n_iter_ < 200
    assert model.validation_scores_[-1] >= 0.6 > max([0.0, *model.validation_scores_[:-1]])


@pytest.mark.parametrize("dtype", [bool, np.int16, np.float32, "<U5"])
def test_classes_have_the_type_of_the_targets(dtype):
    y = (IRIS_Y > 0).astype(dtype)
    model = MLPClassifier((3,), max_iter=1, random_state=0).fit(IRIS_X, y)
    assert model.classes_.dtype == model.predict(IRIS_X).dtype == y.dtype
    np.testing.assert_array_equal(model.classes_, np.unique(y))


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_no_class_is_made_of_nan():
    model = MLPClassifier(max_iter=2, random_state=0, dtype="float32").fit(IRIS_X, IRIS_Y)
    for infer in (model.predict, model.predict_proba):
        with refusal(ValueError, "output for row 3 of X is NaN", "too large for float32", "scale the features"):
            infer(np.where(np.arange(5)[:, None] == 3, 1e200, IRIS_X[:5]))


# --- in scikit-learn's company ---------------------------------------------------------------------------------------


def blas_threads(estimator, X, y):
    """A scorer that returns the most threads that a BLAS would use where it is called."""
    from threadpoolctl import threadpool_info

    return max(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas")


@pytest.mark.full
def test_a_search_over_two_workers_does_not_oversubscribe(monkeypatch):
    """joblib's loky gives each of n workers 1/n of the cores: neither we nor the user need set a limit."""
    from joblib import cpu_count

    monkeypatch.delenv("OPENBLAS_NUM_THREADS")  # that of conftest.py, which the workers would inherit
    search = GridSearchCV(
        make_pipeline(StandardScaler(), MLPClassifier(max_iter=3, random_state=0)),
        {"mlpclassifier__alpha": [1e-4, 1e-2], "mlpclassifier__hidden_layer_sizes": [(5,)]},
        scoring={"accuracy": "accuracy", "threads": blas_threads},
        refit="accuracy",
        n_jobs=2,
        cv=2,
    ).fit(IRIS_X, IRIS_Y)
    assert 2 * search.cv_results_["mean_test_threads"].max() <= max(cpu_count(), 2)
    assert search.best_estimator_.predict(IRIS_X).shape == IRIS_Y.shape


def test_scores_of_folds_agree_with_scikit_learn():
    kinds = (MLPClassifier, TheirClassifier)
    settings = {"max_iter": 40, "learning_rate_init": 0.01, "random_state": 0}
    ours, theirs = (cross_val_score(kind(**settings), IRIS_X, IRIS_Y, cv=3).mean() for kind in kinds)
    assert ours == pytest.approx(theirs, abs=0.03) and ours > 0.9


def test_metadata_routing_and_set_output():
    weights = np.where(IRIS_Y == 2, 0.0, 1.0)
    with sklearn.config_context(enable_metadata_routing=True):
        model = MLPClassifier(max_iter=30, random_state=0, learning_rate_init=0.05).set_fit_request(sample_weight=True)
        model = model.set_score_request(sample_weight=True)
        pipeline = make_pipeline(StandardScaler().set_fit_request(sample_weight=False), model)
        pipeline.set_output(transform="pandas")
        found = cross_validate(
            pipeline,
            pd.DataFrame(IRIS_X, columns=list("abcd")),
            IRIS_Y,
            cv=2,
            params={"sample_weight": weights},
            scoring=get_scorer("accuracy").set_score_request(sample_weight=True),
            return_estimator=True,
        )
    assert found["test_score"].min() > 0.95  # the third class counts nowhere
    for fitted in found["estimator"]:
        assert 2 not in fitted.predict(pd.DataFrame(IRIS_X[IRIS_Y < 2], columns=list("abcd")))
        assert list(fitted[-1].feature_names_in_) == list("abcd")


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_frames_keep_their_names(library):
    frames = pytest.importorskip(library, reason="the extra test-company brings it")
    X = frames.DataFrame({name: IRIS_X[:, i] for i, name in enumerate("abcd")})
    model = MLPClassifier(max_iter=3, random_state=0).fit(X, BINARY_Y)
    assert list(model.feature_names_in_) == list("abcd") and model.n_features_in_ == 4
    np.testing.assert_array_equal(model.predict(X), clone(model).fit(IRIS_X, BINARY_Y).predict(IRIS_X))
    with pytest.raises(ValueError, match="feature names"):
        model.predict(X[["b", "a", "c", "d"]])


@pytest.mark.full
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_sparse_rows_are_never_dense_all_at_once(solver, monkeypatch):
    monkeypatch.setattr("xpnet.data.feed.POOL_BYTES", 1 << 18)
    monkeypatch.setattr("xpnet.data.feed.BLOCK_BYTES", 1 << 16)
    monkeypatch.setattr("xpnet.estimators.fitting.LBFGS_BLOCK", 1 << 18)
    monkeypatch.setattr("xpnet.estimators.data.PREDICTED", 64)
    X = sparse.random(16_000, 200, 0.005, "csr", random_state=0)
    y = (np.asarray(X[:, :50].sum(axis=1)).ravel() > 0.2).astype(int)
    settings = {"solver": solver, "max_iter": 3, "random_state": 0, "hidden_layer_sizes": 8, "shuffle": False}
    model = MLPClassifier(**settings)
    tracemalloc.start()
    model.fit(X, y)
    proba = model.predict_proba(X)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < X.shape[0] * X.shape[1] * 8 / 4
    # Blocks hold whole batches, so without shuffling they are the same: only the sums of lbfgs are in another order.
    whole = MLPClassifier(**settings | {"batch_size": 200}).fit(X.toarray(), y)
    np.testing.assert_allclose(proba, whole.predict_proba(X.toarray()), atol=1e-6)
    early = MLPClassifier(max_iter=2, early_stopping=True).fit(X.tocsc(), y)
    assert early.partial_fit is not None and len(early.validation_scores_) == 2


@pytest.mark.full
def test_wide_sparse_rows_are_predicted_few_at_a_time(monkeypatch):
    model = MLPRegressor(hidden_layer_sizes=2, max_iter=1, batch_size=8, random_state=0)
    X = sparse.random(512, 20_000, 0.001, "csr", random_state=0)
    model.fit(X[:8], np.arange(8.0))
    monkeypatch.setattr("xpnet.data.feed.POOL_BYTES", 1 << 22)  # 26 rows
    tracemalloc.start()
    found = model.predict(X)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < X.shape[0] * X.shape[1] * 8 / 4
    np.testing.assert_allclose(found, model.predict(X.toarray()), rtol=1e-12)


def test_pickles_and_copies_predict_the_same():
    model = MLPClassifier(max_iter=3, random_state=0, dropout=0.2).fit(IRIS_X, BINARY_Y)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict_proba(IRIS_X), model.predict_proba(IRIS_X))
    assert again.get_params() == model.get_params() and not hasattr(clone(model), "network_")
    for kept in (again, again.to("cpu")):  # the range of the features, and that of rows far outside was warned
        assert kept.network_.inputs == model.network_.inputs is not None and not kept.network_.has_warned


def test_an_older_or_missing_scikit_learn_is_named():
    code = """
import sys, sklearn, xpnet
def say():
    try:
        xpnet.MLPClassifier
    except ImportError as error:
        print(error)
sklearn.__version__ = "1.6.2"
say()
sys.modules["sklearn"] = None
say()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    needed = ("xpnet.MLPClassifier", "need scikit-learn 1.7 or newer")
    older, missing = done.stdout.splitlines()
    says(older, *needed, "here is 1.6.2", "neither sample weights", "pip install 'xpnet[sklearn]'")
    says(missing, *needed, "here is none", "pip install 'xpnet[sklearn]'")


# --- bridges ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("theirs", "X", "y"),
    [
        (TheirClassifier(activation="logistic"), IRIS_X, IRIS_Y),
        (TheirClassifier(solver="lbfgs"), IRIS_X, BINARY_Y),
        (TheirClassifier(early_stopping=True), LABELS_X, LABELS_Y),
        (TheirRegressor(activation="tanh"), DIABETES_X, DIABETES_Y),
        (TheirRegressor(loss="poisson"), DIABETES_X, np.stack([DIABETES_Y**2] * 2, axis=1)),
    ],
    ids=str,
)
def test_bridges_keep_predictions(theirs, X, y):
    theirs = clone(theirs).set_params(max_iter=8, random_state=0).fit(X, y)
    ours = from_sklearn(theirs)
    np.testing.assert_allclose(outputs(ours, X), outputs(theirs, X), rtol=0, atol=1e-6)
    np.testing.assert_allclose(outputs(ours.to_sklearn(), X), outputs(theirs, X), rtol=0, atol=1e-6)
    fitted = clone(ours).fit(X, y)
    np.testing.assert_allclose(outputs(fitted.to_sklearn(), X), outputs(fitted, X), rtol=0, atol=1e-6)
    assert fitted.to_sklearn().score(X, y) == pytest.approx(fitted.score(X, y))
    assert type(ours.to_sklearn()) is type(theirs) and ours.n_iter_ == theirs.n_iter_
    if theirs.solver != "lbfgs":
        ours.set_params(early_stopping=False).partial_fit(X, y), ours.to_sklearn().partial_fit(X, y)


def test_what_scikit_learn_has_not_is_refused():
    with pytest.raises(ValueError, match="activation of scikit-learn's estimator is 'gelu'"):
        MLPClassifier(activation="gelu", max_iter=2).fit(IRIS_X, IRIS_Y).to_sklearn()
    with pytest.raises(ValueError, match="loss of scikit-learn's estimator is 'huber'"):
        MLPRegressor(loss="huber", max_iter=2).fit(DIABETES_X, DIABETES_Y).to_sklearn()


# --- on a GPU, played by fakecupy ------------------------------------------------------------------------------------


@pytest.fixture
def gpu_here(monkeypatch):
    """`device="cuda"` finds the fake GPU."""
    monkeypatch.setitem(sys.modules, "cupy", fakecupy)


class Producer:
    """An array of another library: DLPack is all that is known of it."""

    def __init__(self, array):
        self._array = array

    shape, dtype = property(lambda self: self._array.shape), property(lambda self: self._array.dtype)

    def __dlpack__(self, **keywords):
        return self._array.__dlpack__(**keywords)

    def __dlpack_device__(self):
        return self._array.__dlpack_device__()


@pytest.mark.full
@pytest.mark.parametrize("wrap", [lambda x: x, Producer], ids=["cupy", "dlpack"])
def test_rows_on_the_gpu_stay_there(gpu_here, wrap):
    X = np.random.default_rng(0).standard_normal((150, 400)).astype(np.float32)
    X[:, :4] = IRIS_X
    device_X, device_y = fakecupy.asarray(X), fakecupy.asarray(IRIS_Y)
    settings = {"max_iter": 3, "random_state": 0, "hidden_layer_sizes": 3}
    host = MLPClassifier(**settings).fit(X, IRIS_Y)
    model = MLPClassifier(device="cuda", **settings)
    with fakecupy.counts.measure() as cost:
        model.fit(wrap(device_X), device_y)
    assert max(cost.read_bytes, cost.upload_bytes) < X.nbytes / 10 and cost.numpy_dispatch == 0
    with fakecupy.counts.measure() as cost:
        proba, labels = model.predict_proba(wrap(device_X)), model.predict(wrap(device_X))
    assert cost.read_bytes < 100 and isinstance(proba, fakecupy.ndarray) and isinstance(labels, fakecupy.ndarray)
    np.testing.assert_allclose(proba.get(), host.predict_proba(X), atol=1e-5)
    np.testing.assert_array_equal(labels.get(), host.predict(X))
    assert model.score(device_X, device_y) == host.score(X, IRIS_Y)
    assert isinstance(model.predict(X), np.ndarray)  # rows of the host come back to it
    np.testing.assert_allclose(model.predict_log_proba(device_X).get(), host.predict_log_proba(X), atol=1e-4)
    np.testing.assert_allclose(model.coefs_[0], host.coefs_[0], atol=1e-5)


@pytest.mark.full
def test_every_way_to_train_takes_rows_on_the_gpu(gpu_here):
    X, y = fakecupy.asarray(DIABETES_X.astype(np.float32)), fakecupy.asarray(DIABETES_Y)
    for settings in ({"solver": "lbfgs"}, {"early_stopping": True}, {"early_stopping": True, "scoring": "r2"}, {}):
        settings |= {"max_iter": 4, "random_state": 0}
        model = MLPRegressor(device="cuda", **settings).fit(X, y)
        host = MLPRegressor(**settings).fit(DIABETES_X.astype(np.float32), DIABETES_Y)
        np.testing.assert_allclose(model.predict(X).get(), host.predict(DIABETES_X), atol=1e-3)
    assert model.partial_fit(X, y).loss_ < model.loss_curve_[0]
    assert len(model.fit(X, y, validation=(X, y)).validation_scores_) == 4
    text = MLPClassifier(device="cuda", max_iter=2).fit(fakecupy.asarray(IRIS_X), fakecupy.asarray(IRIS_Y == 0))
    assert isinstance(text.fit(IRIS_X, BINARY_Y).predict(fakecupy.asarray(IRIS_X)), np.ndarray)


def test_device_auto_goes_by_the_work_and_by_where_the_rows_are(gpu_here, monkeypatch):
    settings = {"device": "auto", "max_iter": 2, "callbacks": [xpnet.Budget(steps=3)]}
    assert "MFLOP a step" in (reason := MLPClassifier((3,), **settings).fit(IRIS_X, IRIS_Y).network_.backend.reason), (
        reason
    )
    X, y = fakecupy.asarray(IRIS_X), fakecupy.asarray(IRIS_Y)
    assert MLPClassifier((3,), **settings).fit(X, y).network_.backend.device == "cuda"
    monkeypatch.setattr(xpnet.engines.placing, "LAUNCH_SECONDS", 0.0)
    monkeypatch.setattr(xpnet.engines.placing, "START_SECONDS", 1e-9)
    model = MLPClassifier((3,), **settings).fit(IRIS_X, IRIS_Y)
    assert model.network_.backend.device == "cuda" and model.predict(IRIS_X).shape == IRIS_Y.shape


def test_mixed_sides_name_both(gpu_here):
    X, y = fakecupy.asarray(IRIS_X), fakecupy.asarray(IRIS_Y)
    model = MLPClassifier(device="cuda", max_iter=2)
    with refusal(
        TypeError, "X is a fakecupy.ndarray on cuda", "y a numpy.ndarray on cpu", "one side", "cupy.asarray(y)"
    ):
        model.fit(X, IRIS_Y)
    with refusal(
        TypeError, "X is a numpy.ndarray on cpu", "y a fakecupy.ndarray on cuda", "one side", "cupy.asarray(X)"
    ):
        model.fit(IRIS_X, y)
    with refusal(TypeError, "X is a fakecupy.ndarray on cuda", "the network is on cpu", "pass X.get()"):
        MLPClassifier(max_iter=2).fit(X, y)
    with refusal(ValueError, "X has 150 samples", "y has 5", "give as many of both"):
        model.fit(X, y[:5])
    fitted = MLPClassifier(max_iter=2).fit(IRIS_X, IRIS_Y)
    with refusal(TypeError, "on cuda", "on cpu", ".to('cuda')"):
        fitted.predict(X)
    for bad, *parts in (
        (X[:, :3], "X has 3 features", "MLPClassifier is expecting 4", "give those that it was fitted on"),
        (X[0], "X is (4,)", "it must be (n_samples, n_features)", "X.reshape(1, -1) for one sample"),
        (fakecupy.full((2, 4), np.nan), "X holds NaN", "it must hold finite numbers", "fill the gaps"),
    ):
        with refusal(ValueError, *parts):
            fitted.to("cuda").predict(bad)


def test_models_move_between_devices(gpu_here, monkeypatch):
    model = MLPClassifier(device="cuda", max_iter=3, random_state=0).fit(IRIS_X, BINARY_Y)
    assert model.network_.backend.device == "cuda"
    proba, stored = model.predict_proba(IRIS_X), pickle.dumps(model)
    assert pickle.loads(stored).network_.backend.device == "cuda"
    assert model.to("cpu") is model and model.device == "cpu" and model.network_.backend.device == "cpu"
    np.testing.assert_allclose(model.predict_proba(IRIS_X), proba, atol=1e-6)
    model.partial_fit(IRIS_X, BINARY_Y)  # with the optimizer's state
    assert model.to("cuda").network_.backend.device == "cuda"
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.warns(UserWarning, match="fitted on a GPU, and continues on the CPU"):
        alone = pickle.loads(stored)
    np.testing.assert_allclose(alone.predict_proba(IRIS_X), proba, atol=1e-6)
    assert alone.fit(IRIS_X, BINARY_Y).network_.backend.device == "cpu"


def test_producers_on_the_host():
    class HostProducer(Producer):
        pass

    model = MLPClassifier(max_iter=2, random_state=0).fit(HostProducer(IRIS_X), IRIS_Y)
    np.testing.assert_array_equal(model.predict(HostProducer(IRIS_X)), model.predict(IRIS_X))


def test_digits_are_learnt():
    X, y = scale(load_digits().data), load_digits().target
    model = MLPClassifier(random_state=0, max_iter=30).fit(X[:1200], y[:1200])
    assert model.score(X[1200:], y[1200:]) > 0.9


def test_a_pickle_names_its_version_and_a_newer_one_is_said(monkeypatch):
    model = xpnet.MLPClassifier((3,), max_iter=2).fit(IRIS_X, IRIS_Y)
    with monkeypatch.context() as patch:
        patch.setattr(base, "_version", lambda: "999.0.0")
        newer = pickle.dumps(model)
    assert b"999.0.0" in newer and base._version().encode() in pickle.dumps(model)
    with pytest.warns(UserWarning) as warned:
        found = pickle.loads(newer)
    says(
        str(warned[0].message),
        "was stored by xpnet 999.0.0",
        "it may lack what it needs",
        "pip install --upgrade xpnet",
    )
    np.testing.assert_array_equal(found.predict(IRIS_X), model.predict(IRIS_X))
    assert not hasattr(found, "_xpnet_version")


# --- what a fit costs ------------------------------------------------------------------------------------------------


@pytest.mark.in_turn(engine=["replay", "compiled"], early_stopping=[False, True])
def test_a_fit_takes_few_calls_of_the_engine_and_runs_few_epochs_in_vain(engine, early_stopping, monkeypatch):
    """The loss gains in all epochs but the last, so that the rule ends the training soon after a call begins."""
    monkeypatch.setattr(ahead, "CALL_SECONDS", 1e9)  # on a busy machine too
    calls = []
    for kind in (EpochsInTurn, Epochs):
        run = kind.run
        monkeypatch.setattr(kind, "run", lambda *given, run=run: calls.append(len(given[1])) or run(*given))
    settings = {"hidden_layer_sizes": 5, "engine": engine, "early_stopping": early_stopping, "random_state": 0}
    settings |= {"max_iter": 400, "n_iter_no_change": 20, "tol": 0.002}
    found = MLPClassifier(**settings).fit(IRIS_X, IRIS_Y)
    assert found.n_iter_ <= 1 + sum(calls) < found.n_iter_ + 4 and len(calls) < 5 + found.n_iter_ / 8
    n_calls = len(calls)
    alone = MLPClassifier(**settings, callbacks=[xpnet.Callback()]).fit(IRIS_X, IRIS_Y)  # which may change the network
    assert found.n_iter_ < 400 and len(calls) == n_calls
    assert found.loss_curve_ == alone.loss_curve_ and found.validation_scores_ == alone.validation_scores_
    np.testing.assert_array_equal(found.network_.owned, alone.network_.owned)


def test_the_score_of_early_stopping_is_what_the_engine_measures(monkeypatch):
    """The same as scikit-learn's scorers find, without a prediction."""
    predicted, forward, predict = [], xpnet.Network.forward, xpnet.Network.predict
    monkeypatch.setattr(xpnet.Network, "forward", lambda *given: predicted.append(1) or forward(*given))
    monkeypatch.setattr(xpnet.Network, "predict", lambda *given: predicted.append(1) or predict(*given))
    settings = {"hidden_layer_sizes": 5, "early_stopping": True, "random_state": 0, "max_iter": 12}
    for kind, y, name in ((MLPClassifier, IRIS_Y, "accuracy"), (MLPRegressor, 9.0 * IRIS_X[:, 0] + 40.0, "r2")):
        measured = kind(**settings).fit(IRIS_X, y)
        assert not predicted
        scored = kind(**settings, scoring=name).fit(IRIS_X, y)
        assert len(predicted) == scored.n_iter_ == measured.n_iter_
        np.testing.assert_allclose(measured.validation_scores_, scored.validation_scores_, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(measured.network_.owned, scored.network_.owned)
        predicted.clear()


@pytest.mark.full
def test_a_second_fit_of_that_shape_records_prints_and_links_nothing(monkeypatch):
    made = []
    for kind, name in ((Recorder, "finish"), (StepPrinter, "function")):
        call = getattr(kind, name)
        monkeypatch.setattr(kind, name, lambda *given, call=call: made.append(1) or call(*given))
    settings = {"hidden_layer_sizes": 6, "engine": "compiled", "max_iter": 3, "batch_size": 32}
    first = MLPClassifier(**settings, random_state=0).fit(IRIS_X, IRIS_Y)
    n_made, n_linked = len(made), native._linked.cache_info().misses
    again = MLPClassifier(**settings, random_state=0, alpha=0.1).fit(IRIS_X, IRIS_Y)  # a slot
    assert n_made > 0 and (len(made), native._linked.cache_info().misses) == (n_made, n_linked)
    assert first.loss_curve_ != again.loss_curve_
