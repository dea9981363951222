"""Files of samples, by suffix: tables (CSV, Parquet) as pandas DataFrames, plain rows (.npy) as mapped arrays.

`READERS` has a row for each format; help texts, checks and messages follow from it. Tables are read strictly, and files
are written whole or not at all.

A CSV file is UTF-8 with commas, its first line the names of the columns; a field with a comma or a line break stands in
double quotes. A missing value is empty, or a word that pandas reads as one, such as NA, NaN, None and null. Blanks at
both ends of a name or a value do not count, in any format, except within double quotes.
"""

from __future__ import annotations

import codecs
import csv
import glob
import importlib.util
import io
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from xpnet.checks import one_line, shown
from xpnet.files import absolute, read_whole, write_atomically
from xpnet.tables.table import Reading, Table

TABLE, ROWS = "table", "rows"
STDIN, FOLDER_ENDS = "-", ("/", os.sep)
Names = str | os.PathLike[str] | Sequence[str]  # of one file, or of several
ROWS_AS_TEXT = ".csv"  # plain rows are also written as CSV, by NumPy alone
SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}
# A field of a CSV file that is not empty, and a blank beside a separator that pandas would keep.
_FIELD = re.compile(rb'[ \t]*(?:"[^"]*(?:""[^"]*)*"?[^,\r\n]*|[^",\r\n][^,\r\n]*)')
_BLANK = re.compile(rb"[ \t](?:[,\r\n]|\Z)|(?:\A|[,\r\n])[ ]*\t")


@dataclass(frozen=True)
class Reader:
    """A format of files.

    kind: TABLE, read as a pandas DataFrame, or ROWS, read as an array (n_samples, n_features).
    called: its name in messages.  read: read(path, text_columns) of a table, read(path) of rows.
    saved_by: the call that saves such a file, for messages, with {} for the array of rows.
    write: write(frame or array, binary file), None for a format that is not written.
    needs: the modules that must be installed; messages name the last one as what reads the file.
    extra: the extra of xpnet that installs them.
    """

    kind: str
    called: str
    read: Callable[..., Any]
    saved_by: str
    write: Callable[[Any, IO[bytes]], None] | None = None
    needs: tuple[str, ...] = ()
    extra: str = ""


def _read_csv(path: Path, text_columns: Iterable[str]) -> Any:
    import pandas

    content = _without_blanks(read_whole(path, sys.maxsize).removeprefix(codecs.BOM_UTF8))
    names = set(_checked_header(path, content))
    dtypes = {name: str for name in text_columns if name in names}
    try:
        return pandas.read_csv(
            io.BytesIO(content), index_col=False, skipinitialspace=True, low_memory=False, dtype=dtypes
        )
    except (ValueError, OverflowError) as error:  # pandas's ParserError is a ValueError
        raise ValueError(_unreadable(path, error)) from None


def _without_blanks(content: bytes) -> bytes:
    """Return a CSV file without the blanks at both ends of its fields."""
    return _FIELD.sub(lambda field: field[0].strip(b" \t"), content) if _BLANK.search(content) else content


def _write_csv(frame: Any, file: IO[bytes]) -> None:
    frame.to_csv(file, index=False, lineterminator="\n")  # floats in the fewest digits that give them back


def _read_parquet(path: Path, text_columns: Iterable[str]) -> Any:
    """Read a file whose columns have types, so that no text column need be named."""
    import pandas

    try:
        frame = pandas.read_parquet(path)
    except ImportError:
        raise
    except Exception as error:  # a hostile file fails in many ways
        raise ValueError(_unreadable(path, error)) from None
    if any(name is not None for name in frame.index.names):  # an index with a name was a column
        frame = frame.reset_index()
    frame.columns = [str(name).strip() for name in frame.columns]
    try:
        for place in range(frame.shape[1]):
            frame.isetitem(place, _stripped(frame.iloc[:, place]))
    except Exception as error:  # text that is not UTF-8 is found when it is used
        raise ValueError(_unreadable(path, error)) from None
    return frame


def _stripped(column: Any) -> Any:
    """Return a column without the blanks at both ends of its texts."""
    import pandas

    is_category = isinstance(column.dtype, pandas.CategoricalDtype)
    if not (is_category or pandas.api.types.is_string_dtype(column.dtype)):
        return column
    texts = column.cat.categories if is_category else column
    if not any(isinstance(text, str) and text != text.strip() for text in texts):
        return column
    stripped = column.astype(object).map(lambda text: text.strip() if isinstance(text, str) else text)
    return stripped.astype("category" if is_category else column.dtype)


def _write_parquet(frame: Any, file: IO[bytes]) -> None:
    frame.to_parquet(file, index=False)


def _map_npy(path: Path) -> Any:
    """Map the array, since a header may declare more than the file and the memory hold."""
    return np.load(path, allow_pickle=False, mmap_mode="r")


def _write_npy(rows: np.ndarray, file: IO[bytes]) -> None:
    np.save(file, rows, allow_pickle=False)


# By suffix, which may have two parts (".csv.gz"). The first of each kind is the example in help texts.
READERS = {
    ".npy": Reader(ROWS, ".npy", _map_npy, "np.save(path, {})", _write_npy),
    ".csv": Reader(
        TABLE, "CSV", _read_csv, "DataFrame.to_csv(path, index=False)", _write_csv, needs=("pandas",), extra="data"
    ),
    ".parquet": Reader(
        TABLE,
        "Parquet",
        _read_parquet,
        "DataFrame.to_parquet(path)",
        _write_parquet,
        needs=("pandas", "pyarrow"),
        extra="data",
    ),
}


def each(names: Names) -> list[str]:
    """Return the names of one file, or of several, as a list."""
    return [os.fspath(names)] if isinstance(names, (str, os.PathLike)) else list(names)


def called(names: Names) -> str:
    """Return what messages call a table of one file, or of several."""
    first, *more = each(names)
    return ("stdin" if first == STDIN else first) + (f" and {len(more)} more" if more else "")


def stem_of(names: Names) -> str:
    """Return the name of a file, or of the first of several, without folder and suffix."""
    first = Path(each(names)[0])
    suffix = suffix_of(first)
    return "stdin" if str(first) == STDIN else first.name[: -len(suffix)] if suffix is not None else first.stem


def expanded(text: str) -> str | list[str]:
    """Return the files that a pattern such as part-*.csv means, a folder with the sign of one, else the text.

    Raises ValueError for a pattern that no file fits.
    """
    if Path(text).is_dir() and suffix_of(text) is None:
        return os.path.join(text, "")
    if not glob.has_magic(text) or Path(text).exists():
        return text
    found = sorted(glob.glob(text))
    if not found:
        raise ValueError(f"no file fits {shown(text)}; name files that are there, or leave out * ? [")
    return found[0] if len(found) == 1 else found


def absolute_names(names: Names) -> str | list[str]:
    """Return the whole paths of one file, or of several; stdin and the sign of a folder stay."""
    paths = [
        name if name == STDIN else os.path.join(absolute(name), "") if name.endswith(FOLDER_ENDS) else absolute(name)
        for name in each(names)
    ]
    return paths if isinstance(names, list) else paths[0]


def suffix_of(name: str | os.PathLike[str]) -> str | None:
    """Return the longest suffix of READERS that ends a file's name, whatever its case, or None."""
    found = Path(name).name.lower()
    return max((suffix for suffix in READERS if found.endswith(suffix) and found != suffix), key=len, default=None)


def kind_of(names: Names) -> str | None:
    """Return TABLE or ROWS by a file's name, None for a name without a suffix of READERS.

    Several files, a folder, which ends in a slash, and stdin are tables.
    """
    name, *more = each(names)
    if more or name == STDIN or name.endswith(FOLDER_ENDS):
        return TABLE
    suffix = suffix_of(name)
    return None if suffix is None else READERS[suffix].kind


def is_table(names: Names) -> bool:
    """Whether a file's name is that of a table."""
    return kind_of(names) == TABLE


def is_rows(names: Names) -> bool:
    """Whether a file's name is that of plain rows."""
    return kind_of(names) == ROWS


def suffixes(kind: str) -> list[str]:
    """Return the suffixes of a kind of files."""
    return [suffix for suffix, reader in READERS.items() if reader.kind == kind]


def written_suffixes(kind: str) -> list[str]:
    """Return the suffixes to which predictions for a kind of files may be written."""
    written = [suffix for suffix in suffixes(kind) if READERS[suffix].write is not None]
    return [*written, ROWS_AS_TEXT] if kind == ROWS else written


def either(words: Sequence[str]) -> str:
    """Return words as a choice, such as ".csv or .parquet"."""
    return " or ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))


def example(kind: str, stem: str) -> str:
    """Return the name of a file of that kind, such as T.csv, for help texts and messages."""
    return stem + suffixes(kind)[0]


def rows_reader(path: Path) -> Reader:
    """Return the reader of a file of plain rows; for an unknown suffix, the first format's."""
    suffix = suffix_of(path)
    return READERS[suffix if suffix is not None and is_rows(path) else suffixes(ROWS)[0]]


def read_table(names: Names, reading: Reading = Reading(), text_columns: Iterable[str] = ()) -> Table:  # noqa: B008  frozen
    """Return the table in a file, or in several that have the same columns.

    names: of files; a folder stands for the tables in it, "-" for stdin.  reading: how, None for what is found out.
    text_columns: columns of a CSV file that are text, even if all their values look like numbers.
    Raises ImportError without pandas (or pyarrow), FileNotFoundError, and ValueError in one line for a file that is no
    table, has no rows, rows of different lengths, or columns without a name or with the same one.
    """
    (name,) = each(names)
    path, suffix = Path(name), suffix_of(name)
    formats = either(suffixes(TABLE))
    if suffix is None or not is_table(path):
        raise ValueError(f"{path} ends in {path.suffix!r}; it must be a table, a {formats} file")
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; name a {formats} file")
    reader = READERS[suffix]
    _check_installed(reader)
    frame = reader.read(path, text_columns)
    frame.columns = frame.columns.map(str)
    _check_names(path, list(frame.columns))
    if len(frame) == 0:
        raise ValueError(f"{path} has a header and no rows; it must have a row for each sample below it")
    frame.index = range(1, len(frame) + 1)
    return Table(frame, reading)


def open_array(path: Path) -> np.ndarray:
    """Return the array of real numbers in a file, mapped if its format can be; raises one line for any other file."""
    reader = rows_reader(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; write one with {reader.saved_by.format('rows')}")
    _check_installed(reader)
    save = reader.saved_by.format("X")
    try:
        array = reader.read(path)
    except Exception as error:  # a hostile header fails in many ways: SyntaxError, TokenError, MemoryError, ...
        raise ValueError(
            f"{path} is not a whole {reader.called} file of numbers ({one_line(error)}); write it with {save}"
        ) from None
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiub":
        raise ValueError(f"{path} does not hold one array of real numbers; write it with {save}")
    return array


def open_rows(path: Path, n_features: int | None = None) -> np.ndarray:
    """Return rows (n_samples, n_features), as many features as the network takes where that is given."""
    rows = open_array(path)
    n = "n_features" if n_features is None else str(n_features)
    if rows.size == 0:
        raise ValueError(f"{path} is {rows.shape} and so is empty; write rows (n_samples, {n}) into it")
    if rows.ndim != 2 or (n_features is not None and rows.shape[1] != n_features):
        needed = "it must be" if n_features is None else "the network needs"
        raise ValueError(
            f"{path} is {rows.shape}; {needed} rows (n_samples, {n}); "
            "reshape it with X.reshape(len(X), -1), or transpose it"
        )
    return rows


def check_written(path: str | os.PathLike[str], kind: str) -> str:
    """Return the suffix of a file to write predictions to; raises ValueError for one that is not written."""
    suffix = suffix_of(path)
    if suffix is None or suffix not in written_suffixes(kind):
        raise ValueError(f"{path} ends in {Path(path).suffix!r}; name a {either(written_suffixes(kind))} file")
    return suffix


def write_table(path: str | os.PathLike[str], columns: dict[str, Any]) -> None:
    """Write columns as a table, in the format of the name's suffix; raises ValueError for one that is not written."""
    reader, content = READERS[check_written(path, TABLE)], io.BytesIO()
    _check_installed(reader)
    import pandas

    assert reader.write is not None
    reader.write(pandas.DataFrame(columns), content)
    write_atomically(path, content.getvalue())


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
    write_atomically(path, content.getvalue())


def _check_installed(reader: Reader) -> None:
    missing = next((module for module in reader.needs if importlib.util.find_spec(module) is None), None)
    if missing is not None:
        others = [suffix for suffix, other in READERS.items() if missing not in other.needs]
        raise ImportError(
            f"{reader.called} files need {missing}, which is not installed. Run: pip install 'xpnet[{reader.extra}]', "
            f"or give a {either(others)} file."
        )


def _unreadable(path: Path, error: Exception) -> str:
    reader = READERS[suffix_of(path) or ""]
    return (
        f"{path} is not a {reader.called} file that {reader.needs[-1]} can read ({one_line(error)}); "
        f"write it with {reader.saved_by}"
    )


def _checked_header(path: Path, content: bytes) -> list[str]:
    """Return the names of the columns of a CSV file whose rows all have as many fields.  content: its bytes.

    pandas would fill a short row with missing values, and take an extra first field for an index.
    """
    names: list[str] | None = None
    try:
        with io.TextIOWrapper(io.BytesIO(content), encoding="utf-8", newline="") as file:
            reader = csv.reader(_lines(path, file), skipinitialspace=True)
            for row in reader:
                if names is None and row:
                    names = row
                    _check_separator(path, names)
                    _check_names(path, names)
                elif row and names is not None and len(row) != len(names):
                    found = "1 field" if len(row) == 1 else f"{len(row)} fields"
                    raise ValueError(
                        f"{path}: line {reader.line_num} has {found} and the header {len(names)}; put a "
                        'field that holds a comma or a line break in double quotes ("a, b"), and leave '
                        "what is missing empty"
                    )
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 ({one_line(error)}); save it as CSV in UTF-8") from None
    except csv.Error as error:
        raise ValueError(
            f"{path} is not a CSV file ({one_line(error)}); is a double quote left open? "
            "Write it with DataFrame.to_csv(path, index=False)"
        ) from None
    if names is None:
        raise ValueError(f"{path} is empty; it must have a line of column names and a row for each sample")
    return names


def _lines(path: Path, file: IO[str]) -> Iterator[str]:
    """Yield the lines of a text; refuses NUL, at which pandas would end a field."""
    for number, line in enumerate(file, 1):
        if "\0" in line:
            raise ValueError(f"{path}: line {number} has a NUL byte, so it is no text; save it as CSV in UTF-8")
        yield line


def _check_separator(path: Path, names: list[str]) -> None:
    for sign, called in SEPARATORS.items():
        if len(names) == 1 and sign in names[0]:
            raise ValueError(
                f"{path} is separated by {called} ({shown(names[0])}); use commas: "
                f"pandas.read_csv(path, sep={sign!r}).to_csv(new_path, index=False), and decimal=',' "
                "where numbers have a comma"
            )


def _check_names(path: Path, names: list[str]) -> None:
    seen = set[str]()
    for place, name in enumerate(names):
        if not name.strip():
            raise ValueError(
                f"{path}: column {place + 1} has no name; name it in the first line, or write the file "
                "without an index: DataFrame.to_csv(path, index=False)"
            )
        if name in seen:
            raise ValueError(f"{path} has two columns {shown(name)}; rename or remove one of them")
        if not all(sign.isprintable() or sign.isspace() for sign in name):
            raise ValueError(f"{path}: the column {shown(name)} has a control character in its name; rename it")
        seen.add(name)
