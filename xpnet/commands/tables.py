"""Tables as the data of a command: their options, and the preprocessing that a run keeps."""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from xpnet.checks import one_line
from xpnet.commands import runs
from xpnet.commands.arguments import Several, UsageError, option
from xpnet.commands.reading_options import add_reading
from xpnet.files import write_atomically
from xpnet.network.losses import LOSSES
from xpnet.tables.columns import Category
from xpnet.tables.dates import Date
from xpnet.tables.decisions import Decision, lines
from xpnet.tables.files import called, is_table
from xpnet.tables.formats import ROWS, TABLE, either, example, suffixes
from xpnet.tables.model import read_preprocessing
from xpnet.tables.options import IMPUTE, MEAN, MEDIAN, TASKS, ColumnOptions
from xpnet.tables.preprocessing import Preprocessing, fit
from xpnet.tables.splitting import GROUP, kind_and_column
from xpnet.tables.stored import to_json
from xpnet.tables.target import Target
from xpnet.tables.tasks import fit_target, with_target

COLUMNS = {
    "drop": "leave these columns out",
    "keep": "take these columns though they look like identifiers or free text",
    "categorical": "take these columns as categories, also numbers",
    "numeric": "take these columns as numbers; what is none is missing",
    "date": "take these columns as dates or times",
}
LONGEST_CLASS = 60  # characters of a class that is told
OPTIONS = ("target", "task", *COLUMNS, "impute", "strict")


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
    for flag, does in COLUMNS.items():
        group.add_argument(
            f"--{flag}",
            type=str,
            action=Several,
            metavar="COLUMN[,COLUMN...]",
            help=f"of a table: {does}; may be repeated",
        )
    add_reading(group)
    group.add_argument(
        "--impute",
        type=option("impute", IMPUTE),
        metavar="NAME",
        help=f"of a table: what stands for a missing value: the {MEDIAN}, with a feature that says so, or the {MEAN}, "
        f"without (default: {MEDIAN})",
    )
    group.add_argument(
        "--strict",
        action="store_true",
        default=None,
        help="of a table: refuse what would be changed or left out without having been asked for",
    )


def add_drop(group: argparse._ActionsContainer) -> None:
    """Add --drop."""
    group.add_argument(
        "--drop", type=str, action=Several, metavar="COLUMN[,COLUMN...]", help="of a table: leave these columns out"
    )


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
    if arguments.labels is not None:
        raise UsageError(
            f"--labels goes with --dataset {example(ROWS, 'X')}, and the table {name} has its columns; leave it out"
        )


def column_options(arguments: argparse.Namespace, frame: Any) -> ColumnOptions:
    """Return what is asked of the columns of a table.

    The targets of a regression are standardised where the loss takes any number and the output can be any.
    """
    takes_any = arguments.loss is None or LOSSES[arguments.loss]().targets == "numbers"
    named = {flag: tuple(column_names(frame, getattr(arguments, flag))) for flag in COLUMNS}
    return ColumnOptions(
        **named | {"drop": (*named["drop"], *_groups(arguments, frame))},
        task=arguments.task,
        impute=arguments.impute,
        scale_target=takes_any and arguments.output == "identity",
        weights=arguments.weights,
    )


def find_target(arguments: argparse.Namespace, frame: Any) -> tuple[Any, Target, tuple[Decision, ...]]:
    """Return the rows that have the target that the options name, what it is, and what was left out."""
    names = column_names(frame, arguments.target)
    rows, left_out = with_target(frame, names, arguments.task)
    return rows, fit_target(rows, names, ColumnOptions(task=arguments.task)), left_out


def fit_table(
    arguments: argparse.Namespace, frame: Any, target: Target, decisions: Iterable[Decision] = ()
) -> Preprocessing:
    """Learn the preprocessing that the options describe from the training rows.

    target, decisions: as `find_target` returns them, the decisions with those of reading. A resumed run keeps its own.
    """
    if (kept := kept_for(arguments, frame)) is not None:
        return kept
    left_out = [
        Decision(name, "the groups of --split", "no feature", "--keep COLUMN", False)
        for name in _groups(arguments, frame)
    ]
    return fit(frame, target, column_options(arguments, frame), (*decisions, *left_out))


def _groups(arguments: argparse.Namespace, frame: Any) -> list[str]:
    """Return the column that the rows are split by in groups, unless it is asked for as a feature or set aside."""
    kind, column = (None, None) if arguments.split is None else kind_and_column(arguments.split)
    flags = (*COLUMNS, "target", "weights")
    named = [name for flag in flags for name in column_names(frame, getattr(arguments, flag))]
    return [column] if kind == GROUP and column is not None and column not in named else []


def kept_target(table: Preprocessing, frame: Any) -> tuple[Any, Target, tuple[Decision, ...]]:
    """Return what `find_target` returns, by a preprocessing that was kept."""
    rows, left_out = table.target.known_in(frame)
    return rows, table.target, left_out


def forced_texts(arguments: argparse.Namespace) -> list[str]:
    """Return the names, whole and in parts, of columns that are asked for as categories, to be read as text."""
    given = arguments.categorical or ()
    given = [given] if isinstance(given, str) else given
    return [*given, *(part.strip() for text in given for part in text.split(","))]


def column_names(frame: Any, given: str | Iterable[str] | None) -> list[str]:
    """Return the names of columns in what was given: each a name, or a list with commas.

    A name with a comma stands alone, or in double quotes in a list.
    """
    found = dict[str, None]()
    for text in [given] if isinstance(given, str) else given or ():
        parts = [text] if text in frame.columns else next(csv.reader([text], skipinitialspace=True), [])
        found.update(dict.fromkeys(part.strip() for part in parts))
    return [name for name in found if name]


def without(frame: Any, given: str | Sequence[str] | None, path: str) -> Any:
    """Return the table without the columns that --drop names."""
    names = column_names(frame, given)
    unknown = [name for name in names if name not in frame.columns]
    if unknown:
        raise UsageError(f"--drop names the column {unknown[0]!r}, which {path} does not have; leave it out")
    return frame.drop(columns=names)


def keep_preprocessing(run: Path, table: Preprocessing | None) -> None:
    """Write the preprocessing into a run's directory."""
    if table is not None and not (run / runs.TABLE).is_file():
        write_atomically(runs.inside(run, runs.TABLE), (to_json(table) + "\n").encode())


def kept_for(arguments: argparse.Namespace, frame: Any) -> Preprocessing | None:
    """Return the preprocessing that a resumed run has kept, None for a new run.

    Raises ValueError if it is not of these training rows.
    """
    resumed = getattr(arguments, "resume", None)
    if resumed is None or not (path := Path(resumed) / runs.TABLE).is_file():
        return None
    table = read_preprocessing(Path(resumed))
    if not table.is_of(frame):
        raise ValueError(
            f"{path} is not what the table gives now, which has changed since {resumed} began; restore the "
            "table, or train again without --resume"
        )
    return table


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
        classes = [one_line(label, LONGEST_CLASS) for label in target.classes[:10]]
        more = ", ..." if len(target.classes) > 10 else ""
        yield f"task: {target.task}, {names} is {', '.join(classes)}{more}"
    n, n_categories, n_dates = (
        sum(isinstance(column, kind) for column in table.columns) for kind in (object, Category, Date)
    )
    parts = [f"{n - n_categories - n_dates} numeric", f"{n_categories} of categories"]
    parts += [f"{n_dates} of dates"] * (n_dates > 0)
    yield (
        f"{n} column{'s' * (n != 1)}, {', '.join(parts[:-1])} and {parts[-1]}, give {table.n_features} "
        f"feature{'s' * (table.n_features != 1)}"
    )
    yield from lines(table.decisions)
