"""The history on disk, and the progress bar."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from refusals import says

import xpnet
from xpnet import SGD, Dataset, Network
from xpnet.callbacks import History, HistoryFile, ProgressBar, ReduceOnPlateau, json_line, read_history
from xpnet.schedules import Cosine


def test_history_is_written_line_by_line(tmp_path):
    path = tmp_path / "history.jsonl"
    callback = HistoryFile(path)
    for epoch in range(3):
        callback.on_epoch_end({"epoch": epoch, "train_loss": 1.5}, None)
        assert len(path.read_text().splitlines()) == epoch + 1  # there before the next epoch begins
    history = read_history(path)
    assert isinstance(history, History) and history.column("epoch") == [0, 1, 2]


def test_a_torn_last_line_is_left_out_and_a_torn_middle_one_refused(tmp_path):
    path = tmp_path / "history.jsonl"
    path.write_text('{"epoch": 0}\n{"epoch": 1}\n{"epo')
    assert read_history(path).column("epoch") == [0, 1]
    path.write_text('{"epoch": 0}\n{"epo\n{"epoch": 2}\n')
    with pytest.raises(ValueError, match=r"line 2 is not JSON; remove it"):
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
    return read_history(path) == history and len(path.read_text().splitlines()) == len(history) == 4


@pytest.mark.parametrize("cut", [1, 5, 12])
def test_whatever_a_crash_cuts_off_the_epochs_before_are_read(tmp_path, cut):
    path = tmp_path / "history.jsonl"
    callback = HistoryFile(path)
    for epoch in range(3):
        callback.on_epoch_end({"epoch": epoch, "train_loss": 0.5}, None)
    path.write_bytes(path.read_bytes()[:-cut])
    found = read_history(path).column("epoch")
    assert found == ([0, 1, 2] if cut == 1 else [0, 1])  # without its newline alone a line is whole


@pytest.mark.parametrize("tail", [b"\0\0\0\0", b"\xff\xfe\x80"], ids=["zeros", "garbage"])
def test_a_tail_that_is_no_text_is_a_torn_line(tmp_path, tail):
    path = tmp_path / "history.jsonl"
    path.write_bytes(b'{"epoch": 0}\n' + tail)
    assert read_history(path).column("epoch") == [0]


@pytest.mark.parametrize("middle", [b"3", b"[]", b'"epoch"', b"null", b"\xff\xfe"], ids=repr)
def test_a_line_that_is_no_record_is_named(tmp_path, middle):
    path = tmp_path / "history.jsonl"
    path.write_bytes(b'{"epoch": 0}\n' + middle + b'\n{"epoch": 2}\n')
    with pytest.raises(ValueError, match=r"line 2 is not") as error:
        read_history(path)
    assert str(path) in str(error.value) and "remove it, or train again" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_history_that_is_not_there_or_empty(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_history(tmp_path / "history.jsonl")
    (tmp_path / "history.jsonl").write_text("")
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
@pytest.mark.parametrize(("losses", "options", "expected"), [
    # after `patience` epochs that are no better, the next one reduces; then the count begins anew
    ([9, 5, 5, 5, 5, 5, 5, 5], {"patience": 2, "factor": 0.5}, [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.25]),
    ([0.1, 5, 4, 4, 3, 3, 2], {"patience": 1}, [1] * 7),  # the untrained network is no rival
    ([9, 5, 6, 4, 4, 3], {"patience": 0, "factor": 0.5}, [1, 1, 0.5, 0.5, 0.25, 0.25]),
    ([9, 1, 0.95, 0.95], {"patience": 0, "threshold": 0.1, "factor": 0.5}, [1, 1, 0.5, 0.25]),
    ([9, 1, 1, 1, 1], {"patience": 0, "factor": 0.5, "lr_min": 0.3}, [1, 1, 0.5, 0.3, 0.3]),
    ([9, float("nan"), float("nan")], {"patience": 0, "factor": 0.5}, [1, 0.5, 0.25]),
])  # fmt: skip
def test_a_plateau_reduces_the_rate(name, losses, options, expected):
    assert rates(losses, name, **options) == expected


def test_a_run_uses_the_reduced_rate():
    optimizer = SGD(lr=1e-6)  # far too low to improve by the threshold
    rng = np.random.default_rng(0)
    dataset = Dataset.from_labels(rng.random((4, 30)), rng.integers(0, 3, 30), 3)
    network = Network([4, 3], backend=xpnet.select_backend("cpu"))
    xpnet.train(network, dataset, optimizer, epochs=4, callbacks=[ReduceOnPlateau(optimizer, patience=0)])
    assert optimizer.lr == pytest.approx(1e-9)


@pytest.mark.parametrize(("make", "error", "parts"), [
    (lambda: ReduceOnPlateau(0.1), TypeError, ["optimizer is 0.1", "ReduceOnPlateau(optimizer)"]),
    (lambda: ReduceOnPlateau(SGD(Cosine(0.1, 9))), ValueError, ["follows Cosine", "a number as lr"]),
    (lambda: ReduceOnPlateau(SGD(), factor=1), ValueError, ["factor is 1", "below 1"]),
    (lambda: ReduceOnPlateau(SGD(), patience=-1), ValueError, ["patience is -1", "at least 0"]),
    (lambda: ReduceOnPlateau(SGD(), threshold=-1), ValueError, ["threshold is -1", "at least 0"]),
    (lambda: ReduceOnPlateau(SGD(), lr_min=-1), ValueError, ["lr_min is -1", "at least 0"]),
])  # fmt: skip
def test_plateaus_that_cannot_work(make, error, parts):
    with pytest.raises(error) as raised:
        make()
    says(raised, *parts)
