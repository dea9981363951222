"""Every writer of the package: what lies at the path already is replaced whole, or refused; never damaged."""

from __future__ import annotations

import errno
import os
import re
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from refusals import refusal

import xpnet
from xpnet import files, plots
from xpnet.cli import main
from xpnet.commands import runs
from xpnet.files import check_target, leftovers, parse_json, read_whole, remove_leftovers, write_atomically
from xpnet.tables.arrays import open_array
from xpnet.tables.files import read_table
from xpnet.tables.writing import write_rows, write_table
from xpnet.timing import grid
from xpnet.training.callbacks import HistoryFile
from xpnet.training.checkpoint import load_checkpoint

CPU = xpnet.select_backend("cpu")
ROWS = np.eye(2)
SMALL = ["train", "--epochs", "1", "--layers", "784,2,10", "--batch-size", "5000", "--engine", "replay", "--quiet"]
SMALL += ["--device", "cpu"]


def _network():
    return xpnet.Network([2, 2], loss="squared_error", backend=CPU)


def _train(callback):
    xpnet.train(_network(), xpnet.Dataset(ROWS, ROWS), xpnet.SGD(), epochs=1, callbacks=[callback])


WRITERS = {
    "bytes": lambda path: write_atomically(path, b"content"),
    "model": lambda path: _network().save(path),
    "checkpoint": lambda path: _train(xpnet.Checkpoint(path)),
    "history": lambda path: _train(HistoryFile(path)),
    "t.csv": lambda path: write_table(path, {"a": [1.0]}),
    "t.parquet": lambda path: write_table(path, {"a": [1.0]}),
    "X.csv": lambda path: write_rows(path, ROWS, ["a", "b"]),
    "X.npy": lambda path: write_rows(path, ROWS, ["a", "b"]),
    "p.png": lambda path: plots.save(plots.new_axes(), path),
    "bench.json": lambda path: grid.write(path, {"a": 1}),
    "config.json": lambda path: runs.write_config(path.parent, {"a": 1}),
}
REPLACING = [name for name in WRITERS if name not in ("history", "config.json")]  # appended to; not by a link


@pytest.mark.parametrize("name", WRITERS)
def test_what_is_no_regular_file_is_refused_and_stays(tmp_path, name, monkeypatch):
    path = tmp_path / name
    os.mkfifo(path)
    for kind in ("a FIFO", "a socket", "a folder"):
        with refusal(OSError, name, f"is {kind}", "must be a regular file", "name another place"):
            WRITERS[name](path)
        if kind == "a FIFO":
            assert stat.S_ISFIFO(path.lstat().st_mode)
            path.unlink()
            monkeypatch.chdir(tmp_path)  # the path of a socket has at most 108 bytes
            with socket.socket(socket.AF_UNIX) as made:
                made.bind(name)
        elif kind == "a socket":
            assert stat.S_ISSOCK(path.lstat().st_mode)
            path.unlink()
            path.mkdir()
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("name", REPLACING)
def test_a_file_that_is_replaced_hands_on_its_mode_and_hard_links_keep_the_old(tmp_path, name):
    path, other, link = tmp_path / name, tmp_path / "other", tmp_path / "link" / name
    path.write_bytes(b"old")
    path.chmod(0o640)
    os.link(path, other)
    link.parent.mkdir()
    link.symlink_to(path)
    WRITERS[name](link)
    assert link.is_symlink() and not path.is_symlink() and path.read_bytes() != b"old"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert other.read_bytes() == b"old" and other.stat().st_nlink == 1
    assert sorted(os.listdir(tmp_path)) == sorted([name, "other", "link"]) and os.listdir(link.parent) == [name]


def test_nothing_else_opens_a_file_to_write():
    """So that the writers above are all; the cache of compiled code has rules and tests of its own."""
    opens = re.compile(r"""\b(open|fdopen)\([^)]*["'][rwax]?[bt]?[wax+]|os\.open\(|write_(text|bytes)\(|mkstemp\(""")
    package, own = Path(xpnet.__file__).parent, {"files.py", "engines/llvm/code_cache.py"}
    found = {path.relative_to(package).as_posix(): path.read_text(encoding="utf-8") for path in package.rglob("*.py")}
    found = {name: [line for line in text.splitlines() if opens.search(line)] for name, text in found.items()}
    others = {name: lines for name, lines in found.items() if lines and name not in own}
    assert all("devnull" in line for name in ("cli.py", "commands/together.py") for line in others.pop(name))
    assert [line.strip() for line in others.pop("training/callbacks.py")] == [
        'with open(self.path, "a", encoding="utf-8") as file:'
    ]
    assert all("O_RDONLY" in line for line in others.pop("commands/runs.py")) and not others


@pytest.mark.parametrize("name", REPLACING)
def test_a_full_disk_leaves_the_file_as_it_was(tmp_path, name, monkeypatch):
    path = tmp_path / name
    path.write_bytes(b"old")

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as error:
        WRITERS[name](path)
    assert error.value.filename == str(path)
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == [name]


def test_a_replaced_file_keeps_its_owner_where_the_system_allows_it(tmp_path, monkeypatch):
    path, owners = tmp_path / "model", []
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "chown", lambda *arguments: owners.append(arguments[1:]))
    write_atomically(path, b"new")
    assert owners == [(path.stat().st_uid, path.stat().st_gid)]

    def refused(*arguments):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "chown", refused)
    write_atomically(path, b"newer")
    assert path.read_bytes() == b"newer"


def test_a_new_file_has_the_mode_of_the_mask(tmp_path):
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "new", b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640


def test_a_file_is_not_open_to_others_while_it_is_replaced(tmp_path, monkeypatch):
    path, modes = tmp_path / "secret", []
    path.write_bytes(b"old")
    path.chmod(0o600)
    monkeypatch.setattr(os, "fsync", lambda handle: modes.append(stat.S_IMODE(os.fstat(handle).st_mode)))
    write_atomically(path, b"new")
    assert modes == [0o600]


def test_the_standard_output_is_written_to():
    """A pipe here; it is neither replaced nor refused."""
    code = "from xpnet.files import write_atomically; write_atomically('/dev/stdout', b'content')"
    environment = os.environ | {"PYTHONPATH": str(Path(xpnet.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, timeout=60)
    assert (done.stdout, done.stderr) == (b"content", b"")


def test_a_loop_of_links_is_an_error_of_the_system(tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(OSError, match="symbolic links"):
        write_atomically(tmp_path / "a", b"")
    assert (tmp_path / "a").is_symlink() and (tmp_path / "b").is_symlink()


def test_reading_refuses_what_is_no_regular_file_or_too_large(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert read_whole(path, 5) == b"12345"
    with refusal(ValueError, "file has 5 bytes", "at most 4", "name another file"):
        read_whole(path, 4)
    path.unlink()
    os.mkfifo(path)
    with refusal(OSError, "is a FIFO", "must be a regular file", "copy its content into one"):
        read_whole(path)


# --- run directories -------------------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([*SMALL, "--out", "run"]) == 0
    return Path("run")


@pytest.mark.parametrize("name", runs.FILES[:-1])
def test_a_link_that_leads_out_of_a_run_is_refused(run, tmp_path, capsys, name):
    outside = tmp_path / "outside"
    (run / name).replace(outside)
    (run / name).symlink_to(outside)
    before = outside.read_bytes()
    assert main(["train", "--resume", "run", "--epochs", "2", "--quiet"]) == 1
    error = capsys.readouterr().err
    assert f"run/{name} is a link to {outside}, and what is written must stay in run; remove the link" in error
    assert outside.read_bytes() == before and (run / name).is_symlink()


def test_a_link_of_a_picture_out_of_a_folder_is_refused(run, tmp_path, capsys):
    (run / "loss.png").symlink_to(tmp_path / "outside.png")
    assert main(["plot", "run", "--device", "cpu"]) == 1
    with refusal(OSError, "run/loss.png is a link to ", "must stay in run", "remove the link"):
        runs.inside(run, "loss.png")
    assert not (tmp_path / "outside.png").exists()


def test_a_link_within_a_run_is_followed(run):
    (run / "model.safetensors").replace(run / "kept")
    (run / "model.safetensors").symlink_to("kept")
    before = (run / "kept").read_bytes()
    assert main(["train", "--resume", "run", "--epochs", "2", "--quiet"]) == 0
    assert (run / "model.safetensors").is_symlink() and (run / "kept").read_bytes() != before


def test_one_process_at_a_time_trains_in_a_run(run, capsys):
    history = (run / runs.HISTORY).read_bytes()
    with runs.locked(run):
        with refusal(OSError, "run is trained by another process", "one may at a time", "or stop it"), runs.locked(run):
            pass
        assert main(["train", "--resume", "run", "--epochs", "2", "--quiet"]) == 1
        assert (run / runs.HISTORY).read_bytes() == history
    assert main(["train", "--resume", "run", "--epochs", "2", "--quiet"]) == 0


def test_the_lock_of_a_killed_process_is_none(run):
    code = "import os, sys; from pathlib import Path; from xpnet.commands import runs\n"
    code += "with runs.locked(Path('run')): os.kill(os.getpid(), 9)"
    environment = os.environ | {"PYTHONPATH": str(Path(xpnet.__file__).parents[1])}
    assert subprocess.run([sys.executable, "-c", code], env=environment, timeout=60).returncode == -9
    with runs.locked(run):
        pass


def test_what_killed_processes_left_is_removed(run):
    left = [run / f".{name}.0123abcd" for name in runs.FILES]
    others = [run / ".notes.0123abcd", run / ".model.safetensors.backup"]
    for path in (*left, *others):
        path.write_bytes(b"part")
    assert [path.name for path in leftovers(run / runs.MODEL)] == [".model.safetensors.0123abcd"]
    assert main(["train", "--resume", "run", "--epochs", "2", "--quiet"]) == 0
    assert not any(path.exists() for path in left) and all(path.exists() for path in others)


def test_what_a_killed_process_left_is_removed_and_what_one_writes_now_is_not(tmp_path):
    path, left = tmp_path / "model", tmp_path / ".model.0123abcd"
    left.write_bytes(b"part")
    with open(left, "ab") as now:
        assert files.lock(now.fileno())
        write_atomically(path, b"whole")
        assert left.exists()
    write_atomically(path, b"whole")
    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]


def test_a_writer_does_not_lose_its_file_to_one_that_removes_leftovers(tmp_path):
    path, written = tmp_path / "model", threading.Event()

    def remove():
        while not written.is_set():
            remove_leftovers(path)

    others = [threading.Thread(target=remove) for _ in range(2)]
    for other in others:
        other.start()
    try:
        for i in range(100):
            write_atomically(path, b"%d" % i)
            assert path.read_bytes() == b"%d" % i
    finally:
        written.set()
        for other in others:
            other.join()
    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("name", ["checkpoint", "history"])
def test_a_callback_removes_what_a_killed_process_left(tmp_path, name):
    left = tmp_path / f".{name}.ffffffff"
    left.write_bytes(b"part")
    WRITERS[name](tmp_path / name)
    assert not left.exists()
    remove_leftovers(tmp_path / "nowhere" / "file")


def test_a_run_killed_in_its_first_write_can_be_begun_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("run").mkdir()
    left = Path("run", ".config.json.0123abcd")
    left.write_bytes(b"{")
    assert main([*SMALL, "--out", "run"]) == 0
    assert not left.exists() and check_target("run/config.json") is not None


def test_data_behind_links_are_found_again(tmp_path, monkeypatch):
    """The names given say the formats; the targets are named by their content."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    Path("store").mkdir()
    np.save("store/X.npy", rng.random((20, 3)))
    np.save("store/Y.npy", np.arange(20) % 2)
    Path("store/t.csv").write_text("a,b,y\n" + "".join(f"{i},{i % 3},{i % 2}\n" for i in range(20)), encoding="utf-8")
    for number, name in enumerate(("X.npy", "Y.npy", "t.csv")):
        Path("store", name).replace(f"store/MD5-{number}")
        Path(name).symlink_to(f"store/MD5-{number}")
    options = ["--epochs", "1", "--quiet", "--device", "cpu"]
    assert main(["train", "X.npy", "--labels", "Y.npy", "--out", "rows", *options]) == 0
    assert main(["train", "t.csv", "--target", "y", "--out", "table", *options]) == 0
    assert main(["evaluate", "rows", "--device", "cpu"]) == main(["evaluate", "table", "--device", "cpu"]) == 0
    assert main(["predict", "table", "t.csv", "--out", "P.csv", "--device", "cpu"]) == 0


@pytest.mark.parametrize("option", ["--data-dir", "--resume", "--out", "--dataset", "--config"])
def test_a_loop_of_links_ends_in_one_line(tmp_path, monkeypatch, capsys, option):
    monkeypatch.chdir(tmp_path)
    for name, target in (("a", "b"), ("b", "a"), ("a.csv", "b.csv"), ("b.csv", "a.csv")):
        Path(name).symlink_to(target)
    given = {"--data-dir": ["mnist"], "--dataset": ["--target", "y"]}.get(option, [])
    name = "a.csv" if option == "--dataset" else "a"
    assert main(["train", *given, option, name, "--device", "cpu", "--epochs", "1"]) in (1, 2)
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_json_is_bounded_in_depth_and_digits():
    assert parse_json('{"a": [1, -2.5, null, true, "x"]}') == {"a": [1, -2.5, None, True, "x"]}
    assert parse_json(str(2**128)) == 2**128  # such as the state of a random generator
    assert parse_json("[" * 50 + "]" * 50)
    for depth in (51, 500, 100_000):
        for text in ("[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth):
            with refusal(ValueError, "it is nested deeper than 50 levels", "it must be flat", "write it again"):
                parse_json(text)
    with refusal(ValueError, "it has a number of 400 digits", "a number may have 40", "write it again"):
        parse_json("[" + "9" * 400 + "]")


def test_what_the_system_forbids_is_not_called_a_damaged_file(tmp_path, monkeypatch):
    """Libraries that read files call one that they may not open missing, or not whole."""
    readers = {"m.safetensors": xpnet.Network.load, "c.safetensors": load_checkpoint, "X.npy": open_array}
    readers["t.csv.gz"] = read_table
    for name in readers:
        (tmp_path / name).write_bytes(b"anything")

    def refuse(path, *arguments, **options):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr("xpnet.files.open", refuse, raising=False)  # a superuser's chmod would stop nobody
    for name, read in readers.items():
        with pytest.raises(PermissionError, match=f"Permission denied: '{re.escape(str(tmp_path / name))}'"):
            read(tmp_path / name)
