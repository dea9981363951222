"""The backends that tests run on, and the rule that a whole run ends with: every refusal is asserted in full.

A test that takes `backend` runs on each of them. One that is marked `pairwise(name=values, ...)` or `in_turn(...)`
takes rows of these values, the backends among them, of which chosen.py says which they are.

Without a GPU the parameter "gpu" is left out; tests/test_gpu_present.py alone is skipped, with the reason.
XPNET_REQUIRE_GPU=1 keeps the parameter and turns the skip into failures, for machines that should have a GPU.
XPNET_EXECUTING_CUDA=FOLDER puts real CuPy on a CUDA that executes on the host in the GPU's place, as it was built there
by executing_cuda/. A test that runs on either is marked gpu.
"""

from __future__ import annotations

import faulthandler
import os
import re
import signal

os.environ["SCIPY_ARRAY_API"] = "1"  # before any test imports SciPy: some checks of scikit-learn's skip without it
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy: on cores that others use too, its threads spin

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import executing_cuda
import fakecupy
import numpy as np
import pytest
from chosen import cases, in_share, spread
from refusals import SAID, unsaid

from xpnet.backend import Backend, BackendUnavailable, select_backend

DRIVER = executing_cuda.active()  # before anything imports CuPy
MOST_CASES = 6  # of a test that runs on every backend, in a run of `-m gpu`
GPU_REQUIRED = os.environ.get("XPNET_REQUIRE_GPU", "") not in ("", "0")


def pytest_configure(config: pytest.Config) -> None:
    """Leave out what the user has asked of programs, in the environment or in a home, which may be read-only too."""
    for name in ("XPNET_CACHE", "XPNET_DATA", "XPNET_DEVICE", "MPLBACKEND", "FORCE_COLOR", "NO_COLOR", "PYTHON_COLORS"):
        os.environ.pop(name, None)
    if not hasattr(config, "workerinput"):  # workers of pytest-xdist inherit it
        folder = TemporaryDirectory(prefix="xpnet-tests-")
        config.add_cleanup(folder.cleanup)
        for name in ("MPLCONFIGDIR", "IPYTHONDIR", *(f"JUPYTER_{kind}_DIR" for kind in ("CONFIG", "DATA", "RUNTIME"))):
            os.environ[name] = folder.name


class ReadOnlyBackend(Backend):
    """The CPU, except that what it uploads cannot be written: code that writes into its inputs fails here."""

    def to_device(self, array: Any, dtype: Any = None) -> Any:
        copy = np.array(super().to_device(array, dtype))  # a copy: the user's own array stays as it is
        copy.flags.writeable = False
        return copy


@cache
def _real_gpu() -> Backend | str:
    """The real GPU's backend, or why there is none; probed once a session."""
    try:
        return select_backend("cuda", "float32")
    except BackendUnavailable as failure:
        return str(failure)


def _fake_gpu() -> Backend:
    return Backend("cupy", "cuda", fakecupy, np.dtype("float32"), "the tests asked for the fake GPU")


def pytest_report_header(config: pytest.Config) -> str | None:
    if config.args_source is pytest.Config.ArgsSource.TESTPATHS:
        return "all tests: minutes of work; the first dots come when every test is known, after some ten seconds"
    return None


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--share", metavar="K/N", help="of the tests chosen, run the K-th of N parts, by their names")
    parser.addoption("--time-limit", type=int, metavar="SECONDS", help="fail a test that takes longer")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Of `-m gpu` leave out the files without a test that takes one of its fixtures: they are most of the time."""
    if config.option.markexpr != "gpu" or not collection_path.match("test_*.py"):
        return None
    text = collection_path.read_text(encoding="utf-8")
    return None if re.search(r"def test_\w+\([^)]*\b(gpu|backend|driver)\b", text) else True


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark what runs on a GPU: the test asks for it, or has it as its backend."""
    given = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
    if "gpu" in getattr(item, "fixturenames", ()) or given.get("backend") == "gpu":
        item.add_marker("gpu")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not GPU_REQUIRED and not isinstance(_real_gpu(), Backend):  # one skip says it for all: test_gpu_present.py
        items[:] = [
            item for item in items if not item.get_closest_marker("gpu") or item.path.name == "test_gpu_present.py"
        ]
    if config.option.markexpr == "gpu":
        _leave_out_cases(config, items)
    if share := config.getoption("share"):
        config.hook.pytest_deselected(items=[item for item in items if not in_share(item.nodeid, share)])
        items[:] = [item for item in items if in_share(item.nodeid, share)]


def _leave_out_cases(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of a test's cases on a GPU keep some: in all of them every other backend is held to the same.

    engines/cuda compares each activation, loss, optimizer, option and kind of layer there; these tests are kept whole.
    """
    places: dict[str, list[int]] = {}
    for i, item in enumerate(items):
        if "cuda" not in item.path.parts and item.get_closest_marker("gpu"):
            places.setdefault(item.nodeid.partition("[")[0], []).append(i)
    left = {i for of_test in places.values() for i in {*of_test} - {*spread(of_test, MOST_CASES)}}
    config.hook.pytest_deselected(items=[item for i, item in enumerate(items) if i in left])
    items[:] = [item for i, item in enumerate(items) if i not in left]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    factors: dict[str, Any] = {}
    if "backend" in metafunc.fixturenames:
        factors["backend"] = ["cpu-float64", "cpu-float32", "cpu-readonly", "fake-gpu"]
        if GPU_REQUIRED or isinstance(_real_gpu(), Backend):
            factors["backend"].append("gpu")
            if metafunc.config.option.markexpr == "gpu":  # the others would only be collected
                factors["backend"] = ["gpu"]
    for mark in metafunc.definition.iter_markers():
        if mark.name in ("pairwise", "in_turn"):
            factors = {**mark.kwargs, **factors}
            rows = cases(mark.name, factors, full=metafunc.config.option.markexpr not in ("not full", "gpu"))
            metafunc.parametrize(tuple(factors), rows, indirect=["backend"] if "backend" in factors else False)
            return
    if factors:
        metafunc.parametrize("backend", factors["backend"], indirect=True)


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> Backend:
    """Every kind of backend in turn; `request` holds its name, such as "fake-gpu"."""
    kind = request.param
    if kind == "gpu":
        return request.getfixturevalue("gpu")
    if kind == "fake-gpu":
        return _fake_gpu()
    if kind == "cpu-readonly":
        return ReadOnlyBackend("numpy", "cpu", np, np.dtype("float64"), "tests need read-only inputs")
    return select_backend("cpu", kind.removeprefix("cpu-"))


@pytest.fixture
def gpu() -> Backend:
    """The real GPU in float32; a skip where there is none, a failure if XPNET_REQUIRE_GPU=1."""
    found = _real_gpu()
    if isinstance(found, Backend):
        return found
    if GPU_REQUIRED:
        pytest.fail(f"XPNET_REQUIRE_GPU is set, but there is no GPU: {found}")
    pytest.skip(f"no GPU: {found}")


@pytest.fixture
def driver(gpu: Backend) -> executing_cuda.Driver:
    """The driver of the executing CUDA, in the GPU's place; a skip on a device."""
    if DRIVER is None:
        pytest.skip("a device's driver has no switches and no counts")
    return DRIVER


@pytest.fixture
def fake_gpu() -> Backend:
    """The fake GPU in float32; what it was asked is in fakecupy.counts."""
    return _fake_gpu()


@pytest.fixture
def float64_cpu() -> Backend:
    return select_backend("cpu", "float64")


@pytest.fixture(autouse=True, scope="session")
def code_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Compiled code is kept in a folder of all this session's workers, not in that of whoever runs the tests."""
    folder = tmp_path_factory.getbasetemp()
    folder = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XPNET_CACHE", str(folder / "code"))
        yield


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The text as it stands: hardly a tenth of the time of optimised code, which is compared for fewer Programs."""
    from xpnet.engines.llvm import native

    monkeypatch.setattr(native, "_speed_level", lambda text: 0)
    monkeypatch.setattr(native, "_MACHINE", native._MACHINE | {"opt": 0})


@pytest.fixture(autouse=True)
def fresh_counts() -> Iterator[None]:
    fakecupy.counts.reset()
    yield
    fakecupy.counts.reset()
    fakecupy.cuda.Device(0).use()


@pytest.fixture(autouse=True)
def no_complaints() -> Iterator[None]:
    """The executing CUDA saw nothing that CUDA refuses or leaves undefined, and no race where those are looked for."""
    yield
    if DRIVER is not None and (said := DRIVER.complaints()):
        pytest.fail(f"the executing CUDA: {said}", pytrace=False)


@pytest.fixture(autouse=True)
def time_limit(request: pytest.FixtureRequest) -> Iterator[None]:
    """End a test at --time-limit: by a failure, or by the process, with a traceback, if it waits inside a library."""
    limit = request.config.getoption("time_limit")
    if not limit:
        yield
        return
    before = signal.signal(signal.SIGALRM, lambda *_: pytest.fail(f"it took longer than {limit} s"))
    signal.alarm(limit)
    faulthandler.dump_traceback_later(2 * limit, exit=True)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Ctrl-C is heard, here and in processes begun here: in the background, a shell has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def _is_whole(config: pytest.Config) -> bool:
    """Whether all tests of the suite were to run, so that what none of them asserted is asserted nowhere."""
    chosen = ("share", "keyword", "deselect", "lf", "ignore", "ignore_glob", "collectonly")
    whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    every = config.option.markexpr in ("", "not full") and not any(config.getoption(name, None) for name in chosen)
    return whole and every


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Take over what a worker of pytest-xdist has asserted."""
    SAID.update(getattr(node, "workeroutput", {}).get("said", ()))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a whole run that passed, but in which no test held some message to found, needed and fix.

    Each is an error in the list and in the closing line.
    """
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["said"] = sorted(SAID)
    elif session.exitstatus == 0 and _is_whole(session.config) and (left := unsaid(SAID)):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        terminal = session.config.pluginmanager.get_plugin("terminalreporter")
        for message in left:
            place = "xpnet/" + ":".join(message.split(":")[:2])
            told = f"no test holds this message to found, needed and fix by refusals.says: {message}"
            terminal._add_stats("error", [pytest.TestReport(place, (place, None, message), {}, "failed", told, "call")])
