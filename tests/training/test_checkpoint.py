"""A run that stops at any step and goes on from its checkpoint ends bit-equal to one that never stopped."""

from __future__ import annotations

import json
from itertools import pairwise

import fakecupy
import numpy as np
import pytest
from refusals import refusal, says
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import xpnet
from xpnet import (
    SGD,
    Adam,
    Budget,
    Callback,
    Checkpoint,
    Dataset,
    EarlyStopping,
    HistoryFile,
    Momentum,
    NAdam,
    Network,
    ReduceOnPlateau,
    TrainingDiverged,
)
from xpnet.data import feed
from xpnet.training.checkpoint import load_checkpoint, save_checkpoint
from xpnet.training.records import Moment, Progress, read_history
from xpnet.training.schedules import Cosine, Schedule, WarmUp


class Killed(BaseException):
    """The process ends here."""


class Kill(Callback):
    """Ends the run at its n-th pause, one a step; keeps a checkpoint of that moment if `path` is given."""

    def __init__(self, n, path=None):
        self.n, self.path = n, path

    def steps_ahead(self):
        return 1

    def on_pause(self, moment):
        self.n -= 1
        if self.n < 0:
            if self.path is not None:
                save_checkpoint(self.path, moment())
            raise Killed


def labelled(n, n_features=6, weighted=False):
    rng = np.random.default_rng(n)
    weights = rng.random(n) + 0.1 if weighted else None
    return Dataset.from_labels(rng.random((n_features, n)), rng.integers(0, 3, n), 3, weights)


class Run:
    """One training, by the same arguments each time."""

    def __init__(self, backend, dataset=None, optimizer=lambda: Adam(0.01, ema=0.9), **options):
        self.backend, self.dataset, self.optimizer = backend, dataset or labelled(62), optimizer
        self.options = {
            "batch_size": 5,
            "epochs": 4,
            "seed": 3,
            "accumulate": 2,
            "validation": labelled(30),
            "metrics": ("f1",),
        } | options

    def __call__(self, *more, resume=None, **options):
        network = Network([6, 7, 3], normalization="batch", dropout=0.3, backend=self.backend, seed=1)
        optimizer = self.optimizer()
        callbacks = [EarlyStopping(3), *more]
        if not isinstance(optimizer.schedule, Cosine):
            callbacks.append(ReduceOnPlateau(optimizer, patience=0, factor=0.5))
        # told of last: whatever it stands before has been done
        callbacks.sort(key=lambda callback: isinstance(callback, Kill))
        history = xpnet.train(
            network, self.dataset, optimizer, callbacks=callbacks, resume=resume, **(self.options | options)
        )
        return self.told(network, optimizer, history)

    def told(self, network, optimizer, history):
        host = self.backend.to_host
        records = [{k: v for k, v in record.items() if k not in ("seconds", "bytes_uploaded")} for record in history]
        averaged = host(optimizer.averaged(network).flat).tobytes() if optimizer.ema else b""
        return records, host(network.owned).tobytes(), averaged, optimizer.lr, optimizer.steps_done

    def killed(self, path, n):
        with pytest.raises(Killed):
            self(Kill(n, path))


@pytest.mark.in_turn(
    options=[
        {},
        {"accumulate": 1, "batch_size": 7},
        {"dataset": labelled(62, weighted=True)},
        {"shuffle": False},
        {"optimizer": lambda: NAdam(Cosine(0.02, 40), clip_norm=1.0)},
        {"optimizer": lambda: SGD(0.05)},
    ]
)
def test_from_every_step_to_the_same_bits(backend, tmp_path, options):
    run, path = Run(backend, **options), tmp_path / "run.safetensors"
    whole, seen = run(), set()
    n_steps = -(-62 // run.options["batch_size"])
    n_pauses = (len(whole[0]) - 1) * (-(-n_steps // run.options["accumulate"]) + 1) + 1
    for n in range(0, n_pauses, 11):
        run.killed(path, n)
        progress = load_checkpoint(path).progress
        seen.add((progress.epoch, progress.step))
        assert run(resume=path) == whole, progress
    assert len(whole[0]) >= 4 and len(seen) >= 3 and any(step for _, step in seen)


@pytest.mark.in_turn(steps=[(1, 3), (7, 16), (20, 21), (22, 30)])
def test_a_mapped_file_goes_on_within_a_pool(backend, steps, tmp_path, monkeypatch):
    monkeypatch.setattr(feed, "BLOCK_BYTES", 10 * 36)
    monkeypatch.setattr(feed, "POOL_BYTES", 2 * 10 * 36)
    rng = np.random.default_rng(0)
    np.save(tmp_path / "rows.npy", rng.random((101, 6), dtype=np.float32))  # a last step of one sample is left out
    rows = np.load(tmp_path / "rows.npy", mmap_mode="r")
    run = Run(backend, Dataset.from_labels(rows.T, rng.integers(0, 3, 101), 3), epochs=2, accumulate=1)
    with pytest.warns(UserWarning, match="leaves out 1 of the 101"):
        whole = run()
        for n in steps:
            run.killed(tmp_path / "c", n)
            assert run(resume=tmp_path / "c") == whole


def test_a_pool_that_is_over_is_not_read_again(tmp_path, monkeypatch):
    monkeypatch.setattr(feed, "BLOCK_BYTES", 10 * 36)
    monkeypatch.setattr(feed, "POOL_BYTES", 2 * 10 * 36)
    np.save(tmp_path / "rows.npy", np.random.default_rng(0).random((101, 6), dtype=np.float32))
    rows = np.load(tmp_path / "rows.npy", mmap_mode="r")
    blocks = feed.Blocks(Dataset(rows.T, np.arange(101.0)), xpnet.select_backend("cpu", "float32"), 5)
    loads = []
    load = blocks.load
    monkeypatch.setattr(blocks, "load", lambda *pool: loads.append(len(pool[0])) or load(*pool))

    def numbers(skip):
        rng = np.random.default_rng(7)
        found = [blocks.sources["Y"][0][order, 0].copy() for order in blocks.parts(rng, skip)]
        return np.concatenate(found) if found else np.empty(0), rng.bit_generator.state

    every, state = numbers(0)
    n_pools = len(loads)
    assert n_pools >= 4 and sorted(every) == list(range(101))
    for skip in (5, 20, 45, 100, 101):
        loads.clear()
        rest, after = numbers(skip)
        np.testing.assert_array_equal(rest, every[skip:])
        assert after == state and len(loads) < n_pools + (skip < 20)
    assert loads == []


def test_on_a_gpu_a_checkpoint_adds_nothing_to_a_step(fake_gpu, tmp_path):
    counted = []

    class Count(Callback):
        def on_chunk_end(self, epoch, step, loss):
            counts = fakecupy.counts
            counted.append((step, counts.uploads, counts.reads, counts.allocations, counts.hidden_copies))

    network = Network([6, 7, 3], dropout=0.3, backend=fake_gpu)
    xpnet.train(
        network,
        labelled(400),
        Adam(),
        epochs=1,
        batch_size=5,
        callbacks=[Count(), Checkpoint(tmp_path / "c", steps=70)],
    )
    inside = [(np.subtract(b, a)[1:], a[0]) for a, b in pairwise(counted) if a[0] not in (0, 70)]
    assert {70, 80} <= {step for step, *_ in counted}
    for change, _ in inside:
        np.testing.assert_array_equal(change, [1, 1, 2, 0])  # a chunk's upload, its read, whatever its steps are


def test_seconds_and_sums_go_on_and_the_generator_gives_the_records_so_far(float64_cpu, tmp_path):
    run = Run(float64_cpu, accumulate=1)
    run.killed(tmp_path / "c", 20)
    moment = load_checkpoint(tmp_path / "c")
    assert (moment.progress.epoch, moment.progress.step) == (2, 6) and moment.progress.seconds > 0
    network, optimizer = Network([6, 7, 3], normalization="batch", dropout=0.3, backend=float64_cpu), run.optimizer()
    records = xpnet.epochs(
        network,
        run.dataset,
        optimizer,
        resume=tmp_path / "c",
        callbacks=[EarlyStopping(3), ReduceOnPlateau(optimizer, patience=0)],
        **run.options,
    )
    assert [next(records), next(records)] == moment.history  # not told to callbacks again
    assert next(records)["seconds"] > moment.progress.seconds
    records.close()


def test_a_run_that_has_ended_has_nothing_left_to_do(float64_cpu, tmp_path):
    run = Run(float64_cpu)
    whole = run(Checkpoint(tmp_path / "c"))
    assert load_checkpoint(tmp_path / "c").is_over(4) and run(resume=tmp_path / "c") == whole
    best = whole[0][whole[0][-1]["chosen_epoch"]]["val_loss"]
    assert best == min(record["val_loss"] for record in whole[0])
    more = run(resume=tmp_path / "c", epochs=6)
    assert more == run(epochs=6)  # and the record that was the last one is as any other


def test_the_history_file_has_each_line_once(float64_cpu, tmp_path):
    run, path, histories = Run(float64_cpu, accumulate=1), tmp_path / "c", [tmp_path / "a", tmp_path / "b"]
    for history in histories:
        history.write_text('{"epoch": 0, "of": "another run"}\n', encoding="utf-8")
    run(HistoryFile(histories[0]))
    with pytest.raises(Killed):
        run(HistoryFile(histories[1]), Checkpoint(path, steps=13), Kill(14))
    with open(histories[1], "a", encoding="utf-8") as file:
        file.write('{"epoch": 1}\n{"epoch": 2, "tr')  # told after the checkpoint, and torn
    run(HistoryFile(histories[1]), resume=path)
    a, b = ([record | {"seconds": 0} for record in read_history(history)] for history in histories)
    assert a == b and [record["epoch"] for record in a] == [0, 0, 1, 2, 3, 4]


def test_a_history_file_that_is_gone_is_made_anew(float64_cpu, tmp_path):
    run, history = Run(float64_cpu, accumulate=1), tmp_path / "history.jsonl"
    history.write_text('{"epoch": 0, "of": "another run"}\n', encoding="utf-8")
    with pytest.raises(Killed):
        run(HistoryFile(history), Checkpoint(tmp_path / "c", steps=13), Kill(14))
    history.unlink()
    again = Checkpoint(tmp_path / "c", steps=13)
    with pytest.raises(Killed):
        run(HistoryFile(history), again, Kill(20), resume=tmp_path / "c")
    run(HistoryFile(history), resume=tmp_path / "c")  # and from a checkpoint of that
    assert read_history(history).column("epoch") == [0, 1, 2, 3, 4]


def test_a_budget_of_steps_counts_those_before(float64_cpu, tmp_path):
    run = Run(float64_cpu, accumulate=1)
    whole = run(Budget(steps=20))
    assert [record["steps"] for record in whole[0]] == [0, 13, 7]
    with pytest.raises(Killed):
        run(Budget(steps=20), Checkpoint(tmp_path / "c", steps=1), Kill(17))
    assert run(Budget(steps=20), resume=tmp_path / "c") == whole


# --- divergence ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 3])
def test_a_state_that_has_diverged_is_never_stored(backend, tmp_path, steps):
    rng = np.random.default_rng(0)
    dataset, path = Dataset(rng.standard_normal((3, 60)), rng.standard_normal(60)), tmp_path / "c"
    kept = {}

    class Keep(Callback):
        def on_epoch_end(self, record, network):
            kept["owned"] = backend.to_host(network.owned).copy()

    def run(rate, *callbacks, **options):
        network = Network([3, 4, 1], loss="squared_error", backend=backend)
        optimizer = Momentum(rate)
        with refusal(TrainingDiverged, " of epoch ", "last finite", "lower the learning rate"):
            xpnet.train(network, dataset, optimizer, epochs=200, batch_size=4, callbacks=callbacks, **options)
        return backend.to_host(network.owned), optimizer.steps_done

    owned, done = run(3.0, Checkpoint(path, steps=steps), Keep())
    moment = load_checkpoint(path)
    assert np.isfinite(moment.tensors["owned"]).all() and moment.progress.step > 0
    np.testing.assert_array_equal(owned, kept["owned"])  # the last good ones, of the epoch's beginning
    again = run(3.0, resume=path)
    np.testing.assert_array_equal(again[0], kept["owned"])  # also where that was in another process
    assert again[1] == done == (moment.progress.epoch - 1) * 15


def test_weights_that_no_loss_has_told_of_are_not_stored_either(backend, tmp_path):
    """The loss of a step is that before its update, which may be the one that overflows."""
    dataset = Dataset(np.full((3, 8), 50.0), np.full(8, 900.0))
    network = Network([3, 1], loss="squared_error", backend=backend)
    before = backend.to_host(network.owned).copy()
    found = "the weights are not finite after step 1 of epoch 1"
    with refusal(TrainingDiverged, found, "(last finite loss: ", "lower the learning rate"):
        rate = 1e305 if backend.dtype == np.float64 else 1e36
        xpnet.train(
            network, dataset, SGD(rate), epochs=1, batch_size=4, callbacks=[Checkpoint(tmp_path / "c", steps=1)]
        )
    np.testing.assert_array_equal(load_checkpoint(tmp_path / "c").tensors["owned"], before)
    np.testing.assert_array_equal(backend.to_host(network.owned), before)


# --- what does not fit -----------------------------------------------------------------------------------------------


@pytest.fixture
def stored(tmp_path, float64_cpu):
    path = tmp_path / "run.safetensors"
    Run(float64_cpu).killed(path, 12)
    return path


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"batch_size": 6}, ["batch_size 5", "batch_size 6", "leave resume out"]),
        ({"accumulate": 3}, ["accumulate 2", "accumulate 3"]),
        ({"seed": 4}, ["seed 3", "seed 4"]),
        ({"shuffle": False}, ["shuffle True", "shuffle False"]),
        ({"dataset": labelled(60)}, ["n_samples 62", "n_samples 60"]),
        ({"dataset": labelled(62, weighted=True)}, ["sample weights False", "sample weights True"]),
        ({"optimizer": lambda: Adam(0.01, ema=0.9, l2=0.1)}, ["optimizer Adam(", "l2=0.1"]),
        ({"optimizer": lambda: Momentum(ema=0.9)}, ["optimizer Adam(", "Momentum("]),
        ({"optimizer": lambda: Adam(Cosine(0.1, 9), ema=0.9)}, ["initial lr 0.01", "Cosine(lr=0.1"]),
        ({"optimizer": lambda: Adam(0.02, ema=0.9)}, ["initial lr 0.01", "initial lr 0.02"]),
        ({"backend": xpnet.select_backend("cpu", "float32")}, ["dtype float64", "dtype float32"]),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(stored, float64_cpu, changes, parts):
    with pytest.raises(ValueError) as error:
        Run(**{"backend": float64_cpu, **changes})(resume=stored)
    says(error, str(stored), *parts)


class Halving(Schedule):
    """A user's own schedule, whose repr has an address."""

    def __init__(self, lr, every):
        self.lr, self.every = lr, every

    def values(self, first_step, n_steps):
        return self.lr * 0.5 ** (np.arange(first_step, first_step + n_steps) // self.every)


@pytest.mark.parametrize("make", [Halving, lambda lr, every: WarmUp(Halving(lr, every), 3)], ids=["plain", "warm-up"])
def test_a_schedule_of_the_user_s_own_goes_by_its_settings(float64_cpu, tmp_path, make):
    path, options = tmp_path / "c", {"batch_size": 5, "epochs": 2}

    def train(every, *callbacks, **more):
        network, optimizer = Network([6, 3], backend=float64_cpu), SGD(make(0.1, every))
        return xpnet.train(network, labelled(62), optimizer, callbacks=callbacks, **(options | more))[-1]["train_loss"]

    with pytest.raises(Killed):
        train(5, Kill(9, path))
    assert train(5, resume=path) == train(5)
    with pytest.raises(ValueError) as error:
        train(6, resume=path)
    says(error, "Halving(lr=0.1, every=5)", "Halving(lr=0.1, every=6)")


def test_a_rate_that_was_reduced_goes_on(float64_cpu, tmp_path):
    run, path = Run(float64_cpu, optimizer=lambda: Adam(0.5, ema=0.9)), tmp_path / "c"
    run.killed(path, 26)
    assert load_checkpoint(path).lr < 0.5  # reduced by then
    assert run(resume=path) == run()


@pytest.mark.parametrize(("n_pauses", "begun"), [(12, 2), (16, 2), (17, 3)])  # within epoch 2, after it, within epoch 3
def test_fewer_epochs_than_have_begun_are_refused(float64_cpu, tmp_path, n_pauses, begun):
    run, path = Run(float64_cpu), tmp_path / "c"
    run.killed(path, n_pauses)
    progress = load_checkpoint(path).progress
    assert begun == progress.epoch - (progress.step == 0)
    network = Network([6, 7, 3], normalization="batch", dropout=0.3, backend=float64_cpu, seed=1)
    optimizer, before = run.optimizer(), network.owned.copy()
    callbacks = [EarlyStopping(3), ReduceOnPlateau(optimizer, patience=0, factor=0.5)]
    with pytest.raises(ValueError) as error:
        xpnet.train(
            network, run.dataset, optimizer, callbacks=callbacks, resume=path, **(run.options | {"epochs": begun - 1})
        )
    says(
        error, f"{path} belongs to a run within or after epoch {begun}", f"epochs is {begun - 1}", f"epochs={begun} or"
    )
    np.testing.assert_array_equal(network.owned, before)
    assert run(resume=path, epochs=begun) == run(epochs=begun)


def test_a_checkpoint_of_another_network_or_other_callbacks_is_refused(stored, float64_cpu):
    options = {"epochs": 4, "batch_size": 5, "accumulate": 2, "seed": 3, "resume": stored}
    with pytest.raises(ValueError) as error:
        xpnet.epochs(Network([6, 3], backend=float64_cpu), labelled(62), Adam(0.01, ema=0.9), **options)
    says(error, "network 6-7-3", "network 6-3")
    network = Network([6, 7, 3], normalization="batch", dropout=0.3, backend=float64_cpu)
    with pytest.raises(ValueError) as error:
        xpnet.epochs(network, labelled(62), Adam(0.01, ema=0.9), **options)
    says(error, "callbacks EarlyStopping, ReduceOnPlateau", "has none", "callbacks=[...]")


def rewritten(path, change):
    """Write the checkpoint again with its facts and tensors changed."""
    with safe_open(path, framework="numpy") as file:
        facts, tensors = json.loads(file.metadata()["checkpoint"]), load_file(path)
    change(facts, tensors)
    save_file(tensors, path, {"checkpoint": json.dumps(facts)})


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (lambda whole: whole[:-1], "not a whole safetensors file"),
        (lambda whole: whole[:60], "not a whole"),
        (lambda whole: b"", "not a whole"),
        (lambda whole: b"{}" * 50, "not a whole"),
    ],
    ids=["cut", "header", "empty", "foreign"],
)
def test_a_file_that_is_not_whole_is_refused(stored, float64_cpu, content, part):
    stored.write_bytes(content(stored.read_bytes()))
    with pytest.raises(ValueError) as error:
        Run(float64_cpu)(resume=stored)
    says(error, str(stored), part, "without resume")


def test_other_files_are_refused(tmp_path, float64_cpu):
    path = tmp_path / "model.safetensors"
    with refusal(FileNotFoundError, f"there is no checkpoint {path}", "Checkpoint(path)", "or leave resume out"):
        Run(float64_cpu)(resume=path)
    Network([2, 2], backend=float64_cpu).save(path)
    with refusal(ValueError, "is a safetensors file", "but no checkpoint", "name one that `Checkpoint` wrote"):
        Run(float64_cpu)(resume=path)
    save_file({}, path, {"checkpoint": "[" * 100_000})
    with refusal(ValueError, "no checkpoint that can be read", "nested deeper", "start again without resume"):
        Run(float64_cpu)(resume=path)


def set_in(*keys, value):
    def change(facts, tensors):
        place = facts
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "found", "needed"),
    [
        (set_in("format", value=2), "format is 2", "it must be 1"),
        (set_in("progress", value={}), "no checkpoint that can be read", ""),
        (set_in("progress", "epoch", value=-1), "counts are (-1, ", "they must be whole numbers"),
        (set_in("progress", "step", value=1.5), "1.5", "they must be whole numbers"),
        (set_in("progress", "loss", value=float("nan")), "the number nan", "all must be finite"),
        (
            set_in("progress", "order", value={"bit_generator": "MT19937"}),
            "random state",
            "belongs to another generator",
        ),
        (set_in("progress", "order", value=None), "random state", "belongs to another generator"),
        (set_in("lr", value=True), "its lr is True", "it must be a number above 0"),
        (set_in("lr", value=-0.1), "its lr is -0.1", "it must be a number above 0"),
        (set_in("progress", "samples", value=10**400), "a number of 401 digits", "may have 40"),
        (set_in("progress", "samples", value=10**30), f"has done {10**30} samples", "which no epoch of 62 samples has"),
        (set_in("progress", "step", value=10**30), f"in {10**30} steps", "which no epoch of 62 samples has"),
        (set_in("history", 0, value={"epoch": 0}), "holds what is no record", "each must have its numbers"),
        (set_in("history", 0, "train_loss", value="x"), "holds what is no record", "each must have its numbers"),
        (set_in("history", value=[]), "epochs of its history", "they must be 0, 1, 2 and so on"),
        (set_in("history", 0, "epoch", value=7), "do not follow each other", "they must be 0, 1, 2 and so on"),
        (set_in("callbacks", value=3), "no checkpoint that can be read", ""),
        (set_in("fit", value={}), "network None", "this one has network"),
        (lambda facts, tensors: tensors.pop("state"), "state is no such tensor", "it must be float64"),
        (lambda facts, tensors: tensors.update(owned=tensors["owned"][1:]), "owned is float64", "it must be float64"),
        (
            lambda facts, tensors: tensors.update(keys=tensors["keys"].astype(np.int32)),
            "keys is int32",
            "it must be uint32",
        ),
        (lambda facts, tensors: tensors["last_good.owned"].fill(np.nan), "weights are not finite", ""),
        (lambda facts, tensors: facts.pop("steps_done"), "steps_done", ""),
        (set_in("callbacks", 1, 1, value={"best": 1.0}), "of ReduceOnPlateau cannot be restored", "KeyError: 'n_bad'"),
    ],
)
def test_a_damaged_checkpoint_is_refused_and_nothing_is_changed(stored, float64_cpu, change, found, needed):
    rewritten(stored, change)
    network = Network([6, 7, 3], normalization="batch", dropout=0.3, backend=float64_cpu, seed=1)
    optimizer, before = Adam(0.01, ema=0.9), network.owned.copy()
    with pytest.raises(ValueError) as error:
        xpnet.train(
            network,
            labelled(62),
            optimizer,
            resume=stored,
            epochs=4,
            batch_size=5,
            accumulate=2,
            seed=3,
            callbacks=[EarlyStopping(3), ReduceOnPlateau(optimizer)],
        )
    says(error, found, needed, "start again")
    np.testing.assert_array_equal(network.owned, before)
    assert optimizer.steps_done == 0


@pytest.mark.parametrize(
    ("make", "error", "parts"),
    [
        (lambda: Checkpoint("c", seconds=0), ValueError, ["seconds is 0", "above 0"]),
        (lambda: Checkpoint("c", steps=0), ValueError, ["steps is 0", "at least 1"]),
    ],
)
def test_checkpoints_that_cannot_work(make, error, parts):
    with pytest.raises(error) as raised:
        make()
    says(raised, *parts)


def test_a_checkpoint_is_written_every_so_many_steps_and_at_the_ends_of_epochs(float64_cpu, tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(
        "xpnet.training.checkpoint.save_checkpoint", lambda path, moment: written.append(moment.progress)
    )
    run = Run(float64_cpu, epochs=2, accumulate=1)
    run(Checkpoint(tmp_path / "c", steps=5))
    assert [(p.epoch, p.step) for p in written] == [(1, 0), (1, 5), (1, 10), (2, 0), (2, 2), (2, 7), (2, 12), (3, 0)]
    written.clear()
    run(Checkpoint(tmp_path / "c", steps=5), accumulate=2)  # at the end of an update
    assert [(p.epoch, p.step) for p in written][:4] == [(1, 0), (1, 6), (1, 10), (2, 0)]
    written.clear()
    run(Checkpoint(tmp_path / "c"))  # epochs much shorter than a second
    assert [(p.epoch, p.step) for p in written] == [(1, 0), (3, 0)]
    written.clear()
    run(Checkpoint(tmp_path / "c", steps=5, seconds=1e-9))  # with steps no clock
    assert [(p.epoch, p.step) for p in written] == [(1, 0), (1, 5), (1, 10), (2, 0), (2, 2), (2, 7), (2, 12), (3, 0)]


@pytest.mark.parametrize(
    ("writing", "written"), [(0.1, [1, 2, 3, 4, 5, 6, 7, 8]), (0.5, [1, 5, 8]), (100.0, [1, 6, 8])]
)
def test_what_takes_long_to_write_is_written_less_often(float64_cpu, tmp_path, monkeypatch, writing, written):
    """Seconds by a clock of the test's own; an epoch lasts 3 of them, or 20 times as long as writing."""
    now, found = [100.0], []
    monkeypatch.setattr("xpnet.training.checkpoint.time.monotonic", lambda: now[0])

    class Clock(Callback):
        def on_epoch_end(self, record, network):
            now[0] += 3.0

    def save(path, moment):
        now[0] += writing
        found.append(moment.progress.epoch)

    monkeypatch.setattr("xpnet.training.checkpoint.save_checkpoint", save)
    callbacks = [Clock(), Checkpoint(tmp_path / "c", seconds=15)]
    network = Network([6, 3], backend=float64_cpu)
    xpnet.train(network, labelled(20), SGD(), epochs=7, batch_size=20, callbacks=callbacks, progress=False)
    assert found == written  # the moment after epoch 7 is the beginning of epoch 8


def test_tensors_are_not_copied_to_be_written(tmp_path):
    class Uncopied(np.ndarray):
        def __deepcopy__(self, memo):
            raise AssertionError

    record = {"epoch": 0, "train_loss": 1.0, "steps": 0, "seconds": 0.0}
    moment = Moment({}, Progress(1, None), 0, 0, 0.1, [], [record], {"owned": np.arange(3.0).view(Uncopied)})
    save_checkpoint(tmp_path / "c", moment)
    found = load_checkpoint(tmp_path / "c")
    assert found.progress == moment.progress and found.history == moment.history
    np.testing.assert_array_equal(found.tensors["owned"], np.arange(3.0))
    assert list(moment.tensors) == ["owned"]


def test_a_state_may_be_empty_and_its_arrays_keep_their_type(backend, tmp_path):
    class Late(Callback):
        """Knows nothing before the first step, then counts in whole numbers."""

        counts = None

        def on_chunk_end(self, epoch, step, loss):
            self.counts = backend.xp.asarray([2**40 + step], dtype=np.int64)

        def state(self):
            return {} if self.counts is None else {"counts": self.counts}

        def load_state(self, state):
            self.loaded = state

    for n, expected in ((0, None), (2, 2**40 + 2)):
        late, options = Late(), {"batch_size": 5, "epochs": 1}
        with pytest.raises(Killed):
            xpnet.train(
                Network([6, 3], backend=backend),
                labelled(62),
                SGD(),
                callbacks=[late, Kill(n, tmp_path / "c")],
                **options,
            )
        again = Late()
        again.counts = backend.xp.zeros(1)  # a state where there was none
        xpnet.train(
            Network([6, 3], backend=backend), labelled(62), SGD(), callbacks=[again], resume=tmp_path / "c", **options
        )
        if expected is None:
            assert again.loaded == {}
        else:
            assert again.loaded["counts"].dtype == np.int64 and int(again.loaded["counts"][0]) == expected


class Memory(Callback):
    """Has whatever state it is given, and keeps what it gets back."""

    def __init__(self, state):
        self.kept = state

    def state(self):
        return self.kept

    def load_state(self, state):
        self.kept = state


def test_a_state_comes_back_however_its_arrays_lie_in_memory(float64_cpu, tmp_path):
    whole = np.arange(24.0).reshape(4, 6)
    arrays = {
        "turned": whole.T,
        "strided": whole[::2, 1::3],
        "reversed": whole[::-1, ::-1],
        "spread": np.broadcast_to(whole[0], (5, 6)),
        "fortran": np.asfortranarray(whole),
        "a part": whole[1:3, 2:4],
        "the other end": whole.astype(whole.dtype.newbyteorder()),
        "a number": np.array(3.5),
        "nothing": whole[:0],
        "half": whole.astype(np.float16)[:, ::-1],
        "truth": whole.T > 5,
        "bytes": whole.astype(np.uint8).T,
        "masked": np.ma.masked_array(whole, whole > 3).T,
    }
    numbers = {"single": np.float32(0.25), "count": np.int64(7), "yes": np.bool_(True), "many": [np.float32(2), "x"]}
    options = {"epochs": 1, "batch_size": 4}
    data = labelled(8)
    for callback in (Memory(arrays | numbers), Memory({})):
        network = Network([6, 3], backend=float64_cpu)
        path = tmp_path / "run.checkpoint"
        resume = {"resume": path} if path.exists() else {}
        xpnet.train(network, data, SGD(), callbacks=[callback, Checkpoint(path)], **options, **resume)
    for name, array in arrays.items():
        found = callback.kept[name]
        assert (found.shape, found.dtype) == (array.shape, array.dtype.newbyteorder("=")), name
        np.testing.assert_array_equal(found, np.asarray(array))
    assert {name: callback.kept[name] for name in numbers} == {
        "single": 0.25,
        "count": 7,
        "yes": True,
        "many": [2, "x"],
    }
    with safe_open(path, framework="numpy") as file:
        assert file.get_slice("callbacks.0.spread").get_shape() == [5, 6]


NO_STATES = [{1, 2}, np.array(["a"]), np.zeros(2, complex), np.zeros(2, np.longdouble), object(), [{1: "one"}]]


@pytest.mark.parametrize("value", NO_STATES)
def test_a_state_that_no_file_has_is_refused_before_the_first_step(float64_cpu, tmp_path, value):
    network = Network([6, 3], backend=float64_cpu)
    before = network.owned.copy()
    with refusal(TypeError, "the state of Memory", "needed are numbers, texts, lists", "return these from state()"):
        callbacks = [Memory({"value": value}), Checkpoint(tmp_path / "run.checkpoint")]
        xpnet.train(network, labelled(8), SGD(), epochs=1, callbacks=callbacks)
    np.testing.assert_array_equal(network.owned, before)


def test_records_hold_numbers_of_numpy(float64_cpu, tmp_path):
    class Adds(Callback):
        def on_measured(self, record, network):
            record |= {"val_mine": np.float32(0.5), "train_count": np.int64(3), "val_none": np.float32("nan")}

    path = tmp_path / "history.jsonl"
    callbacks = [Adds(), HistoryFile(path), Checkpoint(tmp_path / "run.checkpoint")]
    xpnet.train(Network([6, 3], backend=float64_cpu), labelled(8), SGD(), epochs=1, callbacks=callbacks)
    record = read_history(path)[-1]
    assert (record["val_mine"], record["train_count"], record["val_none"]) == (0.5, 3, None)
    assert load_checkpoint(tmp_path / "run.checkpoint").history[-1]["val_mine"] == 0.5


@pytest.mark.parametrize(
    ("number", "state"),
    [
        (0, {"best": "low"}),
        (0, {"best": float("nan")}),
        (0, {"epoch": -1}),
        (0, {"epoch": None}),
        (0, {"weights": "shape"}),
        (0, {"weights": "nan"}),
        (1, {"best": None}),
        (1, {"n_bad": 2.5}),
        (2, {"start": "0"}),
        (2, {"start": -3}),
        (3, {"spent": []}),
        (3, {"done": "7"}),
        (4, {}),
        (5, {"kept": 1}),
    ],
)
def test_a_state_of_another_type_is_refused_before_anything_is_changed(float64_cpu, tmp_path, number, state):
    class Own(Callback):
        """Of a user, who checks nothing."""

        def state(self):
            return {"kept": {"deep": 1}}

        def load_state(self, state):
            self.kept = state["kept"]["deep"]

    class OnResume(Own):
        """Finds out only when it goes on."""

        def load_state(self, state):
            self.kept = state["kept"]

        def on_resume(self, history):
            self.kept["deep"]

    path = tmp_path / "run.checkpoint"

    def run(**resume):
        optimizer = Adam(0.01)
        network = Network([6, 3], backend=float64_cpu, seed=1)
        before = network.owned.copy()
        callbacks = [
            EarlyStopping(3, "train_loss"),
            ReduceOnPlateau(optimizer),
            HistoryFile(tmp_path / "history.jsonl"),
        ]
        callbacks += [Budget(seconds=1000), Own(), OnResume(), Checkpoint(path)]
        try:
            xpnet.train(network, labelled(62), optimizer, epochs=3, batch_size=5, callbacks=callbacks, **resume)
        finally:
            changed.append((not np.array_equal(network.owned, before), optimizer.steps_done))

    def spoil(facts, tensors):
        found = facts["callbacks"][number][1]
        found.update(state) if state else found.clear()
        if "weights" in state:
            kept = tensors["callbacks.0.weights"]
            tensors["callbacks.0.weights"] = kept[1:] if state["weights"] == "shape" else np.full_like(kept, np.nan)

    changed = []
    run()
    rewritten(path, spoil)
    error = TypeError if number == 5 else ValueError
    with pytest.raises(error) as raised:
        run(resume=path)
    assert changed == [(True, 39), (False, 0)]
    if number == 4:
        says(raised, "state of Own", "cannot be restored (KeyError", "start again without resume")
    if "weights" in state:
        says(raised, "weights are float64", "they must be finite numbers, float64", "start again without resume")


@pytest.mark.parametrize("other", [{"scale": 1.0}, {"dtype": float}])
def test_a_run_goes_on_in_the_units_of_its_samples(float64_cpu, tmp_path, other):
    """The same bytes by another scale, or as floats, are other samples."""
    path, bytes_of = tmp_path / "run.checkpoint", np.arange(48, dtype=np.uint8).reshape(6, 8)
    labels, options = np.arange(8) % 3, {"batch_size": 4, "callbacks": [Checkpoint(path)]}
    first = Dataset.from_labels(bytes_of, labels, scale=1 / 255)
    xpnet.train(Network([6, 3], backend=float64_cpu), first, SGD(), epochs=1, **options)
    second = Dataset.from_labels(bytes_of.astype(other.pop("dtype", np.uint8)), labels, **other)
    found = "has scale 1;" if second.scale else "has scale None;"
    with refusal(ValueError, "a run with scale 0.0039215", found, "leave resume out"):
        xpnet.train(Network([6, 3], backend=float64_cpu), second, SGD(), epochs=2, resume=path, **options)
