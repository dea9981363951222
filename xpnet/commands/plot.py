"""xpnet plot: pictures of a finished run."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from xpnet import plots
from xpnet.commands import runs
from xpnet.commands.arguments import add_device, option
from xpnet.commands.finished import read_finished
from xpnet.commands.pictures import write_pictures

FORMATS = [suffix.removeprefix(".") for suffix in plots.SUFFIXES]


def add_parser(commands: Any) -> None:
    """Add the command to the parser's commands."""
    command = commands.add_parser(
        "plot", help="draw a finished run into files (extra: xpnet[plot])", allow_abbrev=False
    )
    command.add_argument("directory", metavar="RUN", help="a run directory")
    command.add_argument("--out", metavar="DIR", help="where the pictures go (default: RUN)")
    command.add_argument(
        "--format",
        type=option("format", FORMATS),
        default="png",
        metavar="NAME",
        help=f"{' or '.join(FORMATS)} (default: %(default)s)",
    )
    command.add_argument("--data-dir", help="where the data lie now (default: where they were)")
    add_device(command)
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command: write what applies to the run, and print the path of each file."""
    runs.read_config(arguments.directory)  # refuses what is no run before all else
    plots.new_axes()  # refuses a missing matplotlib before anything is loaded
    found = read_finished(arguments.directory, arguments)
    out = found.directory if arguments.out is None else Path(arguments.out)
    if out.exists() and not out.is_dir():
        raise FileExistsError(f"--out {out} is a file; name a folder, or leave it out")
    out.mkdir(parents=True, exist_ok=True)
    for path in write_pictures(out, f".{arguments.format}", found.history, found.network, found.data):
        print(path, flush=True)
    return 0
