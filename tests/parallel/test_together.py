"""Several processes that train together, as threads of this one: who decides, who follows, and what ends them all."""

from __future__ import annotations

import threading
import warnings
from itertools import pairwise

import mpi_cases
import numpy as np
import pytest
from ranks import Aborted, Ranks
from refusals import refusal, says

import xpnet
from xpnet.data import feed
from xpnet.data.parts import JoinedRows
from xpnet.engines.replay import EpochsInTurn
from xpnet.parallel.communicator import Single, communicator
from xpnet.tables import arrays
from xpnet.training import ahead
from xpnet.training.memory_plan import memory_plan
from xpnet.training.options import TrainOptions
from xpnet.training.others import SHARED, RankFailed

OPTIONS = {"batch_size": 20, "engine": "replay", "reduction": "fixed", "epochs": 2}


def noisy(seed=3, dtype="float64"):
    layers = (xpnet.BatchNorm(7), xpnet.Activation("relu"), xpnet.Dropout(0.3))
    return xpnet.Network(
        [xpnet.Dense(6, 7, bias=None), *layers, xpnet.Dense(7, 3)],
        loss="softmax_cross_entropy",
        device="cpu",
        dtype=dtype,
        seed=seed,
    )


def train(comm, model=None, optimizer=None, dataset=None, **options):
    model, optimizer = model or noisy(), optimizer or xpnet.Adam(0.02)
    history = xpnet.train(model, dataset or mpi_cases.data(n=52), optimizer, communicator=comm, **OPTIONS | options)
    return bytes_of(model, optimizer), [{**record, "seconds": 0} for record in history]


def bytes_of(model, optimizer):
    snapshot = optimizer.snapshot()
    return model.owned.tobytes(), snapshot.state.tobytes(), snapshot.keys.tobytes(), optimizer.steps_done, optimizer.lr


@pytest.mark.parametrize("n", [2, 3])
def test_all_ranks_end_with_what_one_process_makes(n):
    alone = train(None)
    assert Ranks(n).run(train) == [alone] * n
    assert Ranks(n).run(lambda comm: train(comm, noisy(seed=3 + comm.rank)))[1] == alone, "weights come from rank 0"


def test_a_step_by_shards_is_the_step_of_the_whole_batch():
    """Masks are those of the batch and the mean is over all samples: only the order of sums differs."""
    layers = [xpnet.Dense(6, 7), xpnet.Activation("tanh"), xpnet.Dropout(0.4), xpnet.Dense(7, 3)]
    found = []
    for reduction in (None, "fixed"):
        model = xpnet.Network(layers, loss="softmax_cross_entropy", device="cpu", dtype="float64", seed=3)
        optimizer = xpnet.Adam(0.02, l2_summed=0.1, clip_norm=1.0)
        _, history = train(None, model, optimizer, mpi_cases.data(weighted=True), reduction=reduction, accumulate=2)
        found.append((model.owned, [record["train_loss"] for record in history]))
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)
    assert found[0][0].tobytes() != found[1][0].tobytes()


def test_running_statistics_are_the_mean_over_the_shards():
    X = np.random.default_rng(0).normal(size=(6, 20))
    model = noisy()
    before, W = model.owned.copy(), model.owned[:42].reshape(7, 6).copy()
    xpnet.train(
        model,
        xpnet.Dataset.from_labels(X, np.arange(20) % 3),
        xpnet.SGD(1e-9),
        shuffle=False,
        **OPTIONS | {"epochs": 1},
    )
    shards = [(W @ X)[:, start : start + 3] for start in range(0, 20, 3)]
    sizes = [part.shape[1] for part in shards]
    mean = np.average([part.mean(axis=1) for part in shards], axis=0, weights=sizes)
    variance = np.average([part.var(axis=1, ddof=1) for part in shards], axis=0, weights=sizes)
    start = model.parameters.layout.size
    statistics = [*model.owned[start:][:7], *model.owned[start + 64 :][:7]]
    np.testing.assert_allclose(statistics, [*(0.1 * mean), *(0.9 + 0.1 * variance)], rtol=1e-9)
    assert not np.array_equal(before, model.owned)


def test_samples_without_a_whole_shard_are_left_out():
    with pytest.warns(UserWarning, match="leaves out 1 of the 25 samples"):
        _, history = train(None, dataset=mpi_cases.data(n=25), batch_size=21)  # the last step: shards of 3 and of 1
    assert history[-1]["steps"] == 2


def test_rank_0_alone_measures_decides_and_calls_back():
    class Turn(xpnet.Callback):
        """Changes network and rate while they train, and ends the training."""

        def __init__(self, model, optimizer):
            self.model, self.optimizer, self.calls = model, optimizer, 0

        def on_epoch_end(self, record, network):
            self.calls += 1
            self.model.owned[:5] = self.calls
            self.optimizer.lr = 0.02 / self.calls

        def on_chunk_end(self, epoch, step, loss):
            return "enough" if epoch == 3 else None

    def work(comm):
        model, optimizer = noisy(), xpnet.Adam(0.02)
        turn = Turn(model, optimizer)
        found = train(comm, model, optimizer, callbacks=[turn], epochs=9, validation=mpi_cases.data(n=9))
        return found, turn.calls

    alone, calls = work(None)
    assert alone[1][-1]["stopped"] == "enough" and "val_loss" in alone[1][-1] and calls == 4
    assert Ranks(2).run(work) == [(alone, 4), (alone, 0)]


@pytest.mark.parametrize("lr", [0.02, 1e30])
@pytest.mark.parametrize("validation", [None, mpi_cases.data(n=19)])
def test_epochs_are_run_ahead_of_their_records_on_all_ranks(lr, validation, monkeypatch):
    monkeypatch.setattr(ahead, "CALL_SECONDS", 60)
    counted, run = [], EpochsInTurn.run
    monkeypatch.setattr(EpochsInTurn, "run", lambda *given: counted.append(len(given[1])) or run(*given))

    def work(comm, is_alone=True, leave=None):
        model, optimizer, found = noisy(), xpnet.SGD(lr), []
        options = OPTIONS | {"epochs": 9, "validation": validation, "communicator": comm, "is_alone": is_alone}
        try:
            for record in xpnet.epochs(model, mpi_cases.data(n=52), optimizer, **options):
                found.append(repr({**record, "seconds": 0}))  # in which NaN is NaN
                if record["epoch"] == leave:
                    break
        except xpnet.TrainingDiverged as error:
            found.append(str(error))
        return bytes_of(model, optimizer), found

    with np.errstate(all="ignore"):
        for leave in (None, 4):
            one_by_one = work(None, is_alone=False, leave=leave)
            assert not counted
            assert Ranks(2).run(lambda comm, leave=leave: work(comm, leave=leave)) == [one_by_one] * 2
            assert max(counted) > 1
            counted.clear()
    assert ("lower the learning rate" in one_by_one[1][-1]) == (lr > 1)


def test_a_generator_that_is_left_lets_the_others_go():
    def work(comm):
        model, optimizer = noisy(), xpnet.Adam(0.02)
        options = OPTIONS | {"epochs": 9, "communicator": comm}
        for record in xpnet.epochs(model, mpi_cases.data(n=52), optimizer, **options):
            if record["epoch"] == 2:
                break
        return bytes_of(model, optimizer)

    first, second = Ranks(2).run(work)
    assert first == second and first[3] == 2 * 3


def test_a_divergence_is_one_on_every_rank():
    def work(comm):
        model, optimizer = noisy(), xpnet.SGD(1e200)
        with pytest.raises(xpnet.TrainingDiverged) as error:
            train(comm, model, optimizer)
        return str(error.value), model.owned.tobytes(), error.value.__notes__

    (text, owned, notes), second = Ranks(2).run(work)
    assert (text, owned, notes) == second and notes == [SHARED] and owned == noisy().owned.tobytes()


def test_what_fails_on_rank_0_between_steps_ends_all_with_its_cause():
    class Full(xpnet.Callback):
        def on_epoch_end(self, record, network):
            raise OSError(28, "No space left on device")

    full, other = Ranks(2).run(lambda comm: train(comm, callbacks=[Full()]))
    assert isinstance(full, OSError) and isinstance(other, RankFailed)
    assert str(other) == "rank 0: [Errno 28] No space left on device"


@pytest.mark.parametrize("rank", [0, 1])
def test_what_fails_within_a_step_aborts_all(rank, monkeypatch):
    from xpnet.engines.sharded import StepsOfShards

    run = StepsOfShards.run

    def fail(self, *given):
        if self._shards.first == 4 * rank:
            raise MemoryError("no more memory")
        return run(self, *given)

    monkeypatch.setattr(StepsOfShards, "run", fail)
    ranks = Ranks(2)
    assert all(isinstance(error, Aborted) for error in ranks.run(train))
    assert ranks.lines[0] == f"rank {rank}: no more memory"


def test_ranks_must_agree():
    def other(name):
        def work(comm):
            is_other = comm.rank == 1
            options = {"seed": {"seed": 5}, "batch": {"batch_size": 24}}.get(name, {}) if is_other else {}
            dataset = mpi_cases.data(n=49 if name == "shape" and is_other else 52)
            if name == "data" and is_other:
                dataset = xpnet.Dataset(np.asarray(dataset.X) + 1, dataset.Y)
            optimizer = xpnet.SGD(0.1) if name == "rule" and is_other else xpnet.Adam(0.02)
            sizes = [6, 5, 3] if name == "network" and is_other else [6, 7, 3]
            model = xpnet.Network(sizes, loss="softmax_cross_entropy", device="cpu")
            return train(comm, model, optimizer=optimizer, dataset=dataset, **options)

        first, second = Ranks(2).run(work)
        assert isinstance(first, RankFailed) and isinstance(second, RankFailed) and str(first) == str(second)
        return first

    says(other("seed"), "rank 1 has seed 5", "rank 0 has 0", "start them with equal data")
    assert "rank 1 has batch_size 24, and rank 0 has 20" in str(other("batch"))
    assert "rank 1 has n_samples 49, and rank 0 has 52" in str(other("shape"))
    assert "rank 1 has data" in str(other("data"))
    assert "rank 1 has optimizer SGD" in str(other("rule"))
    assert "rank 1 has network 6-5-3" in str(other("network"))


def test_what_one_rank_refuses_ends_the_others_too():
    def work(comm):
        with warnings.catch_warnings():
            return train(comm, epochs=2, batch_size=2 if comm.rank else 20)

    first, second = Ranks(3).run(work)[:2]
    assert isinstance(first, RankFailed) and str(first).startswith("rank 1: 3 processes train together")
    assert isinstance(second, ValueError) and second.__notes__ == [SHARED]


def test_steps_that_cannot_be_cut_are_refused():
    with refusal(ValueError, "a shard of 1", "needs 2 or more", "take batch_size=16"):
        train(None, batch_size=8)
    with refusal(ValueError, "a shard of 1", "needs 2 or more", "take batch_size=32"):
        train(None, batch_size=25)  # six of 4
    with refusal(ValueError, "threads is 2", "one thread each", "mpiexec -n 2"):
        train(None, threads=2)
    with refusal(ValueError, "reduction", "fixed", "fast"):
        train(None, reduction="tree")
    with refusal(ValueError, "communicator", "single", "mpi"):
        communicator("sockets")


def test_fast_is_plain_training_for_one_process():
    assert train(None, reduction="fast") == train(None, reduction=None) == train(Single(), reduction=None)
    fast = Ranks(2).run(lambda comm: train(comm, reduction="fast"))
    assert fast[0] == fast[1] != train(None)


def test_a_checkpoint_of_another_reduction_is_refused(tmp_path):
    path = tmp_path / "run.safetensors"
    train(None, callbacks=[xpnet.Checkpoint(path)])
    with refusal(ValueError, "a run with reduction fixed, this one has reduction None", "pass what that run had"):
        train(None, reduction=None, resume=path, epochs=3)


CUTS = {"one file": [0, 130], "three files": [0, 37, 38, 130]}


@pytest.mark.parametrize("files", CUTS)
def test_mapped_files_are_read_only_where_the_samples_of_a_rank_lie(files, tmp_path, monkeypatch):
    monkeypatch.setattr(arrays, "POOL_BYTES", 0)
    monkeypatch.setattr(feed, "BLOCK_BYTES", 20 * 36)
    monkeypatch.setattr(feed, "POOL_BYTES", 3 * 20 * 36)
    rows = np.random.default_rng(1).normal(size=(130, 6)).astype(np.float32)
    labels, read, looked_at = np.arange(130) % 3, {}, {}
    for start, end in pairwise(CUTS[files]):
        np.save(tmp_path / f"X-{start:03}.npy", rows[start:end])
        np.save(tmp_path / f"y-{start:03}.npy", labels[start:end])
    read_rows, get = feed.Blocks._load, JoinedRows.__getitem__

    def looked(self, chosen):
        found = get(self, chosen)
        looked_at[threading.get_ident()] += len(found)
        return found

    def counted(self, samples, places):
        count = samples.stop - samples.start if isinstance(samples, slice) else len(samples)
        read[threading.get_ident()] += count
        read_rows(self, samples, places)

    monkeypatch.setattr(feed.Blocks, "_load", counted)
    monkeypatch.setattr(JoinedRows, "__getitem__", looked)

    def work(comm):
        read[threading.get_ident()] = looked_at[threading.get_ident()] = 0
        dataset = xpnet.load_rows(f"{tmp_path}/", communicator=comm)
        n_looked = looked_at[threading.get_ident()]
        model = xpnet.Network([6, 7, 3], loss="softmax_cross_entropy", device="cpu", seed=3)
        found = train(comm, model, xpnet.Adam(0.02), dataset, epochs=3)
        return found, read[threading.get_ident()], n_looked

    alone, n_alone, _ = work(None)
    (first, n_first, *looked_first), (second, n_second, *looked_second) = Ranks(2).run(work)
    assert first == second == alone
    assert looked_first == looked_second == [65], "each looks for NaN in its half"
    # Process 0 measures the untrained network on all samples; steps of 20 and the last of 10 are cut in shards of 3.
    assert (n_alone, n_first, n_second) == (4 * 130, 130 + 3 * (6 * 12 + 10), 3 * 6 * 8)


def test_of_a_pool_of_blocks_a_rank_holds_its_samples(tmp_path, monkeypatch):
    monkeypatch.setattr(feed, "BLOCK_BYTES", 20 * 36)
    monkeypatch.setattr(feed, "POOL_BYTES", 3 * 20 * 36)
    np.save(tmp_path / "X.npy", np.zeros((130, 6), np.float32))
    dataset = xpnet.Dataset.from_labels(np.load(tmp_path / "X.npy", mmap_mode="r").T, np.arange(130) % 3)

    def held(comm):
        reduction = TrainOptions(1, communicator=comm, reduction="fixed").adding
        model, shards = noisy(dtype="float32"), reduction.shards(20)
        plan = {
            item.name: item.nbytes
            for item in memory_plan(model, dataset, xpnet.Adam(), batch_size=20, reduction=reduction).items
        }
        fed = feed.feed_of(dataset, model.backend, 20, shards).sources["X"][0]
        assert plan["training X, to gather from"] == fed.nbytes
        return len(fed), "record 0 X, to gather from" in plan

    assert held(None) == (60, False)
    assert Ranks(2).run(held) == [(3 * 12, True), (3 * 8, False)], "rank 0 measures on all samples besides"


def test_what_one_rank_cannot_load_ends_the_others_too(tmp_path):
    np.save(tmp_path / "X.npy", np.full((30, 6), np.nan, np.float32))
    np.save(tmp_path / "y.npy", np.arange(30) % 3)

    def work(comm):
        names = (f"{tmp_path}/X.npy", f"{tmp_path}/y.npy") if comm.rank else (f"{tmp_path}/gone.npy", "y.npy")
        return xpnet.load_rows(*names, communicator=comm)

    first, second = Ranks(2).run(work)
    assert isinstance(first, FileNotFoundError) and "gone.npy" in str(first)
    assert isinstance(second, ValueError) and "X.npy and" in str(second) and "180 values that are NaN" in str(second)

    def other(comm):
        return xpnet.load_rows(f"{tmp_path}/{'X' if comm.rank else 'gone'}.npy", f"{tmp_path}/y.npy", communicator=comm)

    np.save(tmp_path / "X.npy", np.zeros((30, 6), np.float32))
    second = Ranks(2).run(other)[1]
    says(second, "rank 0: there is no file", "gone.npy", "write one with np.save(path, rows)")


def test_the_memory_plan_is_that_of_a_rank():
    def items(comm, reduction="fixed"):
        adding = TrainOptions(1, communicator=comm, reduction=reduction).adding
        plan = memory_plan(noisy(), mpi_cases.data(n=52), xpnet.Adam(), batch_size=40, reduction=adding).items
        return {item.name: item.nbytes for item in plan}

    whole, alone = items(None, None), items(None)
    assert "messages" not in whole and sum(alone.values()) - alone["messages"] < sum(whole.values())
    half = Ranks(2).run(items)[1]
    assert half["messages"] == 5 / 8 * alone["messages"], "four shards, and what the other rank sends"
