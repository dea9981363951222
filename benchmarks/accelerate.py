"""Scripts that use scikit-learn's MLPs, run as they are and by xpnet.accelerate, in turn: results and seconds.

`python -m benchmarks.accelerate benchmarks/scripts/*.py`; --rounds: runs of each, of which the median is printed.
Seconds are those of the processors, of a script with all its processes and of its fits alone, with one thread each, so
that other work on the machine counts little. `same` says that both runs printed the same text.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import runpy
import statistics
import subprocess
import sys
import time
from pathlib import Path

WAYS = ("scikit-learn", "xpnet")


def main(words: list[str] | None = None) -> int:
    """Print a row of a Markdown table for each script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scripts", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(words)
    print("| script | scikit-learn, s | of it fits | xpnet, s | of it fits | times as fast: script | fits | output |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for script in options.scripts:
        runs = {way: [] for way in WAYS}
        for _ in range(options.rounds):
            for way in WAYS:
                runs[way].append(run(script, way))
        print(row(script, runs), flush=True)
    return 0


def run(script: Path, way: str) -> tuple[float, float, str]:
    """Return the processors' seconds of a script in a process of its own and of its fits, and what it prints."""
    setting = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg", "PYTHONWARNINGS": "ignore"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    words = [sys.executable, __file__, "--child", way, str(script)]
    done = subprocess.run(words, env=os.environ | setting, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{script} by {way} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, json.loads(done.stderr.splitlines()[-1]), done.stdout


def row(script: Path, runs: dict[str, list[tuple[float, float, str]]]) -> str:
    """Return the row of a script's runs."""
    (theirs, their_fits), (ours, our_fits) = (
        [statistics.median(each[i] for each in runs[way]) for i in (0, 1)] for way in WAYS
    )
    is_same = len({printed for each in runs.values() for *_, printed in each}) == 1
    fits = [f"{seconds:.2f}" if seconds else "-" for seconds in (their_fits, our_fits)]
    ratio = f"{their_fits / our_fits:.2f}" if our_fits else "-"
    return (
        f"| {script.stem} | {theirs:.1f} | {fits[0]} | {ours:.1f} | {fits[1]} | {theirs / ours:.2f} | {ratio} | "
        f"{'same' if is_same else 'differs'} |"
    )


def child(way: str, script: str) -> None:
    """Run a script in this process, and end stderr with the seconds of its fits in this process."""
    if way == "xpnet":
        from xpnet import accelerate
        from xpnet.accelerate import classes as owner

        name = "_trained"
        accelerate.install(is_quiet=True)
    else:
        from sklearn.neural_network._multilayer_perceptron import BaseMultilayerPerceptron

        owner, name = BaseMultilayerPerceptron, "_fit"
    total, fit = 0.0, getattr(owner, name)

    def timed(*given, **named):
        nonlocal total
        began = time.process_time()
        try:
            return fit(*given, **named)
        finally:
            total += time.process_time() - began

    setattr(owner, name, timed)
    sys.path[0] = os.path.dirname(os.path.abspath(script))
    sys.argv = [script]
    runpy.run_path(script, run_name="__main__")
    sys.stderr.write(f"\n{json.dumps(total)}\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(*sys.argv[2:])
    else:
        sys.exit(main())
