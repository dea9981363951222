"""Print the functions of a step by walking the plan's units, of which each thread does its share."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from xpnet.engines.blas import NO_TRANS, ROW_MAJOR, TRANS
from xpnet.engines.llvm.loops import LoopPrinter, Values
from xpnet.engines.llvm.plan import Plan
from xpnet.engines.llvm.products import Factor, Product, write_packing, write_product
from xpnet.engines.llvm.text import Function, Metadata, in_llvm, is_known, literal
from xpnet.engines.llvm.units import CannotPrint, FusedUpdate, Share, WorkUnit
from xpnet.engines.llvm.words import repeated, write_word
from xpnet.program.calls import Buffer, Call, Operand, Place
from xpnet.program.grouping import Group
from xpnet.program.loops import loop_nest
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


@dataclass(frozen=True)
class Library:
    """A library's product: bits of its integers (64 or 32), and the FLOPs from which it is called."""

    integer_bits: int
    least_flops: float


class StepPrinter:
    """Prints the units of a plan; `numbers`, `tables` and `metadata` collect the end of the module.

    ends: places of a block's samples and results -> the argument with their address in arrays of the caller.
    """

    def __init__(
        self,
        plan: Plan,
        dtype: np.dtype[Any],
        sizes: Sizes,
        library: Library | None,
        vector_bytes: int,
        ends: Mapping[Place, str],
    ) -> None:
        self.plan, self.dtype, self.sizes, self.library, self._vector_bytes = plan, dtype, sizes, library, vector_bytes
        self.ends = ends
        self.real = "float" if dtype.itemsize == 4 else "double"
        self.metadata = Metadata()
        self.numbers: list[tuple[int, int]] = []
        self.tables: list[str] = []

    def new_function(self) -> Function:
        """Return an empty function."""
        return Function(self.metadata, self.real, self._vector_bytes)

    def function(self, name: str) -> str:
        """Return the text of one of `Program.functions`."""
        f = self.new_function()
        for number, unit in self.plan.units_of(name):
            words = ", ".join(call.word for call in unit.calls)  # not the call's text: it has names from elsewhere
            f.do(f"; unit {number}: {unit.group.kind}: {words}")
            if unit.waits:
                self._wait(f)
            if unit.group.kind == "product":
                self._product(f, unit)
            else:
                self._loops(f, unit)
        self._wait(f)
        # With more threads, `noalias` would let LLVM move loads across a wait.
        alone = "noalias " if self.plan.threads == 1 else ""
        ends = [f"ptr {alone}{address}" for address in self.ends.values()]
        return f.text(name, [argument.format(alone) for argument in _ARGUMENTS] + ends)

    def packing(self) -> str:
        """Return the text of the function `pack`, which copies matrices in the order of tiles before the first step."""
        f = self.new_function()
        for unit in self.plan.units:
            if unit.is_packed:
                right = unit.call.operands[1]
                n_columns, n_inner = right.shape
                write_packing(f, self._factor(f, right), n_inner, n_columns, self._packed(f, right.buffer))
        return f.text("pack", [argument.format("noalias ") for argument in _ARGUMENTS[:2]])

    def split(self, f: Function, share: Share, batch: str = "%m") -> tuple[str, str]:
        """Return the bounds of this thread's part of a share. batch: the value that holds the batch length."""
        threads, granule = self.plan.threads, share.granule
        n = batch if share.extent == "%m" else share.extent
        if threads == 1:
            return "0", n
        if share.pieces:
            return self._chosen(f, share.pieces[0])
        part = f.let(f"udiv i64 {f.calculated('add', n, threads * granule - 1)}, {threads * granule}")
        part = f.calculated("mul", part, granule)
        start = f.let(f"call i64 @llvm.smin.i64(i64 {f.calculated('mul', '%thread', part)}, i64 {n})")
        end = f.let(f"call i64 @llvm.smin.i64(i64 {f.calculated('add', start, part)}, i64 {n})")
        return start, end

    def base(self, f: Function, buffer: Buffer) -> str:
        """Return the address of a buffer, or of this thread's private copy."""
        place = place_of(self.plan.program, buffer)
        if place in self.ends:
            return self.ends[place]
        memory, offset, _ = place
        shared, working = f.element(self.real, f"%{memory}", offset), self.plan.working
        if buffer.kind != "float" or buffer.offset not in working.copies:
            return shared
        first = working.first + self.plan.threads * (working.transposed + working.strip) - working.copied
        shift = f.calculated("mul", "%thread", working.copied)
        mine = f.element(self.real, "%M", first + working.copies[buffer.offset], shift)
        return f.let(f"select i1 {f.let('icmp eq i64 %thread, 0')}, ptr {shared}, ptr {mine}")

    def _working(self, f: Function, first: int, each: int) -> str:
        """Return the address of this thread's working memory: the blocks of `each` elements begin at `first`."""
        shift = f.calculated("mul", "%thread", each) if self.plan.threads > 1 else 0
        return f.element(self.real, "%M", self.plan.working.first + first, shift)

    def _wait(self, f: Function) -> None:
        if self.plan.threads > 1:
            f.do("call void @wait(ptr %flags, i64 %thread, ptr %pause)")

    def _chosen(self, f: Function, points: tuple[int, ...]) -> tuple[str, str]:
        """Return this thread's two of the split points."""
        start, end = str(points[0]), str(points[1])
        for i in range(1, self.plan.threads):
            is_mine = f.let(f"icmp eq i64 %thread, {i}")
            start, end = (
                f.let(f"select i1 {is_mine}, i64 {point}, i64 {other}")
                for point, other in ((points[i], start), (points[i + 1], end))
            )
        return start, end

    @contextmanager
    def _part(self, f: Function, share: Share) -> Iterator[tuple[str, str]]:
        """Yield the bounds of this thread's part; for a flat vector inside a loop over its pieces."""
        if share.of != "flat":
            yield self.split(f, share)
            return
        threads, pieces = self.plan.threads, share.pieces
        if threads == 1 and pieces == ((0, share.length),):
            yield "0", share.extent
            return
        numbers = [place for i in range(threads) for points in pieces for place in points[i : i + 2]]
        name = f"@cuts{len(self.tables)}"
        values = ", ".join(f"i64 {number}" for number in numbers)
        self.tables.append(f"{name} = internal constant [{len(numbers)} x i64] [{values}]")
        with f.loop(0, len(pieces), as_is=True) as piece:
            number = f.calculated("add", f.calculated("mul", "%thread", len(pieces)), piece.index)
            start = f.element("i64", name, f.calculated("mul", number, 2))
            yield f.let(f"load i64, ptr {start}"), f.let(f"load i64, ptr {f.element('i64', start, 1)}")

    def _printer(self, f: Function, group: Group, moved: dict[Place, str] | None = None) -> LoopPrinter:
        nest = loop_nest(self.plan.program, self.sizes, group)
        return LoopPrinter(
            f, nest, Values(f, nest, lambda *place: self._number(f, *place), {**self.ends, **(moved or {})})
        )

    def _loops(self, f: Function, unit: WorkUnit) -> None:
        printer = self._printer(f, unit.group)
        if unit.share.of == "first thread":
            with f.when(f.let("icmp eq i64 %thread, 0")) if self.plan.threads > 1 else nullcontext():
                printer.write("0", "1")
        else:
            with self._part(f, unit.share) as (start, end):
                printer.write(start, end)

    def _extent(self, index: int, position: int, axis: int) -> str:
        return in_llvm(self.sizes.extent(index, position, axis))

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
        with np.errstate(over="ignore"):  # beyond float32 it is infinite, as in NumPy
            return literal(float(self.dtype.type(value)))

    def _product(self, f: Function, unit: WorkUnit) -> None:
        call, part = unit.call, self.split(f, unit.share)
        (left, right), (most_rows, n_columns) = call.operands, call.out.shape
        n_rows, n_inner = self._extent(unit.index, -1, 0), self._extent(unit.index, 0, 0 if left.transposed else 1)
        columns = part if unit.by_columns else None
        first, last = ("0", n_rows) if unit.by_columns else part
        if unit.by_library:
            self._library_product(f, call, (first, last), columns, n_inner)
            return
        one, other = (self._factor(f, operand) for operand in (left, right))
        bias = None if unit.bias is None else self.base(f, unit.bias.buffer)
        scratch = self._working(f, 0, self.plan.working.transposed) if unit.transposes else None
        out = self.base(f, call.out.buffer)
        product = Product(one, other, out, first, last, most_rows, n_inner, n_columns, bias, scratch, columns)
        if unit.finish:
            product = replace(product, finish=lambda kind, value: self._finished(f, unit, kind, value))
        if unit.is_packed:
            product = replace(product, packed=self._packed(f, right.buffer))
        if unit.update is None:
            write_product(f, product)
        else:
            self._strips(f, product, unit.update, unit.share.pieces[0])

    def _strips(self, f: Function, product: Product, update: FusedUpdate, split_points: tuple[int, ...]) -> None:
        """Print a loop over strips: compute a strip of the gradient in working memory, then update its weights."""
        working, first, last, rows = self.plan.working, product.first, product.last, update.strip_rows
        strip = self._working(f, self.plan.threads * working.transposed, working.strip)
        if is_known(first) and is_known(last) and int(last) - int(first) <= rows:
            self._strip(f, product, update, strip)
            return
        product = replace(product, most_rows=min(rows, product.most_rows), multiple=math.gcd(rows, *split_points))
        with f.loop(first, last, rows) as i:
            end = f.let(f"call i64 @llvm.smin.i64(i64 {f.calculated('add', i.index, rows)}, i64 {last})")
            self._strip(f, replace(product, first=i.index, last=end), update, strip)

    def _strip(self, f: Function, product: Product, update: FusedUpdate, strip: str) -> None:
        """Print a product's rows into a strip, and the update of their weights."""
        n, first = product.n_columns, product.first
        before = f.let(f"sub i64 0, {f.calculated('mul', first, n)}")
        out = f.let(f"getelementptr {self.real}, ptr {strip}, i64 {before}")
        write_product(f, replace(product, out=out))
        moved = f.let(f"getelementptr {self.real}, ptr {out}, i64 {-update.first}")
        start, end = (f.calculated("add", f.calculated("mul", row, n), update.first) for row in (first, product.last))
        place = place_of(self.plan.program, update.gradient)
        self._printer(f, update.group, {place: moved}).write_line(start, end)

    def _finished(self, f: Function, unit: WorkUnit, kind: str, value: str) -> str:
        """Print what is fused behind a product, on one number or vector of its result."""
        for step in unit.finish:
            number = repeated(self._number(f, step.index, 1), kind)
            value = write_word(f, self.plan.program.calls[step.index].word, kind, [value, number], [False, True])
        return value

    def _packed(self, f: Function, buffer: Buffer) -> str:
        return f.element(self.real, "%M", self.plan.working.packed[buffer.offset])

    def _factor(self, f: Function, operand: Operand) -> Factor:
        rows, columns = (1, operand.shape[1]) if operand.transposed else (operand.shape[1], 1)
        return Factor(self.base(f, operand.buffer), rows, columns)

    def _library_product(
        self, f: Function, call: Call, rows: tuple[str, str], columns: tuple[str, str] | None, n_inner: str
    ) -> None:
        """Print a call of cblas_?gemm, in C order, on this thread's rows or columns."""
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
