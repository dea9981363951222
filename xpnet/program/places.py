"""Locate buffers in the memory of generated code, and tell who accesses them and whether they are read again.

Generated code addresses every buffer through three vectors: T holds the network's parameters and statistics, M the
other floats, U the uint32 numbers.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from xpnet.program.calls import Buffer, Place, Program


@dataclass(frozen=True)
class Access:
    """The access of workers to a place, under one division of the work.

    owned: the division that gives each worker a part of the place; "" where workers reach each other's parts.
    """

    place: Place
    owned: str = ""
    writes: bool = False

    def depends(self, other: Access) -> bool:
        """Return whether the two must keep their order."""
        return (self.writes or other.writes) and self.place.overlaps(other.place)

    def clashes(self, other: Access) -> bool:
        """Return whether all workers must finish one before any begins the other."""
        return self.depends(other) and not (self.owned and (self.place, self.owned) == (other.place, other.owned))


def place_of(program: Program, buffer: Buffer) -> Place:
    """Return the place of a buffer in T, M or U."""
    if buffer.kind == "uint32":
        return Place("U", buffer.offset, buffer.size)
    if buffer.offset < program.n_owned:
        return Place("T", buffer.offset, buffer.size)
    return Place("M", buffer.offset - program.n_owned, buffer.size)


def describe(program: Program) -> str:
    """Return the buffers as text: a line each, in the order of memory, with its first element, name and shape."""
    names = {"T": "the network's parameters and statistics", "M": "the other floats", "U": "uint32"}
    placed = sorted(
        (place_of(program, buffer), name, buffer.shape) for name, buffer in program.buffers.items() if buffer.size
    )
    lines = []
    for memory, about in names.items():
        found = [(place, name, shape) for place, name, shape in placed if place.memory == memory]
        lines += [f"{memory}: {about}"] * bool(found)
        lines += [f"    {memory}[{place.start}]".ljust(16) + f"{name} {shape}" for place, name, shape in found]
    return "\n".join(lines)


def is_read_after(program: Program, buffer: Buffer, index: int) -> bool:
    """Return whether an element of a buffer is read after a call, in this step or the next, before it is overwritten.

    The engine reads what outlives the step: the network's part, the state, the results and the outputs.
    """
    outlives = [
        Place("float", 0, program.n_owned),
        Place("float", program.state_offset, program.n_state),
        Place("uint32", 0, program.n_keys),
        *(program.buffers[name].place for name in (*program.results, *program.outputs)),
    ]
    phase = program.calls[index].phase
    if any(buffer.place.overlaps(other) for other in outlives):
        return True
    left = _without((buffer.place,), program.padding)
    for call in (*program.calls[index + 1 :], *program.calls[: index + 1]):
        if any(operand.buffer.place.overlaps(place) for operand in call.operands for place in left):
            return True
        always = program.accumulate == 1 or call.phase != "update"
        if program.shards is not None:  # the same phase may follow, for the next shard
            always = call.phase == phase
        if always:
            left = _without(left, (call.out.buffer.place,))
        if not left:
            return False
    return False


def _without(places: Iterable[Place], others: Iterable[Place]) -> tuple[Place, ...]:
    """Return what is left of places without others."""
    left = tuple(places)
    for other in others:
        left = tuple(part for place in left for part in place.without(other))
    return left
