"""Networks made from lists of layer dicts: a classifier and a regression on the same ten rows.

Two things that are easy to get wrong are done by the library: the gradient of softmax and cross-entropy together is
P - Y, with the whole Jacobian of softmax and not its diagonal alone; and no logarithm of 0 is ever taken.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np

import xpnet
from xpnet.examples.expected import compare

ROWS = np.array(
    [
        [1, 1, 1, 0, 0],
        [1, 2, 1, 0, -1],
        [2, 1, 1, -1, 0],
        [2, 2, 2, 0, 0],
        [1, 2, 2, 0, -1],
        [0, 0, 0, 1, 1],
        [-1, 0, 0, 2, 1],
        [0, -1, 0, 1, 2],
        [-1, -1, 0, 2, 2],
        [0, -1, 0, 1, 1],
    ]
)
CLASSES = np.array([1, 1, 1, 1, 1, 0, 0, 0, 0, 0])
NUMBERS = np.array([[1, 2, 2, 4, 3, 0, 1, 1, 2, 0]])

HIDDEN = [{"type": "dense", "n_in": 5, "n_out": 5}, {"type": "activation", "name": "relu"}]


def fit(spec: dict[str, Any], data: xpnet.Dataset, n_steps: int) -> tuple[xpnet.Network, float]:
    """Take n_steps of gradient descent, each on all rows; return the network and its loss."""
    (data,) = xpnet.standardize(data)  # every feature: mean 0, standard deviation 1
    network = xpnet.Network.from_spec({"format": 1, **spec}, seed=0)
    history = xpnet.train(network, data, xpnet.SGD(lr=0.1), epochs=n_steps, validation=data)
    print(f"{spec['loss']}: {history[0]['val_loss']:.4f} before, {history[-1]['val_loss']:.4f} after {n_steps} steps")
    print(network.predict(network.backend.to_device(data.X)).round(2))
    return network, float(history[-1]["val_loss"])


def main(argv: Sequence[str] | None = None) -> float:
    """Run the example and return the classifier's loss."""
    parser = argparse.ArgumentParser(prog="python -m xpnet.examples.layer_list")
    parser.add_argument("--short", action="store_true", help="changes nothing: the example is short")
    parser.parse_args(argv)

    X = ROWS.T  # a row of the table is a column here
    regression = {"loss": "squared_error", "layers": [*HIDDEN, {"type": "dense", "n_in": 5, "n_out": 1}]}
    compare("squared error, halved", fit(regression, xpnet.Dataset(X, NUMBERS), 100)[1], 0.0, 0.1)

    classifier = {"loss": "softmax_cross_entropy", "layers": [*HIDDEN, {"type": "dense", "n_in": 5, "n_out": 2}]}
    network, loss = fit(classifier, xpnet.Dataset.from_labels(X, CLASSES), 100)
    print("the network as a spec:", network.to_spec())
    return compare("cross-entropy", loss, 0.0, 0.1)


if __name__ == "__main__":
    main()
