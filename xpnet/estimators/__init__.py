"""scikit-learn's interface: the estimators, their settings, data, fitting and bridges."""

import sys

from xpnet.estimators import base
from xpnet.estimators.mlp import MLPClassifier, MLPRegressor, from_sklearn
from xpnet.network import architecture, custom, dropout, layers, losses, normalization, parameters
from xpnet.training import callbacks, checkpoint, optimizers, schedules

__all__ = ["MLPClassifier", "MLPRegressor", "from_sklearn"]

# A pickle names the module of each class. Estimators pickled by xpnet 0.1 name these where they were then.
for module in (architecture, custom, dropout, layers, losses, normalization, parameters):
    sys.modules.setdefault(module.__name__.replace("xpnet.network.", "xpnet."), module)
for module in (callbacks, checkpoint, optimizers, schedules):
    sys.modules.setdefault(module.__name__.replace("xpnet.training.", "xpnet."), module)
sys.modules.setdefault("xpnet.estimator_base", base)
