"""Processes that train the trials of a search, several at a time, each with its share of the processor's cores.

The search asks and is told by lines of JSON: a process gets the options of the search, then those of a trial; it sends
the epoch and the best value of a trial where this is compared with the others, waits for an answer, and sends the
outcome. It ends when its input does.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xpnet.cores
from xpnet.cores import usable_cores

NOT_SENT = ("run", "parser", "reading")  # no JSON, and not needed
SILENT = {"quiet": True, "json": False, "plot": False}
THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
PATIENCE = 5.0  # seconds that a process has to end


@dataclass(frozen=True)
class Share:
    """How the cores are shared: processes, and the threads of each; together no more than there are cores."""

    n_jobs: int
    threads: int


def share_of(jobs: int, threads: int | None) -> Share:
    """Return the share of as many jobs as were asked for, or as have cores.  threads: of each, if they are named."""
    cores = usable_cores()
    n_jobs = max(1, min(jobs, cores // (threads or 1)))
    return Share(n_jobs, threads or max(1, cores // n_jobs))


class Workers:
    """Processes that have loaded the data of a search, and a queue of what they say: (number of a process, message).

    A process that has ended says {"ended": its exit code}.
    """

    def __init__(self, share: Share, given: argparse.Namespace) -> None:
        sent = {name: value for name, value in vars(given).items() if name not in NOT_SENT}
        root = str(Path(xpnet.cores.__file__).parents[1])  # where this xpnet lies, installed or not
        path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = os.environ | dict.fromkeys(THREADS, str(share.threads)) | {"PYTHONPATH": path}
        self.said: queue.Queue[tuple[int, dict[str, Any]]] = queue.Queue()
        self._processes = [
            subprocess.Popen(
                [sys.executable, "-m", "xpnet.tuning.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environment,
                text=True,
                encoding="utf-8",
                start_new_session=True,  # Ctrl-C is for the search alone
            )
            for _ in range(share.n_jobs)
        ]
        self._listeners = [
            threading.Thread(target=self._listen, args=each, daemon=True) for each in enumerate(self._processes)
        ]
        for number, listener in enumerate(self._listeners):
            listener.start()
            self.send(number, sent | SILENT)

    def __len__(self) -> int:
        return len(self._processes)

    def send(self, number: int, message: Any) -> None:
        """Send a message to a process; one that has ended says so by itself."""
        stdin = self._processes[number].stdin
        assert stdin is not None
        with suppress(OSError):
            print(json.dumps(message), file=stdin, flush=True)

    def hear(self, seconds: float) -> tuple[int, dict[str, Any]] | None:
        """Return what a process said next, None if none did for some seconds."""
        try:
            return self.said.get(timeout=seconds)
        except queue.Empty:
            return None

    def end(self) -> None:
        """End all processes."""
        for process in self._processes:
            process.terminate()
        for process, listener in zip(self._processes, self._listeners, strict=True):
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            listener.join()
            for stream in (process.stdin, process.stdout):
                assert stream is not None
                with suppress(OSError):  # what it has not read
                    stream.close()

    def _listen(self, number: int, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self.said.put((number, json.loads(line)))
        self.said.put((number, {"ended": process.wait()}))


@contextmanager
def working(share: Share, given: argparse.Namespace) -> Iterator[Workers]:
    """Lend processes for a search with these options."""
    workers = Workers(share, given)
    try:
        yield workers
    finally:
        workers.end()
