"""Find the extents and numbers of a Program that depend on the batch length, so that one text serves every length."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from xpnet.program.calls import Call, Operand, Program, RecordingError
from xpnet.program.grouping import Launch, direction, leader, workers_of

_MOST_KEPT = 64  # answers for other batch sizes


class Sizes:
    """The extents and numbers of a Program's calls that depend on the batch length, and differ in a shorter batch."""

    def __init__(self, program: Program, found: tuple[Launch, ...]) -> None:
        self._program = program
        self._groups = [group for launch in found for group in launch.groups]
        self._other: Program | None = None
        self._fits = lru_cache(maxsize=_MOST_KEPT)(self._fit)
        if program.capacity > 1:
            try:
                self._other = program.at(program.capacity - 1)
            except (ValueError, RecordingError):  # a layer needs the full batch: there is no other length
                self._other = None
        if self._other is not None and not self._fit(program):  # an extent is neither constant nor the batch length
            self._other = None

    @property
    def is_fixed(self) -> bool:
        """Whether the full batch is the only length."""
        return self._other is None

    def extent(self, index: int, position: int, axis: int) -> str:
        """Return the length of an operand's axis: "m" (the batch length) or a number.  position: -1 for the result."""
        mine, other = (_shape_of(p, index, position) for p in (self._program, self._other or self._program))
        return "m" if mine[axis] != other[axis] else str(mine[axis])

    def varies(self, index: int, position: int) -> bool:
        """Return whether the number at that position of a call depends on the batch length."""
        if self._other is None:
            return False
        return bool(self._program.calls[index].inputs[position] != self._other.calls[index].inputs[position])

    def hold_for(self, other: Program) -> bool:
        """Return whether this holds at another batch size; a custom kernel may read the batch length."""
        return other.batch == self._program.batch or self._fits(other)

    def _fit(self, other: Program) -> bool:
        if self._other is None or not _same_words(self._program, other) or not _same_words(self._other, other):
            return False
        # A weight matrix may be as long as the full batch; in a shorter batch they have different workers.
        if any(len({workers_of(other, group, step) for step in group.steps}) > 1 for group in self._groups):
            return False
        for index, (mine, its) in enumerate(zip(self._program.calls, other.calls, strict=True)):
            for position in range(-1, len(mine.inputs)):
                item = its.out if position < 0 else its.inputs[position]
                if isinstance(item, Operand):
                    extents = [self.extent(index, position, axis) for axis in range(len(item.shape))]
                    if [other.batch if extent == "m" else int(extent) for extent in extents] != list(item.shape):
                        return False
                elif not self.varies(index, position) and item != mine.inputs[position]:
                    return False
        return True


def _same_words(one: Program, other: Program) -> bool:
    def words(program: Program) -> list[Any]:
        return [
            (call.word, call.axis, call.phase, [_place_in(call, item) for item in (*call.inputs, call.out)])
            for call in program.calls
        ]

    return words(one) == words(other)


def _place_in(call: Call, item: Any) -> Any:
    if not isinstance(item, Operand):
        return None
    lies = direction(call, item) if leader(call).buffer.form == "matrix" else ""
    return item.buffer.kind, item.buffer.offset, len(item.shape), item.transposed, lies


def _shape_of(program: Program, index: int, position: int) -> tuple[int, ...]:
    call = program.calls[index]
    item = call.out if position < 0 else call.inputs[position]
    assert isinstance(item, Operand)
    return item.shape
