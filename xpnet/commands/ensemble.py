"""xpnet train --ensemble K: several networks, whose mean is the model of the run, and of a table a linear one."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

from xpnet.commands.arguments import UsageError, whole
from xpnet.commands.attempt import make_attempt
from xpnet.commands.defaults import default_rate, told
from xpnet.commands.report import say
from xpnet.network.network import Network
from xpnet.recipe.attempt import Attempt
from xpnet.recipe.defaults import MOST_ROWS, OF_ONE_NETWORK
from xpnet.recipe.ensemble import FASTER, Ensemble, with_others
from xpnet.recipe.samples import Data


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


def train_others(arguments: argparse.Namespace, data: Data, trained: Network) -> Ensemble:
    """Train the other networks that the options ask for beside the run's own; return the mean of all."""

    def make(seed: int, is_linear: bool) -> Attempt:
        changed: dict[str, Any] = {"seed": seed}
        if is_linear:
            sizes = [data.training.n_features, data.training.n_outputs]
            changed |= {"layers": sizes, "hidden": None, "activation": ["relu"], "dropout": None}
            changed["lr"] = FASTER * default_rate(arguments)
        attempt = make_attempt(argparse.Namespace(**vars(arguments) | changed), data)
        return replace(attempt, metrics=[]) if arguments.monitor is None else attempt  # nobody looks at them

    def tell(called: str, record: dict[str, Any] | None) -> None:
        if record is None:
            say(f"xpnet: {called} diverged and is left out")
        elif not arguments.quiet:
            say(f"{called}: weights of epoch {record.get('chosen_epoch', record['epoch'])} of {record['epoch']}")

    return with_others(trained, arguments.ensemble, arguments.seed, make, data, tell)
