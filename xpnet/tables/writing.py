"""Files of predictions, written whole or not at all."""

from __future__ import annotations

import io
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
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


def write_table_in_parts(path: str | os.PathLike[str], parts: Iterable[dict[str, Any]]) -> None:
    """Write the parts of a table, its columns by name, as they come, as `write_table` writes it whole.

    Nothing is left of what cannot be written to the end; the standard output gets nothing before all is there.
    """
    reader = READERS[check_written(path, TABLE)]
    check_installed(reader)
    content = _csv_parts(parts) if reader is READERS[ROWS_AS_TEXT] else _parquet_parts(parts)
    if not is_stdout(path):
        write_atomically(path, content)
        return
    with tempfile.TemporaryFile() as file:
        file.writelines(content)
        file.seek(0)
        shutil.copyfileobj(file, sys.stdout.buffer)
    sys.stdout.flush()


def _csv_parts(parts: Iterable[dict[str, Any]]) -> Iterator[bytes]:
    """Yield the CSV of each part, the names of the columns in that of the first alone."""
    import pandas

    write = READERS[ROWS_AS_TEXT].write
    assert write is not None
    for number, columns in enumerate(parts):
        content = io.BytesIO()
        write(pandas.DataFrame(columns), content)
        text = content.getvalue()
        yield text if number == 0 else text[_length_of_names(columns) :]


def _length_of_names(columns: dict[str, Any]) -> int:
    """Return how many bytes of a CSV are the names of its columns."""
    import pandas

    return len(pandas.DataFrame(columns=list(columns)).to_csv(index=False, lineterminator="\n").encode())


def _parquet_parts(parts: Iterable[dict[str, Any]]) -> Iterator[bytes]:
    """Yield the bytes of a Parquet file with a row group for each part; columns have the types of the first."""
    import pandas
    import pyarrow
    import pyarrow.parquet

    sink, writer = _Drained(), None
    for columns in parts:
        table = pyarrow.Table.from_pandas(pandas.DataFrame(columns), preserve_index=False)
        if writer is None:
            fields = [
                field.with_type(pyarrow.string()) if pyarrow.types.is_null(field.type) else field
                for field in table.schema
            ]
            schema = pyarrow.schema(fields, table.schema.metadata)
            writer = pyarrow.parquet.ParquetWriter(pyarrow.PythonFile(sink, "w"), schema)
        writer.write_table(table.cast(schema))
        yield sink.drained()
    if writer is not None:
        writer.close()
    yield sink.drained()


class _Drained(io.RawIOBase):
    """A file whose bytes are taken out as they come."""

    def __init__(self) -> None:
        self._held, self._n = list[bytes](), 0

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        self._held.append(bytes(content))
        self._n += len(self._held[-1])
        return len(self._held[-1])

    def tell(self) -> int:
        return self._n

    def drained(self) -> bytes:
        """Return what has come since the last time."""
        content = b"".join(self._held)
        self._held.clear()
        return content


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
