"""Plan the work of the threads in a step: its order, each thread's share, and where threads wait for each other.

A WORK UNIT lies between two possible waits: a group of the Program (see `xpnet.program.grouping`), of which each thread
does its share. Some calls are fused into the products before them. The plan is a value, which `describe()` prints and
`xpnet.engines.llvm.step` walks.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from xpnet.engines.llvm.fusing import fuse_ends, fuse_updates, strip_rows
from xpnet.engines.llvm.products import packed_columns, packed_size, repays_transposing
from xpnet.engines.llvm.sharing import Sharing, private_samples
from xpnet.engines.llvm.text import is_known
from xpnet.engines.llvm.units import CannotPrint, Share, WorkUnit, work_unit
from xpnet.program.calls import Buffer, Program, aligned
from xpnet.program.grouping import Launch
from xpnet.program.places import Access
from xpnet.program.sizes import Sizes


@dataclass(frozen=True)
class WorkingMemory:
    """Elements behind the float arena: each thread's transposed operand and strip of gradient, then copies.

    first: its first element in M.  transposed, strip: elements per thread.  copies: offset of a private buffer ->
    offset among the `copied` elements of each thread except the first.
    packed: offset of a buffer -> first element of its packed copy in M.  end: of all.
    """

    first: int
    transposed: int
    strip: int
    copies: dict[int, int]
    copied: int
    packed: dict[int, int]
    end: int

    @property
    def floats(self) -> int:
        """The elements of all threads."""
        return self.end - self.first


@dataclass(frozen=True)
class Plan:
    """The work of the threads in a step.

    units: in order; those of each of the Program's functions are one function of the code.
    samples: how the threads share the gather of buffers without private copies.
    """

    program: Program
    threads: int
    units: tuple[WorkUnit, ...]
    samples: Share
    working: WorkingMemory

    def units_of(self, function: str) -> list[tuple[int, WorkUnit]]:
        """Return the units of one of `Program.functions`, by their numbers from 1."""
        phases = self.program.functions[function]
        return [(number, unit) for number, unit in enumerate(self.units, 1) if unit.phase in phases]

    def describe(self) -> str:
        """Return the plan as text: two lines of head, then a line per unit with the wait before it and its share."""
        waits = sum(unit.waits for unit in self.units) + len(self.program.functions)
        said = f"{self.threads} threads, {waits} waits" if self.threads > 1 else "1 thread"
        lines = [
            f"batch {self.program.batch}, {len(self.program.calls)} calls in {len(self.units)} units, {said}, "
            f"{self.working.floats:,} floats of working memory",
            "rows and columns are those of memory, where each sample is a row",
        ]
        for number, unit in enumerate(self.units, 1):
            lines.append(
                f"{number:>3}  {'wait' if unit.waits else '':<4}  {unit.phase:<8}  {unit.describe(self.program)}"
            )
        return "\n".join(lines)


def make_plan(
    program: Program,
    found: Iterable[Launch],
    sizes: Sizes,
    *,
    threads: int,
    library_flops: float | None,
    has_data: bool,
    packs_for: int = 0,
) -> Plan:
    """Plan the launches of a Program for a number of threads.

    found: the launches.  library_flops: FLOPs of a product beyond which a library computes it; None without one.
    has_data: whether samples are gathered from data, or fed.
    packs_for: the lanes of the tiles that matrices, which no call writes, are packed for; 0 for none, one thread only.
    Raises CannotPrint for unsupported calls, which only custom kernels contain.
    """
    private = private_samples(program) if has_data and threads > 1 else ()
    sharing = Sharing(program, sizes, threads, private)
    units = [work_unit(program, group, launch.phase) for launch in found for group in launch.groups]
    units = fuse_ends(sharing, [_decided(sharing, unit, library_flops, packs_for) for unit in units])
    units = [_with_share(sharing, unit) for unit in units]
    if len(program.functions) == 1:
        units = fuse_updates(sharing, units)
    units = [_with_share(sharing, unit) if unit.done else unit for unit in units]
    first, *others = [[unit for unit in units if unit.phase in phases] for phases in program.functions.values()]
    units = _with_waits(sharing, first, sharing.filled())
    for later in others:
        units += _with_waits(sharing, later, [])
    length = str(program.capacity) if sizes.is_fixed else "%m"
    points = (sharing.split_points(program.capacity, 1),) if sizes.is_fixed else ()
    samples = Share("rows", program.capacity, length, 1, points)
    return Plan(program, threads, tuple(units), samples, _working_memory(program, units, private, threads, packs_for))


def _decided(sharing: Sharing, unit: WorkUnit, library_flops: float | None, packs_for: int) -> WorkUnit:
    """Return a product with the decisions that follow from its shape; any other unit as it is."""
    if unit.group.kind != "product":
        return unit
    (left, right), out, index = unit.call.operands, unit.call.out, unit.index
    if sharing.extent(index, -1, 1) != str(out.shape[1]):
        raise CannotPrint(f"{unit.call.text} has as many features as the batch has samples")
    by_library = library_flops is not None and unit.call.flops >= library_flops
    inner = sharing.extent(index, 0, 0 if left.transposed else 1)
    rows = -(-out.shape[0] // sharing.threads)
    is_turned = right.transposed and right.shape[1] > 1 and out.shape[1] > 1
    is_turned = is_turned and not by_library
    is_packed = is_turned and packs_for > 0 and _is_kept(sharing.program, right.buffer)
    is_packed = is_packed and is_known(inner) and packed_columns(int(inner), out.shape[1], packs_for) > 0
    transposes = is_turned and not is_packed and repays_transposing(inner, rows, out.shape[1])
    by_columns = not transposes and sharing.by_columns(unit)
    return replace(unit, by_library=by_library, by_columns=by_columns, transposes=transposes, is_packed=is_packed)


def _is_kept(program: Program, buffer: Buffer) -> bool:
    """Return whether a buffer belongs to the network and no call writes it."""
    return buffer.offset < program.n_owned and not any(call.out.buffer.overlaps(buffer) for call in program.calls)


def _with_share(sharing: Sharing, unit: WorkUnit) -> WorkUnit:
    return replace(unit, share=sharing.share(unit))


def _with_waits(sharing: Sharing, units: list[WorkUnit], pending: list[Access]) -> list[WorkUnit]:
    """Add a wait before each unit that clashes with earlier accesses. pending: those before the first unit."""
    found = []
    for unit in units:
        if unit.update is not None and not unit.share.pieces:
            raise CannotPrint(f"{unit.call.text} has as many rows as the batch has samples, and theta is updated by it")
        accesses = sharing.accesses(unit) if sharing.threads > 1 else []
        waits = any(one.clashes(other) for one in accesses for other in pending)
        pending = [*([] if waits else pending), *accesses]
        found.append(replace(unit, waits=waits))
    return found


def _working_memory(
    program: Program, units: Iterable[WorkUnit], private: Iterable[Buffer], threads: int, lanes: int
) -> WorkingMemory:
    products = [call for call in program.calls if call.word == "matmul"]
    transposed = aligned(
        max((call.operands[1].buffer.size for call in products if call.operands[1].transposed), default=0)
    )
    strip = aligned(max((strip_rows(call.out.shape[1]) * call.out.shape[1] for call in products), default=0))
    copies, copied = dict[int, int](), 0
    for buffer in sorted(private, key=lambda buffer: buffer.offset):
        copies[buffer.offset] = copied
        copied += aligned(buffer.size)
    first = program.n_floats - program.n_owned
    packed, end = dict[int, int](), first + threads * (transposed + strip) + (threads - 1) * copied
    for matrix in (unit.call.operands[1] for unit in units if unit.is_packed):
        packed[matrix.buffer.offset] = end
        end += aligned(packed_size(matrix.shape[1], matrix.shape[0], lanes))
    return WorkingMemory(first, transposed, strip, copies, copied, packed, end)
