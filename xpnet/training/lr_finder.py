"""Find a learning rate: raise it from step to step over many powers of ten and watch the loss."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from xpnet.checks import check_number, check_whole
from xpnet.data.dataset import Dataset
from xpnet.data.feed import Feed, feed_of
from xpnet.engines.choice import blas_threads, make_engine
from xpnet.engines.engine import Engine
from xpnet.network.network import Network
from xpnet.network.parameters import random_generator
from xpnet.training.evaluation import check_compatible
from xpnet.training.optimizers import Optimizer
from xpnet.training.options import check_optimizer
from xpnet.training.rate_trials import rate_trials

__all__ = ["RateSearch", "find_lr"]

CHUNK_STEPS = 10  # between two looks at the loss
ALIKE = 0.05  # of the lowest validation loss: rates whose losses differ by no more are alike
BELOW = 5.0  # the rate of the lowest loss, by the suggestion: of 59 tables, 39 then are within 5 times the best rate


@dataclass(frozen=True)
class RateSearch:
    """What `find_lr` saw.

    lrs, losses: the rate and the smoothed loss of each step made.
    suggestion: a fifth of the rate at which the loss was lowest, None if too few steps were made before it ran away, or
    if it never fell by more than its noise. With a validation set, the best of the rates tried from there on.
    trials: with a validation set, its lowest loss in short trainings at each of these rates.
    """

    lrs: np.ndarray
    losses: np.ndarray
    suggestion: float | None
    trials: Mapping[float, float] = field(default_factory=dict)

    @property
    def alike(self) -> tuple[float, float] | None:
        """The lowest and the highest rate of the trials whose losses are within 5 % of the lowest; None without any.

        Where they are 10 times apart, no rate stands out.
        """
        lowest = min(self.trials.values(), default=math.inf)
        rates = [rate for rate, loss in self.trials.items() if loss <= lowest + ALIKE * abs(lowest)]
        return (min(rates), max(rates)) if math.isfinite(lowest) else None


def find_lr(
    network: Network,
    dataset: Dataset,
    optimizer: Optimizer,
    *,
    lr_start: float = 1e-7,
    lr_end: float = 10.0,
    n_steps: int = 100,
    batch_size: int = 32,
    smoothing: float = 0.98,
    seed: int = 0,
    validation: Dataset | None = None,
) -> RateSearch:
    """Train for up to `n_steps` with a rate that grows exponentially from lr_start to lr_end; return the losses seen.

    The steps are replayed: they are too few to repay compiling.
    The optimizer starts fresh; its rate, its state and the network's weights are restored afterwards.
    validation: a Dataset that judges short trainings (twice 600 steps) at the rate found and at those beside it, a root
        of ten apart, for as long as its loss falls; the best is suggested.
    smoothing: decay of the average of the losses, corrected for its start.  It stops once the smoothed loss is above
    4 times the lowest, or not finite.
    Source: Smith (2017), section 3.3, with fastai's limits and a rule like its "minimum": a fifth, there a tenth, of
    the rate in the middle of that tenth of the steps whose mean loss is lowest. It is a start, not an optimum.
    Raises ValueError or TypeError if the arguments do not fit each other.
    """
    check_compatible(network, dataset, "dataset")
    check_optimizer(optimizer)
    if validation is not None:
        check_compatible(network, validation, "validation")
    lr_start = check_number("lr_start", lr_start, above=0, example="find_lr(..., lr_start=1e-7)")
    lr_end = check_number("lr_end", lr_end, above=lr_start, example="find_lr(..., lr_start=1e-7, lr_end=10)")
    n_steps = check_whole("n_steps", n_steps, at_least=10)
    batch = min(check_whole("batch_size", batch_size, at_least=1), dataset.n_samples)
    smoothing = check_number("smoothing", smoothing, at_least=0, below=1, example="find_lr(..., smoothing=0.98)")
    lrs = lr_start * (lr_end / lr_start) ** (np.arange(n_steps) / (n_steps - 1))
    feed, owned = feed_of(dataset, network.backend, batch), network.owned
    program = network.training_program(batch, optimizer, "weights" in feed.sources, seed)
    by_blas = blas_threads(program, network.backend)
    engine = make_engine(program, network.backend, owned, feed.sources, blas_threads=by_blas)  # with a fresh state
    kept = owned.copy()
    try:
        raw, losses = _ramp(engine, optimizer, _chunks(feed, batch, random_generator(seed, 1)), lrs, smoothing)
    finally:
        owned[...] = kept
    lrs = lrs[: len(losses)]
    suggestion = _suggested(lrs, raw, n_steps // 10)
    if validation is None or suggestion is None:
        return RateSearch(lrs, losses, suggestion)
    trials = rate_trials(network, dataset, optimizer, validation, suggestion, batch, seed)
    best = min(trials, key=trials.__getitem__)
    return RateSearch(lrs, losses, best if math.isfinite(trials[best]) else None, trials)


def _chunks(feed: Feed, batch: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield orders of a few full batches each, epoch after epoch without end."""
    while True:
        for order in feed.parts(rng):
            full = order[: len(order) // batch * batch]
            for start in range(0, len(full), CHUNK_STEPS * batch):
                yield full[start : start + CHUNK_STEPS * batch]


def _ramp(
    engine: Engine, optimizer: Optimizer, chunks: Iterator[np.ndarray], lrs: np.ndarray, smoothing: float
) -> tuple[np.ndarray, np.ndarray]:
    """Run steps until the smoothed loss diverges; return the losses and the smoothed losses up to there."""
    batch, raw, losses = engine.program.capacity, list[float](), list[float]()
    mean, weight, lowest = 0.0, 0.0, np.inf
    while len(losses) < len(lrs):
        order = next(chunks)[: (len(lrs) - len(losses)) * batch]
        rows = engine.run(order, optimizer.rows_of(lrs[len(losses) :][: len(order) // batch]))
        results: dict[str, Any] = dict(zip(engine.program.results, rows.T, strict=True))
        for loss in results["loss"] / results.get("weight", batch):
            mean, weight = smoothing * mean + (1.0 - smoothing) * loss, smoothing * weight + (1.0 - smoothing)
            smoothed = mean / weight
            if not np.isfinite(smoothed):
                return np.array(raw), np.array(losses)
            raw.append(loss)
            losses.append(smoothed)
            lowest = min(lowest, smoothed)
            if smoothed > 4.0 * lowest:
                return np.array(raw), np.array(losses)
    return np.array(raw), np.array(losses)


def _suggested(lrs: np.ndarray, losses: np.ndarray, n: int) -> float | None:
    """Return a fifth of the rate in the middle of the n steps whose mean loss is lowest; None for mere scatter.

    The mean must be below that of the first n losses by 4 standard errors of the difference: where losses only scatter,
    the lowest is an accident of the batches.
    """
    n = max(n, 3)
    if len(losses) < 2 * n:
        return None
    means = np.convolve(losses, np.full(n, 1.0 / n), "valid")
    deviation = np.median(abs(np.diff(losses))) / 0.954  # of normal losses; neither trend nor runaway counts for much
    if not means[0] - means.min() > max(4.0 * deviation * np.sqrt(2.0 / n), 1e-6 * abs(means[0])):
        return None
    lowest = int(means.argmin())
    return float(np.sqrt(lrs[lowest] * lrs[lowest + n - 1]) / BELOW)
