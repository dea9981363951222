"""Print the grouped calls of a Program as CUDA kernels: plain C, one thread a worker, no shared memory, no waiting.

A kernel holds the groups of one launch, each in blocks of its own. It reaches its operands at constant places in three
vectors: T (what the network owns), M (the other floats) and U (uint32). The batch length m is an argument, and so is
each number that depends on it, so that one text serves every batch size. Nothing but names made here and numbers
enters the text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from xpnet.program.calls import REDUCTIONS, Call, Operand, Program
from xpnet.program.grouping import Group, Launch, Step, direction, launches, leader, partial_sums, partial_sums_of
from xpnet.program.places import place_of
from xpnet.program.sizes import Sizes

BLOCK = 256  # threads of a block

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
typedef {index} index;

static inline __device__ real larger(real a, real b) {{ return a > b || a != a ? a : b; }}
static inline __device__ real smaller(real a, real b) {{ return a < b || a != a ? a : b; }}
static inline __device__ real sign(real a) {{ return a != a ? a : (real)((a > 0) - (a < 0)); }}
"""


@dataclass(frozen=True)
class Kernel:
    """A printed launch.

    numbers: (call, operand) of the numbers that are its last arguments, as they depend on the batch length.
    """

    name: str
    launch: Launch
    numbers: tuple[tuple[int, int], ...]
    text: str


@dataclass(frozen=True)
class Source:
    """The CUDA text of a Program and what is in it.

    sizes: which batch sizes it serves.  kernels: one a launch; None where that is a product for a library.
    """

    text: str
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
    kernels = tuple(printer.kernel(f"kernel{i}", launch) for i, launch in enumerate(found))
    elements = max(program.n_floats + partial_sums(program), program.n_uints) + BLOCK
    texts = [
        _PRELUDE.format(real=real, index="int" if elements < 2**31 else "long long"),
        *(kernel.text for kernel in kernels if kernel is not None),
    ]
    texts.append(_gather_text(program, data_types))
    return Source("\n".join(texts), sizes, found, kernels)


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

    def kernel(self, name: str, launch: Launch) -> Kernel | None:
        """Print one launch, or return None for a product that never has a single number as its result."""
        if launch.is_product and not self._may_be_number(launch.groups[0].steps[0].index):
            return None
        numbers = tuple(
            (step.index, position)
            for group in launch.groups
            for step in group.steps
            for position, item in enumerate(self.program.calls[step.index].inputs)
            if not isinstance(item, Operand) and self.sizes.varies(step.index, position)
        )
        arguments = ["real* T", "real* M", "uint32* U", "const int m"]
        arguments += [f"const {_number_type(self.program.calls[place[0]])} {_number_name(*place)}" for place in numbers]
        pieces = [_piece(self._workers(group), list(_Body(self, group).lines())) for group in launch.groups]
        return Kernel(name, launch, numbers, _kernel_text(name, arguments, pieces))

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
            return " * ".join([f"(index){step.shares}", *kept])
        if len(extents) == 1 or group.kind == "element":
            return " * ".join(f"(index){extent}" for extent in extents)
        return extents[0 if group.kind == "row" else 1]

    def memory(self, operand: Operand) -> tuple[str, int]:
        """The vector that an operand lies in, and where."""
        return place_of(self.program, operand.buffer)[:2]

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
        self._printer, self._group = printer, group
        self._program = printer.program
        self._n_locals = 0
        self._known: dict[str, str] = {}  # place in memory -> the local variable that holds its value
        self._inner: dict[str, str] = {}  # the same, of places that change with the loop's index
        self._written: dict[str, str] = {}  # places that are yet to be given the value of a local variable

    def lines(self) -> Iterator[str]:
        """The statements of worker w."""
        for extent, steps in self._segments():
            if extent is None:
                for step in steps:
                    yield from self._statement(step, self._known)
            else:
                yield from self._loop(extent, steps)
        yield from self._stores(lambda place: True)

    def _stores(self, wanted: Callable[[str], bool]) -> Iterator[str]:
        for place in [place for place in self._written if wanted(place)]:
            yield f"{place} = {self._written.pop(place)};"

    def _segments(self) -> list[tuple[str | None, list[Step]]]:
        """Cut the calls into loops and what stands between them.

        Calls that go along a row or a column of one length share a loop, unless they need a sum that it makes.
        """
        segments: list[tuple[str | None, list[Step]]] = []
        reduced: list[tuple[str, int]] = []
        for step in self._group.steps:
            call = self._program.calls[step.index]
            extent = self._extent(step, call)
            places = [self._printer.memory(operand) for operand in (*call.operands, call.out)]
            joins = segments and segments[-1][0] == extent and not any(place in reduced for place in places)
            if joins and not (extent is not None and self._group.kind in ("single", "partial", "product")):
                segments[-1][1].append(step)
            else:
                segments.append((extent, [step]))
                reduced = []
            if call.word in REDUCTIONS:
                reduced.append(self._printer.memory(call.out))
        return segments

    def _extent(self, step: Step, call: Call) -> str | None:
        """How long the worker's loop over a call is; None for no loop."""
        kind, sizes = self._group.kind, self._printer.sizes
        if kind == "product":
            left = call.inputs[0]
            assert isinstance(left, Operand)
            return sizes.extent(step.index, 0, 0 if left.transposed else 1)
        if call.word in REDUCTIONS:
            assert call.axis is not None
            return str(step.shares) if step.part == "final" else sizes.extent(step.index, 0, call.axis)
        first = leader(call)
        if kind in ("single", "element") or len(first.shape) == 1:
            return None
        return sizes.extent(step.index, -1, 1 if kind == "row" else 0)

    def _loop(self, extent: str, steps: list[Step]) -> Iterator[str]:
        """A loop over i; what does not change in it is loaded before it."""
        self._inner = {}
        body = [line for step in steps for line in self._statement(step, self._inner)]
        body += self._stores(_is_inner)
        yield from (line for line in body if line.startswith("@"))
        start, stride = self._share(steps[0]) if self._group.kind == "partial" else ("0", 1)
        yield f"for (index i = {start}; i < {extent}; i += {stride}) {{"
        yield from (f"  {line}" for line in body if not line.startswith("@"))
        yield "}"

    def _share(self, step: Step) -> tuple[str, int]:
        """Where worker w begins its share of a long sum, and how far it goes each turn; neighbours stay neighbours."""
        call = self._program.calls[step.index]
        if len(call.operands[0].shape) == 1:
            return "w", step.shares
        if call.axis == 1:
            return f"w % {step.shares}", step.shares
        return f"w / (index){self._printer.sizes.extent(step.index, 0, 1)}", step.shares

    def _statement(self, step: Step, known: dict[str, str]) -> Iterator[str]:
        """The lines of one call; those to stand before its loop begin with "@"."""
        call = self._program.calls[step.index]
        values = []
        for position, item in enumerate(call.inputs):
            if not isinstance(item, Operand):
                values.append(self._printer.number(step.index, position))
                continue
            place = self._place(step, position)
            found = self._known.get(place) or self._inner.get(place)
            if found is None:
                found = self._new_local()
                in_loop = _is_inner(place)
                yield f"{'@' if known is self._inner and not in_loop else ''}const {_type(item)} {found} = {place};"
                (self._inner if in_loop else self._known)[place] = found
            values.append(found)
        if call.word in REDUCTIONS or call.word == "matmul":
            yield from self._reduction(step, call, values)
            return
        place, result = self._place(step, -1), self._new_local()
        expression = self._printer.word(call.word).format(*values)
        yield f"const {_type(call.out)} {result} = {expression};"
        known[place] = self._written[place] = result

    def _reduction(self, step: Step, call: Call, values: list[str]) -> Iterator[str]:
        total = self._new_local()
        value = " * ".join(values)
        yield f"@real {total} = {'-(real)1 / (real)0' if call.word == 'max' else '0'};"
        if call.word == "max":
            yield f"{total} = {self._printer.word('max').format(total, value)};"
        else:
            yield f"{total} += {value};"
        place = f"M[{self._printer.partial_sums[step.index]} + w]" if step.part == "partial" else self._place(step, -1)
        self._known[place] = self._written[place] = total

    def _place(self, step: Step, position: int) -> str:
        """Where worker w finds an operand, in turn i of its loop."""
        call = self._program.calls[step.index]
        operand = call.out if position < 0 else call.inputs[position]
        assert isinstance(operand, Operand)
        vector, offset = self._printer.memory(operand)
        if step.part == "final" and position == 0:
            vector, offset = "M", self._printer.partial_sums[step.index]
        shift = self._shift(step, call, operand, is_result=position < 0)
        return f"{vector}[{offset}{f' + {shift}' if shift else ''}]"

    def _shift(self, step: Step, call: Call, operand: Operand, is_result: bool) -> str:
        kind = self._group.kind
        if kind in ("single", "product"):
            return "i" if call.word in (*REDUCTIONS, "matmul") and not is_result else ""
        first = leader(call)
        if len(first.shape) == 1:
            return "i" if step.part == "partial" else "w" if operand.shape else ""
        if step.part == "final" and not is_result:
            columns = f"(index){self._printer.sizes.extent(step.index, 0, 1)}"
            return f"w * {step.shares} + i" if kind == "row" else f"i * {columns} + w"
        if step.part == "partial":
            columns = f"(index){self._printer.sizes.extent(step.index, 0, 1)}"
            return f"w / {step.shares} * {columns} + i" if call.axis == 1 else f"i * {columns} + w % {columns}"
        role = direction(call, operand)
        position = 0 if call.word in REDUCTIONS else -1
        columns = f"(index){self._printer.sizes.extent(step.index, position, 1)}"
        shifts = {
            "element": {"matrix": "w", "along rows": f"w % {columns}", "along columns": f"w / {columns}"},
            "row": {"matrix": f"w * {columns} + i", "along rows": "i", "along columns": "w"},
            "column": {"matrix": f"i * {columns} + w", "along rows": "w", "along columns": "i"},
        }
        return shifts[kind].get(role, "")

    def _new_local(self) -> str:
        self._n_locals += 1
        return f"v{self._n_locals}"


def _is_inner(place: str) -> bool:
    """Whether a place changes with the index i of the worker's loop."""
    return re.search(r"\bi\b", place) is not None


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
        f"    const index workers = {workers}, blocks = (workers + {BLOCK - 1}) / {BLOCK};",
        f"    const index w = block * {BLOCK} + threadIdx.x;",
        "    if (block < blocks) {",
        "      if (w < workers) {",
        *(f"        {line.lstrip('@')}" for line in lines),
        "      }",
        "      return;",
        "    }",
        "    block -= blocks;",
        "  }",
    ]


def _kernel_text(name: str, arguments: list[str], pieces: list[list[str]]) -> str:
    lines = [f'extern "C" __global__ void {name}({", ".join(arguments)}) {{', "  index block = blockIdx.x;"]
    lines += [line for piece in pieces for line in piece]
    return "\n".join([*lines, "}", ""])


def _gather_text(program: Program, data_types: Mapping[str, Any]) -> str:
    """The kernel before a step: the last step's results out, this step's slots and samples in.

    order: indices of the samples of all steps.  t: the step.  With m = 0 it only takes the results out.
    """
    arguments = [
        "real* T",
        "real* M",
        "uint32* U",
        "const int m",
        "const int t",
        "const long long* order",
        "const real* rows_in",
        "real* rows_out",
    ]
    pieces = []
    for i, (name, buffer) in enumerate(program.gathers if data_types else ()):
        is_bytes = np.dtype(data_types[name]) == np.uint8
        arguments += [f"const {'unsigned char' if is_bytes else 'real'}* data{i}"] + [f"const real scale{i}"] * is_bytes
        n, start = buffer.shape[0], buffer.offset - program.n_owned
        value = f"data{i}[order[(long long)t * {program.capacity} + w / {n}] * {n} + w % {n}]"
        pieces.append(_piece(f"(index)m * {n}", [f"M[{start} + w] = {value}{f' * scale{i}' if is_bytes else ''};"]))
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
