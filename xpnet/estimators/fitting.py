"""Train the estimators: by epochs of `train` with scikit-learn's stopping rule, or by SciPy's L-BFGS.

`xpnet.estimators.mlp` holds the estimators.
"""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable, Mapping
from contextlib import closing
from numbers import Integral
from typing import IO, Any

import numpy as np
from sklearn.base import is_classifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import check_scoring

from xpnet.backend import Backend
from xpnet.checks import by_their_mean, mean_weight
from xpnet.data.dataset import Dataset
from xpnet.data.feed import feed_of
from xpnet.estimators.data import dataset_of, dense, on_host
from xpnet.estimators.inputs import HeldOut, picked_rows
from xpnet.estimators.orders import ScikitOrders
from xpnet.estimators.settings import EpochScaling, make_optimizer, scales_inversely, solver_settings
from xpnet.estimators.tasks import Tasks
from xpnet.estimators.together import shared
from xpnet.kernels.updates import l2_gradient
from xpnet.network.network import Network, feed_samples
from xpnet.network.programs import training_program
from xpnet.parallel.communicator import follows
from xpnet.training.callbacks import Callback, steps_before_end
from xpnet.training.loop import TrainingDiverged, epochs
from xpnet.training.optimizers import Optimizer
from xpnet.training.records import VAL_ACCURACY, VAL_LOSS, Record
from xpnet.training.schedules import InverseScaling
from xpnet.training.step import step

Score = Callable[[Record], float]

AUTO_BATCH = 200  # samples a step where batch_size is "auto", as in scikit-learn
LBFGS_BLOCK = 1 << 26  # bytes of features that one call of the recorded gradient takes
NON_FINITE = (  # as scikit-learn says it
    "Solver produced non-finite parameter weights. The input data may contain large values and need to be preprocessed."
)
CURE = "lower learning_rate_init or alpha, or scale the features and the targets"
STOPPED = 99  # as SciPy says that a callback has ended its work
SMALLEST_ADAPTIVE = 1e-6  # an adaptive rate that falls this low ends the training


def fit_epochs(
    settings: Any,
    X: Any,
    Y: np.ndarray,
    weights: np.ndarray | None,
    held_out: HeldOut | None,
    rng: Any,
    tasks: Tasks | None,
) -> None:
    """Run the epochs of a stochastic solver over rows X, targets Y and weights, or None.

    settings: the estimator, whose network_ is trained.  held_out: samples to score after each epoch, or None.
    tasks: told of each epoch.
    """
    network, n_samples = settings.network_, X.shape[0]
    batch, alpha = _batch_size(settings, n_samples), _alpha(settings, weights)
    n_steps = -(-n_samples // batch)
    settings._optimizer = make_optimizer(settings, settings.max_iter * n_steps, alpha)
    settings._optimizer_settings = solver_settings(settings)
    if scales_inversely(settings):
        rates = InverseScaling(settings.learning_rate_init, settings.power_t)
        settings._optimizer.lr = EpochScaling(rates, n_steps, n_samples, settings.t_)
    score, validation = _judge(settings, held_out, Y)
    rule = StopRule(settings, settings._optimizer, n_samples, score)
    watchers = [
        rule,
        *([Reporter(settings, sys.stdout, rule)] if settings.verbose else []),
        *(settings.callbacks or ()),
    ]
    watchers += [] if tasks is None else [tasks]
    dataset = dataset_of(X, Y, weights, network.backend)
    seed = int(rng.randint(2**31 - 1)) if settings.dropout or dataset.is_mapped else 0  # else nothing is drawn by it
    orders = ScikitOrders(rng) if settings.shuffle and not dataset.is_mapped else None
    try:
        ran = epochs(
            network,
            dataset,
            settings._optimizer,
            epochs=settings.max_iter,
            batch_size=batch,
            shuffle=orders or settings.shuffle,
            seed=seed,
            validation=validation,
            callbacks=watchers,
            engine=settings.engine,
            precision=settings.precision,
            deterministic=settings.deterministic,
            is_alone=True,
            measures_start=bool(settings.callbacks),  # who else would look at it
            communicator=settings.communicator,
            reduction=settings.reduction,
        )
        with closing(ran):
            last = list(ran)[-1]
    except TrainingDiverged as error:
        _best_before(settings, rule, error)
        return
    except KeyboardInterrupt:
        warnings.warn("training was interrupted; the estimator has the weights that it had reached", stacklevel=3)
        return
    finally:
        is_kept = settings.communicator is None and not isinstance(settings.random_state, Integral)
        if orders is not None and is_kept:  # the generator of other fits too
            orders.follow(settings.n_iter_, n_samples)
        settings.learning_rate_ = settings._optimizer.lr
        if scales_inversely(settings):
            settings._optimizer.lr = settings.learning_rate_  # with which a partial_fit begins
    shared(settings)
    settings._engine = last["engine"]  # which "auto" has chosen
    if follows(settings.communicator):
        return  # process 0 warns
    first, loss = rule.first_loss, last["train_loss"]
    if loss > first + abs(first):
        warnings.warn(
            f"the training ended at a loss of {loss:.6g}, far above the {first:.6g} that it began with; lower "
            "learning_rate_init, or scale the features and targets",
            ConvergenceWarning,
            stacklevel=3,
        )
    elif "stopped" not in last:
        warnings.warn(
            f"max_iter={settings.max_iter} epochs are over and the training has not converged; raise "
            "max_iter, or learning_rate_init",
            ConvergenceWarning,
            stacklevel=3,
        )


def _best_before(settings: Any, rule: StopRule, error: TrainingDiverged) -> None:
    """Go back to the best weights of early stopping, on every process; raise the error without these."""
    if follows(settings.communicator):
        shared(settings)
        return
    try:
        rule.keep_best(settings.network_, error)
    except TrainingDiverged as final:
        shared(settings, final)
        raise
    shared(settings)


def fit_once(settings: Any, X: Any, Y: np.ndarray, weights: np.ndarray | None, rng: Any) -> None:
    """Run one epoch over these samples step by step; the optimizer continues where it stopped."""
    network, backend, n_samples = settings.network_, settings.network_.backend, X.shape[0]
    batch = _batch_size(settings, n_samples)
    optimizer = _optimizer_that_goes_on(settings, settings.max_iter * -(-n_samples // batch))
    order, total = rng.permutation(n_samples) if settings.shuffle else np.arange(n_samples), 0.0  # scikit-learn's
    if settings.dropout and "_step_seed" not in vars(settings):  # of its masks
        settings._step_seed = int(rng.randint(2**31 - 1))
    seed = vars(settings).get("_step_seed", 0)
    for start in range(0, n_samples, batch):
        part = order[start : start + batch]
        rows, targets = dense(picked_rows(X, part, backend), backend), backend.to_device(Y[part])
        w = None if weights is None else by_their_mean(weights[part])
        penalised = 0.0
        if settings.alpha and (weights is None or weights[part].any()):
            alpha = _alpha(settings, None if weights is None else weights[part])
            optimizer.l2_summed = max(alpha, sys.float_info.min)  # of so little nothing is left, but it stays a slot
            penalised = penalty(network, alpha) / len(part)
        w = None if w is None else backend.to_device(w)
        total += len(part) * (step(network, optimizer, rows.T, targets.T, w, seed=seed) + penalised)
    settings.n_iter_, settings.loss_ = 1, total / n_samples
    settings.t_ += n_samples
    scale_rate(settings, optimizer)
    settings.loss_curve_.append(settings.loss_)
    settings.best_loss_ = settings.loss_  # of these samples; others had another loss
    settings.learning_rate_ = optimizer.lr
    if settings.verbose:
        Reporter(settings, sys.stdout).iteration()
    _check_weights(network, settings.loss_)
    if not math.isfinite(settings.loss_):
        warnings.warn(
            f"the loss is {settings.loss_:g}, the weights are finite; {CURE}", ConvergenceWarning, stacklevel=4
        )


def _check_weights(network: Network, loss: float) -> None:
    """Refuse weights that are not finite where scikit-learn does, at the end.  loss: the last one."""
    if not np.isfinite(network.backend.to_host(network.owned)).all():
        raise TrainingDiverged(f"{NON_FINITE} Here the loss is {loss:g}", CURE)


def _batch_size(settings: Any, n_samples: int) -> int:
    if settings.batch_size == "auto":
        return min(AUTO_BATCH, n_samples)
    size = int(settings.batch_size)
    if size > n_samples:
        warnings.warn(f"batch_size is {size}, larger than the {n_samples} samples; a step takes them all", stacklevel=4)
    return min(size, n_samples)


def _optimizer_that_goes_on(settings: Any, n_steps: int) -> Optimizer:
    """Return the optimizer of the calls before, or one of the settings as they are now, with its state if it fits."""
    before, now = settings._optimizer, solver_settings(settings)
    had = vars(settings).get("_optimizer_settings", now)  # estimators pickled by xpnet 0.1 do not tell
    if before is None or now != had or bool(before.l2_summed) != bool(settings.alpha):
        settings._optimizer = make_optimizer(settings, n_steps, settings.alpha)
        if type(before) is type(settings._optimizer):
            settings._optimizer.restore(before.snapshot())
            if now == had:
                settings._optimizer.lr = before.schedule
    settings._optimizer_settings = now
    optimizer: Optimizer = settings._optimizer
    return optimizer


def _alpha(settings: Any, weights: np.ndarray | None) -> float:
    """Return alpha by the mean of the sample weights: scikit-learn divides its penalty by the sum of a batch's."""
    if weights is None or not settings.alpha:
        return float(settings.alpha)
    mean, dtype = mean_weight(weights), settings.network_.backend.dtype
    if settings.alpha > float(np.finfo(dtype).max) * mean:
        raise ValueError(
            f"sample_weight has a mean of {mean:g}, by which alpha, {settings.alpha:g}, is divided; the quotient must "
            f"be a finite {dtype}: multiply all weights by one number, or pass alpha=0"
        )
    return float(settings.alpha / mean)


def _judge(settings: Any, held_out: HeldOut | None, Y: np.ndarray) -> tuple[Score | None, Dataset | None]:
    """Return what scores an epoch by its record, and the samples that its record measures; None where there are none.

    Where the score follows from a record's measures it is taken from them: an engine measures within its call.
    Y: the targets that are trained on.
    """
    if held_out is None:
        return None, None
    validation = dataset_of(held_out.X, held_out.Y, held_out.weights, settings.network_.backend)
    score = _by_record(settings, held_out, Y)
    if score is not None:
        return score, validation
    by_rows = _scorer(settings, held_out.X, held_out.y, held_out.weights)
    return lambda record: by_rows(), validation if settings.callbacks else None  # which may look at its measures


def _by_record(settings: Any, held_out: HeldOut, Y: np.ndarray) -> Score | None:
    """Return the estimator's own score by a record, None where its measures do not tell it."""
    if settings.scoring is not None or held_out.weights is not None:
        return None
    if is_classifier(settings):  # of several labels a sample, all must be right
        is_told = len(settings.classes_) > 1 and not settings._is_multilabel
        are_trained = not (held_out.Y.any(axis=0) & ~Y.any(axis=0)).any()  # else `train` warns, as of sorted samples
        return (lambda record: float(record[VAL_ACCURACY])) if is_told and are_trained else None
    if held_out.Y.shape[1] > 1 or settings.network_.architecture.loss.name != "squared_error":
        return None
    variance = float(np.var(held_out.Y, dtype=np.float64))
    return (lambda record: 1.0 - 2.0 * float(record[VAL_LOSS]) / variance) if 0.0 < variance < math.inf else None


def _scorer(settings: Any, X: Any, y: np.ndarray, sample_weight: Any) -> Callable[[], float]:
    """Return a function that scores the network as it is on these rows."""
    backend = settings.network_.backend
    if settings.scoring is None:  # as `score`, without its checks
        return lambda: settings._judged(on_host(settings._predicted(X), backend), y, sample_weight)
    judge = object.__new__(type(settings))  # without the names of columns, which X has no longer
    judge.__dict__.update({name: value for name, value in vars(settings).items() if name != "feature_names_in_"})
    scorer, X = check_scoring(judge, settings.scoring), on_host(X, backend)
    weighted = {} if sample_weight is None else {"sample_weight": sample_weight}
    return lambda: float(scorer(judge, X, y, **weighted))


def penalty(network: Network, alpha: float) -> float:
    """Return alpha / 2 * sum W^2, biases left out: what the optimizer's `l2_summed` is the gradient of."""
    weights = network.parameters.flat[: network.parameters.layout.n_weights]
    return 0.5 * alpha * float(weights.dot(weights))


def scale_rate(settings: Any, optimizer: Optimizer) -> None:
    """Set the rate of "invscaling" after a partial_fit: learning_rate_init / (t_ + 1)^power_t, t_ the samples seen."""
    if scales_inversely(settings):
        rates = InverseScaling(settings.learning_rate_init, settings.power_t)
        optimizer.lr = float(rates.values(settings.t_, 1)[0])


class StopRule(Callback):
    """scikit-learn's rule: more than `n_iter_no_change` epochs in a row without a gain of `tol` end the training.

    It watches the training loss with its penalty or, with early stopping, the score, whose best weights are restored
    at the end. It writes into the estimator loss_curve_, loss_, best_loss_, validation_scores_,
    best_validation_score_, n_iter_, t_. An adaptive rate falls to a fifth instead.
    settings: the estimator.  score: of the validation samples, by a record, None without.
    """

    def __init__(self, settings: Any, optimizer: Optimizer, n_samples: int, score: Score | None) -> None:
        self._settings, self._optimizer, self._score = settings, optimizer, score
        self._n_samples, self._count, self._total, self._n_steps = n_samples, 0, 0.0, 1
        self._best: Any = None
        self.first_loss = math.nan  # of the first step, by the network as it was
        self.lowered: str | None = None  # what is said of an adaptive rate that has fallen after the last epoch
        self.only_watches = settings.solver != "sgd" or settings.learning_rate != "adaptive"

    def on_train_begin(self, network: Network, n_epochs: int, n_steps: int) -> None:
        self._n_steps = n_steps

    def steps_ahead(self) -> int | None:
        """Return the steps before the rule may end the training, so that few are run in vain."""
        most = self._settings.n_iter_no_change
        return None if most == math.inf else steps_before_end(int(most) + 1 - self._count, self._n_steps)

    def on_steps(self, results: Mapping[str, np.ndarray]) -> None:
        if math.isnan(self.first_loss):
            self.first_loss = float(results["loss"][0])
        self._total += float(results["samples"] @ (results["loss"] + results.get("penalty", 0.0)))

    def on_measured(self, record: Record, network: Network) -> str | None:
        if record["epoch"] == 0:
            return None
        settings = self._settings
        settings.n_iter_ = record["epoch"]
        settings.t_ += self._n_samples
        settings.loss_, self._total = self._total / self._n_samples, 0.0
        settings.loss_curve_.append(settings.loss_)
        if not math.isfinite(settings.loss_):  # by the penalty alone
            reason = f"the loss with its penalty is {settings.loss_} in epoch {record['epoch']}"
            warnings.warn(f"{reason}, and the training has ended there; {CURE}", ConvergenceWarning, stacklevel=2)
            return reason
        improved = self._has_improved(record, network)
        self._count = 0 if improved else self._count + 1
        self.lowered = None
        if self._count <= settings.n_iter_no_change:
            return None
        what = "Validation score" if settings.early_stopping else "Training loss"
        reason = (
            f"{what} did not improve more than tol={settings.tol:f} for {settings.n_iter_no_change} consecutive epochs."
        )
        if settings.solver != "sgd" or settings.learning_rate != "adaptive":
            return reason
        if self._optimizer.lr <= SMALLEST_ADAPTIVE:
            return f"{reason} Learning rate too small."
        self._optimizer.lr /= 5.0
        self._count = 0
        self.lowered = f"{reason} Setting learning rate to {self._optimizer.lr:f}"
        return None

    def _has_improved(self, record: Record, network: Network) -> bool:
        settings = self._settings
        score = None
        if self._score is not None:
            score = self._score(record)
            settings.validation_scores_.append(score)
        if not settings.early_stopping or score is None:
            before = settings.best_loss_
            settings.best_loss_ = min(before, settings.loss_)
            return bool(settings.loss_ <= before - settings.tol)
        before = settings.best_validation_score_
        if score > before:
            settings.best_validation_score_, self._best = score, network.owned.copy()
        return score >= before + settings.tol  # NaN is no gain

    def keep_best(self, network: Network, error: TrainingDiverged) -> None:
        """Go back to the best weights of early stopping after a divergence, and warn; raise it again without these."""
        settings = self._settings
        if self._best is None:
            raise TrainingDiverged(f"{NON_FINITE} Here {error.cause}", CURE) from error
        network.owned[...] = self._best
        settings.n_iter_, settings.loss_ = settings.n_iter_ + 1, math.nan
        settings.t_ += self._n_samples
        settings.loss_curve_.append(math.nan)
        settings.validation_scores_.append(math.nan)
        warnings.warn(
            f"{error.cause}; the estimator has the weights of the best validation score before, "
            f"{settings.best_validation_score_:.6g}; {CURE}",
            ConvergenceWarning,
            stacklevel=4,
        )

    def on_train_end(self, network: Network) -> None:
        if self._best is not None:
            network.owned[...] = self._best


class Reporter(Callback):
    """Writes scikit-learn's lines on each epoch; it comes after the `StopRule`, whose numbers it prints.

    rule: None where no epoch ends.
    """

    only_watches = True

    def __init__(self, settings: Any, file: IO[str], rule: StopRule | None = None) -> None:
        self._settings, self._file, self._rule = settings, file, rule

    def iteration(self) -> None:
        """Write the line on the epoch or the step that is over."""
        self._file.write(f"Iteration {self._settings.n_iter_}, loss = {self._settings.loss_:.8f}\n")

    def on_epoch_end(self, record: Record, network: Network) -> None:
        if record["epoch"] == 0:
            return
        settings = self._settings
        self.iteration()
        if settings.validation_scores_:
            self._file.write(f"Validation score: {settings.validation_scores_[-1]:f}\n")
        if self._rule is not None and self._rule.lowered:
            self._file.write(f"{self._rule.lowered}\n")
        if "stopped" in record:
            self._file.write(f"{str(record['stopped']).removesuffix('.')}. Stopping.\n")


class Gradient:
    """The loss of all samples and its gradient as a function of theta, for an optimizer of SciPy's.

    One recorded Program, run once, or block by block where the samples are many; the gradient of the penalty
    alpha / 2 * sum W^2 / n is added, n the samples.
    """

    def __init__(self, network: Network, dataset: Dataset, alpha: float) -> None:
        self._network, self._layout, self._backend = network, network.architecture.layout, network.backend
        self._alpha = alpha / dataset.n_samples
        n_block = max(1, LBFGS_BLOCK // (dataset.n_features * self._backend.dtype.itemsize))
        self._capacity = min(n_block, dataset.n_samples)
        self._feed = feed_of(dataset, self._backend, self._capacity)
        self._scratch = np.empty(self._layout.n_weights)
        self._weighted = "weights" in self._feed.sources

    def __call__(self, theta: np.ndarray) -> tuple[float, np.ndarray]:
        """Return the loss and its gradient (size,), both float64, at theta (size,)."""
        network, n_weights = self._network, self._layout.n_weights
        network.parameters.flat[...] = self._backend.to_device(theta)
        total, weight, gradient = 0.0, 0.0, np.zeros(len(theta))
        for loss, share, part in self._blocks():
            total, weight = total + loss, weight + share
            gradient += share * part
        gradient /= weight
        weights = theta[:n_weights]
        l2_gradient(np, weights, gradient[:n_weights], self._scratch, self._alpha)
        return total / weight + 0.5 * self._alpha * float(weights @ weights), gradient

    def _blocks(self) -> Any:
        """Yield for each block the sum of the losses, that of the weights, and the mean gradient in float64."""
        key = ("gradients", self._weighted, self._capacity)
        with self._network.engine(
            key, lambda: training_program(self._network.architecture, self._capacity, None, self._weighted)
        ) as engine:
            for order in self._feed.parts(None):
                first, end = int(order[0]), int(order[-1]) + 1  # n, n + 1, n + 2, ...
                for start in range(first, end, self._capacity):
                    part = slice(start, min(start + self._capacity, end))
                    size = part.stop - start
                    X, scale = self._feed.sources["X"]
                    assert scale is None, "estimators train on floats"
                    weights = self._feed.sources["weights"][0][part] if self._weighted else None
                    feed_samples(engine, size, X[part].T, self._feed.sources["Y"][0][part].T, weights)
                    engine.execute(size)
                    results = engine.read_results()
                    gradient = self._backend.to_host(engine.read("gradient", size)).astype(np.float64)
                    yield results["loss"], results.get("weight", float(size)), gradient


def fit_lbfgs(
    settings: Any, network: Network, dataset: Dataset, weights: np.ndarray | None, tasks: Tasks | None
) -> None:
    """Train by SciPy's L-BFGS-B, and set n_iter_ and loss_ of the estimator, here `settings`.

    Source: Byrd, Lu, Nocedal and Zhu (1995), A Limited Memory Algorithm for Bound Constrained Optimization.
    """
    from scipy.optimize import minimize

    backend: Backend = network.backend
    start = backend.to_host(network.parameters.flat).astype(np.float64)
    options = {"maxfun": settings.max_fun, "maxiter": settings.max_iter, "gtol": settings.tol}
    function = Gradient(network, dataset, _alpha(settings, weights))

    def after_iteration(theta: np.ndarray) -> None:
        assert tasks is not None
        network.parameters.flat[...] = backend.to_device(theta)
        if tasks.end():
            raise StopIteration
        tasks.begin()

    follow = None if tasks is None else after_iteration
    if tasks is not None:
        tasks.begin()
    found = minimize(function, start, method="L-BFGS-B", jac=True, options=options, callback=follow)
    network.parameters.flat[...] = backend.to_device(found.x)
    _check_weights(network, found.fun)
    settings.n_iter_, settings.loss_ = min(int(found.nit), settings.max_iter), float(found.fun)
    if found.status not in (0, STOPPED):
        warnings.warn(
            f"lbfgs ended after {found.nit} iterations before it converged ({found.message}); raise max_iter "
            "or max_fun, or scale the features",
            ConvergenceWarning,
            stacklevel=3,
        )
