"""The pictures by their structure: lines and their data, scales, labels; that they can be drawn without a display."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from refusals import says
from test_grid import result

from xpnet import plots
from xpnet.lr_finder import RateSearch

RATES = [(device, width, batch, 1000 * batch / width * (2 if device == "cuda" else 1))
         for batch in (8, 1024) for width in (64, 32, 128) for device in ("cpu", "cuda")]  # fmt: skip
BOTH = result(*RATES, machine={"cpu": "AMD EPYC", "cores": 2, "blas": "openblas 1.2", "gpu": "Fake GPU"})
CPU_ONLY = result(*[rate for rate in RATES if rate[0] == "cpu"], machine={"cpu": "A laptop", "gpu": None})


def style(line):
    return line.get_color(), line.get_marker(), str(line._dash_pattern), line.get_markerfacecolor()


def test_a_line_for_each_device_and_batch_size():
    ax = plots.samples_per_second(BOTH)
    lines = {line.get_label(): line for line in ax.lines}
    assert list(lines) == ["cpu, batch 8", "cuda, batch 8", "cpu, batch 1,024", "cuda, batch 1,024"]
    for label, line in lines.items():
        factor = (8 if label.endswith("8") else 1024) * (2 if label.startswith("cuda") else 1)
        assert list(line.get_xdata()) == [32, 64, 128]
        assert list(line.get_ydata()) == [1000 * factor / width for width in (32, 64, 128)]
    assert len({style(line) for line in ax.lines}) == 4
    # A batch size is told by colour and marker, a device by the line: neither needs the eye to tell colours.
    assert len({line.get_marker() for line in ax.lines}) == 2
    assert len({str(line._dash_pattern) for line in ax.lines}) == 2


def test_scales_labels_and_title():
    ax = plots.samples_per_second(BOTH)
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert [label.get_text() for label in ax.get_xticklabels()] == ["32", "64", "128"]
    assert "samples per second" in ax.get_ylabel()
    assert "784-width-width-10" in ax.get_xlabel() and "float32" in ax.get_xlabel()
    assert ax.get_title(loc="left") == "AMD EPYC, 2 cores, openblas 1.2, Fake GPU"
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [line.get_label() for line in ax.lines]
    low, high = ax.get_ylim()
    ticks = [tick for tick in ax.get_yticks() if low <= tick <= high]
    assert len(ticks) >= 3 and ax.yaxis.get_major_formatter()(20_000) == "20k"


def test_two_machines_in_one_picture():
    ax = plots.comparison(CPU_ONLY, BOTH)
    labels = [line.get_label() for line in ax.lines]
    assert labels[:2] == ["a: cpu, batch 8", "a: cpu, batch 1,024"]
    assert labels[2:] == [f"b: {device}, batch {batch}" for batch in ("8", "1,024") for device in ("cpu", "cuda")]
    assert len({style(line) for line in ax.lines}) == 6
    assert {line.get_markerfacecolor() for line in ax.lines[2:]} == {"white"}
    assert ax.get_title(loc="left") == "a: A laptop\nb: AMD EPYC, 2 cores, openblas 1.2, Fake GPU"
    with pytest.raises(ValueError, match="float64"):
        plots.comparison(CPU_ONLY, {**BOTH, "dtype": "float64"})


def test_many_batch_sizes_stay_apart():
    ax = plots.samples_per_second(result(*[("cpu", 32, 2**i, 1.0) for i in range(20)]))
    assert len({style(line) for line in ax.lines}) == 20


def test_axes_that_are_given_are_drawn_into_and_returned():
    ax = plots.new_axes()
    assert plots.samples_per_second(BOTH, ax) is ax and plots.comparison(CPU_ONLY, BOTH, ax=ax) is ax
    assert len(ax.lines) == 10


def test_a_search_for_a_rate_and_its_suggestion():
    lrs, losses = np.logspace(-4, 0, 6), np.array([2.0, 1.9, 1.0, 0.9, 1.0, 90.0])
    ax = plots.rate_search(RateSearch(lrs, losses, 1e-2))
    curve, mark = ax.lines
    assert list(curve.get_xdata()) == list(lrs) and list(curve.get_ydata()) == list(losses)
    assert list(mark.get_xdata()) == [1e-2, 1e-2] and "0.01" in mark.get_label()
    assert ax.get_xscale() == "log" and (ax.get_xlabel(), ax.get_ylabel()) == ("learning rate", "loss")
    low, high = ax.get_ylim()
    assert low < 0.9 and 2.0 < high < 4.0  # the fall fills the picture, not the end
    given = plots.new_axes()
    for lost in (RateSearch(lrs[:1], losses[:1], None), RateSearch(lrs[:0], losses[:0], None)):
        assert plots.rate_search(lost, given) is given
    assert len(given.lines) == 2


@pytest.mark.parametrize(("name", "start"), [("x.png", b"\x89PNG\r\n"), ("x.SVG", b"<?xml")])
def test_save_writes_what_the_name_says_and_nothing_else(tmp_path, name, start):
    plots.save(plots.samples_per_second(BOTH), tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(start)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["x.jpg", "x", ".png"])
def test_save_refuses_other_names(tmp_path, name):
    with pytest.raises(ValueError) as error:
        plots.save(plots.samples_per_second(BOTH), tmp_path / name)
    says(error, name, ".png", ".svg")
    assert not list(tmp_path.iterdir())


def test_nothing_is_outside_the_picture():
    """Also with long names, and the legend beside the axes."""
    long = {**BOTH["machine"], "cpu": "AMD EPYC 9B14 96-Core Processor", "gpu": "NVIDIA GeForce RTX of a long name" * 3}
    ax = plots.comparison({**BOTH, "machine": long}, {**BOTH, "machine": long})
    ax.figure.draw_without_rendering()
    inside = ax.figure.bbox
    texts = [ax.xaxis.label, ax.yaxis.label, ax._left_title, *ax.get_xticklabels(), *ax.get_legend().get_texts()]
    for text in texts:
        box = text.get_window_extent()
        assert inside.x0 <= box.x0 and box.x1 <= inside.x1 and inside.y0 <= box.y0 and box.y1 <= inside.y1, text
    assert ax.get_window_extent().width > inside.width / 2


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    for name in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError) as error:
        plots.samples_per_second(BOTH)
    says(error, "matplotlib", "xpnet[plot]")


def test_pyplot_is_left_alone(tmp_path):
    code = ("from test_plots import BOTH, plots; plots.save(plots.samples_per_second(BOTH), 'x.png'); "
            "print('matplotlib.pyplot' in sys.modules)")  # fmt: skip
    path = f"import sys; sys.path[:0] = {[*sys.path]!r}; "
    done = subprocess.run([sys.executable, "-c", path + code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("False\n", "")
