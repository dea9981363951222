"""An estimator's network and optimizer in a pickle, and on another device."""

from __future__ import annotations

from copy import copy
from typing import Any

from xpnet.backend import Backend
from xpnet.network.network import Network
from xpnet.training.optimizers import Optimizer, Snapshot


class Stored:
    """A network and its optimizer without device or engine: host arrays, as they go into a pickle."""

    def __init__(self, network: Network, optimizer: Optimizer | None) -> None:
        backend = network.backend
        self.architecture, self.owned = network.architecture, backend.to_host(network.owned).copy()
        self.device, self.dtype = backend.device, backend.dtype
        self.inputs, self.has_warned = network.inputs, network.has_warned
        self.optimizer: Any = None
        left = None if optimizer is None else optimizer.snapshot()
        if left is not None and left.state is not None:
            self.steps_done = left.steps_done
            self.state, self.keys = backend.to_host(left.state), backend.to_host(left.keys)
            self.optimizer = copy(optimizer)
            self.optimizer.restore(Snapshot(None, 0, None, None))

    def placed_on(self, backend: Backend) -> tuple[Network, Any]:
        """Return the network on a backend, and the optimizer that continues with it, or None."""
        network = Network(self.architecture.layers, loss=self.architecture.loss, backend=backend)
        network.owned[...] = backend.to_device(self.owned)
        network.inputs = getattr(self, "inputs", None)  # not in pickles of xpnet 0.1
        network.has_warned = getattr(self, "has_warned", False)
        if self.optimizer is not None:
            self.optimizer.restore(Snapshot.unpacked(network, self.steps_done, self.state, self.keys))
        return network, self.optimizer
