"""Follow process 0 of a training: run the steps that it tells of, and end with what it ends with."""

from __future__ import annotations

import sys
import warnings
import zlib
from collections.abc import Callable, Generator
from typing import Any

import numpy as np

from xpnet.data.dataset import Dataset
from xpnet.data.feed import Blocks, feed_of
from xpnet.network.network import Network
from xpnet.parallel.communicator import Communicator
from xpnet.training.epoch import engine_for
from xpnet.training.evaluation import input_range
from xpnet.training.optimizers import Optimizer, Snapshot
from xpnet.training.options import Prepared, run_fingerprint
from xpnet.training.others import END, EPOCHS, LOAD, RECORD, SHARED, RankFailed, cause_of, error_of
from xpnet.training.records import Record

_SOME_ROWS = 64  # of the data, that are compared


def agreed(
    communicator: Communicator,
    prepare: Callable[[], Prepared],
    network: Network,
    dataset: Dataset,
    optimizer: Optimizer,
) -> Prepared:
    """Return what `prepare` returns, if it does so on every process and of the same run.

    Otherwise every process raises an error: its own where it has one, else RankFailed, which names the first that has.
    """
    fault: Exception | None = None
    facts: dict[str, Any] = {}
    try:
        with warnings.catch_warnings():
            if communicator.rank > 0:
                warnings.simplefilter("ignore")  # process 0 warns
            prepared = prepare()
        facts = _facts(network, dataset, optimizer, prepared)
    except Exception as error:
        fault = error
    found = communicator.gather((None if fault is None else cause_of(fault), facts))
    if fault is not None:
        fault.add_note(SHARED)
        raise fault
    for rank, (cause, _) in enumerate(found):
        if cause is not None:
            raise RankFailed(f"rank {rank}: {cause}")
    needed = found[0][1]
    for rank, (_, its) in enumerate(found):
        for name in needed:
            if its[name] != needed[name]:
                raise RankFailed(
                    f"rank {rank} has {name} {its[name]}, and rank 0 has {needed[name]}; all ranks need the same: "
                    "start them with equal data, options and versions"
                )
    return prepared


def _facts(network: Network, dataset: Dataset, optimizer: Optimizer, prepared: Prepared) -> dict[str, Any]:
    """Return what all processes must have in common, by name."""
    _, settings, _ = prepared
    facts = run_fingerprint(network, optimizer, dataset, settings)
    return {"version": sys.modules["xpnet"].__version__, **facts, "data": _digest(dataset)}


def _digest(dataset: Dataset) -> str:
    """Return a checksum of some samples and their targets, spread over the data."""
    chosen, total = np.linspace(0, dataset.n_samples - 1, min(_SOME_ROWS, dataset.n_samples)).astype(np.int64), 0
    for rows in (dataset.samples, dataset.targets):
        if dataset.is_mapped or isinstance(rows, np.ndarray):
            total = zlib.crc32(np.ascontiguousarray(rows[chosen]).view(np.uint8).data, total)
    return f"{total:08x}"


def follow(
    communicator: Communicator, network: Network, dataset: Dataset, optimizer: Optimizer, prepared: Prepared
) -> Generator[Record]:
    """Yield the records of the training that process 0 leads, and run its steps beside it."""
    error: BaseException | None = None
    try:
        error = yield from _followed(communicator, network, dataset, optimizer, prepared)
    except GeneratorExit:
        raise
    except BaseException as found:
        communicator.abort(f"rank {communicator.rank}: {cause_of(found)}")
        raise
    if error is not None:
        raise error


def _followed(
    communicator: Communicator, network: Network, dataset: Dataset, optimizer: Optimizer, prepared: Prepared
) -> Generator[Record, None, BaseException | None]:
    """Yield the records, and return the error that process 0 ends with; a caller that leaves waits for its end."""
    program, settings, _ = prepared
    feed = feed_of(dataset, network.backend, settings.batch * settings.accumulate, program.shards)
    engine = engine_for(program, network, feed, settings)
    network.inputs = input_range(dataset)
    is_left = False
    while True:
        what, *told = communicator.broadcast(None)
        if what == RECORD and not is_left:
            try:
                yield told[0]
            except GeneratorExit:  # process 0 leaves at the same record
                is_left = True
        elif what == LOAD:
            assert isinstance(feed, Blocks)
            feed.load(*told)
        elif what == END:
            owned, state, lr, error = told
            network.owned[...] = network.backend.to_device(owned)
            optimizer.restore(Snapshot.unpacked(network, *state))
            if lr is not None:
                optimizer.lr = lr
            return None if error is None or is_left else error_of(error)
        else:
            orders, rows_in, arrays = told
            if what == EPOCHS:
                engine.memory.floats[...] = 0.0  # as `Runner` does where it runs epochs once more
            else:
                orders, rows_in = orders[None], rows_in[None]
            if arrays is not None:
                for array, found in zip((network.owned, engine.state, engine.keys), arrays, strict=True):
                    array[...] = network.backend.to_device(found, found.dtype)
            for order, rows in zip(orders, rows_in, strict=True):
                engine.run(feed.placed(order), rows)
