"""What fits a terminal: no line is wider than it, and what a stream cannot take is told by the exit code."""

from __future__ import annotations

import errno
import io
import os
import re
import sys

import numpy as np
import pytest
from refusals import says
from test_grid import point, result

from xpnet.cli import _parser, main
from xpnet.commands import train
from xpnet.commands.report import say
from xpnet.commands.wording import system_message, table
from xpnet.recipe import attempt
from xpnet.timing import grid
from xpnet.training.memory_plan import MemoryItem, describe_plan

LARGE = [("cpu", 2048, 1024, 123_456_789), ("cuda", 2048, 1024, 1_234_567_890)]


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self):
        return True


@pytest.fixture
def on_terminal(monkeypatch):
    """Run a command on a terminal of that many columns; return the exit code, and all that it prints."""

    def run(argv, columns):
        terminal = Terminal()
        with monkeypatch.context() as patch:
            patch.setenv("COLUMNS", str(columns))
            patch.setattr(sys, "stdout", terminal)
            patch.setattr(sys, "stderr", terminal)
            try:
                code = main(argv)
            except SystemExit as stop:
                code = stop.code
        return code, terminal.getvalue()

    return run


@pytest.fixture
def files(tmp_path, monkeypatch):
    """An empty folder to be in, with rows and labels, and the measures of two machines."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XPNET_DEVICE", "cpu")
    np.save("X.npy", np.random.default_rng(0).random((40, 3)))
    np.save("Y.npy", np.arange(40) % 2)
    for name in ("a.json", "b.json"):
        grid.write(name, result(*LARGE, limits={name: {"flops": 1.0, "bytes": 1.0} for name in ("cpu", "cuda")}))


@pytest.mark.parametrize("columns", [40, *(pytest.param(width, marks=pytest.mark.full) for width in (60, 80, 120))])
def test_no_line_is_wider_than_the_terminal(files, on_terminal, monkeypatch, columns):
    points = [{**point(*p), "engine": "replay"} for p in LARGE]
    monkeypatch.setattr(grid, "measure", lambda *arguments, **options: {**result(), "points": points})
    monkeypatch.setattr(attempt, "epochs", lambda *arguments, **options: sys.exit(7))
    plan = ["train", "X.npy", "--labels", "Y.npy", "--quiet", "--plan", "--out", f"run{columns}"]
    cases = [([], 2), (["--help"], 0), (["trian"], 2), (["train", "--learning-rate", "1"], 2), (["info", "--zzz"], 2)]
    cases += [(["train", "--lr", "x"], 2), (["bench"], 0), (["bench", "--compare", "a.json", "b.json"], 0), (plan, 7)]
    for argv, expected in cases:
        code, text = on_terminal(argv, columns)
        lines = [
            line for line in re.split(r"[\r\n]+", text) if line.strip() and not line.startswith("timing:")
        ]  # the bar fits itself
        assert code == expected and max(map(len, lines)) <= columns, argv


def test_no_help_is_wider_than_the_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    parser = _parser()
    (commands,) = [action.choices for action in parser._actions if action.dest == "command"]
    assert {"train", "info"} < commands.keys()
    for command in (parser, *commands.values()):
        terminal = Terminal()
        command.print_help(terminal)
        assert terminal.getvalue().startswith("usage: xpnet")
        assert max(map(len, terminal.getvalue().split("\n"))) <= 40


def test_a_narrow_table_keeps_what_it_is_printed_for(files, on_terminal, capsys):
    whole = ["batch", "width", "devices", "a", "samples/s", "b", "samples/s", "b", "/", "a"]
    for columns, headings in ((40, ["batch", "width", "devices", "b", "/", "a"]), (120, whole)):
        _, text = on_terminal(["bench", "--compare", "a.json", "b.json"], columns)
        lines = text.splitlines()[2:]
        assert lines[0].split() == headings
        assert lines[1].split()[:3] == ["1024", "2048", "cpu"] and lines[1].split()[-1] == "1"
    assert main(["bench", "--compare", "a.json", "b.json"]) == 0  # no terminal: all of it
    assert capsys.readouterr().out.splitlines()[2].split() == whole


def test_columns_go_in_the_order_given_until_the_lines_fit():
    rows = [["a", "name", "value"], ["100", "x", "5"]]
    assert table(rows, [1], [2, 0], None) == "  a  name  value\n100  x         5"
    assert table(rows, [1], [2, 0], 16) == table(rows, [1], [2, 0], None)
    assert table(rows, [1], [2, 0], 15) == "  a  name\n100  x"
    assert table(rows, [1], [2, 0], 8) == table(rows, [1], [2, 0], 1) == "name\nx"


def test_a_plan_loses_its_notes_and_then_its_places():
    plan = [MemoryItem("theta", 1 << 20, "device", "7 parameters"), MemoryItem("order", 0, "host", "")]
    lines = ["theta  1.000 MiB  device  7 parameters", "order  0.000 MiB  host", "sum    1.000 MiB"]
    assert describe_plan(plan).split("\n") == describe_plan(plan, 38).split("\n") == lines
    for width, kept in ((37, 24), (23, 16), (1, 16)):
        assert [line.rstrip() for line in describe_plan(plan, width).split("\n")] == [
            line[:kept].rstrip() for line in lines
        ]


@pytest.mark.parametrize("argv", [["--version"], ["--help"], ["train", "--help"], []])
@pytest.mark.skipif(sys.platform != "linux", reason="has no /dev/full")
def test_help_that_stdout_cannot_take_is_a_failure(monkeypatch, capfd, argv):
    with open("/dev/full", "w", encoding="utf-8") as full, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", full)
        code = main(argv)
    says(capfd.readouterr().err.strip(), "No space left on device", "free some space")
    assert code == 1


@pytest.mark.skipif(sys.platform != "linux", reason="has no /dev/full")
def test_the_exit_code_stands_where_stderr_cannot_take_the_words(monkeypatch):
    with open("/dev/full", "w", encoding="utf-8") as full, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", full)
        assert main(["evaluate", "nothing"]) == 1
        assert main(["predict", "run", "X.npy", "--out", "X.npy"]) == 2
        with pytest.raises(SystemExit) as stop:
            main(["train", "--lr", "x"])
        assert stop.value.code == 2
        full.buffer.raw.close()  # what it holds has nowhere to go


def test_memory_that_is_too_small_is_told_in_the_words_of_options(files, monkeypatch, capsys):
    def load(*arguments):
        raise MemoryError("Unable to allocate 22.4 GiB for an array")

    monkeypatch.setattr(train, "load_data", load)
    assert main(["train", "X.npy", "--labels", "Y.npy"]) == 1
    says(capsys.readouterr().err.strip(), "too little memory", "22.4 GiB", "take fewer samples, smaller --layers")


@pytest.fixture(scope="module")
def parser():
    return _parser()


def refused(capsys, parser, *argv):
    with pytest.raises(SystemExit) as stop:
        parser.parse_args(argv)
    assert stop.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("flag", ["--lr", "--labels", "--seed", "--l2-summed", "--out"])
def test_two_dashes_are_no_value(capsys, parser, flag):
    says(
        refused(capsys, parser, "train", f"{flag}=--"),
        f"{flag} has no value",
        "'--', which ends the options",
        "give a value",
    )


def test_a_value_is_quoted_in_part(capsys, parser):
    for flag in ("--lr", "--epochs", "--layers", "--dropout", "--validation", "--optimizer"):
        assert len(refused(capsys, parser, "train", f"{flag}={'x' * 5000}")) < 700
    assert len(refused(capsys, parser, "train", f"--{'x' * 5000}")) < 200
    assert len(refused(capsys, parser, "describe", "a", "x" * 5000)) < 500
    assert len(refused(capsys, parser, "x" * 5000)) < 300
    assert main(["train", "x" * 5000]) == 1 and len(capsys.readouterr().err) < 500
    assert refused(capsys, parser, "describe", "a", "\x1b[31m\n\udcff").isprintable()


def test_numbers_that_memory_cannot_hold_are_refused(capsys, parser):
    last = refused(capsys, parser, "find-lr", "--steps", "3000000000")
    says(last, "argument --steps", "3000000000 is too large", "give a whole number of at most 1000000")
    last = refused(capsys, parser, "describe", "--threads", "999999999")
    says(last, "argument --threads", "999999999 is too large", "at most 256")


def test_what_the_system_refuses_has_a_cure_of_its_own():
    for number, cure in (
        (errno.EMFILE, "limit of open files"),
        (errno.ENAMETOOLONG, "shorter"),
        (errno.ELOOP, "links"),
    ):
        says(system_message(OSError(number, os.strerror(number), "X.npy")), "X.npy: ", os.strerror(number), cure)
    assert system_message(OSError(errno.EACCES, "Permission denied", "a")).endswith("; name a place that you may use")


def test_names_of_a_file_do_nothing_to_the_terminal_in_what_is_said(capsys):
    say("a column \x1b[31m of\u2028the  file")
    assert capsys.readouterr().err == "a column \\x1b[31m of\\u2028the  file\n"
