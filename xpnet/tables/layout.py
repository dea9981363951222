"""How a text holds a table, found out from its beginning: encoding, separator, decimal sign, names of the columns."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from xpnet.checks import shown
from xpnet.tables.decisions import Decision
from xpnet.tables.sources import MAGIC, Source
from xpnet.tables.table import Reading

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
BLANK = " "
HEAD = 1 << 12  # bytes in which marks and zeros are looked for
SAMPLE = 1 << 18  # bytes at first; more while they hold fewer than three lines
N_ROWS = 300  # of the sample that are looked at
MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
COMMENT = ("#", "%", "//")
# Possessive, so that a long text takes no longer than its length.
NUMBER = re.compile(r"[-+]?(\d++[.,]?\d*+|[.,]\d++)([eE][-+]?\d++)?")
DECIMAL = re.compile(r"[-+]?\d*+([.,])\d++([eE][-+]?\d++)?")
THOUSANDS = re.compile(r"[-+]?[1-9]\d{0,2}[.,]\d{3}")  # or three decimal places: it says nothing
CONTROL = re.compile(r"[\x00-\x08\x0e-\x19\x1c-\x1f]")


@dataclass(frozen=True)
class Layout:
    """How a text holds a table.

    reading: with what was found out.  names: of the columns.  n_lines: how many lines the header ends.
    n_header, n_fields: how many fields the header and each row have.  decisions: what is worth saying.
    """

    reading: Reading
    names: tuple[str, ...]
    n_lines: int
    n_header: int
    n_fields: int
    decisions: tuple[Decision, ...] = ()


Row = tuple[int, list[str]]  # number of its last line, fields


def text_source(source: Source, reading: Reading) -> tuple[Source, Reading]:
    """Return the source without the mark of its encoding, UTF-16 in UTF-8, and the reading with the encoding if found.

    Raises UnicodeDecodeError for what is not UTF-16 although it seems to be, or should be.
    """
    head = _beginning(source, HEAD)
    for magic, suffix in MAGIC.items():
        if head.startswith(magic):
            raise ValueError(f"{source} is a binary file of the kind {suffix}, and no text; give it such a name")
    asked = None if reading.encoding is None else codecs.lookup(reading.encoding).name
    for mark, encoding in MARKS:
        if head.startswith(mark) and asked in (None, encoding):
            source, reading = replace(source, start=len(mark)), replace(reading, encoding=encoding)
    n_zeros = (head[::2].count(0), head[1::2].count(0))
    if reading.encoding is None and max(n_zeros) > 0.3 * len(head) / 2:
        reading = replace(reading, encoding="utf-16-be" if n_zeros[0] > n_zeros[1] else "utf-16-le")
    encoding = codecs.lookup(reading.encoding or "utf-8").name
    if not encoding.startswith(("utf-16", "utf-32")):
        return replace(source, encoding=encoding), reading
    return Source(source.path, source.read().decode(encoding).encode()), replace(reading, encoding=encoding)


def find_layout(source: Source, reading: Reading) -> Layout:
    """Return how a text holds a table; raises ValueError in one line for what is no table."""
    text, is_whole = _sample(source)
    separator = reading.separator or _separator(text, is_whole)
    rows = rows_of(text, separator, is_whole)
    if not rows:
        raise ValueError(f"{source} is empty; it must have a line of column names and a row for each sample")
    _refuse_titles(source, rows)
    n_lines, header = rows[0]
    names, n_header, n_fields = [name.strip() for name in header], len(header), len(header)
    decisions: list[Decision] = []
    counts = Counter(len(fields) for _, fields in rows[1:])
    n_usual = counts.most_common(1)[0][0] if counts else n_header
    if n_usual == n_header + 1 and len(counts) == 1:
        n_fields = n_usual
        if any(fields[-1].strip() for _, fields in rows[1:]):  # else a separator ends each row
            names.insert(0, "")
            decisions.append(
                Decision("", "one name fewer than fields", "the first column is taken as one without a name", "", False)
            )
    elif n_usual < n_header and not any(names[n_usual:]):  # separators end the header
        names, n_fields = names[:n_usual], n_usual
    decimal = reading.decimal or _decimal(rows[1:])
    found = replace(reading, separator=separator, decimal=decimal)
    tidied, renamed = tidy_names(source, names)
    said = [*_said(reading, found), *decisions, *renamed]
    return Layout(found, tuple(tidied), n_lines, n_header, n_fields, tuple(said))


def rows_of(text: str, separator: str, is_whole: bool = True) -> list[Row]:
    """Return the first rows of a text that are not blank.  is_whole: whether it ends where the table does."""
    rows: list[Row] = []
    reader = fields_of(io.StringIO(text, newline=""), separator)
    try:
        for fields in reader:
            if any(field.strip() for field in fields) or len(fields) > 1:
                rows.append((reader.line_num, fields))
            if len(rows) > N_ROWS:
                return rows
    except csv.Error:
        return rows
    return rows if is_whole else rows[:-1]


def fields_of(lines: Iterable[str], separator: str) -> Any:
    """Return a reader of the fields of each row.  separator: BLANK for any number of blanks."""
    if separator == BLANK:
        lines = (line.strip(" \t\r\n").replace("\t", " ") + "\n" for line in lines)
    return csv.reader(lines, delimiter=separator, skipinitialspace=True)


def tidy_names(source: Source, names: Sequence[str]) -> tuple[list[str], list[Decision]]:
    """Return names of columns, none empty and none twice, and what was changed."""
    found: dict[str, None] = {}
    decisions = []
    for place, name in enumerate(names):
        if not all(sign.isprintable() or sign.isspace() for sign in name):
            raise ValueError(f"{source}: the column {shown(name)} has a control character in its name; rename it")
        tidied, number = name or f"Unnamed: {place}", 0
        while tidied in found:
            number += 1
            tidied = f"{name}.{number}"
        if number:
            decisions.append(
                Decision(tidied, f"another column is called {shown(name)} too", f"called {tidied}", "", False)
            )
        found[tidied] = None
    return list(found), decisions


def _beginning(source: Source, n_bytes: int) -> bytes:
    with source.open() as file:
        return file.read(n_bytes)


def _sample(source: Source) -> tuple[str, bool]:
    """Return the beginning of a text, three lines at least, and whether it is all of it."""
    n_bytes = SAMPLE
    while True:
        content = _beginning(source, n_bytes)
        is_whole = len(content) < n_bytes
        if is_whole or content.count(b"\n") + content.count(b"\r") >= 3:
            break
        n_bytes *= 8
    text = codecs.getincrementaldecoder(source.encoding)().decode(content, is_whole)
    control = CONTROL.search(text)
    if control is not None:
        refuse_control(source, text.count("\n", 0, control.start()) + 1, control[0])
    return text, is_whole


def refuse_control(source: Source, line: int, sign: str) -> None:
    """Refuse a text with a sign that no text has."""
    found = "a NUL byte" if sign == "\0" else f"the control character {sign!a}"
    raise ValueError(f"{source}: line {line} has {found}, so it is no text; save it as CSV in UTF-8")


def _separator(text: str, is_whole: bool) -> str:
    """Return the separator by which most rows have the same number of fields, and the more fields of two such."""
    best, separator = (0.5, 1), ","
    for sign in SEPARATORS:
        score = _consistency(rows_of(text, sign, is_whole))
        if score > best:
            best, separator = score, sign
    by_blanks = rows_of(text, BLANK, is_whole) if best[0] <= 0.5 else []
    is_blank = _consistency(by_blanks)[0] > 0.95 and not _is_one_column(by_blanks)
    return BLANK if is_blank else separator


def _is_one_column(rows: list[Row]) -> bool:
    """Whether rows parted by blanks are texts of one column, such as dates with times; R's have running numbers."""
    return len(rows[0][1]) == 1 and any(fields[0] != str(i) for i, (_, fields) in enumerate(rows[1:], 1))


def _consistency(rows: list[Row]) -> tuple[float, int]:
    """Return the share of the rows that have the usual number of fields, and that number; 0 where it is one field."""
    counts = Counter(len(fields) for _, fields in rows)
    if not rows or len(rows[0][1]) == 1 < len(rows) == 2:
        return 0.0, 0
    n_fields, n_rows = counts.most_common(1)[0]
    is_header_short = len(rows) > 2 and len(rows[0][1]) == n_fields - 1 > 0
    return (0.0, 0) if n_fields == 1 else ((n_rows + 0.9 * is_header_short) / len(rows), n_fields)


def _decimal(rows: list[Row]) -> str | None:
    """Return the sign that stands before decimal places, None where no number has any."""
    found = Counter(
        match[1]
        for _, fields in rows
        for field in fields
        if (match := DECIMAL.fullmatch(field.strip())) and not THOUSANDS.fullmatch(field.strip())
    )
    return None if not found else "," if found[","] > found["."] else "."


def _refuse_titles(source: Source, rows: list[Row]) -> None:
    """Refuse lines above the names of the columns, and what is a page of the web."""
    n_last, first = rows[0]
    if first[0].lower().startswith(("<!doctype", "<html", "<?xml")):
        raise ValueError(f"{source} is HTML or XML, no table ({shown(first[0])}); save the table itself as CSV")
    if len(rows) < 3:
        return
    n_usual = Counter(len(fields) for _, fields in rows[1:]).most_common(1)[0][0]
    place = next((i for i, (_, fields) in enumerate(rows) if _fits(fields, n_usual)), 0)
    is_short = not _fits(first, n_usual) and len(first) <= n_usual
    if len(first) == n_usual - 1 and all(first) and not (len(first) == 1 and _is_header(rows[1:])):
        is_short = False  # the first column has no name
    n_comments = next((i for i, (_, fields) in enumerate(rows) if not fields[0].startswith(COMMENT)), 0)
    if n_comments > 1 or (n_comments == 1 and (is_short or _is_header(rows[1:]))):
        is_short, place = True, max(place, n_comments)
    if is_short and place > 0:
        line = rows[place][0] - sum(field.count("\n") for field in rows[place][1])
        raise ValueError(
            f"{source}: line {n_last} is a title or a comment ({shown(','.join(first))}), and the names of the columns "
            f"must be the first line, not line {line}; take the lines above them away: "
            f"pandas.read_csv(path, skiprows={line - 1}).to_csv(new_path, index=False)"
        )


def _fits(fields: list[str], n_usual: int) -> bool:
    return len(fields) == n_usual and sum(map(bool, fields)) >= len(fields) / 2


def _is_header(rows: list[Row]) -> bool:
    """Whether the first row has names alone, and the next one a number."""
    (_, names), (_, values), *_ = rows
    has_number = [any(NUMBER.fullmatch(field.strip()) for field in fields) for fields in (names, values)]
    return all(names) and len(names) == len(values) and has_number == [False, True]


def _said(asked: Reading, found: Reading) -> list[Decision]:
    """Return what is worth saying of the signs that were found out."""
    decisions = []
    if asked.separator is None and found.separator not in (None, ","):
        called = {**SEPARATORS, BLANK: "blanks"}[found.separator]
        decisions.append(Decision("", f"{called} between fields", "they separate columns", "--separator SIGN", False))
    if asked.decimal is None and found.decimal == ",":
        decisions.append(Decision("", "numbers such as 1,5", "the comma is their decimal sign", "--decimal .", False))
    return decisions
