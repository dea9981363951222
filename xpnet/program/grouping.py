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

# A worker walks its row or column element by element. In longer ones than these, several workers share each sum and
# everything else takes a worker per element, or a few workers would do too much each.
LONG_LINE, LINE_SHARES = 256, 128  # elements of a row or column; workers that share its sum
LONG_VECTOR, VECTOR_SHARES = 1024, 1024  # of a vector that is summed to one number; its loop only reads


@dataclass(frozen=True)
class Step:
    """A call in its group, by its number in the Program.

    part: "whole"; a long sum is "partial", by many workers, then "final", over their results.
    shares: the number of workers that share each sum.
    """

    index: int
    part: str = "whole"
    shares: int = 1


@dataclass(frozen=True)
class Group:
    """Calls for the same workers.

    kind: what a worker owns: an "element", a "row" or a "column" of memory, the "single" numbers of the network, a
    "partial" sum; or "product", which a library computes.
    """

    kind: str
    steps: tuple[Step, ...]


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

    share: whether several workers share a long line, as on a GPU.
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
            lines.append(f"       {group.kind}: {'; '.join(said)}")
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

    def close(self) -> tuple[Group, list[Access]]:
        """Return the group with the choice that has the most workers, and its accesses."""
        kinds = ("element", "column", "row", "single", "partial", "product")
        workers = min(self.choices, key=lambda workers: kinds.index(workers[0]))
        return Group(workers[0], tuple(self.steps)), self.choices[workers]


def _groups(program: Program, phase: str, share: bool) -> Iterator[tuple[Group, list[Access]]]:
    """Cut the calls of a phase into groups, in order, each as long as possible."""
    current = _Open()
    for step, choices in _steps(program, phase, share):
        left = current.joined(choices)
        if not left:
            yield current.close()
            current = _Open()
            left = current.joined(choices)
        current.steps.append(step)
        current.choices = left
        if step.part == "partial" or ("product",) in left:
            yield current.close()
            current = _Open()
    if current.steps:
        yield current.close()


def _steps(program: Program, phase: str, share: bool) -> Iterator[tuple[Step, Choices]]:
    """Yield each call of a phase with its possible workers; a long sum is two steps."""
    for index, call in enumerate(program.calls):
        if call.phase != phase:
            continue
        if share and shares(call) > 1:
            source = _access(call.operands[0])
            sums = Access(Place(f"partial sums of {index}", 0, 1), owned="vector", writes=True)
            yield Step(index, "partial", shares(call)), {("partial", index): (source, sums)}
            (workers,) = _choices(call, share)
            out = _access(call.out, owned="vector", writes=True)
            yield Step(index, "final", shares(call)), {workers: (replace(sums, writes=False), out)}
        else:
            yield Step(index), _choices(call, share)


def shares(call: Call) -> int:
    """Return the number of workers that share each sum (or maximum) of a call; 1 unless it is long."""
    if call.word not in REDUCTIONS:
        return 1
    shape = call.operands[0].shape
    if len(shape) == 1:
        return VECTOR_SHARES if shape[0] > LONG_VECTOR else 1
    assert call.axis is not None
    return LINE_SHARES if shape[call.axis] > LONG_LINE else 1


def _choices(call: Call, share: bool) -> Choices:
    if call.word == "matmul":
        return {("product",): (*map(_access, call.operands), _access(call.out, writes=True))}
    source = leader(call)
    if source.buffer.form == "matrix":
        return _matrix_choices(call, source, share)
    out = _access(call.out, "vector", writes=True)
    if call.word in REDUCTIONS:
        return {("single",): (_access(source), out)}
    accesses = (*(_access(operand, "vector" if operand.shape else "") for operand in call.operands), out)
    if call.out.buffer.form == "scalar":
        return {("single",): accesses}
    if source.buffer.form == "flat":
        return {("element", "flat", source.buffer.size): accesses}
    lane = (source.buffer.flipped, source.buffer.size)  # a vector over samples, or over features
    return {("column", *lane): accesses, ("row", *lane): accesses}


def _matrix_choices(call: Call, source: Operand, share: bool) -> Choices:
    """Return the choices for a call on a matrix and vectors along it: its elements, rows or columns."""
    rows, columns = source.shape
    flipped, reduces = source.buffer.flipped, call.word in REDUCTIONS
    kinds: dict[Workers, tuple[int, str]] = {  # length of a worker's loop, and the vectors of which it owns an element
        ("element", rows, columns, flipped): (1, ""),
        ("column", not flipped, columns): (rows, "along rows"),
        ("row", flipped, rows): (columns, "along columns"),
    }
    choices: Choices = {}
    for workers, (length, owned_vectors) in kinds.items():
        if reduces and workers[0] != ("column" if call.axis == 0 else "row"):
            continue
        if share and not reduces and length > LONG_LINE:
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
    """Return the elements that long sums need behind the float arena."""
    return sum(partial_sums_of(call) for call in program.calls)


def partial_sums_of(call: Call) -> int:
    """Return the elements that the long sums of one call need there."""
    return shares(call) * call.out.buffer.size if shares(call) > 1 else 0


def workers(program: Program, group: Group) -> int:
    """Return the number of threads that a group needs at this Program's batch size."""
    return workers_of(program, group, group.steps[0])


def workers_of(program: Program, group: Group, step: Step) -> int:
    """Return the number of threads that one call of a group needs at this Program's batch size."""
    call = program.calls[step.index]
    if group.kind in ("single", "product"):
        return 1
    if step.part == "partial":
        return step.shares * call.out.buffer.size
    shape = leader(call).shape
    if group.kind == "element" or len(shape) == 1:
        return math.prod(shape)
    return shape[0 if group.kind == "row" else 1]
