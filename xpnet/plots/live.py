"""A curve that grows under a notebook's cell while the network trains."""

from __future__ import annotations

from typing import Any

from xpnet.checks import check_whole
from xpnet.network.network import Network
from xpnet.plots.curves import loss_curve, score_curve, score_names
from xpnet.plots.figures import encoded, new_figure
from xpnet.training.callbacks import Callback
from xpnet.training.records import History, Record


class LiveCurve(Callback):
    """Draws the losses, and beside them the scores, into a notebook, and redraws them in place after each epoch.

    train(..., callbacks=[LiveCurve()]).  every: epochs from one drawing to the next; the last is always drawn.
    log: as for `loss_curve`.
    Raises RuntimeError when the training begins outside a notebook, ImportError without matplotlib.
    """

    only_watches = True

    def __init__(self, *, every: int = 1, log: bool = True) -> None:
        self.every = check_whole("every", every, at_least=1)
        self.log = log
        self._records = History()
        self._place: Any = None  # of the picture in the notebook
        self._n_drawn = 0

    def on_train_begin(self, network: Network, n_epochs: int, n_steps: int) -> None:
        if not _in_notebook():
            raise RuntimeError(
                "LiveCurve draws into a notebook, and this is none; leave it out, and draw the history "
                "at the end: xpnet.plots.loss_curve(history)"
            )
        new_figure()  # refuses a missing matplotlib now, not after an epoch
        self._records, self._place, self._n_drawn = History(), None, 0

    def on_resume(self, history: History) -> None:
        self._records = History(history)

    def on_epoch_end(self, record: Record, network: Network) -> None:
        self._records.append(record)
        if record["epoch"] % self.every == 0:
            self._draw()

    def on_train_end(self, network: Network) -> None:
        if self._n_drawn < len(self._records):
            self._draw()

    def _draw(self) -> None:
        import IPython.display  # there is one, as this is a notebook

        notebook: Any = IPython.display
        self._n_drawn = len(self._records)
        picture = notebook.Image(data=_picture(self._records, self.log), format="png")
        if self._place is None:
            self._place = notebook.display(picture, display_id=True)
        else:
            self._place.update(picture)


def _picture(records: History, log: bool) -> bytes:
    has_score = bool(score_names(records))
    figure = new_figure(11.0 if has_score else 6.0, 4.0)
    loss_curve(records, figure.add_subplot(1, 2 if has_score else 1, 1), log=log)
    if has_score:
        score_curve(records, figure.add_subplot(1, 2, 2))
    return encoded(figure, dpi=75)


def _in_notebook() -> bool:
    try:
        from IPython import get_ipython
    except ImportError:
        return False
    return getattr(get_ipython(), "kernel", None) is not None
