"""Schedules against closed forms, written out a step at a time, and what cannot be one."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from refusals import refusal, says

from xpnet.training import schedules
from xpnet.training.schedules import (
    SCHEDULES,
    Constant,
    Cosine,
    Exponential,
    InverseScaling,
    OneCycle,
    Step,
    WarmUp,
    schedule_of,
)


def one_cycle(t, lr, total, rise, div, final_div):
    """torch.optim.lr_scheduler.OneCycleLR in two phases, anneal_strategy "cos"."""
    peak, last, low = rise * total - 1, total - 1, lr / div
    if t <= peak:
        return lr + (low - lr) / 2 * (math.cos(math.pi * t / peak) + 1)
    end = low / final_div
    return end + (lr - end) / 2 * (math.cos(math.pi * (min(t, last) - peak) / (last - peak)) + 1)


CASES = [
    (Constant(0.3), lambda t: 0.3),
    (Step(0.4, every=3, factor=0.5), lambda t: 0.4 * 0.5 ** (t // 3)),  # torch's StepLR
    (Exponential(0.4, 0.9), lambda t: 0.4 * 0.9**t),  # torch's ExponentialLR
    # torch's CosineAnnealingLR up to T_max
    (Cosine(0.4, 10, 0.1), lambda t: 0.1 + 0.15 * (1 + math.cos(math.pi * min(t, 10) / 10))),
    (Cosine(0.4, 7), lambda t: 0.2 * (1 + math.cos(math.pi * min(t, 7) / 7))),
    # torch's LinearLR(start_factor, total_iters=4), then the other from its start (SequentialLR)
    (WarmUp(0.4, 4, start=0.25), lambda t: 0.4 * (0.25 + 0.75 * min(t, 4) / 4)),
    (WarmUp(Exponential(0.4, 0.5), 4), lambda t: 0.4 * (1 / 3 + 2 / 3 * t / 4) if t < 4 else 0.4 * 0.5 ** (t - 4)),
    (OneCycle(0.4, 20), lambda t: one_cycle(t, 0.4, 20, 0.3, 25, 1e4)),
    (OneCycle(0.4, 11, rise=0.5, div=4, final_div=10), lambda t: one_cycle(t, 0.4, 11, 0.5, 4, 10)),
    (InverseScaling(0.4), lambda t: 0.4 / (t + 1) ** 0.5),  # scikit-learn's eta0 / t^power_t, t from 1
    (InverseScaling(0.4, power=0.25), lambda t: 0.4 / (t + 1) ** 0.25),
]


@pytest.mark.parametrize("schedule", [schedule for schedule, _ in CASES], ids=str)
@pytest.mark.parametrize(("real", "whole"), [(np.float64, np.int64), (np.float32, np.uint8)])
def test_numbers_of_numpy_are_python_s(schedule, real, whole):
    """As linspace and geomspace give them; JSON has them, and bytes do not wrap at step 300."""
    given = {
        name: whole(value) if isinstance(value, int) else real(value) if isinstance(value, float) else value
        for name, value in vars(schedule).items()
    }
    made = type(schedule)(**given)
    assert schedule_of(json.loads(json.dumps(made.to_spec()))) == made
    np.testing.assert_allclose(made.values(0, 400), schedule.values(0, 400), rtol=1e-4 if real == np.float32 else 1e-15)
    np.testing.assert_array_equal(made.values(300, 9), made.values(0, 400)[300:309])


@pytest.mark.parametrize(("schedule", "closed"), CASES, ids=[str(schedule) for schedule, _ in CASES])
def test_values_follow_the_closed_form(schedule, closed):
    expected = [closed(t) for t in range(30)]
    np.testing.assert_allclose(schedule.values(0, 30), expected, rtol=1e-14)
    # whichever way a run is cut into chunks
    parts = [schedule.values(start, size) for start, size in ((0, 1), (1, 4), (5, 0), (5, 7), (12, 18))]
    np.testing.assert_array_equal(np.concatenate(parts), schedule.values(0, 30))
    assert schedule.values(3, 2).dtype == np.float64


def test_where_a_cycle_begins_peaks_and_ends():
    rates = OneCycle(1.0, 100).values(0, 102)
    assert rates[0] == pytest.approx(1 / 25) and rates.argmax() == 29 and rates[29] == 1.0
    assert rates[99] == rates[101] == pytest.approx(1 / 25 / 1e4)


def test_schedules_are_values():
    assert Cosine(0.1, 10) == Cosine(0.1, 10, 0.0) and len({Step(0.1, 5), Step(0.1, 5)}) == 1
    assert repr(Exponential(0.1, 0.5)) == "Exponential(lr=0.1, factor=0.5)"


@pytest.mark.parametrize(
    ("make", "error", "parts"),
    [
        (lambda: Constant(0), ValueError, ["lr is 0", "above 0", "Constant(0.1)"]),
        (lambda: Constant("0.1"), TypeError, ["lr is '0.1'", "number above 0", "Constant(0.1)"]),
        (lambda: Cosine(math.nan, 10), ValueError, ["lr is nan", "finite", "Cosine(0.1, ...)"]),
        (lambda: Step(0.1, 0), ValueError, ["every is 0", "at least 1"]),
        (lambda: Step(0.1, 5, factor=2), ValueError, ["factor is 2", "at most 1", "Step("]),
        (lambda: Exponential(0.1, 0), ValueError, ["factor is 0", "above 0 and of at most 1", "Exponential("]),
        (lambda: Cosine(0.1, 10.0), TypeError, ["total_steps is 10.0", "whole number"]),
        (lambda: Cosine(0.1, 10, lr_end=0.2), ValueError, ["lr_end is 0.2", "at most 0.1"]),
        (lambda: WarmUp(0.1, 0), ValueError, ["steps is 0", "at least 1"]),
        (lambda: WarmUp(-1, 5), ValueError, ["lr is -1", "above 0"]),
        (lambda: WarmUp(0.1, 5, start=0), ValueError, ["start is 0", "above 0", "WarmUp("]),
        (
            lambda: WarmUp(WarmUp(0.1, 5), 5),
            ValueError,
            ["after is WarmUp(", "has its own warm-up", "give it as lr without WarmUp"],
        ),
        (lambda: WarmUp(OneCycle(0.1, 50), 5), ValueError, ["after is OneCycle", "without WarmUp"]),
        (
            lambda: WarmUp(Cosine(0.1, 10), 11),
            ValueError,
            ["steps is 11", "longer than the 10 steps of Cosine", "WarmUp(Cosine("],
        ),
        (lambda: OneCycle(0.1, None), TypeError, ["total_steps is None", "whole run", "OneCycle(0.1, total_steps="]),
        (
            lambda: OneCycle(0.1, 3),
            ValueError,
            ["rise is 0.3 of 3 steps", "leaves no step to rise in", "make it more than 0.333"],
        ),
        (lambda: OneCycle(0.1, 30, rise=1), ValueError, ["rise is 1", "below 1"]),
        (lambda: OneCycle(0.1, 30, div=0.5), ValueError, ["div is 0.5", "at least 1"]),
        (lambda: OneCycle(0.1, 30, final_div=0), ValueError, ["final_div is 0", "at least 1"]),
        (lambda: InverseScaling(0.1, -0.5), ValueError, ["power is -0.5", "above 0", "InverseScaling("]),
    ],
)
def test_refusals(make, error, parts):
    with pytest.raises(error) as raised:
        make()
    says(raised, *parts)


def test_a_schedule_of_one_s_own():
    class Halves(schedules.Schedule):
        def values(self, first_step, n_steps):
            return 0.5 ** np.arange(first_step, first_step + n_steps)

    warm_up = WarmUp(Halves(), 2, start=0.5)
    assert warm_up.values(0, 5).tolist() == [0.5, 0.75, 1.0, 0.5, 0.25]
    with refusal(ValueError, "the schedule is ", "a spec cannot hold a class of your own", "such as Cosine("):
        warm_up.to_spec()


# --- specs -----------------------------------------------------------------------------------------------------------

VALUES = [
    Constant(0.1),
    Step(0.1, every=5),
    Exponential(0.1, 0.9),
    Cosine(0.1, 10, lr_end=0.01),
    OneCycle(0.1, 50, rise=0.4),
    InverseScaling(0.1),
    WarmUp(Cosine(0.1, 10), 5),
    WarmUp(0.1, 5, start=0.5),
]


@pytest.mark.parametrize("schedule", VALUES, ids=repr)
def test_specs_go_through_json_and_back(schedule):
    assert schedule_of(json.loads(json.dumps(schedule.to_spec()))) == schedule


def test_specs_by_hand():
    assert {type(schedule) for schedule in VALUES} == set(SCHEDULES.values())
    assert Step(0.1, every=5).to_spec() == {"type": "step", "lr": 0.1, "every": 5, "factor": 0.1}
    warm_up = {"type": "warm-up", "after": {"type": "exponential", "lr": 0.1, "factor": 0.9}, "steps": 5, "start": 0.5}
    assert WarmUp(Exponential(0.1, 0.9), 5, 0.5).to_spec() == warm_up


@pytest.mark.parametrize(
    ("spec", "parts"),
    [
        ("cosine", ["the schedule is 'cosine'", "it must be a dict", '{"type": "constant", "lr": 0.1}']),
        ({"type": "cosin"}, ["schedule is 'cosin'", "did you mean 'cosine'?"]),
        ({"type": "step", "lr": 0.1, "evry": 5}, ["key of a step schedule is 'evry'", "did you mean 'every'?"]),
        ({"type": "step", "lr": 0.1}, ["the step schedule", "lacks a key", "it needs lr and every"]),
        ({"type": "constant", "lr": "0.1"}, ["lr is '0.1'", "number above 0", "Constant(0.1)"]),
        ({"type": "warm-up", "after": {"type": "constant"}, "steps": 5}, ["the constant schedule", "it needs lr"]),
    ],
    ids=str,
)
def test_bad_specs_are_value_errors(spec, parts):
    with pytest.raises(ValueError) as error:
        schedule_of(spec)
    says(error, *parts)
