"""What a person at a terminal reads: errors of the system with a cure, and lines of its width."""

from __future__ import annotations

import errno
import os
import shutil
import textwrap
from typing import IO

_CURES = {
    errno.ENOENT: "make its folder first, or name another place",
    errno.ENOTDIR: "a part of the path is a file; name another place",
    errno.EISDIR: "name a file",
    errno.ENOSPC: "free some space, or name another place",
    errno.EFBIG: "raise the limit of the size of files, or name another place",
    errno.EDQUOT: "free some space, or name another place",
}
_NO_RIGHT = "name a place that you may use"  # for all others: rights, read-only file systems, broken devices


def system_message(error: OSError) -> str:
    """Say what the system refused, of which file, and what helps; a message of our own is kept."""
    if error.errno is None:
        return str(error)
    cause = error.strerror or os.strerror(error.errno)
    place = "" if error.filename is None else f"{error.filename}: "
    return f"{place}{cause}; {_CURES.get(error.errno, _NO_RIGHT)}"


def width_of(file: IO[str]) -> int | None:
    """Return the columns of the terminal that `file` is, or $COLUMNS; None if it is no terminal: lines stay whole."""
    return max(shutil.get_terminal_size().columns, 20) if file.isatty() else None


def wrapped(text: str, file: IO[str], indent: str = "") -> str:
    """Break a line between words where the terminal would break it within one.  indent: of the lines after it."""
    width = width_of(file)
    if width is None or len(text) <= width:
        return text
    return textwrap.fill(text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
