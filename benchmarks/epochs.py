"""`python -m benchmarks.epochs`: what an epoch costs in whole trainings by public calls, here and in other systems.

Each system trains the same network on the same number of samples, shuffled anew each epoch, and returns the mean
loss of each. The time of an epoch is marginal: that of a long training less that of a short one, so that start-up and
compiling drop out. Systems take turns. Each round measures the rate of a large product too, and the table says which
part of our time the products of an epoch would take at that rate. Needs benchmarks/peers/requirements.txt; what is not
installed is left out.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

import xpnet
from xpnet.files import write_atomically
from xpnet.timing.machine import facts

from .peers.picture import draw_ratios

Work = tuple[tuple[int, ...], int, int]  # sizes, samples, batch
Train = Callable[[int], Any]  # of so many epochs
Clock = Callable[[], float]  # in seconds

WORKS: list[Work] = [
    ((784, 15, 10), 50, 50),
    ((2, 9, 6, 1), 750, 32),
    ((4, 100, 3), 150, 32),
    ((13, 100, 3), 142, 142),
    ((64, 100, 10), 1437, 200),
    ((20, 64, 64, 1), 10000, 256),
    ((784, 100, 200, 10), 4500, 32),
]
LR = 0.01
CLOCKS: dict[str, Clock] = {"wall": time.perf_counter, "cpu": time.process_time}
SHORT = 4  # epochs of a short training
LARGE = 1024  # rows and columns of a large product
RATE = "products a second"  # beside the systems: FLOPs of a large product a second, by round


def drawn(n: int, seed: int) -> list[Work]:
    """Return n works whose sizes, samples and batches are drawn."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(n):
        hidden = [int(2 ** rng.uniform(2, 8)) for _ in range(rng.integers(1, 4))]
        sizes = (int(2 ** rng.uniform(1, 8)), *hidden, int(rng.choice([1, 3, 10])))
        samples = int(100 * 200 ** rng.random())
        found.append((sizes, samples, int(min(samples, rng.choice([16, 32, 64, 128, 200])))))
    return found


def data_of(work: Work) -> tuple[np.ndarray, np.ndarray]:
    """Return X (n, n_inputs) in float32, and labels (n,), or targets (n, 1) of one output."""
    sizes, n, _ = work
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, sizes[0]), dtype=np.float32)
    return X, (rng.standard_normal((n, 1), dtype=np.float32) if sizes[-1] == 1 else rng.integers(0, sizes[-1], n))


def product_flops(work: Work) -> float:
    """Return the FLOPs of the products of an epoch, by the recorded Program of a step."""
    sizes, n, batch = work
    loss = "squared_error" if sizes[-1] == 1 else "softmax_cross_entropy"
    network = xpnet.Network(list(sizes), activation="relu", loss=loss, device="cpu")
    calls = network.training_program(batch, xpnet.SGD(lr=LR), False).calls
    return sum(call.flops for call in calls if call.word == "matmul") * n / batch


def product_rate(clock: Clock) -> float:
    """Return the FLOPs a second of a large product in float32, the best of three."""
    a = np.random.default_rng(0).random((LARGE, LARGE), np.float32)
    out = np.empty_like(a)
    return 2.0 * LARGE**3 / min(_timed(clock, lambda n: a.dot(a, out), 1) for _ in range(3))


def ours(engine: str) -> Callable[[Work], Train]:
    """Return what makes a training by `xpnet.train`."""

    def make(work: Work) -> Train:
        sizes, _, batch = work
        X, y = data_of(work)
        is_number = sizes[-1] == 1
        dataset = xpnet.Dataset(X.T, y.T) if is_number else xpnet.Dataset.from_labels(X.T, y, sizes[-1])
        loss = "squared_error" if is_number else "softmax_cross_entropy"

        def train(n_epochs: int) -> Any:
            network = xpnet.Network(list(sizes), activation="relu", loss=loss, device="cpu")
            options: dict[str, Any] = {"epochs": n_epochs, "batch_size": batch, "engine": engine, "progress": False}
            return xpnet.train(network, dataset, xpnet.SGD(lr=LR), **options)

        return train

    return make


def sklearn(work: Work) -> Train:
    """Return a training by scikit-learn's MLP, with plain SGD."""
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    sizes, _, batch = work
    X, y = data_of(work)
    kind = MLPRegressor if sizes[-1] == 1 else MLPClassifier

    def train(n_epochs: int) -> Any:
        options: dict[str, Any] = {
            "solver": "sgd",
            "momentum": 0.0,
            "alpha": 0.0,
            "tol": 0.0,
            "n_iter_no_change": 10**9,
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model = kind(
                hidden_layer_sizes=sizes[1:-1], batch_size=batch, learning_rate_init=LR, max_iter=n_epochs, **options
            )
            return model.fit(X, y.ravel()).loss_curve_

    return train


def torch(work: Work) -> Train:
    """Return a training by PyTorch, eager, on tensors that are gathered by a shuffled order."""
    import torch

    sizes, n, batch = work
    X, y = map(torch.from_numpy, data_of(work))
    loss_of = torch.nn.functional.mse_loss if sizes[-1] == 1 else torch.nn.functional.cross_entropy

    def train(n_epochs: int) -> Any:
        layers: list[Any] = []
        for n_in, n_out in pairwise(sizes):
            layers += [torch.nn.Linear(n_in, n_out), torch.nn.ReLU()]
        model = torch.nn.Sequential(*layers[:-1])
        optimizer, losses = torch.optim.SGD(model.parameters(), lr=LR), []
        for _ in range(n_epochs):
            total = torch.zeros(())
            for samples in torch.randperm(n).split(batch):
                optimizer.zero_grad()
                loss = loss_of(model(X[samples]), y[samples])
                loss.backward()
                optimizer.step()
                total += loss.detach() * len(samples)
            losses.append(float(total) / n)
        return losses

    return train


def jax(many: bool) -> Callable[[Work], Train]:
    """Return what makes a training by JAX: a jitted scan over the steps of an epoch, or with `many` over all epochs."""

    def make(work: Work) -> Train:
        import jax
        import jax.numpy as jnp

        sizes, n, batch = work
        X, y = map(jnp.asarray, data_of(work))
        n_full = n // batch * batch

        def loss(layers: Any, x: Any, t: Any) -> Any:
            for i, (W, b) in enumerate(layers):
                x = x @ W + b
                x = x if i == len(layers) - 1 else jax.nn.relu(x)
            if sizes[-1] == 1:
                return 0.5 * jnp.mean(jnp.sum((x - t) ** 2, axis=1))
            return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(x), t[:, None], axis=1))

        def step(layers: Any, samples: Any) -> Any:
            value, slopes = jax.value_and_grad(loss)(layers, X[samples], y[samples])
            return jax.tree.map(lambda parameter, slope: parameter - LR * slope, layers, slopes), value * len(samples)

        def epoch(layers: Any, order: Any) -> Any:
            layers, values = jax.lax.scan(step, layers, order[:n_full].reshape(-1, batch))
            total = jnp.sum(values)
            if n_full < n:
                layers, value = step(layers, order[n_full:])
                total += value
            return layers, total / n

        one, all_of_them = (
            jax.jit(epoch, donate_argnums=0),
            jax.jit(lambda layers, orders: jax.lax.scan(epoch, layers, orders)),
        )

        def train(n_epochs: int) -> Any:
            rng = np.random.default_rng(0)
            layers = [
                (jnp.asarray(rng.standard_normal((a, b)) / math.sqrt(a), jnp.float32), jnp.zeros(b, jnp.float32))
                for a, b in pairwise(sizes)
            ]
            if many:
                orders = np.stack([rng.permutation(n) for _ in range(n_epochs)]).astype(np.int32)
                return np.asarray(all_of_them(layers, orders)[1])
            losses = []
            for _ in range(n_epochs):
                layers, value = one(layers, rng.permutation(n).astype(np.int32))
                losses.append(float(value))
            return losses

        return train

    return make


SYSTEMS: dict[str, Callable[[Work], Train]] = {
    "compiled": ours("compiled"),
    "replay": ours("replay"),
    "auto": ours("auto"),
    "jax an epoch": jax(False),
    "jax all epochs": jax(True),
    "scikit-learn": sklearn,
    "torch": torch,
}
OWN = ("compiled", "replay", "auto")
DRAWN = {
    "torch": "PyTorch",
    "scikit-learn": "scikit-learn",
    "jax an epoch": "JAX, an epoch a call",
    "jax all epochs": "JAX, all in one call",
}


def measure(work: Work, names: list[str], rounds: int, seconds: float, clock: Clock) -> dict[str, list[float]]:
    """Return the microseconds of an epoch, a number a round, by system, and RATE; the systems take turns."""
    trains: dict[str, tuple[Train, int]] = {}
    for name in names:
        try:
            train = SYSTEMS[name](work)
        except ImportError:
            continue
        train(SHORT)  # compiles
        once = max(_timed(clock, train, SHORT) / SHORT, 1e-6)
        n = min(SHORT + math.ceil(seconds / once), 20000)
        train(n)
        n = min(SHORT + math.ceil(seconds / max(_timed(clock, train, n) / n, 1e-6)), 20000)
        train(n)  # of this length, which some compile anew
        trains[name] = train, n
    found: dict[str, list[float]] = {name: [] for name in trains} | {RATE: []}
    for _ in range(rounds):
        found[RATE].append(product_rate(clock))
        for name, (train, n) in trains.items():
            found[name].append(1e6 * (_timed(clock, train, n) - _timed(clock, train, SHORT)) / (n - SHORT))
    return found


def _timed(clock: Clock, train: Train, n_epochs: int) -> float:
    began = clock()
    train(n_epochs)
    return clock() - began


def table(results: dict[str, dict[str, list[float]]], flops: dict[str, float]) -> str:
    """Return the medians in Markdown with their quartiles, the best peer's by the best of ours, and the products' part.

    flops: of the products of an epoch, by work.
    """
    names = list(dict.fromkeys(name for each in results.values() for name in each if name != RATE))
    more = ["best peer / best of ours", "products at the rate of a large one"]
    rows = [["work (samples, batch)", *names, *more], ["---", *["---:"] * (len(names) + len(more))]]
    for called, each in results.items():
        cells = []
        for name in names:
            low, middle, high = np.percentile(each[name], [25, 50, 75]) if name in each else [math.nan] * 3
            cells.append(f"{middle:,.0f} ({low:,.0f} to {high:,.0f})")
        medians = {name: float(np.median(each[name])) for name in names if name in each}
        best, *peers = (
            min((name for name in medians if (name in OWN) == own), key=lambda name: medians[name])
            for own in (True, False)
            if any((name in OWN) == own for name in medians)
        )
        ratios = np.divide(each[peers[0]], each[best]) if peers else np.array([math.nan])
        low, middle, high = np.percentile(ratios, [25, 50, 75])
        share = np.median([1e6 * flops[called] / rate / t for rate, t in zip(each[RATE], each[best], strict=True)])
        rows.append([called, *cells, f"{middle:.2f} ({low:.2f} to {high:.2f})", f"{share:.0%}"])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def draw(found: dict[str, Any], path: Path) -> None:
    """Write the picture of what `--out` wrote to a PNG or SVG file."""
    works = []
    for called, times in found["microseconds"].items():
        sizes, rest = called.rstrip(")").split(" (")
        n_samples, batch = rest.split(", ")
        works.append((f"{sizes}\n{int(n_samples):,} samples, batch {batch}", times))
    draw_ratios(works, DRAWN, "compiled", "an epoch of training", f"{found['machine']['cpu']}, one thread each", path)


def main() -> int:
    """Measure what the command line says and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.epochs")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=0.15, help="of a training, about")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: processor time, where others work too")
    parser.add_argument("--random", type=int, default=0, help="works to draw beside those of the list")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn")
    parser.add_argument("--systems", default=",".join(SYSTEMS), help="separated by commas")
    parser.add_argument("--out", type=Path, help="write all that was measured to this JSON file")
    parser.add_argument("--table", type=Path, metavar="FILE.json", help="print what --out wrote, without measuring")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="with --table: draw it too")
    options = parser.parse_args()
    if options.table is not None:
        found = json.loads(options.table.read_text(encoding="utf-8"))
        print(table(found["microseconds"], found["product_flops"]))
        if options.plot is not None:
            draw(found, options.plot)
        return 0
    names = options.systems.split(",")
    results, flops = {}, {}
    for work in [*WORKS, *drawn(options.random, options.seed)]:
        called = f"{'-'.join(map(str, work[0]))} ({work[1]}, {work[2]})"
        results[called] = measure(work, names, options.rounds, options.seconds, CLOCKS[options.clock])
        flops[called] = product_flops(work)
        print(
            called,
            {name: round(float(np.median(values)), 1) for name, values in results[called].items()},
            file=sys.stderr,
        )
        if options.out is not None:
            found = {"machine": facts(xpnet.__version__), "product_flops": flops, "microseconds": results}
            write_atomically(options.out, (json.dumps(found, indent=1) + "\n").encode())
    print(table(results, flops))
    return 0


if __name__ == "__main__":
    sys.exit(main())
