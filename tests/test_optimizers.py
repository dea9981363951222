"""SGD: its update, its slots, and which learning rates it takes."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from xpnet import SGD, select_backend
from xpnet.executors.replay import Replay
from xpnet.program import record


def update_program(optimizer, size):
    def build(recorder):
        gradient = recorder.flat("gradient", size)
        with recorder.phase("update"):
            optimizer.record(recorder, gradient, size, [])

    return record(build, batch=1, n_parameters=size, slots=optimizer.slots)


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
    assert rows.shape == (4, len(SGD.slots)) and rows.dtype == np.float64
    assert rows.tolist() == [[0.3]] * 4
    assert SGD.slots == ("lr",)


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
        for part in (f"lr is {lr}", "finite number above 0", "SGD(lr=0.1)"):
            assert part in str(error.value)
    assert optimizer.lr == 0.2


@pytest.mark.parametrize("lr", ["0.1", None, True, [0.1], np.array([0.1]), 1j, Fraction(1, 2)], ids=repr)
def test_rates_of_another_type_are_refused(lr):
    with pytest.raises(TypeError) as error:
        SGD(lr=lr)
    for part in (f"lr is {lr!r}", "a number above 0", "SGD(lr=0.1)"):
        assert part in str(error.value)
