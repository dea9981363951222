"""Tables as text, read by pandas: every row must have as many fields as the others, which pandas does not ask for."""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import IO, Any

from xpnet.checks import one_line
from xpnet.tables.decisions import Decision
from xpnet.tables.layout import BLANK, Layout, fields_of, find_layout, text_source
from xpnet.tables.scanning import count_separators, outer_blanks
from xpnet.tables.sources import Source
from xpnet.tables.table import Reading, Table

# What pandas takes for missing, but for "None", which often is a category: no medicine, no garage.
MISSING = (
    *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN"),
    *("<NA>", "N/A", "NA", "NULL", "NaN", "n/a", "nan", "null"),
)
NONE = "None"  # missing among numbers
OTHER_ENCODING = "cp1252"  # of Windows in the west, and of what is called Latin-1


def read_text(source: Source, reading: Reading, text_columns: Iterable[str]) -> Table:
    """Read a table of fields that separators part; raises ValueError in one line for what is none."""
    asked = reading
    try:
        source, reading = text_source(source, reading)
        table = _read(source, reading, text_columns)
    except UnicodeDecodeError as error:
        if reading.encoding is not None:
            raise ValueError(not_decoded(source, reading.encoding, error)) from None
        source, reading = replace(source, encoding=OTHER_ENCODING), replace(reading, encoding=OTHER_ENCODING)
        try:
            table = _read(source, reading, text_columns)
        except UnicodeDecodeError:
            raise ValueError(not_decoded(source, f"UTF-8 or {OTHER_ENCODING}", error)) from None
    encoding = table.reading.encoding
    if asked.encoding is None and encoding is not None and encoding != "utf-8":
        said = Decision("", "a text that is not UTF-8", f"read as {encoding}", "--encoding NAME", False)
        return replace(table, decisions=(said, *table.decisions))
    return table


def not_decoded(source: Source, encoding: str, error: UnicodeDecodeError) -> str:
    """Return the message of a text that is not of an encoding."""
    return (
        f"{source} is not {encoding} ({one_line(error)}); it must be a text; name its encoding with --encoding, "
        "or save it in UTF-8"
    )


def _read(source: Source, reading: Reading, text_columns: Iterable[str]) -> Table:
    layout = find_layout(source, reading)
    begins, has_outer_blanks = outer_blanks(source, layout.reading.separator or ",")
    texts = set(text_columns) & set(layout.names)
    try:
        frame = _parsed(source, layout, begins, texts)
    except UnicodeDecodeError:
        raise
    except (ValueError, OverflowError) as error:  # pandas's ParserError is a ValueError
        _check_rows(source, layout)
        raise ValueError(_not_read(source, error)) from None
    if not _has_whole_rows(source, layout, len(frame), _ends_in_gap(frame)):
        _check_rows(source, layout)
    _tidy(frame, layout, texts, has_outer_blanks)
    return Table(frame, layout.reading, layout.decisions)


def _not_read(source: Source, error: Exception) -> str:
    return (
        f"{source} is not a CSV file that pandas can read ({one_line(error)}); write it with "
        "DataFrame.to_csv(path, index=False)"
    )


def _tidy(frame: Any, layout: Layout, texts: set[str], has_outer_blanks: bool) -> None:
    if has_outer_blanks:
        _strip(frame, layout, texts)
    _read_numbers_beside_none(frame, texts)


def text_parts(source: Source, reading: Reading, text_columns: Iterable[str], n_rows: int) -> Iterator[Any]:
    """Yield the rows that `read_text` reads as frames of n_rows rows; each has the types that its own rows give.

    Raises UnicodeDecodeError for bytes that are not of the encoding found or asked for.
    """
    import pandas

    source, reading = text_source(source, reading)
    layout = find_layout(source, reading)
    begins, has_outer_blanks = outer_blanks(source, layout.reading.separator or ",")
    texts, n, has_gap = set(text_columns) & set(layout.names), 0, False
    try:
        with (
            source.open_text() as file,
            _reader(file, layout, begins, texts, low_memory=False, chunksize=n_rows) as read,
        ):
            while True:
                with warnings.catch_warnings():  # not around a yield, where others would be caught
                    warnings.simplefilter("error", pandas.errors.ParserWarning)
                    frame = next(read, None)
                if frame is None or len(frame) == 0:
                    break
                n, has_gap = n + len(frame), has_gap or _ends_in_gap(frame)
                _tidy(frame, layout, texts, has_outer_blanks)
                yield frame
    except UnicodeDecodeError:
        raise
    except pandas.errors.EmptyDataError:
        return
    except (ValueError, OverflowError, pandas.errors.ParserWarning) as error:
        _check_rows(source, layout)
        raise ValueError(_not_read(source, error)) from None
    if not _has_whole_rows(source, layout, n, has_gap):
        _check_rows(source, layout)


def _parsed(source: Source, layout: Layout, begins_with_blanks: bool, texts: set[str]) -> Any:
    """Return the frame that pandas makes of the rows; raises ValueError where rows are longer than the header."""
    import pandas

    def read(low_memory: bool) -> Any:
        with source.open_text() as file:
            return _reader(file, layout, begins_with_blanks, texts, low_memory=low_memory)

    with warnings.catch_warnings():
        warnings.simplefilter("error", pandas.errors.ParserWarning)
        warnings.simplefilter("error", pandas.errors.DtypeWarning)
        try:
            return read(low_memory=True)
        except pandas.errors.DtypeWarning:  # parts of a column would have other types than the rest
            return read(low_memory=False)
        except pandas.errors.ParserWarning as warning:
            raise ValueError(one_line(warning)) from None
        except pandas.errors.EmptyDataError:
            return pandas.DataFrame(columns=list(layout.names))


def _reader(file: IO[str], layout: Layout, begins_with_blanks: bool, texts: set[str], **how: Any) -> Any:
    """Return what pandas reads below the header of an open text.  how: further options of read_csv."""
    import pandas

    for _ in range(layout.n_lines):
        file.readline()
    options = _options(layout.reading) | {
        "names": list(layout.names),
        "sep": r"\s+" if layout.reading.separator == BLANK else layout.reading.separator,
        "dtype": dict.fromkeys(texts, str),
        "skipinitialspace": begins_with_blanks,  # takes a third longer
    }
    return pandas.read_csv(file, **options, **how)


def _options(reading: Reading) -> dict[str, Any]:
    missing = {"na_values": [*MISSING, *reading.na_values], "keep_default_na": False}
    return {"header": None, "index_col": False, "decimal": reading.decimal or ".", **missing}


def _read_numbers_beside_none(frame: Any, texts: set[str]) -> None:
    """Make numbers of the columns that hold nothing but numbers and None."""
    import pandas

    for place, dtype in enumerate(frame.dtypes):
        column = frame.iloc[:, place]
        if column.name in texts or not (dtype.kind == "O" or dtype == "str"):
            continue
        others = column[(column != NONE) & column.notna()]
        values = pandas.to_numeric(others, errors="coerce") if (column == NONE).any() else None
        if values is not None and values.notna().all():
            frame.isetitem(place, values.reindex(column.index))


def _strip(frame: Any, layout: Layout, texts: set[str]) -> None:
    """Take the blanks at both ends of all texts away."""
    for place, dtype in enumerate(frame.dtypes):
        if dtype.kind == "O" or dtype == "str":
            column = frame.iloc[:, place]
            stripped = _stripped(column, layout.reading, column.name in texts)
            if stripped is not column:
                frame.isetitem(place, stripped)


def _stripped(column: Any, reading: Reading, is_text: bool) -> Any:
    """Return a column without the blanks at both ends of its texts, read by pandas once more if there are any."""
    import pandas

    if all(text == text.strip() for text in column.unique() if isinstance(text, str)):
        return column
    stripped = column.fillna("").str.strip()
    fields = io.StringIO()
    csv.writer(fields).writerows([text] for text in stripped)
    fields.seek(0)
    read = pandas.read_csv(
        fields, names=[column.name], dtype=str if is_text else None, skip_blank_lines=False, **_options(reading)
    )
    return read.iloc[:, 0]


def _ends_in_gap(frame: Any) -> bool:
    """Whether the last value of a row is missing."""
    return len(frame) > 0 and bool(frame.iloc[:, -1].isna().any())


def _has_whole_rows(source: Source, layout: Layout, n_rows: int, has_gap: bool) -> bool:
    """Whether no row is short, as far as separators tell.

    has_gap: whether the last value of a row is missing, as pandas fills a short row with missing values.
    """
    if not has_gap:
        return True
    separator, n_needed = layout.reading.separator or ",", n_rows * (layout.n_fields - 1) + layout.n_header - 1
    return separator != BLANK and count_separators(source, separator) == n_needed


def _check_rows(source: Source, layout: Layout) -> None:
    """Refuse the first row that has more or fewer fields than it should, by its line; slow, so for a cause alone."""
    separator, n_fields = layout.reading.separator or ",", layout.n_fields
    with source.open_text() as file:
        rows = fields_of(file, separator)
        try:
            for row in rows:
                if (
                    rows.line_num <= layout.n_lines
                    or len(row) == n_fields
                    or (len(row) < 2 and not "".join(row).strip())
                ):
                    continue
                found = "1 field" if len(row) == 1 else f"{len(row)} fields"
                raise ValueError(
                    f"{source}: line {rows.line_num} has {found} and the header {layout.n_header}; put a field that "
                    'holds a separator or a line break in double quotes ("a, b"), and leave what is missing empty'
                )
        except csv.Error as error:
            raise ValueError(
                f"{source} is not a CSV file ({one_line(error)}); is a double quote left open? "
                "Write it with DataFrame.to_csv(path, index=False)"
            ) from None
