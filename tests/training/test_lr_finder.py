"""The learning-rate search: the ramp, its loss by hand, where it stops, and that it leaves no trace."""

from __future__ import annotations

import numpy as np
import pytest
from refusals import says

import xpnet
from xpnet import SGD, Adam, Dataset, Network, find_lr
from xpnet.network.parameters import random_generator
from xpnet.training.schedules import Cosine


def labelled(n=64, weights=None):
    rng = np.random.default_rng(4)
    X = rng.standard_normal((6, n))
    return Dataset.from_labels(X, X[:3].argmax(axis=0), 3, weights)


def fresh(backend):
    return Network([6, 8, 3], backend=backend, seed=1)


def test_the_losses_are_those_of_steps_by_hand(float64_cpu):
    data, by_hand = labelled(), fresh(float64_cpu)
    found = find_lr(
        fresh(float64_cpu), data, SGD(), lr_start=1e-3, lr_end=1.0, n_steps=40, batch_size=16, smoothing=0.5, seed=3
    )
    np.testing.assert_allclose(found.lrs, np.geomspace(1e-3, 1.0, 40), rtol=1e-12)
    rng = random_generator(3, 1)
    order = np.concatenate([rng.permutation(64) for _ in range(10)])
    losses = []
    for t, lr in enumerate(found.lrs):
        part = order[16 * t : 16 * t + 16]
        losses.append(xpnet.step(by_hand, SGD(lr), data.X[:, part].copy(), data.Y[:, part].astype(float)))
    smoothed = [np.average(losses[: t + 1], weights=0.5 ** np.arange(t + 1)[::-1]) for t in range(40)]
    np.testing.assert_allclose(found.losses, smoothed, rtol=1e-10)
    lowest = min(range(37), key=lambda t: sum(losses[t : t + 4]))
    assert found.suggestion == pytest.approx(np.exp(np.log(found.lrs[lowest : lowest + 4]).mean()) / 5)


def test_a_noisy_start_is_no_steepest_fall(float64_cpu):
    """Of standardised features Adam's best rates are some thousandths, whatever the first batches were."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((6, 300))
    data = Dataset(X, X[:1] + X[1:2] + 0.3 * X[2:3] ** 2)
    for seed in range(4):
        network = Network([6, 64, 32, 1], loss="squared_error", backend=float64_cpu, seed=seed)
        found = find_lr(network, data, Adam(), seed=seed)
        assert 1e-3 < found.suggestion < 0.3


@pytest.mark.parametrize("weighted", [False, True])
def test_it_leaves_no_trace(backend, weighted):
    data = labelled(weights=np.random.default_rng(0).random(64) + 0.1 if weighted else None)
    network, other = fresh(backend), fresh(backend)
    optimizer, same = Adam(Cosine(0.01, 100), ema=0.9), Adam(Cosine(0.01, 100), ema=0.9)
    for each, rule in ((network, optimizer), (other, same)):
        xpnet.train(each, data, rule, epochs=2, batch_size=16)
    found = find_lr(network, data, optimizer, n_steps=40)
    assert optimizer.steps_done == 8 and repr(optimizer) == repr(same)
    for each, rule in ((network, optimizer), (other, same)):
        xpnet.train(each, data, rule, epochs=2, batch_size=16)
    np.testing.assert_array_equal(*(backend.to_host(each.parameters.flat) for each in (network, other)))
    assert 1e-7 < found.suggestion < 10


def test_running_statistics_stay_too(float64_cpu):
    network = Network([6, 4, 3], normalization="batch", dropout=0.3, backend=float64_cpu)
    before = network.owned.copy()
    find_lr(network, labelled(), SGD(), n_steps=20)
    np.testing.assert_array_equal(network.owned, before)


def test_it_stops_once_the_loss_runs_away(backend):
    found = find_lr(fresh(backend), labelled(), SGD(), lr_end=1e8, n_steps=100, smoothing=0.0)
    assert 20 < len(found.losses) == len(found.lrs) < 100
    assert np.isfinite(found.losses).all()
    assert (found.losses[:-1] <= 4 * np.minimum.accumulate(found.losses[:-1])).all()


def test_a_search_that_fails_gives_the_weights_back(float64_cpu, monkeypatch):
    network = fresh(float64_cpu)
    before = network.parameters.flat.copy()

    def interrupted(*args):
        network.parameters.flat[...] = 7.0
        raise KeyboardInterrupt

    monkeypatch.setattr("xpnet.training.lr_finder._ramp", interrupted)
    with pytest.raises(KeyboardInterrupt):
        find_lr(network, labelled(), SGD())
    np.testing.assert_array_equal(network.parameters.flat, before)


def test_too_few_steps_give_no_suggestion(float64_cpu):
    network = fresh(float64_cpu)
    found = find_lr(network, labelled(), SGD(), lr_start=1e300, lr_end=1e301, n_steps=10)
    assert found.suggestion is None and len(found.losses) < 10


@pytest.mark.parametrize(
    ("changes", "error", "parts"),
    [
        ({"lr_start": 0}, ValueError, ["lr_start is 0", "above 0"]),
        ({"lr_end": 1e-8}, ValueError, ["lr_end is 1e-08", "above 1e-07"]),
        ({"n_steps": 5}, ValueError, ["n_steps is 5", "at least 10"]),
        ({"batch_size": 0}, ValueError, ["batch_size is 0"]),
        ({"smoothing": 1.0}, ValueError, ["smoothing is 1.0", "below 1"]),
        ({"optimizer": 0.1}, TypeError, ["optimizer is 0.1", "it must be an optimizer such as", "xpnet.SGD(lr=0.1)"]),
        ({"dataset": np.ones((6, 2))}, TypeError, ["dataset is a ndarray", "it must be a Dataset", "Dataset(X, Y)"]),
    ],
)
def test_refusals(float64_cpu, changes, error, parts):
    arguments = {"dataset": labelled(), "optimizer": SGD(), **changes}
    with pytest.raises(error) as raised:
        find_lr(fresh(float64_cpu), **arguments)
    says(raised, *parts)


@pytest.mark.parametrize("batch_size", [8, 16])
@pytest.mark.parametrize("lr_end", [1e-9, 1e-6])
def test_a_loss_that_only_scatters_suggests_nothing(float64_cpu, batch_size, lr_end):
    found = find_lr(fresh(float64_cpu), labelled(), SGD(), lr_start=1e-10, lr_end=lr_end, batch_size=batch_size)
    assert len(found.losses) == 100 and found.suggestion is None
