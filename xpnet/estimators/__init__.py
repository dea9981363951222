"""scikit-learn's interface: the estimators, their settings, data, fitting and bridges."""

from xpnet.estimators.mlp import MLPClassifier, MLPRegressor, from_sklearn

__all__ = ["MLPClassifier", "MLPRegressor", "from_sklearn"]
