"""Print the functions of a step: each thread does its share of every unit, and they wait where the plan says so."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from xpnet.engines.llvm.blas import NO_TRANS, ROW_MAJOR, TRANS
from xpnet.engines.llvm.nests import Nest
from xpnet.engines.llvm.plan import Plan, Unit, Update
from xpnet.engines.llvm.products import Factor, Product, needs_scratch, write_product
from xpnet.engines.llvm.text import Function, Metadata, is_known, literal
from xpnet.program.calls import Buffer, Call, Operand, aligned
from xpnet.program.grouping import Group
from xpnet.program.places import place_of
from xpnet.program.sizes import Sizes

_ARGUMENTS = (
    "ptr {0}%T",
    "ptr {0}%M",
    "ptr {0}%U",
    "ptr %numbers",
    "i64 %m",
    "i64 %thread",
    "ptr %flags",
    "ptr %pause",
    "ptr %gemm",
)


class CannotPrint(ValueError):
    """A Program that the text cannot say; the message names the call."""


@dataclass(frozen=True)
class Library:
    """A library's product: 64 or 32 bits of its whole numbers, and from how many operations on it is called."""

    integer_bits: int
    least_flops: float


class StepPrinter:
    """Prints the units of a plan; what it needs at the module's end gathers in `numbers`, `tables` and `metadata`."""

    def __init__(self, plan: Plan, dtype: np.dtype[Any], sizes: Sizes, library: Library | None) -> None:
        self.plan, self.dtype, self.sizes, self.library = plan, dtype, sizes, library
        self.real = "float" if dtype.itemsize == 4 else "double"
        self.metadata = Metadata()
        self.numbers: list[tuple[int, int]] = []
        self.tables: list[str] = []

    def function(self, name: str) -> str:
        """The function of a step after its gather, or of an update that does not follow every step."""
        f, plan = Function(self.metadata, self.real), self.plan
        apart = plan.program.accumulate > 1  # the update has a function of its own
        pending = plan.filled() if name == "step" else []
        for unit in plan.units:
            if apart and (unit.phase == "update") != (name == "update"):
                continue
            touches = plan.touches(unit)
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
        alone = "noalias " if plan.threads == 1 else ""
        return f.text(name, [argument.format(alone) for argument in _ARGUMENTS])

    def split(self, f: Function, n: str, unit: int) -> tuple[str, str]:
        """This thread's part of 0 to n, cut at multiples of a unit."""
        threads = self.plan.threads
        if threads == 1:
            return "0", n
        if is_known(n):
            return self._chosen(f, self.plan.cuts(int(n), unit))
        share = f.let(f"udiv i64 {f.calculated('add', n, threads * unit - 1)}, {threads * unit}")
        share = f.calculated("mul", share, unit)
        start = f.let(f"call i64 @llvm.smin.i64(i64 {f.calculated('mul', '%thread', share)}, i64 {n})")
        end = f.let(f"call i64 @llvm.smin.i64(i64 {f.calculated('add', start, share)}, i64 {n})")
        return start, end

    def base(self, f: Function, buffer: Buffer) -> str:
        """The address of a buffer; of this thread's own copy, if there is one of each."""
        vector, offset, _ = place_of(self.plan.program, buffer)
        shared = f.element(self.real, f"%{vector}", offset)
        if not self.plan.is_own(buffer):
            return shared
        each = self.plan.copied_floats
        before = sum(aligned(own.size) for own in self.plan.own_samples if own.offset < buffer.offset)
        copies = self._behind(self.plan.threads * (self.plan.turned_floats + self.plan.strip_floats))
        mine = f.element(self.real, "%M", copies + before - each, f.calculated("mul", "%thread", each))
        return f.let(f"select i1 {f.let('icmp eq i64 %thread, 0')}, ptr {shared}, ptr {mine}")

    def _behind(self, offset: int) -> int:
        """A place behind the Program's own, in M."""
        return self.plan.program.n_floats - self.plan.program.n_owned + offset

    def _working(self, f: Function, first: int, each: int) -> str:
        """This thread's own working memory: of each so many elements, behind those before."""
        shift = f.calculated("mul", "%thread", each) if self.plan.threads > 1 else 0
        return f.element(self.real, "%M", self._behind(first), shift)

    def _wait(self, f: Function) -> None:
        if self.plan.threads > 1:
            f.do("call void @wait(ptr %flags, i64 %thread, ptr %pause)")

    def _chosen(self, f: Function, cuts: list[int]) -> tuple[str, str]:
        """Those of this thread."""
        start, end = str(cuts[0]), str(cuts[1])
        for i in range(1, self.plan.threads):
            is_mine = f.let(f"icmp eq i64 %thread, {i}")
            start, end = (
                f.let(f"select i1 {is_mine}, i64 {cut}, i64 {other}")
                for cut, other in ((cuts[i], start), (cuts[i + 1], end))
            )
        return start, end

    @contextmanager
    def _flat(self, f: Function, n: str, done: tuple[tuple[int, int], ...], text: str) -> Iterator[tuple[str, str]]:
        """A range of a flat vector of n elements, but what is done; each thread runs through several."""
        threads = self.plan.threads
        if threads == 1 and not done:
            yield "0", n
            return
        if not is_known(n):
            raise CannotPrint(f"{text} is on flat vectors as long as the batch")
        pieces = self.plan.flat_parts(int(n), done)
        numbers = [place for i in range(threads) for cuts in pieces for place in cuts[i : i + 2]]
        name = f"@cuts{len(self.tables)}"
        values = ", ".join(f"i64 {number}" for number in numbers)
        self.tables.append(f"{name} = internal constant [{len(numbers)} x i64] [{values}]")
        with f.loop(0, len(pieces), as_is=True) as piece:
            number = f.calculated("add", f.calculated("mul", "%thread", len(pieces)), piece.index)
            start = f.element("i64", name, f.calculated("mul", number, 2))
            yield f.let(f"load i64, ptr {start}"), f.let(f"load i64, ptr {f.element('i64', start, 1)}")

    def _new_nest(self, f: Function, group: Group, done: tuple[tuple[int, int], ...] = ()) -> Nest:
        text = self.plan.program.calls[group.steps[0].index].text
        return Nest(
            f,
            self.plan.program,
            group,
            number=lambda *place: self._number(f, *place),
            extent=self._extent,
            split=lambda n, unit: self.split(f, n, unit),
            flat=lambda n: self._flat(f, n, done, text),
        )

    def _nest(self, f: Function, unit: Unit) -> None:
        nest = self._new_nest(f, unit.group, unit.done)
        if unit.group.kind == "single" and self.plan.threads > 1:
            with f.when(f.let("icmp eq i64 %thread, 0")):
                nest.write()
        else:
            nest.write()

    def _extent(self, index: int, position: int, axis: int) -> str:
        found = self.sizes.extent(index, position, axis)
        return "%m" if found == "m" else found

    def _number(self, f: Function, index: int, position: int) -> str:
        call = self.plan.program.calls[index]
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

    def _product(self, f: Function, unit: Unit) -> None:
        plan, call = self.plan, self.plan.call(unit)
        left, right = call.operands
        most_rows, n_columns = call.out.shape
        n_rows, n_inner = self._extent(unit.index, -1, 0), self._extent(unit.index, 0, 0 if left.transposed else 1)
        if self._extent(unit.index, -1, 1) != str(n_columns):
            raise CannotPrint(f"{call.text} has as many features as the batch has samples")
        if unit.update is not None and not is_known(n_rows):
            raise CannotPrint(f"{call.text} has as many rows as the batch has samples, and theta is updated by it")
        columns = self.split(f, str(n_columns), 1) if plan.by_columns(unit) else None
        first, last = self.split(f, n_rows, 1) if columns is None else ("0", n_rows)
        if plan.calls_library(unit):
            self._library_product(f, call, (first, last), columns, n_inner)
            return
        one, other = (self._factor(f, operand) for operand in (left, right))
        bias = None if unit.bias is None else self.base(f, unit.bias.buffer)
        scratch = "%M"
        if needs_scratch(other.columns, n_inner, most_rows):
            scratch = self._working(f, 0, plan.turned_floats)
        out = self.base(f, call.out.buffer)
        product = Product(one, other, out, first, last, most_rows, n_inner, n_columns, bias, scratch, columns)
        if unit.update is None:
            write_product(f, product)
        else:
            self._strips(f, product, unit.update)

    def _strips(self, f: Function, product: Product, update: Update) -> None:
        """Make a strip of the gradient, in memory of its own, and update the weights by it; and so on."""
        plan, first, last = self.plan, product.first, product.last
        rows = plan.strip_rows(product.n_columns)
        strip = self._working(f, plan.threads * plan.turned_floats, plan.strip_floats)
        if is_known(first) and is_known(last) and int(last) - int(first) <= rows:
            self._strip(f, product, update, strip)
            return
        cuts = plan.cuts(product.most_rows, 1) if plan.threads > 1 else [product.most_rows]
        product = replace(product, most_rows=min(rows, product.most_rows), multiple=math.gcd(rows, *cuts))
        with f.loop(first, last, rows) as i:
            end = f.let(f"call i64 @llvm.smin.i64(i64 {f.calculated('add', i.index, rows)}, i64 {last})")
            self._strip(f, replace(product, first=i.index, last=end), update, strip)

    def _strip(self, f: Function, product: Product, update: Update, strip: str) -> None:
        """A product's rows into a strip, and the update that goes with them."""
        n, first = product.n_columns, product.first
        before = f.let(f"sub i64 0, {f.calculated('mul', first, n)}")
        out = f.let(f"getelementptr {self.real}, ptr {strip}, i64 {before}")
        write_product(f, replace(product, out=out))
        moved = f.let(f"getelementptr {self.real}, ptr {out}, i64 {-update.first}")
        start, end = (f.calculated("add", f.calculated("mul", row, n), update.first) for row in (first, product.last))
        place = place_of(self.plan.program, update.gradient)
        self._new_nest(f, update.group).write_part(start, end, place, moved)

    def _factor(self, f: Function, operand: Operand) -> Factor:
        rows, columns = (1, operand.shape[1]) if operand.transposed else (operand.shape[1], 1)
        return Factor(self.base(f, operand.buffer), rows, columns)

    def _library_product(
        self, f: Function, call: Call, rows: tuple[str, str], columns: tuple[str, str] | None, n_inner: str
    ) -> None:
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
        elif self.plan.threads > 1:
            n_rows = f.let(f"sub i64 {end}, {start}")
        for operand, stride in zip((left, right, call.out), strides, strict=True):
            addresses.append(f.element(self.real, self.base(f, operand.buffer), f.calculated("mul", start, stride)))
        turns = [TRANS if operand.transposed else NO_TRANS for operand in (left, right)]
        one, zero = literal(1.0), literal(0.0)
        f.do(
            f"call void %gemm(i32 {ROW_MAJOR}, i32 {turns[0]}, i32 {turns[1]}, {integer} {whole(n_rows)}, "
            f"{integer} {whole(n_columns)}, {integer} {whole(n_inner)}, {self.real} {one}, ptr {addresses[0]}, "
            f"{integer} {left.shape[1]}, ptr {addresses[1]}, {integer} {right.shape[1]}, {self.real} {zero}, "
            f"ptr {addresses[2]}, {integer} {wide})"
        )
