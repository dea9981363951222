"""The defaults of options that depend on the data: of a table, of other files, of named data, and of runs of before."""

from __future__ import annotations

import argparse
from typing import Any

from xpnet.commands.split_options import may_validate
from xpnet.recipe.defaults import (
    BEST,
    LAST,
    OF_LAST_EPOCH,
    OF_TABLES,
    RATES_OF_TABLES,
    by_size,
    left_out,
    rate_of_tables,
)
from xpnet.tables.decisions import Decision
from xpnet.tables.files import is_table, kind_of
from xpnet.tables.formats import IMAGES, ROWS, TABLE
from xpnet.training.optimizers import parameters_of

OF_OTHERS: dict[str, Any] = {
    "optimizer": "sgd",
    "epochs": 20,
    "patience": 0,
    "hidden": [100, 200],
    "dropout": None,
    "end_with": BEST,
    "ensemble": 1,
}
# Of a folder of images and of files of rows, in any units: SGD at its rate of 0.1 diverges on many of them.
OF_FILES = OF_OTHERS | {"optimizer": "adam", "epochs": 100, "patience": 20, "dropout": [0.1]}
# What a config.json of before does not say, by its keys.
OF_BEFORE: dict[str, Any] = {"split": LAST, "patience": 0, "hidden": [100, 200], "dropout": [0.0], "ensemble": 1}
# An option that stands in the place of another one.
IN_PLACE_OF = {"layers": "hidden", "hidden": "layers"}


def told(name: str) -> str:
    """Return the defaults of an option, for the help."""
    values = [defaults[name] for defaults in (OF_TABLES, OF_FILES, OF_OTHERS)]
    table, files, other = (",".join(map(str, value)) if isinstance(value, list) else value for value in values)
    data = "a file or images" if files == table else "a table"
    more = "" if files in (table, other) else f", {files} of images and rows"
    return f"(default: {table} of {data}{more}, else {'none' if other in (None, 0) else other})"


def default_rate(arguments: argparse.Namespace) -> float:
    """The learning rate asked for, or the optimizer's own, or that for a table."""
    if arguments.lr is not None:
        return float(arguments.lr)
    dataset = getattr(arguments, "dataset", None)
    if dataset is not None and is_table(dataset):
        return rate_of_tables(arguments.optimizer)
    return float(parameters_of(arguments.optimizer)["lr"])


def resolve(arguments: argparse.Namespace) -> None:
    """Set the options that were left out to their defaults for these data; `defaulted` names those."""
    dataset = getattr(arguments, "dataset", None)
    kind = None if dataset is None else kind_of(dataset)
    defaults = dict(OF_TABLES if kind == TABLE else OF_FILES if kind in (IMAGES, ROWS) else OF_OTHERS)
    layers = getattr(arguments, "layers", None)
    if layers is not None:
        defaults["hidden"] = None
        defaults["dropout"] = defaults["dropout"] if len(layers) > 2 else None
    found = left_out(vars(arguments), defaults, "end_with" not in arguments or _may_choose(arguments))
    arguments.defaulted = list(found)
    vars(arguments).update(found)


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
    vars(arguments).update({name: OF_LAST_EPOCH[name] for name in OF_LAST_EPOCH if name in arguments.defaulted})


def resolve_by_size(arguments: argparse.Namespace, n_rows: int) -> list[Decision]:
    """Set the defaults again that depend on how many samples there are to train on; return what is said."""
    changed, said = by_size(vars(arguments), arguments.defaulted, n_rows)
    vars(arguments).update(changed)
    return said


def of_before(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a run of before, with what was the default then."""
    added = {name: value for name, value in OF_BEFORE.items() if IN_PLACE_OF.get(name) not in options}
    optimizer = options.get("optimizer")
    if isinstance(optimizer, str) and optimizer in RATES_OF_TABLES:  # a file may hold anything
        added["lr"] = parameters_of(optimizer)["lr"]
    return {**added, "end-with": BEST if options.get("patience") else LAST, **options}
