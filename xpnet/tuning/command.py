"""xpnet tune: search options for a table by trials, and train again with the best."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from typing import Any

from xpnet import plots
from xpnet.commands.arguments import whole
from xpnet.commands.config_file import add_config
from xpnet.commands.data import add_data
from xpnet.commands.ensemble import add_ensemble
from xpnet.commands.loop_options import add_loop
from xpnet.commands.network_options import add_network
from xpnet.commands.optimizer_options import add_optimizer
from xpnet.commands.report import say, warnings_said
from xpnet.commands.resume import apply_run
from xpnet.commands.runs import inside
from xpnet.commands.schedule_options import add_schedule
from xpnet.commands.signals import Terminated
from xpnet.commands.split_options import add_judges
from xpnet.commands.train import SAID_ALREADY, announce_data, print_outcome
from xpnet.tables.files import called
from xpnet.tuning.ending import Ending
from xpnet.tuning.report import TrialReport, print_best
from xpnet.tuning.search import SEARCH, Search, find_best, opened, trained_again
from xpnet.tuning.trials import Trial, counted
from xpnet.tuning.workers import Share, share_of

N_TRIALS = 30
PICTURE = "trials.png"
# What may stand beside --resume; all else is in the search's search.json.
ALLOWED = ("command", "run", "parser", "resume", "json", "quiet", "plot", "trials", "max_seconds", "jobs")


def add_parser(commands: Any) -> None:
    """Add the command to the parser's commands."""
    command = commands.add_parser(
        "tune",
        help="search options for a table (extra: xpnet[tune])",
        usage="%(prog)s DATA --target COLUMN [OPTIONS]",
        allow_abbrev=False,
        description="Search width, depth, learning rate, weight decay, dropout and batch size, by trials that are "
        "compared on the rows held out; one of these that is given stays as it is. The first trial is the default. The "
        "best is trained again as `xpnet train` does. A limit of seconds is of the search, all other options are those "
        "of `xpnet train`.",
    )
    add_config(command)
    add_data(command)
    group = command.add_argument_group("search")
    group.add_argument("--trials", type=whole(1), default=N_TRIALS, metavar="N", help="trials (default: %(default)s)")
    group.add_argument(
        "--jobs",
        type=whole(1),
        default=1,
        metavar="N",
        help="trials at a time, each in a process with its share of the cores; with more than one the trials depend on "
        "which is over first (default: %(default)s)",
    )
    group.add_argument("--out", metavar="DIR", help="directory of the search and the run (default: runs/<data>-<time>)")
    group.add_argument(
        "--resume",
        metavar="DIR",
        help="continue the search in that directory, which was stopped or killed; --trials may give it more",
    )
    group.add_argument(
        "--plot",
        action="store_true",
        help=f"draw the trials into {PICTURE}, and the run as `xpnet plot` does (extra: xpnet[plot])",
    )
    group.add_argument("--json", action="store_true", help="a JSON line a trial and two of summary on stdout")
    group.add_argument("--quiet", action="store_true", help="only the summary")
    add_judges(command, with_folds=False)
    add_network(command)
    add_optimizer(command)
    add_schedule(command)
    add_loop(command)
    add_ensemble(command.add_argument_group("ensemble"))
    command.set_defaults(run=run, batch_size=None)


def apply_search(arguments: argparse.Namespace) -> None:
    """Make the options of the search in arguments.resume the command's defaults; raises as `apply_run` does."""
    apply_run(arguments, SEARCH, ALLOWED, "tune")


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    if arguments.plot:
        plots.new_axes()  # refuses a missing matplotlib now, not when all trials are over
    with warnings_said(SAID_ALREADY), opened(arguments) as search:
        return _run(arguments, search)


def _run(arguments: argparse.Namespace, search: Search) -> int:
    study, share = search.study(), share_of(arguments.jobs, arguments.threads)
    report = TrialReport(search.measure, arguments.json, arguments.quiet, study.trials())
    if not arguments.quiet:
        _announce(arguments, search, share, report.trials)
    ending = Ending(arguments.max_seconds)
    best = find_best(search, study, arguments.trials, share, ending, report.seen)
    if ending.reason is not None and not arguments.quiet:
        say(f"{ending.reason}: the search ends after {counted(report.trials)}; --resume {search.run} continues it")
    print_best(report.trials, search.measure, search.data.n_validation, arguments.json)
    if not arguments.quiet:
        say(f"trial {best.number} is trained again{_with(best)}")
    try:
        with trained_again(search, best) as (own, data, trained, ensemble):
            trained.as_json = arguments.json
            shown = {name: getattr(arguments, name) for name in ("quiet", "json", "plot")}
            print_outcome(argparse.Namespace(**vars(own) | shown), data, trained, ensemble, search.run)
    except (KeyboardInterrupt, Terminated):
        if not arguments.quiet:
            say(f"stopped; `xpnet tune --resume {search.run}` trains the best again")
        raise
    if arguments.plot:
        _draw(arguments, search, report.trials)
    if ending.error is not None:
        raise ending.error
    return 0


def _announce(arguments: argparse.Namespace, search: Search, share: Share, before: list[Trial]) -> None:
    data = search.data
    counts = f"{data.training.n_samples} training, {data.n_validation} validation samples"
    say(f"{called(arguments.dataset)}: {counts} -> {search.run}")
    announce_data(search.default, data)
    say(f"searched: {', '.join(search.space.ranges).replace('_', ' ')}; by {search.measure}")
    if arguments.jobs > share.n_jobs:
        say(f"--jobs {arguments.jobs}: {share.n_jobs} at a time, as the cores allow")
    if before:
        say(f"it goes on after {counted(before)}")


def _with(trial: Trial) -> str:
    """Return the options of a trial as flags."""
    flags = (
        f"--{name.replace('_', '-')} {','.join(map(_text, value)) if isinstance(value, list) else _text(value)}"
        for name, value in trial.options.items()
    )
    told = " ".join(flags)
    return f", by {told}" if told else ""


def _text(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _draw(arguments: argparse.Namespace, search: Search, trials: list[Trial]) -> None:
    """Draw the trials, and print the path of the picture, with --json on stderr."""
    path = inside(search.run, PICTURE)
    plots.save(plots.trial_values([trial.row(search.measure) for trial in trials], search.measure), path)
    if not arguments.quiet:
        (say if arguments.json else partial(print, flush=True, file=sys.stdout))(str(path))
