"""The samples of a data set, before some are held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from xpnet.data.dataset import Dataset
from xpnet.tables.decisions import Decision
from xpnet.tables.preprocessing import Preprocessing
from xpnet.tables.splitting import Split


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


def _indices(mask: np.ndarray) -> np.ndarray | slice:
    """Return the places where a mask is true, as a slice where they follow each other."""
    places = np.flatnonzero(mask)
    if len(places) and places[-1] - places[0] + 1 == len(places):
        return slice(int(places[0]), int(places[-1]) + 1)
    return places
