"""A table's preprocessing: fitted on the training rows, kept with the model, applied to raw rows ever after.

A table is a pandas DataFrame: a row is a sample, its columns have names. X and Y are columns, as everywhere else:
`Preprocessing.transform` gives X (n_features, n). What each column is taken for says `xpnet.tables.kinds`, how it is
encoded `xpnet.tables.columns`, and what the task is `xpnet.tables.target`. In order:

    frame, said = with_target(frame, ["price"])
    target = fit_target(frame, ["price"], options)
    table = fit(frame[is_training], target, options, said)
    X = table.transform(new_rows)
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np

from xpnet.checks import shown
from xpnet.tables.columns import Category, Numeric, listed
from xpnet.tables.dates import Date
from xpnet.tables.decisions import Decision, lines
from xpnet.tables.kinds import Encoding, Understood, understand
from xpnet.tables.names import is_nameless
from xpnet.tables.notes import GAPS, example
from xpnet.tables.options import MEAN, MEDIAN, ColumnOptions, check_columns
from xpnet.tables.plain import encode_plain, plain_numbers
from xpnet.tables.target import Target

if TYPE_CHECKING:
    from xpnet.data.dataset import Dataset

MOST_SAID = 10  # lines of what is noted of new rows


@dataclass(frozen=True)
class Preprocessing:
    """What was learnt from the training rows: the features of each column, the target, and what was decided.

    dropped: columns that were left out.  impute: what stands for a missing number.  weights: the column of weights.
    decisions: all that was done without having been asked for.
    is_strict: whether gaps, unless imputed, and unknown categories are refused, as by files of format 1.
    """

    columns: tuple[Encoding, ...]
    target: Target
    dropped: tuple[str, ...] = ()
    impute: str | None = MEDIAN
    weights: str | None = None
    decisions: tuple[Decision, ...] = ()
    is_strict: bool = False

    @property
    def n_features(self) -> int:
        """Inputs that the network needs."""
        return sum(column.n_features for column in self.columns)

    @property
    def feature_names(self) -> list[str]:
        """What the features are called: their columns, with category or part."""
        return [name for column in self.columns for name in column.feature_names]

    @property
    def text_columns(self) -> list[str]:
        """Columns to read as text, whatever they look like in another file."""
        return [*(column.name for column in self.columns if _is_text(column)), *self.target.text_columns]

    @property
    def constant_columns(self) -> list[str]:
        """Columns that held one value only in the training rows."""
        return [column.name for column in self.columns if column.is_constant]

    def with_decimal(self, sign: str) -> Preprocessing:
        """Return that of a file with that decimal sign, so that a text among numbers of other rows is read with it."""
        columns = (
            replace(each, style=each.style.of_file(sign)) if isinstance(each, Numeric) else each
            for each in self.columns
        )
        return replace(self, columns=tuple(columns), target=self.target.with_decimal(sign))

    def transform(self, frame: Any, dtype: Any = np.float32) -> np.ndarray:
        """Return X (n_features, n) of raw rows, each sample contiguous; ignores the target and the columns left out.

        Gaps, other categories and other columns than those of the training rows are warned of, a line each, with their
        number. Raises ValueError if columns are missing.
        """
        X, noted = self.encode(frame, dtype)
        warn_of(noted)
        return X

    def encode(self, frame: Any, dtype: Any = np.float32) -> tuple[np.ndarray, list[Decision]]:
        """Return X as `transform` does, and what had to be done with these rows without having been learnt."""
        names = [column.name for column in self.columns]
        check_columns(frame, names)
        base, noted = np.empty((len(frame), self.n_features), dtype), list[Decision]()
        ends = np.cumsum([column.n_features for column in self.columns])
        plain = {i: column for i, column in enumerate(self.columns) if _is_plain(column)}
        places = ends[list(plain)] - 1 if plain else np.empty(0, int)
        written = dict(zip(plain, encode_plain(frame, list(plain.values()), places, base), strict=True))
        for i, column in enumerate(self.columns):
            if not written.get(i, False):
                noted += column.encode_into(frame[column.name], base[:, ends[i] - column.n_features : ends[i]])
        if self.impute == MEAN:  # which was asked for
            noted = [note for note in noted if note.found != GAPS]
        if self.is_strict:
            _refuse(noted)
        known = {*names, *self.target.names, *self.dropped, self.weights}
        others = [name for name in map(str, frame.columns) if name not in known]
        if others:
            found = f"{len(others)} column{'s' * (len(others) > 1)} that no training row has: {listed(others, 5)}"
            noted.append(Decision("", found, "ignored"))
        return base.T, noted

    def dataset(self, frame: Any, dtype: Any = np.float32, noted: list[Decision] | None = None) -> Dataset:
        """Return raw rows with their targets, and weights if there are any, as a Dataset.

        noted: takes what `transform` would warn of.
        Raises ValueError for missing columns, a missing target or unknown class, and weights that are none.
        """
        from xpnet.data.dataset import Dataset  # on use: predicting from a table needs none

        check_columns(frame, [*(column.name for column in self.columns), *self.target.names])
        (X, found), target = self.encode(frame, dtype), self.target
        if noted is None:
            warn_of(found)
        else:
            noted += found
        weights = self.weights_of(frame)
        if target.task == "regression":
            return Dataset(X, np.ascontiguousarray(target.standardised(frame).T, dtype).T, weights)
        labels = target.labels(frame)
        if target.task == "binary":
            return Dataset(X, labels.astype(np.float32), weights)
        return Dataset.from_labels(X, labels, target.n_outputs, weights=weights)

    def weights_of(self, frame: Any) -> np.ndarray | None:
        """Return the weight (n,) of each row, None without weights; raises ValueError for weights that are none."""
        from xpnet.tables import cells

        if self.weights is None or self.weights not in frame.columns:
            return None
        column = frame[self.weights]
        values, _ = cells.numbers(column)
        wrong = ~(np.isfinite(values) & (values >= 0))
        if wrong.any():
            raise ValueError(
                f"the weights {shown(self.weights)} have {example(column, wrong)}; a weight must be a finite number of "
                "at least 0; correct it, or remove that row"
            )
        if not values.any():
            raise ValueError(f"the weights {shown(self.weights)} are all 0; at least one must be above; give others")
        return values

    def is_of(self, frame: Any) -> bool:
        """Whether it has the statistics of these training rows, so that a run on it may go on."""
        for column in self.columns:
            if not _agree(column, column.fitted(frame[column.name], self.impute or MEAN)):
                return False
        scaled = any(self.target.means) or set(self.target.deviations) != {1.0}
        return self.target.fitted(frame, scaled) == self.target


def fit(
    frame: Any, target: Target, options: ColumnOptions | None = None, decisions: Iterable[Decision] = ()
) -> Preprocessing:
    """Learn a table's preprocessing from its training rows, which all have a target.

    target: as `fit_target` returns it.  decisions: those made before, to be kept with the ones made here.
    Raises ValueError if nothing is left to learn from, or for an option that names no column.
    """
    options = ColumnOptions() if options is None else options
    options.check(frame, target.names)
    goal = target.fitted(frame, options.scale_target)
    aside = {*target.names, *options.drop, options.weights}
    asked = {*options.keep, *options.categorical, *options.numeric, *options.date}
    free = [name for name in map(str, frame.columns) if not (name in aside or name in asked or is_nameless(name))]
    plain = plain_numbers(frame, free)
    found = [
        (str(name), Understood(plain[name]) if name in plain else understand(frame[name], place, options))
        for place, name in enumerate(frame.columns)
        if name not in aside
    ]
    if all(each.encoding is None for _, each in found):
        found = _with_identifiers(frame, found, options)
    _check_left(found, target, options)
    table = Preprocessing(
        tuple(each.encoding for _, each in found if each.encoding is not None),
        goal,
        (*options.drop, *(name for name, each in found if each.encoding is None)),
        options.filler,
        options.weights,
        (*decisions, *target.decisions, *(decision for _, each in found for decision in each.decisions)),
    )
    table.weights_of(frame)
    return table


def _with_identifiers(
    frame: Any, found: list[tuple[str, Understood]], options: ColumnOptions
) -> list[tuple[str, Understood]]:
    """Return running numbers as features where there are no others: better than none."""
    names = tuple(name for name, each in found if each.is_identifier)
    asked = replace(options, keep=(*options.keep, *names))
    return [
        (name, replace(understand(frame[name], 0, asked), decisions=(_the_only(name),)) if name in names else each)
        for name, each in found
    ]


def _the_only(name: str) -> Decision:
    return Decision(name, "whole numbers that rise from row to row", "taken as numbers, as no other column is left")


def _check_left(found: list[tuple[str, Understood]], target: Target, options: ColumnOptions) -> None:
    if any(each.encoding is not None for _, each in found):
        return
    names = ", ".join(target.names)
    if not found:
        raise ValueError(f"no column is left beside the target {names}; there must be at least one feature")
    if not options.drop and all(each.decisions[0].found == "one value only" for _, each in found):
        raise ValueError(
            "every column beside the target has one value only in the training rows, so there is nothing "
            "to learn from; give more rows, or other columns"
        )
    why = "; ".join(lines(decision for _, each in found for decision in each.decisions))
    raise ValueError(
        f"no column is left to learn from beside the target {names} ({why}); give other columns, or keep one with "
        "--keep COLUMN"
    )


def warn_of(noted: Iterable[Decision]) -> None:
    """Warn of what was done with rows, a line for each kind and column, MOST_SAID at most."""
    said = list(lines(noted))
    for line in said[:MOST_SAID]:
        warnings.warn(line, UserWarning, stacklevel=3)
    if len(said) > MOST_SAID:
        warnings.warn(f"and {len(said) - MOST_SAID} more such columns", UserWarning, stacklevel=3)


def _refuse(noted: list[Decision]) -> None:
    """Refuse what a strict preprocessing has not learnt."""
    if noted:
        found = "; ".join(f"column {shown(note.column)} has {note.found} ({note.detail})" for note in noted[:5])
        raise ValueError(f"{found}, which this run of before does not take; correct these rows, or train again")


def _is_plain(column: Encoding) -> TypeGuard[Numeric]:
    """Whether a column is of numbers that need neither an indicator nor to be read from texts."""
    return isinstance(column, Numeric) and not column.has_indicator and column.style.is_plain


def _is_text(column: Encoding) -> bool:
    if isinstance(column, Numeric):
        return not column.style.is_plain
    return column.is_text if isinstance(column, Category) else column.format not in ("", "seconds")


def _agree(column: Encoding, again: Encoding) -> bool:
    """Whether two encodings have the same statistics, but for the order in which they were summed."""
    if isinstance(column, Numeric) and isinstance(again, Numeric):
        mine, others = [column.mean, column.deviation, column.fill], [again.mean, again.deviation, again.fill]
    elif isinstance(column, Category) and isinstance(again, Category):
        mine, others = list(column.frequencies), list(again.frequencies)
    else:
        assert isinstance(column, Date) and isinstance(again, Date)
        mine, others = [*column.means, *column.deviations], [*again.means, *again.deviations]
    return len(mine) == len(others) and bool(np.allclose(mine, others, rtol=1e-9, atol=0.0))
