"""Convert a fitted estimator of scikit-learn to xpnet's and back: settings, weights, classes and records.

`xpnet.estimators.mlp.from_sklearn` and the method `to_sklearn` are the ways in.
"""

from __future__ import annotations

from typing import Any

from sklearn.base import is_classifier

from xpnet.backend import select_backend
from xpnet.checks import check_option
from xpnet.estimators.settings import ACTIVATION_NAMES, loss_of_kind, make_network

RECORDS = (
    "n_iter_",
    "t_",
    "loss_",
    "loss_curve_",
    "best_loss_",
    "validation_scores_",
    "best_validation_score_",
    "n_layers_",
    "n_outputs_",
    "out_activation_",
    "n_features_in_",
    "feature_names_in_",
    "classes_",
)
ACTIVATIONS = ("identity", "logistic", "tanh", "relu")  # scikit-learn's
LOSSES = ("log_loss", "squared_error", "poisson")
SOLVERS = ("lbfgs", "sgd", "adam")


def take_over(estimator: Any, fitted: Any) -> Any:
    """Give a new estimator what scikit-learn's fitted one has learned, and return it."""
    for name in RECORDS:
        if hasattr(fitted, name):
            setattr(estimator, name, getattr(fitted, name))
    if hasattr(fitted, "classes_"):
        estimator._binarizer = fitted._label_binarizer
    coefs = fitted.coefs_
    backend = select_backend(estimator.device, coefs[0].dtype)
    loss = loss_of_kind(estimator.loss, fitted.out_activation_ == "softmax")
    network = estimator.network_ = make_network(
        estimator, coefs[0].shape[0], coefs[-1].shape[1], loss, None, backend=backend
    )
    for W, b, coef, intercept in zip(
        network.parameters.weights, network.parameters.biases, coefs, fitted.intercepts_, strict=True
    ):
        W[...], b[...] = backend.to_device(coef.T), backend.to_device(intercept.reshape(-1, 1))
    estimator.loss_curve_ = list(getattr(estimator, "loss_curve_", ()))  # solver "lbfgs" has none
    estimator._optimizer = None
    return estimator


def lacking_options(estimator: Any) -> list[str]:
    """Return the options of an estimator, as name=value, that scikit-learn has nothing for."""
    kind, there = type(estimator), _scikit_class(estimator)()
    lacks = {
        name: getattr(estimator, name)
        for name in sorted(estimator.get_params(deep=False).keys() - vars(there).keys())
        if getattr(estimator, name) != getattr(kind, name, None)
    }
    values = {"solver": SOLVERS, "loss": LOSSES, "activation": ACTIVATIONS}
    for name, known in values.items():
        value = getattr(estimator, name)
        if not isinstance(value, str) or value not in known:
            lacks[name] = value
    return [f"{name}={value!r}" for name, value in lacks.items()]


def _scikit_class(estimator: Any) -> Any:
    """Return scikit-learn's class for an estimator, also where `xpnet.accelerate` has put another in its place."""
    from sklearn import neural_network

    found = neural_network.MLPClassifier if is_classifier(estimator) else neural_network.MLPRegressor
    return getattr(found, "replaces", found)


def to_sklearn(estimator: Any) -> Any:
    """Return scikit-learn's estimator with this fitted one's settings, weights and records."""
    made = settings_for_sklearn(estimator)
    for name in RECORDS:
        if hasattr(estimator, name):
            setattr(made, name, getattr(estimator, name))
    made.coefs_ = [W.copy() for W in estimator.coefs_]
    made.intercepts_ = [b.copy() for b in estimator.intercepts_]
    made._best_coefs, made._best_intercepts = made.coefs_, made.intercepts_
    made._no_improvement_count = 0
    if hasattr(estimator, "classes_"):
        made._label_binarizer = estimator._binarizer
    return made


def settings_for_sklearn(estimator: Any) -> Any:
    """Return scikit-learn's estimator with this one's settings; ValueError if it lacks the activation or loss."""

    names = {here: there for there, here in ACTIVATION_NAMES.items()}
    activation = estimator.activation
    if isinstance(activation, (list, tuple)) and len(set(activation)) == 1:
        activation = activation[0]
    check_option("activation of scikit-learn's estimator", names.get(activation, activation), ACTIVATIONS)
    check_option("loss of scikit-learn's estimator", estimator.loss, LOSSES)
    made = _scikit_class(estimator)()
    settings = estimator.get_params(deep=False)
    settings |= {"activation": names.get(activation, activation)}
    if estimator.solver not in SOLVERS:
        settings["solver"] = "adam"
    return made.set_params(**{name: settings[name] for name in made.get_params() if name in settings})
