"""Run all steps of a chunk by ONE cooperative launch: each launch of a step becomes a phase of a kernel.

The blocks of the grid are all resident. In a phase they share the blocks of what was a launch; then they wait for each
other at a barrier, unless no later phase up to the next barrier touches what this one writes. Products are printed too,
by tiles of TILE x TILE numbers in shared memory. The gather and the loop over steps are in the kernel.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from xpnet.engines.cuda.launching import Arguments, Prebound, numbers
from xpnet.engines.cuda.text import BLOCK, Data, Printer, gather_parameters, gather_text, integer_type, prelude
from xpnet.engines.memory import Memory
from xpnet.program.calls import Operand, Program
from xpnet.program.grouping import Launch, accesses, launches, threads
from xpnet.program.places import Access, place_of
from xpnet.program.sizes import Sizes

TILE = 16
_SHARED = 2 * TILE * (TILE + 1)  # numbers: a column more than a tile has, as then neighbours are in different banks

# The barrier of the grid: arrived[0] counts the blocks that came, arrived[1] the barriers that were passed.
_BARRIER = """
#ifndef grid_barrier
static __device__ void grid_barrier(uint32* arrived) {
  __syncthreads();
  if (threadIdx.x == 0) {
    uint32 before, now, n;
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(before) : "l"(arrived + 1) : "memory");
    asm volatile("atom.acq_rel.gpu.global.add.u32 %0, [%1], 1;" : "=r"(n) : "l"(arrived) : "memory");
    if (n == gridDim.x - 1) {
      arrived[0] = 0;
      asm volatile("red.release.gpu.global.add.u32 [%0], 1;" :: "l"(arrived + 1) : "memory");
    } else {
      do {
        asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(now) : "l"(arrived + 1) : "memory");
      } while (now == before);
    }
  }
  __syncthreads();
}
#endif
"""
_PRODUCT = """
static __device__ void {name}(real* T, real* M, uint32* U, const int m, real* shared, integer block{places}) {{
  const integer rows = {rows}, columns = {columns}, inner = {inner}, across = (columns + {last}) / {tile};
  const integer first_row = block / across * {tile}, first_column = block % across * {tile};
  const int x = threadIdx.x % {tile}, y = threadIdx.x / {tile};
  real* tile = shared + {tile} * {lead};
  real sum = 0;
  for (integer k = 0; k < inner; k += {tile}) {{
    __syncthreads();
    {left}
    {right}
    __syncthreads();
    for (int i = 0; i < {tile}; ++i) sum += shared[y * {lead} + i] * tile[i * {lead} + x];
  }}
  if (first_row + y < rows && first_column + x < columns) {out}[(first_row + y) * columns + first_column + x] = sum;
}}
"""
# By the neighbours x, which read neighbours in memory: of a matrix (rows, inner) or (inner, columns), or its transpose.
_TILES = {
    ("left", False): "shared[y * {lead} + x] = first_row + y < rows && k + x < inner"
    " ? {at}[(first_row + y) * inner + k + x] : 0;",
    ("left", True): "shared[x * {lead} + y] = k + y < inner && first_row + x < rows"
    " ? {at}[(k + y) * rows + first_row + x] : 0;",
    ("right", False): "tile[y * {lead} + x] = k + y < inner && first_column + x < columns"
    " ? {at}[(k + y) * columns + first_column + x] : 0;",
    ("right", True): "tile[x * {lead} + y] = first_column + y < columns && k + x < inner"
    " ? {at}[(first_column + y) * inner + k + x] : 0;",
}


@dataclass(frozen=True)
class Waits:
    """Where the blocks of the grid wait: before the gather of the next step, and before each launch."""

    gather: bool
    launches: tuple[bool, ...]


@dataclass(frozen=True)
class ChunkSource:
    """The text of a chunk's kernel.  places, numbers: its last arguments, as those of `text.Kernel`."""

    text: str
    integer: type[np.integer[Any]]
    sizes: Sizes
    launches: tuple[Launch, ...]
    waits: Waits
    places: tuple[int, ...]
    numbers: tuple[tuple[int, int], ...]


def chunk_source(program: Program, dtype: Any, data: Data) -> ChunkSource:
    """Print the kernel that runs the steps of a chunk; arguments as those of `cuda_source`."""
    found = launches(program)
    sizes, waits = Sizes(program, found), waits_of(program, found)
    printer = _PhasePrinter(program, sizes, np.dtype(dtype))
    phases = [printer.phase(f"phase{i}", launch) for i, launch in enumerate(found, 1)]
    texts = [phase.text for phase in phases]
    varying = tuple(dict.fromkeys(number for phase in phases for number in phase.numbers))
    integer = integer_type(program)
    lines = [prelude(dtype, integer) + printer.teamwork(texts), _BARRIER, *texts]
    lines.append(gather_text(program, data, dtype, is_phase=True))
    lines.append(printer.chunk(phases, waits, varying, data))
    return ChunkSource("\n".join(lines), integer, sizes, found, waits, printer.starts, varying)


def waits_of(program: Program, found: Sequence[Launch]) -> Waits:
    """Decide where the grid waits: before a phase that clashes with one since the last barrier, in any order of steps.

    Phases whose workers are the same threads, each on what it owns, do not clash.
    """
    phases: list[tuple[str, list[Access]]] = [("gather", _gather_accesses(program))]
    phases += [(launch.phase, _launch_accesses(program, launch)) for launch in found]
    waits = [False] * len(phases)
    steps = [True] if program.accumulate == 1 else [True, False]
    for has_updates in [(one, other, third) for one in steps for other in steps for third in steps]:
        pending: list[Access] = []
        for has_update in has_updates:
            for i, (name, mine) in enumerate(phases):
                if name == "update" and not has_update:
                    continue
                waits[i] = waits[i] or any(one.clashes(other) for one in mine for other in pending)
                pending = [*([] if waits[i] else pending), *mine]
    return Waits(waits[0], tuple(waits[1:]))


def _launch_accesses(program: Program, launch: Launch) -> list[Access]:
    found = []
    for i, group in enumerate(launch.groups):
        # A later group's blocks follow those of others, and a team's threads read what the first one writes.
        is_apart = i > 0 or group.team > 1 or launch.is_product
        found += [replace(access, owned="" if is_apart else access.owned) for access in accesses(program, group)]
    return found


def _gather_accesses(program: Program) -> list[Access]:
    written = [buffer for _, buffer in program.gathers] + [program.buffers[name] for name in program.slots]
    read = [program.buffers[name] for name in program.results]
    return [Access(buffer.place, writes=True) for buffer in written] + [Access(buffer.place) for buffer in read]


@dataclass(frozen=True)
class _Phase:
    name: str
    launch: Launch
    text: str
    blocks: str
    given: str
    numbers: tuple[tuple[int, int], ...]


class _PhasePrinter(Printer):
    """Prints launches as functions of a block, and the kernel that calls them."""

    @property
    def starts(self) -> tuple[int, ...]:
        """The starts of buffers that are arguments of the kernel."""
        return tuple(start for _, start in self._places)

    def phase(self, name: str, launch: Launch) -> _Phase:
        """Print one launch."""
        index, numbers = launch.groups[0].steps[0].index, self.numbers(launch)
        is_tiled = launch.is_product and self.program.calls[index].out.buffer.size > 1
        text = self._product(name, index) if is_tiled else self.text_of(name, launch, numbers, is_phase=True)
        names = _names(text.partition("(")[2].partition(")")[0].split(", "))
        blocks = self._tiles(index) if is_tiled else " + ".join(map(self.blocks, launch.groups))
        return _Phase(name, launch, text, blocks, ", ".join(names), numbers)

    def _memory(self, operand: Operand) -> str:
        vector, start, _ = place_of(self.program, operand.buffer)
        return f"({vector} + {self.place(vector, start)})"

    def _extents(self, index: int) -> tuple[str, str, str]:
        left = self.program.calls[index].operands[0]
        rows, columns = (self.sizes.extent(index, -1, axis) for axis in (0, 1))
        return rows, columns, self.sizes.extent(index, 0, 0 if left.transposed else 1)

    def _tiles(self, index: int) -> str:
        rows, columns, _ = self._extents(index)
        return f"(({rows} + {TILE - 1}) / {TILE}) * (integer)(({columns} + {TILE - 1}) / {TILE})"

    def _product(self, name: str, index: int) -> str:
        call, (rows, columns, inner) = self.program.calls[index], self._extents(index)
        (left, right), lead = call.operands, TILE + 1
        places = {which: self._memory(operand) for which, operand in (("left", left), ("right", right))}
        tiles = {
            which: _TILES[which, operand.transposed].format(at=places[which], lead=lead)
            for which, operand in (("left", left), ("right", right))
        }
        out = self._memory(call.out)
        used = dict.fromkeys(re.findall(r"\bplace\d+\b", " ".join([*tiles.values(), out])))
        extents = {"rows": rows, "columns": columns, "inner": inner}
        more = {"tile": TILE, "last": TILE - 1, "lead": lead, "out": out}
        return _PRODUCT.format(
            name=name, places="".join(f", const integer {place}" for place in used), **extents, **more, **tiles
        )

    def chunk(self, phases: Sequence[_Phase], waits: Waits, varying: Sequence[tuple[int, int]], data: Data) -> str:
        """Print the kernel: the steps first to end, of n_steps in all, and the results of the last one."""
        every, gathered = self.program.accumulate, gather_parameters(self.program, data.types)
        given = ", ".join("m_" if name == "m" else name for name in _names(gathered))
        parameters = [each for each in gathered if each != "const int t"]
        parameters += ["const int first", "const int end", "const int n_steps", "uint32* arrived"]
        parameters += [f"const integer {place}" for place in self._places.values()] + self.number_parameters(varying)
        lines = [f'extern "C" __global__ void __launch_bounds__({BLOCK}) chunk({", ".join(parameters)}) {{']
        lines += [f"  __shared__ real shared[{max(_SHARED, BLOCK)}];", "  for (int t = first; t <= end; ++t) {"]
        lines += ["    const int m_ = t < end ? m : 0;"]
        lines += ["    if (t > first) grid_barrier(arrived);"] * waits.gather
        lines.append(_shared_out(_gather_blocks(self.program, data, self.dtype), f"gather({given}, shared, block)"))
        lines.append("    if (t == end) break;")
        for phase, has_wait in zip(phases, waits.launches, strict=True):
            inside = ["    grid_barrier(arrived);"] * has_wait
            inside.append(_shared_out(phase.blocks, f"{phase.name}({phase.given})"))
            if phase.launch.phase == "update" and every > 1:
                condition = f"    if ((t + 1) % {every} == 0 || t + 1 == n_steps) {{"
                inside = [condition, *(f"  {line}" for line in inside), "    }"]
            lines += inside
        return "\n".join([*lines, "  }", "}", ""])


def _shared_out(blocks: str, call: str) -> str:
    return f"    for (integer block = blockIdx.x; block < {blocks}; block += gridDim.x) {call};"


def _names(parameters: Sequence[str]) -> list[str]:
    return [each.split()[-1].lstrip("*") for each in parameters]


def _gather_blocks(program: Program, data: Data, dtype: Any) -> str:
    """How many blocks the gather needs at most, in C."""
    widths = [buffer.shape[0] for _, buffer in (program.gathers if data.types else ())]
    sizes = [f"((integer)m_ * {n // data.width(n, dtype)} + {BLOCK - 1}) / {BLOCK}" for n in widths]
    sizes += [f"{-(-len(names) // BLOCK)}" for names in (program.slots, program.results) if names]
    return " + ".join(sizes or ["0"])


class Chunk:
    """Runs the steps of a chunk by one launch, or two where the last step is shorter.

    arenas: the first arguments of every kernel.  bound: launches by CuPy's bindings.  module: of the source's text.
    n_blocks: of the grid: those of the largest phase, or as many as the device holds at once.
    """

    def __init__(
        self, source: ChunkSource, memory: Memory, arenas: tuple[Any, ...], bound: Prebound, module: Any
    ) -> None:
        self._source, self._memory, self._arenas, self._bound = source, memory, arenas, bound
        self._function = module.get_function("chunk")
        self._arrived = memory.backend.zeros(2, np.uint32)
        largest = max(self._blocks(launch) for launch in source.launches)
        self.n_blocks = min(largest, bound.resident_blocks(self._function))

    def _blocks(self, launch: Launch) -> int:
        program, index = self._memory.program, launch.groups[0].steps[0].index
        out = program.calls[index].out
        if launch.is_product and out.buffer.size > 1:
            rows, columns = out.shape
            return -(-rows // TILE) * -(-columns // TILE)
        return sum(-(-threads(program, group) // BLOCK) for group in launch.groups)

    def holds_for(self, n_samples: int) -> bool:
        """Return whether the text serves the last step of so many samples."""
        rest = n_samples % self._memory.program.capacity
        return not rest or self._source.sizes.hold_for(self._memory.at(rest))

    def run(self, order: Any, rows: Any, rows_out: Any, *gathered: Any) -> None:
        """Launch all steps over the samples of `order`; the arguments are the last ones of the gather."""
        capacity, n_samples = self._memory.program.capacity, len(order)
        n_steps, n_full = -(-n_samples // capacity), n_samples // capacity
        queue = self._bound.queue()
        for first, end, m in ((0, n_full, capacity), (n_full, n_steps, n_samples - n_full * capacity)):
            if first == end:
                continue
            program, source = self._memory.at(m), self._source
            values = [
                *self._arenas,
                *(np.int32(m), np.int32(capacity), order, rows, rows_out, *gathered),
                *(np.int32(first), np.int32(end), np.int32(n_steps), self._arrived),
                *map(source.integer, source.places),
                *numbers(program, source.numbers, self._memory.backend.dtype),
            ]
            arguments = Arguments(values)
            self._bound.cooperative(queue, self._function, self.n_blocks, arguments)()
