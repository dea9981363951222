"""What was found, what is needed and the fix, in the words of whoever reads: calls for Python, options for a shell."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import termios
import threading
from pathlib import Path

import numpy as np
import pytest
from refusals import SAID, says, unsaid

import xpnet
from xpnet import __main__
from xpnet.cli import main
from xpnet.commands.wording import system_message
from xpnet.program.calls import RecordingError
from xpnet.program.recorder import record
from xpnet.training.callbacks import HistoryFile

CHECKOUT = Path(__file__).parents[1]
COMMAND = [sys.executable, "-m", "xpnet"]
CPU = xpnet.select_backend("cpu")
SMALL = ["train", "--epochs", "2", "--layers", "784,4,10", "--out", "run"]


@pytest.fixture(autouse=True)
def surroundings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XPNET_DEVICE", "cpu")
    monkeypatch.setenv("PYTHONPATH", str(CHECKOUT))


def network():
    return xpnet.Network([3, 2], loss="squared_error", backend=CPU)


def resumed():
    data = xpnet.Dataset(np.zeros((3, 4)), np.zeros((2, 4)))
    return xpnet.train(
        xpnet.Network([3, 2], loss="squared_error", backend=CPU), data, xpnet.SGD(), epochs=1, resume=True
    )


@pytest.mark.parametrize(
    ("call", "found", "needed", "fix"),
    [
        (lambda: xpnet.SGD(learning_rate=0.3), "SGD has no learning_rate", "it takes lr, l1", "SGD(lr=0.3)"),
        (lambda: xpnet.AdamW(decay=1), "AdamW has no decay", "lr, weight_decay, beta1", "AdamW(lr="),
        (lambda: network().save(3), "path is 3 (int)", "path of a file", 'network.save("'),
        (lambda: xpnet.Network.load(None), "path is None", "path of a file", 'Network.load("'),
        (lambda: xpnet.Checkpoint(True), "path is True (bool)", "path of a file", 'Checkpoint("'),
        (lambda: HistoryFile(1), "path is 1 (int)", "path of a file", 'HistoryFile("'),
        (lambda: xpnet.standardize(3), "given a int", "it needs Datasets", "Dataset(X, Y)"),
        (resumed, "resume is True (bool)", "path of a file", 'resume="'),
        (lambda: network().predict(np.ones((3, 1))), "X is float64", "in float32", "network.backend.to_device(X)"),
        (lambda: network().predict([[1.0]]), "X is a builtins.list", "numpy on cpu", "network.backend.to_device(X)"),
    ],
)
def test_a_wrong_type_is_told_with_the_call(call, found, needed, fix):
    with pytest.raises(TypeError) as error:
        call()
    says(error, found, needed, fix)


def rows(labels, *options):
    """Write rows with these labels when called, and return the command that trains on them."""

    def command():
        np.save("X.npy", np.random.default_rng(0).random((40, 3)).astype(np.float32))
        np.save("Y.npy", labels)
        sizes = "3,1" if labels.dtype.kind == "f" else "3,2"
        return [
            "train",
            "--dataset",
            "X.npy",
            "--labels",
            "Y.npy",
            "--epochs",
            "1",
            "--layers",
            sizes,
            "--out",
            "run",
            *options,
        ]

    return command


FLOATS = np.linspace(-1.0, 2.0, 40)


def words(*argv):
    return lambda: list(argv)


@pytest.mark.parametrize(
    ("argv", "found", "needed", "fix"),
    [
        (words("train", "--target-score", "95"), "--target-score is 95", "val_accuracy is at most 1", "such as 0.95"),
        (words("train", "--target-score", "-1", "--monitor", "val_loss"), "-1", "val_loss is at least 0", "above it"),
        (words("train", "--out", "/proc/x"), "/proc/x: No such file", "folder", "name another place"),
        (rows(FLOATS, "--loss", "poisson"), "has -1", "at least 0", "use loss='squared_error'"),
        (rows(FLOATS, "--loss", "sigmoid_cross_entropy"), "has -1 to 2", "0 to 1", "loss='squared_error'"),
        (rows(FLOATS > 0), "Y.npy holds bool", "whole numbers for classes", "Y.astype(np.int64)"),
        (rows(np.full(40, -1)), "label -1", "whole numbers from 0", "save targets"),
        (rows(FLOATS * 1e300), "too large for float32", "Scale it", "dtype='float64'"),
        (words("train", "--lr", "1e38", "--out", "run"), "(last fin", "epoch", "lower the learning rate (lr is 1"),
        (words("train", "--patience", "2", "--min-delta", "-1"), "--min-delta is -1", "at least 0", "give another"),
        (words("bench", "--out", "a.yaml"), "--out a.yaml ends in '.yaml'", "name a", ".json file"),
        (words("train", "--l2", "-1"), "--l2 is -1", "at least 0", "give another"),
    ],
)
def test_a_command_speaks_of_its_options(capfd, argv, found, needed, fix):
    assert main(argv()) in (1, 2)
    line = capfd.readouterr().err.splitlines()[-1]
    says(line, "xpnet: ", found, needed, fix)
    assert not re.search(r"Errno|Dataset|xpnet\.|\w\(\w+=", line)


@pytest.mark.parametrize(
    ("code", "found", "needed", "fix"),
    [
        ("lr.T", "lr is a ", "only a matrix", "matrix_in or batch_matrix"),
        ("xp.add(lr, out=lr)", "add was given 1 operands", "takes 2", "fewer operands"),
        ("xp.exp(lr, out=3)", "writes to int", "must be a Buffer", "with the recorder"),
        ("xp.add(1, 2, out=lr)", "numbers only", "buffers of one kind", "give it at least one"),
        ("xp.add(key, -1, out=key)", "got [-1]", "0 to 2**32 - 1", "modulo 2**32"),
        ("xp.exp(key, out=lr)", "from uint32 to float (lr)", "does not go", "another kind"),
        (
            "xp.sum(X, axis=2, keepdims=True, out=lr)",
            "got axis=2",
            "axis=0 or axis=1 and keepdims=True",
            "write sum(X, axis=1, keepdims=True, out=...)",
        ),
        ("xp.sum(X, axis=0, keepdims=True, out=X)", "out is X", "a vector", "make out like that"),
        ("xp.matmul(X, 2.0, out=X)", "got 2.0", "takes matrices", "matrix_in or batch_matrix"),
        ("xp.matmul(X, X, out=X)", "X (3, 4) times X", "does not give", "with .T"),
        ("xp.add(X, V, out=X)", "V (5, 4)", "does not fit X (3, 4)", "give it that shape"),
    ],
)
def test_a_call_that_cannot_be_recorded_says_what_can(code, found, needed, fix):
    def build(r):
        names = {
            "xp": r.xp,
            "lr": r["lr"],
            "X": r.batch_matrix("X", 3),
            "V": r.batch_matrix("V", 5),
            "key": r.flat("key", 1, "uint32"),
        }
        eval(code, names)

    with pytest.raises(RecordingError) as error:
        record(build, batch=4, n_parameters=16, slots=("lr",))
    says(error, found, needed, fix)


@pytest.mark.parametrize(
    ("argv", "found", "needed", "fix"),
    [
        (
            ["--epochs", "9" * 30],
            "'999999999999999999999999999999' is too large",
            "a whole number",
            "at most 15 digits",
        ),
        (["--epochs", "-3"], "-3", "whole number of at least 0", "write its digits, such as 10"),
        (["--batch-size", "0"], "'0' is too small", "give a whole number", "of at least 1"),
        (["--layers", "784,99999999999,10"], "a size too large", "at most 10 digits", "as 784,100,200,10"),
        (["--layers", "784"], "'784' is not", "a list of sizes", "write them as 784,100,200,10"),
        (
            ["--output", "softmax"],
            "'softmax' is no activation here",
            "it is in the loss",
            "--loss softmax_cross_entropy",
        ),
        (["--lr", "0"], "'0' is not", "a finite number above 0", "write one such as 0.1"),
        (["--l2", "nan"], "'nan' is not", "a finite number", "write one such as "),
        (["--dropout", "1"], "'1' is not", "a rate from 0 to below 1", "write one as 0.5, or several as 0.2,0.5"),
        (
            ["--validation", "1.5"],
            "'1.5' is neither",
            "a number of samples nor a fraction",
            "write one such as 1000 or 0.1",
        ),
    ],
)
def test_the_parser_says_what_is_wrong_with_a_value(capsys, argv, found, needed, fix):
    with pytest.raises(SystemExit):
        main(["train", *argv])
    usage, last = capsys.readouterr().err.splitlines()
    assert usage == "usage: xpnet train [DATA] [OPTIONS]"
    says(last, found, needed, fix)
    assert "did you mean" not in last


def test_a_command_without_its_data_names_the_flag(capsys):
    with pytest.raises(SystemExit):
        main(["predict", "run", "--out", "Y.csv"])
    says(capsys.readouterr().err.splitlines()[-1], "required: a file", "or --input", "name the file to read")


def test_a_far_name_is_no_guess(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--activation", "swish"])
    assert "did you mean" not in capsys.readouterr().err


def test_predictions_that_cannot_be_written_are_refused_first(capsys):
    assert main([*SMALL, "--quiet"]) == 0
    np.save("X.npy", np.zeros((3, 784), np.float32))
    capsys.readouterr()
    assert main(["predict", "run", "X.npy", "--out", "nowhere/Y.csv"]) == 1
    says(capsys.readouterr().err.strip(), "--out nowhere/Y.csv", "no folder nowhere", "make it first")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (PermissionError(13, "Permission denied", "a/b"), "a/b: Permission denied; name a place that you may use"),
        (OSError(28, "No space left on device"), "No space left on device; free some space, or name another place"),
        (FileNotFoundError("there is no file a; write it"), "there is no file a; write it"),
    ],
)
def test_errors_of_the_system_have_a_cure_and_no_number(error, text):
    assert system_message(error) == text


def test_labels_of_whole_floats_are_pointed_out(capsys):
    assert main(rows(np.arange(40.0) % 3, "--validation", "0")()) == 0
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("labels: "))
    says(line, "numbers and not classes", "Y.astype(np.int64)")


def test_find_lr_on_a_flat_loss(capsys):
    argv = ["find-lr", "--layers", "784,4,10", "--lr-start", "1e-12", "--lr-end", "1e-9"]
    assert main(argv) == 1
    says(capsys.readouterr().err.strip(), "no suggestion", "did not fall beyond its noise", "raise --lr-end")


def test_commands_take_no_message_of_the_library_apart():
    """What they need of an error or a warning is a field or a class of it, not a pattern in its words."""
    for path in (CHECKOUT / "xpnet" / "commands").glob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"str\(\w+\)\.|\{error\}\.|filterwarnings|(error|failure|warning)\.args", text), path


def test_the_best_epoch_is_marked(capsys):
    assert main([*SMALL, "--epochs", "4", "--lr", "3"]) == 0
    _, *table, summary = capsys.readouterr().out.splitlines()
    losses = [float(row.split()[2]) for row in table]
    better = [i for i in range(1, 5) if losses[i] < min(losses[:i])]
    assert [i for i, row in enumerate(table) if row.endswith(" *")] == better
    best = f"best val_loss in epoch {better[-1]} (*)" if better else "best"
    assert (best in summary) == bool(better)


def on_terminal(argv, columns, **more):
    """What a command writes on a terminal of so many columns."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, columns))
    child = subprocess.Popen(
        [*COMMAND, *argv],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "COLUMNS": str(columns), **more},
    )
    os.close(theirs)
    parts = []
    try:
        while part := os.read(ours, 1 << 16):
            parts.append(part)
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    return child.wait(300), b"".join(parts).decode()


@pytest.mark.full
@pytest.mark.parametrize("columns", [40, pytest.param(80, marks=pytest.mark.full)])
def test_a_terminal_is_not_overrun(columns):
    code, text = on_terminal([*SMALL], columns, NO_COLOR="1")
    assert code == 0 and "\x1b[3" not in text  # no colour
    lines = [line for line in re.split(r"[\r\n]+", text) if " -> " not in line]
    assert max(len(line) for line in lines) <= columns
    assert ("steps/s  seconds" in text) == (columns == 80)
    code, text = on_terminal(["--help"], columns)
    assert (code == 0 and "xpnet train\r\n" in text) or columns == 80
    code, text = on_terminal(["info"], columns)
    lines = [line.strip() for line in text.split("\r\n") if len(line) > columns]
    assert code == 0 and not any(" " in line for line in lines)  # a word may be longer


def test_info_tells_no_home(capsys, monkeypatch):
    monkeypatch.setenv("HOME", str(CHECKOUT))
    monkeypatch.setenv("XPNET_CACHE", str(CHECKOUT / "code"))
    monkeypatch.setenv("SECRET_TOKEN", "hush")
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    assert str(CHECKOUT) not in out and "hush" not in out
    for name in (
        "xpnet",
        "python",
        "numpy",
        "packages",
        "system",
        "cpu",
        "memory",
        "blas",
        "threads",
        "compiled",
        "device",
    ):
        assert re.search(rf"^{name} +\S", out, re.M)


def test_info_shortens_nothing_but_the_home(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "ann"))
    monkeypatch.setenv("XPNET_CACHE", str(tmp_path / "anna"))
    assert main(["info"]) == 0
    assert f"cache {tmp_path / 'anna'}: none yet" in capsys.readouterr().out


INTERRUPTS = """
import os, runpy, signal, sys
class Finder:
    def find_spec(name, *place):
        if name == "numpy":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder)
runpy.run_module("xpnet", run_name="__main__", alter_sys=True)
"""


def test_an_interrupt_while_importing_is_no_traceback(ctrl_c):
    done = subprocess.run([sys.executable, "-c", INTERRUPTS], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "xpnet: interrupted\n")


@pytest.mark.parametrize(("code", "exits"), [(130, [130]), (143, [143]), (1, []), (0, [])])
def test_a_process_that_was_stopped_waits_for_no_thread(monkeypatch, code, exits):
    """Such as one in which LLVM compiles."""
    left, end = [], threading.Event()
    monkeypatch.setattr("xpnet.cli.main", lambda: code)
    monkeypatch.setattr(os, "_exit", left.append)
    thread = threading.Thread(target=end.wait)
    thread.start()
    try:
        assert __main__.main() == code
    finally:
        end.set()
        thread.join()
    assert left == exits


def test_the_data_of_a_run_in_the_package_lie_nowhere_else(capsys):
    assert main(SMALL) == 0
    capsys.readouterr()
    assert main(["evaluate", "run", "--data-dir", "elsewhere"]) == 2
    says(capsys.readouterr().err.strip(), "--data-dir is elsewhere", "lie in the package", "leave it out")


def test_a_monitor_of_held_out_samples_needs_some(capsys):
    assert main([*SMALL, "--validation", "0", "--patience", "2", "--monitor", "val_loss"]) == 2
    says(
        capsys.readouterr().err.strip(),
        "--validation 0",
        "leaves nothing to measure val_loss on",
        "hold some samples out",
    )
    assert not Path("run").exists()


def test_a_folder_that_cannot_be_written_is_refused_before_the_work(capsys, monkeypatch):
    assert main(SMALL) == 0
    np.save("X.npy", np.zeros((2, 784)))
    capsys.readouterr()
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # whoever runs the tests may write everywhere
    assert main(["predict", "run", "--input", "X.npy", "--out", "Y.npy"]) == 1
    says(capsys.readouterr().err.strip(), "--out Y.npy", "cannot be written", "name another")


def test_the_functions_take_arrays_of_a_library():
    class Strange:
        dtype, ndim, shape = np.dtype(float), 2, (2, 1)

    with pytest.raises(TypeError) as refusal:
        xpnet.functional.loss(Strange(), Strange())
    says(refusal, "is a Strange", "it must be a numpy", "np.asarray(")


class OfAnotherDevice:
    """An array of DLPack on a device that is neither a CPU nor a CUDA GPU.  kind: DLPack's number; 10 is ROCm."""

    def __init__(self, kind=10):
        self._kind = kind

    def __dlpack_device__(self):
        return (self._kind, 0)


ROWS, LABELS = np.arange(24.0).reshape(12, 2), np.arange(12) % 2


@pytest.mark.parametrize(
    ("call", "found", "needed", "fix"),
    [
        (
            lambda: xpnet.MLPRegressor(early_stopping=True).fit(ROWS[:5], LABELS[:5]),
            "The validation set is too small. Increase 'validation_fraction'",
            "of 5 samples is 1, and 2 are needed",
            "raise validation_fraction",
        ),
        (
            lambda: xpnet.MLPClassifier(early_stopping=True).partial_fit(ROWS, LABELS, classes=[0, 1]),
            "early_stopping=True",
            "does not support",
            "pass early_stopping=False",
        ),
        (
            lambda: xpnet.MLPRegressor().partial_fit(1e200 * ROWS, LABELS),
            "the loss is inf",
            "scale the features",
            "lower learning_rate_init",
        ),
        (
            lambda: xpnet.MLPRegressor().fit(OfAnotherDevice(), LABELS),
            "OfAnotherDevice lies on a device",
            "it must lie on the CPU or a CUDA GPU",
            "copy it to the host first",
        ),
        (
            lambda: xpnet.MLPRegressor().fit(OfAnotherDevice(13), LABELS),
            "OfAnotherDevice lies in memory that CUDA moves",
            "it must lie on the CPU or a CUDA GPU",
            "copy it to the host first",
        ),
        (
            lambda: (
                xpnet.MLPClassifier()
                .partial_fit(ROWS, LABELS, classes=[0, 1])
                .partial_fit(ROWS, LABELS, classes=[0, 2])
            ),
            "[0, 2]",
            "not the same as on last call",
            "leave classes out",
        ),
        (lambda: xpnet.MLPRegressor().coefs_, "this MLPRegressor", "is not fitted yet", "call fit first"),
        (
            lambda: xpnet.MLPRegressor().fit(ROWS, LABELS, np.zeros(12)),
            "at least one non-zero number",
            "all zero",
            "leave sample_weight out",
        ),
        (lambda: xpnet.MLPClassifier().fit(ROWS, None), "y is None", "requires y", "fit(X, y)"),
        (
            lambda: xpnet.plots.LiveCurve().on_train_begin(network(), 1, 1),
            "this is none",
            "draws into a notebook",
            "xpnet.plots.loss_curve(history)",
        ),
    ],
)
def test_estimators_and_pictures_say_found_needed_and_fix(call, found, needed, fix):
    with np.errstate(all="ignore"), pytest.raises((TypeError, ValueError, RuntimeError, AttributeError)) as refusal:
        call()
    says(refusal, found, needed, fix)


def test_the_rule_of_a_whole_run_finds_a_message_that_nobody_asserts():
    """See conftest.py: the texts that `says` has seen with their fix are held against all messages of the source."""
    said = unsaid(["optimizer is 3; it must be an optimizer such as xpnet.SGD(lr=0.1)"])
    (found,) = set(unsaid([])) - set(said)
    assert found.startswith("training/options.py:") and len(said) > 400
    text = "x is 3, needed is 4; pass x=4"
    says(text, "x is 3", "needed", "is 4")
    assert text not in SAID
    says(text, "x is 3", "needed is 4", "pass x=4")
    SAID.remove(text)


def test_info_without_a_home(capsys, monkeypatch):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    monkeypatch.delenv("XPNET_CACHE")
    assert main(["info"]) == 0
    assert "no cache: there is no home folder" in " ".join(capsys.readouterr().out.split())


def test_what_a_file_holds_does_nothing_to_the_terminal(capsys):
    assert main(["evaluate", "no\x1b[31mwhere\udcff"]) == 1
    assert r"xpnet: no\x1b[31mwhere\udcff is not a run directory" in capsys.readouterr().err
