"""Native code: the function that the text says, compiled once and then taken from the cache."""

from __future__ import annotations

import ctypes
import math
import os
import re
import signal
import subprocess
import sys
import threading
import time

import llvmlite
import llvmlite.binding as llvm
import pytest
from processors import PROCESSORS, VECTOR_BYTES
from refusals import refusal

from xpnet.engines.llvm import native

TRIPLE = "define i64 @run(i64 %x) {\n  %y = mul i64 %x, 3\n  ret i64 %y\n}\n"
EXP = """
declare double @exp(double)
define double @run(double %x) {
  %y = call double @exp(double %x)
  ret double %y
}
"""
LOOP = """
define void @run(ptr noalias %source, ptr noalias %target, i64 %n) {
entry:
  br label %loop
loop:
  %i = phi i64 [0, %entry], [%next, %loop]
  %from = getelementptr float, ptr %source, i64 %i
  %to = getelementptr float, ptr %target, i64 %i
  %x = load float, ptr %from
  %y = fmul float %x, %x
  store float %y, ptr %to
  %next = add i64 %i, 1
  %more = icmp ult i64 %next, %n
  br i1 %more, label %loop, label %done
done:
  ret void
}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XPNET_CACHE", str(tmp_path / "code"))
    return tmp_path / "code"


def call(loaded, x=14, kind=ctypes.c_int64):
    return ctypes.CFUNCTYPE(kind, kind)(loaded.address)(x)


def test_cold_then_warm(folder):
    cold, warm, other = native.load(TRIPLE), native.load(TRIPLE), native.load(TRIPLE.replace("3", "5"))
    assert [call(loaded) for loaded in (cold, warm, other)] == [42, 42, 70]
    assert [loaded.source for loaded in (cold, warm, other)] == ["compiled", "cache", "compiled"]
    assert min(cold.seconds, warm.seconds) > 0 and len(os.listdir(folder)) == 4
    assert TRIPLE in [path.read_text(encoding="utf-8") for path in folder.glob("*.ll")]


def test_functions_live_as_long_as_their_object(folder):
    kept = [native.load(TRIPLE.replace("3", str(factor))) for factor in range(20)]
    del kept[1::2]
    assert [call(loaded, 1) for loaded in kept] == list(range(0, 20, 2))


def test_the_c_library_and_names(folder):
    for _ in range(2):
        assert call(native.load(EXP), 1.25, ctypes.c_double) == pytest.approx(math.exp(1.25), rel=1e-15)
    assert call(native.load(TRIPLE.replace("@run", "@other"), "other")) == 42


DAMAGE = {
    "truncated": lambda code: code[:-9],
    "flipped": lambda code: code[:-1] + bytes([code[-1] ^ 1]),
    "wrong magic": lambda code: b"?" + code[1:],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_broken_code_is_compiled_anew(folder, damage):
    native.load(TRIPLE)
    (path,) = folder.glob("*.code")
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    again = native.load(TRIPLE)
    assert (again.source, call(again)) == ("compiled", 42)
    assert native.load(TRIPLE).source == "cache"


def test_without_a_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XPNET_CACHE", "")
    made, compiles = [], native._object_code
    monkeypatch.setattr(native, "_object_code", lambda *given: made.append(given) or compiles(*given))
    native._kept_code.cache_clear()
    assert [native.load(TRIPLE).source for _ in range(2)] == ["compiled", "compiled"]
    assert len(made) == 1  # LLVM leaks memory each time
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    monkeypatch.setenv("XPNET_CACHE", str(tmp_path / "open"))
    with pytest.warns(UserWarning, match="chmod 700"):
        loaded = native.load(TRIPLE)
    assert (loaded.source, call(loaded), os.listdir(tmp_path / "open")) == ("compiled", 42, [])


OTHER_HOSTS = {
    "llvmlite": lambda patch: patch.setattr(llvmlite, "__version__", "999.0"),
    "LLVM": lambda patch: patch.setattr(llvm, "llvm_version_info", (999, 0, 0)),
    "CPU": lambda patch: patch.setattr(llvm, "get_host_cpu_name", lambda: OTHER_CPU),
    "features": lambda patch: patch.setattr(llvm, "get_host_cpu_features", lambda: type(FEATURES)()),
    "options": lambda patch: patch.setattr(native, "_speed_level", lambda text: 2),
}
FEATURES = llvm.get_host_cpu_features()
OTHER_CPU = "neoverse-n1" if llvm.get_host_cpu_name() == "generic" else "generic"


@pytest.mark.parametrize("what", OTHER_HOSTS)
def test_code_of_another_compiler_or_cpu_is_not_taken(folder, monkeypatch, what):
    native.load(TRIPLE)
    with monkeypatch.context() as patch:
        OTHER_HOSTS[what](patch)
        loaded = native.load(TRIPLE)
        assert (loaded.source, call(loaded), native.load(TRIPLE).source) == ("compiled", 42, "cache")
    assert native.load(TRIPLE).source == "cache" and len(list(folder.glob("*.code"))) == 2


def test_code_is_optimised(folder):
    """An inner function is gone."""
    inner = "define internal i64 @inner_function(i64 %x) {\n  %y = add i64 %x, 1\n  ret i64 %y\n}\n"
    native.load(inner + "define i64 @run(i64 %x) {\n  %y = call i64 @inner_function(i64 %x)\n  ret i64 %y\n}")
    (path,) = folder.glob("*.code")
    assert b"run" in path.read_bytes() and b"inner_function" not in path.read_bytes()


@pytest.mark.parametrize("model", PROCESSORS)
def test_loops_become_vectors_of_the_processor(monkeypatch, model):
    def vectors():
        return {int(lanes) for lanes in re.findall(r"fmul <(\d+) x float>", optimised())}

    def optimised():
        return str(native.optimised(LOOP, PROCESSORS[model])[0])

    assert max(vectors()) == VECTOR_BYTES[model] // 4
    monkeypatch.setattr(native, "_PASSES", dict.fromkeys(native._PASSES, False))
    assert not vectors() and "fmul float" in optimised()


@pytest.mark.parametrize(
    ("text", "name", "words"),
    [
        ("define nonsense", "run", "expected type"),
        (TRIPLE, "nothing", "nothing"),
        (EXP.replace("@exp", "@no_such_function"), "run", "run"),
    ],
)
def test_wrong_text_is_refused_in_llvms_words(folder, text, name, words):
    with pytest.raises(RuntimeError, match=words):
        native.load(text, name)


def test_llvmlite_missing_or_too_old(folder, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(ImportError, match=r"pip install 'xpnet\[jit\]'"):
        patch.setitem(sys.modules, "llvmlite.binding", None)
        native.load(TRIPLE)
    monkeypatch.setattr(llvm, "llvm_version_info", (15, 0, 7))
    with refusal(
        ImportError, "this llvmlite has 15", "needs LLVM 20 or newer", "Run: pip install --upgrade 'xpnet[jit]'"
    ):
        native.load(TRIPLE)
    assert not folder.exists()


def test_ctrl_c_is_heard_while_llvm_compiles(ctrl_c, folder, monkeypatch):
    """The compiler here is a call of C's that no signal ends: a mutex that is locked until long after the signal."""
    posix, mutex, ends = ctypes.CDLL(None), ctypes.create_string_buffer(64), threading.Event()
    posix.pthread_mutex_lock(mutex)

    def compiles(text, processor):
        posix.pthread_mutex_lock(mutex)
        posix.pthread_mutex_unlock(mutex)
        return b""

    def from_outside():
        time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)
        ends.wait(10)
        unheard.append(not ends.is_set())
        posix.pthread_mutex_unlock(mutex)

    unheard, thread = [], threading.Thread(target=from_outside)
    monkeypatch.setattr(native, "_object_code", compiles)
    with pytest.raises(KeyboardInterrupt):
        thread.start()
        native.load(TRIPLE)
    ends.set()
    thread.join()
    assert unheard == [False] and not list(folder.glob("*.code"))


ENDED = """
import sys, threading
from xpnet.engines.llvm import native

def late():
    threading.main_thread().join()
    print(native.load(sys.argv[1]).source)

threading.Thread(target=late).start()
"""


def test_a_thread_compiles_when_the_main_thread_has_ended(folder):
    done = subprocess.run([sys.executable, "-c", ENDED, TRIPLE], capture_output=True, text=True, timeout=300)
    assert (done.stdout, done.stderr, done.returncode) == ("compiled\n", "", 0)
