"""The reference engine: bind a Program's calls to arrays once, then call the list, step after step.

It serves NumPy and CuPy alike. A step allocates nothing, transfers nothing and computes nothing in Python.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from xpnet.backend import Backend
from xpnet.engines.numpy_calls import NumpyCalls
from xpnet.program.calls import Call, Constant, Operand, Program

_ITERATOR_BYTES = 2048  # what NumPy's iterators may allocate where operands broadcast; 8192 elements, if not told
_KEPT_BATCH_SIZES = 8  # bound lists kept besides the full batch; an epoch needs one, for its last step


@contextmanager
def _quiet_and_small(itemsize: int) -> Iterator[None]:
    """No warnings, as on a GPU: a loss that is not finite tells. And small iterators, so that a step allocates none."""
    with np.errstate(all="ignore"):  # gives back the buffer size too
        np.setbufsize(_ITERATOR_BYTES // itemsize)
        yield


@dataclass(frozen=True)
class BoundStep:
    """A Program of one batch size, as an engine calls it."""

    gathers: tuple[Callable[[Any], Any], ...]  # each is given the samples
    phases: dict[str, list[Callable[[], Any]]]
    calls: list[Callable[[], Any]]
    update: list[Callable[[], Any]]  # what `calls` lacks, where a step has not always an update


class Replay:
    """Runs a Program on one backend by calling its list.

    name: of the engine, as records tell it.

    owned: the network's flat vector (theta, then statistics); it is used in place, everything else is allocated here.
    data: name -> (array (n_samples, n), scale or None) for the Program's gathers; not needed for `feed`.
    """

    name = "replay"

    def __init__(
        self, program: Program, backend: Backend, owned: Any, data: Mapping[str, tuple[Any, float | None]] | None = None
    ) -> None:
        self.program, self.backend = program, backend
        self.bytes_uploaded = 0
        self._owned = owned
        self._data = dict(data or {})
        self._floats = backend.zeros(program.n_floats - program.n_owned + self._extra_floats(program))
        self._uints = backend.zeros(program.n_uints, np.uint32)
        for constant in program.constants:
            self._fill(constant)
        self._arrays: dict[Any, Any] = {}
        self._bound: dict[int, tuple[Program, BoundStep]] = {}
        self._staging: dict[str, Any] = {}
        start = program.state_offset - program.n_owned
        self._numpy = NumpyCalls(program, self._array) if backend.xp is np else None
        # What lives on from step to step besides theta and statistics; writable, to take up a run where it was left.
        self.state, self.keys = self._floats[start : start + program.n_state], self._uints[: program.n_keys]
        # The recorder lays slots and results side by side, behind the state.
        self._slots = self._side_by_side(program.slots)
        self._results = self._side_by_side(program.results)

    def run(self, order: np.ndarray, rows_in: np.ndarray) -> np.ndarray:
        """Run a step for every `capacity` samples of `order`; the last step may be short.

        A Program that accumulates has its update after every `accumulate` steps, and after the last.
        order (n,): indices into the gathered data.  rows_in (n_steps, n_slots), float64: what each step's slots hold.
        Returns rows_out (n_steps, n_results) on the host, float64.
        Both travel once: one upload before the first step, one read after the last.
        """
        capacity, n_samples = self.program.capacity, len(order)
        n_steps = -(-n_samples // capacity)
        device_order, rows = self._upload(self._check_order(order), rows_in, n_steps)
        rows_out = self.backend.xp.empty((n_steps, len(self.program.results)), dtype=self.backend.dtype)
        # Most rates do not change from step to step: then one copy does for all.
        same_slots = rows is not None and bool((rows_in == rows_in[:1]).all())
        accumulate = self.program.accumulate
        with _quiet_and_small(self.backend.dtype.itemsize):
            for t in range(n_steps):
                samples = device_order[t * capacity : (t + 1) * capacity]
                if t == 0 or t == n_steps - 1:  # the first and the last step may be short
                    step = self._at(len(samples))[1]
                if rows is not None and (t == 0 or not same_slots):
                    self._slots[...] = rows[t]
                for gather in step.gathers:
                    gather(samples)
                for call in step.calls:
                    call()
                if step.update and ((t + 1) % accumulate == 0 or t + 1 == n_steps):
                    for call in step.update:
                        call()
                rows_out[t] = self._results
        return self.backend.to_host(rows_out).astype(np.float64)

    def feed(self, batch: int, **arrays: Any) -> None:
        """Copy device arrays (n, batch) into the buffers of these names, in place of a gather."""
        program, _ = self._at(batch)
        for name, array in arrays.items():
            self._view(program, name)[...] = array

    def set_slots(self, row: np.ndarray) -> None:
        """Fill the slots (n_slots,) for the next `execute`."""
        if row.size:
            with np.errstate(over="ignore"):
                self._slots[...] = self.backend.to_device(row)

    def execute(self, batch: int, *phases: str) -> None:
        """Run these phases, or all of them, on the first `batch` samples of the buffers as they are."""
        _, step = self._at(batch)
        with _quiet_and_small(self.backend.dtype.itemsize):
            for phase in phases or step.phases:
                for call in step.phases[phase]:
                    call()

    def read_results(self) -> dict[str, float]:
        """The results of the last `execute`, by name; one read from the device."""
        values = self.backend.to_host(self._results)
        return {name: float(value) for name, value in zip(self.program.results, values, strict=True)}

    def read(self, name: str, batch: int) -> Any:
        """The buffer of that name as the math sees it: a view, valid until the next step.

        On NumPy a vector that is only summed up may stay unwritten, such as the losses of the samples.
        """
        return self._view(self._at(batch)[0], name)

    def _extra_floats(self, program: Program) -> int:
        """Elements that an engine derived from this one needs behind the float arena."""
        return 0

    def _fill(self, constant: Constant) -> None:
        """Compute a constant on the host and upload it, once."""
        values = constant.start + constant.multiplier * np.arange(constant.size, dtype=np.uint64)  # wraps modulo 2^64
        values = (values & np.uint64(2**32 - 1)).astype(np.uint32)
        self._slice("uint32", constant.buffer.offset, constant.size)[...] = self.backend.to_device(values, np.uint32)
        if self.backend.device != "cpu":
            self.bytes_uploaded += values.nbytes

    def _at(self, batch: int) -> tuple[Program, BoundStep]:
        found = self._bound.get(batch)
        if found is None:
            if len(self._bound) > _KEPT_BATCH_SIZES:
                del self._bound[next(size for size in self._bound if size != self.program.capacity)]
                self._arrays.clear()
            program = self.program.at(batch)
            found = self._bound[batch] = (program, self._bind(program))
        return found

    def _bind(self, program: Program) -> BoundStep:
        phases: dict[str, list[Callable[[], Any]]] = {}
        for phase in program.phases:
            calls = [call for call in program.calls if call.phase == phase]
            if self._numpy is None:
                phases[phase] = [self._call(call) for call in calls]
            else:
                phases[phase] = self._numpy.bind(calls, [call for call in program.calls if call.phase != phase])
        gathers = tuple(self._gather(name, self._memory(buffer)) for name, buffer in program.gathers if self._data)
        return self._step(program, phases, gathers)

    def _step(
        self, program: Program, phases: dict[str, list[Callable[[], Any]]], gathers: tuple[Callable[[Any], Any], ...]
    ) -> BoundStep:
        update = phases.get("update", []) if program.accumulate > 1 else []
        every = [call for calls in phases.values() if calls is not update for call in calls]
        return BoundStep(gathers, phases, every, update)

    def _gather(self, name: str, out: Any) -> Callable[[Any], Any]:
        """One `take` of a step: rows of the data into `out`; uint8 ones through a staging buffer, and scaled."""
        source, scale = self._data[name]
        take, multiply, on_cpu = source.take, self.backend.xp.multiply, self.backend.xp is np
        if scale is None:  # "clip" lets NumPy write into `out` without a buffer of its own; CuPy's take has no mode
            return (lambda samples: take(samples, 0, out, "clip")) if on_cpu else lambda samples: take(samples, 0, out)
        if name not in self._staging:
            self._staging[name] = self.backend.xp.empty((self.program.capacity, source.shape[1]), dtype=source.dtype)
        staging, factor = self._staging[name][: len(out)], np.array(scale, out.dtype) if on_cpu else scale

        def gather_scaled(samples: Any) -> None:
            if on_cpu:  # a product of two types would be cast through buffers that NumPy allocates
                take(samples, 0, staging, "clip")
                np.copyto(out, staging)
                multiply(out, factor, out)
            else:
                take(samples, 0, staging)
                multiply(staging, factor, out=out)

        return gather_scaled

    def _call(self, call: Call) -> Callable[[], Any]:
        out = self._array(call.out)
        inputs: list[Any] = [self._array(item) if isinstance(item, Operand) else item for item in call.inputs]
        if call.word == "matmul":
            return partial(inputs[0].dot, inputs[1], out)
        keywords = {} if call.axis is None else {"axis": call.axis, "keepdims": True}
        return partial(getattr(self.backend.xp, call.word), *inputs, out=out, **keywords)

    def _array(self, operand: Operand) -> Any:
        """The operand's array; made once, since CuPy copies an operand that overlaps `out` but is another object."""
        key = (operand.buffer.kind, operand.buffer.offset, operand.shape, operand.transposed)
        found = self._arrays.get(key)
        if found is None:
            found = self._slice(operand.buffer.kind, operand.buffer.offset, operand.buffer.size).reshape(operand.shape)
            found = self._arrays[key] = found.T if operand.transposed else found
        return found

    def _memory(self, buffer: Any) -> Any:
        """A batch buffer as it lies in memory: (batch, n)."""
        return self._array(Operand(buffer, buffer.shape[::-1]))

    def _view(self, program: Program, name: str) -> Any:
        buffer = program.buffers[name]
        array = self._slice(buffer.kind, buffer.offset, buffer.size)
        return array.reshape(buffer.shape[::-1]).T if buffer.flipped else array.reshape(buffer.shape)

    def _slice(self, kind: str, offset: int, size: int) -> Any:
        if kind == "uint32":
            return self._uints[offset : offset + size]
        start = offset - self.program.n_owned
        return self._owned[offset : offset + size] if start < 0 else self._floats[start : start + size]

    def _side_by_side(self, names: tuple[str, ...]) -> Any:
        start = self.program.buffers[names[0]].offset if names else self.program.n_owned
        return self._slice("float", start, len(names))

    def _check_order(self, order: np.ndarray) -> np.ndarray:
        order = np.asarray(order)
        if order.ndim != 1 or order.dtype.kind not in "iu":
            raise TypeError(
                f"order is {order.dtype} {order.shape}; needed is a vector of sample indices, whole numbers"
            )
        order = np.ascontiguousarray(order, dtype=np.int64)
        low, high = (int(order.min()), int(order.max())) if order.size else (-1, -1)
        for name, (source, _) in self._data.items():
            if low < 0 or high >= len(source):
                found = f"{low} to {high}" if order.size else "nothing"
                raise IndexError(f"order has {found}, {name} has samples 0 to {len(source) - 1}; choose among these")
        return order

    def _check_data(self) -> None:
        """Refuse data that a gather in generated code would misread: it knows neither strides nor other types."""
        dtype = self.backend.dtype
        for name, buffer in self.program.gathers if self._data else ():
            source, scale = self._data[name]
            # CuPy's arrays are always aligned, and do not say so.
            lies = source.flags.c_contiguous and (self.backend.xp is not np or source.flags.aligned)
            fits = source.shape[1:] == buffer.shape[:1] and lies
            if not fits or source.dtype != (dtype if scale is None else np.uint8):
                order = "C-contiguous" if lies else "not C-contiguous or not aligned"
                raise TypeError(
                    f"{name} is {source.dtype} {source.shape}, {order}, scale {scale}; needed is a "
                    f"C-contiguous array (n_samples, {buffer.shape[0]}) of {dtype}, or of uint8 with a "
                    "scale: xp.ascontiguousarray(rows, dtype)"
                )

    def _upload(self, order: np.ndarray, rows_in: np.ndarray, n_steps: int) -> tuple[Any, Any]:
        """Move indices and slot rows to the device in ONE transfer, as one block of bytes seen twice."""
        n_slots = len(self.program.slots)
        if rows_in.shape != (n_steps, n_slots):
            raise ValueError(f"rows_in is {rows_in.shape}, needed is ({n_steps}, {n_slots}): steps by slots")
        with np.errstate(over="ignore"):  # a rate beyond float32 is infinite there, and the loss will tell
            rows = np.ascontiguousarray(rows_in, dtype=self.backend.dtype)
        if self.backend.device == "cpu":
            return order, rows if n_slots else None
        block = np.concatenate([order.view(np.uint8), rows.reshape(-1).view(np.uint8)])
        self.bytes_uploaded += block.nbytes
        on_device = self.backend.to_device(block, np.uint8)
        indices = on_device[: order.nbytes].view(np.int64)
        if not n_slots:
            return indices, None
        return indices, on_device[order.nbytes :].view(self.backend.dtype).reshape(rows.shape)
