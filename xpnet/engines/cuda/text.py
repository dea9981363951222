"""Print the grouped calls of a Program as CUDA kernels: plain C, one thread a worker, or a team of them on a long line.

A kernel holds the groups of one launch, each in blocks of its own. The threads of a team take turns along the line of
their worker; each makes sums of its turns, which they add up in shared memory, two by two, in an order that is fixed.
A kernel reaches its operands in three vectors: T (what the network owns), M (the other floats) and U (uint32). The
batch length m is an argument, and so is each number and each place that depends on it or on the capacity, so that one
text serves every batch size. Nothing but names made here and numbers enters the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from xpnet.engines.c_text import WordPrinter, WorkerPrinter, helpers, number_name, number_type
from xpnet.program.calls import REDUCTIONS, Operand, Program
from xpnet.program.grouping import PARTS, TEAM, Group, Launch, launches, leader, partial_sums
from xpnet.program.places import place_of
from xpnet.program.sizes import Sizes

BLOCK = TEAM  # threads of a block
_MOST_PLACES = 400  # that are arguments: CUDA has room for 4 KiB of them

_PRELUDE = """\
typedef {real} real;
typedef unsigned int uint32;
typedef {integer} integer;

{helpers}"""

# What a team makes of the numbers of its threads, which lie `apart` from each other; all threads of a block come here.
_TEAMWORK = """
static inline __device__ real of_team_{word}(real* shared, real mine, int lane, int team, int apart) {{
  __syncthreads();
  shared[threadIdx.x] = mine;
  __syncthreads();
  for (int half = team / 2; half > 0; half /= 2) {{
    if (lane < half) shared[threadIdx.x] = {combined};
    __syncthreads();
  }}
  return shared[threadIdx.x - lane * apart];
}}
"""


@dataclass(frozen=True)
class Data:
    """The data that a step gathers: of which type each name's are, the text's or uint8; empty without a gather.

    is_aligned: whether each begins at a multiple of 16 bytes, as a vector of numbers does.
    """

    types: Mapping[str, Any]
    is_aligned: bool = True

    def width(self, n: int, dtype: Any) -> int:
        """Return how many numbers of a sample of n numbers a thread moves at once: those of 16 bytes, or one."""
        at_once = 16 // np.dtype(dtype).itemsize
        return at_once if self.is_aligned and n % at_once == 0 else 1


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


def cuda_source(program: Program, dtype: Any, data: Data) -> Source:
    """Print a Program's gather and its launches.

    dtype: np.float32 or np.float64.  data: none where the samples come by `feed`, and the gather moves only slots and
    results.
    A launch that is a product is printed only if its result can be a single number, which CuPy would compute through
    temporary arrays.
    """
    found = launches(program)
    sizes = Sizes(program, found)
    printer = Printer(program, sizes, np.dtype(dtype))
    kernels = tuple(printer.kernel(f"kernel{i}", launch) for i, launch in enumerate(found, 1))  # as in describe
    printed = [kernel.text for kernel in kernels if kernel is not None]
    integer = integer_type(program)
    texts = [prelude(dtype, integer) + printer.teamwork(printed), *printed, gather_text(program, data, dtype)]
    return Source("\n".join(texts), integer, sizes, found, kernels)


def integer_type(program: Program) -> type[np.integer[Any]]:
    """Return the type of places and positions."""
    elements = max(program.n_floats + partial_sums(program), program.n_uints) + BLOCK
    return np.int32 if elements < 2**31 else np.int64


def prelude(dtype: Any, integer: type[np.integer[Any]]) -> str:
    """Return what stands before kernels."""
    return _PRELUDE.format(
        real="float" if np.dtype(dtype) == np.float32 else "double",
        integer="int" if integer is np.int32 else "long long",
        helpers=helpers("static inline __device__"),
    )


def blocks(n_workers: list[int]) -> int:
    """How many blocks groups of so many threads need, each in blocks of its own."""
    return sum(-(-n // BLOCK) for n in n_workers)


class Printer(WordPrinter):
    """Prints the launches of one Program."""

    def __init__(self, program: Program, sizes: Sizes, dtype: np.dtype[Any]) -> None:
        super().__init__(program, sizes, dtype)
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
        numbers = self.numbers(launch)
        text = self.text_of(name, launch, numbers)
        places = tuple(start for (_, start), place in self._places.items() if re.search(rf"\b{place}\b", text))
        return Kernel(name, launch, places, numbers, text)

    def numbers(self, launch: Launch) -> tuple[tuple[int, int], ...]:
        """Return (call, operand) of the numbers of a launch that depend on the batch length."""
        return tuple(
            (step.index, position)
            for group in launch.groups
            for step in group.steps
            for position, item in enumerate(self.program.calls[step.index].inputs)
            if not isinstance(item, Operand) and self.sizes.varies(step.index, position)
        )

    def text_of(
        self, name: str, launch: Launch, numbers: tuple[tuple[int, int], ...], *, is_phase: bool = False
    ) -> str:
        """Print a launch as a kernel, or as a function of a block."""
        pieces = [_piece(self._workers(group), WorkerPrinter(self, group).lines(), group) for group in launch.groups]
        used = set(re.findall(r"\bplace\d+\b", "\n".join(line for piece in pieces for line in piece)))
        arguments = ["real* T", "real* M", "uint32* U", "const int m"]
        arguments += [f"const integer {place}" for place in self._places.values() if place in used]
        return _kernel_text(name, arguments + self.number_parameters(numbers), pieces, is_phase)

    def number_parameters(self, numbers: Iterable[tuple[int, int]]) -> list[str]:
        """Return the parameters of numbers that depend on the batch length."""
        return [f"const {number_type(self.program.calls[place[0]])} {number_name(*place)}" for place in numbers]

    def blocks(self, group: Group) -> str:
        """Return how many blocks a group needs, in C."""
        at_once = BLOCK // group.team
        return f"({self._workers(group)} + {at_once - 1}) / {at_once}"

    def _may_be_number(self, index: int) -> bool:
        return all(self.sizes.extent(index, -1, axis) in ("1", "m") for axis in (0, 1))

    def teamwork(self, kernels: list[str]) -> str:
        """The functions by which the teams of these kernels add up."""
        mine, other = "shared[threadIdx.x]", "shared[threadIdx.x + half * apart]"
        return "".join(
            _TEAMWORK.format(word=word, combined=self.word(word).format(mine, other))
            for word in REDUCTIONS
            if any(f"of_team_{word}" in text for text in kernels)
        )

    def _workers(self, group: Group) -> str:
        if group.kind in ("single", "product"):
            return "1"
        if group.kind == "part":
            return str(PARTS)
        step = group.steps[0]
        index, call = step.index, self.program.calls[step.index]
        position = 0 if call.word in REDUCTIONS else -1
        extents = [self.sizes.extent(index, position, axis) for axis in range(len(leader(call).shape))]
        if len(extents) == 1 or group.kind == "element":
            return " * ".join(f"(integer){extent}" for extent in extents)
        return extents[0 if group.kind == "row" else 1]


def _piece(workers: str, lines: list[str], group: Group | None = None) -> list[str]:
    """The blocks of one group: the first ones that no group before it took."""
    team = 1 if group is None else group.team
    at_once = BLOCK // team  # workers of a block
    w, lane = f"block * {at_once} + threadIdx.x / {team}", f"threadIdx.x % {team}"
    if group is not None and group.kind == "column":  # neighbours read what lies beside each other
        w, lane = f"block * {at_once} + threadIdx.x % {at_once}", f"threadIdx.x / {at_once}"
    if team in (1, BLOCK):
        w, lane = ("block", "threadIdx.x") if team == BLOCK else (f"block * {BLOCK} + threadIdx.x", "")
    inside = [f"  {line}" for line in lines]
    if team == 1:
        inside = ["  if (w < workers) {", *(f"  {line}" for line in inside), "  }"]
    return [
        "  {",
        f"    const integer workers = {workers}, blocks = (workers + {at_once - 1}) / {at_once};",
        f"    const integer w = {w};",
        *[f"    const int lane = {lane};"] * (team > 1),
        *["    const bool works = w < workers;"] * (1 < team < BLOCK),
        "    if (block < blocks) {",
        *(f"    {line}" for line in inside),
        "      return;",
        "    }",
        "    block -= blocks;",
        "  }",
    ]


def _kernel_text(name: str, arguments: list[str], pieces: list[list[str]], is_phase: bool = False) -> str:
    """A kernel, or the same as a function that is given the block and the memory that its threads share."""
    body = [line for piece in pieces for line in piece]
    if is_phase:
        arguments = [*arguments, "real* shared", "integer block"]
        return "\n".join([f"static __device__ void {name}({', '.join(arguments)}) {{", *body, "}", ""])
    lines = [f'extern "C" __global__ void {name}({", ".join(arguments)}) {{', "  integer block = blockIdx.x;"]
    if any("(shared, " in line for line in body):
        lines.append(f"  __shared__ real shared[{BLOCK}];")
    return "\n".join([*lines, *body, "}", ""])


def _moved(i: int, n: int, width: int, real: str, is_bytes: bool) -> list[str]:
    """The lines that move a number of the i-th data, or a vector of them; a row has n of these."""
    place = f"order[(long long)t * capacity + w / {n}] * {n} + w % {n}"
    if width == 1:
        return [f"M[to{i} + w] = data{i}[{place}]{f' * scale{i}' if is_bytes else ''};"]
    kind = f"{'uchar' if is_bytes else real}{width}"
    lines = [f"const {kind} v = ((const {kind}*)data{i})[{place}];"]
    found = f"{{{', '.join(f'v.{axis} * scale{i}' for axis in 'xyzw'[:width])}}}" if is_bytes else "v"
    return [*lines, f"(({real}{width}*)(M + to{i}))[w] = {found};"]


def gather_text(program: Program, data: Data, dtype: Any, *, is_phase: bool = False) -> str:
    """The kernel before a step: the last step's results out, this step's slots and samples in.

    order: indices of the samples of all steps.  t: the step.  With m = 0 it only takes the results out.
    to0, to1, ...: where the data go; their places depend on the capacity, those of slots and results do not.
    """
    pieces, data_types, real = [], data.types, "float" if np.dtype(dtype) == np.float32 else "double"
    for i, (name, buffer) in enumerate(program.gathers if data_types else ()):
        width, is_bytes = data.width(buffer.shape[0], dtype), np.dtype(data_types[name]) == np.uint8
        n = buffer.shape[0] // width
        pieces.append(_piece(f"(integer)m * {n}", _moved(i, n, width, real, is_bytes)))
    if program.slots:
        start, n = program.buffers[program.slots[0]].offset - program.n_owned, len(program.slots)
        pieces.append(_piece(f"m > 0 ? {n} : 0", [f"M[{start} + w] = rows_in[(long long)t * {n} + w];"]))
    if program.results:
        start, n = program.buffers[program.results[0]].offset - program.n_owned, len(program.results)
        pieces.append(_piece(f"t > 0 ? {n} : 0", [f"rows_out[((long long)t - 1) * {n} + w] = M[{start} + w];"]))
    return _kernel_text("gather", gather_parameters(program, data_types), pieces, is_phase)


def gather_parameters(program: Program, data_types: Mapping[str, Any]) -> list[str]:
    """Return the parameters of the gather."""
    found = ["real* T", "real* M", "uint32* U", "const int m", "const int t", "const int capacity"]
    found += ["const long long* order", "const real* rows_in", "real* rows_out"]
    for i, (name, _) in enumerate(program.gathers if data_types else ()):
        is_bytes = np.dtype(data_types[name]) == np.uint8
        found += [f"const integer to{i}", f"const {'unsigned char' if is_bytes else 'real'}* data{i}"]
        found += [f"const real scale{i}"] * is_bytes
    return found


def gather_workers(program: Program, data: Data, dtype: Any, m: int, t: int) -> list[int]:
    """How many threads each part of the gather needs for a step of m samples."""
    sizes = [buffer.shape[0] for _, buffer in (program.gathers if data.types else ())]
    parts = [m * (n // data.width(n, dtype)) for n in sizes]
    parts += [len(program.slots) if m > 0 else 0] * bool(program.slots)
    return parts + [len(program.results) if t > 0 else 0] * bool(program.results)
