"""A fit that fails leaves the estimator as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from xpnet.network.network import Network
from xpnet.training.optimizers import Optimizer


@contextmanager
def as_before_on_failure(estimator: Any, goes_on: bool) -> Iterator[None]:
    """If what is done in this context raises, the estimator is what it was before.

    goes_on: whether the network of the estimator, and perhaps its optimizer, is trained on.
    """
    before: dict[str, Any] = {
        name: list(value) if isinstance(value, list) else value for name, value in vars(estimator).items()
    }
    network: Network | None = before.get("network_") if goes_on else None
    optimizer: Optimizer | None = before.get("_optimizer") if goes_on else None
    owned, keys = (None, None) if network is None else (network.owned.copy(), network.step_keys)
    inputs, backup = None if network is None else network.inputs, None if optimizer is None else optimizer.backup()
    try:
        yield
    except BaseException:
        estimator.__dict__.clear()
        estimator.__dict__.update(before)
        if network is not None:
            network.owned[...], network.step_keys, network.inputs = owned, keys, inputs
        if optimizer is not None and backup is not None:
            optimizer.put_back(backup)
        raise
