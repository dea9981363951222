"""Print the grouped calls of a Program as CUDA kernels: plain C, one thread a worker, no shared memory, no waiting.

A kernel holds the groups of one launch, each in blocks of its own. It reaches its operands in three vectors: T (what
the network owns), M (the other floats) and U (uint32). The batch length m is an argument, and so is each number and
each place that depends on it or on the capacity, so that one text serves every batch size. Nothing but names made here
and numbers enters the text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from xpnet.program.calls import REDUCTIONS, Call, Operand, Program
from xpnet.program.grouping import Group, Launch, launches, leader, partial_sums, partial_sums_of
from xpnet.program.loops import Item, Segment, Statement, columns_of, loop_nest
from xpnet.program.places import place_of
from xpnet.program.sizes import Sizes

BLOCK = 256  # threads of a block
_MOST_PLACES = 400  # that are arguments: CUDA has room for 4 KiB of them

# How C says each word, in the float type; maximum and minimum pass NaN on, as NumPy and CuPy do.
_WORDS = {
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
_FUNCTIONS = ("fabs", "sqrt", "exp", "log", "log1p", "tanh")  # with an f behind the name they are the float32 ones

_PRELUDE = """\
typedef {real} real;
typedef unsigned int uint32;
typedef {integer} integer;

static inline __device__ real larger(real a, real b) {{ return a > b || a != a ? a : b; }}
static inline __device__ real smaller(real a, real b) {{ return a < b || a != a ? a : b; }}
static inline __device__ real sign(real a) {{ return a != a ? a : (real)((a > 0) - (a < 0)); }}
"""


@dataclass(frozen=True)
class Kernel:
    """A printed launch.

    places: the starts of buffers that are arguments, behind m, as they depend on the capacity.
    numbers: (call, operand) of the numbers that are its last arguments, as they depend on the batch length.
    """

    name: str
    launch: Launch
    places: tuple[int, ...]
    numbers: tuple[tuple[int, int], ...]
    text: str


@dataclass(frozen=True)
class Source:
    """The CUDA text of a Program and what is in it.

    integer: the type of places and positions, np.int32 or np.int64.  sizes: which batch sizes it serves.
    kernels: one a launch; None where that is a product for a library.
    """

    text: str
    integer: type[np.integer[Any]]
    sizes: Sizes
    launches: tuple[Launch, ...]
    kernels: tuple[Kernel | None, ...]


def cuda_source(program: Program, dtype: Any, data_types: Mapping[str, Any]) -> Source:
    """Print a Program's gather and its launches.

    dtype: np.float32 or np.float64.  data_types: of which type the gathered data of each name are, the dtype or uint8;
    empty where the samples come by `feed`, and the gather moves only slots and results.
    A launch that is a product is printed only if its result can be a single number, which CuPy would compute through
    temporary arrays.
    """
    found = launches(program)
    sizes = Sizes(program, found)
    real = "float" if np.dtype(dtype) == np.float32 else "double"
    printer = _Printer(program, sizes, np.dtype(dtype))
    kernels = tuple(printer.kernel(f"kernel{i}", launch) for i, launch in enumerate(found, 1))  # as in describe
    elements = max(program.n_floats + partial_sums(program), program.n_uints) + BLOCK
    integer: type[np.integer[Any]] = np.int32 if elements < 2**31 else np.int64
    texts = [
        _PRELUDE.format(real=real, integer="int" if integer is np.int32 else "long long"),
        *(kernel.text for kernel in kernels if kernel is not None),
    ]
    texts.append(_gather_text(program, data_types))
    return Source("\n".join(texts), integer, sizes, found, kernels)


def blocks(n_workers: list[int]) -> int:
    """How many blocks groups of so many threads need, each in blocks of its own."""
    return sum(-(-n // BLOCK) for n in n_workers)


class _Printer:
    """Prints the launches of one Program."""

    def __init__(self, program: Program, sizes: Sizes, dtype: np.dtype[Any]) -> None:
        self.program, self.sizes, self.dtype = program, sizes, dtype
        self.partial_sums: dict[int, int] = {}  # where those of a call are
        start = program.n_floats - program.n_owned
        for index, call in enumerate(program.calls):
            self.partial_sums[index] = start
            start += partial_sums_of(call)
        # A buffer that has a batch axis is as long as the capacity, and what lies behind it moves with that.
        self._first: dict[str, int] = {}
        for place in (place_of(program, buffer) for buffer in program.buffers.values() if buffer.flipped):
            self._first[place.memory] = min(place.start, self._first.get(place.memory, place.start))
        self._places: dict[tuple[str, int], str] = {}  # of the kernel that is printed, the names of those that move

    def kernel(self, name: str, launch: Launch) -> Kernel | None:
        """Print one launch, or return None for a product that never has a single number as its result."""
        if launch.is_product and not self._may_be_number(launch.groups[0].steps[0].index):
            return None
        printed = self._kernel(name, launch)
        if len(printed.places) > _MOST_PLACES:
            first, self._first = self._first, {}
            printed = self._kernel(name, launch)
            self._first = first
        index = launch.groups[0].steps[0].index
        if launch.is_product and "m" in [self.sizes.extent(index, -1, axis) for axis in (0, 1)]:
            note = "// For a batch of one only: with more samples this launch is a product of the library.\n"
            printed = replace(printed, text=note + printed.text)
        return printed

    def place(self, memory: str, start: int) -> str:
        """Where a buffer starts: a number, or the name of an argument if the capacity decides."""
        if start < self._first.get(memory, start + 1):
            return str(start)
        return self._places.setdefault((memory, start), f"place{len(self._places)}")

    def _kernel(self, name: str, launch: Launch) -> Kernel:
        self._places = {}
        numbers = tuple(
            (step.index, position)
            for group in launch.groups
            for step in group.steps
            for position, item in enumerate(self.program.calls[step.index].inputs)
            if not isinstance(item, Operand) and self.sizes.varies(step.index, position)
        )
        pieces = [_piece(self._workers(group), _Body(self, group).lines()) for group in launch.groups]
        arguments = ["real* T", "real* M", "uint32* U", "const int m"]
        arguments += [f"const integer {place}" for place in self._places.values()]
        arguments += [f"const {_number_type(self.program.calls[place[0]])} {_number_name(*place)}" for place in numbers]
        places = tuple(start for _, start in self._places)
        return Kernel(name, launch, places, numbers, _kernel_text(name, arguments, pieces))

    def _may_be_number(self, index: int) -> bool:
        return all(self.sizes.extent(index, -1, axis) in ("1", "m") for axis in (0, 1))

    def _workers(self, group: Group) -> str:
        if group.kind in ("single", "product"):
            return "1"
        step = group.steps[0]
        index, call = step.index, self.program.calls[step.index]
        position = 0 if call.word in REDUCTIONS else -1
        extents = [self.sizes.extent(index, position, axis) for axis in range(len(leader(call).shape))]
        if step.part == "partial":
            kept = [extent for axis, extent in enumerate(extents) if axis != call.axis]
            return " * ".join([f"(integer){step.shares}", *kept])
        if len(extents) == 1 or group.kind == "element":
            return " * ".join(f"(integer){extent}" for extent in extents)
        return extents[0 if group.kind == "row" else 1]

    def number(self, index: int, position: int) -> str:
        """A number of a call, in C."""
        if self.sizes.varies(index, position):
            return _number_name(index, position)
        call = self.program.calls[index]
        value = call.inputs[position]
        assert not isinstance(value, Operand)
        return f"{value}u" if _number_type(call) == "uint32" else self.literal(value)

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
        text = _WORDS[word]
        name = text.partition("(")[0]
        return text.replace(name, f"{name}f") if name in _FUNCTIONS and self.dtype.itemsize == 4 else text


class _Body:
    """Prints what one worker of a group does.

    What it has read or made stays in local variables. A place is written once a turn of a loop, with its last value.
    """

    def __init__(self, printer: _Printer, group: Group) -> None:
        self._printer, self._nest = printer, loop_nest(printer.program, printer.sizes, group)
        self._n_locals = 0
        self._known: dict[Any, str] = {}  # an item's key -> the local variable that holds its value
        self._inner: dict[Any, str] = {}  # the same, of items that change from turn to turn
        self._written: dict[Any, tuple[Item, str, str]] = {}  # what is yet to be given the value of a local variable

    def lines(self) -> list[str]:
        """The statements of worker w."""
        lines: list[str] = []
        for segment in self._nest.segments:
            if segment.extent is None:
                for statement in segment.statements:
                    self._statement(statement, lines, lines)
            else:
                lines += self._loop(segment)
        return lines + self._stores(lambda item: True)

    def _stores(self, wanted: Callable[[Item], bool]) -> list[str]:
        found = [key for key, (item, _, _) in self._written.items() if wanted(item)]
        return ["{1} = {2};".format(*self._written.pop(key)) for key in found]

    def _loop(self, segment: Segment) -> list[str]:
        """A loop over i; what does not change in it is loaded before it."""
        self._inner = {}
        before, body = list[str](), list[str]()
        for statement in segment.statements:
            self._statement(statement, before, body)
        body += self._stores(lambda item: item.varies)
        start, stride = self._share(segment.statements[0]) if self._nest.kind == "partial" else ("0", 1)
        head = f"for (integer i = {start}; i < {segment.extent}; i += {stride}) {{"
        return [*before, head, *(f"  {line}" for line in body), "}"]

    def _share(self, statement: Statement) -> tuple[str, int]:
        """Where worker w begins its share of a long sum, and how far it goes each turn; neighbours stay neighbours."""
        call, shares = statement.call, statement.step.shares
        if len(call.operands[0].shape) == 1:
            return "w", shares
        return f"w % {shares}" if call.axis == 1 else f"w / {self._columns(statement)}", shares

    def _statement(self, statement: Statement, before: list[str], body: list[str]) -> None:
        """Print one call. before, body: the lines before its loop, and those in it."""
        call, values = statement.call, list[str]()
        for position, item in enumerate(statement.inputs):
            if item is None:
                values.append(self._printer.number(statement.step.index, position))
                continue
            found = self._known.get(item.key) or self._inner.get(item.key)
            if found is None:
                found = self._new_local()
                place = self._place(statement, item)
                (body if item.varies else before).append(f"const {_type(item.operand)} {found} = {place};")
                (self._inner if item.varies else self._known)[item.key] = found
            values.append(found)
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
        kind, step, columns = self._nest.kind, statement.step, self._columns(statement)
        if item.place.memory == "sums":  # that a final step reads
            return f"w * {step.shares} + i" if kind == "row" else f"i * {columns} + w"
        if step.part == "partial":
            by_rows = statement.call.axis == 1
            return f"w / {step.shares} * {columns} + i" if by_rows else f"i * {columns} + w % {columns}"
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


def _type(operand: Operand) -> str:
    return "uint32" if operand.buffer.kind == "uint32" else "real"


def _number_type(call: Call) -> str:
    """Of which type a number among the operands of a call is."""
    return _type(call.operands[0])


def _number_name(index: int, position: int) -> str:
    return f"number{index}_{position}"


def _piece(workers: str, lines: list[str]) -> list[str]:
    """The blocks of one group: the first ones that no group before it took."""
    return [
        "  {",
        f"    const integer workers = {workers}, blocks = (workers + {BLOCK - 1}) / {BLOCK};",
        f"    const integer w = block * {BLOCK} + threadIdx.x;",
        "    if (block < blocks) {",
        "      if (w < workers) {",
        *(f"        {line}" for line in lines),
        "      }",
        "      return;",
        "    }",
        "    block -= blocks;",
        "  }",
    ]


def _kernel_text(name: str, arguments: list[str], pieces: list[list[str]]) -> str:
    lines = [f'extern "C" __global__ void {name}({", ".join(arguments)}) {{', "  integer block = blockIdx.x;"]
    lines += [line for piece in pieces for line in piece]
    return "\n".join([*lines, "}", ""])


def _gather_text(program: Program, data_types: Mapping[str, Any]) -> str:
    """The kernel before a step: the last step's results out, this step's slots and samples in.

    order: indices of the samples of all steps.  t: the step.  With m = 0 it only takes the results out.
    to0, to1, ...: where the data go; their places depend on the capacity, those of slots and results do not.
    """
    arguments = [
        "real* T",
        "real* M",
        "uint32* U",
        "const int m",
        "const int t",
        "const int capacity",
        "const long long* order",
        "const real* rows_in",
        "real* rows_out",
    ]
    pieces = []
    for i, (name, buffer) in enumerate(program.gathers if data_types else ()):
        is_bytes = np.dtype(data_types[name]) == np.uint8
        arguments += [f"const integer to{i}", f"const {'unsigned char' if is_bytes else 'real'}* data{i}"]
        arguments += [f"const real scale{i}"] * is_bytes
        n = buffer.shape[0]
        value = f"data{i}[order[(long long)t * capacity + w / {n}] * {n} + w % {n}]"
        pieces.append(_piece(f"(integer)m * {n}", [f"M[to{i} + w] = {value}{f' * scale{i}' if is_bytes else ''};"]))
    if program.slots:
        start, n = program.buffers[program.slots[0]].offset - program.n_owned, len(program.slots)
        pieces.append(_piece(f"m > 0 ? {n} : 0", [f"M[{start} + w] = rows_in[(long long)t * {n} + w];"]))
    if program.results:
        start, n = program.buffers[program.results[0]].offset - program.n_owned, len(program.results)
        pieces.append(_piece(f"t > 0 ? {n} : 0", [f"rows_out[((long long)t - 1) * {n} + w] = M[{start} + w];"]))
    return _kernel_text("gather", arguments, pieces)


def gather_workers(program: Program, data_types: Mapping[str, Any], m: int, t: int) -> list[int]:
    """How many threads each part of the gather needs for a step of m samples."""
    parts = [m * buffer.shape[0] for _, buffer in (program.gathers if data_types else ())]
    parts += [len(program.slots) if m > 0 else 0] * bool(program.slots)
    return parts + [len(program.results) if t > 0 else 0] * bool(program.results)
