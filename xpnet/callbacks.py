"""What watches a training run: the record of its epochs, the history file, the progress bar.

A callback sees and writes; the training loop neither prints nor opens files.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from xpnet.optimizers import Optimizer
from xpnet.options import check_number, check_whole
from xpnet.schedules import Constant

if TYPE_CHECKING:
    from xpnet.network import Network

Record = dict[str, Any]


class History(list[Record]):
    """The records of a run, one dict an epoch; the first is the untrained network's."""

    def column(self, name: str) -> list[Any]:
        """The values of one field, epoch by epoch; raises KeyError if there is no such field."""
        return [record[name] for record in self]


class Callback:
    """Base of all callbacks; every method does nothing unless overridden."""

    def on_train_begin(self, network: Network, n_epochs: int, n_steps: int) -> None:
        """Called once, before record 0; `n_steps` is the number of steps an epoch."""

    def on_chunk_end(self, epoch: int, step: int, loss: float) -> None:
        """Called a few times a second: `step` steps of the epoch are done, `loss` is the mean of the last ones."""

    def on_epoch_end(self, record: Record, network: Network) -> None:
        """Called with every record, the untrained network's first."""

    def on_train_end(self, network: Network) -> None:
        """Called once at the end, also after an error or an interrupt."""


class HistoryFile(Callback):
    """Appends every record to a file as one line of JSON, at once, so that a killed run keeps its epochs."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def on_epoch_end(self, record: Record, network: Network) -> None:
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json_line(record) + "\n")


def json_line(record: Record) -> str:
    """The record as strict JSON, which knows neither NaN nor infinity: they become null."""
    return json.dumps({
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in record.items()
    })  # fmt: skip


def read_history(path: str | os.PathLike[str]) -> History:
    """Read what `HistoryFile` wrote; a last line that was cut off by a crash is left out.

    Raises FileNotFoundError, or ValueError naming the line that is not a record.
    """
    lines = Path(path).read_bytes().split(b"\n")  # json decodes each, so that a torn one is told from the others
    history = History()
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            record = json.loads(line)
        except ValueError:
            if number == len(lines):  # no newline after it: the writer was stopped in the middle
                break
            raise ValueError(f"{path}: line {number} is not JSON; remove it, or train again") from None
        if not isinstance(record, dict):
            raise ValueError(f"{path}: line {number} is not a record; remove it, or train again")
        history.append(record)
    return history


class ReduceOnPlateau(Callback):
    """Multiplies the optimizer's rate by `factor` when the loss has not fallen for more than `patience` epochs.

    It looks at val_loss, or at train_loss where nothing is validated. An epoch counts as better if its loss is below
    the best so far times (1 - threshold); a reduction begins the count anew, and goes no lower than lr_min.
    Source: torch's ReduceLROnPlateau in mode "min" with a relative threshold, without its cool-down.
    """

    def __init__(
        self, optimizer: Optimizer, factor: float = 0.1, patience: int = 10, threshold: float = 1e-4,
        lr_min: float = 0.0,
    ) -> None:  # fmt: skip
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"optimizer is {optimizer!r}; needed is the one that trains: ReduceOnPlateau(optimizer)")
        if not isinstance(optimizer.schedule, Constant):
            raise ValueError(f"the rate follows {optimizer.schedule}, which a reduction would end; "
                             "give the optimizer a number as lr, or leave ReduceOnPlateau out")  # fmt: skip
        call = "ReduceOnPlateau(optimizer, "
        self.optimizer = optimizer
        self.factor = check_number("factor", factor, above=0, below=1, example=f"{call}factor=0.1)")
        self.patience = check_whole("patience", patience, at_least=0)
        self.threshold = check_number("threshold", threshold, at_least=0, below=1, example=f"{call}threshold=1e-4)")
        self.lr_min = check_number("lr_min", lr_min, at_least=0, example=f"{call}lr_min=1e-6)")
        self._best, self._n_bad = math.inf, 0

    def on_train_begin(self, network: Network, n_epochs: int, n_steps: int) -> None:
        self._best, self._n_bad = math.inf, 0

    def on_epoch_end(self, record: Record, network: Network) -> None:
        if record["epoch"] == 0:  # untrained: a loss before the first epoch is no plateau
            return
        loss = record["val_loss"] if "val_loss" in record else record["train_loss"]
        if loss < self._best * (1.0 - self.threshold):
            self._best, self._n_bad = loss, 0
            return
        self._n_bad += 1
        reduced = max(self.optimizer.lr * self.factor, self.lr_min)
        if self._n_bad > self.patience:
            self._n_bad = 0
            if reduced < self.optimizer.lr:
                self.optimizer.lr = reduced


class ProgressBar(Callback):
    """A live bar of the epoch's steps, gone when the epoch is over.  file: a terminal."""

    def __init__(self, file: IO[str]) -> None:
        self.file = file
        self._bar: Any = None
        self._n_steps = 0
        self._n_epochs = 0

    def on_train_begin(self, network: Network, n_epochs: int, n_steps: int) -> None:
        self._n_epochs, self._n_steps = n_epochs, n_steps

    def on_chunk_end(self, epoch: int, step: int, loss: float) -> None:
        from tqdm import tqdm  # costs half of `import numpy`

        if self._bar is None:
            title = f"epoch {epoch}/{self._n_epochs}"
            self._bar = tqdm(total=self._n_steps, desc=title, unit="step", leave=False, file=self.file)
        self._bar.set_postfix_str(f"loss {loss:.4f}", refresh=False)
        self._bar.update(step - self._bar.n)

    def on_epoch_end(self, record: Record, network: Network) -> None:
        self._close()

    def on_train_end(self, network: Network) -> None:
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
