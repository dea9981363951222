"""Time training steps beside programs that keep cores busy: 784-100-10 at batch 32, whose products are of 100 by 32.

    python benchmarks/busy.py [--busy 0,1,2] [--rounds 5]

Each line is a way to run the steps: replayed with all threads of BLAS or with those chosen, compiled on one thread and
on two. A cell is the median time of a step in microseconds. On a machine with other programs, those are busy too.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

if (root := str(Path(__file__).resolve().parents[1])) not in sys.path:
    sys.path.insert(0, root)

import xpnet
from xpnet.engines.choice import blas_threads, make_engine
from xpnet.timing.harness import Work, synthetic_data, take_turns

SIZES, BATCH, STEPS = [784, 100, 10], 32, 40


@contextmanager
def beside(n: int) -> Any:
    """Keep n cores busy with other processes within the block."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(n)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def works() -> dict[str, Work]:
    """Return the ways to run the steps, each with a network of its own."""
    X, Y, order = synthetic_data(SIZES[0], SIZES[-1], BATCH, STEPS)
    slots = np.full((STEPS, 1), 1e-3)

    def work(name: str, **threads: Any) -> Work:
        network = xpnet.Network(SIZES, loss="softmax_cross_entropy", device="cpu", seed=0)
        program = network.training_program(BATCH, xpnet.SGD(), False)
        if threads.get("blas_threads") == "chosen":
            threads["blas_threads"] = blas_threads(program, network.backend)
        data = {"X": (X, None), "Y": (Y, None)}
        engine = make_engine(program, network.backend, network.owned, data, name, **threads)
        return Work(lambda: engine.run(order, slots), lambda: None)

    return {
        "replay, all threads of BLAS": work("replay"),
        "replay, threads chosen": work("replay", blas_threads="chosen"),
        "compiled, one thread": work("compiled", threads=1),
        "compiled, two threads": work("compiled", threads=2),
    }


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--busy", default="0,1,2", help="numbers of busy cores")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    ways, columns = works(), {}
    for n in (int(part) for part in options.busy.split(",")):
        with beside(n):
            columns[n] = take_turns(ways, repeats=options.rounds, seconds=0.05)
    print("| busy cores | " + " | ".join(map(str, columns)) + " |\n" + "| --- " * (1 + len(columns)) + "|")
    for name in ways:
        cells = (f"{statistics.median(times[name]) / STEPS * 1e6:,.0f}" for times in columns.values())
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
