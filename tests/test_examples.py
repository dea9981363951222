"""Every worked example runs in its short form, says what to expect, and reaches it."""

from __future__ import annotations

import importlib
import re

import pytest

from xpnet import examples

NAMES = re.findall(r"^(\w+): ", examples.__doc__, re.MULTILINE)


def run(name, *argv):
    return importlib.import_module(f"xpnet.examples.{name}").main(argv)


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch):
    monkeypatch.setenv("XPNET_DEVICE", "cpu")


@pytest.mark.parametrize("name", NAMES)
def test_the_short_form_reaches_its_number(name, capsys):
    value = run(name, "--short")
    out, err = capsys.readouterr()
    *_, last = out.splitlines()
    found, low, high = (float(number) for number in re.search(r": (\S+); expect (\S+) to (\S+):", last).groups())
    assert found == pytest.approx(value, rel=1e-3)
    assert low <= value <= high
    assert "NOT as expected" not in out
    assert err == ""


def test_the_picture_is_drawn(tmp_path):
    run("functional_loop", "--short", "--plot", str(tmp_path / "loss.png"))
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("name", "argv", "part"),
    [
        ("functional_loop", ["--plot", "loss.txt"], "ends in '.txt'"),
        ("mnist_relu", ["--data", "nowhere"], "nowhere"),
        ("digits_sgd", ["--data", "nowhere"], "nowhere"),
        ("layer_list", ["--long"], "unrecognized arguments: --long"),
    ],
)
def test_a_mistake_is_one_line(name, argv, part, capsys):
    with pytest.raises(SystemExit) as stopped:
        run(name, *argv)
    out, err = capsys.readouterr()
    assert stopped.value.code == 2 and out == ""
    assert part in err.splitlines()[-1] and "Traceback" not in err
