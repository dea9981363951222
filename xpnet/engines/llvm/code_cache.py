"""Keep machine code on disk between runs, in a folder that only its owner can write into.

Code read from it is executed, so a folder or file that another user could have written is never used. A digest detects
a torn or damaged file; ownership and mode keep others out.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import sys
import tempfile
import warnings
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from itertools import takewhile
from pathlib import Path

MAGIC = b"xpnet code 1\n"
MAX_ENTRIES, MAX_BYTES = 200, 256 << 20
_DIGEST_BYTES = 32
_OURS = re.compile(r"[0-9a-f]{64}\.")  # the folder may hold other files, which stay


@dataclass(frozen=True)
class CodeCache:
    """A folder of entries, each two files: `KEY.ll`, the text for readers, and `KEY.code`, its compiled code.

    folder: as checked by `open_cache`.  A key is 64 hexadecimal digits, the caller's digest of everything that the code
    depends on.  No method raises for a fault of the disk: a file that cannot be read counts as missing, and one that
    cannot be written is skipped.
    """

    folder: Path

    def read(self, key: str) -> bytes | None:
        """Return the code under `key`, or None unless it is intact and owned by the user."""
        try:
            content = _read_own(self._path(key))
        except OSError:
            return None
        start = len(MAGIC) + _DIGEST_BYTES
        code = content[start:]
        return code if content[:start] == MAGIC + _digest(key, code) else None

    def write(self, key: str, text: str, code: bytes) -> None:
        """Store text and code under `key`, replacing older ones; then delete the least recently used entries."""
        with suppress(OSError):
            self._replace(self.folder / f"{key}.ll", text.encode())
            self._replace(self._path(key), MAGIC + _digest(key, code) + code)
            self._trim()

    def size(self) -> tuple[int, int]:
        """Return the number of files and of bytes in the folder."""
        sizes = [size for entry in self._entries().values() for _, size, _ in entry]
        return len(sizes), sum(sizes)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.code"

    def _replace(self, path: Path, content: bytes) -> None:
        # Unlike files.write_atomically: readable by the user alone, replaces a link instead of following it, and
        # without fsync, since the digest detects a torn file.
        handle, temporary = tempfile.mkstemp(prefix=f"{path.stem}.", dir=self.folder)  # mode 0600
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise

    def _trim(self) -> None:
        # A temporary file belongs to its entry, so that one left by a killed process grows old and is deleted.
        entries = sorted(self._entries().values(), key=lambda files: max(used for used, _, _ in files), reverse=True)
        total = 0
        for count, files in enumerate(entries):
            total += sum(size for _, size, _ in files)
            if count >= MAX_ENTRIES or (count and total > MAX_BYTES):
                for _, _, path in files:
                    with suppress(OSError):  # another process was faster
                        os.unlink(path)

    def _entries(self) -> dict[str, list[tuple[int, int, str]]]:
        """Return (last use, bytes, path) of the files of each key."""
        entries: dict[str, list[tuple[int, int, str]]] = {}
        with os.scandir(self.folder) as listing:
            for file in listing:
                if _OURS.match(file.name):
                    with suppress(FileNotFoundError):
                        found = file.stat(follow_symlinks=False)
                        entries.setdefault(file.name[:64], []).append((found.st_mtime_ns, found.st_size, file.path))
        return entries


def open_cache() -> CodeCache | None:
    """Return the user's cache, making its folder if it is missing; None without a usable one.

    XPNET_CACHE names the folder; if it is empty, there is no cache. The default is xpnet/code in the system's folder
    for caches ($XDG_CACHE_HOME, else ~/.cache; ~/Library/Caches; %LOCALAPPDATA%). A folder that others can write into
    is not used, with one warning. A folder that cannot be made is ignored silently.
    """
    folder = _folder()
    if folder is None:
        return None
    try:
        _make(folder)
        fault = _fault(folder)
    except OSError:  # a read-only home, say
        return None
    if fault is not None:
        _warn(
            f"compiled code is not kept for the next run: {folder} {fault}; or set XPNET_CACHE to a folder of your "
            "own, or to nothing (XPNET_CACHE=) for no cache"
        )
        return None
    return CodeCache(folder)


def describe() -> str:
    """Return one line on where and how much code is kept, or why none is. Makes no folder."""
    folder = _folder()
    if folder is None:
        return "no cache (XPNET_CACHE is empty)" if "XPNET_CACHE" in os.environ else "no cache: there is no home folder"
    try:
        fault = _fault(folder)
        if fault is not None:
            return f"cache not used: {folder} {fault}"
        files, size = CodeCache(folder).size()
    except FileNotFoundError:
        return f"cache {folder}: none yet"
    except OSError as error:
        return f"cache {folder} cannot be used: {error.strerror}"
    read_only = "" if os.access(folder, os.W_OK | os.X_OK) else ", cannot be written"
    return f"cache {folder}: {files} file{'s' * (files != 1)}, {size / 2**20:.1f} MiB{read_only}"


def _folder() -> Path | None:
    chosen = os.environ.get("XPNET_CACHE")
    if chosen is not None:
        return Path(chosen).absolute() if chosen else None
    try:
        home = Path.home()
    except RuntimeError:
        return None
    if sys.platform == "win32":
        base, default = os.environ.get("LOCALAPPDATA", ""), home / "AppData" / "Local"
    elif sys.platform == "darwin":
        base, default = "", home / "Library" / "Caches"
    else:
        base, default = os.environ.get("XDG_CACHE_HOME", ""), home / ".cache"
    # "All paths must be absolute; a relative one is to be ignored" (XDG Base Directory Specification).
    return (Path(base) if os.path.isabs(base) else default) / "xpnet" / "code"


def _make(folder: Path) -> None:
    """Make the folder and its missing parents, all with mode 0700 whatever the umask."""
    missing = list(takewhile(lambda part: not os.path.lexists(part), (folder, *folder.parents)))
    for part in reversed(missing):
        with suppress(FileExistsError):  # another process was faster
            os.mkdir(part, 0o700)


def _fault(folder: Path) -> str | None:
    """Return why code from this folder must not run, and the remedy; None if it may."""
    found = os.lstat(folder)
    if stat.S_ISLNK(found.st_mode):
        return "is a symbolic link; name the folder itself"
    if not stat.S_ISDIR(found.st_mode):
        return "is not a folder; move it away"
    if not _own(found):
        return f"belongs to user {found.st_uid}, not to the one who runs this ({_user()})"
    if not _closed(found):
        return f"can be written by others (mode {stat.S_IMODE(found.st_mode):o}); empty it and run `chmod 700 {folder}`"
    return None


def _user() -> int | None:
    """Return the user's number, or None on a system without owners and modes of files, such as Windows."""
    return os.geteuid() if hasattr(os, "geteuid") else None


def _own(found: os.stat_result) -> bool:
    return _user() in (None, found.st_uid)


def _closed(found: os.stat_result) -> bool:
    """Return whether the mode keeps others from writing; on Windows it does not tell."""
    return _user() is None or not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _read_own(path: Path) -> bytes:
    """Return the bytes of a regular file that the user owns, and mark it as used; raises OSError for any other.

    The open file is checked, so that it cannot be exchanged in between.
    """
    if not stat.S_ISREG(path.lstat().st_mode):  # for systems without O_NOFOLLOW
        raise OSError(path)
    flags = [getattr(os, name, 0) for name in ("O_BINARY", "O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK")]  # a pipe: no wait
    with os.fdopen(os.open(path, os.O_RDONLY | sum(flags)), "rb") as file:
        found = os.fstat(file.fileno())
        if not (stat.S_ISREG(found.st_mode) and _own(found) and _closed(found)):
            raise OSError(path)
        content = file.read()
    with suppress(OSError):
        os.utime(path)
    return content


def _digest(key: str, code: bytes) -> bytes:
    """Return the digest of key and code: a renamed file is invalid."""
    return hashlib.sha256(key.encode() + code).digest()


@cache
def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=4)
