"""The memory of a Program on one backend: arenas, constants, views, data and transfers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

import numpy as np

from xpnet.backend import Backend
from xpnet.program.calls import Buffer, Constant, Operand, Program

_KEPT_BATCH_SIZES = 64  # besides the full batch: predictions come in many sizes

T = TypeVar("T")


class BySize(Generic[T]):
    """Keep a value for each batch size: for the full batch, and for the others used last."""

    def __init__(self, full: int) -> None:
        self._full = full
        self._made: dict[int, T] = {}
        self._last: tuple[int, T] | None = None

    def get(self, batch: int, make: Callable[[int], T]) -> T:
        """Return the value for that batch size; `make(batch)` makes it where it is missing."""
        if self._last is not None and self._last[0] == batch:
            return self._last[1]
        found = self._made.pop(batch, None)
        if found is None:
            if len(self._made) > _KEPT_BATCH_SIZES:
                del self._made[next(size for size in self._made if size != self._full)]
            found = make(batch)
        self._made[batch] = found  # behind all others: the first is the one to go
        self._last = batch, found
        return found


class Memory:
    """The arrays that an engine works on.

    owned: the network's flat vector (theta, then statistics), used in place; everything else is allocated here.
    data: name -> (array (n_samples, n), scale or None) for the Program's gathers; None where samples are fed.
    extra_floats: elements that an engine needs behind the float arena.

    floats, uints: the two arenas; `floats` begins behind the owned vector.  state, keys, slots, results: parts of them.
    bytes_uploaded: bytes moved to the device so far.
    """

    def __init__(
        self,
        program: Program,
        backend: Backend,
        owned: Any,
        data: Mapping[str, tuple[Any, float | None]] | None = None,
        extra_floats: int = 0,
    ) -> None:
        self.program, self.backend, self.owned, self.data = program, backend, owned, dict(data or {})
        self.bytes_uploaded = 0
        self.floats = backend.zeros(program.n_floats - program.n_owned + extra_floats)
        self.uints = backend.zeros(program.n_uints, np.uint32)
        self._views = BySize[dict[str, Any]](program.capacity)
        self._arrays: dict[Any, Any] = {}
        for constant in program.constants:
            self._fill(constant)
        self.state = self._slice("float", program.state_offset, program.n_state)
        self.keys = self.uints[: program.n_keys]
        # The recorder lays slots and results side by side, behind the state.
        self.slots, self.results = self._side_by_side(program.slots), self._side_by_side(program.results)

    @property
    def nbytes(self) -> int:
        """Bytes of the two arenas."""
        return int(self.floats.nbytes + self.uints.nbytes)

    @property
    def n_samples(self) -> int:
        """Number of samples of the data."""
        return min(len(source) for source, _ in self.data.values())

    @property
    def gathers(self) -> tuple[tuple[str, Buffer], ...]:
        """The Program's gathers; empty without data."""
        return self.program.gathers if self.data else ()

    def at(self, batch: int) -> Program:
        """Return the Program for that batch size."""
        return self.program.at(batch)

    def set_slots(self, row: np.ndarray) -> None:
        """Fill the slots (n_slots,)."""
        if row.size:
            with np.errstate(over="ignore"):
                self.slots[...] = self.backend.to_device(row)

    def read_results(self) -> dict[str, float]:
        """Return the results by name, in one read from the device."""
        values = self.backend.to_host(self.results)
        return {name: float(value) for name, value in zip(self.program.results, values, strict=True)}

    def view(self, name: str, batch: int) -> Any:
        """Return the buffer of that name, at a batch size, in the shape of the math."""
        views = self._views.get(batch, lambda batch: {})
        found = views.get(name)
        if found is None:
            buffer = self.at(batch).buffers[name]
            array = self._slice(buffer.kind, buffer.offset, buffer.size)
            found = array.reshape(buffer.shape[::-1]).T if buffer.flipped else array.reshape(buffer.shape)
            views[name] = found
        return found

    def array(self, operand: Operand) -> Any:
        """Return an operand's array, always the same object: CuPy copies another one that overlaps `out`."""
        key = (operand.buffer.kind, operand.buffer.offset, operand.shape, operand.transposed)
        found = self._arrays.get(key)
        if found is None:
            found = self._slice(operand.buffer.kind, operand.buffer.offset, operand.buffer.size).reshape(operand.shape)
            found = self._arrays[key] = found.T if operand.transposed else found
        return found

    def forget_arrays(self) -> None:
        """Forget the arrays of operands, before those of another batch size are made."""
        self._arrays.clear()

    def upload(self, order: np.ndarray, rows_in: np.ndarray) -> tuple[Any, Any]:
        """Check a run's indices and slot rows, and move them to the device in ONE transfer.

        order (n,), rows_in (n_steps, n_slots).  Returns both on the device; the rows are None without slots.
        """
        self.backend.check_here()
        order = self._check_order(order)
        n_slots = self._check_rows(rows_in.shape, len(order))
        with np.errstate(over="ignore"):  # a rate beyond float32 becomes infinite, and so the loss
            rows = np.ascontiguousarray(rows_in, dtype=self.backend.dtype)
        return self._sent(order, rows if n_slots else None)

    def upload_epochs(self, orders: np.ndarray, rows_in: np.ndarray) -> tuple[Any, Any]:
        """Check what epochs are given and move it to the device in ONE transfer; the arguments are `check_epochs`'s."""
        self.backend.check_here()
        return self._sent(*self.check_epochs(orders, rows_in))

    def _sent(self, order: np.ndarray, rows: np.ndarray | None) -> tuple[Any, Any]:
        if self.backend.device == "cpu":
            return order, rows
        rows_of = np.empty(0, self.backend.dtype) if rows is None else rows
        # One block, seen twice.
        block = np.concatenate([order.reshape(-1).view(np.uint8), rows_of.reshape(-1).view(np.uint8)])
        self.bytes_uploaded += block.nbytes
        on_device = self.backend.to_device(block, np.uint8)
        indices = on_device[: order.nbytes].view(np.int64).reshape(order.shape)
        if rows is None:
            return indices, None
        return indices, on_device[order.nbytes :].view(self.backend.dtype).reshape(rows.shape)

    def check_epochs(self, orders: np.ndarray, rows_in: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Check the indices and slot rows of epochs.

        orders (n_epochs, n), rows_in (n_epochs, n_steps, n_slots): of each epoch as those of `upload`.
        """
        n_epochs, n = orders.shape
        self._check_rows(rows_in.shape[1:], n)
        orders = self._check_order(orders.reshape(-1)).reshape(n_epochs, n)
        with np.errstate(over="ignore"):
            rows = np.ascontiguousarray(rows_in, dtype=self.backend.dtype)
        return orders, rows if rows.size else None

    def _check_rows(self, shape: tuple[int, ...], n: int) -> int:
        """Refuse slot rows of another shape than n samples need; returns the number of slots."""
        n_steps, n_slots = -(-n // self.program.per_step), len(self.program.slots)
        if shape != (n_steps, n_slots):
            raise ValueError(f"rows_in is {shape}; it must be ({n_steps}, {n_slots}), steps by slots")
        return n_slots

    def check_data(self) -> None:
        """Refuse data that generated code would misread: it expects C order and one of two types."""
        dtype = self.backend.dtype
        for name, buffer in self.gathers:
            source, scale = self.data[name]
            # CuPy's arrays are always aligned but have no such flag.
            lies = source.flags.c_contiguous and (self.backend.xp is not np or source.flags.aligned)
            fits = source.shape[1:] == buffer.shape[:1] and lies
            if not fits or source.dtype != (dtype if scale is None else np.uint8):
                order = "C-contiguous" if lies else "not C-contiguous or not aligned"
                raise TypeError(
                    f"{name} is {source.dtype} {source.shape}, {order}, scale {scale}; it must be a "
                    f"C-contiguous array (n_samples, {buffer.shape[0]}) of {dtype}, or of uint8 with a "
                    "scale: xp.ascontiguousarray(rows, dtype)"
                )

    def _check_order(self, order: np.ndarray) -> np.ndarray:
        order = np.asarray(order)
        if order.ndim != 1 or order.dtype.kind not in "iu":
            raise TypeError(
                f"order is {order.dtype} {order.shape}; it must be a vector of sample indices, whole numbers"
            )
        order = np.ascontiguousarray(order, dtype=np.int64)
        low, high = (int(order.min()), int(order.max())) if order.size else (-1, -1)
        for name, (source, _) in self.data.items():
            if low < 0 or high >= len(source):
                found = f"{low} to {high}" if order.size else "nothing"
                raise IndexError(f"order has {found}, {name} has samples 0 to {len(source) - 1}; choose among these")
        return order

    def _fill(self, constant: Constant) -> None:
        """Compute a constant on the host and upload it, once."""
        values = constant.start + constant.multiplier * np.arange(constant.size, dtype=np.uint64)  # wraps modulo 2^64
        values = (values & np.uint64(2**32 - 1)).astype(np.uint32)
        self._slice("uint32", constant.buffer.offset, constant.size)[...] = self.backend.to_device(values, np.uint32)
        if self.backend.device != "cpu":
            self.bytes_uploaded += values.nbytes

    def _slice(self, kind: str, offset: int, size: int) -> Any:
        if kind == "uint32":
            return self.uints[offset : offset + size]
        start = offset - self.program.n_owned
        return self.owned[offset : offset + size] if start < 0 else self.floats[start : start + size]

    def _side_by_side(self, names: tuple[str, ...]) -> Any:
        start = self.program.buffers[names[0]].offset if names else self.program.n_owned
        return self._slice("float", start, len(names))
