"""xpnet: feed-forward networks on NumPy or CuPy from one set of column-vector, batched kernels.

One sample is one column. Read in this order: `xpnet.functional` is the algorithm as plain functions on a dict,
`xpnet.network.programs` is the same algorithm, recorded, and `xpnet.training.loop` trains with it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for type checkers: the tables below; each module lists its names in `__all__`
    from xpnet import datasets as datasets
    from xpnet import functional as functional
    from xpnet import plots as plots
    from xpnet.backend import *
    from xpnet.data.dataset import *
    from xpnet.estimators import *
    from xpnet.exporting.export import *
    from xpnet.exporting.keras_layers import *
    from xpnet.exporting.torch_modules import *
    from xpnet.network import losses as losses
    from xpnet.network.custom import *
    from xpnet.network.dropout import *
    from xpnet.network.gradcheck import *
    from xpnet.network.layers import *
    from xpnet.network.losses import *
    from xpnet.network.network import *
    from xpnet.network.normalization import *
    from xpnet.network.summary import *
    from xpnet.parallel.communicator import *
    from xpnet.tables.arrays import *
    from xpnet.tables.model import *
    from xpnet.training import metrics as metrics
    from xpnet.training import schedules as schedules
    from xpnet.training.callbacks import *
    from xpnet.training.checkpoint import *
    from xpnet.training.evaluation import *
    from xpnet.training.loop import *
    from xpnet.training.lr_finder import *
    from xpnet.training.optimizers import *
    from xpnet.training.records import *
    from xpnet.training.schedules import *
    from xpnet.training.step import *
    from xpnet.training.trackers import *
    from xpnet.tuning.tune import *

__version__ = "0.2.0"

# Where each public name lives. A module is imported when one of its names is first used, so that `import xpnet` takes
# next to no time and a command loads only what it uses.
_HOMES = {
    "backend": "Backend BackendUnavailable DeviceFull select_backend",
    "data.dataset": "Dataset standardize",
    "exporting.export": "export",
    "exporting.keras_layers": "from_keras",
    "exporting.torch_modules": "from_torch",
    "network.custom": "CustomActivation CustomLoss",
    "network.dropout": "Dropout",
    "network.gradcheck": "check_gradients numerical_gradient",
    "network.layers": "Activation Dense",
    "network.losses": "Huber SigmoidCrossEntropy SoftmaxCrossEntropy",
    "network.network": "Network",
    "network.normalization": "BatchNorm LayerNorm",
    "network.summary": "summary",
    "parallel.communicator": "communicator",
    "tables.arrays": "load_rows",
    "training.callbacks": "Budget Callback EarlyStopping HistoryFile KeepBest ReduceOnPlateau StopAtScore",
    "training.checkpoint": "Checkpoint",
    "training.evaluation": "evaluate",
    "training.loop": "TrainingDiverged epochs train",
    "training.lr_finder": "RateSearch find_lr",
    "training.optimizers": "SGD AdaGrad Adam AdamW Lion Momentum NAdam Nesterov Optimizer RMSProp",
    "training.records": "History",
    "training.step": "step",
    "training.trackers": "MLflow TensorBoard",
    "training.schedules": "Constant Cosine Exponential InverseScaling OneCycle Schedule Step WarmUp",
}
_EXTRAS = {
    "estimators": "MLPClassifier MLPRegressor TableClassifier TableRegressor from_sklearn",
    "tables.model": "TableModel load",
    "tuning.tune": "Tuned tune",
}  # need an extra: `from xpnet import *` leaves them out
_MODULES = {  # to be used as xpnet.datasets.load_mnist
    "datasets": "datasets",
    "functional": "functional",
    "losses": "network.losses",
    "metrics": "training.metrics",
    "plots": "plots",
    "schedules": "training.schedules",
}
_HOME = {name: home for home, names in (_HOMES | _EXTRAS).items() for name in names.split()}

if not TYPE_CHECKING:  # a type checker would take any name for granted
    __all__ = [name for names in _HOMES.values() for name in names.split()]

    def __getattr__(name: str) -> Any:
        if name in _MODULES:
            return import_module(f"xpnet.{_MODULES[name]}")
        if name in _HOME:
            return getattr(import_module(f"xpnet.{_HOME[name]}"), name)
        raise AttributeError(f"module 'xpnet' has no attribute {name!r}; take one of dir(xpnet)")


def __dir__() -> list[str]:
    return sorted({"__version__", *_HOME, *_MODULES})
