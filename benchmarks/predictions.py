"""`python -m benchmarks.predictions`: time predictions of few and of many rows, beside other libraries, and print them.

NumPy written by hand and scikit-learn are always there, ONNX Runtime and PyTorch where they are installed. xpnet's
predictions are timed replayed and, with llvmlite, compiled: after as many as that takes. The last line of each is the
median of the ratios of turns side by side, between which the processor's clock changes little.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np

import xpnet
from xpnet.engines.choice import check_engine
from xpnet.timing import machine
from xpnet.timing.harness import Work, take_turns

NETWORKS = ((64, 100, 10), (20, 64, 64, 2))
ROWS = (1, 32, 1000, 100_000)
OTHERS = ("scikit-learn", "ONNX Runtime", "PyTorch")
Predict = Callable[[np.ndarray], Any]


def fitted(sizes: tuple[int, ...], kind: Any) -> Any:
    """Return an estimator of that kind and these layers, of random data; two classes have one output."""
    rng = np.random.default_rng(0)
    X, y = rng.random((2000, sizes[0]), dtype=np.float32), rng.integers(0, sizes[-1], 2000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one epoch is not enough
        return kind(sizes[1:-1], max_iter=1, random_state=0).fit(X, y)


def compiled(network: xpnet.Network, predict: Predict, rows: np.ndarray) -> Predict:
    """Predict until the network's predictions are compiled; return `predict`."""
    while all(network.forwards.run(kind, rows.T) is None for kind in ("predict", "forward")):
        predict(rows)
    return predict


def replayed(network: xpnet.Network, predict: Predict) -> Predict:
    """Return `predict` with all of the network's predictions replayed."""

    def run(rows: np.ndarray) -> Any:
        with network.forwards.replayed():
            return predict(rows)

    return run


def by_hand(network: xpnet.Network) -> Predict:
    """Return the forward pass of relu layers and a softmax in NumPy."""
    weights = [W.T for W in network.parameters.weights]
    biases = [b.T for b in network.parameters.biases]

    def run(rows: np.ndarray) -> np.ndarray:
        A = rows
        for W, b in zip(weights[:-1], biases[:-1], strict=True):
            A = np.maximum(A @ W + b, 0.0)
        Z = A @ weights[-1] + biases[-1]
        E = np.exp(Z - Z.max(axis=1, keepdims=True))
        return np.asarray(E / E.sum(axis=1, keepdims=True))

    return run


def onnx_runtime(network: xpnet.Network) -> Predict:
    """Return the network in ONNX Runtime; raises ImportError without it or without onnx."""
    import onnx
    import onnxruntime

    helper, numbers, nodes, name = onnx.helper, [], [], "X"
    pairs = list(zip(network.parameters.weights, network.parameters.biases, strict=True))
    for i, (W, b) in enumerate(pairs):
        numbers += [onnx.numpy_helper.from_array(np.ascontiguousarray(W), f"W{i}")]
        numbers += [onnx.numpy_helper.from_array(b.reshape(-1).copy(), f"b{i}")]
        nodes.append(helper.make_node("Gemm", [name, f"W{i}", f"b{i}"], [f"Z{i}"], transB=1))
        last = i == len(pairs) - 1
        name = "P" if last else f"A{i}"
        nodes.append(helper.make_node("Softmax" if last else "Relu", [f"Z{i}"], [name]))
    ends = [
        [helper.make_tensor_value_info(end, onnx.TensorProto.FLOAT, [None, n])]
        for end, n in (("X", pairs[0][0].shape[1]), ("P", pairs[-1][0].shape[0]))
    ]
    graph = helper.make_graph(nodes, "network", *ends, numbers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return lambda rows: session.run(None, {"X": rows})


def torch_eager(network: xpnet.Network) -> Predict:
    """Return the network in PyTorch; raises ImportError without it."""
    import torch

    modules: list[Any] = []
    for W, b in zip(network.parameters.weights, network.parameters.biases, strict=True):
        layer = torch.nn.Linear(W.shape[1], W.shape[0])
        layer.weight.data[...], layer.bias.data[...] = torch.from_numpy(W), torch.from_numpy(b.reshape(-1))
        modules += [layer, torch.nn.ReLU()]
    model = torch.nn.Sequential(*modules[:-1], torch.nn.Softmax(dim=1))

    def run(rows: np.ndarray) -> Any:
        with torch.inference_mode():
            return model(torch.from_numpy(rows)).numpy()

    return run


def predictions(sizes: tuple[int, ...], rows: np.ndarray) -> dict[str, Predict]:
    """Return what predicts these rows, by name."""
    from sklearn.neural_network import MLPClassifier

    network, estimator = xpnet.Network(sizes, device="cpu"), fitted(sizes, xpnet.MLPClassifier)
    kinds: dict[str, tuple[xpnet.Network, Predict]] = {
        "Network.predict": (network, lambda rows: network.predict(rows.T)),
        "predict_proba": (estimator.network_, estimator.predict_proba),
    }
    found = {f"{name}, replayed": replayed(*kind) for name, kind in kinds.items()}
    with suppress(ImportError):
        check_engine("compiled", "cpu")
        found |= {f"{name}, compiled": compiled(*kind, rows) for name, kind in kinds.items()}
    found |= {"NumPy": by_hand(network), "scikit-learn": fitted(sizes, MLPClassifier).predict_proba}
    for name, make in (("ONNX Runtime", onnx_runtime), ("PyTorch", torch_eager)):
        with suppress(ImportError):
            found[name] = make(network)
    return found


def main(arguments: list[str] | None = None) -> int:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.predictions", description=__doc__)
    parser.add_argument("--rows", default=",".join(map(str, ROWS)), help="numbers of rows, separated by commas")
    parser.add_argument("--repeats", type=int, default=21, help="turns of each (default 21)")
    options = parser.parse_args(arguments)
    facts = machine.facts(xpnet.__version__)
    print(
        f"{facts['date']}, {facts['cpu']}, {facts['cores']} cores, {facts['blas']}; microseconds, medians (quartiles)"
    )
    for sizes in NETWORKS:
        for n in map(int, options.rows.split(",")):
            rows = np.random.default_rng(n).random((n, sizes[0]), dtype=np.float32)
            works = {name: Work(partial(run, rows), lambda: None) for name, run in predictions(sizes, rows).items()}
            print(f"\n{'-'.join(map(str, sizes))}, {n:,} rows")
            turns = take_turns(works, repeats=options.repeats, seconds=0.02)
            for name, seconds in turns.items():
                lower, middle, upper = (1e6 * value for value in statistics.quantiles(seconds, n=4))
                print(f"    {name:<28}{middle:>12,.1f}  ({lower:,.1f} to {upper:,.1f})", flush=True)
            print(f"    {compared(turns)}", flush=True)
    return 0


def compared(turns: dict[str, list[float]]) -> str:
    """Return the time of the fastest other library divided by that of `Network.predict`, turn by turn."""
    own = next(name for name in ("Network.predict, compiled", "Network.predict, replayed") if name in turns)
    best = min(turns.keys() & set(OTHERS), key=lambda name: statistics.median(turns[name]))
    ratios = [theirs / ours for theirs, ours in zip(turns[best], turns[own], strict=True)]
    lower, middle, upper = statistics.quantiles(ratios, n=4)
    return f"{best} / {own}: {middle:.2f} ({lower:.2f} to {upper:.2f})"


if __name__ == "__main__":
    sys.exit(main())
