"""xpnet find-lr: raise the learning rate from step to step and suggest one."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

import numpy as np

from xpnet import plots
from xpnet.commands.arguments import UsageError, check_writable, positive, whole
from xpnet.commands.data import add_data, check_data, load_data, load_samples
from xpnet.commands.defaults import resolve
from xpnet.commands.loop_options import add_batch_size
from xpnet.commands.network_options import add_network, check_network, make_network
from xpnet.commands.optimizer_options import add_optimizer, make_optimizer
from xpnet.commands.report import say, warnings_said
from xpnet.training.lr_finder import ALIKE, RateSearch, find_lr
from xpnet.training.records import json_line

ROWS = 12  # of the table
MOST_STEPS = 10**6  # whose rates and losses are kept; a hundred are enough


def add_parser(commands: Any) -> None:
    """Add the command to the parser's commands."""
    command = commands.add_parser(
        "find-lr",
        help="search for a learning rate to begin with",
        usage="%(prog)s [DATA] [OPTIONS]",
        allow_abbrev=False,
    )
    add_data(command)
    add_network(command)
    add_optimizer(command, with_rate=False)
    group = command.add_argument_group("search")
    group.add_argument(
        "--lr-start",
        type=positive("1e-7"),
        default=1e-7,
        metavar="RATE",
        help="of the first step (default: %(default)s)",
    )
    group.add_argument(
        "--lr-end", type=positive("10"), default=10.0, metavar="RATE", help="of the last step (default: %(default)s)"
    )
    group.add_argument(
        "--steps", type=whole(10, MOST_STEPS), default=100, metavar="N", help="at most (default: %(default)s)"
    )
    add_batch_size(group)
    group = command.add_argument_group("output")
    group.add_argument("--plot", metavar="FILE.png|FILE.svg", help="where a picture goes (extra: xpnet[plot])")
    group.add_argument("--json", action="store_true", help="the suggestion and the curve as one JSON line on stdout")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    with warnings_said():
        return _run(arguments)


def _run(arguments: argparse.Namespace) -> int:
    resolve(arguments)
    check_data(arguments)
    check_network(arguments)
    optimizer = make_optimizer(arguments, arguments.lr_start)  # the search sets the rate of each step
    if arguments.lr_end <= arguments.lr_start:
        raise UsageError(
            f"--lr-end is {arguments.lr_end:g} and --lr-start {arguments.lr_start:g}; the end must be above the start"
        )
    if arguments.plot is not None:
        try:
            plots.check_suffix(arguments.plot)
        except ValueError as error:
            raise UsageError(f"--plot {error}") from None
        check_writable("--plot", arguments.plot)
    ax = None if arguments.plot is None else plots.new_axes()
    data = load_data(arguments, load_samples(arguments))
    network = make_network(arguments, data)
    search = find_lr(
        network,
        data.training,
        optimizer,
        lr_start=arguments.lr_start,
        lr_end=arguments.lr_end,
        n_steps=arguments.steps,
        batch_size=arguments.batch_size,
        seed=arguments.seed,
        validation=data.validation,
    )
    if ax is not None:
        plots.save(plots.rate_search(search, ax), arguments.plot)
    if arguments.json:
        found = {"suggestion": search.suggestion, "lrs": search.lrs.tolist(), "losses": search.losses.tolist()}
        trials = [{"lr": rate, "val_loss": loss} for rate, loss in search.trials.items()]
        print(json_line(found | {"trials": trials, "alike": search.alike}), flush=True)
    else:
        print("\n".join(_table(search)), flush=True)
    if search.suggestion is None:
        say(f"xpnet: no suggestion: {_why_none(search, arguments.steps)}")
        return 1
    return 0


def _why_none(search: RateSearch, n_steps: int) -> str:
    if search.trials:
        return "every short training diverged; give features and targets that are scaled, or another network"
    if len(search.losses) < n_steps:
        return f"the loss diverged after {len(search.losses)} steps; lower --lr-start, or give more --steps"
    return (
        f"the loss did not fall beyond its noise from {search.lrs[0]:.2g} to {search.lrs[-1]:.2g}; raise --lr-end "
        "or --batch-size, or look for features and targets that are constant"
    )


def _table(search: RateSearch) -> Iterator[str]:
    """Yield a line for some of the steps, evenly chosen, and the suggestion."""
    yield f"{'lr':>9}  {'loss':>10}"
    for i in np.unique(np.linspace(0, len(search.lrs) - 1, ROWS).round().astype(int)) if len(search.lrs) else ():
        yield f"{search.lrs[i]:>9.2e}  {search.losses[i]:>10.4f}"
    if search.trials:
        yield f"{'tried':>9}  {'val_loss':>10}"
        for rate, loss in search.trials.items():
            yield f"{rate:>9.2e}  {loss:>10.4f}"
    if search.suggestion is not None:
        yield f"suggestion: --lr {search.suggestion:.2g}{_alike(search)}"


def _alike(search: RateSearch) -> str:
    """Say which rates do as well, and where none stands out."""
    low, high = search.alike or (None, None)
    if low is None or high is None or low == high:
        return ""
    found = f"{low:.2g} to {high:.2g} are within {ALIKE:.0%} of its validation loss"
    return f" ({'none stands out: ' * (high > 9.0 * low)}{found})"
