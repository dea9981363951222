"""Programs of random calls on random views that overlap, and what they come to, one call after the other on copies."""

from __future__ import annotations

from typing import Any

import numpy as np

from xpnet.program.calls import BINARY, INTEGER, REDUCTIONS, Operand, Program, RecordingError
from xpnet.program.recorder import Recorder, record

_SIZE = 40  # of theta, and of a flat vector; most views begin where another one does
# Of whole numbers these make numbers that float64 holds exactly: engines must agree to the bit.
_FLOAT_WORDS = ("add", "subtract", "maximum", "minimum", "greater", "abs", "sign", *REDUCTIONS, *REDUCTIONS)
_UINT_WORDS = ("add", "multiply", "greater", *INTEGER)
_BATCH = "batch"  # stands for a number that depends on the batch length


def random_program(seed: int, n_calls: int = 24) -> Program:
    """A Program whose calls the recorder takes at the full batch and, four times in five, at shorter ones too."""
    rng = np.random.default_rng(seed)
    capacity = int(rng.choice([1, 2, 3, 4, 8]))
    lengths = [1, 2, 3, 4, capacity]
    draws = (
        rng.integers(2, size=9),
        rng.integers(4, size=9),
        rng.choice([0, 4, 8, 9], 9),
        *rng.choice(lengths, (2, 9)),
    )
    views = np.stack(draws, axis=1).tolist()
    features = [int(rng.choice(lengths)) for _ in range(3)]
    always = rng.random() < 0.8
    chosen: list[tuple[Any, ...]] = []

    def buffers_of(recorder: Recorder) -> list[Any]:
        flats = [recorder.theta, recorder.flat("memory", _SIZE)]
        found = list(flats)
        for i, (base, form, start, rows, columns) in enumerate(views):
            flat, name = flats[base], f"view{i}"
            if form == 0 and start + rows * columns <= _SIZE:
                found.append(recorder.matrix_in(flat, name, start, (rows, columns)))
            elif form == 1 and start + rows * columns <= _SIZE:
                found.append(recorder.flat_in(flat, name, start, rows * columns))
            elif form == 2:
                found.append(recorder.column_in(flat, name, start, rows))
            else:
                found.append(recorder.scalar_in(flat, name, start))
        found += [recorder.batch_matrix(f"B{i}", n) for i, n in enumerate([*features, features[0]])]
        found += [recorder.batch_vector(name) for name in ("r", "s")]
        found += [recorder.batch_matrix(f"U{i}", features[0], "uint32") for i in range(2)]
        found += [recorder.scalar_in(recorder.flat("keys", 4, "uint32"), "key", 1)]
        return found + [buffer.T for buffer in found if buffer.form == "matrix"]

    def say(recorder: Recorder, buffers: list[Any], call: tuple[Any, ...]) -> None:
        word, inputs, out, axis = call
        number = recorder.batch * 1640531527 if word in INTEGER or buffers[out].kind == "uint32" else recorder.batch / 2
        items = [number if item is _BATCH else buffers[item] if type(item) is np.int64 else item for item in inputs]
        getattr(recorder.xp, word)(
            *items, out=buffers[out], **({} if axis is None else {"axis": axis, "keepdims": True})
        )

    def choose(n: int) -> tuple[Any, ...]:
        word = str(rng.choice(_UINT_WORDS if rng.random() < 0.1 else _FLOAT_WORDS))
        inputs = list(rng.integers(n, size=2 if word in (*BINARY, *INTEGER) else 1))
        if len(inputs) == 2 and rng.random() < 0.3:
            inputs[1 if word in INTEGER else int(rng.integers(2))] = [_BATCH, 2, 0.5, 3000000000][rng.integers(4)]
        if word == "right_shift":
            inputs[1] = 7
        return word, inputs, int(rng.integers(n)), int(rng.integers(2)) if word in REDUCTIONS else None

    def build(recorder: Recorder) -> None:
        buffers = buffers_of(recorder)
        if chosen:
            for call in chosen:
                say(recorder, buffers, call)
            return
        shorter = {1, max(1, capacity // 2), max(1, capacity - 1)} if always else ()
        trials = [Recorder(m, capacity, _SIZE, 0, (), ()) for m in (capacity, *shorter)]
        tried = [(trial, buffers_of(trial)) for trial in trials]
        while len(chosen) < n_calls:
            call = choose(len(buffers))
            try:
                for trial, its in tried:
                    trial._calls.clear()
                    say(trial, its, call)
                    trial.finish(lambda m: record(build, batch=m, n_parameters=_SIZE), 1)  # refuses an overlap
            except RecordingError:
                continue
            say(recorder, buffers, call)
            chosen.append(call)

    return record(build, batch=capacity, n_parameters=_SIZE)


def one_by_one(program: Program, floats: np.ndarray, uints: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The float and the uint32 arena after the calls, computed by NumPy on copies of the operands."""
    arenas = {"float": floats.copy(), "uint32": uints.copy()}

    def array(operand: Operand) -> np.ndarray:
        start = operand.buffer.offset
        found = arenas[operand.buffer.kind][start : start + operand.buffer.size].reshape(operand.shape)
        return found.T if operand.transposed else found

    for call in program.calls:
        inputs = [array(item).copy() if isinstance(item, Operand) else item for item in call.inputs]
        keywords = {} if call.axis is None else {"axis": call.axis, "keepdims": True}
        array(call.out)[...] = getattr(np, call.word)(*inputs, **keywords)
    return arenas["float"], arenas["uint32"]
