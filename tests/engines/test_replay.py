"""Recorded Programs run by Replay: against plain NumPy, and what a step and a chunk cost."""

from __future__ import annotations

import itertools
import tracemalloc

import fakecupy
import numpy as np
import pytest
from refusals import refusal, says

from xpnet import select_backend
from xpnet.engines.replay import Replay
from xpnet.network.architecture import Architecture
from xpnet.network.parameters import Parameters
from xpnet.network.programs import evaluation_program, training_program
from xpnet.program.recorder import record
from xpnet.training.optimizers import SGD

NETWORKS = {
    "squared error": ([5, 4, 3, 2], "sigmoid", "sigmoid", "squared_error"),
    "one output": ([5, 4, 1], "tanh", "identity", "squared_error"),
    "softmax": ([5, 6, 4, 3], "relu", "identity", "softmax_cross_entropy"),
    "sigmoid": ([5, 3], "relu", "identity", "sigmoid_cross_entropy"),
}
FUNCTIONS = {
    "identity": (lambda z: z, lambda z: np.ones_like(z)),
    "sigmoid": (lambda z: 1 / (1 + np.exp(-z)), lambda z: np.exp(-z) / (1 + np.exp(-z)) ** 2),
    "tanh": (np.tanh, lambda z: 1 / np.cosh(z) ** 2),
    "relu": (lambda z: np.where(z > 0, z, 0.0), lambda z: np.where(z > 0, 1.0, 0.0)),
}


def plain_step(Ws, bs, X, Y, weights, lr, activation, output, loss):
    """One step in the other convention, a sample a row, from textbook formulas; returns the sum of weighted losses."""
    names = [activation] * (len(Ws) - 1) + [output]
    A, slopes = [X], []
    for W, b, name in zip(Ws, bs, names, strict=True):
        Z = A[-1] @ W.T + b.T
        A.append(FUNCTIONS[name][0](Z))
        slopes.append(FUNCTIONS[name][1](Z))
    if loss == "squared_error":
        losses, gradient = ((A[-1] - Y) ** 2).sum(axis=1) / 2, A[-1] - Y
    else:
        softmax = loss == "softmax_cross_entropy"
        E = np.exp(A[-1])
        P = E / E.sum(axis=1, keepdims=True) if softmax else E / (1 + E)
        losses = -(Y * np.log(P)).sum(axis=1) - (0 if softmax else ((1 - Y) * np.log(1 - P)).sum(axis=1))
        gradient = P - Y
    gradient = gradient * weights[:, None] / weights.sum()
    for layer in reversed(range(len(Ws))):
        gradient = gradient * slopes[layer]
        dW, db = gradient.T @ A[layer], gradient.sum(axis=0)[:, None]
        gradient = gradient @ Ws[layer]
        Ws[layer] -= lr * dW
        bs[layer] -= lr * db
    return (losses * weights).sum()


def samples(backend, name, n=20, seed=0, uint8=False):
    """Data of a network, one sample a row: (X, scale), Y and weights, in float64 as the backend's type holds them."""
    rng, (sizes, *_, loss) = np.random.default_rng(seed), NETWORKS[name]
    X = rng.integers(256, size=(n, sizes[0])).astype(np.uint8) if uint8 else rng.standard_normal((n, sizes[0]))
    Y = rng.random((n, sizes[-1]))
    if loss == "softmax_cross_entropy":
        Y = np.eye(sizes[-1])[rng.integers(sizes[-1], size=n)]
    weights = rng.integers(4, size=(n, 1)) / 2
    return [
        array if array.dtype == np.uint8 else array.astype(backend.dtype).astype(float) for array in (X, Y, weights)
    ]


def trainer(backend, name, data, batch, scale=None, weighted=False, seed=0):
    """An engine for the network with random parameters, and these parameters in float64."""
    sizes, activation, output, loss = NETWORKS[name]
    architecture = Architecture.of_sizes(sizes, activation, output, None, loss)
    layout = architecture.layout
    rng = np.random.default_rng(seed)
    theta = np.zeros(layout.size)
    for view in Parameters(layout, theta).weights + Parameters(layout, theta).biases:
        view[...] = rng.standard_normal(view.shape).astype(backend.dtype)
    X, Y, weights = data
    sources = {"X": (backend.to_device(X, X.dtype if scale else None), scale), "Y": (backend.to_device(Y), None)}
    if weighted:
        sources["weights"] = (backend.to_device(weights), None)
    flat = backend.zeros(layout.size)
    flat[...] = backend.to_device(theta)
    engine = Replay(training_program(architecture, batch, SGD(), weighted), backend, flat, sources)
    expected = Parameters(layout, theta)
    return engine, flat, expected


def close(backend, found, expected):
    tolerance = 1e-5 if backend.dtype == np.float32 else 1e-12
    found, expected = backend.to_host(found) if backend.owns(found) else np.array(found), np.array(expected)
    return abs(found - expected).max() <= tolerance * abs(expected).max()


# A run against plain NumPy


@pytest.mark.parametrize("uint8", [False, True], ids=["floats", "uint8"])
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("name", NETWORKS)
def test_steps_agree_with_plain_numpy(backend, name, weighted, uint8):
    """Two chunks of three steps, the last of each short, with another learning rate in every row."""
    data, scale = samples(backend, name, uint8=uint8), 1 / 128 if uint8 else None
    engine, flat, expected = trainer(backend, name, data, 8, scale, weighted)
    X, Y, weights = (data[0] * (scale or 1), data[1], data[2][:, 0] if weighted else np.ones(20))
    rng = np.random.default_rng(9)
    for _ in range(2):
        order, rates = rng.permutation(20), rng.random((3, 1))
        rows_out = engine.run(order, rates)
        rows = []
        for part, (lr,) in zip((order[:8], order[8:16], order[16:]), rates.astype(backend.dtype).tolist(), strict=True):
            total = plain_step(
                expected.weights, expected.biases, X[part], Y[part], weights[part], lr, *NETWORKS[name][1:]
            )
            rows.append([total, weights[part].sum()] if weighted else [total])
        assert rows_out.dtype == np.float64 and type(rows_out) is np.ndarray
        assert close(backend, rows_out, rows)
        assert close(backend, flat, expected.flat)


@pytest.mark.parametrize("batch", [1, 4, 20])
def test_the_batch_size_does_not_change_what_is_computed(backend, batch):
    """With rate 0 the losses of any division of the order sum to the same."""
    data = samples(backend, "softmax")
    engine, flat, _ = trainer(backend, "softmax", data, batch)
    whole, _, _ = trainer(backend, "softmax", data, 20)
    order, before = np.arange(20)[::-1], backend.to_host(flat).copy()  # not contiguous in memory
    rows_out = engine.run(order, np.zeros((-(-20 // batch), 1)))
    assert rows_out.shape == (-(-20 // batch), 1)
    assert close(backend, [[rows_out.sum()]], whole.run(np.arange(20), np.zeros((1, 1))))
    np.testing.assert_array_equal(backend.to_host(flat), before)


def test_the_order_may_repeat_and_leave_out_samples(backend):
    data = samples(backend, "softmax")
    engine, _, _ = trainer(backend, "softmax", data, 4)
    losses = engine.run(np.repeat(np.arange(20), 4), np.zeros((20, 1)))[:, 0] / 4
    for order in ([3, 3, 3, 19], [7, 7], np.array([0, 1, 2], np.int32)):
        found = engine.run(np.array(order), np.zeros((1, 1)))
        assert close(backend, found, [[losses[list(order)].sum()]])


def test_a_program_without_slots_or_with_several_results(backend):
    sizes, activation, output, loss = NETWORKS["softmax"]
    architecture = Architecture.of_sizes(sizes, activation, output, None, loss)
    data = samples(backend, "softmax")
    X, Y, weights = data
    _, flat, parameters = trainer(backend, "softmax", data, 8)
    program = evaluation_program(architecture, 8, True, True)
    sources = {"X": (backend.to_device(X), None), "Y": (backend.to_device(Y), None)}
    sources["weights"] = (backend.to_device(weights), None)
    rows_out = Replay(program, backend, flat, sources).run(np.arange(20), np.empty((3, 0)))
    assert program.results == ("loss", "weight", "correct", "correct_weight")
    A = X
    for i, (W, b) in enumerate(zip(parameters.weights, parameters.biases, strict=True)):
        A = A @ W.T + b.T if i == 2 else np.maximum(A @ W.T + b.T, 0)
    right = A.argmax(axis=1) == Y.argmax(axis=1)
    losses = np.log(np.exp(A).sum(axis=1)) - (A * Y).sum(axis=1)
    w = weights[:, 0]
    expected = [
        [(losses * w)[part].sum(), w[part].sum(), right[part].sum(), (right * w)[part].sum()]
        for part in (slice(0, 8), slice(8, 16), slice(16, 20))
    ]
    assert close(backend, rows_out, expected)


def test_a_loss_that_is_not_finite_is_returned_and_names_its_step(backend):
    """No exception and no warning: as on a GPU, the loss tells."""
    data = samples(backend, "softmax")
    data[0][9] = np.inf  # gives inf - inf on the way
    engine, _, _ = trainer(backend, "softmax", data, 4)
    rows_out = engine.run(np.arange(20), np.full((5, 1), 0.1))
    assert np.isfinite(rows_out[:2]).all() and np.isnan(rows_out[2:]).all()
    engine.feed(4, X=backend.to_device(np.full((5, 4), np.inf)), Y=backend.to_device(data[1][:4].T))
    engine.execute(4)
    assert np.isnan(engine.read_results()["loss"])


@pytest.mark.parametrize("n_parameters", [0, 3, 16, 17, 64])
def test_slots_are_found_behind_a_theta_of_any_length(n_parameters):
    """theta belongs to the network and the rest to the engine: their border may lie anywhere."""

    def build(r):
        x, xp = r.batch_vector("x"), r.xp
        xp.multiply(x, r["factor"], out=x)
        xp.sum(x, axis=1, keepdims=True, out=r["total"])

    program = record(build, batch=3, n_parameters=n_parameters, slots=("unused", "factor"), results=("total",))
    backend = select_backend("cpu", "float64")
    engine = Replay(program, backend, backend.zeros(n_parameters))
    engine.set_slots(np.array([7.0, 10.0]))
    engine.feed(3, x=np.array([[1.0, 2.0, 3.0]]))
    engine.execute(3)
    assert engine.read_results() == {"total": 60.0}


def test_state_lives_on_and_can_be_taken_up_by_another_engine(backend):
    """A velocity and a key: five steps in one engine equal two, a snapshot, and three more in another."""

    def build(r):
        x, velocity, key = r.batch_vector("x"), r.state("velocity", 1), r.state("key", 1, kind="uint32")
        bits = r.flat("bits", 1, kind="uint32")
        r.xp.sum(x, axis=1, keepdims=True, out=r["total"])
        r.xp.multiply(velocity, 0.5, out=velocity)
        r.xp.add(velocity, r["total"], out=velocity)
        r.xp.add(key, 2654435769, out=key)
        r.xp.bitwise_xor(key, 5, out=bits)

    program = record(build, batch=3, n_parameters=0, results=("total",))

    def engine():
        return Replay(program, backend, backend.zeros(0))

    def steps(engine, n):
        for _ in range(n):
            engine.feed(3, x=backend.to_device(np.array([[1.0, 2.0, 3.0]])))
            engine.execute(3)
        return engine

    whole, first, second = steps(engine(), 5), steps(engine(), 2), engine()
    assert not backend.to_host(second.state).any() and not backend.to_host(second.keys).any()
    second.state[...], second.keys[...] = first.state, first.keys
    steps(second, 3)
    assert backend.to_host(whole.state)[0] == backend.to_host(second.state)[0] == 6 * (1 - 0.5**5) / 0.5
    assert backend.to_host(whole.keys)[0] == backend.to_host(second.keys)[0] == 5 * 2654435769 % 2**32


def test_constants_are_filled_once_and_wrap(backend):
    """Sample by sample, modulo 2^32; a short batch sees the first of them, and a GPU is sent them once."""

    def build(r):
        index, out = r.constant("index", 3, 2**32 - 7, 2**31 + 5), r.batch_matrix("out", 3, "uint32")
        r.xp.add(index, 1, out=out)

    engine = Replay(record(build, batch=4, n_parameters=0), backend, backend.zeros(0))
    expected = np.array([(2**32 - 7 + k * (2**31 + 5) + 1) % 2**32 for k in range(12)]).reshape(4, 3).T
    for size in (4, 2, 4):
        engine.execute(size)
        np.testing.assert_array_equal(backend.to_host(engine.read("out", size)), expected[:, :size])
    assert engine.bytes_uploaded == (0 if backend.device == "cpu" else 48)


@pytest.mark.parametrize("factor", [0.5, -1.0, -4.0, 3.0, 0.3])
@pytest.mark.parametrize("axis", [0, 1])
def test_a_sum_and_its_factor(backend, axis, factor):
    """The sum stands alone, then multiplied in place, then elsewhere: whatever is fused, all are right."""

    def build(r):
        xp, X = r.xp, r.batch_matrix("X", 3)
        vector = r.batch_vector if axis == 0 else lambda name: r.column_in(r.flat(f"{name} memory", 3), name, 0, 3)
        plain, scaled, other = vector("plain"), vector("scaled"), vector("other")
        xp.sum(X, axis=axis, keepdims=True, out=plain)
        xp.sum(X, axis=axis, keepdims=True, out=scaled)
        xp.multiply(scaled, factor, out=scaled)
        xp.sum(X, axis=axis, keepdims=True, out=other)
        xp.multiply(plain, factor, out=other)

    program = record(build, batch=5, n_parameters=0)
    engine = Replay(program, backend, backend.zeros(0))
    X = np.arange(15.0).reshape(3, 5) - 4.0
    engine.feed(5, X=backend.to_device(X))
    for _ in range(2):  # nothing is left behind by the first
        engine.execute(5)
        sums = X.sum(axis=axis, keepdims=True)
        np.testing.assert_array_equal(backend.to_host(engine.read("plain", 5)), sums)
        for name in ("scaled", "other"):
            np.testing.assert_allclose(backend.to_host(engine.read(name, 5)), factor * sums, rtol=1e-6)


@pytest.mark.parametrize("batch", [1, 4, 5])
def test_bounds_that_are_numbers(backend, batch):
    """Two numbers, two widths, three batch sizes: each finds its own array of constants."""

    def build(r):
        xp, X, Y = r.xp, r.batch_matrix("X", 3), r.batch_matrix("Y", 7)
        low, high, capped = r.batch_matrix("low", 3), r.batch_matrix("high", 3), r.batch_matrix("capped", 7)
        xp.maximum(X, 0.0, out=low)
        xp.minimum(2.0, X, out=high)
        xp.maximum(Y, 2.0, out=capped)

    engine = Replay(record(build, batch=5, n_parameters=0), backend, backend.zeros(0))
    X, Y = np.arange(3.0 * batch).reshape(3, batch) - 3.0, np.arange(7.0 * batch).reshape(7, batch)
    engine.feed(batch, X=backend.to_device(X), Y=backend.to_device(Y))
    engine.execute(batch)
    for name, expected in {"low": X.clip(0), "high": X.clip(None, 2), "capped": Y.clip(2)}.items():
        np.testing.assert_array_equal(backend.to_host(engine.read(name, batch)), expected)


def test_a_bound_that_depends_on_the_batch():
    """The short batch has a number that the full one has not."""

    def build(r):
        r.xp.maximum(r.batch_matrix("X", 2), 1.0 * r.batch, out=r.batch_matrix("A", 2))

    backend = select_backend("cpu", "float64")
    engine = Replay(record(build, batch=5, n_parameters=0), backend, backend.zeros(0))
    for batch in (5, 3):
        engine.feed(batch, X=np.arange(2.0 * batch).reshape(2, batch))
        engine.execute(batch)
        np.testing.assert_array_equal(engine.read("A", batch), np.arange(2.0 * batch).reshape(2, batch).clip(batch))


@pytest.mark.parametrize("n_features", [1, 3])
def test_the_sum_of_a_large_batch_keeps_its_digits(n_features):
    """A bias gradient of a full batch, in float32: added up one by one, it would be off by more than 1e-5."""
    program = record(
        lambda r: r.xp.sum(
            r.batch_matrix("D", n_features),
            axis=1,
            keepdims=True,
            out=r.column_in(r.flat("memory", n_features), "db", 0, n_features),
        ),
        batch=1_000_000,
        n_parameters=0,
    )
    backend = select_backend("cpu", "float32")
    engine = Replay(program, backend, backend.zeros(0))
    D = np.random.default_rng(0).random((1_000_000, n_features), dtype=np.float32).T
    for batch in (1_000_000, 10_001):
        engine.feed(batch, D=D[:, :batch])
        engine.execute(batch)
        expected = D[:, :batch].sum(axis=1, dtype=float, keepdims=True)
        np.testing.assert_allclose(engine.read("db", batch), expected, rtol=2e-6)


@pytest.mark.parametrize("n_features", [3, 3000])
def test_a_sum_of_sums_and_its_factor(backend, n_features):
    """Short or long, with a factor or none, read by a later call or by nobody: the total is that of float64."""

    def build(r):
        xp, X, L, kept = r.xp, r.batch_matrix("X", n_features), r.batch_vector("L"), r.batch_vector("kept")
        xp.sum(X, axis=0, keepdims=True, out=L)
        xp.multiply(L, 0.5, out=L)
        xp.sum(L, axis=1, keepdims=True, out=r["half"])
        xp.sum(X, axis=0, keepdims=True, out=L)
        xp.sum(L, axis=1, keepdims=True, out=r["whole"])
        with r.phase("later"):
            xp.multiply(L, 3.0, out=kept)

    engine = Replay(record(build, batch=7, n_parameters=0, results=("half", "whole")), backend, backend.zeros(0))
    X = np.random.default_rng(0).random((n_features, 7)).astype(backend.dtype).astype(float)
    engine.feed(7, X=backend.to_device(X))
    engine.execute(7)
    rtol = 3e-7 if backend.dtype == np.float32 else 1e-14
    assert engine.read_results() == pytest.approx({"half": X.sum() / 2, "whole": X.sum()}, rel=rtol)
    np.testing.assert_allclose(backend.to_host(engine.read("kept", 7))[0], 3 * X.sum(axis=0), rtol=1e-5)


def test_bounds_of_large_results(monkeypatch):
    """A large result has a row of constants, its short batch an array again: both are right."""
    monkeypatch.setattr("xpnet.engines.numpy_calls._LARGE", 12)

    def build(r):
        r.xp.maximum(r.batch_matrix("X", 4), 0.5, out=r.batch_matrix("A", 4))

    backend = select_backend("cpu", "float64")
    engine = Replay(record(build, batch=5, n_parameters=0), backend, backend.zeros(0))
    for batch in (5, 2, 3, 4):
        X = np.arange(4.0 * batch).reshape(4, batch) - 3.0
        engine.feed(batch, X=X)
        engine.execute(batch)
        np.testing.assert_array_equal(engine.read("A", batch), X.clip(0.5))


# Refusals


@pytest.mark.parametrize(
    ("order", "parts"),
    [([0, 20], ["0 to 20", "0 to 19"]), ([-1, 3], ["-1 to 3", "0 to 19"]), ([], ["nothing", "0 to 19"])],
)
def test_a_bad_order_is_refused_before_the_first_step(backend, order, parts):
    """NumPy would clip and CuPy would wrap: both silently."""
    engine, flat, _ = trainer(backend, "softmax", samples(backend, "softmax"), 4)
    before = backend.to_host(flat).copy()
    with pytest.raises(IndexError) as error:
        engine.run(np.array(order, np.int64), np.ones((-(-len(order) // 4), 1)))
    says(error, *parts, "choose among these")
    np.testing.assert_array_equal(backend.to_host(flat), before)


@pytest.mark.parametrize("order", [[0.5, 1.7], [True, False], [[0, 1], [2, 3]]], ids=str)
def test_an_order_that_is_no_vector_of_whole_numbers_is_refused(order):
    """Cut to whole numbers, or a mask taken for indices, it would train on other samples than were meant."""
    backend = select_backend("cpu", "float64")
    engine, _, _ = trainer(backend, "softmax", samples(backend, "softmax"), 4)
    with refusal(TypeError, "order is ", "it must be a vector of sample indices", "whole numbers"):
        engine.run(np.array(order), np.ones((1, 1)))


@pytest.mark.parametrize("shape", [(2, 1), (3, 2), (3,), (0, 1)])
def test_rows_in_must_be_steps_by_slots(backend, shape):
    engine, _, _ = trainer(backend, "softmax", samples(backend, "softmax"), 4)
    with pytest.raises(ValueError) as error:
        engine.run(np.arange(12), np.ones(shape))
    says(error, f"rows_in is {shape}", "it must be (3, 1)", "steps by slots")


def test_more_samples_than_the_buffers_hold_are_refused(backend):
    engine, _, _ = trainer(backend, "softmax", samples(backend, "softmax"), 4)
    with refusal(ValueError, "batch is 5, ", "hold 1 to 4 samples", "record it with batch=5"):
        engine.execute(5)


# Step by step: feed, execute, read


def test_phases_run_apart_so_that_others_can_stand_between(backend):
    """Two gradients are added between the phases: the update then takes their sum, once."""
    X, Y, _ = samples(backend, "softmax")
    engine, flat, expected = trainer(backend, "softmax", (X, Y, None), 8)
    theta = expected.flat.copy()
    engine.set_slots(np.array([0.5]))
    total = np.zeros(theta.size)
    for part in (slice(0, 8), slice(8, 12)):  # the second is short
        size = part.stop - part.start
        engine.feed(size, X=backend.to_device(X[part].T), Y=backend.to_device(Y[part].T))
        engine.execute(size, "gradient")
        assert close(backend, flat, theta)
        kept = theta.copy()
        moved = Parameters(expected.layout, theta.copy())
        loss = plain_step(moved.weights, moved.biases, X[part], Y[part], np.ones(size), 1.0, *NETWORKS["softmax"][1:])
        assert close(backend, engine.read("gradient", size), kept - moved.flat)
        results = engine.read_results()
        assert results.keys() == {"loss"} and close(backend, [results["loss"]], [loss])
        total += kept - moved.flat
    engine.read("gradient", 8)[...] = backend.to_device(total)
    engine.execute(8, "update")
    assert close(backend, flat, theta - 0.5 * total)


def test_execute_without_phases_runs_them_all(backend):
    data = samples(backend, "softmax")
    engine, flat, _ = trainer(backend, "softmax", data, 4)
    other, other_flat, _ = trainer(backend, "softmax", data, 4)
    engine.run(np.arange(4), np.full((1, 1), 0.5))
    other.feed(4, X=backend.to_device(data[0][:4].T), Y=backend.to_device(data[1][:4].T))
    other.set_slots(np.array([0.5]))
    other.execute(4)
    np.testing.assert_array_equal(backend.to_host(flat), backend.to_host(other_flat))


def test_read_gives_buffers_as_the_math_sees_them(backend):
    data = samples(backend, "softmax")
    engine, _, expected = trainer(backend, "softmax", data, 4)
    engine.run(np.arange(3), np.zeros((1, 1)))
    assert close(backend, engine.read("X", 3), data[0][:3].T)
    assert close(backend, engine.read("W2", 3), expected.weights[1])
    assert close(backend, engine.read("b2", 3), expected.biases[1])
    A1 = np.maximum(expected.weights[0] @ data[0][:3].T + expected.biases[0], 0)
    assert close(backend, engine.read("A1", 3), A1)


def test_many_batch_sizes_in_turn(backend):
    """Bound lists are kept for a few sizes; one that was dropped is bound again to the same memory."""
    data = samples(backend, "softmax")
    engine, flat, expected = trainer(backend, "softmax", data, 12)
    for size in [*range(1, 13), 12, 1, 7]:
        engine.run(np.arange(size), np.full((1, 1), 0.1))
        rate = float(backend.dtype.type(0.1))
        plain_step(
            expected.weights,
            expected.biases,
            data[0][:size],
            data[1][:size],
            np.ones(size),
            rate,
            *NETWORKS["softmax"][1:],
        )
    assert close(backend, flat, expected.flat)


# What a step costs on NumPy


def test_buffers_start_on_64_bytes_in_memory():
    backend = select_backend("cpu", "float32")
    engine, _, _ = trainer(backend, "softmax", samples(backend, "softmax"), 7)
    for name in ("theta", "gradient", "W1", "b3", "dW2", "db3", "X", "Z1", "Z3", "Y", "L", "work", "dZ2"):
        assert engine.read(name, 5).ctypes.data % 64 == 0, name


@pytest.mark.in_turn(weighted=[False, True], uint8=[True, False], dtype=["float32", "float64"])
def test_a_thousand_steps_allocate_nothing(monkeypatch, weighted, uint8, dtype):
    """Every batch buffer here is larger than 4 KiB, so a temporary or an iterator of NumPy's would show."""
    monkeypatch.setitem(NETWORKS, "wide", ([40, 50, 60, 10], "relu", "identity", "softmax_cross_entropy"))
    backend = select_backend("cpu", dtype)
    data = samples(backend, "wide", n=200, uint8=uint8)
    engine, _, _ = trainer(backend, "wide", data, 128, 1 / 255 if uint8 else None, weighted)
    order, rows = np.arange(128 * 1000) % 200, np.linspace(0.01, 0.02, 1000)[:, None]
    engine.run(order[:256], rows[:2])
    traced, steps = np.zeros((1000, 2), np.int64), itertools.count()  # an array, as a list would keep numbers alive

    def probe():  # at the end of every step
        traced[next(steps)] = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()

    engine.at(128).calls.append(probe)
    tracemalloc.start()
    try:
        engine.run(order, rows)
    finally:
        tracemalloc.stop()
    held, peaks = traced.T
    assert held[-1] - held[9] < 4096  # nothing stays
    assert (peaks[10:] - held[9:-1]).max() < 4096  # nothing comes and goes


# What a chunk costs on a GPU, counted by the fake one


def cost_of_chunk(backend, n_steps, uint8=False, weighted=False):
    data = samples(backend, "softmax", n=130, uint8=uint8)
    engine, _, _ = trainer(backend, "softmax", data, 4, 1 / 255 if uint8 else None, weighted)
    order, rows = np.arange(4 * n_steps), np.full((n_steps, 1), 0.1)
    engine.run(order, rows)  # binds the calls
    with fakecupy.counts.measure() as cost:
        engine.run(order, rows)
    return cost, engine


@pytest.mark.parametrize("uint8", [False, True], ids=["floats", "uint8"])
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
def test_a_chunk_is_one_upload_and_one_read(fake_gpu, weighted, uint8):
    """Transfers and allocations belong to the chunk: thirty steps need as many as three."""
    few, _ = cost_of_chunk(fake_gpu, 3, uint8, weighted)
    many, engine = cost_of_chunk(fake_gpu, 30, uint8, weighted)
    for cost in (few, many):
        assert cost.uploads == 1 and cost.reads == 1
        assert cost.hidden_copies == 0, cost.named("hidden_copies")
        assert cost.numpy_dispatch == 0 and cost.synchronizations == 0
    assert few.allocations == many.allocations <= 2  # the uploaded block and rows_out
    # A launch a call, one a gather, one more to scale bytes, and the copies of a row of slots and one of results.
    per_step = len(engine.program.calls) + len(engine.program.gathers) + uint8 + 2
    # The rate is the same in all steps and so copied once.
    assert few.launches == 3 * per_step - 2 and many.launches == 30 * per_step - 29
    assert many.cub - few.cub == 27 * few.cub / 3


def test_bytes_of_a_chunk(fake_gpu):
    """Indices of 8 bytes and one learning rate a step go up, one loss a step comes down."""
    cost, engine = cost_of_chunk(fake_gpu, 30)
    size = fake_gpu.dtype.itemsize
    assert cost.upload_bytes == 8 * 120 + size * 30
    assert cost.read_bytes == size * 30
    assert engine.bytes_uploaded == 2 * cost.upload_bytes


def test_a_chunk_without_slots_uploads_the_order_alone(fake_gpu):
    data = samples(fake_gpu, "softmax")
    _, flat, _ = trainer(fake_gpu, "softmax", data, 8)
    sizes, activation, output, loss = NETWORKS["softmax"]
    program = evaluation_program(Architecture.of_sizes(sizes, activation, output, None, loss), 8, False, True)
    sources = {"X": (fake_gpu.to_device(data[0]), None), "Y": (fake_gpu.to_device(data[1]), None)}
    engine = Replay(program, fake_gpu, flat, sources)
    with fakecupy.counts.measure() as cost:
        engine.run(np.arange(20), np.empty((3, 0)))
    assert (cost.uploads, cost.upload_bytes, cost.reads) == (1, 8 * 20, 1)
    assert cost.hidden_copies == 0, cost.named("hidden_copies")


def test_nothing_is_uploaded_on_the_cpu():
    backend = select_backend("cpu")
    engine, _, _ = trainer(backend, "softmax", samples(backend, "softmax"), 4)
    engine.run(np.arange(20), np.full((5, 1), 0.1))
    assert engine.bytes_uploaded == 0


def test_no_copy_after_a_bound_list_was_dropped(fake_gpu):
    """CuPy copies an operand that overlaps `out` but is another object: lists bound later must share one, too."""
    engine, _, _ = trainer(fake_gpu, "softmax", samples(fake_gpu, "softmax"), 12)
    for size in [*range(1, 13), 12, 1, 7, 2]:
        with fakecupy.counts.measure() as cost:
            engine.run(np.arange(size), np.full((1, 1), 0.1))
        assert cost.hidden_copies == 0, (size, cost.named("hidden_copies"))


def test_a_step_by_hand_on_a_gpu(fake_gpu):
    """feed and execute stay on the device; results are one read."""
    data = samples(fake_gpu, "softmax")
    engine, _, _ = trainer(fake_gpu, "softmax", data, 4)
    X, Y = fake_gpu.to_device(data[0][:4].T), fake_gpu.to_device(data[1][:4].T)
    for _ in range(2):
        with fakecupy.counts.measure() as cost:
            engine.feed(4, X=X, Y=Y)
            engine.execute(4)
        assert (cost.uploads, cost.reads, cost.allocations, cost.hidden_copies) == (0, 0, 0, 0)
    with fakecupy.counts.measure() as cost:
        engine.read_results()
    assert (cost.reads, cost.read_bytes) == (1, fake_gpu.dtype.itemsize)
    with fakecupy.counts.measure() as cost:
        engine.set_slots(np.array([0.1]))
    assert cost.uploads == 1
