"""A preprocessing as the commands learn it, in one call, for tests."""

from __future__ import annotations

from xpnet.tables.options import ColumnOptions
from xpnet.tables.preprocessing import fit
from xpnet.tables.tasks import fit_target, with_target


def learn(frame, target="y", training=None, **options):
    """Return the preprocessing of a frame's rows that have a target; training: how many of them are trained on."""
    names = [target] if isinstance(target, str) else target
    asked = ColumnOptions(**options)
    rows, said = with_target(frame, names, asked.task)
    return fit(rows[:training], fit_target(rows, names, asked), asked, said)


def said(table):
    """Return what was decided, as (column, found, done, detail)."""
    return [(each.column, each.found, each.done, each.detail) for each in table.decisions]
