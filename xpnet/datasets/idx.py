"""The IDX file format of the MNIST family, read as if every file were hostile.

The header is read first, then at most what it declares; nothing is allocated that the file could not hold.
Next on the path: `xpnet.datasets.mnist`.
"""

from __future__ import annotations

import gzip
import math
import os
import zlib
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from xpnet.files import check_regular

if TYPE_CHECKING:
    from numpy.typing import NDArray

_GZIP_MAGIC = b"\x1f\x8b"

# Deflate cannot do better than 1032 to 1, so a gzip file's size bounds what it can unpack to.
_DEFLATE_RATIO = 1032

_UNSIGNED_BYTE = 0x08
_OTHER_TYPES = {0x09: "int8", 0x0B: "int16", 0x0C: "int32", 0x0D: "float32", 0x0E: "float64"}


def read_idx(path: str | os.PathLike[str], *, max_bytes: int = 1 << 30) -> NDArray[np.uint8]:
    """Return the unsigned bytes of an IDX file, gzipped or raw, as an array of 1 to 3 dimensions.

    The first bytes decide whether it is gzipped, not the name. A file that declares more than `max_bytes` is
    refused. Raises FileNotFoundError for a missing file, ValueError for one that is no IDX file of bytes,
    empty, cut short, corrupt, too large or followed by other bytes.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(
            f"{path} does not exist; read_idx needs an IDX file, gzipped or raw. Check the path, or fetch the file."
        )
    check_regular(path)
    with path.open("rb") as file:
        is_gzip = file.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
        file.seek(0)
        if not is_gzip:
            return _read(path, file, is_gzip, max_bytes)
        try:
            with gzip.GzipFile(fileobj=file) as stream:
                return _read(path, stream, is_gzip, max_bytes)
        except EOFError:
            raise ValueError(f"{path} is cut short: its gzip data end too early. {_FETCH_AGAIN}") from None
        except (gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"{path} is corrupt: its gzip data cannot be unpacked ({error}). {_FETCH_AGAIN}") from None


_FETCH_AGAIN = "A whole IDX file is needed: fetch it again."


def _read(path: Path, stream: IO[bytes] | gzip.GzipFile, is_gzip: bool, max_bytes: int) -> NDArray[np.uint8]:
    file_size = path.stat().st_size
    shape = _read_header(path, stream)
    declared, header_size = math.prod(shape), 4 + 4 * len(shape)
    what = f"{path} declares {' x '.join(map(str, shape))} = {declared} bytes"
    if declared == 0:
        raise ValueError(f"{what}, so it is empty. {_FETCH_AGAIN}")
    if declared > max_bytes:
        raise ValueError(
            f"{what}; read_idx reads at most {max_bytes}. Fetch it again, or pass max_bytes={declared} if you trust it."
        )
    at_most = file_size * _DEFLATE_RATIO if is_gzip else file_size - header_size
    if declared > at_most:
        raise ValueError(f"{what} but is cut short: a file of {file_size} bytes cannot hold them. {_FETCH_AGAIN}")
    array = np.empty(shape, np.uint8)
    rest = array.reshape(-1).data
    while len(rest):
        # In blocks, so that a file that ends early has not made the whole array's memory real.
        n_read = stream.readinto(rest[: 1 << 20])  # type: ignore[union-attr]
        if not n_read:
            raise ValueError(f"{what} but is cut short: {len(rest)} bytes are missing. {_FETCH_AGAIN}")
        rest = rest[n_read:]
    # Reading on also makes gzip compare its checksum.
    if stream.read(1):
        raise ValueError(f"{what} but continues after them. {_FETCH_AGAIN}")
    return array


def _read_header(path: Path, stream: IO[bytes] | gzip.GzipFile) -> tuple[int, ...]:
    """Return the shape that an IDX header declares; the stream then stands at the first data byte."""
    magic = stream.read(4)
    if len(magic) < 4:
        raise ValueError(f"{path} is cut short: {len(magic)} of the 4 bytes that open an IDX file. {_FETCH_AGAIN}")
    zeros, type_code, n_dimensions = magic[:2], magic[2], magic[3]
    if zeros == b"\0\0" and type_code in _OTHER_TYPES:
        raise ValueError(
            f"{path} is an IDX file of {_OTHER_TYPES[type_code]} (type 0x{type_code:02x}); read_idx reads "
            "unsigned bytes (type 0x08). Convert it to unsigned bytes first."
        )
    if zeros != b"\0\0" or type_code != _UNSIGNED_BYTE or not 1 <= n_dimensions <= 3:
        raise ValueError(
            f"{path} is not an IDX file of bytes, gzipped or raw: its data start with {magic.hex(' ')} "
            "and not with 00 00 08 and 01, 02 or 03 for the dimensions. Check that it is the right file, or "
            "fetch it again."
        )
    sizes = stream.read(4 * n_dimensions)
    if len(sizes) < 4 * n_dimensions:
        raise ValueError(
            f"{path} is cut short: its header has {4 + len(sizes)} bytes of {4 + 4 * n_dimensions}. {_FETCH_AGAIN}"
        )
    big_endian: Any = np.frombuffer(sizes, ">u4")
    return tuple(int(size) for size in big_endian)
