"""The timing harness by a clock of the test's own: who runs when, how often, and what is waited for."""

from __future__ import annotations

import json
import sys
from itertools import groupby
from types import SimpleNamespace

import fakecupy
import numpy as np
import pytest

from xpnet.timing import harness, machine


@pytest.fixture
def clock(monkeypatch):
    """The harness's clock; it moves only when a test moves it.  log: what happened, "look" for a look at it."""
    clock = SimpleNamespace(now=0.0, log=[])

    def look():
        clock.log.append("look")
        return clock.now

    monkeypatch.setattr(harness, "time", SimpleNamespace(perf_counter=look))
    return clock


def work(clock, name, seconds, late=0.0):
    """A run takes `seconds`, of which the part `late` passes only when the device is waited for."""
    waiting = [0.0]

    def run():
        clock.log.append(name)
        clock.now += seconds * (1 - late)
        waiting[0] += seconds * late

    def synchronize():
        clock.log.append(f"wait {name}")
        clock.now += waiting.pop()
        waiting.append(0.0)

    return harness.Work(run, synchronize)


def test_works_take_turns_in_order_each_between_two_waits(clock):
    works = {"a": work(clock, "a", 0.5), "b": work(clock, "b", 0.25)}
    times = harness.take_turns(works, repeats=3, seconds=1.0)
    assert times == {"a": [0.5] * 3, "b": [0.25] * 3}
    turns = [(key, len(list(group))) for key, group in groupby(clock.log)]
    a = [("wait a", 1), ("look", 1), ("a", 2), ("wait a", 1), ("look", 1)]
    b = [("wait b", 1), ("look", 1), ("b", 4), ("wait b", 1), ("look", 1)]
    assert turns[-30:] == (a + b) * 3
    assert "b" not in clock.log[: clock.log.index("wait b")]  # a is warm before b begins
    assert clock.log[:5] == ["wait a", "look", "a", "wait a", "look"]  # one run to warm up


def test_what_a_device_does_after_the_call_is_timed_too(clock):
    works = {"host": work(clock, "host", 0.5), "device": work(clock, "device", 0.5, late=0.75)}
    times = harness.take_turns(works, repeats=2, seconds=2.0)
    assert times == {"host": [0.5, 0.5], "device": [0.5, 0.5]}


def test_a_turn_lasts_about_the_seconds_asked_for(clock):
    harness.take_turns({"a": work(clock, "a", 2.0**-10)}, repeats=1, seconds=0.5)
    assert [len(list(group)) for key, group in groupby(clock.log) if key == "a"][-1] == 512
    clock.log.clear()
    harness.take_turns({"a": work(clock, "a", 10.0)}, repeats=1, seconds=0.5)
    assert clock.log.count("a") == 3  # warm, counted, timed: a long run is not repeated


@pytest.mark.parametrize("batch", [3, harness.N_SAMPLES + 1])
def test_synthetic_data(batch):
    X, Y, order = harness.synthetic_data(5, 4, batch, steps=2)
    n = max(harness.N_SAMPLES, batch)
    assert X.shape == (n, 5) and Y.shape == (n, 4) and X.dtype == Y.dtype == np.float32
    assert X.min() >= 0 and X.max() < 1
    assert set(np.unique(Y)) == {0.0, 1.0} and (Y.sum(axis=1) == 1).all() and (Y.sum(axis=0) > 0).all()
    assert order.shape == (2 * batch,) and order.min() >= 0 and order.max() < n and len(set(order)) > 1
    again = harness.synthetic_data(5, 4, batch, steps=2)
    assert all((first == second).all() for first, second in zip((X, Y, order), again, strict=True))


def test_limits_are_of_a_known_amount_of_work(clock, fake_gpu, monkeypatch):
    """Each product and copy takes half a second by this clock, so the limits can be told beforehand."""

    def take_turns(works, *, repeats, seconds):
        assert (repeats, seconds) == (1, 0.001)
        for done in works.values():
            done.run()
            done.synchronize()
        return {name: [0.5, 2.0] for name in works}

    monkeypatch.setattr(harness, "take_turns", take_turns)
    with fakecupy.counts.measure() as cost:
        found = harness.limits(fake_gpu, repeats=1, seconds=0.001)
    assert found == {"flops": 2 * 2 * 1536.0**3, "bytes": 2 * 2 * 4.0 * 2**24}
    assert cost.synchronizations == 2 and cost.named("launches")["dot"] == 1


@pytest.mark.full
def test_limits_of_the_cpu(float64_cpu):
    found = harness.limits(float64_cpu, repeats=1, seconds=0.001)
    assert set(found) == {"flops", "bytes"} and all(0 < value < float("inf") for value in found.values())


# --- machine ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("has_gpu", [False, True])
def test_machine_is_json_ready(monkeypatch, has_gpu):
    monkeypatch.setitem(sys.modules, "cupy", fakecupy if has_gpu else None)
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "2")
    facts = json.loads(json.dumps(machine.facts("1.2.3"), allow_nan=False))
    assert facts["xpnet"] == "1.2.3" and facts["numpy"] == np.__version__
    assert facts["blas"].startswith(np.show_config(mode="dicts")["Build Dependencies"]["blas"]["name"])
    assert "OPENBLAS_NUM_THREADS=2" in facts["threads"]
    assert facts["cpu"] and facts["cores"] >= 1 and facts["memory"] > 1 << 28
    assert facts["date"][:2] == "20" and facts["date"].endswith("+00:00")
    gpu = [facts[name] for name in ("gpu", "cupy", "cuda_driver", "cuda_runtime")]
    if has_gpu:
        assert gpu == ["Fake GPU", "14.2.0", 13000, 13000] and facts["no_gpu"] is None
    else:
        assert gpu == [None] * 4 and facts["no_gpu"].startswith("CuPy is not installed")
