"""scikit-learn's names for settings, turned into xpnet's networks, losses, optimizers and schedules.

Initial weights are drawn as scikit-learn draws them, number by number, so that the same `random_state` starts both at
the same point. `xpnet.estimators.mlp` holds the estimators.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import MISSING, dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from xpnet.checks import check_number, check_option, check_whole
from xpnet.engines.choice import AUTO, FULL, PRECISIONS, engine_names
from xpnet.engines.replay import Replay
from xpnet.kernels.updates import momentum_of_steps, nesterov_of_steps, uncorrected_eps
from xpnet.network.architecture import Architecture
from xpnet.network.custom import CustomLoss
from xpnet.network.dropout import Dropout
from xpnet.network.layers import Activation, Dense
from xpnet.network.losses import Loss
from xpnet.network.network import Network
from xpnet.program.calls import Buffer
from xpnet.specs import defaults_of
from xpnet.training.optimizers import OPTIMIZERS, Adam, Momentum, Nesterov, Optimizer, parameters_of
from xpnet.training.schedules import SCHEDULES, InverseScaling, Schedule
from xpnet.training.update import Update

LEARNING_RATES = ("constant", "invscaling", "adaptive")
# scikit-learn's names -> the names here.
ACTIVATION_NAMES = {"logistic": "sigmoid"}
LOSS_NAMES = {"log_loss": ("sigmoid_cross_entropy", "softmax_cross_entropy")}  # of yes or no, of one class among many
OUT_ACTIVATIONS = {"sigmoid_cross_entropy": "logistic", "softmax_cross_entropy": "softmax", "poisson": "exp"}
# The momentum of solver "sgd" says which of the three it is.
SOLVERS = ("lbfgs", *(name for name in OPTIMIZERS if name not in ("momentum", "nesterov")))
# Schedules that the highest rate and the length of the run determine.
COURSES = {
    name.replace("-", "_"): made
    for name, made in SCHEDULES.items()
    if [key for key, default in defaults_of(made).items() if default is MISSING] == ["lr", "total_steps"]
}


def hidden_sizes(hidden_layer_sizes: Any) -> list[int]:
    """Return the sizes as a list; raises ValueError or TypeError for one that is no whole number of at least 1."""
    sizes = hidden_layer_sizes if hasattr(hidden_layer_sizes, "__iter__") else [hidden_layer_sizes]
    return [check_whole("hidden_layer_sizes", size, at_least=1) for size in sizes]


def check_settings(settings: Any) -> None:
    """Raise TypeError or ValueError for bad settings of an estimator; some are checked only where they are used.

    settings: the estimator, whose parameters are its attributes.
    """
    check_option("solver", settings.solver, SOLVERS)
    check_option("learning_rate", settings.learning_rate, LEARNING_RATES)
    check_option("engine", settings.engine, (AUTO, *engine_names()))
    check_option("precision", settings.precision, PRECISIONS)
    for name in ("shuffle", "warm_start", "early_stopping", "nesterovs_momentum", "deterministic"):
        if not isinstance(found := getattr(settings, name), (bool, np.bool_)):
            raise TypeError(f"{name} is {found!r}; pass {name}=True or False")
    if not isinstance(settings.callbacks, (list, tuple, type(None))):
        raise TypeError(f"callbacks is {settings.callbacks!r}; it must be a list: callbacks=[xpnet.Budget(seconds=60)]")
    check_number("learning_rate_init", settings.learning_rate_init, above=0, example="learning_rate_init=0.001")
    for name in ("alpha", "tol", "power_t"):
        check_number(name, getattr(settings, name), at_least=0, example=f"{name}=0.5")
    for name in ("momentum", "beta_1", "beta_2"):
        check_number(name, getattr(settings, name), at_least=0, below=1, example=f"{name}=0.9")
    check_number("epsilon", settings.epsilon, at_least=1e-37, example="epsilon=1e-8")
    if settings.weight_decay is not None:
        check_number("weight_decay", settings.weight_decay, at_least=0, example="weight_decay=0.01")
    check_number("validation_fraction", settings.validation_fraction, above=0, below=1, example="0.1")
    check_whole("max_iter", settings.max_iter, at_least=1)
    check_whole("max_fun", settings.max_fun, at_least=1)
    if settings.n_iter_no_change != math.inf:
        check_whole("n_iter_no_change", settings.n_iter_no_change, at_least=1)
    if settings.batch_size != "auto":
        check_whole("batch_size", settings.batch_size, at_least=1)
    if settings.solver == "lbfgs" and settings.dropout:
        raise ValueError(
            f"dropout is {settings.dropout} and solver 'lbfgs', whose loss may not change from call to "
            "call; use solver='adam', or no dropout"
        )
    if settings.solver == "lbfgs" and settings.engine not in (AUTO, Replay.name):
        raise ValueError(
            f"engine is {settings.engine!r}, which runs steps, and solver 'lbfgs' has none; "
            "use solver='adam', or engine='auto'"
        )
    if settings.solver == "lbfgs" and settings.precision != FULL:
        raise ValueError(
            f"precision is {settings.precision!r}, which steps have, and solver 'lbfgs' has none; "
            f"use solver='adam', or precision={FULL!r}"
        )
    for name in ("callbacks", "schedule"):
        if settings.solver == "lbfgs" and getattr(settings, name):
            raise ValueError(
                f"{name} goes by epochs and steps, and solver 'lbfgs' has none; use solver='adam', or leave {name} out"
            )
    if settings.schedule is not None and settings.learning_rate != "constant":
        raise ValueError(
            f"schedule is {settings.schedule!r} and learning_rate {settings.learning_rate!r}, and both "
            "set the rate; leave learning_rate='constant'"
        )
    if settings.weight_decay is not None:
        _check_decays(settings)


def _check_decays(settings: Any) -> None:
    """Refuse a weight decay of a solver that has none."""
    decays = [solver for solver in OPTIMIZERS if "weight_decay" in parameters_of(solver)]
    if settings.solver not in decays:
        raise ValueError(
            f"weight_decay is {settings.weight_decay} and solver {settings.solver!r} has none; use "
            f"solver={' or '.join(map(repr, decays))}, or alpha for a penalty in the loss"
        )


def check_class_weight(class_weight: Any, classes: np.ndarray | None) -> None:
    """Refuse weights of classes that there are not, and what is no weight; classes: None where they are columns."""
    if not isinstance(class_weight, dict):
        return
    for label, weight in class_weight.items():
        if classes is not None and label not in classes.tolist():
            raise ValueError(
                f"class_weight has the label {label!r}, and the classes are {classes.tolist()}; leave it out"
            )
        check_number(f"class_weight[{label!r}]", weight, at_least=0, example=f"class_weight={{{label!r}: 1.0}}")


def check_goes_on(settings: Any, is_multiclass: bool, cure: str) -> None:
    """Refuse settings that have changed since training began and cannot change within it."""
    network = settings.network_
    backend, loss = network.backend, loss_of_kind(settings.loss, is_multiclass)
    same = {
        "hidden_layer_sizes, activation, dropout or loss": network.architecture
        == make_architecture(settings, settings.n_features_in_, settings.n_outputs_, loss),
        "dtype": settings.dtype is None or np.dtype(settings.dtype) == backend.dtype,
        "device": settings.device == "auto" or backend.is_on(settings.device),
    }
    for names, is_same in same.items():
        if not is_same:
            raise ValueError(
                f"{names} was changed after training began, which cannot continue with that; "
                f"set it back, or start again: clone(estimator), or {cure}"
            )


def make_network(
    settings: Any, n_features: int, n_outputs: int, loss: str | Loss, rng: np.random.RandomState | None, **where: Any
) -> Network:
    """Return the network of an estimator's settings, with initial weights and biases drawn by `rng`, or xpnet's own.

    where: its backend, or its device and dtype.
    """
    architecture = make_architecture(settings, n_features, n_outputs, loss)
    network = Network(architecture.layers, loss=architecture.loss, **where)
    if rng is not None:
        draw_uniform(network, _activations(settings.activation, max(len(architecture.dense) - 1, 1)), rng)
    return network


def make_architecture(settings: Any, n_features: int, n_outputs: int, loss: str | Loss) -> Architecture:
    """Return the layers and the loss of an estimator's settings."""
    sizes = [n_features, *hidden_sizes(settings.hidden_layer_sizes), n_outputs]
    return Architecture(tuple(_layers(settings, sizes)), loss)


def _layers(settings: Any, sizes: list[int]) -> list[Any]:
    n_hidden = len(sizes) - 2
    names = _activations(settings.activation, n_hidden)
    given = settings.dropout
    rates = list(given) if isinstance(given, (list, tuple)) else [0.0 if given is None else given] * n_hidden
    for what, found in (("activation", names), ("dropout", rates)):
        if len(found) != n_hidden:
            raise ValueError(
                f"{what} has {len(found)} items for {n_hidden} hidden layers; give one for all, or one per hidden layer"
            )
    layers: list[Any] = []
    for (n_in, n_out), name, rate in zip(pairwise(sizes[:-1]), names, rates, strict=True):
        layers += [Dense(n_in, n_out, init="glorot"), Activation(name), Dropout(rate)]
    layers = [layer for layer in layers if not layer.is_identity]
    return [*layers, Dense(sizes[-2], sizes[-1], init="glorot")]


def _activations(activation: Any, n_hidden: int) -> list[Any]:
    """Return xpnet's names of the hidden layers' activations."""
    given = list(activation) if isinstance(activation, (list, tuple)) else [activation] * max(n_hidden, 1)
    names = [ACTIVATION_NAMES.get(name, name) if isinstance(name, str) else name for name in given]
    for name in names:
        Activation(name)  # refuses an unknown one, also where there is no hidden layer
    return names[:n_hidden] if not isinstance(activation, (list, tuple)) else names


def draw_uniform(network: Network, activations: Sequence[Any], rng: np.random.RandomState) -> None:
    """Draw W and b of each dense layer from U(-s, s), s = sqrt(6 / (n_in + n_out)), after a sigmoid sqrt(2 / ...).

    Source: Glorot and Bengio (2010), eq. 16; the biases, the order and the factor of a sigmoid are scikit-learn's.
    """
    theta, backend = network.parameters, network.backend
    followed = [*activations, activations[-1] if activations else "relu"]  # the last layer counts as the one before it
    for W, b, name in zip(theta.weights, theta.biases, followed[-len(theta.weights) :], strict=True):
        n_out, n_in = W.shape
        bound = math.sqrt((2.0 if name == "sigmoid" else 6.0) / (n_in + n_out))
        W[...] = backend.to_device(rng.uniform(-bound, bound, (n_in, n_out)).T)
        b[...] = backend.to_device(rng.uniform(-bound, bound, n_out).reshape(-1, 1))


def loss_of_kind(loss: Any, is_multiclass: bool) -> str | Loss:
    """Return xpnet's loss for scikit-learn's name, or the loss as it is."""
    if isinstance(loss, (Loss, CustomLoss)) or loss not in LOSS_NAMES:
        return loss
    return LOSS_NAMES[loss][is_multiclass]


class ScikitAdam(Adam):
    """scikit-learn's Adam: eps is added to the root before it is corrected, theta = theta - rate m / (sqrt(v) + eps)
    with rate = lr sqrt(1 - beta2^t) / (1 - beta1^t): an eps of eps / sqrt(1 - beta2^t) in the other form.

    Source: Kingma and Ba (2015), section 2, its last paragraph.
    """

    def _eps_of(self, update: Update, c2: Buffer) -> Buffer | float:
        (eps,) = update.scalars("eps")
        uncorrected_eps(update.xp, c2, self.eps, eps)
        return eps


class ScikitMomentum(Momentum):
    """scikit-learn's momentum: the steps summed so far keep the rate of their time when the rate changes."""

    def _rule(self, update: Update) -> None:
        v = update.state("v")
        momentum_of_steps(update.xp, update.theta, update.gradient, v, update.lr, self.momentum)


class ScikitNesterov(Nesterov):
    """scikit-learn's momentum in Nesterov's form, as `ScikitMomentum`."""

    def _rule(self, update: Update) -> None:
        u = update.state("u")
        nesterov_of_steps(update.xp, update.theta, update.gradient, u, update.lr, self.momentum)


# The rules that differ from xpnet's own of the same name; those of momentum do where the rate changes.
SCIKIT_RULES = {"adam": ScikitAdam, "momentum": ScikitMomentum, "nesterov": ScikitNesterov}


@dataclass(frozen=True)
class EpochScaling(Schedule):
    """scikit-learn's "invscaling" in a fit: the rate falls after each epoch, with the samples seen.

    rates: by the samples seen, but for the first epoch's, which is their lr.  n_steps, n_samples: of an epoch.
    n_before: samples seen before the fit.
    """

    rates: InverseScaling
    n_steps: int
    n_samples: int
    n_before: int

    def values(self, first_step: int, n_steps: int) -> np.ndarray:
        epochs, steps = np.unique((first_step + np.arange(n_steps)) // self.n_steps, return_counts=True)
        seen = [self.n_before + int(epoch) * self.n_samples if epoch else 0 for epoch in epochs]
        return np.repeat([self.rates.values(t, 1)[0] for t in seen], steps)


def scales_inversely(settings: Any) -> bool:
    """Whether the rate falls by the samples seen."""
    return bool(settings.solver == "sgd" and settings.learning_rate == "invscaling" and settings.power_t)


def solver_settings(settings: Any) -> tuple[Any, ...]:
    """Return what the optimizer of a stochastic solver is made of, but for the penalty."""
    rates = (settings.learning_rate_init, settings.schedule, settings.momentum, settings.nesterovs_momentum)
    return (settings.solver, *rates, settings.beta_1, settings.beta_2, settings.epsilon, settings.weight_decay)


def make_optimizer(settings: Any, n_steps: int, alpha: float) -> Optimizer:
    """Return the optimizer of a stochastic solver.

    n_steps: of the whole training at most.  alpha: of the penalty, in the place of the setting.
    """
    solver, lr = settings.solver, settings.learning_rate_init
    if isinstance(settings.schedule, str):
        lr = COURSES[check_option("schedule", settings.schedule, COURSES)](lr, total_steps=max(n_steps, 4))
    elif settings.schedule is not None:
        if not isinstance(settings.schedule, Schedule):
            raise TypeError(
                f"schedule is {settings.schedule!r}; it must be {' or '.join(map(repr, COURSES))}, or a "
                "schedule such as xpnet.Step(0.1, every=1000)"
            )
        lr = settings.schedule
    if solver == "sgd" and settings.momentum:
        solver = "nesterov" if settings.nesterovs_momentum else "momentum"
    made, taken = SCIKIT_RULES.get(solver, OPTIMIZERS[solver]), parameters_of(solver)
    given = {"momentum": settings.momentum, "weight_decay": settings.weight_decay}
    if "beta1" in taken:  # as in scikit-learn, epsilon belongs to adam and its kin
        given |= {"beta1": settings.beta_1, "beta2": settings.beta_2, "eps": settings.epsilon}
    options = {name: value for name, value in given.items() if name in taken and value is not None}
    return made(lr, l2_summed=alpha, **options)
