"""Start Python under mpiexec, and look after every process that it starts."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

LIMIT = 100  # seconds of a launch
SURVIVES = 10  # seconds that no rank may live on after a fault
MPIEXEC = Path(sys.executable).with_name("mpiexec")


def command(*ranks):
    """The words of a launch: (number of ranks, words of Python) of each part."""
    parts = [["-n", str(n), sys.executable, *map(str, words)] for n, *words in ranks]
    return [str(MPIEXEC), *parts[0], *(word for part in parts[1:] for word in (":", *part))]


def environment():
    """Each rank on one thread, with the tests' own modules."""
    return os.environ | {"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}


def launch(*ranks, check=True):
    """Run to the end; returns the finished process."""
    done = subprocess.run(command(*ranks), capture_output=True, text=True, timeout=LIMIT, env=environment())
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


@contextmanager
def started(*ranks):
    """Start, and yield the process of mpiexec; at the end nothing of it is left."""
    process = subprocess.Popen(
        command(*ranks), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    )
    try:
        yield process
    finally:
        for pid in [*ranks_of(process), process.pid] if process.poll() is None else []:
            os.kill(pid, 9)
        process.wait(SURVIVES)


def ranks_of(process):
    """The ids of the ranks that an mpiexec has started: the grandchildren that are Python."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(entry.read_text().rpartition(")")[2].split()[1])
        except OSError:  # gone meanwhile
            continue
        children.setdefault(parent, []).append(int(entry.parent.name))
    return sorted(rank for proxy in children.get(process.pid, ()) for rank in children.get(proxy, ()))


def ended(process, pids):
    """The stderr of an mpiexec that ends, with all its ranks, within SURVIVES seconds."""
    limit = time.monotonic() + SURVIVES
    _, text = process.communicate(timeout=SURVIVES)
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < limit, "a rank lives on"
        time.sleep(0.05)
    return text
