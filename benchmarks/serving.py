"""`python -m benchmarks.serving`: what a row costs in each form that a model is served in, and what the form weighs.

One row at a time, in microseconds: `Network.predict` replayed and, with llvmlite, compiled; the exported page of NumPy,
ONNX graph (with onnx and onnxruntime) and C header (with gcc); and `xpnet predict --jsonl`, asked through its pipes.
`--environments` also makes a virtual environment for each form by pip, and tells its size without pip.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import runpy
import shutil
import statistics
import subprocess
import sys
import venv
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

import xpnet
from benchmarks.predictions import compiled, replayed
from xpnet.engines.choice import check_engine
from xpnet.timing import machine
from xpnet.timing.harness import Work, take_turns

NETWORKS = ((20, 64, 64, 2), (784, 100, 200, 10))
IN_C = 1000  # rows that C predicts by one call from Python
OPTIONS = ("-O2", "-O3 -march=native")
ENVIRONMENTS = {"xpnet": ".", "the page": "numpy", "ONNX Runtime": "onnxruntime", "xpnet[jit]": ".[jit]"}
LIBRARY = """
#include "model.h"
void rows(const float *x, float *y, int n) { for (int i = 0; i < n; ++i) model_predict(x, y); }
"""


def run_of(network: xpnet.Network, folder: Path) -> Path:
    """Make the directory of a run with this network, and return it."""
    folder.mkdir()
    network.save(folder / "model.safetensors")
    config = {"spec": network.to_spec(), "data": {"dataset": "X.npy"}, "backend": {"dtype": "float32"}}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def in_c(network: xpnet.Network, folder: Path, row: np.ndarray, options: str) -> Callable[[], object]:
    """Return what predicts a row IN_C times by the header, compiled with these options."""
    if not (folder / "model.h").exists():
        xpnet.export(network, folder / "model.h")
    (folder / "model.c").write_text(LIBRARY, encoding="ascii")
    library = folder / f"model{options.replace(' ', '')}.so"
    command = ["gcc", "-std=c99", *options.split(), "-shared", "-fPIC", "model.c", "-o", str(library), "-lm"]
    subprocess.run(command, cwd=folder, check=True)
    rows, out = ctypes.CDLL(str(library)).rows, np.empty(network.architecture.n_outputs, np.float32)
    x, y = (ctypes.c_void_p(array.ctypes.data) for array in (row, out))
    return lambda: (rows(x, y, IN_C), row, out)


def by_onnx_runtime(network: xpnet.Network, folder: Path, row: np.ndarray) -> Callable[[], object]:
    """Return what predicts a row by ONNX Runtime in one thread; raises ImportError without it."""
    import onnxruntime

    (path,) = xpnet.export(network, folder / "model.onnx")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"X": row})


@contextmanager
def by_jsonl(run: Path, row: np.ndarray) -> Iterator[Callable[[], object]]:
    """Yield what asks `xpnet predict --jsonl` for a row."""
    command = [sys.executable, "-m", "xpnet", "predict", str(run), "--jsonl", "--device", "cpu"]
    line = json.dumps([float(value) for value in row[0]]) + "\n"
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        stdin, stdout = process.stdin, process.stdout
        assert stdin is not None and stdout is not None

        def ask() -> str:
            stdin.write(line)
            stdin.flush()
            return stdout.readline()

        assert "outputs" in ask()
        yield ask
        stdin.close()


def times(sizes: tuple[int, ...], repeats: int) -> None:
    """Print what one row costs in each form, and how large the form's files are."""
    network, row = xpnet.Network(sizes, device="cpu"), np.random.default_rng(0).random((1, sizes[0]), np.float32)
    predict: Any = lambda rows: network.predict(rows.T)  # noqa: E731
    with TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        run = run_of(network, folder / "run")
        page, _ = xpnet.export(network, folder / "model.py")
        by_page = runpy.run_path(str(page))["predict"]
        again = replayed(network, predict)
        works: dict[str, Callable[[], object]] = {"Network.predict, replayed": lambda: again(row)}
        with suppress(ImportError):
            check_engine("compiled", "cpu")
            by_code = compiled(network, predict, row)
            works["Network.predict, compiled"] = lambda: by_code(row)
        works |= {"the page of NumPy": lambda: by_page(row)}
        with suppress(ImportError):
            works["ONNX Runtime"] = by_onnx_runtime(network, folder, row)
        for options in OPTIONS if shutil.which("gcc") else ():
            works[f"the C header, {options}"] = in_c(network, folder, row, options)
        works["xpnet predict --jsonl"] = stack.enter_context(by_jsonl(run, row))
        timed = take_turns(
            {each: Work(run, lambda: None) for each, run in works.items()}, repeats=repeats, seconds=0.05
        )
        print(f"\n{'-'.join(map(str, sizes))}, one row")
        for each, seconds in timed.items():
            part = IN_C if each.startswith("the C") else 1
            lower, middle, upper = (1e6 * value / part for value in statistics.quantiles(seconds, n=4))
            print(f"    {each:<36}{middle:>10,.2f}  ({lower:,.2f} to {upper:,.2f})", flush=True)
        files = sorted(each for each in (*folder.iterdir(), run / "model.safetensors") if each.is_file())
        print("    bytes: " + ", ".join(f"{each.name} {each.stat().st_size:,}" for each in files))


def environment(package: str) -> float:
    """Return the MB that a new virtual environment takes with a package, pip left out."""
    with TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        subprocess.run([f"{folder}/bin/pip", "install", "--quiet", package], check=True)
        files = [each for each in Path(folder).rglob("*") if each.is_file() and not each.is_symlink()]
        return sum(each.stat().st_size for each in files if not {"pip", "setuptools"} & set(each.parts)) / 1e6


def main(arguments: list[str] | None = None) -> int:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__)
    parser.add_argument("--repeats", type=int, default=9, help="turns of each (default 9)")
    parser.add_argument("--environments", action="store_true", help="sizes of environments too")
    options = parser.parse_args(arguments)
    facts = machine.facts(xpnet.__version__)
    print(f"{facts['date']}, {facts['cpu']}, {facts['cores']} cores; microseconds a row, medians (quartiles)")
    for sizes in NETWORKS:
        times(sizes, options.repeats)
    for form, package in ENVIRONMENTS.items() if options.environments else ():
        print(f"{form}: {environment(package):,.0f} MB with {package}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
