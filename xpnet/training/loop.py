"""Train a network: read this page first.

`train` runs epochs and returns their records; `epochs` is the generator under it; `step` is one update by hand;
`evaluate` measures. An epoch draws an order of the samples and hands it, chunk by chunk, to an engine that runs the
recorded Program: gather a batch, forward, loss, backward, update. That is in `xpnet.training.epoch`.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from xpnet.checks import check_whole
from xpnet.data.dataset import Dataset
from xpnet.engines.choice import choose_engine, go_on_with, told
from xpnet.network.network import Network, feed_samples
from xpnet.network.normalization import MINIMUM_BATCH, check_batch, left_out
from xpnet.program.calls import Program
from xpnet.training.callbacks import Callback
from xpnet.training.checkpoint import check_resume, load_checkpoint
from xpnet.training.epoch import Runner, Settings, TrainingDiverged, fit_of
from xpnet.training.evaluation import Evaluator, Judge, check_fit, check_metrics
from xpnet.training.optimizers import Optimizer
from xpnet.training.records import History, Moment, Record, is_last

__all__ = ["TrainingDiverged", "epochs", "evaluate", "step", "train"]


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
    metrics: Iterable[str] = (),
    engine: str = "auto",
    resume: str | os.PathLike[str] | None = None,
) -> History:
    """Train the network in place and return a record an epoch, the untrained network's first.

    epochs: passes over the data.  batch_size: samples a step, None for all; the last step of an epoch may be shorter.
    shuffle, seed: a new order of the samples each epoch (of a mapped file not a full shuffle) and the masks of
    dropout, the same for the same seed.
    validation: a Dataset to evaluate after each epoch.  callbacks: told of progress and records.
    accumulate: steps to an update, which goes by the mean over all their samples: the update of a batch so many times
    as large, in the memory of a small one. The update at the end of an epoch may have fewer.
    metrics: names of functions in `xpnet.training.metrics` to measure on the validation set, in records as val_roc_auc,
    ...; NaN if a prediction is not finite, which `EarlyStopping` takes for no better.
    engine: "replay" calls NumPy for each part of a step; "compiled" runs machine code made for this network (CPU, with
    the extra `jit`), whose sums and products round in other places. "auto" compiles where there are steps enough to
    repay it, by the epochs asked for and the network alone. With the same engine on as many threads the same seed gives
    the same bits.
    resume: a file that the callback `Checkpoint` wrote. The run goes on from there, to the weights and records that it
    would have had: pass the same data and arguments again, the lr that it began with too (a schedule is compared by its
    public attributes). epochs may be another number, down to the epoch that the file is within or after; engine="auto"
    takes the engine that the run had. Of a run that has ended, nothing is left to do.
    The optimizer keeps its state: training the same network again goes on where it stopped.
    A record holds epoch, train_loss (mean over the epoch's steps; of the untrained network: over the data), val_loss
    and val_accuracy (where they apply), steps, seconds (of the steps alone), bytes_uploaded (to a GPU), engine
    ("replay", "compiled", or on a GPU "grouped"), threads (of compiled steps); the last one perhaps stopped, the reason
    of a callback that ended the training, and chosen_epoch, see `EarlyStopping`.
    Raises ValueError or TypeError before the first step if the arguments or the checkpoint do not fit, ImportError for
    "compiled" without llvmlite, TrainingDiverged if the loss stops being finite.
    After Ctrl-C the network holds the weights it had reached. Where that falls within a chunk of steps, the weights and
    the optimizer's state have updates that `optimizer.steps_done` does not count; a `Checkpoint` holds no such moment.
    Warns once if a network with a BatchNorm would end an epoch with a step of one sample: that sample is left out.
    """
    records = _checked_epochs(
        network,
        dataset,
        optimizer,
        epochs,
        batch_size,
        shuffle,
        seed,
        validation,
        callbacks,
        accumulate,
        metrics,
        engine,
        resume,
    )
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
    metrics: Iterable[str] = (),
    engine: str = "auto",
    resume: str | os.PathLike[str] | None = None,
) -> Iterator[Record]:
    """The generator under `train`: the same arguments, checked at once; yields each record when its epoch is over."""
    return _checked_epochs(
        network,
        dataset,
        optimizer,
        epochs,
        batch_size,
        shuffle,
        seed,
        validation,
        callbacks,
        accumulate,
        metrics,
        engine,
        resume,
    )


def step(network: Network, optimizer: Optimizer, X: Any, Y: Any, weights: Any = None, *, seed: int = 0) -> float:
    """Update the network once on the batch X (n_inputs, batch), Y (n_outputs, batch) and return the loss before it.

    Arrays of the network's backend and dtype; weights (batch,) or None.  The loss is the batch's (weighted) mean.
    Targets are not checked, as `train` checks them: softmax_cross_entropy needs columns of Y that sum to 1.
    seed: of dropout's masks, which go on from call to call.  It is always replayed: a step more or less repays no code.
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

    loss and accuracy are means, weighted where the data set has weights; correct and n are counts. A sample whose true
    class scores no higher than another counts as wrong here; `classify` and the metrics take the first of equal ones.
    metrics: names of functions in `xpnet.training.metrics`, such as ("roc_auc", "f1"); NaN if a prediction is not
    finite. Raises ValueError for an unknown one.  It is always replayed, so that it tells the same of any run's
    weights.
    """
    check_fit(network, dataset, "dataset")
    return Judge(network, dataset, metrics).evaluate()


def _checked_epochs(
    network: Network,
    dataset: Dataset,
    optimizer: Optimizer,
    n_epochs: int,
    batch_size: int | None,
    shuffle: bool,
    seed: int,
    validation: Dataset | None,
    callbacks: Sequence[Callback],
    accumulate: int,
    metrics: Iterable[str],
    engine: str,
    resume: str | os.PathLike[str] | None,
) -> Iterator[Record]:
    """Refuse what cannot work now, not at the first `next`."""
    check_fit(network, dataset, "dataset")
    if validation is not None:
        check_fit(network, validation, "validation")
    metrics = check_metrics(metrics)
    if metrics and validation is None:
        raise ValueError(
            f"metrics is {metrics} and there is no validation; pass validation=, a Dataset to measure them on"
        )
    _check_optimizer(optimizer)
    if not isinstance(callbacks, Iterable):
        raise TypeError(f"callbacks is {callbacks!r}; needed is a list of them: callbacks=[...]")
    callbacks = tuple(callbacks)  # a generator would be used up by the check below
    n_epochs = check_whole("epochs", n_epochs, at_least=0)
    batch = dataset.n_samples
    if batch_size is not None:
        batch = min(check_whole("batch_size", batch_size, at_least=1), batch)
    elif dataset.is_mapped:
        raise ValueError(
            f"batch_size is None, which takes all {batch} samples of a mapped file in one step; "
            "give a number, such as batch_size=128"
        )
    accumulate = check_whole("accumulate", accumulate, at_least=1)
    for callback in callbacks:
        if not isinstance(callback, Callback):
            raise TypeError(f"a callback is {callback!r}; needed is an instance of xpnet.Callback")
    n_used = _samples_used(network, dataset.n_samples, batch)
    seed, moment, found = check_whole("seed", seed, at_least=0), None, None
    if resume is not None:
        moment = load_checkpoint(resume)
        found = moment.fit.get("engine")
    program = network.training_program(batch, optimizer, dataset.weights is not None, seed, accumulate)
    asked = go_on_with(engine, found, network.backend)
    chosen = choose_engine(asked, program, network.backend, n_epochs * -(-n_used // batch))
    settings = Settings(batch, accumulate, n_used, shuffle, seed, chosen)
    if resume is not None and moment is not None:
        fit = fit_of(network, optimizer, dataset, settings)
        if engine == "auto":  # the one that it had, but on another device, where the bits are others anyway
            del fit["engine"]
        check_resume(resume, moment, n_epochs, fit, callbacks)
    return _epochs(network, dataset, optimizer, n_epochs, program, settings, validation, metrics, callbacks, moment)


def _samples_used(network: Network, n_samples: int, batch: int) -> int:
    """How many samples an epoch takes: all, unless the last step's one sample is too few for a BatchNorm."""
    check_batch(network.layers, batch)
    short = left_out(network.layers, n_samples, batch)
    if not short:
        return n_samples
    warnings.warn(
        f"the last step of an epoch would have {short} sample and BatchNorm needs {MINIMUM_BATCH}: each "
        f"epoch leaves out {short} of the {n_samples} samples, the last one in its order; another batch_size "
        "takes them all",
        stacklevel=4,
    )
    return n_samples - short


def _epochs(
    network: Network,
    dataset: Dataset,
    optimizer: Optimizer,
    n_epochs: int,
    program: Program,
    settings: Settings,
    validation: Dataset | None,
    metrics: Iterable[str],
    callbacks: Sequence[Callback],
    moment: Moment | None,
) -> Iterator[Record]:
    runner = Runner(network, optimizer, dataset, program, settings, callbacks)
    untrained = Evaluator(network, dataset, runner.feed)
    judge = None if validation is None else Judge(network, validation, metrics)
    senders = [sender for sender in (runner.feed, runner.engine, untrained, judge) if sender is not None]
    with ExitStack() as ending:
        ending.callback(optimizer.detach)
        for callback in callbacks:  # each is told of the end, also if another one fails at it
            ending.callback(callback.on_train_end, network)
        for callback in callbacks:
            callback.on_train_begin(network, n_epochs, settings.n_steps)
        if moment is None:
            measured = {"train_loss": untrained.evaluate()["loss"], **_judged(judge), "steps": 0, "seconds": 0.0}
            record = {"epoch": 0, **measured, "bytes_uploaded": _bytes(senders), **told(runner.engine)}
            history = [record]
            _report(record, None, n_epochs, network, callbacks)
            runner.pause(history)
            yield record
        else:
            history = _resumed(moment, n_epochs)
            runner.restore(replace(moment, history=history))
            if moment.is_over(n_epochs):  # nothing is left to do but what they do at the end
                for callback in callbacks:
                    callback.on_last_record(history[-1])
            yield from history
        while not is_last(history[-1], n_epochs):
            before = _bytes(senders)
            reason = runner.run(history)
            progress = runner.progress
            record = {
                "epoch": progress.epoch,
                "train_loss": progress.loss / progress.weight,
                **_judged(judge),
                "steps": progress.step,
                "seconds": progress.seconds,
                "bytes_uploaded": _bytes(senders) - before,
                **told(runner.engine),
            }
            history.append(record)
            runner.begin(record["epoch"] + 1)
            _report(record, reason, n_epochs, network, callbacks)
            runner.pause(history)
            yield record


def _resumed(moment: Moment, n_epochs: int) -> list[Record]:
    """The records so far; the last one is no longer that of a run which ended there, if it now has more epochs."""
    history = [dict(record) for record in moment.history]
    if not is_last(history[-1], n_epochs):
        history[-1].pop("chosen_epoch", None)
    return history


def _check_optimizer(optimizer: Any) -> None:
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"optimizer is {optimizer!r}; needed is one such as xpnet.SGD(lr=0.1)")


def _judged(judge: Judge | None) -> Record:
    if judge is None:
        return {}
    return {f"val_{name}": value for name, value in judge.evaluate().items() if name not in ("n", "correct")}


def _report(record: Record, reason: str | None, n_epochs: int, network: Network, callbacks: Sequence[Callback]) -> None:
    """Let callbacks look at a record and end the training, complete the record, and tell them of it."""
    reasons = [reason, *(callback.on_measured(record, network) for callback in callbacks)]
    stopped = next((text for text in reasons if text is not None), None)
    if stopped is not None:
        record["stopped"] = stopped
    if is_last(record, n_epochs):
        for callback in callbacks:
            callback.on_last_record(record)
    for callback in callbacks:
        callback.on_epoch_end(record, network)


def _bytes(senders: Iterable[Any]) -> int:
    return sum(sender.bytes_uploaded for sender in senders)
