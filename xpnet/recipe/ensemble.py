"""Several networks, whose mean is the model, and of a table a linear one in it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np

from xpnet.network.ensemble import deep_linear, mean_network
from xpnet.network.layers import Activation, Dense
from xpnet.network.network import Network
from xpnet.recipe.attempt import Attempt
from xpnet.recipe.samples import Data
from xpnet.training.evaluation import evaluate
from xpnet.training.loop import TrainingDiverged

PARTS = np.linspace(0.0, 1.0, 11)  # of the linear model, of which that with the lowest validation loss is taken
FASTER = 3.0  # the rate of the linear model, in parts of the networks'

Make = Callable[[int, bool], Attempt]  # of a seed, and whether it is the linear model
Tell = Callable[[str, "dict[str, Any] | None"], Any]  # what was trained, and its last record, None if it diverged


@dataclass(frozen=True)
class Ensemble:
    """A network that is the mean of others.

    n_networks: of them, the one of the run included.  linear: the part of a linear model in it.
    """

    network: Network
    n_networks: int = 1
    linear: float = 0.0

    def __str__(self) -> str:
        if self.n_networks == 1 and not self.linear:
            return ""
        networks = f"the mean of {self.n_networks} networks" if self.n_networks > 1 else "a network"
        if self.linear == 1.0:
            return f"the model is a linear one, better on the rows held out than {networks}"
        if self.linear:
            return f"the model is {1 - self.linear:.0%} {networks} and {self.linear:.0%} a linear one"
        return f"the model is {networks}"


def with_others(trained: Network, n_networks: int, seed: int, make: Make, data: Data, tell: Tell) -> Ensemble:
    """Train n_networks - 1 others beside a trained network; return the mean of all.

    seed: of the first, which gives those of the others.  tell: is told of each.
    One that diverges is left out. They see the same rows, so that those held out judge their mean too.
    """
    if n_networks == 1:
        return Ensemble(trained)
    networks = [trained]
    with warnings.catch_warnings(), ExitStack() as stack:
        warnings.simplefilter("ignore", UserWarning)  # the first training has said them
        for k in range(1, n_networks):
            own = int(np.random.SeedSequence([seed, k]).generate_state(1)[0])
            networks += _trained(make(own, False), data, f"network {k + 1} of {n_networks}", stack, tell)
        mean = mean_network(networks)
        if data.table is None or data.validation is None or not _may_be_linear(trained):
            return Ensemble(mean, len(networks))
        linear = _trained(make(seed, True), data, "linear model", stack, tell)
    if not linear:
        return Ensemble(mean, len(networks))
    return _mixed(mean, deep_linear(linear[0], trained), data, len(networks))


def _trained(attempt: Attempt, data: Data, called: str, stack: ExitStack, tell: Tell) -> list[Network]:
    """Return the network of an attempt, averaged where its optimizer does so; none if it diverges."""
    try:
        record = attempt.last_record(data)
    except TrainingDiverged:
        tell(called, None)
        return []
    tell(called, record)
    stack.enter_context(attempt.averaged())
    return [attempt.network]


def _may_be_linear(network: Network) -> bool:
    """Whether a linear model can be written as a network of these activations."""
    *hidden, last = network.layers
    activations = {layer.name for layer in hidden if isinstance(layer, Activation)}
    return activations <= {"relu"} and (isinstance(last, Dense) or last == Activation("identity"))


def _mixed(mean: Network, linear: Network, data: Data, n_networks: int) -> Ensemble:
    """Return the mixture of two networks whose loss on the rows held out is the lowest."""
    assert data.validation is not None
    best, lowest = Ensemble(mean, n_networks), np.inf
    for part in PARTS:
        network = mean_network([mean, linear], [1.0 - part, part]) if part else mean
        loss = evaluate(network, data.validation)["loss"]
        if loss < lowest:
            best, lowest = Ensemble(network, n_networks, float(part)), loss
    return best
