"""A training in a process that can be killed: `python killed.py N DELAY WHAT...`, for commands/test_kills.py.

WHAT are arguments of `xpnet`, or `python SEED`, which trains by `xpnet.train` in the folder run. Before the N-th change
of a file in run the process kills itself, or with a DELAY prints a line, so that it can be killed that many seconds
later. At its end it prints how many changes there were.
"""

from __future__ import annotations

import os
import random
import signal
import sys
from pathlib import Path

import numpy as np

import xpnet
from xpnet.cli import main
from xpnet.data import feed
from xpnet.network.layers import Activation, BatchNorm, Dense, Dropout
from xpnet.training.optimizers import OPTIMIZERS

feed.BLOCK_BYTES, feed.POOL_BYTES = 2000, 8000  # a file of rows is read in several pools
CHANGES = {"os.rename", "os.remove", "os.chmod", "os.truncate"}


class Watch:
    """An audit hook that counts the changes of files in run and kills the process at the n-th."""

    def __init__(self, n: int, delay: float) -> None:
        self.n, self.delay, self.count = n, delay, 0

    def __call__(self, event: str, arguments: tuple) -> None:
        writes = event in CHANGES or (event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR))
        if not writes or isinstance(arguments[0], int) or Path(arguments[0]).parent.name != "run":
            return
        self.count += 1
        if self.count == self.n:
            if self.delay == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            os.write(1, b"now\n")


class Mean(xpnet.Callback):
    """A callback with an array and a number for a state: the mean of the weights over the records."""

    def on_train_begin(self, network, n_epochs, n_steps):
        self.mean, self.n = network.owned.copy(), 1

    def on_measured(self, record, network):
        self.n += 1
        self.mean += (network.owned - self.mean) / self.n
        record["mean_size"] = float(abs(self.mean).sum())

    def state(self):
        return {"mean": self.mean, "n": self.n}

    def load_state(self, state):
        self.mean, self.n = state["mean"], state["n"]


def train(seed: int) -> None:
    """Train what the seed draws, from the checkpoint if there is one, and save the network."""
    draw, rng = random.Random(seed), np.random.default_rng(seed)
    run = Path("run")
    run.mkdir(exist_ok=True)
    checkpoint, history = run / "checkpoint.safetensors", run / "history.jsonl"
    labels, weights = rng.integers(0, 3, 300), rng.random(300) + 0.1 if draw.random() < 0.5 else None
    dataset = xpnet.Dataset.from_labels(rng.random((6, 300)), labels, 3, weights)
    training, validation = dataset.split(0.2, seed=1)
    first, second = (
        (Dense(6, 12, bias=None), BatchNorm(12), Activation("relu"), Dropout(0.2)),
        (Dense(12, 8), Activation("tanh")),
    )
    dtype = draw.choice(["float32", "float64"])
    network = xpnet.Network(
        [*first, *second, Dense(8, 3)],
        loss="softmax_cross_entropy",
        backend=xpnet.select_backend("cpu", dtype),
        seed=seed,
    )
    optimizer = OPTIMIZERS[list(OPTIMIZERS)[seed % len(OPTIMIZERS)]](
        l2=draw.choice([0.0, 1e-3]), clip_norm=draw.choice([None, 0.5])
    )
    callbacks = [
        xpnet.HistoryFile(history),
        xpnet.Checkpoint(checkpoint, steps=draw.choice([1, 7, None]), seconds=0.02),
        Mean(),
        draw.choice([xpnet.EarlyStopping(4), xpnet.KeepBest("val_f1"), xpnet.StopAtScore(0.99)]),
        draw.choice([xpnet.Budget(steps=101), xpnet.Budget(seconds=1e6)]),
        xpnet.ReduceOnPlateau(optimizer, patience=0, factor=0.5),
    ]
    draw.shuffle(callbacks)
    if not checkpoint.exists():
        history.unlink(missing_ok=True)
    xpnet.train(
        network,
        training,
        optimizer,
        epochs=8,
        batch_size=draw.choice([5, 16, "all"]),
        shuffle=draw.random() < 0.7,
        seed=seed,
        validation=validation,
        callbacks=callbacks,
        accumulate=draw.choice([1, 3]),
        metrics=("f1",),
        engine=draw.choice(["replay", "compiled"]),
        resume=checkpoint if checkpoint.exists() else None,
    )
    network.save(run / "model.safetensors")


if __name__ == "__main__":
    watch = Watch(int(sys.argv[1]), float(sys.argv[2]))
    what = sys.argv[3:]
    sys.addaudithook(watch)
    code = train(int(what[1])) if what[0] == "python" else main(what)
    sys.stdout.write(f"{watch.count}\n")
    sys.exit(code)
