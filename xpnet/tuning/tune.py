"""xpnet.tune: a search for the options of a table's training, in Python."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xpnet import plots
from xpnet.checks import check_number, check_path, check_whole
from xpnet.commands import runs
from xpnet.commands.arguments import CommandParser, UsageError
from xpnet.commands.config_file import converted
from xpnet.commands.signals import Terminated
from xpnet.tables.frames import as_pandas, is_polars
from xpnet.tables.model import TableModel, load
from xpnet.tables.writing import write_table
from xpnet.tuning.command import N_TRIALS, add_parser, apply_search
from xpnet.tuning.ending import Ending
from xpnet.tuning.search import ROWS, SEARCH, find_best, opened, trained_again
from xpnet.tuning.study import optuna_of
from xpnet.tuning.workers import share_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TERMINATED = 143  # the exit code of a process that SIGTERM ended
__all__ = ["Tuned", "tune"]


@dataclass(frozen=True)
class Tuned:
    """What a search found.

    run: its directory, also that of the model's run.  trials: a DataFrame, a row a trial, the first the default.
    measure: the column by which they were compared.  options: of the best that are not the default, by their names in
    `xpnet train`.  model: trained with these.
    """

    run: Path
    trials: Any = field(repr=False)
    measure: str
    options: dict[str, Any]
    model: TableModel

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the value of each trial and the best so far; see `xpnet.plots.trial_values`."""
        return plots.trial_values(self.trials.to_dict("records"), self.measure, ax)


def tune(
    data: Any = None,
    *,
    target: str | Sequence[str] | None = None,
    trials: int = N_TRIALS,
    max_seconds: float | None = None,
    seed: int = 0,
    jobs: int = 1,
    out: str | os.PathLike[str] | None = None,
    resume: str | os.PathLike[str] | None = None,
    **options: Any,
) -> Tuned:
    """Search options for a table by trials that are compared on rows held out, and train again with the best.

    data: a DataFrame of pandas or polars, which is written into the directory, or the path of a table.
    target: the column to predict.  trials: how many; the first is the default configuration.
    max_seconds: end the search then.  seed: of all that is random; with one job it repeats the trials.
    jobs: trials at a time, each in a process.  out: the directory, new or empty; None for runs/<data>-<time>.
    resume: the directory of a search to continue, which has all but trials, max_seconds and jobs.
    options: of `xpnet train`, by their long names with _, such as drop=["id"] or hidden=[32]; what is given is not
    searched.
    Ctrl-C ends the search, and the best so far is trained again; so does SIGTERM, which ends the process then.
    Raises ValueError or OSError for what cannot be searched, ImportError without Optuna (extra: xpnet[tune]).
    """
    optuna_of()
    n_trials, jobs = check_whole("trials", trials, at_least=1), check_whole("jobs", jobs, at_least=1)
    if max_seconds is not None:
        check_number("max_seconds", max_seconds, above=0, example="tune(..., max_seconds=60)")
    seed = check_whole("seed", seed, at_least=0)
    try:
        if resume is not None:
            if data is not None or target is not None or out is not None or options:
                raise ValueError(
                    f"resume is {os.fspath(resume)!r}, whose {SEARCH} has data, target, out and options; leave them out"
                )
            return _searched(_resumed(resume), n_trials, max_seconds, jobs, None)
        with _placed(data, out) as (path, made):
            given = {"dataset": path, "target": _listed(target), "seed": seed, **options}
            arguments = _arguments({name: value for name, value in given.items() if value is not None})
            arguments.out = None if out is None else os.fspath(out)
            return _searched(arguments, n_trials, max_seconds, jobs, made)
    except UsageError as error:
        raise ValueError(str(error)) from None


def _searched(
    arguments: argparse.Namespace, n_trials: int, max_seconds: float | None, jobs: int, made: Path | None
) -> Tuned:
    vars(arguments).update(quiet=True, trials=n_trials, jobs=jobs, max_seconds=max_seconds)
    with opened(arguments, made) as search:
        study, ending = search.study(), Ending(max_seconds)
        best = find_best(search, study, n_trials, share_of(jobs, arguments.threads), ending, lambda trial: None)
        with trained_again(search, best):
            pass
    if ending.error is Terminated:
        sys.exit(TERMINATED)
    import pandas

    rows = pandas.DataFrame([trial.row(search.measure) for trial in study.trials()])
    return Tuned(search.run, rows, search.measure, best.options, load(search.run))


def _arguments(options: dict[str, Any]) -> argparse.Namespace:
    """Return the arguments of the command `xpnet tune` with these options; raises UsageError for what it refuses."""
    command = _command()
    named = {name.replace("_", "-"): value for name, value in options.items()}
    return argparse.Namespace(**vars(command.parse_args([])) | converted(command, named, "tune(...)"))


def _resumed(run: str | os.PathLike[str]) -> argparse.Namespace:
    command = _command()
    arguments = argparse.Namespace(**vars(command.parse_args([])) | {"resume": check_path("resume", run, "resume=RUN")})
    apply_search(arguments)
    return argparse.Namespace(**vars(command.parse_args([])) | {"resume": arguments.resume})


def _command() -> CommandParser:
    parser = CommandParser(prog="xpnet")
    commands = parser.add_subparsers()
    add_parser(commands)
    command = commands.choices["tune"]
    assert isinstance(command, CommandParser)
    return command


def _listed(target: Any) -> Any:
    return target if target is None or isinstance(target, str) else list(target)


@contextmanager
def _placed(data: Any, out: str | os.PathLike[str] | None) -> Iterator[tuple[str, Path | None]]:
    """Yield the path of a table, and the directory that was made for a frame's rows, which goes if nothing begins."""
    if isinstance(data, (str, os.PathLike)):
        yield os.fspath(data), None
        return
    frame = as_pandas(data) if is_polars(data) else data
    if not hasattr(frame, "columns") or not hasattr(frame, "iloc"):
        raise TypeError(
            f"data is a {type(data).__name__}; it must be a DataFrame of pandas or polars, or the path of a table: "
            'tune("data.csv", target="y")'
        )
    made = runs.create_run(None if out is None else os.fspath(out), "frame")
    try:
        write_table(made / ROWS, {str(name): _of_one_type(frame[name]) for name in frame.columns})
        yield str(made / ROWS), made
    finally:
        if not (made / SEARCH).exists():
            (made / ROWS).unlink(missing_ok=True)
            made.rmdir()


def _of_one_type(column: Any) -> Any:
    """Return a column of several types, which Parquet has none of, as text; gaps stay."""
    from pandas.api.types import infer_dtype

    return column.map(str, na_action="ignore") if infer_dtype(column).startswith("mixed") else column
