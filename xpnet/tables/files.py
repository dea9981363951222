"""Files of samples by their names: their kinds, and a table as a pandas DataFrame.

A table as text is found out: separator, decimal sign and encoding. Its first line holds the names of the columns; a
field with a separator or a line break stands in double quotes. A missing value is empty, or a word that pandas reads as
one, such as NA, NaN and null. Blanks at both ends of a name or a value do not count, in any format.
"""

from __future__ import annotations

import glob
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from xpnet.checks import shown
from xpnet.data.image_files import holds_classes, holds_images, is_image
from xpnet.files import absolute
from xpnet.tables.formats import IMAGES, READERS, ROWS, TABLE, check_installed, either, reader_of, suffix_of, suffixes
from xpnet.tables.layout import tidy_names
from xpnet.tables.sources import STDIN, source_of
from xpnet.tables.table import Reading, Table

AS_FOUND = Reading()
FOLDER_ENDS = ("/", os.sep)
N_NAMED = 5  # columns that a message lists
Names = str | os.PathLike[str] | Sequence[str]  # of one file, or of several


def each(names: Names) -> list[str]:
    """Return the names of one file, or of several, as a list."""
    return [os.fspath(names)] if isinstance(names, (str, os.PathLike)) else list(names)


def called(names: Names) -> str:
    """Return what messages call a table of one file, or of several."""
    first, *more = each(names)
    return ("stdin" if first == STDIN else first) + (f" and {len(more)} more" if more else "")


@contextmanager
def naming(path: str) -> Iterator[None]:
    """Begin every refusal of what a table holds with the name of its file, "" for rows from memory."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{path}: {error}" if path else str(error)) from None


def stem_of(names: Names) -> str:
    """Return the name of a file, or of the first of several, without folder and suffix."""
    first = Path(each(names)[0])
    suffix = suffix_of(first)
    return "stdin" if str(first) == STDIN else first.name[: -len(suffix)] if suffix is not None else first.stem


def expanded(text: str) -> str | list[str]:
    """Return the files that a pattern such as part-*.csv means, a folder with the sign of one, else the text.

    Raises ValueError for a pattern that no file fits.
    """
    if Path(text).exists() or not glob.has_magic(text):  # first what refuses a name that is too long
        return as_folder(text)
    found = sorted(glob.glob(text))
    if not found:
        raise ValueError(f"no file fits {shown(text)}; name files that are there, or leave out * ? [")
    return found[0] if len(found) == 1 else found


def as_folder(text: str) -> str:
    """Return the name of a folder with the sign of one; any other text as it is, that of a table in parts too."""
    return os.path.join(text, "") if suffix_of(text) is None and os.path.isdir(text) else text


def absolute_names(names: Names) -> str | list[str]:
    """Return the whole paths of one file, or of several; stdin and the sign of a folder stay."""
    paths = [
        name if name == STDIN else os.path.join(absolute(name), "") if name.endswith(FOLDER_ENDS) else absolute(name)
        for name in each(names)
    ]
    return paths if isinstance(names, list) else paths[0]


def kind_of(names: Names) -> str | None:
    """Return TABLE, ROWS or IMAGES by a file's name, None for a name without a suffix that is known.

    Several files, a folder, which ends in a slash, and stdin are tables, but for images, for a folder that holds images
    and no table, and for plain rows alone.
    """
    name, *more = each(names)
    kinds = _kinds_in(name) if name.endswith(FOLDER_ENDS) else set[str]()
    if is_image(name) or (IMAGES in kinds and TABLE not in kinds):
        return IMAGES
    if more:
        return ROWS if all(is_rows(one) for one in each(names)) else TABLE
    if name.endswith(FOLDER_ENDS):
        return ROWS if kinds == {ROWS} else TABLE
    if name == STDIN:
        return TABLE
    reader = reader_of(name)
    return None if reader is None else reader.kind


def check_one_kind(names: Names) -> None:
    """Refuse tables and plain rows together, as files or in one folder, and a folder with neither."""
    found: list[tuple[str, set[str | None]]] = [(called(names), {kind_of(name) for name in each(names)})]
    found += [(name, set(_kinds_in(name))) for name in each(names)]
    for where, kinds in found:
        if {TABLE, ROWS} <= kinds:
            raise ValueError(
                f"{where}: tables ({either(suffixes(TABLE))}) and plain rows ({either(suffixes(ROWS))}) lie together; "
                "data must be of one kind; name the files of one of them"
            )
    for name, kinds in found[1:]:
        if name.endswith(FOLDER_ENDS) and not kinds and kind_of(name) == TABLE and not _has_parts(name):
            raise ValueError(
                f"{name} holds no data; it must hold tables ({either(suffixes(TABLE))}), plain rows "
                f"({either(suffixes(ROWS))}) or folders of images; name another folder"
            )


def is_table(names: Names) -> bool:
    """Whether a file's name is that of a table."""
    return kind_of(names) == TABLE


def is_images(names: Names) -> bool:
    """Whether a name is that of an image, or of a folder of images."""
    return kind_of(names) == IMAGES


def is_rows(names: Names) -> bool:
    """Whether a file's name is that of plain rows."""
    return kind_of(names) == ROWS


def read_table(names: Names, reading: Reading = AS_FOUND, text_columns: Iterable[str] = ()) -> Table:
    """Return the table in a file, or in several that have the same columns.

    names: of files; a folder stands for the tables in it, "-" for stdin.  reading: how, None for what is found out.
    text_columns: columns of a text that are text, even if all their values look like numbers.
    Raises ImportError without what reads the format, FileNotFoundError, and ValueError in one line for a file that is
    no table, has no rows, rows of different lengths, or other columns than the first.
    """
    paths, text_columns = [path for name in each(names) for path in _paths(name)], tuple(text_columns)
    tables = [_read_one(path, reading, text_columns) for path in paths]
    if len(tables) == 1:
        return tables[0]
    for path, table in zip(paths, tables, strict=True):
        check_same_columns(paths[0], list(tables[0].frame), path, list(table.frame))
    texts = _sometimes_text([table.frame for table in tables])
    if texts:
        tables = [_read_one(path, reading, (*text_columns, *texts)) for path in paths]
    return _together(tables)


def _paths(name: str) -> list[str]:
    """Return the file, or the tables in a folder, or the folder itself if parts of a Parquet file lie deeper in it."""
    if name == STDIN or not Path(name).is_dir():
        return [name]
    tables = files_in(name, TABLE)
    if not tables and _has_parts(name):
        return [name]
    if not tables:
        raise ValueError(f"{name} holds no table; it must hold {either(suffixes(TABLE))} files; name another folder")
    return tables


def files_in(folder: str, kind: str) -> list[str]:
    """Return the files of that kind in a folder, in the order of their names, none of those that begin with . or _."""
    with os.scandir(folder) as entries:
        found = sorted(entry.path for entry in entries if not entry.name.startswith((".", "_")) and entry.is_file())
    return [path for path in found if (reader := reader_of(path)) is not None and reader.kind == kind]


def _has_parts(folder: str) -> bool:
    """Whether parts of a Parquet file lie in a folder, however deep."""
    return next(Path(folder).rglob("*.parquet"), None) is not None


def _kinds_in(name: str) -> set[str]:
    """Return the kinds of data in a folder; a .txt beside plain rows or classes of images, or a picture beside rows,
    is a note about them.
    """
    if not os.path.isdir(name):
        return set()
    tables, rows, has_classes = files_in(name, TABLE), files_in(name, ROWS), holds_classes(name)
    are_notes = (rows or has_classes) and all(suffix_of(path) == ".txt" for path in tables)
    held = {TABLE: tables and not are_notes, ROWS: rows, IMAGES: has_classes or (not rows and holds_images(name))}
    return {kind for kind, is_held in held.items() if is_held}


def _read_one(name: str, reading: Reading, text_columns: Iterable[str]) -> Table:
    path, formats = Path(name), either(suffixes(TABLE))
    reader = READERS[suffixes(TABLE)[0]] if name == STDIN else READERS[".parquet"] if path.is_dir() else reader_of(name)
    if reader is None or reader.kind != TABLE:
        raise ValueError(f"{path} ends in {path.suffix!r}; it must be a table, a {formats} file")
    if name != STDIN and not path.exists():
        raise FileNotFoundError(f"there is no file {path}; name a {formats} file")
    check_installed(reader)
    source = source_of(name)
    table: Table = reader.read(source, reading, text_columns)
    frame = table.frame
    if len(frame) == 0:
        raise ValueError(f"{source} has a header and no rows; it must have a row for each sample below it")
    columns, renamed = tidy_names(source, [str(column).strip() for column in frame.columns])
    frame.columns = columns
    frame.index = range(1, len(frame) + 1)
    return replace(table, decisions=(*table.decisions, *renamed))


def check_same_columns(first: str, expected: list[str], path: str, found: list[str]) -> None:
    """Refuse other columns than those of the first file."""
    lacks = [name for name in expected if name not in found]
    more = [name for name in found if name not in expected]
    if lacks or more:
        differences = [
            f"{verb} {', '.join(map(shown, names[:N_NAMED]))}" + ", ..." * (len(names) > N_NAMED)
            for verb, names in (("lacks", lacks), ("has in addition", more))
            if names
        ]
        raise ValueError(
            f"{path} {' and '.join(differences)}, beside the columns of {first}; tables read together must have "
            "the same; leave one out, or rename its columns"
        )


def _sometimes_text(frames: list[Any]) -> list[str]:
    """Return the columns that are text in some frames and numbers in others."""
    import pandas

    def is_number(column: Any) -> bool:
        return pandas.api.types.is_numeric_dtype(column.dtype) and column.notna().any()

    def is_text(column: Any) -> bool:
        return not is_number(column) and any(isinstance(value, str) for value in column.dropna()[:1])

    return [
        name
        for name in frames[0]
        if any(is_number(frame[name]) for frame in frames) and any(is_text(frame[name]) for frame in frames)
    ]


def _together(tables: list[Table]) -> Table:
    """Return the rows of several tables as one."""
    import pandas

    columns = list(tables[0].frame)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of pandas before 3, about columns without a value
        frame = pandas.concat([table.frame[columns] for table in tables])
    frame.index = range(1, len(frame) + 1)
    decisions = dict.fromkeys(decision for table in tables for decision in table.decisions)
    common = {}
    for field in fields(Reading):
        found = {getattr(table.reading, field.name) for table in tables}
        if len(found) == 1:
            common[field.name] = found.pop()
    return Table(frame, Reading(**common), tuple(decisions))
