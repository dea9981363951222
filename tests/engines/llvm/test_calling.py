"""The threads of a step: started once, asleep between calls, ended with their engine, anew in a forked child."""

from __future__ import annotations

import ctypes
import gc
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import xpnet
from xpnet.engines import choice
from xpnet.engines.llvm.calling import Calling
from xpnet.engines.llvm.native import load
from xpnet.engines.llvm.waiting import FLAG, new_flags

PATIENCE = 20.0  # seconds, for what takes microseconds on a machine with time

# Counts up the number at the address that its table holds, which each thread has for itself.
COUNTS = """
define void @run(ptr %table, i64 %thread) {
  %numbers = load ptr, ptr %table
  %place = getelementptr i64, ptr %numbers, i64 %thread
  %before = load i64, ptr %place
  %now = add i64 %before, 1
  store i64 %now, ptr %place
  ret void
}
"""


@pytest.fixture(autouse=True)
def as_it_stands(quick):
    """Code is not optimised here."""


class Counting:
    """A function that counts its calls by thread."""

    def __init__(self, threads):
        self.calling, self.native = Calling(threads, None), load(COUNTS)
        self.counts = np.zeros(threads, np.int64)
        self._table = np.array([self.counts.ctypes.data], np.int64)

    def run(self):
        self.calling.run(self.native.address, self._table)
        return self.counts.tolist()


def becomes(expected, found):
    """Whether what `found` returns becomes that soon."""
    end = time.monotonic() + PATIENCE
    while found() != expected and time.monotonic() < end:
        time.sleep(0.001)
    return found() == expected


def beside(before):
    """The threads of steps that have started since."""
    return {thread for thread in set(threading.enumerate()) - before if thread.daemon}


def state_of(thread):
    """The state of a thread: S is asleep."""
    said = Path(f"/proc/self/task/{thread.native_id}/stat").read_text(encoding="ascii")
    return said.rpartition(")")[2].split()[0]


@pytest.mark.skipif(not new_flags(2)[2], reason="nothing can sleep within machine code: each call has its own threads")
def test_threads_start_once_and_end_with_what_calls():
    counting, before, found = Counting(3), set(threading.enumerate()), []
    for n in range(1, 6):
        assert counting.run() == [n, n, n]
        found.append(beside(before))
    assert len(found[0]) == 2 and found == found[:1] * 5
    del counting
    assert becomes(set(), lambda: found[0] & set(threading.enumerate()))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_threads_sleep_between_calls():
    before, counting = set(threading.enumerate()), Counting(2)
    counting.run()
    (worker,) = beside(before)
    assert becomes("S", lambda: state_of(worker))
    assert counting.run() == [2, 2] and becomes("S", lambda: state_of(worker))


def test_a_wait_that_is_long_wakes_whoever_sleeps(monkeypatch):
    """At once, so that each wait sleeps."""
    monkeypatch.setattr("xpnet.engines.llvm.waiting.SPINS", 0)
    counting = Counting(2)
    for n in range(1, 300):
        assert counting.run() == [n, n]


@pytest.mark.skipif(not new_flags(2)[2], reason="nothing can sleep within machine code: each call has its own threads")
def test_an_end_amid_a_list_leaves_the_threads_to_it():
    """As at the exit of an interpreter while a daemon thread trains: a second first thread may wait for ever."""
    counting, begun, may_end = Counting(2), threading.Event(), threading.Event()

    def hold(table, thread):
        if thread == 0:
            begun.set()
            may_end.wait(PATIENCE)

    function = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)(hold)
    address = ctypes.cast(function, ctypes.c_void_p).value
    holding = threading.Thread(target=counting.calling.run, args=(address, np.zeros(1, np.int64)), daemon=True)
    holding.start()
    assert begun.wait(PATIENCE)
    _, end, given, _ = counting.calling._workers.end.peek()
    end(*given)
    may_end.set()
    holding.join(PATIENCE / 10)
    following = threading.Thread(target=counting.run, daemon=True)
    following.start()
    following.join(PATIENCE / 10)
    assert not following.is_alive() and counting.counts.tolist() == [1, 1]


def test_the_flags_of_two_threads_share_no_cache_line():
    flags = new_flags(2)
    assert FLAG * flags.itemsize == 64 and flags.size == 2 * FLAG


FORKED = """
import os, threading
import numpy as np, xpnet
from xpnet.engines import choice
from xpnet.engines.choice import make_engine

network = xpnet.Network([6, 7, 3], backend=xpnet.select_backend("cpu", "float64"), seed=1)
program = network.training_program(5, xpnet.SGD(), False)
rng = np.random.default_rng(0)
data = {"X": (rng.random((40, 6)), None), "Y": (rng.random((40, 3)), None)}
engine = make_engine(program, network.backend, network.owned, data, "compiled", threads=2)
steps = np.arange(40), np.full((8, 1), 0.1)
engine.run(*steps)
child = os.fork()
print(engine.run(*steps).tobytes().hex(), threading.active_count(), flush=True)
if child:
    assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.full
@pytest.mark.skipif(not hasattr(os, "fork"), reason="cannot fork")
def test_a_forked_child_has_threads_of_its_own():
    """Both run the same steps with an engine from before, and end."""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", FORKED], capture_output=True, text=True, timeout=300)
    assert (done.stderr, done.returncode) == ("", 0)
    first, second = done.stdout.splitlines()
    assert first == second and first.endswith(" 2")


def of_this_process():
    """Its threads and, where they can be listed, its descriptors."""
    descriptors = Path("/proc/self/fd")
    return threading.active_count(), len(list(descriptors.iterdir())) if descriptors.is_dir() else 0


@pytest.mark.full
def test_a_thousand_fits_leave_no_thread_and_no_descriptor(monkeypatch):
    monkeypatch.setattr(choice, "threads_for", lambda *counts: 2)
    rng = np.random.default_rng(0)
    dataset = xpnet.Dataset.from_labels(rng.random((6, 40)), rng.integers(0, 3, 40), 3)
    before = 0, 0
    for n in range(1000):
        network = xpnet.Network([6, 7, 3], device="cpu")
        history = xpnet.train(network, dataset, xpnet.SGD(), epochs=3, engine="compiled", validation=dataset)
        assert history[-1]["threads"] == 2
        del network, history
        if n == 9:
            gc.collect()
            before = of_this_process()
    gc.collect()
    assert becomes(before, of_this_process)
