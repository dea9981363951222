"""The rows of a table before some are held out, and the data that a training takes and is judged by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from xpnet.data.dataset import Dataset
from xpnet.datasets.images import ImageFormat
from xpnet.tables.decisions import Decision
from xpnet.tables.files import naming
from xpnet.tables.preprocessing import Preprocessing
from xpnet.tables.splitting import Split, values_of
from xpnet.tables.target import Target

LOSS_OF_TASK = {"regression": "squared_error", "binary": "sigmoid_cross_entropy", "multiclass": "softmax_cross_entropy"}

Fitted = Callable[[Any, Target, tuple[Decision, ...]], Preprocessing]


@dataclass(frozen=True)
class Data:
    """The data that a run trains on and is judged by; `source` finds them again and goes into config.json.

    table: the preprocessing of a table.  images: the format of images.
    labels_dtype: of a file of labels, whose type says whether they are classes.
    split: the rule by which samples are held out.  said: what was decided about the data without having been asked.
    """

    training: Dataset
    validation: Dataset | None
    test: Dataset | None
    source: dict[str, Any]
    split: Split
    table: Preprocessing | None = None
    labels_dtype: np.dtype[Any] | None = None
    images: ImageFormat | None = None
    said: Sequence[Decision] = ()

    @property
    def n_validation(self) -> int:
        """Number of samples held out."""
        return 0 if self.validation is None else self.validation.n_samples

    @property
    def default_loss(self) -> str:
        """The loss that suits the targets."""
        if self.table is not None:
            return LOSS_OF_TASK[self.table.target.task]
        has_classes = self.training.is_classification and self.training.n_outputs > 1
        return "softmax_cross_entropy" if has_classes else "squared_error"


@dataclass(frozen=True)
class TableSamples:
    """The rows of a table that have a target.

    name: of the file.  frame: the rows.  target: what is known of it from all rows.
    fitted: gives the preprocessing of training rows, of the target and the decisions, or that which a run kept.
    dtype: of the features.
    decisions: what was done with the table so far.
    """

    name: str
    frame: Any
    target: Target
    fitted: Fitted
    dtype: str
    decisions: tuple[Decision, ...] = ()

    is_table, is_large = True, False

    @property
    def n(self) -> int:
        """Number of rows."""
        return len(self.frame)

    @cached_property
    def labels(self) -> np.ndarray | None:
        """The class (n,) of each row, None for a regression."""
        if self.target.task == "regression":
            return None
        with naming(self.name):
            return self.target.labels(self.frame)

    @property
    def classes(self) -> Sequence[Any]:
        """The names of the classes, by number."""
        return self.target.classes

    def values(self, split: Split) -> np.ndarray | None:
        """Return the groups or times (n,) of a split's column, None for a split without one."""
        with naming(self.name):
            return values_of(split, self.frame)

    def cut(self, masks: Sequence[np.ndarray]) -> tuple[list[Dataset], Preprocessing | None, list[Decision]]:
        """Return the rows of each mask (n,) as a Dataset, and the preprocessing, fitted on those of the first.

        Also what is done with the rows of the other masks, since the first have nothing like it.
        """
        with naming(self.name):
            table, noted = self.fitted(self.frame[masks[0]], self.target, self.decisions), list[Decision]()
            training = table.dataset(self.frame[masks[0]], self.dtype, [])
            return [training, *(table.dataset(self.frame[mask], self.dtype, noted) for mask in masks[1:])], table, noted
