"""What a person at a terminal reads: the library's advice as options, errors of the system with a cure, line widths."""

from __future__ import annotations

import errno
import os
import re
import shutil
import textwrap
from typing import IO

# The calls that the library's messages name, and what stands for them on a command line.
_CALLS = (
    (r"Dataset\.from_labels(\(X, labels\))? needs", "labels need"),
    (r"Dataset\.from_labels(\(X, labels\))?", "labels of whole numbers"),
    (r"for targets that are measured pass Dataset\(X, Y\)", "save targets that are measured as floats"),
    (r"(, for example)? with xpnet\.standardize", ""),
    (r"select_backend\(dtype='(\w+)'\)", r"--dtype \1"),
    (r"add it to train\(\.\.\., metrics=\.\.\.\)", "add it to --metrics"),
    (r"lower the learning rate", "lower --lr"),
    (r"and epochs is (\d+); give epochs=", r"and --epochs is \1; give --epochs "),
    (r"or leave resume out", "or leave --resume out"),
    (r"select_backend\('(\w+)'\)", r"--device \1"),
    (r"leave precision out", "leave --precision out"),
    (r"\b(loss|output|activation|init|device|engine|precision)=['\"](\w+)['\"]", r"--\1 \2"),
)
# Such as EarlyStopping(min_delta=1e-4), or Adam(lr=0.1).
_EXAMPLE = re.compile(r"\b(?:[A-Z]\w*|find_lr)\((?:[^()=]*, )?([a-z]\w*)=([^()]*)\)")

_CURES = {
    errno.ENOENT: "make its folder first, or name another place",
    errno.ENOTDIR: "a part of the path is a file; name another place",
    errno.EISDIR: "name a file",
    errno.ENOSPC: "free some space, or name another place",
    errno.EFBIG: "raise the limit of the size of files, or name another place",
    errno.EDQUOT: "free some space, or name another place",
}
_NO_RIGHT = "name a place that you may use"  # for all others: rights, read-only file systems, broken devices


def in_options(text: str) -> str:
    """Return a message of the library with the options in place of the calls that it names."""
    for pattern, told in _CALLS:
        text = re.sub(pattern, told, text)
    return _EXAMPLE.sub(lambda match: f"--{match[1].replace('_', '-')} {match[2]}", text)


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
