"""Count correct answers on the device, without argmax. NaN counts as wrong, and so does a tie of classes."""

from __future__ import annotations

from typing import Any

Array = Any


def right_class(xp: Any, A: Array, Y: Array, work: Array, row: Array) -> None:
    """row = 1 where the true class scores above every other class, else 0.

    A (n_classes, batch): scores, at least two classes.  Y (n_classes, batch): one-hot targets.
    work (n_classes, batch): scratch.  row (1, batch): receives 0 or 1.
    """
    xp.multiply(A, Y, out=work)
    xp.sum(work, axis=0, keepdims=True, out=row)
    xp.greater(row, A, out=work)  # the true class does not exceed itself: right means n_classes - 1 wins
    xp.sum(work, axis=0, keepdims=True, out=row)
    xp.greater(row, A.shape[0] - 1.5, out=row)


def right_side(xp: Any, A: Array, Y: Array, threshold: float, work: Array, work2: Array, row: Array) -> None:
    """row = 1 where a single output lies on its target's side of the threshold, else 0.

    A, Y (1, batch): output and target 0 or 1.  work, work2 (1, batch): scratch.  row (1, batch): receives 0 or 1.
    An output above the threshold is class 1, any other class 0; one that is not finite is wrong.
    """
    xp.greater(A, threshold, out=work)
    xp.subtract(work, Y, out=work)
    xp.abs(work, out=work)
    xp.multiply(A, 0.0, out=work2)  # NaN where A is not finite, and no NaN exceeds 1/2 or is exceeded by it
    xp.add(work, work2, out=work)
    xp.greater(0.5, work, out=work)
    xp.sum(work, axis=0, keepdims=True, out=row)
