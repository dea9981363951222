"""A finished run as a command reads it: its files, its network, and its data where they still lie."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xpnet.commands import runs
from xpnet.commands.apply import place_of
from xpnet.commands.data import load_again
from xpnet.commands.report import say, warnings_said
from xpnet.commands.tables import preprocessing_of
from xpnet.network.network import Network
from xpnet.recipe.samples import Data
from xpnet.tables.preprocessing import Preprocessing
from xpnet.training.records import History, read_history


@dataclass(frozen=True)
class Finished:
    """A run that ended, and its data, None where they are gone."""

    directory: Path
    config: dict[str, Any]
    history: History
    network: Network
    table: Preprocessing | None
    data: Data | None


def read_finished(name: str, arguments: argparse.Namespace) -> Finished:
    """Read a run that ended; raises FileNotFoundError or ValueError for one that did not.

    name: of its directory.  arguments: with --device and --data-dir.
    """
    directory = Path(name)
    config = runs.read_config(directory)
    history = _records(directory)
    if not (directory / runs.MODEL).is_file():
        raise FileNotFoundError(
            f"{directory} has no {runs.MODEL}, it has not ended; `xpnet train --resume {directory}` continues it"
        )
    network = Network.load(directory / runs.MODEL, **place_of(arguments, config))
    table = preprocessing_of(directory, config)
    data = _data(arguments, config, table, str(network.backend.dtype))
    return Finished(directory, config, history, network, table, data)


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
