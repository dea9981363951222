"""scikit-learn's interface: the estimators, their settings, data, fitting and bridges."""

import sys

try:
    import sklearn

    if [int(part) for part in sklearn.__version__.split(".")[:2]] < [1, 7]:
        raise ImportError("its MLPs have neither sample weights nor a loss")
except ImportError as error:
    raise ImportError(
        "xpnet.MLPClassifier, xpnet.TableClassifier and their regressors need scikit-learn 1.7 or newer, here is "
        f"{getattr(sys.modules.get('sklearn'), '__version__', 'none')} ({error}); pip install 'xpnet[sklearn]'"
    ) from error

from xpnet.estimators import base
from xpnet.estimators.mlp import MLPClassifier, MLPRegressor, from_sklearn
from xpnet.estimators.tables import TableClassifier, TableRegressor
from xpnet.network import architecture, custom, dropout, layers, losses, normalization, parameters
from xpnet.training import callbacks, checkpoint, optimizers, schedules

__all__ = ["MLPClassifier", "MLPRegressor", "TableClassifier", "TableRegressor", "from_sklearn"]

# A pickle names the module of each class. Estimators that xpnet 0.1 pickled name these where they were then.
_MOVED = {
    "estimator_base": base,
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
