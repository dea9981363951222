"""What shows a training run while it goes: on the command line a bar an epoch, in Python one line."""

from __future__ import annotations

import sys
from typing import IO, TYPE_CHECKING, Any

from xpnet.training.callbacks import Callback
from xpnet.training.records import Record, measures_of

if TYPE_CHECKING:
    from xpnet.network.network import Network


class ProgressBar(Callback):
    """A live bar of the epoch's steps, gone when the epoch is over.  file: a terminal."""

    only_watches = True

    def __init__(self, file: IO[str]) -> None:
        self.file = file
        self._bar: Any = None
        self._n_steps = 0
        self._n_epochs = 0

    def on_train_begin(self, network: Network, n_epochs: int, n_steps: int) -> None:
        self._n_epochs, self._n_steps = n_epochs, n_steps

    def on_chunk_end(self, epoch: int, step: int, loss: float) -> str | None:
        if self._bar is None:
            self._bar = _bar(self.file, self._n_steps, self._title(epoch), leave=False)
        _show(self._bar, step, f"loss {loss:.4f}")
        return None

    def _title(self, epoch: int) -> str:
        return f"epoch {epoch}/{self._n_epochs}"

    def on_epoch_end(self, record: Record, network: Network) -> None:
        self.on_train_end(network)

    def on_train_end(self, network: Network) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class ProgressLine(ProgressBar):
    """A live line of the whole run, with the measures of the last epoch; it stays."""

    def on_train_begin(self, network: Network, n_epochs: int, n_steps: int) -> None:
        super().on_train_begin(network, n_epochs, n_steps)
        self._measured = ""

    def on_chunk_end(self, epoch: int, step: int, loss: float) -> str | None:
        if self._bar is None:
            self._bar = _bar(self.file, self._n_epochs * self._n_steps, self._title(epoch), leave=True)
        self._bar.set_description(self._title(epoch), refresh=False)
        _show(self._bar, (epoch - 1) * self._n_steps + step, self._measured or f"loss {loss:.4f}")
        return None

    def on_epoch_end(self, record: Record, network: Network) -> None:
        self._measured = ", ".join(f"{name} {record[name]:.4f}" for name in measures_of([record]))
        if self._bar is not None:
            self._bar.set_postfix_str(self._measured, refresh=False)


def is_watched(file: Any) -> bool:
    """Whether somebody sees what is written there at once: on a terminal, or in a notebook."""
    return bool(file is not None and (file.isatty() or _is_of_notebook(file)))


def progress_of(progress: bool | None) -> list[Callback]:
    """Return the line of a run on stderr, None where somebody sees it; [] for none."""
    return [ProgressLine(sys.stderr)] if (is_watched(sys.stderr) if progress is None else progress) else []


def _bar(file: IO[str], total: int, title: str, leave: bool) -> Any:
    return _kind_of_bar(file)(total=total, desc=title, unit="step", leave=leave, file=file)


def _kind_of_bar(file: IO[str]) -> Any:
    """Return tqdm's class: in a notebook that has ipywidgets the one of a widget, elsewhere that of text."""
    if _is_of_notebook(file):
        try:
            import ipywidgets  # noqa: F401  which tqdm's would miss with a warning
            from tqdm.notebook import tqdm as widget
        except ImportError:
            pass
        else:
            return widget
    from tqdm import tqdm  # costs half of `import numpy`

    return tqdm


def _is_of_notebook(file: Any) -> bool:
    return type(file).__module__.startswith("ipykernel")


def _show(bar: Any, step: int, text: str) -> None:
    bar.set_postfix_str(text, refresh=False)
    bar.update(step - bar.n)
