"""xpnet report: what the page says against the run's own files, that it needs nothing else, and what is refused."""

from __future__ import annotations

import contextlib
import io
import json
import re
import sys

import numpy as np
import pages
import pytest
from test_cli import SMALL, refused

from xpnet.cli import main


def quietly(*argv):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        assert main([str(word) for word in argv]) == 0


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs on digits, one on a table of flats with its data, which no test changes."""
    folder = tmp_path_factory.mktemp("runs")
    for name, options in {"a": (), "b": ("--optimizer", "adam", "--seed", "1")}.items():
        quietly("train", *SMALL, *options, "--device", "cpu", "--out", folder / name)
    rng = np.random.default_rng(0)
    rows = [f"{rng.random():.3f},{'ab'[i % 2]},{i + rng.random():.2f}" for i in range(60)]
    (folder / "flats.csv").write_text("\n".join(["size,<kind>,price", *rows]) + "\n", encoding="utf-8")
    quietly("train", folder / "flats.csv", "--target", "price", "--device", "cpu", "--out", folder / "flats")
    return folder


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch):
    monkeypatch.setenv("XPNET_DEVICE", "cpu")


def written(folder, *argv):
    out = folder / "report.html"
    quietly("report", *argv, "--out", out)
    return out, pages.Page(out)


def rows_of(path, n_cells):
    """The texts of all rows of so many cells, by the first."""
    cells = r"<(?:th|td)[^>]*>([^<]*)</(?:th|td)>"
    found = (
        re.findall(cells, row) for row in re.findall(r"<tr>(.*?)</tr>", path.read_text(encoding="utf-8"), re.DOTALL)
    )
    return {row[0]: row[1:] for row in found if len(row) == n_cells}


def records(run):
    return [json.loads(line) for line in (run / "history.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.full
def test_a_report_of_two_runs_has_the_numbers_of_their_files(runs, tmp_path):
    out, page = written(tmp_path, runs / "a", runs / "b")
    rows, histories = rows_of(out, 3), [records(runs / name) for name in "ab"]
    last = [history[-1] for history in histories]
    chosen = [history[record["chosen_epoch"]] for history, record in zip(histories, last, strict=True)]
    assert rows["val_loss, of the epoch chosen"] == [f"{record['val_loss']:.4g}" for record in chosen]
    assert rows["seconds of training"] == [f"{sum(r['seconds'] for r in history):.4g}" for history in histories]
    assert rows["steps"] == [f"{sum(r['steps'] for r in history):,}" for history in histories]
    configs = [json.loads((runs / name / "config.json").read_text(encoding="utf-8")) for name in "ab"]
    assert rows["processor"] == [config["machine"]["cpu"] for config in configs] and configs[0]["machine"]["cores"]
    assert rows["optimizer"] == ["sgd", "adam"] and rows["seed"] == ["0", "1"]  # settings that differ
    assert "batch-size" not in rows and rows_of(out, 2)["batch-size"] == ["32"]  # and one that does not
    better = min(zip([record["val_loss"] for record in chosen], rows["val_loss, of the epoch chosen"], strict=True))[1]
    assert f'<td class="best">{better}</td>' in out.read_text(encoding="utf-8")
    for caption in ("val_loss", "Confusion matrix", "ROC", "Calibration", "Worst mistakes"):
        assert caption in page.text
    assert out.read_text(encoding="utf-8").count("<svg ") == 3 + 2 * 5


@pytest.mark.full
def test_a_report_of_a_table_has_its_columns_its_errors_and_no_folder(runs, tmp_path):
    out, page = written(tmp_path, runs / "flats")
    text = out.read_text(encoding="utf-8")
    assert rows_of(out, 4)["size"][:2] == ["numbers", "1"] and '<th scope="row">&lt;kind&gt;</th>' in text
    assert {"network", "the mean alone", "least squares"} <= set(rows_of(out, 4))
    assert "Predicted against true values" in page.text and "Residuals" in page.text
    assert "Regression of price." in page.text and "flats.csv, 54 training rows" in page.text
    assert str(runs) not in text.replace(str(runs / "flats"), "")  # but for the run as it was named
    assert "the mean of 4 networks" in page.text


@pytest.mark.full
def test_a_report_needs_no_other_file_and_no_script(runs, tmp_path):
    for argv in ([runs / "a", runs / "b"], [runs / "flats"]):
        out, page = written(tmp_path, *argv)
        text = out.read_text(encoding="utf-8")
        assert [link for link in page.fetched if not link.startswith(("data:", "#"))] == [] and page.links == []
        assert "<script" not in text and "@import" not in text and not re.search(r"url\((?!#)", text)
        ids = re.findall(r'\bid="([^"]+)"', text)
        assert len(ids) == len(set(ids)) and ids  # of all pictures
        assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', text)) <= set(ids)
        if pages.browser() is not None:
            for width in (pages.PHONE, pages.DESKTOP):
                found, errors = pages.seen(out, width, tmp_path)
                assert found <= width and not errors


@pytest.mark.full
def test_without_its_data_a_report_has_curves_and_says_so(runs, tmp_path):
    quietly("train", runs / "flats.csv", "--target", "price", "--epochs", "2", "--out", tmp_path / "gone")
    config = tmp_path / "gone/config.json"
    config.write_text(config.read_text(encoding="utf-8").replace("flats.csv", "gone.csv"), encoding="utf-8")
    out, page = written(tmp_path, tmp_path / "gone")
    assert "its data are not where they were; here is what needs none" in page.text
    assert out.read_text(encoding="utf-8").count("<svg ") == 2 and rows_of(out, 2)["epochs"] == ["2"]


def test_what_cannot_be_reported_is_refused_in_a_line(runs, tmp_path, monkeypatch, capsys):
    out = ["--out", str(tmp_path / "r.html")]
    parts = ("10 outputs, and", "must have one task", "report them apart: xpnet report")
    refused(capsys, ["report", runs / "a", runs / "flats", *out], *parts)
    parts = ("r.pdf", "a page of HTML", "name a file such as r.html")
    refused(capsys, ["report", runs / "a", "--out", tmp_path / "r.pdf"], *parts, code=2)
    untrained = tmp_path / "untrained"
    quietly("train", *SMALL, "--device", "cpu", "--out", untrained)
    (untrained / "history.jsonl").write_text(json.dumps(records(untrained)[0]) + "\n", encoding="utf-8")
    refused(capsys, ["report", untrained, *out], "never trained", "needs an epoch", "xpnet train --resume")
    (untrained / "model.safetensors").unlink()
    refused(capsys, ["report", untrained, *out], "has not ended", "continues it")
    refused(capsys, ["report", tmp_path, *out], "is not a run directory", "`xpnet train` makes one")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    refused(capsys, ["report", runs / "a", *out], "matplotlib", "is not installed", "pip install 'xpnet[plot]'")
    assert not (tmp_path / "r.html").exists()
