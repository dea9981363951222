"""Write the groups of a Program as nests of loops: elements, rows, columns and single numbers.

What a turn of a loop has read or made stays in values; a place is written once a turn, with its last value, and only if
somebody reads it later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from xpnet.engines.llvm.text import ADDED, Function, Regions, is_known, literal
from xpnet.program.calls import REDUCTIONS, Call, Operand, Place, Program
from xpnet.program.grouping import Group, Step, direction, leader
from xpnet.program.places import is_read_after, place_of

LONG_SUM = 4096  # numbers that are added up in one go; sums of more are sums of such sums, which lose fewer digits
LONG_COLUMN = 512  # the same of a column, whose numbers are added up one after the other and not in vectors
ARITHMETIC = {"add": "fadd", "subtract": "fsub", "multiply": "fmul", "divide": "fdiv"}
OF_UINT32 = {"add": "add", "multiply": "mul", "bitwise_xor": "xor"}
MATHEMATICS = ("exp", "log", "log1p", "tanh")  # functions of our own, see `xpnet.engines.llvm.mathematics`


class Nest:
    """Writes the loops of one group into a function.

    number: gives a number of a call (index, position) in LLVM's words.
    extent: the length of an operand's axis (index, position, axis), a number or the batch length.
    """

    def __init__(
        self,
        f: Function,
        program: Program,
        group: Group,
        *,
        number: Callable[[int, int], str],
        extent: Callable[[int, int, int], str],
    ) -> None:
        self._f, self._program, self._group = f, program, group
        self._number, self._extent = number, extent
        places = [
            place_of(program, operand.buffer)
            for step in group.steps
            for operand in (*program.calls[step.index].operands, program.calls[step.index].out)
        ]
        self._regions = Regions(f.metadata, places)
        self._moved: dict[Place, str] = {}
        self._values: dict[tuple[Any, ...], str] = {}
        self._written: dict[tuple[Any, ...], tuple[Operand, str, str]] = {}

    def write_single(self) -> None:
        """Write calls on single numbers."""
        self._segments(self._group.steps, "0")
        self._store(lambda place: True)

    def write(self, start: str, end: str) -> None:
        """Write the loops from the start on, below the end: of rows, elements of vectors, or columns."""
        steps, kind = self._group.steps, self._group.kind
        if all(self._is_line(step) for step in steps):
            self._over(start, end, steps)
        elif kind == "element":
            self._elements(start, end)
        elif kind == "row":
            with self._f.loop(start, end) as row:
                self._segments(steps, row.index)
                self._store(lambda place: True)
        else:
            self._columns(start, end)

    def _call(self, step: Step) -> Call:
        return self._program.calls[step.index]

    def _is_line(self, step: Step) -> bool:
        """Whether a call is on vectors only, each worker with one element."""
        call = self._call(step)
        return call.word not in REDUCTIONS and len(leader(call).shape) == 1

    def _length(self, step: Step, axis: int) -> str:
        """The length of an axis of the matrix (or vector) that a call's workers share out."""
        return self._extent(step.index, 0 if self._call(step).word in REDUCTIONS else -1, axis)

    def _matrix_step(self) -> Step:
        return next(step for step in self._group.steps if len(leader(self._call(step)).shape) == 2)

    def _n_columns(self) -> str:
        return self._length(self._matrix_step(), 1)

    def write_part(self, start: str, end: str, place: Place, moved: str) -> None:
        """Write calls on flat vectors for elements from start on, below end; one of them stands elsewhere.

        place: of the vector.  moved: the address where its element 0 would be.
        """
        self._moved = {place: moved}
        self._over(start, end, self._group.steps)

    def _over(self, start: str, end: str, steps: tuple[Step, ...]) -> None:
        """One loop over all elements."""
        self._load_numbers(steps)
        with self._f.loop(start, end) as w:
            for step in steps:
                self._statement(step, {"matrix": w.index, "line": w.index})
            self._store(lambda place: True)

    def _elements(self, start: str, end: str) -> None:
        steps, columns = self._group.steps, self._n_columns()
        roles = {
            self._role(self._call(step), operand)
            for step in steps
            for operand in (*self._call(step).operands, self._call(step).out)
        }
        if roles <= {"matrix", "number"}:
            first, last = (self._f.calculated("mul", row, columns) for row in (start, end))
            self._over(first, last, steps)
            return
        self._load_numbers(steps)
        with self._f.loop(start, end) as row:
            at = self._f.calculated("mul", row.index, columns)
            with self._f.loop(0, columns) as column:
                where = {
                    "matrix": self._f.calculated("add", at, column.index),
                    "along rows": column.index,
                    "along columns": row.index,
                }
                for step in steps:
                    self._statement(step, where)
                self._store(lambda place: True)
                self._values = {place: value for place, value in self._values.items() if place[2] == "number"}

    def _load_numbers(self, steps: tuple[Step, ...]) -> None:
        """Load before the loops what does not change in them."""
        for step in steps:
            for operand in self._call(step).operands:
                if self._role(self._call(step), operand) == "number":
                    self._loaded(step, operand, {"number": "0"})

    def _cut(self, steps: tuple[Step, ...]) -> list[tuple[str | None, list[Step]]]:
        """Cut the calls into loops of one length and what stands between them (None).

        Calls share a loop, unless they need a sum that it makes.
        """
        segments: list[tuple[str | None, list[Step]]] = []
        reduced: list[Place] = []
        for step in steps:
            call = self._call(step)
            length = self._inner_length(step)
            places = [place_of(self._program, operand.buffer) for operand in (*call.operands, call.out)]
            joins = segments and segments[-1][0] == length and not any(place in reduced for place in places)
            if joins and not (length is not None and self._group.kind == "single"):
                segments[-1][1].append(step)
            else:
                segments.append((length, [step]))
                reduced = []
            if call.word in REDUCTIONS:
                reduced.append(place_of(self._program, call.out.buffer))
        return segments

    def _inner_length(self, step: Step) -> str | None:
        call, kind = self._call(step), self._group.kind
        if call.word in REDUCTIONS:
            assert call.axis is not None
            return self._extent(step.index, 0, call.axis)
        if kind == "single" or len(leader(call).shape) == 1:
            return None
        return self._length(step, 1 if kind == "row" else 0)

    def _segments(self, steps: tuple[Step, ...], row: str) -> None:
        """What one worker does along its row; or, of single numbers, the one worker."""
        for length, inside in self._cut(steps):
            if length is None:
                for step in inside:
                    self._statement(step, {"line": row, "along columns": row, "number": "0"})
                continue
            columns = length if self._group.kind == "row" else "0"
            at = self._f.calculated("mul", row, columns)
            totals = {step: self._begin_total(step) for step in inside if self._call(step).word in REDUCTIONS}
            for step in inside:  # what does not change along the row
                for operand in self._call(step).operands:
                    if self._role(self._call(step), operand) in ("number", "along columns"):
                        self._loaded(step, operand, {"number": "0", "along columns": row})
            for start, end in self._blocks(length, totals):
                with self._f.loop(start, end) as i:
                    where = {
                        "matrix": self._f.calculated("add", at, i.index),
                        "along rows": i.index,
                        "along columns": row,
                        "line": i.index,
                    }
                    for step in inside:
                        if step in totals:
                            self._add_up(step, totals[step][0], where)
                        else:
                            self._statement(step, where)
                    self._store(_is_inner, inside)
                    self._values = {place: value for place, value in self._values.items() if not _is_inner(place)}
            for step, (total, _) in totals.items():
                value = self._f.let(f"load {self._f.real}, ptr {total}")
                self._made(step, self._call(step).out, value, {"along columns": row, "number": "0"})

    def _blocks(self, length: str, totals: dict[Step, tuple[str, str]]) -> Iterator[tuple[str, str]]:
        """The ranges of a loop: one; or, where a long sum is made, a range in each turn of a loop around."""
        longest = int(length) if is_known(length) else self._program.capacity
        if not totals or longest <= LONG_SUM:
            yield "0", length
            return
        f = self._f
        sums = {step: self._begin_total(step) for step in totals}
        with f.loop(0, length, LONG_SUM) as block:
            end = f.calculated("add", block.index, LONG_SUM)
            last = f.let(f"call i64 @llvm.smin.i64(i64 {end}, i64 {length})")
            for total, first in totals.values():
                f.do(f"store {f.real} {first}, ptr {total}")
            yield block.index, last
            for step, (total, _) in totals.items():
                self._combine(step, sums[step][0], f.let(f"load {f.real}, ptr {total}"))
        for step, (total, _) in totals.items():
            f.do(f"store {f.real} {f.let(f'load {f.real}, ptr {sums[step][0]}')}, ptr {total}")

    def _begin_total(self, step: Step) -> tuple[str, str]:
        """Memory for a sum or maximum, and what it begins with."""
        first, total = self._first(step), self._f.own(self._f.real)
        self._f.do(f"store {self._f.real} {first}, ptr {total}")
        return total, first

    def _first(self, step: Step) -> str:
        """What a sum or maximum begins with."""
        return literal(float("-inf") if self._call(step).word == "max" else 0.0)

    def _add_up(self, step: Step, total: str, where: dict[str, str]) -> None:
        self._combine(step, total, self._loaded(step, self._call(step).operands[0], where))

    def _combine(self, step: Step, address: str, value: str, notes: str = "") -> None:
        """One more number of a sum or maximum that stands at an address."""
        f = self._f
        before = f.let(f"load {f.real}, ptr {address}{notes}")
        if self._call(step).word == "max":
            after = _larger(f, before, value, value_may_be_nan=True)
        else:
            after = f.let(f"fadd {ADDED} {f.real} {before}, {value}")
        f.do(f"store {f.real} {after}, ptr {address}{notes}")

    def _columns(self, start: str, end: str) -> None:
        """Loops along rows in every loop over rows: what a column's worker sums up stands in memory meanwhile."""
        f, width = self._f, self._n_columns()
        for length, inside in self._cut(self._group.steps):
            steps = tuple(inside)
            if length is None:
                with f.loop(start, end) as column:
                    for step in steps:
                        self._statement(step, {"line": column.index, "along rows": column.index, "number": "0"})
                    self._store(lambda place: True, inside)
                self._values = {}
                continue
            totals = [step for step in steps if self._call(step).word in REDUCTIONS]
            for step in totals:
                self._begin_sums(step, start, end, {})
            self._load_numbers(steps)
            for first, last, parts in self._row_blocks(length, totals, start, end):
                with f.loop(first, last) as row:
                    at = f.calculated("mul", row.index, width)
                    with f.loop(start, end) as column:
                        where = {
                            "matrix": f.calculated("add", at, column.index),
                            "along rows": column.index,
                            "along columns": row.index,
                        }
                        for step in steps:
                            if step in totals:
                                value = self._loaded(step, self._call(step).operands[0], where)
                                address, notes = self._sum_place(step, column.index, parts)
                                self._combine(step, address, value, notes)
                            else:
                                self._statement(step, where)
                        self._store(lambda place: True, inside)
                        self._values = {place: value for place, value in self._values.items() if place[2] == "number"}
            self._values = {}

    def _row_blocks(
        self, length: str, totals: list[Step], start: str, end: str
    ) -> Iterator[tuple[str, str, dict[Step, str]]]:
        """The rows in one block; or, for sums of many, in blocks that are summed up apart: where, of each sum."""
        f, width = self._f, self._n_columns()
        longest = int(length) if is_known(length) else self._program.capacity
        if not totals or longest <= LONG_COLUMN or not is_known(width):
            yield "0", length, {}
            return
        parts = {step: f.own(f"[{width} x {f.real}]") for step in totals}
        with f.loop(0, length, LONG_COLUMN) as block:
            beyond = f.calculated("add", block.index, LONG_COLUMN)
            last = f.let(f"call i64 @llvm.smin.i64(i64 {beyond}, i64 {length})")
            for step in totals:
                self._begin_sums(step, start, end, parts)
            yield block.index, last, parts
            for step in totals:
                with f.loop(start, end) as column:
                    part = f.let(f"load {f.real}, ptr {f.element(f.real, parts[step], column.index)}")
                    address, notes = self._sum_place(step, column.index, {})
                    self._combine(step, address, part, notes)

    def _begin_sums(self, step: Step, start: str, end: str, parts: dict[Step, str]) -> None:
        first = self._first(step)
        with self._f.loop(start, end) as column:
            address, notes = self._sum_place(step, column.index, parts)
            self._f.do(f"store {self._f.real} {first}, ptr {address}{notes}")

    def _sum_place(self, step: Step, column: str, parts: dict[Step, str]) -> tuple[str, str]:
        if step in parts:
            return self._f.element(self._f.real, parts[step], column), ""
        return self._address(self._call(step).out, column)

    def _role(self, call: Call, operand: Operand) -> str:
        """How an operand lies beside the matrix of its call; "line": an element for each worker of vectors."""
        first = leader(call)
        if self._group.kind == "single":
            return "line" if call.word in REDUCTIONS and operand is not call.out else "number"
        if len(first.shape) == 1:
            return "line" if operand.shape else "number"
        return direction(call, operand)

    def _key(self, call: Call, operand: Operand) -> tuple[Any, ...]:
        """Where the worker finds an operand, and how that changes: with the inner loop's index, or not."""
        role, kind = self._role(call, operand), self._group.kind
        own = {"row": ("line", "along columns"), "column": ("line", "along rows")}
        return (*place_of(self._program, operand.buffer)[:2], "worker" if role in own.get(kind, ()) else role)

    def _address(self, operand: Operand, index: str) -> tuple[str, str]:
        vector, offset, _ = place = place_of(self._program, operand.buffer)
        if place in self._moved:
            return self._f.element(self._f.real, self._moved[place], index), ""
        kind = "i32" if vector == "U" else self._f.real
        return self._f.element(kind, f"%{vector}", offset, index), self._regions.notes(place)

    def _loaded(self, step: Step, operand: Operand, where: dict[str, str]) -> str:
        call = self._call(step)
        key = self._key(call, operand)
        if key not in self._values:
            address, notes = self._address(operand, where.get(self._role(call, operand), "0"))
            self._values[key] = self._f.let(f"load {self._type(operand)}, ptr {address}{notes}")
        return self._values[key]

    def _type(self, operand: Operand) -> str:
        return "i32" if operand.buffer.kind == "uint32" else self._f.real

    def _statement(self, step: Step, where: dict[str, str]) -> None:
        """One call on one element."""
        call = self._call(step)
        values = [
            self._loaded(step, item, where) if isinstance(item, Operand) else self._number(step.index, position)
            for position, item in enumerate(call.inputs)
        ]
        kind = self._type(call.operands[0])
        constants = [not isinstance(item, Operand) for item in call.inputs]
        self._made(step, call.out, write_word(self._f, call.word, kind, values, constants), where)

    def _made(self, step: Step, out: Operand, value: str, where: dict[str, str]) -> None:
        key = self._key(self._call(step), out)
        self._values[key] = value
        index = where.get(self._role(self._call(step), out), "0")
        self._written.pop(key, None)
        self._written[key] = (out, index, value)

    def _store(self, wanted: Callable[[tuple[Any, ...]], bool], inside: list[Step] | None = None) -> None:
        """Write what was made to its places, but what nobody reads after these calls."""
        last = (self._group.steps if inside is None else inside)[-1].index
        for key in [key for key in self._written if wanted(key)]:
            out, index, value = self._written.pop(key)
            if is_read_after(self._program, out.buffer, last):
                address, notes = self._address(out, index)
                self._f.do(f"store {self._type(out)} {value}, ptr {address}{notes}")


def _is_inner(place: tuple[Any, ...]) -> bool:
    return place[2] in ("matrix", "along rows", "along columns", "line")


def write_word(f: Function, word: str, kind: str, values: list[str], constants: list[bool]) -> str:
    """One word on one element; returns its value. kind: of the operands, "float", "double" or "i32" (unsigned)."""
    if kind == "i32":
        if word == "greater":
            return f.let(f"uitofp i1 {f.let(f'icmp ugt i32 {values[0]}, {values[1]}')} to {f.real}")
        if word == "right_shift":  # by 32 and more it is 0, as NumPy has it; LLVM's is undefined
            if constants[1]:
                return "0" if int(values[1]) > 31 else f.let(f"lshr i32 {values[0]}, {values[1]}")
            test = f.let(f"icmp ult i32 {values[1]}, 32")
            return f.let(f"select i1 {test}, i32 {f.let(f'lshr i32 {values[0]}, {values[1]}')}, i32 0")
        return f.let(f"{OF_UINT32[word]} i32 {values[0]}, {values[1]}")
    if word in ARITHMETIC:
        return f.let(f"{ARITHMETIC[word]} {kind} {values[0]}, {values[1]}")
    if word == "greater":
        return f.let(f"uitofp i1 {f.let(f'fcmp ogt {kind} {values[0]}, {values[1]}')} to {kind}")
    if word == "maximum":
        return _larger(f, *values, value_may_be_nan=not constants[1])
    if word == "minimum":
        return _larger(f, *values, value_may_be_nan=not constants[1], turned=True)
    if word == "abs":
        return f.let(f"call {kind} @llvm.fabs.f{_bits(kind)}({kind} {values[0]})")
    if word == "sqrt":
        return f.let(f"call {kind} @llvm.sqrt.f{_bits(kind)}({kind} {values[0]})")
    if word == "sign":
        zero = literal(0.0)
        above, below = (f.let(f"fcmp {test} {kind} {values[0]}, {zero}") for test in ("ogt", "olt"))
        is_nan = f.let(f"fcmp uno {kind} {values[0]}, {zero}")
        signed = f.let(f"select i1 {is_nan}, {kind} {values[0]}, {kind} {zero}")  # of -0.0 too it is 0.0
        signed = f.let(f"select i1 {below}, {kind} {literal(-1.0)}, {kind} {signed}")
        return f.let(f"select i1 {above}, {kind} {literal(1.0)}, {kind} {signed}")
    assert word in MATHEMATICS, word
    return f.let(f"call {kind} @xp_{word}({kind} {values[0]})")


def _larger(f: Function, one: str, other: str, *, value_may_be_nan: bool, turned: bool = False) -> str:
    """The larger of two, or the smaller; NaN if one of them is, as NumPy has it."""
    if value_may_be_nan:
        test = f.let(f"fcmp {'olt' if turned else 'ogt'} {f.real} {one}, {other}")
        test = f.let(f"or i1 {test}, {f.let(f'fcmp uno {f.real} {one}, {one}')}")
    else:
        test = f.let(f"fcmp {'ult' if turned else 'ugt'} {f.real} {one}, {other}")
    return f.let(f"select i1 {test}, {f.real} {one}, {f.real} {other}")


def _bits(kind: str) -> int:
    return 32 if kind == "float" else 64
