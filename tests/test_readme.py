"""Every command of the README is run, on small stand-ins for the files that it names."""

from __future__ import annotations

import json
import os
import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_cli import write_idx_folder
from test_package import commands, readme_blocks

from xpnet.cli import main

# Added to each command to make it short; the later of two options holds, and all else is as the README has it.
SHORT = {
    "train": ["--epochs", "2"],
    "tune": ["--trials", "2"],
    "find-lr": ["--steps", "20"],
    "bench": ["--widths", "8", "--batches", "4", "--repeats", "2", "--seconds", "0.01"],
}


def file_names(folder):
    """The files that the README's commands name, small."""
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 10
    np.save(folder / "X.npy", rng.random((60, 784), dtype=np.float32))
    np.save(folder / "Y.npy", labels)
    np.save(folder / "big.npy", rng.random((60, 784), dtype=np.float32))
    np.save(folder / "y.npy", labels)
    rows = [f"{rng.random():.3f},{'ab'[i % 2]},{i + rng.random():.2f}" for i in range(40)]
    for name in ("data.csv", "test.csv", "kept-back.csv"):
        (folder / name).write_text("\n".join(["size,kind,price", *rows]) + "\n", encoding="utf-8")
    visits = [f"p{i // 3},Ann {i},{i % 4},{i % 7},{'ab'[i % 5 > 2]}" for i in range(60)]
    header = 'patient,"name, first",ward,days,outcome'
    (folder / "visits.csv").write_text("\n".join([header, *visits]) + "\n", encoding="utf-8")
    (folder / "new.csv").write_text("kind,size\na,0.5\nb,0.25\n", encoding="utf-8")
    (folder / "run.toml").write_text("batch-size = 32\nlayers = [784, 30, 10]\njson = true\n", encoding="utf-8")
    for place in ("train", "test", "more"):
        for name in ("daisy", "rose"):
            (folder / "flowers" / place / name).mkdir(parents=True)
            for i in range(12):
                pixels = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / "flowers" / place / name / f"{i}.png")
    shutil.copy(folder / "flowers/more/rose/0.png", folder / "photo.jpg")  # read by its content
    write_idx_folder(folder / "DIR", 10_100, 20)  # 10,000 are held out


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XPNET_DEVICE", "cpu")
    monkeypatch.setenv("XPNET_DATA", str(tmp_path / "DIR"))
    file_names(tmp_path)
    return tmp_path


def latest_run():
    return max(Path("runs").iterdir(), key=os.path.getmtime)


@pytest.mark.full
def test_every_command_runs(folder, capsys):
    """In order; RUN is the run that the commands before it in its block left, or else a default one."""
    assert main(["train", *SHORT["train"]]) == 0  # the first block's, which CI also types as it is
    first = latest_run()
    n_run = 0
    for block in readme_blocks("sh")[1:]:
        run = first
        for words in commands(block):
            if words[0] != "xpnet":
                assert words[:2] == ["python", "-m"] and words[2].startswith("xpnet.examples."), (
                    words
                )  # their own tests
                continue
            if words[1] == "tune" and find_spec("optuna") is None:  # of an extra that tests do without
                continue
            words = [word.replace("RUN", str(run)) for word in words[1:]]
            if "there.json" in words:
                shutil.copy("here.json", "there.json")
            assert main([*words, *(SHORT.get(words[0], []) if "--compare" not in words else [])]) == 0, words
            n_run += 1
            if {"--target", "flowers/train/"} & {*words}:
                run = latest_run()
    assert n_run >= 19
    assert json.loads(Path("here.json").read_text(encoding="utf-8"))["points"]
    assert len(Path("Y.csv").read_text(encoding="utf-8").splitlines()) == 1 + 60
    assert len(Path("predictions.csv").read_text(encoding="utf-8").splitlines()) == 3
    capsys.readouterr()
