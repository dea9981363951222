"""The engine of a CUDA GPU: a Program's launches as generated kernels, its products by cuBLAS.

What costs on a GPU is the launch. A step is one kernel that gathers, one for each launch of `xpnet.program.grouping`,
and the products between them; nothing is allocated or transferred. Launches and products are bound to their arguments
once for each batch size (`xpnet.engines.cuda.launching`), and a step calls the list.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from xpnet.backend import Backend
from xpnet.engines.cuda.chunk import Chunk, chunk_source
from xpnet.engines.cuda.launching import Arguments, Prebound, compiled, launcher, numbers
from xpnet.engines.cuda.text import Data, Kernel, blocks, cuda_source, gather_workers
from xpnet.engines.engine import Engine, EpochsRun
from xpnet.engines.memory import BySize, Memory
from xpnet.engines.replay import BoundStep, Phases, Replay, bound_step
from xpnet.engines.sharded import StepsOfShards
from xpnet.parallel.reduction import Reduction
from xpnet.program.calls import Program
from xpnet.program.grouping import partial_sums, threads
from xpnet.program.places import place_of


class Cuda(Engine):
    """Runs a Program on a CUDA GPU by its launches.

    The arguments are those of `Memory`.  precision: of products, one of COMPUTE_TYPES; "fp64" in float64.
    blas_threads: of NumPy's products; there are none.  reduction: adds the shards of a step, where the Program is
    recorded for them.  deterministic: see `Prebound`.
    CuPy keeps the compiled kernels on disk by their text, which Programs of other capacities share up to the length
    from which on sums are shared out. A batch size that the text does not hold for is replayed.
    """

    name = "cuda"
    # A sum of products is to round as the calls one by one do, of which no two are contracted. CuPy adds -ftz=true, by
    # which float32 results below the normal numbers are 0.
    OPTIONS = ("--fmad=false",)
    # Operations of a step up to which all steps of a run are one launch. None, until a device has shown that it gains:
    # by estimates up to some 50 million.
    ONE_LAUNCH_FLOPS = 0.0

    def __init__(
        self,
        program: Program,
        backend: Backend,
        owned: Any,
        data: Mapping[str, tuple[Any, float | None]] | None = None,
        precision: str = "fp32",
        blas_threads: int | None = None,
        reduction: Reduction | None = None,
        deterministic: bool = False,
    ) -> None:
        self.memory = Memory(program, backend, owned, data, partial_sums(program))
        self.precision = precision if backend.dtype == np.float32 else "fp64"
        self.memory.check_data()
        self._replay = Replay(program, backend, owned, data, memory=self.memory)
        self._steps = BySize[BoundStep](program.capacity)
        sources = {name: source for name, (source, _) in self.memory.data.items()}
        # Buffers begin at multiples of 64 bytes; arrays of a user's may begin anywhere.
        is_aligned = all(source.data.ptr % 16 == 0 for source in sources.values())
        self._data = Data({name: source.dtype for name, source in sources.items()}, is_aligned)
        self._source = cuda_source(program, backend.dtype, self._data)
        self._module = compiled(backend.xp, self._source.text, self.OPTIONS)
        # Every kernel reaches every buffer through these three.
        self._memory_arguments = (owned, self.memory.floats, self.memory.uints)
        self.deterministic = True if deterministic else None
        self._launcher = launcher(self.memory, precision, deterministic)
        self._queue = self._launcher.queue()
        self._shards = StepsOfShards(self.memory, reduction, self._shard_at) if program.shards else None
        self._chunk = self._made_chunk() if self._is_small(program) else None

    def run(self, order: np.ndarray, rows_in: np.ndarray) -> np.ndarray:
        """See `Engine.run`; each step's gather also takes out the results of the step before."""
        program, backend = self.program, self.memory.backend
        device_order, rows = self.memory.upload(order, rows_in)
        if self._shards is not None:
            return self._run_shards(self._shards, device_order, rows, len(rows_in))
        rows_out = backend.xp.empty((len(rows_in), len(program.results)), dtype=backend.dtype)
        self._follow_queue()
        self.take_steps(device_order, rows_out if rows is None else rows, rows_out)
        return backend.to_host(rows_out).astype(np.float64)

    def take_steps(self, order: Any, rows: Any, rows_out: Any) -> None:
        """Launch the steps of `run`, or those of epochs that follow each other, on arrays of the device.

        rows (n_steps, n_slots): anything without slots.  rows_out (n_steps, n_results): is filled.
        """
        program = self.program
        capacity, n_samples, n_steps = program.capacity, len(order), len(rows_out)
        fixed = (order, rows, rows_out, *self._gathered())
        if self._chunk is not None and self._chunk.holds_for(n_samples):
            self._chunk.run(*fixed)
            return
        arguments = Arguments([*self._memory_arguments, np.int32(0), np.int32(0), np.int32(capacity), *fixed])
        at_m = len(self._memory_arguments)
        at_t = at_m + 1
        function = self._module.get_function("gather")
        for t in range(n_steps + 1):
            if t in (0, 1, n_steps - 1, n_steps):  # no results before step 1, fewer samples in the last, then none
                m = min(capacity, n_samples - t * capacity) if t < n_steps else 0
                arguments.set(at_m, m)
                n_blocks = blocks(gather_workers(program, self._data, self.memory.backend.dtype, m, t))
                gather = self._launcher.kernel(self._queue, function, n_blocks, arguments)
            if n_blocks:  # a Program may have nothing to move; CUDA refuses an empty grid
                arguments.set(at_t, t)
                gather()
            if t == n_steps:
                break
            if t in (0, n_steps - 1):
                step = self.at(m)
            for call in step.calls:
                call()
            if step.update and program.has_update(t, n_steps):
                for call in step.update:
                    call()

    def epochs(self, n: int, measuring: Engine | None = None) -> CudaEpochs | None:
        """See `Engine.epochs`; None with a measurement after each epoch, and where several processes train."""
        return None if measuring is not None or self._shards is not None else CudaEpochs(self)

    def _run_shards(self, shards: StepsOfShards, order: Any, rows: Any, n_steps: int) -> np.ndarray:
        """Run the steps of a Program that is recorded for shards."""
        backend = self.memory.backend
        rows_out = backend.xp.empty((n_steps, len(self.program.results)), dtype=backend.dtype)
        self._follow_queue()
        shards.run(order, rows, rows_out)
        return backend.to_host(rows_out).astype(np.float64)

    def _shard_at(self, batch: int) -> BoundStep:
        """Return the launches for a shard of that many samples, which CuPy gathers."""
        return replace(self.at(batch), gathers=self._replay.at(batch).gathers)

    def _is_small(self, program: Program) -> bool:
        return program.flops <= self.ONE_LAUNCH_FLOPS and not program.shards

    def _made_chunk(self) -> Chunk | None:
        """Return what runs all steps by one launch; None where the device or CuPy cannot."""
        if not isinstance(self._launcher, Prebound) or not self._launcher.launches_grids():
            return None
        memory = self.memory
        source = chunk_source(self.program, memory.backend.dtype, self._data)
        module = compiled(memory.backend.xp, source.text, self.OPTIONS)
        return Chunk(source, memory, self._memory_arguments, self._launcher, module)

    def execute(self, batch: int, *phases: str) -> None:
        """See `Engine.execute`."""
        self._follow_queue()
        step = self.at(batch)
        for phase in phases or step.phases:
            for call in step.phases[phase]:
                call()

    def at(self, batch: int) -> BoundStep:
        """Return the launches for that batch size; bound once."""
        return self._steps.get(batch, self._bind)

    def _follow_queue(self) -> None:
        """Bind the launches anew if they are to go to another stream, or are asked for by another thread."""
        if (queue := self._launcher.queue()) != self._queue:
            self._queue, self._steps = queue, BySize[BoundStep](self.program.capacity)

    def _gathered(self) -> list[Any]:
        """The gather's last arguments: where the data of each name go, the data, and the scale of uint8 ones."""
        arguments: list[Any] = []
        for name, buffer in self.memory.gathers:
            source, scale = self.memory.data[name]
            arguments += [self._source.integer(place_of(self.program, buffer).start), source]
            arguments += [] if scale is None else [self.memory.backend.dtype.type(scale)]
        return arguments

    def _bind(self, batch: int) -> BoundStep:
        source, program = self._source, self.memory.at(batch)
        if not source.sizes.hold_for(program):  # a user's kernel asked for the length: rare, so its calls one by one
            return self._replay.at(batch)
        self.memory.forget_arrays()
        phases: Phases = {name: [] for name in program.phases}
        kept: list[Any] = []
        for launch, kernel in zip(source.launches, source.kernels, strict=True):
            call = program.calls[launch.groups[0].steps[0].index]
            if kernel is None or (launch.is_product and call.out.buffer.size > 1):
                phases[launch.phase].append(self._launcher.product(self._queue, call))
                continue
            function, arguments = self._module.get_function(kernel.name), self._arguments(program, kernel)
            n_blocks = blocks([threads(program, group) for group in launch.groups])
            phases[launch.phase].append(self._launcher.kernel(self._queue, function, n_blocks, arguments))
            kept.append((function, arguments))
        return bound_step(program, phases, kept=tuple(kept))

    def _arguments(self, program: Program, kernel: Kernel) -> Arguments:
        places = map(self._source.integer, kernel.places)
        given = numbers(program, kernel.numbers, self.memory.backend.dtype)
        return Arguments([*self._memory_arguments, np.int32(program.batch), *places, *given])


class CudaEpochs:
    """Runs epochs without a read between them; where all steps are full, by what runs one epoch: one launch, say."""

    def __init__(self, engine: Cuda) -> None:
        self._engine = engine

    def run(self, orders: np.ndarray, rows_in: np.ndarray, copies: bool = True) -> EpochsRun:
        """Run an epoch for each row of `orders`; see `RunsEpochs.run`.  The copies stay on the device."""
        engine, memory = self._engine, self._engine.memory
        program, xp, (n_epochs, n_steps) = engine.program, memory.backend.xp, rows_in.shape[:2]
        device_orders, rows = memory.upload_epochs(orders, rows_in)
        rows_out = xp.empty((n_epochs, n_steps, len(program.results)), dtype=memory.backend.dtype)
        rows = rows_out if rows is None else rows  # not read without slots
        engine._follow_queue()
        sources = memory.owned, memory.state, memory.keys
        kept = [xp.empty((n_epochs, array.size), array.dtype) if copies else array[None] for array in sources]
        is_one = orders.shape[1] % program.capacity == 0 and n_steps % program.accumulate == 0 and not copies
        at_once = n_epochs if is_one else 1
        for first in range(0, n_epochs, at_once):
            part = slice(first, first + at_once)
            epochs = device_orders[part], rows[part], rows_out[part]
            order, slots, out = (array.reshape(-1, *array.shape[2:]) for array in epochs)
            engine.take_steps(order, slots, out)
            for array, rows_of in zip(sources, kept, strict=True) if copies else ():
                rows_of[first] = array
        results = memory.backend.to_host(rows_out).astype(np.float64)
        return EpochsRun(results, kept[0], kept[1], kept[2], None)
