"""xpnet's two estimators as they stand in the place of scikit-learn's: by its names, with its pickles."""

from __future__ import annotations

import copy
import inspect
import os
import time
from abc import ABCMeta
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any

from sklearn import neural_network
from sklearn.utils.metaestimators import available_if

from xpnet import estimators
from xpnet.accelerate.pickles import restored, state_for_sklearn
from xpnet.accelerate.report import REPORT
from xpnet.estimators.base import BaseMLP, is_stochastic
from xpnet.estimators.bridge import lacking_options, settings_for_sklearn, take_over, to_sklearn
from xpnet.training.loop import TrainingDiverged

WIDE, FEW = 1000, 0.05  # features of sparse rows, and the part of them that is not 0, that scikit-learn is faster with
DEVICE = os.environ.get("XPNET_DEVICE", "").strip().lower() or "cpu"


class Swapped(ABCMeta):
    """The type of these classes: scikit-learn's own count as theirs.

    A subclass that overrides what is private in either library inherits from scikit-learn's class in the place of
    these.
    """

    replaces: Any = None

    def __new__(cls, name: str, bases: tuple[Any, ...], body: dict[str, Any], **options: Any) -> Any:
        """Return the class, which `LeftToScikit` makes if it is to inherit from scikit-learn's."""
        ours = [base for base in bases if isinstance(base, Swapped) and base.replaces is not None]
        private = sorted({part for kind in ours for part in _own(bases, body) if _is_private_in(kind, part)})
        if private:
            REPORT.say_once(f"class {name} overrides {', '.join(private)}, and is left to scikit-learn")
            cls = LeftToScikit
        return super().__new__(cls, name, bases, body, **options)

    def __instancecheck__(cls, instance: Any) -> bool:
        return super().__instancecheck__(instance) or ("replaces" in vars(cls) and isinstance(instance, cls.replaces))

    def __subclasscheck__(cls, kind: type) -> bool:
        return super().__subclasscheck__(kind) or ("replaces" in vars(cls) and issubclass(kind, cls.replaces))


class LeftToScikit(Swapped):
    """The type of a class that has scikit-learn's class, and what that inherits from, for xpnet's among its bases."""

    def mro(cls) -> list[type]:
        """Return the order in which attributes are looked for."""
        found = super().mro()
        swapped: Any = next((kind for kind in found if "replaces" in vars(kind)), None)
        if swapped is None:  # the class inherits from one that is left to scikit-learn already
            return found
        theirs = vars(swapped)["replaces"].__mro__
        return [kind for kind in found if kind not in {*swapped.__mro__, *theirs}] + list(theirs)


def _own(bases: tuple[Any, ...], body: dict[str, Any]) -> set[str]:
    """Return the names that a class and its bases beside the swapped ones define."""
    beside = [kind for base in bases if not isinstance(base, Swapped) for kind in base.__mro__]
    names = {name for kind in beside if not kind.__module__.startswith(("sklearn.", "builtins")) for name in vars(kind)}
    return names | body.keys()


def _is_private_in(kind: Any, name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and any(hasattr(k, name) for k in (kind, kind.replaces))


class Accelerated(metaclass=Swapped):
    """What the two classes have beside xpnet's estimators: fits that are counted, and scikit-learn's pickles."""

    def fit(self, X: Any, y: Any, sample_weight: Any = None, validation: Any = None) -> Any:
        """As of xpnet's estimators; scikit-learn fits what xpnet refuses and scikit-learn does not."""
        given = {"sample_weight": sample_weight, "validation": validation}
        ours = partial(super().fit, X, y, **given)  # type: ignore[misc]
        return _trained(self, ours, "fit", X, y, given)

    @available_if(is_stochastic)  # type: ignore[untyped-decorator]
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None, **classes: Any) -> Any:
        """As of xpnet's estimators; scikit-learn fits what xpnet refuses and scikit-learn does not."""
        given = {"sample_weight": sample_weight, **classes}
        ours = partial(super().partial_fit, X, y, **given)  # type: ignore[misc]
        return _trained(self, ours, "partial_fit", X, y, given)

    def __getstate__(self) -> dict[str, Any]:
        return state_for_sklearn(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "_xpnet_version" in state:
            super().__setstate__(state)  # type: ignore[misc]
        else:
            restored(self, state)

    def __copy__(self) -> Any:
        new = object.__new__(type(self))
        new.__setstate__(BaseMLP.__getstate__(self))  # type: ignore[arg-type]
        return new

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        new = memo[id(self)] = object.__new__(type(self))
        new.__setstate__(copy.deepcopy(BaseMLP.__getstate__(self), memo))  # type: ignore[arg-type]
        return new


def _trained(estimator: Any, ours: Any, method: str, X: Any, y: Any, given: dict[str, Any]) -> Any:
    """Run a fit, or let scikit-learn run it, and count it; returns the estimator."""
    began, name = time.perf_counter(), type(estimator).__name__
    vars(estimator).pop("_engine", None)
    can_leave = given.get("validation") is None and not lacking_options(estimator)
    can_leave = can_leave and "_skl_callbacks" not in vars(estimator)
    reason = _faster_there(estimator, X) if can_leave else None
    if method == "partial_fit" and can_leave and "_left" in vars(estimator):
        reason = "its optimizer is scikit-learn's, which did the fit before"
    try:
        if reason is None:
            ours()
            vars(estimator).pop("_left", None)
    except TrainingDiverged:  # scikit-learn's would too
        raise
    except (ValueError, TypeError) as error:
        if not can_leave:
            raise
        reason = str(error)
    if reason is None:
        where = f"on {estimator.network_.backend.device} ({vars(estimator).get('_engine', 'replay')})"
    else:
        _hand_over(estimator, method, X, y, given)
        REPORT.say_once(f"{name}.{method} is left to scikit-learn: {reason}")
        where = "by scikit-learn"
    REPORT.ran(name, where, time.perf_counter() - began)
    return estimator


def _faster_there(estimator: Any, X: Any) -> str | None:
    """Return why scikit-learn, whose products leave out what is 0, is the faster one for these rows; None if it is not.

    Measured with rows of 3,000 features: it took half our time where 2 of 100 were not 0, and as long with 10 of 100.
    """
    is_sparse = hasattr(X, "nnz") and getattr(X, "ndim", 0) == 2 and min(X.shape) > 0
    if not is_sparse or X.shape[1] < WIDE or estimator.device != "cpu":
        return None
    part = X.nnz / (X.shape[0] * X.shape[1])
    return f"X is sparse, {part:.2%} of it is not 0, which it multiplies faster" if part <= FEW else None


def _hand_over(estimator: Any, method: str, X: Any, y: Any, given: dict[str, Any]) -> None:
    """Let scikit-learn fit and take over what it has learned."""
    given = {name: value for name, value in given.items() if value is not None}
    goes_on = hasattr(estimator, "network_") and (method == "partial_fit" or estimator.warm_start)
    theirs = to_sklearn(estimator) if goes_on else settings_for_sklearn(estimator)
    if method == "partial_fit" and "_left" in vars(estimator):
        theirs._optimizer = estimator._left
    getattr(theirs, method)(X, y, **given)
    take_over(estimator, theirs)
    estimator._left = vars(theirs).get("_optimizer")


@dataclass(eq=False, repr=False, kw_only=True)
class MLPClassifier(Accelerated, estimators.MLPClassifier):
    """xpnet's classifier in the place of scikit-learn's.  device: that of XPNET_DEVICE, or else the CPU."""

    replaces = neural_network.MLPClassifier
    device: str = DEVICE


@dataclass(eq=False, repr=False, kw_only=True)
class MLPRegressor(Accelerated, estimators.MLPRegressor):
    """xpnet's regressor in the place of scikit-learn's.  device: that of XPNET_DEVICE, or else the CPU."""

    replaces = neural_network.MLPRegressor
    device: str = DEVICE


def _in_their_order(kind: Any) -> Any:
    """Return the class's `__init__`, which takes by position what scikit-learn's takes."""
    made = kind.__init__
    parameters = inspect.signature(kind.replaces).parameters.values()
    names = [each.name for each in parameters if each.kind is each.POSITIONAL_OR_KEYWORD]

    @wraps(made)  # so that get_params finds the names
    def init(self: Any, *values: Any, **options: Any) -> None:
        if len(values) > len(names) or options.keys() & set(names[: len(values)]):
            kind.replaces(*values, **options)  # which says what is wrong
        made(self, **dict(zip(names, values, strict=False)), **options)

    return init


SWAPPED = (MLPClassifier, MLPRegressor)
for _kind in SWAPPED:  # pickles name them as scikit-learn's
    _kind.__module__, _kind.__qualname__ = _kind.replaces.__module__, _kind.replaces.__qualname__
    setattr(_kind, "__init__", _in_their_order(_kind))  # noqa: B010  mypy knows that of a method
