"""Bind a Program's calls to the fastest NumPy functions, as Python callables that allocate nothing.

In small networks NumPy's overhead takes most of a step. A sum is a product with ones, faster than a reduction; a
`greater` writes bools, since floats would be cast through allocated buffers; a `maximum` with a number is faster if the
number fills an array.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np

from xpnet.program.calls import Call, Operand, Program

_LONG_SUM = 4096  # elements of a vector beyond which NumPy's sum costs no more than a product
_LARGE = 1 << 16  # elements of a result beyond which a bound fills one row: NumPy broadcasts it at little cost

Bound = Callable[[], Any]


def working_sizes(program: Program) -> tuple[int, int]:
    """Return the memory needed besides the Program's buffers: bytes of bools, elements of constants."""
    masks = [call.out.buffer.size for call in program.calls if call.word == "greater"]
    filled: dict[float, int] = {}
    for call in program.calls:
        for number in _bounds(call):
            filled[number] = max(filled.get(number, 0), _filled_size(call))
    return max(masks, default=0), sum(filled.values())


class NumpyCalls:
    """Binds the calls of a Program, at any batch size up to its capacity, to arrays.

    array: returns the array of an operand, always the same object.
    """

    def __init__(self, program: Program, array: Callable[[Operand], np.ndarray]) -> None:
        self._array, self._program = array, program
        self._mask = np.empty(working_sizes(program)[0], np.bool_)
        self._filled: dict[float, np.ndarray] = {}

    def bind(self, calls: Sequence[Call], others: Sequence[Call] = ()) -> list[Bound]:
        """Return functions that together execute these calls, some of them fused.

        others: calls of other phases, which may read the results of these.
        """
        bound: list[Bound] = []
        i = 0
        while i < len(calls):
            call = calls[i]
            i += 1
            if call.word == "multiply" and call.inputs == (call.out, 1.0):
                continue  # the mean over a batch of one
            if call.word != "sum":
                bound += self._one(call)
                continue
            factor = _factor(call, calls[i:])
            if factor is not None:
                i += 1
            if i < len(calls) and _sums_up(call, calls[i], (*calls[i + 1 :], *others, *calls[:i])):
                bound += self._whole_sum(call, factor or 1.0, calls[i])
                i += 1
            else:
                bound += self._sum(call, factor or 1.0)
        return bound

    def _one(self, call: Call) -> list[Bound]:
        out, arrays = self._array(call.out), [self._array(operand) for operand in call.operands]
        if call.word == "matmul":
            return [partial(arrays[0].dot, arrays[1], out)]
        if call.word == "max":
            return [partial(np.maximum.reduce, arrays[0], call.axis, None, out, True)]
        word, inputs = getattr(np, call.word), [self._input(call, item, arrays[0].dtype) for item in call.inputs]
        if call.word in ("maximum", "minimum"):  # a positional `out` is deprecated for these two
            return [partial(word, *inputs, out=out)]
        if call.word == "greater":
            mask = self._mask[: out.size].reshape(out.shape)
            return [partial(word, *inputs, mask), partial(np.copyto, out, mask)]
        return [partial(word, *inputs, out)]

    def _input(self, call: Call, item: Operand | float, dtype: np.dtype[Any]) -> np.ndarray:
        """Return an array, or a number in NumPy's fastest form: 0-d of the right type, or filling an array."""
        if isinstance(item, Operand):
            return self._array(item)
        if not _bounds(call):
            return np.array(item, dtype)
        number = float(item)
        shape = call.out.shape if call.out.buffer.size <= _LARGE else call.out.shape[-1:]
        if number not in self._filled or self._filled[number].size < math.prod(shape):
            sizes = [_filled_size(other) for other in (call, *self._program.calls) if number in _bounds(other)]
            self._filled[number] = np.full(max(sizes), item, dtype)
        return self._filled[number][: math.prod(shape)].reshape(shape)

    def _sum(self, call: Call, factor: float) -> list[Bound]:
        """Return the functions for factor times a sum over one axis."""
        array, out = self._array(call.operands[0]), self._array(call.out)
        if array.ndim == 1 or (call.axis == 0 and array.shape[1] == 1):
            return _vector_sum(array.reshape(-1), factor, out)
        if call.axis == 1:
            return [partial(np.dot, array, np.full((array.shape[1], 1), factor, array.dtype), out)]
        if len(array) <= _LONG_SUM:
            return [partial(np.dot, np.full((1, len(array)), factor, array.dtype), array, out)]
        # A product adds one row after another: with many rows, sums of blocks lose fewer digits.
        parts = [array[start : start + _LONG_SUM] for start in range(0, len(array), _LONG_SUM)]
        sums, ones = np.empty((len(parts), array.shape[1]), array.dtype), np.ones((1, _LONG_SUM), array.dtype)
        bound: list[Bound] = [
            partial(np.dot, ones[:, : len(part)], part, sums[i : i + 1]) for i, part in enumerate(parts)
        ]
        return [*bound, partial(np.dot, np.full((1, len(parts)), factor, array.dtype), sums, out)]

    def _whole_sum(self, first: Call, factor: float, second: Call) -> list[Bound]:
        """Return the functions for factor times the sum over both axes, written into the second sum's place."""
        return _vector_sum(self._array(first.operands[0]).reshape(-1), factor, self._array(second.out))


def _vector_sum(vector: np.ndarray, factor: float, out: np.ndarray) -> list[Bound]:
    """Return the functions for factor times the sum of a vector; in long ones NumPy's sum loses fewer digits."""
    if vector.size > _LONG_SUM:
        total: list[Bound] = [partial(np.add.reduce, vector, 0, None, out.reshape(1), True)]
        return total if factor == 1.0 else [*total, partial(np.multiply, out, np.array(factor, out.dtype), out)]
    numbers = np.full((vector.size, 1), factor, vector.dtype)
    return [partial(np.dot, vector.reshape(1, -1), numbers, out.reshape(1, 1))]


def _bounds(call: Call) -> list[float]:
    """Return the number that a `maximum` or `minimum` compares an array with, if any."""
    if call.word not in ("maximum", "minimum") or call.out.buffer.form == "scalar":
        return []
    return [float(item) for item in call.inputs if not isinstance(item, Operand)]


def _filled_size(call: Call) -> int:
    """Return the elements of an array filled with a bound: those of the result, or of one row if it is large."""
    return max(min(call.out.buffer.size, _LARGE), call.out.shape[-1])


def _factor(call: Call, following: Sequence[Call]) -> float | None:
    """Return the power of two by which the next call multiplies this sum in place; exact in any order."""
    if not following or following[0].word != "multiply" or following[0].phase != call.phase:
        return None
    (item, number), out = following[0].inputs, following[0].out
    if isinstance(number, Operand) or not isinstance(item, Operand) or math.frexp(abs(number))[0] != 0.5:
        return None
    in_place = item.buffer.place == call.out.buffer.place == out.buffer.place
    return float(number) if in_place and call.operands[0].buffer.form == "matrix" else None


def _sums_up(first: Call, second: Call, after: Iterable[Call]) -> bool:
    """Return whether `second` sums the result of `first`, a vector that nothing else reads before it is overwritten.

    after: the calls that follow until `second` comes again in the next step; may include those fused into `first`.
    """
    if second.word != "sum" or second.phase != first.phase or first.operands[0].buffer.form != "matrix":
        return False
    if second.operands[0].buffer.place != first.out.buffer.place:
        return False
    for call in after:
        if call is first:  # it writes there
            return True
        if any(operand.buffer.overlaps(first.out.buffer) for operand in call.operands):
            return False
        if call.out.buffer.place == first.out.buffer.place:
            return True
    return True
