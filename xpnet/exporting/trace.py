"""The recorded Program of predictions as values: every call makes a new one, and none is overwritten.

Arrays lie as in memory: a batch matrix is (n_samples, n), what holds a number per sample (n_samples, 1), a number per
feature (1, n). Texts and graphs are printed from this.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from xpnet.exporting.subject import Subject
from xpnet.network.architecture import Architecture
from xpnet.network.programs import inference_program
from xpnet.program.calls import REDUCTIONS, Buffer, Call, Operand, Place, Program

_BATCHES = (3, 2)  # two sizes in which no other extent is 1


@dataclass(frozen=True)
class Line:
    """A recorded call.

    out: the name of its value.  inputs: names of values and arrays, and numbers.  turned: which inputs are transposed.
    axis: of a reduction, which stays with length 1.
    """

    call: Call
    out: str
    inputs: tuple[str | float, ...]
    turned: tuple[bool, ...]
    axis: int | None


@dataclass(frozen=True)
class Trace:
    """The lines of a prediction, the arrays that they read, and the names of what comes out.

    n_forward: lines up to `output`, the last layer's output.  prediction: what its link makes of it.
    """

    lines: tuple[Line, ...]
    arrays: dict[str, np.ndarray]
    n_forward: int
    output: str
    prediction: str


def trace_of(subject: Subject) -> Trace:
    """Return the lines that predict rows "X"; raises ValueError for functions whose calls depend on the batch."""
    architecture = subject.network.architecture
    program, n_forward = predicting(architecture, _BATCHES[0]), n_forward_calls(architecture)
    layout, arrays = architecture.layout, subject.arrays
    found = {Place("float", place.offset, _size(place.shape)): place.path for place in layout.places}
    found |= {Place("float", layout.size + p.offset, _size(p.shape)): p.path for p in layout.statistics}
    values = dict(found)
    values[program.gathers[0][1].place] = output = "X"
    lines, used = list[Line](), dict[str, int]()
    for call in program.calls:
        lines.append(_line(call, values, used))
        values[call.out.buffer.place] = lines[-1].out
        if len(lines) == n_forward:
            output = lines[-1].out
    read = {name for line in lines for name in line.inputs if name in arrays}
    shaped = {name: array if name.endswith(".W") else array.reshape(1, -1) for name, array in arrays.items()}
    prediction = values[program.buffers["output0"].place]
    return Trace(tuple(lines), {name: shaped[name] for name in shaped if name in read}, n_forward, output, prediction)


def predicting(architecture: Architecture, batch: int) -> Program:
    """Return the Program of predictions, after a check that its calls are those of every batch."""
    program, other = (inference_program(architecture, size, "predict") for size in _BATCHES)
    for mine, its in zip(program.calls, other.calls, strict=False):
        numbers = [[each for each in call.inputs if not isinstance(each, Operand)] for call in (mine, its)]
        if mine.word != its.word or numbers[0] != numbers[1] or len(program.calls) != len(other.calls):
            raise ValueError(
                f"the function {mine.kernel} of your own records other calls for another number of samples; what is "
                "exported must be the same for every number; write it without X.shape[1]"
            )
    return inference_program(architecture, batch, "predict")


def n_forward_calls(architecture: Architecture) -> int:
    """Return how many calls of a prediction are those of the layers; the others are the link's."""
    return len(inference_program(architecture, _BATCHES[0], "forward").calls)


def _line(call: Call, values: dict[Place, str], used: dict[str, int]) -> Line:
    inputs = [values[each.buffer.place] if isinstance(each, Operand) else each for each in call.inputs]
    turned = [isinstance(each, Operand) and call.word == "matmul" and each.transposed for each in call.inputs]
    name = re.sub(r"\W", "_", call.out.buffer.name)
    used[name] = used.get(name, 0) + 1
    name += f".{used[name]}" if used[name] > 1 else ""
    axis = _axis(call) if call.word in REDUCTIONS else None
    return Line(call, name, tuple(inputs), tuple(turned), axis)


def _axis(call: Call) -> int:
    """Return the axis of a reduction in arrays that lie as in memory."""
    buffer: Buffer = call.operands[0].buffer
    if buffer.form == "matrix":
        assert call.axis is not None
        return call.axis
    return 0 if buffer.flipped else 1


def _size(shape: tuple[int, int]) -> int:
    return shape[0] * shape[1]
