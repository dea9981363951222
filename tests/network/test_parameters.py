"""The flat vector and its views, and the distributions that weights and biases are drawn from."""

from __future__ import annotations

import numpy as np
import pytest
from refusals import says

from xpnet.network.parameters import (
    BIAS_INITIALISERS,
    WEIGHT_INITIALISERS,
    Layout,
    Parameters,
    draw_biases,
    draw_weights,
    random_generator,
)

SHAPES = ((100, 784), (200, 100), (10, 200))


def dense(shapes):
    """The matrices and the columns of dense layers of these (n_out, n_in)."""
    return ({"W": shape} for shape in shapes), ({"b": (n_out, 1)} for n_out, _ in shapes)


def offsets(places, *names):
    return tuple(place.offset for place in places if place.name in names)


def test_layout_by_hand():
    """All W first, then all b, each from the next multiple of 64 on."""
    layout = Layout.of(*dense([(9, 2), (6, 9), (1, 6), (64, 1), (1, 65)]))
    assert offsets(layout.places, "W") == (0, 64, 128, 192, 256)
    assert offsets(layout.places, "b") == (384, 448, 512, 576, 640)
    assert (layout.n_weights, layout.size, layout.n_statistics) == (384, 704, 0)
    assert layout.count == 18 + 9 + 54 + 6 + 6 + 1 + 64 + 64 + 65 + 1


def test_a_layout_is_a_value():
    layout = Layout.of(*dense(SHAPES))
    assert tuple(place.shape for place in layout.places if place.name == "W") == SHAPES
    assert layout == Layout.of(*dense(SHAPES)) and hash(layout) == hash(Layout.of(*dense(SHAPES)))
    assert layout.count == 100 * 784 + 100 + 200 * 100 + 200 + 10 * 200 + 10


def test_absurd_widths_are_refused_before_memory_is_asked_for():
    assert Layout.of(*dense([(1, 2**31 - 129)])).size == 2**31 - 64  # the largest that a 32-bit index reaches
    for shapes in ([(1, 2**31 - 64)], [(10**9, 10**9)], [(10**30, 1)]):
        with pytest.raises(ValueError) as error:
            Layout.of(*dense(shapes))
        says(error, "the network has", "parameters", "2,147,483,647", "narrower")


def test_views_write_through(backend):
    layout = Layout.of(*dense(SHAPES))
    parameters = Parameters(layout, backend.zeros(layout.size))
    expected = np.zeros(layout.size)
    for i, (n_out, n_in) in enumerate(SHAPES):
        W = np.arange(n_out * n_in).reshape(n_out, n_in) % 1000 + i
        assert parameters.weights[i].shape == (n_out, n_in) and parameters.biases[i].shape == (n_out, 1)
        parameters.weights[i][...] = backend.to_device(W)
        parameters.biases[i][...] = backend.to_device(np.full((n_out, 1), -1.0 - i))
        W_at, b_at = offsets(layout.places, "W")[i], offsets(layout.places, "b")[i]
        expected[W_at : W_at + n_out * n_in] = W.ravel()  # C order: rows one after another
        expected[b_at : b_at + n_out] = -1.0 - i
    np.testing.assert_array_equal(backend.to_host(parameters.flat), expected)
    parameters.flat[...] = backend.to_device(np.ones(layout.size))
    assert all(float(view.sum()) == view.size for view in parameters.weights + parameters.biases)


def test_repr_says_shapes_count_and_type():
    layout = Layout.of(*dense([(9, 2), (1, 9)]))
    parameters = Parameters(layout, np.zeros(layout.size, np.float32))
    assert repr(parameters) == "Parameters(W(9, 2) b(9, 1), W(1, 9) b(1, 1); 37 float32)"


# Random numbers


def test_streams_depend_on_seed_and_purpose():
    draws = {(seed, purpose): random_generator(seed, purpose).random() for seed in (0, 1) for purpose in (0, 1)}
    assert len(set(draws.values())) == 4
    assert random_generator(1, 0).random() == draws[1, 0]
    assert random_generator(np.int64(1), 0).random() == draws[1, 0]


@pytest.mark.parametrize(
    ("seed", "error", "parts"),
    [
        (-1, ValueError, ["seed is -1", "at least 0"]),
        (True, ValueError, ["seed is True", "at least 0"]),
        (1.5, TypeError, ["seed is 1.5", "whole number", "Pass an int"]),
        (None, TypeError, ["seed is None", "whole number", "Pass an int"]),
    ],
)
def test_bad_seeds(seed, error, parts):
    with pytest.raises(error) as raised:
        random_generator(seed, 0)
    says(raised, *parts)


@pytest.mark.parametrize(
    ("init", "deviation"),
    [
        ("normal", 1.0),
        ("inverse_sqrt", 1 / 20),
        ("glorot", np.sqrt(2 / 500)),
        ("he", np.sqrt(2 / 400)),
        ("lecun", 1 / 20),
    ],
)
def test_weights_are_normal_with_the_published_deviation(init, deviation):
    W = draw_weights(init, 400, 100, np.random.default_rng(0))
    assert W.shape == (100, 400) and W.dtype == np.float64
    # 40,000 draws: the deviation's own deviation is 1 / sqrt(80,000) = 0.35%; five of them, and none but normal
    assert abs(W.std() / deviation - 1) < 0.018
    assert abs(W.mean()) < 5 * deviation / 200
    assert abs(np.mean(abs(W) > 1.96 * deviation) - 0.05) < 0.006


def test_the_list_of_initialisers():
    assert set(WEIGHT_INITIALISERS) == {"normal", "inverse_sqrt", "glorot", "he", "lecun"}
    assert BIAS_INITIALISERS == ("zeros", "normal")


def test_biases():
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(draw_biases("zeros", 3, rng), np.zeros((3, 1)))
    np.testing.assert_array_equal(draw_biases(0.25, 3, rng), np.full((3, 1), 0.25))
    np.testing.assert_array_equal(draw_biases(-1, 2, rng), np.full((2, 1), -1.0))
    b = draw_biases("normal", 10000, rng)
    assert b.shape == (10000, 1) and b.dtype == np.float64
    assert abs(b.std() - 1) < 0.036 and abs(b.mean()) < 0.05


def test_constant_biases_draw_no_numbers():
    """Weights of the next layer are the same whatever constant the biases are."""
    states = []
    for bias in ("zeros", 0.5):
        rng = np.random.default_rng(0)
        draw_biases(bias, 3, rng)
        states.append(rng.random())
    assert states[0] == states[1] == np.random.default_rng(0).random()


def test_assigning_a_weight_writes_into_the_vector():
    from xpnet.network.parameters import Layout, Parameters

    parameters = Parameters(Layout.of(*dense([(2, 3)])), np.zeros(128))
    parameters.weights[0] = np.ones((2, 3))
    parameters.biases[0] -= 2.0
    assert parameters.flat.sum() == 6 - 4
    with pytest.raises(AttributeError):
        parameters.flat = np.zeros(128)
