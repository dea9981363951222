"""Guard a training against divergence: find what is not finite, and go back to the last good state."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from xpnet.data.dataset import Dataset, mean_and_deviation
from xpnet.network.network import Network
from xpnet.training.optimizers import Optimizer
from xpnet.training.records import Progress

SCALED = 10.0  # the largest mean and deviation of inputs or targets that need no scaling


class TrainingDiverged(ArithmeticError, ValueError):
    """The loss became NaN or infinite at the step named; the network holds the weights of the epoch before.

    cause, cure: the parts of the message, what was found and what may help.
    """

    def __init__(self, cause: str, cure: str = "") -> None:
        super().__init__(cause, cure)
        self.cause, self.cure = cause, cure

    def __str__(self) -> str:
        return f"{self.cause}; {self.cure}" if self.cure else self.cause


class Guard:
    """Keeps the last good state of a network and its optimizer.  dataset: what is trained on, for the advice.

    last_good, last_state: the network's flat vector and the optimizer's snapshot at the beginning of the epoch.
    """

    def __init__(self, network: Network, optimizer: Optimizer, dataset: Dataset) -> None:
        self._network, self._optimizer, self._dataset = network, optimizer, dataset
        self.last_good, self.last_state = network.owned.copy(), optimizer.snapshot()
        self._before: Any = (optimizer.backup(), network.inputs)

    def keep(self) -> None:
        """Take what the network holds now for good."""
        self.last_good[...] = self._network.owned
        del self.last_state  # before the next one is made
        self.last_state = self._optimizer.snapshot()

    def go_back(self, error: BaseException) -> None:
        """Restore the last good state after a divergence; Ctrl-C too may come while the loss diverges."""
        if isinstance(error, TrainingDiverged) or not self._is_finite():
            self.rewind()
            self.undo()

    def rewind(self) -> None:
        """Restore the last good state."""
        self._network.owned[...] = self.last_good
        self._optimizer.restore(self.last_state)

    def undo(self) -> None:
        """Until the first epoch is over, make the optimizer what it was before, perhaps of another network."""
        if self._before is not None:
            backup, self._network.inputs = self._before
            self._optimizer.put_back(backup)

    def accept(self) -> None:
        """Take note that an epoch is over, or resumed, so that nothing is undone any more."""
        self._before = None

    def check_losses(self, losses: np.ndarray, progress: Progress) -> None:
        """Remember the last finite loss, or raise TrainingDiverged naming the first step whose loss is not finite."""
        bad = np.flatnonzero(~np.isfinite(losses))
        if len(bad) == 0:
            progress.last_finite = float(losses[-1])
            return
        first = int(bad[0])
        last = float(losses[first - 1]) if first else progress.last_finite
        before = "none in this epoch" if last is None else f"{last:.6g}"
        raise TrainingDiverged(
            f"the loss is {losses[first]} at step {progress.step + first + 1} of epoch "
            f"{progress.epoch} (last finite: {before})",
            self._cure(),
        )

    def check_weights(self, progress: Progress) -> None:
        """Raise TrainingDiverged for weights that are not finite: no loss follows the last update of a chunk."""
        if not self._is_finite():
            raise self.diverged(progress)

    def diverged(self, progress: Progress) -> TrainingDiverged:
        """Return the error that tells of weights that are not finite."""
        before = "" if progress.last_finite is None else f" (last finite loss: {progress.last_finite:.6g})"
        return TrainingDiverged(
            f"the weights are not finite after step {progress.step} of epoch {progress.epoch}{before}", self._cure()
        )

    def _is_finite(self) -> bool:
        owned = self._network.owned
        with np.errstate(all="ignore"):  # a sum of large numbers may overflow where none of them is infinite
            return math.isfinite(float(owned.sum())) or bool(np.isfinite(self._network.backend.to_host(owned)).all())

    def _cure(self) -> str:
        unscaled = _unscaled(self._dataset)
        cure = f"scale the {' and the '.join(unscaled)}" if unscaled else "limit the gradient with clip_norm"
        return f"lower the learning rate (lr is {self._optimizer.lr:g}), or {cure}"


def _unscaled(dataset: Dataset) -> list[str]:
    """Return which of inputs and targets are far from means of 0 and deviations of 1; inputs in a file count as far."""
    far = []
    for name, rows, factor in (("inputs", dataset.samples, dataset.scale or 1.0), ("targets", dataset.targets, 1.0)):
        if (name == "inputs" and dataset.is_mapped) or not isinstance(rows, np.ndarray):
            far.append(name)
            continue
        with np.errstate(over="ignore", invalid="ignore"):
            means, deviations = mean_and_deviation(rows, factor)
        if not (np.abs(means) <= SCALED).all() or not (deviations <= SCALED).all():
            far.append(name)
    return far
