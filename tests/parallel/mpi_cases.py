"""Trainings that mpiexec starts on several ranks: `python mpi_cases.py FOLDER`, whose files tests compare.

FOLDER receives, for each case, the model, its history without times, and the checkpoint's tensors; FOLDER/half holds a
checkpoint of a run that is to be resumed, if an earlier launch has written it.
"""

import json
import sys
import warnings
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

import xpnet
from xpnet.training.optimizers import OPTIMIZERS

TIMES = ("seconds",)
HALF = "half.safetensors"


def data(weighted=False, n=53):
    rng = np.random.default_rng(7)
    X, labels = rng.normal(size=(6, n)), rng.integers(3, size=n)
    weights = rng.random(n) + 0.1 if weighted else None
    return xpnet.Dataset.from_labels(X.astype(np.float32), labels, weights=weights)


def network(*hidden, dtype="float32"):
    layers = hidden or (xpnet.Activation("tanh"),)
    first = xpnet.Dense(6, 7, bias=None) if any(isinstance(layer, xpnet.BatchNorm) for layer in layers) else None
    stack = [first or xpnet.Dense(6, 7), *layers, xpnet.Dense(7, 3)]
    return xpnet.Network(stack, loss="softmax_cross_entropy", device="cpu", dtype=dtype, seed=3)


def cases():
    """(name, network, data, optimizer, options) of each."""
    for name, kind in OPTIMIZERS.items():
        yield name, network(), data(), kind(0.02, clip_norm=1.0, ema=0.9), {"batch_size": 20}
    yield "empty shards", network(), data(n=23), xpnet.Adam(0.02), {"batch_size": 5}
    yield "weights", network(), data(weighted=True), xpnet.SGD(0.1, l2_summed=0.1), {"batch_size": 24}
    yield "accumulation", network(), data(weighted=True), xpnet.SGD(0.1), {"batch_size": 12, "accumulate": 3}
    noisy = network(xpnet.BatchNorm(7), xpnet.Activation("relu"), xpnet.Dropout(0.4))
    yield "batch norm and dropout", noisy, data(), xpnet.Adam(0.02), {"batch_size": 24}
    yield "not shuffled", network(dtype="float64"), data(), xpnet.Lion(0.01), {"batch_size": "all", "shuffle": False}
    optimizer = xpnet.SGD(2.0)
    stops = [xpnet.EarlyStopping(2), xpnet.ReduceOnPlateau(optimizer, patience=0)]
    held_out = {"validation": data(n=19), "metrics": ["f1"], "callbacks": stops, "epochs": 12}
    yield "early stopping", network(xpnet.Dropout(0.2), xpnet.Activation("relu")), data(), optimizer, held_out
    for name in ("compiled", "compiled weights"):
        noisy = network(xpnet.BatchNorm(7), xpnet.Activation("relu"), xpnet.Dropout(0.4))
        options = {"batch_size": 24, "engine": "compiled", "accumulate": 2, "validation": data(n=19)}
        yield name, noisy, data("weights" in name), xpnet.Adam(0.02), options


def run(folder, communicator):
    """Train all cases; process 0 writes what came of them."""
    found = {}
    for name, model, dataset, optimizer, options in cases():
        options = {"epochs": 3, "engine": "replay", "reduction": "fixed", **options}
        history = xpnet.train(model, dataset, optimizer, communicator=communicator, **options)
        found[name] = told(model, optimizer, history, communicator, folder)
    found["resumed"] = resumed(folder, communicator)
    if communicator is None or communicator.rank == 0:
        (folder / "found.json").write_text(json.dumps(found))


def resumed(folder, communicator):
    """Resume the run whose first half another launch has made, or make that half first."""
    half, options = folder / HALF, {"batch_size": 20, "engine": "replay", "reduction": "fixed"}

    def half_run(epochs, **more):
        model, optimizer = network(xpnet.Activation("relu"), xpnet.Dropout(0.3)), xpnet.Adam(0.02)
        history = xpnet.train(model, data(), optimizer, epochs=epochs, communicator=communicator, **options, **more)
        return told(model, optimizer, history, communicator, folder)

    if not half.exists():
        half_run(2, callbacks=[xpnet.Checkpoint(half)])
        if communicator is not None:
            communicator.barrier()
    return half_run(4, resume=half, callbacks=[])


def told(model, optimizer, history, communicator, folder):
    """What all processes must agree on: bytes of the model file and of the state, records without times."""
    rank = 0 if communicator is None else communicator.rank
    path = folder / f"model{rank}.safetensors"
    model.save(path)
    records = [{name: value for name, value in record.items() if name not in TIMES} for record in history]
    state = optimizer.snapshot().state.tobytes().hex()[-4000:]
    mine = [path.read_bytes().hex(), state, optimizer.steps_done, optimizer.lr, json.dumps(records)]
    if communicator is not None:
        for other in communicator.gather(mine):
            assert other == mine, "ranks end with different networks"
    assert np.isfinite(load_file(path)[next(iter(load_file(path)))]).all()
    return mine


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    run(Path(sys.argv[1]), xpnet.communicator("mpi"))
