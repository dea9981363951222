"""An estimator that several processes fit together: what process 0 decides is what all of them have."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils import check_random_state

from xpnet.training.loop import TrainingDiverged

_FITTED = ("n_iter_", "t_", "loss_", "loss_curve_", "best_loss_", "validation_scores_", "best_validation_score_")


def random_state(settings: Any) -> Any:
    """Return the generator of a fit; without a number for it, that of process 0 seeds all."""
    rng = check_random_state(settings.random_state)
    if settings.communicator is None or isinstance(settings.random_state, (int, np.integer)):
        return rng
    return np.random.RandomState(settings.communicator.broadcast(int(rng.randint(2**31 - 1))))


def shared(settings: Any, error: TrainingDiverged | None = None) -> None:
    """Give every process what the stopping rule of process 0 has written into its estimator, and its weights.

    error: with which the training ends on process 0 after all, raised by all.
    """
    if settings.communicator is None:
        return
    owned, backend = settings.network_.owned, settings.network_.backend
    fitted = {name: getattr(settings, name) for name in _FITTED if hasattr(settings, name)}
    told = None if error is None else (error.cause, error.cure)
    fitted, weights, told = settings.communicator.broadcast((fitted, backend.to_host(owned), told))
    if told is not None:
        raise TrainingDiverged(*told) from error
    for name, value in fitted.items():
        setattr(settings, name, value)
    owned[...] = backend.to_device(weights)


def check_alone(settings: Any, what: str, cure: str) -> None:
    """Refuse several processes for what one does.  what: it, in words."""
    if settings.communicator is not None and settings.communicator.size > 1:
        raise ValueError(
            f"{settings.communicator.size} processes fit together, and {what} is computed by one; {cure}, "
            "or communicator=None"
        )
