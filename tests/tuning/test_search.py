"""xpnet tune and xpnet.tune by Optuna: the trials, the run they leave, and how a search is stopped and continued."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_cli import json_lines, names, refused, surroundings  # noqa: F401  a fixture that runs by itself
from test_trials import space

import xpnet
from xpnet.cli import main
from xpnet.training.records import read_history
from xpnet.tuning import command, workers
from xpnet.tuning.study import Outcome, Study

optuna = pytest.importorskip("optuna")

SHORT = ["--target", "y", "--epochs", "9"]
TUNE = ["tune", "t.csv", *SHORT]
RUN = ["checkpoint.safetensors", "config.json", "history.jsonl", "model.safetensors", "table.json"]
SEARCH = ["search.json", "trials.csv", "trials.journal"]


def table(run):
    return pd.read_csv(Path(run) / "trials.csv").drop(columns="seconds")


def test_a_search_in_a_path_that_stdout_cannot_encode(rows, monkeypatch):
    out = io.BytesIO()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", io.TextIOWrapper(out, encoding="ascii"))
        assert main([*TUNE, "--trials", "1", "--out", "\u00e9\udcff"]) == 0
        sys.stdout.flush()
        assert r"-> \xe9\udcff" in out.getvalue().decode("ascii")


def test_a_search_leaves_a_run_of_its_best(rows, capsys):
    rows.iloc[::7].to_csv("test.csv", index=False)
    assert main([*TUNE, "--trials", "4", "--test", "test.csv", "--out", "run"]) == 0
    told = capsys.readouterr()
    assert names("run") == sorted(RUN + SEARCH)
    trials = pd.read_csv("run/trials.csv")
    assert trials["trial"].tolist() == [0, 1, 2, 3] and len(re.findall("^ +[0-3] ", told.out, re.MULTILINE)) == 4
    assert trials.iloc[0][["hidden", "lr", "dropout", "batch_size"]].tolist() == ["64,32", 0.003, 0.1, 32]
    best = trials.loc[trials["val_loss"][trials["end"] == "finished"].idxmin()]
    assert f"the best is trial {best['trial']} with val_loss" in told.out and "lower than the defaults" in told.out
    config = json.loads(Path("run/config.json").read_text(encoding="utf-8"))
    assert config["options"]["lr"] == best["lr"] and not {"trials", "jobs", "out"} & config["options"].keys()
    # It is the run that `xpnet train` makes of these options, and the defaults are those of `xpnet train`.
    assert main(["train", "--config", "run/config.json", "--out", "again", "--quiet"]) == 0
    for name in ("model.safetensors", "table.json"):
        assert Path("run", name).read_bytes() == Path("again", name).read_bytes()
    assert best["val_loss"] == min(record["val_loss"] for record in read_history("again/history.jsonl"))
    assert main(["train", "t.csv", *SHORT, "--quiet", "--out", "defaults"]) == 0
    assert trials["val_loss"][0] == min(record["val_loss"] for record in read_history("defaults/history.jsonl"))
    # Commands on runs work, and the test rows are measured at the end alone.
    assert told.out.count("test loss") == 1 and "test" not in "".join(trials.columns)
    for argv in (["evaluate", "run"], ["predict", "run", "t.csv", "--out", "p.csv"], ["train", "--resume", "run"]):
        assert main(argv) == 0, argv
    model = xpnet.load("run")
    np.testing.assert_allclose(model.predict(rows)["y"], pd.read_csv("p.csv")["y"], rtol=1e-6)


@pytest.mark.full
def test_json_and_pictures(rows, capsys):
    assert main([*TUNE, "--trials", "2", "--json", "--quiet", "--plot", "--hidden", "4", "--out", "run"]) == 0
    told = capsys.readouterr()
    *trials, found, summary = json_lines(told.out)
    assert [each["trial"] for each in trials] == [0, 1] and {each["hidden"] for each in trials} == {"4"}
    assert found["best"] == min(each["val_loss"] for each in trials) and found["default"] == trials[0]["val_loss"]
    assert summary["run"] == "run" and told.err == ""
    assert Path("run/trials.png").read_bytes()[:4] == b"\x89PNG" and Path("run/loss.png").is_file()


def stop_after(monkeypatch, number):
    """Have a signal arrive when trial 1 is over."""
    seen = command.TrialReport.seen

    def told(self, trial):
        seen(self, trial)
        if trial.number == 1:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(command.TrialReport, "seen", told)


@pytest.mark.full
@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_a_signal_saves_the_best_so_far(rows, capsys, monkeypatch, number, code, word):
    with monkeypatch.context() as patch:
        stop_after(patch, number)
        assert main([*TUNE, "--trials", "9", "--out", "run"]) == code
    assert f"{word}: the search ends after 2 trials; --resume run continues it" in capsys.readouterr().err
    assert len(table("run")) == 2 and xpnet.load("run")
    # Continued, it has the trials and the model of one that was never stopped.
    assert main(["tune", "--resume", "run", "--trials", "3", "--quiet"]) == 0
    assert main([*TUNE, "--trials", "3", "--quiet", "--out", "whole"]) == 0
    assert table("run").equals(table("whole"))
    assert Path("run/model.safetensors").read_bytes() == Path("whole/model.safetensors").read_bytes()


@pytest.mark.full
def test_a_killed_search_continues_with_its_finished_trials(rows, capsys):
    assert main([*TUNE, "--trials", "3", "--quiet", "--out", "whole"]) == 0
    Path("run").mkdir()
    Path("run/search.json").write_bytes(Path("whole/search.json").read_bytes())
    lines = Path("whole/trials.journal").read_bytes().splitlines(keepends=True)
    began = [i for i, line in enumerate(lines) if json.loads(line)["op_code"] == 4]  # of each trial
    for cut in (began[1] + 4, began[0] + 1):  # amid trial 1, and before trial 0 began
        Path("run/trials.journal").write_bytes(b"".join(lines[:cut]) + lines[cut][:9])  # the last line is torn
        capsys.readouterr()
        assert main(["tune", "--resume", "run"]) == 0
        assert ("it goes on after 1 trial" in capsys.readouterr().err) == (cut > began[1])
        assert table("run").equals(table("whole"))


def test_a_stopped_trial_is_tried_again_by_its_number(tmp_path):
    """Also the default, where another process was faster."""

    def opened():
        return Study(tmp_path / "journal", space(), "val_loss", 0, lambda options: {})

    study = opened()
    (first, default), (second, options) = study.ask(), study.ask()
    assert (first, default, second) == (0, {}, 1) and options
    study.tell(second, Outcome("finished", 0.5, 1, 9, 0.1))
    study.tell(first, None)
    assert opened().ask() == (0, {}) and opened().ask() == (0, {})  # the second as if killed
    study = opened()
    assert study.ask() == (0, {}) and study.ask()[0] == 2
    assert [(each.number, each.value) for each in study.trials()] == [(1, 0.5)]


@pytest.mark.full
def test_several_at_a_time(rows, capsys, monkeypatch):
    """Their trials are of the same numbers, and the first is that of one process."""
    monkeypatch.setattr(workers, "usable_cores", lambda: 2)
    assert main([*TUNE, "--trials", "3", "--jobs", "4", "--out", "two"]) == 0
    assert "--jobs 4: 2 at a time, as the cores allow" in capsys.readouterr().err
    assert main([*TUNE, "--trials", "1", "--quiet", "--out", "one"]) == 0
    assert table("two")["trial"].tolist() == [0, 1, 2] and table("two").iloc[:1].equals(table("one"))


@pytest.mark.full
def test_a_process_that_is_killed_ends_the_search(rows, capsys, monkeypatch):
    monkeypatch.setattr(workers, "usable_cores", lambda: 2)

    class Killed(workers.Workers):
        def hear(self, seconds):
            self._processes[0].kill()
            return super().hear(seconds)

    with monkeypatch.context() as patch:
        patch.setattr(workers, "Workers", Killed)
        assert main([*TUNE, "--trials", "3", "--jobs", "2", "--quiet", "--out", "run"]) == 1
    assert re.search(
        r"the process that trained trial \d ended with code -9.*--resume run --jobs 1`", capsys.readouterr().err
    )
    assert main(["tune", "--resume", "run", "--quiet"]) == 0 and len(table("run")) == 3


def test_a_search_that_is_too_short_or_diverges(rows, capsys):
    slow = [*TUNE, "--epochs", "100000", "--patience", "0", "--max-seconds", "0.3", "--quiet", "--out", "short"]
    refused(capsys, slow, "no trial was over", "(after 0.3 s)", "one must be", "fewer --epochs a trial")
    wild = [*TUNE, "--optimizer", "sgd", "--lr", "1e30", "--trials", "2", "--quiet", "--out", "wild"]
    refused(capsys, wild, "all 2 trials diverged", "must end with a finite val_loss", "look at the columns")
    assert table("wild")["end"].tolist() == ["diverged"] * 2 and not Path("wild/model.safetensors").exists()


def test_what_cannot_be_continued(rows, capsys):
    assert main([*TUNE, "--trials", "1", "--quiet", "--out", "run"]) == 0
    capsys.readouterr()
    refused(capsys, ["tune", "--resume", "run", "--lr", "1"], "search.json", "leave --lr out", "or tune again", code=2)
    rows.iloc[1:].to_csv("t.csv", index=False)
    refused(capsys, ["tune", "--resume", "run"], "gives other rows now", "trials would not compare", "without --resume")


@pytest.mark.full
def test_python_returns_trials_options_and_the_model(rows):
    mixed = rows.assign(m=[[1, "x", None][i % 3] for i in range(len(rows))])
    assert xpnet.tune(mixed, target="y", trials=1, epochs=1, out="mixed").model.predict(mixed.head(2)).shape == (2, 1)
    found = xpnet.tune(rows, target="y", trials=2, epochs=9, out="run")
    assert found.trials["trial"].tolist() == [0, 1] and found.measure == "val_loss" and found.run == Path("run")
    assert found.model.predict(rows.head(3)).columns.tolist() == ["y"]
    assert found.plot().get_ylabel() == "validation loss"
    again = xpnet.tune("t.csv", target=["y"], trials=3, epochs=9, out="other")
    more = xpnet.tune(resume="run", trials=3)
    assert more.options == again.options and set(more.options) <= {
        *("hidden", "lr", "dropout", "batch_size", "optimizer", "weight_decay")
    }
    pd.testing.assert_frame_equal(more.trials.drop(columns="seconds"), again.trials.drop(columns="seconds"))


def test_poor_trials_are_pruned_by_the_median_of_the_others(tmp_path):
    study = Study(tmp_path / "journal", space(), "val_loss", 0, lambda options: {})
    for number in range(5):
        asked, _ = study.ask()
        assert asked == number and not study.is_poor(number, 8, float(number))
        study.tell(number, Outcome("finished", float(number), 1, 9, 0.1))
    for value, is_poor in ((2.0, False), (3.0, True)):
        number, _ = study.ask()
        assert study.is_poor(number, 8, value) is is_poor
        study.tell(number, Outcome("pruned", value, 8, 8, 0.1))
    assert [trial.value for trial in study.trials()] == [0.0, 1.0, 2.0, 3.0, 4.0, 2.0, 3.0]
    assert optuna.logging.get_verbosity() == optuna.logging.INFO  # as it was
