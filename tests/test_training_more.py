"""To append to tests/test_training.py, whose `labelled` and `host` it uses."""

from __future__ import annotations

import fakecupy
import numpy as np
import pytest
from test_training import close, host, labelled

import xpnet
from xpnet import SGD, Callback, Dataset, Network, TrainingDiverged


def without_seconds(history):
    return [{key: value for key, value in record.items() if key != "seconds"} for record in history]


def test_records_hold_these_fields_and_repeat_bit_by_bit(backend):
    def run(**keywords):
        network = Network([6, 4, 3], backend=backend, seed=1)
        history = xpnet.train(network, labelled(), SGD(), epochs=3, batch_size=4, **keywords)
        return without_seconds(history), backend.to_host(network.parameters.flat)

    plain, theta = run(seed=5)
    assert all(set(record) == {"epoch", "train_loss", "steps", "bytes_uploaded"} for record in plain)
    judged, theta_judged = run(seed=5, validation=labelled(8))
    assert set(judged[0]) == {"epoch", "train_loss", "steps", "bytes_uploaded", "val_loss", "val_accuracy"}
    assert judged == run(seed=5, validation=labelled(8))[0]
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
    text = str(error.value)
    assert f"at step {len(losses)} of epoch 1" in text and f"last finite: {losses[-2]:.6g}" in text
    assert "lower the learning rate (it is 5)" in text and "xpnet.standardize" in text


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
    with pytest.raises(TypeError, match=r"callbacks is .*needed is.*\["):
        xpnet.epochs(Network([6, 3], backend=float64_cpu), labelled(), SGD(), epochs=1, callbacks=given)


def test_history_column():
    history = xpnet.History([{"epoch": 0, "train_loss": 2.0}, {"epoch": 1, "train_loss": 1.0}])
    assert history.column("train_loss") == [2.0, 1.0]
    with pytest.raises(KeyError, match="val_loss"):
        history.column("val_loss")


def test_uint8_data_stay_uint8_on_the_way_to_the_gpu(fake_gpu):
    network = Network([6, 3], backend=fake_gpu)
    history = xpnet.train(network, labelled(23, dtype=np.uint8), SGD(), epochs=1, batch_size=5)
    assert history[0]["bytes_uploaded"] == 6 * 23 + 4 * 3 * 23 + 8 * 23  # a byte a feature, then targets and an order
    assert fakecupy.counts.upload_bytes >= sum(history.column("bytes_uploaded"))


def test_a_validation_set_of_other_features_is_refused(float64_cpu):
    with pytest.raises(ValueError, match=r"validation has 5 features, the network expects 6"):
        xpnet.epochs(Network([6, 3], backend=float64_cpu), labelled(), SGD(), epochs=1,
                     validation=labelled(n_features=5))  # fmt: skip
