"""Network: what each method computes on each backend, against rows of plain NumPy; what it refuses, what it keeps."""

from __future__ import annotations

import gc
import sys
import threading
import tracemalloc

import numpy as np
import pytest
from refusals import refusal, says

from xpnet import SGD, Activation, Dense, Network, select_backend
from xpnet.engines.replay import Replay

# name -> (what follows each dense layer, sizes, loss). "tanh relu" is two activations in a row.
NETWORKS = {
    "linear": ([""], [5, 3], "squared_error"),
    "softmax, no hidden layer": ([""], [5, 3], "softmax_cross_entropy"),
    "logistic, one output": ([""], [5, 1], "sigmoid_cross_entropy"),
    "relu softmax": (["relu", ""], [5, 4, 3], "softmax_cross_entropy"),
    "tanh logistic, three outputs": (["tanh", ""], [5, 4, 3], "sigmoid_cross_entropy"),
    "sigmoids to one output": (["sigmoid", "sigmoid"], [5, 4, 1], "squared_error"),
    "one of each": (["relu", "tanh", "sigmoid", ""], [5, 6, 4, 3, 3], "softmax_cross_entropy"),
    "relu to the end": (["relu", "relu", "relu"], [5, 6, 4, 3], "squared_error"),
    "two in a row": (["tanh relu", "sigmoid tanh"], [5, 4, 3], "squared_error"),
    "identities": (["identity relu identity", "identity"], [5, 4, 3], "softmax_cross_entropy"),
    "dense after dense": (["", "", "tanh"], [5, 4, 2, 1], "squared_error"),
    "one unit everywhere": (["tanh", ""], [1, 1, 1], "sigmoid_cross_entropy"),
}
BATCHES = [1, 7, 1500]  # the last one takes two chunks of inference

f = {
    "relu": lambda Z: np.where(Z > 0, Z, 0.0),
    "tanh": lambda Z: 1.0 - 2.0 / (np.exp(2.0 * Z) + 1.0),
    "sigmoid": lambda Z: 0.5 + 0.5 * np.tanh(0.5 * Z),
    "identity": lambda Z: Z,
}
slope = {  # by the input Z
    "relu": lambda Z: np.where(Z > 0, 1.0, 0.0),
    "tanh": lambda Z: np.cosh(Z) ** -2.0,
    "sigmoid": lambda Z: 0.25 * np.cosh(0.5 * Z) ** -2.0,
    "identity": lambda Z: np.ones_like(Z),
}


def make(name, backend, seed=0):
    """A network of NETWORKS with all its biases drawn, and the same parameters in float64: [(W, b), ...]."""
    names, sizes, loss = NETWORKS[name]
    layers = []
    for n_in, n_out, following in zip(sizes[:-1], sizes[1:], names, strict=True):
        layers += [Dense(n_in, n_out, init="inverse_sqrt", bias="normal"), *map(Activation, following.split())]
    network = Network(layers, loss=loss, backend=backend, seed=seed)
    views = zip(network.parameters.weights, network.parameters.biases, strict=True)
    return network, [tuple(backend.to_host(view).astype(np.float64) for view in pair) for pair in views]


def draw(name, backend, batch, seed=1):
    """X, Y and weights on the device, and the same numbers as rows of float64."""
    _, sizes, loss = NETWORKS[name]
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((batch, sizes[0]))
    Y = rng.standard_normal((batch, sizes[-1])) if loss == "squared_error" else rng.random((batch, sizes[-1]))
    if loss == "softmax_cross_entropy":
        Y /= Y.sum(axis=1, keepdims=True)
    rows = [a.astype(backend.dtype) for a in (X, Y, rng.random(batch) + 0.1)]
    return [backend.to_device(a.T) for a in rows], [a.astype(np.float64) for a in rows]


def outputs_of(network, parameters, X):
    """The output of every layer, one sample a row."""
    outputs, parameters = [X], iter(parameters)
    for layer in network.layers:
        if isinstance(layer, Dense):
            W, b = next(parameters)
            outputs.append(outputs[-1] @ W.T + b[:, 0])
        else:
            outputs.append(f[layer.name](outputs[-1]))
    return outputs[1:]


def link_of(network, Z):
    loss = network.architecture.loss.name
    if loss == "softmax_cross_entropy":
        return np.exp(Z) / np.exp(Z).sum(axis=1, keepdims=True)
    return f["sigmoid"](Z) if loss == "sigmoid_cross_entropy" else Z


def losses_of(network, Z, Y):
    """The loss of each row."""
    P = link_of(network, Z)
    if network.architecture.loss.name == "squared_error":
        return 0.5 * ((P - Y) ** 2).sum(axis=1)
    if network.architecture.loss.name == "softmax_cross_entropy":
        return -(Y * np.log(P)).sum(axis=1)
    return -(Y * np.log(P) + (1.0 - Y) * np.log(1.0 - P)).sum(axis=1)


def gradients_of(network, parameters, X, Y, w):
    """[(dW, db), ...] of the mean loss weighted by w: errors go back row by row, slopes come from the inputs."""
    outputs = [X, *outputs_of(network, parameters, X)]
    delta = (link_of(network, outputs[-1]) - Y) * (w / w.sum())[:, None]  # for all three losses
    gradients, at = [], len(parameters) - 1
    for i in range(len(network.layers) - 1, -1, -1):
        if isinstance(network.layers[i], Dense):
            gradients.insert(0, (np.einsum("so,si->oi", delta, outputs[i]), delta.sum(axis=0)[:, None]))
            delta = delta @ parameters[at][0]
            at -= 1
        else:
            delta = delta * slope[network.layers[i].name](outputs[i])
    return gradients


def agrees(backend, found, expected, tolerance=None):
    """Maximum difference, relative to the vector's maximum, within the house's limits for one step."""
    found = backend.to_host(found)
    tolerance = tolerance or (1e-12 if backend.dtype == np.float64 else 1e-5)
    assert found.dtype == backend.dtype and found.shape == expected.shape
    assert np.abs(found - expected).max() <= tolerance * max(np.abs(expected).max(), 1e-3)


@pytest.mark.in_turn(name=list(NETWORKS), batch=BATCHES)
def test_outputs(backend, name, batch):
    network, parameters = make(name, backend)
    (X, _, _), (rows, _, _) = draw(name, backend, batch)
    expected = outputs_of(network, parameters, rows)
    agrees(backend, network.forward(X), expected[-1].T)
    agrees(backend, network.predict(X), link_of(network, expected[-1]).T)
    found = network.activations(X)
    assert len(found) == len(network.layers)
    for A, A_expected in zip(found, expected, strict=True):
        agrees(backend, A, A_expected.T)


@pytest.mark.in_turn(name=list(NETWORKS), batch=BATCHES)
def test_classes(backend, name, batch):
    network, parameters = make(name, backend)
    (X, _, _), (rows, _, _) = draw(name, backend, batch)
    Z = outputs_of(network, parameters, rows)[-1]
    labels = backend.to_host(network.classify(X))
    assert labels.shape == (batch,) and labels.dtype.kind == "i"
    if Z.shape[1] > 1:
        clear = np.diff(np.sort(Z, axis=1)[:, -2:], axis=1)[:, 0] > 1e-5  # ties may fall either way in float32
        expected = np.argmax(Z, axis=1)
    else:
        clear = np.abs(link_of(network, Z)[:, 0] - 0.5) > 1e-5
        expected = (link_of(network, Z)[:, 0] > 0.5).astype(int)
    np.testing.assert_array_equal(labels[clear], expected[clear])
    assert clear.mean() >= 0.5 or name == "relu to the end"  # where outputs are often all 0


@pytest.mark.pairwise(name=list(NETWORKS), batch=BATCHES, weighted=[False, True])
def test_loss_and_gradients(backend, name, batch, weighted):
    network, parameters = make(name, backend)
    (X, Y, w), (rows, targets, weights) = draw(name, backend, batch)
    args = (X, Y, w) if weighted else (X, Y)
    weights = weights if weighted else np.ones(batch)
    losses = losses_of(network, outputs_of(network, parameters, rows)[-1], targets)
    loss = network.evaluate_loss(*args)
    assert type(loss) is float
    tolerance = 1e-12 if backend.dtype == np.float64 else 1e-5
    assert loss == pytest.approx(np.average(losses, weights=weights), rel=tolerance)

    gradients = network.gradients(*args)
    expected = gradients_of(network, parameters, rows, targets, weights)
    largest = max(np.abs(part).max() for pair in expected for part in pair)
    for dW, db, (dW_expected, db_expected) in zip(gradients.weights, gradients.biases, expected, strict=True):
        for found, wanted in ((dW, dW_expected), (db, db_expected)):
            assert found.shape == wanted.shape
            assert np.abs(backend.to_host(found) - wanted).max() <= 3 * tolerance * largest
    # All that is not a parameter is 0, so that a norm of the flat vector is the gradient's.
    flat = backend.to_host(gradients.flat).astype(np.float64)
    assert flat.shape == network.parameters.flat.shape
    assert np.sum(flat**2) == pytest.approx(sum(np.sum(part**2) for pair in expected for part in pair), rel=1e-4)


@pytest.mark.parametrize("scale", [40.0, 400.0])
@pytest.mark.parametrize("loss", ["softmax_cross_entropy", "sigmoid_cross_entropy"])
def test_outputs_far_from_zero(backend, loss, scale):
    # In the limit: a sample that is wrong by z costs z, one that is right costs nothing, no warning.
    network = Network([Dense(3, 3)], loss=loss, backend=backend)
    network.parameters.weights[0][...] = backend.to_device(np.eye(3) * scale)
    X = backend.to_device(2.0 * np.eye(3) - 1.0)
    right, wrong = backend.to_device(np.eye(3)), backend.to_device(np.eye(3)[::-1].copy())
    assert network.evaluate_loss(X, right) == pytest.approx(0.0, abs=1e-15)
    # Two of the three samples are wrong: by 2 scale between two classes, or by scale on each of two outputs.
    assert network.evaluate_loss(X, wrong) == pytest.approx(2.0 * scale * 2 / 3, rel=1e-6)
    assert np.isfinite(backend.to_host(network.predict(X))).all()
    assert np.isfinite(backend.to_host(network.gradients(X, wrong).flat)).all()


# Parameters


def test_the_same_seed_gives_the_same_weights_everywhere(backend):
    sizes, init = [9, 8, 7, 3], ["normal", None]
    for how in init:
        reference = Network(sizes, init=how, backend=select_backend("cpu", "float64"), seed=5).parameters.flat
        network = Network(sizes, init=how, backend=backend, seed=5)
        np.testing.assert_array_equal(backend.to_host(network.parameters.flat), reference.astype(backend.dtype))
        other = Network(sizes, init=how, backend=backend, seed=6).parameters.weights
        for W, W_other in zip(network.parameters.weights, other, strict=True):
            assert not np.any(backend.to_host(W) == backend.to_host(W_other))


def test_parameters_are_views_of_the_flat_vector(backend):
    network, _ = make("one of each", backend)
    (X, _, _), (rows, _, _) = draw("one of each", backend, 7)
    flat = network.parameters.flat
    for view in (*network.parameters.weights, *network.parameters.biases):
        view[...] = 0.25
    values = backend.to_host(flat)
    assert (values == 0.25).sum() == network.architecture.layout.count == 5 * 6 + 6 * 4 + 4 * 3 + 3 * 3 + 6 + 4 + 3 + 3
    assert set(values) <= {0.0, 0.25}
    parameters = [(np.full(W.shape, 0.25), np.full(b.shape, 0.25)) for W, b in make("one of each", backend)[1]]
    agrees(backend, network.forward(X), outputs_of(network, parameters, rows)[-1].T)
    flat[...] = backend.to_device(np.zeros(flat.shape))
    assert not any(np.any(backend.to_host(view)) for view in network.parameters.weights)
    assert not np.any(backend.to_host(network.forward(X)))


def test_gradients_have_the_parameters_form_and_may_be_used_on_them(backend):
    network, _ = make("relu softmax", backend)
    (X, Y, _), _ = draw("relu softmax", backend, 7)
    gradients = network.gradients(X, Y)
    gradients.weights[0][...] = 0.0
    size = 4 * 5
    assert not np.any(backend.to_host(gradients.flat[:size]))
    before = network.evaluate_loss(X, Y)
    network.parameters.flat[...] = network.parameters.flat - network.gradients(X, Y).flat * 0.1
    assert network.evaluate_loss(X, Y) < before


# Fresh results, inputs left alone


def test_results_are_fresh(backend):
    network, _ = make("one of each", backend)
    (X, Y, _), _ = draw("one of each", backend, 7)
    (X2, Y2, _), _ = draw("one of each", backend, 7, seed=2)

    def ask(X, Y):
        return [
            network.forward(X),
            network.predict(X),
            network.classify(X),
            *network.activations(X),
            network.gradients(X, Y).flat,
        ]

    first = ask(X, Y)
    kept = [backend.to_host(a).copy() for a in first]
    ask(X2, Y2)
    for a, b in zip(first, kept, strict=True):
        np.testing.assert_array_equal(backend.to_host(a), b)  # another call changed nothing earlier
        a[...] = 9
    for a, b in zip(ask(X, Y), kept, strict=True):
        np.testing.assert_array_equal(backend.to_host(a), b)  # nor did writing into the results


def test_a_network_that_does_nothing_still_returns_a_copy(backend):
    network = Network([Dense(3, 3), Activation("identity")], loss="squared_error", backend=backend)
    X = backend.to_device(np.arange(6.0).reshape(3, 2))
    Z, A = network.activations(X)
    Z[...] = 7
    assert not np.any(backend.to_host(A) == 7)


def test_inputs_are_never_written(backend):
    network, _ = make("one of each", backend)
    inputs, _ = draw("one of each", backend, 1500)
    kept = [backend.to_host(a).copy() for a in inputs]
    theta = backend.to_host(network.parameters.flat).copy()
    X, Y, w = inputs
    for method in (network.forward, network.predict, network.classify, network.activations):
        method(X)
    network.evaluate_loss(X, Y, w)
    network.gradients(X, Y, w)
    for a, b in zip([*inputs, network.parameters.flat], [*kept, theta], strict=True):
        np.testing.assert_array_equal(backend.to_host(a), b)


@pytest.mark.parametrize("order", ["C", "F", "strided"])
def test_the_order_in_memory_does_not_matter(backend, order):
    network, parameters = make("relu softmax", backend)
    _, (rows, targets, _) = draw("relu softmax", backend, 7)
    arrays = []
    for a in (rows.T, targets.T):
        host = np.repeat(a, 2, axis=1) if order == "strided" else np.array(a, order=order)
        arrays.append(backend.to_device(host)[:, ::2] if order == "strided" else backend.to_device(host))
    agrees(backend, network.forward(arrays[0]), outputs_of(network, parameters, rows)[-1].T)
    expected = gradients_of(network, parameters, rows, targets, np.ones(7))
    agrees(backend, network.gradients(*arrays).weights[0], expected[0][0], 1e-5)


# Threads and memory


def test_two_threads_with_one_network(float64_cpu):
    network, _ = make("one of each", float64_cpu)
    work = {n: draw("one of each", float64_cpu, n, seed=n)[0] for n in (1, 3, 7, 1100)}

    def ask(n):
        X, Y, w = work[n]
        return [
            network.predict(X),
            network.gradients(X, Y).flat,
            network.gradients(X, Y, w).flat,
            network.evaluate_loss(X, Y),
            network.activations(X)[2],
        ]

    expected = {n: ask(n) for n in work}
    wrong, finished = [], []

    def run(sizes):
        for _ in range(8):
            for n in sizes:
                close = [np.allclose(a, b, rtol=1e-12, atol=1e-14) for a, b in zip(ask(n), expected[n], strict=True)]
                wrong.extend([n] * (not all(close)))
        finished.append(True)

    # The same sizes in both, so that both want the same engines, and switches far more often than usual.
    threads = [threading.Thread(target=run, args=[sizes]) for sizes in ([1, 3, 7, 1100], [7, 7, 1100, 3, 1])]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(2e-5)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert len(finished) == 2 and not wrong


def test_an_engine_has_one_user_at_a_time(float64_cpu):
    # What the threads above may miss by luck: as long as one holds an engine, the next one gets another.
    network, _ = make("relu softmax", float64_cpu)
    key, build = ("test", 7), lambda: network.training_program(7, SGD(), False)
    for _ in range(2):  # new engines, then kept ones
        with network.engine(key, build) as first, network.engine(key, build) as second:
            assert first is not second
    with network.engine(key, build) as again:
        assert again is first or again is second


def kept_engines():
    gc.collect()
    return sum(isinstance(item, Replay) for item in gc.get_objects())


@pytest.mark.full
def test_a_thousand_calls_keep_no_more_engines(float64_cpu):
    network = Network([3, 2], backend=float64_cpu)
    before = kept_engines()
    inputs = [np.zeros((3, n)) for n in (1, 2, 3, 5)]
    for i in range(1_000):
        network.predict(inputs[i % 4])
    assert kept_engines() - before == 4  # for batches of 1, 2, up to 4, up to 8
    assert network.predict(inputs[0]).shape == (2, 1)


@pytest.mark.full
def test_many_different_sizes_keep_a_bounded_number_of_engines(float64_cpu):
    network = Network([3, 2], backend=float64_cpu)
    before = kept_engines()
    for n in range(1, 100):
        network.gradients(np.zeros((3, n)), np.full((2, n), 0.5))
    assert kept_engines() - before <= 66


def test_inference_holds_one_chunk_of_activations(float64_cpu):
    network = Network([2, 400, 1], loss="squared_error", backend=float64_cpu)
    X = np.zeros((2, 10_000))
    tracemalloc.start()
    try:
        network.forward(X)
        network.evaluate_loss(X, np.zeros((1, 10_000)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 10_000_000  # all hidden activations at once would be 32 MB


# Refused


METHODS = ["forward", "predict", "classify", "activations", "evaluate_loss", "gradients"]
WITH_TARGETS = METHODS[-2:]


def call(network, method, X, Y):
    return getattr(network, method)(X, Y) if method in WITH_TARGETS else getattr(network, method)(X)


@pytest.mark.pairwise(
    method=METHODS,
    case=[
        ((60, 784), ["X is (60, 784)", "one sample is one column", "pass X.T"]),
        ((28, 28, 60), ["X is (28, 28, 60)", "it must be (784, n_samples)", "X.reshape(784, -1)"]),
        ((60, 28, 28), ["X is (60, 28, 28)", "it must be (784, n_samples)", "X.reshape(60, -1).T"]),
        ((784,), ["X is (784,)", "one sample is one column", "X.reshape(784, 1)"]),
        ((28, 60), ["X is (28, 60)", "it must be (784, n_samples)", "one row per feature"]),
        ((784, 0), ["X is (784, 0)", "it must be (784, n_samples)", "at least one sample"]),
        ((), ["X is ()", "it must be (784, n_samples)"]),
    ],
)
def test_inputs_of_a_wrong_shape(backend, method, case):
    shape, parts = case
    network = Network([784, 10], backend=backend)
    with pytest.raises(ValueError) as error:
        call(network, method, backend.to_device(np.zeros(shape)), backend.to_device(np.zeros((10, 60))))
    says(error, *parts)


def test_one_row_of_numbers_for_a_single_input_or_output(float64_cpu):
    network = Network([1, 1], loss="squared_error", backend=float64_cpu)
    flat, row = np.zeros(7), np.zeros((1, 7))
    with pytest.raises(ValueError) as error:
        network.predict(flat)
    says(error, "X is (7,)", "it must be (1, n_samples)", "X.reshape(1, -1)")
    with pytest.raises(ValueError) as error:
        network.gradients(row, flat)
    says(error, "Y is (7,)", "it must be (1, n_samples)", "Y.reshape(1, -1)")


@pytest.mark.parametrize("method", WITH_TARGETS)
@pytest.mark.parametrize(
    ("shape", "parts"),
    [
        ((7, 3), ["Y is (7, 3)", "one sample is one column", "pass Y.T"]),
        ((2, 7), ["Y is (2, 7)", "it must be (3, n_samples)", "one row per output"]),
        ((7,), ["Y is (7,)", "it must be (3, n_samples)"]),
        ((3, 6), ["X has 7 samples (columns)", "Y has 6", "give one column per sample"]),
    ],
    ids=str,
)
def test_targets_of_a_wrong_shape(backend, method, shape, parts):
    network = Network([5, 3], backend=backend)
    with pytest.raises(ValueError) as error:
        call(network, method, backend.to_device(np.zeros((5, 7))), backend.to_device(np.zeros(shape)))
    says(error, *parts)


@pytest.mark.parametrize("method", WITH_TARGETS)
@pytest.mark.parametrize("shape", [(6,), (7, 1), (1, 7), ()], ids=str)
def test_weights_of_a_wrong_shape(float64_cpu, method, shape):
    network = Network([5, 3], backend=float64_cpu)
    with pytest.raises(ValueError) as error:
        getattr(network, method)(np.zeros((5, 7)), np.zeros((3, 7)), np.ones(shape))
    says(error, f"weights is {shape}", "it must be (7,), one number per sample", "weights.reshape(7)")


@pytest.mark.parametrize("name", ["X", "Y", "weights"])
def test_another_dtype_is_refused_and_the_conversion_named(backend, name):
    network = Network([5, 3], backend=backend)
    dtype = "float32" if backend.dtype == np.float64 else "uint8"
    arrays = {"X": np.zeros((5, 7)), "Y": np.zeros((3, 7)), "weights": np.ones(7)}
    arrays = {key: backend.to_device(value, dtype if key == name else None) for key, value in arrays.items()}
    with pytest.raises(TypeError) as error:
        network.gradients(**arrays)
    says(error, f"{name} is {dtype}", f"computes in {backend.dtype}", f"pass network.backend.to_device({name})")
    arrays[name] = backend.to_device(arrays[name])  # what the message says helps
    network.gradients(**arrays)


@pytest.mark.parametrize("name", ["X", "Y", "weights"])
@pytest.mark.parametrize("method", WITH_TARGETS)
def test_host_arrays_are_refused_by_a_network_on_the_gpu(fake_gpu, method, name):
    network = Network([5, 3], backend=fake_gpu)
    arrays = {"X": np.zeros((5, 7)), "Y": np.zeros((3, 7)), "weights": np.ones(7)}
    arrays = {key: value.astype("f4") if key == name else fake_gpu.to_device(value) for key, value in arrays.items()}
    with pytest.raises(TypeError) as error:
        getattr(network, method)(**arrays)
    says(error, f"{name} is a numpy.ndarray", "cupy on cuda", f"pass network.backend.to_device({name})")


@pytest.mark.parametrize("name", ["X", "Y", "weights"])
@pytest.mark.parametrize("kind", ["GPU array", "list"])
def test_what_is_no_host_array_is_refused_by_a_network_on_the_cpu(fake_gpu, name, kind):
    network = Network([5, 3], backend=select_backend("cpu", "float32"))
    arrays = {"X": np.zeros((5, 7), "f4"), "Y": np.zeros((3, 7), "f4"), "weights": np.ones(7, "f4")}
    arrays[name] = fake_gpu.to_device(arrays[name]) if kind == "GPU array" else arrays[name].tolist()
    with pytest.raises(TypeError) as error:
        network.gradients(**arrays)
    fix = f"backend.to_host({name})" if kind == "GPU array" else f"backend.to_device({name})"
    says(error, f"{name} is a {'fakecupy.ndarray' if kind == 'GPU array' else 'builtins.list'}", "numpy on cpu", fix)


def test_a_frame_of_rows_is_refused_with_the_way_to_columns():
    pandas = pytest.importorskip("pandas")
    network, frame = Network([2, 3], device="cpu"), pandas.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0]})
    with refusal(TypeError, "X is a pandas.DataFrame", "uses numpy on cpu", "to_device(X.to_numpy().T)", "a column"):
        network.predict(frame)
    assert network.predict(network.backend.to_device(frame.to_numpy().T)).shape == (3, 2)


def test_a_call_that_was_refused_leaves_the_network_as_it_was(backend):
    network, parameters = make("relu softmax", backend)
    (X, Y, _), (rows, _, _) = draw("relu softmax", backend, 7)
    for wrong in (X.T, X[:3], Y):
        with pytest.raises(ValueError):
            network.predict(wrong)
    agrees(backend, network.forward(X), outputs_of(network, parameters, rows)[-1].T)


def test_predict_on_a_million_samples_runs_in_chunks_with_flat_memory():
    """Besides the predictions themselves it holds one chunk, however many samples there are."""
    network = Network([4, 8, 2], backend=select_backend("cpu", "float32"))
    held = []
    for n_samples in (10_000, 1_000_000):
        X = np.random.default_rng(0).random((n_samples, 4), dtype=np.float32).T
        network.predict(X[:, :2000])
        tracemalloc.start()
        try:
            P = network.predict(X)
            held.append(tracemalloc.get_traced_memory()[1] - P.nbytes)
        finally:
            tracemalloc.stop()
        np.testing.assert_allclose(P[:, -3000:], network.predict(X[:, -3000:]), rtol=1e-6)
    assert max(held) < 100_000  # the results of a million take 8,000,000 bytes


@pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf])
def test_weights_by_hand_are_checked(backend, bad):
    network = Network([2, 1], loss="squared_error", backend=backend)
    X, Y = backend.to_device(np.ones((2, 3))), backend.to_device(np.ones((1, 3)))
    weights = backend.to_device(np.array([1.0, bad, 1.0]))
    for call in (network.gradients, network.evaluate_loss):
        with pytest.raises(ValueError) as refusal:
            call(X, Y, weights)
        says(refusal, "weights hold a number below 0, infinity or NaN", "they must be finite", "the weight 0")


def test_a_backend_by_name_is_refused():
    with pytest.raises(TypeError) as refusal:
        Network([2, 1], loss="squared_error", backend="cpu")
    says(refusal, "backend is 'cpu'", "it must be what select_backend returns", "select_backend('cpu')")


def test_more_parameters_than_the_memory_holds_are_refused_at_once(monkeypatch):
    """A tiny spec may ask for any size, and a system may promise memory that it does not have."""
    monkeypatch.setattr("xpnet.network.network.memory", lambda: 10**9)
    cpu = select_backend("cpu", "float64")
    spec = Network([2, 2], backend=cpu).to_spec()
    spec["layers"][0] |= {"n_in": 1, "n_out": 10**9}
    tracemalloc.start()
    with refusal(
        MemoryError, "2,000,000,000 parameters need 16 GB", "this machine has 1 GB", "make its layers narrower"
    ):
        Network.from_spec(spec, backend=cpu)
    assert tracemalloc.get_traced_memory()[1] < 10**6
    tracemalloc.stop()
