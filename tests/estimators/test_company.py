"""The estimators in the hands of scikit-learn's tools: inspection, ensembles, searches, wrappers, picklers."""

from __future__ import annotations

import io
import pickle

import joblib
import numpy as np
import pytest
from joblib.externals.loky.backend import reduction
from sklearn import config_context, neural_network
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor
from sklearn.datasets import load_iris
from sklearn.ensemble import BaggingRegressor, StackingClassifier
from sklearn.experimental import enable_halving_search_cv  # noqa: F401  without it there is none
from sklearn.feature_selection import RFECV
from sklearn.frozen import FrozenEstimator
from sklearn.inspection import partial_dependence, permutation_importance
from sklearn.model_selection import HalvingGridSearchCV, TunedThresholdClassifierCV, cross_val_predict, learning_curve
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, scale

from xpnet import MLPClassifier, MLPRegressor, accelerate

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, Y = scale(load_iris().data), load_iris().target
QUICK = {"hidden_layer_sizes": (6,), "max_iter": 20, "learning_rate_init": 0.05, "random_state": 0}
NET, NUMBERS = MLPClassifier(**QUICK), MLPRegressor(**QUICK)


def test_importances_and_partial_dependence():
    """Of a target that one feature alone decides."""
    model = MLPRegressor(**QUICK | {"max_iter": 100}).fit(X, X[:, 2])
    assert permutation_importance(model, X, X[:, 2], n_repeats=3, random_state=0).importances_mean.argmax() == 2
    heights = [np.ptp(partial_dependence(model, X, [feature])["average"]) for feature in range(4)]
    assert np.argmax(heights) == 2
    with pytest.raises(ValueError, match=r"importance_getter=='auto'.* should have `coef_` or `feature_importances_`"):
        RFECV(NET, cv=2).fit(X, Y)


@pytest.mark.full
@pytest.mark.parametrize(
    "model",
    [
        CalibratedClassifierCV(NET, cv=2),
        CalibratedClassifierCV(FrozenEstimator(NET)),
        StackingClassifier([("net", NET)], final_estimator=NET, cv=2),
        OneVsRestClassifier(NET),
        HalvingGridSearchCV(NET, {"alpha": [0.0, 0.1]}, cv=2, min_resources=60),
    ],
    ids=lambda model: type(model).__name__,
)
def test_classifiers_made_of_classifiers(model):
    NET.fit(X, Y)  # which a frozen one keeps
    assert model.fit(X, Y).score(X, Y) > 0.8


@pytest.mark.full
def test_other_wrappers():
    assert BaggingRegressor(NUMBERS, 2, random_state=0).fit(X, X[:, 0]).score(X, X[:, 0]) > 0.8
    both = MultiOutputClassifier(NET).fit(X, np.stack([Y, Y > 0], axis=1).astype(int))
    assert both.score(X, np.stack([Y, Y > 0], axis=1)) > 0.8
    assert TunedThresholdClassifierCV(NET, cv=2).fit(X, Y > 0).score(X, Y > 0) > 0.8
    assert (cross_val_predict(NET, X, Y, cv=3) == Y).mean() > 0.8
    assert learning_curve(NET, X, Y, cv=2, train_sizes=[0.5, 1.0], shuffle=True, random_state=0)[2].shape == (2, 2)


def test_other_picklers():
    """The second is that of joblib's processes, cloudpickle."""
    model, file = NET.fit(X, Y), io.BytesIO()
    joblib.dump(model, file)
    file.seek(0)
    for again in (joblib.load(file), pickle.loads(reduction.dumps(model))):
        np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))


def test_rows_that_a_scaler_puts_out_as_polars():
    """As `set_config(transform_output="polars")` asks of every transformer."""
    frames = pytest.importorskip("polars", reason="the extra test-company brings it")
    raw = frames.DataFrame({name: load_iris().data[:, i] for i, name in enumerate("abcd")})
    with config_context(transform_output="polars"):
        model = make_pipeline(StandardScaler(), NET).fit(raw, Y)
        assert isinstance(model[0].transform(raw), frames.DataFrame)
        assert list(model[-1].feature_names_in_) == list("abcd")
        np.testing.assert_allclose(model.predict_proba(raw), clone(NET).fit(X, Y).predict_proba(X), rtol=1e-9)
        numbers = make_pipeline(StandardScaler(), TransformedTargetRegressor(NUMBERS)).fit(raw, X[:, 0])
        assert numbers.predict(raw).shape == (150,)


def test_files_of_skops_are_inspected_before_they_are_loaded():
    """They name nothing but xpnet's own classes and functions; under xpnet.accelerate nothing that is not known."""
    skops = pytest.importorskip("skops.io", reason="the extra test-company brings it")
    for model in (NET.fit(X, Y), MLPRegressor(**QUICK | {"solver": "lbfgs"}).fit(X, X[:, 0])):
        stored = skops.dumps(model)
        named = skops.get_untrusted_types(data=stored)
        assert {name.split(".")[0] for name in named} <= {"xpnet", "numpy"}
        assert f"xpnet.estimators.mlp.{type(model).__name__}" in named
        with pytest.raises(skops.exceptions.UntrustedTypesFoundException):
            skops.loads(stored)
        again = skops.loads(stored, trusted=named)
        np.testing.assert_array_equal(again.predict(X), model.predict(X))
        if model.solver != "lbfgs":
            for each in (model, again):
                each.partial_fit(X, Y)
            np.testing.assert_array_equal(again.coefs_[0], model.coefs_[0])
    accelerate.install(is_quiet=True)
    try:
        stored = skops.dumps(neural_network.MLPClassifier(**QUICK).fit(X, Y))
        assert skops.get_untrusted_types(data=stored) == []
    finally:
        accelerate.uninstall()
    assert type(skops.loads(stored)) is neural_network.MLPClassifier
