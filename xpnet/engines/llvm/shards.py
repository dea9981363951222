"""Print the function that runs steps shard by shard, and lay out what it reads.

For each of the process's shards it gathers the samples, calls `step` and adds the message to those of the shards
before, in the order of `xpnet.parallel.reduction.Tree`. Then a C function pointer adds what the other processes have,
and `merge` and `update` follow. The text is the same for every number of processes, so that their bits are too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from xpnet.engines.llvm.copies import CopyPrinter
from xpnet.engines.llvm.step import StepPrinter
from xpnet.engines.llvm.text import Function, literal
from xpnet.program.shards import Shards

# The table of `run`: addresses and 8-byte integers; the data of each gather follow.
# count: of this process's shards.  bounds: (start, end, address of numbers) of each shard of each step.
# additions: (left, right) rows of `rows`, a message each.  ends: 0, those of the additions behind each shard, and at
# the end.  sums: adds what other processes have, 0 where there are none; it returns other than 0 to end the run.
TABLE = (
    *("T", "M", "U", "order", "rows_in", "rows_out", "numbers", "n_samples", "n_steps", "count", "gemm"),
    *("bounds", "additions", "ends", "rows", "sums"),
)
_INTEGERS = ("n_samples", "n_steps", "count")


@dataclass(frozen=True)
class Additions:
    """The additions of rows (left, right), into the left one, in the order of a tree.

    ends (shards + 2,): 0, the ends of those behind each shard, and of those at the end.
    roots: rows that hold the sums then.
    """

    pairs: np.ndarray
    ends: np.ndarray
    roots: list[int]


def additions_of(shards: Shards) -> Additions:
    """Return the additions of a process's messages; one that computes all shards adds them to one row."""
    pairs: list[tuple[int, int]] = []
    ends, stack = [0], list[tuple[int, int, int]]()  # first place, places, row
    for row, place in enumerate(range(shards.first, shards.last)):
        stack.append((place, 1, row))
        while len(stack) > 1:
            (start, count, left), (_, its, right) = stack[-2:]
            if count != its or start % (2 * count):
                break
            pairs.append((left, right))
            stack[-2:] = [(start, 2 * count, left)]
        ends.append(len(pairs))
    while shards.is_all and len(stack) > 1:
        (start, count, left), (_, its, right) = stack[-2:]
        pairs.append((left, right))
        stack[-2:] = [(start, count + its, left)]
    ends.append(len(pairs))
    return Additions(np.array(pairs or [(0, 0)], np.int64), np.array(ends, np.int64), [row for _, _, row in stack])


def run_shards(step: StepPrinter, scales: Mapping[str, float | None]) -> str:
    """Return the text of `run(table, thread)`.  scales: as for `xpnet.engines.llvm.run.program_text`."""
    return _Run(step, scales).function()


class _Run:
    """Prints the function."""

    def __init__(self, step: StepPrinter, scales: Mapping[str, float | None]) -> None:
        program = step.plan.program
        self._step, self._scales, self._program = step, scales, program
        self._copies, self._real = CopyPrinter(step), step.real

    def function(self) -> str:
        """Return the text of the function."""
        f, program = self._step.new_function(), self._program
        for i, name in enumerate(TABLE):
            f.do(f"%{name} = load {'i64' if name in _INTEGERS else 'ptr'}, ptr {f.element('i64', '%table', i)}")
        gathers = program.gathers if self._scales else ()
        sources = [f.let(f"load ptr, ptr {f.element('i64', '%table', len(TABLE) + i)}") for i in range(len(gathers))]
        with f.loop(0, "%n_steps") as t:
            self._copies.row(f, "rows_in", program.slots, t.index, into_memory=True)
            first = f.calculated("mul", t.index, "%count")
            with f.loop(0, "%count", as_is=True) as shard:
                self._shard(f, f.calculated("add", first, shard.index), sources)
                self._keep(f, shard.index)
                self._add_up(f, shard.index)
            self._all(f)
            self._call(f, "merge", "%numbers", str(program.capacity))
            if "update" in program.functions:
                with f.when(self._is_due(f, t.index)):
                    self._call(f, "update", "%numbers", str(program.capacity))
            self._copies.row(f, "rows_out", program.results, t.index, into_memory=False)
        return f.text("run", ("ptr %table", "i64 %thread"), linkage="")

    def _shard(self, f: Function, number: str, sources: list[str]) -> None:
        """Print the message of a shard: zero if it has no samples."""
        at = f.calculated("mul", number, 3)
        start, end = (self._integer(f, "%bounds", at, i) for i in range(2))
        numbers = f.let(f"load ptr, ptr {f.element('i64', '%bounds', at, 2)}")
        m = f.let(f"sub i64 {end}, {start}")
        with f.when(f.let(f"icmp sgt i64 {m}, 0")):
            for source, (name, buffer) in zip(sources, self._program.gathers, strict=False):
                self._copies.gather(f, source, self._scales[name], buffer, ("0", m), start)
            self._call(f, "step", numbers, m)
        with f.when(f.let(f"icmp eq i64 {m}, 0")), f.loop(0, self._size) as i:
            f.do(f"store {self._real} {literal(0.0)}, ptr {f.element(self._real, self._message(f), i.index)}")

    def _keep(self, f: Function, shard: str) -> None:
        """Print the copy of the message into the shard's row."""
        row, message = self._row(f, shard), self._message(f)
        with f.loop(0, self._size) as i:
            value = f.let(f"load {self._real}, ptr {f.element(self._real, message, i.index)}")
            f.do(f"store {self._real} {value}, ptr {f.element(self._real, row, i.index)}")

    def _add_up(self, f: Function, shard: str) -> None:
        """Print the additions behind a shard, or at the end of the step."""
        begin, end = (self._integer(f, "%ends", shard, i) for i in range(2))
        with f.loop(begin, end, as_is=True) as addition:
            at = f.calculated("mul", addition.index, 2)
            left, right = (self._row(f, self._integer(f, "%additions", at, i)) for i in range(2))
            with f.loop(0, self._size) as i:
                place = f.element(self._real, left, i.index)
                one = f.let(f"load {self._real}, ptr {place}")
                other = f.let(f"load {self._real}, ptr {f.element(self._real, right, i.index)}")
                f.do(f"store {self._real} {f.let(f'fadd {self._real} {one}, {other}')}, ptr {place}")

    def _all(self, f: Function) -> None:
        """Print the sum over all shards into the message: here, or by the function for several processes."""
        message, is_alone = self._message(f), f.let("icmp eq ptr %sums, null")
        here, there, stop, summed = (f.new_label(name) for name in ("here", "there", "stop", "summed"))
        f.do(f"br i1 {is_alone}, label %{here}, label %{there}")
        f.begin(here)
        self._add_up(f, "%count")
        with f.loop(0, self._size) as i:
            value = f.let(f"load {self._real}, ptr {f.element(self._real, '%rows', i.index)}")
            f.do(f"store {self._real} {value}, ptr {f.element(self._real, message, i.index)}")
        f.do(f"br label %{summed}")
        f.begin(there)
        failed = f.let("call i64 %sums()")
        f.do(f"br i1 {f.let(f'icmp ne i64 {failed}, 0')}, label %{stop}, label %{summed}")
        f.begin(stop)
        f.do("ret void")
        f.begin(summed)

    def _is_due(self, f: Function, step: str) -> str:
        """Print whether `Program.has_update` is true of a step."""
        following = f.calculated("add", step, 1)
        rest = f.let(f"urem i64 {following}, {self._program.accumulate}")
        due = [f.let(f"icmp eq i64 {rest}, 0"), f.let(f"icmp eq i64 {following}, %n_steps")]
        return f.let(f"or i1 {due[0]}, {due[1]}")

    def _call(self, f: Function, name: str, numbers: str, m: str) -> None:
        memory = f"ptr %T, ptr %M, ptr %U, ptr {numbers}, i64 {m}"
        f.do(f"call void @{name}({memory}, i64 %thread, ptr null, ptr null, ptr %gemm)")

    @property
    def _size(self) -> int:
        return self._program.buffers["message"].size

    def _message(self, f: Function) -> str:
        return self._step.base(f, self._program.buffers["message"])

    def _row(self, f: Function, number: str) -> str:
        return f.element(self._real, "%rows", f.calculated("mul", number, self._size))

    def _integer(self, f: Function, base: str, *offsets: str | int) -> str:
        return f.let(f"load i64, ptr {f.element('i64', base, *offsets)}")
