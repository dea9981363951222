"""Every worked example runs in its short form, says what to expect, and reaches it."""

from __future__ import annotations

import importlib
import re

import fakecupy
import pytest

import xpnet
from xpnet import examples, functional
from xpnet.backend import select_backend
from xpnet.examples import functional_loop
from xpnet.training import optimizers

NAMES = re.findall(r"^(\w+): ", examples.__doc__, re.MULTILINE)


def run(name, *argv):
    return importlib.import_module(f"xpnet.examples.{name}").main(argv)


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch):
    monkeypatch.setenv("XPNET_DEVICE", "cpu")


def last_range(out):
    """The number at the end of an example's output, and the range beside it."""
    *_, last = out.splitlines()
    return [float(number) for number in re.search(r": (\S+); expect (\S+) to (\S+):", last).groups()]


@pytest.mark.parametrize("name", NAMES)
def test_the_short_form_reaches_its_number(name, capsys):
    value = run(name, "--short")
    out, err = capsys.readouterr()
    found, low, high = last_range(out)
    assert found == pytest.approx(value, rel=1e-3)
    assert low <= value <= high
    assert "NOT as expected" not in out
    assert err == ""


@pytest.mark.full
@pytest.mark.filterwarnings("ignore:no epoch has a better val_loss")
@pytest.mark.parametrize("name", NAMES)
def test_a_network_that_does_not_learn_is_told(name, monkeypatch, capsys):
    monkeypatch.setattr(xpnet, "SGD", lambda lr: optimizers.SGD(lr=1e-9))
    if name == "functional_loop":
        monkeypatch.setattr(functional_loop, "update", lambda eta, model: functional.update(1e-9, model))
    run(name, "--short")
    out, _ = capsys.readouterr()
    found, low, high = last_range(out)
    assert not low <= found <= high
    assert out.endswith("NOT as expected\n")


@pytest.mark.full
def test_both_devices_are_compared_where_there_is_a_gpu(monkeypatch, fake_gpu, capsys):
    backends = {"cpu": select_backend("cpu"), "cuda": fake_gpu}
    monkeypatch.setattr(xpnet, "select_backend", backends.get)
    run("cpu_or_gpu", "--short")
    out, _ = capsys.readouterr()
    cpu, cuda, difference, _ = out.splitlines()
    accuracies = [float(line.rpartition(" ")[2]) for line in (cpu, cuda)]
    assert cpu.startswith("cpu") and cuda.startswith("cuda")
    assert difference.startswith(f"difference of the accuracies: {abs(accuracies[0] - accuracies[1]):.4g}; expect 0")
    assert out.count(": as expected") == 2
    assert fakecupy.counts.launches > 0


@pytest.mark.full
def test_the_picture_is_drawn(tmp_path):
    run("functional_loop", "--short", "--plot", str(tmp_path / "loss.png"))
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("name", "argv", "part"),
    [
        ("functional_loop", ["--plot", "loss.txt"], "ends in '.txt'"),
        ("functional_loop", ["--short", "--plot", "nowhere/loss.png"], "No such file or directory"),
        ("mnist_relu", ["--data", "nowhere"], "nowhere"),
        ("mnist_relu", ["--data", __file__], "is not a folder"),
        ("digits_sgd", ["--data", "nowhere"], "nowhere"),
        ("digits_sgd", ["--data", ""], "it must hold"),
    ],
)
def test_what_cannot_be_used_is_one_line(name, argv, part, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        run(name, *argv)
    _, err = capsys.readouterr()
    assert stopped.value.code == 1
    assert err.count("\n") == 1 and err.startswith(f"python -m xpnet.examples.{name}: ") and part in err


@pytest.mark.parametrize(
    ("name", "argv", "part"),
    [
        ("layer_list", ["--long"], "unrecognized arguments: --long"),
        ("mnist_relu", ["--data", "nowhere", "--download"], "not allowed with argument --data"),
    ],
)
def test_unknown_arguments_are_refused_before_anything_runs(name, argv, part, capsys):
    with pytest.raises(SystemExit) as stopped:
        run(name, *argv)
    out, err = capsys.readouterr()
    assert stopped.value.code == 2 and out == ""
    assert part in err.splitlines()[-1] and "Traceback" not in err
