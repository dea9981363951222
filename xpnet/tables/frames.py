"""Frames of pandas and polars as rows of a table."""

from __future__ import annotations

from typing import Any


def as_pandas(frame: Any) -> Any:
    """Return a frame of pandas or polars as one of pandas; raises TypeError for anything else."""
    import pandas

    if isinstance(frame, pandas.DataFrame):
        return frame
    if not is_polars(frame) or not hasattr(frame, "to_pandas") or not hasattr(frame, "columns"):
        lazy = is_polars(frame) and hasattr(frame, "collect")
        raise TypeError(
            f"the rows are a {type(frame).__name__}; they must be a DataFrame of pandas or polars: "
            f"{'rows.collect()' if lazy else 'pandas.DataFrame(rows)'}"
        )
    return frame.to_pandas()


def is_polars(frame: Any) -> bool:
    """Whether something is an object of polars."""
    return type(frame).__module__.split(".")[0] == "polars"


def with_stripped_names(frame: Any) -> Any:
    """Return a frame whose names of columns have no blanks at their ends, as files are read."""
    return frame.rename(columns=lambda name: name.strip() if isinstance(name, str) else name)
