"""The optimizers: the rules by which an update moves theta, and the table of their names.

What they have in common, regularisation, clipping, averages and state, is in `xpnet.training.update`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Unpack

from xpnet.kernels import updates
from xpnet.program.calls import Buffer
from xpnet.training.schedules import Schedule
from xpnet.training.update import Optimizer, Options, Update
from xpnet.training.update import Snapshot as Snapshot  # estimators pickled by xpnet 0.1 look for it here

__all__ = ["SGD", "AdaGrad", "Adam", "AdamW", "Lion", "Momentum", "NAdam", "Nesterov", "Optimizer", "RMSProp"]


class SGD(Optimizer):
    """Stochastic gradient descent: theta = theta - lr * gradient.

    lr: the learning rate, a finite number above 0 or a schedule.  options: see `Optimizer`.
    Source: Nielsen, Neural Networks and Deep Learning, eqs. 20 and 21.
    """

    def __init__(self, lr: float | Schedule = 0.1, **options: Unpack[Options]) -> None:
        super().__init__(lr, **options)

    def _rule(self, update: Update) -> None:
        updates.sgd(update.xp, update.theta, update.gradient, update.lr)


class Momentum(Optimizer):
    """v = momentum * v + gradient, theta = theta - lr * v: torch.optim.SGD(momentum=...).

    momentum: from 0 to less than 1.  options: see `Optimizer`.
    Source: Polyak (1964); where the rate stands inside v (Sutskever et al. 2013), a change of rate acts later.
    """

    def __init__(self, lr: float | Schedule = 0.1, momentum: float = 0.9, **options: Unpack[Options]) -> None:
        super().__init__(lr, **options)
        self.momentum = self._beta("momentum", momentum, 0.9)

    def _rule(self, update: Update) -> None:
        v = update.state("v")
        updates.momentum(update.xp, update.theta, update.gradient, v, update.lr, self.momentum)


class Nesterov(Optimizer):
    """v = momentum * v + gradient, theta = theta - lr * (gradient + momentum * v): torch.optim.SGD(nesterov=True).

    momentum: from 0 to less than 1.  options: see `Optimizer`.
    Source: Sutskever et al. (2013), eqs. 3 and 4, with theta standing for the point ahead, as in torch.
    """

    def __init__(self, lr: float | Schedule = 0.1, momentum: float = 0.9, **options: Unpack[Options]) -> None:
        super().__init__(lr, **options)
        self.momentum = self._beta("momentum", momentum, 0.9)

    def _rule(self, update: Update) -> None:
        u = update.state("u")
        updates.nesterov(update.xp, update.theta, update.gradient, u, update.lr, self.momentum)


class AdaGrad(Optimizer):
    """s = s + gradient^2, theta = theta - lr * gradient / (sqrt(s) + eps): torch.optim.Adagrad.

    eps: above 0, outside the root; s begins at 0.  options: see `Optimizer`.
    Source: Duchi, Hazan and Singer (2011), section 1.3.
    """

    def __init__(self, lr: float | Schedule = 0.01, eps: float = 1e-10, **options: Unpack[Options]) -> None:
        super().__init__(lr, **options)
        self.eps = self._eps(eps, 1e-10)

    def _rule(self, update: Update) -> None:
        s = update.state("s")
        updates.adagrad(update.xp, update.theta, update.gradient, s, update.scratch, update.lr, self.eps)


class RMSProp(Optimizer):
    """s = alpha * s + (1 - alpha) * gradient^2, theta = theta - lr * gradient / (sqrt(s) + eps): torch.optim.RMSprop.

    alpha: from 0 to less than 1 (Hinton's lecture has 0.9).  eps: above 0, outside the root as in torch; TensorFlow
    has it inside.  The average begins at zero and is not corrected.  options: see `Optimizer`.
    Source: Tieleman and Hinton (2012), lecture 6e.
    """

    def __init__(
        self, lr: float | Schedule = 0.01, alpha: float = 0.99, eps: float = 1e-8, **options: Unpack[Options]
    ) -> None:
        super().__init__(lr, **options)
        self.alpha = self._beta("alpha", alpha, 0.99)
        self.eps = self._eps(eps, 1e-8)

    def _rule(self, update: Update) -> None:
        s = update.state("s")
        updates.rmsprop(update.xp, update.theta, update.gradient, s, update.scratch, update.lr, self.alpha, self.eps)


class _Adaptive(Optimizer):
    """What Adam and its kin share: two averages and their constants."""

    def __init__(
        self, lr: float | Schedule, beta1: float, beta2: float, eps: float, **options: Unpack[Options]
    ) -> None:
        super().__init__(lr, **options)
        self.beta1 = self._beta("beta1", beta1, 0.9)
        self.beta2 = self._beta("beta2", beta2, 0.999)
        self.eps = self._eps(eps, 1e-8)


class Adam(_Adaptive):
    """theta = theta - lr * m / (sqrt(v) + eps), m and v corrected averages of gradient and its square.

    beta1, beta2: from 0 to less than 1.  eps: above 0, added to the corrected root as in the paper's algorithm 1.
    options: see `Optimizer`.  Source: Kingma and Ba (2015), algorithm 1; torch.optim.Adam.
    """

    def __init__(
        self,
        lr: float | Schedule = 0.001,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(lr, beta1, beta2, eps, **options)

    def _rule(self, update: Update) -> None:
        xp, m, v = update.xp, update.state("m"), update.state("v")
        c1, c2 = update.counters("c1", "c2")
        (rate,) = update.scalars("rate")
        updates.adam_rate(xp, c1, c2, rate, update.lr, self.beta1, self.beta2)
        self._decay(update)
        eps = self._eps_of(update, c2)
        updates.adam(xp, update.theta, update.gradient, m, v, update.scratch, c2, rate, self.beta1, self.beta2, eps)

    def _eps_of(self, update: Update, c2: Buffer) -> Buffer | float:
        """What is added to the corrected root of v."""
        return self.eps

    def _decay(self, update: Update) -> None:
        """Record a decay of the weights before the step is taken; Adam has none."""


class AdamW(Adam):
    """Adam with decoupled weight decay, W = W - lr * weight_decay * W before the step: torch.optim.AdamW.

    weight_decay: of weights and not of biases, 0 or more; torch decays whatever it is given.
    The others: see `Adam` and `Optimizer`.  Source: Loshchilov and Hutter (2019), algorithm 2.
    """

    def __init__(
        self,
        lr: float | Schedule = 0.001,
        weight_decay: float = 0.01,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(lr, beta1, beta2, eps, **options)
        self.weight_decay = self._checked("weight_decay", weight_decay, at_least=0, example=0.01)

    def _decay(self, update: Update) -> None:
        update.decay(self.weight_decay)


class NAdam(_Adaptive):
    """Adam with Nesterov's momentum, whose beta1 warms up: torch.optim.NAdam.

    mu_t = beta1 * (1 - 0.5 * 0.96^(t * momentum_decay)) takes the place of beta1 in the step, not in the average.
    momentum_decay: 0 or more.  The others: see `Adam` and `Optimizer`.
    Source: Dozat (2016), Incorporating Nesterov Momentum into Adam, algorithm 2.
    """

    def __init__(
        self,
        lr: float | Schedule = 0.002,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        momentum_decay: float = 0.004,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(lr, beta1, beta2, eps, **options)
        self.momentum_decay = self._checked("momentum_decay", momentum_decay, at_least=0, example=0.004)

    def _rule(self, update: Update) -> None:
        xp, m, v = update.xp, update.state("m"), update.state("v")
        warmth, c1, c2 = update.counters("warmth", "c1", "c2")
        rate, next_rate = update.scalars("rate", "next rate")
        decay = 0.96**self.momentum_decay
        updates.nadam_rates(xp, warmth, c1, c2, rate, next_rate, update.lr, self.beta1, self.beta2, decay)
        updates.nadam(
            xp,
            update.theta,
            update.gradient,
            m,
            v,
            update.scratch,
            c2,
            rate,
            next_rate,
            self.beta1,
            self.beta2,
            self.eps,
        )


class Lion(Optimizer):
    """theta = theta - lr * (sign(beta1 * m + (1 - beta1) * gradient) + weight_decay * W): the sign of a momentum.

    m = beta2 * m + (1 - beta2) * gradient.  Its steps are larger than Adam's: the paper takes lr 3 to 10 times lower.
    weight_decay: decoupled, of weights and not of biases.  options: see `Optimizer`.
    Source: Chen et al. (2023), Symbolic Discovery of Optimization Algorithms, algorithm 2.
    """

    def __init__(
        self,
        lr: float | Schedule = 1e-4,
        weight_decay: float = 0.0,
        beta1: float = 0.9,
        beta2: float = 0.99,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(lr, **options)
        self.weight_decay = self._checked("weight_decay", weight_decay, at_least=0, example=0.01)
        self.beta1 = self._beta("beta1", beta1, 0.9)
        self.beta2 = self._beta("beta2", beta2, 0.99)

    def _rule(self, update: Update) -> None:
        update.decay(self.weight_decay)
        m = update.state("m")
        updates.lion(update.xp, update.theta, update.gradient, m, update.scratch, update.lr, self.beta1, self.beta2)


# The one table of names, from which the command line and the estimators take parameters and defaults.
OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "sgd": SGD,
    "momentum": Momentum,
    "nesterov": Nesterov,
    "adagrad": AdaGrad,
    "rmsprop": RMSProp,
    "adam": Adam,
    "adamw": AdamW,
    "nadam": NAdam,
    "lion": Lion,
}


@cache
def parameters_of(name: str) -> Mapping[str, Any]:
    """Return the parameters of an optimizer besides `Options`, with their defaults: lr, then those of its rule."""
    parameters = inspect.signature(OPTIMIZERS[name]).parameters.values()
    return {parameter.name: parameter.default for parameter in parameters if parameter.kind != parameter.VAR_KEYWORD}
