"""The history on disk, and the progress bar."""

from __future__ import annotations

import io
import json
import sys
from contextlib import nullcontext

import numpy as np
import pytest
from refusals import refusal, says

import xpnet
from xpnet import SGD, Budget, Callback, Dataset, EarlyStopping, Network, StopAtScore
from xpnet.plots.curves import score_names
from xpnet.training.callbacks import HistoryFile, ReduceOnPlateau
from xpnet.training.metrics import METRICS, Metric
from xpnet.training.progress import ProgressBar
from xpnet.training.records import History, json_line, lower_is_better, read_history
from xpnet.training.schedules import Cosine


def test_history_is_written_line_by_line(tmp_path):
    path = tmp_path / "history.jsonl"
    callback = HistoryFile(path)
    for epoch in range(3):
        callback.on_epoch_end({"epoch": epoch, "train_loss": 1.5}, None)
        assert len(path.read_text(encoding="utf-8").splitlines()) == epoch + 1  # there before the next epoch begins
    history = read_history(path)
    assert isinstance(history, History) and history.column("epoch") == [0, 1, 2]


def test_a_torn_last_line_is_left_out_and_a_torn_middle_one_refused(tmp_path):
    path = tmp_path / "history.jsonl"
    path.write_text('{"epoch": 0}\n{"epoch": 1}\n{"epo', encoding="utf-8")
    assert read_history(path).column("epoch") == [0, 1]
    path.write_text('{"epoch": 0}\n{"epo\n{"epoch": 2}\n', encoding="utf-8")
    with refusal(ValueError, f"{path}: line 2", "is not JSON", "remove it, or train again"):
        read_history(path)


def test_json_knows_no_infinity():
    line = json_line({"epoch": 1, "train_loss": float("inf"), "val_loss": float("nan"), "val_accuracy": 0.5})
    assert json.loads(line) == {"epoch": 1, "train_loss": None, "val_loss": None, "val_accuracy": 0.5}


def test_the_bar_shows_epoch_step_and_loss_and_goes():
    stream = io.StringIO()
    bar = ProgressBar(stream)
    bar.on_train_begin(None, 7, 40)
    bar.on_chunk_end(2, 10, 0.25)
    bar.on_chunk_end(2, 40, 0.125)
    bar._bar.refresh()
    assert "epoch 2/7" in stream.getvalue() and "40/40" in stream.getvalue() and "loss 0.1250" in stream.getvalue()
    bar.on_epoch_end({}, None)
    assert bar._bar is None
    bar.on_train_end(None)  # closing twice does no harm


def train(callbacks, **keywords):
    rng = np.random.default_rng(0)
    dataset = Dataset.from_labels(rng.random((4, 30)), rng.integers(0, 3, 30), 3)
    network = Network([4, 3], backend=xpnet.select_backend("cpu"))
    return xpnet.train(network, dataset, SGD(), epochs=3, batch_size=4, callbacks=callbacks, **keywords)


def test_the_file_of_a_run_reads_back_as_its_history(tmp_path):
    path = tmp_path / "history.jsonl"
    assert read_history_of(train([HistoryFile(path)]), path)


def read_history_of(history, path):
    return read_history(path) == history and len(path.read_text(encoding="utf-8").splitlines()) == len(history) == 4


@pytest.mark.parametrize("cut", [1, 5, 12])
def test_whatever_a_crash_cuts_off_the_epochs_before_are_read(tmp_path, cut):
    path = tmp_path / "history.jsonl"
    callback = HistoryFile(path)
    for epoch in range(3):
        callback.on_epoch_end({"epoch": epoch, "train_loss": 0.5}, None)
    path.write_bytes(path.read_bytes()[:-cut])
    found = read_history(path).column("epoch")
    assert found == ([0, 1, 2] if cut == 1 else [0, 1])  # without its newline alone a line is whole


@pytest.mark.parametrize(("tail", "kept"), [(b'{"epo', [0]), (b"\xff", [0]), (b'{"epoch": 1}', [0, 1]), (b"", [0])])
def test_a_new_run_begins_on_a_line_of_its_own(tmp_path, tail, kept):
    path = tmp_path / "history.jsonl"
    path.write_bytes(b'{"epoch": 0}\n' + tail)
    train([HistoryFile(path)])
    assert read_history(path).column("epoch") == [*kept, 0, 1, 2, 3]


@pytest.mark.parametrize("tail", [b"\0\0\0\0", b"\xff\xfe\x80"], ids=["zeros", "garbage"])
def test_a_tail_that_is_no_text_is_a_torn_line(tmp_path, tail):
    path = tmp_path / "history.jsonl"
    path.write_bytes(b'{"epoch": 0}\n' + tail)
    assert read_history(path).column("epoch") == [0]


@pytest.mark.parametrize("middle", [b"3", b"[]", b'"epoch"', b"null", b"\xff\xfe"], ids=repr)
def test_a_line_that_is_no_record_is_named(tmp_path, middle):
    path = tmp_path / "history.jsonl"
    path.write_bytes(b'{"epoch": 0}\n' + middle + b'\n{"epoch": 2}\n')
    with refusal(ValueError, f"{path}: line 2", "is not ", "remove it, or train again"):
        read_history(path)


def test_a_history_that_is_not_there_or_empty(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_history(tmp_path / "history.jsonl")
    (tmp_path / "history.jsonl").write_text("", encoding="utf-8")
    assert read_history(tmp_path / "history.jsonl") == []


def test_the_bar_of_a_run_shows_each_epoch_and_leaves_a_clean_line():
    stream = io.StringIO()
    train([ProgressBar(stream)])
    text = stream.getvalue()
    for epoch in (1, 2, 3):
        assert f"epoch {epoch}/3" in text
    assert "/8 [" in text  # 30 samples, 4 a step
    assert text.rsplit("\r", 1)[-1].strip() == "" and text.rsplit("\r", 2)[-2].strip() == ""  # wiped


def test_the_bar_is_gone_after_an_interrupt():
    stream = io.StringIO()

    class Interrupt(xpnet.Callback):
        def on_chunk_end(self, epoch, step, loss):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train([ProgressBar(stream), Interrupt()])
    assert "epoch 1/3" in stream.getvalue()
    assert stream.getvalue().rsplit("\r", 2)[-2].strip() == ""


def rates(losses, name="val_loss", **options):
    """The rate after each epoch of these losses, from 1."""
    optimizer = SGD(lr=1.0)
    callback = ReduceOnPlateau(optimizer, **options)
    callback.on_train_begin(None, 9, 9)
    found = []
    for epoch, loss in enumerate(losses):
        callback.on_epoch_end({"epoch": epoch, "train_loss": 1.0, name: loss}, None)
        found.append(optimizer.lr)
    return found


@pytest.mark.parametrize("name", ["val_loss", "train_loss"])
@pytest.mark.parametrize(
    ("losses", "options", "expected"),
    [
        # after `patience` epochs that are no better, the next one reduces; then the count begins anew
        ([9, 5, 5, 5, 5, 5, 5, 5], {"patience": 2, "factor": 0.5}, [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.25]),
        ([0.1, 5, 4, 4, 3, 3, 2], {"patience": 1}, [1] * 7),  # the untrained network is no rival
        ([9, 5, 6, 4, 4, 3], {"patience": 0, "factor": 0.5}, [1, 1, 0.5, 0.5, 0.25, 0.25]),
        ([9, 1, 0.95, 0.95], {"patience": 0, "threshold": 0.1, "factor": 0.5}, [1, 1, 0.5, 0.25]),
        ([9, 1, 1, 1, 1], {"patience": 0, "factor": 0.5, "lr_min": 0.3}, [1, 1, 0.5, 0.3, 0.3]),
        ([9, float("nan"), float("nan")], {"patience": 0, "factor": 0.5}, [1, 0.5, 0.25]),
        ([9, -1, -1.05, -0.95, -1.2], {"patience": 0, "threshold": 0.1, "factor": 0.5}, [1, 1, 0.5, 0.25, 0.25]),
    ],
)
def test_a_plateau_reduces_the_rate(name, losses, options, expected):
    assert rates(losses, name, **options) == expected


def test_a_run_uses_the_reduced_rate():
    optimizer = SGD(lr=1e-6)  # far too low to improve by the threshold
    rng = np.random.default_rng(0)
    dataset = Dataset.from_labels(rng.random((4, 30)), rng.integers(0, 3, 30), 3)
    network = Network([4, 3], backend=xpnet.select_backend("cpu"))
    xpnet.train(network, dataset, optimizer, epochs=4, callbacks=[ReduceOnPlateau(optimizer, patience=0)])
    assert optimizer.lr == pytest.approx(1e-9)


@pytest.mark.parametrize(
    ("make", "error", "parts"),
    [
        (
            lambda: ReduceOnPlateau(0.1),
            TypeError,
            ["optimizer is 0.1", "it must be the one that trains", "ReduceOnPlateau(optimizer)"],
        ),
        (
            lambda: ReduceOnPlateau(SGD(Cosine(0.1, 9))),
            ValueError,
            ["the rate follows Cosine", "which a reduction would end", "give the optimizer a number as lr"],
        ),
        (lambda: ReduceOnPlateau(SGD(), factor=1), ValueError, ["factor is 1", "below 1"]),
        (lambda: ReduceOnPlateau(SGD(), patience=-1), ValueError, ["patience is -1", "at least 0"]),
        (lambda: ReduceOnPlateau(SGD(), threshold=-1), ValueError, ["threshold is -1", "at least 0"]),
        (lambda: ReduceOnPlateau(SGD(), lr_min=-1), ValueError, ["lr_min is -1", "at least 0"]),
    ],
)
def test_plateaus_that_cannot_work(make, error, parts):
    with pytest.raises(error) as raised:
        make()
    says(raised, *parts)


# --- what ends a training --------------------------------------------------------------------------------------------


class Scripted(Callback):
    """Makes the records say what the test wants, before the callbacks after it look."""

    def __init__(self, name, values):
        self.name, self.values = name, values

    def on_measured(self, record, network):
        record[self.name] = self.values[record["epoch"]]
        self.weights = [*getattr(self, "weights", []), network.owned.copy()]


def scripted(values, callback, name="val_loss", epochs=None, normalization="batch"):
    """Train with these values in the records; returns the history, the weights after each epoch, and the last ones."""
    rng = np.random.default_rng(0)
    dataset = Dataset.from_labels(rng.random((4, 30)), rng.integers(0, 3, 30), 3)
    network = Network([4, 5, 3], normalization=normalization, backend=xpnet.select_backend("cpu"))
    script = Scripted(name, values)
    history = xpnet.train(
        network,
        dataset,
        SGD(),
        epochs=len(values) - 1 if epochs is None else epochs,
        batch_size=10,
        validation=dataset,
        callbacks=[script, callback],
    )
    return history, script.weights, network.owned


@pytest.mark.parametrize(
    ("values", "options", "last", "chosen"),
    [
        ([9, 5, 4, 6, 6, 6, 1], {"patience": 3}, 5, 2),  # stopped
        ([9, 5, 4, 6, 3, 6, 6], {"patience": 3}, 6, 4),  # ends normally, and the best weights come back all the same
        ([9, 5, 4, 3], {"patience": 1}, 3, 3),
        ([1, 5, 4, 3], {"patience": 2}, 2, 0),  # the untrained network was the best one
        ([9, 5, 5, 5, 5], {"patience": 2}, 3, 1),  # equal is no better
        ([9, 5, 4.9, 4.8, 4.7, 4.0], {"patience": 3, "min_delta": 0.5}, 4, 1),
        ([9, 5, float("nan"), float("nan"), 4], {"patience": 2}, 3, 1),
        ([float("inf"), 5, 6, 7], {"patience": 2}, 3, 1),
    ],
)
def test_early_stopping_gives_the_best_weights_back(values, options, last, chosen):
    untrained = pytest.warns(UserWarning, match="before its training, whose weights it ends with; lower the learning")
    with nullcontext() if chosen else untrained:
        history, weights, after = scripted(values, EarlyStopping(**options))
    assert history[-1]["epoch"] == last and history[-1]["chosen_epoch"] == chosen
    if last < len(values) - 1:
        assert history[-1]["stopped"] == f"no better val_loss in {options['patience']} epoch" + "s" * (
            options["patience"] != 1
        )
    assert all("stopped" not in record and "chosen_epoch" not in record for record in history[:-1])
    np.testing.assert_array_equal(after, weights[chosen])  # running statistics too
    assert last == chosen or not np.array_equal(weights[last], weights[chosen])


@pytest.mark.parametrize(
    ("monitor", "values", "chosen"),
    [
        ("val_accuracy", [0.1, 0.5, 0.4, 0.4], 1),
        ("val_f1", [0.1, 0.5, 0.4, 0.4], 1),
        ("train_loss", [5, 1, 2, 2], 1),
        ("val_mean_squared_error", [5, 1, 2, 2], 1),
    ],
)
def test_losses_go_down_and_scores_up(monitor, values, chosen):
    history, weights, after = scripted(values, EarlyStopping(2, monitor), monitor)
    assert history[-1]["epoch"] == 3 and history[-1]["chosen_epoch"] == chosen
    np.testing.assert_array_equal(after, weights[chosen])


@pytest.mark.parametrize(("metric", "is_low"), [("regret", True), ("skill_error", False)])
def test_the_row_of_a_metric_and_not_its_name_says_which_way_is_better(monkeypatch, metric, is_low):
    monkeypatch.setitem(METRICS, metric, Metric(lambda P, Y, weights=None: 0.0, lower_is_better=is_low))
    assert lower_is_better(f"val_{metric}") == lower_is_better(metric) == is_low
    values, name = [0.5, 0.4 if is_low else 0.6, 0.5, 0.5], f"val_{metric}"
    history, _, _ = scripted(values, EarlyStopping(2, name), name)
    assert history[-1]["chosen_epoch"] == 1
    history, _, _ = scripted(values, StopAtScore(values[1], name), name)
    assert history[-1]["epoch"] == 1 and "stopped" in history[-1]
    assert score_names(history) == ["val_accuracy"] + [name] * (not is_low)


def test_what_a_callback_adds_to_the_records_is_judged_by_its_name():
    found = {name: lower_is_better(name) for name in ("val_log_loss", "train_own_error", "own_loss", "val_kappa")}
    assert found == {"val_log_loss": True, "train_own_error": True, "own_loss": True, "val_kappa": False}


def test_values_that_are_never_numbers_choose_nothing():
    history, weights, after = scripted([float("nan")] * 5, EarlyStopping(2))
    assert history[-1]["epoch"] == 2 and "chosen_epoch" not in history[-1]
    np.testing.assert_array_equal(after, weights[2])


def test_an_interrupt_leaves_the_weights_that_were_reached():
    class Interrupt(Callback):
        def on_chunk_end(self, epoch, step, loss):
            if epoch == 3:
                self.reached = network.owned.copy()
                raise KeyboardInterrupt

    rng = np.random.default_rng(0)
    dataset = Dataset.from_labels(rng.random((4, 30)), rng.integers(0, 3, 30), 3)
    network, interrupt = Network([4, 3], backend=xpnet.select_backend("cpu")), Interrupt()
    with pytest.raises(KeyboardInterrupt):
        xpnet.train(network, dataset, SGD(), epochs=5, validation=dataset, callbacks=[EarlyStopping(5), interrupt])
    np.testing.assert_array_equal(network.owned, interrupt.reached)


@pytest.mark.parametrize(
    ("monitor", "score", "values", "last"),
    [
        ("val_accuracy", 0.9, [0.1, 0.5, 0.9, 0.95], 2),
        ("val_accuracy", 0.9, [0.95, 0.5], 0),
        ("val_loss", 0.5, [2, 1, 0.4, 0.1], 2),
        ("val_accuracy", 0.99, [0.1, 0.5, 0.9], 2),
    ],
)
def test_stop_at_score(monitor, score, values, last):
    history, _, _ = scripted(values, StopAtScore(score, monitor), monitor)
    assert history[-1]["epoch"] == last
    if score == 0.99:
        assert "stopped" not in history[-1]
    else:
        assert history[-1]["stopped"] == f"{monitor} is {values[last]:g}, asked for {score:g}"


@pytest.mark.parametrize(
    ("callback", "validated", "parts"),
    [
        (EarlyStopping(), False, ["'val_loss'", "have train_loss;", "give a validation set"]),
        (
            EarlyStopping(monitor="val_f1"),
            True,
            ["'val_f1'", "train_loss, val_loss, val_accuracy", "add it to metrics"],
        ),
        (StopAtScore(0.9, "seconds"), True, ["'seconds'", "train_loss, val_loss, val_accuracy"]),
    ],
)
def test_a_measure_that_is_not_there_is_refused_at_the_first_record(callback, validated, parts):
    rng = np.random.default_rng(0)
    dataset = Dataset.from_labels(rng.random((4, 30)), rng.integers(0, 3, 30), 3)
    network = Network([4, 3], backend=xpnet.select_backend("cpu"))
    before = network.owned.copy()
    with pytest.raises(ValueError) as error:
        xpnet.train(network, dataset, SGD(), epochs=3, validation=dataset if validated else None, callbacks=[callback])
    says(error, "monitor is", *parts)
    np.testing.assert_array_equal(network.owned, before)


@pytest.mark.parametrize(
    ("steps", "accumulate", "expected"),
    [
        (5, 1, [0, 5]),
        (8, 1, [0, 8]),
        (11, 1, [0, 8, 3]),
        (11, 2, [0, 8, 4]),
        (24, 1, [0, 8, 8, 8]),
        (99, 1, [0, 8, 8, 8]),
    ],
)
def test_a_budget_of_steps_ends_at_that_very_step(steps, accumulate, expected):
    rng = np.random.default_rng(0)
    dataset = Dataset.from_labels(rng.random((4, 30)), rng.integers(0, 3, 30), 3)
    network, optimizer = Network([4, 3], backend=xpnet.select_backend("cpu")), SGD()
    history = xpnet.train(
        network,
        dataset,
        optimizer,
        epochs=3,
        batch_size=4,
        validation=dataset,
        accumulate=accumulate,
        callbacks=[Budget(steps=steps)],
    )
    assert history.column("steps") == expected and optimizer.steps_done == -(-sum(expected) // accumulate)
    last = history[-1]
    assert ("stopped" in last) == (steps < 99) and last.get("stopped", "").startswith(
        f"budget of {steps} step" * (steps < 99)
    )
    assert last["val_loss"] == xpnet.evaluate(network, dataset)["loss"]
    # the loss is the mean over the steps that were made
    part, other = [], Network([4, 3], backend=xpnet.select_backend("cpu"))

    class Losses(Callback):
        def steps_ahead(self):
            return 1

        def on_chunk_end(self, epoch, step, loss):
            part.append((epoch, loss * (2 if step == 8 else 4), 2 if step == 8 else 4))

    xpnet.train(other, dataset, SGD(), epochs=3, batch_size=4, callbacks=[Losses()])
    if accumulate == 1:
        made = [(loss, n) for epoch, loss, n in part[: sum(expected)] if epoch == last["epoch"]]
        assert last["train_loss"] == pytest.approx(sum(loss for loss, _ in made) / sum(n for _, n in made), rel=1e-5)


def test_a_budget_of_seconds_ends_within_an_epoch(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("xpnet.training.callbacks.time.monotonic", lambda: now[0])

    class Clock(Callback):
        def steps_ahead(self):
            return 1

        def on_chunk_end(self, epoch, step, loss):
            now[0] += 1.0

    rng = np.random.default_rng(0)
    dataset = Dataset.from_labels(rng.random((4, 30)), rng.integers(0, 3, 30), 3)
    network = Network([4, 3], backend=xpnet.select_backend("cpu"))
    history = xpnet.train(network, dataset, SGD(), epochs=3, batch_size=4, callbacks=[Clock(), Budget(seconds=10.5)])
    assert history.column("steps") == [0, 8, 3] and history[-1]["stopped"] == "budget of 10.5 s"
    assert np.isfinite(network.predict(np.ones((4, 1), np.float32))).all()


def test_the_first_reason_is_told_and_all_see_the_last_record():
    seen = []

    class End(Callback):
        def __init__(self, reason):
            self.reason = reason

        def on_measured(self, record, network):
            return self.reason if record["epoch"] == 1 else None

        def on_epoch_end(self, record, network):
            seen.append(record.get("stopped"))

    history = train([End("enough"), End("too much")])
    assert history[-1]["stopped"] == "enough" and len(history) == 2 and seen == [None, None, "enough", "enough"]


@pytest.mark.parametrize(
    ("make", "error", "parts"),
    [
        (lambda: EarlyStopping(0), ValueError, ["patience is 0", "at least 1"]),
        (lambda: EarlyStopping(min_delta=-1), ValueError, ["min_delta is -1", "at least 0"]),
        (lambda: StopAtScore("high"), TypeError, ["score is 'high'", "StopAtScore(0.95)"]),
        (lambda: Budget(), TypeError, ["Budget needs seconds or steps", "Budget(seconds=60)", "Budget(steps=1000)"]),
        (lambda: Budget(seconds=0), ValueError, ["seconds is 0", "above 0"]),
        (lambda: Budget(steps=0), ValueError, ["steps is 0", "at least 1"]),
    ],
)
def test_ends_that_cannot_be(make, error, parts):
    with pytest.raises(error) as raised:
        make()
    says(raised, *parts)


@pytest.mark.parametrize("weighted", [False, True])
def test_callbacks_see_weighted_metrics_of_the_validation(weighted):
    rng = np.random.default_rng(0)
    weights = rng.random(40) + 0.1 if weighted else None
    dataset = Dataset.from_labels(rng.random((4, 40)), rng.integers(0, 3, 40), 3, weights)
    network, seen = Network([4, 3], backend=xpnet.select_backend("cpu")), []

    class Watch(Callback):
        def on_measured(self, record, network):
            seen.append(xpnet.evaluate(network, dataset, ("f1", "roc_auc")))

    names = ("loss", "accuracy", "f1", "roc_auc")
    history = xpnet.train(
        network,
        dataset,
        SGD(),
        epochs=2,
        validation=dataset,
        metrics=("f1", "roc_auc"),
        callbacks=[Watch(), EarlyStopping(monitor="val_roc_auc")],
    )
    assert [[record[f"val_{name}"] for name in names] for record in history] == [
        [measured[name] for name in names] for measured in seen
    ]
    if weighted:
        plain = Dataset.from_labels(dataset.X, dataset.labels, 3)
        assert xpnet.evaluate(network, plain, ("f1",))["f1"] != xpnet.evaluate(network, dataset, ("f1",))["f1"]


def test_a_history_that_is_too_large_to_read_is_refused(tmp_path):
    path = tmp_path / "history.jsonl"
    with open(path, "wb") as file:
        file.truncate(2**30 + 1)  # without blocks on the disk
    with refusal(ValueError, f"{path} has 1073741825 bytes", "at most 1073741824", "name another file"):
        train([HistoryFile(path)])
    assert path.stat().st_size == 2**30 + 1


def test_a_history_is_a_frame_and_a_table_in_a_notebook(monkeypatch):
    records = [{"epoch": i, "train_loss": 1 / (i + 1)} for i in range(50)]
    history = History([*records, {"epoch": 50, "train_loss": 0.25, "stopped": "a < b"}])
    frame = history.to_frame()
    assert list(frame.columns) == ["epoch", "train_loss", "stopped"] and frame["epoch"].tolist() == list(range(51))
    assert frame["stopped"].isna().sum() == 50 and list(History().to_frame().columns) == []
    html = history._repr_html_()
    assert html.startswith("<table><caption>51 records<") and html.count("<tr>") == 1 + 20 + 1 + 20
    assert "<td>0.33333</td>" in html and "<td>a &lt; b</td>" in html and "<td>25</td>" not in html
    monkeypatch.setitem(sys.modules, "pandas", None)
    with refusal(ImportError, "needs pandas", "is missing", "pip install 'xpnet[data]'", "history.column(name)"):
        history.to_frame()
