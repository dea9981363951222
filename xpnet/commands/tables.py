"""Tables as the data of a command: their options, and the preprocessing that a run keeps."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from xpnet.commands import runs
from xpnet.commands.arguments import UsageError, option
from xpnet.commands.reading_options import add_reading
from xpnet.files import read_whole, write_atomically
from xpnet.network.losses import LOSSES
from xpnet.tables.decisions import Decision
from xpnet.tables.files import called, is_table
from xpnet.tables.formats import ROWS, TABLE, either, example, suffixes
from xpnet.tables.preprocessing import TASKS, Preprocessing, Target, fit, fit_target

OPTIONS = ("target", "task", "drop", "impute")


def add_table(group: argparse._ActionsContainer) -> None:
    """Add the options of tables."""
    group.add_argument(
        "--target",
        type=str,
        metavar="COLUMN",
        help="of a table: what to predict; several, as a,b, are targets of a regression",
    )
    group.add_argument(
        "--task", type=option("task", TASKS), metavar="NAME", help=f"{', '.join(TASKS)} (default: what the target is)"
    )
    add_drop(group)
    add_reading(group)
    group.add_argument(
        "--impute",
        type=option("impute", ("mean",)),
        metavar="mean",
        help="fill in missing features by their mean over the training rows (default: they are refused)",
    )


def add_drop(group: argparse._ActionsContainer) -> None:
    """Add --drop."""
    group.add_argument("--drop", type=str, metavar="COLUMN[,COLUMN...]", help="of a table: leave these columns out")


def check_table(arguments: argparse.Namespace) -> None:
    """Refuse options that do not fit a table, and those of tables for other data; raises UsageError."""
    name = called(arguments.dataset)
    if not is_table(arguments.dataset):
        for flag in OPTIONS:
            if getattr(arguments, flag) is not None:
                hint = "; to end at a score, take --target-score" if flag == "target" else ""
                raise UsageError(
                    f"--{flag} goes with a table, a {either(suffixes(TABLE))} file, not with {name}; leave it out{hint}"
                )
        return
    if arguments.target is None:
        raise UsageError(f"{name} is a table and needs its target: add --target COLUMN")
    for flag in ("labels", "weights"):
        if getattr(arguments, flag) is not None:
            raise UsageError(
                f"--{flag} goes with --dataset {example(ROWS, 'X')}, and the table {name} has its columns; leave it out"
            )


def find_target(arguments: argparse.Namespace, frame: Any) -> tuple[Any, Target, tuple[Decision, ...]]:
    """Return the rows that have the target that the options name, what it is, and what was left out."""
    names = column_names(frame, arguments.target)
    if not set(names) <= set(frame.columns):
        fit(frame, names)  # says which is missing
    return frame, fit_target(frame, names, arguments.task, False), ()


def fit_table(
    arguments: argparse.Namespace, frame: Any, target: Target, decisions: Iterable[Decision] = ()
) -> Preprocessing:
    """Learn the preprocessing that the options describe from the training rows.

    target, decisions: as `find_target` returns them.

    The targets of a regression are standardised where the loss takes any number and the output can be any.
    """
    takes_any = arguments.loss is None or LOSSES[arguments.loss]().targets == "numbers"
    made = fit(
        frame,
        column_names(frame, arguments.target),
        column_names(frame, arguments.drop),
        impute=arguments.impute is not None,
        task=arguments.task,
        scale_target=takes_any and arguments.output == "identity",
    )
    return replace(made, target=target) if target.classes else made


def column_names(frame: Any, text: str | None) -> list[str]:
    """Return the names in a list with commas, or one name that contains commas."""
    if text is None:
        return []
    return [text] if text in frame.columns else [*dict.fromkeys(part.strip() for part in text.split(","))]


def without(frame: Any, text: str | None, path: str) -> Any:
    """Return the table without the columns that --drop names."""
    names = column_names(frame, text)
    unknown = [name for name in names if name not in frame.columns]
    if unknown:
        raise UsageError(f"--drop names the column {unknown[0]!r}, which {path} does not have; leave it out")
    return frame.drop(columns=names)


@contextmanager
def naming(path: str) -> Iterator[None]:
    """Begin every refusal of what a table holds with the name of its file."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def keep_preprocessing(run: Path, table: Preprocessing | None) -> None:
    """Write the preprocessing into a run's directory."""
    if table is not None:
        write_atomically(runs.inside(run, runs.TABLE), (table.to_json() + "\n").encode())


def check_preprocessing(run: Path, table: Preprocessing | None) -> None:
    """Refuse to continue a run that keeps another preprocessing."""
    path = run / runs.TABLE
    if table is not None and path.exists() and read_preprocessing(run) != table:
        raise ValueError(
            f"{path} is not what the table gives now, which has changed since {run} began; restore the "
            "table, or train again without --resume"
        )


def read_preprocessing(run: Path) -> Preprocessing:
    """Read the preprocessing of a run that was trained on a table."""
    path = run / runs.TABLE
    if not path.is_file():
        raise FileNotFoundError(f"{run} was trained on a table and has no {runs.TABLE}; train again, or restore it")
    try:
        return Preprocessing.from_json(read_whole(path).decode())
    except ValueError as error:
        raise ValueError(f"{path}: {error}; train again, or restore it") from None


def preprocessing_of(run: Path, config: dict[str, Any]) -> Preprocessing | None:
    """Return the preprocessing of a run by its config.json, None for one that was not trained on a table."""
    return None if config["data"].get("target") is None else read_preprocessing(run)


def describe(table: Preprocessing) -> Iterator[str]:
    """Yield lines that say how a table was read."""
    target = table.target
    names = ", ".join(map(repr, target.names))
    if target.task == "regression":
        scaled = (
            ""
            if set(target.deviations) == {1.0} and not any(target.means)
            else ("; it learns the standardised target, losses are of that, other errors and predictions in its units")
        )
        yield f"task: regression of {names}{scaled}"
    else:
        shown = ", ".join(map(str, target.classes[:10])) + (", ..." if len(target.classes) > 10 else "")
        yield f"task: {target.task}, {names} is {shown}"
    n_categories = sum(column.n_features > 1 or hasattr(column, "categories") for column in table.columns)
    yield (
        f"{len(table.columns)} columns, {len(table.columns) - n_categories} numeric and {n_categories} of "
        f"categories, give {table.n_features} features"
    )
    if table.constant_columns:
        yield f"constant in the training rows, so without effect: {', '.join(table.constant_columns)}"
