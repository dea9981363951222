"""Several epochs by one call of the engine: the same bits as one epoch after the other, wherever one looks."""

from __future__ import annotations

import numpy as np
import pytest
from refusals import says

import xpnet
import xpnet.training.ahead as ahead_of
from xpnet import Adam, Callback, Dataset, EarlyStopping, Momentum, Network, TrainingDiverged
from xpnet.engines.llvm import epochs as native_epochs
from xpnet.engines.replay import EpochsInTurn
from xpnet.training.callbacks import Budget, ReduceOnPlateau
from xpnet.training.checkpoint import Checkpoint

SIZES, N, BATCH, N_EPOCHS = (4, 12, 3), 70, 32, 40


class Sees(Callback):
    """Keeps the weights at the end of each epoch."""

    def __init__(self, only_watches=True):
        self.only_watches, self.seen = only_watches, []

    def on_epoch_end(self, record, network):
        self.seen.append(network.owned.copy())


@pytest.fixture
def calls(monkeypatch):
    """Counts the epochs of each call that runs several."""
    counted, run = [], native_epochs.Epochs.run

    def counting(self, orders, rows_in, copies=True):
        counted.append(len(orders))
        return run(self, orders, rows_in, copies)

    monkeypatch.setattr(native_epochs.Epochs, "run", counting)
    return counted


@pytest.fixture
def replayed(monkeypatch):
    """Counts the epochs of each call that replays several."""
    counted, run = [], EpochsInTurn.run
    monkeypatch.setattr(EpochsInTurn, "run", lambda *given: counted.append(len(given[1])) or run(*given))
    return counted


def labelled(n=N, seed=3, weights=None):
    rng = np.random.default_rng(seed)
    return Dataset.from_labels(rng.random((SIZES[0], n)), rng.integers(0, SIZES[-1], n), SIZES[-1], weights)


def trained(make, ahead, *, dataset=None, network=None, callbacks=(), **options):
    """Return records without their times, the weights epoch by epoch, network and optimizer."""
    optimizer, sees = make(), Sees(ahead)
    net = Network(SIZES, loss="softmax_cross_entropy", seed=5, device="cpu", **network or {})
    options = {"epochs": N_EPOCHS, "batch_size": BATCH, "engine": "compiled", "progress": False} | options
    history = xpnet.train(net, dataset or labelled(), optimizer, callbacks=[*callbacks, sees], **options)
    for record in history:
        assert record.pop("seconds") >= 0
    return history, sees.seen, net, optimizer


def same(first, second):
    (records, seen, network, optimizer), (others, seen_of, network_of, optimizer_of) = first, second
    assert records == others
    np.testing.assert_array_equal(seen, seen_of)
    np.testing.assert_array_equal(network.owned, network_of.owned)
    state, state_of = optimizer.snapshot(), optimizer_of.snapshot()
    assert state.steps_done == state_of.steps_done
    np.testing.assert_array_equal(state.state, state_of.state)
    np.testing.assert_array_equal(state.keys, state_of.keys)


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (lambda: Momentum(0.1), {}),
        pytest.param(lambda: Momentum(0.1), {"validation": labelled(20, 9)}, marks=pytest.mark.full),
        pytest.param(lambda: Momentum(0.1), {"batch_size": "all", "shuffle": False}, marks=pytest.mark.full),
        pytest.param(
            lambda: Adam(0.01, ema=0.9, clip_norm=1.0, l2_summed=0.1),
            {"accumulate": 2, "validation": labelled(20, 9)},
            marks=pytest.mark.full,
        ),
        pytest.param(
            lambda: Adam(xpnet.schedules.Cosine(0.01, 100)),
            {"network": {"dropout": 0.2, "normalization": "batch"}, "validation": labelled(20, 9)},
            marks=pytest.mark.full,
        ),
        pytest.param(lambda: Adam(0.01), {"validation": labelled(20, 9), "metrics": ("f1",)}, marks=pytest.mark.full),
        (lambda: Adam(0.05), {"validation": labelled(20, 9), "callbacks": (EarlyStopping(3),)}),
        pytest.param(
            lambda: Adam(0.01),
            {"dataset": labelled(weights=np.arange(1, N + 1)), "callbacks": (Budget(steps=100),)},
            marks=pytest.mark.full,
        ),
    ],
    ids=["plain", "validated", "full batch", "accumulated", "normalised", "metrics", "early stop", "weighted, budget"],
)
def test_epochs_ahead_of_their_records_have_the_same_bits(calls, make, options):
    first = trained(make, True, **options)
    assert max(calls) > 1
    n_calls = len(calls)
    same(first, trained(make, False, **options))
    assert len(calls) == n_calls  # a callback that may change the network has each epoch by itself


@pytest.mark.parametrize(
    "options",
    [
        {"accumulate": 2, "validation": labelled(20, 9), "metrics": ("f1",)},
        {"network": {"dropout": 0.2, "normalization": "batch"}, "dataset": labelled(weights=np.arange(1, N + 1))},
    ],
    ids=["accumulated, validated", "normalised, weighted"],
)
def test_replayed_epochs_ahead_have_the_same_bits(replayed, monkeypatch, options):
    monkeypatch.setattr(ahead_of, "CALL_SECONDS", 1e9)  # on a busy machine too
    options |= {"engine": "replay", "epochs": 12}
    first = trained(lambda: Adam(xpnet.schedules.Cosine(0.01, 30)), True, **options)
    assert replayed == [8, 4]  # the time of an epoch is guessed at first
    same(first, trained(lambda: Adam(xpnet.schedules.Cosine(0.01, 30)), False, **options))
    assert len(replayed) == 2


@pytest.mark.parametrize("threads", [pytest.param(1, marks=pytest.mark.full), 2])
def test_threads_wait_for_each_other_between_epochs(calls, monkeypatch, threads):
    from xpnet.engines import choice

    monkeypatch.setattr(choice, "threads_for", lambda *counts: threads)
    options = {"validation": labelled(50, 9), "epochs": 12}
    first, second = (trained(lambda: Adam(0.01), ahead, **options) for ahead in (True, False))
    assert max(calls) > 1 and {record["threads"] for record in first[0]} == {threads}
    same(first, second)


def test_a_run_of_many_epochs_takes_few_calls(calls):
    trained(lambda: Momentum(0.01), True, epochs=600)
    assert sum(calls) > 590 and len(calls) < 60


def test_the_weights_of_the_epoch_before_come_back_when_a_later_one_diverges():
    """A rate that jumps to infinity in epoch 8: three steps an epoch, 22 of them good."""

    class Jump(xpnet.schedules.Schedule):
        def values(self, start, n_steps):
            steps = np.arange(start, start + n_steps)
            return np.where(steps < 22, 0.01, np.inf)

    runs = []
    for callbacks in ([Sees(True)], [Sees(False)], []):  # without any, the weights of an epoch are not even copied
        net = Network(SIZES, loss="softmax_cross_entropy", seed=5, device="cpu")
        optimizer = Momentum(Jump())
        with pytest.raises(TrainingDiverged) as error:
            xpnet.train(
                net,
                labelled(),
                optimizer,
                epochs=N_EPOCHS,
                batch_size=BATCH,
                engine="compiled",
                progress=False,
                callbacks=callbacks,
            )
        says(error, "epoch 8", "lower the learning rate")
        assert optimizer.steps_done == 21
        for sees in callbacks:
            assert len(sees.seen) == 8
            np.testing.assert_array_equal(net.owned, sees.seen[-1])
        runs.append((str(error.value), net.owned.copy()))
    for message, weights in runs[1:]:
        assert message == runs[0][0]
        np.testing.assert_array_equal(weights, runs[0][1])


@pytest.mark.parametrize("n_left", [1, 5, N_EPOCHS])
def test_without_callbacks_the_weights_are_those_of_the_last_record_too(calls, n_left):
    """Whether the caller takes all records, or closes the generator amid the epochs of a call."""
    seen = trained(lambda: Adam(0.01), True, network={"dropout": 0.2})
    net, optimizer = Network(SIZES, loss="softmax_cross_entropy", seed=5, device="cpu", dropout=0.2), Adam(0.01)
    options = {"epochs": N_EPOCHS, "batch_size": BATCH, "engine": "compiled", "is_alone": True}
    calls.clear()
    records = xpnet.epochs(net, labelled(), optimizer, **options)
    losses = [next(records)["train_loss"] for _ in range(1 + n_left)]
    records.close()
    assert losses == [record["train_loss"] for record in seen[0]][: 1 + n_left]
    np.testing.assert_array_equal(net.owned, seen[1][n_left])
    assert optimizer.steps_done == 3 * n_left
    if n_left == N_EPOCHS:
        assert sum(calls) == N_EPOCHS  # none is run twice
        np.testing.assert_array_equal(optimizer.snapshot().state, seen[3].snapshot().state)


def test_a_checkpoint_in_the_middle_of_a_call_resumes_to_the_same_bits(tmp_path, calls):
    path = tmp_path / "run.safetensors"

    class Stops(Callback):
        only_watches = True

        def on_pause(self, moment):
            if (now := moment()).progress.epoch == 14:
                xpnet.training.checkpoint.save_checkpoint(path, now)
                raise KeyboardInterrupt

    options = {"validation": labelled(20, 9)}
    whole = trained(lambda: Adam(0.01), True, **options)
    with pytest.raises(KeyboardInterrupt):
        trained(lambda: Adam(0.01), True, callbacks=[Stops()], **options)
    resumed = trained(lambda: Adam(0.01), True, resume=path, **options)
    assert max(calls) > 1
    assert whole[0] == resumed[0]
    np.testing.assert_array_equal(whole[2].owned, resumed[2].owned)


def test_the_generator_runs_no_epoch_before_it_is_asked_for(calls):
    """Between two records its caller may change the network."""
    net = Network(SIZES, loss="softmax_cross_entropy", device="cpu")
    records = xpnet.epochs(net, labelled(), Momentum(0.1), epochs=10, engine="compiled")
    for record in records:
        before = net.owned.copy()
        net.owned[...] = before
        assert record["epoch"] <= 10
    assert calls == []


def test_callbacks_that_change_a_run_have_each_epoch_by_itself(calls):
    optimizer = Momentum(0.1)
    trained(lambda: optimizer, True, callbacks=[ReduceOnPlateau(optimizer, patience=1)])
    assert calls == []


def test_the_callbacks_of_the_package_that_only_watch():
    watching = {xpnet.Budget, Checkpoint, EarlyStopping, xpnet.HistoryFile, xpnet.KeepBest, xpnet.StopAtScore}
    assert all(kind.only_watches for kind in watching)
    assert not Callback.only_watches and not ReduceOnPlateau.only_watches


def test_a_budget_of_seconds_keeps_the_weights_of_its_last_record():
    history, seen, network, _ = trained(lambda: Momentum(0.01), True, epochs=10**6, callbacks=[Budget(seconds=0.3)])
    assert history[-1]["stopped"] == "budget of 0.3 s" and len(history) < 10**5
    np.testing.assert_array_equal(network.owned, seen[-1])


def test_few_epochs_are_run_in_vain_before_an_early_stop(replayed, monkeypatch):
    monkeypatch.setattr(ahead_of, "CALL_SECONDS", 1e9)  # of which as many would fit into a call
    stops = EarlyStopping(5, "train_loss", min_delta=0.005)
    history, *_ = trained(lambda: Adam(0.01), True, engine="replay", epochs=400, callbacks=[stops])
    n_epochs = history[-1]["epoch"]
    assert "stopped" in history[-1] and n_epochs > 8 and n_epochs <= 1 + sum(replayed) < n_epochs + 4
