"""To append to tests/test_functional.py (imports there suffice, but for select_backend)."""

from __future__ import annotations

import fakecupy
import numpy as np
import pytest

from xpnet import select_backend
from xpnet.functional import backward, forward, initialize_model, loss, loss_prime, sigma, sigma_prime, update


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


@pytest.mark.parametrize("x", ["a", None, 1j, object()], ids=repr)
def test_sigma_of_what_is_no_number(x):
    with pytest.raises(TypeError, match=r"x is a .*needed is"):
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
