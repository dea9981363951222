"""What is to be said of the rows of a table that come in parts: once, for all of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from xpnet.tables.columns import UNKNOWN
from xpnet.tables.decisions import Decision
from xpnet.tables.frames import with_stripped_names
from xpnet.tables.model import TableModel, warn_of_far
from xpnet.tables.notes import GAPS, INFINITE, ODD, together
from xpnet.tables.preprocessing import warn_of


class Remarks:
    """Encodes parts of a table for a model, and keeps what `TableModel.encode` would warn of until all are there."""

    def __init__(self, model: TableModel) -> None:
        self._model, self._noted = model, list[Decision]()
        self._far: dict[str, tuple[float, str]] = {}

    def encode(self, frame: Any) -> np.ndarray:
        """Return X (n_features, n) of a part's rows."""
        frame = with_stripped_names(frame)
        X, noted = self._model.preprocessing.encode(frame, self._model.network.backend.dtype)
        self._noted = together([*self._noted, *noted])
        for name, found in self._model.far_in(X, frame).items():
            if name not in self._far or found[0] > self._far[name][0]:
                self._far[name] = found
        return X

    def warn(self) -> None:
        """Warn of all parts, in the order of the columns and of what is found in one."""
        places = {column.name: place for place, column in enumerate(self._model.preprocessing.columns)}
        kinds = (ODD, INFINITE, UNKNOWN, GAPS)

        def place_of(note: Decision) -> tuple[int, int]:
            kind = next((i for i, kind in enumerate(kinds) if note.found.startswith(kind)), len(kinds))
            return places.get(note.column, len(places)), kind

        warn_of(sorted(self._noted, key=place_of))
        warn_of_far({name: self._far[name] for name in places if name in self._far}, stacklevel=3)
