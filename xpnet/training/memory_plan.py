"""What a training run will hold in memory, large buffer by large buffer, before it starts.

Sizes come from the data sets and from the Programs that training will run. Not counted are Python, the libraries,
vectors of a layer's width or a batch's length, temporary copies of checkpoints and metrics, and of compiled steps
their code and, for each thread, at most one transposed operand of a product.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from xpnet.data.dataset import Dataset
from xpnet.data.feed import held_samples
from xpnet.engines.numpy_calls import working_sizes
from xpnet.network.blocks import BATCH
from xpnet.network.network import Network
from xpnet.network.programs import RecordsUpdate, evaluation_program
from xpnet.parallel.reduction import Reduction
from xpnet.program.calls import Program
from xpnet.program.grouping import partial_sums
from xpnet.program.shards import Shards
from xpnet.training.options import batch_of


@dataclass(frozen=True)
class MemoryItem:
    """A named piece of memory.  place: "host" or "device", the same on a CPU.  note: its shape, or why it is there."""

    name: str
    nbytes: int
    place: str
    note: str


def memory_plan(
    network: Network,
    dataset: Dataset,
    optimizer: RecordsUpdate,
    *,
    batch_size: int | Literal["all"] | None = None,
    validation: Dataset | None = None,
    others: Iterable[Dataset] = (),
    accumulate: int = 1,
    early_stopping: bool = False,
    reduction: Reduction | None = None,
) -> list[MemoryItem]:
    """Return what `train` with these arguments will hold: data, parameters, state, snapshots and batch buffers.

    others: data sets that stay in memory beside it, such as a test set.  early_stopping: whether a callback keeps the
    best weights.  reduction: adds the shards of a step; then all is what this process holds.
    """
    n_samples = dataset.n_samples
    batch = batch_of(batch_size, n_samples)
    shards = None if reduction is None else reduction.shards(batch)
    weighted = dataset.weights is not None
    program = network.training_program(batch, optimizer, weighted, accumulate=accumulate, shards=shards)
    itemsize, owned = network.backend.dtype.itemsize, program.n_owned
    held = _data("training", dataset)
    held += [item for part in others for item in _data("other", part)]
    held += _feed("training", network, dataset, batch * accumulate, shards)
    if dataset.is_mapped and shards is not None and not shards.is_all and shards.first == 0:  # which measures on all
        held += _feed("record 0", network, dataset, batch)
    held.append(MemoryItem("theta", owned * itemsize, "device", f"{network.architecture.layout.count:,} parameters"))
    held.append(MemoryItem("last good theta", owned * itemsize, "device", "the snapshot of an epoch's beginning"))
    if early_stopping:
        held.append(MemoryItem("best theta", owned * itemsize, "device", "of the best epoch so far"))
    held.append(MemoryItem("last good state", program.n_state * itemsize, "device", "the optimizer's, of that moment"))
    held += _buffers("step", network, program, dataset)
    if shards is not None:
        own, n_bytes = shards.last - shards.first, program.buffers["message"].size * itemsize
        note = f"of {own} of the {shards.count} shards of a step, and what others send"
        held.append(MemoryItem("messages", (own + (not shards.is_all)) * n_bytes, "device", note))
    held += _evaluation("record 0", network, dataset)
    held.append(
        MemoryItem(
            "order", 8 * held_samples(dataset, network.backend, batch * accumulate), "host", "indices of the samples"
        )
    )
    if validation is not None:
        held += _data("validation", validation)
        held += _feed("validation", network, validation, BATCH)
        held += _evaluation("validation", network, validation)
    return [item for item in held if item.nbytes]


def describe_plan(plan: list[MemoryItem], width: int | None = None) -> str:
    """Return the plan as a table, a line a buffer, and its sum.

    width: columns of a terminal, where the notes, and then the places, are left out if the lines do not fit.
    """
    sizes = [_mebibytes(item.nbytes) for item in plan] + [_mebibytes(sum(item.nbytes for item in plan))]
    names, digits = max(len(item.name) for item in plan), max(map(len, sizes))
    starts = [f"{name:<{names}}  {size:>{digits}} MiB" for name, size in zip(_names(plan), sizes, strict=True)]
    placed = [f"{start}  {item.place:<6}" for start, item in zip(starts, plan, strict=False)]
    noted = [f"{start}  {item.note}".rstrip() for start, item in zip(placed, plan, strict=True)]
    tables = ([*lines, starts[-1]] for lines in (noted, placed, starts[:-1]))
    fitting = (lines for lines in tables if width is None or max(map(len, lines)) <= width)
    return "\n".join(next(fitting, starts))


def _names(plan: list[MemoryItem]) -> list[str]:
    return [*(item.name for item in plan), "sum"]


def _mebibytes(nbytes: int) -> str:
    return f"{nbytes / 2**20:,.3f}"


def _data(name: str, dataset: Dataset) -> list[MemoryItem]:
    rows = {"X": dataset.samples, "Y": dataset.targets}
    if dataset.is_mapped:
        del rows["X"]  # the file's pages come and go as the system likes
    if dataset.weights is not None:
        rows["weights"] = dataset.weights
    return [
        MemoryItem(f"{name} {key}", array.nbytes, "host", f"{array.dtype} {array.T.shape}")
        for key, array in rows.items()
    ]


def _feed(name: str, network: Network, dataset: Dataset, batch: int, shards: Shards | None = None) -> list[MemoryItem]:
    """The copies that batches are gathered from: on a GPU, of a mapped file, or where the type changes."""
    backend = network.backend
    n_held = held_samples(dataset, backend, batch, shards)
    needs_copy = backend.device != "cpu" or dataset.is_mapped
    columns: list[tuple[str, int, np.dtype[Any]]] = [
        ("X", dataset.n_features, dataset.samples.dtype),
        ("Y", dataset.n_outputs, dataset.targets.dtype),
    ]
    if dataset.weights is not None:
        columns.append(("weights", 1, np.dtype(np.object_)))  # always copied: divided by their mean
    held = []
    if dataset.is_mapped and dataset.weights is not None:
        held.append(MemoryItem(f"{name} weights by their mean", 8 * dataset.n_samples, "host", "float64"))
    for key, n, stored in columns:
        dtype = stored if stored == np.uint8 else backend.dtype
        if needs_copy or dtype != stored:
            note = f"{dtype} ({n}, {n_held})" + (", blocks held at a time" if dataset.is_mapped else "")
            held.append(MemoryItem(f"{name} {key}, to gather from", n * n_held * dtype.itemsize, "device", note))
    return held


def _evaluation(name: str, network: Network, dataset: Dataset) -> list[MemoryItem]:
    batch, weighted = min(BATCH, dataset.n_samples), dataset.weights is not None
    program = evaluation_program(network.architecture, batch, weighted, dataset.is_classification)
    return _buffers(name, network, program, dataset)


def _buffers(name: str, network: Network, program: Program, dataset: Dataset) -> list[MemoryItem]:
    """The buffers of a Program, those that share memory on one line, and what its engine adds."""
    itemsize = network.backend.dtype.itemsize
    places: dict[tuple[str, int], list[Any]] = {}
    covered = 0
    for buffer in sorted(program.buffers.values(), key=lambda buffer: (buffer.kind, buffer.offset, -buffer.size)):
        if buffer.kind == "float" and buffer.offset < program.n_owned:
            continue
        key = (buffer.kind, buffer.offset)
        if key not in places and buffer.kind == "float" and buffer.offset < covered:
            continue  # a view into a longer one, such as dW1 in the gradient
        places.setdefault(key, []).append(buffer)
        if buffer.kind == "float":
            covered = max(covered, buffer.offset + buffer.size)
    held = []
    for (kind, _), buffers in places.items():
        names = ", ".join(dict.fromkeys(buffer.name for buffer in buffers if buffer.size == buffers[0].size))
        size = buffers[0].size * (itemsize if kind == "float" else 4)
        held.append(MemoryItem(f"{name} {names}", size, "device", f"{buffers[0].shape}"))
    if network.backend.device == "cpu":
        mask, constants = working_sizes(program)
        held.append(MemoryItem(f"{name} mask", mask, "device", "where `greater` puts its bools"))
        held.append(MemoryItem(f"{name} constants", constants * itemsize, "device", "numbers of `maximum` as arrays"))
        if dataset.scale is not None:
            staged = program.capacity * dataset.n_features
            held.append(MemoryItem(f"{name} X in uint8", staged, "device", "gathered, not yet scaled"))
    else:
        held.append(MemoryItem(f"{name} partial sums", partial_sums(program) * itemsize, "device", "of long vectors"))
    return held
