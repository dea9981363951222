"""What a search varies: width, depth, learning rate, weight decay, dropout and batch size of a training on a table."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

from xpnet.commands.arguments import UsageError
from xpnet.commands.defaults import default_rate
from xpnet.recipe.defaults import BATCH_SIZE
from xpnet.training.optimizers import parameters_of

WIDTHS, MOST_LAYERS = (16, 256), 3  # of the first hidden layer; each further one has half the units
LEAST_UNITS = 4
RATES = (1 / 30, 10.0)  # in parts of the default rate
DECAYS = (0.0, 0.01, 0.1, 1.0)  # 1.0 takes a thousandth of the weights away in each step at a rate of 0.001
MOST_DROPOUT, DROPOUT_STEP = 0.5, 0.05
BATCHES = (16, 32, 64, 128)
DECAYING = {"adam": "adamw", "adamw": "adamw"}  # the same optimizer with weight decay, 0 included


@dataclass(frozen=True)
class Range:
    """Numbers from low to high.

    step: between them, None for all.  is_log: whether they are drawn by their logarithm.  is_whole: whole numbers.
    """

    low: float
    high: float
    step: float | None = None
    is_log: bool = False
    is_whole: bool = False


@dataclass(frozen=True)
class Choice:
    """One of these values."""

    values: tuple[Any, ...]


@dataclass(frozen=True)
class Space:
    """The parameters that are searched and their ranges, and the value that each has by default."""

    ranges: dict[str, Range | Choice]
    default: dict[str, Any]

    def options_of(self, params: dict[str, Any]) -> dict[str, Any]:
        """Return the options of `xpnet train` that parameters stand for; those that are the default are left out."""
        found, new = dict[str, Any](), {name: value for name, value in params.items() if value != self.default[name]}
        if new.keys() & {"width", "depth"}:
            found["hidden"] = hidden_of(params["width"], params["depth"])
        if "dropout" in new:
            found["dropout"] = [round(new["dropout"], 6)]
        if "weight_decay" in new:
            found |= {"optimizer": "adamw", "weight_decay": new["weight_decay"]}
        if "lr" in params and new.keys() & {"lr", "weight_decay"}:  # adamw has another default than adam
            found["lr"] = params["lr"]
        if "batch_size" in new:
            found["batch_size"] = new["batch_size"]
        return found


def hidden_of(width: int, depth: int) -> list[int]:
    """Return the sizes of the hidden layers: the first has `width` units, each further one half as many."""
    return [max(width >> i, LEAST_UNITS) for i in range(depth)]


def space_of(given: argparse.Namespace, resolved: argparse.Namespace, n_rows: int) -> Space:
    """Return what is searched: all that was not given.

    given, resolved: the options, before and after the defaults were set.  n_rows: to train on.
    Raises UsageError if everything was given.
    """
    ranges, default = dict[str, Range | Choice](), dict[str, Any]()
    hidden, dropout = resolved.hidden, resolved.dropout or [0.0]
    if given.layers is None and given.hidden is None and len(resolved.activation) == len(dropout) == 1:
        ranges["width"] = Range(min(WIDTHS[0], hidden[0]), max(WIDTHS[1], hidden[0]), is_log=True, is_whole=True)
        ranges["depth"] = Range(1, max(MOST_LAYERS, len(hidden)), is_whole=True)
        default |= {"width": hidden[0], "depth": len(hidden)}
    if given.lr is None:
        rate = default_rate(resolved)
        ranges["lr"] = Range(rate * RATES[0], rate * RATES[1], is_log=True)
        default["lr"] = rate
    name = DECAYING.get(resolved.optimizer) if given.optimizer != "adam" else None
    if name is not None and given.weight_decay is None:
        ranges["weight_decay"] = Choice(DECAYS)
        default["weight_decay"] = parameters_of(name)["weight_decay"] if resolved.optimizer == name else 0.0
    if given.dropout is None and (given.layers is None or len(given.layers) > 2):
        ranges["dropout"] = Range(0.0, MOST_DROPOUT, DROPOUT_STEP)
        default["dropout"] = dropout[0]
    if given.batch_size is None:
        ranges["batch_size"] = Choice(tuple(size for size in BATCHES if size <= max(n_rows, BATCH_SIZE)))
        default["batch_size"] = BATCH_SIZE
    if not ranges:
        raise UsageError(
            "all that a search varies is given: the sizes, --lr, --weight-decay, --dropout and --batch-size; one at "
            "least must be open; leave one out, or take `xpnet train`"
        )
    return Space(ranges, default)
