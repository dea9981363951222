"""What the two estimators share: parameters, fit and partial_fit, predictions where X lies, moves and pickles.

Rows outside, columns inside: one sample is one row of X here, and `train` gets a view of its transpose.
`xpnet.estimators.inputs` checks what is given, `settings` turns parameters into networks and optimizers, `fitting`
trains, and `mlp` has the estimators themselves.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from importlib import metadata
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from xpnet.backend import BackendUnavailable, select_backend
from xpnet.estimators.bridge import to_sklearn
from xpnet.estimators.data import check_sides, dataset_of, float_type, on_host, side_of
from xpnet.estimators.fitting import fit_epochs, fit_lbfgs, fit_once
from xpnet.estimators.inputs import checked_validation, rows_to_predict, split, taken
from xpnet.estimators.settings import OUT_ACTIVATIONS, check_goes_on, check_settings, loss_of_kind, make_network
from xpnet.estimators.stored import Stored
from xpnet.estimators.tasks import CallbackSupportMixin, Tasks, tasks_of, with_callbacks
from xpnet.estimators.together import check_alone, random_state
from xpnet.estimators.undo import as_before_on_failure
from xpnet.estimators.weights import Weights, take_given
from xpnet.network.losses import Loss, loss_of
from xpnet.network.network import Network
from xpnet.training.callbacks import Callback
from xpnet.training.optimizers import Optimizer
from xpnet.training.schedules import Schedule

_Stored = Stored  # as pickles of xpnet 0.1 call it


def is_stochastic(estimator: Any) -> bool:
    """Whether the solver takes steps over batches, so that more samples may follow."""
    return bool(estimator.solver != "lbfgs")


@dataclass(eq=False, repr=False)
class BaseMLP(CallbackSupportMixin, BaseEstimator):  # type: ignore[misc]
    """The base of classifier and regressor, which document parameters and attributes."""

    hidden_layer_sizes: Any = (100,)
    activation: Any = "relu"
    _: KW_ONLY
    solver: str = "adam"
    alpha: float = 0.0001
    batch_size: int | str = "auto"
    learning_rate: str = "constant"
    learning_rate_init: float = 0.001
    power_t: float = 0.5
    max_iter: int = 200
    loss: str | Loss = "squared_error"
    shuffle: bool = True
    random_state: Any = None
    tol: float = 1e-4
    verbose: bool = False
    warm_start: bool = False
    momentum: float = 0.9
    nesterovs_momentum: bool = True
    early_stopping: bool = False
    validation_fraction: float = 0.1
    scoring: Any = None
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8
    n_iter_no_change: float = 10
    max_fun: int = 15000
    device: str = "cpu"
    dtype: Any = None
    dropout: float | Sequence[float] | None = None
    weight_decay: float | None = None
    schedule: str | Schedule | None = None
    callbacks: Sequence[Callback] | None = None
    engine: str = "auto"
    precision: str = "fp32"
    deterministic: bool = False
    communicator: Any = None
    reduction: str | None = None

    @with_callbacks
    def fit(self, X: Any, y: Any, sample_weight: Any = None, validation: Any = None) -> Any:
        """Train on rows X (n_samples, n_features) and targets y, and return self.

        X: an array, a frame, a sparse matrix (its rows become dense block by block), a DLPack producer, or with
        device="cuda" an array on the GPU, which stays there.  y (n_samples,) or (n_samples, n_outputs).
        sample_weight (n_samples,): 0 or more, or None.
        validation: (X, y) or (X, y, sample_weight) to score after each epoch, in place of a part of X.
        Raises ValueError, TypeError, or `TrainingDiverged`, a ValueError, if the loss stops being finite; all is then
        as before.  Warns (ConvergenceWarning) if max_iter ends the training, if the loss ends far above that of its
        beginning, or if it stopped being finite after early stopping had found weights, which are kept.
        """
        check_settings(self)
        if validation is not None and not is_stochastic(self):
            raise ValueError(
                "validation is scored after each epoch, and solver 'lbfgs' has none; use solver='adam', "
                "or call score after fit"
            )
        goes_on = self.warm_start and hasattr(self, "network_")
        if goes_on:
            check_goes_on(self, self._is_multiclass, "warm_start=False")
        tasks = tasks_of(self, X, y, sample_weight)
        with as_before_on_failure(self, goes_on):
            self._fit(X, y, sample_weight, validation, not goes_on, tasks)
        if tasks is not None:
            tasks.finish()
        return self

    def _fit(self, X: Any, y: Any, sample_weight: Any, validation: Any, first: bool, tasks: Tasks | None) -> None:
        """Train from the beginning, or the network that there is."""
        X, y, weights = taken(self, X, y, sample_weight, first)
        if not first:
            self._check_same_classes(y)
        Y, weights, rng = self._targets(y, first), self._weighted(y, weights), random_state(self)
        if first:
            self._begin(X, Y, rng, bool(self.warm_start))
        if not is_stochastic(self):
            check_alone(self, "solver 'lbfgs'", "use solver='adam'")
            fit_lbfgs(self, self.network_, dataset_of(X, Y, weights, self.network_.backend), weights, tasks)
            return
        is_scored = validation is not None or self.early_stopping
        self.validation_scores_: list[float] | None = [] if is_scored else None
        self.best_loss_ = None if self.early_stopping else np.inf
        self.best_validation_score_ = -np.inf if self.early_stopping else None
        held_out = None
        if validation is not None:
            held_out = checked_validation(self, X, validation)
        elif self.early_stopping:
            X, Y, weights, held_out = split(self, X, Y, weights, y, rng)
        fit_epochs(self, X, Y, weights, held_out, rng, tasks)

    def _partial_fit(self, X: Any, y: Any, sample_weight: Any) -> Any:
        """Train for one epoch over these samples; the optimizer continues where it stopped."""
        check_settings(self)
        check_alone(self, "partial_fit", "use fit")
        if self.early_stopping:
            raise ValueError("partial_fit does not support early_stopping=True; pass early_stopping=False")
        first = not hasattr(self, "network_")
        if not first:
            check_goes_on(self, self._is_multiclass, "fit")
        X, y, weights = taken(self, X, y, sample_weight, first)
        Y, weights, rng = self._targets(y, False), self._weighted(y, weights), check_random_state(self.random_state)
        if first:
            self._begin(X, Y, rng, True)
        fit_once(self, X, Y, weights, rng)
        return self

    def _begin(self, X: Any, Y: np.ndarray, rng: Any, takes_given: bool) -> None:
        """Make the network, perhaps with coefs_ and intercepts_ that were assigned, and reset the counters."""
        where: dict[str, Any] = {"device": self.device, "dtype": float_type(X, self.dtype)}
        if self.device != "auto" or side_of(X) == "cuda":
            where = {"backend": select_backend(**where)}
        loss = loss_of_kind(self.loss, self._is_multiclass)
        self._check_loss(loss_of(loss) if isinstance(loss, str) else loss)
        self.network_ = make_network(self, X.shape[1], Y.shape[1], loss, rng, **where)
        self.out_activation_ = OUT_ACTIVATIONS.get(self.network_.architecture.loss.name, "identity")
        self.n_layers_, self.n_outputs_ = len(self.network_.architecture.dense) + 1, Y.shape[1]
        self.n_iter_, self.t_ = 0, 0
        self.loss_curve_: list[float] = []
        self._optimizer: Optimizer | None = None
        take_given(self, takes_given)

    def predict(self, X: Any) -> Any:
        """Return a prediction for each row of X, on the side that X came from; text labels always on the host."""
        self._check_fitted()
        return self._predicted(rows_to_predict(self, X))

    def _score(self, metric: Callable[..., float], X: Any, y: Any, sample_weight: Any) -> float:
        """Return scikit-learn's metric of the predictions for X; only predictions and y leave a GPU."""
        check_is_fitted(self)
        check_sides(X=X, y=y, sample_weight=sample_weight)
        arrays = (y, self.predict(X), sample_weight)
        y, predicted, weights = (on_host(array, self.network_.backend) for array in arrays)
        return float(metric(y, predicted, sample_weight=weights))

    def _check_fitted(self) -> None:
        """Raise NotFittedError before fit; scikit-learn's check takes longer than to predict a row."""
        if "network_" not in vars(self):
            check_is_fitted(self)

    # What each of the two defines

    @property
    def _is_multiclass(self) -> bool:
        return False

    def _check_loss(self, loss: Loss) -> None:
        """Refuse a loss that the estimator has no predictions for."""

    def _check_same_classes(self, y: np.ndarray) -> None:
        """Refuse targets of other classes than those that a warm start continues with."""

    def _weighted(self, y: np.ndarray, weights: np.ndarray | None) -> np.ndarray | None:
        return weights

    def _targets(self, y: np.ndarray, new_classes: bool) -> np.ndarray:
        raise NotImplementedError

    def _predicted(self, X: Any) -> Any:
        raise NotImplementedError

    def _judged(self, predicted: np.ndarray, y: np.ndarray, weights: np.ndarray | None) -> float:
        raise NotImplementedError

    # What was fitted, here and elsewhere

    coefs_ = Weights("weights")  # (n_in, n_out) of each layer, on the host
    intercepts_ = Weights("biases")  # (n_out,)

    @property
    def _fitted(self) -> Network:
        if "network_" not in vars(self):
            raise AttributeError(f"this {type(self).__name__} is not fitted yet; call fit first")
        network: Network = self.network_
        return network

    def to(self, device: str) -> Any:
        """Move the fitted network to "cpu" or "cuda", where later fits go too, and return self."""
        check_is_fitted(self)
        stored, backend = Stored(self.network_, self._optimizer), select_backend(device, self.network_.backend.dtype)
        self.network_, self._optimizer = stored.placed_on(backend)
        return self.set_params(device=device)

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__()) | {"_xpnet_version": _version()}
        if "network_" in state:
            state["network_"] = Stored(state["network_"], state.pop("_optimizer"))
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        stored = state.pop("network_", None)
        _warn_of_version(state.pop("_xpnet_version", "0"))
        super().__setstate__(state)
        if stored is None:
            return
        try:
            backend = select_backend(stored.device, stored.dtype)
        except BackendUnavailable as failure:
            warnings.warn(f"this estimator was fitted on a GPU, and continues on the CPU: {failure}", stacklevel=2)
            backend = select_backend("cpu", stored.dtype)
            self.device = "cpu"
        self.network_, self._optimizer = stored.placed_on(backend)

    def to_sklearn(self) -> Any:
        """Return scikit-learn's estimator with these weights; ValueError if it lacks the activation or loss."""
        check_is_fitted(self)
        return to_sklearn(self)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "network_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


def _warn_of_version(version: str) -> None:
    if _numbers(version) > _numbers(_version()):
        warnings.warn(
            f"this estimator was stored by xpnet {version}, newer than this xpnet {_version()}; it may lack "
            "what it needs: pip install --upgrade xpnet",
            stacklevel=3,
        )


def _numbers(version: str) -> list[int]:
    """Return the numbers of a version, for comparisons."""
    return [int(part) for part in version.split(".") if part.isdigit()]


def _version() -> str:
    """Return the version of the xpnet that is installed, "0" for one that is only on the path."""
    try:
        return metadata.version("xpnet")
    except metadata.PackageNotFoundError:
        return "0"
