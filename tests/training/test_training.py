"""Training against an independent NumPy loop, its records, its promises on a GPU, and what it refuses."""

from __future__ import annotations

import io
import warnings
from itertools import pairwise

import fakecupy
import numpy as np
import pytest
from features import FEATURES, data_of, network_of, optimizer_of
from real_mnist import REAL_MNIST, need_real_mnist
from refusals import refusal, says

import xpnet
from xpnet import SGD, Callback, Dataset, Network, TrainingDiverged
from xpnet.datasets import load_mnist
from xpnet.network.parameters import random_generator
from xpnet.training.memory_plan import memory_plan


def labelled(n=23, n_features=6, n_classes=3, weights=None, dtype=float):
    rng = np.random.default_rng(4)
    X = rng.random((n_features, n)) if dtype is float else rng.integers(0, 256, (n_features, n), dtype=dtype)
    return Dataset.from_labels(X, rng.integers(0, n_classes, n), n_classes, weights)


def host(network):
    return [
        [network.backend.to_host(array).astype(float) for array in arrays]
        for arrays in (network.parameters.weights, network.parameters.biases)
    ]


def reference_step(weights, biases, X, Y, w, lr):
    """One SGD step of a tanh network with softmax cross-entropy, samples as rows; changes the lists in place.

    Returns the weighted sum of the losses, of the weights before the step.
    """
    outputs = [X]
    for layer, (W, b) in enumerate(zip(weights, biases, strict=True)):
        Z = outputs[-1] @ W.T + b.T
        outputs.append(Z if layer == len(weights) - 1 else np.tanh(Z))
    E = np.exp(outputs[-1])
    P = E / E.sum(axis=1, keepdims=True)
    losses = -np.log((P * Y).sum(axis=1))
    delta = (P - Y) * w[:, None] / w.sum()
    for layer in reversed(range(len(weights))):
        before = delta @ weights[layer]
        weights[layer] = weights[layer] - lr * delta.T @ outputs[layer]
        biases[layer] = biases[layer] - lr * delta.sum(axis=0)[:, None]
        delta = before * (1 - outputs[layer] ** 2)
    return (losses * w).sum()


def close(backend, found, wanted):
    """Within the rounding of a few steps, relative to the largest value."""
    tolerance = 1e-12 if backend.dtype == np.float64 else 2e-5
    return abs(found - wanted).max() <= tolerance * max(abs(wanted).max(), 1e-3)


@pytest.mark.pairwise(batch_size=[1, 5, 23, None, 100], weighted=[False, True], dtype=[float, np.uint8])
def test_an_epoch_equals_a_plain_loop(backend, batch_size, weighted, dtype):
    n = 23
    w = np.random.default_rng(1).random(n) + 0.1 if weighted else np.ones(n)
    dataset = labelled(n, weights=w if weighted else None, dtype=dtype)
    network = Network([6, 5, 3], activation="tanh", backend=backend, seed=2)
    weights, biases = host(network)
    history = xpnet.train(network, dataset, SGD(0.3), epochs=1, batch_size=batch_size, seed=9)
    X, Y = dataset.samples * (dataset.scale or 1.0), dataset.targets.astype(float)
    order, batch, total = random_generator(9, 1).permutation(n), min(batch_size or n, n), 0.0
    for start in range(0, n, batch):
        part = order[start : start + batch]
        total += reference_step(weights, biases, X[part], Y[part], w[part], 0.3)
    for found, wanted in zip([*host(network)[0], *host(network)[1]], [*weights, *biases], strict=True):
        assert close(backend, found, wanted)
    # the epoch's loss weighs samples, not steps: the short last step counts for what it holds
    assert history[1]["train_loss"] == pytest.approx(total / w.sum(), rel=1e-5)


def test_records(backend):
    dataset, validation = labelled(23), labelled(8)
    network = Network([6, 4, 3], backend=backend, seed=1)
    untrained, judged = xpnet.evaluate(network, dataset), xpnet.evaluate(network, validation)
    history = xpnet.train(network, dataset, SGD(), epochs=2, batch_size=5, validation=validation)
    assert [record["epoch"] for record in history] == history.column("epoch") == [0, 1, 2]
    assert history[0]["train_loss"] == pytest.approx(untrained["loss"], rel=1e-6)
    assert history[0]["val_loss"] == pytest.approx(judged["loss"], rel=1e-6)
    assert history[0]["val_accuracy"] == judged["accuracy"]
    assert history.column("steps") == [0, 5, 5] and history[0]["seconds"] == 0 < history[1]["seconds"]
    final = xpnet.evaluate(network, validation)
    assert history[2]["val_loss"] == final["loss"] and history[2]["val_accuracy"] == final["accuracy"]
    if backend.device == "cpu":
        assert history.column("bytes_uploaded") == [0, 0, 0]
    else:  # floats of both sets and the two orders; then an order and its learning rates, and validation's order
        assert history[0]["bytes_uploaded"] == 4 * 9 * (23 + 8) + 8 * (23 + 8)
        assert history[1]["bytes_uploaded"] == 8 * 23 + 4 * 5 + 8 * 8


def test_a_chunk_is_one_upload_and_one_read_and_a_step_allocates_nothing(fake_gpu):
    dataset = labelled(500)
    network = Network([6, 4, 3], backend=fake_gpu)
    steps = []

    class Chunks(Callback):
        def on_chunk_end(self, epoch, step, loss):
            counts = fakecupy.counts
            steps.append(
                (
                    step,
                    counts.uploads,
                    counts.reads,
                    counts.allocations,
                    counts.hidden_copies,
                    counts.numpy_dispatch,
                    counts.launches,
                )
            )

    xpnet.train(network, dataset, SGD(), epochs=1, batch_size=5, callbacks=[Chunks()])
    changes = [[b - a for a, b in zip(*pair, strict=True)] for pair in pairwise(steps)]
    assert steps[-1][0] == 100 and len(changes) >= 2
    for done, uploads, reads, allocations, hidden_copies, dispatches, _ in changes:
        # allocations: the chunk's upload and its results, however many steps it has
        assert (uploads, reads, allocations, hidden_copies, dispatches) == (1, 1, 2, 0, 0), done
    # The same launches for every step, and one a chunk: the rate, which does not change.
    launches = {(change[6] - 1) / change[0] for change in changes}
    assert len(launches) == 1 and launches.pop().is_integer()


def test_the_same_seed_gives_the_same_bits(backend):
    def run(seed):
        network = Network([6, 4, 3], backend=backend, seed=seed)
        history = xpnet.train(network, labelled(), SGD(), epochs=3, batch_size=4, seed=seed)
        return backend.to_host(network.parameters.flat).tobytes(), history.column("train_loss")

    assert run(1) == run(1)
    assert run(1)[0] != run(2)[0]


def test_cpu_and_gpu_see_the_same_weights_and_batches(fake_gpu):
    networks = [Network([6, 4, 3], backend=b, seed=1) for b in (xpnet.select_backend("cpu"), fake_gpu)]
    first = [network.backend.to_host(network.parameters.flat).copy() for network in networks]
    assert np.array_equal(*first)
    for network in networks:
        xpnet.train(network, labelled(), SGD(), epochs=2, batch_size=4, seed=3)
    after = [network.backend.to_host(network.parameters.flat) for network in networks]
    np.testing.assert_allclose(*after, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("shuffle", [False, np.random.default_rng(3)])
def test_the_order_is_the_data_s_or_that_of_a_generator(float64_cpu, shuffle):
    dataset, network = labelled(), Network([6, 5, 3], activation="tanh", backend=float64_cpu, seed=2)
    weights, biases = host(network)
    xpnet.train(network, dataset, SGD(0.3), epochs=1, batch_size=4, shuffle=shuffle)
    order = np.random.default_rng(3).permutation(23) if shuffle else np.arange(23)
    for start in range(0, 23, 4):
        part = order[start : start + 4]
        size = len(dataset.samples[part])
        reference_step(weights, biases, dataset.samples[part], dataset.targets[part], np.ones(size), 0.3)
    assert close(float64_cpu, host(network)[0][0], weights[0])


def test_step_is_one_update_and_returns_the_loss_before_it(backend):
    network = Network([6, 5, 3], activation="tanh", backend=backend, seed=2)
    optimizer = SGD(0.3)
    for size, lr in ((7, 0.3), (4, 0.1), (7, 0.2)):
        dataset, w = labelled(size), np.random.default_rng(size).random(size) + 0.1
        weights, biases = host(network)
        loss = reference_step(weights, biases, dataset.samples, dataset.targets, w, lr) / w.sum()
        optimizer.lr = lr
        found = xpnet.step(network, optimizer, *(backend.to_device(array) for array in (dataset.X, dataset.Y, w)))
        assert found == pytest.approx(loss, rel=1e-5)
        assert all(close(backend, *pair) for pair in zip(host(network)[0], weights, strict=True))


@pytest.mark.parametrize(
    ("sizes", "loss", "threshold"),
    [([6, 1], "sigmoid_cross_entropy", 0.0), ([6, 1], "squared_error", 0.5), ([6, 3], "softmax_cross_entropy", None)],
)
@pytest.mark.parametrize("weighted", [False, True])
def test_evaluate(backend, sizes, loss, threshold, weighted):
    n = 2500  # more than two chunks
    rng = np.random.default_rng(0)
    X, labels = rng.standard_normal((6, n)), rng.integers(0, max(2, sizes[-1]), n)
    w = rng.random(n) if weighted else None
    dataset = Dataset(X, labels.astype(float), w) if sizes[-1] == 1 else Dataset.from_labels(X, labels, 3, w)
    network = Network(sizes, loss=loss, backend=backend)
    Z = host(network)[0][0] @ X + host(network)[1][0]
    Y = dataset.Y.astype(float)
    if loss == "squared_error":
        losses = 0.5 * ((Z - Y) ** 2).sum(axis=0)
    elif sizes[-1] == 1:
        losses = np.logaddexp(0.0, np.where(Y == 1, -Z, Z))[0]
    else:
        losses = np.log(np.exp(Z).sum(axis=0)) - (Z * Y).sum(axis=0)
    right = (Z.argmax(axis=0) if threshold is None else (Z[0] > threshold)) == labels
    found = xpnet.evaluate(network, dataset)
    assert found["n"] == n and found["correct"] == right.sum()
    assert found["loss"] == pytest.approx(np.average(losses, weights=w), rel=1e-5)
    assert found["accuracy"] == pytest.approx(np.average(right, weights=w), rel=1e-5)


def test_regression_has_no_accuracy(float64_cpu):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((3, 40))
    dataset = Dataset(X, 2.0 * X[0] - X[2])
    network = Network([3, 1], loss="squared_error", backend=float64_cpu)
    history = xpnet.train(network, dataset, SGD(0.3), epochs=200, validation=dataset)
    assert set(xpnet.evaluate(network, dataset)) == {"loss", "n"} and "val_accuracy" not in history[-1]
    assert history[-1]["val_loss"] < 1e-10  # a linear network learns a linear rule
    np.testing.assert_allclose(network.parameters.weights[0], [[2, 0, -1]], atol=1e-4)


@pytest.mark.parametrize("lr", [1e38, 1e6])
def test_divergence_names_the_step_and_keeps_the_last_good_weights(backend, lr):
    rng = np.random.default_rng(0)
    dataset = Dataset(rng.standard_normal((3, 20)), rng.standard_normal(20))
    network = Network([3, 4, 1], loss="squared_error", backend=backend)
    seen = {}

    class Keep(Callback):
        def on_epoch_end(self, record, network):
            seen["weights"] = network.backend.to_host(network.parameters.flat).copy()

    with pytest.raises(TrainingDiverged, match=r"step (\d+ )?of epoch \d.*lower the learning rate") as error:
        xpnet.train(network, dataset, SGD(lr), epochs=50, batch_size=5, callbacks=[Keep()])
    assert f"lr is {lr:g}" in str(error.value)
    after = network.backend.to_host(network.parameters.flat)
    assert np.isfinite(after).all() and np.array_equal(after, seen["weights"])


def test_an_interrupt_leaves_a_usable_network_and_tells_callbacks(float64_cpu):
    events = []

    class Interrupted(Callback):
        def on_train_begin(self, network, n_epochs, n_steps):
            events.append(("begin", n_epochs, n_steps))

        def on_chunk_end(self, epoch, step, loss):
            assert np.isfinite(loss)
            if epoch == 2:
                raise KeyboardInterrupt

        def on_epoch_end(self, record, network):
            events.append(("epoch", record["epoch"]))

        def on_train_end(self, network):
            events.append("end")

    network = Network([6, 4, 3], backend=float64_cpu)
    with pytest.raises(KeyboardInterrupt):
        xpnet.train(network, labelled(), SGD(), epochs=3, batch_size=4, callbacks=[Interrupted()])
    assert events == [("begin", 3, 6), ("epoch", 0), ("epoch", 1), "end"]
    assert np.isfinite(network.predict(np.ones((6, 1)))).all()


def test_epochs_can_be_left_early_and_validates_at_the_call(float64_cpu):
    network, ends = Network([6, 4, 3], backend=float64_cpu), []

    class End(Callback):
        def on_train_end(self, network):
            ends.append(True)

    generator = xpnet.epochs(network, labelled(), SGD(), epochs=100, callbacks=[End()])
    assert next(generator)["epoch"] == 0 and next(generator)["epoch"] == 1
    generator.close()
    assert ends == [True]
    with pytest.raises(ValueError, match="epochs is -1"):
        xpnet.epochs(network, labelled(), SGD(), epochs=-1)


@pytest.mark.parametrize(
    ("changes", "error", "parts"),
    [
        ({"dataset": np.ones((6, 2))}, TypeError, ["dataset is a ndarray", "it must be a Dataset", "Dataset(X, Y)"]),
        ({"dataset": labelled(n_features=5)}, ValueError, ["5 features", "the network expects 6", "size is 5"]),
        ({"dataset": labelled(n_classes=4)}, ValueError, ["4 outputs", "the network expects 3", "size is 4"]),
        ({"validation": labelled(n_classes=4)}, ValueError, ["validation has 4 outputs"]),
        (
            {"dataset": Dataset(np.ones((6, 2)), np.full((3, 2), 0.5))},
            ValueError,
            ["each sample to sum to 1", "those of dataset do not", "use labels of classes"],
        ),
        (
            {"dataset": Dataset(np.ones((6, 2)), np.full((3, 2), 2.0))},
            ValueError,
            ["needs targets from 0 to 1", "dataset has 2 to 2", "loss='squared_error'"],
        ),
        ({"optimizer": SGD}, TypeError, ["optimizer is <class ", "SGD(lr=0.1)"]),
        ({"optimizer": 0.1}, TypeError, ["optimizer is 0.1", "it must be an optimizer such as", "xpnet.SGD(lr=0.1)"]),
        ({"epochs": 1.5}, TypeError, ["epochs is 1.5", "whole number"]),
        ({"batch_size": 0}, ValueError, ["batch_size is 0", "at least 1"]),
        ({"batch_size": 2.5}, TypeError, ["batch_size is 2.5", "whole number"]),
        ({"seed": -1}, ValueError, ["seed is -1"]),
        ({"metrics": ["f1"]}, ValueError, ["metrics is ['f1']", "there is no validation", "pass validation="]),
        ({"metrics": ["f2"]}, ValueError, ["metric is 'f2'", "choose one of"]),
        ({"metrics": "f1"}, TypeError, ["metrics is the text 'f1'", "it must be a list of names", "metrics=('f1',)"]),
        ({"callbacks": [print]}, TypeError, ["callback is <built-in", "it must be an instance of", "xpnet.Callback"]),
    ],
)
def test_refusals(float64_cpu, changes, error, parts):
    network = Network([6, 4, 3], backend=float64_cpu)
    arguments = {"dataset": labelled(), "optimizer": SGD(), "epochs": 1, **changes}
    with refusal(error, *parts):
        xpnet.epochs(network, arguments.pop("dataset"), arguments.pop("optimizer"), **arguments)


@pytest.mark.full
def test_two_epochs_of_mnist():
    need_real_mnist()
    training, _ = load_mnist(REAL_MNIST)
    network = Network([784, 100, 200, 10], backend=xpnet.select_backend("cpu"))
    history = xpnet.train(
        network,
        training.subset(slice(0, 50_000)),
        SGD(0.1),
        epochs=2,
        batch_size=32,
        validation=training.subset(slice(50_000, 60_000)),
    )
    assert history[2]["val_accuracy"] >= 0.95


@pytest.mark.parametrize("scale", [1e-32, 1e-50, 1e38])
def test_the_scale_of_weights_does_not_matter(backend, scale):
    w = np.random.default_rng(0).random(64) + 0.1
    network = Network([6, 3], backend=backend, seed=1)
    found, expected = (xpnet.evaluate(network, labelled(64, weights=weights)) for weights in (w * scale, w))
    assert found == pytest.approx(expected, rel=1e-5)


def test_callbacks_may_be_a_generator(float64_cpu):
    seen = []

    class See(Callback):
        def on_epoch_end(self, record, network):
            seen.append(record["epoch"])

    network = Network([6, 3], backend=float64_cpu)
    xpnet.train(network, labelled(), SGD(), epochs=1, callbacks=(callback for callback in [See()]))
    assert seen == [0, 1]


def test_an_interrupt_while_weights_run_away_gives_the_last_good_ones_back(float64_cpu):
    class Interrupted(Callback):
        def on_chunk_end(self, epoch, step, loss):
            network.parameters.flat[...] = np.nan
            raise KeyboardInterrupt

    network = Network([6, 3], backend=float64_cpu)
    before = network.parameters.flat.copy()
    with pytest.raises(KeyboardInterrupt):
        xpnet.train(network, labelled(), SGD(), epochs=1, callbacks=[Interrupted()])
    assert np.array_equal(network.parameters.flat, before)


OF_DEVICE = {"cuda": {"precision"}}  # fields of the records of steps there


def without_seconds(history):
    return [{key: value for key, value in record.items() if key != "seconds"} for record in history]


def test_records_hold_these_fields_and_repeat_bit_by_bit(backend):
    def run(**keywords):
        network = Network([6, 4, 3], backend=backend, seed=1)
        history = xpnet.train(network, labelled(), SGD(), epochs=3, batch_size=4, **keywords)
        return without_seconds(history), backend.to_host(network.parameters.flat)

    plain, theta = run(seed=5)
    fields = {"epoch", "train_loss", "steps", "bytes_uploaded", "engine"} | OF_DEVICE.get(backend.device, set())
    assert all(set(record) - {"threads"} == fields for record in plain)
    judged, theta_judged = run(seed=5, validation=labelled(8), keep_best=False)
    assert all(set(record) - {"threads"} == {*fields, "val_loss", "val_accuracy"} for record in judged)
    assert judged == run(seed=5, validation=labelled(8), keep_best=False)[0]
    np.testing.assert_array_equal(theta, theta_judged)  # looking on changes nothing
    # The training seed alone decides the order: from equal weights another one ends elsewhere.
    other, theta_other = run(seed=6)
    assert other[0] == plain[0] and other[1] != plain[1] and not np.array_equal(theta, theta_other)


def test_every_epoch_has_an_order_of_its_own(float64_cpu):
    dataset = labelled()

    def weights_after_one_epoch(skip):
        network = Network([6, 3], backend=float64_cpu, seed=1)
        start = network.parameters.flat.copy()
        for record in xpnet.epochs(network, dataset, SGD(), epochs=skip + 1, batch_size=4):
            if record["epoch"] == skip:
                network.parameters.flat[...] = start
        return network.parameters.flat

    assert not np.array_equal(weights_after_one_epoch(0), weights_after_one_epoch(1))


def test_no_epochs_measure_the_untrained_network(backend):
    network = Network([6, 4, 3], backend=backend, seed=1)
    before = backend.to_host(network.parameters.flat).copy()
    (record,) = xpnet.train(network, labelled(), SGD(), epochs=0)
    assert record["epoch"] == 0 and record["steps"] == 0
    np.testing.assert_array_equal(backend.to_host(network.parameters.flat), before)


def test_callbacks_see_the_run_in_order(float64_cpu):
    events = []

    class Watch(Callback):
        def __init__(self, name):
            self.name = name

        def on_train_begin(self, network, n_epochs, n_steps):
            events.append((self.name, "begin", n_epochs, n_steps))

        def on_chunk_end(self, epoch, step, loss):
            events.append((self.name, "chunk", epoch, step, loss))

        def on_epoch_end(self, record, network):
            events.append((self.name, "epoch", record["epoch"], record["train_loss"]))

        def on_train_end(self, network):
            events.append((self.name, "end"))

    network = Network([6, 3], backend=float64_cpu)
    history = xpnet.train(network, labelled(60), SGD(), epochs=2, batch_size=1, callbacks=[Watch("a"), Watch("b")])
    a, b = ([event[1:] for event in events if event[0] == name] for name in "ab")
    assert a == b and [event[0] for event in events[:4]] == ["a", "b", "a", "b"]
    assert a[0] == ("begin", 2, 60) and a[1] == ("epoch", 0, history[0]["train_loss"]) and a[-1] == ("end",)
    for epoch in (1, 2):
        chunks = [event for event in a if event[:2] == ("chunk", epoch)]
        done = [0, *(event[2] for event in chunks)]
        assert done == sorted(set(done)) and done[-1] == 60  # each step is told once, the last one too
        mean = sum(event[3] * (after - before) for event, before, after in zip(chunks, done, done[1:], strict=False))
        assert mean / 60 == pytest.approx(history[epoch]["train_loss"], rel=1e-12)


def test_a_step_equals_one_step_of_train(backend):
    dataset, networks = labelled(7), [Network([6, 5, 3], backend=backend, seed=2) for _ in range(2)]
    history = xpnet.train(networks[0], dataset, SGD(0.3), epochs=1, shuffle=False)
    X, Y = backend.to_device(dataset.X), backend.to_device(dataset.Y)
    assert xpnet.step(networks[1], SGD(0.3), X, Y) == pytest.approx(history[1]["train_loss"], rel=1e-6)
    for found, wanted in zip(host(networks[1])[0], host(networks[0])[0], strict=True):
        assert close(backend, found, wanted)


def test_divergence_names_the_very_step(float64_cpu):
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((3, 400)), rng.standard_normal((1, 400))

    def fresh():
        return Network([3, 4, 1], loss="squared_error", backend=float64_cpu, seed=1)

    network, losses = fresh(), []
    while not losses or np.isfinite(losses[-1]):
        part = slice(len(losses) * 2, len(losses) * 2 + 2)
        losses.append(xpnet.step(network, SGD(5.0), X[:, part], Y[:, part]))
    assert 2 < len(losses) < 200
    with pytest.raises(TrainingDiverged) as error:
        xpnet.train(fresh(), Dataset(X, Y), SGD(5.0), epochs=1, batch_size=2, shuffle=False)
    says(
        error,
        f"at step {len(losses)} of epoch 1",
        f"last finite: {losses[-2]:.6g}",
        "lower the learning rate (lr is 5)",
        "or limit the gradient with clip_norm",
    )
    for scales, cure in (
        ((100.0, 1.0), "or scale the inputs"),
        ((1.0, 100.0), "or scale the targets"),
        ((100.0, 100.0), "or scale the inputs and the targets"),
    ):
        with pytest.raises(TrainingDiverged) as error:
            xpnet.train(fresh(), Dataset(X * scales[0], Y * scales[1]), SGD(5.0), epochs=1, batch_size=2)
        assert str(error.value).endswith(cure)


@pytest.mark.parametrize("lr", [1e39, 1e300])
def test_a_rate_beyond_float32_diverges_like_any_other(backend, lr):
    dataset = Dataset(np.ones((3, 4)), np.full(4, 9.0))
    network = Network([3, 1], loss="squared_error", backend=backend)
    with pytest.raises(TrainingDiverged):  # and no RuntimeWarning of a cast
        xpnet.train(network, dataset, SGD(lr), epochs=20)
    assert np.isfinite(backend.to_host(network.parameters.flat)).all()


@pytest.mark.parametrize("hook", ["on_train_begin", "on_chunk_end", "on_epoch_end"])
def test_whatever_a_callback_raises_all_are_told_of_the_end(float64_cpu, hook):
    ended = []

    def fail(*args):
        raise KeyboardInterrupt

    failing = Callback()
    setattr(failing, hook, fail)

    class End(Callback):
        def on_train_end(self, network):
            ended.append(True)

    network = Network([6, 3], backend=float64_cpu)
    with pytest.raises(KeyboardInterrupt):
        xpnet.train(network, labelled(), SGD(), epochs=2, callbacks=[failing, End()])
    assert ended == [True]
    assert np.isfinite(network.predict(np.ones((6, 1)))).all()


def test_one_callback_that_fails_at_the_end_does_not_keep_the_next_from_hearing(float64_cpu):
    ended = []

    class Failing(Callback):
        def on_train_end(self, network):
            raise OSError("disk full")

    class End(Callback):
        def on_train_end(self, network):
            ended.append(True)

    with pytest.raises(OSError):
        xpnet.train(Network([6, 3], backend=float64_cpu), labelled(), SGD(), epochs=1, callbacks=[Failing(), End()])
    assert ended == [True]


@pytest.mark.parametrize("given", [Callback(), None], ids=["one", "None"])
def test_callbacks_that_are_no_list(float64_cpu, given):
    with refusal(TypeError, "callbacks is ", "it must be a list of callbacks", "callbacks=[...]"):
        xpnet.epochs(Network([6, 3], backend=float64_cpu), labelled(), SGD(), epochs=1, callbacks=given)


def test_history_column():
    history = xpnet.History([{"epoch": 0, "train_loss": 2.0}, {"epoch": 1, "train_loss": 1.0}])
    assert history.column("train_loss") == [2.0, 1.0]
    with pytest.raises(KeyError, match="val_loss"):
        history.column("val_loss")
    with refusal(TypeError, "a record is 3", "it must be a dict of fields", "give a list of such dicts"):
        xpnet.History([3])


@pytest.mark.parametrize(
    "name",
    [
        "everything",
        *(
            pytest.param(name, marks=pytest.mark.full)
            for name in (
                "dropout, batch normalization, Adam",
                "loss poisson, one output",
                "uint8",
                "accumulate, weights",
                "all options",
            )
        ),
    ],
)
def test_a_whole_training_on_the_fake_gpu(name, fake_gpu, tmp_path):
    """With validation, metrics, a schedule, early stopping and checkpoints: the same course as on the CPU."""
    feature, found = FEATURES[name], []

    def run(backend, n_epochs, path, resume=None):
        network, optimizer = network_of(feature, backend), optimizer_of(feature)
        optimizer.lr = xpnet.training.schedules.Cosine(0.02, 30)
        X, _, Y, weights = data_of(feature, network, 50)
        dataset = Dataset(X.T, Y.T, weights=weights.ravel() if feature.get("weighted") else None)
        callbacks = [xpnet.EarlyStopping(patience=9), xpnet.Checkpoint(path)]
        history = xpnet.train(
            network,
            dataset,
            optimizer,
            epochs=n_epochs,
            batch_size=16,
            validation=dataset,
            accumulate=feature.get("accumulate", 1),
            callbacks=callbacks,
            resume=resume,
        )
        return history.column("train_loss"), history.column("val_loss"), backend.to_host(network.owned)

    for backend in (xpnet.select_backend("cpu"), fake_gpu):
        path = tmp_path / f"{backend.device}.safetensors"
        found.append(run(backend, 3, path))
        run(backend, 2, path)
        assert run(backend, 3, path, resume=path)[2].tobytes() == found[-1][2].tobytes()
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-3, atol=1e-4)


def test_uint8_data_stay_uint8_on_the_way_to_the_gpu(fake_gpu):
    network = Network([6, 3], backend=fake_gpu)
    history = xpnet.train(network, labelled(23, dtype=np.uint8), SGD(), epochs=1, batch_size=5)
    assert history[0]["bytes_uploaded"] == 6 * 23 + 4 * 3 * 23 + 8 * 23  # a byte a feature, then targets and an order
    assert fakecupy.counts.upload_bytes >= sum(history.column("bytes_uploaded"))


def test_a_validation_set_of_other_features_is_refused(float64_cpu):
    with pytest.raises(ValueError, match=r"validation has 5 features, the network expects 6"):
        xpnet.epochs(
            Network([6, 3], backend=float64_cpu), labelled(), SGD(), epochs=1, validation=labelled(n_features=5)
        )


# --- accumulation ----------------------------------------------------------------------------------------------------


@pytest.mark.pairwise(sizes=[(24, 4, 3), (23, 4, 3), (26, 4, 3), (23, 5, 2), (7, 3, 10)], weighted=[False, True])
def test_accumulated_batches_equal_a_larger_one(backend, sizes, weighted):
    n, batch_size, k = sizes
    """Exactly, with sample weights, with a short last batch, and with a short last update."""
    weights = np.random.default_rng(0).random(n) + 0.1 if weighted else None
    if weighted:
        weights[:batch_size] = 0.0  # a batch that counts for nothing
    dataset = labelled(n, weights=weights)
    found, expected = (Network([6, 5, 3], activation="tanh", backend=backend, seed=2) for _ in range(2))
    optimizers = [xpnet.Momentum(xpnet.training.schedules.Exponential(0.3, 0.9)) for _ in range(2)]
    small = xpnet.train(found, dataset, optimizers[0], epochs=2, batch_size=batch_size, accumulate=k, seed=4)
    large = xpnet.train(expected, dataset, optimizers[1], epochs=2, batch_size=batch_size * k, seed=4)
    for pair in zip(host(found)[0] + host(found)[1], host(expected)[0] + host(expected)[1], strict=True):
        assert close(backend, *pair)
    assert optimizers[0].steps_done == optimizers[1].steps_done
    assert small[2]["train_loss"] == pytest.approx(large[2]["train_loss"], rel=1e-5)
    assert small[1]["steps"] == -(-n // min(batch_size, n))


def test_a_chunk_holds_whole_updates(float64_cpu):
    seen = []

    class Chunks(Callback):
        def on_chunk_end(self, epoch, step, loss):
            seen.append((step, optimizer.steps_done))

    network, optimizer = Network([6, 3], backend=float64_cpu), xpnet.Adam()
    xpnet.train(network, labelled(500), optimizer, epochs=1, batch_size=1, accumulate=7, callbacks=[Chunks()])
    assert seen[0] == (7, 1) and seen[-1] == (500, 72)
    assert all(step == 7 * updates for step, updates in seen[:-1])


def test_the_accumulating_program_tells_so(float64_cpu):
    network = Network([6, 3], backend=float64_cpu)
    program = network.training_program(4, SGD(), True, accumulate=3)
    assert program.phases == ("gradient", "accumulate", "update") and program.at(2).accumulate == 3
    assert "an update every 3 steps" in program.describe()
    plain = network.training_program(4, SGD(), True)
    assert plain.accumulate == 1 and plain.phases == ("gradient", "update")
    with pytest.raises(ValueError, match="accumulate is 0"):
        xpnet.train(network, labelled(), SGD(), epochs=1, accumulate=0)


# --- metrics, chunks -------------------------------------------------------------------------------------------------


def test_metrics_of_every_epoch_equal_evaluate_and_upload_nothing_anew(backend):
    validation = labelled(2100, dtype=np.uint8)  # more than two chunks
    network = Network([6, 4, 3], backend=backend, seed=1)
    metrics = ("f1", "accuracy", "top_k_accuracy")
    options = {"validation": validation, "metrics": metrics, "keep_best": False}
    history = xpnet.train(network, labelled(), SGD(), epochs=2, batch_size=5, **options)
    fields = {"epoch", "train_loss", "val_loss", "val_accuracy", "val_f1", "val_top_k_accuracy", "steps", "seconds"}
    fields |= {"bytes_uploaded", "engine"} | OF_DEVICE.get(backend.device, set())
    assert all(set(record) - {"threads"} == fields for record in history)
    final = xpnet.evaluate(network, validation, metrics)
    assert all(history[-1][f"val_{name}"] == final[name] for name in (*metrics, "loss"))
    if backend.device != "cpu":  # an order and its rates, and validation's order: predictions are made where X lies
        assert history[2]["bytes_uploaded"] == 8 * 23 + 4 * 5 + 8 * 2100


@pytest.mark.parametrize("weighted", [False, True])
def test_the_loss_of_an_epoch_has_the_same_bits_however_it_is_cut(float64_cpu, weighted):
    dataset = labelled(500, weights=np.random.default_rng(0).random(500) + 0.1 if weighted else None)

    class Cut(Callback):
        def __init__(self, steps):
            self.steps = steps

        def steps_ahead(self):
            return self.steps

    def losses(steps):
        network = Network([6, 4, 3], backend=float64_cpu)
        return xpnet.train(network, dataset, SGD(), epochs=2, batch_size=3, callbacks=[Cut(steps)]).column("train_loss")

    assert losses(None) == losses(1) == losses(7)


def test_large_weights_whose_sum_overflows_are_finite():
    network = Network([2, 1], loss="squared_error", backend=xpnet.select_backend("cpu", "float32"))
    network.parameters.flat[:2] = 3e38
    history = xpnet.train(network, Dataset(np.zeros((2, 4)), np.zeros(4)), SGD(), epochs=1)
    assert history[-1]["train_loss"] == 0.0


def test_a_class_that_is_validated_and_never_trained_on_is_said(float64_cpu):
    X, labels = np.random.default_rng(0).standard_normal((3, 40)), np.repeat([0, 1, 2], [20, 15, 5])
    data = Dataset.from_labels(X, labels)
    network = Network([3, 3], backend=float64_cpu)
    sorted_parts = data.subset(slice(0, 34)), data.subset(slice(34, None))  # as the last rows of a sorted file
    with pytest.warns(UserWarning, match="never|none of it") as found:
        xpnet.train(
            network, sorted_parts[0], SGD(), epochs=1, batch_size=8, validation=sorted_parts[1], keep_best=False
        )
    says(found[0].message, "5 samples of class 2", "have none of it", "dataset.split(0.1, stratify=True)")
    weighted = Dataset(data.X, data.Y, np.where(labels == 1, 0.0, 1.0))
    with pytest.warns(UserWarning, match="class 1"):
        xpnet.train(network, weighted, SGD(), epochs=1, batch_size=8, validation=data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        xpnet.train(network, *data.split(0.2, stratify=True)[:1], SGD(), epochs=1, validation=data)


@pytest.mark.parametrize(("n_samples", "asked", "batch"), [(99, None, 32), (20, None, 20), (99, "all", 99), (99, 7, 7)])
def test_samples_of_a_step(float64_cpu, n_samples, asked, batch):
    """32 unless something else is said, or as many as there are."""
    network, n_steps = Network([6, 3], backend=float64_cpu), -(-n_samples // batch)
    assert xpnet.train(network, labelled(n_samples), SGD(), epochs=1, batch_size=asked)[-1]["steps"] == n_steps
    assert [*xpnet.epochs(network, labelled(n_samples), SGD(), epochs=1, batch_size=asked)][-1]["steps"] == n_steps
    plans = [memory_plan(network, labelled(n_samples), SGD(), batch_size=size).items for size in (asked, batch)]
    assert plans[0] == plans[1]


def test_a_number_of_samples_that_cannot_be(float64_cpu):
    network = Network([6, 3], backend=float64_cpu)
    with refusal(ValueError, "batch_size is 'al'", "choose one of 'all'", "did you mean 'all'"):
        xpnet.train(network, labelled(), SGD(), epochs=1, batch_size="al")


class Scripted(Callback):
    """Stands in for what is measured on the validation, and says which weights each epoch had."""

    def __init__(self, losses):
        self.losses, self.weights = losses, []

    def on_measured(self, record, network):
        record["val_loss"] = self.losses[record["epoch"]]
        self.weights.append(network.owned.copy())


def test_with_a_validation_the_best_weights_are_kept(float64_cpu, tmp_path):
    network, losses = Network([6, 3], backend=float64_cpu), [3.0, 2.0, 1.0, float("nan"), 1.5]
    script, options = Scripted(losses), {"epochs": 4, "batch_size": 5, "validation": labelled(9)}
    history = xpnet.train(network, labelled(), SGD(), callbacks=[script], **options)
    assert [record.get("chosen_epoch") for record in history] == [None] * 4 + [2]
    np.testing.assert_array_equal(network.owned, script.weights[2])
    assert not np.array_equal(network.owned, script.weights[4])
    for more in (
        *({"keep_best": False}, {"callbacks": [xpnet.KeepBest("train_loss")]}, {"validation": None}),
        {"callbacks": [xpnet.StopAtScore(0.0, "val_loss")]},  # not reached
    ):
        others = [Scripted(losses), *more.pop("callbacks", [])]
        history = xpnet.train(network, labelled(), SGD(), **options | {"callbacks": others} | more)
        chosen = history[-1].get("chosen_epoch")
        assert chosen in (None, int(np.argmin(history.column("train_loss"))))
        np.testing.assert_array_equal(network.owned, others[0].weights[4 if chosen is None else chosen])
    path = tmp_path / "run.checkpoint"  # a run that goes on keeps what it had
    for epochs in (3, 4):
        network = Network([6, 3], backend=float64_cpu)
        resume = {"resume": path} if epochs == 4 else {}
        callbacks = [Scripted(losses), xpnet.Checkpoint(path, steps=1)]
        history = xpnet.train(network, labelled(), SGD(), callbacks=callbacks, **options | {"epochs": epochs} | resume)
    assert history[-1]["chosen_epoch"] == 2
    np.testing.assert_array_equal(network.owned, script.weights[2])


class Screen(io.StringIO):
    """Where progress goes; a terminal, or the stream of a notebook, if it says so."""

    def __init__(self, is_terminal):
        super().__init__()
        self.isatty = lambda: is_terminal


def test_a_line_shows_the_run_where_somebody_sees_it(float64_cpu, monkeypatch, capsys):
    notebook = type("OutStream", (Screen,), {"__module__": "ipykernel.iostream"})
    for screen, progress, is_shown in (
        (Screen(True), None, True),
        (notebook(False), None, True),
        (Screen(False), None, False),
        (Screen(True), False, False),
        (Screen(False), True, True),
        (None, None, False),
    ):
        monkeypatch.setattr("sys.stderr", screen)
        network = Network([6, 3], backend=float64_cpu)
        options = {"epochs": 3, "batch_size": 5, "validation": labelled(9), "progress": progress}
        history = xpnet.train(network, labelled(), SGD(), **options)
        text = "" if screen is None else screen.getvalue()
        assert bool(text) == is_shown
        if is_shown:
            line = text.rstrip("\n").rsplit("\r", 1)[-1]
            assert line.startswith("epoch 3/3: 100%") and f"val_accuracy {history[-1]['val_accuracy']:.4f}" in line
            assert text.endswith("\n")  # it stays
    assert capsys.readouterr() == ("", "")


class Fails(Callback):
    """Fails in one of its methods."""

    def __init__(self, method):
        setattr(self, method, lambda *_: 1 / 0)


def standing(network, optimizer):
    """All that a training changes, copied; without a network, what the optimizer has of the one it trained."""
    left = optimizer.snapshot()
    arrays = [left.state, left.keys, network.owned, network.step_keys]
    facts = [left.steps_done, left.network and left.network(), optimizer.lr, network.inputs]
    return [None if array is None else array.tobytes() for array in arrays], facts


@pytest.mark.parametrize("is_other", [False, True], ids=["the same network", "another network"])
def test_what_fails_before_the_first_epoch_is_over_leaves_all_as_before(float64_cpu, tmp_path, is_other):
    """The optimizer goes on with the network that it had, and the new samples have not been trained on."""
    made = [Network([6, 5, 3], dropout=0.2, normalization="batch", backend=float64_cpu, seed=i) for i in range(2)]
    optimizer, data, far = xpnet.Adam(ema=0.9), labelled(), Dataset(100 * labelled().X, labelled().Y)
    xpnet.train(made[0], data, optimizer, epochs=2, batch_size=8)
    averaged = optimizer.averaged(made[0]).flat.copy()
    network, path = made[is_other], tmp_path / "run"
    options = {"epochs": 2, "batch_size": 8}
    fresh = Network([6, 5, 3], dropout=0.2, normalization="batch", backend=float64_cpu)
    xpnet.train(fresh, data, xpnet.Adam(ema=0.9), **options, callbacks=[xpnet.Checkpoint(path)])
    resume = {"resume": path, "dataset": data}
    ways = {
        **{method: {"callbacks": [Fails(method)]} for method in ("on_train_begin", "on_measured", "on_epoch_end")},
        "on_pause": {"callbacks": [Fails("on_pause")]},
        "a monitor": {"callbacks": [xpnet.KeepBest("val_f1")]},
        "a folder": {"callbacks": [xpnet.HistoryFile(tmp_path / "none" / "history")]},
        "a validation": {"validation": Dataset(np.full((6, 3), 1e300), np.eye(3))},
        "on_resume": {"callbacks": [Fails("on_resume")], **resume},
        "divergence": {"dataset": Dataset(1e300 * data.X, data.Y)},
    }
    before = standing(network, optimizer), standing(made[0], optimizer)
    float32 = Network([6, 5, 3], dropout=0.2, normalization="batch")
    for name, changed in ways.items():
        trained = float32 if name == "a validation" else network
        with warnings.catch_warnings(), pytest.raises((ArithmeticError, ValueError, OSError)):
            warnings.simplefilter("ignore")
            xpnet.train(trained, optimizer=optimizer, **{"dataset": far, **options, **changed})
        assert (standing(network, optimizer), standing(made[0], optimizer)) == before, name
        np.testing.assert_array_equal(optimizer.averaged(made[0]).flat, averaged)
    begun = xpnet.epochs(network, far, optimizer, **options)
    next(begun)
    begun.close()
    with pytest.raises(ValueError, match="BatchNorm"):
        xpnet.step(network, optimizer, far.X[:, :1], far.Y[:, :1].astype(float))
    assert (standing(network, optimizer), standing(made[0], optimizer)) == before
