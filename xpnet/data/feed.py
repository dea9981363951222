"""Feed samples to an engine: the whole data set uploaded once, or a mapped file block by block.

An engine gathers rows from arrays that do not change place. `Whole` fills them once; `Blocks` refills them during an
epoch, so that a file larger than memory trains. `feed_of` chooses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np

from xpnet.backend import Backend
from xpnet.data.checks import check_range
from xpnet.data.dataset import Dataset
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

    def parts(self, rng: Orders | None, skip: int = 0) -> Iterator[np.ndarray]:
        """Yield the one order (n_samples - skip,) of an epoch: drawn by `rng`, or the data's own; see `draw`.

        skip: samples of the order already done; the whole order is drawn all the same.
        """
        yield _order(self.n_samples, rng)[skip:]

    def placed(self, order: np.ndarray) -> np.ndarray:
        """Return where samples of an order lie in the sources."""
        return order


class Blocks:
    """A mapped data set, read in blocks: their order is shuffled, and the samples of all blocks held at a time.

    That is not a full shuffle: two samples meet in a batch only if their blocks are held together. A block holds a
    multiple of `batch` samples, so that an epoch has one short step at most.
    Of several processes each reads and holds the samples of its own shards alone.
    sources, n_samples, bytes_uploaded: as for `Whole`.  before_loading: called with the arguments of `load`.
    """

    def __init__(self, dataset: Dataset, backend: Backend, batch: int, shards: Shards | None = None) -> None:
        self._backend, self._shards = backend, None if shards is None or shards.is_all else shards
        self.before_loading: Callable[[np.ndarray, np.ndarray], None] | None = None
        self.block, self._n_held = _blocks(dataset, backend, batch)
        self.n_samples, self._own = dataset.n_samples, np.arange(0)
        capacity = held_samples(dataset, backend, batch, shards)
        columns = {"X": (dataset.samples, _feature_type(dataset, backend)), "Y": (dataset.targets, backend.dtype)}
        weights = dataset.relative_weights()
        if weights is not None:
            columns["weights"] = (weights, backend.dtype)
        self._columns = {name: rows for name, (rows, _) in columns.items()}
        self.sources: Sources = {
            name: (backend.xp.empty((capacity, rows.shape[1]), dtype=dtype), dataset.scale if name == "X" else None)
            for name, (rows, dtype) in columns.items()
        }
        self.bytes_uploaded = 0

    @property
    def is_partial(self) -> bool:
        """Whether other processes read some of the samples."""
        return self._shards is not None

    def parts(self, rng: Orders | None, skip: int = 0) -> Iterator[np.ndarray]:
        """Load one pool of blocks after the other and yield an order over each: drawn by `rng`, or the file's own.

        skip: samples already done; their orders are drawn, but they are neither read nor yielded.
        """
        blocks = _order(-(-self.n_samples // self.block), rng)
        for start in range(0, len(blocks), self._n_held):
            pool = blocks[start : start + self._n_held]
            size = int(np.minimum(self.block, self.n_samples - pool * self.block).sum())
            order = _order(size, rng)
            if skip < size:
                if self.before_loading is not None:
                    self.before_loading(pool, order)
                self.load(pool, order)
                yield order[skip:]
            skip = max(0, skip - size)

    def load(self, blocks: np.ndarray, order: np.ndarray) -> None:
        """Read a pool of blocks, or of several processes those samples of it that this one computes with.

        blocks: their numbers.  order: over their samples, side by side.
        """
        end, held = 0, 0
        if self._shards is not None:
            self._own = np.sort(order[self._shards.places(len(order))])
        for first in (blocks * self.block).tolist():
            size = min(self.block, self.n_samples - first)
            if self._shards is None:
                self._read(slice(first, first + size), slice(end, end + size))
            elif (part := self._own[(self._own >= end) & (self._own < end + size)]).size:
                self._read(part - end + first, slice(held, held + part.size))
                held += part.size
            end += size

    def placed(self, order: np.ndarray) -> np.ndarray:
        """Return where samples of an order over the pool lie in the sources; those of other processes lie anywhere."""
        if self._shards is None:
            return order
        return np.minimum(np.searchsorted(self._own, order), max(1, self._own.size) - 1)

    def _read(self, samples: Any, places: slice) -> None:
        """Read samples of the file into places of the sources."""
        for name, rows in self._columns.items():
            target, block = self.sources[name][0], rows[samples]
            if name != "weights":
                check_range(name, block, self._backend.dtype)
            part = np.ascontiguousarray(block, dtype=target.dtype)
            target[places] = self._backend.to_device(part, target.dtype)
            if self._backend.device != "cpu":
                self.bytes_uploaded += part.nbytes


Feed = Whole | Blocks


def feed_of(dataset: Dataset, backend: Backend, batch: int, shards: Shards | None = None) -> Feed:
    """Return the feed that suits the data set.

    batch: samples that a block holds a multiple of.  shards: of each step, of which this process computes some.
    """
    return Blocks(dataset, backend, batch, shards) if dataset.is_mapped else Whole(dataset, backend)


def held_samples(dataset: Dataset, backend: Backend, batch: int, shards: Shards | None = None) -> int:
    """Return how many samples an engine's sources hold at a time: all, or those of a pool of blocks.

    shards: of each step; of a pool a process that computes some of them holds the samples of these, and one at least.
    """
    if not dataset.is_mapped:
        return dataset.n_samples
    block, n_held = _blocks(dataset, backend, batch)
    n = min(block * n_held, dataset.n_samples)
    return n if shards is None or shards.is_all else max(1, len(shards.places(n)))


def rows_held(row_bytes: int) -> int:
    """Return how many rows of that size are held at a time: those of a pool, and one at least."""
    return max(1, POOL_BYTES // max(1, row_bytes))


def _feature_type(dataset: Dataset, backend: Backend) -> np.dtype[Any]:
    return dataset.samples.dtype if dataset.samples.dtype == np.uint8 else backend.dtype


def _blocks(dataset: Dataset, backend: Backend, batch: int) -> tuple[int, int]:
    """Return the samples of a block, and the blocks held at a time."""
    n_floats = dataset.n_outputs + (dataset.weights is not None)
    row_bytes = dataset.n_features * _feature_type(dataset, backend).itemsize + n_floats * backend.dtype.itemsize
    block = min(-(-max(1, BLOCK_BYTES // row_bytes) // batch) * batch, dataset.n_samples)
    n_held = min(rows_held(block * row_bytes), -(-dataset.n_samples // block))
    return block, n_held


def _order(n: int, rng: Orders | None) -> np.ndarray:
    order = np.arange(n)
    draw(order, rng)
    return order


def draw(order: np.ndarray, rng: Orders | None) -> None:
    """Put 0, 1, 2, ... into the order that is drawn, in place."""
    if rng is not None:
        rng.shuffle(order)
