"""A training that is killed at any moments, and resumed each time, ends with the bits of one that never was."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_cli import CHECKOUT, json_lines, surroundings  # noqa: F401  a fixture that runs by itself

from xpnet.training.checkpoint import load_checkpoint
from xpnet.training.optimizers import OPTIMIZERS

CHILD = CHECKOUT / "tests" / "killed.py"
TARGETS = {"price": "regression", "kind": "multiclass", "sold": "binary"}
SCHEDULES = [
    [],
    *(["--schedule", *words.split()] for words in ("step --every 20 --factor 0.5", "exponential --factor 0.999")),
    *(["--schedule", *words.split()] for words in ("cosine --warmup 5", "one-cycle", "inverse-scaling")),
    ["--schedule", "plateau", "--plateau-patience", "0", "--factor", "0.5"],
]


@pytest.fixture(autouse=True)
def data(surroundings):  # noqa: F811  the fixture
    """Rows with labels, targets and weights, and a table, in the working directory."""
    rng = np.random.default_rng(0)
    np.save("X.npy", rng.random((400, 6), dtype=np.float32))
    np.save("labels.npy", rng.integers(0, 3, 400))
    np.save("targets.npy", rng.standard_normal((400, 2)))
    np.save("weights.npy", rng.random(400) + 0.1)
    size, rooms = rng.normal(120, 30, 400), rng.integers(1, 7, 400)
    table = pd.DataFrame({"size": size, "rooms": rooms, "colour": rng.choice(["red", "green", "blue"], 400)})
    table["price"] = 3000 * size + 2e4 * rooms
    table["kind"] = np.where(size > 130, "villa", np.where(rooms > 3, "house", "flat"))
    table["sold"] = np.where(size > 120, "yes", "no")
    for target in TARGETS:
        columns = ["size", "rooms", "colour", target]
        table[columns].to_csv(f"{target}.csv", index=False)


def drawn(draw, optimizer):
    """Draw the options of a training by the command line."""
    kind = draw.choice(["labels", "targets", "mnist-sample", *TARGETS])
    if kind in TARGETS:
        options, sides = [f"{kind}.csv", "--target", kind], (5, {"kind": 3}.get(kind, 1))
    elif kind == "mnist-sample":
        options, sides = ["--dataset", kind, "--validation", "4500"], (784, 10)
    else:
        options, sides = ["--dataset", "X.npy", "--labels", f"{kind}.npy"], (6, {"labels": 3, "targets": 2}[kind])
        options += draw.choice([[], ["--weights", "weights.npy"]])
    hidden = draw.choice(["8", "12,8", "160,160"])
    options += ["--layers", f"{sides[0]},{hidden},{sides[1]}", "--optimizer", optimizer]
    options += draw.choice([*[["--normalization", "batch"]] * 2, ["--normalization", "layer"], []])
    options += draw.choice([["--dropout", "0.2"], []])
    validated = kind == "mnist-sample" or draw.random() < 0.8
    if kind != "mnist-sample":
        options += ["--validation", "60" if validated else "0"]
    schedule = draw.choice(SCHEDULES if validated else SCHEDULES[:-1])
    options += schedule
    options += draw.choice([[], ["--clip-norm", "0.5"], ["--clip-value", "0.1"], ["--max-norm", "1"]])
    options += draw.choice([[], ["--l2", "0.001"], ["--l1", "0.001"]])
    ends = [[], ["--ema", "0.9"], ["--max-steps", "70"], ["--max-seconds", "1000"]]
    if validated:
        ends += [["--patience", "3"], ["--patience", "50", "--min-delta", "0.001"]]
    options += draw.choice(ends)
    options += ["--batch-size", draw.choice(["7", "16", "64"]), "--accumulate", draw.choice(["1", "1", "3"])]
    options += [*draw.choice([[], ["--dtype", "float64"]]), "--seed", str(draw.randrange(100)), "--epochs", "6"]
    options += draw.choice([[], ["--checkpoint-every", "3"], *[["--checkpoint-every", "11"]] * 3])
    return ["train", *options, "--engine", draw.choice(["replay", "compiled"]), "--quiet"]


class Training:
    """One training: arguments that begin it and that resume it, for processes with that many threads."""

    def __init__(self, begin, resume, threads):
        self.begin, self.resume = begin, resume
        self.environment = os.environ | {"OPENBLAS_NUM_THREADS": threads}

    def child(self, n=0, delay=0.0):
        """Begin it, or resume it if its run has been begun; `n` and `delay` as killed.py takes them."""
        what = self.resume if Path("run/config.json").exists() else self.begin
        with open("errors", "w", encoding="utf-8") as errors:
            return subprocess.Popen(
                [sys.executable, CHILD, str(n), str(delay), *what],
                env=self.environment,
                stdout=subprocess.PIPE,
                stderr=errors,
            )

    def to_the_end(self):
        """Run it to its end and return the number of changes of files."""
        process = self.child()
        out, _ = process.communicate(timeout=300)
        assert process.returncode == 0, Path("errors").read_text(encoding="utf-8")
        return int(out.splitlines()[-1])

    def killed(self, n, delay):
        """Kill it at its n-th change of a file or `delay` seconds later, and return whether that came in time."""
        with self.child(n, delay) as process:
            if delay and process.stdout.readline() == b"now\n":
                time.sleep(delay)
                process.kill()
            process.communicate(timeout=300)
        assert process.returncode in (0, -signal.SIGKILL), Path("errors").read_text(encoding="utf-8")
        return process.returncode != 0


def told(run):
    """Return all that a run left, without its seconds."""
    moment = load_checkpoint(f"{run}/checkpoint.safetensors")
    moment.progress.seconds = 0.0
    for _, state in moment.callbacks:
        state.pop("spent", None)
    files = {path.name: path.read_bytes() for path in Path(run).iterdir()}
    del files["checkpoint.safetensors"]
    lines, records = json_lines(files.pop("history.jsonl").decode()), moment.history
    tensors = {name: (str(array.dtype), array.shape, array.tobytes()) for name, array in moment.tensors.items()}
    facts = moment.fit, vars(moment.progress), moment.steps_done, moment.last_good_steps, moment.lr, moment.callbacks
    return [*([line | {"seconds": 0} for line in part] for part in (lines, records)), tensors, facts, files]


def kills(training, draw, most):
    """Kill a training `most` times, each time at another moment, and compare what it leaves.

    Return how many found it before its first checkpoint, within an epoch and between two.
    """
    n_changes = training.to_the_end()
    whole, found, left = told("run"), Counter(), n_changes
    assert whole[0] == whole[1]
    shutil.rmtree("run")
    while found.total() < most:
        n = draw.randint(1, max(1, left // 2))
        if training.killed(n, draw.choice([0.0, 0.0, 0.05 * draw.random()])):
            found[where()] += 1
            left -= n
        else:  # it was faster
            assert told("run") == whole
            shutil.rmtree("run")
            left = n_changes
    training.to_the_end()
    assert told("run") == whole
    return found


def where():
    path = Path("run/checkpoint.safetensors")
    if not path.exists():
        return "before a checkpoint"
    return "within an epoch" if load_checkpoint(path).progress.step else "between epochs"


@pytest.mark.full
@pytest.mark.parametrize("seed", range(27))
def test_any_command_ends_with_the_same_bits(seed):
    draw = random.Random(seed)
    argv, threads = drawn(draw, list(OPTIMIZERS)[seed % len(OPTIMIZERS)]), draw.choice(["1", "2"])
    training = Training([*argv, "--out", "run"], ["train", "--resume", "run", "--quiet"], threads)
    sys.stdout.write(f"{kills(training, draw, 4)}, threads {threads}, {' '.join(argv)}\n")


@pytest.mark.full
@pytest.mark.parametrize("seed", range(9))
def test_any_training_in_python_ends_with_the_same_bits(seed):
    draw = random.Random(seed)
    training = Training(["python", str(seed)], ["python", str(seed)], draw.choice(["1", "2"]))
    sys.stdout.write(f"{kills(training, draw, 4)}, python {seed}\n")
