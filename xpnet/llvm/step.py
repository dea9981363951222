"""Print a Program as one function of LLVM's representation: it gathers, steps and hands out results for a whole run.

`run(arguments, thread)` takes the addresses of everything in one table, so that its text depends on nothing but the
Program, the types of the data and the number of threads. Each thread does its share of every nest of loops; where one
needs what another made, they wait for each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from xpnet.grouping import Group, direction, launches, leader
from xpnet.llvm.mathematics import definitions
from xpnet.llvm.nests import MATHEMATICS, Nest, place_of
from xpnet.llvm.products import Factor, Product, needs_scratch, write_product
from xpnet.llvm.text import Function, Metadata, literal
from xpnet.printer import Sizes
from xpnet.program import Call, Operand, Program

# The order of the table that `run` is given: addresses and whole numbers of 8 bytes; the data of each gather follow.
TABLE = ("T", "M", "U", "order", "rows_in", "rows_out", "numbers", "last_numbers", "n_samples", "goes_on",
         "flags", "pause", "gemm")  # fmt: skip
LINE = 8  # places of 8 bytes from one thread's flag to the next: a cache line
SPINS = 2000  # looks at another thread's flag before the processor is offered to others

_STEP_ARGUMENTS = ("ptr noalias %T", "ptr noalias %M", "ptr noalias %U", "ptr %numbers", "i64 %m", "i64 %thread",
                   "ptr %flags", "ptr %pause", "ptr %gemm")  # fmt: skip


class CannotPrint(ValueError):
    """A Program that the text cannot say; the message names the call."""


@dataclass(frozen=True)
class Library:
    """A library's product: 64 or 32 bits of its whole numbers, and from how many operations on it is called."""

    integer_bits: int
    least_flops: float


@dataclass(frozen=True)
class StepText:
    """The text of a Program and what goes with it.

    sizes: which batch sizes it serves.  numbers: (call, operand) of those that depend on the batch length.
    """

    text: str
    sizes: Sizes
    numbers: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Unit:
    """What threads do between two possible waits: a group. A product perhaps begins with the bias that follows it."""

    group: Group
    phase: str
    bias: Operand | None = None


@dataclass(frozen=True)
class _Touch:
    """What a unit does to a place. owned: by which cut each thread has a part of its own; "" where it has not."""

    place: tuple[str, int, int]
    owned: str
    writes: bool

    def clashes(self, other: _Touch) -> bool:
        if not (self.writes or other.writes) or self.place[0] != other.place[0]:
            return False
        start = max(self.place[1], other.place[1])
        end = min(self.place[1] + self.place[2], other.place[1] + other.place[2])
        return start < end and not (self.owned and (self.place, self.owned) == (other.place, other.owned))


def step_text(
    program: Program,
    dtype: Any,
    scales: Mapping[str, float | None],
    *,
    threads: int = 1,
    library: Library | None = None,
) -> StepText:
    """Print a Program.

    dtype: np.float32 or np.float64.  scales: of the gathered data of each name: None, or the factor of uint8 ones.
    threads: how many run it together.  library: a product to call where it is faster.
    Raises CannotPrint for what only a kernel of a user's own may say.
    """
    found = launches(program, share=False)
    printer = _Printer(program, np.dtype(dtype), Sizes(program, found), threads, library)
    units = _with_biases(program, [Unit(group, launch.phase) for launch in found for group in launch.groups], printer)
    parts = [printer.step("step", [unit for unit in units if unit.phase != "update" or program.accumulate == 1])]
    if program.accumulate > 1:
        parts.append(printer.step("update", [unit for unit in units if unit.phase == "update"]))
    parts += [printer.run(scales), *[_WAIT.format(threads=threads, line=LINE, spins=SPINS)] * (threads > 1)]
    words = sorted({call.word for call in program.calls} & set(MATHEMATICS))
    text = "\n".join([*parts, _declared(printer.real), definitions(words, dtype), *printer.metadata.lines, ""])
    return StepText(text, printer.sizes, tuple(printer.numbers))


def scratch_floats(program: Program, threads: int) -> int:
    """Elements behind the float arena that products need to turn an operand round, of all threads."""
    return threads * max((_turned(call) for call in program.calls if call.word == "matmul"), default=0)


def _turned(call: Call) -> int:
    right = call.operands[1]
    return right.buffer.size if right.transposed else 0


def _with_biases(program: Program, units: list[Unit], printer: _Printer) -> list[Unit]:
    """Draw the addition that follows a product, of a vector to each of its rows, into it."""
    drawn: list[Unit] = []
    for unit in units:
        before = drawn[-1] if drawn else None
        step = unit.group.steps[0]
        call = program.calls[step.index]
        if before is not None and (before.group.kind, before.phase, call.word) == ("product", unit.phase, "add"):
            product = program.calls[before.group.steps[0].index]
            one, other = call.inputs
            is_same = isinstance(one, Operand) and _places(program, one, call.out, product.out) == 1
            is_bias = isinstance(other, Operand) and direction(call, other) == "along rows"
            if is_same and is_bias and not printer.calls_library(before):
                assert isinstance(other, Operand)
                drawn[-1] = replace(before, bias=other)
                if len(unit.group.steps) > 1:
                    drawn.append(replace(unit, group=replace(unit.group, steps=unit.group.steps[1:])))
                continue
        drawn.append(unit)
    return drawn


def _places(program: Program, *operands: Operand) -> int:
    return len({place_of(program, operand.buffer) for operand in operands})


class _Printer:
    """Prints the functions of one Program."""

    def __init__(
        self, program: Program, dtype: np.dtype[Any], sizes: Sizes, threads: int, library: Library | None
    ) -> None:  # fmt: skip
        self.program, self.dtype, self.sizes, self.threads, self.library = program, dtype, sizes, threads, library
        self.real = "float" if dtype.itemsize == 4 else "double"
        self.metadata = Metadata()
        self.numbers: list[tuple[int, int]] = []

    def step(self, name: str, units: list[Unit]) -> str:
        """The function of a step after its gather, or of its update."""
        f = Function(self.metadata, self.real)
        pending: list[_Touch] = []
        for unit in units:
            touches = self._touches(unit)
            if any(one.clashes(other) for one in touches for other in pending):
                self._wait(f)
                pending = []
            pending += touches
            if unit.group.kind == "product":
                self._product(f, unit)
            else:
                self._nest(f, unit.group)
        self._wait(f)
        return f.text(name, _STEP_ARGUMENTS)

    def _wait(self, f: Function) -> None:
        if self.threads > 1:
            f.do("call void @wait(ptr %flags, i64 %thread, ptr %pause)")

    def _split(self, f: Function, n: str, unit: int) -> tuple[str, str]:
        """This thread's part of 0 to n, cut at multiples of a unit."""
        if self.threads == 1:
            return "0", n
        if n.startswith("%"):
            share = f.let(f"udiv i64 {f.calculated('add', n, self.threads * unit - 1)}, {self.threads * unit}")
            share = f.calculated("mul", share, unit)
        else:
            share = str(-(-int(n) // (self.threads * unit)) * unit)
        start = f.let(f"call i64 @llvm.smin.i64(i64 {f.calculated('mul', '%thread', share)}, i64 {n})")
        end = f.let(f"call i64 @llvm.smin.i64(i64 {f.calculated('add', start, share)}, i64 {n})")
        return start, end

    def _nest(self, f: Function, group: Group) -> None:
        nest = Nest(f, self.program, group, number=lambda *place: self._number(f, *place), extent=self._extent,
                    split=lambda n, unit: self._split(f, n, unit))  # fmt: skip
        if group.kind == "single" and self.threads > 1:
            with f.when(f.let("icmp eq i64 %thread, 0")):
                nest.write()
        else:
            nest.write()

    def _extent(self, index: int, position: int, axis: int) -> str:
        found = self.sizes.extent(index, position, axis)
        return "%m" if found == "m" else found

    def _number(self, f: Function, index: int, position: int) -> str:
        call = self.program.calls[index]
        value: Any = call.inputs[position]
        if call.operands[0].buffer.kind == "uint32":
            if self.sizes.varies(index, position):
                raise CannotPrint(f"{call.text} has a number that depends on the batch length")
            return str(value)
        if self.sizes.varies(index, position):
            if (index, position) not in self.numbers:
                self.numbers.append((index, position))
            address = f.element(self.real, "%numbers", self.numbers.index((index, position)))
            return f.let(f"load {self.real}, ptr {address}, !invariant.load !{{}}")
        with np.errstate(over="ignore"):  # beyond float32 it is infinite, as NumPy has it
            return literal(float(self.dtype.type(value)))

    def calls_library(self, unit: Unit) -> bool:
        """Whether a product is left to the library."""
        call = self.program.calls[unit.group.steps[0].index]
        return self.library is not None and call.flops >= self.library.least_flops * self.threads

    def _product(self, f: Function, unit: Unit) -> None:
        index = unit.group.steps[0].index
        call = self.program.calls[index]
        left, right = call.operands
        n_rows = self._extent(index, -1, 0)
        first, last = self._split(f, n_rows, 1)
        n_inner = self._extent(index, 0, 0 if left.transposed else 1)
        if self.calls_library(unit):
            self._library_product(f, call, first, last, n_inner)
            return
        one, other = (self._factor(f, operand) for operand in (left, right))
        vector, offset, _ = place_of(self.program, call.out.buffer)
        n_columns, most_rows = call.out.shape[1], call.out.shape[0]
        if self._extent(index, -1, 1) != str(n_columns):
            raise CannotPrint(f"{call.text} has as many features as the batch has samples")
        bias = None
        if unit.bias is not None:
            place = place_of(self.program, unit.bias.buffer)
            bias = f.element(self.real, f"%{place[0]}", place[1])
        scratch = "%M"
        if needs_scratch(other.columns, n_inner, most_rows):
            each = scratch_floats(self.program, 1)
            scratch = f.element(self.real, "%M", self.program.n_floats - self.program.n_owned,
                                f.calculated("mul", "%thread", each) if self.threads > 1 else 0)  # fmt: skip
        out = f.element(self.real, f"%{vector}", offset)
        write_product(f, Product(one, other, out, first, last, most_rows, n_inner, n_columns, bias, scratch))

    def _factor(self, f: Function, operand: Operand) -> Factor:
        vector, offset, _ = place_of(self.program, operand.buffer)
        rows, columns = (1, operand.shape[1]) if operand.transposed else (operand.shape[1], 1)
        return Factor(f.element(self.real, f"%{vector}", offset), rows, columns)

    def _library_product(self, f: Function, call: Call, first: str, last: str, n_inner: str) -> None:
        """A call of cblas_?gemm, in C order, on this thread's rows."""
        assert self.library is not None
        integer = f"i{self.library.integer_bits}"

        def whole(value: str) -> str:
            if integer == "i64" or not value.startswith("%"):
                return value
            return f.let(f"trunc i64 {value} to i32")

        left, right = call.operands
        addresses = []
        for operand, rows in (
            (left, 1 if left.transposed else left.shape[1]),
            (right, 0),
            (call.out, call.out.shape[1]),
        ):
            vector, offset, _ = place_of(self.program, operand.buffer)
            addresses.append(f.element(self.real, f"%{vector}", offset, f.calculated("mul", first, rows)))
        n_rows = f.let(f"sub i64 {last}, {first}") if self.threads > 1 else last
        turns = [112 if operand.transposed else 111 for operand in (left, right)]
        one, zero = literal(1.0), literal(0.0)
        f.do(f"call void %gemm(i32 101, i32 {turns[0]}, i32 {turns[1]}, {integer} {whole(n_rows)}, "
             f"{integer} {call.out.shape[1]}, {integer} {whole(n_inner)}, {self.real} {one}, ptr {addresses[0]}, "
             f"{integer} {left.shape[1]}, ptr {addresses[1]}, {integer} {right.shape[1]}, {self.real} {zero}, "
             f"ptr {addresses[2]}, {integer} {call.out.shape[1]})")  # fmt: skip

    def _touches(self, unit: Unit) -> list[_Touch]:
        """What a unit's threads touch, and which of it each has to itself."""
        kind, found = unit.group.kind, []
        for step in unit.group.steps:
            call = self.program.calls[step.index]
            for operand in (*call.operands, call.out):
                owned = self._cut(kind, call, operand)
                found.append(_Touch(place_of(self.program, operand.buffer), owned, operand is call.out))
        if unit.bias is not None:
            found.append(_Touch(place_of(self.program, unit.bias.buffer), "", False))
        return found

    def _cut(self, kind: str, call: Call, operand: Operand) -> str:
        if kind == "single":
            return "the first thread"
        if kind == "product":
            left = call.operands[0]
            by_rows = operand is call.out or (operand is left and not left.transposed)
            return f"rows of {call.out.shape[0]}" if by_rows else ""
        first = leader(call)
        if len(first.shape) == 1:
            if not operand.shape:
                return ""
            flat = f"elements of {first.shape[0]}"
            return f"rows of {first.shape[0]}" if first.buffer.flipped else flat
        role = direction(call, operand)
        if kind == "column":
            return f"elements of {first.shape[1]}" if role in ("matrix", "along rows") else ""
        return f"rows of {first.shape[0]}" if role in ("matrix", "along columns") else ""

    def run(self, scales: Mapping[str, float | None]) -> str:
        """The function that is called: all steps of a run."""
        f = Function(self.metadata, self.real)
        for i, name in enumerate(TABLE):
            kind = "i64" if name in ("n_samples", "goes_on") else "ptr"
            f.do(f"%{name} = load {kind}, ptr {f.element('i64', '%table', i)}")
        program = self.program
        capacity = program.capacity
        n_steps = f.let(f"udiv i64 {f.calculated('add', '%n_samples', capacity - 1)}, {capacity}")
        sources = [
            f.let(f"load ptr, ptr {f.element('i64', '%table', len(TABLE) + i)}") for i in range(len(program.gathers))
        ]
        with f.loop(0, n_steps) as t:
            done = f.calculated("mul", t.index, capacity)
            left = f.let(f"sub i64 %n_samples, {done}")
            m = f.let(f"call i64 @llvm.smin.i64(i64 {left}, i64 {capacity})")
            is_full = f.let(f"icmp eq i64 {m}, {capacity}")
            numbers = f.let(f"select i1 {is_full}, ptr %numbers, ptr %last_numbers")
            self._copy(f, "rows_in", program.slots, t.index, into_memory=True)
            start, end = self._split(f, m, 1)
            for source, (name, buffer) in zip(sources, program.gathers, strict=True):
                self._gather(f, source, scales[name], buffer, (start, end), done)
            passed = "i64 %thread, ptr %flags, ptr %pause, ptr %gemm"
            f.do(f"call void @step(ptr %T, ptr %M, ptr %U, ptr {numbers}, i64 {m}, {passed})")
            if program.accumulate > 1:
                following = f.calculated("add", t.index, 1)
                rest = f.let(f"urem i64 {following}, {program.accumulate}")
                end = f.let(f"add i64 {n_steps}, %goes_on")  # not reached if the run goes on elsewhere
                due = [f.let(f"icmp eq i64 {rest}, 0"), f.let(f"icmp eq i64 {following}, {end}")]
                with f.when(f.let(f"or i1 {due[0]}, {due[1]}")):
                    f.do(f"call void @update(ptr %T, ptr %M, ptr %U, ptr {numbers}, i64 {m}, {passed})")
            self._copy(f, "rows_out", program.results, t.index, into_memory=False)
        return f.text("run", ("ptr %table", "i64 %thread"), linkage="")

    def _copy(self, f: Function, rows: str, names: tuple[str, ...], step: str, into_memory: bool) -> None:
        """A row of slots into their place, or of results out of theirs, by the first thread."""
        if not names:
            return
        with f.when(f.let("icmp eq i64 %thread, 0")):
            place = self.program.buffers[names[0]].offset - self.program.n_owned
            row = f.calculated("mul", step, len(names))
            for i in range(len(names)):
                addresses = f.element(self.real, f"%{rows}", row, i), f.element(self.real, "%M", place, i)
                source, target = addresses if into_memory else addresses[::-1]
                f.do(f"store {self.real} {f.let(f'load {self.real}, ptr {source}')}, ptr {target}")

    def _gather(
        self, f: Function, source: str, scale: float | None, buffer: Any, rows: tuple[str, str], done: str
    ) -> None:  # fmt: skip
        """This thread's rows of the data, into a buffer; bytes are scaled."""
        n, start = buffer.shape[0], buffer.offset - self.program.n_owned
        with f.loop(*rows) as row:
            sample = f.let(f"load i64, ptr {f.element('i64', '%order', done, row.index)}")
            target = f.element(self.real, "%M", start, f.calculated("mul", row.index, n))
            at = f.calculated("mul", sample, n)
            kind = self.real if scale is None else "i8"
            data = f.element(kind, source, at)
            with f.loop(0, n) as i:
                value = f.let(f"load {kind}, ptr {f.element(kind, data, i.index)}")
                if scale is not None:
                    value = f.let(f"uitofp i8 {value} to {self.real}")
                    value = f.let(f"fmul {self.real} {value}, {literal(float(self.dtype.type(scale)))}")
                f.do(f"store {self.real} {value}, ptr {f.element(self.real, target, i.index)}")


def _declared(real: str) -> str:
    """What the functions call of LLVM's own."""
    bits = 32 if real == "float" else 64
    lanes = 8 if real == "float" else 4
    return "\n".join([
        f"declare {real} @llvm.fabs.f{bits}({real})",
        f"declare {real} @llvm.sqrt.f{bits}({real})",
        f"declare {real} @llvm.vector.reduce.fadd.v{lanes}f{bits}({real}, <{lanes} x {real}>)",
        "declare i64 @llvm.smin.i64(i64, i64)",
        "",
    ])  # fmt: skip


# A thread says which wait it has come to, and looks until the others have come as far.
_WAIT = """\
define internal void @wait(ptr %flags, i64 %thread, ptr %pause) noinline nounwind {{
entry:
  %place = mul nsw i64 %thread, {line}
  %mine = getelementptr inbounds i64, ptr %flags, i64 %place
  %before = load i64, ptr %mine
  %now = add i64 %before, 1
  store atomic i64 %now, ptr %mine release, align 8
  br label %others
others:
  %other = phi i64 [ 0, %entry ], [ %next, %come ]
  %its_place = mul nsw i64 %other, {line}
  %its = getelementptr inbounds i64, ptr %flags, i64 %its_place
  br label %look
look:
  %looks = phi i64 [ 0, %others ], [ %more, %again ], [ 0, %offer ]
  %stands = load atomic i64, ptr %its acquire, align 8
  %is_behind = icmp slt i64 %stands, %now
  br i1 %is_behind, label %again, label %come
again:
  %more = add i64 %looks, 1
  %is_long = icmp sgt i64 %more, {spins}
  br i1 %is_long, label %offer, label %look
offer:
  %ignored = call i32 %pause()
  br label %look
come:
  %next = add i64 %other, 1
  %are_more = icmp slt i64 %next, {threads}
  br i1 %are_more, label %others, label %over
over:
  ret void
}}
"""
