"""What is asked of the columns of a table, and what is found out where nothing is asked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from xpnet.checks import check_option, one_line, shown

TASKS = ("regression", "binary", "multiclass")
MEDIAN, MEAN = "median", "mean"  # of the training rows, with a feature that says so, and without
IMPUTE = (MEDIAN, MEAN)


@dataclass(frozen=True)
class ColumnOptions:
    """What is asked of the columns, each named in at most one of the first five lists but `keep`.

    drop: columns to leave out.  keep: columns to take though they look like identifiers or free text.
    categorical, numeric, date: columns to take as such, whatever they look like.
    task: one of TASKS, None to infer it from the target.
    impute: what stands for a missing value: MEDIAN, with a feature that says so, or MEAN, of each feature, without;
    None: MEDIAN, and said to be a change.
    scale_target: standardise the targets of a regression.  weights: the column with a weight for each row.
    """

    drop: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()
    numeric: tuple[str, ...] = ()
    date: tuple[str, ...] = ()
    task: str | None = None
    impute: str | None = None
    scale_target: bool = True
    weights: str | None = None

    @property
    def filler(self) -> str:
        """What stands for a missing value, MEDIAN or MEAN."""
        return self.impute or MEDIAN

    def check(self, frame: Any, target: Sequence[str]) -> None:
        """Refuse names that the table does not have, and those that are asked for two things; raises ValueError."""
        if self.task is not None:
            check_option("task", self.task, TASKS)
        if self.impute is not None:
            check_option("impute", self.impute, IMPUTE)
        uses = {
            "the target": target,
            "--drop": self.drop,
            "--categorical": self.categorical,
            "--numeric": self.numeric,
            "--date": self.date,
            "--weights": (self.weights,) if self.weights is not None else (),
        }
        check_columns(frame, [*(name for names in uses.values() for name in names), *self.keep])
        seen = dict[str, str]()
        for use, names in uses.items():
            for name in names:
                if name in seen:
                    twice = "twice" if seen[name] == use else f"both for {use} and for {seen[name]}"
                    raise ValueError(f"the column {shown(name)} is named {twice}; name it once")
                seen[name] = use
        kept = next((name for name in self.keep if seen.get(name) in ("--drop", "the target", "--weights")), None)
        if kept is not None:
            raise ValueError(f"the column {shown(kept)} is named both for --keep and for {seen[kept]}; name it once")


def check_columns(frame: Any, names: Iterable[str]) -> None:
    """Refuse names that the table does not have, all in one message; raises ValueError."""
    present = list(map(str, frame.columns))
    known = set(present)
    if len(known) != len(present):
        raise ValueError("two columns have the same name; rename or remove one of them")
    absent = [name for name in dict.fromkeys(names) if name not in known]
    if not absent:
        return
    hints = [_nearest(name, present) for name in absent[:5]]
    hint = " or ".join(map(shown, filter(None, hints)))
    hint = f", did you mean {hint}?" if hint else ";"
    called = "is no column" if len(absent) == 1 else "are no columns"
    which = ", ".join(map(shown, absent[:20])) + (f" and {len(absent) - 20} more" if len(absent) > 20 else "")
    listed = ", ".join(one_line(name, 60) for name in present[:20]) + (", ..." if len(present) > 20 else "")
    raise ValueError(f"there {called} {which}{hint} the columns are {listed}")


def _nearest(name: str, present: Sequence[str]) -> str | None:
    try:
        check_option("column", name, present)
    except ValueError as error:
        hint = str(error).rpartition("; did you mean ")[2]
        return next((column for column in present if hint == f"{column!r}?"), None)
    return None
