"""What pandas does not tell of a text: blanks at the ends of fields, NUL, and how many separators there are."""

from __future__ import annotations

import numpy as np

from xpnet.tables.layout import refuse_control
from xpnet.tables.sources import Source

QUOTE, BLANK, TAB = b'" \t'


def outer_blanks(source: Source, separator: str) -> tuple[bool, bool]:
    """Return whether a field may begin with a blank, and whether one may begin or end with one.

    Refuses NUL, at which pandas would end a field.
    """
    is_start = np.zeros(256, bool)
    is_start[[*b"\r\n", ord(separator)]] = True
    is_edge = is_start.copy()
    is_edge[QUOTE] = True
    begins, ends, before = False, False, b"\n"
    for block in source.blocks():
        if 0 in block:
            text, _, _ = source.read().partition(b"\0")
            refuse_control(source, text.count(b"\n") + 1, "\0")
        signs = np.frombuffer(before + block, np.uint8)
        is_blank = signs == BLANK if separator == "\t" else (signs == BLANK) | (signs == TAB)
        places = np.flatnonzero(is_blank)
        lefts, rights = signs[places[places > 0] - 1], signs[places[places < len(signs) - 1] + 1]
        begins = begins or bool(is_start[lefts].any())
        ends = ends or bool(is_edge[lefts].any() or is_edge[rights].any())
        before = block[-1:]
    return begins, begins or ends or before in (b" ", b"\t")


def count_separators(source: Source, separator: str) -> int:
    """Return how many separators stand outside of double quotes."""
    others = bytes(set(range(256)) - {QUOTE, ord(separator)})
    n_separators, is_quoted = 0, 0
    for block in source.blocks():
        is_quote = np.frombuffer(block.translate(None, others), np.uint8) == QUOTE
        is_inside = (np.cumsum(is_quote, dtype=np.uint8) + is_quoted) % 2 == 1
        n_separators += int(np.count_nonzero(~is_quote & ~is_inside))
        is_quoted = (is_quoted + int(np.count_nonzero(is_quote))) % 2
    return n_separators
