"""What only a machine with a CUDA GPU can tell; `ci/gpu` runs this file: `python3 -m benchmarks.gpu [--bench]`.

Without a GPU it says so, and why, in one line, and exits with 0. With one it runs the tests that use the GPU, compares
the launches and allocations of a step with those counted without a GPU, and calibrates the fake GPU of the tests;
--bench instead times training steps beside other systems. It exits with 1 if a check failed. What is measured and what
the tests say goes into the folder that --out names.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import xpnet
from xpnet.backend import Backend, BackendUnavailable, probe_gpu
from xpnet.engines.choice import make_engine
from xpnet.engines.cuda.engine import Cuda
from xpnet.files import write_atomically
from xpnet.program.grouping import launches
from xpnet.timing import harness, machine

from .peers.__main__ import main as peers

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
SUITE_SECONDS, BENCH_SECONDS = 200, 240  # a run of each kind is to end within 5 minutes
TEST_SECONDS, PATIENCE = 60, 15  # of one test, and for a summary of what had run
STEPS = 10
# What is counted: the network's options, and its optimizer.
PROGRAMS: dict[str, tuple[dict[str, Any], Callable[[], Any]]] = {
    "SGD": ({}, lambda: xpnet.SGD(lr=0.01)),
    "Adam": ({}, xpnet.Adam),
    "Adam, dropout, batch normalization": ({"dropout": 0.2, "normalization": "batch"}, xpnet.Adam),
}


def main(arguments: list[str] | None = None) -> int:
    """Run what the command line says; returns the exit status."""
    parser = argparse.ArgumentParser(prog="ci/gpu", description="Checks that need a CUDA GPU.")
    parser.add_argument("--bench", action="store_true", help="time training steps beside other systems instead")
    parser.add_argument("--out", type=Path, default=RESULTS, help="a folder for results (default benchmarks/results)")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    try:
        cupy, gpu = probe_gpu()
    except BackendUnavailable as failure:
        print(f"no GPU, so nothing was run: {failure}")
        return 0
    print(f"{gpu}, CuPy {cupy.__version__}, NumPy {np.__version__}, Python {sys.version.split()[0]}", flush=True)
    name = re.sub(r"[^a-z0-9]+", "-", gpu.lower()).strip("-")
    backend = Backend("cupy", "cuda", cupy, np.dtype("float32"), "the probe")
    if options.bench:
        _attempt(lambda: time_launches(backend))
        return time_systems("cuda", options.out / f"{name}.json")
    checks: dict[str, Callable[[], bool]] = {
        "launches and allocations": lambda: counts_hold(backend),
        "the fake GPU": lambda: calibrate(cupy, options.out / f"fake_gpu_calibration_{name}.json"),
        "the tests": lambda: suite_passes(options.out / f"tests_{name}.xml"),
    }
    failed = [check for check, holds in checks.items() if not _attempt(holds)]
    print("open, since no check here can tell:", *open_questions(), sep="\n")
    print(f"failed: {', '.join(failed)}" if failed else "all is well")
    return 1 if failed else 0


def _attempt(holds: Callable[[], bool]) -> bool:
    """Whether a check holds; one that raises an error does not, and lets the others run."""
    try:
        return holds()
    except Exception:
        traceback.print_exc()
        return False


def time_systems(device: str, out: Path, *more: str) -> int:
    """Time the systems of `benchmarks.peers` on the device; at the time limit with the works that are done."""
    if hasattr(signal, "SIGALRM"):
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        signal.alarm(BENCH_SECONDS)  # as if by Ctrl-C
    threads = str(min(8, os.cpu_count() or 1))
    status = peers(["--device", device, "--threads", threads, "--rounds", "5", "--out", str(out), *more])
    if hasattr(signal, "SIGALRM"):
        signal.alarm(0)
    return status


def time_launches(
    backend: Backend, sizes: Sequence[int] = (784, 100, 200, 10), batches: Sequence[int] = (32, 257, 1024), n: int = 500
) -> bool:
    """Print the time of a step by prebound launches and in one launch of n steps, the best of five in turns."""
    limit = Cuda.ONE_LAUNCH_FLOPS
    try:
        for batch in batches:
            engines = []
            for most in (-1.0, np.inf):
                Cuda.ONE_LAUNCH_FLOPS = most
                network = xpnet.Network(list(sizes), backend=backend, seed=0)
                data = {"X": (backend.zeros(batch * sizes[0]).reshape(batch, sizes[0]), None)}
                data["Y"] = (backend.zeros(batch * sizes[-1]).reshape(batch, sizes[-1]), None)
                program = network.training_program(batch, xpnet.SGD(0.01), False)
                engines.append(make_engine(program, backend, network.owned, data))
            order, rows = np.tile(np.arange(batch), n), np.full((n, 1), 0.01)
            seconds = [[_seconds(engine, order, rows) for engine in engines] for _ in range(6)][1:]
            prebound, one = (1e6 * min(times) / n for times in zip(*seconds, strict=True))
            print(f"batch {batch}: {prebound:.1f} us a step by prebound launches, {one:.1f} in one launch", flush=True)
    finally:
        Cuda.ONE_LAUNCH_FLOPS = limit
    return True


def _seconds(engine: Any, order: np.ndarray, rows: np.ndarray) -> float:
    begin = time.perf_counter()
    engine.run(order, rows)  # which waits for the results
    return time.perf_counter() - begin


def suite_passes(report: Path) -> bool:
    """Run the tests that use the GPU; tells whether they passed, also if pytest is missing and none was run."""
    if importlib.util.find_spec("pytest") is None:
        print("the tests were not run: pytest is not installed")
        return True
    left_out = files_left_out(ROOT / "tests")
    for path, names in left_out.items():
        print(f"left out: {path.name}, which imports {', '.join(sorted(names))}", flush=True)
    # addopts is emptied: a GPU takes its turn in every row of a product, also in those marked full. First comes
    # what says most: every feature on the GPU beside the CPU.
    command = [sys.executable, "-m", "pytest", "tests/engines/cuda", "tests", "-q", "--tb=short", "-m", "gpu"]
    command += ["-o", "addopts=", "--continue-on-collection-errors", "--time-limit", str(TEST_SECONDS)]
    command += [f"--junitxml={report}", *(f"--ignore={path}" for path in left_out)]
    if importlib.util.find_spec("xdist") is not None:
        command += ["-n", str(min(8, os.cpu_count() or 1))]
    environment = {**os.environ, "XPNET_REQUIRE_GPU": "1"}
    process = subprocess.Popen(command, cwd=ROOT, env=environment)
    try:
        return process.wait(SUITE_SECONDS) == 0  # neither if no test was run, nor if a file could not be read
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)  # as Ctrl-C: it says what had failed
        with suppress(subprocess.TimeoutExpired):
            process.wait(PATIENCE)
        print(f"the tests were stopped after {SUITE_SECONDS} s; CuPy keeps its kernels for a second run")
        return False
    finally:
        process.kill()


def files_left_out(folder: Path) -> dict[Path, set[str]]:
    """Return the test files in a folder that cannot be imported here, each with the packages that are missing."""
    helpers = {path.stem: [path] for path in folder.rglob("*.py")}
    helpers |= {path.name: list(path.glob("__init__.py")) for path in folder.rglob("*") if path.is_dir()}
    found = {path: missing_imports(path, helpers) for path in sorted(folder.rglob("test_*.py"))}
    return {path: names for path, names in found.items() if names}


def missing_imports(path: Path, helpers: Mapping[str, list[Path]], seen: frozenset[Path] = frozenset()) -> set[str]:
    """Return what a file imports as it is loaded, itself or by a helper, and what is not installed."""
    missing = set()
    for name in imports(path):
        if name not in helpers and importlib.util.find_spec(name) is None:
            missing.add(name)
        for helper in set(helpers.get(name, ())) - seen:
            missing |= missing_imports(helper, helpers, seen | {path})
    return missing


@cache
def imports(path: Path) -> frozenset[str]:
    """Return the packages that a file imports as it is loaded; what it tries, or imports from beside it, is not one."""
    names = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module)
        elif isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
    return frozenset(name.partition(".")[0] for name in names)


def open_questions() -> list[str]:
    """Return what only a device can tell: the list in the README's Limits."""
    limits = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Limits")[2]
    return [" ".join(item.split()) for item in re.findall(r"^- .*(?:\n  .*)*", limits, re.MULTILINE)]


def counts_hold(backend: Backend) -> bool:
    """Compare a step's launches with a profile, a run's allocations with the fake GPU's; tells whether all agree."""
    from . import calibration

    fake = Backend("cupy", "cuda", calibration.fakecupy, np.dtype("float32"), "to compare with")
    agree = True
    print("784-100-200-10, batch 32: a step's launches, and the allocations of a run, however long")
    for name in PROGRAMS:
        run, expected, products = _prepared(backend, name)
        run(STEPS)  # compiles, and makes the libraries' handles
        found = launches_of(lambda run=run: run(STEPS), lambda run=run: run(2 * STEPS))
        if isinstance(found, str):
            said = f"{expected} launches by the count, not compared: {found}"
        else:
            generated = sum(n for kernel, n in found.items() if re.fullmatch(r"kernel\d+|gather", kernel)) / STEPS
            others = found.total() / STEPS - generated  # a library may make two kernels of a product
            agree &= generated == expected - products and others >= products
            said = (
                f"generated kernels {generated:g}, by the count {expected - products}; "
                f"the library's {others:g}, for {products} products"
            )
        real = _allocations(run, calibration.hook(backend.xp))
        if calibration.can_run_kernels():
            fakes = _allocations(_prepared(fake, name)[0], calibration.fakecupy.counts.measure)
            agree &= real == fakes
        else:
            fakes = "not compared, no C++ compiler"
        print(
            f"- {name}: {said}; allocations in {STEPS} and {2 * STEPS} steps {real}, on the fake GPU {fakes}",
            flush=True,
        )
    return agree


def _prepared(backend: Backend, name: str) -> tuple[Callable[[int], Any], int, int]:
    """Return what runs a number of steps of that Program, its launches a step with the gather, and its products."""
    options, make_optimizer = PROGRAMS[name]
    network = xpnet.Network([784, 100, 200, 10], backend=backend, **options)
    optimizer, batch = make_optimizer(), 32
    program = network.training_program(batch, optimizer, False)
    X, Y, order = harness.synthetic_data(784, 10, batch, 2 * STEPS)
    data = {"X": (backend.to_device(X), None), "Y": (backend.to_device(Y), None)}
    engine = make_engine(program, backend, network.owned, data)
    optimizer.attach(network, engine)
    made = launches(program)
    return (
        lambda steps: engine.run(order[: steps * batch], optimizer.slot_rows(steps)),
        len(made) + 1,
        sum(launch.is_product for launch in made),
    )


def _allocations(run: Callable[[int], Any], meter: Callable[[], Any]) -> list[int]:
    """Return the allocations of a run of `STEPS` and of one of twice as many."""
    found = []
    for steps in (STEPS, 2 * STEPS):
        run(steps)
        with meter() as cost:
            run(steps)
        found.append(cost.allocations)
    return found


def launches_of(short: Callable[[], Any], long: Callable[[], Any]) -> Counter[str] | str:
    """Return the kernels by name which `long` launches more than `short`, by PyTorch's profiler, or why it saw none."""
    try:
        import torch
    except ImportError:
        return "no profiler, torch is not installed"
    if not torch.cuda.is_available():
        return f"no profiler, torch {torch.__version__} sees no CUDA GPU"
    torch.cuda.init()
    kernels_of(short)  # the first profile of a process may miss what runs while it begins
    found = kernels_of(long)
    found.subtract(kernels_of(short))
    return found if found.total() else "the profiler saw no kernel of CuPy's"


def kernels_of(run: Callable[[], Any]) -> Counter[str]:
    """Return the kernels that ran on the GPU meanwhile, by name, whoever launched them."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    # With ProfilerActivity.CUDA alone it refuses to start on a machine without a GPU.
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        run()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder, "trace.json")
        profiler.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
    return Counter(event["name"] for event in events if event.get("cat") == "kernel")


def calibrate(cupy: Any, out: Path) -> bool:
    """Compare the fake GPU with the real one, print what differs and write all of it; tells whether nothing does."""
    from . import calibration

    outcome = calibration.compare(cupy, calibration.hook(cupy))
    print("the fake GPU beside CuPy:")
    print(calibration.table(outcome), flush=True)
    results = {"machine": machine.facts(xpnet.__version__), "operations": outcome}
    write_atomically(out, (json.dumps(results, indent=1) + "\n").encode())
    return not any(said["differs"] for said in outcome.values())


if __name__ == "__main__":
    sys.exit(main())
