"""What a search tries, compares, tells and refuses, of which nothing needs Optuna."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from refusals import refusal, says
from test_cli import refused, refused_by_parser, surroundings  # noqa: F401  a fixture that runs by itself

import xpnet
from xpnet import plots
from xpnet.commands import runs
from xpnet.commands.arguments import UsageError
from xpnet.tuning import report as reports
from xpnet.tuning import workers
from xpnet.tuning.ending import Ending
from xpnet.tuning.search import SEARCH, check_same, given_of, lost
from xpnet.tuning.space import Choice, hidden_of, space_of
from xpnet.tuning.study import optuna_of
from xpnet.tuning.training import fingerprint, load, resolved, train_trial, tried_of
from xpnet.tuning.trials import Trial, best_of, check_any, default_of
from xpnet.tuning.tune import _arguments

TUNE = ["tune", "t.csv", "--target", "y"]


def given(**options):
    return given_of(_arguments({"dataset": "t.csv", "target": "y", **options}))


def space(**options):
    return space_of(given(**options), resolved(given(**options)), 50)


def trial(number, value, end="finished", **tried):
    tried = {"hidden": [64, 32], "lr": 0.003, "weight_decay": 0.0, "dropout": 0.1, "batch_size": 32} | tried
    return Trial(number, {}, tried, end, value, 3, 5, 0.25)


@pytest.fixture
def stand_in(monkeypatch):
    """What is refused before Optuna is used is refused without it too; only its import must pass."""
    monkeypatch.setitem(sys.modules, "optuna", ModuleType("optuna"))


# --- what is searched ------------------------------------------------------------------------------------------------


def test_default_parameters_stand_for_no_option_and_others_for_theirs():
    found = space()
    assert found.default == {
        "width": 64,
        "depth": 2,
        "lr": 0.003,
        "weight_decay": 0.0,
        "dropout": 0.1,
        "batch_size": 32,
    }
    assert hidden_of(64, 2) == [64, 32] and hidden_of(10, 3) == [10, 5, 4]
    assert found.options_of(found.default) == {}
    assert found.options_of(found.default | {"depth": 1}) == {"hidden": [64]}
    assert found.options_of(found.default | {"weight_decay": 0.1}) == {
        "optimizer": "adamw",
        "weight_decay": 0.1,
        "lr": 0.003,
    }
    new = {"width": 20, "depth": 3, "lr": 0.01, "weight_decay": 0.0, "dropout": 0.15000000000000002, "batch_size": 16}
    assert found.options_of(new) == {"hidden": [20, 10, 5], "lr": 0.01, "dropout": [0.15], "batch_size": 16}
    assert found.ranges["batch_size"] == Choice((16, 32))  # not 64 of 50 rows


@pytest.mark.parametrize(
    ("options", "left"),
    [
        ({"hidden": [8]}, {"lr", "weight_decay", "dropout", "batch_size"}),
        ({"lr": 0.1, "batch_size": 32}, {"width", "depth", "weight_decay", "dropout"}),
        ({"optimizer": "adam"}, {"width", "depth", "lr", "dropout", "batch_size"}),
        ({"optimizer": "adamw", "dropout": 0.3}, {"width", "depth", "lr", "weight_decay", "batch_size"}),
        ({"optimizer": "sgd", "layers": [3, 1]}, {"lr", "batch_size"}),
    ],
)
def test_what_is_given_is_not_searched(options, left):
    assert set(space(**options).ranges) == left


def test_a_search_of_nothing(rows):
    with refusal(UsageError, "all that a search varies is given", "one at least must be open", "take `xpnet train`"):
        space(hidden=[8], lr=0.1, dropout=0.0, optimizer="sgd", batch_size=8)


def test_tried_values_have_the_defaults_in_them():
    assert tried_of(given(), {}) == {
        "hidden": [64, 32],
        "lr": 0.003,
        "weight_decay": 0.0,
        "dropout": 0.1,
        "batch_size": 32,
    }
    assert tried_of(given(optimizer="adamw"), {})["weight_decay"] == 0.01
    assert tried_of(given(layers=[3, 8, 1]), {"lr": 0.5}) == {
        "hidden": [8],
        "lr": 0.5,
        "weight_decay": 0.0,
        "dropout": 0.1,
        "batch_size": 32,
    }


# --- one training ----------------------------------------------------------------------------------------------------


def test_a_trial_is_the_training_of_xpnet_train(rows):
    """Without options that of the defaults, with the best epoch's value; it ends where it is poor or stopped."""
    own = given(epochs=20)
    _, data = load(own)
    outcome = train_trial(own, {"hidden": [8]}, data, lambda epoch, value: False, lambda: False)
    assert xpnet.cli.main(["train", *TUNE[1:], "--epochs", "20", "--hidden", "8", "--quiet", "--out", "run"]) == 0
    losses = [record["val_loss"] for record in xpnet.training.records.read_history("run/history.jsonl")]
    assert (outcome.end, outcome.value, outcome.epochs) == ("finished", min(losses), 20)
    assert outcome.epoch == int(np.argmin(losses)) and outcome.seconds > 0
    looks = []
    poor = train_trial(own, {}, data, lambda epoch, value: looks.append((epoch, value)) or epoch == 16, lambda: False)
    assert (poor.end, poor.epochs, [epoch for epoch, _ in looks]) == ("pruned", 16, [8, 16])
    assert looks[1][1] == poor.value <= looks[0][1]
    assert train_trial(own, {}, data, lambda epoch, value: False, lambda: True) is None
    last = train_trial(given(epochs=20, end_with="last"), {"hidden": [8]}, data, lambda *_: False, lambda: False)
    assert (last.value, last.epoch) == (losses[-1], 20)
    diverged = train_trial(own, {"optimizer": "sgd", "lr": 1e30}, data, lambda *_: False, lambda: False)
    assert (diverged.end, diverged.value) == ("diverged", None)


def test_a_score_is_compared_by_its_sign(rows):
    own = given(epochs=12, metrics="r2", monitor="val_r2")
    _, data = load(own)
    outcome = train_trial(own, {}, data, lambda *_: False, lambda: False)
    assert xpnet.cli.main(["train", *TUNE[1:], "--epochs", "12", "--quiet", "--metrics", "r2", "--out", "run"]) == 0
    scores = [record["val_r2"] for record in xpnet.training.records.read_history("run/history.jsonl")]
    assert outcome.value == max(scores) and outcome.epoch == int(np.argmax(scores))
    assert best_of([trial(0, 0.2), trial(1, 0.5), trial(2, 0.9, "pruned")], "val_r2").number == 1


def test_a_search_needs_rows_held_out(rows):
    with refusal(UsageError, "rows held out, and of t.csv none are", "hold some out", "or take more rows"):
        load(given(validation="0"))


def test_the_fingerprint_goes_by_the_rows(rows):
    data = load(given())[1]
    Path("run").mkdir()
    runs.write_config(Path("run"), {"data": {"fingerprint": fingerprint(data)}}, SEARCH)
    check_same(Path("run"), data)
    rows.assign(a=rows["a"].where(rows.index > 0, 0.5)).to_csv("t.csv", index=False)
    with refusal(ValueError, "t.csv gives other rows now", "trials would not compare", "without --resume"):
        check_same(Path("run"), load(given())[1])


# --- which is the best -----------------------------------------------------------------------------------------------


def test_the_best_has_finished_and_is_the_earliest():
    trials = [trial(0, 0.5), trial(1, 0.3), trial(2, 0.3), trial(3, 0.1, "pruned"), trial(4, None, "diverged")]
    assert best_of(trials, "val_loss").number == 1 and default_of(trials).number == 0
    assert check_any(trials, "val_loss", None) is trials[1]
    assert default_of(trials[1:]) is None is best_of(trials[3:], "val_loss")


def test_a_search_without_a_finished_trial():
    with refusal(ValueError, "all 2 trials diverged", "must end with a finite val_loss", "look at the columns"):
        check_any([trial(number, None, "diverged") for number in range(2)], "val_loss", None)
    with refusal(ValueError, "no trial was over", "(after 3 s)", "one must be", "fewer --epochs a trial"):
        check_any([], "val_loss", "after 3 s")


# --- what is told ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("columns", "headings"),
    [
        (None, "trial val_loss hidden lr decay dropout batch epochs seconds"),
        (80, "trial val_loss hidden lr decay dropout batch epochs"),
        (40, "trial val_loss hidden"),
    ],
)
def test_rows_fit_the_terminal(capsys, monkeypatch, columns, headings):
    monkeypatch.setattr(reports, "width_of", lambda file: columns)
    report = reports.TrialReport("val_loss", False, False)
    for each in (trial(0, 0.5), trial(1, 0.41234, hidden=[128, 64, 32]), trial(2, None, "diverged")):
        report.seen(each)
    names, *lines = capsys.readouterr().out.splitlines()
    assert names.split() == headings.split() and all(len(line) <= (columns or 200) for line in [names, *lines])
    assert [line.split()[:2] + line.split()[-1:] for line in lines] == [
        ["0", "0.5000", "*"],
        ["1", "0.4123", "*"],
        ["2", "-", "diverged"],
    ]


@pytest.mark.parametrize(
    ("trials", "told"),
    [
        ([trial(0, 0.5), trial(1, 0.6)], "2 trials, 2 to their end: none is better than the defaults, trial 0, with"),
        (
            [trial(0, 0.5), trial(1, 0.4)],
            "the best is trial 1 with val_loss 0.4000 on the 7 rows held out, 0.1000 (20.0"
            "%) lower than the defaults, trial 0, with 0.5000; chosen by these rows it looks better",
        ),
        (
            [trial(0, None, "diverged"), trial(1, 0.4)],
            "2 trials, 1 to their end: the best is trial 1 with val_loss "
            "0.4000 on the 7 rows held out; the defaults, trial 0, did not come to an end",
        ),
    ],
)
def test_the_closing_line_compares_with_the_defaults(capsys, trials, told):
    reports.print_best(trials, "val_loss", 7, False)
    assert told in capsys.readouterr().out
    found = reports.summary_of(trials, "val_loss")
    assert (found["best"], found["default"]) == (min(t.value for t in trials if t.value), trials[0].value)


def test_the_picture_has_each_value_and_the_best_so_far():
    ends = [(0.5, "finished"), (0.9, "pruned"), (0.3, "finished"), (0.4, "finished"), (None, "diverged")]
    rows = [trial(number, *each).row("val_loss") for number, each in enumerate(ends)]
    ax = plots.trial_values(rows, "val_loss")
    lines = {line.get_label(): line.get_xydata().tolist() for line in ax.get_lines()}
    assert lines["best so far"] == [[0, 0.5], [1, 0.5], [2, 0.3], [3, 0.3], [4, 0.3]]
    assert lines["finished"] == [[0, 0.5], [2, 0.3], [3, 0.4]] and lines["pruned"] == [[1, 0.9]]
    assert {y for _, y in lines["defaults (trial 0)"]} == {0.5} and ax.get_yscale() == "log"
    with refusal(ValueError, "none of the 1 trials is finished", "one must be", "search for longer"):
        plots.trial_values(rows[1:2], "val_loss")


# --- how it ends, and on which cores ---------------------------------------------------------------------------------


def test_the_first_signal_ends_the_search_and_the_second_the_process():
    ending = Ending(None)
    before = signal.getsignal(signal.SIGINT)
    assert not ending.is_over() and Ending(1e-9).reason == "after 1e-09 s"
    with ending.listening():
        os.kill(os.getpid(), signal.SIGINT)
        assert ending.reason == "interrupted" and ending.error is KeyboardInterrupt
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
    beside = threading.Thread(target=lambda: ending.listening().__enter__())  # where Python allows no handler
    beside.start()
    beside.join()
    assert signal.getsignal(signal.SIGINT) is before


def test_threads_of_all_processes_are_no_more_than_the_cores(monkeypatch):
    monkeypatch.setattr(workers, "usable_cores", lambda: 8)
    shares = {(jobs, threads): workers.share_of(jobs, threads) for jobs in (1, 3, 8, 99) for threads in (None, 1, 3)}
    assert all(share.n_jobs * share.threads <= 8 for share in shares.values())
    assert shares[3, None] == workers.Share(3, 2) and shares[99, None] == workers.Share(8, 1)
    assert shares[8, 3] == workers.Share(2, 3) and workers.share_of(8, 16).n_jobs == 1


# --- what is refused -------------------------------------------------------------------------------------------------


def test_options_that_cannot_be_searched(rows, capsys, stand_in):
    refused_by_parser(capsys, [*TUNE, "--trials", "0"], "--trials", "'0' is too small", "at least 1")
    refused_by_parser(capsys, [*TUNE, "--jobs", "0"], "--jobs", "'0' is too small", "at least 1")
    refused(capsys, TUNE[:2], "t.csv is a table", "needs its target", "add --target COLUMN", code=2)
    refused(
        capsys, ["tune", "mnist-sample"], "mnist-sample is none", "options for a table", "with its --target", code=2
    )
    refused(capsys, ["tune", "-", "--target", "y"], "which stdin cannot", "more than once", "name it", code=2)
    refused(capsys, ["tune", "--resume", "t"], "t is not a run directory", "no search.json", "`xpnet tune` makes one")
    Path("full").mkdir()
    Path("full/mine").touch()
    refused(capsys, [*TUNE, "--out", "full"], "--out full", "not an empty directory", "remove it first")


def test_a_missing_extra_is_one_line(rows, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)  # makes `import optuna` fail
    refused(capsys, TUNE, "a search needs Optuna", "is not installed", "Run: pip install 'xpnet[tune]'")
    with refusal(ImportError, "a search needs Optuna", "is not installed", "pip install 'xpnet[tune]'"):
        optuna_of()
    assert not Path("runs").exists()


def test_what_python_refuses(rows, stand_in):
    with refusal(ValueError, "resume is 'r'", "whose search.json has data", "leave them out"):
        xpnet.tune(rows, resume="r")
    with refusal(
        TypeError, "data is a list", "must be a DataFrame of pandas or polars", 'tune("data.csv", target="y")'
    ):
        xpnet.tune([1, 2], target="y")
    with refusal(ValueError, "trials is 0", "at least 1", "Pass trials=1"):
        xpnet.tune(rows, target="y", trials=0)
    with refusal(ValueError, "'nope'", "there is no column", "the columns are a, b, c, y"):
        xpnet.tune(rows, target="nope", out="r")
    with refusal(ValueError, "tune(...) has 'hiden'", "none of the options of", "did you mean 'hidden'?"):
        xpnet.tune("t.csv", target="y", hiden=[3])
    assert not Path("r").exists()  # no directory is left of what did not begin


def test_a_process_that_was_killed():
    says(lost(Path("r"), 4, -9), "trial 4 ended with code -9", "the trials before it are kept", "--resume r --jobs 1`")


def test_a_namespace_has_nothing_of_the_search():
    """What goes into config.json can be repeated by `xpnet train`."""
    own = vars(given(max_seconds=9.0))
    assert not {"trials", "jobs"} & own.keys() and own["max_seconds"] is None
