"""The target of a table: which rows have one, what the task is, and how it is said to the network and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from xpnet.checks import check_option, shown
from xpnet.tables import cells
from xpnet.tables.cells import PLAIN, NumberStyle
from xpnet.tables.columns import listed, statistics
from xpnet.tables.decisions import Decision
from xpnet.tables.kinds import MAX_CLASSES
from xpnet.tables.notes import example
from xpnet.tables.options import TASKS, ColumnOptions, check_columns

LARGEST = 2**53  # whole numbers up to here are told apart in float64
FEW = 20  # whole numbers with at most this many different values are classes
ROWS_A_CLASS = 5  # that whole numbers need on average to be classes, where there are more than three
COUNTS_FROM = {0: 5, 1: 8}  # lowest value of a count: different values from which on it is one, if they thin out
REMOVE_ROWS = "the target must be known: remove these rows, or fill them in"
ANOTHER = "name another --target"


@dataclass(frozen=True)
class Target:
    """What the network is to predict.

    task: "regression" (the columns `names`, standardised by means and deviations), "binary" (one output, 1 for the
    second class) or "multiclass" (one output a class).  classes: texts, numbers or booleans, sorted; () for regression.
    styles: how the texts of each column say numbers.  decisions: how the task was found.
    """

    names: tuple[str, ...]
    task: str
    classes: tuple[Any, ...] = ()
    means: tuple[float, ...] = ()
    deviations: tuple[float, ...] = ()
    styles: tuple[NumberStyle, ...] = ()
    decisions: tuple[Decision, ...] = ()

    @property
    def n_outputs(self) -> int:
        """Outputs that the network needs."""
        return {"regression": len(self.names), "binary": 1, "multiclass": len(self.classes)}[self.task]

    @property
    def is_text(self) -> bool:
        """Whether the classes are texts."""
        return any(isinstance(label, str) for label in self.classes)

    @property
    def text_columns(self) -> list[str]:
        """Columns to read as text, whatever they look like in another file."""
        if self.is_text:
            return list(self.names)
        return [name for name, style in zip(self.names, self.styles, strict=False) if not style.is_plain]

    def known_in(self, frame: Any) -> tuple[Any, tuple[Decision, ...]]:
        """Return the rows that have a target in every column, and what was left out; raises ValueError if none has."""
        check_columns(frame, self.names)
        styles = [None if self.is_text else self._style(place) for place in range(len(self.names))]
        return rows_with(frame, self.names, styles)

    def labels(self, frame: Any) -> np.ndarray:
        """Return the number (n,) of each row's class; raises ValueError for a missing or unknown class."""
        import pandas

        column = frame[self.names[0]]
        if self.is_text:
            codes, texts = cells.different(column)
            missing, known = codes < 0, pandas.Index(self.classes, dtype=object)
            found = np.append(known.get_indexer(texts.to_numpy(object)), -1)[codes]
        else:
            values, odd = cells.numbers(column, self._style(0))
            missing, known = np.isnan(values) & ~odd, pandas.Index(np.array(self.classes, np.float64))
            found = known.get_indexer(values)
        _refuse_missing(column, missing)
        if (found < 0).any():
            where = int(np.argmax(found < 0))
            value = column.iloc[where]
            raise ValueError(
                f"column {shown(column.name)} has the class {shown(getattr(value, 'item', lambda: value)())} in row "
                f"{column.index[where]}, which no training row has; known are {listed(self.classes)}; correct it, or "
                "train on rows that have it"
            )
        return np.asarray(found, np.intp)

    def standardised(self, frame: Any) -> np.ndarray:
        """Return the targets Y (n_outputs, n) of a regression as the network learns them."""
        Y = np.stack([self._numbers(frame[name], place) for place, name in enumerate(self.names)])
        return (Y - _column(self.means)) / _column(self.deviations)

    def in_units(self, P: np.ndarray) -> np.ndarray:
        """Return standardised targets or predictions (n_outputs, n) of a regression in the target's units."""
        return P.astype(np.float64) * _column(self.deviations) + _column(self.means)

    def fitted(self, frame: Any, scaled: bool) -> Target:
        """Return the same with the scale of the training rows, 1 unless scaled; raises ValueError where it is 0."""
        if self.task != "regression":
            return self
        found = [self._scale(frame[name], place) for place, name in enumerate(self.names)]
        means, deviations = zip(*found, strict=True)
        if not scaled:
            means, deviations = (0.0,) * len(means), (1.0,) * len(means)
        return replace(self, means=means, deviations=deviations)

    def _scale(self, column: Any, place: int) -> tuple[float, float]:
        values = self._numbers(column, place)
        mean, deviation = statistics(values)
        if not np.isfinite([mean, deviation]).all():
            raise ValueError(
                f"the target {shown(column.name)} goes from {values.min():g} to {values.max():g}, too far for a mean "
                f"and a deviation; scale it, or {ANOTHER}"
            )
        if deviation == 0.0:
            raise ValueError(_constant_message(str(column.name), mean, len(values)))
        return mean, deviation

    def _style(self, place: int) -> NumberStyle:
        return self.styles[place] if self.styles else PLAIN

    def _numbers(self, column: Any, place: int) -> np.ndarray:
        """Return the values of a column of a regression; raises ValueError where one is missing."""
        values, odd = cells.numbers(column, self._style(place))
        _refuse_missing(column, ~np.isfinite(values) & ~odd)
        if odd.any():
            raise ValueError(
                f"column {shown(column.name)} has cells that are no numbers ({example(column, odd)}); the target must "
                "be known: remove these rows, or fill them in"
            )
        return values


def with_target(frame: Any, names: Sequence[str], task: str | None = None) -> tuple[Any, tuple[Decision, ...]]:
    """Return the rows that have a target in every column named, and what was left out.

    task: one of TASKS, None if it is not asked for; texts among numbers are classes where it is of classes.
    Raises ValueError if there is no such column, and if no row is left.
    """
    check_columns(frame, names)
    if len(set(names)) < len(names):
        raise ValueError(f"a target is named twice among {', '.join(names)}; name each once")
    return rows_with(frame, names, [_style_of(frame[name], task) for name in names])


def rows_with(
    frame: Any, names: Sequence[str], styles: Sequence[NumberStyle | None]
) -> tuple[Any, tuple[Decision, ...]]:
    """Return the rows that have a target in every column, and what was left out.

    styles: how the texts of each column say numbers, None for classes that are texts.
    """
    kept, said = np.ones(len(frame), bool), list[Decision]()
    for name, style in zip(names, styles, strict=True):
        missing, infinite = _absent(frame[name], style)
        if (missing | infinite).all():
            raise ValueError(f"the target {shown(name)} has no value in any row; fill it in, or {ANOTHER}")
        said += _left_out(frame[name], style, missing, infinite)
        kept &= ~(missing | infinite)
    if not kept.any():
        raise ValueError(f"no row has all of the targets {', '.join(names)}; name fewer, or fill them in")
    return (frame if kept.all() else frame[kept]), tuple(said)


def _absent(column: Any, style: NumberStyle | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows (n,) without a value, and those with an infinite one."""
    if style is None:
        missing = cells.different(column)[0] < 0
        return missing, np.zeros(len(column), bool)
    values, _ = cells.numbers(column, style)
    return np.isnan(values), np.isinf(values)


def _left_out(column: Any, style: NumberStyle | None, missing: np.ndarray, infinite: np.ndarray) -> list[Decision]:
    """Return what is said of rows that are left out."""
    name, odd = str(column.name), np.zeros(len(column), bool)
    if style is not None and not style.is_plain:
        odd = missing & (cells.different(column)[0] >= 0)
    found = {
        "rows without target": str(int((missing & ~odd).sum())),
        "rows whose target is no number": example(column, odd) if odd.any() else "0",
        "rows whose target is infinite": str(int(infinite.sum())),
    }
    return [Decision(name, what, "left out", detail=detail) for what, detail in found.items() if detail != "0"]


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
            raise ValueError(_constant_message(names[0], values[0].item(), len(values)))
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
        raise ValueError(_constant_message(name, classes[0], n_rows))
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


def _constant_message(name: str, value: Any, n_rows: int) -> str:
    where = f"all {n_rows} rows" if n_rows > 1 else "the only row"
    return (
        f"the target {shown(name)} is {shown(value)} in {where}, so there is nothing to learn; give rows with other "
        "values, and shuffle them if they are sorted"
    )


def _refuse_missing(column: Any, missing: np.ndarray) -> None:
    if missing.any():
        n, first = int(missing.sum()), column.index[int(np.argmax(missing))]
        raise ValueError(
            f"column {shown(column.name)} has {n} missing value{'s' * (n > 1)} (empty, or NA, NaN, None, "
            f"null), the first in row {first}; {REMOVE_ROWS}"
        )


def _column(values: tuple[float, ...]) -> np.ndarray:
    return np.array(values)[:, None]
