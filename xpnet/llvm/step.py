"""Print a Program as one function of LLVM's representation: it gathers, steps and hands out results for a whole run.

`run(arguments, thread)` takes the addresses of everything in one table, so that its text depends on nothing but the
Program, the types of the data and the number of threads. Each thread does its share of every nest of loops; where one
needs what another made, they wait for each other.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from xpnet.grouping import Group, direction, launches, leader
from xpnet.llvm.mathematics import definitions
from xpnet.llvm.nests import MATHEMATICS, Nest, is_read_after, place_of
from xpnet.llvm.products import (
    COLUMN_UNIT,
    VECTOR_BYTES,
    Factor,
    Product,
    needs_scratch,
    takes_columns,
    write_product,
)
from xpnet.llvm.text import Function, Metadata, is_known, literal
from xpnet.printer import Sizes
from xpnet.program import Buffer, Call, Operand, Program, aligned

# The order of the table that `run` is given: addresses and whole numbers of 8 bytes; the data of each gather follow.
TABLE = ("T", "M", "U", "order", "rows_in", "rows_out", "numbers", "last_numbers", "n_samples", "goes_on",
         "flags", "pause", "gemm")  # fmt: skip
LINE = 8  # places of 8 bytes from one thread's flag to the next: a cache line
AHEAD_BYTES = 30_000  # of samples that are on their way from memory while others are gathered
STRIP_UNIT, STRIP_FLOATS = 8, 8192  # a strip of gradient has a multiple of so many rows, and about so many elements
SPINS = 2000  # looks at another thread's flag before the processor is offered to others

_STEP_ARGUMENTS = ("ptr {0}%T", "ptr {0}%M", "ptr {0}%U", "ptr %numbers", "i64 %m", "i64 %thread", "ptr %flags",
                   "ptr %pause", "ptr %gemm")  # fmt: skip


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
    update: Update | None = None
    done: tuple[tuple[int, int], ...] = ()  # ranges of a flat vector's elements that products have updated already


@dataclass(frozen=True)
class Update:
    """The update of weights, strip by strip of rows, as soon as their gradient is there.

    group: its calls, on flat vectors.  gradient: the one that the product makes.  first: the matrix's first element.
    """

    group: Group
    gradient: Buffer
    first: int


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

    dtype: np.float32 or np.float64.  scales: of the gathered data of each name: None, or the factor of uint8 ones;
        empty if there is no data.
    threads: how many run it together.  library: a product to call where it is faster.
    Raises CannotPrint for what only a kernel of a user's own may say.
    """
    found = launches(program, share=False)
    printer = _Printer(program, np.dtype(dtype), Sizes(program, found), threads, library)
    units = _with_biases(program, [Unit(group, launch.phase) for launch in found for group in launch.groups], printer)
    units = printer.with_updates(units) if program.accumulate == 1 else units
    parts = [printer.step("step", [unit for unit in units if unit.phase != "update" or program.accumulate == 1])]
    if program.accumulate > 1:
        parts.append(printer.step("update", [unit for unit in units if unit.phase == "update"]))
    parts += [printer.run(scales), *[_WAIT.format(threads=threads, line=LINE, spins=SPINS)] * (threads > 1)]
    words = sorted({call.word for call in program.calls} & set(MATHEMATICS))
    parts += [*printer.tables, _declared(printer.real), definitions(words, dtype), *printer.metadata.lines, ""]
    return StepText("\n".join(parts), printer.sizes, tuple(printer.numbers))


def scratch_floats(program: Program, threads: int) -> int:
    """Elements that all threads need behind the float arena: for turned operands, and for samples of their own."""
    own = sum(aligned(buffer.size) for buffer in _own_samples(program, threads))
    return threads * (_turned_floats(program) + _strip_floats(program)) + (threads - 1) * own


def _strip_floats(program: Program) -> int:
    """Elements of the largest strip of a gradient's rows."""
    rows = (call.out.shape[1] for call in program.calls if call.word == "matmul")
    return aligned(max((_strip_rows(n) * n for n in rows), default=0))


def _strip_rows(n_columns: int) -> int:
    """Rows of a strip: a few tiles, that stay in a near cache."""
    return max(STRIP_UNIT, STRIP_FLOATS // n_columns // STRIP_UNIT * STRIP_UNIT)


def _turned_floats(program: Program) -> int:
    """Elements that a thread needs to turn the operand of a product round."""
    return aligned(max((_turned(call) for call in program.calls if call.word == "matmul"), default=0))


def _turned(call: Call) -> int:
    right = call.operands[1]
    return right.buffer.size if right.transposed else 0


def _own_samples(program: Program, threads: int) -> list[Buffer]:
    """The gathered buffers of which each thread gathers a copy of its own: those that only products read.

    All threads read all samples there, and what another core has just written comes slower than from memory.
    """
    if threads == 1:
        return []
    others = [operand.buffer for call in program.calls
              for operand in (call.out, *(() if call.word == "matmul" else call.operands))]  # fmt: skip
    return [buffer for _, buffer in program.gathers if not any(buffer.overlaps(other) for other in others)]


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
        self.tables: list[str] = []
        self.own_samples = _own_samples(program, threads)

    def step(self, name: str, units: list[Unit]) -> str:
        """The function of a step after its gather, or of its update."""
        f = Function(self.metadata, self.real)
        pending = self._filled() if name == "step" else []
        for unit in units:
            touches = self._touches(unit)
            if any(one.clashes(other) for one in touches for other in pending):
                self._wait(f)
                pending = []
            pending += touches
            if unit.group.kind == "product":
                self._product(f, unit)
            else:
                self._nest(f, unit)
        self._wait(f)
        # Nothing else may be said to reach these vectors, or LLVM would move loads across a wait.
        alone = "noalias " if self.threads == 1 else ""
        return f.text(name, [argument.format(alone) for argument in _STEP_ARGUMENTS])

    def _filled(self) -> list[_Touch]:
        """What is written before a step's first call: the gathered samples, by rows, and the slots."""
        found = [_Touch(place_of(self.program, buffer), f"rows of {buffer.shape[1]}", True)
                 for _, buffer in self.program.gathers if not self._is_own(buffer)]  # fmt: skip
        slots = [self.program.buffers[name] for name in self.program.slots]
        return found + [_Touch(place_of(self.program, slot), "the first thread", True) for slot in slots]

    def with_updates(self, units: list[Unit]) -> list[Unit]:
        """Draw the update of the weights into the products that make their gradient: it need not go through memory."""
        for place, unit in enumerate(units):
            for gradient in self._read_first(unit):
                units = self._hoisted(units, place)
                for i, product in enumerate(units[:place]):
                    update = self._update_of(product, unit, gradient, units[i + 1 : place])
                    if update is not None:
                        units[i] = replace(product, update=update)
                        size = self.program.calls[product.group.steps[0].index].out.buffer.size
                        done = (*units[place].done, (update.first, update.first + size))
                        units[place] = replace(units[place], done=done)
        return units

    def _read_first(self, unit: Unit) -> list[Buffer]:
        """The flat vectors that a group of calls on such reads before it writes them."""
        calls = [self.program.calls[step.index] for step in unit.group.steps]
        if unit.group.kind != "element" or any(call.out.buffer.form != "flat" for call in calls):
            return []
        found: dict[int, Buffer] = {}
        written: set[int] = set()
        for call in calls:
            for operand in call.operands:
                if operand.shape and operand.buffer.kind == "float" and operand.buffer.offset not in written:
                    found[operand.buffer.offset] = operand.buffer
            written.add(call.out.buffer.offset)
        return list(found.values())

    def _hoisted(self, units: list[Unit], end: int) -> list[Unit]:
        """Move calls on single numbers, before a place, to the front as far as what they need allows."""
        units = list(units)
        for i in range(1, end):
            j = i
            while j and units[j].group.kind == "single" and not self._clash([units[j]], [units[j - 1]]):
                units[j - 1], units[j] = units[j], units[j - 1]
                j -= 1
        return units

    def _clash(self, ones: list[Unit], others: list[Unit]) -> bool:
        return any(replace(one, owned="").clashes(replace(other, owned=""))
                   for unit in ones for one in self._touches(unit)
                   for after in others for other in self._touches(after))  # fmt: skip

    def _update_of(self, product: Unit, unit: Unit, gradient: Buffer, between: list[Unit]) -> Update | None:
        """What a product can do of an update; None if it makes none of the gradient, or others have a say meanwhile."""
        if product.group.kind != "product" or product.update is not None or self.calls_library(product):
            return None
        call = self.program.calls[product.group.steps[0].index]
        out, first = call.out.buffer, call.out.buffer.offset - gradient.offset
        is_part = out.kind == "float" and 0 <= first <= gradient.size - out.size and not out.flipped
        if not is_part or is_read_after(self.program, out, unit.group.steps[-1].index):
            return None
        update = Update(unit.group, gradient, first)
        changed = replace(product, update=update)
        mine = [replace(touch, owned="") for touch in self._touches(changed)]
        theirs = [replace(touch, owned="") for other in between for touch in self._touches(other)]
        read = [replace(touch, owned="") for touch in self._touches(product) if not touch.writes]
        added = mine[len(self._touches(product)) :]
        if any(one.clashes(other) for one in mine for other in theirs) or any(
            one.clashes(other) for one in added for other in read
        ):
            return None
        return update

    def _wait(self, f: Function) -> None:
        if self.threads > 1:
            f.do("call void @wait(ptr %flags, i64 %thread, ptr %pause)")

    def _split(self, f: Function, n: str, unit: int) -> tuple[str, str]:
        """This thread's part of 0 to n, cut at multiples of a unit."""
        if self.threads == 1:
            return "0", n
        if not n.startswith("%"):
            return self._chosen(f, self._cuts(int(n), unit))
        share = f.let(f"udiv i64 {f.calculated('add', n, self.threads * unit - 1)}, {self.threads * unit}")
        share = f.calculated("mul", share, unit)
        start = f.let(f"call i64 @llvm.smin.i64(i64 {f.calculated('mul', '%thread', share)}, i64 {n})")
        end = f.let(f"call i64 @llvm.smin.i64(i64 {f.calculated('add', start, share)}, i64 {n})")
        return start, end

    def _cuts(self, n: int, unit: int) -> list[int]:
        """Where the parts of the threads begin and end; of rows of weights where products may be cut too."""
        unit = COLUMN_UNIT if unit == 1 and n > 2 * COLUMN_UNIT else unit
        return [round(i * n / (self.threads * unit)) * unit for i in range(self.threads)] + [n]

    def _chosen(self, f: Function, cuts: list[int]) -> tuple[str, str]:
        """Those of this thread."""
        start, end = str(cuts[0]), str(cuts[1])
        for i in range(1, self.threads):
            is_mine = f.let(f"icmp eq i64 %thread, {i}")
            start, end = (f.let(f"select i1 {is_mine}, i64 {cut}, i64 {other}")
                          for cut, other in ((cuts[i], start), (cuts[i + 1], end)))  # fmt: skip
        return start, end

    @contextmanager
    def _flat(self, f: Function, n: str, done: tuple[tuple[int, int], ...]) -> Iterator[tuple[str, str]]:
        """A range of a flat vector of n elements; each thread runs through several. done: ranges to leave out.

        What lies like theta is cut as the products cut its matrices, so that weights stay with the thread that has
        them: from another core's cache they come at the speed of memory.
        """
        if self.threads == 1 and not done:
            yield "0", n
            return
        matrices = {buffer.offset: buffer.shape for buffer in self.program.buffers.values()
                    if buffer.kind == "float" and buffer.form == "matrix" and not buffer.flipped
                    and buffer.offset + buffer.size <= min(int(n), self.program.n_owned)}  # fmt: skip
        pieces, offsets = [], sorted(matrices)
        for offset, end in zip(offsets, [*offsets[1:], None], strict=True):
            rows, columns = matrices[offset]
            cuts = [offset + cut * columns for cut in self._cuts(rows, 1)]
            if (offset, offset + rows * columns) not in done:  # what lies between two matrices goes with the first
                pieces.append(cuts if end is None else [*cuts[:-1], end])
        start = offsets[-1] + math.prod(matrices[offsets[-1]]) if offsets else 0
        pieces.append([start + cut for cut in self._cuts(int(n) - start, 16)])
        numbers = [place for i in range(self.threads) for cuts in pieces for place in cuts[i : i + 2]]
        name = f"@cuts{len(self.tables)}"
        values = ", ".join(f"i64 {number}" for number in numbers)
        self.tables.append(f"{name} = internal constant [{len(numbers)} x i64] [{values}]")
        with f.loop(0, len(pieces), as_is=True) as piece:
            number = f.calculated("add", f.calculated("mul", "%thread", len(pieces)), piece.index)
            place = f.calculated("mul", number, 2)
            addresses = f.element("i64", name, place), f.element("i64", name, place, 1)
            yield f.let(f"load i64, ptr {addresses[0]}"), f.let(f"load i64, ptr {addresses[1]}")

    def _new_nest(self, f: Function, group: Group, done: tuple[tuple[int, int], ...] = ()) -> Nest:
        return Nest(f, self.program, group, number=lambda *place: self._number(f, *place), extent=self._extent,
                    split=lambda n, unit: self._split(f, n, unit), flat=lambda n: self._flat(f, n, done))  # fmt: skip

    def _nest(self, f: Function, unit: Unit) -> None:
        nest = self._new_nest(f, unit.group, unit.done)
        if unit.group.kind == "single" and self.threads > 1:
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
        n_inner = self._extent(index, 0, 0 if left.transposed else 1)
        columns = self._split(f, str(call.out.shape[1]), 1) if self._by_columns(unit) else None
        first, last = self._split(f, n_rows, 1) if columns is None else ("0", n_rows)
        if self.calls_library(unit):
            self._library_product(f, call, (first, last), columns, n_inner)
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
            each = _turned_floats(self.program)
            scratch = f.element(self.real, "%M", self.program.n_floats - self.program.n_owned,
                                f.calculated("mul", "%thread", each) if self.threads > 1 else 0)  # fmt: skip
        out = f.element(self.real, f"%{vector}", offset)
        product = Product(one, other, out, first, last, most_rows, n_inner, n_columns, bias, scratch, columns)
        if unit.update is None:
            write_product(f, product)
        else:
            self._strips(f, product, unit.update)

    def _strips(self, f: Function, product: Product, update: Update) -> None:
        """Make a strip of the gradient, in memory of its own, and update the weights by it; and so on."""
        rows, n = _strip_rows(product.n_columns), product.n_columns
        each = _strip_floats(self.program)
        place = self.program.n_floats - self.program.n_owned + self.threads * _turned_floats(self.program)
        strip = f.element(self.real, "%M", place, f.calculated("mul", "%thread", each) if self.threads > 1 else 0)
        cuts = self._cuts(product.most_rows, 1) if self.threads > 1 else [product.most_rows]
        multiple = math.gcd(rows, *cuts)
        whole = is_known(product.first) and is_known(product.last) and int(product.last) - int(product.first) <= rows
        with f.loop(product.first, product.last, rows) as i:
            end = (
                str(product.last)
                if whole
                else f.let(f"call i64 @llvm.smin.i64(i64 {f.calculated('add', i.index, rows)}, i64 {product.last})")
            )
            before = f.let(f"sub i64 0, {f.calculated('mul', i.index, n)}")
            out = f.let(f"getelementptr {self.real}, ptr {strip}, i64 {before}")
            write_product(f, replace(product, first=i.index, last=end, out=out, most_rows=rows, multiple=multiple))
            moved = f.let(f"getelementptr {self.real}, ptr {out}, i64 {-update.first}")
            start, stop = (f.calculated("add", f.calculated("mul", row, n), update.first) for row in (i.index, end))
            self._new_nest(f, update.group).write_part(start, stop, place_of(self.program, update.gradient), moved)

    def _factor(self, f: Function, operand: Operand) -> Factor:
        rows, columns = (1, operand.shape[1]) if operand.transposed else (operand.shape[1], 1)
        return Factor(self._base(f, operand.buffer), rows, columns)

    def _base(self, f: Function, buffer: Buffer) -> str:
        """The address of a buffer; of this thread's own copy, if there is one of each."""
        vector, offset, _ = place_of(self.program, buffer)
        shared = f.element(self.real, f"%{vector}", offset)
        if not self._is_own(buffer):
            return shared
        working = _turned_floats(self.program) + _strip_floats(self.program)
        copies = self.program.n_floats - self.program.n_owned + self.threads * working
        each = sum(aligned(own.size) for own in self.own_samples)
        before = sum(aligned(own.size) for own in self.own_samples if own.offset < buffer.offset)
        mine = f.element(self.real, "%M", copies + before - each, f.calculated("mul", "%thread", each))
        return f.let(f"select i1 {f.let('icmp eq i64 %thread, 0')}, ptr {shared}, ptr {mine}")

    def _is_own(self, buffer: Buffer) -> bool:
        return buffer.kind == "float" and any(buffer.offset == own.offset for own in self.own_samples)

    def _by_columns(self, unit: Unit) -> bool:
        """Whether threads cut a product by its columns: where weights are more than samples, each keeps its own."""
        if unit.group.kind != "product" or self.threads == 1:
            return False
        call = self.program.calls[unit.group.steps[0].index]
        left, right = call.operands
        if not right.transposed or left.transposed:
            return False
        n_inner, n_columns = right.shape[1], call.out.shape[1]
        fits = takes_columns(n_inner, n_inner, n_columns, VECTOR_BYTES // self.dtype.itemsize)
        return fits and right.buffer.size > left.buffer.size + call.out.buffer.size

    def _library_product(
        self, f: Function, call: Call, rows: tuple[str, str], columns: tuple[str, str] | None, n_inner: str
    ) -> None:  # fmt: skip
        """A call of cblas_?gemm, in C order, on this thread's rows or columns."""
        assert self.library is not None
        integer = f"i{self.library.integer_bits}"

        def whole(value: str) -> str:
            if integer == "i64" or not value.startswith("%"):
                return value
            return f.let(f"trunc i64 {value} to i32")

        left, right = call.operands
        addresses = []
        wide = call.out.shape[1]
        strides = (1 if left.transposed else left.shape[1], 0, wide)
        (start, end), n_rows, n_columns = rows, rows[1], str(wide)
        if columns is not None:
            (start, end), strides = columns, (0, right.shape[1], 1)
            n_columns = f.let(f"sub i64 {end}, {start}")
        elif self.threads > 1:
            n_rows = f.let(f"sub i64 {end}, {start}")
        for operand, stride in zip((left, right, call.out), strides, strict=True):
            addresses.append(f.element(self.real, self._base(f, operand.buffer), f.calculated("mul", start, stride)))
        turns = [112 if operand.transposed else 111 for operand in (left, right)]
        one, zero = literal(1.0), literal(0.0)
        f.do(f"call void %gemm(i32 101, i32 {turns[0]}, i32 {turns[1]}, {integer} {whole(n_rows)}, "
             f"{integer} {whole(n_columns)}, {integer} {whole(n_inner)}, {self.real} {one}, ptr {addresses[0]}, "
             f"{integer} {left.shape[1]}, ptr {addresses[1]}, {integer} {right.shape[1]}, {self.real} {zero}, "
             f"ptr {addresses[2]}, {integer} {wide})")  # fmt: skip

    def _touches(self, unit: Unit) -> list[_Touch]:
        """What a unit's threads touch, and which of it each has to itself."""
        calls, found = [self.program.calls[step.index] for step in unit.group.steps], []
        for call in calls:
            for operand in (*call.operands, call.out):
                if self._is_own(operand.buffer):
                    continue
                owned = "" if self._by_columns(unit) else self._cut(unit.group.kind, calls, call, operand)
                found.append(_Touch(place_of(self.program, operand.buffer), owned, operand is call.out))
        if unit.bias is not None:
            found.append(_Touch(place_of(self.program, unit.bias.buffer), "", False))
        return found + self._update_touches(unit)

    def _update_touches(self, unit: Unit) -> list[_Touch]:
        if unit.update is None:
            return []
        size, found = self.program.calls[unit.group.steps[0].index].out.buffer.size, []
        for step in unit.update.group.steps:
            call = self.program.calls[step.index]
            for operand in (*call.operands, call.out):
                vector, offset, length = place_of(self.program, operand.buffer)
                place = (vector, offset + unit.update.first, size) if operand.shape else (vector, offset, length)
                found.append(_Touch(place, "", operand is call.out))
        return found

    def _cut(self, kind: str, calls: list[Call], call: Call, operand: Operand) -> str:
        """By which cut, as `Nest.write` and `_product` have it, each thread has its part of an operand."""
        if kind == "single":
            return "the first thread"
        if kind == "product":
            left = call.operands[0]
            by_rows = operand is call.out or (operand is left and not left.transposed)
            return f"rows of {call.out.shape[0]}" if by_rows else ""
        first = leader(call)
        if all(len(leader(other).shape) == 1 for other in calls):
            kind = "row" if first.buffer.flipped else "column"
        if first.buffer.form == "flat":
            return f"flat of {first.shape[0]}" if operand.shape else ""
        if len(first.shape) == 1:
            is_cut, length = bool(operand.shape), first.shape[0]
        else:
            along = "along rows" if kind == "column" else "along columns"
            is_cut, length = direction(call, operand) in ("matrix", along), first.shape[kind == "column"]
        return f"{'elements' if kind == 'column' else 'rows'} of {length}" if is_cut else ""

    def run(self, scales: Mapping[str, float | None]) -> str:
        """The function that is called: all steps of a run."""
        f = Function(self.metadata, self.real)
        for i, name in enumerate(TABLE):
            kind = "i64" if name in ("n_samples", "goes_on") else "ptr"
            f.do(f"%{name} = load {kind}, ptr {f.element('i64', '%table', i)}")
        program = self.program
        capacity = program.capacity
        n_steps = f.let(f"udiv i64 {f.calculated('add', '%n_samples', capacity - 1)}, {capacity}")
        gathers = program.gathers if scales else ()  # without data the samples were fed
        sources = [f.let(f"load ptr, ptr {f.element('i64', '%table', len(TABLE) + i)}") for i in range(len(gathers))]
        with f.loop(0, n_steps) as t:
            done = f.calculated("mul", t.index, capacity)
            left = f.let(f"sub i64 %n_samples, {done}")
            m = f.let(f"call i64 @llvm.smin.i64(i64 {left}, i64 {capacity})")
            is_full = f.let(f"icmp eq i64 {m}, {capacity}")
            numbers = f.let(f"select i1 {is_full}, ptr %numbers, ptr %last_numbers")
            self._copy(f, "rows_in", program.slots, t.index, into_memory=True)
            part = self._split(f, m, 1)
            for source, (name, buffer) in zip(sources, gathers, strict=True):
                self._gather(f, source, scales[name], buffer, ("0", m) if self._is_own(buffer) else part, done)
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
        n, base = buffer.shape[0], self._base(f, buffer)
        kind, size = (self.real, self.dtype.itemsize) if scale is None else ("i8", 1)
        line = 64 // size
        ahead = max(1, AHEAD_BYTES // (n * size))
        last = f.let("sub i64 %n_samples, 1")
        with f.loop(*rows) as row:
            place = f.calculated("add", done, row.index)
            later = f.let(f"call i64 @llvm.smin.i64(i64 {f.calculated('add', place, ahead)}, i64 {last})")
            data, coming = (
                f.element(
                    kind, source, f.calculated("mul", f.let(f"load i64, ptr {f.element('i64', '%order', at)}"), n)
                )
                for at in (place, later)
            )
            target = f.element(self.real, base, f.calculated("mul", row.index, n))
            if n >= line:
                with f.loop(0, n // line * line, line, as_is=True) as i:
                    f.do(f"call void @llvm.prefetch.p0(ptr {f.element(kind, coming, i.index)}, i32 0, i32 2, i32 1)")
                    self._copy_sample(
                        f, f.element(kind, data, i.index), f.element(self.real, target, i.index), line, scale
                    )
            if n % line:
                start = n // line * line
                f.do(f"call void @llvm.prefetch.p0(ptr {f.element(kind, coming, start)}, i32 0, i32 2, i32 1)")
                with f.loop(start, n) as i:
                    self._copy_sample(
                        f, f.element(kind, data, i.index), f.element(self.real, target, i.index), 1, scale
                    )

    def _copy_sample(self, f: Function, source: str, target: str, n: int, scale: float | None) -> None:
        """n numbers of a sample, of bytes scaled."""
        kind, own = (f"<{n} x {name}>" if n > 1 else name for name in (self.real, self.real if scale is None else "i8"))
        value = f.let(f"load {own}, ptr {source}, align {self.dtype.itemsize if scale is None else 1}")
        if scale is not None:
            factor = literal(float(self.dtype.type(scale)))
            value = f.let(f"uitofp {own} {value} to {kind}")
            value = f.let(f"fmul {kind} {value}, {f'splat ({self.real} {factor})' if n > 1 else factor}")
        f.do(f"store {kind} {value}, ptr {target}, align {self.dtype.itemsize}")


def _declared(real: str) -> str:
    """What the functions call of LLVM's own."""
    bits = 32 if real == "float" else 64
    lanes = 8 if real == "float" else 4
    return "\n".join([
        f"declare {real} @llvm.fabs.f{bits}({real})",
        f"declare {real} @llvm.sqrt.f{bits}({real})",
        f"declare {real} @llvm.vector.reduce.fadd.v{lanes}f{bits}({real}, <{lanes} x {real}>)",
        "declare i64 @llvm.smin.i64(i64, i64)",
        "declare void @llvm.prefetch.p0(ptr, i32, i32, i32)",
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
