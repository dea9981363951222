"""Short trainings at several rates: judged as by hand, towards lower losses, without a trace."""

from __future__ import annotations

import math

import numpy as np
import pytest

import xpnet
from xpnet import SGD, Adam, Dataset, Network, RateSearch, find_lr
from xpnet.training import rate_trials
from xpnet.training.rate_trials import FACTOR


def parts():
    rng = np.random.default_rng(4)
    X = rng.standard_normal((6, 96))
    made = [Dataset.from_labels(X[:, part], X[:3, part].argmax(axis=0), 3) for part in (slice(64), slice(64, None))]
    return made[0], made[1]


def test_the_rates_are_tried_as_by_hand(float64_cpu, monkeypatch):
    monkeypatch.setattr(rate_trials, "STEPS", 12)
    (training, validation), network = parts(), Network([6, 8, 3], backend=float64_cpu, seed=1)
    kept, optimizer = network.owned.copy(), Adam(0.5)
    found = find_lr(network, training, optimizer, batch_size=16, seed=3, validation=validation)
    plain = find_lr(network, training, optimizer, batch_size=16, seed=3)
    np.testing.assert_array_equal(network.owned, kept)
    assert optimizer.lr == 0.5 and plain.trials == {} and plain.alike is None
    places = np.log(np.array(list(found.trials)) / plain.suggestion) / math.log(FACTOR)
    np.testing.assert_allclose(places, places.round(), atol=1e-9)
    rate = next(iter(found.trials))
    losses = []
    for seed in (3, 4):
        other = Network([6, 8, 3], backend=float64_cpu, seed=1)
        options = {"epochs": 3, "batch_size": 16, "seed": seed, "validation": validation, "progress": False}
        losses.append(min(record["val_loss"] for record in xpnet.train(other, training, Adam(rate), **options)[1:]))
    assert found.trials[rate] == pytest.approx(np.mean(losses), rel=1e-9)
    assert found.suggestion == min(found.trials, key=found.trials.get)


@pytest.mark.parametrize(("lowest", "n"), [(0.0, 3), (1.2, 4), (-3.0, 6), (9.0, 7)])
def test_the_search_goes_down_to_a_rate_between_two_worse_ones(lowest, n):
    asked = []

    def loss_of(rate):
        asked.append(rate)
        return abs(math.log(rate / 0.01, FACTOR) - lowest)

    found = rate_trials._descended(loss_of, 0.01)
    assert len(asked) == len(found) == n and list(found) == sorted(found)
    if n < rate_trials.MOST_RATES:
        assert math.log(min(found, key=found.get) / 0.01, FACTOR) == pytest.approx(round(lowest))


def test_rates_that_do_as_well_are_named():
    lrs = losses = np.ones(3)
    search = RateSearch(lrs, losses, 0.01, {0.001: 1.04, 0.01: 1.0, 0.1: 1.2, 1.0: math.inf})
    assert search.alike == (0.001, 0.01)
    assert RateSearch(lrs, losses, None, {0.1: math.inf}).alike is None


def test_a_large_data_set_is_tried_in_part(float64_cpu, monkeypatch):
    seen = []

    def spy(network, dataset, optimizer, validation, **options):
        seen.append((dataset.n_samples, validation.n_samples, options["epochs"]))
        yield {"epoch": 0, "val_loss": 0.0}
        yield {"epoch": 1, "val_loss": 1.0}

    monkeypatch.setattr(rate_trials, "epochs", spy)
    rng = np.random.default_rng(0)
    large, held_out = (Dataset(rng.standard_normal((2, n)), np.zeros((1, n))) for n in (7000, 6000))
    network = Network([2, 1], loss="squared_error", backend=float64_cpu)
    assert set(rate_trials.rate_trials(network, large, SGD(), held_out, 0.1, 32, 0).values()) == {1.0}
    assert set(seen) == {(6400, 5000, 3)}
