"""The grid: what is timed and counted, the crossover, the join of two machines, and the file."""

from __future__ import annotations

import json
import re
from itertools import pairwise

import fakecupy
import numpy as np
import pytest
from refusals import says

from xpnet.backend import BackendUnavailable, select_backend
from xpnet.engines.choice import make_engine
from xpnet.timing import grid, harness


@pytest.fixture
def one_second(monkeypatch):
    """A chunk is run once and takes a second on the CPU, a quarter on the GPU; limits are 1e6. Returns the turns."""
    turns = []

    def take_turns(works, *, repeats, seconds):
        turns.append(list(works))
        for work in works.values():
            work.run()
            work.synchronize()
        return {name: [4.0, 1.0, 1.0, 0.5, 1.0] if name == "cpu" else [0.25] * 5 for name in works}

    monkeypatch.setattr(harness, "take_turns", take_turns)
    monkeypatch.setattr(harness, "limits", lambda backend, **options: {"flops": 1e6, "bytes": 1e6})
    return turns


def measure(backends, widths=(4,), batches=(8,), **options):
    return grid.measure(backends, widths, batches, version="1.2.3", **{"features": 6, **options})


def point(device, width, batch, rate):
    return {
        "device": device,
        "width": width,
        "batch": batch,
        "seconds": batch / rate,
        "spread": [batch / rate, batch / rate],
        "samples_per_second": float(rate),
        "flops_per_second": 1.0,
        "of_flops_limit": 0.5,
    }


def result(*points, **changed):
    limits = {"cpu": {"flops": 1.0, "bytes": 2.0}}
    return {
        "format": 1,
        "machine": {"cpu": "a CPU"},
        "dtype": "float32",
        "features": 784,
        "limits": limits,
        "points": [point(*p) for p in points],
        **changed,
    }


# --- measure ---------------------------------------------------------------------------------------------------------


def test_points_hold_rates_of_what_was_counted(one_second):
    told = []
    found = measure([select_backend("cpu")], widths=[5, 4, 5], batches=[8, 2], tell=told.extend)
    assert [(p["device"], p["batch"], p["width"]) for p in found["points"]] == [
        ("cpu", 2, 4),
        ("cpu", 2, 5),
        ("cpu", 8, 4),
        ("cpu", 8, 5),
    ]
    assert told == found["points"]
    assert (found["format"], found["dtype"], found["features"]) == (1, "float32", 6)
    assert found["machine"]["xpnet"] == "1.2.3" and found["limits"] == {"cpu": {"flops": 1e6, "bytes": 1e6}}
    steps = 32  # of a small network, in a chunk
    for p in found["points"]:
        assert p["seconds"] == 1 / steps and p["spread"] == [1 / steps, 1 / steps]
        assert p["samples_per_second"] == p["batch"] * steps
        # The products: forward and dW of three layers, dA of two. The rest are a few operations an element.
        sizes = [6, p["width"], p["width"], 10]
        pairs = [m * n for m, n in pairwise(sizes)]
        products = 2 * p["batch"] * (2 * sum(pairs) + sum(pairs[1:]))
        assert products < p["flops_per_second"] / steps < products + 10 * (p["batch"] * 40 + sum(pairs))
        assert p["of_flops_limit"] == p["flops_per_second"] / 1e6
    json.dumps(found, allow_nan=False)


@pytest.mark.full
def test_devices_take_turns_at_the_same_point(one_second, fake_gpu):
    fakecupy.counts.reset()
    found = measure([select_backend("cpu"), fake_gpu], widths=[4, 5])
    assert one_second == [["cpu", "cuda"]] * 2
    assert [(p["device"], p["width"]) for p in found["points"]] == [("cpu", 4), ("cuda", 4), ("cpu", 5), ("cuda", 5)]
    assert fakecupy.counts.synchronizations == 2 and fakecupy.counts.reads == 2  # a chunk is one read
    assert fakecupy.counts.named("launches")["gather"] == 2 * (32 + 1)  # a step each, and the last results
    assert grid.crossover(found) == {8: 4}
    assert [p["engine"] for p in found["points"]] == ["replay", "cuda"] * 2
    found = measure([select_backend("cpu"), fake_gpu], engine="compiled")
    assert [p["engine"] for p in found["points"]] == ["compiled", "cuda"]
    with pytest.raises(ValueError, match=r"'compiled', which runs on cpu, and the device is cuda"):
        measure([fake_gpu], engine="compiled")
    with pytest.raises(ValueError, match=r"engine is 'auto', choose one of 'replay', 'compiled'"):
        measure([select_backend("cpu")], engine="auto")


def test_a_step_too_large_to_share_a_chunk_is_timed_alone(one_second, monkeypatch):
    monkeypatch.setattr(grid, "_CHUNK_FLOPS", 10)
    assert measure([select_backend("cpu")])["points"][0]["seconds"] == 1.0


@pytest.mark.full
@pytest.mark.parametrize("engine", ["replay", "compiled"])
def test_what_is_timed_is_training(monkeypatch, engine, quick):
    """Steps of the engine that training uses: they gather, they change the weights, and the weights stay finite."""
    engines = []

    def spy(program, backend, theta, data, engine):
        engines.append((program, theta, theta.copy()))
        return make_engine(program, backend, theta, data, engine)

    monkeypatch.setattr(grid, "make_engine", spy)
    (found,) = measure([select_backend("cpu", "float64")], repeats=1, seconds=1e-6, engine=engine)["points"]
    ((program, theta, before),) = engines
    assert np.isfinite(theta).all() and (theta != before).any()
    assert found["engine"] == engine and ("threads" in found) == (engine == "compiled")
    assert program.phases == ("gradient", "update") and [name for name, _ in program.gathers] == ["X", "Y"]


def test_devices(monkeypatch, fake_gpu):
    def select(device, dtype):
        return fake_gpu if device == "cuda" else select_backend(device, dtype)

    monkeypatch.setattr(grid, "select_backend", select)
    assert [backend.device for backend in grid.backends("auto", "float32")] == ["cpu", "cuda"]
    assert [backend.device for backend in grid.backends("cuda", "float32")] == ["cuda"]
    monkeypatch.setenv("XPNET_DEVICE", "cpu")
    assert [backend.device for backend in grid.backends("auto", "float32")] == ["cpu", "cuda"]
    assert [backend.device for backend in grid.backends(None, "float64")] == ["cpu"]

    def none(device, dtype):
        if device == "cuda":
            raise BackendUnavailable("no GPU")
        return select_backend(device, dtype)

    monkeypatch.setattr(grid, "select_backend", none)
    assert [backend.device for backend in grid.backends("auto", "float32")] == ["cpu"]
    with pytest.raises(BackendUnavailable):
        grid.backends("cuda", "float32")


def test_what_would_not_fit_the_memory_is_refused_before_anything_is_timed(monkeypatch, one_second):
    monkeypatch.setattr(grid, "memory", lambda: 10**9)
    with pytest.raises(MemoryError) as error:
        measure([select_backend("cpu")], widths=[4, 10**4], batches=[8])
    says(error, "width 10000 at batch 8", "1.0 GB", "--widths")
    # theta three times (on the host and here), its gradient, and the data: 4 bytes each
    assert float(re.search(r"about ([\d.]+) GB", str(error.value))[1]) == pytest.approx(4 * 4 * 1.002e8 / 1e9, abs=0.1)
    assert one_second == []
    monkeypatch.setattr(grid, "memory", lambda: None)
    assert measure([select_backend("cpu")])["points"]


# --- crossover -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cpu", "cuda", "expected"),
    [
        ([9, 9, 9, 9], [1, 2, 3, 4], None),  # never
        ([1, 1, 1, 1], [2, 2, 2, 2], 64),  # always
        ([9, 4, 2, 1], [3, 3, 3, 3], 256),  # from 256 on
        ([1, 9, 1, 1], [3, 3, 3, 3], 256),  # ahead at 64, behind at 128: it has to stay ahead
        ([9, 1, 1, 9], [3, 3, 3, 3], None),  # behind at the widest
        ([9, 3, 1, 1], [3, 3, 3, 3], 256),  # a draw is no win
    ],
)
def test_crossover(cpu, cuda, expected):
    widths = [64, 128, 256, 512]
    points = [("cpu", w, 32, rate) for w, rate in zip(widths, cpu, strict=True)]
    points += [("cuda", w, 32, rate) for w, rate in zip(widths, cuda, strict=True)]
    assert grid.crossover(result(*reversed(points))) == {32: expected}


def test_crossover_is_by_batch_size_and_needs_both_devices():
    points = [("cpu", 64, 8, 9), ("cuda", 64, 8, 1), ("cpu", 64, 4, 1), ("cuda", 64, 4, 9), ("cpu", 64, 2, 1)]
    assert list(grid.crossover(result(*points)).items()) == [(4, 64), (8, None)]
    assert grid.crossover(result(("cuda", 64, 8, 1))) == {}


# --- compare ---------------------------------------------------------------------------------------------------------


def test_compare_joins_same_devices_and_the_best_of_each():
    a = result(("cpu", 64, 32, 100), ("cpu", 128, 32, 50), ("cpu", 64, 8, 1))
    b = result(("cuda", 64, 32, 300), ("cpu", 64, 32, 200), ("cuda", 128, 32, 25))
    assert grid.compare(a, b) == [
        {"batch": 32, "width": 64, "join": "cpu", "devices": ["cpu", "cpu"], "a": 100.0, "b": 200.0, "ratio": 2.0},
        {"batch": 32, "width": 64, "join": "best", "devices": ["cpu", "cuda"], "a": 100.0, "b": 300.0, "ratio": 3.0},
        {"batch": 32, "width": 128, "join": "best", "devices": ["cpu", "cuda"], "a": 50.0, "b": 25.0, "ratio": 0.5},
    ]


@pytest.mark.parametrize(
    ("changed", "parts"),
    [
        ({"dtype": "float64"}, ("float32", "float64", "--dtype")),
        ({"features": 20}, ("784", "20", "--features")),
        (
            {"points": [point("cpu", 32, 32, 1)]},
            ("the two results", "no width and batch size in common", "measure both with the same --widths"),
        ),
    ],
)
def test_compare_refuses_what_does_not_compare(changed, parts):
    a = result(("cpu", 64, 32, 1))
    with pytest.raises(ValueError) as error:
        grid.compare(a, {**a, **changed})
    says(error, *parts)


# --- files -----------------------------------------------------------------------------------------------------------


def test_what_was_written_is_read(tmp_path, one_second):
    found = measure([select_backend("cpu")])
    grid.write(tmp_path / "a.json", found)
    assert grid.read(tmp_path / "a.json") == found
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    with pytest.raises(ValueError):
        grid.write(tmp_path / "b.json", {**found, "features": float("nan")})
    assert not (tmp_path / "b.json").exists()


def broken(**changed):
    """A result whose first point is changed so; `None` removes a key."""
    found = result(("cpu", 64, 32, 1))
    found["points"][0].update(changed)
    found["points"][0] = {name: value for name, value in found["points"][0].items() if value is not None}
    return found


WHOLE = result(("cpu", 64, 32, 1))
BROKEN = {
    "a list": ([], "list"),
    "another format": ({**WHOLE, "format": 2}, "format is 2; it must be 1"),
    "no points": ({**WHOLE, "points": []}, "no points"),
    "no limits": ({k: v for k, v in WHOLE.items() if k != "limits"}, "no 'limits'"),
    "points as an object": ({**WHOLE, "points": {}}, "'points' is dict; it must be list"),
    "dtype": ({**WHOLE, "dtype": "float16"}, "'float16'"),
    "limit": ({**WHOLE, "limits": {"cpu": {"flops": 1.0}}}, "'bytes' of 'cpu'"),
    "point": ({**WHOLE, "points": [3]}, "point 0 is int"),
    "no width": (broken(width=None), "point 0 has no 'width'"),
    "width": (broken(width=1.5), "1.5 as 'width'; it must be a whole number"),
    "boolean": (broken(batch=True), "True as 'batch'"),
    "NaN": (broken(seconds=float("nan")), "nan as 'seconds'; it must be a finite number"),
    "infinite": (broken(samples_per_second=float("inf")), "inf as 'samples_per_second'"),
    "device": (broken(device="tpu"), "'tpu'"),
    "spread": (broken(spread=[1.0, float("nan")]), "'spread'"),
    "twice": (result(("cpu", 64, 32, 1), ("cpu", 64, 32, 2)), "twice"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_file_that_is_no_result_is_refused(tmp_path, name):
    value, part = BROKEN[name]
    path = tmp_path / "x.json"
    path.write_text(json.dumps(value), encoding="utf-8")
    with pytest.raises(ValueError) as error:
        grid.read(path)
    says(error, str(path), part, "write it with `xpnet bench --out")


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe\x00", b"[" * 100_000, b""])
def test_a_file_that_is_not_json_is_refused(tmp_path, content):
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(ValueError) as error:
        grid.read(path)
    says(error, "x.json", "is not JSON", "write it with `xpnet bench --out")
    with pytest.raises(FileNotFoundError) as missing:
        grid.read(tmp_path / "none.json")
    says(missing, "there is no file", "none.json", "`xpnet bench --out")


def test_a_whole_file_is_not_refused(tmp_path):
    (tmp_path / "x.json").write_text(json.dumps(WHOLE), encoding="utf-8")
    assert grid.read(tmp_path / "x.json") == WHOLE
