"""Describe the work of one worker of a group as a small tree: segments, with or without a loop, of statements on items.

The tree says which calls share a loop, how each operand lies beside the worker, and what is read again. `cuda.text`
prints it for one thread per worker (`engines.c_text`), `llvm.loops` inside loops over the workers.
"""

from __future__ import annotations

from dataclasses import dataclass

from xpnet.program.calls import REDUCTIONS, Call, Operand, Place, Program
from xpnet.program.grouping import PARTS, Group, Step, direction, leader
from xpnet.program.places import is_read_after, place_of
from xpnet.program.sizes import Sizes

# The vector beside a matrix that changes with each turn of a worker's loop, and the one that does not.
_ALONG = {"row": ("along rows", "along columns"), "column": ("along columns", "along rows")}


@dataclass(frozen=True)
class Item:
    """An operand as a worker reaches it.

    place: its range of memory; for the parts of a long sum a memory called "sums", at the number of their call.
    role: selects its element: by worker and turn in a "matrix", by column "along rows", by row "along columns", by
        "worker", by "turn", or the only one of a "number".
    varies: whether it changes from turn to turn of the loop.  key: equal for items that are the same element.
    """

    operand: Operand
    place: Place
    role: str
    varies: bool
    key: tuple[str, int, str]


@dataclass(frozen=True, eq=False)
class Statement:
    """A call on one element.

    inputs: None stands for a number.  accumulates: whether it sums, or takes the maximum, over a loop.
    """

    step: Step
    call: Call
    inputs: tuple[Item | None, ...]
    out: Item
    accumulates: bool

    @property
    def items(self) -> list[Item]:
        """The inputs that lie in memory."""
        return [item for item in self.inputs if item is not None]


@dataclass(frozen=True)
class Segment:
    """Statements in one loop, or without one.

    extent: turns of the loop: a number, or "m" for the batch length; None for no loop.
    """

    extent: str | None
    statements: tuple[Statement, ...]

    @property
    def totals(self) -> list[Statement]:
        """The statements that accumulate."""
        return [statement for statement in self.statements if statement.accumulates]

    @property
    def fixed(self) -> list[Item]:
        """The items that do not change from turn to turn and can be loaded before the loop."""
        return [item for statement in self.statements for item in statement.items if not item.varies]


@dataclass(frozen=True)
class LoopNest:
    """The work of one worker of a group, segment by segment.

    n_columns: elements from one row of the matrices to the next, as `Segment.extent`; "1" if there are only vectors.
    team: the threads of the worker, which take turns in each loop.
    """

    program: Program
    kind: str
    segments: tuple[Segment, ...]
    n_columns: str
    team: int

    @property
    def statements(self) -> tuple[Statement, ...]:
        """All statements in order."""
        return tuple(statement for segment in self.segments for statement in segment.statements)

    def is_read_after(self, item: Item, statements: tuple[Statement, ...]) -> bool:
        """Return whether an item is read after these statements, before it is overwritten."""
        return is_read_after(self.program, item.operand.buffer, statements[-1].step.index)


def loop_nest(program: Program, sizes: Sizes, group: Group) -> LoopNest:
    """Return the tree of a group."""
    statements = [_statement(program, group.kind, step) for step in group.steps]
    matrices = [statement for statement in statements if len(leader(statement.call).shape) == 2]
    columns = columns_of(sizes, matrices[0]) if matrices and group.kind != "product" else "1"
    return LoopNest(program, group.kind, _segments(sizes, group.kind, statements), columns, group.team)


def columns_of(sizes: Sizes, statement: Statement) -> str:
    """Return the elements from one row of a statement's matrix to the next."""
    return sizes.extent(statement.step.index, leading(statement.call), 1)


def leading(call: Call) -> int:
    """Return the position of the call's `leader` among its inputs; -1 for the result."""
    return 0 if call.word in REDUCTIONS else -1


def _segments(sizes: Sizes, kind: str, statements: list[Statement]) -> tuple[Segment, ...]:
    """Cut the statements into loops and what stands between them.

    Neighbours of one loop length share a loop, unless one needs a sum that the loop makes.
    """
    segments: list[tuple[str | None, list[Statement]]] = []
    reduced: list[Place] = []
    for statement in statements:
        extent = _extent(sizes, kind, statement)
        joins = segments and segments[-1][0] == extent
        joins = joins and not any(item.place in reduced for item in (*statement.items, statement.out))
        if joins and not (extent is not None and kind in ("single", "product")):
            segments[-1][1].append(statement)
        else:
            segments.append((extent, [statement]))
            reduced = []
        if statement.call.word in REDUCTIONS:
            reduced.append(statement.out.place)
    return tuple(Segment(extent, tuple(inside)) for extent, inside in segments)


def _extent(sizes: Sizes, kind: str, statement: Statement) -> str | None:
    """Return the length of the worker's loop over a call; None for no loop."""
    step, call = statement.step, statement.call
    if kind == "product":
        return sizes.extent(step.index, 0, 0 if call.operands[0].transposed else 1)
    if call.word in REDUCTIONS:
        assert call.axis is not None
        return str(PARTS) if step.part == "final" else sizes.extent(step.index, 0, call.axis)
    if kind == "part":
        return sizes.extent(step.index, -1, 0)
    if kind in ("single", "element") or len(leader(call).shape) == 1:
        return None
    return sizes.extent(step.index, -1, 1 if kind == "row" else 0)


def _statement(program: Program, kind: str, step: Step) -> Statement:
    call = program.calls[step.index]
    inputs = tuple(
        _item(program, kind, step, operand, is_result=False) if isinstance(operand, Operand) else None
        for operand in call.inputs
    )
    out = _item(program, kind, step, call.out, is_result=True)
    return Statement(step, call, inputs, out, call.word in REDUCTIONS or call.word == "matmul")


def _item(program: Program, kind: str, step: Step, operand: Operand, *, is_result: bool) -> Item:
    call, place = program.calls[step.index], place_of(program, operand.buffer)
    if (step.part, is_result) in (("partial", True), ("final", False)):
        place = Place("sums", step.index, 1)
    role = _role(kind, step, call, operand, is_result)
    turning, own = _ALONG.get(kind, ("", ""))
    varies = role in ("turn", turning) or (role == "matrix" and kind != "element")
    return Item(operand, place, role, varies, (place.memory, place.start, "worker" if role == own else role))


def _role(kind: str, step: Step, call: Call, operand: Operand, is_result: bool) -> str:
    if kind in ("single", "product"):
        return "turn" if call.word in (*REDUCTIONS, "matmul") and not is_result else "number"
    if step.part == "partial" and is_result:
        return "worker"
    if len(leader(call).shape) == 1:
        return "number" if not operand.shape else "turn" if kind == "part" else "worker"
    return direction(call, operand)
