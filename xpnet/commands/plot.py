"""xpnet plot: pictures of a finished run."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from xpnet import plots
from xpnet.commands import runs
from xpnet.commands.apply import place_of
from xpnet.commands.arguments import add_device, option
from xpnet.commands.data import load_again
from xpnet.commands.pictures import write_pictures
from xpnet.commands.report import say, warnings_said
from xpnet.commands.tables import preprocessing_of
from xpnet.network.network import Network
from xpnet.recipe.samples import Data
from xpnet.tables.preprocessing import Preprocessing
from xpnet.training.records import History, read_history

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
    directory = Path(arguments.directory)
    config = runs.read_config(directory)
    plots.new_axes()  # refuses a missing matplotlib before anything is loaded
    history = _records(directory)
    if not (directory / runs.MODEL).is_file():
        raise FileNotFoundError(
            f"{directory} has no {runs.MODEL}, it has not ended; `xpnet train --resume {directory}` continues it"
        )
    network = Network.load(directory / runs.MODEL, **place_of(arguments, config))
    table = preprocessing_of(directory, config)
    data = _data(arguments, config, table, str(network.backend.dtype))
    out = directory if arguments.out is None else Path(arguments.out)
    if out.exists() and not out.is_dir():
        raise FileExistsError(f"--out {out} is a file; name a folder, or leave it out")
    out.mkdir(parents=True, exist_ok=True)
    for path in write_pictures(out, f".{arguments.format}", history, network, data):
        print(path, flush=True)
    return 0


def _data(
    arguments: argparse.Namespace, config: dict[str, Any], table: Preprocessing | None, dtype: str
) -> Data | None:
    """Return the data of the run, None with a word where they are gone: its curves and network need none."""
    try:
        with warnings_said():
            return load_again(config["data"], arguments.data_dir, table, dtype)
    except FileNotFoundError as error:
        if arguments.data_dir is not None:
            raise
        say(f"xpnet: {error}; drawn is what needs no data; --data-dir DIR says where they lie now")
        return None


def _records(directory: Path) -> History:
    path = directory / runs.HISTORY
    if not path.is_file():
        raise FileNotFoundError(f"{directory} has no {runs.HISTORY}; train again, or restore it")
    history = read_history(path)
    if not history:
        raise ValueError(f"{path} holds no records of epochs; train again, or restore it")
    return history
