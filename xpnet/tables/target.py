"""The target of a table: which rows have one, and how it is said to the network and back.

What the task is says `xpnet.tables.tasks`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from xpnet.checks import shown
from xpnet.tables import cells
from xpnet.tables.cells import PLAIN, NumberStyle
from xpnet.tables.columns import listed, statistics
from xpnet.tables.decisions import Decision
from xpnet.tables.notes import example
from xpnet.tables.options import check_columns

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
    def output_names(self) -> list[str]:
        """What the outputs are of: the columns, or the classes, of two the second."""
        return (
            list(self.names) if self.task == "regression" else [str(label) for label in self.classes[-self.n_outputs :]]
        )

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

    def with_decimal(self, sign: str) -> Target:
        """Return the target of a file with that decimal sign, so that texts among numbers are read with it."""
        return replace(self, styles=tuple(style.of_file(sign) for style in self.styles))

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
            raise ValueError(constant_message(str(column.name), mean, len(values)))
        return mean, deviation

    def _style(self, place: int) -> NumberStyle:
        return self.styles[place] if self.styles else PLAIN

    def _numbers(self, column: Any, place: int) -> np.ndarray:
        """Return the values of a column of a regression; raises ValueError where one is missing."""
        values, odd = cells.numbers(column, self._style(place))
        _refuse_missing(column, ~np.isfinite(values) & ~odd)
        if odd.any():
            raise ValueError(
                f"column {shown(column.name)} has cells that are no numbers ({example(column, odd)}); {REMOVE_ROWS}"
            )
        return values


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
            odd = np.zeros(len(missing), bool) if style is None else cells.numbers(frame[name], style)[1]
            found = f"number in any row ({example(frame[name], odd)})" if odd.any() else "value in any row"
            found = f"finite {found}" if infinite.any() else found
            raise ValueError(f"the target {shown(name)} has no {found}; fill it in, or {ANOTHER}")
        said += _left_out(frame[name], style, missing, infinite)
        kept &= ~(missing | infinite)
    if not kept.any():
        raise ValueError(f"no row has all of the targets {', '.join(map(shown, names))}; name fewer, or fill them in")
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


def constant_message(name: str, value: Any, n_rows: int) -> str:
    """Return the refusal of a target that is the same in all rows."""
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
