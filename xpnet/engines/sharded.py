"""Run steps shard by shard: the gradient of each of this process's shards, their sum over all processes, the update."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from xpnet.engines.memory import Memory
from xpnet.parallel.communicator import Single
from xpnet.parallel.reduction import Reduction


class StepsOfShards:
    """Runs the steps of a Program that was recorded for shards.

    at: returns, by the samples of a shard, the functions that gather them, and the calls of each phase.
    """

    def __init__(self, memory: Memory, reduction: Reduction | None, at: Callable[[int], Any]) -> None:
        program = memory.program
        assert program.shards is not None
        self._memory, self._shards, self._at = memory, program.shards, at
        self._message = memory.view("message", program.capacity)
        reduction = reduction or Reduction(Single())
        self._sum = reduction.over(program.shards, self._message, memory.backend.xp)
        self._functions = program.functions

    def run(self, order: Any, rows: Any, rows_out: Any) -> None:
        """Run the steps over an order of samples; the arguments are those of `Replay.take_steps`."""
        memory, program, n_steps = self._memory, self._memory.program, len(rows_out)
        for t in range(n_steps):
            samples = order[t * self._shards.batch : (t + 1) * self._shards.batch]
            if rows is not None:
                memory.slots[...] = rows[t]
            for number, (start, end) in enumerate(self._shards.own(len(samples)), self._shards.first):
                self._add_shard(number, samples[start:end])
            self._sum.finish()
            self._call("merge", program.capacity)  # the same for every number of samples
            if program.has_update(t, n_steps):
                self._call("update", program.capacity)
            rows_out[t] = memory.results

    def _add_shard(self, number: int, samples: Any) -> None:
        """Compute the message of a shard, which is zero where it has no samples, and hand it over."""
        if len(samples):
            step = self._at(len(samples))
            for gather in step.gathers:
                gather(samples)
            self._call("step", len(samples))
        else:
            self._message[...] = 0.0
        self._sum.add(number)

    def _call(self, function: str, batch: int) -> None:
        phases = self._at(batch).phases
        for phase in self._functions.get(function, ()):
            for call in phases[phase]:
                call()
