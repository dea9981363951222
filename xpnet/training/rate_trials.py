"""Short trainings at several learning rates: which one a validation set prefers, and whether any stands out."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import numpy as np

from xpnet.data.dataset import Dataset
from xpnet.engines.replay import Replay
from xpnet.network.network import Network
from xpnet.training.loop import TrainingDiverged, epochs
from xpnet.training.optimizers import Optimizer

FACTOR = math.sqrt(10.0)  # between two rates
STEPS = 600  # of a training
REPEATS = 2  # trainings a rate, with other seeds
MOST_RATES = 7
MOST_VALIDATED = 5000  # samples that a training is judged on
EPOCHS = 3  # of a training at least: it is judged after each


def rate_trials(
    network: Network,
    dataset: Dataset,
    optimizer: Optimizer,
    validation: Dataset,
    start: float,
    batch_size: int,
    seed: int,
) -> dict[float, float]:
    """Return the lowest validation loss of short trainings by rate, from `start` on towards lower losses.

    A rate is trained from the network's weights, REPEATS times for STEPS steps; the mean of their losses counts. The
    rates beside the best one so far follow, until it is between two that are worse.
    """
    dataset = _part(dataset, STEPS // EPOCHS * batch_size, seed)
    validation = _part(validation, MOST_VALIDATED, seed)
    n_epochs = max(EPOCHS, -(-STEPS // -(-dataset.n_samples // batch_size)))

    def loss_of(rate: float) -> float:
        return float(np.mean([trained(rate, seed + i) for i in range(REPEATS)]))

    def trained(rate: float, seed: int) -> float:
        own, rule = copy.deepcopy(network), copy.deepcopy(optimizer)
        rule.lr = rate
        try:
            _, *records = epochs(
                own,
                dataset,
                rule,
                epochs=n_epochs,
                batch_size=batch_size,
                seed=seed,
                validation=validation,
                engine=Replay.name,
            )
        except TrainingDiverged:
            return math.inf
        return min(record["val_loss"] for record in records)

    return _descended(loss_of, start)


def _descended(loss_of: Callable[[float], float], start: float) -> dict[float, float]:
    """Return the losses of rates, FACTOR apart, up to the first one that is lower than both beside it."""
    losses, best = dict[int, float](), 0
    while len(losses) < MOST_RATES:
        for place in (best, best - 1, best + 1):
            if place not in losses:
                losses[place] = loss_of(start * FACTOR**place)
        lowest = min((best, best - 1, best + 1), key=losses.__getitem__)
        if lowest == best:
            break
        best = lowest
    return {start * FACTOR**place: losses[place] for place in sorted(losses)}


def _part(dataset: Dataset, most: int, seed: int) -> Dataset:
    if dataset.n_samples <= most:
        return dataset
    return dataset.subset(np.sort(np.random.default_rng(seed).permutation(dataset.n_samples)[:most]))
