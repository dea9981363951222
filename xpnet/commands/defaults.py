"""The defaults that depend on the data: those of a table, those of all other data, and those of runs of before."""

from __future__ import annotations

import argparse
from typing import Any

from xpnet.commands.split_options import may_validate
from xpnet.tables.files import is_table

BEST, LAST = "best", "last"  # of --end-with
OF_TABLES: dict[str, Any] = {
    "optimizer": "adam",
    "epochs": 300,
    "patience": 20,
    "hidden": [64, 32],
    "dropout": [0.1],
    "end_with": BEST,
}
OF_OTHERS: dict[str, Any] = {
    "optimizer": "sgd",
    "epochs": 20,
    "patience": 0,
    "hidden": [100, 200],
    "dropout": None,
    "end_with": BEST,
}
# What a config.json of before does not say, by its keys.
OF_BEFORE: dict[str, Any] = {"split": LAST, "patience": 0, "hidden": [100, 200], "dropout": [0.0]}
# An option that stands in the place of another one.
IN_PLACE_OF = {"layers": "hidden", "hidden": "layers"}


def told(name: str) -> str:
    """Return the defaults of an option, for the help."""
    values = [defaults[name] for defaults in (OF_TABLES, OF_OTHERS)]
    table, other = (",".join(map(str, value)) if isinstance(value, list) else value for value in values)
    return f"(default: {table} of a table, else {'none' if other in (None, 0) else other})"


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
    for name, value in (("patience", 0), ("end_with", LAST)):
        if name in arguments.defaulted:
            setattr(arguments, name, value)


def of_before(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a run of before, with what was the default then."""
    added = {name: value for name, value in OF_BEFORE.items() if IN_PLACE_OF.get(name) not in options}
    return {**added, "end-with": BEST if options.get("patience") else LAST, **options}
