"""The dict form against an independent plain-NumPy version of tutorial 000, and its order of calls."""

from __future__ import annotations

import fakecupy
import numpy as np
import pytest
from refusals import refusal, says

from xpnet import select_backend
from xpnet.functional import backward, forward, initialize_model, loss, loss_prime, sigma, sigma_prime, update

SIZES = [784, 15, 10]


def reference_update(weights, biases, X, Y, eta):
    """One step of gradient descent on 0.5 * squared error summed over the batch, written with samples as rows."""
    outputs = [X.T]
    for W, b in zip(weights, biases, strict=True):
        outputs.append(1.0 / (1.0 + np.exp(-(outputs[-1] @ W.T + b.T))))
    delta = (outputs[-1] - Y.T) * outputs[-1] * (1.0 - outputs[-1])
    new_weights, new_biases = list(weights), list(biases)
    for layer in reversed(range(len(weights))):
        new_weights[layer] = weights[layer] - eta * np.einsum("so,si->oi", delta, outputs[layer])
        new_biases[layer] = biases[layer] - eta * np.einsum("so->o", delta)[:, None]
        delta = (delta @ weights[layer]) * outputs[layer] * (1.0 - outputs[layer])
    return new_weights, new_biases


def test_hundred_single_updates_agree_with_tutorial_000():
    rng = np.random.default_rng(0)
    model = initialize_model(SIZES, seed=1)
    for _ in range(100):
        X, Y = rng.standard_normal((784, 50)), rng.random((10, 50))
        weights, biases = model["weights"], model["biases"]
        expected = [*reference_update(weights, biases, X, Y, 0.5)]
        _, model = forward(X, model)
        model = update(0.5, backward(Y, model))
        for found, wanted in zip(model["weights"] + model["biases"], expected[0] + expected[1], strict=True):
            assert abs(found - wanted).max() <= 1e-12 * abs(wanted).max()


def test_keys_and_shapes_at_each_stage():
    model = initialize_model([4, 3, 2])
    start = {"weights", "biases", "nlayers"}
    assert set(model) == start and model["nlayers"] == 2
    assert [W.shape for W in model["weights"]] == [(3, 4), (2, 3)]
    assert [b.shape for b in model["biases"]] == [(3, 1), (2, 1)]
    X = np.ones((4, 5))
    yhat, model = forward(X, model)
    assert set(model) == start | {"activations", "z_inputs"} and yhat.shape == (2, 5)
    assert [len(model["activations"]), len(model["z_inputs"])] == [3, 2]
    assert model["activations"][0] is X and model["activations"][-1] is yhat
    np.testing.assert_allclose(yhat, 1 / (1 + np.exp(-model["z_inputs"][-1])), rtol=1e-13)
    model = backward(np.zeros((2, 5)), model)
    assert set(model) == start | {"activations", "z_inputs", "grad_weights", "grad_biases"}
    assert set(update(0.1, model)) == start


@pytest.mark.parametrize(
    ("call", "missing"),
    [
        (lambda model: backward(np.zeros((2, 5)), model), "forward(x, model)"),
        (lambda model: update(0.5, model), "backward(y, model)"),
        (lambda model: update(0.5, forward(np.ones((4, 5)), model)[1]), "backward(y, model)"),
        (lambda model: backward(np.zeros((2, 5)), step(model)), "forward(x, model)"),
    ],
)
def test_a_call_out_of_order_says_which_is_missing(call, missing):
    with pytest.raises(KeyError) as error:
        call(initialize_model([4, 3, 2], seed=0))
    says(error, "the model has no ", " yet; call ", missing, " first")
    assert not str(error.value).startswith("'")


def step(model):
    return update(0.5, backward(np.zeros((2, 5)), forward(np.ones((4, 5)), model)[1]))


def test_gradients_agree_with_central_differences():
    rng = np.random.default_rng(2)
    model, X, Y = initialize_model([4, 3, 2], seed=3), rng.standard_normal((4, 6)), rng.random((2, 6))
    model = backward(Y, forward(X, model)[1])
    h, found = 1e-6, {"weights": model["grad_weights"], "biases": model["grad_biases"]}
    for values, gradients in found.items():
        for theta, gradient in zip(model[values], gradients, strict=True):
            for index in np.ndindex(theta.shape):
                kept, losses = theta[index], []
                for sign in (1, -1):
                    theta[index] = kept + sign * h
                    losses.append(loss(forward(X, model)[0], Y))
                theta[index] = kept
                assert gradient[index] == pytest.approx((losses[0] - losses[1]) / (2 * h), abs=1e-7)


def test_sigma_and_loss():
    x = np.array([[-1000.0, -40.0, 0.0, 3.0, 1000.0]])
    exact = np.array([[0.0, 4.248354255291589e-18, 0.5, 0.9525741268224334, 1.0]])  # 1 / (1 + e^-x), by mpmath
    np.testing.assert_allclose(sigma(x), exact, rtol=1e-12, atol=1e-34)
    np.testing.assert_allclose(sigma_prime(x), exact * (1 - exact), rtol=1e-12, atol=1e-34)
    assert sigma(0.0) == 0.5 and sigma([0, 0]).tolist() == [0.5, 0.5] and sigma_prime(0) == 0.25
    yhat, y = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[0.0, 2.0], [1.0, 1.0]])
    assert loss(yhat, y) == 0.5 * (1 + 0 + 4 + 9)
    assert loss_prime(yhat, y).tolist() == [[1, 0], [2, 3]]
    assert loss(yhat[:, 0], y[:, 0]) == 2.5


def test_the_caller_keeps_his_arrays():
    model = initialize_model([4, 3, 2], seed=0)
    kept = model["weights"] + model["biases"]
    copies, X = [array.copy() for array in kept], np.ones((4, 5))
    X.setflags(write=False)
    update(0.5, backward(np.zeros((2, 5)), forward(X, model)[1]))
    assert all(np.array_equal(array, copy) for array, copy in zip(kept, copies, strict=True))


def test_the_gpu_computes_the_same_without_a_transfer(fake_gpu):
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((6, 5)), rng.random((2, 5))
    host = initialize_model([6, 4, 2], seed=5)
    model = initialize_model([6, 4, 2], seed=5, backend=fake_gpu)
    device_X, device_Y = fake_gpu.to_device(X), fake_gpu.to_device(Y)
    fakecupy.counts.reset()
    yhat, model = forward(device_X, model)
    total = loss(yhat, device_Y)
    model = update(0.5, backward(device_Y, model))
    assert (fakecupy.counts.uploads, fakecupy.counts.reads, fakecupy.counts.numpy_dispatch) == (0, 0, 0)
    expected_yhat, host = forward(X, host)
    host = update(0.5, backward(Y, host))
    assert float(total) == pytest.approx(loss(expected_yhat, Y), rel=1e-5)
    for found, wanted in zip(model["weights"], host["weights"], strict=True):
        np.testing.assert_allclose(fake_gpu.to_host(found), wanted, rtol=1e-4, atol=1e-6)


def test_refusals(fake_gpu):
    model = initialize_model([4, 3, 2], seed=0)
    with refusal(TypeError, "x is a fakecupy array", "weights is a numpy array", "move one with backend.to_device"):
        forward(fake_gpu.to_device(np.ones((4, 5))), model)
    with refusal(ValueError, "x is (5, 4)", "expects (4, batch)", "pass x.T"):
        forward(np.ones((5, 4)), model)
    with refusal(ValueError, "yhat is (2, 5)", "y is (2, 6)", "give y one column per sample"):
        backward(np.ones((2, 6)), forward(np.ones((4, 5)), model)[1])
    with refusal(ValueError, "dimensions is [4]", "it must hold inputs and outputs", "such as [784, 15, 10]"):
        initialize_model([4])
    with pytest.raises(ValueError, match=r"dimension is 0.*at least 1"):
        initialize_model([4, 0, 2])


def test_seed_and_spread():
    one, two, other = (initialize_model([100, 50, 2], seed=seed) for seed in (7, 7, 8))
    assert np.array_equal(one["weights"][0], two["weights"][0])
    assert not np.array_equal(one["weights"][0], other["weights"][0])
    assert abs(one["weights"][0].std() - 1.0) < 0.05 and abs(one["biases"][0].std() - 1.0) < 0.3
    assert one["weights"][0].dtype == np.float64
    assert not np.array_equal(initialize_model([3, 2])["weights"][0], initialize_model([3, 2])["weights"][0])


def test_update_leaves_the_gradients_that_the_caller_kept():
    model = initialize_model([4, 3, 2], seed=0)
    model = backward(np.zeros((2, 5)), forward(np.ones((4, 5)), model)[1])
    kept = model["grad_weights"] + model["grad_biases"] + model["activations"] + model["z_inputs"]
    copies = [array.copy() for array in kept]
    update(0.5, model)
    for array, copy in zip(kept, copies, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_gradients_of_an_earlier_batch_are_not_used_for_a_later_one():
    model = initialize_model([4, 3, 2], seed=0)
    model = backward(np.zeros((2, 5)), forward(np.ones((4, 5)), model)[1])
    _, model = forward(np.full((4, 5), 2.0), model)
    with pytest.raises(KeyError, match=r"backward\(y, model\)"):
        update(0.5, model)


@pytest.mark.parametrize("dtype", [int, np.uint8, bool])
def test_loss_of_whole_numbers(dtype):
    yhat, y = np.array([[1, 0], [1, 1]], dtype), np.array([[0, 1], [1, 0]], dtype)
    assert loss(yhat, y) == 1.5
    assert loss_prime(yhat, y).tolist() == [[1.0, -1.0], [0.0, 1.0]]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_backend_gives_its_dtype_and_the_same_numbers(dtype):
    model = initialize_model([4, 3, 2], backend=select_backend("cpu", dtype), seed=3)
    reference = initialize_model([4, 3, 2], seed=3)
    for key in ("weights", "biases"):
        for found, wanted in zip(model[key], reference[key], strict=True):
            assert found.dtype == dtype
            np.testing.assert_array_equal(found, wanted.astype(dtype))
    yhat, model = forward(np.ones((4, 5), dtype), model)
    model = backward(np.zeros((2, 5), dtype), model)
    assert {array.dtype for array in [yhat, *model["grad_weights"], *model["grad_biases"]]} == {np.dtype(dtype)}
    assert update(0.5, model)["weights"][0].dtype == dtype


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_sigma_far_out_gives_no_warning_in_any_float_type(dtype):
    x = np.array([-60000.0, -1000.0, -100.0, 0.0, 100.0, 1000.0, 60000.0], dtype)
    kept = x.copy()
    found = sigma(x)  # pytest turns warnings into errors
    assert found.dtype == max(dtype, np.float32, key=lambda kind: np.dtype(kind).itemsize)  # float16 becomes float32
    assert (np.diff(found) >= 0).all() and found[3] == 0.5
    assert (found[:3] < 1e-6).all() and (found[4:] == 1).all()
    assert np.isfinite(sigma_prime(x)).all()
    np.testing.assert_array_equal(x, kept)


@pytest.mark.parametrize("x", ["a", None, 1j, object()], ids=["text", "None", "complex", "object"])
def test_sigma_of_what_is_no_number(x):
    with refusal(TypeError, "x is a ", "it must be an array of real numbers", "np.asarray(x, dtype=float)"):
        sigma(x)


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (np.ones(4), r"x is \(4,\).*\(4, batch\).*reshape"),
        (np.ones((3, 5)), r"x is \(3, 5\).*\(4, batch\)"),
        (np.ones((4, 5, 1)), r"x is \(4, 5, 1\).*\(4, batch\)"),
        (np.float64(1.0), r"x is \(\).*\(4, batch\)"),
    ],
    ids=["1-D", "features", "3-D", "number"],
)
def test_forward_refuses_other_shapes_and_leaves_the_model(x, text):
    model = initialize_model([4, 3, 2], seed=0)
    with pytest.raises(ValueError, match=text):
        forward(x, model)
    assert set(model) == {"weights", "biases", "nlayers"}


@pytest.mark.parametrize("call", ["forward", "backward", "loss", "loss_prime"])
@pytest.mark.parametrize("on_gpu", ["first", "second"])
def test_arrays_of_two_libraries_are_named_both(fake_gpu, call, on_gpu):
    model = initialize_model([4, 3, 2], seed=0, backend=fake_gpu if on_gpu == "second" else None)
    first, second = np.ones((2, 5), "f4"), np.ones((2, 5), "f4")
    first, second = (fake_gpu.to_device(first), second) if on_gpu == "first" else (first, fake_gpu.to_device(second))
    x = np.ones((4, 5), "f4")
    with pytest.raises(TypeError, match=r"(?=.*fakecupy array)(?=.*numpy array).*backend\.to_device") as error:
        if call == "forward":
            forward(fake_gpu.to_device(x) if on_gpu == "first" else x, model)
        elif call == "backward":
            backward(first, forward(x if on_gpu == "first" else fake_gpu.to_device(x), model)[1])
        else:
            {"loss": loss, "loss_prime": loss_prime}[call](first, second)
    assert "\n" not in str(error.value)


def test_a_failed_update_changes_nothing():
    model = initialize_model([4, 3, 2], seed=0)
    model = backward(np.zeros((2, 5)), forward(np.ones((4, 5)), model)[1])
    kept, gradient = list(model["weights"]), model["grad_weights"][0].copy()
    for eta in ("a", None):
        with pytest.raises((TypeError, ValueError)):
            update(eta, model)
    assert all(a is b for a, b in zip(model["weights"], kept, strict=True))
    np.testing.assert_array_equal(model["grad_weights"][0], gradient)


def test_sigma_and_its_slope_stay_on_the_gpu(fake_gpu):
    host = np.linspace(-5, 5, 21).reshape(3, 7)
    x = fake_gpu.to_device(host)
    fakecupy.counts.reset()
    values, slopes = sigma(x), sigma_prime(x)
    assert (fakecupy.counts.uploads, fakecupy.counts.reads, fakecupy.counts.numpy_dispatch) == (0, 0, 0)
    s = 0.5 + 0.5 * np.tanh(host / 2)
    np.testing.assert_allclose(fake_gpu.to_host(values), s, rtol=1e-5)
    np.testing.assert_allclose(fake_gpu.to_host(slopes), s * (1 - s), rtol=1e-5)
