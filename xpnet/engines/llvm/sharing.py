"""Decide how threads share a unit: what they split, where, and which elements each thread owns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from xpnet.engines.llvm.products import COLUMN_UNIT, takes_columns
from xpnet.engines.llvm.text import in_llvm
from xpnet.engines.llvm.units import CannotPrint, Share, WorkUnit
from xpnet.program.calls import Buffer, Call, Operand, Place, Program
from xpnet.program.grouping import Group, direction, leader
from xpnet.program.loops import LoopNest, Segment, Statement, leading, loop_nest
from xpnet.program.places import Access, place_of
from xpnet.program.sizes import Sizes

VECTOR_UNIT = 16  # elements: vectors are split at the beginning of cache lines


@dataclass(frozen=True)
class Sharing:
    """The division of a Program's units among threads.

    private_samples: the gathered buffers of which each thread has a copy.
    """

    program: Program
    sizes: Sizes
    threads: int
    private_samples: tuple[Buffer, ...]

    def split_points(self, n: int, granule: int) -> tuple[int, ...]:
        """Return the bounds of the threads' parts of n elements: thread i has those from point i to point i + 1.

        granule: the divisor of all points but the last. With 1, a long n is split at multiples of COLUMN_UNIT, at which
        products can be split too.
        """
        granule = COLUMN_UNIT if granule == 1 and n > 2 * COLUMN_UNIT else granule
        points = (min(n, round(i * n / (self.threads * granule)) * granule) for i in range(self.threads))
        return *points, n

    def flat_pieces(self, n: int, done: tuple[tuple[int, int], ...]) -> tuple[tuple[int, ...], ...]:
        """Split a flat vector of n elements, without the ranges `done`; returns the split points of each piece.

        Matrices in theta are split as in the products, so that each weight stays with one thread: from another core's
        cache it comes at the speed of memory, on the AMD EPYC of benchmarks/README.md.
        """
        pieces, position = list[tuple[int, ...]](), 0
        matrices = {
            (buffer.offset, buffer.shape[0], buffer.shape[1])
            for buffer in self.program.buffers.values()
            if buffer.kind == "float"
            and buffer.form == "matrix"
            and not buffer.flipped
            and buffer.offset + buffer.size <= min(n, self.program.n_owned)
        }
        for offset, rows, columns in sorted(matrices):
            if offset >= position:  # of two matrices that share memory, the first
                pieces.append(tuple(position + point for point in self.split_points(offset - position, VECTOR_UNIT)))
                pieces.append(tuple(offset + point * columns for point in self.split_points(rows, 1)))
                position = offset + rows * columns
        pieces.append(tuple(position + point for point in self.split_points(n - position, VECTOR_UNIT)))
        for start, end in done:
            parts = [part for piece in pieces for part in _without(piece, start, end)]
            pieces = [part for part in parts if part[0] < part[-1]]
        return tuple(piece for piece in pieces if piece[0] < piece[-1])

    def extent(self, index: int, position: int, axis: int) -> str:
        """Return the length of an operand's axis in LLVM IR: a number, or %m for the batch length."""
        return in_llvm(self.sizes.extent(index, position, axis))

    def by_columns(self, unit: WorkUnit) -> bool:
        """Return whether threads split a product by columns: if it has more weights than other elements."""
        if unit.group.kind != "product" or self.threads == 1:
            return False
        (left, right), out = unit.call.operands, unit.call.out
        if not right.transposed or left.transposed or not takes_columns(right.shape[1], out.shape[1]):
            return False
        return right.buffer.size > left.buffer.size + out.buffer.size

    def share(self, unit: WorkUnit) -> Share:
        """Return how the threads share a unit."""
        kind, call = unit.group.kind, unit.call
        if kind == "single":
            return Share("first thread")
        if kind == "product":
            return self._share("columns", unit.index, -1, 1, 1) if unit.by_columns else self.rows(unit.index, call)
        matrices = [step for step, call in zip(unit.group.steps, unit.calls, strict=True) if _is_on_matrix(call)]
        if not matrices and leader(call).buffer.form == "flat":
            return self._flat(unit)
        step = matrices[0] if matrices else unit.group.steps[0]
        call = self.program.calls[step.index]
        by_rows = kind != "column" if matrices else leader(call).buffer.flipped
        if by_rows:
            return self.rows(step.index, call)
        return self._share("elements", step.index, leading(call), 1 if matrices else 0, VECTOR_UNIT)

    def rows(self, index: int, call: Call) -> Share:
        """Return the share of a call's rows: of its matrix, or of a vector beside one."""
        return self._share("rows", index, leading(call), 0, 1)

    def _share(self, of: str, index: int, position: int, axis: int, granule: int) -> Share:
        call, extent = self.program.calls[index], self.extent(index, position, axis)
        length = (call.out if position < 0 else call.operands[position]).shape[axis]
        points = () if extent == "%m" else (self.split_points(int(extent), granule),)
        return Share(of, length, extent, granule, points)

    def _flat(self, unit: WorkUnit) -> Share:
        extent, n = self.extent(unit.index, -1, 0), unit.call.out.shape[0]
        if extent == "%m" and (self.threads > 1 or unit.done):
            raise CannotPrint(f"{unit.call.text} is on flat vectors as long as the batch")
        whole = self.threads == 1 and not unit.done
        return Share("flat", n, extent, VECTOR_UNIT, ((0, n),) if whole else self.flat_pieces(n, unit.done))

    def is_private(self, buffer: Buffer) -> bool:
        """Return whether each thread has a private copy of these samples."""
        return buffer.kind == "float" and any(buffer.offset == own.offset for own in self.private_samples)

    def filled(self) -> list[Access]:
        """Return the accesses before a step's first call: writes of the gathered samples, by rows, and the slots."""
        found = [
            Access(place_of(self.program, buffer), f"rows of {buffer.shape[1]}", True)
            for _, buffer in self.program.gathers
            if not self.is_private(buffer)
        ]
        slots = [self.program.buffers[name] for name in self.program.slots]
        return found + [Access(place_of(self.program, slot), "first thread", True) for slot in slots]

    def accesses(self, unit: WorkUnit) -> list[Access]:
        """Return the accesses of a unit's threads."""
        found = []
        owner = "" if unit.by_columns else unit.share.owner
        for call in unit.calls:
            for operand in self._accessed(unit.group, call):
                if not self.is_private(operand.buffer):
                    owned = owner if self._is_cut(unit, call, operand) else ""
                    found += [Access(place, owned, operand is call.out) for place in self._places(unit, call, operand)]
        if unit.bias is not None:
            found.append(Access(place_of(self.program, unit.bias.buffer)))
        return found + self.update_accesses(unit)

    def _accessed(self, group: Group, call: Call) -> tuple[Operand, ...]:
        """Return the operands of a call, and its result if that is stored."""
        if group not in self._results:
            nest = loop_nest(self.program, self.sizes, group)
            self._results[group] = {each.call for segment in nest.segments for each in stored(nest, segment)}
        return (*call.operands, call.out) if call in self._results[group] else call.operands

    @cached_property
    def _results(self) -> dict[Group, set[Call]]:
        """The calls of a group whose results are stored; filled as they are asked for."""
        return {}

    def _places(self, unit: WorkUnit, call: Call, operand: Operand) -> Iterator[Place]:
        """Yield the places of an operand; of a vector that is updated in part, the remaining ranges."""
        place = place_of(self.program, operand.buffer)
        if not unit.done or not operand.shape:
            yield place
            return
        for piece in self.flat_pieces(call.out.shape[0], unit.done):
            yield Place(place.memory, place.start + piece[0], piece[-1] - piece[0])

    def update_accesses(self, unit: WorkUnit) -> list[Access]:
        """Return the accesses of the update fused into a product: the part of each vector for its weights."""
        if unit.update is None:
            return []
        size, found = unit.call.out.buffer.size, []
        for step in unit.update.group.steps:
            call = self.program.calls[step.index]
            for operand in self._accessed(unit.update.group, call):
                place = place_of(self.program, operand.buffer)
                if operand.shape:
                    place = Place(place.memory, place.start + unit.update.first, size)
                found.append(Access(place, "", operand is call.out))
        return found

    def _is_cut(self, unit: WorkUnit, call: Call, operand: Operand) -> bool:
        """Return whether each thread owns a part of an operand, as loops and products split it."""
        kind = unit.group.kind
        if kind == "single":
            return True
        if kind == "product":
            left = call.operands[0]
            return operand is call.out or (operand is left and not left.transposed)
        if not _is_on_matrix(call):
            return bool(operand.shape)
        return direction(call, operand) in ("matrix", "along rows" if kind == "column" else "along columns")


def stored(nest: LoopNest, segment: Segment) -> list[Statement]:
    """Return the statements of a segment whose results the loops store: what is read behind it.

    Products are made in memory, and columns are summed there; other values stay in registers until the nest ends.
    """
    in_memory = nest.kind in ("column", "product")
    return [
        each
        for each in segment.statements
        if (in_memory and each.accumulates)
        or nest.is_read_after(each.out, segment.statements if in_memory or each.out.varies else nest.statements)
    ]


def private_samples(program: Program) -> tuple[Buffer, ...]:
    """Return the gathered buffers of which each thread gathers a private copy: those that only products read.

    There every thread reads all samples, and reading what another core has just written is slower than
    memory, on the AMD EPYC of benchmarks/README.md.
    """
    uses = [(call, operand) for call in program.calls for operand in (*call.operands, call.out)]

    def suits(own: Buffer, call: Call, operand: Operand) -> bool:
        is_read = call.word == "matmul" and operand is not call.out
        return not operand.buffer.overlaps(own) or (is_read and operand.buffer.place == own.place)

    return tuple(buffer for _, buffer in program.gathers if all(suits(buffer, *use) for use in uses))


def _is_on_matrix(call: Call) -> bool:
    return len(leader(call).shape) == 2


def _without(piece: tuple[int, ...], start: int, end: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the split points of the two parts of a piece before and behind a range."""
    return tuple(min(point, start) for point in piece), tuple(max(point, end) for point in piece)
