"""The values that a plan is made of: work units, and what of each the threads share out."""

from __future__ import annotations

from dataclasses import dataclass

from xpnet.program.calls import Buffer, Call, Operand, Program
from xpnet.program.grouping import Group


class CannotPrint(ValueError):
    """A Program that the text cannot say; the message names the call."""


@dataclass(frozen=True)
class Share:
    """What the threads share out of a unit.

    of: "rows", "columns", "elements", "flat" (ranges of a flat vector) or "first thread", which does it all.
    length: how many there are in the full batch.  extent: the same, or "%m" where that is the batch length.
    granule: of what the split points are multiples.
    pieces: of an extent that is known the split points of the threads, (0, ..., length); of a flat vector those of each
        of its ranges.
    """

    of: str
    length: int = 0
    extent: str = "0"
    granule: int = 1
    pieces: tuple[tuple[int, ...], ...] = ()

    @property
    def owner(self) -> str:
        """By which cut each thread has its part: two units of one owner leave each part with its thread."""
        return self.of if self.of == "first thread" else f"{self.of} of {self.length}"


@dataclass(frozen=True)
class Update:
    """The update of a product's weights, strip by strip of rows, as soon as their gradient is there.

    group: its calls, on flat vectors.  gradient: the one that the product makes.  first: the matrix's first element.
    strip_rows: rows of a strip.
    """

    group: Group
    gradient: Buffer
    first: int
    strip_rows: int


@dataclass(frozen=True)
class WorkUnit:
    """A group of calls of one phase, of which each thread does its share, and all that is decided about it.

    calls: the group's.
    bias, update: what is fused into a product.  done: ranges of a flat vector that products have updated already.
    by_library: whether a product is a library's.  by_columns: whether threads cut it by columns and not by rows.
    transposes: whether it copies its right operand, transposed, into working memory.
    share: what the threads share out.  waits: whether they wait for each other before it.
    """

    group: Group
    phase: str
    calls: tuple[Call, ...]
    bias: Operand | None = None
    update: Update | None = None
    done: tuple[tuple[int, int], ...] = ()
    by_library: bool = False
    by_columns: bool = False
    transposes: bool = False
    share: Share = Share("first thread")
    waits: bool = False

    @property
    def index(self) -> int:
        """The number of its first call."""
        return self.group.steps[0].index

    @property
    def call(self) -> Call:
        """Its first call; the only one of a product."""
        return self.calls[0]

    def describe(self, program: Program) -> str:
        """Return a line of text: owner, kind, calls and what is fused."""
        parts = [f"{self.share.owner:<16}{self.group.kind}: {'; '.join(call.text for call in self.calls)}"]
        if self.bias is not None:
            parts.append(f"with bias {self.bias.buffer.name}")
        if self.update is not None:
            texts = "; ".join(program.calls[step.index].text for step in self.update.group.steps)
            rows, first, size = self.update.strip_rows, self.update.first, self.call.out.buffer.size
            parts.append(f"updates elements {first} to {first + size - 1} by {rows} rows at a time: {texts}")
        if self.done:
            parts.append("but elements " + ", ".join(f"{start} to {end - 1}" for start, end in self.done))
        if self.by_library:
            parts.append("by the library")
        if self.transposes:
            parts.append("right operand transposed in working memory")
        return " | ".join(parts)


def work_unit(program: Program, group: Group, phase: str) -> WorkUnit:
    """Return the unit of a group."""
    return WorkUnit(group, phase, tuple(program.calls[step.index] for step in group.steps))
