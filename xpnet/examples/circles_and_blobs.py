"""Two classes in the plane: what needs a hidden layer, and what does not.

A network without a hidden layer draws one straight line. A line parts two blobs, but not a disc from the ring around
it: there the AUC, the chance that a point of class 1 scores above one of class 0, stays that of a guess, 0.5. The same
data with two hidden layers reach the target after some epochs, and training stops there.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np

import xpnet
from xpnet.examples.expected import compare

TARGET = 0.99


def blobs(n: int, rng: np.random.Generator) -> xpnet.Dataset:
    """Return n points (2, n) around (3, 0), of label 0, and (-3, 0), of label 1."""
    labels = np.arange(n) % 2
    centres = np.array([3.0 - 6.0 * labels, 0.0 * labels])
    return xpnet.Dataset(centres + 1.5 * rng.standard_normal((2, n)), labels[np.newaxis])


def circles(n: int, rng: np.random.Generator) -> xpnet.Dataset:
    """Return n points (2, n) near circles of radius 1 (label 0) and 0.1 (label 1), with labels (1, n)."""
    labels = np.arange(n) % 2
    angle, radius = rng.uniform(0.0, 2.0 * np.pi, n), np.where(labels, 0.1, 1.0)
    X = radius * np.array([np.cos(angle), np.sin(angle)]) + 0.1 * rng.standard_normal((2, n))
    return xpnet.Dataset(X, labels[np.newaxis])


def learn(name: str, data: xpnet.Dataset, sizes: list[int], n_epochs: int) -> float:
    """Train a network of these sizes until its AUC on held-out points reaches the target; return its last AUC."""
    train, validation = data.split(0.25, seed=0)
    network = xpnet.Network(sizes, activation="tanh", loss="sigmoid_cross_entropy")
    history = xpnet.train(
        network,
        train,
        xpnet.SGD(lr=0.03),
        epochs=n_epochs,
        batch_size=10,
        validation=validation,
        metrics=["roc_auc"],
        callbacks=[xpnet.StopAtScore(TARGET, monitor="val_roc_auc")],
    )
    end, auc = history[-1], float(history[-1]["val_roc_auc"])
    print(f"{name}, {'-'.join(map(str, sizes))}: {end['epoch']} epochs, {end.get('stopped', 'target not reached')}")
    return auc


def main(argv: Sequence[str] | None = None) -> float:
    """Run the example and return the AUC that the hidden layers reach on the circles."""
    parser = argparse.ArgumentParser(prog="python -m xpnet.examples.circles_and_blobs")
    parser.add_argument("--short", action="store_true", help="at most 50 epochs instead of 500")
    n_epochs = 50 if parser.parse_args(argv).short else 500

    rng = np.random.default_rng(0)
    compare("AUC", learn("blobs", blobs(1000, rng), [2, 1], n_epochs), TARGET, 1.0)
    rings = circles(1000, rng)
    compare("AUC", learn("circles", rings, [2, 1], n_epochs), 0.35, 0.65)  # 250 points: a guess is 0.5 +- 0.04
    return compare("AUC", learn("circles", rings, [2, 9, 6, 1], n_epochs), TARGET, 1.0)


if __name__ == "__main__":
    main()
