"""The reference engine: bind a Program's calls to arrays once, then call the list, step after step.

It serves NumPy and CuPy. A step allocates nothing, transfers nothing and computes nothing in Python.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextvars import Context
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

import numpy as np

from xpnet.backend import Backend
from xpnet.engines.blas import numpy_gemm, products_on
from xpnet.engines.engine import Engine, EpochsRun
from xpnet.engines.memory import BySize, Memory
from xpnet.engines.numpy_calls import NumpyCalls
from xpnet.engines.sharded import StepsOfShards
from xpnet.parallel.reduction import Reduction
from xpnet.program.calls import Buffer, Call, Operand, Program

_ITERATOR_BYTES = 2048  # buffer of NumPy's iterators where operands broadcast; by default 8192 elements

_T = TypeVar("_T")
Phases = dict[str, list[Callable[[], Any]]]


def _quiet_and_small(itemsize: int) -> Context:
    """Return a context in which NumPy is quiet, since a loss that is not finite shows, and its iterators are small.

    With small iterators a step allocates none. To enter it costs a tenth of setting both anew.
    """

    def set_both() -> None:
        np.seterr(all="ignore")
        np.setbufsize(_ITERATOR_BYTES // itemsize)

    context = Context()
    context.run(set_both)
    return context


def _run_calls(*lists: Iterable[Callable[[], Any]]) -> None:
    for calls in lists:
        for call in calls:
            call()


@dataclass(frozen=True)
class BoundStep:
    """A Program of one batch size, as an engine calls it.

    phases: the calls of each.  calls: those of every step.  update: those of an update that not every step has.
    gathers: functions of the step's sample indices.  kept: objects that the calls know by address only.
    """

    phases: Phases
    calls: list[Callable[[], Any]]
    update: list[Callable[[], Any]]
    gathers: tuple[Callable[[Any], Any], ...]
    kept: tuple[Any, ...]


def bound_step(
    program: Program, phases: Phases, gathers: tuple[Callable[[Any], Any], ...] = (), kept: tuple[Any, ...] = ()
) -> BoundStep:
    """Return the phases as one list, with a separate update if not every step has one."""
    update = phases.get("update", []) if program.accumulate > 1 else []
    every = [call for calls in phases.values() if calls is not update for call in calls]
    return BoundStep(phases, every, update, gathers, kept)


def bound_call(memory: Memory, call: Call) -> Callable[[], Any]:
    """Return a call bound to its arrays, in a form that NumPy and CuPy share."""
    out = memory.array(call.out)
    inputs: list[Any] = [memory.array(item) if isinstance(item, Operand) else item for item in call.inputs]
    if call.word == "matmul":
        return partial(inputs[0].dot, inputs[1], out)
    keywords = {} if call.axis is None else {"axis": call.axis, "keepdims": True}
    return partial(getattr(memory.backend.xp, call.word), *inputs, out=out, **keywords)


class Replay(Engine):
    """Runs a Program on one backend by calling its list; the arguments are those of `Memory`.

    memory: that of another engine, which lacks code for some calls; None for a new one.
    blas_threads: of NumPy's products during `run`; None for as many as they have.
    reduction: adds the shards of a step, where the Program is recorded for them; None for one process alone.
    """

    name = "replay"

    def __init__(
        self,
        program: Program,
        backend: Backend,
        owned: Any,
        data: Mapping[str, tuple[Any, float | None]] | None = None,
        *,
        memory: Memory | None = None,
        blas_threads: int | None = None,
        reduction: Reduction | None = None,
    ) -> None:
        self.memory = Memory(program, backend, owned, data) if memory is None else memory
        self._steps = BySize[BoundStep](program.capacity)
        self._numpy = NumpyCalls(program, self.memory.array) if backend.xp is np else None
        self._staging: dict[str, Any] = {}
        self._gemm = None if blas_threads is None else numpy_gemm(backend.dtype)
        self._blas_threads = blas_threads
        self._context = _quiet_and_small(backend.dtype.itemsize)
        self._shards = None if program.shards is None else StepsOfShards(self.memory, reduction, self.at)

    def run(self, order: np.ndarray, rows_in: np.ndarray) -> np.ndarray:
        """See `Engine.run`."""
        return self.settled(self._run, order, rows_in)

    def _run(self, order: np.ndarray, rows_in: np.ndarray) -> np.ndarray:
        memory = self.memory
        device_order, rows = memory.upload(order, rows_in)
        rows_out = memory.backend.xp.empty((len(rows_in), len(self.program.results)), dtype=memory.backend.dtype)
        # Most learning rates are constant: then one copy suffices.
        same_slots = rows is not None and bool((rows_in == rows_in[:1]).all())
        self.take_steps(device_order, rows, rows_out, same_slots)
        return memory.backend.to_host(rows_out).astype(np.float64)

    def settled(self, function: Callable[..., _T], *arguments: Any) -> _T:
        """Call a function whose calls of NumPy give no warnings, with threads of BLAS that suit the products."""
        with products_on(self._gemm, self._blas_threads):
            return self._context.run(function, *arguments)

    def take_steps(self, order: Any, rows: Any, rows_out: Any, same_slots: bool) -> None:
        """Run the steps of `run` on arrays of the device, inside `settled`.

        rows (n_steps, n_slots), or None without slots.  rows_out (n_steps, n_results): is filled.
        same_slots: whether all rows are equal.
        """
        if self._shards is not None:
            self._shards.run(order, rows, rows_out)
            return
        memory, program, n_steps = self.memory, self.program, len(rows_out)
        capacity, slots, results = program.capacity, memory.slots, memory.results
        for t in range(n_steps):
            samples = order[t * capacity : (t + 1) * capacity]
            if t == 0 or t == n_steps - 1:  # the first and the last step may be short
                step = self.at(len(samples))
            if rows is not None and (t == 0 or not same_slots):
                slots[...] = rows[t]
            for gather in step.gathers:
                gather(samples)
            for call in step.calls:
                call()
            if step.update and program.has_update(t, n_steps):
                for call in step.update:
                    call()
            rows_out[t] = results

    def epochs(self, n: int, measuring: Engine | None = None) -> EpochsInTurn | None:
        """See `Engine.epochs`; replayed on a GPU each epoch is run by itself."""
        return EpochsInTurn(self, measuring) if self.memory.backend.device == "cpu" else None

    def execute(self, batch: int, *phases: str) -> None:
        """See `Engine.execute`."""
        step = self.at(batch)
        lists = [step.phases[phase] for phase in phases] if phases else (step.calls, step.update)
        self._context.run(_run_calls, *lists)

    def at(self, batch: int) -> BoundStep:
        """Return the step for that batch size, bound once."""
        return self._steps.get(batch, self._bind)

    def _bind(self, batch: int) -> BoundStep:
        program, phases = self.memory.at(batch), Phases()
        self.memory.forget_arrays()
        for phase in program.phases:
            calls = [call for call in program.calls if call.phase == phase]
            if self._numpy is None:
                phases[phase] = [bound_call(self.memory, call) for call in calls]
            else:
                phases[phase] = self._numpy.bind(calls, [call for call in program.calls if call.phase != phase])
        gathers = [self._gather(name, buffer) for name, buffer in (program.gathers if self.memory.data else ())]
        return bound_step(program, phases, tuple(gathers))

    def _gather(self, name: str, buffer: Buffer) -> Callable[[Any], Any]:
        """Return a function that copies samples of the data into a buffer; uint8 ones are staged and scaled."""
        (source, scale), xp = self.memory.data[name], self.memory.backend.xp
        out = self.memory.array(Operand(buffer, buffer.shape[::-1]))  # (batch, n), as in memory
        take, multiply, on_cpu = source.take, xp.multiply, xp is np
        if scale is None:  # "clip" lets NumPy write into `out` without another buffer; CuPy's take has no mode
            return (lambda samples: take(samples, 0, out, "clip")) if on_cpu else lambda samples: take(samples, 0, out)
        if name not in self._staging:
            self._staging[name] = xp.empty((self.program.capacity, source.shape[1]), dtype=source.dtype)
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


class TakesSteps(Protocol):
    """An engine that fills a row for each step; see `Replay.take_steps` and `Replay.settled`."""

    memory: Memory

    def take_steps(self, order: Any, rows: Any, rows_out: Any, same_slots: bool) -> None:
        """Run the steps of an epoch."""

    def settled(self, function: Callable[..., _T], *arguments: Any) -> _T:
        """Call a function as the engine needs it."""
        ...


class EpochsInTurn:
    """Runs epochs of an engine on the CPU, each followed by a measurement with another one, if there is one."""

    def __init__(self, engine: TakesSteps, measuring: Engine | None) -> None:
        self._engine, self._measuring = engine, measuring

    def run(self, orders: np.ndarray, rows_in: np.ndarray, copies: bool = True) -> EpochsRun:
        """Run an epoch for each row of `orders`; see `RunsEpochs.run`."""
        engine, measuring, memory, n_epochs = self._engine, self._measuring, self._engine.memory, len(orders)
        orders, rows = memory.check_epochs(orders, rows_in)
        rows_out = np.empty((*rows_in.shape[:2], len(memory.program.results)), memory.backend.dtype)
        same_slots = (rows_in == rows_in[:, :1]).all(axis=(1, 2)).tolist()
        sources = memory.owned, memory.state, memory.keys
        kept = [np.empty((n_epochs, array.size), array.dtype) if copies else array[None] for array in sources]
        measured, order, no_slots = [], np.empty(0, np.int64), np.empty((0, 0))
        if measuring is not None:
            order = np.arange(measuring.memory.n_samples)
            no_slots = np.empty((-(-len(order) // measuring.program.capacity), 0))

        def run_all() -> None:
            for i in range(n_epochs):
                engine.take_steps(orders[i], None if rows is None else rows[i], rows_out[i], same_slots[i])
                for array, rows_of in zip(sources, kept, strict=True) if copies else ():
                    rows_of[i] = array
                if measuring is not None:
                    measured.append(measuring.run(order, no_slots))

        engine.settled(run_all)
        sums = np.stack(measured) if measured else None
        return EpochsRun(rows_out.astype(np.float64), kept[0], kept[1], kept[2], sums)
