"""The report of a training: progress on stderr, a row an epoch and the summary on stdout."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from xpnet.backend import Backend
from xpnet.commands.wording import printable, width_of, wrapped
from xpnet.network.network import Network
from xpnet.training.callbacks import Callback
from xpnet.training.records import TRAIN_LOSS, VAL_ACCURACY, VAL_LOSS, VALIDATION, History, Record, json_line, sign_of


class Report(Callback):
    """Writes each record to stdout as a table row, or as a line of JSON.

    A row whose value of `monitor` is better than all before it ends in a star: the last of these is the best epoch.
    Only what is measured has a column. A terminal too narrow for a row loses those of speed first, then the last ones.
    """

    only_watches = True

    def __init__(self, as_json: bool, quiet: bool, metrics: Sequence[str], monitor: str) -> None:
        self.as_json, self.quiet, self.metrics, self.monitor = as_json, quiet, metrics, monitor
        self.records: list[Record] = []

    def on_resume(self, history: History) -> None:
        self.records = list(history)
        self._print_names()

    def on_epoch_end(self, record: Record, network: Network) -> None:
        self.records.append(record)
        if self.as_json:
            print(json_line(record), flush=True)
        elif not self.quiet:
            if record["epoch"] == 0:
                self._print_names()
            self._print(self._cells(record), " *" if 0 < record["epoch"] == self._best() else "")

    def _print_names(self) -> None:
        if not (self.as_json or self.quiet):
            metrics = [f"{name:>{width}}" for name, width in self._columns.items()]
            measured = [f"{name:>{width}}" for name, (_, width) in self._measured.items()]
            self._print(["epoch", TRAIN_LOSS, *measured, *metrics, "steps/s", "seconds"])

    def _print(self, cells: list[str], mark: str = "") -> None:
        width = width_of(sys.stdout)
        if width is not None and len("  ".join(cells)) + 2 > width:  # 2 for the mark
            cells = cells[:-2]
            while len("  ".join(cells)) + 2 > width and len(cells) > 2:
                cells = cells[:-1]
        print("  ".join(cells) + mark, flush=True)

    def _best(self) -> int:
        """Return the epoch of the best value so far, the earliest of equal ones; 0 if there is none."""
        sign, best, epoch = sign_of(self.monitor), math.inf, 0
        for record in self.records:
            value = sign * record.get(self.monitor, math.inf)
            if value < best:
                best, epoch = value, record["epoch"]
        return epoch

    @property
    def _columns(self) -> dict[str, int]:
        """Return the metrics' columns and their widths; accuracy has its own."""
        return {name: max(len(name), 7) for name in self.metrics if name != "accuracy"}

    @property
    def _measured(self) -> dict[str, tuple[str, int]]:
        """Return the columns of validation loss and accuracy that the records have: measure and width by heading."""
        columns = {VAL_LOSS: (VAL_LOSS, 8), "val_acc": (VAL_ACCURACY, 7)}
        return {name: (key, width) for name, (key, width) in columns.items() if key in self.records[0]}

    def _cells(self, record: Record) -> list[str]:
        rate = record["steps"] / record["seconds"] if record["seconds"] else 0.0
        cells = [f"{record['epoch']:>5}", _loss_cell(record[TRAIN_LOSS], 10)]
        for name, width in self._measured.values():
            cells.append(_loss_cell(record[name], width) if name in record else f"{'-':>{width}}")
        cells += [_loss_cell(record[VALIDATION + name], width) for name, width in self._columns.items()]
        cells.append(f"{rate:>7,.0f}" if rate else f"{'-':>7}")
        return [*cells, f"{record['seconds']:>7.2f}"]

    def summary(
        self,
        validation: dict[str, Any] | None,
        test: dict[str, Any] | None,
        backend: Backend,
        run: str,
        diverged_at: float | None = None,
        ensemble: str = "",
    ) -> None:
        """Print the summary of the run.

        validation, test: as `evaluate` returns them, metrics included.  diverged_at: the rate of a first attempt.
        ensemble: what the model is the mean of, if it is one.
        """
        seconds = sum(record["seconds"] for record in self.records)
        steps = sum(record["steps"] for record in self.records)
        rate = steps / seconds if seconds else 0.0
        if self.as_json:
            line = {
                VAL_ACCURACY: (validation or {}).get("accuracy"),
                "test_accuracy": (test or {}).get("accuracy"),
                **{
                    f"{part}_{name}": value
                    for part, measured in (("val", validation), ("test", test))
                    for name, value in _metrics(measured).items()
                },
                TRAIN_LOSS: self.records[-1][TRAIN_LOSS],
                VAL_LOSS: (validation or {}).get("loss"),
                "seconds": seconds,
                "steps_per_second": rate,
                "backend": backend.name,
                "device": backend.describe(),
                "run": run,
                **({} if diverged_at is None else {"diverged_at": diverged_at}),
                **({"ensemble": ensemble} if ensemble else {}),
                **{
                    name: self.records[-1].get(name)
                    for name in ("engine", "threads", "precision", "deterministic", "stopped", "chosen_epoch")
                },
            }
            print(json_line(line), flush=True)
            return
        last, parts = self.records[-1], []
        if "stopped" in last:
            parts.append(f"stopped in epoch {last['epoch']} ({last['stopped']})")
        if diverged_at is not None:
            parts.append(f"at a tenth of the rate {diverged_at:g}, at which it diverged")
        if "chosen_epoch" in last:
            untrained = ", untrained" if last["chosen_epoch"] == 0 < last["epoch"] else ""
            of_first = "network 1 has the " if ensemble else ""
            parts.append(f"{of_first}weights of epoch {last['chosen_epoch']}{untrained}")
        parts += [ensemble] if ensemble else []
        for part, measured in (("validation", validation), ("test", test)):
            if measured is not None:
                parts += [f"{part} {told}" for told in _told(part, measured)]
        if self._best() and not self.quiet:
            parts.append(f"best {self.monitor} in epoch {self._best()} (*)")
        parts += [f"{seconds:.1f} s of training", f"{rate:,.0f} steps/s", f"{_engine(last)} -> {run}"]
        print(wrapped(", ".join(parts), sys.stdout, "  "))


def metrics_text(measured: dict[str, Any]) -> str:
    """Return the metrics asked for beside loss and accuracy, each after two spaces; "" for none."""
    return "".join(f"  {name} {figure(value)}" for name, value in _metrics(measured).items())


def say(text: str) -> None:
    """Print a line of progress to stderr."""
    print(wrapped(printable(text), sys.stderr, "  "), file=sys.stderr, flush=True)


@contextmanager
def warnings_said(but: Sequence[type[Warning]] = ()) -> Iterator[None]:
    """Print the library's warnings as lines, without the place in its source.  but: those that are not printed."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        for category in but:
            warnings.simplefilter("ignore", category)
        warnings.showwarning = lambda message, *place: say(f"xpnet: {message}")
        yield


def _metrics(measured: dict[str, Any] | None) -> dict[str, float]:
    own = ("loss", "n", "accuracy", "correct")
    return {name: value for name, value in (measured or {}).items() if name not in own}


def _told(part: str, measured: dict[str, Any]) -> list[str]:
    if "accuracy" not in measured:
        told = [f"loss {measured['loss']:.6g}"]
    elif part == "test":
        told = [f"accuracy {measured['accuracy']:.4f} ({measured['correct']} of {measured['n']})"]
    else:
        told = [f"accuracy {measured['accuracy']:.4f}"]
    return told + [f"{name} {figure(value)}" for name, value in _metrics(measured).items()]


def figure(value: float) -> str:
    """Return a measure with four decimals, or four digits where that would be none."""
    return f"{value:.4f}" if value == 0.0 or not 0.0 < abs(value) < 0.01 else f"{value:.4g}"


def _engine(record: Record) -> str:
    n, precision = record.get("threads"), record.get("precision")
    told = f"{record['engine']} engine" + ("" if n is None else f" on {n} thread{'s' * (n != 1)}")
    told += "" if precision is None else f" in {precision}"
    return told + ", deterministic" * bool(record.get("deterministic"))


def _loss_cell(loss: float, width: int) -> str:
    """Return a loss with four decimals, or as many as there is room for."""
    room = width - len(f"{loss:.0f}")
    if loss == 0.0 or (1e-4 <= abs(loss) < math.inf and room >= 0):
        return f"{loss:>{width}.{min(4, max(room - 1, 0))}f}"
    return f"{loss:>{width}.1e}"
