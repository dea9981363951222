"""The first 20 updates in float64 beside the installed scikit-learn's, from the same weights and in the same order."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.datasets import load_diabetes, load_iris
from sklearn.neural_network import MLPClassifier as TheirClassifier
from sklearn.neural_network import MLPRegressor as TheirRegressor
from sklearn.preprocessing import scale

from xpnet import MLPClassifier, MLPRegressor
from xpnet.estimators.orders import ScikitOrders

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

DATA = {
    "classes": (scale(load_iris().data), load_iris().target),
    "numbers": (scale(load_diabetes().data)[:150], scale(load_diabetes().target)[:150]),
}
KINDS = {"classes": (MLPClassifier, TheirClassifier), "numbers": (MLPRegressor, TheirRegressor)}
SAME = {
    "hidden_layer_sizes": (7, 5),
    "random_state": 3,
    "shuffle": False,
    "batch_size": 30,
    "max_iter": 4,
}  # 5 an epoch
CHANGING = {
    "invscaling": {"learning_rate": "invscaling", "learning_rate_init": 0.3},
    "adaptive": {"learning_rate": "adaptive", "learning_rate_init": 0.02, "n_iter_no_change": 1, "tol": 1.0},
}
MOMENTUM = {"none": {"momentum": 0.0}, "polyak": {"nesterovs_momentum": False}, "nesterov": {}}
WEIGHTS = np.random.default_rng(0).uniform(0.0, 3.0, 150)
CASES = {
    "sgd": {"solver": "sgd", "momentum": 0.0},
    "momentum": {"solver": "sgd", "nesterovs_momentum": False},
    "nesterov": {"solver": "sgd", "learning_rate_init": 0.02},
    **{
        f"{rate}, {name}": {"solver": "sgd"} | settings | how
        for rate, settings in CHANGING.items()
        for name, how in MOMENTUM.items()
    },
    "adam": {"solver": "adam", "epsilon": 1e-6},
    "lbfgs": {"solver": "lbfgs", "max_iter": 20},
    "alpha": {"solver": "adam", "alpha": 2.0},
    "early stopping": {"solver": "adam", "early_stopping": True, "batch_size": 27},
    "tol": {"solver": "sgd", "tol": 10.0, "n_iter_no_change": 2, "max_iter": 200},
    "warm start": {"solver": "adam", "warm_start": True, "max_iter": 2},
    "partial_fit": {"solver": "adam"},
    "sample weights": {"solver": "adam", "alpha": 0.5},
}


def trained(kind, case, X, y, settings):
    model, weights = kind(**SAME | settings), WEIGHTS if case == "sample weights" else None
    if case == "partial_fit":
        for start in (0, 50, 20, 0):
            classes = {"classes": np.unique(y)} if "Classifier" in kind.__name__ else {}
            model.partial_fit(X[start : start + 100], y[start : start + 100], sample_weight=WEIGHTS[:100], **classes)
        return model
    for _ in range(2 if case == "warm start" else 1):
        model.fit(X, y, sample_weight=weights)
    return model


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=pytest.mark.full if case.endswith(", none") else ()) for case in CASES]
)
@pytest.mark.parametrize("data", DATA)
def test_updates_are_those_of_scikit_learn(case, data):
    X, y = DATA[data]
    ours, theirs = (trained(kind, case, X, y, CASES[case]) for kind in KINDS[data])
    tolerance = 1e-6 if case == "lbfgs" else 1e-11  # whose line search makes more of a rounding
    for found, needed in zip(ours.coefs_ + ours.intercepts_, theirs.coefs_ + theirs.intercepts_, strict=True):
        np.testing.assert_allclose(found, needed, rtol=0, atol=tolerance)
    np.testing.assert_allclose(ours.loss_, theirs.loss_, rtol=max(tolerance, 1e-10))
    assert ours.n_iter_ == theirs.n_iter_
    if case != "lbfgs":
        n_records = min(len(ours.loss_curve_), ours.n_iter_)  # scikit-learn's begins anew where a fit goes on
        np.testing.assert_allclose(ours.loss_curve_[-n_records:], theirs.loss_curve_[-n_records:], rtol=1e-10)
    if case == "early stopping":
        np.testing.assert_allclose(ours.validation_scores_, theirs.validation_scores_, atol=1e-10)


STEADY = [case for case, settings in CASES.items() if case != "lbfgs" and "max_iter" not in settings]


@pytest.mark.full
@pytest.mark.parametrize("shuffles", [False, True])
@pytest.mark.parametrize("case", [case for case in STEADY if case != "partial_fit" and "adaptive" not in case])
@pytest.mark.parametrize("data", DATA)
def test_long_trainings_keep_to_the_same_loss(case, data, shuffles):
    """Within a hundredth, in all of 150 epochs: what rounding adds up to."""
    longer = CASES[case] | {"max_iter": 150, "tol": 0.0, "n_iter_no_change": 1000, "shuffle": shuffles}
    ours, theirs = (trained(kind, case, *DATA[data], longer) for kind in KINDS[data])
    np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, rtol=0.01)


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=() if case in ("adam", "partial_fit") else pytest.mark.full) for case in STEADY]
)
def test_shuffled_updates_are_those_of_scikit_learn(case):
    """Whose random_state draws the same orders."""
    settings = CASES[case] | {"shuffle": True}
    ours, theirs = (trained(kind, case, *DATA["classes"], settings) for kind in KINDS["classes"])
    for found, needed in zip(ours.coefs_ + ours.intercepts_, theirs.coefs_ + theirs.intercepts_, strict=True):
        np.testing.assert_allclose(found, needed, rtol=0, atol=1e-11)


def test_a_generator_that_several_fits_draw_from_is_left_as_scikit_learn_leaves_it():
    """Though an engine runs epochs ahead; random_state=None draws from the one that np.random.seed sets."""
    settings = SAME | {"shuffle": True, "n_iter_no_change": 3, "max_iter": 60, "tol": 0.02}
    drawn = []
    for kind in KINDS["classes"]:
        rng = np.random.RandomState(5)
        fits = [kind(**settings | {"random_state": rng}).fit(*DATA["classes"]) for _ in range(2)]
        kept = np.random.get_state()
        np.random.seed(8)
        try:
            fits.append(kind(**settings | {"random_state": None}).fit(*DATA["classes"]))
            drawn.append((rng.rand(), np.random.rand(), *(each.n_iter_ for each in fits)))
        finally:
            np.random.set_state(kept)
    assert drawn[0] == drawn[1] and drawn[0][2] < 60


def drawn_by(orders, n_epochs):
    order = np.tile(np.arange(5), (n_epochs, 1))
    for epoch in order:
        orders.shuffle(epoch)
    return order


def test_a_state_of_the_orders_is_gone_back_to():
    """As a checkpoint among the callbacks of a fit keeps it."""
    orders = ScikitOrders(np.random.RandomState(1))
    drawn = drawn_by(orders, 4)
    state = json.loads(json.dumps({**orders.bit_generator.state} | {"orders": 2}))
    other = ScikitOrders(np.random.RandomState(1))
    other.bit_generator.state = state
    np.testing.assert_array_equal(drawn_by(other, 2), drawn[2:])


@pytest.mark.parametrize("case", ["adaptive, nesterov", "early stopping"])
def test_the_lines_of_verbose_are_those_of_scikit_learn(case, capsys):
    """To the last digit, those on an adaptive rate too, down to the smallest."""
    printed = []
    for kind in KINDS["classes"]:
        trained(kind, case, *DATA["classes"], CASES[case] | {"max_iter": 30, "shuffle": True, "verbose": True})
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1] and printed[0].count("\n") > 20
    for said in ("Setting learning rate to 0.004000\n", "Learning rate too small. Stopping.\n"):
        assert (said in printed[0]) == case.startswith("adaptive")
