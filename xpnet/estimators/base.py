"""What the two estimators share: fit, partial_fit, predictions where X lies, moves between devices, pickles.

Rows outside, columns inside: one sample is one row of X here, and `train` gets a view of its transpose. The settings
become networks and optimizers in `xpnet.estimators.settings`, the rule of when to stop is in
`xpnet.estimators.fitting`. The estimators themselves are in `xpnet.estimators.mlp`.
"""

from __future__ import annotations

import sys
import warnings
import weakref
from collections.abc import Callable, Sequence
from copy import copy
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, is_classifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import check_scoring
from sklearn.model_selection import train_test_split
from sklearn.utils import assert_all_finite, check_random_state, column_or_1d
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from xpnet.backend import Backend, BackendUnavailable, select_backend
from xpnet.estimators.bridge import to_sklearn
from xpnet.estimators.data import (
    check_device,
    check_sides,
    dataset_of,
    dense,
    float_type,
    imported,
    on_host,
    predicted_rows,
    side_of,
)
from xpnet.estimators.fitting import Reporter, StopRule, fit_lbfgs, scale_rate
from xpnet.estimators.settings import (
    OUT_ACTIVATIONS,
    check_settings,
    loss_of_kind,
    make_architecture,
    make_network,
    make_optimizer,
)
from xpnet.network.losses import Loss, loss_of
from xpnet.network.network import Network
from xpnet.training.callbacks import Callback
from xpnet.training.loop import train
from xpnet.training.optimizers import Optimizer, Snapshot
from xpnet.training.schedules import Schedule
from xpnet.training.step import step

Array = Any
AUTO_BATCH = 200  # samples a step where batch_size is "auto", as in scikit-learn


def is_stochastic(estimator: Any) -> bool:
    """Whether the solver takes steps over batches, so that it can go on with more samples."""
    return bool(estimator.solver != "lbfgs")


class BaseMLP(BaseEstimator):  # type: ignore[misc]
    """What classifier and regressor share; parameters and attributes are told in the two."""

    def __init__(
        self,
        hidden_layer_sizes: Any = (100,),
        activation: Any = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        loss: str | Loss = "squared_error",
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: bool = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        scoring: Any = None,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        max_fun: int = 15000,
        device: str = "cpu",
        dtype: Any = None,
        dropout: float | Sequence[float] | None = None,
        weight_decay: float | None = None,
        schedule: str | Schedule | None = None,
        callbacks: Sequence[Callback] | None = None,
        engine: str = "auto",
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.solver = solver
        self.alpha = alpha
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.learning_rate_init = learning_rate_init
        self.power_t = power_t
        self.max_iter = max_iter
        self.loss = loss
        self.shuffle = shuffle
        self.random_state = random_state
        self.tol = tol
        self.verbose = verbose
        self.warm_start = warm_start
        self.momentum = momentum
        self.nesterovs_momentum = nesterovs_momentum
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.scoring = scoring
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.n_iter_no_change = n_iter_no_change
        self.max_fun = max_fun
        self.device = device
        self.dtype = dtype
        self.dropout = dropout
        self.weight_decay = weight_decay
        self.schedule = schedule
        self.callbacks = callbacks
        self.engine = engine

    def fit(self, X: Any, y: Any, sample_weight: Any = None, validation: Any = None) -> Any:
        """Train on rows X (n_samples, n_features) and targets y, and return self.

        X: an array, a frame, a sparse matrix (its rows become dense block by block), a DLPack producer, or with
        device="cuda" an array on the GPU, which stays there.  y (n_samples,) or (n_samples, n_outputs).
        sample_weight (n_samples,): 0 or more, or None.
        validation: (X, y) or (X, y, sample_weight) to score after each epoch; with early_stopping it takes the place
        of a part of X.
        Raises ValueError or TypeError for what does not fit, `TrainingDiverged` if the loss stops being finite.
        Warns (ConvergenceWarning) if max_iter ends the training.
        """
        check_settings(self)
        if validation is not None and not is_stochastic(self):
            raise ValueError(
                "validation is scored after each epoch, and solver 'lbfgs' has none; use solver='adam', "
                "or call score after fit"
            )
        first = not (self.warm_start and hasattr(self, "network_"))
        if not first:
            self._check_goes_on("warm_start=False")
        else:  # what fails below must not leave the network of the last fit with this one's classes
            for name in ("network_", "_optimizer"):
                self.__dict__.pop(name, None)
        X, Y, weights, y = self._taken(X, y, sample_weight, first, first)
        rng = check_random_state(self.random_state)
        if first:
            self._begin(X, Y, rng)
        if not is_stochastic(self):
            mean_weight = 1.0 if weights is None else float(weights.mean())
            dataset = dataset_of(X, Y, weights, self.network_.backend)
            fit_lbfgs(self, self.network_, dataset, mean_weight, ConvergenceWarning)
            return self
        held_out = None
        if validation is not None:
            held_out = self._checked_validation(X, validation)
        elif self.early_stopping:
            X, Y, weights, held_out = self._split(X, Y, weights, y, rng)
        self._train(X, Y, weights, held_out, rng)
        return self

    def _taken(
        self, X: Any, y: Any, sample_weight: Any, reset: bool, new_classes: bool
    ) -> tuple[Any, np.ndarray, Any, np.ndarray]:
        """Return X as rows, the targets Y (n_samples, n_outputs), weights (n_samples,) or None, and y on the host."""
        if y is None:
            raise ValueError(f"requires y to be passed, but the target y is None: {type(self).__name__}.fit(X, y)")
        check_sides(X=X, y=y, sample_weight=sample_weight)
        backend = self._backend(X, reset)
        check_device(X, "cpu" if backend is None else backend.device)
        X, y = imported(X, backend), y if backend is None else on_host(y, backend)
        if side_of(X) == "cuda":
            self._check_device_rows(X, reset)
            y = np.asarray(y)
            if len(y) != X.shape[0]:
                raise ValueError(f"X has {X.shape[0]} samples and y has {len(y)}; give as many of both")
        else:
            X, y = validate_data(
                self,
                X,
                y,
                accept_sparse="csr",
                multi_output=True,
                y_numeric=not is_classifier(self),
                dtype=(np.float64, np.float32),
                reset=reset,
            )
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        weights = _checked_weights(sample_weight if backend is None else on_host(sample_weight, backend), len(y))
        return X, self._targets(y, new_classes), self._weighted(y, weights), y

    def _backend(self, X: Any, reset: bool) -> Backend | None:
        """The backend of the network, or of the one to be made; None where X need not be moved to learn its type."""
        if not reset:
            backend: Backend = self.network_.backend
            return backend
        if self.device == "cpu":
            return None
        return select_backend(self.device, self.dtype or (X.dtype if side_of(X) == "cuda" else "float32"))

    def _check_device_rows(self, X: Any, reset: bool) -> None:
        """What validate_data checks, for rows on a GPU; one number is read from there."""
        if X.ndim != 2:
            raise ValueError(
                f"X is {tuple(X.shape)}; needed is (n_samples, n_features). Reshape it with "
                "X.reshape(-1, 1) for one feature, X.reshape(1, -1) for one sample"
            )
        if X.dtype.kind == "f" and not bool(np.isfinite(float(X.sum()))):
            raise ValueError(
                "X holds NaN or infinity, or its sum is too large; needed are finite numbers: fill the "
                "gaps and scale the features"
            )
        if reset:
            self.n_features_in_ = int(X.shape[1])
        elif X.shape[1] != self.n_features_in_:
            raise ValueError(
                f"X has {X.shape[1]} features, but {type(self).__name__} is expecting "
                f"{self.n_features_in_} features as input; give those that it was fitted on, or "
                "fit it again"
            )

    def _check_goes_on(self, cure: str) -> None:
        """Refuse settings that a network begun with others could not follow."""
        network = self.network_
        backend, loss = network.backend, loss_of_kind(self.loss, self._is_multiclass)
        same = {
            "hidden_layer_sizes, activation, dropout or loss": network.architecture
            == make_architecture(self, self.n_features_in_, self.n_outputs_, loss),
            "dtype": self.dtype is None or np.dtype(self.dtype) == backend.dtype,
            "device": self.device in ("auto", backend.device),
        }
        for names, is_same in same.items():
            if not is_same:
                raise ValueError(
                    f"{names} was changed after the training had begun, and it cannot go on with that; "
                    f"set it back, or start again: clone(estimator), or {cure}"
                )

    def _begin(self, X: Any, Y: np.ndarray, rng: Any) -> None:
        """Make the network and set what counts up."""
        backend = select_backend(self.device, float_type(X, self.dtype))
        loss = loss_of_kind(self.loss, self._is_multiclass)
        self._check_loss(loss_of(loss) if isinstance(loss, str) else loss)
        self.network_ = make_network(self, X.shape[1], Y.shape[1], loss, backend, rng)
        self.out_activation_ = OUT_ACTIVATIONS.get(self.network_.architecture.loss.name, "identity")
        self.n_layers_, self.n_outputs_ = len(self.network_.architecture.dense) + 1, Y.shape[1]
        self.n_iter_, self.t_ = 0, 0
        self.loss_curve_: list[float] = []
        self.validation_scores_: list[float] = []
        self.best_loss_, self.best_validation_score_ = np.inf, -np.inf
        self._optimizer: Optimizer | None = None

    def _check_loss(self, loss: Loss) -> None:
        """Refuse a loss that the estimator has no predictions for."""

    @property
    def _is_multiclass(self) -> bool:
        return False

    def _weighted(self, y: np.ndarray, weights: np.ndarray | None) -> np.ndarray | None:
        return weights

    def _batch_size(self, n_samples: int) -> int:
        if self.batch_size == "auto":
            return min(AUTO_BATCH, n_samples)
        size = int(self.batch_size)
        if size > n_samples:
            warnings.warn(
                f"batch_size is {size}, larger than the {n_samples} samples; a step takes them all", stacklevel=4
            )
        return min(size, n_samples)

    def _train(self, X: Any, Y: np.ndarray, weights: np.ndarray | None, held_out: Any, rng: Any) -> None:
        """Run the epochs of a stochastic solver."""
        network, n_samples = self.network_, X.shape[0]
        dataset = dataset_of(X, Y, weights, network.backend)
        batch = self._batch_size(n_samples)
        n_steps, mean_weight = -(-n_samples // batch), 1.0 if weights is None else float(weights.mean())
        self._optimizer = make_optimizer(self, self.max_iter * n_steps, mean_weight)
        score = None if held_out is None else self._scorer(*held_out)
        rule = StopRule(self, self._optimizer, n_samples, n_steps / (n_samples * mean_weight), score)
        watchers = [rule, *([Reporter(self, sys.stdout)] if self.verbose else []), *(self.callbacks or ())]
        try:
            records = train(
                network,
                dataset,
                self._optimizer,
                epochs=self.max_iter,
                batch_size=batch,
                shuffle=self.shuffle,
                seed=int(rng.randint(2**31 - 1)),
                callbacks=watchers,
                engine=self.engine,
            )
        except KeyboardInterrupt:
            warnings.warn("training was interrupted; the estimator has the weights that it had reached", stacklevel=3)
            return
        if "stopped" not in records[-1]:
            warnings.warn(
                f"max_iter={self.max_iter} epochs are over and the training has not converged; raise "
                "max_iter, or learning_rate_init",
                ConvergenceWarning,
                stacklevel=3,
            )

    def _split(self, X: Any, Y: np.ndarray, weights: Any, y: np.ndarray, rng: Any) -> tuple[Any, Any, Any, Any]:
        """Hold out a part for early stopping, as scikit-learn does; returns (X, Y, weights, held_out)."""
        is_binary = is_classifier(self) and Y.shape[1] == 1
        train, held = train_test_split(
            np.arange(len(y)), test_size=self.validation_fraction, random_state=rng, stratify=y if is_binary else None
        )
        if len(held) < 2:
            raise ValueError(
                f"the validation set is too small, {len(held)} sample; raise validation_fraction, or give more samples"
            )
        picked = None if weights is None else (weights[train], weights[held])
        if picked is not None and not all(part.any() for part in picked):
            raise ValueError(
                "the samples held out, or those left, all have the weight 0; pass validation=(X, y), or "
                "leave out the samples without weight"
            )
        X_train, X_held = (self._picked(X, part) for part in (train, held))
        return X_train, Y[train], picked and picked[0], (X_held, y[held], picked and picked[1])

    def _picked(self, X: Any, order: np.ndarray) -> Any:
        """Rows of X in this order; on a GPU they are taken there."""
        if side_of(X) == "cpu":
            return X[order]
        return X.take(self.network_.backend.to_device(order, np.int64), 0)

    def _checked_validation(self, X_train: Any, validation: Any) -> Any:
        if not isinstance(validation, (tuple, list)) or len(validation) not in (2, 3):
            raise TypeError(
                f"validation is a {type(validation).__name__}; needed is validation=(X, y) or (X, y, sample_weight)"
            )
        X, y, sample_weight = (*validation, None)[:3]
        check_sides(X=X_train, validation=X)
        check_sides(X=X, y=y, sample_weight=sample_weight)
        y, weights = (on_host(array, self.network_.backend) for array in (y, sample_weight))
        X, y = self._rows(X), np.asarray(y.toarray() if hasattr(y, "toarray") else y)
        if X.shape[0] != len(y):
            raise ValueError(f"X of validation has {X.shape[0]} samples and y has {len(y)}; give as many of both")
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        assert_all_finite(y, input_name="y of validation")
        n_outputs = self._targets(y, new_classes=False).shape[1]  # refuses classes that there are not
        if n_outputs != self.n_outputs_:
            raise ValueError(
                f"y of validation has {n_outputs} outputs and that of the training {self.n_outputs_}; give as many"
            )
        return X, y, _checked_weights(weights, len(y))

    def _scorer(self, X: Any, y: np.ndarray, sample_weight: Any) -> Callable[[], float]:
        """Return a function that scores the network as it is on these rows."""
        if self.scoring is None:  # as `score`, without its checks
            return lambda: self._judged(on_host(self._predicted(X), self.network_.backend), y, sample_weight)
        judge = object.__new__(type(self))  # without the names of columns, which X has no longer
        judge.__dict__.update({name: value for name, value in vars(self).items() if name != "feature_names_in_"})
        scorer, X = check_scoring(judge, self.scoring), on_host(X, self.network_.backend)
        weighted = {} if sample_weight is None else {"sample_weight": sample_weight}
        return lambda: float(scorer(judge, X, y, **weighted))

    def _partial_fit(self, X: Any, y: Any, sample_weight: Any) -> Any:
        """One epoch over these samples; the optimizer goes on where it stopped."""
        check_settings(self)
        if self.early_stopping:
            raise ValueError("partial_fit does not support early_stopping=True; pass early_stopping=False")
        first = not hasattr(self, "network_")
        if not first:
            self._check_goes_on("fit")
        X, Y, weights, y = self._taken(X, y, sample_weight, first, False)
        rng, n_samples = check_random_state(self.random_state), X.shape[0]
        if first:
            self._begin(X, Y, rng)
        network, backend, batch = self.network_, self.network_.backend, self._batch_size(n_samples)
        if self._optimizer is None:
            mean_weight = 1.0 if weights is None else float(weights.mean())
            self._optimizer = make_optimizer(self, self.max_iter * -(-n_samples // batch), mean_weight)
        seed = self.__dict__.setdefault("_step_seed", int(rng.randint(2**31 - 1)))  # of dropout's masks
        order, total = rng.permutation(n_samples) if self.shuffle else np.arange(n_samples), 0.0
        for start in range(0, n_samples, batch):
            part = order[start : start + batch]
            rows, targets = dense(self._picked(X, part), backend), backend.to_device(Y[part])
            w = None if weights is None else backend.to_device(weights[part])
            loss = step(network, self._optimizer, rows.T, targets.T, w, seed=seed)
            total += loss * len(part)
        self.n_iter_, self.loss_ = 1, total / n_samples
        self.t_ += n_samples
        scale_rate(self, self._optimizer)
        self.loss_curve_.append(self.loss_)
        self.best_loss_ = min(self.best_loss_, self.loss_)
        if not np.isfinite(self.loss_):
            raise ValueError(f"the loss is {self.loss_}; lower learning_rate_init, or scale the features")
        return self

    def predict(self, X: Any) -> Any:
        """Return a prediction for each row of X, on the side that X came from; text labels always on the host."""
        check_is_fitted(self)
        return self._predicted(self._rows(X))

    def _score(self, metric: Callable[..., float], X: Any, y: Any, sample_weight: Any) -> float:
        """What scikit-learn's metric says of the predictions for X; only predictions and y come from a GPU."""
        check_is_fitted(self)
        check_sides(X=X, y=y, sample_weight=sample_weight)
        arrays = (y, self.predict(X), sample_weight)
        y, predicted, weights = (on_host(array, self.network_.backend) for array in arrays)
        return float(metric(y, predicted, sample_weight=weights))

    def _rows(self, X: Any) -> Any:
        """Check rows to predict, and return them where they lie."""
        backend = self.network_.backend
        check_device(X, backend.device)
        X = imported(X, backend)
        if side_of(X) == "cpu":
            return validate_data(self, X, accept_sparse="csr", dtype=(np.float64, np.float32), reset=False)
        self._check_device_rows(X, reset=False)
        return X

    def _outputs(self, X: Any, linked: bool) -> Any:
        """The outputs (n_samples, n_outputs) for checked rows, on their side; linked: probabilities, rates."""
        backend, on_cpu = self.network_.backend, side_of(X) == "cpu"
        infer = self.network_.predict if linked else self.network_.forward
        parts = predicted_rows(infer, X, backend)
        if on_cpu:
            parts = [backend.to_host(part) for part in parts]
        outputs = parts[0] if len(parts) == 1 else (np if on_cpu else backend.xp).concatenate(parts)
        if on_cpu and (missing := np.isnan(outputs).any(axis=1)).any():  # whose largest would be the first class
            raise ValueError(
                f"the network's output for row {int(missing.argmax())} of X is NaN: its features are too "
                f"large for {backend.dtype}, or the training diverged; scale the features as those of the "
                "training, or fit again with a lower learning_rate_init"
            )
        return outputs

    def _targets(self, y: np.ndarray, new_classes: bool) -> np.ndarray:
        raise NotImplementedError

    def _predicted(self, X: Any) -> Any:
        raise NotImplementedError

    def _judged(self, predicted: np.ndarray, y: np.ndarray, weights: np.ndarray | None) -> float:
        raise NotImplementedError

    @property
    def coefs_(self) -> list[np.ndarray]:
        """The weights (n_in, n_out) of each layer on the host; on a CPU views of the network's."""
        return [self.network_.backend.to_host(W).T for W in self._fitted.parameters.weights]

    @property
    def intercepts_(self) -> list[np.ndarray]:
        """The biases (n_out,) of each layer on the host; on a CPU views of the network's."""
        return [self.network_.backend.to_host(b).reshape(-1) for b in self._fitted.parameters.biases]

    @property
    def _fitted(self) -> Network:
        if "network_" not in vars(self):
            raise AttributeError(f"this {type(self).__name__} is not fitted yet; call fit first")
        network: Network = self.network_
        return network

    def to(self, device: str) -> Any:
        """Move the fitted network to "cpu" or "cuda", where later fits go too, and return self."""
        check_is_fitted(self)
        self._place(_Stored(self.network_, self._optimizer), select_backend(device, self.network_.backend.dtype))
        return self.set_params(device=device)

    def _place(self, stored: _Stored, backend: Backend) -> None:
        """Take up a network and an optimizer that were stored."""
        self.network_ = Network(stored.architecture.layers, loss=stored.architecture.loss, backend=backend)
        self.network_.owned[...] = backend.to_device(stored.owned)
        self._optimizer = stored.optimizer
        if stored.optimizer is not None:
            state, keys = backend.to_device(stored.state), backend.to_device(stored.keys, np.uint32)
            stored.optimizer.restore(Snapshot(weakref.ref(self.network_), stored.steps_done, state, keys))

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        if "network_" in state:
            state["network_"] = _Stored(state["network_"], state.pop("_optimizer"))
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        stored = state.pop("network_", None)
        super().__setstate__(state)
        if stored is None:
            return
        try:
            backend = select_backend(stored.device, stored.dtype)
        except BackendUnavailable as failure:
            warnings.warn(f"this estimator was fitted on a GPU, and goes on on the CPU: {failure}", stacklevel=2)
            backend = select_backend("cpu", stored.dtype)
            self.device = "cpu"
        self._place(stored, backend)

    def to_sklearn(self) -> Any:
        """Return scikit-learn's estimator with the same weights and predictions.

        Raises ValueError for an activation, loss or output that scikit-learn does not have.
        """
        check_is_fitted(self)
        return to_sklearn(self)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "network_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


def _checked_weights(weights: Any, n_samples: int) -> Any:
    """Return sample weights (n_samples,) in float64, or None; raises ValueError for what cannot be."""
    if weights is None:
        return None
    given = np.asarray(weights, np.float64)
    if given.size and not given.any():  # scikit-learn's own message names no fix
        raise ValueError(
            "Sample weights must contain at least one non-zero number: they are all zero; leave "
            "sample_weight out to count all samples alike"
        )
    weights = _check_sample_weight(weights, np.empty((n_samples, 0)), dtype=np.float64)
    if (weights < 0).any():
        raise ValueError("Negative values in data passed to `sample_weight`; needed are weights of at least 0")
    return weights


class _Stored:
    """A network and its optimizer without device or engine: host arrays, as they go into a pickle."""

    def __init__(self, network: Network, optimizer: Optimizer | None) -> None:
        backend = network.backend
        self.architecture, self.owned = network.architecture, backend.to_host(network.owned).copy()
        self.device, self.dtype = backend.device, backend.dtype
        self.optimizer: Any = None
        left = None if optimizer is None else optimizer.snapshot()
        if left is not None and left.state is not None:
            self.steps_done = left.steps_done
            self.state, self.keys = backend.to_host(left.state), backend.to_host(left.keys)
            self.optimizer = copy(optimizer)
            self.optimizer.restore(Snapshot(None, 0, None, None))
