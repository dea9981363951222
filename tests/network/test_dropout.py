"""Dropout: its masks against a hash in Python's integers, their statistics, and that only training steps have them."""

from __future__ import annotations

from itertools import pairwise

import fakecupy
import numpy as np
import pytest
from refusals import says

import xpnet
from xpnet import SGD, Activation, Dataset, Dense, Dropout, Network, check_gradients, select_backend
from xpnet.engines.replay import Replay
from xpnet.kernels.dropout import dropout_mask
from xpnet.network.layers import layer_from_spec
from xpnet.network.parameters import random_generator
from xpnet.network.programs import evaluation_program, inference_program

CPU = select_backend("cpu", "float64")


def lowbias32(x):
    """Of an array of counters, as Python's own integers."""
    x = (x ^ (x // 2**16)) * 0x7FEB352D % 2**32
    x = (x ^ (x // 2**15)) * 0x846CA68B % 2**32
    return x ^ (x // 2**16)


def factor(rate):
    """Of what is kept: 1 / (1 - rate), for the rate in whole 2^-32."""
    return 2**32 / (2**32 - int(rate * 2**32))


def masks_of(seed, widths, batch, rates):
    """For each layer a function (step, size) -> mask (n, size), from the counters alone."""
    rng, functions = np.random.default_rng([seed, 2]), []
    for n, rate in zip(widths, rates, strict=True):
        start, multiplier = (int(value) for value in rng.integers(2**32, size=2))

        def mask(step, size, n=n, rate=rate, start=start, multiplier=multiplier | 1):
            k = np.arange(n * size).astype(object) + step * n * batch
            bits = lowbias32((start + multiplier * k) % 2**32).astype(float)
            return np.where(bits < int(rate * 2**32), 0.0, factor(rate)).reshape(size, n).T

        functions.append(mask)
    return functions


def labelled(n=23, n_features=6):
    rng = np.random.default_rng(4)
    return Dataset.from_labels(rng.random((n_features, n)), rng.integers(0, 3, n), 3)


def trained(backend, *, seed=5, epochs=2, dropout=(0.5, 0.2), dataset=None, **keywords):
    network = Network([6, 8, 4, 3], activation="tanh", dropout=list(dropout), backend=backend, seed=1)
    history = xpnet.train(network, dataset or labelled(), SGD(0.3), epochs=epochs, batch_size=5, seed=seed, **keywords)
    return network, history


# Masks


def test_training_equals_a_plain_loop_with_masks_from_python_s_integers(backend):
    """Two epochs with a short batch each: the masks of a step depend on how many steps came before, and no more."""
    network, _ = trained(backend)
    start = Network([6, 8, 4, 3], backend=CPU, seed=1, activation="tanh")
    Ws = [W.astype(backend.dtype).astype(float) for W in start.parameters.weights]
    bs = [b.copy() for b in start.parameters.biases]
    dataset, masks, step = labelled(), masks_of(5, (8, 4), 5, (0.5, 0.2)), 0
    order = random_generator(5, 1)
    for _ in range(2):
        permutation = order.permutation(23)
        for first in range(0, 23, 5):
            part = permutation[first : first + 5]
            A = [dataset.X[:, part]]
            M = [mask(step, len(part)) for mask in masks] + [1.0]
            tanh = []
            for W, b, m in zip(Ws, bs, M, strict=True):
                Z = W @ A[-1] + b
                tanh.append(np.tanh(Z))
                A.append(Z if W is Ws[-1] else tanh[-1] * m)
            E = np.exp(A[-1])
            delta = (E / E.sum(axis=0) - dataset.Y[:, part]) / len(part)
            for layer in (2, 1, 0):
                dW, db = delta @ A[layer].T, delta.sum(axis=1, keepdims=True)
                if layer:
                    delta = (Ws[layer].T @ delta) * M[layer - 1] * (1 - tanh[layer - 1] ** 2)
                Ws[layer], bs[layer] = Ws[layer] - 0.3 * dW, bs[layer] - 0.3 * db
            step += 1
    tolerance = 1e-11 if backend.dtype == np.float64 else 1e-4
    for found, wanted in zip([*network.parameters.weights, *network.parameters.biases], [*Ws, *bs], strict=True):
        assert abs(backend.to_host(found) - wanted).max() <= tolerance


def engine_of(backend, seed=3, batch=50, widths=(64, 40), rate=0.3):
    """A training engine with rate 0 of learning, and a function that runs a step and returns the masks."""
    layers = [Dense(4, widths[0]), Dropout(rate), Dense(widths[0], widths[1]), Dropout(rate), Dense(widths[1], 2)]
    network = Network(layers, loss="squared_error", backend=backend)
    program = network.training_program(batch, SGD(), False, seed)
    engine = Replay(program, backend, network.owned)
    engine.feed(batch, X=backend.to_device(np.ones((4, batch))), Y=backend.to_device(np.ones((2, batch))))
    engine.set_slots(np.zeros(1))

    def step(size=batch):
        engine.execute(size)
        return [backend.to_host(engine.read(name, size)).astype(float) for name in ("mask1", "mask2")]

    return engine, step


def test_masks_are_the_same_bits_everywhere(backend):
    (_, step), expected = engine_of(backend), masks_of(3, (64, 40), 50, (0.3, 0.3))
    for t, size in enumerate((50, 50, 7, 50)):  # a short batch moves on as far as a full one
        for found, mask in zip(step(size), expected, strict=True):
            np.testing.assert_array_equal(found, mask(t, size).astype(backend.dtype))


def test_masks_look_independent():
    """Mean, variance, neighbours, the next sample, the next steps, the other layer, another seed: all |z| < 4."""
    runs = {seed: [engine_of(CPU, seed)[1], []] for seed in (0, 1, 2)}
    for step, kept in runs.values():
        kept.extend(step() for _ in range(40))

    def z(a, b):
        """Of the correlation of two arrays of 0 and 1 / 0.7 with mean 1."""
        return ((a - 1) * (b - 1)).sum() / np.sqrt(a.size) / (0.3 / 0.7)

    for seed, (_, kept) in runs.items():
        for layer in (0, 1):
            draws = np.stack([masks[layer] for masks in kept])  # (step, unit, sample)
            flat = draws.transpose(0, 2, 1).ravel()  # as in memory
            assert set(np.unique(flat)) == {0.0, factor(0.3)}
            deviation = np.sqrt(0.3 / 0.7)
            found = {
                "mean": (flat - 1).sum() / np.sqrt(flat.size) / deviation,
                "unit means": max(abs((draws - 1).sum(axis=(0, 2))) / np.sqrt(draws[:, 0].size) / deviation) - 1.0,
                "lag 1": z(flat[1:], flat[:-1]),
                "lag 2": z(flat[2:], flat[:-2]),
                "next sample": z(draws[:, :, 1:], draws[:, :, :-1]),
                "next step": z(draws[1:], draws[:-1]),
                "two steps on": z(draws[2:], draws[:-2]),
            }
            assert all(abs(value) < 4 for value in found.values()), (seed, layer, found)
        first, second = (np.stack([masks[layer] for masks in kept]) for layer in (0, 1))
        assert abs(z(first[:, :40], second)) < 4
        other = np.stack([masks[0] for masks in runs[(seed + 1) % 3][1]])
        assert abs(z(first, other)) < 4


def test_bits_are_uniform():
    """Each of the 32 bits is set half the time, and 256 bins of the numbers fill evenly."""
    engine, step = engine_of(CPU, seed=8)
    bits = []
    for _ in range(40):
        step()
        bits.append(engine.read("bits1", 50).copy())
    bits = np.concatenate([array.ravel() for array in bits])
    for i in range(32):
        assert abs(((bits >> i) & 1).mean() - 0.5) * 2 * np.sqrt(bits.size) < 4, i
    counts = np.bincount(bits >> 24, minlength=256)
    chi2 = ((counts - bits.size / 256) ** 2).sum() / (bits.size / 256)
    assert abs(chi2 - 255) < 4 * np.sqrt(2 * 255)


def test_the_key_alone_takes_a_run_up_where_it_was_left(backend):
    whole, first, second = engine_of(backend), engine_of(backend), engine_of(backend)
    expected = [whole[1]() for _ in range(5)]
    for _ in range(2):
        first[1]()
    assert backend.to_host(second[0].keys).tolist() == [0] * len(second[0].keys)
    second[0].keys[...] = first[0].keys
    for masks in expected[2:]:
        for found, mask, other in zip(second[1](), masks, expected[0], strict=True):
            assert np.array_equal(found, mask) and not np.array_equal(found, other)
    assert backend.to_host(second[0].keys).tolist() == backend.to_host(whole[0].keys).tolist()


@pytest.mark.parametrize("rate", [1e-12, 2**-32, 0.3, 0.5, 1 - 1e-9, 1 - 2**-53])
def test_the_mask_s_mean_is_1_for_every_rate(backend, rate):
    """The bits k - 1 are dropped and k are kept; with k of 2^32 dropped, the factor makes up for just these."""
    k = max(int(rate * 2**32), 1)
    bits = np.array([[0, k - 1, k, 2**32 - 1]], dtype=np.uint32)
    mask = backend.xp.empty(bits.shape, dtype=backend.dtype)
    dropout_mask(backend.xp, backend.xp.asarray(bits), rate, mask)
    dropped, just_dropped, just_kept, kept = backend.to_host(mask)[0].tolist()
    assert dropped == just_dropped == 0.0 and just_kept == kept
    assert kept * (2**32 - k) / 2**32 == pytest.approx(1.0, rel=1e-15 if backend.dtype == np.float64 else 1e-7)


# Only in training steps


def test_predictions_know_nothing_of_it(backend):
    plain = Network([6, 8, 4, 3], backend=backend, seed=1)
    dropping = Network([6, 8, 4, 3], dropout=0.5, backend=backend, seed=1)
    assert np.array_equal(*(backend.to_host(net.parameters.flat) for net in (plain, dropping)))  # the same weights too
    X, Y = (backend.to_device(array) for array in (labelled().X, labelled().Y))
    for method in ("forward", "predict", "classify"):
        found, expected = (backend.to_host(getattr(net, method)(X)) for net in (dropping, plain))
        np.testing.assert_array_equal(found, expected)
    assert dropping.evaluate_loss(X, Y) == plain.evaluate_loss(X, Y)
    assert xpnet.evaluate(dropping, labelled()) == xpnet.evaluate(plain, labelled())
    outputs = dropping.activations(X)
    assert len(outputs) == len(dropping.layers) == 7
    np.testing.assert_array_equal(*(backend.to_host(outputs[i]) for i in (1, 2)))
    assert xpnet.step(dropping, SGD(), X, Y) != pytest.approx(xpnet.step(plain, SGD(), X, Y), rel=1e-3)


def test_evaluation_and_inference_record_nothing_for_it():
    def words(program):
        assert program.n_uints == 0 and not program.constants
        return [call.text for call in program.calls]

    plain, dropping = (Network([6, 8, 3], dropout=rate, backend=CPU).architecture for rate in (None, 0.5))
    assert words(evaluation_program(plain, 7, True, True)) == words(evaluation_program(dropping, 7, True, True))
    for kind in ("forward", "predict", "activations"):
        assert words(inference_program(plain, 7, kind)) == words(inference_program(dropping, 7, kind))


def test_calls_of_a_step():
    """A layer: 9 of the hash, 2 of the mask, the product; its backward; the key's advance."""
    plain, dropping = (Network([6, 8, 3], dropout=rate, backend=CPU) for rate in (None, 0.5))
    counts = [len(net.training_program(7, SGD(), False).calls) for net in (plain, dropping)]
    assert counts[1] - counts[0] == 14
    assert len(Network([6, 8, 3], dropout=0.0, backend=CPU).training_program(7, SGD(), False).calls) == counts[0]


def test_a_mask_that_stands_before_a_dense_layer_may_lie_on_its_input():
    """relu's backward reads its output, so dropout needs memory of its own there; behind a Dense it needs none."""
    layers = [Dense(5, 4), Activation("relu"), Dropout(0.5), Dense(4, 3), Dropout(0.5)]
    buffers = Network(layers, loss="squared_error", backend=CPU).training_program(7, SGD(), False).buffers
    assert buffers["A1"].offset != buffers["A1'"].offset and buffers["Z2"].offset == buffers["A2"].offset


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("weighted", [False, True])
def test_gradients_are_those_of_one_fixed_mask(activation, weighted):
    layers = [Dense(6, 9, bias=0.5), Activation(activation), Dropout(0.4), Dense(9, 3), Dropout(0.2)]
    network = Network(layers, backend=CPU, seed=3)
    samples = [CPU.to_device(labelled().X), CPU.to_device(labelled().Y)]
    samples += [np.random.default_rng(0).random(23)] * weighted
    assert check_gradients(network, *samples) <= 1e-7
    first, second = (network.gradients(*samples).flat for _ in range(2))
    np.testing.assert_array_equal(first, second)
    training, plain = (network.evaluate_loss(*samples, training=flag) for flag in (True, False))
    assert training != pytest.approx(plain, rel=1e-3)


# Seeds


def test_the_training_seed_alone_decides_the_masks(backend):
    def run(seed, shuffle=False):
        network, history = trained(backend, seed=seed, shuffle=shuffle)
        return backend.to_host(network.owned).tobytes(), history.column("train_loss")

    assert run(1) == run(1)
    assert run(1)[0] != run(2)[0]  # without shuffling, only the masks differ
    assert run(1)[1][0] == run(2)[1][0]


def test_step_goes_on_in_the_masks_whatever_the_batch(backend):
    """With a rate that changes nothing, two calls differ by their masks alone."""
    network = Network([6, 8, 3], dropout=0.5, backend=backend, seed=1)
    X, Y = (backend.to_device(array) for array in (labelled().X, labelled().Y))

    def losses(sizes):
        network.step_keys = None
        return [xpnet.step(network, SGD(1e-30), X[:, :size], Y[:, :size]) for size in sizes]

    assert len(set(losses([6, 6, 6]))) == 3
    there, back = losses([6, 4, 6]), losses([4, 4, 6])
    assert there[0] != there[2] != back[2]
    assert losses([6, 4, 6]) == there


def test_a_chunk_is_one_upload_and_one_read(fake_gpu):
    measured = []

    class Chunks(xpnet.Callback):
        def on_chunk_end(self, epoch, step, loss):
            counts = fakecupy.counts
            measured.append([counts.uploads, counts.reads, counts.allocations, counts.hidden_copies])

    _, history = trained(fake_gpu, epochs=1, dataset=labelled(500), callbacks=[Chunks()])
    changes = {tuple(np.subtract(after, before)) for before, after in pairwise(measured)}
    assert changes == {(1, 1, 2, 0)}
    # floats of the data, the order, and once the counters of both layers and how far a step goes in each
    assert history[0]["bytes_uploaded"] == 4 * 9 * 500 + 8 * 500 + 4 * 5 * (8 + 4) + 4 * 2


# Alone


def test_alone(backend):
    layer, X = Dropout(0.25), np.random.default_rng(0).standard_normal((40, 50)) + 5.0
    params = layer.initialize(np.random.default_rng(0))
    params = {name: backend.to_device(value, np.uint32).copy() for name, value in params.items()}
    on_device = backend.to_device(X)
    A, trace = layer.forward(params, on_device, xp=backend.xp)
    same, _ = layer.forward(params, on_device, xp=backend.xp)
    layer.advance(params, trace, xp=backend.xp)
    again, _ = layer.forward(params, on_device, xp=backend.xp)
    A, same, again, X = (backend.to_host(array).astype(float) for array in (A, same, again, on_device))
    np.testing.assert_array_equal(same, A)
    assert abs((A == 0).mean() - 0.25) < 4 * np.sqrt(0.25 * 0.75 / X.size)
    np.testing.assert_allclose(A[A != 0], (X / 0.75)[A != 0], rtol=1e-6)
    assert np.any((A == 0) != (again == 0))  # the key has moved on
    dX, grads = layer.backward(params, trace, on_device, xp=backend.xp)
    assert grads == {} and np.array_equal(backend.to_host(dX), A)
    nothing, _ = Dropout(0).forward(params, on_device, xp=backend.xp)
    assert np.array_equal(backend.to_host(nothing), X)


# Descriptions


@pytest.mark.parametrize("rate", [1.0, 1, -0.1, 2, float("nan"), float("inf"), True, "0.5", None, [0.5], 10**400])
def test_rates_that_cannot_be(rate):
    with pytest.raises(TypeError if rate is True or not isinstance(rate, (int, float)) else ValueError) as error:
        Dropout(rate)
    says(error, "Dropout rate is", "number of at least 0 and below 1", "Dropout(0.5)")
    with pytest.raises(ValueError):
        layer_from_spec({"type": "dropout", "rate": rate})


def test_sizes_with_dropout():
    assert Network([6, 5, 4, 3], dropout=0.5, backend=CPU).layers == (
        Dense(6, 5, "he"),
        Activation("relu"),
        Dropout(0.5),
        Dense(5, 4, "he"),
        Activation("relu"),
        Dropout(0.5),
        Dense(4, 3, "glorot"),
    )
    some = Network([6, 5, 4, 3], dropout=[0, 0.2], backend=CPU)
    assert [layer.rate for layer in some.layers if isinstance(layer, Dropout)] == [0.2]
    assert Network.from_spec(some.to_spec(), backend=CPU).layers == some.layers
    assert some.to_spec()["layers"][-2] == {"type": "dropout", "rate": 0.2}
    assert "dropout" in str(some.architecture)


@pytest.mark.parametrize(
    ("layers", "dropout", "parts"),
    [
        ([6, 5, 3], [0.5, 0.2], ["2 rates for 1 hidden"]),
        ([6, 5, 3], [1.5], ["rate is 1.5", "below 1"]),
        ([6, 3], 1.0, ["rate is 1.0", "below 1"]),
        ([6, 5, 3], "half", ["rate is 'half'", "Dropout(0.5)"]),
        ([Dense(6, 3)], 0.5, ["dropout=0.5 goes with sizes", "Dropout(0.5)"]),
    ],
)
def test_sizes_with_dropout_that_cannot_be(layers, dropout, parts):
    with pytest.raises(TypeError if dropout == "half" else ValueError) as error:
        Network(layers, dropout=dropout, backend=CPU)
    says(error, *parts)


def test_a_model_file_has_no_tensor_of_it(tmp_path):
    network, _ = trained(CPU)
    network.save(tmp_path / "m.safetensors")
    loaded = Network.load(tmp_path / "m.safetensors", CPU)
    assert loaded.layers == network.layers
    np.testing.assert_array_equal(loaded.owned, network.owned)


def test_the_last_activation_before_a_dropout_must_suit_the_loss():
    with pytest.raises(ValueError) as error:
        Network([Dense(6, 3), Activation("tanh"), Dropout(0.5)], backend=CPU)
    says(error, "softmax_cross_entropy", "'tanh'")
