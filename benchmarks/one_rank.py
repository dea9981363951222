"""What MPI adds to a step of one process: steps with MPI's communicator and with that of one process, in turn.

`mpiexec -n 1 python benchmarks/one_rank.py` makes compiled engines of either kind in one process, several times, lets
them run short bursts of steps in turn, and compares their processor time. It prints the median of the ratios of pairs
of bursts, and its interval of 95 % by order statistics over the pairs of engines, whose arrays lie in other places.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.peers.works import WORKS, Work
from benchmarks.ranks import xpnet_steps


def seconds(steps: Any, n: int) -> float:
    """Return the processor time of n steps."""
    began = time.process_time()
    steps(n)
    return time.process_time() - began


def ratios(work: Work, kind: str, mpi: Any, single: Any, n_pairs: int, burst: float) -> list[float]:
    """Return the processor time of bursts with MPI divided by that of those without, of one pair of engines."""
    with_mpi, without = (xpnet_steps(work, {"kind": kind}, one) for one in (mpi, single))
    seconds(with_mpi, 8), seconds(without, 8)
    n = max(1, int(8 * burst / min(seconds(without, 8) for _ in range(3))))
    found = []
    for _ in range(n_pairs):  # A B B A
        first = seconds(with_mpi, n)
        second = seconds(without, n) + seconds(without, n)
        found.append((first + seconds(with_mpi, n)) / second)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--works", type=lambda text: [int(word) for word in text.split(",")], default=[1, 2, 3, 4, 5])
    parser.add_argument("--engines", type=int, default=41, help="pairs of engines")
    parser.add_argument("--pairs", type=int, default=12, help="pairs of bursts of each")
    parser.add_argument("--burst", type=float, default=0.003, help="seconds")
    parser.add_argument("--out", help="a JSON file")
    arguments = parser.parse_args()
    from xpnet.parallel.communicator import communicator

    mpi, single, found = communicator("mpi"), communicator("single"), {}
    for number in arguments.works:
        medians = sorted(
            statistics.median(ratios(WORKS[number], "fixed", mpi, single, arguments.pairs, arguments.burst))
            for _ in range(arguments.engines)
        )
        found[number] = medians
        outside = max(0, math.floor(len(medians) / 2 - 0.98 * math.sqrt(len(medians))))  # of 95 in 100 samples
        low, high = medians[outside], medians[-1 - outside]
        print(f"{WORKS[number]}: {statistics.median(medians):.4f} ({low:.4f} to {high:.4f})", flush=True)
    if arguments.out:
        Path(arguments.out).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
