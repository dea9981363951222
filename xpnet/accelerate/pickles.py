"""Pickles of estimators that stand in the place of scikit-learn's: in its format, so that it reads them alone."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from xpnet.estimators.bridge import lacking_options, settings_for_sklearn, take_over, to_sklearn
from xpnet.estimators.settings import make_optimizer, solver_settings
from xpnet.estimators.stored import Stored
from xpnet.training.optimizers import Snapshot

OWN = ("network_", "learning_rate_")


def state_for_sklearn(estimator: Any) -> dict[str, Any]:
    """Return what a pickle of scikit-learn's estimator holds, whose class has the same name.

    The optimizer's state goes along in arrays, which scikit-learn ignores.
    Raises TypeError for options that scikit-learn lacks.
    """
    if lacks := lacking_options(estimator):
        raise TypeError(
            f"{type(estimator).__name__} has {', '.join(lacks)}, which scikit-learn lacks, and under xpnet.accelerate "
            "its pickles are those that scikit-learn reads; make it by xpnet.MLPClassifier or xpnet.MLPRegressor, or "
            "leave them out"
        )
    is_fitted = hasattr(estimator, "network_")
    state: dict[str, Any] = (to_sklearn if is_fitted else settings_for_sklearn)(estimator).__getstate__()
    known = {*state, *OWN, *(field.name for field in fields(estimator))}
    state |= {name: value for name, value in vars(estimator).items() if name not in known and not name.startswith("_")}
    if is_fitted and estimator._optimizer is not None:
        stored = Stored(estimator.network_, estimator._optimizer)
        if stored.optimizer is not None:
            state["_xpnet_optimizer"] = (stored.steps_done, stored.state, stored.keys, estimator._optimizer.lr)
    return state


def restored(estimator: Any, state: dict[str, Any]) -> None:
    """Give a new estimator what a pickle in scikit-learn's format holds."""
    theirs, left = object.__new__(estimator.replaces), state.pop("_xpnet_optimizer", None)
    theirs.__setstate__(state)
    for field in fields(estimator):
        setattr(estimator, field.name, state.get(field.name, field.default))
    for name, value in state.items():
        if not name.startswith("_") and name not in ("coefs_", "intercepts_"):
            setattr(estimator, name, value)
    if "coefs_" not in state:
        return
    take_over(estimator, theirs)
    if left is not None:
        optimizer, (steps_done, arrays, keys, lr) = make_optimizer(estimator, 1, estimator.alpha), left
        optimizer.restore(Snapshot.unpacked(estimator.network_, steps_done, arrays, keys))
        optimizer.lr = estimator.learning_rate_ = lr
        estimator._optimizer, estimator._optimizer_settings = optimizer, solver_settings(estimator)
