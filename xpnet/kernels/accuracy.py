"""Count right answers without argmax and without leaving the device. Ties and NaN count as wrong."""

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

    A, Y (1, batch): output and target 0 or 1.  work, work2 (1, batch): scratch.
    row (1, batch): receives 0 or 1.  With s = 2 Y - 1, right means s A > s threshold.
    """
    xp.multiply(Y, 2.0, out=work)
    xp.subtract(work, 1.0, out=work)
    xp.multiply(A, work, out=work2)
    xp.multiply(work, threshold, out=work)
    xp.greater(work2, work, out=work)
    xp.sum(work, axis=0, keepdims=True, out=row)
