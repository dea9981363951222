"""Tables on disk: CSV and Parquet files, read strictly into a pandas DataFrame and written whole.

A CSV file is UTF-8 with commas, its first line the names of the columns; a field with a comma or a line break stands in
double quotes. What is missing is empty, or one of the words that pandas takes for it, such as NA, NaN, None and null.
pandas, and for Parquet pyarrow, come with the extra `data`.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from xpnet.files import write_atomically

SUFFIXES = (".csv", ".parquet")
SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}


def is_table(name: str | os.PathLike[str]) -> bool:
    """Whether a name ends as a table's does."""
    return Path(name).suffix.lower() in SUFFIXES


def read_table(path: str | os.PathLike[str], text_columns: Iterable[str] = ()) -> Any:
    """Return the table as a pandas DataFrame whose index is 1 for the first row below the header.

    text_columns: of a CSV file, columns that are text, also where all that they hold here reads as numbers.
    Raises ImportError without pandas (or pyarrow), FileNotFoundError, and ValueError in one line for a file that is no
    table, has no rows, rows of different lengths, or columns without a name or with the same one.
    """
    pandas, path = _pandas(), Path(path)
    if not is_table(path):
        raise ValueError(f"{path} ends in {path.suffix!r}; needed is a table, a .csv or .parquet file")
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; name a .csv or a .parquet file")
    if path.suffix.lower() == ".csv":
        names = _checked_header(path)
        dtypes = {name: str for name in text_columns if name in names}
        try:
            frame = pandas.read_csv(
                path, encoding="utf-8-sig", index_col=False, skipinitialspace=True, low_memory=False, dtype=dtypes
            )
        except (ValueError, OverflowError) as error:  # pandas's ParserError is a ValueError
            raise ValueError(
                f"{path} is not a CSV file that pandas can read ({_line(error)}); "
                "write it with DataFrame.to_csv(path, index=False)"
            ) from None
    else:
        frame = _read_parquet(pandas, path)
        _check_names(path, list(frame.columns))
    if len(frame) == 0:
        raise ValueError(f"{path} has a header and no rows; needed is a row for each sample below it")
    frame.index = pandas.RangeIndex(1, len(frame) + 1)
    return frame


def write_table(path: str | os.PathLike[str], columns: dict[str, Any]) -> None:
    """Write columns as a CSV file, or as Parquet by the name's end, so that it is there whole or not at all."""
    frame, content = _pandas().DataFrame(columns), io.BytesIO()
    if Path(path).suffix.lower() == ".parquet":
        frame.to_parquet(content, index=False)
    else:
        frame.to_csv(content, index=False, float_format="%.9g", lineterminator="\n")
    write_atomically(path, content.getvalue())


def _pandas() -> Any:
    try:
        import pandas
    except ImportError:
        raise ImportError(
            "tables need pandas, which is not installed. Run: pip install 'xpnet[data]', or give a .npy file of rows."
        ) from None
    return pandas


def _read_parquet(pandas: Any, path: Path) -> Any:
    try:
        frame = pandas.read_parquet(path)
    except ImportError:
        raise ImportError(
            "Parquet files need pyarrow, which is not installed. Run: pip install 'xpnet[data]', or give a .csv file."
        ) from None
    except Exception as error:  # a hostile file fails in many ways
        raise ValueError(
            f"{path} is not a Parquet file that pyarrow can read ({_line(error)}); "
            "write it with DataFrame.to_parquet(path)"
        ) from None
    if any(name is not None for name in frame.index.names):  # an index with a name was a column
        frame = frame.reset_index()
    frame.columns = frame.columns.map(str)
    return frame


def _checked_header(path: Path) -> list[str]:
    """Return the names of the columns of a CSV file whose rows all have as many fields.

    pandas would fill a short row with missing values, and take a first field too many for an index.
    """
    names: list[str] | None = None
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
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
        raise ValueError(f"{path} is not UTF-8 ({_line(error)}); save it as CSV in UTF-8") from None
    except csv.Error as error:
        raise ValueError(
            f"{path} is not a CSV file ({_line(error)}); is a double quote left open? "
            "Write it with DataFrame.to_csv(path, index=False)"
        ) from None
    if names is None:
        raise ValueError(f"{path} is empty; needed are a line with the names of the columns and a row for each sample")
    return names


def _lines(path: Path, file: IO[str]) -> Iterator[str]:
    """The lines of a text; pandas would end a field at a NUL."""
    for number, line in enumerate(file, 1):
        if "\0" in line:
            raise ValueError(f"{path}: line {number} has a NUL byte, so it is no text; save it as CSV in UTF-8")
        yield line


def _check_separator(path: Path, names: list[str]) -> None:
    for sign, called in SEPARATORS.items():
        if len(names) == 1 and sign in names[0]:
            raise ValueError(
                f"{path} is separated by {called} ({names[0][:40]!r}); needed are commas: "
                f"pandas.read_csv(path, sep={sign!r}).to_csv(new_path, index=False), and decimal=',' "
                "where numbers have a comma"
            )


def _check_names(path: Path, names: list[str]) -> None:
    for place, name in enumerate(names):
        if not name.strip():
            raise ValueError(
                f"{path}: column {place + 1} has no name; name it in the first line, or write the file "
                "without an index: DataFrame.to_csv(path, index=False)"
            )
        if name in names[:place]:
            raise ValueError(f"{path} has two columns {name!r}; rename or remove one of them")


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
