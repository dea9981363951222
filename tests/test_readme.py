"""Every command and every Python example of the README and the guide is run, on small stand-ins for files it names."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_cli import write_idx_folder
from test_package import EXTRAS, PAGES, commands, examples

from xpnet.cli import main

# Added to each command to make it short; the later of two options holds, and all else is as the page has it.
SHORT = {
    "train": ["--epochs", "2"],
    "tune": ["--trials", "2"],
    "find-lr": ["--steps", "20"],
    "bench": ["--widths", "8", "--batches", "4", "--repeats", "2", "--seconds", "0.01"],
}


def file_names(folder):
    """The files that the pages' commands name, small."""
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 10
    np.save(folder / "X.npy", rng.random((60, 784), dtype=np.float32))
    np.save(folder / "Y.npy", labels)
    np.save(folder / "big.npy", rng.random((60, 784), dtype=np.float32))
    np.save(folder / "y.npy", labels)
    for name in ("pairs", "rows", "labels"):
        (folder / name).mkdir()
    for i, place in enumerate((slice(0, 30), slice(30, 60)), 1):
        X = rng.random((30, 784), dtype=np.float32)
        for name in (f"pairs/X-{i}", f"rows/{i}", f"rows-{i}"):
            np.save(folder / f"{name}.npy", X)
        for name in (f"pairs/y-{i}", f"labels/{i}"):
            np.save(folder / f"{name}.npy", labels[place])
    np.save(folder / "labels.npy", labels)
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
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("XPNET_DEVICE", "cpu")
    monkeypatch.setenv("XPNET_DATA", str(tmp_path / "DIR"))
    modules = {*sys.modules}
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b""), encoding="utf-8"))  # of --jsonl: no rows
    file_names(tmp_path)
    yield tmp_path
    for name in {*sys.modules} - modules:  # such as a model that was exported
        if getattr(sys.modules[name], "__file__", None) == str(tmp_path / f"{name}.py"):
            del sys.modules[name]


def latest_run():
    found = list(Path("runs").iterdir()) if Path("runs").is_dir() else []
    return max(found, key=os.path.getmtime, default=None)


def run_commands(block, default):
    """Run the lines of a block of a page, and return how many commands of xpnet they were.

    RUN is the run that the commands before it in the block left, or else a default one.
    """
    run, n_run = default, 0
    for words in commands(block):
        if words[0] == "pip":
            assert words[:2] == ["pip", "install"], words
            assert set(re.findall(r"[\w-]+", words[2].partition("[")[2])) <= EXTRAS, words
            continue
        if words[0] == "mpiexec":  # parallel/test_mpi_faults.py
            continue
        if words[0] != "xpnet":
            assert words[:2] == ["python", "-m"] and words[2].startswith("xpnet.examples."), words  # their own tests
            continue
        of_extras = {"tune": "optuna", "onnx": "onnxruntime", "model.onnx": "onnxruntime"}  # that tests do without
        if any(find_spec(module) is None for word, module in of_extras.items() if word in words):
            continue
        if run is None and any("RUN" in word for word in words):
            assert main(["train", *SHORT["train"]]) == 0
            run = latest_run()
        words = [word.replace("RUN", str(run)) for word in words[1:]]
        if "there.json" in words:
            shutil.copy("here.json", "there.json")
        is_short = "--compare" not in words and "--resume" not in words
        assert main([*words, *(SHORT.get(words[0], []) if is_short else [])]) == 0, words
        n_run += 1
        if {"--target", "flowers/train/"} & {*words}:
            run = latest_run()
    return n_run


@pytest.mark.full
@pytest.mark.parametrize(
    "page", [page for page in PAGES if examples(page) and page.stem != "notebooks"], ids=lambda page: page.stem
)
def test_every_example_of_a_page_runs(page, folder, capsys):
    """In the order of the page, the Python ones in one namespace; cells of notebooks have a test in tests/plots."""
    namespace, n_run, printed = {"__name__": "page"}, 0, ""
    for language, block in examples(page):
        if language == "python":
            capsys.readouterr()
            exec(compile(block, page.name, "exec"), namespace)
            out, err = capsys.readouterr()
            assert err == "" and not re.search(r"\bnan\b|\binf\b|\bFalse\b", out), out + err
            printed += out
        elif "pytest" not in block:
            n_run += run_commands(block, latest_run())
        else:  # the README's first block, which CI types as it is
            assert main(["train", *SHORT["train"]]) == 0
    written = {
        "devices": lambda: json.loads(Path("here.json").read_text(encoding="utf-8"))["points"],
        "command-line": lambda: len(Path("Y.csv").read_text(encoding="utf-8").splitlines()) == 1 + 60 and n_run >= 13,
        "tables": lambda: len(Path("predictions.csv").read_text(encoding="utf-8").splitlines()) == 3,
        "first-steps": lambda: len(Path("predictions.csv").read_text(encoding="utf-8").splitlines()) == 443,
        "exactness": lambda: printed.split() == ["True", "True"],
        "export": lambda: Path("model.npz").stat().st_size and printed.split()[-1] == "True",
        "machines": lambda: printed.split() == ["True", "True"],
    }
    assert written.get(page.stem, lambda: True)()
