"""Optimizers: golden values of torch and optax, the update's options against NumPy, ownership of state, refusals."""

from __future__ import annotations

import gc
import json
import sys
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import fakecupy
import numpy as np
import pytest
from refusals import says

import xpnet
from xpnet import SGD, Adam, AdamW, Dataset, Lion, Momentum, NAdam, Nesterov, Network, select_backend
from xpnet.engines.replay import Replay
from xpnet.program.recorder import record
from xpnet.training import optimizers
from xpnet.training.schedules import Exponential

GOLDEN = json.loads((Path(__file__).parents[1] / "golden/optimizers.json").read_text(encoding="utf-8"))
OPTIMIZERS = [made.__name__ for made in optimizers.OPTIMIZERS.values()]
ALL_OPTIONS = {"l1": 0.01, "l2": 0.02, "clip_value": 0.4, "clip_norm": 0.5, "max_norm": 0.9, "ema": 0.7}


def update_program(optimizer, size, shapes=()):
    """The update alone, on `size` parameters that are all weights, or on matrices of `shapes` and 4 biases."""

    def build(recorder):
        gradient = recorder.flat("gradient", size)
        offsets = np.cumsum([0, *(n_out * n_in for n_out, n_in in shapes)]).tolist()
        matrices = [
            recorder.matrix_in(recorder.theta, f"W{i}", offset, shape)
            for i, (offset, shape) in enumerate(zip(offsets, shapes, strict=False))
        ]
        with recorder.phase("update"):
            optimizer.record(recorder, gradient, offsets[-1] if shapes else size, matrices)

    return record(build, batch=1, n_parameters=size, slots=optimizer.slots)


def run_updates(backend, optimizer, theta, gradients, shapes=()):
    """Yield theta, on the host in float64, after the update by each gradient."""
    network = Network([1, 2], backend=backend)  # only who trains matters here
    on_device = backend.to_device(theta).copy()
    engine = Replay(update_program(optimizer, len(theta), shapes), backend, on_device)
    optimizer.attach(network, engine)
    for gradient in gradients:
        engine.feed(1, gradient=backend.to_device(gradient))
        engine.set_slots(optimizer.slot_rows(1)[0])
        engine.execute(1, "update")
        optimizer.advance(1)
        yield backend.to_host(on_device).astype(float)


# --- the rules -------------------------------------------------------------------------------------------------------


@pytest.mark.pairwise(name=list(GOLDEN["cases"]), decay=["1", "0.9"])
def test_twenty_steps_equal_torch_and_optax(backend, name, decay):
    """Golden values of torch.optim (of optax for Lion), at a constant rate and at one that falls by a tenth a step."""
    case = GOLDEN["cases"][name]
    lr = case["lr"] if decay == "1" else Exponential(case["lr"], float(decay))
    optimizer = getattr(xpnet, case["optimizer"])(**{**case["arguments"], "lr": lr})
    found = list(run_updates(backend, optimizer, np.array(GOLDEN["start"]), np.array(GOLDEN["gradients"])))
    tolerance = 1e-10 if backend.dtype == np.float64 else 2e-5
    for step, expected in zip(GOLDEN["steps"], case["theta"][decay], strict=True):
        np.testing.assert_allclose(found[step - 1], expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    ("name", "n_calls"),
    [
        ("SGD", 2),
        ("Momentum", 4),
        ("Nesterov", 5),
        ("AdaGrad", 7),
        ("RMSProp", 9),
        ("Adam", 18),
        ("AdamW", 21),
        ("NAdam", 34),
        ("Lion", 8),
    ],
)
def test_calls_of_an_update_do_not_grow_with_the_network(name, n_calls):
    for sizes in ([3, 2], [3, 4, 4, 4, 2]):
        program = Network(sizes, backend=select_backend("cpu")).training_program(4, getattr(xpnet, name)(), False)
        assert sum(call.phase == "update" for call in program.calls) == n_calls
        assert "update" in program.describe()


@pytest.mark.parametrize("optimizer", [Adam(ema=0.9), NAdam(clip_norm=1.0), AdamW(l2=0.1)], ids=repr)
def test_what_goes_by_the_step_advances_together(optimizer):
    """Calls on one element stand side by side, so that an engine that fuses needs one launch for them."""
    calls = update_program(optimizer, 64).calls
    sizes = [call.out.buffer.size == 1 for call in calls if call.kernel != "clip_norm"]
    assert any(sizes) and sum(a != b for a, b in pairwise(sizes)) <= 2


# --- the options of the update ---------------------------------------------------------------------------------------

SHAPES = [(3, 4), (2, 3)]
N_WEIGHTS, SIZE = 18, 22


def reference_update(theta, gradient, lr, l1=0.0, l2=0.0, clip_value=np.inf, clip_norm=np.inf, max_norm=np.inf):
    """One SGD step with options, in the documented order, a unit at a time."""
    gradient, theta = gradient.copy(), theta.copy()
    for i in range(N_WEIGHTS):
        gradient[i] += l1 * np.sign(theta[i]) + l2 * theta[i]
    gradient = gradient.clip(-clip_value, clip_value)
    gradient *= min(1.0, clip_norm / (np.linalg.norm(gradient) + 1e-6))
    theta -= lr * gradient
    start = 0
    for n_out, n_in in SHAPES:
        for unit in range(n_out):
            row = slice(start + unit * n_in, start + (unit + 1) * n_in)
            theta[row] *= min(1.0, max_norm / np.linalg.norm(theta[row]))
        start += n_out * n_in
    return theta


@pytest.mark.parametrize(
    "names", [*((name,) for name in ALL_OPTIONS if name != "ema"), tuple(ALL_OPTIONS)], ids="-".join
)
def test_options_of_the_update(backend, names):
    """Each alone, and all in their order; the average is looked at below."""
    options = {name: ALL_OPTIONS[name] for name in names}
    rng = np.random.default_rng(3)
    theta, gradients = rng.standard_normal(SIZE), rng.standard_normal((6, SIZE)) * [[0.01], [1], [0.1], [5], [0], [1]]
    theta[[1, 20]] = 0.0  # the slope of l1 there is 0; biases have no penalty
    expected = theta.astype(backend.dtype).astype(float)
    tolerance = 1e-12 if backend.dtype == np.float64 else 1e-5
    moves = run_updates(backend, SGD(0.3, **options), theta, gradients, SHAPES)
    without_average = {name: value for name, value in options.items() if name != "ema"}
    for found, gradient in zip(moves, gradients, strict=True):
        expected = reference_update(expected, gradient, 0.3, **without_average)
        np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)
    assert not np.allclose(expected, theta - 0.3 * gradients.sum(axis=0), atol=1e-3)  # the options did something


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_takes_every_option(float64_cpu, name):
    rng = np.random.default_rng(0)
    theta, gradients = rng.standard_normal(SIZE), rng.standard_normal((3, SIZE))
    *_, after = run_updates(float64_cpu, getattr(xpnet, name)(0.1, **ALL_OPTIONS), theta, gradients, SHAPES)
    for W in (after[:12].reshape(3, 4), after[12:18].reshape(2, 3)):
        assert (np.linalg.norm(W, axis=1) <= 0.9 + 1e-12).all()


@pytest.mark.parametrize("optimizer", [AdamW(0.1, weight_decay=0.5), Lion(0.1, weight_decay=0.5)], ids=repr)
def test_decoupled_decay_spares_the_biases(float64_cpu, optimizer):
    theta = np.ones(SIZE)
    (after,) = run_updates(float64_cpu, optimizer, theta, np.zeros((1, SIZE)), SHAPES)
    np.testing.assert_allclose(after, [1 - 0.1 * 0.5] * N_WEIGHTS + [1.0] * 4, rtol=1e-15)


def test_an_update_with_everything_moves_nothing_between_host_and_gpu(fake_gpu):
    rng = np.random.default_rng(0)
    dataset = Dataset.from_labels(rng.random((6, 24)), rng.integers(0, 3, 24), 3)
    for name in OPTIMIZERS:
        network, optimizer = Network([6, 4, 3], backend=fake_gpu), getattr(xpnet, name)(0.01, **ALL_OPTIONS)
        engine = Replay(network.training_program(8, optimizer, False), fake_gpu, network.parameters.flat)
        optimizer.attach(network, engine)
        engine.feed(8, X=fake_gpu.to_device(dataset.X[:, :8]), Y=fake_gpu.to_device(dataset.Y[:, :8]))
        engine.set_slots(optimizer.slot_rows(1)[0])
        engine.execute(8)
        with fakecupy.counts.measure() as cost:
            engine.execute(8)
        assert (cost.uploads, cost.reads, cost.hidden_copies, cost.numpy_dispatch) == (0, 0, 0, 0), name
        assert np.isfinite(fake_gpu.to_host(network.parameters.flat)).all()


# --- ownership of state ----------------------------------------------------------------------------------------------


def labelled(n=23):
    rng = np.random.default_rng(4)
    return Dataset.from_labels(rng.random((6, n)), rng.integers(0, 3, n), 3)


def fresh(backend, seed=1):
    return Network([6, 4, 3], activation="tanh", backend=backend, seed=seed)


def theta_of(network):
    return network.backend.to_host(network.parameters.flat).copy()


@pytest.mark.in_turn(name=OPTIMIZERS)
def test_two_runs_of_five_epochs_are_one_of_ten(backend, name):
    def run(*parts):
        network = fresh(backend)
        optimizer = getattr(xpnet, name)(Exponential(0.01, 0.99), ema=0.9, l2=1e-3)
        losses = []
        for n_epochs in parts:
            history = xpnet.train(network, labelled(), optimizer, epochs=n_epochs, batch_size=5, shuffle=False)
            losses += history.column("train_loss")[1:]
        assert optimizer.steps_done == 50
        return theta_of(network).tobytes(), losses, theta_of_average(optimizer, network)

    assert run(5, 5) == run(10)


def theta_of_average(optimizer, network):
    return network.backend.to_host(optimizer.averaged(network).flat).tobytes()


def test_masks_and_running_statistics_go_on_too(backend):
    def run(*parts):
        network = Network([6, 4, 3], normalization="batch", dropout=0.3, backend=backend, seed=1)
        optimizer = Adam(0.01, l2=1e-3, max_norm=1.0)
        for n_epochs in parts:
            xpnet.train(network, labelled(20), optimizer, epochs=n_epochs, batch_size=5, shuffle=False)
        return backend.to_host(network.owned).tobytes()

    assert run(2, 3) == run(5)


def test_step_and_train_share_the_state(float64_cpu):
    """step, train, step, train, and a step inside the generator, equal the same updates by step alone."""
    data, mixed, plain = labelled(20), fresh(float64_cpu), fresh(float64_cpu)
    one, other = Adam(0.01), Adam(0.01)

    def by_step(network, optimizer, n_steps):
        for _ in range(n_steps):
            xpnet.step(network, optimizer, data.X, data.Y.astype(float))

    by_step(mixed, one, 2)
    xpnet.train(mixed, data, one, epochs=3, shuffle=False)
    by_step(mixed, one, 1)
    for record_ in xpnet.epochs(mixed, data, one, epochs=2, shuffle=False):
        if record_["epoch"] == 1:
            by_step(mixed, one, 1)
    by_step(plain, other, 9)
    assert one.steps_done == other.steps_done == 9
    np.testing.assert_allclose(theta_of(mixed), theta_of(plain), rtol=1e-12)


def test_another_network_starts_anew(float64_cpu):
    optimizer = Adam(0.01)
    first, second, alone = (fresh(float64_cpu) for _ in range(3))
    xpnet.train(first, labelled(), optimizer, epochs=2, batch_size=5)
    xpnet.train(second, labelled(), optimizer, epochs=2, batch_size=5)
    xpnet.train(alone, labelled(), Adam(0.01), epochs=2, batch_size=5)
    assert optimizer.steps_done == 10
    assert np.array_equal(theta_of(second), theta_of(alone))
    # and an optimizer does not keep its network alive
    assert optimizer._snapshot.state.base is None  # nor the engine's memory
    reference = optimizer._snapshot.network
    del second
    gc.collect()
    assert reference() is None


def test_divergence_gives_the_state_back_too(float64_cpu):
    rng = np.random.default_rng(0)
    dataset = Dataset(rng.standard_normal((3, 20)), rng.standard_normal(20))
    network, optimizer = Network([3, 4, 1], loss="squared_error", backend=float64_cpu), Momentum(0.01)
    xpnet.train(network, dataset, optimizer, epochs=2, batch_size=5)
    before = optimizer.snapshot()
    optimizer.lr = 1e200
    with pytest.raises(xpnet.TrainingDiverged, match=r"lr is 1e\+200"):
        xpnet.train(network, dataset, optimizer, epochs=1, batch_size=5)
    after = optimizer.snapshot()
    assert after.steps_done == before.steps_done == 8 and np.array_equal(after.state, before.state)
    optimizer.lr = 0.01
    assert xpnet.train(network, dataset, optimizer, epochs=5)[-1]["train_loss"] < 1


def test_the_program_is_recorded_once_however_the_rate_changes(float64_cpu, monkeypatch):
    network, calls = fresh(float64_cpu), []
    original = network.training_program
    monkeypatch.setattr(network, "training_program", lambda *args: calls.append(args) or original(*args))
    optimizer = SGD(Exponential(0.5, 0.9))
    xpnet.train(network, labelled(20), optimizer, epochs=3, batch_size=5, shuffle=False)
    assert len(calls) == 1
    by_hand, data = fresh(float64_cpu), labelled(20)
    for t in range(12):
        part = slice(t % 4 * 5, t % 4 * 5 + 5)
        xpnet.step(by_hand, SGD(0.5 * 0.9**t), data.X[:, part], data.Y[:, part].astype(float))
    np.testing.assert_allclose(theta_of(network), theta_of(by_hand), rtol=1e-12)
    assert optimizer.lr == pytest.approx(0.5 * 0.9**12)  # of the next update
    history = xpnet.train(network, labelled(20), optimizer, epochs=0)
    assert len(history) == 1 and len(calls) == 2


# --- averaged weights ------------------------------------------------------------------------------------------------


def test_averaged_weights(backend):
    network, optimizer, seen = fresh(backend), Adam(0.05, ema=0.8, max_norm=0.6), []
    data = labelled(10)
    X, Y = backend.to_device(data.X), backend.to_device(data.Y)
    for _ in range(6):
        xpnet.step(network, optimizer, X, Y)
        seen.append(theta_of(network).astype(float))
    expected = np.average(seen, axis=0, weights=0.8 ** np.arange(6)[::-1])
    found = optimizer.averaged(network)
    np.testing.assert_allclose(backend.to_host(found.flat), expected, rtol=1e-5, atol=1e-6)
    assert found.weights[0].shape == (4, 6)
    before = theta_of(network)
    with optimizer.averaging(network) as averaged:
        np.testing.assert_array_equal(theta_of(averaged), backend.to_host(found.flat))
        loss = xpnet.evaluate(averaged, data)["loss"]
    np.testing.assert_array_equal(theta_of(network), before)
    assert loss != xpnet.evaluate(network, data)["loss"]
    with pytest.raises(KeyboardInterrupt), optimizer.averaging(network):
        raise KeyboardInterrupt
    np.testing.assert_array_equal(theta_of(network), before)


def test_an_interrupt_right_after_the_averages_are_in_place_takes_them_out_again(float64_cpu):
    network, optimizer = fresh(float64_cpu), SGD(ema=0.5)
    for _ in range(2):
        xpnet.step(network, optimizer, np.ones((6, 1)), np.eye(3)[:, :1])
    before, found = theta_of(network).copy(), []

    def interrupt(frame, event, argument):
        if frame.f_code.co_name == "averaging" and not np.array_equal(theta_of(network), before):
            sys.settrace(None)
            found.append(frame.f_lineno)
            raise KeyboardInterrupt
        return interrupt

    tracing = sys.gettrace()
    try:
        with pytest.raises(KeyboardInterrupt):
            sys.settrace(interrupt)
            optimizer.averaging(network).__enter__()
    finally:
        sys.settrace(tracing)
    assert found
    np.testing.assert_array_equal(theta_of(network), before)


def test_averages_that_are_not_there(float64_cpu):
    network, other = fresh(float64_cpu), fresh(float64_cpu)
    with pytest.raises(ValueError) as error:
        SGD(0.1).averaged(network)
    says(error, "SGD(lr=0.1) keeps no average", "make it with ema=0.999", "train again")
    optimizer = SGD(ema=0.5)
    for asked in (network, other):
        with pytest.raises(ValueError) as error:
            optimizer.averaged(asked)
        says(error, "no update of that network", "train it first", "pass the network that it trained last")
        xpnet.step(network, optimizer, np.ones((6, 1)), np.eye(3)[:, :1])


# --- SGD, its slots and rates ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-15), ("float32", 1e-6)])
def test_updates_follow_the_slots(dtype, tolerance):
    """Three steps of the recorded update: the second has another rate."""
    backend, optimizer = select_backend("cpu", dtype), SGD(lr=0.5)
    theta = backend.zeros(64)
    theta[:] = np.linspace(-1, 1, 64)
    expected = theta.tolist()
    engine = Replay(update_program(optimizer, 64), backend, theta)
    for lr in (0.5, 0.01, 0.5):
        optimizer.lr = lr
        gradient = np.cos(np.arange(64)).astype(dtype)
        engine.feed(1, gradient=gradient)
        engine.set_slots(optimizer.slot_rows(1)[0])
        engine.execute(1, "update")
        expected = [t - lr * float(g) for t, g in zip(expected, gradient, strict=True)]
    np.testing.assert_allclose(theta, expected, rtol=tolerance, atol=tolerance)


def test_the_update_is_two_calls_for_the_whole_network():
    program = update_program(SGD(), 128)
    assert [(call.word, call.phase, call.out.buffer.name) for call in program.calls] == [
        ("multiply", "update", "gradient"),
        ("subtract", "update", "theta"),
    ]


def test_slot_rows_hold_the_rate_of_every_step_in_float64():
    rows = SGD(lr=0.3).slot_rows(4)
    assert rows.shape == (4, len(SGD().slots)) and rows.dtype == np.float64
    assert rows.tolist() == [[0.3]] * 4
    assert SGD().slots == ("lr",)
    assert SGD(lr=0.3, l2_summed=0.2).slot_rows(2).tolist() == [[0.3, 0.2]] * 2


def test_the_rate_may_change_between_steps():
    optimizer = SGD()
    assert optimizer.lr == 0.1
    optimizer.lr = 0.05
    assert optimizer.slot_rows(1).tolist() == [[0.05]]
    assert repr(optimizer) == "SGD(lr=0.05)"


@pytest.mark.parametrize("lr", [1, np.float32(0.5), np.float64(0.5), np.int64(2), 1e-300], ids=repr)
def test_rates_become_python_floats(lr):
    """The recorder and repr know Python floats alone."""
    found = SGD(lr=lr).lr
    assert type(found) is float and found == lr


@pytest.mark.parametrize("lr", [0, 0.0, -0.1, np.nan, np.inf, -np.inf, np.float32("nan")], ids=repr)
def test_rates_that_cannot_work_are_refused(lr):
    optimizer = SGD(lr=0.2)
    for attempt in (lambda: SGD(lr=lr), lambda: setattr(optimizer, "lr", lr)):
        with pytest.raises(ValueError) as error:
            attempt()
        says(error, f"lr is {lr}", "finite number above 0", "SGD(lr=0.1)")
    assert optimizer.lr == 0.2


@pytest.mark.parametrize("lr", ["0.1", None, True, [0.1], np.array([0.1]), 1j, Fraction(1, 2)], ids=repr)
def test_rates_of_another_type_are_refused(lr):
    with pytest.raises(TypeError) as error:
        SGD(lr=lr)
    says(error, f"lr is {lr!r}", "a number above 0", "SGD(lr=0.1)")


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "arguments", "parts"),
    [
        ("Adam", {"lr": 0}, ["lr is 0", "above 0", "Adam(lr=0.1)"]),
        ("Adam", {"eps": 0}, ["eps is 0", "at least 1e-37", "Adam(eps=1e-08)"]),
        ("Adam", {"eps": 1e-45}, ["eps is 1e-45", "at least 1e-37"]),
        ("AdaGrad", {"eps": 0.0}, ["eps is 0.0", "AdaGrad(eps=1e-10)"]),
        ("RMSProp", {"alpha": 1.0}, ["alpha is 1.0", "below 1", "RMSProp(alpha=0.99)"]),
        ("Adam", {"beta1": 1.0}, ["beta1 is 1.0", "of at least 0 and below 1", "Adam(beta1=0.9)"]),
        ("NAdam", {"beta2": -0.1}, ["beta2 is -0.1", "NAdam(beta2=0.999)"]),
        ("NAdam", {"momentum_decay": -1}, ["momentum_decay is -1", "of at least 0"]),
        ("Lion", {"beta2": 1}, ["beta2 is 1", "below 1", "Lion(beta2=0.99)"]),
        ("Momentum", {"momentum": 1.0}, ["momentum is 1.0", "below 1", "Momentum(momentum=0.9)"]),
        ("Nesterov", {"momentum": float("nan")}, ["momentum is nan", "finite"]),
        ("AdamW", {"weight_decay": -0.01}, ["weight_decay is -0.01", "of at least 0", "AdamW(weight_decay=0.01)"]),
        ("SGD", {"l1": -1}, ["l1 is -1", "SGD(l1=0.0001)"]),
        ("SGD", {"l2": float("inf")}, ["l2 is inf", "finite"]),
        ("SGD", {"clip_norm": 0}, ["clip_norm is 0", "above 0", "SGD(clip_norm=1)"]),
        ("SGD", {"clip_value": -1.0}, ["clip_value is -1.0", "above 0"]),
        ("SGD", {"max_norm": 0.0}, ["max_norm is 0.0", "SGD(max_norm=3)"]),
        ("Adam", {"ema": 1.0}, ["ema is 1.0", "above 0 and below 1", "Adam(ema=0.999)"]),
    ],
)
def test_values_that_cannot_work(name, arguments, parts):
    with pytest.raises(ValueError) as error:
        getattr(xpnet, name)(**arguments)
    says(error, *parts)


@pytest.mark.parametrize("arguments", [{"eps": "1e-8"}, {"ema": True}, {"l2": None}, {"clip_norm": [1]}], ids=repr)
def test_values_of_another_type(arguments):
    ((name, value),) = arguments.items()
    with pytest.raises(TypeError) as error:
        Adam(**arguments)
    says(error, f"{name} is {value!r}", "it must be a number", f"Adam({name}=")


def test_only_the_rate_may_change():
    """The rest is recorded in Programs that may be in use."""
    optimizer = Adam(l2=0.1)
    for name in ("beta1", "l2", "clip_norm"):
        with pytest.raises(AttributeError) as error:
            setattr(optimizer, name, 0.5)
        says(error, f"{name} is", "part of recorded Programs", f"make a new Adam({name}=...)")
    optimizer.lr = Exponential(0.1, 0.5)
    assert repr(optimizer) == "Adam(lr=Exponential(lr=0.1, factor=0.5), beta1=0.9, beta2=0.999, eps=1e-08, l2=0.1)"
    assert repr(Nesterov()) == "Nesterov(lr=0.1, momentum=0.9)"


def l2_summed_by_hand(theta, X, Y, w, n_weights, l2_summed):
    """theta after an SGD step of rate 0.1 on a squared error of one linear layer, in float64, and the penalty."""
    W, b = theta[: X.shape[0] * Y.shape[0]].reshape(Y.shape[0], -1), theta[n_weights:][: len(Y), None]
    error = (W @ X + b - Y) * w / w.sum()
    updated = theta.copy()
    updated[: W.size] -= 0.1 * (error @ X.T + l2_summed / w.sum() * W).ravel()
    updated[n_weights:][: len(Y)] -= 0.1 * error.sum(axis=1)
    return updated, l2_summed / 2 / w.sum() * (W**2).sum()


@pytest.mark.in_turn(engine=["replay", "compiled"], weighted=[False, True], accumulate=[1, 4])
def test_l2_summed_is_divided_by_the_weight_of_the_whole_update(float64_cpu, engine, weighted, accumulate):
    """Whatever steps it was added up from, the last of them short."""
    rng = np.random.default_rng(0)
    X, Y, w = rng.standard_normal((3, 25)), rng.standard_normal((2, 25)), np.ones(25)
    if weighted:
        w = rng.integers(0, 5, 25) * 1.0
    network = xpnet.Network([3, 2], loss="squared_error", backend=float64_cpu)
    data = Dataset(X, Y, w if weighted else None)
    relative, theta, n_weights = w / w.mean(), network.parameters.flat.copy(), network.parameters.layout.n_weights
    options = {"batch_size": 8, "accumulate": accumulate, "shuffle": False, "engine": engine}
    for part in [slice(0, 25)] if accumulate == 4 else [slice(i, i + 8) for i in range(0, 25, 8)]:
        theta, _ = l2_summed_by_hand(theta, X[:, part], Y[:, part], relative[part], n_weights, 0.6)
    xpnet.train(network, data, SGD(0.1, l2_summed=0.6), epochs=1, **options)
    np.testing.assert_allclose(network.parameters.flat, theta, rtol=1e-12, atol=1e-15)


def test_l2_summed_may_change_and_takes_no_update_without_weight(float64_cpu):
    X, Y = np.random.default_rng(0).standard_normal((2, 3, 8))
    network, optimizer = xpnet.Network([3, 3], loss="squared_error", backend=float64_cpu), SGD(0.1, l2_summed=0.6)
    theta, n_weights = network.parameters.flat.copy(), network.parameters.layout.n_weights
    for l2_summed in (0.6, 0.2):
        optimizer.l2_summed = l2_summed
        xpnet.step(network, optimizer, X, Y)
        theta, _ = l2_summed_by_hand(theta, X, Y, np.ones(8), n_weights, l2_summed)
        np.testing.assert_allclose(network.parameters.flat, theta, rtol=1e-13)
    before = network.parameters.flat.copy()
    assert xpnet.step(network, optimizer, X, Y, np.zeros(8)) == 0.0
    np.testing.assert_array_equal(network.parameters.flat, before)
    data = Dataset(X, Y, np.repeat([0.0, 1.0], 4))  # the first update of an epoch has no weight
    for accumulate in (1, 2):
        optimizer = SGD(0.1, l2_summed=0.6)
        options = {"epochs": 1, "batch_size": 4 // accumulate, "accumulate": accumulate, "shuffle": False}
        twin = xpnet.Network([3, 3], loss="squared_error", backend=float64_cpu)
        start = twin.parameters.flat.copy()
        xpnet.train(twin, data, optimizer, **options)
        expected, _ = l2_summed_by_hand(start, X[:, 4:], Y[:, 4:], np.full(4, 2.0), n_weights, 0.6)
        np.testing.assert_allclose(twin.parameters.flat, expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("size", [1e-300, 1e-38, 1e-31, 1e30, 1e38, 1e308])
def test_no_scale_of_the_weights_changes_a_step_or_a_measure(size):
    """Its sum may leave the range of float32, or of float64."""
    dtype = "float64" if not 1e-38 < size < 1e38 else "float32"
    backend = select_backend("cpu", dtype)
    rng = np.random.default_rng(0)
    X, Y = (backend.to_device(rng.standard_normal((3, 2048))) for _ in range(2))
    weights = rng.integers(0, 4, 2048).astype(backend.dtype)
    found = []
    for w in (weights, (weights * (size / 4)).astype(backend.dtype)):
        network, optimizer = xpnet.Network([3, 3], loss="squared_error", backend=backend), SGD(0.1)
        found.append([network.evaluate_loss(X, Y, w), *network.gradients(X, Y, w).flat])
        found[-1] += [xpnet.step(network, optimizer, X, Y, w), *network.parameters.flat]
        data = Dataset(X, Y, w)
        found[-1] += [xpnet.train(network, data, optimizer, epochs=1)[-1]["train_loss"]]
        found[-1] += [xpnet.evaluate(network, data)["loss"], *network.parameters.flat]
    error = network.forward(X).astype(float) - Y
    assert found[0][-1 - network.parameters.flat.size] == pytest.approx(
        np.average((error**2).sum(axis=0) / 2, weights=weights), rel=1e-5
    )
    np.testing.assert_allclose(*found, rtol=1e-6, atol=1e-7)
