"""Measure from which length of a run compiling repays, fit the constants of `xpnet.engines.choice`, and judge "auto".

    python benchmarks/auto.py [--rounds 3] [--drawn 24 --seed 1] [--out FILE]

Each work is a network, a data set, a batch size and an optimizer, with and without a validation. Its epochs are timed
by both engines in turns, as what longer runs take beyond shorter ones, and its preparation with an empty code cache,
all in processor time of one thread, which other programs hardly change. Then "auto" chooses for runs of 10 to 100,000
epochs: its time is compared with that of the better engine. With --drawn, other works than those that the constants
were fitted to are drawn by the seed, and judged. Where the system allows it, the epochs have real-time priority
(SCHED_RR, 1), so that other programs do not take their turns.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

os.environ.update(OPENBLAS_NUM_THREADS="1", XPNET_CACHE="")  # before NumPy is loaded; no code is kept

import numpy as np

if (root := str(Path(__file__).resolve().parents[1])) not in sys.path:
    sys.path.insert(0, root)

import xpnet
from xpnet.engines import choice
from xpnet.engines.llvm import native

SIZES = (
    ((2, 9, 6, 1), 750),
    ((4, 100, 3), 150),
    ((13, 100, 3), 142),
    ((64, 100, 10), 1437),
    ((20, 64, 64, 1), 2000),
    ((784, 30, 10), 1000),
    ((784, 100, 200, 10), 1000),
    ((300, 400, 10), 1000),
)
BATCHES = (32, 200, "all")
LENGTHS = tuple(10 ** (power / 2) for power in range(2, 11))  # epochs
OPTIMIZERS = (xpnet.SGD, xpnet.Adam)


@dataclass(frozen=True)
class Measured:
    """A work's counts, and its seconds by both engines: of an epoch, and of what comes before the first.

    counts: of a step.  n_steps: of an epoch.  n_programs: to compile, 2 with a validation.
    """

    name: str
    counts: choice.Counts
    n_steps: int
    n_programs: int
    epoch: dict[str, float]
    start: dict[str, float]

    def seconds(self, engine: str, n_epochs: float) -> float:
        """Return the time of a run."""
        return self.start[engine] + n_epochs * self.epoch[engine]


def drawn(n: int, seed: int) -> list[tuple[tuple[int, ...], int, Any]]:
    """Return sizes, samples and batch of n random works: one to three hidden layers, widths and samples log-uniform."""
    rng = np.random.default_rng(seed)

    def between(low: float, high: float) -> int:
        return round(float(np.exp(rng.uniform(np.log(low), np.log(high)))))

    works = []
    for _ in range(n):
        hidden = [between(4, 300) for _ in range(rng.integers(1, 4))]
        sizes, samples = (between(2, 800), *hidden, between(1, 20)), between(100, 5000)
        works.append((sizes, samples, ("all", between(8, 256))[int(rng.integers(0, 4) > 0)]))
    return works


def measure(sizes: tuple[int, ...], n: int, batch: Any, make: Any, validated: bool, rounds: int) -> Measured:
    """Measure one work."""
    rng = np.random.default_rng(0)
    X = rng.random((sizes[0], n), dtype=np.float32)
    Y = np.eye(sizes[-1], dtype=np.float32)[:, rng.integers(0, sizes[-1], n)]
    dataset = xpnet.Dataset(X, Y)
    held_out = xpnet.Dataset(X[:, : n // 10], Y[:, : n // 10]) if validated else None

    def spent(engine: str, n_epochs: int) -> float:
        network = xpnet.Network(list(sizes), loss="squared_error", device="cpu", seed=0)
        options = {"epochs": n_epochs, "batch_size": batch, "validation": held_out, "engine": engine, "threads": 1}
        began = time.process_time()
        xpnet.train(network, dataset, make(1e-3), keep_best=False, progress=False, **options)
        return time.process_time() - began

    firsts = []
    for _ in range(rounds):
        native.kept.cache_clear()
        native._kept_code.cache_clear()
        firsts.append({engine: spent(engine, 1) for engine in ("replay", "compiled")})
    first = {engine: statistics.median(turn[engine] for turn in firsts) for engine in firsts[0]}
    counts = {}
    for engine in first:
        few, many = (spent(engine, k) for k in (2, 12))
        counts[engine] = max(20, min(20_000, int(0.15 * 10 / max(many - few, 1e-5))))
    turns = [{engine: _marginal(spent, engine, k) for engine, k in counts.items()} for _ in range(rounds)]
    epoch = {engine: statistics.median(turn[engine] for turn in turns) for engine in counts}
    network = xpnet.Network(list(sizes), loss="squared_error", device="cpu")
    capacity = n if batch == "all" else min(batch, n)
    program = network.training_program(capacity, make(1e-3), False)
    start = {engine: max(first[engine] - epoch[engine], 0.0) for engine in counts}
    name = f"{'-'.join(map(str, sizes))}, {n} by {batch}, {make.__name__}{', validated' if validated else ''}"
    return Measured(name, choice.Counts.of(program), -(-n // capacity), 1 + validated, epoch, start)


def _marginal(spent: Any, engine: str, n_epochs: int) -> float:
    few = max(2, n_epochs // 5)
    with _first_in_turn():
        return max((spent(engine, n_epochs) - spent(engine, few)) / (n_epochs - few), 1e-7)


@contextmanager
def _first_in_turn() -> Iterator[None]:
    """Run with real-time priority where the system has it and allows it; a machine of two cores stays usable."""
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    except (AttributeError, OSError):
        yield
        return
    try:
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def fitted(works: list[Measured]) -> dict[str, tuple[float, ...]]:
    """Return constants by least squares of relative errors: what a run gains, and what compiling takes."""
    gains = np.array([work.epoch["replay"] - work.epoch["compiled"] for work in works])
    counts = [
        tuple(w.n_steps * n for n in (w.counts.calls, min(w.counts.flops, choice.MOST_FLOPS), w.counts.numbers))
        for w in works
    ]
    costs = np.array([work.start["compiled"] - work.start["replay"] for work in works])
    programs = [(w.n_programs, w.n_programs * w.counts.calls) for w in works]
    return {
        "GAIN_SECONDS": _least(counts, gains, np.array([w.epoch["compiled"] for w in works])),
        "COMPILE_SECONDS": _least(programs, costs, costs),
    }


def _least(rows: Any, values: np.ndarray, scale: np.ndarray) -> tuple[float, ...]:
    scaled = np.array(rows) / scale[:, None]
    found = np.linalg.lstsq(scaled / (size := np.abs(scaled).max(axis=0)), values / scale, rcond=None)[0] / size
    return tuple(float(value) for value in found)


def judged(works: list[Measured]) -> tuple[float, float, list[str]]:
    """Return of auto's choices the share within 10 % of the better engine, the worst ratio, and the worst in words."""
    found = []
    for work, n_epochs in product(works, LENGTHS):
        n_epochs = round(n_epochs)
        times = {engine: work.seconds(engine, n_epochs) for engine in ("replay", "compiled")}
        repays = choice.repays(work.counts, n_epochs * work.n_steps, work.n_programs)
        found.append(
            (times["compiled" if repays else "replay"] / min(times.values()), f"{n_epochs} epochs of {work.name}")
        )
    found.sort(reverse=True)
    share = sum(ratio <= 1.1 for ratio, _ in found) / len(found)
    return share, found[0][0], [f"{ratio:.2f}  {name}" for ratio, name in found[:12]]


def main() -> None:
    """Measure all works and print constants and judgement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--drawn", type=int, default=0, help="random works in place of the grid")
    parser.add_argument("--seed", type=int, default=0, help="of the random works")
    parser.add_argument("--out", type=Path, help="a JSON file for what was measured")
    options = parser.parse_args()
    grid = [(sizes, n, batch) for (sizes, n), batch in product(SIZES, BATCHES)]
    works = []
    for number, (sizes, n, batch) in enumerate(drawn(options.drawn, options.seed) or grid):
        make, validated = OPTIMIZERS[number % 2], number % 3 == 0
        works.append(work := measure(sizes, n, batch, make, validated, options.rounds))
        times = ", ".join(f"{e} {work.epoch[e] * 1e6:.0f} us after {work.start[e]:.3f} s" for e in work.epoch)
        print(
            f"{work.name}: {work.counts.calls} calls, {work.counts.flops / 1e6:.2f} MFLOP; an epoch: {times}",
            flush=True,
        )
    if options.out is not None:
        options.out.write_text(json.dumps([asdict(work) for work in works], indent=1), encoding="utf-8")
    if not options.drawn:
        for name, values in fitted(works).items():
            print(f"{name} = ({', '.join(f'{value:.2g}' for value in values)})")
    share, worst, names = judged(works)
    print(f"auto is within 10 % of the better engine in {share:.1%} of the runs, at most {worst:.2f} times slower:")
    print("\n".join(names))


if __name__ == "__main__":
    main()
