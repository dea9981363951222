"""xpnet train --resume: a run that was stopped ends as if it had not been; test_kills.py kills them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from refusals import says
from test_cli import json_lines, names, surroundings  # noqa: F401  a fixture that runs by itself

import xpnet
from xpnet.cli import main
from xpnet.training.checkpoint import load_checkpoint, save_checkpoint

CHECKOUT = Path(__file__).parents[2]
ALL = [
    "--layers",
    "6,8,3",
    "--optimizer",
    "adam",
    "--dropout",
    "0.3",
    "--normalization",
    "batch",
    "--schedule",
    "plateau",
    "--plateau-patience",
    "2",
    "--patience",
    "30",
    "--batch-size",
    "8",
    "--accumulate",
    "2",
    "--validation",
    "60",
    "--metrics",
    "f1",
    "--checkpoint-every",
    "8",
    "--epochs",
    "80",
]


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    np.save("X.npy", rng.random((300, 6), dtype=np.float32))
    np.save("Y.npy", rng.integers(0, 3, 300))
    return ["--dataset", "X.npy", "--labels", "Y.npy"]


def lines(run):
    return [{**record, "seconds": 0} for record in json_lines(Path(run, "history.jsonl").read_text(encoding="utf-8"))]


def same_run(a, b):
    assert names(a) == names(b) == ["checkpoint.safetensors", "config.json", "history.jsonl", "model.safetensors"]
    assert lines(a) == lines(b)
    assert Path(a, "model.safetensors").read_bytes() == Path(b, "model.safetensors").read_bytes()
    assert Path(a, "config.json").read_bytes() == Path(b, "config.json").read_bytes()


def child(argv):
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "xpnet", *argv, "--quiet"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_a_checkpoint_of_that_very_step(ctrl_c, data, number):
    # Checkpoints every 30 s; "auto" would take another engine for so many epochs than for those that come about.
    argv = ["train", *data, *ALL[:-4], "--engine", "replay", "--epochs"]
    process = child([*argv, "100000", "--patience", "100000", "--out", "run"])
    history = Path("run/history.jsonl")
    while process.poll() is None and (not history.exists() or history.read_bytes().count(b"\n") < 3):
        time.sleep(0.001)  # until two epochs are done
    written = Path("run/checkpoint.safetensors").stat().st_mtime_ns
    process.send_signal(number)
    assert process.wait(300) == (130 if number == signal.SIGINT else 143)
    assert Path("run/checkpoint.safetensors").stat().st_mtime_ns > written
    moment = load_checkpoint("run/checkpoint.safetensors")
    model = xpnet.Network.load("run/model.safetensors")
    np.testing.assert_array_equal(moment.tensors["owned"], model.owned)  # nothing that was trained is lost
    done = moment.progress.epoch
    assert done > 1 and len(lines("run")) == done
    assert main(["train", "--resume", "run", "--epochs", str(done + 2), "--quiet"]) == 0
    assert main([*argv, str(done + 2), "--patience", "100000", "--out", "whole", "--quiet"]) == 0
    same_run("run", "whole")


def test_a_finished_run_says_so_and_a_model_that_is_missing_comes_back(data, capsys):
    assert main(["train", *data, *ALL, "--patience", "3", "--out", "run"]) == 0
    last = lines("run")[-1]
    assert "no better val_loss in 3 epochs" in last["stopped"] and last["chosen_epoch"] == last["epoch"] - 3
    kept = {name: Path("run", name).read_bytes() for name in names("run")}
    capsys.readouterr()
    Path("run/model.safetensors").unlink()
    assert main(["train", "--resume", "run", "--quiet"]) == 0
    out, err = capsys.readouterr()
    assert f"run has ended after epoch {last['epoch']}, no better val_loss" in err and "nothing is left" in err
    assert len(out.splitlines()) == 1  # the summary
    assert {name: Path("run", name).read_bytes() for name in names("run")} == kept


def test_more_epochs_go_on_and_lines_after_the_checkpoint_are_dropped(data, capsys):
    options = [*data, "--layers", "6,3", "--batch-size", "50", "--quiet", "--epochs"]
    assert main(["train", *options, "5", "--out", "whole"]) == 0
    assert main(["train", *options, "3", "--out", "run"]) == 0
    with open("run/history.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps({"epoch": 4, "train_loss": 9.0, "seconds": 1}) + '\n{"epoch": 5, "tra')
    assert main(["train", "--resume", "run", "--epochs", "5", "--quiet", "--json"]) == 0
    assert "continues with epoch 4, after step 0" in capsys.readouterr().err
    same_run("whole", "run")


@pytest.mark.parametrize("more", [[], ["--warmup", "5"]], ids=["plain", "warm-up"])
def test_more_epochs_where_the_rate_goes_over_the_whole_run(data, capsys, more):
    options = [*data, "--layers", "6,3", "--epochs", "3", "--schedule", "cosine", "--quiet", *more]
    assert main(["train", *options, "--out", "run"]) == 0
    kept = {path: path.read_bytes() for path in Path("run").iterdir()}
    capsys.readouterr()
    assert main(["train", "--resume", "run", "--epochs", "5", "--quiet"]) == 2
    *usage, line = capsys.readouterr().err.splitlines()
    assert "--schedule cosine of run goes over its 3 epochs, and --epochs is 5" in line and "leave --epochs out" in line
    assert not any("continues" in other for other in usage)
    assert {path: path.read_bytes() for path in Path("run").iterdir()} == kept
    assert main(["train", *options, "--total-steps", "30", "--out", "given"]) == 0  # goes by no epochs
    assert main(["train", "--resume", "given", "--epochs", "5", "--quiet"]) == 0


def test_another_constant_rate_from_a_checkpoint_on(data, capsys):
    argv = ["train", *data, "--layers", "6,3", "--lr", "0.5", "--seed", "3", "--device", "cpu", "--split", "last"]
    argv += ["--end-with", "last", "--optimizer", "sgd", "--patience", "0"]
    assert main([*argv, "--epochs", "1", "--quiet", "--out", "run"]) == 0
    assert main(["train", "--resume", "run", "--epochs", "2", "--lr", "0.125"]) == 0
    assert "at a learning rate of 0.125" in capsys.readouterr().err
    assert main(["train", "--resume", "run", "--epochs", "3", "--quiet"]) == 0  # which it keeps
    weights = xpnet.Network.load("run/model.safetensors").owned

    class Lower(xpnet.training.callbacks.Callback):
        def on_epoch_end(self, record, network):
            optimizer.lr = 0.5 if record["epoch"] < 1 else 0.125

    rows, labels = np.load("X.npy"), np.load("Y.npy")
    dataset = xpnet.Dataset.from_labels(rows.T, labels)
    n_training = dataset.n_samples - round(0.1 * dataset.n_samples)
    network = xpnet.Network([6, 3], backend=xpnet.select_backend("cpu"), seed=3)
    optimizer = xpnet.SGD(0.5)
    xpnet.train(
        network, dataset.subset(slice(0, n_training)), optimizer, epochs=3, batch_size=32, seed=3, callbacks=[Lower()]
    )
    np.testing.assert_array_equal(network.owned, weights)
    assert main([*argv, "--epochs", "2", "--schedule", "cosine", "--quiet", "--out", "waves"]) == 0
    capsys.readouterr()
    assert main(["train", "--resume", "waves", "--lr", "0.125", "--quiet"]) == 2
    says(
        capsys.readouterr().err.strip(),
        "--lr 0.125 is for a constant rate",
        "run's --schedule sets its own",
        "leave --lr out",
    )


def test_a_run_without_a_checkpoint_begins_anew(data, capsys):
    argv = ["train", *data, "--layers", "6,3", "--epochs", "2", "--quiet", "--out"]
    assert main([*argv, "whole"]) == main([*argv, "run"]) == 0
    for name in ("checkpoint", "model"):
        Path(f"run/{name}.safetensors").unlink()
    assert main(["train", "--resume", "run", "--quiet"]) == 0
    assert "run has no checkpoint yet: it starts again" in capsys.readouterr().err
    same_run("whole", "run")


@pytest.mark.parametrize(
    ("options", "code", "parts"),
    [
        (["--resume", "nowhere"], 1, ["nowhere is not a run directory", "config.json", "xpnet train"]),
        (
            ["--resume", "run", "--momentum", "0.5", "--seed", "5"],
            2,
            ["--resume takes all from", "run/config.json", "leave --momentum, --seed out"],
        ),
        (["--resume", "run", "--out", "other"], 2, ["leave --out out"]),
        (["--resume", "run", "--epochs", "0"], 1, ["within or after epoch 1, and epochs is 0; give epochs=1 or more"]),
        (["--resume", "cut"], 1, ["cut/checkpoint.safetensors is not a whole safetensors file"]),
        (
            ["--resume", "grown"],
            1,
            ["checkpoint.safetensors belongs to a run with n_samples 270, this one has n_samples 432"],
        ),
    ],
)
def test_refusals_are_one_line(data, capsys, options, code, parts):
    assert main(["train", *data, "--layers", "6,3", "--epochs", "1", "--quiet", "--out", "run"]) == 0
    for copy in ("cut", "grown"):
        shutil.copytree("run", copy)
    whole = Path("cut/checkpoint.safetensors").read_bytes()
    Path("cut/checkpoint.safetensors").write_bytes(whole[:-10])
    if "grown" in options:
        np.save("X.npy", np.ones((480, 6), np.float32))
        np.save("Y.npy", np.arange(480) % 3)
    kept = {path: path.read_bytes() for path in Path("run").iterdir()}
    capsys.readouterr()
    assert main(["train", *options, "--quiet"]) == code
    *more, line = capsys.readouterr().err.splitlines()
    says(line, *parts)
    assert "epochs" not in line or not more  # no word of a run that goes on
    assert {path: path.read_bytes() for path in Path("run").iterdir()} == kept


def test_a_resume_that_is_refused_leaves_no_model(data, capsys):
    """The run was killed before it had one; what its checkpoint says of a callback is spoilt."""
    assert main(["train", *data, *ALL, "--epochs", "2", "--quiet", "--out", "run"]) == 0
    Path("run/model.safetensors").unlink()
    path = Path("run/checkpoint.safetensors")
    moment = load_checkpoint(path)
    moment.progress.epoch, moment.history[-1:] = 2, []
    moment.callbacks[0][1].clear()
    save_checkpoint(path, moment)
    capsys.readouterr()
    assert main(["train", "--resume", "run"]) == 1
    err = capsys.readouterr().err
    assert "cannot be restored" in err and "Traceback" not in err
    assert "model.safetensors" not in names("run")
    assert main(["evaluate", "run"]) != 0
    says(capsys.readouterr().err.strip(), "there is no model file", "run/model.safetensors")
