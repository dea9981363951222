"""Feed samples to an engine: the whole data set uploaded once, or a part of it after the other.

An engine gathers rows from arrays that do not change place. `Whole` fills them once. `Windows` refills those of a GPU
from memory, so that data larger than its memory train, and `Blocks` refills them from a file, so that one larger than
memory does. `feed_of` chooses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Protocol

import numpy as np

from xpnet.backend import Backend
from xpnet.data.checks import check_range
from xpnet.data.dataset import Dataset
from xpnet.data.staging import Rows, Staging, Window
from xpnet.program.calls import BATCH
from xpnet.program.shards import Shards

BLOCK_BYTES = 1 << 20  # read in one go: long enough for a disk
POOL_BYTES = 1 << 26  # held and shuffled together: 64 blocks from anywhere in the file


class Orders(Protocol):
    """What draws the order of each epoch: a `numpy.random.Generator`, or what is like one."""

    @property
    def bit_generator(self) -> Any:
        """What has the state, which can be kept and given back."""

    def shuffle(self, order: Any, /) -> None:
        """Put the numbers 0, 1, 2, ... into the order of the next epoch, in place."""


Sources = dict[str, tuple[Any, float | None]]


class Whole:
    """A data set that fits: uploaded once, in an order drawn over all of its samples.

    sources: name of the data -> (rows (n_samples, n) on the device, factor of uint8 rows or None), for engines.
    n_samples: of the data set.  bytes_uploaded: to a GPU so far.
    """

    def __init__(self, dataset: Dataset, backend: Backend) -> None:
        data = dataset.upload(backend)
        self.sources: Sources = {"X": (data.X, data.scale), "Y": (data.Y, None)}
        if data.weights is not None:
            self.sources["weights"] = (data.weights, None)
        self.n_samples, self.bytes_uploaded = data.n_samples, data.nbytes

    def parts(self, rng: Orders | None, skip: int = 0, batch: int = 1) -> Iterator[np.ndarray]:
        """Yield the one order (n_samples - skip,) of an epoch: drawn by `rng`, or the data's own; see `draw`.

        skip: samples of the order already done; the whole order is drawn all the same.  batch: samples that a part
        should hold a multiple of, where it is not that of the training.
        """
        yield _order(self.n_samples, rng)[skip:]

    def placed(self, order: np.ndarray) -> np.ndarray:
        """Return where samples of an order lie in the sources."""
        return order


class Windows:
    """A data set larger than the memory of a GPU: gathered in the order of the epoch, a window after the other.

    The order is that of `Whole`, and so are the batches.  batch: samples that a window holds a multiple of.
    sources, n_samples, bytes_uploaded: as for `Whole`.
    """

    def __init__(self, dataset: Dataset, backend: Backend, batch: int) -> None:
        self._columns = _columns(dataset, backend)
        for name, (rows, dtype) in self._columns.items():
            if name != "weights":
                check_range(name, rows, dtype)
        self.n_samples = dataset.n_samples
        self._window = _window(dataset, backend, batch)
        self._staging = _staging(self._columns, backend, self._window)
        self.sources = _sources(self._staging.arrays, dataset)

    @property
    def bytes_uploaded(self) -> int:
        """Bytes sent to the GPU so far."""
        return self._staging.bytes_sent

    def parts(self, rng: Orders | None, skip: int = 0, batch: int = 1) -> Iterator[np.ndarray]:
        """Send one window after the other and yield the order of each; see `Whole.parts`."""
        size = self._window // batch * batch or self._window
        return self._staging.ahead(self._windows(_order(self.n_samples, rng)[skip:], size))

    def placed(self, order: np.ndarray) -> np.ndarray:
        """Return where samples of an order lie in the sources."""
        return order

    def _windows(self, order: np.ndarray, size: int) -> Iterator[Window]:
        for start in range(0, len(order), size):
            samples = order[start : start + size]
            yield len(samples), partial(self._gather, samples), np.arange(len(samples))

    def _gather(self, samples: np.ndarray, out: Rows) -> None:
        for name, (rows, _) in self._columns.items():
            if rows.dtype == out[name].dtype:
                np.take(rows, samples, 0, out[name], "clip")  # into `out` without another buffer
            else:
                out[name][...] = rows[samples]


class Blocks:
    """A mapped data set, read in blocks: their order is shuffled, and the samples of all blocks held at a time.

    That is not a full shuffle: two samples meet in a batch only if their blocks are held together. A block holds a
    multiple of `batch` samples, so that an epoch has one short step at most.
    Of several processes each reads and holds the samples of its own shards alone. Where one process trains on a GPU, a
    pool is read and sent while the steps of the one before it run.
    sources, n_samples, bytes_uploaded: as for `Whole`.  before_loading: called with the arguments of `load`.
    """

    def __init__(self, dataset: Dataset, backend: Backend, batch: int, shards: Shards | None = None) -> None:
        self._backend, self._shards = backend, None if shards is None or shards.is_all else shards
        self.before_loading: Callable[[np.ndarray, np.ndarray], None] | None = None
        self.block, self._n_held = _blocks(dataset, backend, batch)
        self.n_samples, self._own = dataset.n_samples, np.arange(0)
        capacity = held_samples(dataset, backend, batch, shards=shards)
        self._columns = _columns(dataset, backend)
        is_sent = backend.device != "cpu" and not self.is_partial
        self._staging = _staging(self._columns, backend, capacity) if is_sent else None
        if self._staging is None:
            shapes = {name: ((capacity, rows.shape[1]), dtype) for name, (rows, dtype) in self._columns.items()}
            arrays = {name: backend.xp.empty(shape, dtype=dtype) for name, (shape, dtype) in shapes.items()}
        else:
            arrays = self._staging.arrays
        self.sources = _sources(arrays, dataset)
        self._bytes_loaded = 0

    @property
    def bytes_uploaded(self) -> int:
        """Bytes sent to a GPU so far."""
        return self._bytes_loaded + (0 if self._staging is None else self._staging.bytes_sent)

    @property
    def is_partial(self) -> bool:
        """Whether other processes read some of the samples."""
        return self._shards is not None

    def parts(self, rng: Orders | None, skip: int = 0, batch: int = 1) -> Iterator[np.ndarray]:
        """Load one pool of blocks after the other and yield an order over each: drawn by `rng`, or the file's own.

        skip: samples already done; their orders are drawn, but they are neither read nor yielded.  batch: not heeded.
        """
        if self._staging is not None:
            return self._staging.ahead(self._windows(rng, skip))
        return self._loaded(rng, skip)

    def _loaded(self, rng: Orders | None, skip: int) -> Iterator[np.ndarray]:
        for pool, order, done in self._pools(rng, skip):
            if self.before_loading is not None:
                self.before_loading(pool, order)
            self.load(pool, order)
            yield order[done:]

    def _windows(self, rng: Orders | None, skip: int) -> Iterator[Window]:
        for pool, order, done in self._pools(rng, skip):
            yield len(order), partial(self._read_pool, pool), order[done:]

    def _pools(self, rng: Orders | None, skip: int) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
        """Yield the blocks of each pool, the order of their samples, and how many of that are done already."""
        blocks = _order(-(-self.n_samples // self.block), rng)
        for start in range(0, len(blocks), self._n_held):
            pool = blocks[start : start + self._n_held]
            size = int(np.minimum(self.block, self.n_samples - pool * self.block).sum())
            order = _order(size, rng)
            if skip < size:
                yield pool, order, skip
            skip = max(0, skip - size)

    def load(self, blocks: np.ndarray, order: np.ndarray) -> None:
        """Read a pool of blocks, or of several processes those samples of it that this one computes with.

        blocks: their numbers.  order: over their samples, side by side.
        """
        held = 0
        if self._shards is not None:
            self._own = np.sort(order[self._shards.places(len(order))])
        for samples, places in self._spans(blocks):
            if self._shards is None:
                self._load(samples, places)
            elif (part := self._own[(self._own >= places.start) & (self._own < places.stop)]).size:
                self._load(part - places.start + samples.start, slice(held, held + part.size))
                held += part.size

    def placed(self, order: np.ndarray) -> np.ndarray:
        """Return where samples of an order over the pool lie in the sources; those of other processes lie anywhere."""
        if self._shards is None:
            return order
        return np.minimum(np.searchsorted(self._own, order), max(1, self._own.size) - 1)

    def _spans(self, blocks: np.ndarray) -> Iterator[tuple[slice, slice]]:
        """Yield of each block where its samples are in the file, and where they go."""
        end = 0
        for first in (blocks * self.block).tolist():
            size = min(self.block, self.n_samples - first)
            yield slice(first, first + size), slice(end, end + size)
            end += size

    def _load(self, samples: Any, places: slice) -> None:
        """Read samples of the file into places of the sources."""
        for name in self._columns:
            target, block = self.sources[name][0], self._read(name, samples)
            part = np.ascontiguousarray(block, dtype=target.dtype)
            target[places] = self._backend.to_device(part, target.dtype)
            if self._backend.device != "cpu":
                self._bytes_loaded += part.nbytes

    def _read_pool(self, blocks: np.ndarray, out: Rows) -> None:
        for samples, places in self._spans(blocks):
            for name in self._columns:
                out[name][places] = self._read(name, samples)

    def _read(self, name: str, samples: Any) -> np.ndarray:
        """Return rows of the file; refuses those that the backend's floats cannot hold."""
        block = self._columns[name][0][samples]
        if name != "weights":
            check_range(name, block, self._backend.dtype)
        return block


Feed = Whole | Windows | Blocks


def feed_of(dataset: Dataset, backend: Backend, batch: int, shards: Shards | None = None, *, beside: int = 0) -> Feed:
    """Return the feed that suits the data set.

    batch: samples that a block or window holds a multiple of.  shards: of each step, of which this process computes
    some.  beside: bytes of a GPU's memory that are needed for other things than these data.
    """
    if dataset.is_mapped:
        return Blocks(dataset, backend, batch, shards)
    is_alone = shards is None or shards.is_all
    if is_alone and not is_held_whole(dataset, backend, beside, backend.free_memory()):
        return Windows(dataset, backend, batch)
    return Whole(dataset, backend)


def is_held_whole(dataset: Dataset, backend: Backend, beside: int, free: int | None) -> bool:
    """Whether a data set in memory goes to the device at once: it fits, lies there, or there is no other memory.

    free: bytes of the device's memory, None on a CPU.
    """
    if free is None or not isinstance(dataset.samples, np.ndarray):
        return True
    return row_bytes(dataset, backend) * dataset.n_samples + beside <= free


def held_samples(
    dataset: Dataset, backend: Backend, batch: int, is_whole: bool = True, shards: Shards | None = None
) -> int:
    """Return how many samples an engine's sources hold at a time: all, or those of a window or of a pool of blocks.

    is_whole: of a data set in memory, whether all goes to the device at once.
    shards: of each step; of a pool a process that computes some of them holds the samples of these, and one at least.
    """
    if not dataset.is_mapped:
        return dataset.n_samples if is_whole else _window(dataset, backend, batch)
    block, n_held = _blocks(dataset, backend, batch)
    n = min(block * n_held, dataset.n_samples)
    return n if shards is None or shards.is_all else max(1, len(shards.places(n)))


def rows_held(row_bytes: int) -> int:
    """Return how many rows of that size are held at a time: those of a pool, and one at least."""
    return max(1, POOL_BYTES // max(1, row_bytes))


def _feature_type(dataset: Dataset, backend: Backend) -> np.dtype[Any]:
    return dataset.samples.dtype if dataset.samples.dtype == np.uint8 else backend.dtype


def _columns(dataset: Dataset, backend: Backend) -> dict[str, tuple[np.ndarray, np.dtype[Any]]]:
    """Return the rows of each name of the data, and their type on the device."""
    columns = {"X": (dataset.samples, _feature_type(dataset, backend)), "Y": (dataset.targets, backend.dtype)}
    weights = dataset.relative_weights()
    if weights is not None:
        columns["weights"] = (weights, backend.dtype)
    return columns


def _staging(columns: dict[str, tuple[np.ndarray, np.dtype[Any]]], backend: Backend, capacity: int) -> Staging:
    shapes = {name: (rows.shape[1], dtype) for name, (rows, dtype) in columns.items()}
    return Staging(backend, shapes, capacity)


def _sources(arrays: dict[str, Any], dataset: Dataset) -> Sources:
    return {name: (array, dataset.scale if name == "X" else None) for name, array in arrays.items()}


def row_bytes(dataset: Dataset, backend: Backend) -> int:
    """Return the bytes of a sample on the device."""
    n_floats = dataset.n_outputs + (dataset.weights is not None)
    return dataset.n_features * _feature_type(dataset, backend).itemsize + n_floats * backend.dtype.itemsize


def _window(dataset: Dataset, backend: Backend, batch: int) -> int:
    """Return the samples of a window: whole batches, as many at least as an evaluation takes at a time."""
    fitting = max(rows_held(row_bytes(dataset, backend)), batch, BATCH)
    return min(-(-fitting // batch) * batch, dataset.n_samples)


def _blocks(dataset: Dataset, backend: Backend, batch: int) -> tuple[int, int]:
    """Return the samples of a block, and the blocks held at a time."""
    n_bytes = row_bytes(dataset, backend)
    block = min(-(-max(1, BLOCK_BYTES // n_bytes) // batch) * batch, dataset.n_samples)
    n_held = min(rows_held(block * n_bytes), -(-dataset.n_samples // block))
    return block, n_held


def _order(n: int, rng: Orders | None) -> np.ndarray:
    order = np.arange(n)
    draw(order, rng)
    return order


def draw(order: np.ndarray, rng: Orders | None) -> None:
    """Put 0, 1, 2, ... into the order that is drawn, in place."""
    if rng is not None:
        rng.shuffle(order)
