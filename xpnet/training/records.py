"""What a training run reports: a record an epoch, their history, and the run at one moment."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

from xpnet.checks import shown
from xpnet.files import json_text, parse_json, read_whole, write_atomically
from xpnet.rows import as_html
from xpnet.training.metrics import METRICS

__all__ = ["History"]

Record = dict[str, Any]
# The keys of a record: these, and measures, whose names begin with the part of the data that they are measured on.
FACTS = (
    *("epoch", "steps", "seconds", "bytes_uploaded", "engine", "threads", "precision", "device"),
    *("stopped", "chosen_epoch"),
)
TRAINING, VALIDATION = "train_", "val_"
TRAIN_LOSS, VAL_LOSS, VAL_ACCURACY = "train_loss", "val_loss", "val_accuracy"


SHOWN_ENDS = 20  # records at each end of a history that a notebook shows


def _cell(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)


class History(list[Record]):
    """The records of a run, one dict an epoch; the first is the untrained network's."""

    def __init__(self, records: Iterable[Record] = ()) -> None:
        super().__init__(records)
        wrong = next((record for record in self if not isinstance(record, Mapping)), None)
        if wrong is not None:
            raise TypeError(
                f"a record is {shown(wrong)}; it must be a dict of fields, as train returns; give a list of such dicts"
            )

    def column(self, name: str) -> list[Any]:
        """Return the values of one field, epoch by epoch; raises KeyError for an unknown field."""
        return [record[name] for record in self]

    def to_frame(self) -> Any:
        """Return the records as a DataFrame of pandas, a row an epoch; a field that a record lacks is NaN."""
        try:
            import pandas
        except ImportError as error:
            raise ImportError(
                f"to_frame makes a DataFrame, which needs pandas, and it is missing ({error}); "
                "pip install 'xpnet[data]', or take history.column(name)"
            ) from error
        return pandas.DataFrame.from_records(list(self), columns=self._fields or None)

    @property
    def _fields(self) -> list[str]:
        return list(dict.fromkeys(name for record in self for name in record))

    def _repr_html_(self) -> str:
        shown = list(self)
        if len(self) > 2 * SHOWN_ENDS:
            shown = [*self[:SHOWN_ENDS], {}, *self[-SHOWN_ENDS:]]
        rows = [[_cell(record[name]) if name in record else "" for name in self._fields] for record in shown]
        return as_html(f"{len(self)} records", self._fields, rows)


@dataclass
class Progress:
    """The progress of an epoch: steps and samples of its order done, the sums of its loss, seconds spent.

    order: state of the generator before the epoch's order was drawn, None without shuffling.
    """

    epoch: int
    order: Any
    step: int = 0
    samples: int = 0
    loss: float = 0.0
    weight: float = 0.0
    last_finite: float | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class Moment:
    """A run between two steps, on the host.

    fit: what a run that resumes from here must have in common with it, by name.
    steps_done, last_good_steps: updates of the optimizer, now and at the beginning of the epoch.  lr: None if it
    follows a schedule.  callbacks: name and state of those that have one.
    tensors: owned, state and keys, now and (last_good.) at the beginning of the epoch; arrays of callbacks.
    path: the file that it was read from.
    """

    fit: dict[str, Any]
    progress: Progress
    steps_done: int
    last_good_steps: int
    lr: float | None
    callbacks: list[tuple[str, dict[str, Any]]]
    history: list[Record]
    tensors: dict[str, np.ndarray] = field(repr=False)
    path: Path | None = None

    def is_over(self, n_epochs: int) -> bool:
        """Whether a run of `n_epochs` ends here."""
        return is_last(self.history[-1], n_epochs)

    def history_of(self, n_epochs: int) -> list[Record]:
        """Return the records so far; the last one has no chosen_epoch if a run of `n_epochs` continues after it."""
        history = [dict(record) for record in self.history]
        if not self.is_over(n_epochs):
            history[-1].pop("chosen_epoch", None)
        return history


def is_last(record: Record, n_epochs: int) -> bool:
    """Whether a run of `n_epochs` ends with this record."""
    return "stopped" in record or record["epoch"] >= n_epochs


def json_line(record: Record) -> str:
    """Return the record as strict JSON, in which NaN and infinity become null."""
    return json_text(
        {
            name: None if isinstance(value, (float, np.floating)) and not math.isfinite(value) else value
            for name, value in record.items()
        }
    )


def mend_last_line(path: Path) -> None:
    """End the file with a newline: complete a whole last record, remove a torn one."""
    content = read_whole(path) if path.is_file() else b""
    start = content.rfind(b"\n") + 1
    if start == len(content):
        return
    try:
        parse_json(content[start:])
        write_atomically(path, content + b"\n")
    except ValueError:
        write_atomically(path, content[:start])


def read_history(path: str | os.PathLike[str]) -> History:
    """Read what `HistoryFile` wrote; a last line that was cut off by a crash is left out.

    Raises FileNotFoundError, or ValueError naming the line that is not a record.
    """
    lines = read_whole(path).split(b"\n")  # decoded one by one, so that a torn one is recognised
    history = History()
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            record = parse_json(line)
        except ValueError:
            if number == len(lines):  # no newline after it: the writer was stopped in the middle
                break
            raise ValueError(f"{path}: line {number} is not JSON; remove it, or train again") from None
        if not is_record(record):
            raise ValueError(f"{path}: line {number} is not a record; remove it, or train again")
        history.append(record)
    return history


def is_record(value: Any) -> bool:
    """Whether a value from a file is a record: an epoch, and numbers or null as losses, scores, steps and seconds."""
    if not isinstance(value, dict) or type(value.get("epoch")) is not int or value["epoch"] < 0:
        return False
    counted = [name for name in value if name in ("steps", "seconds") or name.startswith((TRAINING, VALIDATION))]
    return all(value[name] is None or type(value[name]) in (int, float) for name in counted)


def measures_of(records: Iterable[Record]) -> list[str]:
    """Return the names of the measures in any of the records."""
    numbers = ((name, value) for record in records for name, value in record.items() if name not in FACTS)
    return list(dict.fromkeys(name for name, value in numbers if value is None or isinstance(value, Real)))


def metric_of(measure: str) -> str:
    """Return the metric of a measure, without the part of the data: "f1" for "val_f1"."""
    return measure.removeprefix(TRAINING).removeprefix(VALIDATION)


def loss_to_watch(is_validated: bool) -> str:
    """Return the name of the loss to watch: the validation's, if there is one."""
    return VAL_LOSS if is_validated else TRAIN_LOSS


def measure_of(record: Record, monitor: str) -> float:
    """Return the value of a record's measure; raises ValueError that names the known ones."""
    value = record.get(monitor)
    if monitor in FACTS or not isinstance(value, Real):
        measures = measures_of([record])
        is_validated = any(name.startswith(VALIDATION) for name in measures)
        cure = "add it to metrics" if is_validated else "give a validation set"
        raise ValueError(
            f"monitor is {monitor!r}, the records have {', '.join(measures)}; take one of these, or {cure}"
        )
    return float(value)


def lower_is_better(measure: str) -> bool:
    """Whether lower values of a measure are better: by METRICS, else by a name that is a loss or an error."""
    name = metric_of(measure)
    return METRICS[name].lower_is_better if name in METRICS else name.endswith(("loss", "error"))


def sign_of(measure: str) -> float:
    """Return 1 if lower is better, else -1."""
    return 1.0 if lower_is_better(measure) else -1.0
