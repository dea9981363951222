"""The formats of files of samples, by suffix: tables and plain rows (.npy).

`READERS` has a row for each format; help texts, checks and messages follow from it.
"""

from __future__ import annotations

import importlib.util
import io
import json
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np

from xpnet.checks import one_line, shown
from xpnet.files import AT_MOST
from xpnet.tables.decisions import Decision
from xpnet.tables.sources import COMPRESSIONS, Source
from xpnet.tables.table import Reading, Table
from xpnet.tables.text import read_text

TABLE, ROWS, IMAGES = "table", "rows", "images"
ROWS_AS_TEXT = ".csv"  # plain rows are also written as CSV, by NumPy alone


@dataclass(frozen=True)
class Reader:
    """A format of files.

    kind: TABLE, read as a Table, or ROWS, read as an array (n_samples, n_features).
    called: its name in messages.  read: read(source, reading, text_columns) of a table, read(path) of rows.
    saved_by: the call that saves such a file, for messages, with {} for the array of rows.
    write: write(frame or array, binary file), None for a format that is not written.
    needs: the modules that must be installed; messages name the last one as what reads the file.
    extra: the extra of xpnet that installs them.
    may_be_compressed: whether its suffix may be followed by one of COMPRESSIONS.
    """

    kind: str
    called: str
    read: Callable[..., Any]
    saved_by: str
    write: Callable[[Any, IO[bytes]], None] | None = None
    needs: tuple[str, ...] = ()
    extra: str = "data"
    may_be_compressed: bool = False


def _write_csv(frame: Any, file: IO[bytes]) -> None:
    frame.to_csv(file, index=False, lineterminator="\n")  # floats in the fewest digits that give them back


def parquet_parts(source: Source, reading: Reading, n_rows: int) -> Iterator[Any]:
    """Yield the rows of a Parquet file as frames of n_rows rows; each has the types that its own rows give."""
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(source.path) as file:
            held, n_held = list[Any](), 0
            for batch in file.iter_batches(n_rows):
                held.append(batch)
                n_held += len(batch)
                while n_held >= n_rows:
                    table = pyarrow.Table.from_batches(held)
                    yield _of_parquet(source, table.slice(0, n_rows).to_pandas, reading)
                    held, n_held = table.slice(n_rows).to_batches(), n_held - n_rows
            if n_held:
                table = pyarrow.Table.from_batches(held)
                yield _of_parquet(source, table.to_pandas, reading)
    except pyarrow.ArrowException as error:
        raise ValueError(unreadable(source, ".parquet", error)) from None


def _of_parquet(source: Source, read: Callable[[], Any], reading: Reading) -> Any:
    """Return a frame of Parquet's columns, and of its index if that has names: it was columns."""
    frame = _typed(source, ".parquet", read, reading)
    return frame.reset_index() if any(name is not None for name in frame.index.names) else frame


def _read_parquet(source: Source, reading: Reading, text_columns: Iterable[str]) -> Table:
    """Read a file, or a folder of parts, whose columns have types, so that no text column need be named."""
    import pandas

    return Table(_of_parquet(source, lambda: pandas.read_parquet(source.path), reading), reading)


def _write_parquet(frame: Any, file: IO[bytes]) -> None:
    frame.to_parquet(file, index=False)


def _read_feather(source: Source, reading: Reading, text_columns: Iterable[str]) -> Table:
    import pandas

    return Table(_typed(source, ".feather", lambda: pandas.read_feather(source.path), reading), reading)


def _read_json(source: Source, reading: Reading, text_columns: Iterable[str]) -> Table:
    """Read a list of records, a record of columns, or a record a line."""
    import pandas

    def read() -> Any:
        content = source.read().decode(reading.encoding or "utf-8-sig")
        try:
            found = json.loads(content)
        except json.JSONDecodeError as error:
            if not error.msg.startswith("Extra data"):
                raise
            found = [json.loads(line) for line in io.StringIO(content) if line.strip()]
        is_record = isinstance(found, dict) and not any(isinstance(value, (list, dict)) for value in found.values())
        return pandas.DataFrame([found] if is_record else found)

    return Table(_typed(source, ".json", read, reading, set(text_columns)), reading)


def _read_excel(source: Source, reading: Reading, text_columns: Iterable[str]) -> Table:
    """Read the first sheet of a workbook."""
    import pandas

    sheets: list[str] = []
    with suppress(zipfile.BadZipFile), zipfile.ZipFile(source.path) as archive:
        n_bytes = sum(part.file_size for part in archive.infolist())
        if n_bytes > AT_MOST:
            raise ValueError(f"{source} unpacks to {n_bytes} bytes; it may unpack to {AT_MOST}; save the sheet as CSV")

    def read() -> Any:
        with pandas.ExcelFile(source.path, engine="openpyxl") as book:
            sheets.extend(map(str, book.sheet_names))
            return pandas.read_excel(book, dtype=object, na_values=list(reading.na_values))  # cells have types

    frame = _typed(source, ".xlsx", read, reading, set(text_columns)).dropna(how="all").infer_objects()
    is_named = [not str(name).startswith("Unnamed: ") for name in frame.columns]
    frame = frame.loc[:, np.array(is_named, bool) | frame.notna().any().to_numpy()]
    if frame.shape[1] > 2 and sum(is_named) < frame.shape[1] / 2:
        raise ValueError(
            f"{source}: the first row has names for {sum(is_named)} of {frame.shape[1]} columns, as a title has; it "
            "must hold the names of the columns; remove the rows above these"
        )
    if len(sheets) < 2:
        return Table(frame, reading)
    return Table(
        frame, reading, (Decision("", f"{len(sheets)} sheets", f"the first, {shown(sheets[0])}, is read", "", False),)
    )


def _typed(source: Source, suffix: str, read: Callable[[], Any], reading: Reading, texts: Iterable[str] = ()) -> Any:
    """Return the frame of a format with types, its texts without blanks at both ends."""
    try:
        frame = read()
        frame.columns = [str(name).strip() for name in frame.columns]
        for place in range(frame.shape[1]):
            column = frame.iloc[:, place]
            text = column.map(str, na_action="ignore") if column.name in texts else column
            stripped = _without_blanks(text, reading.na_values)
            if stripped is not column:
                frame.isetitem(place, stripped)
    except ImportError:
        raise
    except Exception as error:  # a hostile file fails in many ways; text that is not UTF-8 when it is used
        raise ValueError(unreadable(source, suffix, error)) from None
    return frame


def _without_blanks(column: Any, na_values: Sequence[str]) -> Any:
    """Return a column without the blanks at both ends of its texts, and with these values missing."""
    import pandas

    is_category = isinstance(column.dtype, pandas.CategoricalDtype)
    if is_category or pandas.api.types.is_string_dtype(column.dtype) or column.dtype == object:
        texts = column.cat.categories if is_category else column
        if any(isinstance(text, str) and text != text.strip() for text in texts):
            stripped = column.astype(object).map(lambda text: text.strip() if isinstance(text, str) else text)
            column = stripped.astype("category" if is_category else column.dtype)
    if not na_values:
        return column
    missing = column.astype(str).isin(na_values)
    if pandas.api.types.is_numeric_dtype(column.dtype) and not pandas.api.types.is_bool_dtype(column.dtype):
        missing |= column.isin(pandas.to_numeric(pandas.Series(na_values), errors="coerce").dropna())
    return column.mask(missing) if missing.any() else column


def _map_npy(path: Path) -> Any:
    """Map the array, since a header may declare more than the file and the memory hold."""
    with open(path, "rb") as file:
        begin = file.read(len(np.lib.format.MAGIC_PREFIX))
    if begin.startswith(b"PK"):
        raise ValueError("it holds several arrays, as np.savez writes them")
    if begin and begin != np.lib.format.MAGIC_PREFIX:  # NumPy takes it for a pickle, and advises to trust it
        raise ValueError("it begins with other bytes")
    return np.load(path, allow_pickle=False, mmap_mode="r")


def _write_npy(rows: np.ndarray, file: IO[bytes]) -> None:
    np.save(file, rows, allow_pickle=False)


_CSV = Reader(TABLE, "CSV", read_text, "DataFrame.to_csv(path, index=False)", None, ("pandas",), may_be_compressed=True)
_JSON = Reader(
    TABLE, "JSON", _read_json, "DataFrame.to_json(path, orient='records')", None, ("pandas",), may_be_compressed=True
)
# By suffix, which may have two parts. The first of each kind is the example in help texts.
READERS = {
    ".npy": Reader(ROWS, ".npy", _map_npy, "np.save(path, {})", _write_npy),
    ".csv": replace(_CSV, write=_write_csv),
    ".tsv": _CSV,
    ".txt": _CSV,
    ".zip": replace(_CSV, may_be_compressed=False),  # of one file of text, whatever its name
    ".parquet": Reader(
        TABLE, "Parquet", _read_parquet, "DataFrame.to_parquet(path)", _write_parquet, ("pandas", "pyarrow")
    ),
    ".feather": Reader(TABLE, "Feather", _read_feather, "DataFrame.to_feather(path)", None, ("pandas", "pyarrow")),
    ".json": _JSON,
    ".jsonl": _JSON,
    ".ndjson": _JSON,
    ".xlsx": Reader(
        TABLE, "Excel", _read_excel, "DataFrame.to_excel(path, index=False)", None, ("pandas", "openpyxl"), "excel"
    ),
}


def suffix_of(name: str | os.PathLike[str]) -> str | None:
    """Return the longest suffix that ends a file's name and can be read, whatever its case, or None."""
    found = Path(name).name.lower()
    packed = ["", *COMPRESSIONS]
    known = [
        suffix + end for suffix, reader in READERS.items() for end in (packed if reader.may_be_compressed else [""])
    ]
    return max((suffix for suffix in known if found.endswith(suffix) and found != suffix), key=len, default=None)


def reader_of(name: str | os.PathLike[str]) -> Reader | None:
    """Return the reader of a file by its name, None for one without a suffix that can be read."""
    suffix = suffix_of(name)
    if suffix is None:
        return None
    return READERS[suffix] if suffix in READERS else READERS[suffix.rpartition(".")[0]]


def suffixes(kind: str) -> list[str]:
    """Return the suffixes of a kind of files."""
    return [suffix for suffix, reader in READERS.items() if reader.kind == kind]


def example(kind: str, stem: str) -> str:
    """Return the name of a file of that kind, such as T.csv, for help texts and messages."""
    return stem + suffixes(kind)[0]


def check_installed(reader: Reader) -> None:
    """Raise ImportError if what reads a format is not installed."""
    missing = next((module for module in reader.needs if importlib.util.find_spec(module) is None), None)
    if missing is not None:
        others = [suffix for suffix, other in READERS.items() if missing not in other.needs]
        raise ImportError(
            f"{reader.called} files need {missing}, which is not installed. Run: pip install 'xpnet[{reader.extra}]', "
            f"or give a {either(others)} file."
        )


def pandas_for(what: str) -> Any:
    """Return pandas, which `what` needs; raises ImportError if it is not installed."""
    try:
        import pandas
    except ImportError:
        raise ImportError(f"{what} needs pandas, which is not installed. Run: pip install 'xpnet[data]'") from None
    return pandas


def either(words: Sequence[str]) -> str:
    """Return words as a choice, such as ".csv or .parquet"."""
    return " or ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))


def unreadable(source: Source, suffix: str, error: Exception) -> str:
    """Return the message of a file that is not of its format."""
    reader = READERS[suffix]
    return (
        f"{source} is not a {reader.called} file that {reader.needs[-1]} can read ({one_line(error)}); "
        f"write it with {reader.saved_by}"
    )
