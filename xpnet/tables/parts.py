"""A table that is larger than memory, in parts: the frames that it would give whole, some rows at a time.

A column has in every part the type that it has in the whole, which is found out by reading the file once before.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from xpnet.network.blocks import BLOCK
from xpnet.tables.files import Names, each
from xpnet.tables.formats import READERS, TABLE, check_installed, parquet_parts, reader_of, suffixes
from xpnet.tables.sources import STDIN, Source, source_of
from xpnet.tables.table import Reading
from xpnet.tables.text import OTHER_ENCODING, not_decoded, read_text, text_parts

LARGE = 1 << 26  # bytes of a file from which on it is read in parts
INT, FLOAT, BOOL, EMPTY, TEXT, OTHER = "int", "float", "bool", "empty", "text", "other"


@dataclass(frozen=True)
class Parts:
    """A table that is read in parts.

    kinds: what each column holds in the whole file.  n_rows: rows of a part.
    """

    source: Source
    reading: Reading
    text_columns: tuple[str, ...]
    kinds: dict[str, str]
    n_rows: int

    def frames(self) -> Iterator[Any]:
        """Yield the rows as frames, whose index goes on from part to part."""
        texts = {*self.text_columns, *(name for name, kind in self.kinds.items() if kind == TEXT)}
        for frame in _numbered(self.source, self.reading, texts, self.n_rows):
            for place, kind in enumerate(self.kinds.values()):
                column = frame.iloc[:, place]
                if kind in (FLOAT, OTHER) and _kind(column) in (INT, BOOL):
                    frame.isetitem(place, column.astype(_type_beside_gaps(column, kind)))
            yield frame


def parts_of(
    names: Names, reading: Reading, text_columns: Iterable[str], n_rows: int = BLOCK, least: int = LARGE
) -> Parts | None:
    """Return a table to be read in parts; None for one that is small, or can only be read whole.

    A file of text or Parquet is read in parts if it has that many bytes at least, and stdin always.
    n_rows: a multiple of the rows that a network predicts at a time, so that predictions round as those of the whole.
    """
    found = each(names)
    if len(found) != 1 or os.path.isdir(found[0]):
        return None
    reader = READERS[suffixes(TABLE)[0]] if found[0] == STDIN else reader_of(found[0])
    if reader is None or (reader.read is not read_text and reader is not READERS[".parquet"]):
        return None
    if found[0] != STDIN and (not Path(found[0]).is_file() or os.path.getsize(found[0]) < least):
        return None
    check_installed(reader)
    source, texts = source_of(found[0]), tuple(text_columns)
    encodings = [reading.encoding] if reading.encoding is not None else [None, OTHER_ENCODING]
    for encoding in encodings:
        reading = replace(reading, encoding=encoding)
        try:
            return Parts(source, reading, texts, _kinds(source, reading, texts, n_rows), n_rows)
        except UnicodeDecodeError as error:
            failure = error
    named = reading.encoding if len(encodings) == 1 else f"UTF-8 or {OTHER_ENCODING}"
    raise ValueError(not_decoded(source, str(named), failure)) from None


def _numbered(source: Source, reading: Reading, texts: Iterable[str], n_rows: int) -> Iterator[Any]:
    """Yield the parts with their rows numbered from 1."""
    is_parquet, n = source.content is None and reader_of(source.path) is READERS[".parquet"], 0
    frames = parquet_parts(source, reading, n_rows) if is_parquet else text_parts(source, reading, texts, n_rows)
    for frame in frames:
        frame.index = range(n + 1, n + len(frame) + 1)
        n += len(frame)
        yield frame


def _kinds(source: Source, reading: Reading, texts: tuple[str, ...], n_rows: int) -> dict[str, str]:
    """Return what each column holds in the whole file."""
    found: dict[str, set[str]] = {}
    for frame in _numbered(source, reading, texts, n_rows):
        for place, name in enumerate(frame.columns):
            found.setdefault(str(name), set()).add(_kind(frame.iloc[:, place]))
    if not found:
        raise ValueError(f"{source} has a header and no rows; it must have a row for each sample below it")
    return {name: _together(kinds) for name, kinds in found.items()}


def _kind(column: Any) -> str:
    """Return what a part of a column holds."""
    import pandas

    present = column.dropna()
    if len(present) == 0:
        return EMPTY
    types, has_gap = pandas.api.types, len(present) < len(column)
    if types.is_bool_dtype(column.dtype):
        return OTHER if has_gap else BOOL
    if types.is_integer_dtype(column.dtype):
        return FLOAT if has_gap else INT
    if types.is_float_dtype(column.dtype):
        return FLOAT
    return TEXT if isinstance(present.iloc[0], str) else OTHER


def _type_beside_gaps(column: Any, kind: str) -> Any:
    """Return the type of a column without gaps whose other parts have some, or numbers with places."""
    import pandas

    if isinstance(column.dtype, np.dtype):
        return np.float64 if kind == FLOAT else object
    return pandas.array([None], dtype=column.dtype).to_numpy().dtype  # one with a mask: as it is written


def _together(kinds: set[str]) -> str:
    """Return what a column holds whose parts hold these."""
    others = kinds - {EMPTY}
    if TEXT in others or (BOOL in others and others & {INT, FLOAT}):
        return TEXT
    if len(others) > 1 or (others and EMPTY in kinds):  # whole numbers, or yes and no, beside gaps
        return FLOAT if others <= {INT, FLOAT} else OTHER
    return next(iter(others), EMPTY)
