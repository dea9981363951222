"""What Windows and macOS lack is hidden here: training, the code cache, signals and files go on without it.

Neither system is tried by this, only that nothing leans on what it has not. `mypy --platform` finds every other name.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from features import FEATURES, run_steps
from numpy.testing import assert_allclose  # before a system is hidden: NumPy asks for it when this is imported
from refusals import says

import xpnet
from xpnet.cli import main
from xpnet.commands import signals
from xpnet.engines import blas
from xpnet.engines.llvm import code_cache, engine, native, thread_choice, waiting
from xpnet.engines.llvm.engine import Compiled
from xpnet.engines.replay import Replay
from xpnet.files import write_atomically
from xpnet.timing import machine

OF_LINUX = "os.O_DIRECT os.O_TMPFILE os.copy_file_range os.posix_fadvise os.sched_getaffinity os.sched_setaffinity"
OF_POSIX = """
os.O_CLOEXEC os.O_DIRECTORY os.O_NOFOLLOW os.O_NONBLOCK os.O_SYNC os.chown os.confstr os.fchmod os.fchown os.fork
os.getegid os.geteuid os.getgid os.getgroups os.getloadavg os.getpgid os.getuid os.killpg os.lchown os.mkfifo os.mknod
os.nice os.pathconf os.pread os.pwrite os.sched_yield os.setsid os.statvfs os.sync os.sysconf os.uname os.wait
signal.SIGALRM signal.SIGHUP signal.SIGKILL signal.SIGPIPE signal.SIGQUIT signal.SIGUSR1 signal.SIGUSR2 signal.alarm
signal.pause signal.pthread_kill signal.pthread_sigmask signal.setitimer signal.siginterrupt signal.sigwait
"""
MODULES_OF_POSIX = ("fcntl", "grp", "pwd", "resource", "syslog", "termios", "tty")


@pytest.fixture(params=["win32", "darwin"])
def system(request, tmp_path, monkeypatch):
    """Its name; what it lacks is gone, until the test has ended."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XPNET_CACHE")
    lacking = OF_LINUX.split()
    if request.param == "win32":
        lacking += OF_POSIX.split()
        for name in MODULES_OF_POSIX:
            monkeypatch.setitem(sys.modules, name, None)
        # What closing a console sends there, by a number that can be sent here.
        monkeypatch.setattr(signal, "SIGBREAK", getattr(signal, "SIGUSR1", signal.SIGTERM), raising=False)
        monkeypatch.setattr(ctypes, "CDLL", library_by_its_name)
        monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    for name in lacking:
        monkeypatch.delattr(name, raising=False)
    monkeypatch.setattr(sys, "platform", request.param)
    return request.param


def library_by_its_name(name, *arguments, **options):
    """As on Windows: there is no library that holds what the process itself has."""
    if name is None:
        raise TypeError("bad argument type for built-in operation")
    return LOADED(name, *arguments, **options)


LOADED = ctypes.CDLL


# --- compiled steps --------------------------------------------------------------------------------------------------


def test_two_threads_offer_the_processor_to_each_other(system, float64_cpu, monkeypatch, quick):
    """At once, so that they do it many times: macOS has the C library's call, elsewhere Python's is called."""
    offers, before = [], set(threading.enumerate())
    monkeypatch.setattr(waiting, "SPINS", 0)
    monkeypatch.setattr(waiting, "time", SimpleNamespace(sleep=offers.append))
    feature = FEATURES["dropout, batch normalization, Adam"]
    expected, found = (run_steps(feature, float64_cpu, 8, 210, make) for make in (Replay, partial(Compiled, threads=2)))
    for one, other in zip(expected, found, strict=True):
        assert_allclose(other, one, rtol=1e-9, atol=1e-9)
    assert set(offers) == ({0} if system == "win32" else set())
    for thread in set(threading.enumerate()) - before:  # none is left to offer it for ever
        thread.join(20)
        assert not thread.is_alive()


def test_the_number_of_cores_is_not_guessed(system, float64_cpu):
    """A step that two threads would share is run by one."""
    network = xpnet.Network([784, 300, 10], backend=float64_cpu)
    program = network.training_program(32, xpnet.SGD(), False)
    assert thread_choice.threads_for(program, float64_cpu, thread_choice.MANY) == 1


def test_code_is_kept_where_the_system_keeps_such(system, tmp_path, float64_cpu, quick):
    folder = tmp_path / {"win32": "local", "darwin": "home/Library/Caches"}[system] / "xpnet" / "code"
    assert str(folder) in code_cache.describe()
    weights, sources = [], []
    for _ in range(2):
        native.kept.cache_clear()
        make = KeptEngines()
        weights.append(run_steps(FEATURES["weights"], float64_cpu, 8, 21, make)[0].tobytes())
        sources.append(make.engines[0].native.source)
    assert sources == ["compiled", "cache"] and weights[0] == weights[1]
    (path,) = folder.glob("*.code")
    path.write_bytes(path.read_bytes()[:-1])
    assert code_cache.open_cache().read(path.stem) is None


class KeptEngines:
    def __init__(self):
        self.engines = []

    def __call__(self, *arguments):
        self.engines.append(Compiled(*arguments))
        return self.engines[-1]


def test_on_windows_numpys_product_is_found_by_the_names_of_files(tmp_path, monkeypatch):
    """They lie beside NumPy in its wheel; here a link of such a name leads to what holds the product."""
    before = blas.numpy_gemm("float64")
    (tmp_path / "numpy.libs").mkdir()
    extension = sys.modules["numpy._core._multiarray_umath"].__file__
    (tmp_path / "numpy.libs" / "libscipy_openblas64_-0123.dll").symlink_to(extension)
    monkeypatch.setattr(np, "__file__", str(tmp_path / "numpy" / "__init__.py"))
    monkeypatch.setattr(sys, "platform", "win32")
    assert len(blas._numpy_libraries()) == 1
    found = blas.numpy_gemm("float64", blas._numpy_libraries())
    assert (found and found.address) == (before and before.address)


def test_what_llvm_refuses_is_replayed(float64_cpu, monkeypatch):
    """It may refuse to link on a system that nobody has tried, and "auto" must not be the worse for it."""

    def refuse(text, name="run"):
        raise RuntimeError("Failed to materialize symbols:\n { (xpnet, { _fltused }) }")

    monkeypatch.setattr(engine, "kept", refuse)
    network = xpnet.Network([6, 7, 3], backend=float64_cpu)
    rng = np.random.default_rng(0)
    dataset = xpnet.Dataset.from_labels(rng.random((6, 20)), rng.integers(0, 3, 20), 3)
    with pytest.warns(UserWarning, match="LLVM") as warned:
        history = xpnet.train(network, dataset, xpnet.SGD(), epochs=2, batch_size=5, engine="compiled")
    assert {record["engine"] for record in history} == {"replay"}
    says(
        str(warned[0].message), "LLVM has Failed", "{ _fltused }) }: this cannot be compiled", "engine='replay' runs it"
    )


# --- files -----------------------------------------------------------------------------------------------------------


def test_files_are_there_whole_or_not_at_all(system, tmp_path, monkeypatch):
    path = tmp_path / "model"
    write_atomically(path, b"first\r\n")
    write_atomically(path, b"second\n")
    assert path.read_bytes() == b"second\n"

    def in_use(source, target):
        raise PermissionError(13, "in use by another process", source)

    monkeypatch.setattr(os, "replace", in_use)
    with pytest.raises(PermissionError) as error:
        write_atomically(path, b"third")
    assert error.value.filename == str(path) and path.read_bytes() == b"second\n" and os.listdir(tmp_path) == ["model"]


def test_a_cache_that_another_process_reads_is_left_alone(system, monkeypatch):
    """Windows refuses to replace or remove an open file; the entry then stays as it was."""
    key, cache = "0" * 64, code_cache.open_cache()
    cache.write(key, "text", b"code")

    def in_use(*arguments):
        raise PermissionError(13, "in use by another process")

    for name in ("replace", "unlink", "utime"):
        monkeypatch.setattr(os, name, in_use)
    cache.write(key, "text", b"other code")
    assert cache.read(key) == b"code"


# --- the command line ------------------------------------------------------------------------------------------------

ARGV = ["train", "--layers", "784,8,10", "--epochs", "3", "--batch-size", "500", "--quiet", "--out"]
ENDS = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 143, "SIGBREAK": 143}


@pytest.mark.parametrize("name", ENDS)
def test_a_signal_leaves_a_run_that_goes_on(system, monkeypatch, capsys, request, name):
    """Those that the system has: after the second epoch, with a checkpoint, and the end is the same to the bit."""
    number = getattr(signal, name, None)
    if number is None:
        assert number not in signals._signals()
        return
    if signal.getsignal(number) == signal.SIG_IGN:  # under nohup, which a run respects
        request.addfinalizer(lambda: signal.signal(number, signal.SIG_IGN))
        signal.signal(number, signal.default_int_handler if name == "SIGINT" else signal.SIG_DFL)
    assert main([*ARGV, "whole"]) == 0
    signalled = signals.Interruption.on_pause

    def on_pause(self, moment):
        if moment().progress.epoch == 2 and not self._asked:
            signal.raise_signal(number)
        signalled(self, moment)

    with monkeypatch.context() as patch:
        patch.setattr(signals.Interruption, "on_pause", on_pause)
        assert main([*ARGV, "run"]) == ENDS[name]
    assert Path("run/checkpoint.safetensors").exists()
    assert main(["train", "--resume", "run", "--quiet"]) == 0
    assert Path("run/model.safetensors").read_bytes() == Path("whole/model.safetensors").read_bytes()


def test_info_and_what_computes(system, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)  # it asks for the system too
    assert main(["info"]) == 0
    assert "xpnet" in capsys.readouterr().out
    facts = machine.facts("1.0")
    assert facts["cores"] >= 1 and (facts["memory"] is None) == (system == "win32")


# --- other processors ------------------------------------------------------------------------------------------------


def test_without_qemu_other_processors_are_named_as_missing_in_one_line(tmp_path):
    """Which of its commands is missing, and what brings it; that is no failure."""
    for name in ("bash", "dirname", "qemu-x86_64"):
        (tmp_path / name).symlink_to(shutil.which(name) or shutil.which("true"))
    script = Path(__file__).parents[1] / "ci" / "other-processors"
    done = subprocess.run([script], env={"PATH": str(tmp_path)}, capture_output=True, text=True, timeout=60)
    line = "no other processors: there is no qemu-aarch64 here. On Debian: apt-get install qemu-user\n"
    assert (done.stdout, done.stderr, done.returncode) == (line, "", 0)
