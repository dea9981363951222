"""The compiled engine against the calls one by one: single steps from equal weights, and what it refuses."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from chosen import in_turn, pairwise
from features import (
    FACTORS,
    FEATURES,
    STRUCTURES,
    asks_for_the_length,
    data_of,
    feature_of,
    network_of,
    program_of,
    run_steps,
    without_noise,
)
from random_programs import one_by_one, random_program

import xpnet
from xpnet import select_backend
from xpnet.engines.choice import make_engine
from xpnet.engines.llvm import engine as llvm_engine
from xpnet.engines.llvm import loops as llvm_loops
from xpnet.engines.llvm.engine import Compiled
from xpnet.engines.llvm.run import program_text as step_text
from xpnet.engines.llvm.units import CannotPrint
from xpnet.engines.replay import Replay
from xpnet.network.programs import evaluation_program
from xpnet.program import loops
from xpnet.program.calls import BINARY, UNARY, Program, RecordingError
from xpnet.program.recorder import record

pytest.importorskip("llvmlite")

TOLERANCES = {"float32": 1e-5, "float64": 1e-12}  # of the vector's maximum, a step
DTYPES = tuple(TOLERANCES)
BY_SIZE = ("Adam", "AdamW", "NAdam", "RMSProp", "AdaGrad", "Lion")  # optimizers that divide by the gradient's own size


def agree(expected, found, dtype, n_steps=3):
    for one, other in zip(expected, found, strict=True):
        assert one.shape == other.shape and np.isfinite(one).all()
        scale = max(np.abs(one).max(initial=0), 1e-3)
        assert np.abs(one.astype(float) - other).max(initial=0) <= n_steps * TOLERANCES[dtype] * scale


def with_threads(n):
    return partial(Compiled, threads=n)


# --- networks --------------------------------------------------------------------------------------------------------


@pytest.mark.in_turn(name=STRUCTURES, dtype=DTYPES)
def test_equals_the_calls_one_by_one(name, dtype, quick):
    """Three steps, the last of another length: theta, statistics, state, keys, results."""
    backend = select_backend("cpu", dtype)
    expected = run_steps(FEATURES[name], backend, 8, 21, Replay)
    agree(expected, run_steps(FEATURES[name], backend, 8, 21, with_threads(2)), dtype)


@pytest.mark.parametrize(
    ("name", "dtype", "threads"),
    [
        ("one wide", "float64", 1),
        pytest.param("dropout, batch normalization, Adam", "float32", 2, marks=pytest.mark.full),
    ],
)
def test_optimised_code_equals_the_calls_one_by_one(name, dtype, threads):
    backend = select_backend("cpu", dtype)
    expected = run_steps(FEATURES[name], backend, 8, 21, Replay)
    agree(expected, run_steps(FEATURES[name], backend, 8, 21, with_threads(threads)), dtype)


@pytest.mark.full
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FEATURES)
def test_optimised_code_equals_the_calls_one_by_one_in_full(name, dtype, threads):
    test_optimised_code_equals_the_calls_one_by_one(name, dtype, threads)


def compare(row):
    feature, backend = feature_of(row), select_backend("cpu", row["dtype"])
    agree(
        *(
            without_noise(feature, run_steps(feature, backend, 4, 10, make))
            for make in (Replay, with_threads(row["threads"]))
        ),
        row["dtype"],
    )


@pytest.mark.parametrize("row", in_turn(**FACTORS), ids=str)
def test_features_together(row, quick):
    """Every value of every factor, beside others of the other factors."""
    compare(dict(zip(FACTORS, row, strict=True)))


@pytest.mark.full
@pytest.mark.parametrize("part", range(16))
def test_pairs_of_features_in_full(part):
    for row in pairwise(**FACTORS)[part::16]:
        factors = dict(zip(FACTORS, row, strict=True))
        if factors["loss"] == "hinge" and factors["optimizer"] in BY_SIZE:
            # Hinge's gradients are sums of +x and -x, which may cancel but for rounding, some 1e-9 in float32; divided
            # by their own size + 1e-8 that is a step.
            factors["dtype"] = "float64"
        compare(factors)


@pytest.mark.in_turn(
    batch=[1, 2, 7],
    name=["loss softmax_cross_entropy", "layer normalization", "one wide", "one layer, one input, one output"],
)
def test_every_batch_size(name, batch, quick):
    backend = select_backend("cpu", "float64")
    expected, found = (
        run_steps(FEATURES[name], backend, batch, 2 * batch + batch // 2, make) for make in (Replay, with_threads(2))
    )
    agree(expected, found, "float64")


# --- threads ---------------------------------------------------------------------------------------------------------


@pytest.mark.full
@pytest.mark.parametrize(
    ("batch", "hidden"),
    [*(pytest.param(*shape, marks=pytest.mark.full) for shape in ((1, (1, 20)), (3, (17, 2)))), (16, (33, 20))],
)
def test_threads_change_nothing_from_run_to_run(batch, hidden, monkeypatch):
    """Bit by bit, ten times; whoever comes first."""
    monkeypatch.setattr(llvm_engine, "program_text", printed_once())
    feature = {"hidden": hidden, "normalization": "layer", "weighted": True, "options": {"clip_norm": 0.1}}
    backend = select_backend("cpu", "float32")
    one, n_samples = run_steps(feature, backend, batch, 9 * batch + batch // 2, Replay), 9 * batch + batch // 2
    runs = [run_steps(feature, backend, batch, n_samples, with_threads(2)) for _ in range(10)]  # compiled once
    agree(one, runs[0], "float32", 20)
    assert len({b"".join(array.tobytes() for array in run) for run in runs}) == 1


def printed_once():
    """The printer, for many engines of one Program: it gives them all the text that it printed for the first."""
    texts = []

    def program_text(*arguments, **named):
        texts[:] = texts or [step_text(*arguments, **named)]
        return texts[0]

    return program_text


def test_engines_share_nothing(quick):
    """Two engines, each of two threads, in two Python threads at once."""
    backend, feature = select_backend("cpu", "float32"), FEATURES["dropout, batch normalization, Adam"]
    expected = run_steps(feature, backend, 8, 800, with_threads(2))
    found = {}

    def work(number):
        found[number] = run_steps(feature, backend, 8, 800, with_threads(2))

    workers = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    gc.collect()
    for number in range(2):
        for one, other in zip(expected, found[number], strict=True):
            assert one.tobytes() == other.tobytes()


@pytest.mark.in_turn(threads=[1, 2, 3], dtype=DTYPES)
def test_products_of_the_library(dtype, threads, monkeypatch, quick):
    monkeypatch.setattr(llvm_engine, "LEAST_FLOPS", 0.0)
    monkeypatch.setattr(llvm_engine, "LEAST_FLOPS_ON_TWO", 0.0)
    backend = select_backend("cpu", dtype)
    engines = []

    def make(*arguments):
        engines.append(Compiled(*arguments, threads=threads))
        return engines[-1]

    for name in ("everything", "one wide"):
        agree(*(run_steps(FEATURES[name], backend, 8, 21, maker) for maker in (Replay, make)), dtype)
    assert engines[0].gemm is None or "call void %gemm" in engines[0]._text.text


# --- products of kernels of a user's own ------------------------------------------------------------------------------


def product_into(recorder, flat, start, shape, seed=""):
    """A matrix at a place of a flat vector, made by a product of what stands in memory."""
    rows, columns = shape
    A, B = (
        recorder.matrix_in(recorder.flat(f"in {seed}{name}{start}", 4 * n), f"{name}{start}{seed}", 0, lies)
        for name, n, lies in (("A", rows, (rows, 4)), ("B", columns, (columns, 4)))
    )
    out = recorder.matrix_in(flat, f"product {start}{seed}", start, shape)
    recorder.xp.matmul(A, B.T, out=out)
    return out


def shifted(recorder, shift):
    """theta is updated by a gradient and by the same gradient some places on."""
    xp, theta, gradient = recorder.xp, recorder.theta, recorder.flat("gradient", 256)
    for start in (0, 64, 128):
        product_into(recorder, gradient, start, (8, 8))
    with recorder.phase("update"):
        for name, start in (("one", 32), ("other", 32 + shift)):
            xp.subtract(theta, recorder.flat_in(gradient, name, start, 192), out=theta)


def few_rows(recorder):
    """Of a result of so few rows the right factor is not transposed, in a strip of it neither."""
    part, gradient = recorder.flat_in(recorder.theta, "part", 0, 80), recorder.flat("gradient", 80)
    product_into(recorder, gradient, 0, (2, 40))
    with recorder.phase("update"):
        recorder.xp.subtract(part, gradient, out=part)


def read_by_a_later_launch(recorder):
    """A call before the update in the Program, which waits for another product, reads the gradient."""
    xp, theta, gradient = recorder.xp, recorder.theta, recorder.flat("gradient", 64)
    dW = product_into(recorder, gradient, 0, (8, 8))
    first, last = recorder.flat_in(theta, "first", 0, 64), recorder.flat_in(theta, "last", 128, 64)
    xp.multiply(last, 0.5, out=last)
    late = product_into(recorder, recorder.flat("memory", 64), 0, (8, 8), "late")
    later = recorder.matrix_in(recorder.flat("more", 64), "later", 0, (8, 8))
    xp.matmul(late, late, out=later)
    W = recorder.matrix_in(theta, "W", 64, (8, 8))
    xp.add(dW, later, out=later)
    xp.add(W, later, out=W)
    xp.subtract(first, gradient, out=first)


def bias_of_another_shape(recorder):
    """A number for each of six columns, added to what a product made as four columns."""
    memory = recorder.flat("memory", 24)
    product_into(recorder, memory, 0, (6, 4))
    seen = recorder.matrix_in(memory, "seen", 0, (4, 6)).T
    recorder.xp.add(seen, recorder.column_in(recorder.flat("in bias", 6), "bias", 0, 6), out=seen)
    part = recorder.flat_in(recorder.theta, "part", 0, 24)
    recorder.xp.add(part, memory, out=part)


BY_HAND = {
    **{f"shifted by {shift}": partial(shifted, shift=shift) for shift in (-32, -8, 0, 3, 8, 32)},
    "few rows": few_rows,
    "read by a later launch": read_by_a_later_launch,
    "bias of another shape": bias_of_another_shape,
}


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("name", BY_HAND)
def test_what_is_fused_into_products_of_a_users_own(name, threads, quick):
    program, backend, found = record(BY_HAND[name], batch=4, n_parameters=192), select_backend("cpu", "float64"), []
    for make in (Replay, with_threads(threads)):
        engine, rng = make(program, backend, np.linspace(-1.0, 1.0, 192)), np.random.default_rng(0)
        for buffer in program.buffers.values():
            if buffer.name.startswith("in "):
                engine.memory._slice("float", buffer.offset, buffer.size)[...] = rng.standard_normal(buffer.size)
        engine.run(np.arange(8), np.empty((2, 0)))
        found.append([engine.memory.owned])
    agree(*found, "float64")


# --- words -----------------------------------------------------------------------------------------------------------


def run_arenas(program: Program, floats, uints, dtype, threads=1, n_samples=None):
    """The arenas after a run of steps on them."""
    backend = select_backend("cpu", dtype)
    engine = Compiled(program, backend, floats[: program.n_owned].astype(dtype), threads=threads)
    memory = engine.memory.floats[: program.n_floats - program.n_owned]
    memory[...], engine.memory.uints[...] = floats[program.n_owned :], uints
    n_samples = program.capacity if n_samples is None else n_samples
    engine.run(np.arange(n_samples), np.empty((-(-n_samples // program.capacity), 0)))
    return np.concatenate([engine.memory.owned, memory]), engine.memory.uints


@pytest.mark.in_turn(seed=range(12), stores=["every", "needed"])
def test_random_calls_on_views_that_overlap(seed, stores, monkeypatch, quick):
    """To the bit, at each batch size; with all stores all of memory, else what outlives the step.

    Every other seed adds up in blocks of a few numbers.
    """
    if stores == "every":
        monkeypatch.setattr(loops, "is_read_after", lambda *_: True)
    if seed % 2:
        monkeypatch.setattr(llvm_loops, "LONG_SUM", 3)
        monkeypatch.setattr(llvm_loops, "LONG_COLUMN", 2)
    program, rng = random_program(seed), np.random.default_rng(seed)
    for m in range(program.capacity, 0, -1):
        try:
            shorter = program.at(m)
        except RecordingError:
            continue
        floats = rng.integers(-4, 5, size=program.n_floats).astype(float)
        uints = rng.integers(2**32, size=program.n_uints, dtype=np.uint32)
        floats_after, uints_after = one_by_one(shorter, floats, uints)
        try:
            found = run_arenas(program, floats, uints, "float64", 1 + seed % 3, m)
        except CannotPrint as reason:
            assert "depends on the batch length" in str(reason)
            return
        if stores == "every":
            np.testing.assert_array_equal(found[1], uints_after)
        n = len(floats) if stores == "every" else program.n_owned
        np.testing.assert_array_equal(found[0][:n], floats_after[:n])


SPECIAL = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, 2.5, -0.3, 1e30, 1e-30, 88.0, -120.0]


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_word_on_special_values(dtype, quick):
    """Of all pairs, and with a number on either side: NaN passes through maximum, minimum, max and sign."""
    first, second = (np.array(column) for column in zip(*product(SPECIAL, SPECIAL), strict=True))
    n, words = len(first), []

    def build(recorder):
        a, b = (recorder.flat_in(recorder.theta, name, i * n, n) for i, name in enumerate("ab"))
        said = [(word, (a, b)) for word in BINARY] + [(word, (a,)) for word in UNARY]
        said += [(word, pair) for word in BINARY for number in (0.0, 1.5) for pair in ((a, number), (number, a))]
        words.clear()
        for i, (word, operands) in enumerate(said):
            getattr(recorder.xp, word)(*operands, out=recorder.flat_in(recorder.theta, f"{i}", (i + 2) * n, n))
            words.append((word, [item if isinstance(item, float) else item.name for item in operands]))

    program = record(build, batch=1, n_parameters=50 * n)
    floats = np.zeros(program.n_floats)
    floats[:n], floats[n : 2 * n] = first, second
    found = run_arenas(program, floats, np.empty(0, np.uint32), dtype)[0][: 50 * n].reshape(50, n)
    arrays = {"a": first.astype(dtype), "b": second.astype(dtype)}
    for i, (word, operands) in enumerate(words):
        with np.errstate(all="ignore"):
            expected = getattr(np, word)(*(arrays.get(item, item) for item in operands))
        limit = 4 * np.finfo(dtype).eps if word in ("exp", "log", "log1p", "tanh") else 0
        np.testing.assert_allclose(found[i + 2], expected, rtol=limit, atol=0, err_msg=f"{word} {operands}")


@pytest.mark.parametrize("axis", [0, 1])
def test_sums_and_maxima_of_special_values(axis, quick):
    def build(recorder):
        M = recorder.matrix_in(recorder.theta, "M", 0, (6, 4))
        for i, word in enumerate(("sum", "max")):
            out = recorder.column_in(recorder.theta, word, 32 + 8 * i, 6)
            out = out if axis == 1 else recorder.batch_vector(word + "s")
            getattr(recorder.xp, word)(M, axis=axis, out=out, keepdims=True)
            if axis == 0:  # to where it is seen
                seen = recorder.matrix_in(recorder.theta, word + "n", 64 + 8 * i, (1, 4))
                recorder.xp.add(seen, out, out=seen)

    M = np.arange(24.0).reshape(6, 4)
    M[1, 2], M[2, 0], M[4, 1], M[5] = np.nan, np.inf, -np.inf, -np.inf
    program = record(build, batch=4, n_parameters=80)
    floats = np.zeros(program.n_floats)
    floats[:24] = M.reshape(-1)
    found = run_arenas(program, floats, np.empty(0, np.uint32), "float64")[0]
    with np.errstate(invalid="ignore"):
        for i, expected in enumerate((M.sum(axis), M.max(axis))):
            start = 32 + 8 * i if axis else 64 + 8 * i
            np.testing.assert_array_equal(found[start : start + len(expected)], expected)


def test_words_of_whole_numbers(quick):
    """They wrap, and a shift by 32 and more gives 0."""
    left = np.array([0, 1, 2**31, 2**32 - 1, 123456789, 7, 8, 9], np.uint32)
    right = np.array([0, 1, 31, 32, 33, 2**31, 2**32 - 1, 4], np.uint32)
    n, said = len(left), []

    def build(recorder):
        keys = recorder.state("keys", 20 * n, "uint32")
        a, b = (recorder.flat_in(keys, name, i * n, n) for i, name in enumerate("ab"))
        said.clear()
        for word in ("add", "multiply", "bitwise_xor", "right_shift"):
            for operands in ((a, b), (a, 3), (a, 31), (2**32 - 1, b)):
                out = recorder.flat_in(keys, f"{len(said)}", (len(said) + 2) * n, n)
                getattr(recorder.xp, word)(*operands, out=out)
                said.append((word, [item if isinstance(item, int) else item.name for item in operands]))
        out = recorder.flat_in(keys, "far", 18 * n, n)
        recorder.xp.right_shift(a, 32, out=out)
        recorder.xp.greater(a, b, out=recorder.theta)

    program = record(build, batch=1, n_parameters=n)
    uints = np.zeros(program.n_uints, np.uint32)
    uints[:n], uints[n : 2 * n], uints[18 * n :] = left, right, 5
    floats, found = run_arenas(program, np.zeros(program.n_floats), uints, "float32")
    arrays = {"a": left, "b": right}
    for i, (word, operands) in enumerate(said):
        expected = getattr(np, word)(*(arrays[x] if isinstance(x, str) else np.uint32(x) for x in operands))
        np.testing.assert_array_equal(found[(i + 2) * n : (i + 3) * n], expected, err_msg=f"{word} {operands}")
    assert not found[18 * n : 19 * n].any()
    np.testing.assert_array_equal(floats[:n], left > right)


def test_not_a_number_reaches_the_loss(quick):
    backend = select_backend("cpu", "float32")
    for activation in ("relu", "elu", "hard_sigmoid"):
        network = network_of({"activation": activation}, backend)
        X, _, Y, _ = data_of({}, network, 8)
        X[5, 2] = np.nan
        data = {"X": (X.astype(np.float32), None), "Y": (Y.astype(np.float32), None)}
        engine = Compiled(program_of({}, network, 4), backend, network.owned, data)
        assert np.isnan(engine.run(np.arange(8), np.full((2, 1), 0.1))[:, 0]).tolist() == [False, True]


# --- long sums -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2])
def test_long_sums(threads):
    """Of a column of 10,000 samples, and of all of a million parameters; equal numbers lose most."""
    n_samples, n = 10_000, 1_000_000

    def build(recorder):
        squares = recorder.flat("squares", n)
        A, b = recorder.batch_matrix("A", 3), recorder.column_in(recorder.theta, "b", 0, 3)
        recorder.gather("A", A)
        with recorder.phase("gradient"):
            recorder.xp.sum(A, axis=1, out=b, keepdims=True)
            recorder.xp.multiply(recorder.theta, recorder.theta, out=squares)
            recorder.xp.sum(squares, axis=0, out=recorder["norm"], keepdims=True)

    rng, backend = np.random.default_rng(0), select_backend("cpu", "float32")
    rows, theta = rng.random((n_samples, 3), np.float32), rng.random(n, np.float32)
    rows[:, 1] = 0.1
    program = record(build, batch=n_samples, n_parameters=n, results=("norm",))
    engine = Compiled(program, backend, theta, {"A": (rows, None)}, threads=threads)
    norm = engine.run(np.arange(n_samples), np.empty((1, 0)))
    np.testing.assert_allclose(theta[:3], rows.sum(axis=0, dtype=np.float64), rtol=1e-5)
    np.testing.assert_allclose(norm[0, 0], np.square(theta, dtype=np.float64).sum(), rtol=1e-5)


# --- data and runs ---------------------------------------------------------------------------------------------------


def engine_of(X=lambda X: (X, None), Y=lambda Y: Y, batch=4, threads=1):
    backend = select_backend("cpu", "float32")
    network = network_of({}, backend)
    features, _, targets, _ = data_of({}, network, 9)
    data = {"X": X(features.astype(np.float32)), "Y": (Y(targets.astype(np.float32)), None)}
    return Compiled(program_of({}, network, batch), backend, network.owned, data, threads=threads)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda X: (X.T.copy().T, None), "not C-contiguous"),
        (lambda X: (X[:, :4].copy(), None), r"\(9, 4\)"),
        (lambda X: (X.astype(np.float64), None), "float64"),
        (lambda X: (X, 0.5), "scale 0.5"),
        (lambda X: (X.astype(np.uint8), None), "uint8"),
        (lambda X: (np.frombuffer(b"?" + X.tobytes(), X.dtype, offset=1).reshape(X.shape), None), "or not aligned"),
    ],
)
def test_data_that_the_gather_would_misread_are_refused(change, found):
    with pytest.raises(TypeError, match=rf"{found}.*it must be a C-contiguous array \(n_samples, 6\) of float32"):
        engine_of(change)


def test_orders_and_rows_that_do_not_fit_are_refused(quick):
    engine = engine_of(Y=lambda Y: Y[:5])
    for order in ([8], [-1], [0, 1, 2, 5]):
        with pytest.raises(IndexError, match=r"has samples 0 to"):
            engine.run(np.array(order), np.full((1, 1), 0.1))
    with pytest.raises(TypeError, match="order is float64"):
        engine.run(np.zeros(4), np.full((1, 1), 0.1))
    with pytest.raises(ValueError, match=r"rows_in is \(2, 1\); it must be \(1, 1\)"):
        engine.run(np.arange(4), np.full((2, 1), 0.1))


def test_a_batch_larger_than_the_data(quick):
    backend = select_backend("cpu", "float64")
    agree(*(run_steps(FEATURES["weights"], backend, 32, 5, make) for make in (Replay, with_threads(2))), "float64")


def test_a_run_may_have_nothing_to_gather(quick):
    """Samples that were fed stay."""
    backend, found = select_backend("cpu", "float64"), []
    for make in (Replay, Compiled):
        network = network_of({}, backend)
        engine = make(program_of({}, network, 4), backend, network.owned)
        engine.feed(4, X=np.ones((6, 4)), Y=np.eye(3, 4))
        found.append([engine.run(np.arange(8), np.full((2, 1), 0.1)), network.owned])
    agree(*found, "float64")


def test_evaluation(quick):
    """Sums of losses and of the right ones, which are whole."""
    backend = select_backend("cpu", "float32")
    network = network_of({}, backend)
    X, _, Y, _ = data_of({}, network, 21)
    data = {"X": (X.astype(np.float32), None), "Y": (Y.astype(np.float32), None)}
    program = evaluation_program(network.architecture, 8, False, True)
    found = [
        make(program, backend, network.owned, data).run(np.arange(21), np.empty((3, 0)))
        for make in (Replay, Compiled, with_threads(2))
    ]
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], rtol=1e-5)


@pytest.mark.parametrize("n_samples", [3, 8, 11, 14])
def test_a_kernel_that_asks_for_the_length_of_the_batch(n_samples, quick):
    """Nobody should ask; but then what it says for that length must hold, also where an update is not due yet."""
    double = asks_for_the_length()
    backend = select_backend("cpu", "float64")
    for accumulate in (1, 2):
        feature = {"activation": double, "accumulate": accumulate, "optimizer": "Adam"}
        agree(*(run_steps(feature, backend, 4, n_samples, make) for make in (Replay, with_threads(2))), "float64", 4)


def test_what_cannot_be_printed_is_replayed_with_a_warning(float64_cpu):
    def build(recorder):
        keys = recorder.batch_matrix("U", 3, "uint32")
        recorder.xp.add(keys, recorder.batch, out=keys)

    program = record(build, batch=4, n_parameters=1)
    with pytest.warns(UserWarning, match="depends on the batch length: this cannot be compiled"):
        engine = make_engine(program, float64_cpu, np.zeros(1), engine="compiled")
    assert type(engine) is Replay


def test_an_engine_and_its_code_go_away(quick):
    engine = engine_of(threads=2)
    engine.run(np.arange(9), np.full((3, 1), 0.1))
    code, others = engine.native, engine_of()
    del engine
    gc.collect()
    assert others.run(np.arange(9), np.full((3, 1), 0.1)).shape == (3, 1) and code.address


# --- seeds are data --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2])
def test_a_seed_is_not_in_the_text(threads):
    network = xpnet.Network([6, 5, 4, 2], dropout=0.2, backend=select_backend("cpu"))
    optimizer = xpnet.Adam(l2_summed=0.1)
    texts, programs = set(), []
    for seed in (0, 1, 2**40):
        programs.append(network.training_program(8, optimizer, False, seed))
        texts.add(step_text(programs[-1], np.float32, {"X": None, "Y": None}, threads=threads).text)
    assert len(texts) == 1
    assert len({program.describe() for program in programs}) == 3  # where it is told


MANY = """
import gc, sys
import numpy as np
import xpnet
from xpnet.engines.llvm import native

compiled, made = native.optimised, []
native.optimised = lambda *given: made.append(given[0]) or compiled(*given)

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

X = np.random.default_rng(0).standard_normal((6, 64)).astype("float32")
data = xpnet.Dataset.from_labels(X, (X[0] > 0).astype(int))
losses = set()
for seed in range(int(sys.argv[1])):
    network = xpnet.Network([6, 5, 2], dropout=0.2, backend=xpnet.select_backend("cpu"))
    history = xpnet.train(network, data, xpnet.SGD(), epochs=1, batch_size=16, seed=seed, engine="compiled")
    losses.add(history[-1]["train_loss"])
    if seed == 0:
        first = made.copy()
    if seed == 99:  # Programs and texts that are kept are as many as may be
        gc.collect()
        begun = resident()
gc.collect()
print(len(made) - len(set(first)), len(losses), resident() - begun)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="only Linux tells the memory of a process so")
@pytest.mark.full
@pytest.mark.parametrize("cache", ["code", ""])
def test_a_thousand_trainings_with_other_seeds_compile_once_and_leave_nothing(tmp_path, cache):
    environment = os.environ | {"XPNET_CACHE": str(tmp_path / cache) if cache else ""}
    done = subprocess.run(
        [sys.executable, "-c", MANY, "1000"], env=environment, capture_output=True, text=True, check=True, timeout=600
    )
    n_more, n_losses, grown = map(int, done.stdout.split())
    assert n_more == 0 and n_losses > 900  # the step and what calls it for epochs are compiled by the first training
    assert grown < 5 * 2**20
