"""Measure a network on a data set: does the set fit, and what are its loss and accuracy.

`xpnet.training` uses this between epochs, and `xpnet.evaluate` once.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from xpnet.data import Dataset
from xpnet.executors.replay import Replay
from xpnet.feed import Feed
from xpnet.network import CHUNK, Network
from xpnet.steps import evaluation_program


class Evaluator:
    """Evaluates one data set, again and again."""

    def __init__(self, network: Network, dataset: Dataset, feed: Feed) -> None:
        with_accuracy = dataset.is_classification
        batch = min(CHUNK, dataset.n_samples)
        program = evaluation_program(network.architecture, batch, "weights" in feed.sources, with_accuracy)
        self._engine = Replay(program, network.backend, network.owned, feed.sources)
        self._feed = feed

    @property
    def bytes_uploaded(self) -> int:
        """Bytes that evaluations have sent to a GPU so far."""
        return self._engine.bytes_uploaded

    def evaluate(self) -> dict[str, Any]:
        """Return what `xpnet.evaluate` returns, for the network's weights as they are now."""
        n_samples, program = self._feed.n_samples, self._engine.program
        totals = np.zeros(len(program.results))
        for order in self._feed.parts(None):
            totals += self._engine.run(order, np.empty((-(-len(order) // program.capacity), 0))).sum(axis=0)
        sums = dict(zip(program.results, totals.tolist(), strict=True))
        total_weight = sums.get("weight", float(n_samples))
        measured: dict[str, Any] = {"loss": sums["loss"] / total_weight, "n": n_samples}
        if "correct" in sums:
            measured["accuracy"] = sums.get("correct_weight", sums["correct"]) / total_weight
            measured["correct"] = round(sums["correct"])
        return measured


def check_fit(network: Network, dataset: Dataset, name: str) -> None:
    """Refuse a data set that this network and its loss cannot take."""
    if not isinstance(dataset, Dataset):
        raise TypeError(f"{name} is a {type(dataset).__name__}; needed is a Dataset: Dataset(X, Y) or "
                        "Dataset.from_labels(X, labels)")  # fmt: skip
    architecture = network.architecture
    for what, found, needed in (
        ("features", dataset.n_features, architecture.n_inputs),
        ("outputs", dataset.n_outputs, architecture.n_outputs),
    ):
        if found != needed:
            end = "first" if what == "features" else "last"
            raise ValueError(f"{name} has {found} {what}, the network expects {needed}; "
                             f"make a network whose {end} size is {found}")  # fmt: skip
    if architecture.loss == "squared_error":
        return
    Y = dataset.Y
    if Y.min() < 0.0 or Y.max() > 1.0:
        raise ValueError(f"{architecture.loss} needs targets from 0 to 1, {name} has {Y.min():g} to {Y.max():g}; "
                         "use Dataset.from_labels, or loss='squared_error'")  # fmt: skip
    if architecture.loss == "softmax_cross_entropy" and abs(Y.sum(axis=0) - 1.0).max() > 1e-3:
        raise ValueError(f"softmax_cross_entropy needs the targets of each sample to sum to 1, those of {name} do not; "
                         "use Dataset.from_labels, or loss='sigmoid_cross_entropy'")  # fmt: skip
