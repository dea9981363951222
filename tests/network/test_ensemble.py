"""Networks that are merged into one: its output is the mean of theirs."""

from __future__ import annotations

import numpy as np
import pytest
from refusals import refusal

import xpnet
from xpnet.network.ensemble import deep_linear, mean_network

CPU = xpnet.select_backend("cpu", "float64")


def network(sizes, seed=0, **options):
    made = xpnet.Network(sizes, loss="squared_error", backend=CPU, seed=seed, **options)
    made.owned[...] += 0.1  # biases too
    return made


@pytest.mark.parametrize("hidden", [[], [5], [5, 4, 3]])
def test_the_mean_of_networks_is_one_network(hidden):
    networks = [network([3, *hidden, 2], seed, activation="tanh", dropout=0.5 if hidden else None) for seed in range(3)]
    X = np.random.default_rng(0).normal(size=(3, 7))
    merged = mean_network(networks)
    assert [layer.n_out for _, layer in merged.architecture.dense] == [*(3 * n for n in hidden), 2]
    np.testing.assert_allclose(merged.forward(X), np.mean([each.forward(X) for each in networks], axis=0), atol=1e-14)


@pytest.mark.parametrize("hidden", [[], [5], [5, 4]])
def test_a_linear_network_takes_its_part_beside_a_deep_one(hidden):
    deep, linear = network([3, *hidden, 2]), network([3, 2], 1)
    X = np.random.default_rng(0).normal(size=(3, 7))
    merged = mean_network([deep, deep_linear(linear, deep)], [0.3, 0.7])
    np.testing.assert_allclose(merged.forward(X), 0.3 * deep.forward(X) + 0.7 * linear.forward(X), atol=1e-14)


def test_units_that_are_tied_together_are_not_merged():
    with refusal(ValueError, "layer 1 is batch_norm", "merged unit by unit", "build them of Dense, Activation"):
        mean_network([network([3, 4, 2], normalization="batch")])
