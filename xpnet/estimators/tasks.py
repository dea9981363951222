"""scikit-learn's callbacks, public since 1.9: `estimator.set_callbacks(...)` has them see each epoch of a fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xpnet.network.network import Network
from xpnet.training.callbacks import Callback
from xpnet.training.records import Record

if TYPE_CHECKING:
    CallbackSupportMixin: Any = object

    def with_callbacks(method: Any) -> Any: ...
else:
    try:
        from sklearn.callback import CallbackSupportMixin, with_callbacks
    except ImportError:  # scikit-learn 1.7 and 1.8

        class CallbackSupportMixin:
            """A class without callbacks."""

        def with_callbacks(method):
            """Return the method as it is."""
            return method


def tasks_of(estimator: Any, X: Any, y: Any, sample_weight: Any) -> Tasks | None:
    """Return what tells scikit-learn's callbacks of a fit that begins, None where none are set."""
    return Tasks(estimator, X, y, sample_weight) if "_skl_callbacks" in vars(estimator) else None


class Tasks(Callback):
    """Tells scikit-learn's callbacks of a fit, and of each epoch or iteration as a task within it.

    It comes after the `StopRule`, so that they find its numbers in the estimator.
    """

    def __init__(self, estimator: Any, X: Any, y: Any, sample_weight: Any) -> None:
        metadata = None if sample_weight is None else {"sample_weight": sample_weight}
        self._given = {"estimator": estimator, "X": X, "y": y, "metadata": metadata}
        is_stochastic = estimator.solver != "lbfgs"  # whose last iteration may be left before its end
        self._fit = estimator._init_callback_context(max_subtasks=estimator.max_iter + (not is_stochastic))
        self._fit.call_on_fit_task_begin(**self._given)
        self._name = "epoch" if is_stochastic else "iteration"
        self._task: Any = None

    def begin(self) -> None:
        """Begin the next epoch or iteration."""
        self._task = self._fit.subcontext(task_name=self._name)
        self._task.call_on_fit_task_begin(**self._given)

    def end(self) -> bool:
        """End it; returns whether a callback wants the fit to end."""
        stops = self._task.call_on_fit_task_end(**self._given, reconstruction_attributes={})
        self._task = None
        return bool(stops)

    def finish(self) -> None:
        """End the fit, whose estimator is whole."""
        if self._task is not None:  # begun and not done
            self._task.call_on_fit_task_end(estimator=self._given["estimator"])
        self._fit.call_on_fit_task_end(**self._given, reconstruction_attributes={})

    def on_measured(self, record: Record, network: Network) -> str | None:
        return "a callback of scikit-learn's has ended the training" if record["epoch"] > 0 and self.end() else None

    def on_epoch_end(self, record: Record, network: Network) -> None:
        if "stopped" not in record and record["epoch"] < self._given["estimator"].max_iter:
            self.begin()
