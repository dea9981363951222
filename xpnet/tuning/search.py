"""A search in a directory: trials, one after another or several at a time, until there are enough or it is ended.

The directory has search.json, the options and the data of the search; trials.journal, which Optuna keeps; trials.csv;
and in the end the files of a run, the training of the best trial.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import xpnet
from xpnet.commands import runs
from xpnet.commands.arguments import UsageError
from xpnet.commands.attempt import make_attempt
from xpnet.commands.config_file import kept_options
from xpnet.commands.loop_options import best_by
from xpnet.commands.report import Report
from xpnet.commands.train import config_of_run, resolve_for, trained_into
from xpnet.files import remove_leftovers
from xpnet.recipe.ensemble import Ensemble
from xpnet.recipe.samples import Data
from xpnet.tables.files import called, each, is_table, stem_of
from xpnet.tables.sources import STDIN
from xpnet.tables.writing import write_table
from xpnet.tuning.ending import Ending
from xpnet.tuning.space import Space, space_of
from xpnet.tuning.study import Outcome, Study, optuna_of
from xpnet.tuning.training import fingerprint, load, resolved, train_trial, tried_of
from xpnet.tuning.trials import Trial, check_any
from xpnet.tuning.workers import Share, Workers, working

SEARCH, JOURNAL, TRIALS, ROWS = "search.json", "trials.journal", "trials.csv", "data.parquet"
FILES = (SEARCH, JOURNAL, TRIALS)
OF_SEARCH = ("trials", "jobs")  # options that a single training does not have
LOOK = 0.2  # seconds between two looks at the time limit

Seen = Callable[[Trial], None]


@dataclass(frozen=True)
class Search:
    """A search in its directory.

    given: the options of its trainings.  default: those of the default configuration.  data: of all of them.
    measure: of the rows held out, by which trials are compared.
    """

    run: Path
    given: argparse.Namespace
    default: argparse.Namespace
    data: Data
    space: Space
    measure: str

    def study(self) -> Study:
        """Open the journal."""
        tried = partial(tried_of, self.given)
        return Study(self.run / JOURNAL, self.space, self.measure, self.given.seed, tried)


@contextmanager
def opened(arguments: argparse.Namespace, made: Path | None = None) -> Iterator[Search]:
    """Yield the search that the options describe, a new one unless it is resumed.

    made: its directory, if that is there and holds the data.  No other process may search in it meanwhile.
    Raises UsageError, ValueError or OSError for what cannot be searched, ImportError without Optuna.
    """
    check_search(arguments)
    optuna_of()
    given = given_of(arguments)
    default, data = load(given)
    space = space_of(given, default, data.training.n_samples)
    is_new = arguments.resume is None
    if is_new:
        run = runs.create_run(arguments.out, stem_of(arguments.dataset)) if made is None else made
    else:
        run = Path(arguments.resume)
    with runs.locked(run):
        for name in FILES:
            remove_leftovers(runs.inside(run, name))
        if is_new:
            runs.check_new(run, (ROWS,) if made is not None else ())
            runs.write_config(run, _config(arguments, data), SEARCH)
        else:
            check_same(run, data)
        yield Search(run, given, default, data, space, best_by(default, data.validation))


def check_search(arguments: argparse.Namespace) -> None:
    """Refuse data that are no table, or that cannot be read again; raises UsageError."""
    if not is_table(arguments.dataset):
        raise UsageError(
            f"xpnet tune searches options for a table, and {called(arguments.dataset)} is none; name one with its "
            "--target"
        )
    if STDIN in each(arguments.dataset):
        raise UsageError("xpnet tune reads a table more than once, which stdin cannot; write it to a file, and name it")


def check_same(run: Path, data: Data) -> None:
    """Refuse data that are not those with which the search began."""
    if runs.read_config(run, SEARCH, "tune")["data"].get("fingerprint") != fingerprint(data):
        raise ValueError(
            f"{called(data.source['dataset'])} gives other rows now than when the search in {run} began, and its "
            "trials would not compare; restore it, or tune again without --resume"
        )


def given_of(arguments: argparse.Namespace) -> argparse.Namespace:
    """Return the options of a search as those of its trainings, whose time is not limited."""
    given = {name: value for name, value in vars(arguments).items() if name not in OF_SEARCH}
    for name in ("max_seconds", "folds", "resume", "new_lr", "out"):
        given[name] = None
    return argparse.Namespace(**given | {"plan": False, "checkpoint_every": None})


def find_best(search: Search, study: Study, n_trials: int, share: Share, ending: Ending, seen: Seen) -> Trial:
    """Train trials until there are `n_trials` or the search is over, and return the best.

    seen: called with each that is over.  Raises ValueError if none has finished.
    """
    with ending.listening():
        _run_trials(search, study, n_trials, share, ending, seen)
        return check_any(study.trials(), search.measure, ending.reason)


def _run_trials(search: Search, study: Study, n_trials: int, share: Share, ending: Ending, seen: Seen) -> None:
    n_left = n_trials - len(study.trials())
    if n_left <= 0 or ending.is_over():
        return
    if share.n_jobs == 1:
        for _ in range(n_left):
            number, options = study.ask()
            poor = partial(study.is_poor, number)
            _told(search, study, number, train_trial(search.given, options, search.data, poor, ending.is_over), seen)
            if ending.is_over():
                return
    else:
        with working(Share(min(share.n_jobs, n_left), share.threads), search.given) as workers:
            _run_by(workers, search, study, n_left, ending, seen)


def _run_by(workers: Workers, search: Search, study: Study, n_left: int, ending: Ending, seen: Seen) -> None:
    trains = dict[int, int]()  # the trial of each process

    def give(worker: int) -> None:
        trains[worker], options = study.ask()
        workers.send(worker, options)

    for worker in range(len(workers)):
        give(worker)
        n_left -= 1
    failure = None
    while trains and failure is None and not ending.is_over():
        heard = workers.hear(LOOK)
        if heard is None:
            continue
        worker, message = heard
        if "ended" in message:
            failure = lost(search.run, trains[worker], message["ended"])
        elif "epoch" in message:
            workers.send(worker, study.is_poor(trains[worker], message["epoch"], message["value"]))
        else:
            _told(search, study, trains.pop(worker), Outcome(**message["outcome"]), seen)
            if n_left:
                give(worker)
                n_left -= 1
    for number in trains.values():
        study.tell(number, None)
    if failure is not None:
        raise failure


def lost(run: Path, number: int, code: int) -> ChildProcessError:
    """Return the error of a process that ended by itself.  number: of the trial.  code: with which it ended."""
    return ChildProcessError(
        f"the process that trained trial {number} ended with code {code}, perhaps for want of memory; the trials "
        f"before it are kept: continue with fewer --jobs, by `xpnet tune --resume {run} --jobs 1`"
    )


def _told(search: Search, study: Study, number: int, outcome: Outcome | None, seen: Seen) -> None:
    trial = study.tell(number, outcome)
    if trial is not None:
        write_trials(search, study.trials())
        seen(trial)


def write_trials(search: Search, trials: list[Trial]) -> None:
    """Write the table of trials into the directory of a search."""
    rows = [trial.row(search.measure) for trial in trials]
    write_table(runs.inside(search.run, TRIALS), {name: [row[name] for row in rows] for name in rows[0]})


@contextmanager
def trained_again(search: Search, trial: Trial) -> Iterator[tuple[argparse.Namespace, Data, Report, Ensemble]]:
    """Train with the options of a trial as `xpnet train` does, and save that as the run of the search's directory.

    Yields the options, the data, the report and the model.
    """
    own = argparse.Namespace(**vars(resolved(search.given, trial.options)) | {"quiet": True, "json": False})
    data = resolve_for(own, search.data)
    attempt = make_attempt(own, data)
    config_of = partial(config_of_run, own, data=data)
    for name in runs.FILES:  # of the best of before, where the search was resumed
        runs.inside(search.run, name).unlink(missing_ok=True)
    runs.write_config(search.run, config_of(attempt))
    (search.run / runs.HISTORY).touch()
    with trained_into(search.run, own, data, attempt, config_of) as (report, ensemble):
        yield own, data, report, ensemble


def _config(arguments: argparse.Namespace, data: Data) -> dict[str, Any]:
    """Return the content of search.json."""
    of_data = {
        **data.source,
        "n_training": data.training.n_samples,
        "n_validation": data.n_validation,
        "split": data.split.to_spec(),
        "fingerprint": fingerprint(data),
    }
    return {"xpnet": xpnet.__version__, "data": of_data, "options": kept_options(arguments, data.source)}
