"""xpnet: feed-forward networks on NumPy or CuPy from one set of column-vector, batched kernels.

One sample is one column. Start with `xpnet.training`, the page to read first; `xpnet.functional` is the same network
as plain functions on a dict.
"""

from xpnet.backend import Backend, BackendUnavailable, select_backend
from xpnet.callbacks import Callback, History
from xpnet.custom import CustomActivation, CustomLoss
from xpnet.data import Dataset, standardize
from xpnet.gradcheck import check_gradients, numerical_gradient
from xpnet.layers import Activation, Dense
from xpnet.losses import Huber, SigmoidCrossEntropy, SoftmaxCrossEntropy
from xpnet.network import Network
from xpnet.optimizers import SGD
from xpnet.training import TrainingDiverged, epochs, evaluate, step, train

__version__ = "0.1.0"

__all__ = [
    "SGD",
    "Activation",
    "Backend",
    "BackendUnavailable",
    "Callback",
    "CustomActivation",
    "CustomLoss",
    "Dataset",
    "Dense",
    "History",
    "Huber",
    "Network",
    "SigmoidCrossEntropy",
    "SoftmaxCrossEntropy",
    "TrainingDiverged",
    "check_gradients",
    "epochs",
    "evaluate",
    "numerical_gradient",
    "select_backend",
    "standardize",
    "step",
    "train",
]
