"""Join the calls of a Program into as few GPU kernels as possible, for all engines that generate code.

A GROUP is a run of calls that independent workers can execute, each on separate elements: a worker per element, per row
or per column of the matrices as they lie in memory. A product is always a separate group. A LAUNCH holds groups that do
not touch each other's results, so that one GPU kernel can execute them all. `launches` returns them in order;
`xpnet.engines.cuda.text` prints them as code.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from xpnet.program.calls import REDUCTIONS, Call, Operand, Place, Program
from xpnet.program.places import Access

# A worker walks its row, column or vector element by element. On a GPU several threads take turns along a line longer
# than LONG_LINE: TEAM, or SMALL_TEAM beside each other where there are many lines. A vector longer than LONG_VECTOR is
# summed in PARTS, by a team each, and these parts by one team in the next launch.
LONG_LINE, LONG_VECTOR, PARTS = 256, 8192, 1024
TEAM, SMALL_TEAM = 256, 32
FEW_COLUMNS, SHORT_ROW = 64, 2048  # so many columns, and rows so short, have a team of the other size


@dataclass(frozen=True)
class Step:
    """A call in its group, by its number in the Program.

    part: "whole"; the sum of a long vector is "partial", of PARTS, then "final", over their results.
    """

    index: int
    part: str = "whole"


@dataclass(frozen=True)
class Group:
    """Calls for the same workers.

    kind: what a worker owns: an "element", a "row" or a "column" of memory, the "single" numbers of the network, a
    "part" of long vectors; or "product", which a library computes.
    team: the threads of a worker, which take turns along its line.
    """

    kind: str
    steps: tuple[Step, ...]
    team: int = 1


@dataclass(frozen=True)
class Launch:
    """Groups of one phase that one GPU kernel can execute in any order, or one product."""

    phase: str
    groups: tuple[Group, ...]

    @property
    def is_product(self) -> bool:
        """Whether it is a matrix product."""
        return self.groups[0].kind == "product"


Workers = tuple[Any, ...]  # a kind of group and what identifies its workers: groups of equal workers may join
Choices = dict[Workers, tuple[Access, ...]]


def launches(program: Program, phase: str | None = None, *, share: bool = True) -> tuple[Launch, ...]:
    """Return the launches of a step after its gather, or those of one phase, in order.

    share: whether several threads share a long line, as on a GPU.
    The numbers of their calls hold for every batch size of the Program.
    """
    phases = program.phases if phase is None else (phase,)
    return tuple(launch for name in phases for launch in _launches(program, name, share))


def describe(program: Program) -> str:
    """Return the launches of a step as text: a line per launch, then a line per group with its calls."""
    found = launches(program)
    lines = [f"batch {program.batch}, {len(program.calls)} calls in {len(found)} launches and the gather"]
    for number, launch in enumerate(found, 1):
        lines.append(f"{number:>3}  {launch.phase}")
        for group in launch.groups:
            said = [program.calls[step.index].text + f" ({step.part})" * (step.part != "whole") for step in group.steps]
            by = f", {group.team} threads each" * (group.team > 1)
            lines.append(f"       {group.kind}{by}: {'; '.join(said)}")
    return "\n".join(lines)


def _launches(program: Program, phase: str, share: bool) -> Iterator[Launch]:
    """Put each group into the earliest launch that, like all later ones, it does not depend on."""
    made: list[tuple[list[Group], list[Access]]] = []
    for group, accesses in _groups(program, phase, share):
        place = len(made)
        if group.kind != "product":
            for i in range(len(made) - 1, -1, -1):
                if _depends(accesses, made[i][1]):
                    break
                if made[i][0][0].kind != "product":
                    place = i
        if place == len(made):
            made.append(([], []))
        made[place][0].append(group)
        made[place][1].extend(accesses)
    return (Launch(phase, tuple(groups)) for groups, _ in made)


def _depends(ones: Sequence[Access], others: Sequence[Access]) -> bool:
    return any(one.depends(other) for one in ones for other in others)


@dataclass
class _Open:
    """The group being filled: the possible choices of its workers, and what they access under each."""

    steps: list[Step] = field(default_factory=list)
    choices: dict[Workers, list[Access]] = field(default_factory=dict)

    def joined(self, choices: Choices) -> dict[Workers, list[Access]]:
        """Return the choices that remain with one more call; none if it cannot join."""
        if not self.steps:
            return {workers: list(accesses) for workers, accesses in choices.items()}
        return {
            workers: [*self.choices[workers], *accesses]
            for workers, accesses in choices.items()
            if workers in self.choices
            and not any(one.clashes(other) for one in accesses for other in self.choices[workers])
        }

    def close(self, program: Program, share: bool) -> tuple[Group, list[Access]]:
        """Return the group with the choice that has the most workers, and its accesses."""
        kinds = ("element", "part", "column", "row", "single", "product")
        workers = min(self.choices, key=lambda workers: kinds.index(workers[0]))
        team = max(_team(program, workers[0], step) for step in self.steps) if share else 1
        return Group(workers[0], tuple(self.steps), team), self.choices[workers]


def _groups(program: Program, phase: str, share: bool) -> Iterator[tuple[Group, list[Access]]]:
    """Cut the calls of a phase into groups, in order, each as long as possible."""
    current = _Open()
    for step, choices in _steps(program, phase, share):
        left = current.joined(choices)
        if not left:
            yield current.close(program, share)
            current = _Open()
            left = current.joined(choices)
        current.steps.append(step)
        current.choices = left
        if step.part == "partial" or ("product",) in left:
            yield current.close(program, share)
            current = _Open()
    if current.steps:
        yield current.close(program, share)


def _steps(program: Program, phase: str, share: bool) -> Iterator[tuple[Step, Choices]]:
    """Yield each call of a phase with its possible workers; the sum of a long vector is two steps."""
    for index, call in enumerate(program.calls):
        if call.phase == phase:
            yield from _steps_of(index, call, share).items()


def _steps_of(index: int, call: Call, share: bool) -> dict[Step, Choices]:
    if not share or not partial_sums_of(call):
        return {Step(index): _choices(call, share)}
    source, sums = call.operands[0], Place(f"partial sums of {index}", 0, 1)
    made = _access(source, "vector"), Access(sums, owned="vector", writes=True)
    return {
        Step(index, "partial"): {("part", source.buffer.size): made},
        Step(index, "final"): {("single",): (Access(sums), _access(call.out, "vector", writes=True))},
    }


def accesses(program: Program, group: Group) -> list[Access]:
    """Return the accesses of a group on a GPU; what is owned tells the workers too, equal ones own the same."""
    found = []
    for step in group.steps:
        choices = _steps_of(step.index, program.calls[step.index], share=True)[step]
        workers = next(workers for workers in choices if workers[0] == group.kind)
        found += [replace(each, owned=each.owned and f"{workers} {each.owned}") for each in choices[workers]]
    return found


def _team(program: Program, kind: str, step: Step) -> int:
    """Return how many threads share the line of a worker that one call of a group takes."""
    call = program.calls[step.index]
    shape = leader(call).shape
    if kind in ("element", "product"):
        return 1
    if kind in ("single", "part"):
        is_long = kind == "part" or step.part == "final" or (call.word in REDUCTIONS and shape[0] > LONG_LINE)
        return TEAM if is_long else 1
    if len(shape) == 1 or shape[0 if kind == "column" else 1] <= LONG_LINE:
        return 1
    return TEAM if (shape[1] <= FEW_COLUMNS if kind == "column" else shape[1] > SHORT_ROW) else SMALL_TEAM


def _choices(call: Call, share: bool) -> Choices:
    if call.word == "matmul":
        return {("product",): (*map(_access, call.operands), _access(call.out, writes=True))}
    source = leader(call)
    if source.buffer.form == "matrix":
        return _matrix_choices(call, source)
    out = _access(call.out, "vector", writes=True)
    if call.word in REDUCTIONS:
        return {("single",): (_access(source), out)}
    accesses = (*(_access(operand, "vector" if operand.shape else "") for operand in call.operands), out)
    if call.out.buffer.form == "scalar":
        return {("single",): accesses}
    if source.buffer.form == "flat":
        is_long = share and source.buffer.size > LONG_VECTOR
        choices: Choices = {("element", "flat", source.buffer.size): accesses}
        return choices | ({("part", source.buffer.size): accesses} if is_long else {})
    lane = (source.buffer.flipped, source.buffer.size)  # a vector over samples, or over features
    return {("column", *lane): accesses, ("row", *lane): accesses}


def _matrix_choices(call: Call, source: Operand) -> Choices:
    """Return the choices for a call on a matrix and vectors along it: its elements, rows or columns."""
    rows, columns = source.shape
    flipped, reduces = source.buffer.flipped, call.word in REDUCTIONS
    kinds: dict[Workers, str] = {  # and the vectors of which a worker owns an element
        ("element", rows, columns, flipped): "",
        ("column", not flipped, columns): "along rows",
        ("row", flipped, rows): "along columns",
    }
    choices: Choices = {}
    for workers, owned_vectors in kinds.items():
        if reduces and workers[0] != ("column" if call.axis == 0 else "row"):
            continue
        accesses = []
        for operand in (*call.operands, call.out):
            lies = direction(call, operand)
            owned = "matrix" if lies == "matrix" else "vector" if lies == owned_vectors else ""
            accesses.append(_access(operand, owned, operand is call.out))
        choices[workers] = tuple(accesses)
    return choices


def leader(call: Call) -> Operand:
    """Return the operand whose shape determines the possible workers of a call."""
    return call.operands[0] if call.word in REDUCTIONS else call.out


def direction(call: Call, operand: Operand) -> str:
    """Return how an operand lies beside the matrix of a call: "matrix", "along rows", "along columns" or "number".

    "along rows": a vector with a number per column, like a row. It follows from what the call and the buffer declare:
    with a batch of one, or one feature, shapes are ambiguous.
    """
    matrix, buffer = leader(call), operand.buffer
    if call.word in REDUCTIONS and operand is call.out:
        return "along rows" if call.axis == 0 else "along columns"
    if buffer.form == "matrix":
        return "matrix"
    if not operand.shape:
        return "number"
    lies, axis = ("along columns", 0) if buffer.flipped == matrix.buffer.flipped else ("along rows", 1)
    return lies if operand.shape[axis] == matrix.shape[axis] else "number"  # a vector of one element broadcasts


def _access(operand: Operand, owned: str = "", writes: bool = False) -> Access:
    return Access(operand.buffer.place, owned, writes)


def partial_sums(program: Program) -> int:
    """Return the elements that the sums of long vectors need behind the float arena."""
    return sum(partial_sums_of(call) for call in program.calls)


def partial_sums_of(call: Call) -> int:
    """Return the elements that the sum of one call needs there: 0 unless it is that of a long vector."""
    shape = call.operands[0].shape if call.word in REDUCTIONS else ()
    return PARTS if len(shape) == 1 and shape[0] > LONG_VECTOR else 0


def workers(program: Program, group: Group) -> int:
    """Return the number of workers that a group needs at this Program's batch size."""
    return workers_of(program, group, group.steps[0])


def threads(program: Program, group: Group) -> int:
    """Return the number of their threads."""
    return workers(program, group) * group.team


def workers_of(program: Program, group: Group, step: Step) -> int:
    """Return the number of workers that one call of a group needs at this Program's batch size."""
    if group.kind in ("single", "product"):
        return 1
    if group.kind == "part":
        return PARTS
    shape = leader(program.calls[step.index]).shape
    if group.kind == "element" or len(shape) == 1:
        return math.prod(shape)
    return shape[0 if group.kind == "row" else 1]
