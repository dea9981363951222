"""The history on disk, and the progress bar."""

from __future__ import annotations

import io
import json

import pytest

from xpnet.callbacks import History, HistoryFile, ProgressBar, json_line, read_history


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
