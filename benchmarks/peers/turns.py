"""Workers and their turns: one process a system, one of them working at a time; answers are checked and kept."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .works import Work, expected_losses

ROOT = Path(__file__).resolve().parents[2]
TOLERANCE = 1e-3  # of a loss, relative to the float64 reference
DROP_TOLERANCE = 1e-2  # of how far the loss has fallen, relative to the reference's fall
PATIENCE = 600  # seconds that one answer may take; compiling is the longest


class WorkerFailed(RuntimeError):
    """A worker died, kept silent, raised, or computed something else than the reference."""


def command(system: str, device: str) -> list[str]:
    """The command line of a system's worker."""
    return [sys.executable, "-m", "benchmarks.peers.worker", system, device]


def environment(threads: int, device: str) -> dict[str, str]:
    """The variables that give every library the same number of threads and the device; set before it is loaded."""
    count = str(threads)
    names = ("OMP", "OPENBLAS", "MKL", "BLIS", "NUMEXPR", "VECLIB_MAXIMUM")
    eigen = "true" if threads > 1 else "false"
    if device == "cuda":  # float32 products are products of float32 in every system
        places = {
            "JAX_PLATFORMS": "",
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
            "CUPY_TF32": "0",
            "JAX_DEFAULT_MATMUL_PRECISION": "highest",
            "NVIDIA_TF32_OVERRIDE": "0",
        }
    else:
        flags = f"--xla_cpu_multi_thread_eigen={eigen} intra_op_parallelism_threads={count}"
        places = {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": "", "XLA_FLAGS": flags}
    return {
        **os.environ,
        **{f"{name}_NUM_THREADS": count for name in names},
        "PYTHONDONTWRITEBYTECODE": "",  # modules of an installed library are compiled, so are ours on a second start
        **places,
        "NPROC": count,  # XLA sizes its pool by this one, or the next
        "PJRT_NPROC": count,
    }


def code_caches(folder: str) -> dict[str, str]:
    """The variables that keep compiled code in this folder; JAX keeps none unless asked to."""
    return {
        "XPNET_CACHE": f"{folder}/xpnet",
        "TORCHINDUCTOR_CACHE_DIR": f"{folder}/inductor",
        "JAX_ENABLE_COMPILATION_CACHE": "false",
        "CUPY_CACHE_DIR": f"{folder}/cupy",
        "CUDA_CACHE_PATH": f"{folder}/cuda",
    }


class Worker:
    """A process that answers a line of JSON for each line of JSON.  variables: of its environment, besides."""

    def __init__(
        self, arguments: Sequence[str], threads: int, device: str, variables: Mapping[str, str] | None = None
    ) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._process = subprocess.Popen(
            arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            cwd=ROOT,
            env={**environment(threads, device), **(variables or {})},
            preexec_fn=_on_cores(threads),
        )
        try:
            self.greeting = self._answer()
        except WorkerFailed:
            self.close()
            raise

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send a request and return its answer; raises WorkerFailed if there is none, or an error."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except OSError:
            self._raise_dead()
        return self._answer()

    def close(self) -> None:
        """End the process, whatever it is doing."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            with contextlib.suppress(OSError):  # what was still to be written to a dead process
                stream.close()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        guard = threading.Timer(PATIENCE, self._process.kill)
        guard.start()
        try:
            line = self._process.stdout.readline()
        finally:  # Ctrl-C too, or the guard's thread would keep this process alive
            guard.cancel()
        if not line:
            self._raise_dead()
        answer = json.loads(line)
        if "error" in answer:
            raise WorkerFailed(answer["error"])
        return answer

    def _raise_dead(self) -> None:
        code = self._process.wait()
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip().splitlines()
        raise WorkerFailed(f"the worker ended with {code}: {said[-1] if said else 'it said nothing'}")


class Workers:
    """The workers by system; one that has died is started again for the next work."""

    def __init__(self, commands: Mapping[str, Sequence[str]], threads: int, device: str) -> None:
        self._commands, self._threads, self._device = dict(commands), threads, device
        self._running: dict[str, Worker] = {}
        self.left_out: dict[str, str] = {}

    def start(self, system: str) -> Worker | None:
        """Return the system's worker, started if need be; None, and a note, if its package or its device is missing."""
        if system in self.left_out:
            return None
        if system not in self._running:
            worker = Worker(self._commands[system], self._threads, self._device)
            if "missing" in worker.greeting:
                worker.close()
                self.left_out[system] = worker.greeting["missing"]
                return None
            self._running[system] = worker
        return self._running[system]

    def drop(self, system: str) -> None:
        """End the system's worker."""
        worker = self._running.pop(system, None)
        if worker is not None:
            worker.close()

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *exception: object) -> None:
        for system in tuple(self._running):
            self.drop(system)


def measure(
    commands: Mapping[str, Sequence[str]],
    works: Mapping[str, Work],
    *,
    rounds: int,
    seconds: float,
    threads: int,
    device: str = "cpu",
    pause: float = 0.25,
    first_steps: int = 0,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Check and time every system at every work; returns {"works", "left_out"}, ready for JSON.

    commands: system -> command line of its worker on that device.  seconds: about how long a turn is.  pause: seconds
    before each turn, in which the threads of the last one stop spinning.  first_steps: how often to
    time the first step of a new process.  say: called with lines of progress.
    Ctrl-C ends it with the works that are done.
    works[work]["systems"][system] is {"seconds": per step, one each round, ...} or {"failed": why}.
    Among it is, if it was timed, "first_step": {"cold", "again"}, each a list of {"started", "imported"}: seconds since
    the process began and since the library was imported, with empty code caches and then with those just filled.
    works[work]["limits"] is {"flops", "bytes"} a second of a large product and a large copy, measured in each round.
    """
    results: dict[str, Any] = {}
    with Workers(commands, threads, device) as workers:
        try:
            for key, work in works.items():
                say(f"work {key}: {work}")
                systems = _set_up(workers, list(commands), work, seconds, threads, say)
                limits = _take_turns(workers, systems, rounds, pause)
                for _ in range(first_steps):
                    _take_first_steps(commands, systems, work, threads, device)
                results[key] = {
                    "name": str(work),
                    "origin": work.origin,
                    "lr": work.lr,
                    "systems": systems,
                    "limits": limits,
                }
        except KeyboardInterrupt:
            say("interrupted: what was measured of the works before this one is kept")
        left_out = workers.left_out
    return {"works": results, "left_out": left_out}


def _set_up(
    workers: Workers, names: list[str], work: Work, seconds: float, threads: int, say: Callable[[str], None]
) -> dict[str, Any]:
    """Let every system check itself at a work; returns each one's answer, or why it failed."""
    systems: dict[str, Any] = {}
    wanted = expected_losses(work)
    for name in names:
        systems[name] = {"seconds": []}
        answer = _attempt(workers, systems, name, do="set_up", work=asdict(work), seconds=seconds, threads=threads)
        if name in workers.left_out:
            del systems[name]
        elif answer is not None:
            systems[name].update(answer)
            difference = disagreement(answer, wanted)
            if difference is not None:
                systems[name] = {"failed": difference}
        if "failed" in systems.get(name, {}):
            say(f"  {name} failed: {systems[name]['failed']}")
    return systems


def _take_turns(workers: Workers, systems: dict[str, Any], rounds: int, pause: float) -> list[dict[str, float]]:
    """Time the systems in turns, each round beginning with another one; returns the machine's limits in each round."""
    limits = []
    for turn in range(rounds):
        names = [name for name in systems if "failed" not in systems[name]]
        start = turn % max(1, len(names))
        for name in names[start:] + names[:start]:
            time.sleep(pause)
            answer = _attempt(workers, systems, name, do="turn")
            if answer is not None:
                systems[name]["seconds"].append(answer["seconds_per_step"])
        time.sleep(pause)
        limits.append(_limits(workers, systems))
    return limits


def _take_first_steps(
    commands: Mapping[str, Sequence[str]], systems: dict[str, Any], work: Work, threads: int, device: str
) -> None:
    """Time each system's first step in a new process whose code caches are empty, and in one more with what it left."""
    for name in [name for name in systems if "failed" not in systems[name]]:
        kept = systems[name].setdefault("first_step", {"cold": [], "again": []})
        # What a compiler of PyTorch still writes when its process has ended must not end this one.
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            try:
                for times in kept.values():
                    times.append(first_step(commands[name], work, threads, device, code_caches(folder)))
            except WorkerFailed as failure:
                systems[name] = {"failed": f"the first step of a new process: {failure}"}


def first_step(
    arguments: Sequence[str], work: Work, threads: int, device: str, variables: Mapping[str, str]
) -> dict[str, float]:
    """Return {"started", "imported"}: seconds of a new worker until its first step is done.

    Making its data and reading the request do not count.
    """
    began = time.perf_counter()
    worker = Worker(arguments, threads, device, variables)
    greeted = time.perf_counter() - began
    try:
        said = worker.ask(do="first_step", work=asdict(work), threads=threads)
    finally:
        worker.close()
    return {"started": greeted + said["seconds"], "imported": said["found_device"] + said["seconds"]}


def _limits(workers: Workers, systems: dict[str, Any]) -> dict[str, Any]:
    """Return the device's limits, measured by one of the workers."""
    for name in ("xpnet", "numpy-inplace"):
        if "steps" in systems.get(name, {}):
            return _attempt(workers, systems, name, do="limits") or {}
    return {}


def _attempt(workers: Workers, systems: dict[str, Any], name: str, **request: Any) -> dict[str, Any] | None:
    """Ask a worker; if it fails, note why in its place and end it, since its state is unknown."""
    try:
        worker = workers.start(name)
        return None if worker is None else worker.ask(**request)
    except WorkerFailed as failure:
        workers.drop(name)
        systems[name] = {"failed": str(failure)}
        return None


def disagreement(found: Mapping[str, Any], wanted: Mapping[str, float], strictness: float = 1.0) -> str | None:
    """Say how a system's losses differ from the reference's, or None if they agree or cannot be compared.

    strictness: the tolerances are divided by it.
    """
    if "loss_sum" not in found:
        return None
    fall, wanted_fall = (losses["loss_before"] - losses["loss_after"] for losses in (found, wanted))
    for name, value, expected, tolerance in (
        ("loss_sum", found["loss_sum"], wanted["loss_sum"], TOLERANCE),
        ("loss_after", found["loss_after"], wanted["loss_after"], TOLERANCE),
        ("the fall of the loss", fall, wanted_fall, DROP_TOLERANCE),
    ):
        if not abs(value - expected) <= tolerance / strictness * abs(expected):  # so that NaN disagrees
            return f"{name} after the checked steps is {value:.6g}, the float64 reference has {expected:.6g}"
    return None


def _on_cores(threads: int) -> Callable[[], None] | None:
    """Keep a worker on as many cores as it may have threads, which binds also a library that no variable reaches."""
    if not hasattr(os, "sched_setaffinity"):
        return None
    cores = sorted(os.sched_getaffinity(0))[:threads]
    return lambda: os.sched_setaffinity(0, cores)
