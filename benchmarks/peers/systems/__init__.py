"""One file a system. A system trains one work and returns what it computed; `benchmarks.peers.worker` times it."""

from __future__ import annotations

import importlib
from typing import Any, Protocol

import numpy as np

from ..works import Data, Parameters, Work

# Name on the command line -> module here. Order of the tables' columns.
SYSTEMS = {
    "xpnet": "xpnet_engine",
    "xpnet-calls": "xpnet_replay",
    "numpy-plain": "numpy_plain",
    "numpy-inplace": "numpy_inplace",
    "torch": "torch_eager",
    "torch-compile": "torch_compile",
    "torch-graph": "torch_graph",
    "jax": "jax_step",
    "jax-scan": "jax_scan",
    "sklearn": "sklearn_fit",
}
# The systems of each device by default.
SYSTEMS_OF = {
    "cpu": (
        "xpnet",
        "xpnet-calls",
        "numpy-plain",
        "numpy-inplace",
        "torch",
        "torch-compile",
        "jax",
        "jax-scan",
        "sklearn",
    ),
    "cuda": ("xpnet", "xpnet-calls", "torch", "torch-compile", "torch-graph", "jax", "jax-scan"),
}


class System(Protocol):
    """What each module's `System(work, data, threads, device)` offers; device: "cpu" or "cuda".

    comparable: whether it starts from the shared weights and follows the given order, so that its losses can be
    checked.  whole_epochs: whether it can only train all samples, in its own order.
    """

    comparable: bool
    whole_epochs: bool

    def __init__(self, work: Work, data: Data, threads: int, device: str) -> None: ...

    @staticmethod
    def unusable(device: str) -> str | None:
        """Return why this system cannot work on that device, or None."""
        ...

    def reset(self) -> None:
        """Go back to the initial weights."""
        ...

    def run(self, order: np.ndarray) -> float:
        """Train one step for every `batch` indices of `order`; returns when all is computed, the sum of the losses.

        A step's loss is the mean over its batch, at the weights before its update.
        """
        ...

    def parameters(self) -> Parameters:
        """Return the current weights."""
        ...

    def versions(self) -> dict[str, str]:
        """Return the versions of the packages that did the work."""
        ...


def load(name: str) -> type[System]:
    """Import the module of a system; raises ModuleNotFoundError where its package is not installed."""
    module: Any = importlib.import_module(f".{SYSTEMS[name]}", __name__)
    return module.System
