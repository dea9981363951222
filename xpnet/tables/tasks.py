"""The task of a target: a regression of numbers, or the classes of texts, booleans and a few whole numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from xpnet.checks import check_option, shown
from xpnet.tables import cells
from xpnet.tables.cells import PLAIN, NumberStyle
from xpnet.tables.decisions import Decision
from xpnet.tables.kinds import MAX_CLASSES
from xpnet.tables.options import TASKS, ColumnOptions, check_columns
from xpnet.tables.target import ANOTHER, Target, constant_message, rows_with

LARGEST = 2**53  # whole numbers up to here are told apart in float64
FEW, MANY = 20, 10  # different whole numbers up to which they are classes; of more than MANY none may be rare
RARE = 0.1  # of the rows of the largest class
ROWS_A_CLASS = 5  # that whole numbers need on average to be classes, where there are more than three
COUNTS_FROM = {0: 5, 1: 8}  # lowest value of a count: different values from which on it is one, if they thin out


def with_target(frame: Any, names: Sequence[str], task: str | None = None) -> tuple[Any, tuple[Decision, ...]]:
    """Return the rows that have a target in every column named, and what was left out.

    task: one of TASKS, None if it is not asked for; texts among numbers are classes where it is of classes.
    Raises ValueError if there is no such column, and if no row is left.
    """
    check_columns(frame, names)
    if len(set(names)) < len(names):
        raise ValueError(f"a target is named twice among {', '.join(map(shown, names))}; name each once")
    return rows_with(frame, names, [_style_of(frame[name], task) for name in names])


def fit_target(frame: Any, names: Sequence[str], options: ColumnOptions) -> Target:
    """Return the task and the classes of rows that all have a target; raises ValueError for columns that cannot be one.

    frame: all rows, not the training rows alone, so that each class has an output. `Target.fitted` finds the scale.
    """
    check_columns(frame, names)
    task = None if options.task is None else check_option("task", options.task, TASKS)
    styles = [_style_of(frame[name], task) for name in names]
    text = next((name for name, style in zip(names, styles, strict=True) if style is None), None)
    if len(names) > 1 and task not in (None, "regression"):
        raise ValueError(
            f"there are {len(names)} targets and the task is {task}, which needs one; name one, or take "
            "--task regression"
        )
    if text is not None and (task == "regression" or len(names) > 1):
        raise ValueError(
            f"the target {shown(text)} is text, such as {shown(str(frame[text].iloc[0]))}, and a regression needs "
            "numbers; name one target of classes alone, or a column of numbers"
        )
    found = tuple(style or PLAIN for style in styles)
    if len(names) > 1:
        return Target(tuple(names), "regression", styles=found)
    column, said = frame[names[0]], list[Decision]()
    if text is not None:
        return Target(tuple(names), *_text_classes(column, task))
    values = cells.numbers(column, found[0])[0]
    if not found[0].is_plain and not found[0].is_boolean:
        said.append(Decision(names[0], "numbers as text", "read as numbers", "--task multiclass"))
    if task is None:
        task, decision = _inferred(column, values)
        said += decision
    if task == "regression":
        if (values == values[0]).all():
            raise ValueError(constant_message(names[0], values[0].item(), len(values)))
        return Target(tuple(names), task, styles=found, decisions=tuple(said))
    classes = _number_classes(column, values)
    _check_classes(names[0], classes, len(column), task)
    return Target(tuple(names), task, classes, styles=found, decisions=tuple(said))


def _style_of(column: Any, task: str | None) -> NumberStyle | None:
    """Return how the texts of a target say numbers, None for classes that are texts."""
    kind = cells.kind_of(column)
    if kind == cells.NUMBER:
        return PLAIN
    if kind == cells.TEXT:
        if str(column.dtype) == "category" or task in ("binary", "multiclass"):
            return None
        codes, texts = cells.different(column)
        counts = cells.counts_of(codes, len(texts))
        if len(texts) == 0:
            return PLAIN
        found = cells.number_style(texts, counts)
        if found is None and task == "regression":
            found = cells.number_style(texts, counts, is_forced=True)
            found = found if found is not None and 2 * counts[np.isfinite(found[1])].sum() > counts.sum() else None
        return None if found is None else found[0]
    held = "dates or times" if kind == cells.DATE else "values that are neither numbers nor text"
    raise ValueError(
        f"the target {shown(column.name)} holds {held}, such as {shown(str(column.dropna().iloc[0]))}; turn them into "
        f"numbers, or {ANOTHER}"
    )


def _inferred(column: Any, values: np.ndarray) -> tuple[str, list[Decision]]:
    """Return the task of a target of numbers: classes where they are two, or few and whole, but no counts."""
    name, (different, counts) = str(column.name), np.unique(values, return_counts=True)
    if column.dtype.kind in "iu" and len(different) == 2:
        different = np.array([column.min(), column.max()], object)
    n = len(different)
    if n <= 2:
        return "binary", []
    is_whole = bool((different == np.floor(different)).all())
    if not is_whole or n > min(FEW, max(len(values) // ROWS_A_CLASS, min(3, len(values) // 2))):
        return "regression", []
    found = f"whole numbers of {n} different values, {different[0]:.0f} to {different[-1]:.0f}"
    if is_count(different, counts):
        done = "taken as counts, a regression, as the larger ones are rarer"
        return "regression", [Decision(name, found, done, "--task multiclass", False)]
    if n > MANY and counts.min() < RARE * counts.max():
        done = "taken as numbers, a regression, as some are rare"
        return "regression", [Decision(name, found, done, "--task multiclass", False)]
    return "multiclass", [Decision(name, found, "taken as classes", "--task regression", False)]


def is_count(different: np.ndarray, counts: np.ndarray) -> bool:
    """Whether whole numbers are counts of something, such as goals, rather than codes of classes.

    Counts begin at 0 or 1, and have one hump in the lower half, after which they thin out. Codes rarely do.
    different: the values, sorted.  counts: how often each occurs.
    """
    needed = COUNTS_FROM.get(int(different[0]))
    if needed is None or len(different) < needed:
        return False
    hump = int(np.argmax(counts))
    noise = 2 * np.sqrt(counts[:-1] + counts[1:])
    rises = np.diff(counts) > noise
    falls = np.diff(counts) < -noise
    thins_out = counts[-1] <= 0.2 * counts[hump] and different[hump] <= (different[0] + different[-1]) / 2
    return bool(thins_out and not rises[hump:].any() and not falls[:hump].any())


def _text_classes(column: Any, task: str | None) -> tuple[str, tuple[str, ...]]:
    name, (codes, texts) = str(column.name), cells.different(column)
    classes = tuple(sorted(map(str, texts)))
    if len(classes) == len(codes) > 2:
        raise ValueError(
            f"the target {shown(name)} has {len(classes)} different texts in {len(codes)} rows, such as "
            f"{shown(classes[0])}, so it names the rows or is free text; it must have classes that repeat; {ANOTHER}"
        )
    found = task or ("binary" if len(classes) == 2 else "multiclass")
    _check_classes(name, classes, len(codes), found)
    return found, classes


def _number_classes(column: Any, values: np.ndarray) -> tuple[Any, ...]:
    """Return the classes of a column of numbers, those of booleans as such and whole ones as int."""
    import pandas

    if pandas.api.types.is_bool_dtype(column.dtype) or pandas.api.types.infer_dtype(column, skipna=True) == "boolean":
        return tuple(value != 0.0 for value in np.unique(values).tolist())
    if column.dtype.kind in "iu" and max(-int(column.min()), int(column.max())) > LARGEST:
        raise ValueError(
            f"the target {shown(column.name)} has whole numbers beyond {LARGEST}, which cannot all be told "
            "apart as classes; take --task regression, or put a letter before each"
        )
    return tuple(int(value) if value.is_integer() else value for value in np.unique(values).tolist())


def _check_classes(name: str, classes: tuple[Any, ...], n_rows: int, task: str) -> None:
    if len(classes) == 1:
        raise ValueError(constant_message(name, classes[0], n_rows))
    if len(classes) > MAX_CLASSES:
        raise ValueError(
            f"the target {shown(name)} has {len(classes)} different values; it may have at most "
            f"{MAX_CLASSES} classes; take --task regression"
        )
    if (task == "binary") != (len(classes) == 2):
        raise ValueError(
            f"the target {shown(name)} has {len(classes)} classes and the task is {task}; "
            f"take --task {'binary' if len(classes) == 2 else 'multiclass'}"
        )
