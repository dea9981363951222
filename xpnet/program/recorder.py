"""Record the kernels of one step once, as a list of calls on buffers with known places in memory.

`Recorder.xp` is an array namespace that executes nothing: each word (`xp.matmul`, `xp.add`, ...) is appended to a list
with its operands, normalised so that memory is always read in C order. The list is a `Program`; engines run it (see
`xpnet.engines.replay`). Shapes are inspected only while recording.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from typing import Any

from xpnet.program.calls import (
    INTEGER,
    REDUCTIONS,
    WORDS,
    Buffer,
    Call,
    Constant,
    Operand,
    Place,
    Program,
    RecordingError,
    aligned,
)
from xpnet.program.shards import Shards

_KEPT_BATCH_SIZES = 64  # besides the full batch: predictions come in many sizes
_SYMBOLS = {"add": "+", "subtract": "-", "multiply": "*", "divide": "/", "greater": ">", "matmul": "@"}


def record(
    build: Callable[[Recorder], None],
    *,
    batch: int,
    n_parameters: int,
    n_statistics: int = 0,
    slots: tuple[str, ...] = (),
    results: tuple[str, ...] = (),
    accumulate: int = 1,
    shards: Shards | None = None,
) -> Program:
    """Run `build` with a Recorder and return the recorded Program for `batch` samples.

    build: calls kernels with `recorder.xp`. It runs again for each other batch size (`Program.at`), and must then
    allocate the same buffers. If it allocates state, it runs twice: the first run measures the state's two regions.
    n_parameters, n_statistics: lengths of theta and of the running statistics.  The others: see `Program`.
    """

    return _Recording(build, batch, n_parameters, n_statistics, slots, results, accumulate, shards).record(batch)


@dataclass(frozen=True)
class _Recording:
    """What `record` was given."""

    build: Callable[[Recorder], None]
    capacity: int
    n_parameters: int
    n_statistics: int
    slots: tuple[str, ...]
    results: tuple[str, ...]
    accumulate: int
    shards: Shards | None

    def record(self, batch: int) -> Program:
        """Record the Program for a number of samples."""
        recorder = self._recorder(batch, None)
        if any(recorder.state_sizes.values()):
            recorder = self._recorder(batch, recorder.state_sizes)
        return recorder.finish(self.recorded, self.accumulate, self.shards)

    @cached_property
    def recorded(self) -> _Recorded:
        """As `record`; the Programs asked for last are kept."""
        return _Recorded(self)

    def _recorder(self, batch: int, sizes: Mapping[str, int] | None) -> Recorder:
        recorder = Recorder(batch, self.capacity, self.n_parameters, self.n_statistics, self.slots, self.results, sizes)
        self.build(recorder)
        return recorder


class _Recorded:
    """Records what is asked for and keeps it; a copy or a pickle keeps nothing."""

    def __init__(self, recording: _Recording) -> None:
        self._recording, self._kept = recording, lru_cache(maxsize=_KEPT_BATCH_SIZES)(recording.record)

    def __call__(self, batch: int) -> Program:
        return self._kept(batch)

    def __reduce__(self) -> tuple[type[_Recorded], tuple[_Recording]]:
        return _Recorded, (self._recording,)


class Recorder:
    """Hands out buffers and collects the calls made on them through `xp`."""

    def __init__(
        self,
        batch: int,
        capacity: int,
        n_parameters: int,
        n_statistics: int,
        slots: tuple[str, ...],
        results: tuple[str, ...],
        state_sizes: Mapping[str, int] | None = None,
    ) -> None:
        self.batch, self.capacity = batch, capacity
        self.xp = _Namespace(self)
        self._calls: list[Call] = []
        self._gathers: list[tuple[str, Buffer]] = []
        self._outputs: list[str] = []
        self._padded: list[Buffer] = []
        self._constants: list[Constant] = []
        self._buffers: dict[str, Buffer] = {}
        self._ends = {"float": 0, "uint32": 0}
        self._phase = "gradient"
        self._slots, self._results = slots, results
        self.theta = self._allocate("theta", (n_parameters,), "flat", n_parameters, align=False)
        self.statistics = self._allocate("statistics", (n_statistics,), "flat", n_statistics, align=False)
        self._n_owned = n_parameters + n_statistics
        # Where the next state goes; without `state_sizes` this run only measures the two regions.
        self._state_starts = {"float": aligned(self._n_owned), "uint32": 0}
        self._state_ends = dict(self._state_starts)
        for kind, start in self._state_starts.items():
            self._ends[kind] = start + (state_sizes or {}).get(kind, 0)
        for name in (*slots, *results):  # side by side, so that a step copies them at once
            self._allocate(name, (1, 1), "scalar", 1, align=False)
        self._ends["float"] = aligned(self._ends["float"])

    def __getitem__(self, name: str) -> Buffer:
        """Return the buffer of that name: theta, a slot, a result, or one allocated earlier."""
        return self._buffers[name]

    def __contains__(self, name: str) -> bool:
        return name in self._buffers

    def rename(self, buffer: Buffer, name: str) -> Buffer:
        """Return the same memory under another name, for a value that overwrites the previous one."""
        return self._keep(replace(buffer, name=name))

    def state(self, name: str, size: int, kind: str = "float") -> Buffer:
        """Allocate a vector (size,) that persists between steps, initially zero, such as an optimizer's average."""
        offset = self._state_ends[kind]
        self._state_ends[kind] = aligned(offset + size)
        return self._keep(Buffer(name, kind, offset, (size,), "flat"))

    @property
    def state_sizes(self) -> dict[str, int]:
        """Elements of state allocated so far, by kind."""
        return {kind: end - self._state_starts[kind] for kind, end in self._state_ends.items()}

    def flat(self, name: str, size: int, kind: str = "float") -> Buffer:
        """Allocate a vector (size,) without a batch axis, such as the gradient."""
        return self._allocate(name, (size,), "flat", size, kind)

    def matrix_in(self, flat: Buffer, name: str, offset: int, shape: tuple[int, int]) -> Buffer:
        """Return the C-ordered matrix that begins at element `offset` of a flat vector."""
        return self._keep(Buffer(name, flat.kind, flat.offset + offset, shape, "matrix"))

    def flat_in(self, flat: Buffer, name: str, offset: int, size: int) -> Buffer:
        """Return the part (size,) that begins at element `offset` of a flat vector."""
        return self._keep(Buffer(name, flat.kind, flat.offset + offset, (size,), "flat"))

    def column_in(self, flat: Buffer, name: str, offset: int, length: int) -> Buffer:
        """Return the column (length, 1) that begins at element `offset` of a flat vector."""
        return self._keep(Buffer(name, flat.kind, flat.offset + offset, (length, 1), "vector"))

    def scalar_in(self, flat: Buffer, name: str, offset: int) -> Buffer:
        """Return the number (1, 1) at element `offset` of a flat vector; it broadcasts to every shape."""
        return self._keep(Buffer(name, flat.kind, flat.offset + offset, (1, 1), "scalar"))

    def batch_matrix(self, name: str, n_features: int, kind: str = "float") -> Buffer:
        """Allocate a matrix (n_features, batch), each sample contiguous in memory."""
        size = n_features * self.capacity
        return self._allocate(name, (n_features, self.batch), "matrix", size, kind, flipped=True)

    def batch_vector(self, name: str) -> Buffer:
        """Allocate a row (1, batch): one number per sample."""
        return self._allocate(name, (1, self.batch), "vector", self.capacity, flipped=True)

    def constant(self, name: str, n_features: int, start: int, multiplier: int) -> Buffer:
        """Allocate a uint32 matrix (n_features, batch) of start + k * multiplier, k counted sample by sample."""
        buffer = self.batch_matrix(name, n_features, "uint32")
        self._constants.append(Constant(buffer, n_features * self.capacity, start, multiplier))
        return buffer

    def number(self, name: str, value: int) -> Buffer:
        """Return a uint32 number (1, 1), filled once: data, so that generated code is the same whatever it is."""
        buffer = self._allocate(name, (1, 1), "scalar", 1, "uint32")
        self._constants.append(Constant(buffer, 1, value, 0))
        return buffer

    def gather(self, name: str, buffer: Buffer) -> None:
        """Fill `buffer` with the step's samples of the data called `name`, before the first call."""
        self._gathers.append((name, buffer))

    def output(self, buffer: Buffer, name: str | None = None) -> None:
        """Have a buffer read after each step, under this name or its own."""
        self._outputs.append((buffer if name is None else self.rename(buffer, name)).name)

    def pad(self, flat: Buffer) -> None:
        """Declare that the elements of a vector between its views are 0, whatever is written there."""
        self._padded.append(flat)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Assign the calls made inside to that phase."""
        outer, self._phase = self._phase, name
        yield
        self._phase = outer

    def finish(self, rerecord: Callable[[int], Program], accumulate: int, shards: Shards | None = None) -> Program:
        """Return the recorded Program."""
        for call in self._calls:  # not earlier: only now is the end of the state known
            _refuse_overlap(call)
        return Program(
            batch=self.batch,
            capacity=self.capacity,
            calls=tuple(self._calls),
            gathers=tuple(self._gathers),
            constants=tuple(self._constants),
            slots=self._slots,
            results=self._results,
            outputs=tuple(self._outputs),
            padding=tuple(place for flat in self._padded for place in self._between_views(flat)),
            buffers=self._buffers,
            n_owned=self._n_owned,
            n_state=self.state_sizes["float"],
            n_keys=self.state_sizes["uint32"],
            n_floats=self._ends["float"],
            n_uints=self._ends["uint32"],
            accumulate=accumulate,
            shards=shards,
            rerecord=rerecord,
        )

    def _between_views(self, flat: Buffer) -> tuple[Place, ...]:
        left: tuple[Place, ...] = (flat.place,)
        for view in (buffer.place for buffer in self._buffers.values() if buffer.place != flat.place):
            left = tuple(part for place in left for part in place.without(view))
        return left

    def _allocate(
        self,
        name: str,
        shape: tuple[int, ...],
        form: str,
        size: int,
        kind: str = "float",
        flipped: bool = False,
        align: bool = True,
    ) -> Buffer:
        offset = self._ends[kind]
        end = offset + size
        self._ends[kind] = aligned(end) if align else end
        return self._keep(Buffer(name, kind, offset, shape, form, flipped))

    def _keep(self, buffer: Buffer) -> Buffer:
        if buffer.name in self._buffers:
            raise RecordingError(f"a buffer called {buffer.name!r} already exists; give this one another name")
        self._buffers[buffer.name] = buffer
        return buffer

    def record_call(self, word: str, *inputs: Any, out: Any, axis: int | None = None, keepdims: bool = False) -> None:
        """Append one call of a word of the namespace."""
        if len(inputs) != WORDS[word]:
            raise RecordingError(
                f"{word} was given {len(inputs)} operands, it takes {WORDS[word]} and out=; "
                "make more calls of it, or fewer operands"
            )
        _check_operands(word, inputs, out)
        operands: tuple[Operand | float | int, ...]
        if word == "matmul":
            operands, result = _place_product(inputs[0], inputs[1], out)
        elif word in REDUCTIONS:
            operands, result, axis = _place_reduction(word, inputs[0], out, axis, keepdims)
        else:
            operands, result = _place_elementwise(word, inputs, out)
        frame = sys._getframe(1)  # the kernel: its name and first line explain the call
        kernel = frame.f_code.co_name
        equation = (getattr(frame.f_globals.get(kernel), "__doc__", None) or "").strip().partition("\n")[0]
        text = _call_text(word, inputs, out)
        self._calls.append(Call(word, operands, result, axis, self._phase, text, kernel, equation))


class _Namespace:
    """The array namespace that kernels see while they are recorded: the words only."""

    def __init__(self, recorder: Recorder) -> None:
        for word in WORDS:
            setattr(self, word, partial(recorder.record_call, word))

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"{name!r} is not a word of the Program; the words are {', '.join(WORDS)}")


def _call_text(word: str, inputs: tuple[Any, ...], out: Buffer) -> str:
    names = [
        item.name if isinstance(item, Buffer) else f"{item:.9g}" if type(item) is float else str(item)
        for item in inputs
    ]
    symbol = _SYMBOLS.get(word)
    return f"{out.name} = " + (f" {symbol} ".join(names) if symbol else f"{word}({', '.join(names)})")


def _check_operands(word: str, inputs: tuple[Any, ...], out: Any) -> None:
    if not isinstance(out, Buffer):
        raise RecordingError(
            f"{word} writes to {type(out).__name__}; out= must be a Buffer of this Program: make one with the recorder"
        )
    kinds = {item.kind for item in inputs if isinstance(item, Buffer)}
    for item in inputs:
        # A stray np.float64 would silently turn float32 arithmetic into float64 in NumPy and CuPy alike.
        if not isinstance(item, Buffer) and type(item) not in (float, int):
            raise RecordingError(
                f"{word} was given {type(item).__name__}; operands are Buffers and Python numbers: use float(...)"
            )
    if len(kinds) != 1:
        raise RecordingError(
            f"{word} needs buffers of one kind, got {sorted(kinds) or 'numbers only'}; "
            "give it at least one, and no other kind"
        )
    (kind,) = kinds
    uint32_words = ("add", "multiply", "greater", *INTEGER)
    numbers = [item for item in inputs if not isinstance(item, Buffer)]
    if kind == "uint32" and not all(type(item) is int and 0 <= item < 2**32 for item in numbers):
        raise RecordingError(
            f"{word} on uint32 buffers takes whole numbers from 0 to 2**32 - 1, got {numbers}; take them modulo 2**32"
        )
    allowed = word in uint32_words if kind == "uint32" else word not in INTEGER
    if not allowed or out.kind != ("float" if word == "greater" else kind):
        raise RecordingError(
            f"{word} does not go from {kind} to {out.kind} ({out.name}); "
            "give a buffer of another kind, or use greater to leave uint32"
        )


def _refuse_order(word: str, item: Buffer, leader: Buffer) -> None:
    raise RecordingError(
        f"{word}: {item.name} {item.shape} does not lie in memory like {leader.name} {leader.shape}; "
        "give both the same orientation"
    )


def _refuse_overlap(call: Call) -> None:
    """Refuse an overlap of output and inputs, unless each element overwrites only its own input."""
    out = call.out.buffer
    for buffer in (operand.buffer for operand in call.operands):
        same = (buffer.offset, buffer.size) == (out.offset, out.size)
        if buffer.overlaps(out) and (not same or call.word in REDUCTIONS or call.word == "matmul"):
            raise RecordingError(
                f"{call.text}: {buffer.name} {buffer.shape} shares memory with {out.name} {out.shape} "
                "that is written; write into another buffer"
            )


def _transposed(shape: tuple[int, ...], is_transposed: bool) -> tuple[int, ...]:
    return shape[::-1] if is_transposed else shape


def _place_elementwise(
    word: str, inputs: tuple[Any, ...], out: Buffer
) -> tuple[tuple[Operand | float | int, ...], Operand]:
    """Bring all operands into the destination's memory order; vectors of its length become flat."""
    placed: list[Operand | float | int] = []
    is_matrix = out.form == "matrix"
    for item in inputs:
        if not isinstance(item, Buffer):
            placed.append(item)
        elif item.form == "scalar" and out.form != "scalar":
            placed.append(Operand(item, ()))
        elif is_matrix:
            fits = len(item.shape) == 2 and all(n in (1, full) for n, full in zip(item.shape, out.shape, strict=True))
            if not fits or (item.form == "matrix" and item.shape != out.shape):
                raise RecordingError(
                    f"{word}: {item.name} {item.shape} does not fit {out.name} {out.shape}; "
                    "give it that shape, or that of a row or column of it"
                )
            if item.form == "matrix" and item.flipped != out.flipped:
                _refuse_order(word, item, out)
            placed.append(Operand(item, _transposed(item.shape, out.flipped)))
        else:
            if item.form == "matrix" or item.shape != out.shape:
                raise RecordingError(
                    f"{word}: {item.name} {item.shape} does not fit {out.name} {out.shape}; "
                    "give it that shape, or that of a row or column of it"
                )
            placed.append(Operand(item, (item.size,)))
    shape = _transposed(out.shape, out.flipped) if is_matrix else (out.size,)
    return tuple(placed), Operand(out, shape)


def _place_reduction(
    word: str, source: Any, out: Buffer, axis: int | None, keepdims: bool
) -> tuple[tuple[Operand], Operand, int]:
    """Bring the result into the source's memory order; `out` keeps the axis with length 1."""
    if type(axis) is not int or not 0 <= axis < len(source.shape) or keepdims is not True:
        raise RecordingError(
            f"{word} needs axis=0 or axis=1 and keepdims=True, got axis={axis}, keepdims={keepdims}; "
            f"write {word}({source.name}, axis=1, keepdims=True, out=...)"
        )
    kept = tuple(1 if i == axis else n for i, n in enumerate(source.shape))
    if source.form == "flat":
        kept = (1, 1)
    if out.shape != kept or out.form not in ("vector", "scalar"):
        raise RecordingError(
            f"{word} of {source.name} {source.shape} over axis {axis} gives a vector {kept}, "
            f"out is {out.name}, a {out.form} {out.shape}; make out like that"
        )
    if source.form != "matrix":
        if out.size > 1:
            raise RecordingError(
                f"{word} of the vector {source.name} {source.shape} over axis {axis} reduces nothing; "
                f"use axis={1 - axis}, its length"
            )
        return (Operand(source, (source.size,)),), Operand(out, (1,)), 0
    memory_axis = 1 - axis if source.flipped else axis
    operand = Operand(source, _transposed(source.shape, source.flipped))
    return (operand,), Operand(out, _transposed(kept, source.flipped)), memory_axis


def _place_product(left: Any, right: Any, out: Buffer) -> tuple[tuple[Operand, Operand], Operand]:
    """Bring a product into its destination's memory order: for a flipped one, compute right^T left^T."""
    for item in (left, right, out):
        if not isinstance(item, Buffer) or item.form != "matrix":
            raise RecordingError(
                f"matmul takes matrices, got {getattr(item, 'name', item)!r}; make it with matrix_in or batch_matrix"
            )
    if left.shape[1] != right.shape[0] or out.shape != (left.shape[0], right.shape[1]):
        raise RecordingError(
            f"matmul: {left.name} {left.shape} times {right.name} {right.shape} "
            f"does not give {out.name} {out.shape}; transpose a factor with .T, or change out"
        )
    if out.flipped:
        left, right = right.T, left.T
    return (_as_stored(left), _as_stored(right)), Operand(out, _transposed(out.shape, out.flipped))


def _as_stored(buffer: Buffer) -> Operand:
    """Return an operand of a product: C-ordered memory and whether to transpose it."""
    return Operand(buffer, _transposed(buffer.shape, buffer.flipped), transposed=buffer.flipped)
