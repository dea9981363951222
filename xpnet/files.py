"""Read and write whole files, atomically and regular ones only; make values ready for file formats."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

AT_MOST = 1 << 30  # bytes of a file that is read into memory at once
KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}
_STDOUT = 1
_IS_WINDOWS = os.name == "nt"
_DIGITS = 40  # of a whole number in JSON; the state of a random generator has 39
_DEPTH = 50  # of JSON


def read_whole(path: str | os.PathLike[str], at_most: int = AT_MOST) -> bytes:
    """Return the content of a regular file; raises OSError for any other kind, ValueError above `at_most` bytes."""
    n_bytes = check_regular(path)
    if n_bytes > at_most:
        raise ValueError(f"{path} has {n_bytes} bytes; it may have at most {at_most}; name another file")
    return Path(path).read_bytes()


def check_regular(path: str | os.PathLike[str]) -> int:
    """Return the size of a regular file in bytes; raises OSError for any other kind, which may never end."""
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):
        raise OSError(f"{path} is {_kind(found)}; it must be a regular file; copy its content into one")
    return found.st_size


def check_readable(path: str | os.PathLike[str]) -> None:
    """Raise the OSError of the system if a file cannot be opened, as libraries that read files tell it otherwise."""
    with open(path, "rb"):
        pass


def parse_json(text: str | bytes) -> Any:
    """Return the value of a JSON text from a file.

    Raises ValueError for what is no JSON, is nested deeper than anything that xpnet writes, or has longer numbers.
    """
    try:
        found = json.loads(text, parse_int=_whole)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    level = [found]
    for _ in range(_DEPTH):
        level = [part for value in level if isinstance(value, (dict, list)) for part in _parts(value)]
        if not level:
            return found
    raise ValueError(_TOO_DEEP)


_TOO_DEEP = f"it is nested deeper than {_DEPTH} levels; it must be flat; write it again"


def _parts(value: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value


def _whole(digits: str) -> int:
    if len(digits) > _DIGITS:
        raise ValueError(f"it has a number of {len(digits)} digits; a number may have {_DIGITS}; write it again")
    return int(digits)


def absolute(path: str | os.PathLike[str]) -> str:
    """Return the whole path of a file under the name given, which says its format even if it is a link."""
    path = Path(path)
    return str(Path(os.path.realpath(path.parent)) / path.name)


def check_target(path: str | os.PathLike[str]) -> os.stat_result | None:
    """Return what the system says of a file to write, None for a new one.

    Raises OSError for what is neither a regular file nor the standard output.
    """
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    if stat.S_ISREG(found.st_mode) or _is_stdout(found):
        return found
    raise OSError(f"{path} is {_kind(found)}; what is written must be a regular file; name another place")


def write_atomically(path: str | os.PathLike[str], content: bytes | Iterable[bytes]) -> None:
    """Write a file entirely or not at all: write a temporary file beside it, fsync, rename.

    content: also in parts, which are made as they are written.

    A file that is replaced hands on its mode, and its owner where the system allows it; hard links to it keep the old
    content. Of a link the target is replaced. The standard output is written to. Raises OSError for other kinds.
    """
    before, parts = check_target(path), [content] if isinstance(content, bytes) else content
    if before is not None and _is_stdout(before):
        with open(_STDOUT, "wb", closefd=False) as file:
            file.writelines(parts)
        return
    path = Path(os.path.realpath(path))
    remove_leftovers(path)
    temporary = None
    try:
        temporary, handle = _temporary(path, 0o666 if before is None else 0o600)
        with os.fdopen(handle, "wb") as file:
            if before is not None:
                _hand_on(before, temporary)
            file.writelines(parts)
            file.flush()
            os.fsync(handle)
            if not _IS_WINDOWS:  # where no open file is renamed; here the lock lasts until it is
                os.replace(temporary, path)
        if _IS_WINDOWS:
            os.replace(temporary, path)
    except BaseException as error:
        if temporary is not None:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None:
            # Name the requested file, not the temporary one.
            raise type(error)(error.errno, error.strerror, str(path)) from None
        raise


def leftovers(path: str | os.PathLike[str]) -> list[Path]:
    """Return the temporary files that killed processes left beside `path` when they wrote it."""
    path = Path(os.path.realpath(path))
    pattern = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{8}}")
    with suppress(OSError):
        entries = [entry for entry in path.parent.iterdir() if pattern.fullmatch(entry.name)]
        return [entry for entry in entries if stat.S_ISREG(entry.lstat().st_mode)]
    return []


def remove_leftovers(path: str | os.PathLike[str]) -> None:
    """Remove the temporary files that killed processes left beside `path`, not what a process writes now.

    Where a file system has no locks they stay.
    """
    for entry in leftovers(path):
        with suppress(OSError):
            if _IS_WINDOWS:  # it keeps what a process has open
                entry.unlink()
                continue
            handle = os.open(entry, os.O_WRONLY)
            try:
                if lock(handle):
                    entry.unlink()
            finally:
                os.close(handle)


def lock(handle: int) -> bool | None:
    """Lock an open file or folder until it is closed; the system ends the lock with its process.

    Return whether it could: False if another process has locked it, None where there are no locks, as on Windows.
    """
    try:
        import fcntl
    except ImportError:
        return None
    locks: Any = fcntl  # on Windows type checkers find nothing in it
    try:
        locks.flock(handle, locks.LOCK_EX | locks.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _temporary(path: Path, mode: int) -> tuple[Path, int]:
    """Make a file beside `path`, and lock it so that no other process takes it for a leftover."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    while True:
        temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
        handle = os.open(temporary, flags, mode)
        if lock(handle) is not False and temporary.exists():
            return temporary, handle
        os.close(handle)  # another process took it for one before it was locked, and removes it


def _hand_on(before: os.stat_result, temporary: Path) -> None:
    if hasattr(os, "chown"):
        with suppress(PermissionError):  # the file of another user becomes ours
            os.chown(temporary, before.st_uid, before.st_gid)
    os.chmod(temporary, before.st_mode & 0o777)  # not the rights of a program to act as its owner


def _is_stdout(found: os.stat_result) -> bool:
    try:
        return os.path.samestat(found, os.fstat(_STDOUT))
    except OSError:  # closed
        return False


def _kind(found: os.stat_result) -> str:
    return KINDS.get(stat.S_IFMT(found.st_mode), "no file")


def tensor_bytes(tensors: Mapping[str, np.ndarray], name: str, facts: Any) -> bytes:
    """Return a safetensors file of host arrays, however they lie in memory, and of JSON-ready facts in its metadata.

    name: the only key of the metadata: with more, safetensors writes them in an order that changes from file to file.
    """
    from safetensors.numpy import save  # heavy enough to be imported on use

    # It writes memory as it lies, without regard to strides and order of bytes.
    ready = {key: np.asarray(array, array.dtype.newbyteorder("="), order="C") for key, array in tensors.items()}
    return save(ready, {name: json_text(facts)})


def json_text(value: Any) -> str:
    """Return a value as JSON; numbers of NumPy's are numbers.  Raises TypeError for what JSON does not have."""
    return json.dumps(value, default=_number)


def _number(value: Any) -> Any:
    if isinstance(value, (np.generic, np.ndarray)) and value.ndim == 0:
        return value.item()
    raise TypeError(f"a {type(value).__name__} is no JSON")
