"""Train a network: the loop over epochs.

`train` runs epochs and returns their records; `epochs` is the generator under it. An epoch draws an order of the
samples and hands it, chunk by chunk, to an engine, which runs the recorded Program of a step over it:

    gather | forward, loss, backward | update

`xpnet.network.programs` records that Program, `xpnet.training.epoch` runs one epoch, `xpnet.training.step` is one
update by hand, and `xpnet.training.evaluation` measures.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from xpnet.data.dataset import Dataset
from xpnet.engines.choice import engine_facts
from xpnet.network.network import Network
from xpnet.program.calls import Program
from xpnet.training.callbacks import Callback
from xpnet.training.epoch import Runner, TrainingDiverged
from xpnet.training.evaluation import Evaluator, Validator
from xpnet.training.optimizers import Optimizer
from xpnet.training.options import Settings, TrainOptions, prepare
from xpnet.training.records import History, Moment, Record, is_last

__all__ = ["TrainingDiverged", "epochs", "train"]


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
    precision: str = "fp32",
    resume: str | os.PathLike[str] | Moment | None = None,
) -> History:
    """Train the network in place and return a record an epoch, the untrained network's first.

    epochs: passes over the data.  batch_size: samples a step, None for all; the last step of an epoch may be shorter.
    shuffle, seed: a new order of the samples each epoch, the masks of dropout; the same for the same seed.
    validation: a Dataset to evaluate after each epoch.  metrics: names in `xpnet.metrics` to measure on it.
    callbacks: see every record, and may end the training.
    accumulate: steps an update; it goes by the mean over all their samples.
    engine: "replay" calls NumPy for each part of a step; "compiled" runs machine code made for this network (CPU, extra
    `jit`), whose sums round in other places. "auto" compiles where there are steps enough to repay it.
    precision: of the steps' products: "fp32" multiplies numbers as they are; "tf32", of float32 on a CUDA GPU, leaves
    them 10 bits of mantissa and adds in float32, by tensor cores. Measures and predictions are always "fp32".
    resume: a file that the callback `Checkpoint` wrote, or what `load_checkpoint` read of it. With the same data and
    arguments the run goes on from there to the same bits; epochs may be another number, and engine="auto" takes the
    engine that the run had.
    The optimizer keeps its state: training the same network again goes on where it stopped.

    A record holds epoch, train_loss (mean over the epoch's steps; record 0: over the data), val_loss and val_accuracy
    (where they apply), val_ and each metric, steps, seconds (of the steps alone), bytes_uploaded (to a GPU), engine,
    threads (of compiled steps), precision (on a GPU); the last one perhaps stopped, why a callback ended the training,
    and chosen_epoch.
    Raises ValueError or TypeError before the first step if the arguments or the checkpoint do not fit, ImportError for
    "compiled" without llvmlite, TrainingDiverged if the loss stops being finite.
    After Ctrl-C the network holds the weights it had reached. Within a chunk of steps these, and the optimizer's state,
    may have updates that `optimizer.steps_done` does not count; a `Checkpoint` holds no such moment.
    Warns once if a network with a BatchNorm would end an epoch with a step of one sample: that sample is left out.
    """
    options = TrainOptions(
        epochs, batch_size, shuffle, seed, validation, callbacks, accumulate, metrics, engine, precision, resume
    )
    return History(_checked(network, dataset, optimizer, options))


def epochs(network: Network, dataset: Dataset, optimizer: Optimizer, **options: Any) -> Iterator[Record]:
    """Yield the record of each epoch when it is over: the generator under `train`, with the same options.

    All is checked at once, not at the first `next`.
    """
    return _checked(network, dataset, optimizer, TrainOptions(**options))


def _checked(network: Network, dataset: Dataset, optimizer: Optimizer, options: TrainOptions) -> Iterator[Record]:
    return _epochs(network, dataset, optimizer, options, *prepare(network, dataset, optimizer, options))


def _epochs(
    network: Network,
    dataset: Dataset,
    optimizer: Optimizer,
    options: TrainOptions,
    program: Program,
    settings: Settings,
    moment: Moment | None,
) -> Iterator[Record]:
    runner = Runner(network, optimizer, dataset, program, settings, options.callbacks)
    untrained = Evaluator(network, dataset, runner.feed)
    validator = None if options.validation is None else Validator(network, options.validation, options.metrics)
    senders = [sender for sender in (runner.feed, runner.engine, untrained, validator) if sender is not None]
    with ExitStack() as ending:
        ending.callback(optimizer.detach)
        for callback in options.callbacks:  # each is told of the end, also if another one fails at it
            ending.callback(callback.on_train_end, network)
        for callback in options.callbacks:
            callback.on_train_begin(network, options.epochs, settings.n_steps)
        if moment is None:
            measured = {"train_loss": untrained.evaluate()["loss"], **_validated(validator), "steps": 0, "seconds": 0.0}
            history = [{"epoch": 0, **measured, "bytes_uploaded": _bytes(senders), **engine_facts(runner.engine)}]
            _report(history[0], None, network, options)
            runner.pause(history)
        else:
            history = _resumed(moment, options)
            runner.restore(replace(moment, history=history))
            if moment.is_over(options.epochs):  # nothing is left to do but what they do at the end
                for callback in options.callbacks:
                    callback.on_last_record(history[-1])
        yield from list(history)
        while not is_last(history[-1], options.epochs):
            before = _bytes(senders)
            reason = runner.run(history)  # the steps of one epoch, or of what is left of it
            progress = runner.progress
            record = {"epoch": progress.epoch, "train_loss": progress.loss / progress.weight, **_validated(validator)}
            record |= {"steps": progress.step, "seconds": progress.seconds}
            record |= {"bytes_uploaded": _bytes(senders) - before, **engine_facts(runner.engine)}
            history.append(record)
            runner.begin(record["epoch"] + 1)
            _report(record, reason, network, options)
            runner.pause(history)
            yield record


def _resumed(moment: Moment, options: TrainOptions) -> list[Record]:
    """The records so far; the last one is no longer that of a run which ended there, if it now has more epochs."""
    history = [dict(record) for record in moment.history]
    if not is_last(history[-1], options.epochs):
        history[-1].pop("chosen_epoch", None)
    return history


def _validated(validator: Validator | None) -> Record:
    """The measures of the validation set, as a record has them."""
    measured = {} if validator is None else validator.evaluate()
    return {f"val_{name}": value for name, value in measured.items() if name not in ("n", "correct")}


def _report(record: Record, reason: str | None, network: Network, options: TrainOptions) -> None:
    """Let callbacks look at a record and end the training, complete the record, and tell them of it."""
    reasons = [reason, *(callback.on_measured(record, network) for callback in options.callbacks)]
    stopped = next((text for text in reasons if text is not None), None)
    if stopped is not None:
        record["stopped"] = stopped
    if is_last(record, options.epochs):
        for callback in options.callbacks:
            callback.on_last_record(record)
    for callback in options.callbacks:
        callback.on_epoch_end(record, network)


def _bytes(senders: Iterable[Any]) -> int:
    return sum(sender.bytes_uploaded for sender in senders)
