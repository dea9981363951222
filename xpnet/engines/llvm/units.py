"""The values of a plan: work units, and how threads share each."""

from __future__ import annotations

from dataclasses import dataclass

from xpnet.program.calls import Buffer, Call, Operand, Program
from xpnet.program.grouping import Group, Step


class CannotPrint(ValueError):
    """A Program cannot be printed; the message names the call."""


@dataclass(frozen=True)
class Share:
    """How the threads share a unit.

    of: what they split: "rows", "columns", "elements", "flat" (a flat vector); or "first thread", which does it all.
    length: their number in the full batch.  extent: the same, or "%m" for the batch length.
    granule: the divisor of all split points.
    pieces: the split points (0, ..., length) of a known extent; of a flat vector those of each of its pieces.
    """

    of: str
    length: int = 0
    extent: str = "0"
    granule: int = 1
    pieces: tuple[tuple[int, ...], ...] = ()

    @property
    def owner(self) -> str:
        """The name of the division: units of one owner leave each part with the same thread."""
        return self.of if self.of == "first thread" else f"{self.of} of {self.length}"


@dataclass(frozen=True)
class FusedUpdate:
    """The update of a product's weights, strip by strip of rows, as soon as their gradient is computed.

    group: its calls, on flat vectors.  gradient: the flat vector that the product writes into.
    first: first element of the product's matrix there.  strip_rows: rows of a strip.
    """

    group: Group
    gradient: Buffer
    first: int
    strip_rows: int


@dataclass(frozen=True)
class WorkUnit:
    """A group of calls of one phase, of which each thread does its share, with all decisions about it.

    bias, finish, update: fused into a product; finish: steps on each element of its result.
    done: ranges of a flat vector that products have already updated.
    by_library: whether a library computes the product.  by_columns: whether threads split it by columns, not rows.
    transposes: whether it copies its right operand, transposed, into working memory.
    is_packed: whether a run begins with a copy of its right operand, in the order of tiles.
    share: how the threads share it.  waits: whether they wait for each other before it.
    """

    group: Group
    phase: str
    calls: tuple[Call, ...]
    bias: Operand | None = None
    finish: tuple[Step, ...] = ()
    update: FusedUpdate | None = None
    done: tuple[tuple[int, int], ...] = ()
    by_library: bool = False
    by_columns: bool = False
    transposes: bool = False
    is_packed: bool = False
    share: Share = Share("first thread")
    waits: bool = False

    @property
    def index(self) -> int:
        """The number of its first call in the Program."""
        return self.group.steps[0].index

    @property
    def call(self) -> Call:
        """Its first call; the only one of a product."""
        return self.calls[0]

    def describe(self, program: Program) -> str:
        """Return a line of text: owner, kind, calls and fused parts."""
        parts = [f"{self.share.owner:<16}{self.group.kind}: {'; '.join(call.text for call in self.calls)}"]
        if self.bias is not None:
            parts.append(f"with bias {self.bias.buffer.name}")
        if self.finish:
            parts.append(f"then {'; '.join(program.calls[step.index].text for step in self.finish)}")
        if self.update is not None:
            texts = "; ".join(program.calls[step.index].text for step in self.update.group.steps)
            rows, first, size = self.update.strip_rows, self.update.first, self.call.out.buffer.size
            parts.append(f"updates elements {first} to {first + size - 1} by {rows} rows at a time: {texts}")
        if self.done:
            parts.append("except elements " + ", ".join(f"{start} to {end - 1}" for start, end in self.done))
        if self.by_library:
            parts.append("by the library")
        if self.transposes:
            parts.append("right operand transposed in working memory")
        if self.is_packed:
            parts.append("right operand packed once a run")
        return " | ".join(parts)


def work_unit(program: Program, group: Group, phase: str) -> WorkUnit:
    """Return the unit of a group."""
    return WorkUnit(group, phase, tuple(program.calls[step.index] for step in group.steps))
