"""The parts of a recorded step: buffers in one memory, calls on them, and the Program that holds both.

A Program is a plain list that engines run, group and print. `xpnet.program.recorder` makes it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

from xpnet.program.shards import Shards

# The whole vocabulary: word -> number of operands. Every engine must implement every word.
BINARY = ("add", "subtract", "multiply", "divide", "maximum", "minimum", "greater")
UNARY = ("abs", "sign", "sqrt", "exp", "log", "log1p", "tanh")
INTEGER = ("bitwise_xor", "right_shift")
REDUCTIONS = ("sum", "max")
WORDS = {**dict.fromkeys(BINARY + INTEGER, 2), **dict.fromkeys(UNARY, 1), **dict.fromkeys(REDUCTIONS, 1), "matmul": 2}

_ALIGNMENT = 16  # elements of 4 bytes or more: at least 64 bytes, a cache line
BATCH = 1024  # samples that a Program of inference or evaluation takes at a time
ITEM_SIZE = 4  # bytes per element in describe(); a float64 run doubles it


class Place(NamedTuple):
    """A range of a memory: an arena ("float", "uint32") or a vector (T, M, U), the first element, the length."""

    memory: str
    start: int
    size: int

    def overlaps(self, other: Place) -> bool:
        """Whether an element is in both."""
        return (
            self.memory == other.memory
            and self.start < other.start + other.size
            and other.start < self.start + self.size
        )

    def without(self, other: Place) -> tuple[Place, ...]:
        """Return the ranges of this one that are not in the other one."""
        if not self.overlaps(other):
            return (self,)
        end, its_end = self.start + self.size, other.start + other.size
        parts = Place(self.memory, self.start, other.start - self.start), Place(self.memory, its_end, end - its_end)
        return tuple(part for part in parts if part.size > 0)


@dataclass(frozen=True, eq=False)
class Buffer:
    """A named place in a Program's memory, seen by the math as an array of `shape`.

    offset: first element in the arena of its kind ("float" or "uint32").
    form: "matrix", "vector" ((n, 1) or (1, n)), "flat" ((n,)) or "scalar" ((1, 1)). It is declared, never inferred
    from the shape: with one output or a batch of one, the shape is ambiguous.
    flipped: memory holds the transpose, C-ordered. True for every buffer with a batch axis: a sample is contiguous.
    """

    name: str
    kind: str
    offset: int
    shape: tuple[int, ...]
    form: str
    flipped: bool = False

    @property
    def T(self) -> Buffer:
        """The transpose: the same memory with its axes swapped."""
        if self.form != "matrix":
            raise RecordingError(
                f"{self.name} is a {self.form}; only a matrix has a transpose here: "
                "make it with matrix_in or batch_matrix"
            )
        name = self.name[:-2] if self.name.endswith("^T") else f"{self.name}^T"
        return replace(self, name=name, shape=self.shape[::-1], flipped=not self.flipped)

    @cached_property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @cached_property
    def place(self) -> Place:
        """Its range in the arena of its kind."""
        return Place(self.kind, self.offset, self.size)

    def overlaps(self, other: Buffer) -> bool:
        """Whether an element is in both."""
        return self.place.overlaps(other.place)


@dataclass(frozen=True)
class Operand:
    """An array as an engine binds it: C-ordered memory of `shape` at the buffer's place, perhaps transposed."""

    buffer: Buffer
    shape: tuple[int, ...]
    transposed: bool = False


@dataclass(frozen=True, eq=False)
class Call:
    """One recorded word with its operands in memory order.

    axis: of a reduction, in memory order; `out` keeps that axis with length 1.
    phase: the part of the step.  text: the call as the kernel wrote it.
    kernel, equation: the function that made it and the first line of its docstring.
    """

    word: str
    inputs: tuple[Operand | float | int, ...]
    out: Operand
    axis: int | None
    phase: str
    text: str
    kernel: str
    equation: str

    @cached_property
    def flops(self) -> int:
        """Floating-point operations: 2 n k m for a product, otherwise the elements of its largest array."""
        if self.word == "matmul":
            left = self.inputs[0]
            assert isinstance(left, Operand)
            inner = left.shape[0] if left.transposed else left.shape[1]
            return 2 * self.out.buffer.size * inner
        return max(math.prod(operand.shape) for operand in (*self.operands, self.out))

    @property
    def bytes(self) -> int:
        """Bytes read and written if nothing stays in cache, in float32."""
        return ITEM_SIZE * sum(math.prod(operand.shape) for operand in (*self.operands, self.out))

    @cached_property
    def operands(self) -> tuple[Operand, ...]:
        """The inputs that are arrays."""
        return tuple(item for item in self.inputs if isinstance(item, Operand))


@dataclass(frozen=True, eq=False)
class Constant:
    """A uint32 buffer that holds start + k * multiplier, modulo 2^32, in its k-th element in memory.

    size: elements to fill, for the full capacity of the buffer.
    """

    buffer: Buffer
    size: int
    start: int
    multiplier: int


class RecordingError(TypeError):
    """A Program cannot hold a kernel's call; the message names the word and the operand."""


@dataclass(frozen=True, eq=False)
class Program:
    """The recorded calls of one step and the memory they need.

    batch: samples a step.  capacity: samples that the buffers hold.  calls: in order, phase by phase.
    gathers: (name of the data, buffer) filled before the first call.
    constants: buffers that the engine fills once, before the first step.
    slots: names of the 1-element buffers that the host writes before each step, such as the learning rate.
    results: names of those that it reads after each step, such as the loss.
    outputs: names of the buffers that are read after each step, such as predictions.
    padding: ranges of vectors that are 0, whatever is written there: those between their views.
    buffers: by name.  n_owned: length of the network's part, theta and statistics, which begins the float arena.
    n_state, n_keys: lengths of the parts that persist between steps: behind the owned floats, and first in the uint32s.
    n_floats, n_uints: length of the two arenas.
    accumulate: steps per update, see `has_update`.  shards: the cut of a step's batch, None if its calls take it whole.
    rerecord(batch): records it for another batch size.
    """

    batch: int
    capacity: int
    calls: tuple[Call, ...]
    gathers: tuple[tuple[str, Buffer], ...]
    constants: tuple[Constant, ...]
    slots: tuple[str, ...]
    results: tuple[str, ...]
    outputs: tuple[str, ...]
    padding: tuple[Place, ...]
    buffers: dict[str, Buffer]
    n_owned: int
    n_state: int
    n_keys: int
    n_floats: int
    n_uints: int
    accumulate: int
    shards: Shards | None
    rerecord: Callable[[int], Program] = field(repr=False)

    def __deepcopy__(self, memo: dict[int, Any]) -> Program:
        return self  # nothing of it can change

    @property
    def per_step(self) -> int:
        """Samples of a full step: those that the buffers hold, or those of all shards."""
        return self.capacity if self.shards is None else self.shards.batch

    @property
    def state_offset(self) -> int:
        """The first element of the state in the float arena."""
        return aligned(self.n_owned)

    @cached_property
    def flops(self) -> int:
        """Floating-point operations of a step."""
        return sum(call.flops for call in self.calls)

    @property
    def phases(self) -> tuple[str, ...]:
        """Names of the phases that have calls, in order."""
        return tuple(dict.fromkeys(call.phase for call in self.calls))

    @cached_property
    def functions(self) -> dict[str, tuple[str, ...]]:
        """The phases that are run together: "step" always, of each shard where there are shards; "merge" after these.

        "update" is apart where it does not follow every step, and else belongs to the others.
        """
        phases, apart = self.phases, ("update",) * (self.accumulate > 1)
        first = phases if self.shards is None else phases[:1]
        found = {"step": tuple(phase for phase in first if phase not in apart)}
        if self.shards is not None:
            found["merge"] = tuple(phase for phase in phases[1:] if phase not in apart)
        return found | ({"update": apart} if apart else {})

    def at(self, batch: int) -> Program:
        """Return the same Program on the first `batch` samples of the same buffers."""
        if not 1 <= batch <= self.capacity:
            raise ValueError(
                f"batch is {batch}, the Program's buffers hold 1 to {self.capacity} samples; ask for one "
                f"of these, or record it with batch={batch}"
            )
        return self if batch == self.batch else self.rerecord(batch)

    def has_update(self, step: int, n_steps: int) -> bool:
        """Whether the phase "update" follows this step, counted from 0: every `accumulate`-th and the last one do."""
        return (step + 1) % self.accumulate == 0 or step + 1 == n_steps

    def describe(self) -> str:
        """Return the list as text: a line a phase, a kernel with its equation, a call with shape, FLOPs and bytes."""
        lines = [f"batch {self.batch}, {len(self.calls)} calls a step, {self.n_floats:,} floats"]
        if self.accumulate > 1:
            lines[0] += f", an update every {self.accumulate} steps"
        lines += [f"gather   {buffer.name} {buffer.shape} <- {name}[order]" for name, buffer in self.gathers]
        for constant in self.constants:
            lines.append(
                f"constant {constant.buffer.name} {constant.buffer.shape} = "
                f"{constant.start} + k * {constant.multiplier}"
            )
        phase = kernel = None
        for call in self.calls:
            if call.phase != phase:
                lines.append(f"phase {call.phase}")
                phase, kernel = call.phase, None
            if call.kernel != kernel:
                lines.append(f"    {call.kernel}: {call.equation}")
                kernel = call.kernel
            shape = str(call.out.buffer.shape)
            lines.append(f"           {call.text:<28} {shape:<14} {call.flops:>12,} flop {call.bytes:>12,} bytes")
        flops, size = self.flops, sum(call.bytes for call in self.calls)
        lines.append(f"sum: {flops:,} flop, {size:,} bytes a step")
        return "\n".join(lines)


def aligned(position: int) -> int:
    """Return the next position that begins a cache line."""
    return -(-position // _ALIGNMENT) * _ALIGNMENT
