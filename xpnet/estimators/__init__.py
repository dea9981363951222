"""scikit-learn's interface: the estimators, their settings, data, fitting and bridges."""

import sys

from xpnet.estimators.mlp import MLPClassifier, MLPRegressor, from_sklearn
from xpnet.network import architecture, custom, dropout, layers, losses, normalization, parameters
from xpnet.training import callbacks, checkpoint, optimizers, schedules

__all__ = ["MLPClassifier", "MLPRegressor", "from_sklearn"]

# A pickle names the module of each class. Estimators that xpnet 0.1 pickled name these where they were then.
_MOVED = {
    "estimator_base": sys.modules["xpnet.estimators.base"],  # mlp.py goes first: it says what is missing
    "architecture": architecture,
    "callbacks": callbacks,
    "checkpoint": checkpoint,
    "custom": custom,
    "dropout": dropout,
    "layers": layers,
    "losses": losses,
    "normalization": normalization,
    "optimizers": optimizers,
    "parameters": parameters,
    "schedules": schedules,
}
sys.modules.update({f"xpnet.{name}": module for name, module in _MOVED.items()})
