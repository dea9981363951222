"""Readers of files against files that are almost right: a documented exception in one plain line, or a result."""

from __future__ import annotations

import gzip
import json
import os
import shutil
from argparse import Namespace
from unittest.mock import MagicMock

import numpy as np
import pandas as pd
import pytest
from mutations import mutated
from tables.learning import learn

import xpnet
from xpnet import plots
from xpnet.cli import _parser
from xpnet.commands import runs
from xpnet.commands.apply import place_of
from xpnet.commands.arguments import UsageError
from xpnet.commands.config_file import apply_config
from xpnet.commands.data import load_again
from xpnet.datasets.idx import read_idx
from xpnet.tables.arrays import open_rows
from xpnet.tables.files import read_table
from xpnet.tables.model import read_preprocessing
from xpnet.tables.stored import to_json
from xpnet.timing import grid
from xpnet.training.records import read_history

COMMAND = _parser().parse_args(["train"]).parser
CPU = xpnet.select_backend("cpu")
X = np.random.default_rng(0).random((3, 20))
DATA = xpnet.Dataset.from_labels(X, np.arange(20) % 2, 2)
FRAME = pd.DataFrame(
    {"a": [1.5, 2, 3, 4, 5, 6] * 2, "b": list("xyxyxy") * 2, "c": [1, 0] * 6, "y": [0.5, 1, 2, 3, 4, 5] * 2}
)
FRAME = FRAME.set_index(pd.RangeIndex(1, 13))
N, MANY = 50, 2500  # mutations of each file, by default and in full


def _network():
    return xpnet.Network([3, 4, 2], normalization="batch", dropout=0.1, backend=CPU)


def _training(path, **options):
    callbacks = [xpnet.Checkpoint(path.with_name("next"), seconds=1e9), xpnet.EarlyStopping(5)]
    xpnet.train(
        _network(),
        DATA,
        xpnet.Adam(),
        epochs=2,
        batch_size=8,
        validation=DATA,
        callbacks=callbacks,
        engine="replay",
        **options,
    )


def _load(path):
    network = xpnet.Network.load(path, CPU)
    if network.architecture.n_inputs == 3:
        network.predict(X.astype(np.float32))


def _config(path):
    config = runs.read_config(path.parent)
    place_of(Namespace(device="cpu"), config)
    load_again(config["data"], None, None, "float32")
    _options(path)


def _options(path):
    apply_config(COMMAND, path)
    COMMAND.parse_args([])


def _history(path):
    history = read_history(path)
    if history:
        plots.loss_curve(history, MagicMock())  # axes take a hundred times as long


def _preprocessing(path):
    read_preprocessing(path.parent).dataset(FRAME, noted=[])


def _table(path):
    frame = read_table(path, text_columns=["b"]).frame
    table = learn(frame)
    table.dataset(table.target.known_in(frame)[0], noted=[])


def _rows(path):
    xpnet.Dataset.from_labels(open_rows(path).T, np.arange(20) % 2, 2)


READERS = {
    "model.safetensors": _load,
    "checkpoint.safetensors": lambda path: _training(path, resume=path),
    "config.json": _config,
    "run.toml": _options,
    "history.jsonl": _history,
    "table.json": _preprocessing,
    "t.csv": _table,
    "t.parquet": _table,
    "X.npy": _rows,
    "images": read_idx,
    "images.gz": read_idx,
    "bench.json": lambda path: grid.compare(grid.read(path), grid.read(path)),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder with a whole file for each reader."""
    folder = tmp_path_factory.mktemp("whole")
    _network().save(folder / "model.safetensors")
    _training(folder / "checkpoint.safetensors")
    shutil.move(folder / "next", folder / "checkpoint.safetensors")
    config = {
        "data": {"dataset": "mnist-sample", "n_validation": 500, "scale": 1 / 255, "labels": None, "data_dir": None}
    }
    config |= {"epochs": 2, "spec": _network().to_spec(), "backend": {"device": "cpu", "dtype": "float32"}}
    config |= {
        "options": {"layers": [784, 30, 10], "lr": 0.1, "batch-size": 32, "metrics": ["f1"], "optimizer": "adam"}
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    (folder / "run.toml").write_text(
        'batch-size = 32\nlayers = [784, 30, 10]\nlr = 0.1\njson = true\nloss = "hinge"\n', encoding="utf-8"
    )
    record = {"train_loss": 2.5, "val_loss": 1.5, "val_accuracy": 0.5, "steps": 3, "seconds": 0.25, "engine": "replay"}
    lines = [json.dumps({"epoch": epoch, **record}) + "\n" for epoch in range(4)]
    (folder / "history.jsonl").write_text("".join(lines), encoding="utf-8")
    (folder / "table.json").write_text(to_json(learn(FRAME)), encoding="utf-8")
    FRAME.to_csv(folder / "t.csv", index=False)
    FRAME.to_parquet(folder / "t.parquet", index=False)
    np.save(folder / "X.npy", np.ascontiguousarray(X.T))
    idx = bytes.fromhex("00000803 00000005 00000004 00000004") + bytes(range(80))
    (folder / "images").write_bytes(idx)
    (folder / "images.gz").write_bytes(gzip.compress(idx, mtime=0))
    points = [
        {"device": "cpu", "engine": "replay", "width": width, "batch": 32, "seconds": 1.0, "spread": [1.0, 2.0]}
        | dict.fromkeys(("samples_per_second", "flops_per_second", "of_flops_limit", "flops", "bytes"), 1.5)
        for width in (32, 64)
    ]
    result = {
        "format": 1,
        "machine": {},
        "dtype": "float32",
        "features": 784,
        "limits": {"cpu": {"flops": 1.0, "bytes": 1.0}},
    }
    (folder / "bench.json").write_text(json.dumps(result | {"points": points}), encoding="utf-8")
    return folder


def check(read, path):
    """Read a file; returns whether it was refused, in one plain line."""
    try:
        read(path)
    except (ValueError, OSError, UsageError) as error:
        text = str(error)
        assert text and text.isprintable() and len(text) < 6000
        return True
    return False


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize(
    "seeds", [range(N), pytest.param(range(N, N + MANY), marks=pytest.mark.full)], ids=["some", "many"]
)
def test_a_file_that_is_almost_right_is_read_or_refused(whole, tmp_path, name, seeds):
    path, content = tmp_path / name, (whole / name).read_bytes()
    path.write_bytes(content)
    assert not check(READERS[name], path)
    refused = 0
    for seed in seeds:
        path.write_bytes(mutated(content, seed))
        try:
            refused += check(READERS[name], path)
        except Exception as error:
            raise AssertionError(f"seed {seed}: {type(error).__name__}: {error}") from error
    assert refused > len(seeds) / 10


@pytest.mark.parametrize("name", READERS)
def test_what_is_no_regular_file_is_refused(tmp_path, name):
    """None is read, and none is waited for: a FIFO has no writer, a device has no end."""
    path = tmp_path / name
    for make, remove in (
        (os.mkfifo, os.unlink),
        (lambda path: os.symlink("/dev/zero", path), os.unlink),
        (lambda path: os.symlink(path.name, path), os.unlink),
        (os.mkdir, os.rmdir),
        (lambda path: None, lambda path: None),
    ):
        make(path)
        assert check(READERS[name], path)
        remove(path)
