"""The defaults that depend on the data: those of a table, those of all other data, and those of runs of before.

Those of a table were chosen on the tuning half of `benchmarks/public_tables.csv`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from xpnet.commands.split_options import may_validate
from xpnet.tables.decisions import Decision
from xpnet.tables.files import is_table
from xpnet.training.optimizers import parameters_of

BEST, LAST = "best", "last"  # of --end-with
OF_TABLES: dict[str, Any] = {
    "optimizer": "adam",
    "epochs": 300,
    "patience": 20,
    "hidden": [64, 32],
    "dropout": [0.1],
    "end_with": BEST,
    "ensemble": 4,
}
RATES_OF_TABLES = {"adam": 0.003}  # by optimizer, in place of its own
LEAST_STEPS = {"epochs": 1000, "patience": 200}  # of a table: where its epochs have few steps, it takes more of them
MOST_ROWS = 2000  # of a table that is trained by several networks
OF_OTHERS: dict[str, Any] = {
    "optimizer": "sgd",
    "epochs": 20,
    "patience": 0,
    "hidden": [100, 200],
    "dropout": None,
    "end_with": BEST,
    "ensemble": 1,
}
# What a config.json of before does not say, by its keys.
OF_BEFORE: dict[str, Any] = {"split": LAST, "patience": 0, "hidden": [100, 200], "dropout": [0.0], "ensemble": 1}
# An option that stands in the place of another one.
IN_PLACE_OF = {"layers": "hidden", "hidden": "layers"}
# Options that ask for a certain course of one training, or for layers that cannot be merged.
OF_ONE_NETWORK = ("epochs", "max_steps", "max_seconds", "normalization")
WORDS = {"epochs": "epochs", "patience": "of patience"}


def told(name: str) -> str:
    """Return the defaults of an option, for the help."""
    values = [defaults[name] for defaults in (OF_TABLES, OF_OTHERS)]
    table, other = (",".join(map(str, value)) if isinstance(value, list) else value for value in values)
    return f"(default: {table} of a table, else {'none' if other in (None, 0) else other})"


def default_rate(arguments: argparse.Namespace) -> float:
    """The learning rate asked for, or the optimizer's own, or that for a table."""
    if arguments.lr is not None:
        return float(arguments.lr)
    rate = parameters_of(arguments.optimizer)["lr"]
    dataset = getattr(arguments, "dataset", None)
    return RATES_OF_TABLES.get(arguments.optimizer, rate) if dataset is not None and is_table(dataset) else rate


def resolve(arguments: argparse.Namespace) -> None:
    """Set the options that were left out to their defaults for these data; `defaulted` names those."""
    dataset = getattr(arguments, "dataset", None)
    defaults = dict(OF_TABLES if dataset is not None and is_table(dataset) else OF_OTHERS)
    layers = getattr(arguments, "layers", None)
    if layers is not None:
        defaults["hidden"] = None
        defaults["dropout"] = defaults["dropout"] if len(layers) > 2 else None
    if "end_with" in arguments and not _may_choose(arguments):
        defaults |= {"patience": 0, "end_with": LAST}
    if defaults["end_with"] != BEST or any(getattr(arguments, name, None) is not None for name in OF_ONE_NETWORK):
        defaults["ensemble"] = 1
    arguments.defaulted = [name for name in defaults if name in arguments and getattr(arguments, name) is None]
    for name in arguments.defaulted:
        setattr(arguments, name, defaults[name])


def _may_choose(arguments: argparse.Namespace) -> bool:
    """Whether the weights of the best epoch suit the other options.

    An average of the weights, and those that reach a score, are what was asked for.
    """
    if arguments.ema is not None or arguments.end_with == LAST:
        return False
    return bool(arguments.patience) or (arguments.target_score is None and may_validate(arguments))


def resolve_without_validation(arguments: argparse.Namespace) -> None:
    """Set the defaults again that need samples held out, as there are too few to hold any out."""
    if arguments.patience and "patience" not in arguments.defaulted:
        return  # refused where it finds nothing to watch
    for name, value in (("patience", 0), ("end_with", LAST), ("ensemble", 1)):
        if name in arguments.defaulted:
            setattr(arguments, name, value)


def resolve_by_size(arguments: argparse.Namespace, n_rows: int) -> Iterator[Decision]:
    """Set the defaults again that depend on how many rows of a table there are to train on; yield what is said of it.

    A patience of 20 epochs is no patience where an epoch has 2 steps.
    """
    n_steps = -(-n_rows // min(arguments.batch_size, n_rows))
    least = {name: -(-n // n_steps) for name, n in LEAST_STEPS.items()}
    raised = {name: n for name, n in least.items() if name in arguments.defaulted and getattr(arguments, name)}
    if "patience" in raised:
        raised["patience"] = min(raised["patience"], raised.get("epochs", arguments.epochs))
    raised = {name: n for name, n in raised.items() if n > getattr(arguments, name)}
    vars(arguments).update(raised)
    rows = f"{n_rows} rows to train on"
    if raised:
        done = " and ".join(f"{'at most ' * (name == 'epochs')}{n} {WORDS[name]}" for name, n in raised.items())
        flags = ", ".join(f"--{name}" for name in raised)
        yield Decision("", f"{rows}, {n_steps} step{'s' * (n_steps > 1)} an epoch", done, flags, False)
    if "ensemble" in arguments.defaulted and n_rows > MOST_ROWS and arguments.ensemble > 1:
        arguments.ensemble = 1
        yield Decision("", rows, "one network is trained, not several", "--ensemble", False)


def of_before(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a run of before, with what was the default then."""
    added = {name: value for name, value in OF_BEFORE.items() if IN_PLACE_OF.get(name) not in options}
    if options.get("optimizer") in RATES_OF_TABLES:
        added["lr"] = parameters_of(options["optimizer"])["lr"]
    return {**added, "end-with": BEST if options.get("patience") else LAST, **options}
