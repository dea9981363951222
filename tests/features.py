"""Networks and optimizers that have each feature at least once, for tests of what engines make of Programs."""

from __future__ import annotations

import numpy as np
import pytest

import xpnet
from xpnet.engines.choice import make_engine
from xpnet.kernels.activations import ACTIVATIONS
from xpnet.network import losses
from xpnet.training import optimizers

OPTIMIZERS = tuple(made.__name__ for made in optimizers.OPTIMIZERS.values())
OPTIONS = {"l1": 0.01, "l2": 0.02, "clip_value": 0.4, "clip_norm": 0.5, "max_norm": 0.9, "ema": 0.7}


FEATURES: dict[str, dict] = {
    **{f"activation {name}": {"activation": name} for name in ACTIVATIONS if name != "softmax"},
    **{f"loss {name}": {"loss": name, "output": LOSS().output or "identity"} for name, LOSS in losses.LOSSES.items()},
    **{
        f"loss {name}, one output": {"loss": name, "output": "identity", "outputs": 1}
        for name in losses.LOSSES
        if name not in ("softmax_cross_entropy", "negative_log_likelihood")
    },
    "smoothing": {"loss": losses.SoftmaxCrossEntropy(smoothing=0.2)},
    "huber of another delta": {"loss": losses.Huber(delta=0.3)},
    "sigmoid output": {"loss": "squared_error", "output": "sigmoid"},
    **{f"optimizer {name}": {"optimizer": name} for name in OPTIMIZERS},
    **{f"option {name}": {"options": {name: value}} for name, value in OPTIONS.items()},
    "all options": {"optimizer": "Adam", "options": OPTIONS},
    "l2_summed": {"optimizer": "Adam", "options": {"l2_summed": 0.3}},
    "l2_summed, weights, accumulate": {"options": {"l2_summed": 0.3}, "weighted": True, "accumulate": 3},
    "a long norm": {"hidden": (200, 50), "options": {"clip_norm": 0.1}},
    "weights": {"weighted": True},
    "weights, one output": {"weighted": True, "loss": "sigmoid_cross_entropy", "outputs": 1},
    "accumulate": {"accumulate": 3},
    "accumulate, weights": {"accumulate": 2, "weighted": True, "optimizer": "Adam"},
    "uint8": {"uint8": True},
    "dropout": {"dropout": 0.3},
    "batch normalization": {"normalization": "batch"},
    "layer normalization": {"normalization": "layer"},
    "dropout, batch normalization, Adam": {"dropout": 0.2, "normalization": "batch", "optimizer": "Adam"},
    "everything": {
        "dropout": 0.2,
        "normalization": "layer",
        "optimizer": "AdamW",
        "options": OPTIONS,
        "weighted": True,
        "accumulate": 2,
        "activation": "gelu",
        "uint8": True,
    },
    "one layer, one input, one output": {"inputs": 1, "hidden": (), "outputs": 1, "loss": "squared_error"},
    "one wide": {"hidden": (1, 1), "loss": "squared_error", "outputs": 1},
}


# Those whose Programs differ in more than the words of single elements, which have tests of their own.
STRUCTURES = (
    *("activation log_softmax", "loss softmax_cross_entropy", "loss squared_error, one output", "optimizer NAdam"),
    *("option max_norm", "all options", "a long norm", "weights, one output", "accumulate, weights", "uint8"),
    *("l2_summed", "l2_summed, weights, accumulate"),
    *("layer normalization", "dropout, batch normalization, Adam", "everything", "one layer, one input, one output"),
    *("one wide",),
)
OF_EACH_STRUCTURE = [pytest.param(name, marks=() if name in STRUCTURES else pytest.mark.full) for name in FEATURES]
# For tests that compile each of them; real CuPy is told of all in a job of ci/run.
SOME_STRUCTURES = STRUCTURES[::2]
FACTORS = {  # of features together
    "activation": [name for name in ACTIVATIONS if name != "softmax"],
    "loss": [*losses.LOSSES, "smoothing"],
    "optimizer": OPTIMIZERS,
    "options": [None, *OPTIONS],
    "normalization": [None, "batch", "layer"],
    "dropout": [0.0, 0.3],
    "weighted": [False, True],
    "accumulate": [1, 2],
    "uint8": [False, True],
    "dtype": ["float32", "float64"],
    "threads": [1, 2],
}


def feature_of(row):
    """The feature of a row of FACTORS: values by their names."""
    feature = {**row, "outputs": 3, "hidden": (5, 4)}
    if row["loss"] == "smoothing":
        feature |= {"loss": losses.SoftmaxCrossEntropy(smoothing=0.2), "output": "identity"}
    else:
        feature["output"] = losses.LOSSES[row["loss"]]().output or "identity"
    return feature | {"options": {row["options"]: OPTIONS[row["options"]]} if row["options"] else {}}


def without_noise(feature, results):
    """What `run_steps` returned, with 0 for all that rounding decides.

    Batch normalization takes out the mean: a shift before it, such as beta of the one before, may have a gradient of
    rounding errors alone, which optimizers that divide by its length blow up; running means see the shift.
    """
    owned, *others = results
    if feature.get("normalization") != "batch":
        return results
    network = network_of(feature, xpnet.select_backend("cpu", "float64"))
    network.owned[...] = 1.0
    for name, array in {**network.parameters.named, **network.statistics}.items():
        if name.endswith((".beta", ".running_mean")):
            array[...] = 0.0
    return [owned * network.owned.astype(owned.dtype), *others]


def network_of(feature, backend, seed=1):
    """The network that has a feature."""
    known = {
        name: feature[name] for name in ("activation", "output", "loss", "normalization", "dropout") if name in feature
    }
    sizes = [feature.get("inputs", 6), *feature.get("hidden", (7, 5)), feature.get("outputs", 3)]
    if len(sizes) == 2:
        known.pop("activation", None)
    return xpnet.Network(sizes, backend=backend, seed=seed, **known)


def optimizer_of(feature):
    """The optimizer of a feature."""
    return getattr(optimizers, feature.get("optimizer", "SGD"))(0.02, **feature.get("options", {}))


def program_of(feature, network, batch):
    """The Program of its training step."""
    return network.training_program(
        batch, optimizer_of(feature), feature.get("weighted", False), 0, feature.get("accumulate", 1)
    )


def data_of(feature, network, n, seed=3):
    """X (n, inputs), its scale or None, Y (n, outputs) and weights (n, 1)."""
    rng, sizes = np.random.default_rng(seed), (network.architecture.n_inputs, network.architecture.n_outputs)
    uint8 = feature.get("uint8", False)
    X = rng.integers(256, size=(n, sizes[0])).astype(np.uint8) if uint8 else rng.standard_normal((n, sizes[0]))
    Y = np.eye(sizes[1])[rng.integers(sizes[1], size=n)] if sizes[1] > 1 else rng.integers(2, size=(n, 1)).astype(float)
    return X, (1 / 255 if uint8 else None), Y, rng.integers(1, 5, size=(n, 1)) / 2


def run_steps(feature, backend, batch, n_samples, make=make_engine):
    """All that training leaves after the steps through so many samples: owned, state, keys, results.

    make: an engine of (program, backend, owned, data).
    """
    network = network_of(feature, backend)
    optimizer, program = optimizer_of(feature), program_of(feature, network, batch)
    X, scale, Y, weights = data_of(feature, network, n_samples)
    data = {"X": (backend.to_device(X, X.dtype if scale else None), scale), "Y": (backend.to_device(Y), None)}
    if feature.get("weighted"):
        data["weights"] = (backend.to_device(weights), None)
    engine = make(program, backend, network.owned, data)
    optimizer.attach(network, engine)
    accumulate, n_steps = feature.get("accumulate", 1), -(-n_samples // batch)
    rows = optimizer.slot_rows(-(-n_steps // accumulate)).repeat(accumulate, axis=0)[:n_steps]
    results = engine.run(np.random.default_rng(0).permutation(n_samples), rows)
    arrays = [network.owned, engine.state, engine.keys]
    return [*(backend.to_host(array) for array in arrays), results]


def asks_for_the_length():
    """An activation whose calls depend on the length of the batch, as nobody should write it."""

    def forward(xp, Z, out):
        xp.multiply(Z, 2.0, out=out)
        if Z.shape[1] == 3:
            xp.multiply(out, 1.0, out=out)

    def backward(xp, A, dA, out):
        xp.multiply(dA, 2.0 if A.shape[1] != 2 else 2, out=out)

    return xpnet.CustomActivation("double", forward, backward)
