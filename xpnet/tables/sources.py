"""Where a table is read from: a file, a compressed file, a folder, or stdin."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO

from xpnet.checks import one_line, shown
from xpnet.files import AT_MOST, check_readable, check_regular

STDIN = "-"
BLOCK = 1 << 20  # bytes that are looked at in one go
# By the first bytes of a file: the suffix that its name should have.
MAGIC = {
    b"\x1f\x8b": ".csv.gz",
    b"BZh": ".csv.bz2",
    b"\xfd7zXZ\0": ".csv.xz",
    b"PK\x03\x04": ".xlsx or .csv.zip",
    b"PAR1": ".parquet",
    b"ARROW1": ".feather",
    b"\x93NUMPY": ".npy",
}


@dataclass(frozen=True)
class Source:
    """The bytes of a table.

    path: of the file, or the folder.  content: its bytes, None where they are read from the path.
    start: how many bytes at the beginning are not of the table, such as the mark of UTF-8.
    encoding: of the text that the bytes are.
    """

    path: Path
    content: bytes | None = None
    start: int = 0
    encoding: str = "utf-8"

    def __str__(self) -> str:
        return "stdin" if str(self.path) == STDIN else str(self.path)

    def open(self) -> BinaryIO:
        """Open the bytes; raises OSError for what is no regular file."""
        if self.content is not None:
            file: BinaryIO = io.BytesIO(self.content)
        else:
            check_regular(self.path)
            file = open(self.path, "rb")  # noqa: SIM115  closed by who asked for it
        file.seek(self.start)
        return file

    def open_text(self) -> IO[str]:
        """Open the bytes as text whose ends of lines are as they are."""
        return io.TextIOWrapper(self.open(), self.encoding, newline="")

    def read(self) -> bytes:
        """Return all bytes."""
        with self.open() as file:
            return file.read()

    def blocks(self) -> Iterator[bytes]:
        """Yield the bytes, BLOCK at a time."""
        with self.open() as file:
            while block := file.read(BLOCK):
                yield block


def source_of(name: str) -> Source:
    """Return the source of a file by its name; the content of stdin and of compressed files is read.

    Raises ValueError for a compressed file that is damaged, or an archive that does not hold one file.
    """
    path = Path(name)
    if name == STDIN:
        return Source(path, _stdin())
    opened = COMPRESSIONS.get(path.suffix.lower())
    if opened is None or path.is_dir():
        return Source(path)
    check_regular(path)
    check_readable(path)
    try:
        return Source(path, opened(path))
    except (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, NotImplementedError) as error:
        raise ValueError(
            f"{path} is not a whole {path.suffix} file ({one_line(error)}); it must be complete; copy or write it again"
        ) from None


def _stdin() -> bytes:
    if sys.stdin is None or sys.stdin.isatty():
        raise ValueError(
            "stdin is a terminal; a table must come out of another command; write: cat T.csv | xpnet train -"
        )
    content = sys.stdin.buffer.read(AT_MOST + 1)
    if len(content) > AT_MOST:
        raise ValueError(f"stdin has more than {AT_MOST} bytes; it may have as many; write them to a file, and name it")
    return content


def _unpacked(path: Path, file: IO[bytes] | gzip.GzipFile) -> bytes:
    """Return all that a compressed file holds; a small one may hold more than memory."""
    with file:
        content = file.read(AT_MOST + 1)
    if len(content) > AT_MOST:
        raise ValueError(
            f"{path} unpacks to more than {AT_MOST} bytes; it may unpack to as many; unpack it, and name the file in it"
        )
    return content


def _unzipped(path: Path) -> bytes:
    with zipfile.ZipFile(path) as archive:
        names = [
            name
            for name in archive.namelist()
            if not name.endswith("/") and not name.startswith("__MACOSX") and not os.path.basename(name).startswith(".")
        ]
        if len(names) != 1:
            found = f"{len(names)} files" + (f", {shown(names[0])} the first" if names else "")
            raise ValueError(f"{path} holds {found}; it must hold one table; unpack it, and name the table's file")
        try:
            return _unpacked(path, archive.open(names[0]))
        except RuntimeError as error:  # with a password
            raise ValueError(f"{path} cannot be unpacked ({one_line(error)}); it must be open; unpack it") from None


COMPRESSIONS: dict[str, Callable[[Path], bytes]] = {
    ".gz": lambda path: _unpacked(path, gzip.open(path)),  # noqa: SIM115  closed by _unpacked
    ".bz2": lambda path: _unpacked(path, bz2.open(path)),  # noqa: SIM115  closed by _unpacked
    ".xz": lambda path: _unpacked(path, lzma.open(path)),  # noqa: SIM115  closed by _unpacked
    ".zip": _unzipped,
}
