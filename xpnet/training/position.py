"""The position of a training between two steps: saved as a `Moment`, restored from one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from xpnet.data.feed import Orders
from xpnet.engines.engine import Engine
from xpnet.network.network import Network
from xpnet.training.callbacks import Callback
from xpnet.training.checkpoint import frozen, load_states, states_of, thawed
from xpnet.training.guard import Guard
from xpnet.training.optimizers import Optimizer
from xpnet.training.records import History, Moment, Progress, Record
from xpnet.training.schedules import Constant

LAST_GOOD = "last_good."  # prefix of the tensors of an epoch's beginning


@dataclass(frozen=True)
class Position:
    """What a training consists of.

    guard: holds the beginning of the epoch.  rng: draws the orders, None without shuffling.
    fit: what a run that resumes must have in common with this one, by name.
    """

    network: Network
    optimizer: Optimizer
    engine: Engine
    callbacks: Sequence[Callback]
    guard: Guard
    rng: Orders | None
    fit: dict[str, Any]

    def moment(self, progress: Progress, history: list[Record]) -> Moment:
        """Return the run at this moment; raises TrainingDiverged if its weights are not finite.

        progress: of the epoch.  history: the records so far.
        """
        self.guard.check_weights(progress)
        optimizer, last_state, backend = self.optimizer, self.guard.last_state, self.network.backend
        callbacks, tensors = states_of(self.callbacks, backend)
        tensors |= frozen("", backend, self.network.owned, optimizer.snapshot())
        if progress.step:
            tensors |= frozen(LAST_GOOD, backend, self.guard.last_good, last_state)
        return Moment(
            fit=self.fit,
            progress=replace(progress),
            steps_done=optimizer.steps_done,
            last_good_steps=last_state.steps_done if progress.step else optimizer.steps_done,
            lr=optimizer.lr if isinstance(optimizer.schedule, Constant) else None,
            callbacks=callbacks,
            history=list(history),
            tensors=tensors,
        )

    def restore(self, moment: Moment) -> Progress:
        """Restore a moment, callbacks included, and return its progress.

        Raises ValueError, before network or optimizer change, if its arrays or its callbacks' states do not fit.
        """
        network, optimizer, guard = self.network, self.optimizer, self.guard
        like = {"owned": network.owned, "state": self.engine.state, "keys": self.engine.keys}
        owned, now = thawed("", moment, moment.steps_done, network, like)
        last_good, last_state = owned, now
        if moment.progress.step:
            last_good, last_state = thawed(LAST_GOOD, moment, moment.last_good_steps, network, like)
        if self.rng is not None:
            try:
                self.rng.bit_generator.state = moment.progress.order
            except (ValueError, TypeError, KeyError, OverflowError):
                raise ValueError(
                    "the checkpoint's random state belongs to another generator; start again without resume"
                ) from None
        load_states(self.callbacks, moment, network.backend)
        before = network.owned.copy()
        network.owned[...], guard.last_good[...], guard.last_state = owned, last_good, last_state
        optimizer.restore(now)
        optimizer.attach(network, self.engine)
        if moment.lr is not None:
            optimizer.lr = moment.lr
        try:
            for callback in self.callbacks:
                callback.on_resume(History(moment.history))
        except BaseException:  # all is as it was
            network.owned[...] = before
            guard.undo()
            raise
        guard.accept()
        return replace(moment.progress)
