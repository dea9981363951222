"""What a person at a terminal reads: errors of the system with a cure, and lines of its width."""

from __future__ import annotations

import errno
import os
import shutil
import textwrap
from collections.abc import Sequence
from typing import IO

_CURES = {
    errno.ENOENT: "make its folder first, or name another place",
    errno.ENOTDIR: "a part of the path is a file; name another place",
    errno.EISDIR: "name a file",
    errno.ENOSPC: "free some space, or name another place",
    errno.EFBIG: "raise the limit of the size of files, or name another place",
    errno.EDQUOT: "free some space, or name another place",
    errno.EMFILE: "raise the limit of open files",
    errno.ENAMETOOLONG: "give it a shorter name",
    errno.ELOOP: "its links lead to themselves; name a file",
    errno.ENOMEM: "free some memory",
}
LONGEST = 300  # signs of a word, such as a path
_NO_RIGHT = "name a place that you may use"  # for all others: rights, read-only file systems, broken devices


def system_message(error: OSError) -> str:
    """Say what the system refused, of which file, and what helps; a message of our own is kept."""
    if error.errno is None:
        return str(error)
    cause = error.strerror or os.strerror(error.errno)
    place = "" if error.filename is None else f"{error.filename}: "
    return f"{place}{cause}; {_CURES.get(error.errno, _NO_RIGHT)}"


def plain(message: str) -> str:
    """Return a message in one line that does nothing to a terminal; a very long word loses its middle."""
    words = (word if len(word) <= LONGEST else f"{word[:100]}...{word[-100:]}" for word in message.split())
    return printable(" ".join(words))


def printable(text: str) -> str:
    """Return a text whose signs do nothing to a terminal, though they may come out of a file."""
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)


def width_of(file: IO[str]) -> int | None:
    """Return the columns of the terminal that `file` is, or $COLUMNS; None if it is no terminal: lines stay whole."""
    return max(shutil.get_terminal_size().columns, 20) if file.isatty() else None


def wrapped(text: str, file: IO[str], indent: str = "") -> str:
    """Break a line between words where the terminal would break it within one.  indent: of the lines after it."""
    width = width_of(file)
    if width is None or len(text) <= width:
        return text
    return textwrap.fill(text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def table(rows: Sequence[Sequence[str]], texts: Sequence[int], first_out: Sequence[int], width: int | None) -> str:
    """Return rows of cells as lines with columns of equal width, two spaces between them.

    texts: numbers of the columns that start at the left, as numbers do not.
    first_out: numbers of the columns that a terminal of `width` columns loses until the lines fit, in that order.
    """
    wide = [max(map(len, column)) for column in zip(*rows, strict=True)]
    kept = list(range(len(wide)))
    for number in first_out:
        if width is None or sum(wide[i] + 2 for i in kept) - 2 <= width:
            break
        kept.remove(number)
    lines = ([f"{row[i]:<{wide[i]}}" if i in texts else f"{row[i]:>{wide[i]}}" for i in kept] for row in rows)
    return "\n".join("  ".join(line).rstrip() for line in lines)
