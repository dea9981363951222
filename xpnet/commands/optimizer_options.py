"""The options of the optimizer and of the regularisation in its update, and the optimizer they make."""

from __future__ import annotations

import argparse
from typing import Any

from xpnet.commands.arguments import UsageError, in_flags, number, option, positive, refuse_stray
from xpnet.commands.defaults import told
from xpnet.recipe.defaults import RATES_OF_TABLES
from xpnet.training.optimizers import OPTIMIZERS, Optimizer, parameters_of
from xpnet.training.schedules import Schedule
from xpnet.training.update import Options

# The parameters of the rules; each rule takes some of them.
RULE = tuple(dict.fromkeys(flag for name in OPTIMIZERS for flag in parameters_of(name) if flag != "lr"))
REGULARISATION = tuple(Options.__annotations__)


def add_optimizer(command: argparse.ArgumentParser, with_rate: bool = True) -> None:
    """Add the options of the optimizer and of the regularisation.  with_rate: --lr too."""
    group = command.add_argument_group("optimizer")
    group.add_argument(
        "--optimizer",
        type=option("optimizer", OPTIMIZERS),
        metavar="NAME",
        help=f"{', '.join(OPTIMIZERS)} {told('optimizer')}",
    )
    if with_rate:
        of_tables = "".join(f"; {rate:g} of {name} on a table" for name, rate in RATES_OF_TABLES.items())
        group.add_argument("--lr", type=positive("0.1"), metavar="RATE", help=f"learning rate {_told('lr')}{of_tables}")
    for flag in RULE:
        group.add_argument(f"--{flag.replace('_', '-')}", type=number("0.9"), metavar="X", help=_told(flag))
    group = command.add_argument_group("regularisation", "biases are left out of l1 and l2")
    for flag, text in (
        ("l1", "add the gradient of X * sum |W|"),
        ("l2", "add the gradient of X / 2 * sum W^2"),
        ("l2_summed", "add the gradient of X / 2 * sum W^2 / n, n the samples of the update: scikit-learn's alpha"),
        ("clip_norm", "limit of the gradient's norm"),
        ("clip_value", "limit of each element of the gradient, before its norm"),
        ("max_norm", "limit of the norm of each unit's incoming weights"),
        (
            "ema",
            "decay, such as 0.999, of an average of the weights over the updates; the saved model and the summary "
            "have the averaged weights, the lines of epochs those that train",
        ),
    ):
        group.add_argument(f"--{flag.replace('_', '-')}", type=number("0.001"), metavar="X", help=text)


def make_optimizer(arguments: argparse.Namespace, lr: float | Schedule) -> Optimizer:
    """Make the optimizer that the options describe; raises UsageError for an option it does not use, or a bad value."""
    name = arguments.optimizer
    refuse_stray(arguments, RULE, "--optimizer", name, {other: parameters_of(other) for other in OPTIMIZERS})
    given = {flag: getattr(arguments, flag) for flag in (*RULE, *REGULARISATION)}
    try:
        return OPTIMIZERS[name](lr, **{flag: value for flag, value in given.items() if value is not None})
    except ValueError as error:
        raise UsageError(
            f"--optimizer {name}: {in_flags(error, {'lr': 'lr', **{flag: flag for flag in given}})}"
        ) from None


def describe_optimizer(optimizer: Optimizer, lr: float) -> dict[str, Any]:
    """Return all settings of the optimizer, JSON-ready; regularisation that is off is left out.

    lr: what a schedule, if there is one, was made with.
    """
    name = next(name for name, make in OPTIMIZERS.items() if make is type(optimizer))
    made = {key: value for key, value in vars(optimizer).items() if not key.startswith("_")}
    used = {key: value for key, value in made.items() if key not in REGULARISATION or value}
    return {"type": name, "lr": lr, **used}


def _told(parameter: str) -> str:
    """Return the rules that take a parameter and its defaults, for the help."""
    taken = {name: parameters_of(name) for name in OPTIMIZERS}
    defaults = {name: taken[name][parameter] for name in taken if parameter in taken[name]}
    parts = [
        f"{value:g} of {', '.join(name for name in defaults if defaults[name] == value)}"
        for value in dict.fromkeys(defaults.values())
    ]
    return f"(default: {'; '.join(parts)})"
