"""Put xpnet's classes in the place of scikit-learn's, wherever a module has them by name, and back."""

from __future__ import annotations

import atexit
import os
import sys
from types import ModuleType
from typing import Any

from xpnet.accelerate.classes import SWAPPED
from xpnet.accelerate.report import REPORT
from xpnet.backend import select_backend
from xpnet.estimators.base import BaseMLP


def install(is_quiet: bool = False) -> None:
    """Make scikit-learn's MLPClassifier and MLPRegressor xpnet's for all modules, those imported already too.

    At the end a line on stderr tells which fits ran where.  is_quiet: it does not, and nothing else does.
    Raises ValueError or BackendUnavailable if XPNET_DEVICE names no device that there is.
    """
    from joblib.externals.loky.backend import reduction  # scikit-learn brings it

    if os.environ.get("XPNET_DEVICE"):
        select_backend(None)
    REPORT.is_quiet = is_quiet
    for kind in SWAPPED:
        _swap(kind.replaces, kind)
        reduction.register(kind, sent_state)  # of joblib's processes
    atexit.unregister(REPORT.tell)
    atexit.register(REPORT.tell)


def uninstall() -> None:
    """Give scikit-learn its classes back; estimators that were made stay what they are."""
    atexit.unregister(REPORT.tell)
    for kind in SWAPPED:
        _swap(kind, kind.replaces)


def _swap(old: type, new: type) -> None:
    for module in list(sys.modules.values()):
        if not isinstance(module, ModuleType) or module.__name__.startswith("xpnet."):
            continue
        for name, value in list(vars(module).items()):
            if value is old:
                setattr(module, name, new)


def sent_state(estimator: Any) -> tuple[Any, ...]:
    """Return how one of joblib's processes makes the estimator, as xpnet's there too."""
    REPORT.sent()
    return arrived, (type(estimator).__name__, BaseMLP.__getstate__(estimator))


def arrived(name: str, state: dict[str, Any]) -> Any:
    """Return an estimator that another process has sent; the classes are installed here too."""
    kind = next(kind for kind in SWAPPED if kind.__name__ == name)
    if vars(sys.modules[kind.__module__])[name] is not kind:
        install(is_quiet=True)
    new = object.__new__(kind)
    new.__setstate__(state)
    return new
