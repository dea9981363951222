"""Where a buffer lies in the memory that generated code addresses, who touches it, and whether it is read again.

Generated code reaches every buffer through three vectors: T is what the network owns, M holds the other floats, U the
uint32 numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

from xpnet.program.calls import Buffer, Place, Program


@dataclass(frozen=True)
class Access:
    """What workers do to a place under one way of sharing the work out.

    owned: by which cut each worker has a part of the place to itself; "" where it reaches those of others.
    """

    place: Place
    owned: str = ""
    writes: bool = False

    def depends(self, other: Access) -> bool:
        """Whether the two may not change places."""
        return (self.writes or other.writes) and self.place.overlaps(other.place)

    def clashes(self, other: Access) -> bool:
        """Whether one must be over, for all workers, before the other begins."""
        return self.depends(other) and not (self.owned and (self.place, self.owned) == (other.place, other.owned))


def place_of(program: Program, buffer: Buffer) -> Place:
    """Where a buffer lies in T, M or U."""
    if buffer.kind == "uint32":
        return Place("U", buffer.offset, buffer.size)
    if buffer.offset < program.n_owned:
        return Place("T", buffer.offset, buffer.size)
    return Place("M", buffer.offset - program.n_owned, buffer.size)


def is_read_after(program: Program, buffer: Buffer, index: int) -> bool:
    """Whether anybody reads a buffer after a call, in this step or the next, before it is written again.

    What outlives the step is read by the engine: what the network owns, the state and the results.
    """
    outlives = [
        Place("float", 0, program.n_owned),
        Place("float", program.state_offset, program.n_state),
        Place("uint32", 0, program.n_keys),
        *(program.buffers[name].place for name in program.results),
    ]
    place = buffer.place
    if any(place.overlaps(other) for other in outlives):
        return True
    for call in (*program.calls[index + 1 :], *program.calls[: index + 1]):
        if any(operand.buffer.place.overlaps(place) for operand in call.operands):
            return True
        always = program.accumulate == 1 or call.phase != "update"
        if always and call.out.buffer.place == place:
            return False
    return False
