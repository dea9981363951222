"""Train a network: read this page first.

`train` runs epochs and returns their records; `epochs` is the generator under it; `step` is one update by hand;
`evaluate` measures. An epoch draws an order of the samples and hands it, chunk by chunk, to an engine that runs the
recorded Program: gather a batch, forward, loss, backward, update.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np

from xpnet.callbacks import Callback, History, Record
from xpnet.data import Dataset
from xpnet.evaluation import Evaluator, check_fit, measure
from xpnet.executors.replay import Replay
from xpnet.feed import feed_of
from xpnet.network import CHUNK, Network, feed_samples
from xpnet.normalization import MINIMUM_BATCH, BatchNorm, check_batch
from xpnet.optimizers import Optimizer
from xpnet.options import check_whole
from xpnet.parameters import random_generator

CHUNK_SECONDS = 0.2  # between two looks at the clock, the losses and Ctrl-C


class TrainingDiverged(ArithmeticError):
    """The loss became NaN or infinite at the step named; the network holds the weights of the epoch before."""


def train(
    network: Network,
    dataset: Dataset,
    optimizer: Optimizer,
    *,
    epochs: int,
    batch_size: int | None = None,
    shuffle: bool = True,
    seed: int = 0,
    validation: Dataset | None = None,
    callbacks: Sequence[Callback] = (),
    accumulate: int = 1,
) -> History:
    """Train the network in place and return a record an epoch, the untrained network's first.

    epochs: passes over the data.  batch_size: samples a step, None for all; the last step of an epoch may be shorter.
    shuffle, seed: a new order of the samples each epoch (of a mapped file not a full shuffle) and the masks of
    dropout, the same for the same seed.
    validation: a Dataset to evaluate after each epoch.  callbacks: told of progress and records.
    accumulate: steps to an update, which goes by the mean over all their samples: the update of a batch so many times
    as large, in the memory of a small one. The update at the end of an epoch may have fewer.
    The optimizer keeps its state: training the same network again goes on where it stopped.
    A record holds epoch, train_loss (mean over the epoch's steps; of the untrained network: over the data), val_loss
    and val_accuracy (where they apply), steps, seconds (of the steps alone), bytes_uploaded (to a GPU).
    Raises ValueError or TypeError before the first step if the arguments do not fit each other, TrainingDiverged if
    the loss stops being finite. After Ctrl-C the network holds the weights it had reached.
    Warns once if a network with a BatchNorm would end an epoch with a step of one sample: that sample is left out.
    """
    records = _checked_epochs(network, dataset, optimizer, epochs, batch_size, shuffle, seed, validation, callbacks,
                              accumulate)  # fmt: skip
    return History(records)


def epochs(
    network: Network,
    dataset: Dataset,
    optimizer: Optimizer,
    *,
    epochs: int,
    batch_size: int | None = None,
    shuffle: bool = True,
    seed: int = 0,
    validation: Dataset | None = None,
    callbacks: Sequence[Callback] = (),
    accumulate: int = 1,
) -> Iterator[Record]:
    """The generator under `train`: the same arguments, checked at once; yields each record when its epoch is over."""
    return _checked_epochs(network, dataset, optimizer, epochs, batch_size, shuffle, seed, validation, callbacks,
                           accumulate)  # fmt: skip


def step(network: Network, optimizer: Optimizer, X: Any, Y: Any, weights: Any = None, *, seed: int = 0) -> float:
    """Update the network once on the batch X (n_inputs, batch), Y (n_outputs, batch) and return the loss before it.

    Arrays of the network's backend and dtype; weights (batch,) or None.  The loss is the batch's (weighted) mean.
    seed: of dropout's masks, which go on from call to call.
    """
    _check_optimizer(optimizer)
    batch = network.check_samples(X, Y, weights)
    weighted = weights is not None
    with network.engine(
        ("step", optimizer, weighted, batch, seed), lambda: network.training_program(batch, optimizer, weighted, seed)
    ) as engine:
        optimizer.attach(network, engine)
        if network.step_keys is not None:  # of another engine, if the last batch had another size
            engine.keys[...] = network.step_keys
        feed_samples(engine, batch, X, Y, weights)
        engine.set_slots(optimizer.slot_rows(1)[0])
        engine.execute(batch)
        optimizer.advance(1)
        results = engine.read_results()
        if engine.program.n_keys:
            network.step_keys = engine.keys.copy()
    return results["loss"] / results.get("weight", batch)


def evaluate(network: Network, dataset: Dataset, metrics: Iterable[str] = ()) -> dict[str, Any]:
    """Return {"loss", "n"} over a data set, {"accuracy", "correct"} where its targets are classes, and the metrics.

    loss and accuracy are means, weighted where the data set has weights; correct and n are counts.
    metrics: names of functions in `xpnet.metrics`, such as ("roc_auc", "f1").  Raises ValueError for an unknown one.
    """
    check_fit(network, dataset, "dataset")
    more = measure(network, dataset, metrics)
    measured = Evaluator(network, dataset, feed_of(dataset, network.backend, CHUNK)).evaluate()
    return measured | {name: value for name, value in more.items() if name not in measured}


def _checked_epochs(
    network: Network, dataset: Dataset, optimizer: Optimizer, n_epochs: int, batch_size: int | None, shuffle: bool,
    seed: int, validation: Dataset | None, callbacks: Sequence[Callback], accumulate: int,
) -> Iterator[Record]:  # fmt: skip
    """Refuse what cannot work now, not at the first `next`."""
    check_fit(network, dataset, "dataset")
    if validation is not None:
        check_fit(network, validation, "validation")
    _check_optimizer(optimizer)
    if not isinstance(callbacks, Iterable):
        raise TypeError(f"callbacks is {callbacks!r}; needed is a list of them: callbacks=[...]")
    callbacks = tuple(callbacks)  # a generator would be used up by the check below
    n_epochs = check_whole("epochs", n_epochs, at_least=0)
    batch = dataset.n_samples
    if batch_size is not None:
        batch = min(check_whole("batch_size", batch_size, at_least=1), batch)
    elif dataset.is_mapped:
        raise ValueError(f"batch_size is None, which takes all {batch} samples of a mapped file in one step; "
                         "give a number, such as batch_size=128")  # fmt: skip
    accumulate = check_whole("accumulate", accumulate, at_least=1)
    for callback in callbacks:
        if not isinstance(callback, Callback):
            raise TypeError(f"a callback is {callback!r}; needed is an instance of xpnet.Callback")
    n_used = _samples_used(network, dataset.n_samples, batch)
    rng = random_generator(seed, 1) if shuffle else None
    return _epochs(network, dataset, optimizer, n_epochs, batch, n_used, rng, seed, validation, callbacks,
                   accumulate)  # fmt: skip


def _samples_used(network: Network, n_samples: int, batch: int) -> int:
    """How many samples an epoch takes: all, unless the last step's one sample is too few for a BatchNorm."""
    check_batch(network.layers, batch)
    short = n_samples % batch
    if not 0 < short < MINIMUM_BATCH or not any(isinstance(layer, BatchNorm) for layer in network.layers):
        return n_samples
    warnings.warn(f"the last step of an epoch would have {short} sample and BatchNorm needs {MINIMUM_BATCH}: each "
                  f"epoch leaves out {short} of the {n_samples} samples, the last one in its order; another batch_size "
                  "takes them all", stacklevel=4)  # fmt: skip
    return n_samples - short


def _epochs(
    network: Network, dataset: Dataset, optimizer: Optimizer, n_epochs: int, batch: int, n_used: int,
    rng: np.random.Generator | None, seed: int, validation: Dataset | None, callbacks: Sequence[Callback],
    accumulate: int,
) -> Iterator[Record]:  # fmt: skip
    backend, owned = network.backend, network.owned
    feed = feed_of(dataset, backend, batch * accumulate)
    program = network.training_program(batch, optimizer, "weights" in feed.sources, seed, accumulate)
    engine = Replay(program, backend, owned, feed.sources)
    untrained = Evaluator(network, dataset, feed)
    senders: list[Any] = [feed, engine, untrained]
    judge = None
    if validation is not None:
        validation_feed = feed_of(validation, backend, CHUNK)
        judge = Evaluator(network, validation, validation_feed)
        senders += [validation_feed, judge]
    n_steps, leaves_out = -(-n_used // batch), n_used < dataset.n_samples
    with ExitStack() as ending:
        ending.callback(optimizer.detach)
        for callback in callbacks:  # each is told of the end, also if another one fails at it
            ending.callback(callback.on_train_end, network)
        for callback in callbacks:
            callback.on_train_begin(network, n_epochs, n_steps)
        first = {"epoch": 0, "train_loss": untrained.evaluate()["loss"], **_judged(judge), "steps": 0, "seconds": 0.0}
        yield _report({**first, "bytes_uploaded": _bytes(senders)}, network, callbacks)
        last_good = owned.copy()
        for epoch in range(1, n_epochs + 1):
            before, started = _bytes(senders), time.perf_counter()
            last_good[...], last_state = owned, optimizer.snapshot()
            orders = (order[: len(order) - len(order) % batch * leaves_out] for order in feed.parts(rng))
            try:
                train_loss = _run_epoch(engine, network, optimizer, orders, epoch, callbacks)
                _check_weights(owned, epoch, optimizer)
            except BaseException as error:  # Ctrl-C may come while the loss runs away
                if isinstance(error, TrainingDiverged) or not _is_finite(owned):
                    owned[...] = last_good
                    optimizer.restore(last_state)
                raise
            del last_state  # before the next one is made
            seconds = time.perf_counter() - started
            record = {"epoch": epoch, "train_loss": train_loss, **_judged(judge), "steps": n_steps, "seconds": seconds}
            yield _report({**record, "bytes_uploaded": _bytes(senders) - before}, network, callbacks)


def _run_epoch(
    engine: Replay, network: Network, optimizer: Optimizer, orders: Iterable[np.ndarray], epoch: int,
    callbacks: Sequence[Callback],
) -> float:  # fmt: skip
    """Run one epoch in chunks of about CHUNK_SECONDS and return its mean loss, which weighs samples and not steps."""
    batch, accumulate = engine.program.capacity, engine.program.accumulate
    total, total_weight, done, size = 0.0, 0.0, 0, accumulate  # a chunk holds whole updates
    last_finite: float | None = None
    for order in orders:  # one, or one for every pool of blocks of a mapped file
        position = 0
        while position < len(order):
            started = time.perf_counter()
            part = order[position : position + size * batch]
            position, count = position + len(part), -(-len(part) // batch)
            n_updates = -(-count // accumulate)
            optimizer.attach(network, engine)
            rows_out = engine.run(part, optimizer.slot_rows(n_updates).repeat(min(accumulate, count), axis=0)[:count])
            optimizer.advance(n_updates)
            results = dict(zip(engine.program.results, rows_out.T, strict=True))
            n_samples = np.full(count, float(batch))
            n_samples[-1] = len(part) - (count - 1) * batch
            weights = results.get("weight", n_samples)
            last_finite = _check_finite(results["loss"] / weights, done, epoch, last_finite, optimizer)
            total, total_weight, done = total + results["loss"].sum(), total_weight + weights.sum(), done + count
            for callback in callbacks:
                callback.on_chunk_end(epoch, done, float(results["loss"].sum() / weights.sum()))
            # The first chunk also binds the Program, so its time says little: grow by 8 at most.
            elapsed = max(time.perf_counter() - started, 1e-9)
            size = accumulate * max(1, min(8 * size, int(size * CHUNK_SECONDS / elapsed)) // accumulate)
    return float(total / total_weight)


def _check_finite(
    losses: np.ndarray, done: int, epoch: int, last_finite: float | None, optimizer: Optimizer
) -> float | None:
    """Return the last finite loss, or raise TrainingDiverged naming the first step whose loss is not finite."""
    bad = np.flatnonzero(~np.isfinite(losses))
    if len(bad) == 0:
        return float(losses[-1])
    first = int(bad[0])
    last = float(losses[first - 1]) if first else last_finite
    before = "none in this epoch" if last is None else f"{last:.6g}"
    raise TrainingDiverged(
        f"the loss is {losses[first]} at step {done + first + 1} of epoch {epoch} (last finite: {before}); "
        + _cure(optimizer)
    )


def _check_weights(owned: Any, epoch: int, optimizer: Optimizer) -> None:
    """The last update of an epoch has no loss after it that would tell."""
    if not _is_finite(owned):
        raise TrainingDiverged(f"the weights are not finite after the last step of epoch {epoch}; {_cure(optimizer)}")


def _is_finite(owned: Any) -> bool:
    with np.errstate(all="ignore"):
        return bool(np.isfinite(float(owned.sum())))


def _cure(optimizer: Optimizer) -> str:
    return f"lower the learning rate (it is {optimizer.lr:g}) or scale the inputs with xpnet.standardize"


def _check_optimizer(optimizer: Any) -> None:
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"optimizer is {optimizer!r}; needed is one such as xpnet.SGD(lr=0.1)")


def _judged(judge: Evaluator | None) -> Record:
    if judge is None:
        return {}
    measured = judge.evaluate()
    return {f"val_{name}": measured[name] for name in ("loss", "accuracy") if name in measured}


def _report(record: Record, network: Network, callbacks: Sequence[Callback]) -> Record:
    for callback in callbacks:
        callback.on_epoch_end(record, network)
    return record


def _bytes(senders: Iterable[Any]) -> int:
    return sum(sender.bytes_uploaded for sender in senders)
