"""Print the work of one worker of a group of calls in C: what CUDA kernels and exported C functions have in common.

A worker reaches its operands in three vectors: T (what the network owns), M (the other floats) and U (uint32). Nothing
but names made here and numbers enters the text.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from xpnet.program.calls import Call, Operand, Program
from xpnet.program.grouping import PARTS, TEAM, Group, partial_sums_of
from xpnet.program.loops import Item, Segment, Statement, columns_of, loop_nest
from xpnet.program.sizes import Sizes

# How C says each word, in the float type; maximum and minimum pass NaN on, as NumPy and CuPy do.
WORDS_IN_C = {
    "add": "{0} + {1}",
    "subtract": "{0} - {1}",
    "multiply": "{0} * {1}",
    "divide": "{0} / {1}",
    "maximum": "larger({0}, {1})",
    "minimum": "smaller({0}, {1})",
    "greater": "(real)({0} > {1})",
    "abs": "fabs({0})",
    "sign": "sign({0})",
    "sqrt": "sqrt({0})",
    "exp": "exp({0})",
    "log": "log({0})",
    "log1p": "log1p({0})",
    "tanh": "tanh({0})",
    "bitwise_xor": "{0} ^ {1}",
    "right_shift": "{0} >> {1}",
    "sum": "{0} + {1}",
    "max": "larger({0}, {1})",
}
FUNCTIONS = ("fabs", "sqrt", "exp", "log", "log1p", "tanh")  # with an f behind the name they are the float32 ones

_HELPERS = """\
{kind} real larger(real a, real b) {{ return a > b || a != a ? a : b; }}
{kind} real smaller(real a, real b) {{ return a < b || a != a ? a : b; }}
{kind} real sign(real a) {{ return a != a ? a : (real)((a > 0) - (a < 0)); }}
"""


def helpers(kind: str) -> str:
    """Return the functions that the words need.  kind: what stands before each, such as "static inline"."""
    return _HELPERS.format(kind=kind)


class WordPrinter:
    """Prints the parts of a Program's calls: words, numbers and places."""

    def __init__(self, program: Program, sizes: Sizes, dtype: np.dtype[Any]) -> None:
        self.program, self.sizes, self.dtype = program, sizes, dtype
        self.partial_sums: dict[int, int] = {}  # where those of a call are
        start = program.n_floats - program.n_owned
        for index, call in enumerate(program.calls):
            self.partial_sums[index] = start
            start += partial_sums_of(call)

    def place(self, memory: str, start: int) -> str:
        """Return where a buffer starts in its vector."""
        return str(start)

    def number(self, index: int, position: int) -> str:
        """A number of a call, in C."""
        if self.sizes.varies(index, position):
            return number_name(index, position)
        call = self.program.calls[index]
        value = call.inputs[position]
        assert not isinstance(value, Operand)
        return f"{value}u" if number_type(call) == "uint32" else self.literal(value)

    def literal(self, value: float) -> str:
        """A number as the float type holds it; NumPy and CuPy round it likewise."""
        with np.errstate(over="ignore"):  # beyond float32 it is infinite, there too
            rounded = self.dtype.type(value)
        if not np.isfinite(rounded):
            sign = "-" if rounded < 0 else ""
            return f"({sign}(real)1 / (real)0)" if not np.isnan(rounded) else "((real)0 / (real)0)"
        text = repr(float(rounded)) if self.dtype.itemsize == 8 else f"{rounded:.9g}"
        text += "" if "." in text or "e" in text else ".0"
        return f"({text}{'f' if self.dtype.itemsize == 4 else ''})"

    def word(self, word: str) -> str:
        """The template of a word."""
        text = WORDS_IN_C[word]
        name = text.partition("(")[0]
        return text.replace(name, f"{name}f") if name in FUNCTIONS and self.dtype.itemsize == 4 else text


class WorkerPrinter:
    """Prints what one worker of a group does; each thread of a team does it in its turns, and all that has no loop.

    What it has read or made stays in local variables. A place is written once a turn of a loop, with its last value,
    if that is read later; what has no loop, by the first thread of a team.
    """

    def __init__(self, printer: WordPrinter, group: Group) -> None:
        self._printer, self._nest = printer, loop_nest(printer.program, printer.sizes, group)
        self._n_locals = 0
        self._known: dict[Any, str] = {}  # an item's key -> the local variable that holds its value
        self._inner: dict[Any, str] = {}  # the same, of items that change from turn to turn
        self._written: dict[Any, tuple[Item, str, str]] = {}  # what is yet to be given the value of a local variable
        self._loaded: set[Any] = set()  # items that each thread of the team has read
        self._may_idle = 1 < group.team < TEAM  # a block holds several workers, of which there may be fewer

    def lines(self) -> list[str]:
        """The statements of worker w."""
        lines: list[str] = []
        for segment in self._nest.segments:
            if segment.extent is None:
                for statement in segment.statements:
                    self._statement(statement, lines, lines)
            else:
                lines += self._loop(segment)
        reread = self._loaded & self._written.keys()
        stores = self._stores(lambda item: True, self._nest.statements)
        if self._nest.team == 1 or not stores:
            return _used(lines + stores)
        waits = ["__syncthreads();"] * bool(reread)  # until each thread has read what one of them overwrites
        condition = "works && lane == 0" if self._may_idle else "lane == 0"
        return _used([*lines, *waits, f"if ({condition}) {{", *(f"  {line}" for line in stores), "}"])

    def _stores(self, wanted: Callable[[Item], bool], statements: tuple[Statement, ...]) -> list[str]:
        found = [self._written.pop(key) for key in [key for key in self._written if wanted(self._written[key][0])]]
        read = [each for each in found if self._nest.is_read_after(each[0], statements)]
        return [f"{place} = {value};" for _, place, value in read]

    def _loop(self, segment: Segment) -> list[str]:
        """A loop over i; what does not change in it is loaded before it."""
        self._inner = {}
        before, body = list[str](), list[str]()
        totals = [self._statement(statement, before, body) for statement in segment.statements]
        body += self._stores(lambda item: item.varies, segment.statements)
        behind = []
        team, apart = self._nest.team, TEAM // self._nest.team if self._nest.kind == "column" else 1
        start, stride = "0" if team == 1 else "lane", team
        if self._nest.kind == "part":
            start, stride = f"w * {team} + lane", team * PARTS
        condition = f"works && i < {segment.extent}" if self._may_idle else f"i < {segment.extent}"
        if team > 1:
            for statement, total in zip(segment.statements, totals, strict=True):
                if statement.accumulates:
                    word = "max" if statement.call.word == "max" else "sum"
                    behind.append(f"{total} = of_team_{word}(shared, {total}, lane, {team}, {apart});")
        head = f"for (integer i = {start}; {condition}; i += {stride}) {{"
        return [*before, head, *(f"  {line}" for line in body), "}", *behind]

    def _statement(self, statement: Statement, before: list[str], body: list[str]) -> str:
        """Print one call and return what holds its result. before, body: lines before its loop, and those in it."""
        call, values = statement.call, list[str]()
        for position, item in enumerate(statement.inputs):
            if item is None:
                values.append(self._printer.number(statement.step.index, position))
            else:
                values.append(self._value(statement, item, body if item.varies else before))
        result = self._new_local()
        if statement.accumulates:
            value = " * ".join(values)
            before.append(f"real {result} = {'-(real)1 / (real)0' if call.word == 'max' else '0'};")
            larger = f"{result} = {self._printer.word('max').format(result, value)};"
            body.append(larger if call.word == "max" else f"{result} += {value};")
        else:
            body.append(f"const {_type(call.out)} {result} = {self._printer.word(call.word).format(*values)};")
        out = statement.out
        (self._inner if out.varies else self._known)[out.key] = result
        self._written[out.key] = (out, self._place(statement, out), result)
        return result

    def _value(self, statement: Statement, item: Item, lines: list[str]) -> str:
        """What holds the value of an item, which these lines load where it is not known."""
        known = self._known.get(item.key) or self._inner.get(item.key)
        if known is not None:
            return known
        found, place = self._new_local(), self._place(statement, item)
        if item.varies:
            self._inner[item.key] = found
        else:
            self._known[item.key] = found
            self._loaded.add(item.key)
            place = f"works ? {place} : 0" if self._may_idle else place
        lines.append(f"const {_type(item.operand)} {found} = {place};")
        return found

    def _place(self, statement: Statement, item: Item) -> str:
        """Where worker w finds an item, in turn i of its loop."""
        memory, start, _ = item.place
        if memory == "sums":
            memory, start = "M", self._printer.partial_sums[start]
        shift = self._shift(statement, item)
        return f"{memory}[{self._printer.place(memory, start)}{f' + {shift}' if shift else ''}]"

    def _shift(self, statement: Statement, item: Item) -> str:
        fixed = {"number": "", "worker": "w", "turn": "i"}
        if item.role in fixed:
            return fixed[item.role]
        kind, columns = self._nest.kind, self._columns(statement)
        shifts = {
            "element": {"matrix": "w", "along rows": f"w % {columns}", "along columns": f"w / {columns}"},
            "row": {"matrix": f"w * {columns} + i", "along rows": "i", "along columns": "w"},
            "column": {"matrix": f"i * {columns} + w", "along rows": "w", "along columns": "i"},
        }
        return shifts[kind][item.role]

    def _columns(self, statement: Statement) -> str:
        return f"(integer){columns_of(self._printer.sizes, statement)}"

    def _new_local(self) -> str:
        self._n_locals += 1
        return f"v{self._n_locals}"


def _used(lines: list[str]) -> list[str]:
    """Return the lines without those that give a local variable a value that no later line reads."""
    kept, read = list[str](), set[str]()
    for line in reversed(lines):
        made = re.match(r" *const \w+ (v\d+) = ", line)
        if made is None or made[1] in read:
            kept.append(line)
            read.update(re.findall(r"\bv\d+\b", line[made.end() if made else 0 :]))
    return kept[::-1]


def _type(operand: Operand) -> str:
    return "uint32" if operand.buffer.kind == "uint32" else "real"


def number_type(call: Call) -> str:
    """Return the type of a number among the operands of a call."""
    return _type(call.operands[0])


def number_name(index: int, position: int) -> str:
    """Return the name of a number that depends on the batch length."""
    return f"number{index}_{position}"
