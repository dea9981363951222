"""What a training run will hold in memory, large buffer by large buffer, before it starts.

Sizes come from the data sets and from the Programs that training will run. Not counted are Python, its libraries,
vectors of a layer's width or a batch's length, temporary copies of checkpoints and metrics, and of compiled steps
their code and, for each thread, at most one transposed operand of a product.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from xpnet.backend import BLOCK_BYTES
from xpnet.data.dataset import Dataset
from xpnet.data.feed import held_samples, is_held_whole
from xpnet.engines.numpy_calls import working_sizes
from xpnet.network.network import Network
from xpnet.network.programs import RecordsUpdate, evaluation_program
from xpnet.parallel.reduction import Reduction
from xpnet.program.calls import BATCH, Program
from xpnet.program.grouping import partial_sums
from xpnet.program.shards import Shards
from xpnet.training.options import batch_of

WORKSPACE_BYTES = 32 << 20  # of cuBLAS, as its documentation says
CONTEXT, CONTEXT_BYTES = "CUDA's context", 512 << 20


@dataclass(frozen=True)
class MemoryItem:
    """A named piece of memory.  place: "host" or "device", the same on a CPU.  note: its shape, or why it is there."""

    name: str
    nbytes: int
    place: str
    note: str


@dataclass(frozen=True)
class Planned:
    """A memory plan, and what the choice between whole data and windows depends on.

    beside: bytes of the device that are yet to be allocated for other things than the data of training, and of those
    for other things than the data of the validation.  needed: for all.  free: of the device; None on a CPU.
    """

    items: list[MemoryItem]
    beside: tuple[int, int]
    needed: int
    free: int | None


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
) -> Planned:
    """Return what `train` with these arguments will hold: data, parameters, state, snapshots and batch buffers.

    others: data sets that stay in memory beside it, such as a test set.  early_stopping: whether a callback keeps the
    best weights.  reduction: adds the shards of a step; then all is what this process holds.
    """
    batch, backend = batch_of(batch_size, dataset.n_samples), network.backend
    shards = None if reduction is None else reduction.shards(batch)
    is_alone = shards is None or shards.is_all
    weighted = dataset.weights is not None
    program = network.training_program(batch, optimizer, weighted, accumulate=accumulate, shards=shards)
    held = _data("training", dataset)
    held += [item for part in others for item in _data("other", part)]
    if dataset.is_mapped and shards is not None and not shards.is_all and shards.first == 0:  # which measures on all
        held += _feed("record 0", network, dataset, batch)
    run = _kept(network, program, early_stopping) + _buffers("step", network, program, dataset)
    if shards is not None:
        own, n_bytes = shards.last - shards.first, program.buffers["message"].size * backend.dtype.itemsize
        note = f"of {own} of the {shards.count} shards of a step, and what others send"
        run.append(MemoryItem("messages", (own + (not shards.is_all)) * n_bytes, "device", note))
    run += _evaluation("record 0", network, dataset)
    tail = [] if validation is None else _evaluation("validation", network, validation)
    windows = [] if validation is None else _feed("validation", network, validation, BATCH, is_whole=False)
    workspace = _libraries(network, dataset)
    # theta is there, and so is what is not the workspace.
    late = _on_device(tail + workspace[:1]) + sum(item.nbytes for item in run if item.name == "best theta")
    beside = _on_device(run + tail + workspace[:1]) - network.owned.nbytes
    free = backend.free_memory()
    is_whole = not is_alone or is_held_whole(dataset, backend, beside + _on_device(windows), free)
    feed = _feed("training", network, dataset, batch * accumulate, is_whole, shards)
    n_held = held_samples(dataset, backend, batch * accumulate, is_whole)
    run.append(MemoryItem("order", 8 * (n_held if dataset.is_mapped else dataset.n_samples), "host", "of the samples"))
    held += feed + run
    needed = beside + _on_device(feed)
    if validation is not None:
        left = None if free is None else free - needed
        held_out = _feed("validation", network, validation, BATCH, is_held_whole(validation, backend, 0, left))
        held += _data("validation", validation) + held_out + tail
        needed += _on_device(held_out)
    items = [item for item in held + workspace if item.nbytes]
    return Planned(items, (beside + _on_device(windows), late), needed, free)


def _on_device(items: Iterable[MemoryItem]) -> int:
    return sum(item.nbytes for item in items if item.place == "device")


def _kept(network: Network, program: Program, early_stopping: bool) -> list[MemoryItem]:
    """The weights and the optimizer's state, and what is kept of them to go back to."""
    itemsize = network.backend.dtype.itemsize
    n_bytes = program.n_owned * itemsize
    held = [
        MemoryItem("theta", n_bytes, "device", f"{network.architecture.layout.count:,} parameters"),
        MemoryItem("last good theta", n_bytes, "device", "the snapshot of an epoch's beginning"),
    ]
    if early_stopping:
        held.append(MemoryItem("best theta", n_bytes, "device", "of the best epoch so far"))
    held.append(MemoryItem("last good state", program.n_state * itemsize, "device", "the optimizer's, of that moment"))
    return held


def _libraries(network: Network, dataset: Dataset) -> list[MemoryItem]:
    """What CUDA and its libraries hold of a GPU and of the host: the most that is known of them."""
    if network.backend.device == "cpu":
        return []
    uploaded = min(BLOCK_BYTES, 8 * dataset.n_samples)
    return [
        MemoryItem("cuBLAS's workspace", WORKSPACE_BYTES, "device", "of Hopper; of older GPUs 4 MiB"),
        MemoryItem(CONTEXT, CONTEXT_BYTES, "device", "with the code of the libraries; an estimate"),
        MemoryItem("uploads, page-locked", 1 << (uploaded - 1).bit_length(), "host", "at most: CuPy keeps it"),
    ]


def describe_plan(plan: list[MemoryItem], width: int | None = None) -> str:
    """Return the plan as a table, a line a buffer, and its sum.

    width: columns of a terminal, where the notes, and then the places, are left out if the lines do not fit.
    """
    sizes = [mebibytes(item.nbytes) for item in plan] + [mebibytes(sum(item.nbytes for item in plan))]
    names, digits = max(len(item.name) for item in plan), max(map(len, sizes))
    starts = [f"{name:<{names}}  {size:>{digits}} MiB" for name, size in zip(_names(plan), sizes, strict=True)]
    placed = [f"{start}  {item.place:<6}" for start, item in zip(starts, plan, strict=False)]
    noted = [f"{start}  {item.note}".rstrip() for start, item in zip(placed, plan, strict=True)]
    tables = ([*lines, starts[-1]] for lines in (noted, placed, starts[:-1]))
    fitting = (lines for lines in tables if width is None or max(map(len, lines)) <= width)
    return "\n".join(next(fitting, starts))


def _names(plan: list[MemoryItem]) -> list[str]:
    return [*(item.name for item in plan), "sum"]


def mebibytes(nbytes: int) -> str:
    """Return a number of bytes in MiB, as plans have it."""
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


def _feed(
    name: str, network: Network, dataset: Dataset, batch: int, is_whole: bool = True, shards: Shards | None = None
) -> list[MemoryItem]:
    """The copies that batches are gathered from: on a GPU, of a mapped file, or where the type changes.

    is_whole: of data in memory, whether all of them go to the device at once.
    shards: of each step, of which this process may compute some.
    """
    backend, on_cpu = network.backend, network.backend.device == "cpu"
    n_held = held_samples(dataset, backend, batch, is_whole, shards)
    is_alone = shards is None or shards.is_all
    needs_copy = not on_cpu or dataset.is_mapped
    columns: list[tuple[str, int, np.dtype[Any]]] = [
        ("X", dataset.n_features, dataset.samples.dtype),
        ("Y", dataset.n_outputs, dataset.targets.dtype),
    ]
    if dataset.weights is not None:
        columns.append(("weights", 1, np.dtype(np.object_)))  # always copied: divided by their mean
    held, locked = [], 0
    if (dataset.is_mapped or not is_whole) and dataset.weights is not None:
        held.append(MemoryItem(f"{name} weights by their mean", 8 * dataset.n_samples, "host", "float64"))
    halves = 1 if on_cpu or not is_alone or (is_whole and not dataset.is_mapped) else 2
    for key, n, stored in columns:
        dtype = stored if stored == np.uint8 else backend.dtype
        if needs_copy or dtype != stored:
            note = f"{dtype} ({n}, {n_held})" + (", blocks held at a time" if dataset.is_mapped else "")
            n_bytes = halves * n * n_held * dtype.itemsize
            held.append(MemoryItem(f"{name} {key}, to gather from", n_bytes, "device", note + ", twice" * (halves > 1)))
            locked += n_bytes * (halves > 1)
    return [*held, MemoryItem(f"{name}, page-locked", locked, "host", "what is on its way to the device")]


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
