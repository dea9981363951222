"""Train a network: the loop over epochs.

`train` runs epochs and returns their records; `epochs` is the generator under it. An epoch draws an order of the
samples and hands it, chunk by chunk, to an engine, which runs the recorded Program of a step over it:

    gather | forward, loss, backward | update

`xpnet.network.programs` records that Program, `xpnet.training.epoch` runs one epoch, `xpnet.training.step` is one
update by hand, and `xpnet.training.evaluation` measures.
"""

from __future__ import annotations

import math
import os
from collections.abc import Generator, Iterable, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import Any, Literal

from xpnet.data.dataset import Dataset
from xpnet.data.feed import Orders
from xpnet.network.network import Network
from xpnet.parallel.communicator import Communicator
from xpnet.training.callbacks import Callback, report
from xpnet.training.checkpoint import moment_of
from xpnet.training.epoch import Runner
from xpnet.training.evaluation import Evaluator, Validator
from xpnet.training.following import agreed, follow
from xpnet.training.guard import TrainingDiverged
from xpnet.training.optimizers import Optimizer
from xpnet.training.options import Prepared, TrainOptions, best_of, prepare
from xpnet.training.others import Others
from xpnet.training.placing import run_facts
from xpnet.training.progress import progress_of
from xpnet.training.records import History, Moment, Record, is_last
from xpnet.training.room import room_for

__all__ = ["TrainingDiverged", "epochs", "train"]


def train(
    network: Network,
    dataset: Dataset,
    optimizer: Optimizer,
    *,
    epochs: int,
    batch_size: int | Literal["all"] | None = None,
    shuffle: bool | Orders = True,
    seed: int = 0,
    validation: Dataset | None = None,
    callbacks: Sequence[Callback] = (),
    accumulate: int = 1,
    metrics: Iterable[str] = (),
    engine: str = "auto",
    precision: str = "fp32",
    threads: int | None = None,
    resume: str | os.PathLike[str] | Moment | None = None,
    keep_best: bool = True,
    progress: bool | None = None,
    communicator: Communicator | None = None,
    reduction: str | None = None,
    deterministic: bool = False,
) -> History:
    """Train the network in place and return a record an epoch, the untrained network's first.

    epochs: passes over the data.  batch_size: samples a step, "all" for all at once, None for 32, or all if fewer; the
    last step of an epoch may be shorter.
    shuffle: whether each epoch has a new order, or a `numpy.random.Generator` that draws the orders.
    seed: of the orders and of dropout's masks.
    validation: a Dataset to evaluate after each epoch.  metrics: names in `xpnet.metrics` to measure on it.
    callbacks: see every record, may end the training.  accumulate: steps an update, by the mean over their samples.
    engine: "replay" calls NumPy for each part of a step; "compiled" runs machine code made for this network (CPU, extra
    `jit`), whose sums round differently; "auto" compiles if the run is long enough to repay it.
    precision: "fp32", or "tf32" for products on a GPU's tensor cores, of float32 numbers with 10 bits of mantissa.
    threads: of the CPU that run a step, those of NumPy's products included; None for as many as pay for its size.
    resume: a file that the callback `Checkpoint` wrote, or what `load_checkpoint` read. With equal data and arguments
    the run continues to the same bits; only epochs may differ, and "auto" is the engine that the run had.
    keep_best: with a validation, and without a callback that keeps weights or stops at a score, the network ends with
    the weights of the epoch whose val_loss is lowest, the last record's chosen_epoch.
    progress: a live line on stderr, True or False; None shows it on a terminal and in a notebook.
    communicator: the processes that train together, `xpnet.communicator("mpi")`; each calls `train` with equal data and
    arguments, computes its part of every step, and ends with the same weights and records. Process 0 alone measures,
    shows the progress and calls the callbacks.
    reduction: "fixed" cuts each step into 8 shards whose gradients are added in one order, so that weights and records
    are equal to the bit for 1, 2, 4 and 8 processes; "fast" takes the library's sum. None is "fixed" with a
    communicator of MPI or NCCL; else a step is computed whole.
    deterministic: of a GPU, products by a handle of cuBLAS of their own, and so a workspace of their own, as
    CUBLAS_COMPUTE_32F_PEDANTIC, in full: two runs agree to the bit whatever else multiplies in other streams at the
    time, and whatever TF32 the environment or a handle allows. Refuses "tf32", "replay" on a GPU, and "fast" sums of
    several processes. All else is so without it: kernels add without atomics, in one order. On a CPU it changes
    nothing: a seed, an engine and a number of threads give the same bits.
    The optimizer keeps its state: training the same network again continues where it stopped, unless the weights are of
    another epoch than the last.

    A record holds epoch, train_loss (mean over the epoch's steps; record 0: over the data), val_loss and val_accuracy
    (where they apply), val_ and each metric, steps, seconds (of the steps alone), bytes_uploaded (to a GPU), engine,
    threads (if compiled), precision (on a GPU), deterministic (there, if asked for), device (if chosen, and why). The
    last may add stopped, why a callback ended the training, and chosen_epoch.
    Raises ValueError or TypeError before the first step if the arguments or the checkpoint do not fit, ImportError for
    "compiled" without llvmlite, TrainingDiverged if the loss stops being finite.
    After Ctrl-C the network holds the weights reached, which may be some updates ahead of `optimizer.steps_done`.
    Warns once if a network with a BatchNorm would end an epoch with a step of one sample: that sample is left out.
    """
    moment = moment_of(resume)
    options = TrainOptions(
        epochs,
        batch_size,
        shuffle,
        seed,
        validation,
        callbacks,
        accumulate,
        metrics,
        engine,
        precision,
        threads,
        moment,
        True,
        communicator,
        reduction,
        deterministic=deterministic,
    )
    callbacks = (*options.callbacks, *best_of(options, keep_best), *progress_of(progress))
    with closing(_checked(network, dataset, optimizer, replace(options, callbacks=callbacks))) as records:
        return History(records)


def epochs(network: Network, dataset: Dataset, optimizer: Optimizer, **options: Any) -> Generator[Record]:
    """Yield the record of each epoch when it is over: the generator under `train`, with the same options.

    Checks everything at the call, not at the first `next`. keep_best and progress are of `train` alone.
    is_alone: as in `train`, nobody but the callbacks looks at the network between two records, so that epochs may be
    run before these; False leaves the caller free to change network and optimizer there.
    measures_start: whether record 0 tells what the untrained network does; otherwise its train_loss is NaN.
    """
    return _checked(network, dataset, optimizer, TrainOptions(**options))


def _checked(network: Network, dataset: Dataset, optimizer: Optimizer, options: TrainOptions) -> Generator[Record]:
    if options.is_led:
        return _together(network, dataset, optimizer, options)
    return _epochs(network, dataset, optimizer, options, prepare(network, dataset, optimizer, options))


def _together(network: Network, dataset: Dataset, optimizer: Optimizer, options: TrainOptions) -> Generator[Record]:
    """Return the records of one of several processes: process 0 leads, the others follow."""
    assert options.communicator is not None
    prepared = agreed(
        options.communicator, lambda: prepare(network, dataset, optimizer, options), network, dataset, optimizer
    )
    if options.communicator.rank > 0:
        return follow(options.communicator, network, dataset, optimizer, prepared)
    others = Others(options.communicator, network, not options.is_unwatched)
    return others.led(_epochs(network, dataset, optimizer, options, prepared, others), optimizer)


def _epochs(
    network: Network,
    dataset: Dataset,
    optimizer: Optimizer,
    options: TrainOptions,
    prepared: Prepared,
    others: Others | None = None,
) -> Generator[Record]:
    program, settings, moment = prepared

    def record_of(epoch: int, loss: float, steps: int, seconds: float, sums: Any = None) -> Record:
        measures = {}
        if validator is not None and (epoch > 0 or options.measures_start):
            measures = validator.evaluate(sums)
        record = {"epoch": epoch, "train_loss": loss, **_named(measures), "steps": steps, "seconds": seconds}
        return record | {"bytes_uploaded": _bytes(senders) - before, **facts}

    before = 0
    with ExitStack() as ending:
        beside = ending.enter_context(room_for(network, dataset, optimizer, settings, options))
        runner = Runner(network, optimizer, dataset, program, settings, options.callbacks, others, beside[0])
        facts = run_facts(network, runner.engine)
        ending.enter_context(network.forwards.replayed())
        ending.push(runner.end)
        held_out = options.validation
        like = runner.engine, options.threads if settings.reduction is None else 1
        further = beside[1], settings.deterministic
        validator = None if held_out is None else Validator(network, held_out, options.metrics, *like, *further)
        measuring = None if validator is None else validator.engine
        runner.look_ahead(options.is_unwatched, measuring, is_validated=validator is not None)
        start = options.measures_start and moment is None
        whole = network, dataset, runner.whole_feed
        untrained = Evaluator(*whole, None, like[1], settings.deterministic) if start else None
        senders = [] if network.backend.device == "cpu" else [runner.feed, runner.engine, untrained, validator]
        for callback in options.callbacks:  # each learns of the end, even if another one fails at it
            ending.callback(callback.on_train_end, network)
        for callback in options.callbacks:
            callback.on_train_begin(network, options.epochs, settings.n_steps)
        if moment is None:
            loss = math.nan if untrained is None else untrained.evaluate()["loss"]
            history = [record_of(0, loss, 0, 0.0)]
            report(options.callbacks, history[0], None, network, options.epochs)
            runner.pause(history)
        else:
            history = moment.history_of(options.epochs)
            runner.restore(replace(moment, history=history))
            if moment.is_over(options.epochs):  # all that remains is what callbacks do at the end
                for callback in options.callbacks:
                    callback.on_last_record(history[-1])
        yield from list(history)
        while not is_last(history[-1], options.epochs):
            before = _bytes(senders)
            for done in runner.epochs(history, options.epochs - history[-1]["epoch"]):
                progress = done.progress
                loss = progress.loss / progress.weight
                history.append(record_of(progress.epoch, loss, progress.step, progress.seconds, done.measured))
                before = _bytes(senders)
                report(options.callbacks, history[-1], done.reason, network, options.epochs)
                runner.pause(history)
                yield history[-1]
                if is_last(history[-1], options.epochs):
                    break


def _named(measures: Record) -> Record:
    """Return the measures of the validation set under a record's names."""
    return {f"val_{name}": value for name, value in measures.items() if name not in ("n", "correct")}


def _bytes(senders: Iterable[Any]) -> int:
    return sum(sender.bytes_uploaded for sender in senders if sender is not None)
