"""A run on disk: a directory with config.json, history.jsonl, model.safetensors and checkpoint.safetensors.

Of a table it also has table.json, the preprocessing that was fitted on its training rows.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from xpnet.checks import shown
from xpnet.files import leftovers, lock, remove_leftovers, write_atomically
from xpnet.tables.model import CONFIG as CONFIG
from xpnet.tables.model import MODEL as MODEL
from xpnet.tables.model import TABLE as TABLE
from xpnet.tables.model import read_json
from xpnet.training.records import VAL_ACCURACY, VAL_LOSS, read_history

HISTORY, CHECKPOINT = "history.jsonl", "checkpoint.safetensors"
FILES = (CONFIG, HISTORY, MODEL, CHECKPOINT, TABLE)


def predicts_numbers(run: Path) -> bool:
    """Whether a run's records say that its targets were no classes; False where nothing was held out to say it."""
    path = run / HISTORY
    record = next(iter(read_history(path)), {}) if path.is_file() else {}
    return VAL_LOSS in record and VAL_ACCURACY not in record


def create_run(out: str | None, dataset: str) -> Path:
    """Make the directory of a new run: `out`, refused if it is not empty, or runs/<dataset>-<time>."""
    if out is not None:
        path = Path(out)
        check_new(path)
        path.mkdir(parents=True, exist_ok=True)
        return path
    stem = f"{dataset}-{time.strftime('%Y%m%d-%H%M%S')}"
    for number in range(1, 1000):
        path = Path("runs") / (stem if number == 1 else f"{stem}-{number}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:  # another run of the same second
            continue
        return path
    raise FileExistsError(f"runs/{stem} and 999 more exist already; name a directory with --out DIR")


def check_new(path: Path, but: Sequence[str] = ()) -> None:
    """Refuse a directory for a new run that is not empty, as another process may have made it meanwhile.

    but: names of files that may be there.
    """
    # A run that was killed while it wrote its first file has left this file's temporary one alone.
    begun = {*but, *(entry.name for entry in leftovers(path / CONFIG))}
    if path.exists() and (not path.is_dir() or any(entry.name not in begun for entry in path.iterdir())):
        raise FileExistsError(f"--out {path} is not an empty directory; name another one, or remove it first")


@contextmanager
def locked(run: Path) -> Iterator[None]:
    """Keep other processes from training in a run's directory, and remove what killed ones left in it.

    There is no lock on Windows, and where a file system has none.
    """
    if not hasattr(os, "O_DIRECTORY"):  # Windows opens no folder
        yield
        return
    handle = os.open(run, os.O_RDONLY)
    try:
        if lock(handle) is False:
            raise OSError(f"{run} is trained by another process; one may at a time; wait until that ends, or stop it")
        for name in FILES:
            remove_leftovers(inside(run, name))
        yield
    finally:
        os.close(handle)


def inside(folder: Path, name: str) -> Path:
    """Return the path of a file to write in a run's directory; refuses a link that leads out of it."""
    path = folder / name
    if path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
        raise OSError(
            f"{path} is a link to {os.readlink(path)}, and what is written must stay in {folder}; remove the link"
        )
    return path


def write_config(run: Path, config: dict[str, Any], name: str = CONFIG) -> None:
    """Write config.json, or another file of this kind, whole or not at all."""
    write_atomically(inside(run, name), (json.dumps(config, indent=2) + "\n").encode())


def read_config(run: str | os.PathLike[str], name: str = CONFIG, command: str = "train") -> dict[str, Any]:
    """Read the config of a run; raises FileNotFoundError or ValueError if `run` is not one.

    name: of the file.  command: that makes it.
    """
    path = Path(run) / name
    if not path.is_file():
        raise FileNotFoundError(f"{run} is not a run directory, it has no {name}; `xpnet {command}` makes one")
    config = read_json(path)
    if not isinstance(config, dict) or not isinstance(config.get("data"), dict):
        raise ValueError(f"{path} is not the config of a run, it has no data section; train again, or restore it")
    data = config["data"]
    scale, n_validation = data.get("scale"), data.get("n_validation", 0)
    is_number = isinstance(scale, (int, float)) and not isinstance(scale, bool)
    for name, found, is_right, needed in (
        ("scale", scale, scale is None or (is_number and 0 < scale < math.inf), "null or a finite number above 0"),
        ("n_validation", n_validation, type(n_validation) is int and n_validation >= 0, "a whole number of at least 0"),
        *(
            (key, data.get(key), data.get(key) is None or isinstance(data[key], str), "null or a path")
            for key in ("data_dir", "labels", "weights", "validation", "test")
        ),
    ):
        if not is_right:
            raise ValueError(f"{path}: {name} is {shown(found)}; it must be {needed}; train again, or restore it")
    return config
