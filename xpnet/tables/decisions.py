"""What is done with a table without having been asked, so that it can be said before a training, or refused.

A decision names the column, what was found in it, what is done with it, and the option that overrules that. A strict
reading refuses all decisions that would change the data, in one message.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from xpnet.checks import shown

LISTED = 5  # columns that are named where several share a decision


@dataclass(frozen=True)
class Decision:
    """What is done with one column, or with the whole table.

    column: its name, "" for the whole table.  found: what it holds, such as "12 missing values".
    done: what is done, such as "filled in by the median 3.5, with an indicator".
    option: what overrules it, such as "--drop age"; "" where nothing does.
    is_change: whether `--strict` refuses it; False for a mere choice, such as the task of a target.
    detail: what holds for this column alone, such as how many values; columns may share all else.
    """

    column: str
    found: str
    done: str
    option: str = ""
    is_change: bool = True
    detail: str = ""

    @property
    def called(self) -> str:
        """The column with its detail."""
        return " ".join(filter(None, (self.column, self.detail and f"({self.detail})")))


def lines(decisions: Iterable[Decision]) -> Iterator[str]:
    """Yield a line for each decision; columns that share one share the line, the first LISTED of them by name."""
    columns: dict[tuple[str, str, str], list[str]] = {}
    for decision in decisions:
        columns.setdefault((decision.found, decision.done, decision.option), []).append(decision.called)
    for (found, done, option), names in columns.items():
        more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
        called = ", ".join(name for name in names[:LISTED] if name) + more
        yield f"{called}: {found}: {done}".removeprefix(": ") + (f" ({option})" if option else "")


def refuse(decisions: Iterable[Decision]) -> None:
    """Refuse all decisions that change the data, in one message; raises ValueError."""
    changes = [decision for decision in decisions if decision.is_change]
    if changes:
        found = "; ".join(
            (f"{shown(each.column)} has {each.found}" if each.column else each.found)
            + (f" ({each.option})" if each.option else "")
            for each in changes
        )
        raise ValueError(
            f"--strict allows no change of the data, and {len(changes)} would be needed: {found}; mend the file, "
            "take the options in brackets, or leave --strict out"
        )
