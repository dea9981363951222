"""What an optimizer keeps from update to update, and of which network."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from xpnet.engines.engine import Engine
    from xpnet.network.network import Network


@dataclass(frozen=True)
class Snapshot:
    """An optimizer at one moment: its network, the updates made, and copies of its state."""

    network: weakref.ref[Network] | None
    steps_done: int
    state: Any
    keys: Any

    def packed(self) -> tuple[Network | None, int, Any, Any]:
        """Return the network itself, and arrays on the host; those of a network that is gone are of no use."""
        network = None if self.network is None else self.network()
        if network is None or self.state is None:
            return network, self.steps_done, None, None
        values, keys = (network.backend.to_host(array).copy() for array in (self.state, self.keys))
        return network, self.steps_done, values, keys

    @classmethod
    def unpacked(cls, network: Network | None, steps_done: int, values: Any, keys: Any) -> Snapshot:
        """Return the snapshot that `packed` took apart, on the network's device."""
        if network is None:
            return cls(None, steps_done, None, None)
        if values is not None:
            to_device = network.backend.to_device
            values, keys = to_device(values), to_device(keys, np.uint32)
        return cls(weakref.ref(network), steps_done, values, keys)


class OwnsState:
    """The state of an optimizer: the vectors and numbers that live on from step to step, of one network.

    ema: whether, and how, theta is averaged.
    """

    ema: float | None

    def __init__(self) -> None:
        self._snapshot = Snapshot(None, 0, None, None)
        self._ema_start = 0

    @property
    def steps_done(self) -> int:
        """Updates made of the network that it trained last, which the schedule follows."""
        return self._snapshot.steps_done

    def attach(self, network: Network, engine: Engine) -> None:
        """Make the engine continue from this network's state; to be called before every run of an engine.

        From now on the engine's state is the optimizer's, without a copy, until another engine is attached.
        """
        before = self._snapshot
        same = before.network is not None and before.network() is network
        if same and before.state is engine.state:
            return
        if same:  # the keys too: dropout's masks continue where they stopped
            engine.state[...], engine.keys[...] = before.state, before.keys
        else:
            engine.state[...] = 0.0
        if self.ema is not None:
            self._ema_start = engine.program.buffers["ema"].offset - engine.program.state_offset
        self._snapshot = Snapshot(weakref.ref(network), before.steps_done if same else 0, engine.state, engine.keys)

    def advance(self, n_updates: int) -> None:
        """Count updates that an engine has made."""
        before = self._snapshot
        self._snapshot = Snapshot(before.network, before.steps_done + n_updates, before.state, before.keys)

    def detach(self) -> None:
        """Copy the state, so that the memory of a finished engine can be freed."""
        self._snapshot = self.snapshot()

    def snapshot(self) -> Snapshot:
        """Return what `restore` takes: copies, on the device."""
        before = self._snapshot
        state, keys = (None if array is None else array.copy() for array in (before.state, before.keys))
        return Snapshot(before.network, before.steps_done, state, keys)

    def restore(self, snapshot: Snapshot) -> None:
        """Restore a snapshot; the next engine that is attached continues from it."""
        self._snapshot = snapshot

    def backup(self) -> dict[str, Any]:
        """Return what `put_back` takes: copies of the state, and all else that may change."""
        return vars(self) | {"_snapshot": self.snapshot()}

    def put_back(self, backup: dict[str, Any]) -> None:
        """Make the optimizer what it was at its `backup`."""
        vars(self).update(backup)

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy or a pickle needs; the network comes along, so that the two are copied as a pair."""
        return vars(self) | {"_snapshot": self._snapshot.packed()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        if isinstance(state.get("_snapshot"), tuple):  # estimators pickled by xpnet 0.1 restore it themselves
            state = state | {"_snapshot": Snapshot.unpacked(*state["_snapshot"])}
        vars(self).update(state)
