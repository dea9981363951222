"""Print the loop nest of a group as LLVM IR: loops over the workers around the tree of `xpnet.program.loops`.

Within a turn of a loop, results stay in values; a place is stored once a turn, with its last value, and only if it is
read later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from xpnet.engines.llvm.text import FAST_MATH_FLAGS, Function, Regions, in_llvm, is_known, literal
from xpnet.engines.llvm.words import extreme, write_word
from xpnet.program.calls import Operand, Place
from xpnet.program.loops import Item, LoopNest, Segment, Statement

# The loop over the numbers of a short row is unrolled, so that LLVM works on several rows at once: softmax of 10
# classes takes a third of the time, and compiling half a second more, which few rows do not repay.
SHORT_ROW, MANY_ROWS = 16, 64
LONG_SUM = 4096  # numbers summed at once; longer sums are sums of such sums, which lose fewer digits
LONG_COLUMN = 512  # the same for a column, which is summed one number after another, not in vectors

Where = dict[str, str]  # role of an item -> its index


class Values:
    """The items of a nest: kept in LLVM values once loaded or computed, and stored on request.

    moved: place -> address of its element 0, for places that lie elsewhere.
    number: prints the number of a call at (index, position).
    """

    def __init__(
        self, f: Function, nest: LoopNest, number: Callable[[int, int], str], moved: dict[Place, str] | None = None
    ) -> None:
        self._f, self._nest, self._number, self._moved = f, nest, number, moved or {}
        statements = nest.statements
        places = [item.place for statement in statements for item in (*statement.items, statement.out)]
        self._regions = Regions(f.metadata, places)
        self._values: dict[Any, str] = {}
        self._written: dict[Any, tuple[Item, str, str]] = {}

    def loaded(self, item: Item, where: Where) -> str:
        """Return the value of an item, loading it if necessary."""
        if item.key not in self._values:
            address, notes = self.address(item, where.get(item.role, "0"))
            self._values[item.key] = self._f.let(f"load {self._type(item.operand)}, ptr {address}{notes}")
        return self._values[item.key]

    def load_all(self, items: Iterable[Item], where: Where) -> None:
        """Load items before a loop in which they do not change."""
        for item in items:
            self.loaded(item, where)

    def statement(self, statement: Statement, where: Where) -> None:
        """Print one call on one element."""
        call = statement.call
        values = [
            self._number(statement.step.index, position) if item is None else self.loaded(item, where)
            for position, item in enumerate(statement.inputs)
        ]
        constants = [item is None for item in statement.inputs]
        value = write_word(self._f, call.word, self._type(call.operands[0]), values, constants)
        self.made(statement.out, value, where)

    def made(self, item: Item, value: str, where: Where) -> None:
        """Set the value of an item, to be stored later."""
        self._values[item.key] = value
        self._written.pop(item.key, None)
        self._written[item.key] = (item, where.get(item.role, "0"), value)

    def store(self, statements: tuple[Statement, ...], wanted: Callable[[Item], bool] = lambda item: True) -> None:
        """Store the computed items that are wanted and read after these statements."""
        for key in [key for key, (item, _, _) in self._written.items() if wanted(item)]:
            item, index, value = self._written.pop(key)
            if self._nest.is_read_after(item, statements):
                address, notes = self.address(item, index)
                self._f.do(f"store {self._type(item.operand)} {value}, ptr {address}{notes}")

    def keep(self, is_kept: Callable[[str], bool]) -> None:
        """Forget all values except those of some roles."""
        self._values = {key: value for key, value in self._values.items() if is_kept(key[2])}

    def address(self, item: Item, index: str) -> tuple[str, str]:
        """Return the address of an item, and the notes of a load or store there."""
        if item.place in self._moved:
            return self._f.element(self._f.real, self._moved[item.place], index), ""
        kind = "i32" if item.place.memory == "U" else self._f.real
        address = self._f.element(kind, f"%{item.place.memory}", item.place.start, index)
        return address, self._regions.notes(item.place)

    def _type(self, operand: Operand) -> str:
        return "i32" if operand.buffer.kind == "uint32" else self._f.real


class LoopPrinter:
    """Prints a nest into a function, for workers from start to end: rows, elements or columns."""

    def __init__(self, f: Function, nest: LoopNest, values: Values) -> None:
        self._f, self._nest, self._values = f, nest, values
        self._width = in_llvm(nest.n_columns)

    def write(self, start: str, end: str) -> None:
        """Print the whole nest; single numbers have no loop over workers."""
        nest = self._nest
        if nest.kind == "single":
            self._segments("0")
            self._values.store(nest.statements)
        elif all(statement.out.role in ("worker", "number") for statement in nest.statements):
            self.write_line(start, end)
        elif nest.kind == "element":
            self._elements(start, end)
        elif nest.kind == "row":
            with self._f.loop(start, end) as row:
                self._segments(row.index)
                self._values.store(nest.statements)
        else:
            for segment in nest.segments:
                self._columns(segment, start, end)
                self._values.keep(lambda role: False)

    def write_line(self, start: str, end: str) -> None:
        """Print one loop over all elements."""
        self._load_numbers(self._nest.statements)
        with self._f.loop(start, end) as w:
            for statement in self._nest.statements:
                self._values.statement(statement, {"matrix": w.index, "worker": w.index})
            self._values.store(self._nest.statements)

    def _load_numbers(self, statements: tuple[Statement, ...]) -> None:
        items = [item for statement in statements for item in statement.items if item.role == "number"]
        self._values.load_all(items, {})

    def _elements(self, start: str, end: str) -> None:
        f, statements = self._f, self._nest.statements
        if {item.role for each in statements for item in (*each.items, each.out)} <= {"matrix", "number"}:
            self.write_line(*(f.calculated("mul", row, self._width) for row in (start, end)))
            return
        self._load_numbers(statements)
        with f.loop(start, end) as row:
            at = f.calculated("mul", row.index, self._width)
            with f.loop(0, self._width) as column:
                where = _where(f.calculated("add", at, column.index), row.index, column.index)
                for statement in statements:
                    self._values.statement(statement, where)
                self._values.store(statements)
                self._values.keep(lambda role: role == "number")

    def _segments(self, row: str) -> None:
        """Print the work of one worker along its row, or of the only worker of single numbers."""
        f, values, own = self._f, self._values, {"worker": row, "along columns": row}
        for segment in self._nest.segments:
            if segment.extent is None:
                for statement in segment.statements:
                    values.statement(statement, own)
                continue
            length = in_llvm(segment.extent)
            at = f.calculated("mul", row, length if self._nest.kind == "row" else "0")
            totals = {statement: self._begin_total(statement) for statement in segment.totals}
            values.load_all(segment.fixed, own)
            are_many = self._nest.kind == "row" and self._nest.program.capacity >= MANY_ROWS
            is_short = are_many and is_known(length) and int(length) <= SHORT_ROW
            for start, end in self._blocks(length, totals):
                with f.loop(start, end, whole=is_short) as i:
                    where = _where(f.calculated("add", at, i.index), row, i.index) | {"turn": i.index}
                    for statement in segment.statements:
                        if statement in totals:
                            value = values.loaded(statement.items[0], where)
                            self._combine(statement, totals[statement][0], value)
                        else:
                            values.statement(statement, where)
                    values.store(segment.statements, lambda item: item.varies)
                    values.keep(lambda role: role in ("number", "worker"))
            for statement, (total, _) in totals.items():
                values.made(statement.out, f.let(f"load {f.real}, ptr {total}"), own)

    def _blocks(self, length: str, totals: dict[Statement, tuple[str, str]]) -> Iterator[tuple[str, str]]:
        """Yield the range of a loop: all of it; or, for a long sum, a block inside an outer loop."""
        if not totals or self._longest(length) <= LONG_SUM:
            yield "0", length
            return
        f = self._f
        sums = {statement: self._begin_total(statement) for statement in totals}
        with f.loop(0, length, LONG_SUM) as block:
            end = f.calculated("add", block.index, LONG_SUM)
            last = f.let(f"call i64 @llvm.smin.i64(i64 {end}, i64 {length})")
            for total, first in totals.values():
                f.do(f"store {f.real} {first}, ptr {total}")
            yield block.index, last
            for statement, (total, _) in totals.items():
                self._combine(statement, sums[statement][0], f.let(f"load {f.real}, ptr {total}"))
        for statement, (total, _) in totals.items():
            f.do(f"store {f.real} {f.let(f'load {f.real}, ptr {sums[statement][0]}')}, ptr {total}")

    def _longest(self, length: str) -> int:
        return int(length) if is_known(length) else self._nest.program.capacity

    def _begin_total(self, statement: Statement) -> tuple[str, str]:
        """Return the memory of a sum or maximum, and its initial value."""
        first, total = _first(statement), self._f.own(self._f.real)
        self._f.do(f"store {self._f.real} {first}, ptr {total}")
        return total, first

    def _combine(self, statement: Statement, address: str, value: str, notes: str = "") -> None:
        """Add one number to the sum or maximum at an address."""
        f = self._f
        before = f.let(f"load {f.real}, ptr {address}{notes}")
        if statement.call.word == "max":
            after = extreme(f, "maximum", before, value, value_may_be_nan=True)
        else:
            after = f.let(f"fadd {FAST_MATH_FLAGS} {f.real} {before}, {value}")
        f.do(f"store {f.real} {after}, ptr {address}{notes}")

    def _columns(self, segment: Segment, start: str, end: str) -> None:
        """Print a loop over rows around one along each row, keeping the columns' sums in memory."""
        f, values, statements = self._f, self._values, segment.statements
        if segment.extent is None:
            with f.loop(start, end) as column:
                for statement in statements:
                    values.statement(statement, {"worker": column.index, "along rows": column.index})
                values.store(statements)
            return
        for statement in segment.totals:
            self._begin_sums(statement, start, end, {})
        self._load_numbers(statements)
        for first, last, parts in self._row_blocks(in_llvm(segment.extent), segment.totals, start, end):
            with f.loop(first, last) as row:
                at = f.calculated("mul", row.index, self._width)
                with f.loop(start, end) as column:
                    where = _where(f.calculated("add", at, column.index), row.index, column.index)
                    for statement in statements:
                        if statement.accumulates:
                            value = values.loaded(statement.items[0], where)
                            address, notes = self._sum_place(statement, column.index, parts)
                            self._combine(statement, address, value, notes)
                        else:
                            values.statement(statement, where)
                    values.store(statements)
                    values.keep(lambda role: role == "number")

    def _row_blocks(
        self, length: str, totals: list[Statement], start: str, end: str
    ) -> Iterator[tuple[str, str, dict[Statement, str]]]:
        """Yield the rows as one block; or, for long sums, as blocks with the address of each partial sum."""
        f, width = self._f, self._width
        if not totals or self._longest(length) <= LONG_COLUMN or not is_known(width):
            yield "0", length, {}
            return
        parts = {statement: f.own(f"[{width} x {f.real}]") for statement in totals}
        with f.loop(0, length, LONG_COLUMN) as block:
            beyond = f.calculated("add", block.index, LONG_COLUMN)
            last = f.let(f"call i64 @llvm.smin.i64(i64 {beyond}, i64 {length})")
            for statement in totals:
                self._begin_sums(statement, start, end, parts)
            yield block.index, last, parts
            for statement in totals:
                with f.loop(start, end) as column:
                    part = f.let(f"load {f.real}, ptr {f.element(f.real, parts[statement], column.index)}")
                    address, notes = self._sum_place(statement, column.index, {})
                    self._combine(statement, address, part, notes)

    def _begin_sums(self, statement: Statement, start: str, end: str, parts: dict[Statement, str]) -> None:
        with self._f.loop(start, end) as column:
            address, notes = self._sum_place(statement, column.index, parts)
            self._f.do(f"store {self._f.real} {_first(statement)}, ptr {address}{notes}")

    def _sum_place(self, statement: Statement, column: str, parts: dict[Statement, str]) -> tuple[str, str]:
        if statement in parts:
            return self._f.element(self._f.real, parts[statement], column), ""
        return self._values.address(statement.out, column)


def _where(matrix: str, row: str, column: str) -> Where:
    return {"matrix": matrix, "along rows": column, "along columns": row}


def _first(statement: Statement) -> str:
    """Return the initial value of a sum or maximum."""
    return literal(float("-inf") if statement.call.word == "max" else 0.0)
