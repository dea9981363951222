"""Which rows are held out: a fixed rule of the seed, so that a run finds its own rows again.

Rows are numbered from 0. Labels are classes by number; values are what the rows of a group share, or times.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from xpnet.checks import check_option, shown
from xpnet.data.classes import stratified
from xpnet.tables import cells
from xpnet.tables.dates import TYPED, moments
from xpnet.tables.decisions import LISTED, Decision

SHUFFLE, STRATIFY, GROUP, TIME, LAST = "shuffle", "stratify", "group", "time", "last"
KINDS = (SHUFFLE, STRATIFY, GROUP, TIME, LAST)
BY_COLUMN = (GROUP, TIME)
FEWEST, FEW = 5, 30  # rows from which on some are held out; up to which a score on them is mostly chance
PART, PART_OF_FEW = 0.1, 0.2


@dataclass(frozen=True)
class Split:
    """A rule that holds rows out.

    kind: one of KINDS.  n_held_out: how many; by group or time, about as many.
    seed: of the order in which they are drawn.  column: of the groups or times.
    """

    kind: str
    n_held_out: int
    seed: int = 0
    column: str | None = None

    def __str__(self) -> str:
        return self.kind if self.column is None else f"{self.kind} {self.column}"

    def to_spec(self) -> dict[str, Any]:
        """Return the rule as a dict for JSON."""
        return asdict(self)

    @classmethod
    def from_spec(cls, spec: Any) -> Split:
        """Read what `to_spec` returned; raises ValueError for anything else."""
        try:
            made = cls(**spec)
            check_option("kind", made.kind, KINDS)
            counts = (made.n_held_out, made.seed)
            has_column = isinstance(made.column, str) if made.kind in BY_COLUMN else made.column is None
            if not has_column or not all(type(count) is int and count >= 0 for count in counts):
                raise ValueError
        except (TypeError, ValueError):
            raise ValueError(
                f"split is {shown(spec)}; it must be null, or hold kind, n_held_out, seed and column as xpnet train "
                "writes them; train again, or restore it"
            ) from None
        return made


def kind_and_column(text: str) -> tuple[str, str | None]:
    """Return the kind of split and the column that a text names, such as "group patient"; raises ValueError."""
    kind, _, column = text.strip().partition(" ")
    check_option("split", kind, KINDS)
    column = column.strip()
    if (kind in BY_COLUMN) != bool(column):
        needed = f"needs a column; write {kind} COLUMN" if kind in BY_COLUMN else f"takes no column; write {kind} alone"
        raise ValueError(f"split is {shown(text)}, and {kind} {needed}")
    return kind, column or None


def usual_count(n_rows: int) -> int:
    """Return how many rows are held out unless something else is said: more of few rows, none of fewer than FEWEST."""
    if n_rows < FEWEST:
        return 0
    return max(1, round((PART_OF_FEW if n_rows <= FEW else PART) * n_rows))


def count_of(part: float, n_rows: int) -> int:
    """Return how many rows a part means: a share of them below 1, their number from 1 on."""
    return round(part * n_rows) if part < 1.0 else int(part)


def usual_split(n_held_out: int, seed: int, labels: np.ndarray | None) -> Split:
    """Return the split of rows for which none is named.  labels (n_rows,): the classes, None if there are none."""
    return Split(SHUFFLE if labels is None else STRATIFY, n_held_out, seed)


def held_out(split: Split, n_rows: int, labels: np.ndarray | None = None, values: Any = None) -> np.ndarray:
    """Return the mask (n_rows,) of the rows that a split holds out.

    labels (n_rows,): classes, to stratify by.  values (n_rows,): numbers of groups, or times, NaN where unknown.
    A class of one row is trained on; so are rows without a time. Raises ValueError if no row would be left.
    """
    if not 0 <= split.n_held_out < n_rows:
        raise ValueError(
            f"{split.n_held_out} of {n_rows} rows would be held out; it must leave one to train on; hold out fewer"
        )
    mask = np.zeros(n_rows, bool)
    if split.n_held_out == 0:
        return mask
    if split.kind == GROUP:
        return np.isin(values, _groups_held_out(split, values))
    if split.kind == TIME:
        return _latest(split, values)
    if split.kind == LAST:
        mask[n_rows - split.n_held_out :] = True
        return mask
    order = _order(n_rows, split.seed)
    if split.kind == STRATIFY and labels is not None:
        mask[stratified(order, labels[order], split.n_held_out, on_both_sides=True)] = True
    else:
        mask[order[: split.n_held_out]] = True
    return mask


def folds(
    split: Split, n_folds: int, n_rows: int, labels: np.ndarray | None = None, values: Any = None
) -> Iterator[np.ndarray]:
    """Yield the mask (n_rows,) of the rows of each fold; every row is in one.  labels, values: as for `held_out`.

    Groups stay whole; each class is dealt to all folds in turn. Raises ValueError for too few rows or groups, and for
    a split by time or place, whose rows have no folds that are alike.
    """
    units = n_rows if split.kind != GROUP else len(np.unique(values))
    if split.kind in (TIME, LAST):
        raise ValueError(f"folds mix all rows, and split is {split}, which keeps their order; take shuffle or group")
    if n_folds > units:
        called = "groups" if split.kind == GROUP else "rows"
        raise ValueError(f"{n_folds} folds need as many {called}, and there are {units}; take fewer folds")
    if split.kind == GROUP:
        fold = _fold_of_groups(split, n_folds, values)
    else:
        order = _order(n_rows, split.seed)
        if split.kind == STRATIFY and labels is not None:
            order = order[np.argsort(labels[order], kind="stable")]
        fold = np.empty(n_rows, np.intp)
        fold[order] = np.arange(n_rows) % n_folds
    for number in range(n_folds):
        yield fold == number


def values_of(split: Split, frame: Any) -> np.ndarray | None:
    """Return the groups' numbers or the times (n_rows,) of a table; None for a split that needs neither.

    Rows without a group are one group; times are in microseconds, NaN where they cannot be read.
    Raises ValueError for a missing column, or one without times.
    """
    import pandas

    if split.column is None:
        return None
    if split.column not in frame.columns:
        check_option(f"the column of --split {split.kind}", split.column, map(str, frame.columns))
    column = frame[split.column]
    if split.kind == GROUP:
        return np.asarray(pandas.factorize(column, use_na_sentinel=False)[0])
    if cells.kind_of(column) == cells.NUMBER:
        return cells.numbers(column)[0]
    times, _ = moments(column, TYPED)
    if np.isnat(times).all() and (numbers := _numbers_as_text(column)) is not None:
        return numbers
    if np.isnat(times).all() and column.notna().any():
        raise ValueError(
            f"column {shown(split.column)} holds no times, such as {shown(str(column.iloc[0]))} in row "
            f"{column.index[0]}; a split by time needs dates or numbers; name another column"
        )
    return np.where(np.isnat(times), np.nan, times.astype(np.int64).astype(np.float64))


def _numbers_as_text(column: Any) -> np.ndarray | None:
    if cells.kind_of(column) != cells.TEXT:
        return None
    codes, texts = cells.different(column)
    read = cells.number_style(texts, cells.counts_of(codes, len(texts))) if len(texts) else None
    return None if read is None else np.append(read[1], np.nan)[codes]


def said_of_rows(
    split: Split,
    mask: np.ndarray,
    labels: np.ndarray | None,
    names: Sequence[Any],
    values: np.ndarray | None = None,
    has_folds: bool = False,
) -> list[Decision]:
    """Return what must be said of a split of rows: too few of them, rows without a time, classes on one side only.

    mask (n_rows,): of the rows held out.  labels (n_rows,): the classes, None if there are none.
    names: of the classes, by number.  values (n_rows,): as `values_of` returns them.
    has_folds: whether all rows are measured in folds beside it.
    """
    n_rows, n_held = len(mask), int(mask.sum())
    found = list[Decision]()
    if n_rows < FEWEST and n_held == 0:
        rows = f"{n_rows} row{'s' * (n_rows > 1)}"
        found.append(Decision("", rows, "all are trained on, and no score tells what the model is worth", "", False))
    elif n_rows <= FEW and n_held:
        done = f"a score on the {n_held} held out is mostly chance"
        option = "" if has_folds else "--folds 5 measures on all"
        found.append(Decision("", f"{n_rows} rows", done, option, False))
    if split.kind == TIME and values is not None and n_held and (n_unknown := int(np.isnan(values).sum())):
        rows = f"rows whose {split.kind} is not known"
        found.append(Decision(str(split.column), rows, "trained on, none held out", "", False, str(n_unknown)))
    if labels is None or n_held == 0:
        return found
    for side, called in ((~mask, "to train on"), (mask, "held out")):
        alone = np.setdiff1d(labels[side], labels[~side])
        if alone.size:
            listed = ", ".join(shown(names[label]) for label in alone[:LISTED]) + ", ..." * (alone.size > LISTED)
            n_alone = int(np.isin(labels, alone).sum())
            rows = f"{n_alone} row{'s' * (n_alone > 1)}"
            option = "" if split.kind == STRATIFY else "--split stratify"
            found.append(Decision("", f"target {listed}", f"only in rows {called} ({rows})", option, False))
    return found


def _order(n_rows: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).permutation(n_rows)


def _groups(values: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the groups in a drawn order, and how many rows each has."""
    groups, counts = np.unique(values, return_counts=True)
    order = _order(len(groups), seed)
    return groups[order], counts[order]


def _groups_held_out(split: Split, values: np.ndarray) -> np.ndarray:
    """Return the groups to hold out: each that brings the number of rows nearer to the one asked for."""
    groups, counts = _groups(values, split.seed)
    if len(groups) < 2:
        raise ValueError(
            f"column {shown(split.column)} has one group only, and a split by group needs two; name another column, "
            "or split by shuffle"
        )
    chosen, total = list[Any](), 0
    for group, count in zip(groups, counts, strict=True):
        if abs(total + count - split.n_held_out) < abs(total - split.n_held_out):
            chosen.append(group)
            total += count
    if not chosen:
        chosen = [groups[np.argmin(counts)]]
    return np.array(chosen[: len(groups) - 1])


def _fold_of_groups(split: Split, n_folds: int, values: np.ndarray) -> np.ndarray:
    """Return the fold (n_rows,) of each row: the largest groups first, each into the fold with the fewest rows."""
    groups, counts = _groups(values, split.seed)
    sizes, fold = np.zeros(n_folds, np.intp), np.empty(len(values), np.intp)
    for place in np.argsort(-counts, kind="stable"):
        smallest = int(np.argmin(sizes))
        sizes[smallest] += counts[place]
        fold[values == groups[place]] = smallest
    return fold


def _latest(split: Split, times: np.ndarray) -> np.ndarray:
    """Return the mask of the latest rows; those of one time are all on one side, as near to the number as can be."""
    known = np.sort(times[~np.isnan(times)])
    borders = np.unique(known)[1:]  # the first time held out, so that earlier ones are left
    if len(borders) == 0:
        found = "one time only" if len(known) else "no time"
        raise ValueError(
            f"column {shown(split.column)} has {found}, and a split by time needs two; name another column, or "
            "split by shuffle"
        )
    counts = len(known) - np.searchsorted(known, borders)
    border = borders[np.argmin(np.abs(counts - split.n_held_out))]
    return np.asarray(times >= border)  # false where the time is not known
