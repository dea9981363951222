"""A table's preprocessing: fitted on the training rows, kept with the model, applied to raw rows ever after.

A table is a pandas DataFrame: a row is a sample, its columns have names. X and Y are columns, as everywhere else:
`Preprocessing.transform` gives X (n_features, n). Numbers are standardised and text is one-hot
(`xpnet.tables.columns`); the target says what the task is. It is all plain numbers and text, in JSON, never pickle.
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from xpnet.checks import check_option, one_line, shown
from xpnet.files import parse_json
from xpnet.tables.columns import (
    MAX_CATEGORIES,
    Category,
    Numeric,
    fit_column,
    fit_numbers,
    holds_text,
    numbers,
    place_of,
    refuse_missing,
    text_counts,
    texts,
)

if TYPE_CHECKING:
    from xpnet.data.dataset import Dataset

FORMAT = 1
TASKS = ("regression", "binary", "multiclass")
LARGEST = 2**53  # whole numbers up to here are told apart in float64
FEW = 20  # whole numbers with at most this many different values are classes
REMOVE_ROWS = "the target must be known: remove these rows, or fill them in"
ANOTHER = "name another --target"


@dataclass(frozen=True)
class Target:
    """What the network is to predict.

    task: "regression" (the columns `names`, standardised by means and deviations), "binary" (one output, 1 for the
    second class) or "multiclass" (one output a class).  classes: texts, numbers or booleans, sorted; () for regression.
    """

    names: tuple[str, ...]
    task: str
    classes: tuple[Any, ...] = ()
    means: tuple[float, ...] = ()
    deviations: tuple[float, ...] = ()

    @property
    def n_outputs(self) -> int:
        """Outputs that the network needs."""
        return {"regression": len(self.names), "binary": 1, "multiclass": len(self.classes)}[self.task]

    @property
    def is_text(self) -> bool:
        """Whether the classes are texts."""
        return any(isinstance(label, str) for label in self.classes)

    def labels(self, frame: Any) -> np.ndarray:
        """Return the number (n,) of each row's class; raises ValueError for a missing or unknown class."""
        column = frame[self.names[0]]
        refuse_missing(column, REMOVE_ROWS)
        return place_of(column, texts(column) if self.is_text else numbers(column).tolist(), self.classes, "class")

    def standardised(self, frame: Any) -> np.ndarray:
        """Return the targets Y (n_outputs, n) of a regression as the network learns them."""
        for name in self.names:
            refuse_missing(frame[name], REMOVE_ROWS)
        Y = np.stack([numbers(frame[name]) for name in self.names])
        return (Y - _column(self.means)) / _column(self.deviations)

    def in_units(self, P: np.ndarray) -> np.ndarray:
        """Return standardised targets or predictions (n_outputs, n) of a regression in the target's units."""
        return P.astype(np.float64) * _column(self.deviations) + _column(self.means)


@dataclass(frozen=True)
class Preprocessing:
    """What was learnt from the training rows: the features of each column, the target, the columns left out.

    impute: whether a missing feature is filled in by its mean; else it is refused.
    """

    columns: tuple[Numeric | Category, ...]
    target: Target
    dropped: tuple[str, ...] = ()
    impute: bool = False

    @property
    def n_features(self) -> int:
        """Inputs that the network needs."""
        return sum(column.n_features for column in self.columns)

    @property
    def text_columns(self) -> list[str]:
        """Columns to read as text, whatever they look like in another file."""
        names = [column.name for column in self.columns if isinstance(column, Category)]
        return [*names, *self.target.names] if self.target.is_text else names

    @property
    def constant_columns(self) -> list[str]:
        """Columns that held one value only in the training rows."""
        return [column.name for column in self.columns if column.is_constant]

    def transform(self, frame: Any, dtype: Any = np.float32) -> np.ndarray:
        """Return X (n_features, n) of raw rows, each sample contiguous; ignores the target and the columns left out.

        Raises ValueError for missing or unknown columns, unknown categories, text in place of numbers, infinity, and
        missing values without `impute`.
        """
        names = [column.name for column in self.columns]
        _check_columns(frame, names)
        known = {*names, *self.target.names, *self.dropped}
        if unknown := [name for name in map(str, frame.columns) if name not in known]:
            raise ValueError(
                f"there is a column {shown(unknown[0])} that the model was not trained on; leave it out with "
                f"--drop {shlex.quote(','.join(unknown))}"
            )
        base, start = np.empty((len(frame), self.n_features), dtype), 0
        for column in self.columns:
            values, stop = frame[column.name], start + column.n_features
            if not self.impute:
                refuse_missing(values, "fill them in, remove these rows, or train with --impute mean")
            column.encode_into(values, base[:, start:stop])
            start = stop
        return base.T

    def dataset(self, frame: Any, dtype: Any = np.float32) -> Dataset:
        """Return raw rows with their targets as a Dataset; raises ValueError as `transform` does."""
        from xpnet.data.dataset import Dataset  # on use: predicting from a table needs none

        _check_columns(frame, self.target.names)
        X, target = self.transform(frame, dtype), self.target
        if target.task == "regression":
            return Dataset(X, np.ascontiguousarray(target.standardised(frame).T, dtype).T)
        labels = target.labels(frame)
        if target.task == "binary":
            return Dataset(X, labels.astype(np.float32))
        return Dataset.from_labels(X, labels, target.n_outputs)

    def to_json(self) -> str:
        """Return the preprocessing as JSON, its numbers exact."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Preprocessing:
        """Read what `to_json` wrote; raises ValueError in one line for anything else."""
        try:
            found = parse_json(text)
            if found["format"] != FORMAT:
                raise ValueError(f"its format is {shown(found['format'])}; it must be {FORMAT}")
            names, task, *lists = (
                found["target"][name] for name in ("names", "task", "classes", "means", "deviations")
            )
            target = Target(tuple(names), task, *map(tuple, lists))
            made = cls(tuple(map(_column_of, found["columns"])), target, tuple(found["dropped"]), found["impute"])
            _check(made)
            return made
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
            raise ValueError(
                f"it holds no preprocessing of this version ({type(error).__name__}: "
                f"{one_line(error)}); it must be what Preprocessing.to_json writes: fit it "
                "again"
            ) from None


def fit(
    frame: Any,
    target: Sequence[str],
    drop: Sequence[str] = (),
    *,
    impute: bool = False,
    task: str | None = None,
    scale_target: bool = True,
) -> Preprocessing:
    """Learn a table's preprocessing from its training rows.

    target: names of one column, or of several for a regression.  drop: columns to leave out.
    impute: fill in missing features by their means; otherwise refuse them.  task: one of TASKS, None to infer it.
    scale_target: standardise the targets of a regression.
    Raises ValueError for a column that cannot be used, named with the cure.
    """
    _check_columns(frame, [*target, *drop])
    if len(set(target)) < len(target):
        raise ValueError(f"a target is named twice among {', '.join(target)}; name each once")
    both = [name for name in target if name in drop]
    if both:
        raise ValueError(f"the target {shown(both[0])} is also among the columns to drop; leave it out there")
    goal = fit_target(frame, target, task, scale_target)
    left_out = {*target, *drop}
    columns = [fit_column(frame[name], impute, drop) for name in frame.columns if name not in left_out]
    if not columns:
        raise ValueError(f"no column is left beside the target {', '.join(target)}; there must be at least one feature")
    if all(column.is_constant for column in columns):
        raise ValueError(
            "every column beside the target has one value only in the training rows, so there is nothing "
            "to learn from; give more rows, or other columns"
        )
    return Preprocessing(tuple(columns), goal, tuple(drop), impute)


def fit_target(frame: Any, names: Sequence[str], task: str | None, scaled: bool) -> Target:
    """Return the target of the training rows; raises ValueError for columns that cannot be one."""
    for name in names:
        refuse_missing(frame[name], REMOVE_ROWS)
    are_texts = {name: holds_text(frame[name], ANOTHER) for name in names}
    text = next((name for name, is_text in are_texts.items() if is_text), None)
    task = _inferred(frame, names, text) if task is None else check_option("task", task, TASKS)
    if task == "regression":
        if text is not None:
            raise ValueError(
                f"the target {shown(text)} is text, such as {shown(frame[text].iloc[0])}, and a regression needs "
                "numbers; name one target of classes alone, or a column of numbers"
            )
        fitted = [fit_numbers(frame[name], numbers(frame[name]), len(frame), ANOTHER) for name in names]
        for name, (mean, deviation) in zip(names, fitted, strict=True):
            if deviation == 0.0:
                raise ValueError(_constant_message(name, mean, len(frame)))
        means, deviations = zip(*fitted, strict=True) if scaled else ((0.0,) * len(names), (1.0,) * len(names))
        return Target(tuple(names), task, (), means, deviations)
    if len(names) > 1:
        raise ValueError(
            f"there are {len(names)} targets and the task is {task}, which needs one; name one, or take "
            "--task regression"
        )
    return Target(tuple(names), task, _classes(frame[names[0]], text is not None, task))


def _inferred(frame: Any, names: Sequence[str], text: str | None) -> str:
    """Return the task: classes for text, booleans, and numbers that are two, or few, whole and repeated."""
    if len(names) > 1:
        return "regression"
    column = frame[names[0]]
    values = np.unique(texts(column).astype(str) if text is not None else numbers(column))
    if text is not None or _is_bool(column):
        return "multiclass" if len(values) > 2 else "binary"
    if column.dtype.kind in "iu":
        n_values = column.nunique()  # of the column, since float64 does not tell all large ones apart
        if n_values == 2:
            return "binary"
        return "multiclass" if 2 < n_values <= min(FEW, len(column) // 2) else "regression"
    return "binary" if values.tolist() == [0.0, 1.0] else "regression"


def _classes(column: Any, is_text: bool, task: str) -> tuple[Any, ...]:
    if is_text:
        classes: tuple[Any, ...] = tuple(text_counts(column, ANOTHER))
    elif _is_bool(column):
        classes = tuple(bool(value) for value in np.unique(column.to_numpy(bool)))
    elif column.dtype.kind in "iu" and max(-int(column.min()), int(column.max())) > LARGEST:
        raise ValueError(
            f"the target {shown(column.name)} has whole numbers beyond {LARGEST}, which cannot all be told "
            "apart as classes; take --task regression, or put a letter before each"
        )
    else:
        classes = tuple(int(value) if value.is_integer() else value for value in np.unique(numbers(column)).tolist())
    if len(classes) == 1:
        raise ValueError(_constant_message(column.name, classes[0], len(column)))
    if len(classes) > MAX_CATEGORIES:
        raise ValueError(
            f"the target {shown(column.name)} has {len(classes)} different values; it may have at most "
            f"{MAX_CATEGORIES} classes; take --task regression"
        )
    if (task == "binary") != (len(classes) == 2):
        raise ValueError(
            f"the target {shown(column.name)} has {len(classes)} classes and the task is {task}; "
            f"take --task {'binary' if len(classes) == 2 else 'multiclass'}"
        )
    return classes


def _is_bool(column: Any) -> bool:
    """Whether a column is of booleans, those of pandas and of Arrow too."""
    import pandas

    return bool(pandas.api.types.is_bool_dtype(column.dtype)) and not hasattr(column.dtype, "categories")


def _constant_message(name: str, value: Any, n_rows: int) -> str:
    where = f"all {n_rows} training rows" if n_rows > 1 else "the only training row"
    return (
        f"the target {shown(name)} is {shown(value)} in {where}, so there is nothing to learn; give rows with other "
        "values, and shuffle them if they are sorted"
    )


def _check_columns(frame: Any, names: Sequence[str]) -> None:
    present = list(map(str, frame.columns))
    known = set(present)
    if len(known) != len(present):
        raise ValueError("two columns have the same name; rename or remove one of them")
    for name in names:
        if name not in known:
            try:
                check_option("column", name, present)
            except ValueError as error:
                hint = str(error).rpartition("; ")[2]
            hint = f", {hint}" if hint.startswith("did you mean") else ";"
            listed = ", ".join(present[:20]) + (", ..." if len(present) > 20 else "")
            raise ValueError(f"there is no column {shown(name)}{hint} the columns are {listed}")


def _column(values: tuple[float, ...]) -> np.ndarray:
    return np.array(values)[:, None]


def _column_of(found: dict[str, Any]) -> Numeric | Category:
    if "categories" in found:
        return Category(found["name"], tuple(found["categories"]), tuple(found["frequencies"]))
    return Numeric(**found)


def _check(made: Preprocessing) -> None:
    """Refuse what `to_json` could not have written."""
    target, names = made.target, [column.name for column in made.columns]
    every = [*names, *target.names, *made.dropped]
    if not names or not target.names or not all(isinstance(name, str) for name in every):
        raise ValueError("the names of its columns are missing or not text; each must be a text")
    if len(set(every)) != len(every):
        raise ValueError("two of its columns have the same name, give each its own name")
    check_option("task", target.task, TASKS)
    n_classes = {"regression": 0, "binary": 2}.get(target.task, max(3, len(target.classes)))
    n_scales = len(target.names) if target.task == "regression" else 0
    found, needed = tuple(map(len, (target.classes, target.means, target.deviations))), (n_classes, n_scales, n_scales)
    if found != needed:
        raise ValueError(f"it has {found} classes, means and deviations, a target of {target.task} needs {needed}")
    for column in made.columns:
        _check_column(column)
    if not all(_is_number(value) for value in target.means) or not all(
        _is_number(value) and value > 0 for value in target.deviations
    ):
        raise ValueError(
            "the scale of its target is not finite or not above 0; it must be a finite mean and a deviation above 0"
        )
    if not all(isinstance(label, (str, int, float)) for label in target.classes) or type(made.impute) is not bool:
        raise ValueError(
            "its classes are neither texts nor numbers, or impute neither true nor false, give one of these for each"
        )


def _check_column(column: Numeric | Category) -> None:
    if isinstance(column, Numeric):
        right = _is_number(column.mean) and _is_number(column.deviation) and column.deviation >= 0
    else:
        right = len(column.categories) == len(column.frequencies) > 0 and all(map(_is_number, column.frequencies))
        right = right and all(isinstance(category, str) for category in column.categories)
    if not right:
        raise ValueError(
            f"its column {shown(column.name)} has impossible numbers; it must have a finite mean and a "
            "deviation of at least 0, or a finite frequency for each text"
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
