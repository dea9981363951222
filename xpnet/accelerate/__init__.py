"""Run scripts and notebooks that use scikit-learn's MLPs on xpnet, unchanged.

On the command line `python -m xpnet.accelerate script.py [args]`, or `-m module`; in a notebook `%load_ext
xpnet.accelerate`; at the top of a script `install()`.
"""

from __future__ import annotations

from typing import Any

import xpnet.estimators  # noqa: F401  it says which scikit-learn is needed
from xpnet.accelerate.report import REPORT
from xpnet.accelerate.swapping import install, uninstall

__all__ = ["install", "load_ipython_extension", "unload_ipython_extension"]


def load_ipython_extension(ipython: Any) -> None:
    """Install in a notebook, where a line after each cell tells of its fits."""
    install()
    ipython.events.register("post_run_cell", _tell)


def unload_ipython_extension(ipython: Any) -> None:
    """Give scikit-learn its classes back."""
    uninstall()
    ipython.events.unregister("post_run_cell", _tell)


def _tell(*_: Any) -> None:
    REPORT.tell()
