"""xpnet train --ensemble K: several networks, whose mean is the model of the run, and of a table a linear one."""

from __future__ import annotations

import argparse
import warnings
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from xpnet.commands.arguments import UsageError, whole
from xpnet.commands.attempt import make_attempt
from xpnet.commands.defaults import MOST_ROWS, OF_ONE_NETWORK, default_rate, told
from xpnet.commands.report import say
from xpnet.network.ensemble import deep_linear, mean_network
from xpnet.network.network import Network
from xpnet.recipe.samples import Data
from xpnet.training.evaluation import evaluate
from xpnet.training.loop import TrainingDiverged

PARTS = np.linspace(0.0, 1.0, 11)  # of the linear model, of which that with the lowest validation loss is taken
FASTER = 3.0  # the rate of the linear model, in parts of the networks'


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


def add_ensemble(group: argparse._ActionsContainer) -> None:
    """Add --ensemble."""
    group.add_argument(
        "--ensemble",
        type=whole(1),
        metavar="K",
        help="train K networks that differ by their seeds, and save their mean as one; of a table with a part "
        f"of a linear model, as the validation loss says {told('ensemble')}; 1 of more than {MOST_ROWS} rows "
        f"and beside {', '.join('--' + name.replace('_', '-') for name in OF_ONE_NETWORK)}",
    )


def check_ensemble(arguments: argparse.Namespace) -> None:
    """Refuse several networks whose units are tied together; raises UsageError."""
    if arguments.ensemble > 1 and arguments.normalization is not None:
        raise UsageError(
            f"--ensemble {arguments.ensemble} merges networks unit by unit, and --normalization "
            f"{arguments.normalization} ties the units of a layer together; leave one of them out"
        )


def with_others(arguments: argparse.Namespace, data: Data, trained: Network) -> Ensemble:
    """Train the other networks that the options ask for beside the run's own; return the mean of all.

    One that diverges is left out. They see the same rows, so that those held out judge their mean too.
    """
    if arguments.ensemble == 1:
        return Ensemble(trained)
    networks = [trained]
    with warnings.catch_warnings(), ExitStack() as stack:
        warnings.simplefilter("ignore", UserWarning)  # the run's own training has said them
        for k in range(1, arguments.ensemble):
            seed = int(np.random.SeedSequence([arguments.seed, k]).generate_state(1)[0])
            own = argparse.Namespace(**vars(arguments) | {"seed": seed})
            networks += _trained(own, data, f"network {k + 1} of {arguments.ensemble}", stack)
        mean = mean_network(networks)
        if not _may_be_linear(arguments, data):
            return Ensemble(mean, len(networks))
        sizes = [data.training.n_features, data.training.n_outputs]
        changed: dict[str, Any] = {"layers": sizes, "hidden": None, "activation": ["relu"], "dropout": None}
        changed["lr"] = FASTER * default_rate(arguments)
        linear = _trained(argparse.Namespace(**vars(arguments) | changed), data, "linear model", stack)
    if not linear:
        return Ensemble(mean, len(networks))
    return _mixed(mean, deep_linear(linear[0], trained), data, len(networks))


def _trained(arguments: argparse.Namespace, data: Data, called: str, stack: ExitStack) -> list[Network]:
    """Return a network trained as the options say, averaged where they say so; none if it diverges."""
    attempt = make_attempt(arguments, data)
    if arguments.monitor is None:
        attempt = replace(attempt, metrics=[])  # nobody looks at them
    try:
        *_, record = attempt.records(arguments, data, callbacks=attempt.watchers(data))
    except TrainingDiverged:
        say(f"xpnet: {called} diverged and is left out")
        return []
    if not arguments.quiet:
        chosen = record.get("chosen_epoch", record["epoch"])
        say(f"{called}: weights of epoch {chosen} of {record['epoch']}")
    stack.enter_context(attempt.averaged())
    return [attempt.network]


def _may_be_linear(arguments: argparse.Namespace, data: Data) -> bool:
    is_plain = set(arguments.activation) == {"relu"} and arguments.output == "identity"
    return data.table is not None and data.validation is not None and is_plain


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
