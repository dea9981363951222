"""xpnet bench end to end: the table, the JSON, the picture, the comparison, and what is refused before any timing."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import fakecupy
import pytest
from refusals import says
from test_cli import json_lines, names, refused, refused_by_parser
from test_grid import result

import xpnet
from xpnet import plots
from xpnet.cli import main
from xpnet.commands import bench as command
from xpnet.timing import grid

TINY = ["bench", "--widths", "8,4", "--batches", "8", "--features", "6", "--repeats", "1", "--seconds", "0.001"]


@pytest.fixture(autouse=True)
def surroundings(tmp_path, monkeypatch):
    """An empty working directory, and the CPU."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("XPNET_DEVICE", "cpu")


@pytest.fixture
def never_timed(monkeypatch):
    """Fail if anything is timed."""

    def measure(*arguments, **options):
        raise AssertionError("something was timed")

    monkeypatch.setattr(grid, "measure", measure)


@pytest.fixture
def two_devices(monkeypatch):
    """The fake GPU in CuPy's place."""
    monkeypatch.setitem(sys.modules, "cupy", fakecupy)
    monkeypatch.setenv("XPNET_DEVICE", "auto")


def write(path, *points, **changed):
    grid.write(path, result(*points, **changed))
    return str(path)


# --- measure ---------------------------------------------------------------------------------------------------------


def test_a_warning_is_one_line_without_its_place_in_the_source(capsys, monkeypatch, tmp_path, quick):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XPNET_CACHE", str(tmp_path / "file"))
    assert main([*TINY, "--widths", "4", "--engine", "compiled"]) == 0
    first, second, *rest = capsys.readouterr().err.splitlines()
    assert first == "timing 1 point on cpu" and not rest
    assert second.startswith(f"xpnet: compiled code is not kept for the next run: {tmp_path / 'file'} is not a folder")


def test_a_tiny_grid_leaves_json_and_a_picture_and_prints_a_table(capsys):
    assert main([*TINY, "--out", "bench.json", "--plot", "bench.svg"]) == 0
    out, err = capsys.readouterr()
    assert err == "timing 2 points on cpu\n"
    header, first, second, last = out.splitlines()
    assert " ".join(header.split()) == "batch width device engine step quartiles samples/s GFLOP/s of limit"
    found = grid.read("bench.json")
    for line, p in zip((first, second), found["points"], strict=True):
        assert line.split()[:4] == [str(p["batch"]), str(p["width"]), p["device"], "replay"]
        assert f"{p['samples_per_second']:,.0f}" in line and f"{p['of_flops_limit']:.1%}" in line
    assert [(p["width"], p["batch"]) for p in found["points"]] == [(4, 8), (8, 8)]
    assert (found["features"], found["dtype"]) == (6, "float32")
    assert found["machine"]["xpnet"] == xpnet.__version__
    assert last.startswith("no crossover, which needs a CPU and a GPU; ")
    assert names(".") == ["bench.json", "bench.svg"]


@pytest.mark.full
def test_json_is_one_line_and_equals_the_file(capsys):
    assert main([*TINY, "--json", "--quiet", "--dtype", "float64", "--out", "x.json"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    (found,) = json_lines(out)
    assert found == grid.read("x.json") and found["dtype"] == "float64"


def test_the_engine_is_named(capsys, monkeypatch, quick):
    narrow = [*TINY, "--widths", "4"]
    assert main([*narrow, "--engine", "compiled", "--out", "b.json", "--plot", "b.svg"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[3] == "compiled"
    assert {p["engine"] for p in grid.read("b.json")["points"]} == {"compiled"}
    assert "cpu compiled, batch 8" in Path("b.svg").read_text(encoding="utf-8")
    assert main([*narrow, "--quiet", "--out", "a.json"]) == main(["bench", "--compare", "a.json", "b.json"]) == 0
    assert capsys.readouterr().out.splitlines()[1:3] == ["a: a.json", "b: b.json, compiled on the CPU"]
    monkeypatch.setitem(sys.modules, "llvmlite", None)
    refused(capsys, [*TINY, "--engine", "compiled"], "needs llvmlite", "pip install 'xpnet[jit]'")


def test_without_a_gpu_it_says_why_in_one_line(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.setenv("XPNET_DEVICE", "auto")
    assert main([*TINY, "--quiet"]) == 0
    out, err = capsys.readouterr()
    assert err == "" and out.count("\n") == 1
    says(out.rstrip("\n"), "crossover", "needs a CPU and a GPU", "CuPy is not installed", "xpnet[cuda12]")
    refused(capsys, [*TINY, "--device", "cuda"], "CuPy is not installed")


@pytest.mark.full
def test_two_devices_make_a_crossover(capsys, two_devices, monkeypatch):
    assert main([*TINY, "--out", "x.json"]) == 0
    out, err = capsys.readouterr()
    assert err == "timing 2 points on cpu and cuda\n"
    assert [line.split()[2:4] for line in out.splitlines()[1:5]] == [["cpu", "replay"], ["cuda", "cuda"]] * 2
    refused(capsys, [*TINY, "--device", "cuda", "--engine", "compiled"], "leave it out, or take device='cpu'")
    assert re.fullmatch(r"batch 8: the GPU is (not )?ahead [^\n]+", out.splitlines()[5])
    found = grid.read("x.json")
    assert set(found["limits"]) == {"cpu", "cuda"} and found["machine"]["gpu"] == "Fake GPU"
    assert main([*TINY, "--device", "cpu", "--quiet"]) == 0
    assert "only one device was timed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("cuda", "expected"),
    [
        ([1, 1, 1], "batch 8: the GPU is not ahead at the widest, 256"),
        ([3, 3, 3], "batch 8: the GPU is ahead at every width, from 64 on"),
        ([1, 3, 3], "batch 8: the GPU is ahead from width 128 on"),
    ],
)
def test_crossover_line(capsys, monkeypatch, cuda, expected):
    points = [("cpu", width, 8, 2) for width in (64, 128, 256)]
    points += [("cuda", width, 8, rate) for width, rate in zip((64, 128, 256), cuda, strict=True)]
    monkeypatch.setattr(grid, "measure", lambda *arguments, **options: result(*points))
    assert main(["bench", "--quiet"]) == 0
    assert capsys.readouterr().out == expected + "\n"


def test_on_a_terminal_there_is_a_bar(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert main([*TINY, "--json"]) == 0
    out, err = capsys.readouterr()
    json_lines(out)
    assert err.startswith("timing 2 points on cpu\n\rtiming:") and "/2 [" in err


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(2.0, "2 s"), (1234.0, "1234 s"), (0.0123456, "12.3 ms"), (5e-5, "50 us"), (2e-7, "0.2 us"), (0.9996, "1 s")],
)
def test_times_are_readable(seconds, text):
    assert command._time(seconds) == text


# --- compare ---------------------------------------------------------------------------------------------------------


def test_compare_prints_rows_and_draws_both(capsys, tmp_path, monkeypatch, never_timed):
    drawn = []
    monkeypatch.setattr(plots, "save", lambda ax, path: drawn.append((len(ax.lines), path)))
    a = write(tmp_path / "a.json", ("cpu", 64, 32, 1000))
    b = write(tmp_path / "b.json", ("cpu", 64, 32, 2000), ("cuda", 64, 32, 5000))
    assert main(["bench", "--compare", a, b, "--plot", "x.png"]) == 0
    out, err = capsys.readouterr()
    assert err == "" and drawn == [(3, "x.png")]
    assert out.splitlines()[:2] == [f"a: {a}", f"b: {b}"]
    assert [line.split() for line in out.splitlines()[3:]] == [
        ["32", "64", "cpu", "1,000", "2,000", "2"],
        ["32", "64", "best:", "cpu,", "cuda", "1,000", "5,000", "5"],
    ]
    assert main(["bench", "--compare", a, b, "--json"]) == 0
    (found,) = json_lines(capsys.readouterr().out)
    assert found["rows"] == grid.compare(grid.read(a), grid.read(b))
    assert found["a"] == {"cpu": "a CPU"}


def test_with_one_device_the_best_is_not_said_twice(capsys, tmp_path):
    a = write(tmp_path / "a.json", ("cpu", 64, 32, 1000))
    assert main(["bench", "--compare", a, a]) == 0
    assert [line.split()[2] for line in capsys.readouterr().out.splitlines()[3:]] == ["cpu"]


def test_compare_refuses_files_that_are_no_results(capsys, tmp_path):
    a, bad = write(tmp_path / "a.json", ("cpu", 64, 32, 1000)), tmp_path / "bad.json"
    refused(capsys, ["bench", "--compare", a, bad], "there is no file", bad, f"`xpnet bench --out {bad}` writes one")
    bad.write_text("{", encoding="utf-8")
    refused(capsys, ["bench", "--compare", bad, a], bad, "is not JSON", f"write it with `xpnet bench --out {bad}`")
    bad.write_text(json.dumps(result()), encoding="utf-8")
    refused(capsys, ["bench", "--compare", a, bad], bad, "no points")
    other = write(tmp_path / "other.json", ("cpu", 64, 32, 1), dtype="float64")
    refused(capsys, ["bench", "--compare", a, other], "float64", "--dtype")


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [
        ["--widths", "4"],
        ["--batches", "4"],
        ["--features", "4"],
        ["--dtype", "float32"],
        ["--device", "cpu"],
        ["--repeats", "1"],
        ["--seconds", "1"],
        ["--engine", "replay"],
        ["--out", "x.json"],
        ["--quiet"],
    ],
)
def test_compare_takes_no_option_of_measuring(capsys, never_timed, given):
    refused(
        capsys,
        ["bench", "--compare", "a.json", "b.json", *given],
        "--compare ",
        f"takes no {given[0]}",
        "leave one of them out",
        code=2,
    )


@pytest.mark.parametrize(
    ("given", "parts", "code"),
    [
        (["--plot", "x.jpg"], ("--plot x.jpg", ".png", ".svg"), 2),
        (["--plot", "x.png", "--out", "x.png"], ("--out and --plot", "are both x.png", "name two files"), 2),
        (["--out", "."], ("--out is '.'", "a folder", "name a file"), 2),
        (["--out", ""], ("--out", "name a file"), 2),
        (["--out", "none/x.json"], ("--out none/x.json", "no folder none"), 1),
        (["--plot", "none/x.png"], ("--plot none/x.png", "no folder none"), 1),
        (["--widths", "10000", "--batches", "1"], ("width 10000", "GB", "--widths"), 1),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_timed(capsys, monkeypatch, given, parts, code):
    def limits(*arguments, **options):
        raise AssertionError("something was timed")

    monkeypatch.setattr(grid.harness, "limits", limits)
    monkeypatch.setattr(grid, "memory", lambda: 10**9)
    refused(capsys, ["bench", "--quiet", *given], *parts, code=code)
    assert names(".") == []


def test_without_matplotlib_nothing_is_timed(capsys, monkeypatch, never_timed):
    for name in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    refused(capsys, ["bench", "--plot", "x.png"], "matplotlib", "xpnet[plot]")


@pytest.mark.parametrize(
    ("given", "part"),
    [
        (["--widths", "4,0"], "'4,0' is not a list of sizes; write them as 32,64,128"),
        (["--batches", ""], "'' is not a list of sizes"),
        (["--repeats", "0"], "at least 1"),
        (["--features", "1.5"], "whole number"),
        (["--seconds", "nan"], "'nan' is not a finite number above 0; write one such as 0.05"),
        (["--seconds", "-1"], "'-1'"),
        (["--dtype", "half"], "float32"),
        (["--device", "gpu"], "'cuda'"),
        (["--engine", "auto"], "choose one of 'replay', 'compiled'"),
        (["--compare", "a.json"], "2 arguments"),
    ],
)
def test_bad_values_are_refused_by_the_parser(capsys, given, part):
    refused_by_parser(capsys, ["bench", *given], part)
