"""xpnet: feed-forward networks on NumPy or CuPy from one set of column-vector, batched kernels.

One sample is one column. Start with `xpnet.training`, the page to read first; `xpnet.functional` is the same network
as plain functions on a dict.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xpnet.backend import Backend, BackendUnavailable, select_backend
    from xpnet.callbacks import Budget, Callback, EarlyStopping, History, HistoryFile, ReduceOnPlateau, StopAtScore
    from xpnet.checkpoint import Checkpoint
    from xpnet.custom import CustomActivation, CustomLoss
    from xpnet.data import Dataset, standardize
    from xpnet.dropout import Dropout
    from xpnet.estimators import MLPClassifier, MLPRegressor, from_sklearn  # noqa: F401  they need an extra
    from xpnet.gradcheck import check_gradients, numerical_gradient
    from xpnet.layers import Activation, Dense
    from xpnet.losses import Huber, SigmoidCrossEntropy, SoftmaxCrossEntropy
    from xpnet.lr_finder import RateSearch, find_lr
    from xpnet.network import Network
    from xpnet.normalization import BatchNorm, LayerNorm
    from xpnet.optimizers import SGD, AdaGrad, Adam, AdamW, Lion, Momentum, NAdam, Nesterov, Optimizer, RMSProp
    from xpnet.schedules import Constant, Cosine, Exponential, InverseScaling, OneCycle, Schedule, Step, WarmUp
    from xpnet.training import TrainingDiverged, epochs, evaluate, step, train

__version__ = "0.1.0"

# Where each public name lives. A module is imported when a name of its is first used: `import xpnet` costs next to
# nothing, and a command that trains no network waits for none.
_HOMES = {
    "backend": ("Backend", "BackendUnavailable", "select_backend"),
    "callbacks": ("Budget", "Callback", "EarlyStopping", "History", "HistoryFile", "ReduceOnPlateau", "StopAtScore"),
    "checkpoint": ("Checkpoint",),
    "custom": ("CustomActivation", "CustomLoss"),
    "data": ("Dataset", "standardize"),
    "dropout": ("Dropout",),
    "gradcheck": ("check_gradients", "numerical_gradient"),
    "layers": ("Activation", "Dense"),
    "losses": ("Huber", "SigmoidCrossEntropy", "SoftmaxCrossEntropy"),
    "lr_finder": ("RateSearch", "find_lr"),
    "network": ("Network",),
    "normalization": ("BatchNorm", "LayerNorm"),
    "optimizers": (
        "SGD",
        "AdaGrad",
        "Adam",
        "AdamW",
        "Lion",
        "Momentum",
        "NAdam",
        "Nesterov",
        "Optimizer",
        "RMSProp",
    ),
    "schedules": ("Constant", "Cosine", "Exponential", "InverseScaling", "OneCycle", "Schedule", "Step", "WarmUp"),
    "training": ("TrainingDiverged", "epochs", "evaluate", "step", "train"),
}

# These need an extra, so `from xpnet import *` leaves them out.
_EXTRAS = {"estimators": ("MLPClassifier", "MLPRegressor", "from_sklearn")}

_MODULES = ("datasets", "functional", "metrics", "plots")  # to be used as xpnet.datasets.load_mnist

__all__ = [
    "SGD",
    "Activation",
    "AdaGrad",
    "Adam",
    "AdamW",
    "Backend",
    "BackendUnavailable",
    "BatchNorm",
    "Budget",
    "Callback",
    "Checkpoint",
    "Constant",
    "Cosine",
    "CustomActivation",
    "CustomLoss",
    "Dataset",
    "Dense",
    "Dropout",
    "EarlyStopping",
    "Exponential",
    "History",
    "HistoryFile",
    "Huber",
    "InverseScaling",
    "LayerNorm",
    "Lion",
    "Momentum",
    "NAdam",
    "Nesterov",
    "Network",
    "OneCycle",
    "Optimizer",
    "RMSProp",
    "RateSearch",
    "ReduceOnPlateau",
    "Schedule",
    "SigmoidCrossEntropy",
    "SoftmaxCrossEntropy",
    "Step",
    "StopAtScore",
    "TrainingDiverged",
    "WarmUp",
    "check_gradients",
    "epochs",
    "evaluate",
    "find_lr",
    "numerical_gradient",
    "select_backend",
    "standardize",
    "step",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"xpnet.{name}")
    for home, names in (*_HOMES.items(), *_EXTRAS.items()):
        if name in names:
            return getattr(import_module(f"xpnet.{home}"), name)
    raise AttributeError(f"module 'xpnet' has no attribute {name!r}; take one of dir(xpnet)")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *(name for names in _EXTRAS.values() for name in names)})
