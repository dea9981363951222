"""Normalization: against PyTorch's recorded numbers and plain NumPy; what training writes and predictions only read."""

from __future__ import annotations

import json
import warnings
from itertools import pairwise
from pathlib import Path

import fakecupy
import numpy as np
import pytest
from refusals import says
from safetensors.numpy import load_file, save_file

import xpnet
from xpnet import (
    SGD,
    Activation,
    BatchNorm,
    Dataset,
    Dense,
    Dropout,
    LayerNorm,
    Network,
    TrainingDiverged,
    check_gradients,
    select_backend,
)
from xpnet.network.layers import layer_from_spec

CPU = select_backend("cpu", "float64")
GOLDEN = json.loads((Path(__file__).parents[1] / "golden/normalization.json").read_text(encoding="utf-8"))
MIXED = [
    Dense(6, 8, bias=None),
    BatchNorm(8),
    Activation("tanh"),
    Dropout(0.3),
    Dense(8, 5),
    LayerNorm(5),
    Activation("relu"),
    Dropout(0.2),
    Dense(5, 3),
]


def labelled(n=23, seed=4, weights=None):
    rng = np.random.default_rng(seed)
    return Dataset.from_labels(rng.random((6, n)) * 3.0, rng.integers(0, 3, n), 3, weights)


def samples(backend, n=23):
    return [backend.to_device(array) for array in (labelled(n).X, labelled(n).Y)]


def batch_network(backend=CPU, **keywords):
    return Network([6, 8, 4, 3], activation="tanh", normalization="batch", backend=backend, seed=1, **keywords)


def host_statistics(network):
    return {name: network.backend.to_host(value).astype(float) for name, value in network.statistics.items()}


# Alone


@pytest.mark.parametrize("name", ["batch_norm", "layer_norm"])
def test_five_steps_agree_with_torch(name):
    """Outputs, gradients and running statistics to 1e-10; tests/golden/make_normalization.py wrote the numbers."""
    golden, eps = GOLDEN[name], GOLDEN["eps"]
    layer = BatchNorm(4, momentum=GOLDEN["momentum"], eps=eps) if name == "batch_norm" else LayerNorm(4, eps=eps)
    params = layer.initialize(np.random.default_rng(0))
    params |= {key: np.array(golden[key]) for key in ("gamma", "beta")}
    assert len(golden["steps"]) == 5
    for step in golden["steps"]:
        step = {key: np.array(value) for key, value in step.items()}
        Y, trace = layer.forward(params, step["X"])
        dX, grads = layer.backward(params, trace, step["dY"])
        layer.advance(params, trace)
        found = {"Y": Y, "dX": dX, "dgamma": grads["gamma"], "dbeta": grads["beta"], **params}
        for key in step.keys() - {"X", "dY"}:
            assert abs(found[key] - step[key]).max() <= 1e-10, key
    if name == "batch_norm":
        X, Y = (np.array(golden["inference"][key]) for key in "XY")
        out = np.empty_like(X)
        layer.forward_into(np, {**params, "scale": np.empty((4, 1))}, X, out)
        assert abs(out - Y).max() <= 1e-10


@pytest.mark.parametrize("layer", [BatchNorm(5), LayerNorm(5), LayerNorm(1), BatchNorm(1)], ids=repr)
def test_alone(backend, layer):
    """Each feature over the batch, or each sample over its features, by loops; inputs are left as they were."""
    rng, axis = np.random.default_rng(0), 1 if isinstance(layer, BatchNorm) else 0
    X, dY = rng.standard_normal((layer.n, 7)) * 3.0 + 5.0, rng.standard_normal((layer.n, 7))
    params = {name: backend.to_device(value) for name, value in layer.initialize(rng).items()}
    params["gamma"], params["beta"] = (backend.to_device(rng.random((layer.n, 1)) + 0.5) for _ in "gb")
    gamma, beta = (backend.to_host(params[name]).astype(float) for name in ("gamma", "beta"))
    arrays = [backend.to_device(array) for array in (X, dY)]
    Y, trace = layer.forward(params, arrays[0], xp=backend.xp)
    dX, grads = layer.backward(params, trace, arrays[1], xp=backend.xp)
    xhat, centred = np.empty_like(X), np.empty_like(X)
    for index in range(X.shape[1 - axis]):
        at = (index, slice(None)) if axis else (slice(None), index)
        x, g = X[at], (gamma * dY)[at]
        deviation = np.sqrt(np.mean((x - np.mean(x)) ** 2) + layer.eps)
        xhat[at] = (x - np.mean(x)) / deviation
        centred[at] = (g - np.mean(g) - xhat[at] * np.mean(g * xhat[at])) / deviation
    expected = [gamma * xhat + beta, centred, (dY * xhat).sum(1)[:, None], dY.sum(1)[:, None]]
    for found, wanted in zip([Y, dX, grads["gamma"], grads["beta"]], expected, strict=True):
        error = abs(backend.to_host(found) - wanted).max()
        assert error <= (1e-12 if backend.dtype == np.float64 else 2e-5) * max(1.0, abs(wanted).max())
    if axis:
        own = {name: value.copy() for name, value in params.items()}
        layer.advance(own, trace, xp=backend.xp)
        for name, wanted in (("running_mean", 0.1 * X.mean(1)), ("running_variance", 0.9 + 0.1 * X.var(1, ddof=1))):
            np.testing.assert_allclose(backend.to_host(own[name])[:, 0], wanted, rtol=1e-5)


@pytest.mark.parametrize("kind", [BatchNorm, LayerNorm])
def test_the_least_eps_normalizes_a_constant(backend, kind):
    layer = kind(3, eps=1.2e-38)
    params = {name: backend.to_device(value) for name, value in layer.initialize(None).items()}
    Y, _ = layer.forward(params, backend.to_device(np.ones((3, 4))), xp=backend.xp)
    assert np.all(backend.to_host(Y) == 0.0)


@pytest.mark.parametrize("kind", [BatchNorm, LayerNorm])
def test_a_constant_far_from_0_is_normalized_to_0(backend, kind):
    """In float32 the mean of 1000 equal numbers is off by a rounding, which 1 / sqrt(eps) would make O(1)."""
    layer, X = kind(1000), np.full((1000, 1000), 1000.7)
    params = {name: backend.to_device(value) for name, value in layer.initialize(None).items()}
    Y, trace = layer.forward(params, backend.to_device(X), xp=backend.xp)
    assert abs(backend.to_host(Y)).max() <= 1e-3
    np.testing.assert_allclose(backend.to_host(trace["mean"]), 1000.7, rtol=1e-7)


# Gradients


@pytest.mark.pairwise(
    normalization=["batch", "layer"],
    activation=["tanh", "relu", "sigmoid"],
    loss=["softmax_cross_entropy", "sigmoid_cross_entropy", "squared_error"],
    batch=[2, 9],
    weighted=[False, True],
)
def test_gradients(normalization, activation, loss, batch, weighted):
    network = Network([6, 5, 4, 3], normalization=normalization, activation=activation, loss=loss, backend=CPU, seed=2)
    rng = np.random.default_rng(5)
    for name, view in network.parameters.named.items():
        if not name.endswith(".W"):
            view[...] = 0.7 + 0.3 * rng.random(view.shape)
    X, Y = rng.standard_normal((6, batch)), rng.random((3, batch))
    if loss == "softmax_cross_entropy":
        Y /= Y.sum(axis=0)
    weights = [rng.random(batch) + 0.1] * weighted
    gradients = network.gradients(X, Y, *weights)
    for name, view in gradients.named.items():
        assert np.linalg.norm(view) > 1e-9, name  # none is left out
    before = network.owned.copy()
    assert check_gradients(network, X, Y, *weights) <= 1e-7
    np.testing.assert_array_equal(network.owned, before)  # nor did the statistics move


@pytest.mark.parametrize(
    "layers",
    [
        MIXED,
        [Dense(6, 3, bias=None), BatchNorm(3)],
        [Dense(6, 3), LayerNorm(3)],
        [Dense(6, 4), Activation("tanh"), BatchNorm(4), LayerNorm(4), Dense(4, 3)],
    ],
    ids=["mixed", "batch last", "layer last", "two in a row"],
)
def test_gradients_wherever_the_layers_stand(layers):
    network = Network(layers, backend=CPU, seed=2)
    network.parameters.flat[network.architecture.layout.n_weights :] += 0.3  # off the symmetry of the start
    assert check_gradients(network, *samples(CPU)) <= 1e-7


def test_training_s_loss_and_activations_are_those_of_the_batch():
    network, (X, Y) = batch_network(), samples(CPU)
    outputs = network.activations(X, training=True)
    for i in (1, 4):  # the normalized ones: gamma is 1 and beta 0
        assert abs(outputs[i].mean(axis=1)).max() < 1e-12 and abs(outputs[i].var(axis=1) - 1).max() < 1e-2
    assert abs(network.activations(X)[1].mean(axis=1)).max() > 1e-2
    P = np.exp(outputs[-1]) / np.exp(outputs[-1]).sum(axis=0)
    assert network.evaluate_loss(X, Y, training=True) == pytest.approx(-np.log((P * Y).sum(axis=0)).mean(), rel=1e-12)


# What training writes and predictions read


def test_running_statistics_of_a_run(backend):
    """The first layer sees W X: its statistics follow from the batches and the weights before each step."""
    network, dataset = Network([6, 4, 3], normalization="batch", backend=backend, seed=1), labelled()
    mean, variance = np.zeros((4, 1)), np.ones((4, 1))
    w = np.random.default_rng(0).random(23)  # sample weights do not enter
    X, Y = samples(backend)
    for part in (slice(0, 9), slice(9, 18), slice(18, 20)):
        W = backend.to_host(network.parameters.weights[0]).astype(float)
        Z = W @ dataset.X[:, part].astype(float)
        xpnet.step(network, SGD(0.5), X[:, part], Y[:, part], backend.to_device(w[part]))
        mean, variance = 0.9 * mean + 0.1 * Z.mean(1)[:, None], 0.9 * variance + 0.1 * Z.var(1, ddof=1)[:, None]
    found = host_statistics(network)
    assert sorted(found) == ["layers.1.running_mean", "layers.1.running_variance"]
    np.testing.assert_allclose(found["layers.1.running_mean"], mean, rtol=1e-5)
    np.testing.assert_allclose(found["layers.1.running_variance"], variance, rtol=1e-5)
    # and predictions use them: by hand, sample by sample
    W1, W2, b2, gamma, beta = (
        backend.to_host(network.parameters.named[name]).astype(float)
        for name in ("layers.0.W", "layers.3.W", "layers.3.b", "layers.1.gamma", "layers.1.beta")
    )
    A = np.maximum(gamma * (W1 @ dataset.X - mean) / np.sqrt(variance + 1e-5) + beta, 0.0)
    np.testing.assert_allclose(backend.to_host(network.forward(X)), W2 @ A + b2, rtol=1e-4, atol=1e-5)


def test_predictions_depend_on_no_other_sample_and_write_nothing(backend):
    network = batch_network(backend)
    xpnet.train(network, labelled(), SGD(), epochs=2, batch_size=5, shuffle=False)
    before = backend.to_host(network.owned).tobytes()
    X, Y = samples(backend)
    together = backend.to_host(network.predict(X))
    for i in (0, 7):
        alone = backend.to_host(network.predict(X[:, i : i + 1]))
        np.testing.assert_allclose(alone[:, 0], together[:, i], rtol=1e-5)
    losses = [network.evaluate_loss(X[:, i : i + 1], Y[:, i : i + 1]) for i in range(23)]
    assert network.evaluate_loss(X, Y) == pytest.approx(np.mean(losses), rel=1e-5)
    assert xpnet.evaluate(network, labelled())["loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    network.activations(X), network.classify(X), network.gradients(X, Y), network.evaluate_loss(X, Y, training=True)
    xpnet.train(network, labelled(), SGD(), epochs=0, validation=labelled())
    assert backend.to_host(network.owned).tobytes() == before
    assert network.evaluate_loss(X, Y, training=True) != pytest.approx(np.mean(losses), rel=1e-3)


def test_validation_changes_nothing(backend):
    plain, judged = batch_network(backend), batch_network(backend)
    xpnet.train(plain, labelled(), SGD(), epochs=2, batch_size=5)
    history = xpnet.train(judged, labelled(), SGD(), epochs=2, batch_size=5, validation=labelled(9, seed=5))
    assert backend.to_host(plain.owned).tobytes() == backend.to_host(judged.owned).tobytes()
    assert history[-1]["val_loss"] == xpnet.evaluate(judged, labelled(9, seed=5))["loss"]


def test_the_same_seed_gives_the_same_bits(backend):
    def run(seed):
        network = Network(MIXED, backend=backend, seed=1)
        xpnet.train(network, labelled(), SGD(), epochs=3, batch_size=4, seed=seed)
        return backend.to_host(network.owned).tobytes()

    assert run(1) == run(1) != run(2)


def test_cpu_and_gpu_go_the_same_way(fake_gpu):
    networks = [Network(MIXED, backend=backend, seed=1) for backend in (select_backend("cpu"), fake_gpu)]
    for network in networks:
        xpnet.train(network, labelled(), SGD(), epochs=2, batch_size=4, seed=3)
    found, expected = (network.backend.to_host(network.owned) for network in networks)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_a_chunk_is_one_upload_and_one_read(fake_gpu):
    measured = []

    class Chunks(xpnet.Callback):
        def on_chunk_end(self, epoch, step, loss):
            counts = fakecupy.counts
            measured.append([counts.uploads, counts.reads, counts.allocations, counts.hidden_copies])

    network = Network(MIXED, backend=fake_gpu)
    xpnet.train(network, labelled(500), SGD(), epochs=1, batch_size=5, callbacks=[Chunks()])
    changes = {tuple(np.subtract(after, before)) for before, after in pairwise(measured)}
    assert changes == {(1, 1, 2, 0)}


def test_calls_of_a_step():
    """Batch: 16 forward, 9 backward, 6 for the running statistics, less the bias's 2. Layer: 16 and 13."""

    def count(normalization):
        return len(Network([6, 8, 3], normalization=normalization, backend=CPU).training_program(7, SGD(), False).calls)

    assert (count("batch") - count(None), count("layer") - count(None)) == (29, 29)


def test_divergence_gives_the_statistics_back_too(backend):
    network, seen = batch_network(backend), {}

    class Keep(xpnet.Callback):
        def on_epoch_end(self, record, network):
            seen["owned"] = network.backend.to_host(network.owned).copy()

        def on_chunk_end(self, epoch, step, loss):
            if epoch == 3:
                network.parameters.weights[0][...] = np.inf

    with pytest.raises(TrainingDiverged):
        xpnet.train(network, labelled(), SGD(), epochs=5, callbacks=[Keep()])
    np.testing.assert_array_equal(backend.to_host(network.owned), seen["owned"])
    assert any(value.any() for name, value in host_statistics(network).items() if name.endswith("mean"))


# Batches of one


def test_a_step_of_one_sample_is_refused():
    network, (X, Y) = batch_network(), samples(CPU)
    one = X[:, :1], Y[:, :1]
    for call in (
        lambda: network.training_program(1, SGD(), False),
        lambda: network.training_program(4, SGD(), False).at(1),
        lambda: xpnet.step(network, SGD(), *one),
        lambda: network.gradients(*one),
        lambda: network.evaluate_loss(*one, training=True),
        lambda: xpnet.epochs(network, labelled(), SGD(), epochs=1, batch_size=1),
        lambda: xpnet.epochs(network, labelled(1), SGD(), epochs=1),
        lambda: BatchNorm(6).forward(BatchNorm(6).initialize(None), X[:, :1]),
    ):
        with pytest.raises(ValueError) as error:
            call()
        says(error, "has 1 sample", "BatchNorm(", "needs 2 or more", "give it 2 or more", "LayerNorm(")
    network.predict(X[:, :1])
    Network([6, 4, 3], normalization="layer", backend=CPU).gradients(*one)


@pytest.mark.parametrize("run", [xpnet.train, lambda *args, **keywords: list(xpnet.epochs(*args, **keywords))])
def test_a_last_step_of_one_sample_is_left_out_and_this_said_once(run):
    network, other = batch_network(), batch_network()
    with pytest.warns(UserWarning) as caught:
        history = run(network, labelled(), SGD(0.3), epochs=2, batch_size=11, shuffle=False)
    assert len(caught) == 1 and caught[0].filename == __file__
    says(caught[0].message, "1 sample", "BatchNorm needs 2", "leaves out 1 of the 23", "another batch_size")
    assert [record["steps"] for record in history] == [0, 2, 2]
    X, Y = samples(CPU)
    parts = (slice(0, 11), slice(11, 22)) * 2
    losses = [xpnet.step(other, SGD(0.3), X[:, part], Y[:, part]) for part in parts]
    np.testing.assert_allclose(network.owned, other.owned, rtol=1e-12, atol=1e-15)
    assert history[1]["train_loss"] == pytest.approx(np.mean(losses[:2]))


def test_nothing_is_left_out_without_need():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        history = xpnet.train(batch_network(), labelled(), SGD(), epochs=1, batch_size=5)
        assert history[1]["steps"] == 5
        for normalization in (None, "layer"):
            network = Network([6, 4, 3], normalization=normalization, backend=CPU)
            assert xpnet.train(network, labelled(), SGD(), epochs=1, batch_size=11)[1]["steps"] == 3


# Parameters and files


def test_weight_decay_s_region_holds_weights_alone():
    network = Network(MIXED, backend=CPU)
    layout = network.architecture.layout
    inside = {place.name for place in layout.places if place.offset < layout.n_weights}
    assert inside == {"W"} and layout.n_weights % 64 == 0
    assert [place.path for place in layout.places if place.offset >= layout.n_weights] == [
        "layers.1.gamma",
        "layers.1.beta",
        "layers.4.b",
        "layers.5.gamma",
        "layers.5.beta",
        "layers.8.b",
    ]
    assert layout.count == 6 * 8 + 16 + 8 * 5 + 5 + 10 + 15 + 3 and layout.n_statistics == 128
    assert [bias is None for bias in network.parameters.biases] == [True, False, False]
    assert np.all(network.parameters.named["layers.1.gamma"] == 1.0)


def test_parameters_and_statistics_are_views_of_what_the_network_owns(backend):
    network = batch_network(backend)
    owned = backend.to_host(network.owned)
    assert owned.shape == (network.parameters.flat.size + network.architecture.layout.n_statistics,)
    network.owned[...] = backend.to_device(np.full(owned.shape, 2.0))
    views = [*network.parameters.named.values(), *network.statistics.values()]
    assert all(np.all(backend.to_host(view) == 2.0) for view in views)
    for view in views:
        view[...] = 3.0
    assert (backend.to_host(network.owned) == 3.0).sum() == sum(view.size for view in views)


def test_a_model_file_holds_the_statistics_by_name(tmp_path, backend):
    network, path = Network(MIXED, backend=backend, seed=1), tmp_path / "m.safetensors"
    xpnet.train(network, labelled(), SGD(), epochs=1, batch_size=5)
    network.save(path)
    names = [f"layers.1.{name}" for name in ("gamma", "beta", "running_mean", "running_variance")]
    names += ["layers.0.W", "layers.4.W", "layers.4.b", "layers.5.gamma", "layers.5.beta", "layers.8.W", "layers.8.b"]
    tensors = load_file(path)
    assert sorted(tensors) == sorted(names) and tensors["layers.1.running_mean"].shape == (8, 1)
    loaded = Network.load(path, backend)
    assert loaded.layers == network.layers and loaded.to_spec() == network.to_spec()
    np.testing.assert_array_equal(backend.to_host(loaded.owned), backend.to_host(network.owned))
    X, _ = samples(backend)
    np.testing.assert_array_equal(backend.to_host(loaded.predict(X)), backend.to_host(network.predict(X)))


def test_a_negative_variance_is_refused(tmp_path):
    network, path = batch_network(), tmp_path / "m.safetensors"
    network.statistics["layers.1.running_variance"][2] = -1e-3
    network.save(path)
    with pytest.raises(ValueError) as error:
        Network.load(path, CPU)
    says(error, f"{path}: tensor layers.1.running_variance", "negative numbers", "train the model again")


def test_a_file_without_its_statistics_is_refused(tmp_path):
    network, path = batch_network(), tmp_path / "m.safetensors"
    network.save(path)
    tensors = load_file(path)
    del tensors["layers.1.running_mean"]
    save_file(tensors, path, {"spec": json.dumps(network.to_spec())})
    with pytest.raises(ValueError) as error:
        Network.load(path, CPU)
    says(error, "missing ['layers.1.running_mean']")


# Descriptions


def test_sizes_with_normalization():
    assert Network([6, 5, 3], normalization="batch", dropout=0.5, backend=CPU).layers == (
        Dense(6, 5, "he", None),
        BatchNorm(5),
        Activation("relu"),
        Dropout(0.5),
        Dense(5, 3, "glorot"),
    )
    assert Network([6, 5, 3], normalization="layer", backend=CPU).layers == (
        Dense(6, 5, "he"),
        LayerNorm(5),
        Activation("relu"),
        Dense(5, 3, "glorot"),
    )
    assert str(batch_network().architecture) == "6-8-4-3 tanh batch_norm, softmax_cross_entropy"


@pytest.mark.parametrize(
    "layer",
    [BatchNorm(5), BatchNorm(5, 0.5, 1e-3), LayerNorm(5), LayerNorm(5, 1e-3), Dropout(0.25), Dense(3, 2, bias=None)],
    ids=repr,
)
def test_specs_go_through_json_and_back(layer):
    assert layer_from_spec(json.loads(json.dumps(layer.to_spec()))) == layer


def test_specs_by_hand():
    assert layer_from_spec({"type": "batch_norm", "n": 5}) == BatchNorm(5, momentum=0.1, eps=1e-5)
    assert layer_from_spec({"type": "layer_norm", "n": 5}) == LayerNorm(5, eps=1e-5)
    assert BatchNorm(5).to_spec() == {"type": "batch_norm", "n": 5, "momentum": 0.1, "eps": 1e-5}


@pytest.mark.parametrize(
    ("spec", "parts"),
    [
        ({"type": "batch_norm"}, ["lacks a key", "n"]),
        ({"type": "batch_norm", "n": 0}, ["n is 0", "at least 1"]),
        ({"type": "layer_norm", "n": "5"}, ["n is '5'", "whole number"]),
        ({"type": "batch_norm", "n": 5, "momentum": 0}, ["BatchNorm momentum is 0", "above 0 and of at most 1"]),
        ({"type": "batch_norm", "n": 5, "momentum": 1.5}, ["momentum is 1.5", "at most 1"]),
        ({"type": "batch_norm", "n": 5, "momentum": None}, ["momentum is None", "at most 1"]),
        ({"type": "batch_norm", "n": 5, "eps": -1e-5}, ["BatchNorm eps is -1e-05", "of at least 1.17549e-38"]),
        ({"type": "batch_norm", "n": 5, "eps": 1e-39}, ["BatchNorm eps is 1e-39", "float32", "leave it out"]),
        ({"type": "layer_norm", "n": 5, "eps": 1e-50}, ["LayerNorm eps is 1e-50", "float32", "leave it out"]),
        ({"type": "layer_norm", "n": 5, "eps": 1e39}, ["LayerNorm eps is 1e+39", "float32", "leave it out"]),
        ({"type": "layer_norm", "n": 5, "eps": float("inf")}, ["LayerNorm eps is inf", "finite"]),
        ({"type": "layer_norm", "n": 5, "eps": True}, ["LayerNorm eps is True", "it must be a number"]),
        ({"type": "layer_norm", "n": 5, "momentum": 0.1}, ["key of a layer_norm layer is 'momentum'"]),
    ],
    ids=str,
)
def test_specs_that_cannot_be(spec, parts):
    with pytest.raises(ValueError) as error:
        layer_from_spec(spec)
    says(error, *parts)


@pytest.mark.parametrize(
    ("layers", "keywords", "parts"),
    [
        (
            [Dense(6, 5), BatchNorm(5), Dense(5, 3)],
            {},
            ["Dense(6, 5) has a bias", "the BatchNorm after it cancels", "write Dense(6, 5, bias=None)"],
        ),
        ([Dense(6, 5), Activation("identity"), BatchNorm(5), Dense(5, 3)], {}, ["Dense(6, 5) has a bias"]),
        ([Dense(6, 5, bias=None), BatchNorm(4)], {}, ["BatchNorm(4)", "5 outputs", "write BatchNorm(5)"]),
        ([Dense(6, 5), LayerNorm(6)], {}, ["LayerNorm(6)", "5 outputs", "write LayerNorm(5)"]),
        ([BatchNorm(6), Dense(6, 3)], {}, ["first layer must be Dense"]),
        ([6, 5, 3], {"normalization": "bach"}, ["'bach'", "did you mean 'batch'?"]),
        ([6, 3], {"normalization": "group"}, ["'group'", "'batch', 'layer'"]),
        ([Dense(6, 3)], {"normalization": "batch"}, ["normalization='batch' goes with sizes"]),
    ],
)
def test_networks_that_cannot_be(layers, keywords, parts):
    with pytest.raises(ValueError) as error:
        Network(layers, backend=CPU, **keywords)
    says(error, *parts)
