"""Files of predictions, written whole or not at all."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xpnet.files import write_atomically
from xpnet.tables.formats import READERS, ROWS, ROWS_AS_TEXT, TABLE, check_installed, either, suffix_of, suffixes


def is_stdout(path: str | os.PathLike[str]) -> bool:
    """Whether a name stands for the standard output."""
    return os.fspath(path) == "-"


def written_suffixes(kind: str) -> list[str]:
    """Return the suffixes to which predictions for a kind of files may be written."""
    written = [suffix for suffix in suffixes(kind) if READERS[suffix].write is not None]
    return [*written, ROWS_AS_TEXT] if kind == ROWS else written


def check_written(path: str | os.PathLike[str], kind: str) -> str:
    """Return the suffix of a file to write predictions to; raises ValueError for one that is not written.

    The standard output takes CSV.
    """
    suffix = ROWS_AS_TEXT if is_stdout(path) else suffix_of(path)
    if suffix is None or suffix not in written_suffixes(kind):
        raise ValueError(f"{path} ends in {Path(path).suffix!r}; name a {either(written_suffixes(kind))} file")
    return suffix


def write_table(path: str | os.PathLike[str], columns: dict[str, Any]) -> None:
    """Write columns as a table, in the format of the name's suffix; raises ValueError for one that is not written."""
    reader, content = READERS[check_written(path, TABLE)], io.BytesIO()
    check_installed(reader)
    import pandas

    assert reader.write is not None
    reader.write(pandas.DataFrame(columns), content)
    _write(path, content.getvalue())


def write_rows(path: str | os.PathLike[str], rows: np.ndarray, names: Sequence[str]) -> None:
    """Write rows (n, n_columns) in the format of the name's suffix.  names: of the columns, for CSV.

    Raises ValueError for a suffix that is not written.
    """
    suffix, content = check_written(path, ROWS), io.BytesIO()
    write = READERS[suffix].write
    if suffix == ROWS_AS_TEXT:
        lines = (",".join(row.astype(str)) for row in rows)  # in the fewest digits that give the numbers back
        content.writelines(f"{line}\n".encode() for line in (",".join(names), *lines))
    elif write is not None:
        write(rows, content)
    _write(path, content.getvalue())


def _write(path: str | os.PathLike[str], content: bytes) -> None:
    if is_stdout(path):
        sys.stdout.buffer.write(content)
        sys.stdout.flush()
    else:
        write_atomically(path, content)
