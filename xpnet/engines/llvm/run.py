"""Print a Program as a module of LLVM IR: a function that runs all steps, and the functions it calls.

`run(table, thread)` copies samples and slots in, executes a step and copies its results out, step after step. It takes
all addresses in one table, so that the text depends only on the Program, the types of the data and the threads.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from xpnet.engines.llvm.mathematics import definitions
from xpnet.engines.llvm.plan import Plan, make_plan
from xpnet.engines.llvm.step import Library, StepPrinter
from xpnet.engines.llvm.text import VECTOR_BYTES, Function, literal
from xpnet.engines.llvm.waiting import wait_text
from xpnet.engines.llvm.words import MATHEMATICS
from xpnet.program.calls import Buffer, Program
from xpnet.program.grouping import launches
from xpnet.program.sizes import Sizes

# The order of the table of `run`: addresses and 8-byte integers; the data of each gather follow, and the arrays that
# the outputs are copied to.
TABLE = (
    "T",
    "M",
    "U",
    "order",
    "rows_in",
    "rows_out",
    "numbers",
    "last_numbers",
    "n_samples",
    "continues",
    "flags",
    "pause",
    "gemm",
)
_MOST_KEPT = 32  # texts printed last
LINE_BYTES = 64
AHEAD_BYTES = 30_000  # of samples prefetched while others are gathered


@dataclass(frozen=True)
class ProgramText:
    """The text of a Program, with the plan that it was printed from.

    sizes: tells the supported batch sizes.  numbers: (call, operand) of numbers that depend on the batch length.
    """

    text: str
    plan: Plan
    sizes: Sizes
    numbers: tuple[tuple[int, int], ...]

    @property
    def extra_floats(self) -> int:
        """Elements needed behind the float arena."""
        return self.plan.working.floats(self.plan.threads)

    @cached_property
    def calls_blas(self) -> bool:
        """Whether the code calls NumPy's product."""
        return "call void %gemm(" in self.text


def program_text(
    program: Program,
    dtype: Any,
    scales: Mapping[str, float | None],
    *,
    threads: int = 1,
    library: Library | None = None,
    copies_outputs: bool = False,
    vector_bytes: int = VECTOR_BYTES,
) -> ProgramText:
    """Print a Program.

    dtype: np.float32 or np.float64.  scales: name of gathered data -> factor if it is uint8, else None; empty without
    data.
    threads: the number that run it together.  library: a product to call where it is faster.
    copies_outputs: whether the Program's outputs are copied out, sample behind sample; on one thread.
    vector_bytes: of the vectors of its products, by which their sums round.
    The texts printed last are kept.
    Raises CannotPrint for unsupported calls, which only custom kernels contain.
    """
    return _printed(program, np.dtype(dtype), tuple(scales.items()), threads, library, copies_outputs, vector_bytes)


@lru_cache(maxsize=_MOST_KEPT)
def _printed(
    program: Program,
    dtype: np.dtype[Any],
    named: tuple[tuple[str, float | None], ...],
    threads: int,
    library: Any,
    copies_outputs: bool,
    vector_bytes: int,
) -> ProgramText:
    scales, found = dict(named), launches(program, share=False)
    sizes, least_flops = Sizes(program, found), library.least_flops if library else None
    plan = make_plan(program, found, sizes, threads=threads, library_flops=least_flops, has_data=bool(scales))
    step = StepPrinter(plan, dtype, sizes, library, vector_bytes)
    parts = [step.function(name) for name in ("step", "update")[: 1 + (program.accumulate > 1)]]
    parts.append(_Run(step, scales, program.outputs if copies_outputs else ()).function())
    if threads > 1:
        parts.append(wait_text(threads))
    words = sorted({call.word for call in program.calls} & set(MATHEMATICS))
    parts += [*step.tables, _declared(step.real, vector_bytes), definitions(words, dtype), *step.metadata.lines, ""]
    return ProgramText("\n".join(parts), plan, sizes, tuple(step.numbers))


class _Run:
    """Prints the function `run`."""

    def __init__(self, step: StepPrinter, scales: Mapping[str, float | None], outputs: tuple[str, ...]) -> None:
        self._outputs = [step.plan.program.buffers[name] for name in outputs]
        self._step, self._scales, self._program = step, scales, step.plan.program
        self._real, self._type = step.real, step.dtype

    def function(self) -> str:
        """Return the text of the function."""
        f, program, capacity = self._step.new_function(), self._program, self._program.capacity
        for i, name in enumerate(TABLE):
            kind = "i64" if name in ("n_samples", "continues") else "ptr"
            f.do(f"%{name} = load {kind}, ptr {f.element('i64', '%table', i)}")
        n_steps = f.let(f"udiv i64 {f.calculated('add', '%n_samples', capacity - 1)}, {capacity}")
        gathers = program.gathers if self._scales else ()  # without data, samples are fed
        arrays = [
            f.let(f"load ptr, ptr {f.element('i64', '%table', len(TABLE) + i)}")
            for i in range(len(gathers) + len(self._outputs))
        ]
        sources, targets = arrays[: len(gathers)], arrays[len(gathers) :]
        with f.loop(0, n_steps) as t:
            done = f.calculated("mul", t.index, capacity)
            left = f.let(f"sub i64 %n_samples, {done}")
            m = f.let(f"call i64 @llvm.smin.i64(i64 {left}, i64 {capacity})")
            is_full = f.let(f"icmp eq i64 {m}, {capacity}")
            numbers = f.let(f"select i1 {is_full}, ptr %numbers, ptr %last_numbers")
            self._copy(f, "rows_in", program.slots, t.index, into_memory=True)
            part = self._step.split(f, self._step.plan.samples, m)
            for source, (name, buffer) in zip(sources, gathers, strict=True):
                rows = ("0", m) if buffer.offset in self._step.plan.working.copies else part
                self._gather(f, source, self._scales[name], buffer, rows, done)
            passed = f"ptr %T, ptr %M, ptr %U, ptr {numbers}, i64 {m}, i64 %thread, ptr %flags, ptr %pause, ptr %gemm"
            f.do(f"call void @step({passed})")
            if program.accumulate > 1:  # where Program.has_update says so
                following = f.calculated("add", t.index, 1)
                rest = f.let(f"urem i64 {following}, {program.accumulate}")
                end = f.let(f"add i64 {n_steps}, %continues")  # not reached if more steps follow elsewhere
                due = [f.let(f"icmp eq i64 {rest}, 0"), f.let(f"icmp eq i64 {following}, {end}")]
                with f.when(f.let(f"or i1 {due[0]}, {due[1]}")):
                    f.do(f"call void @update({passed})")
            self._copy(f, "rows_out", program.results, t.index, into_memory=False)
            for target, buffer in zip(targets, self._outputs, strict=True):
                self._copy_out(f, buffer, target, done, m)
        # Else LLVM would replace the copy of outputs by a call of the C library's.
        notes = 'nounwind "no-builtins"' if self._outputs else "nounwind"
        return f.text("run", ("ptr %table", "i64 %thread"), linkage="", notes=notes)

    def _copy_out(self, f: Function, buffer: Buffer, target: str, done: str, m: str) -> None:
        """Print the copy of a step's samples from a buffer behind those that are done."""
        base, n = self._step.base(f, buffer), buffer.shape[0]
        behind = f.element(self._real, target, f.calculated("mul", done, n))
        with f.loop(0, f.calculated("mul", m, n)) as i:
            addresses = f.element(self._real, base, i.index), f.element(self._real, behind, i.index)
            self._move(f, *addresses, 1, None)

    def _copy(self, f: Function, rows: str, names: tuple[str, ...], step: str, into_memory: bool) -> None:
        """Print, for the first thread, the copy of a row of slots into memory, or of results out of it."""
        if not names:
            return
        with f.when(f.let("icmp eq i64 %thread, 0")):
            place = self._program.buffers[names[0]].offset - self._program.n_owned
            row = f.calculated("mul", step, len(names))
            for i in range(len(names)):
                addresses = f.element(self._real, f"%{rows}", row, i), f.element(self._real, "%M", place, i)
                source, target = addresses if into_memory else addresses[::-1]
                f.do(f"store {self._real} {f.let(f'load {self._real}, ptr {source}')}, ptr {target}")

    def _gather(
        self, f: Function, source: str, scale: float | None, buffer: Buffer, rows: tuple[str, str], done: str
    ) -> None:
        """Print the copy of this thread's samples into a buffer, while later samples are prefetched."""
        n, base = buffer.shape[0], self._step.base(f, buffer)
        kind, size = (self._real, self._type.itemsize) if scale is None else ("i8", 1)
        line, last = LINE_BYTES // size, f.let("sub i64 %n_samples, 1")
        with f.loop(*rows) as row:
            place = f.calculated("add", done, row.index)
            ahead = f.calculated("add", place, max(1, AHEAD_BYTES // (n * size)))
            later = f.let(f"call i64 @llvm.smin.i64(i64 {ahead}, i64 {last})")
            samples = [f.let(f"load i64, ptr {f.element('i64', '%order', at)}") for at in (place, later)]
            data, coming = (f.element(kind, source, f.calculated("mul", sample, n)) for sample in samples)
            target, whole = f.element(self._real, base, f.calculated("mul", row.index, n)), n // line * line
            if whole:
                with f.loop(0, whole, line, as_is=True) as i:
                    _prefetch(f, f.element(kind, coming, i.index))
                    addresses = f.element(kind, data, i.index), f.element(self._real, target, i.index)
                    self._move(f, *addresses, line, scale)
            else:  # else the last full line has mostly fetched the rest
                for at in sorted({0, n - 1}):
                    _prefetch(f, f.element(kind, coming, at))
            for at, width in _halves(whole, n):
                self._move(f, f.element(kind, data, at), f.element(self._real, target, at), width, scale)

    def _move(self, f: Function, source: str, target: str, n: int, scale: float | None) -> None:
        """Print the copy of n numbers of a sample; uint8 ones are scaled."""
        kind, own = (
            f"<{n} x {name}>" if n > 1 else name for name in (self._real, self._real if scale is None else "i8")
        )
        value = f.let(f"load {own}, ptr {source}, align {self._type.itemsize if scale is None else 1}")
        if scale is not None:
            factor = literal(float(self._type.type(scale)))
            value = f.let(f"uitofp {own} {value} to {kind}")
            value = f.let(f"fmul {kind} {value}, {f'splat ({self._real} {factor})' if n > 1 else factor}")
        f.do(f"store {kind} {value}, ptr {target}, align {self._type.itemsize}")


def _halves(start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield a range in parts (first, length) of falling powers of two."""
    while start < end:
        length = 1 << ((end - start).bit_length() - 1)
        yield start, length
        start += length


def _prefetch(f: Function, address: str) -> None:
    """Print a request to fetch a line that is soon read."""
    f.do(f"call void @llvm.prefetch.p0(ptr {address}, i32 0, i32 2, i32 1)")


def _declared(real: str, vector_bytes: int) -> str:
    """Return the declarations of LLVM's functions."""
    size = 4 if real == "float" else 8
    bits, lanes = 8 * size, vector_bytes // size
    return "\n".join(
        [
            f"declare {real} @llvm.fabs.f{bits}({real})",
            f"declare {real} @llvm.sqrt.f{bits}({real})",
            f"declare {real} @llvm.vector.reduce.fadd.v{lanes}f{bits}({real}, <{lanes} x {real}>)",
            "declare i64 @llvm.smin.i64(i64, i64)",
            "declare void @llvm.prefetch.p0(ptr, i32, i32, i32)",
            "",
        ]
    )
