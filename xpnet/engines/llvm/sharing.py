"""Decide which part of a unit is whose: what threads share out, where they split it, and what each has to itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from xpnet.engines.llvm.products import COLUMN_UNIT, takes_columns
from xpnet.engines.llvm.text import in_llvm
from xpnet.engines.llvm.units import CannotPrint, Share, WorkUnit
from xpnet.program.calls import Buffer, Call, Operand, Place, Program
from xpnet.program.grouping import direction, leader
from xpnet.program.loops import leading
from xpnet.program.places import Access, place_of
from xpnet.program.sizes import Sizes

VECTOR_UNIT = 16  # elements: vectors are cut for threads at the beginning of a cache line


@dataclass(frozen=True)
class Sharing:
    """How so many threads share a Program's units out.

    private_samples: the gathered buffers of which each thread has a copy.
    """

    program: Program
    sizes: Sizes
    threads: int
    private_samples: tuple[Buffer, ...]

    def split_points(self, n: int, granule: int) -> tuple[int, ...]:
        """Where the parts of the threads begin and end; of rows of weights where products may be cut too."""
        granule = COLUMN_UNIT if granule == 1 and n > 2 * COLUMN_UNIT else granule
        points = (min(n, round(i * n / (self.threads * granule)) * granule) for i in range(self.threads))
        return *points, n

    def flat_pieces(self, n: int, done: tuple[tuple[int, int], ...]) -> tuple[tuple[int, ...], ...]:
        """Split a flat vector of n elements, but the ranges that are done: the split points of each piece.

        What lies like theta is cut as the products cut its matrices, so that weights stay with the thread that has
        them: from another core's cache they come at the speed of memory.
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
            if offset >= position:  # of two that share memory, the first
                pieces.append(tuple(position + point for point in self.split_points(offset - position, VECTOR_UNIT)))
                pieces.append(tuple(offset + point * columns for point in self.split_points(rows, 1)))
                position = offset + rows * columns
        pieces.append(tuple(position + point for point in self.split_points(n - position, VECTOR_UNIT)))
        for start, end in done:
            parts = [part for piece in pieces for part in _without(piece, start, end)]
            pieces = [part for part in parts if part[0] < part[-1]]
        return tuple(piece for piece in pieces if piece[0] < piece[-1])

    def extent(self, index: int, position: int, axis: int) -> str:
        """The length of an operand's axis in LLVM's words: a number, or %m for that of the batch."""
        return in_llvm(self.sizes.extent(index, position, axis))

    def by_columns(self, unit: WorkUnit) -> bool:
        """Whether threads cut a product by its columns: where weights are more than samples, each keeps its own."""
        if unit.group.kind != "product" or self.threads == 1:
            return False
        (left, right), out = unit.call.operands, unit.call.out
        if not right.transposed or left.transposed or not takes_columns(right.shape[1], out.shape[1]):
            return False
        return right.buffer.size > left.buffer.size + out.buffer.size

    def share(self, unit: WorkUnit) -> Share:
        """What the threads share out of a unit."""
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
        """The rows of a call's matrix, or of the vector beside one."""
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
        """Whether each thread has a copy of its own of these samples."""
        return buffer.kind == "float" and any(buffer.offset == own.offset for own in self.private_samples)

    def filled(self) -> list[Access]:
        """What is written before a step's first call: the gathered samples, by rows, and the slots."""
        found = [
            Access(place_of(self.program, buffer), f"rows of {buffer.shape[1]}", True)
            for _, buffer in self.program.gathers
            if not self.is_private(buffer)
        ]
        slots = [self.program.buffers[name] for name in self.program.slots]
        return found + [Access(place_of(self.program, slot), "first thread", True) for slot in slots]

    def accesses(self, unit: WorkUnit) -> list[Access]:
        """What a unit's threads touch, and which of it each has to itself."""
        found = []
        owner = "" if unit.by_columns else unit.share.owner
        for call in unit.calls:
            for operand in (*call.operands, call.out):
                if not self.is_private(operand.buffer):
                    owned = owner if self._is_cut(unit, call, operand) else ""
                    found += [Access(place, owned, operand is call.out) for place in self._places(unit, call, operand)]
        if unit.bias is not None:
            found.append(Access(place_of(self.program, unit.bias.buffer)))
        return found + self.update_accesses(unit)

    def _places(self, unit: WorkUnit, call: Call, operand: Operand) -> Iterator[Place]:
        """Where an operand lies; of a vector that is done in part, the rest of it."""
        place = place_of(self.program, operand.buffer)
        if not unit.done or not operand.shape:
            yield place
            return
        for piece in self.flat_pieces(call.out.shape[0], unit.done):
            yield Place(place.memory, place.start + piece[0], piece[-1] - piece[0])

    def update_accesses(self, unit: WorkUnit) -> list[Access]:
        """What the update that is fused into a product touches: of vectors the part of its weights."""
        if unit.update is None:
            return []
        size, found = unit.call.out.buffer.size, []
        for step in unit.update.group.steps:
            call = self.program.calls[step.index]
            for operand in (*call.operands, call.out):
                place = place_of(self.program, operand.buffer)
                if operand.shape:
                    place = Place(place.memory, place.start + unit.update.first, size)
                found.append(Access(place, "", operand is call.out))
        return found

    def _is_cut(self, unit: WorkUnit, call: Call, operand: Operand) -> bool:
        """Whether each thread has a part of an operand to itself, as loops and products cut it."""
        kind = unit.group.kind
        if kind == "single":
            return True
        if kind == "product":
            left = call.operands[0]
            return operand is call.out or (operand is left and not left.transposed)
        if not _is_on_matrix(call):
            return bool(operand.shape)
        return direction(call, operand) in ("matrix", "along rows" if kind == "column" else "along columns")


def private_samples(program: Program) -> tuple[Buffer, ...]:
    """The gathered buffers of which each thread gathers a copy of its own: those that only products read.

    All threads read all samples there, and what another core has just written comes slower than from memory.
    """
    uses = [(call, operand) for call in program.calls for operand in (*call.operands, call.out)]

    def suits(own: Buffer, call: Call, operand: Operand) -> bool:
        is_read = call.word == "matmul" and operand is not call.out
        return not operand.buffer.overlaps(own) or (is_read and operand.buffer.place == own.place)

    return tuple(buffer for _, buffer in program.gathers if all(suits(buffer, *use) for use in uses))


def _is_on_matrix(call: Call) -> bool:
    return len(leader(call).shape) == 2


def _without(piece: tuple[int, ...], start: int, end: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The split points of a piece without a range: of what is before it, and of what is behind."""
    return tuple(min(point, start) for point in piece), tuple(max(point, end) for point in piece)
