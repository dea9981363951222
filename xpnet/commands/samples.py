"""The samples that options name, before some are held out: those of a data set, or the rows of a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from xpnet.commands.tables import naming
from xpnet.data.dataset import Dataset
from xpnet.tables.decisions import Decision
from xpnet.tables.preprocessing import Preprocessing
from xpnet.tables.splitting import Split, values_of
from xpnet.tables.target import Target

Fitted = Callable[[Any, Target, tuple[Decision, ...]], Preprocessing]


@dataclass(frozen=True)
class Samples:
    """The samples of a data set.

    name: of the data.  dataset: all of them.  is_large: whether they are left in their file, to be read in blocks.
    names: of the classes, None if these are numbers.
    """

    name: str
    dataset: Dataset
    is_large: bool = False
    names: Sequence[str] | None = None

    is_table = False

    @property
    def n(self) -> int:
        """Number of samples."""
        return self.dataset.n_samples

    @cached_property
    def labels(self) -> np.ndarray | None:
        """The class (n,) of each sample, None where the targets are no classes."""
        return self.dataset.labels if self.dataset.is_classification else None

    @property
    def classes(self) -> Sequence[Any]:
        """The names of the classes, by number."""
        return range(max(2, self.dataset.n_outputs)) if self.names is None else self.names

    def values(self, split: Split) -> np.ndarray | None:
        """Return the values of a split's column; there are no columns."""
        return None

    def cut(self, masks: Sequence[np.ndarray]) -> tuple[list[Dataset], Preprocessing | None, list[Decision]]:
        """Return the samples of each mask (n,) as a Dataset; those of a range stay where they are."""
        return [self.dataset if mask.all() else self.dataset.subset(_indices(mask)) for mask in masks], None, []


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


def _indices(mask: np.ndarray) -> np.ndarray | slice:
    """Return the places where a mask is true, as a slice where they follow each other."""
    places = np.flatnonzero(mask)
    if len(places) and places[-1] - places[0] + 1 == len(places):
        return slice(int(places[0]), int(places[-1]) + 1)
    return places
