"""The generated CUDA text, compiled unchanged for the CPU, against the calls one by one."""

from __future__ import annotations

from functools import partial

import fakecuda
import fakecupy
import hostcuda
import numpy as np
import pytest
from chosen import in_turn
from features import (
    FACTORS,
    FEATURES,
    SOME_STRUCTURES,
    asks_for_the_length,
    data_of,
    feature_of,
    network_of,
    optimizer_of,
    program_of,
    run_steps,
    without_noise,
)
from random_programs import one_by_one, random_program
from refusals import refusal

import xpnet
from xpnet import select_backend
from xpnet.backend import Backend
from xpnet.engines.choice import make_engine
from xpnet.engines.cuda import text
from xpnet.engines.cuda.engine import Cuda
from xpnet.engines.replay import Replay
from xpnet.program import grouping, loops
from xpnet.program.calls import RecordingError
from xpnet.program.grouping import launches
from xpnet.program.recorder import record

pytestmark = pytest.mark.skipif(hostcuda.compiler() is None, reason="no C++ compiler to run generated CUDA text with")
TOLERANCES = {"float32": 1e-5, "float64": 1e-12}  # of the vector's maximum, a step
TF32_TOLERANCE = 8.1e-4


def pair_of(dtype):
    """The CPU and the fake GPU in one float type."""
    return select_backend("cpu", dtype), Backend("cupy", "cuda", fakecupy, np.dtype(dtype), "fake")


@pytest.fixture(params=TOLERANCES)
def pair(request):
    return pair_of(request.param)


def agree(expected, found, dtype):
    for one, other in zip(expected, found, strict=True):
        assert one.shape == other.shape and np.isfinite(one).all()
        scale = max(np.abs(one).max(initial=0), 1e-3)
        assert np.abs(one.astype(float) - other).max(initial=0) <= 3 * TOLERANCES[dtype] * scale


@pytest.mark.in_turn(name=SOME_STRUCTURES, dtype=list(TOLERANCES))
def test_equals_the_calls_one_by_one(name, dtype, monkeypatch):
    """Three steps, the last of another length: theta, statistics, state, keys, results; whichever thread is first."""
    cpu, gpu = pair_of(dtype)
    forwards = run_steps(FEATURES[name], gpu, 8, 21)
    agree(run_steps(FEATURES[name], cpu, 8, 21), forwards, dtype)
    monkeypatch.setattr(hostcuda, "call", partial(hostcuda.call, stride=-1))
    backwards = run_steps(FEATURES[name], gpu, 8, 21)
    assert [array.tobytes() for array in forwards] == [array.tobytes() for array in backwards]


@pytest.mark.full
@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("name", [name for name in FEATURES if name not in SOME_STRUCTURES])
def test_equals_the_calls_one_by_one_in_full(name, dtype, monkeypatch):
    test_equals_the_calls_one_by_one(name, dtype, monkeypatch)


@pytest.mark.full
@pytest.mark.parametrize("row", in_turn(**FACTORS), ids=str)
def test_features_together(row):
    """Every value of every factor, beside others of the other factors."""
    named = dict(zip(FACTORS, row, strict=True))
    feature = feature_of(named)
    agree(
        *(without_noise(feature, run_steps(feature, backend, 4, 10)) for backend in pair_of(named["dtype"])),
        named["dtype"],
    )


@pytest.mark.in_turn(
    name=[
        "loss softmax_cross_entropy",
        "layer normalization",
        "dropout",
        "one wide",
        "one layer, one input, one output",
    ],
    batch=[1, 2, 7],
    dtype=list(TOLERANCES),
)
def test_every_batch_size(name, batch, dtype):
    expected, found = (run_steps(FEATURES[name], backend, batch, 2 * batch + batch // 2) for backend in pair_of(dtype))
    for one, other in zip(expected, found, strict=True):
        limit = 3 * TOLERANCES[dtype] * max(1, np.abs(one).max(initial=0))
        np.testing.assert_allclose(other, one, rtol=0, atol=limit)


def test_one_text_serves_every_batch_size(fake_gpu):
    """m and the numbers that depend on it are arguments: nothing is compiled anew for a short batch."""
    hostcuda.load.cache_clear()
    run_steps(FEATURES["dropout, batch normalization, Adam"], fake_gpu, 8, 8 * 3 + 5)
    assert hostcuda.load.cache_info().misses == 1


def test_one_text_serves_every_capacity(fake_gpu):
    """The places of buffers are arguments: nothing is compiled anew for more samples, as CuPy keeps modules by text."""
    network, cpu = network_of({}, fake_gpu), network_of({}, select_backend("cpu"))
    hostcuda.load.cache_clear()
    X = np.random.default_rng(0).standard_normal((6, 200)).astype(np.float32)
    for n in (2, 3, 20, 200):  # each of a capacity of its own
        found = fake_gpu.to_host(network.predict(fake_gpu.to_device(X[:, :n])))
        np.testing.assert_allclose(found, cpu.predict(X[:, :n]), rtol=1e-5)
    assert hostcuda.load.cache_info().misses == 1


def test_of_more_places_than_arguments_the_kernels_are_right(fake_gpu, monkeypatch):
    monkeypatch.setattr(text, "_MOST_PLACES", 1)
    feature = FEATURES["dropout, batch normalization, Adam"]
    agree(run_steps(feature, select_backend("cpu"), 8, 21), run_steps(feature, fake_gpu, 8, 21), "float32")


def test_a_kernel_that_asks_for_the_length_of_the_batch_gets_a_text_of_its_own(fake_gpu):
    """Nobody should ask; but then what it says for that length must hold."""
    double = asks_for_the_length()
    found = []
    for backend in (select_backend("cpu"), fake_gpu):
        network = xpnet.Network([4, 5, 3], activation=double, backend=backend)
        found.append([backend.to_host(network.predict(backend.to_device(np.ones((4, n))))) for n in (8, 3, 2, 1)])
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)


def test_a_step_is_its_launches_and_nothing_else(fake_gpu, monkeypatch):
    """Counted while a chunk runs: what the Program says, nothing allocated, moved, copied or reduced by CuPy.

    Each launch is one call of CuPy's binding of the driver or of cuBLAS, and no wrapper is entered.
    """
    monkeypatch.setattr(fakecupy.RawKernel, "__call__", None)
    monkeypatch.setattr(fakecupy.ndarray, "dot", None)
    for name in (
        "optimizer SGD",
        "dropout, batch normalization, Adam",
        "all options",
        "loss squared_error, one output",
    ):
        counted = {}
        for n_steps in (2, 12):
            feature = FEATURES[name]
            network = network_of(feature, fake_gpu)
            optimizer, program = optimizer_of(feature), program_of(feature, network, 4)
            X, _, Y, _ = data_of(feature, network, 48)
            engine = make_engine(
                program,
                fake_gpu,
                network.owned,
                {"X": (fake_gpu.to_device(X), None), "Y": (fake_gpu.to_device(Y), None)},
            )
            optimizer.attach(network, engine)
            rows = np.linspace(0.1, 0.2, n_steps)[:, None] * optimizer.slot_rows(n_steps)
            with fakecupy.counts.measure() as cost:
                engine.run(np.arange(4 * n_steps), rows)
            counted[n_steps] = cost
        few, many = counted[2], counted[12]
        assert many.launches - few.launches == 10 * (1 + len(launches(program)))
        products = sum(launch.is_product for launch in launches(program))
        assert many.named("launches")["gemmEx"] == 12 * products
        for field in ("uploads", "reads", "allocations", "hidden_copies", "cub", "numpy_dispatch", "synchronizations"):
            assert many[field] == few[field], field
        assert many.cub == many.hidden_copies == 0


def test_where_the_result_is_one_number_no_product_is_asked_of_cupy(fake_gpu):
    """CuPy computes a product of 1 x 1 by a sum through arrays of its own."""
    feature = FEATURES["one layer, one input, one output"]
    network = network_of(feature, fake_gpu)
    engine = make_engine(program_of(feature, network, 1), fake_gpu, network.owned)
    engine.set_slots(np.array([0.1]))
    engine.feed(1, X=fakecupy.ones((1, 1), np.float32), Y=fakecupy.ones((1, 1), np.float32))
    with fakecupy.counts.measure() as cost:
        engine.execute(1)
    assert cost.cub == 0 and not {"dot", "gemmEx"} & cost.named("launches").keys()


@pytest.mark.parametrize("missing", ["driver", "gemmEx", "a parameter"])
def test_without_the_bindings_cupy_launches(missing, fake_gpu, monkeypatch):
    """The same bits, by the wrappers that CuPy documents."""
    feature = FEATURES["dropout, batch normalization, Adam"]
    expected = run_steps(feature, fake_gpu, 8, 21)
    cuda = fakecupy.cuda
    if missing == "driver":
        monkeypatch.delattr(cuda, "driver")
    elif missing == "gemmEx":
        monkeypatch.delattr(cuda.cublas, "gemmEx")
    else:
        monkeypatch.setattr(cuda.driver.launchKernel, "__doc__", "launchKernel(intptr_t f, intptr_t stream)")
    with fakecupy.counts.measure() as cost:
        found = run_steps(feature, fake_gpu, 8, 21)
    assert [array.tobytes() for array in found] == [array.tobytes() for array in expected]
    assert cost.named("launches")["dot"] == 3 * 8 and "gemmEx" not in cost.named("launches")


def in_tf32(*arguments):
    return Cuda(*arguments, precision="tf32")


def apart(name, gpu):
    """How far three steps in tf32 are from those in fp32, in parts of each vector's maximum."""
    found = [run_steps(FEATURES[name], gpu, 8, 21, make=make) for make in (make_engine, in_tf32)]
    return max(
        np.abs(one.astype(float) - other).max(initial=0) / max(np.abs(one).max(initial=0), 1e-3)
        for one, other in zip(*found, strict=True)
    )


@pytest.mark.parametrize("name", ["optimizer SGD", "loss squared_error", "layer normalization", "accumulate, weights"])
def test_tf32_rounds_what_is_multiplied_and_nothing_else(name, fake_gpu):
    """The fake rounds to 10 bits of mantissa, so a product's relative error is 2^-10 at most, of a step some parts."""
    assert 1e-6 < apart(name, fake_gpu) < TF32_TOLERANCE


@pytest.mark.full
def test_tf32_of_every_feature(fake_gpu):
    """The optimizers that divide a gradient by its size tell a small error as a large one."""
    found = {name: apart(name, fake_gpu) for name in FEATURES}
    assert max(found.values()) < TF32_TOLERANCE and np.median(list(found.values())) < TF32_TOLERANCE / 5, found


@pytest.mark.parametrize(
    ("precision", "dtype", "asked"), [("fp32", "float32", 68), ("tf32", "float32", 77), ("fp32", "float64", 70)]
)
def test_precision_is_an_argument_of_each_product(precision, dtype, asked, monkeypatch):
    """Of two networks that take turns each keeps its own; nothing of the process says it, CUPY_TF32 neither."""
    monkeypatch.setenv("CUPY_TF32", "1")
    gpu = pair_of(dtype)[1]
    network = network_of({}, gpu)
    program = program_of({}, network, 4)
    others = Cuda(program, gpu, network.owned)
    products = [
        call.args[-2]
        for call in Cuda(program, gpu, network.owned, precision=precision).at(4).calls
        if len(call.args) == 19
    ]
    assert len(products) == 8 and set(products) == {asked}
    assert {call.args[-2] for call in others.at(4).calls if len(call.args) == 19} == {70 if dtype == "float64" else 68}


def test_launches_follow_the_stream_that_is_current(fake_gpu, monkeypatch):
    """And the handle of cuBLAS, of which each thread has one; the fake refuses any other."""
    network = network_of({}, fake_gpu)
    program = program_of({}, network, 4)
    engine = make_engine(program, fake_gpu, network.owned)
    rows = np.full((3, 1), 0.1)
    first = engine.at(4)
    engine.run(np.arange(12), rows)
    assert engine.at(4) is first
    monkeypatch.setattr(fakecuda, "STREAM", 70)
    engine.run(np.arange(12), rows)
    second = engine.at(4)
    monkeypatch.setattr(fakecuda, "HANDLE", 80)
    engine.execute(4)
    assert len({id(first), id(second), id(engine.at(4))}) == 3


def test_the_cpu_replays_and_a_gpu_groups(fake_gpu):
    network = network_of({}, fake_gpu)
    program = program_of({}, network, 4)
    assert type(make_engine(program, fake_gpu, network.owned)) is Cuda
    cpu = select_backend("cpu")
    assert type(make_engine(program, cpu, network_of({}, cpu).owned)) is Replay


def test_not_a_number_reaches_the_loss(pair):
    """maximum, minimum, max and sign pass it on, as NumPy's do."""
    for activation in ("relu", "elu", "hard_sigmoid"):
        for backend in pair:
            network = xpnet.Network([2, 3, 3], activation=activation, backend=backend)
            X = np.array([[1.0, np.nan], [2.0, 3.0]])
            A = backend.to_host(network.forward(backend.to_device(X)))
            assert np.isfinite(A[:, 0]).all() and np.isnan(A[:, 1]).all(), (activation, backend.device)


@pytest.mark.parametrize("name", ["X", "Y"])
def test_an_order_beyond_the_data_is_refused(name, fake_gpu):
    network = network_of({}, fake_gpu)
    X, _, Y, _ = data_of({}, network, 9)
    X, Y = (X[:5], Y) if name == "X" else (X, Y[:5])
    data = {"X": (fake_gpu.to_device(X), None), "Y": (fake_gpu.to_device(Y), None)}
    engine = make_engine(program_of({}, network, 4), fake_gpu, network.owned, data)
    with refusal(IndexError, "order has 0 to 8", f"{name} has samples 0 to 4", "choose among these"):
        engine.run(np.arange(9), np.full((3, 1), 0.1))


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda X: (X.T.copy().T, None), "not C-contiguous"),
        (lambda X: (X[:, :4].copy(), None), "(9, 4)"),
        (lambda X: (X.astype(np.float64), None), "float64"),
        (lambda X: (X, 0.5), "scale 0.5"),
        (lambda X: (X.astype(np.uint8), None), "uint8"),
    ],
)
def test_data_that_the_gather_would_misread_are_refused(change, found, fake_gpu):
    network = network_of({}, fake_gpu)
    X, _, Y, _ = data_of({}, network, 9)
    X, scale = change(X.astype(np.float32))
    data = {"X": (fakecupy.asarray(X), scale), "Y": (fake_gpu.to_device(Y), None)}
    needed = "it must be a C-contiguous array (n_samples, 6) of float32"
    with refusal(TypeError, "X is ", found, needed, "xp.ascontiguousarray(rows, dtype)"):
        make_engine(program_of({}, network, 4), fake_gpu, network.owned, data)


def test_a_run_may_have_nothing_to_gather(pair):
    """Samples that were fed stay; and where there are no slots and results either, no kernel is asked for."""
    found = []
    for backend in pair:
        network = network_of({}, backend)
        engine = make_engine(program_of({}, network, 4), backend, network.owned)
        engine.feed(4, X=backend.to_device(np.ones((6, 4))), Y=backend.to_device(np.eye(3, 4)))
        results = engine.run(np.arange(8), np.full((2, 1), 0.1))
        nothing = record(lambda r: r.xp.add(r.theta, 1.0, out=r.theta), batch=4, n_parameters=5)
        theta = backend.zeros(5)
        assert make_engine(nothing, backend, theta).run(np.arange(8), np.empty((2, 0))).shape == (2, 0)
        found.append([backend.to_host(network.owned), results, backend.to_host(theta)])
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
    assert found[0][2].tolist() == [2.0] * 5


@pytest.mark.full
@pytest.mark.in_turn(normalization=[None, "batch", "layer"], dtype=list(TOLERANCES))
def test_long_columns_and_rows(normalization, dtype):
    """More workers than a block has, and sums shared out: over 1500 samples, 300 features, and all of the losses."""
    cpu, gpu = pair_of(dtype)
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((1500, 3)), np.eye(400)[rng.integers(400, size=1500)]
    found = []
    for backend in (cpu, gpu):
        network = xpnet.Network([3, 300, 400], backend=backend, seed=2, normalization=normalization)
        data = {"X": (backend.to_device(X), None), "Y": (backend.to_device(Y), None)}
        engine = make_engine(network.training_program(1500, xpnet.SGD(0.1), False), backend, network.owned, data)
        results = [engine.run(np.arange(n), np.full((1, 1), 0.1)) for n in (1500, 1499, 3)]
        found.append([backend.to_host(network.owned), np.concatenate(results)])
    for one, other in zip(*found, strict=True):
        assert np.abs(one - other).max() <= 3 * TOLERANCES[dtype] * np.abs(one).max()


def test_weights_as_long_as_the_batch_are_no_batch(fake_gpu):
    """In the full batch they have as many columns as the row has samples, and the same workers; in a short one not."""

    def build(recorder):
        row, W = recorder.batch_vector("row"), recorder.matrix_in(recorder.theta, "W", 0, (3, 4))
        recorder.xp.multiply(row, 2.0, out=row)
        recorder.xp.add(W, 1.0, out=W)

    theta = fake_gpu.zeros(12)
    engine = make_engine(record(build, batch=4, n_parameters=12), fake_gpu, theta)
    for m in (4, 2, 1):
        engine.execute(m)
    assert fake_gpu.to_host(theta).tolist() == [3.0] * 12


@pytest.mark.parametrize(("seed", "stores"), [(seed, "every") for seed in range(6)] + [(1, "needed"), (4, "needed")])
def test_random_calls_on_views_that_overlap(seed, stores, monkeypatch):
    """To the bit, at each batch size, whichever thread is first; for every other seed by teams.

    With all stores all of memory, else what outlives the step.
    """
    if seed % 2:
        for name, value in {"LONG_LINE": 2, "LONG_VECTOR": 3, "FEW_COLUMNS": 2, "SHORT_ROW": 3}.items():
            monkeypatch.setattr(grouping, name, value)
    if stores == "every":
        monkeypatch.setattr(loops, "is_read_after", lambda *_: True)
    program, gpu = random_program(seed), Backend("cupy", "cuda", fakecupy, np.dtype("float64"), "fake")
    engine = Cuda(program, gpu, gpu.zeros(program.n_owned))
    rng, call = np.random.default_rng(seed), hostcuda.call
    for m in range(program.capacity, 0, -1):
        try:
            shorter = program.at(m)
        except RecordingError:
            continue
        floats = rng.integers(-4, 5, size=program.n_floats).astype(float)
        uints = rng.integers(2**32, size=program.n_uints, dtype=np.uint32)
        expected = one_by_one(shorter, floats, uints)
        for stride in (1, -1, 104729):
            monkeypatch.setattr(hostcuda, "call", partial(call, stride=stride))
            engine.memory.owned[...] = fakecupy.asarray(floats[: program.n_owned])
            memory = engine.memory.floats[: program.n_floats - program.n_owned]
            memory[...] = fakecupy.asarray(floats[program.n_owned :])
            engine.memory.uints[...] = fakecupy.asarray(uints)
            engine.execute(m)
            found = np.concatenate([gpu.to_host(engine.memory.owned), gpu.to_host(memory)])
            n = program.n_owned if stores == "needed" else len(found)
            np.testing.assert_array_equal(found[:n], expected[0][:n])
            if stores == "every":
                np.testing.assert_array_equal(gpu.to_host(engine.memory.uints), expected[1])
