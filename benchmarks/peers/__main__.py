"""`python -m benchmarks.peers`: time the peers and print the tables; `--table FILE.json` prints them again."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import xpnet
from xpnet.files import write_atomically
from xpnet.timing.machine import facts

from . import picture, report
from .drawn import draw
from .systems import SYSTEMS, SYSTEMS_OF
from .turns import command, measure
from .works import WORKS, WORKS_OF


def main(arguments: list[str] | None = None) -> int:
    """Run what the command line says; returns 1 if a system failed or Ctrl-C ended it, 2 for a mistake of the user."""
    options = _options(arguments)
    if options.table is not None:
        try:
            results = json.loads(options.table.read_text(encoding="utf-8"))
            print(report.tables(results))
            if options.plot is not None:
                picture.draw(results, options.plot)
        except (OSError, ValueError, KeyError, TypeError) as error:
            print(f"{options.table} is not a file that --out wrote ({type(error).__name__}: {error})", file=sys.stderr)
            return 2
        return 0
    commands = {name: command(name, options.device) for name in options.systems or SYSTEMS_OF[options.device]}
    works = {str(key): WORKS[key] for key in options.works or WORKS_OF[options.device]}
    works |= draw(options.random, options.random_seed)
    settings = {
        "rounds": options.rounds,
        "seconds": options.seconds,
        "threads": options.threads,
        "device": options.device,
        "first_steps": options.first_steps,
    }
    results = measure(commands, works, **settings, say=lambda text: print(text, file=sys.stderr, flush=True))
    settings |= {"random": options.random, "random_seed": options.random_seed}
    results = {"machine": machine(results), "settings": settings, **results}
    print(report.tables(results))
    if options.out is not None:
        write_atomically(options.out, (json.dumps(results, indent=1) + "\n").encode())
    failed = any("failed" in said for work in results["works"].values() for said in work["systems"].values())
    return 1 if failed or len(results["works"]) < len(works) else 0


def machine(results: dict[str, Any]) -> dict[str, Any]:
    """Describe where and with what these results were measured."""
    versions: dict[str, str] = {}
    for work in results["works"].values():
        for said in work["systems"].values():
            versions.update(said.get("versions", {}))
    return {**facts(xpnet.__version__), "versions": versions}


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers",
        description="Time the same training work in other systems; needs benchmarks/peers/requirements.txt.",
        epilog="works: " + "; ".join(f"{key}: {work}" for key, work in WORKS.items()),
    )
    parser.add_argument("--works", type=_works, help="numbers, such as 1,2 (default: the device's)")
    parser.add_argument("--random", type=_count, default=0, help="time this many works drawn at random too (default 0)")
    parser.add_argument("--random-seed", type=_count, default=0, help="of what is drawn (default 0)")
    parser.add_argument("--systems", type=_systems, help=f"of {','.join(SYSTEMS)} (default: the device's)")
    parser.add_argument("--device", choices=list(SYSTEMS_OF), default="cpu", help="where the work is done")
    parser.add_argument("--rounds", type=_whole, default=9, help="turns of each system (default 9)")
    parser.add_argument("--seconds", type=_seconds, default=0.2, help="about how long a turn is (default 0.2)")
    parser.add_argument(
        "--first-steps",
        type=_count,
        default=0,
        help="time the first step of a new process too, this many times (default 0)",
    )
    parser.add_argument("--threads", type=_whole, default=2, help="of every system (default 2)")
    parser.add_argument("--out", type=Path, help="write all that was measured to this JSON file")
    parser.add_argument("--table", type=Path, help="measure nothing; print the tables of this JSON file")
    parser.add_argument("--plot", type=Path, help="with --table: draw the ratios into this .png or .svg file")
    options = parser.parse_args(arguments)
    if options.plot is not None and options.table is None:
        parser.error("--plot draws what --table FILE.json holds; give both")
    if options.out is not None and not options.out.parent.is_dir():
        parser.error(f"--out {options.out}: there is no directory {options.out.parent}; make it first")
    if options.threads > (cores := os.cpu_count() or 1):
        parser.error(f"--threads {options.threads}: this machine has {cores} cores")
    return options


def _works(text: str) -> list[int]:
    return [int(_one_of(item, [str(key) for key in WORKS])) for item in text.split(",")]


def _systems(text: str) -> list[str]:
    return [_one_of(item, list(SYSTEMS)) for item in text.split(",")]


def _one_of(item: str, allowed: list[str]) -> str:
    if item not in allowed:
        raise argparse.ArgumentTypeError(f"{item!r} is none of {', '.join(allowed)}")
    return item


def _whole(text: str, least: int = 1) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {least}")
    return int(text)


def _count(text: str) -> int:
    return _whole(text, least=0)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return value


if __name__ == "__main__":
    sys.exit(main())
