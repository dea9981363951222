"""The judge of the gradients, and every network judged by it: small errors where all is right, else large ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from refusals import refusal

from xpnet import (
    Huber,
    Network,
    SigmoidCrossEntropy,
    SoftmaxCrossEntropy,
    check_gradients,
    numerical_gradient,
    select_backend,
)
from xpnet.kernels import activations
from xpnet.kernels.activations import ACTIVATIONS
from xpnet.network.losses import LOSSES, loss_of

CPU = select_backend("cpu", "float64")
VALUES = [*LOSSES, Huber(0.3), SoftmaxCrossEntropy(0.1), SigmoidCrossEntropy(0.1)]


def network(activation="tanh", loss="squared_error", depth=2, n_outputs=3, output=None, seed=1):
    output = output or (activation if loss == "squared_error" else loss_of(loss).output or "identity")
    net = Network([4, *[5] * (depth - 1), n_outputs], activation=activation, output=output, loss=loss, backend=CPU)
    rng = np.random.default_rng(seed)
    for W, b in zip(net.parameters.weights, net.parameters.biases, strict=True):
        W[...] = 0.4 * rng.standard_normal(W.shape)
        b[...] = 0.8 + 0.2 * rng.standard_normal(b.shape)  # above 0, so that a relu network of any depth is alive
    return net


def samples(loss, n_outputs, batch):
    """X, Y and weights of a batch."""
    rng = np.random.default_rng(5)
    Y = rng.random((n_outputs, batch))
    if loss_of(loss).targets == "distributions":
        Y /= Y.sum(axis=0)
    if loss_of(loss).targets == "classes":
        Y = np.round(Y)
    if loss_of(loss).targets in ("classes", "probabilities"):
        Y[0, 0] = 0.0  # on the wrong side of the positive biases, where the hinge and a cross-entropy have a slope
    return rng.standard_normal((4, batch)), Y, rng.random(batch)


# numerical_gradient


def test_numerical_gradient_of_a_known_function():
    x = np.array([[0.3, -1.2, 2.0], [0.0, 0.7, -0.4]])
    x.setflags(write=False)  # the caller's array is not the one that is moved
    gradient = numerical_gradient(lambda a: float(np.sum(np.sin(a)) + a[0, 0] * a[1, 2]), x)
    expected = np.cos(x)
    expected[0, 0] += x[1, 2]
    expected[1, 2] += x[0, 0]
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-9)


def test_numerical_gradient_takes_whole_numbers_and_its_own_h():
    # A central difference of a cubic is off by exactly h^2: one-sided ones by 3 h, others not at all.
    assert numerical_gradient(lambda a: float(a[0] ** 3), np.array([2]), h=0.5) == pytest.approx(12.25, abs=1e-12)


def test_numerical_gradient_goes_by_the_step_that_rounding_leaves():
    """At 1e10 the h of 1e-6 is 0.95e-6."""
    slope = numerical_gradient(lambda a: float(3 * (a[0] - 1e10)), np.array([1e10]))
    np.testing.assert_allclose(slope, [3.0], rtol=1e-12)
    with refusal(ValueError, "h is 1e-06", "must change each x", "pass a larger h"):
        numerical_gradient(lambda a: float(a[0]), np.array([1e20]))


def test_numerical_gradient_agrees_with_the_networks():
    net, (X, Y, w) = network("sigmoid", "sigmoid_cross_entropy", 3), samples("sigmoid_cross_entropy", 3, 6)

    def loss(theta):
        net.parameters.flat[...] = theta
        return net.evaluate_loss(X, Y, w)

    expected = net.gradients(X, Y, w).flat
    gradient = numerical_gradient(loss, net.parameters.flat.copy())
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-9)


# check_gradients


@pytest.mark.pairwise(
    activation=list(ACTIVATIONS),
    loss=VALUES,
    depth=[1, 2, 3, 4],
    n_outputs=[1, 3],
    batch=[1, 7],
    weighted=[False, True],
)
def test_every_network_has_the_right_gradient(activation, loss, depth, n_outputs, batch, weighted):
    if loss_of(loss).targets == "distributions" or activation == "log_softmax":
        n_outputs = max(n_outputs, 2)  # softmax of one output is refused, or always 0
    X, Y, w = samples(loss, n_outputs, batch)
    net = network(activation, loss, depth, n_outputs)
    assert np.linalg.norm(net.gradients(X, Y).flat) > 1e-3  # a dead network would pass whatever the kernels do
    assert check_gradients(net, X, Y, w if weighted else None) <= 1e-7


@pytest.mark.parametrize("name", [name for name, function in ACTIVATIONS.items() if function])
def test_a_wrong_backward_is_found(monkeypatch, name):
    function = ACTIVATIONS[name]

    def slightly_wrong(xp, A, dA, out, *scratch):
        function.backward(xp, A, dA, out, *scratch)
        xp.multiply(out, 1.1, out=out)

    X, Y, _ = samples("squared_error", 3, 7)
    assert check_gradients(network(name), X, Y) <= 1e-7
    monkeypatch.setitem(activations.ACTIVATIONS, name, replace(function, backward=slightly_wrong))
    assert check_gradients(network(name), X, Y) > 1e-3


def test_a_gradient_of_the_sum_instead_of_the_mean_is_found(monkeypatch):
    net, (X, Y, _) = network(), samples("squared_error", 3, 7)
    mean = net.gradients(X, Y)
    mean.flat[...] *= 7
    monkeypatch.setattr(net, "gradients", lambda *args: mean)
    # Relative to the gradient given, the slope is 6/7 too small along it: a good part of 1 in a random direction.
    assert check_gradients(net, X, Y) > 1e-2


def test_the_error_is_relative_to_the_gradient():
    # With targets a millionth away the gradient is a millionth: an absolute error would hide anything.
    X, Y, _ = samples("squared_error", 3, 7)
    net = network()
    near = net.predict(X) + 1e-6 * Y
    norm = np.linalg.norm(net.gradients(X, near).flat)
    assert norm < 1e-5
    kept = net.gradients
    net.gradients = lambda *args: _half(kept(*args))
    assert check_gradients(net, X, near) > 1e-2


def _half(gradients):
    gradients.flat[...] *= 0.5
    return gradients


def test_more_directions_never_lower_the_error_and_a_seed_repeats_it():
    X, Y, _ = samples("squared_error", 3, 7)
    net = network()
    errors = [check_gradients(net, X, Y, directions=n, seed=1) for n in range(1, 12)]
    assert errors == sorted(errors) and errors[0] < errors[-1]
    assert check_gradients(net, X, Y, directions=3, seed=1) == errors[2]
    assert check_gradients(net, X, Y, directions=3, seed=2) != errors[2]


def test_it_moves_the_parameters_by_h_and_wastes_nothing_on_the_padding(monkeypatch):
    X, Y, _ = samples("squared_error", 3, 7)
    net = network()
    views = [*net.parameters.weights, *net.parameters.biases]
    theta, moved, kept = [view.copy() for view in views], [], net.evaluate_loss

    def evaluate_loss(*args, **keywords):
        moved.append([view - before for view, before in zip(views, theta, strict=True)])
        return kept(*args, **keywords)

    monkeypatch.setattr(net, "evaluate_loss", evaluate_loss)
    check_gradients(net, X, Y, directions=2, h=1e-3)
    assert len(moved) == 4
    for step in moved:
        assert np.sqrt(sum(np.sum(part**2) for part in step)) == pytest.approx(1e-3, rel=1e-9)


def test_float32_is_refused_and_the_fix_named():
    net = Network([4, 3], backend=select_backend("cpu", "float32"))
    X, Y = np.zeros((4, 2), np.float32), np.full((3, 2), 1 / 3, np.float32)
    with refusal(TypeError, "float32", "need float64", "select_backend(dtype='float64')"):
        check_gradients(net, X, Y)


def test_theta_is_as_before():
    net, (X, Y, _) = network("relu"), samples("squared_error", 3, 7)
    kept = net.parameters.flat.copy()
    check_gradients(net, X, Y)
    np.testing.assert_array_equal(net.parameters.flat, kept)


def test_theta_is_as_before_after_an_exception(monkeypatch):
    net, (X, Y, _) = network(), samples("squared_error", 3, 7)
    kept = net.parameters.flat.copy()
    seen = []

    def interrupted(*args, **keywords):
        seen.append(net.parameters.flat.copy())
        raise KeyboardInterrupt

    monkeypatch.setattr(net, "evaluate_loss", interrupted)
    with pytest.raises(KeyboardInterrupt):
        check_gradients(net, X, Y)
    assert not np.array_equal(seen[0], kept)  # it was interrupted away from theta
    np.testing.assert_array_equal(net.parameters.flat, kept)


def test_a_kink_everywhere_is_said_and_theta_restored():
    # All weights 0: every unit sits on the kink of relu, and each direction moves it to one side or the other.
    net, (X, Y, _) = network("relu", output="identity"), samples("squared_error", 3, 7)
    net.parameters.flat[...] = 0.0
    with refusal(RuntimeError, "100 random directions", "all met a kink", "use fewer samples, a smaller h"):
        check_gradients(net, X, Y)
    assert not net.parameters.flat.any()


def test_directions_across_a_kink_are_redrawn():
    # The one hidden unit is h / 10 from its kink: most directions cross it, and there the slope is wrong by percents.
    net = Network([1, 1, 1], loss="squared_error", backend=CPU)
    net.parameters.weights[0][...], net.parameters.biases[0][...] = 1.0, 1e-6
    X, Y = np.zeros((1, 1)), np.ones((1, 1))
    assert check_gradients(net, X, Y, directions=10, h=1e-5) <= 1e-7


@pytest.mark.parametrize(
    ("activation", "kink"),
    [("leaky_relu", 0.0), ("elu", 0.0), ("selu", 0.0), ("hard_sigmoid", -3.0), ("hard_sigmoid", 3.0)],
)
def test_directions_across_the_kink_of_any_activation_are_redrawn(activation, kink):
    net = Network([1, 1, 1], activation=activation, loss="squared_error", backend=CPU)
    net.parameters.weights[0][...], net.parameters.biases[0][...] = 1.0, kink + 1e-6
    net.parameters.weights[1][...] = 1.0
    assert check_gradients(net, np.zeros((1, 1)), np.full((1, 1), 5.0), directions=10, h=1e-5) <= 1e-7


@pytest.mark.parametrize(
    ("loss", "bias", "target"),
    [
        ("absolute_error", 0.0, 0.0),
        (Huber(2.0), 2.0, 0.0),
        (Huber(2.0), -2.0, 0.0),
        ("hinge", 1.0, 1.0),
        ("hinge", -1.0, 0.0),
    ],
    ids=str,
)
def test_directions_across_the_kink_of_a_loss_are_redrawn(loss, bias, target):
    net = Network([1, 1], loss=loss, backend=CPU)
    net.parameters.weights[0][...], net.parameters.biases[0][...] = 1.0, bias + 1e-6 * (1 if bias >= 0 else -1)
    X, Y = np.zeros((1, 1)), np.full((1, 1), target)
    if loss == "hinge":  # inside the margin, where the slope is not 0
        net.parameters.biases[0][...] = bias * (1 - 1e-6)
    assert np.linalg.norm(net.gradients(X, Y).flat) > 0.5
    assert check_gradients(net, X, Y, directions=10, h=1e-5) <= 1e-7


def test_activations_without_a_kink_are_not_redrawn():
    # The same place under tanh: the slope is smooth across 0, so no direction may be refused.
    net = network("tanh", output="identity")
    net.parameters.flat[...] = 0.0
    X, Y, _ = samples("squared_error", 3, 7)
    assert check_gradients(net, X, Y) <= 1e-7
