"""Where a buffer lies in the memory that generated code addresses, and whether it is read again.

Generated code reaches every buffer through three vectors: T is what the network owns, M holds the other floats, U the
uint32 numbers.
"""

from __future__ import annotations

from xpnet.program.calls import Buffer, Program

Place = tuple[str, int, int]  # a vector (T, M or U), first element, length


def place_of(program: Program, buffer: Buffer) -> Place:
    """Which vector a buffer lies in (T, M or U), where it begins, and its length."""
    if buffer.kind == "uint32":
        return "U", buffer.offset, buffer.size
    if buffer.offset < program.n_owned:
        return "T", buffer.offset, buffer.size
    return "M", buffer.offset - program.n_owned, buffer.size


def is_read_after(program: Program, buffer: Buffer, index: int) -> bool:
    """Whether anybody reads a buffer after a call, in this step or the next, before it is written anew.

    What outlives the step is read by the engine: what the network owns, the state and the results.
    """
    first_state, n_state = program.state_offset, program.n_state
    is_state = buffer.offset < program.n_keys
    if buffer.kind == "float":
        is_result = any(program.buffers[name].overlaps(buffer) for name in program.results)
        in_state = buffer.offset < first_state + n_state and buffer.offset + buffer.size > first_state
        is_state = buffer.offset < program.n_owned or in_state or is_result
    if is_state:
        return True
    for call in (*program.calls[index + 1 :], *program.calls[: index + 1]):
        if any(operand.buffer.overlaps(buffer) for operand in call.operands):
            return True
        out = call.out.buffer
        always = program.accumulate == 1 or call.phase != "update"
        if always and (out.kind, out.offset, out.size) == (buffer.kind, buffer.offset, buffer.size):
            return False
    return False
