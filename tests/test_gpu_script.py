"""`ci/gpu`: one line where there is no GPU; and, with the fake GPU in CuPy's place, its own comparisons."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import fakecupy
import numpy as np
import pytest

if str(Path(__file__).resolve().parents[1]) not in sys.path:  # where benchmarks/ is
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import calibration, gpu
from benchmarks.gpu import time_launches
from benchmarks.peers.systems import xpnet_engine, xpnet_replay
from benchmarks.peers.works import WORKS, make_data, make_order, reference
from xpnet.engines.cuda.engine import Cuda

ROOT = gpu.ROOT


class Hook:
    """Stands for CuPy's MemoryHook: told of allocations that the fake counts, and of one where CUB makes some."""

    def __enter__(self):
        self._measured = fakecupy.counts.measure()
        self._cost = self._measured.__enter__()
        return self

    def __exit__(self, *exception):
        self._measured.__exit__(None, None, None)
        for _ in range(self._cost.allocations + self._cost.cub):
            self.malloc_postprocess(size=4)


@pytest.fixture
def cupy(monkeypatch):
    """The fake GPU, found where CuPy is looked for."""
    monkeypatch.delenv("CUPY_ACCELERATORS", raising=False)  # so that it says that CUB allocates
    monkeypatch.setattr(fakecupy.cuda, "MemoryHook", Hook, raising=False)
    monkeypatch.setitem(sys.modules, "cupy", fakecupy)
    return fakecupy


@pytest.mark.parametrize("options", [(), pytest.param(("--bench",), marks=pytest.mark.full)], ids=["checks", "bench"])
def test_without_a_gpu_it_says_so_in_one_line(options, tmp_path):
    (tmp_path / "cupy.py").write_text("raise ModuleNotFoundError('none here', name='cupy')", encoding="utf-8")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    before = sorted(gpu.RESULTS.iterdir())
    run = subprocess.run(
        [str(ROOT / "ci" / "gpu"), *options],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=300,
        env={**os.environ, "PATH": path, "PYTHONPATH": str(tmp_path)},
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.count("\n") == 1
    assert run.stdout.startswith("no GPU, so nothing was run: CuPy is not installed; for a CUDA GPU install")
    assert sorted(gpu.RESULTS.iterdir()) == before


def test_all_checks_run_and_one_that_fails_is_named(cupy, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(gpu, "suite_passes", lambda report: True)  # the suite within the suite
    monkeypatch.setattr(gpu, "counts_hold", lambda backend: 1 / 0)
    assert gpu.main(["--out", str(tmp_path / "results")]) == 1
    said = capsys.readouterr()
    assert "ZeroDivisionError" in said.err
    assert said.out.startswith("Fake GPU, CuPy 14.2.0") and said.out.endswith("failed: launches and allocations\n")
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["fake_gpu_calibration_fake-gpu.json"]


def test_calibration_finds_what_differs_and_nothing_else(cupy, tmp_path, capsys):
    out = tmp_path / "calibration.json"
    assert gpu.calibrate(cupy, out)
    assert f"all {len(calibration.CASES)} operations are alike" in capsys.readouterr().out
    names = {name: getattr(cupy, name) for name in dir(cupy) if not name.startswith("_")}
    other = SimpleNamespace(
        **names
        | {
            "zeros": lambda *given, **named: cupy.ones(*given, **named),  # other values
            "exp": lambda x: cupy.exp(cupy.exp(x)) * 0 + cupy.exp(x),  # more allocations
            "full": lambda *given, **named: cupy.full(*given, **named).reshape(-1),  # another shape
            "arange": lambda *given, **named: [][0],  # an error
        }
    )
    assert not gpu.calibrate(other, out)
    said = json.loads(out.read_text(encoding="utf-8"))["operations"]
    differs = {name: case["differs"] for name, case in said.items() if case["differs"]}
    assert differs == {
        "zeros": ["values"],
        "exp": ["allocations"],
        "full": ["shape", "F"],
        "arange": ["error", "shape", "dtype", "C", "F", "allocations"],
    }
    assert said["zeros"]["real"]["shape"] == [3, 2] and said["arange"]["real"]["error"] == "IndexError"
    assert "| zeros | values |" in capsys.readouterr().out


def test_the_fake_gpu_is_as_cupy_is(driver, tmp_path, capsys):
    """Against CuPy itself on the executing CUDA; without CUB, which only a device can run."""
    import cupy

    assert gpu.calibrate(cupy, tmp_path / "calibration.json"), capsys.readouterr().out
    driver.complaints()


@pytest.mark.full
def test_counts_are_compared(cupy, fake_gpu, monkeypatch, capsys):
    if not calibration.can_run_kernels():
        pytest.skip("no C++ compiler: generated CUDA kernels cannot run on the fake GPU")
    monkeypatch.setattr(gpu, "STEPS", 2)
    monkeypatch.setattr(gpu, "launches_of", lambda short, long: "no profiler")
    assert gpu.counts_hold(fake_gpu)
    lines = capsys.readouterr().out.splitlines()[1:]
    assert [line.partition(":")[0] for line in lines] == [f"- {name}" for name in gpu.PROGRAMS]
    for line in lines:
        assert "not compared: no profiler; allocations in 2 and 4 steps [2, 2], on the fake GPU [2, 2]" in line

    # A profiler's answer, as the fake counts launches; then one kernel too many.
    def seen(short, long, more=0):
        counted = []
        for run in (short, long):
            with fakecupy.counts.measure() as cost:
                run()
            counted.append(cost.named("launches"))
        few, many = counted
        found = gpu.Counter({name: many[name] - few.get(name, 0) for name in many})
        found["gather"] += more
        return found

    monkeypatch.setattr(gpu, "PROGRAMS", {"SGD": gpu.PROGRAMS["SGD"]})
    monkeypatch.setattr(gpu, "launches_of", seen)
    assert gpu.counts_hold(fake_gpu)
    assert "the library's 8, for 8 products" in capsys.readouterr().out
    monkeypatch.setattr(gpu, "launches_of", lambda short, long: seen(short, long, more=gpu.STEPS))
    assert not gpu.counts_hold(fake_gpu)


def test_profile_of_work_without_a_gpu_has_no_kernels():
    torch = pytest.importorskip("torch")
    assert not gpu.kernels_of(lambda: torch.ones(3).sum())


class Process:
    """Stands for a process that was started: it ends with a status, or takes longer than anybody waits."""

    status = 0

    def __init__(self, command, cwd, env):
        self.command, self.env, self.signals = command, env, []
        started.append(self)

    def wait(self, seconds):
        if self.status is None:
            raise subprocess.TimeoutExpired(self.command, seconds)
        return self.status

    def send_signal(self, number):
        self.signals.append(number)

    def kill(self):
        self.signals.append("kill")


started = []


@pytest.fixture
def processes(monkeypatch):
    started.clear()
    monkeypatch.setattr(gpu.subprocess, "Popen", Process)
    return started


@pytest.fixture
def whole(monkeypatch):
    """Nothing is missing; to find that out takes a second."""
    monkeypatch.setattr(gpu, "files_left_out", lambda folder: {})


def hide(monkeypatch, *packages):
    """Let packages be missing, as on a machine that has never had them."""
    find = gpu.importlib.util.find_spec
    monkeypatch.setattr(gpu.importlib.util, "find_spec", lambda name: None if name in packages else find(name))


@pytest.mark.full
def test_files_that_import_what_is_missing_are_left_out(monkeypatch, processes, tmp_path, capsys):
    """By their own imports, those of helpers among them: no list has to be kept."""
    hide(monkeypatch, "polars", "nbformat", "sklearn", "xdist")
    assert gpu.suite_passes(tmp_path / "report.xml")
    (process,) = processes
    left_out = {Path(part).name for part in process.command if part.startswith("--ignore=")}
    assert {"test_metrics.py", "test_estimators.py"} <= left_out
    assert not left_out & {"test_gpu.py", "test_executing_cuda.py", "test_network.py", "test_training.py"}
    assert "left out: test_estimators.py, which imports " in capsys.readouterr().out
    assert process.env["XPNET_REQUIRE_GPU"] == "1" and "-n" not in process.command
    assert [process.command[process.command.index(flag) + 1] for flag in ("-m", "--time-limit")][1] == "60"
    assert process.command.index("gpu") == process.command.index("-q") + 3


def test_imports_are_found_in_helpers_and_not_within_functions(tmp_path):
    for name, text in (
        ("helper.py", "import absent_one.part\nimport json\n"),
        ("test_a.py", "from helper import x\nfrom absent_two import y\n"),
        ("test_c.py", "import test_d\nfrom package import x\n"),
        ("test_d.py", "import test_c\nfrom package.part import y\n"),
        ("package/__init__.py", "from .part import x\n"),
        ("package/part.py", "import absent_three\n"),
        (
            "test_b.py",
            "def f():\n    import absent_two\n\ntry:\n    import absent_one\nexcept ImportError:\n    pass\n",
        ),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert gpu.files_left_out(tmp_path) == {tmp_path / "test_a.py": {"absent_one", "absent_two"}}


@pytest.mark.parametrize("status", [1, 2, 4, 5])
def test_a_run_that_failed_or_ran_no_test_fails(status, monkeypatch, processes, whole, tmp_path):
    monkeypatch.setattr(Process, "status", status)
    assert not gpu.suite_passes(tmp_path / "report.xml")


def test_a_run_that_takes_too_long_is_ended_as_by_ctrl_c(monkeypatch, processes, whole, tmp_path, capsys):
    monkeypatch.setattr(Process, "status", None)
    assert not gpu.suite_passes(tmp_path / "report.xml")
    assert processes[0].signals == [signal.SIGINT, "kill"]
    assert "stopped after 200 s" in capsys.readouterr().out


def test_without_pytest_no_test_is_run(monkeypatch, processes, tmp_path, capsys):
    hide(monkeypatch, "pytest")
    assert gpu.suite_passes(tmp_path / "report.xml") and not processes
    assert capsys.readouterr().out == "the tests were not run: pytest is not installed\n"


def test_what_is_open_is_what_the_readme_says():
    items = gpu.open_questions()
    assert len(items) >= 4 and all(item.startswith("- ") and item.endswith((";", ".")) for item in items)


@pytest.mark.parametrize("module", [xpnet_engine, xpnet_replay])
def test_systems_of_xpnet_train_on_a_gpu_as_the_reference_does(module, cupy):
    if not calibration.can_run_kernels():
        pytest.skip("no C++ compiler: generated CUDA kernels cannot run on the fake GPU")
    work = WORKS[5]
    data = make_data(work)
    assert module.System.unusable("cuda") is None
    system = module.System(work, data, 1, "cuda")
    for _ in range(2):  # from the initial weights each time
        system.reset()
        loss = system.run(make_order(work.checked_steps * work.batch))
        assert loss == pytest.approx(reference(work, data)["loss_sum"], rel=1e-4)
    assert all(isinstance(W, np.ndarray) for W, _ in system.parameters())


@pytest.mark.full
def test_bench_times_the_systems_of_a_device_and_names_those_it_cannot(tmp_path, capsys):
    out = tmp_path / "times.json"
    names = ["xpnet", "xpnet-calls", "torch", "torch-compile", "torch-graph", "jax", "jax-scan"]
    status = gpu.time_systems(
        "cpu",
        out,
        "--works",
        "3",
        "--systems",
        ",".join(names),
        "--rounds",
        "1",
        "--seconds",
        "0.001",
        "--threads",
        "1",
    )
    results = json.loads(out.read_text(encoding="utf-8"))
    systems = results["works"]["3"]["systems"]
    assert status == 0, capsys.readouterr()
    assert sorted([*systems, *results["left_out"]]) == sorted(names)
    assert {"xpnet", "xpnet-calls"} <= set(systems) and "torch-graph" in results["left_out"]
    wanted = reference(WORKS[3], make_data(WORKS[3]))
    for said in systems.values():
        assert said["loss_after"] == pytest.approx(wanted["loss_after"], rel=1e-3) and said["seconds"][0] > 0


def test_one_launch_is_timed_beside_prebound_launches(gpu, driver, capsys):
    """Six turns of each: a gather a step and one more, and what is between; or one launch."""
    launches = driver.launches
    assert time_launches(gpu, (4, 3, 2), (2, 3), n=2) and Cuda.ONE_LAUNCH_FLOPS == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["batch 2", "batch 3"]
    assert all(re.search(r": \d+\.\d us a step by prebound launches, \d+\.\d in one launch$", line) for line in lines)
    assert driver.launches > launches
