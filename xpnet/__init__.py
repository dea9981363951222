"""xpnet: feed-forward networks on NumPy or CuPy from one set of column-vector, batched kernels.

One sample is one column. Start with `xpnet.training`, the page to read first; `xpnet.functional` is the same network
as plain functions on a dict.
"""

from xpnet import schedules
from xpnet.backend import Backend, BackendUnavailable, select_backend
from xpnet.callbacks import Callback, History, ReduceOnPlateau
from xpnet.data import Dataset, standardize
from xpnet.gradcheck import check_gradients, numerical_gradient
from xpnet.layers import Activation, Dense
from xpnet.lr_finder import RateSearch, find_lr
from xpnet.network import Network
from xpnet.optimizers import SGD, AdaGrad, Adam, AdamW, Lion, Momentum, NAdam, Nesterov, Optimizer, RMSProp
from xpnet.training import TrainingDiverged, epochs, evaluate, step, train

__version__ = "0.1.0"

__all__ = [
    "SGD",
    "Activation",
    "AdaGrad",
    "Adam",
    "AdamW",
    "Backend",
    "BackendUnavailable",
    "Callback",
    "Dataset",
    "Dense",
    "History",
    "Lion",
    "Momentum",
    "NAdam",
    "Nesterov",
    "Network",
    "Optimizer",
    "RMSProp",
    "RateSearch",
    "ReduceOnPlateau",
    "TrainingDiverged",
    "check_gradients",
    "epochs",
    "evaluate",
    "find_lr",
    "numerical_gradient",
    "schedules",
    "select_backend",
    "standardize",
    "step",
    "train",
]
