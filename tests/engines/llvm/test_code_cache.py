"""The code cache: what was written comes back, and nothing else that may lie there is ever given out."""

from __future__ import annotations

import os
import resource
import stat
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import xpnet
from xpnet.engines.llvm import code_cache
from xpnet.engines.llvm.code_cache import CodeCache, describe, open_cache

KEYS = [f"{number:064x}" for number in range(8)]
CODE = bytes(range(256)) * 5


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder of the cache, not made yet."""
    monkeypatch.setenv("XPNET_CACHE", str(tmp_path / "above" / "code"))
    return tmp_path / "above" / "code"


@pytest.fixture
def cache(folder):
    cache = open_cache()
    cache.write(KEYS[0], "the text", CODE)
    return cache


def give_away(path, monkeypatch):
    """Let the path belong to another user than the one who asks."""
    if os.geteuid() == 0:
        os.chown(path, 12345, -1, follow_symlinks=False)
    else:
        other = os.geteuid() + 1
        monkeypatch.setattr(os, "geteuid", lambda: other)


def mode(path):
    return stat.S_IMODE(os.lstat(path).st_mode)


def test_round_trip(cache, folder):
    assert cache == CodeCache(folder) and cache.read(KEYS[0]) == CODE
    assert cache.read(KEYS[1]) is None
    assert sorted(os.listdir(folder)) == [f"{KEYS[0]}.code", f"{KEYS[0]}.ll"]
    assert (folder / f"{KEYS[0]}.ll").read_text(encoding="utf-8") == "the text"
    cache.write(KEYS[0], "another text", b"another code")
    assert open_cache().read(KEYS[0]) == b"another code"


def test_modes_whatever_the_umask(folder):
    before = os.umask(0)
    try:
        open_cache().write(KEYS[0], "text", CODE)
    finally:
        os.umask(before)
    assert mode(folder) == mode(folder.parent) == 0o700
    assert {mode(path) for path in folder.iterdir()} == {0o600}


# --- files -----------------------------------------------------------------------------------------------------------


def flip(content, at):
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


DAMAGE = {
    "empty": lambda content: b"",
    "within the magic": lambda content: content[:5],
    "within the digest": lambda content: content[:30],
    "truncated": lambda content: content[:-1],
    "without code": lambda content: content[:45],
    "longer": lambda content: content + b"\0",
    "magic": lambda content: content.replace(b"xpnet code 1", b"xpnet code 2"),
    "digest flipped": lambda content: flip(content, 20),
    "code flipped": lambda content: flip(content, 700),
    "code alone": lambda content: CODE,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_not_read_and_is_replaced(cache, folder, damage):
    path = folder / f"{KEYS[0]}.code"
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    assert cache.read(KEYS[0]) is None
    cache.write(KEYS[0], "text", CODE)
    assert cache.read(KEYS[0]) == CODE


def test_a_file_under_another_name_is_not_read(cache, folder):
    os.link(folder / f"{KEYS[0]}.code", folder / f"{KEYS[1]}.code")
    assert cache.read(KEYS[1]) is None and cache.read(KEYS[0]) == CODE


def test_a_foreign_file_is_not_read(cache, folder, monkeypatch):
    with monkeypatch.context() as patched:
        give_away(folder / f"{KEYS[0]}.code", patched)
        assert cache.read(KEYS[0]) is None
    cache.write(KEYS[0], "text", CODE)
    assert cache.read(KEYS[0]) == CODE


@pytest.mark.parametrize("bits", [0o620, 0o602])
def test_a_file_that_others_can_write_is_not_read(cache, folder, bits):
    os.chmod(folder / f"{KEYS[0]}.code", bits)
    assert cache.read(KEYS[0]) is None


def test_a_link_is_not_read_and_not_written_through(cache, folder, tmp_path):
    path, target = folder / f"{KEYS[0]}.code", tmp_path / "elsewhere"
    path.rename(target)
    path.symlink_to(target)
    assert cache.read(KEYS[0]) is None
    cache.write(KEYS[0], "text", b"new")
    assert cache.read(KEYS[0]) == b"new" and not path.is_symlink() and target.read_bytes().endswith(CODE)


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_what_is_no_file_is_not_read(cache, folder, make):
    make(folder / f"{KEYS[1]}.code")
    assert cache.read(KEYS[1]) is None  # and does not wait for a writer
    cache.write(KEYS[1], "text", CODE)
    assert cache.read(KEYS[1]) == (CODE if make is os.mkfifo else None)


# --- the folder ------------------------------------------------------------------------------------------------------


def linked(folder, monkeypatch):
    folder.rename(folder.with_name("real"))
    folder.symlink_to(folder.with_name("real"))


def as_file(folder, monkeypatch):
    folder.rmdir()
    folder.write_bytes(b"")


FAULTS = {
    "symbolic link": linked,
    "not a folder": as_file,
    "belongs to user": give_away,
    r"mode 770\).*`chmod 700 ": lambda folder, monkeypatch: folder.chmod(0o770),
    r"mode 1777\).*`chmod 700 ": lambda folder, monkeypatch: folder.chmod(0o1777),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_folder_of_others_is_not_used_which_is_said_once(folder, monkeypatch, fault):
    folder.mkdir(parents=True, mode=0o700)
    FAULTS[fault](folder, monkeypatch)
    with pytest.warns(UserWarning, match=rf"{folder} .*{fault}.*XPNET_CACHE=") as told:
        assert open_cache() is None
    assert len(told) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert open_cache() is None
    assert folder.is_file() or list(folder.iterdir()) == []
    assert describe().startswith("cache not used") and str(folder) in describe()


@pytest.mark.parametrize("place", ["/proc/xpnet/code", "{}/file/code"])
def test_a_folder_that_cannot_be_made_is_passed_over(tmp_path, monkeypatch, place):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XPNET_CACHE", place.format(tmp_path))
    assert open_cache() is None
    assert place.format(tmp_path) in describe()


def test_a_full_disk_leaves_nothing_behind(folder):
    cache = open_cache()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(CODE), hard))  # the text fits, the code with its header does not
    try:
        cache.write(KEYS[0], "text", CODE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.listdir(folder) == [f"{KEYS[0]}.ll"] and cache.read(KEYS[0]) is None


def test_a_folder_that_is_gone_is_no_error(cache, folder):
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    cache.write(KEYS[0], "text", CODE)
    assert cache.read(KEYS[0]) is None and not folder.exists()


def test_where(tmp_path, monkeypatch):
    monkeypatch.delenv("XPNET_CACHE")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert open_cache().folder == tmp_path / "xdg/xpnet/code"
    for unset in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", unset)
        assert open_cache().folder == tmp_path / "home/.cache/xpnet/code"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert open_cache().folder == tmp_path / "home/Library/Caches/xpnet/code"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XPNET_CACHE", "here")
    assert open_cache().folder == tmp_path / "here"
    monkeypatch.setenv("XPNET_CACHE", "")
    assert open_cache() is None and "XPNET_CACHE is empty" in describe()


def test_describe_counts_and_makes_nothing(folder):
    assert describe() == f"cache {folder}: none yet" and not folder.parent.exists()
    open_cache().write(KEYS[0], "text", bytes(3 << 20))
    assert describe() == f"cache {folder}: 2 files, 3.0 MiB"


# --- bounds, and others at work --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("entries", "size"), [(3, 1 << 20), (100, 3 * len(CODE) + 500)])
def test_the_least_recently_used_go(folder, monkeypatch, entries, size):
    monkeypatch.setattr(code_cache, "MAX_ENTRIES", entries)
    monkeypatch.setattr(code_cache, "MAX_BYTES", size)
    cache = open_cache()
    stranger, left_behind = folder / "notes.txt", folder / f"{KEYS[1]}.x8k2"  # of a process that was killed
    stranger.touch()
    left_behind.touch()
    for age, key in enumerate(KEYS[:3]):
        cache.write(key, "text", CODE)
        for path in folder.iterdir():
            if path.name.startswith(key) or path == stranger:
                os.utime(path, (1000 + age, 1000 + age))
    assert cache.read(KEYS[0]) == CODE  # used: now 1 is the oldest
    cache.write(KEYS[3], "text", CODE)
    assert [key for key in KEYS if cache.read(key)] == [KEYS[0], KEYS[2], KEYS[3]]
    assert sorted(os.listdir(folder)) == sorted(
        [f"{key}.{end}" for key in (KEYS[0], KEYS[2], KEYS[3]) for end in ("code", "ll")] + ["notes.txt"]
    )
    if entries == 100:
        cache.write(KEYS[4], "text", CODE * 9)  # one that is larger than all is kept alone
        assert cache.size() == (2, 45 + 9 * len(CODE) + 4)


WORKER = """
import sys
from xpnet.engines.llvm import code_cache
code_cache.MAX_ENTRIES = 3
cache, seen = code_cache.open_cache(), 0
for turn in range(150):
    for number in range(5):
        key, code = f"{number:064x}", bytes([number]) * 50_000
        found = cache.read(key)
        assert found in (None, code)
        seen += found is not None
        if (turn + number) % 3 == int(sys.argv[1]):
            cache.write(key, "text", code)
assert seen
"""


def test_processes_do_not_disturb_each_other(folder):
    root = Path(xpnet.__file__).parents[1]
    workers = [
        subprocess.Popen([sys.executable, "-c", WORKER, str(turn)], cwd=root, stderr=subprocess.PIPE, text=True)
        for turn in range(3)
    ]
    ends = [(worker.communicate(timeout=300)[1], worker.returncode) for worker in workers]
    assert ends == [("", 0)] * 3
    assert all(name.endswith((".code", ".ll")) for name in os.listdir(folder))
