"""Print a Program as a module of LLVM IR: a function that runs all steps, and the functions it calls.

`run(table, thread)` copies samples and slots in, executes a step and copies its results out, step after step. It takes
all addresses in one table, so that the text depends only on the Program, the types of the data and the threads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from xpnet.engines.llvm.copies import CopyPrinter
from xpnet.engines.llvm.mathematics import definitions
from xpnet.engines.llvm.plan import Plan, make_plan
from xpnet.engines.llvm.shards import run_shards
from xpnet.engines.llvm.step import Library, StepPrinter
from xpnet.engines.llvm.text import VECTOR_BYTES
from xpnet.engines.llvm.waiting import wait_text
from xpnet.engines.llvm.words import MATHEMATICS
from xpnet.program.calls import Place, Program
from xpnet.program.grouping import launches
from xpnet.program.places import place_of
from xpnet.program.sizes import Sizes

# The order of the table of `run`: addresses and 8-byte integers; the data of each gather follow, and the arrays of
# the outputs of a Program that is `in_place`.
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
        return self.plan.working.floats

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
    in_place: bool = False,
    vector_bytes: int = VECTOR_BYTES,
) -> ProgramText:
    """Print a Program.

    dtype: np.float32 or np.float64.  scales: name of gathered data -> factor if it is uint8, else None; empty without
    data.
    threads: the number that run it together.  library: a product to call where it is faster.
    in_place: whether samples are read in order from the caller's arrays and outputs written to them, sample behind
        sample, without copies; on one thread.
    vector_bytes: of the vectors of its products, by which their sums round.
    The texts printed last are kept.
    Raises CannotPrint for unsupported calls, which only custom kernels contain.
    """
    return _printed(program, np.dtype(dtype), tuple(scales.items()), threads, library, in_place, vector_bytes)


@lru_cache(maxsize=_MOST_KEPT)
def _printed(
    program: Program,
    dtype: np.dtype[Any],
    named: tuple[tuple[str, float | None], ...],
    threads: int,
    library: Any,
    in_place: bool,
    vector_bytes: int,
) -> ProgramText:
    scales, found = dict(named), launches(program, share=False)
    sizes, least_flops = Sizes(program, found), library.least_flops if library else None
    # Of one sample, a packed matrix would not repay its copy.
    lanes = vector_bytes // dtype.itemsize if in_place and program.capacity > 1 else 0
    plan = make_plan(
        program, found, sizes, threads=threads, library_flops=least_flops, has_data=bool(scales), packs_for=lanes
    )
    ends = _ends(program) if in_place else {}
    step = StepPrinter(plan, dtype, sizes, library, vector_bytes, ends)
    parts = [step.function(name) for name in program.functions]
    parts += [step.packing()] * bool(plan.working.packed)
    if program.shards is None:
        parts.append(_Run(step, scales).function())
    else:
        parts.append(run_shards(step, scales))
    if threads > 1:
        parts.append(wait_text(threads))
    words = sorted({call.word for call in program.calls} & set(MATHEMATICS))
    parts += [*step.tables, _declared(step.real, vector_bytes), definitions(words, dtype), *step.metadata.lines, ""]
    return ProgramText("\n".join(parts), plan, sizes, tuple(step.numbers))


def _ends(program: Program) -> dict[Place, str]:
    """Return the places of samples and outputs, with the argument of `step` for each; no call overwrites samples."""
    buffers = [*(buffer for _, buffer in program.gathers), *(program.buffers[name] for name in program.outputs)]
    return {place_of(program, buffer): f"%end{i}" for i, buffer in enumerate(buffers)}


class _Run:
    """Prints the function `run`."""

    def __init__(self, step: StepPrinter, scales: Mapping[str, float | None]) -> None:
        self._step, self._scales, self._program = step, scales, step.plan.program
        self._copies, self._ends = CopyPrinter(step), step.ends

    def function(self) -> str:
        """Return the text of the function."""
        f, program, capacity = self._step.new_function(), self._program, self._program.capacity
        for i, name in enumerate(TABLE):
            kind = "i64" if name in ("n_samples", "continues") else "ptr"
            f.do(f"%{name} = load {kind}, ptr {f.element('i64', '%table', i)}")
        n_steps = f.let(f"udiv i64 {f.calculated('add', '%n_samples', capacity - 1)}, {capacity}")
        gathers = program.gathers if self._scales else ()  # without data, samples are fed
        buffers = [buffer for _, buffer in gathers]
        buffers += [program.buffers[name] for name in program.outputs if self._ends]
        arrays = {
            buffer: f.let(f"load ptr, ptr {f.element('i64', '%table', len(TABLE) + i)}")
            for i, buffer in enumerate(buffers)
        }
        if self._step.plan.working.packed:
            f.do("call void @pack(ptr %T, ptr %M)")
        with f.loop(0, n_steps) as t:
            done = f.calculated("mul", t.index, capacity)
            left = f.let(f"sub i64 %n_samples, {done}")
            m = f.let(f"call i64 @llvm.smin.i64(i64 {left}, i64 {capacity})")
            is_full = f.let(f"icmp eq i64 {m}, {capacity}")
            numbers = f.let(f"select i1 {is_full}, ptr %numbers, ptr %last_numbers")
            self._copies.row(f, "rows_in", program.slots, t.index, into_memory=True)
            part = self._step.split(f, self._step.plan.samples, m)
            for name, buffer in () if self._ends else gathers:
                rows = ("0", m) if buffer.offset in self._step.plan.working.copies else part
                self._copies.gather(f, arrays[buffer], self._scales[name], buffer, rows, done)
            passed = f"ptr %T, ptr %M, ptr %U, ptr {numbers}, i64 {m}, i64 %thread, ptr %flags, ptr %pause, ptr %gemm"
            for buffer, array in arrays.items() if self._ends else ():
                behind = f.calculated("mul", done, buffer.shape[0])
                passed += f", ptr {f.element(self._step.real, array, behind)}"
            f.do(f"call void @step({passed})")
            if program.accumulate > 1:  # where Program.has_update says so
                following = f.calculated("add", t.index, 1)
                rest = f.let(f"urem i64 {following}, {program.accumulate}")
                end = f.let(f"add i64 {n_steps}, %continues")  # not reached if more steps follow elsewhere
                due = [f.let(f"icmp eq i64 {rest}, 0"), f.let(f"icmp eq i64 {following}, {end}")]
                with f.when(f.let(f"or i1 {due[0]}, {due[1]}")):
                    f.do(f"call void @update({passed})")
            self._copies.row(f, "rows_out", program.results, t.index, into_memory=False)
        return f.text("run", ("ptr %table", "i64 %thread"), linkage="")


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
