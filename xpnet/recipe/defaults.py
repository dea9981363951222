"""What a table is trained with by default: chosen on the tuning half of `benchmarks/public_tables.csv`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from xpnet.tables.decisions import Decision
from xpnet.training.optimizers import parameters_of

BEST, LAST = "best", "last"  # the weights that a training ends with: of which epoch
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
BATCH_SIZE = 32
LEAST_STEPS = {"epochs": 1000, "patience": 200}  # of a table: where its epochs have few steps, it takes more of them
MOST_ROWS = 2000  # of a table that is trained by several networks
# Options that ask for a certain course of one training, or for layers that cannot be merged.
OF_ONE_NETWORK = ("epochs", "max_steps", "max_seconds", "normalization")
OF_LAST_EPOCH: dict[str, Any] = {"patience": 0, "end_with": LAST, "ensemble": 1}  # where no epoch is the best
WORDS = {"epochs": "epochs", "patience": "of patience"}


def rate_of_tables(optimizer: str) -> float:
    """Return the learning rate of a table by the optimizer's name."""
    return float(RATES_OF_TABLES.get(optimizer, parameters_of(optimizer)["lr"]))


def left_out(given: Mapping[str, Any], defaults: Mapping[str, Any], may_choose: bool) -> dict[str, Any]:
    """Return the defaults of the options that are None in those given.

    may_choose: whether the weights of the best epoch suit the other options.
    """
    defaults = dict(defaults)
    if not may_choose:
        defaults |= OF_LAST_EPOCH
    if defaults["end_with"] != BEST or any(given.get(name) is not None for name in OF_ONE_NETWORK):
        defaults["ensemble"] = 1
    return {name: value for name, value in defaults.items() if name in given and given[name] is None}


def by_size(
    options: Mapping[str, Any], defaulted: Collection[str], n_rows: int
) -> tuple[dict[str, Any], list[Decision]]:
    """Return the defaults that depend on how many rows of a table there are to train on, and what is said of them.

    options: all that are in force.  defaulted: the names of those that were left out.
    A patience of 20 epochs is no patience where an epoch has 2 steps.
    """
    n_steps, said = -(-n_rows // min(options["batch_size"], n_rows)), list[Decision]()
    least = {name: -(-n // n_steps) for name, n in LEAST_STEPS.items()}
    raised = {name: n for name, n in least.items() if name in defaulted and options[name]}
    if "patience" in raised:
        raised["patience"] = min(raised["patience"], raised.get("epochs", options["epochs"]))
    raised = {name: n for name, n in raised.items() if n > options[name]}
    rows = f"{n_rows} samples to train on"
    if raised:
        done = " and ".join(f"{'at most ' * (name == 'epochs')}{n} {WORDS[name]}" for name, n in raised.items())
        flags = ", ".join(f"--{name}" for name in raised)
        said.append(Decision("", f"{rows}, {n_steps} step{'s' * (n_steps > 1)} an epoch", done, flags, False))
    if "ensemble" in defaulted and n_rows > MOST_ROWS and options["ensemble"] > 1:
        raised["ensemble"] = 1
        said.append(Decision("", rows, "one network is trained, not several", "--ensemble", False))
    return raised, said
