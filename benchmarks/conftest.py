"""Backends to benchmark on, and this machine's own limits, which every result is held against."""

from __future__ import annotations

import pytest

import xpnet
from xpnet.backend import BackendUnavailable, select_backend
from xpnet.timing import harness, machine


def pytest_configure(config):
    """Without an option of pytest-benchmark's that asks for times, each benchmark runs once, for its check."""
    if not (config.option.benchmark_enable or config.option.benchmark_only):
        config.option.benchmark_disable = True


ROWS = pytest.StashKey[list[tuple[str, float, dict[str, float]]]]()


def _devices() -> list[str]:
    try:
        select_backend("cuda")
    except BackendUnavailable:
        return ["cpu"]
    return ["cpu", "cuda"]


@pytest.fixture(params=[(device, dtype) for device in _devices() for dtype in ("float32", "float64")], ids="-".join)
def backend(request):
    return select_backend(*request.param)


@pytest.fixture(scope="session")
def limits(request):
    """FLOP/s and bytes/s of a large product and a large copy, by backend; measured once, in this very run."""
    measured: dict[str, dict[str, float]] = {}

    def of(backend):
        key = backend.describe()
        if key not in measured:
            measured[key] = harness.limits(backend)
        return measured[key]

    return of


@pytest.fixture
def timed(request, benchmark, backend, limits):
    """Time `run` (checked beforehand) with a synchronised device, and report rates beside the time.

    flops, bytes: what one run computes and moves, counted from the Program.
    """

    def measure(run, *, flops, bytes):
        def synchronised():
            run()
            backend.synchronize()

        benchmark(synchronised)
        if benchmark.stats is None:  # --benchmark-disable: ran once, for its check
            return
        seconds, best = benchmark.stats.stats.median, limits(backend)
        rates = {
            "GFLOP_per_s": round(flops / seconds / 1e9, 2),
            "GB_per_s": round(bytes / seconds / 1e9, 2),
            "of_flops_limit": round(flops / seconds / best["flops"], 4),
            "of_bytes_limit": round(bytes / seconds / best["bytes"], 4),
        }
        benchmark.extra_info.update(rates)
        request.config.stash.setdefault(ROWS, []).append((request.node.name, seconds, rates))

    return measure


def pytest_terminal_summary(terminalreporter, config):
    """pytest-benchmark's own table shows times alone; these are the rates, and the shares of the machine's limits."""
    rows = config.stash.get(ROWS, [])
    if not rows:
        return
    terminalreporter.section("rates, and shares of a large product and a large copy in this run")
    width = max(len(name) for name, _, _ in rows)
    terminalreporter.write_line(f"{'':<{width}}  median us  GFLOP/s  of limit    GB/s  of limit")
    for name, seconds, rates in rows:
        terminalreporter.write_line(
            f"{name:<{width}}  {seconds * 1e6:>9,.1f}  {rates['GFLOP_per_s']:>7,.2f}  {rates['of_flops_limit']:>8.1%}  "
            f"{rates['GB_per_s']:>6,.2f}  {rates['of_bytes_limit']:>8.1%}"
        )


def pytest_benchmark_update_json(config, benchmarks, output_json):
    """What is kept of a run: the machine as xpnet tells it, without its name, and of each benchmark what is quoted."""
    output_json["machine_info"] = machine.facts(xpnet.__version__)
    output_json["commit_info"] = {"id": output_json["commit_info"]["id"]}
    kept = ("min", "max", "median", "q1", "q3", "rounds", "iterations")
    output_json["benchmarks"] = [
        {
            "name": entry["name"],
            "stats": {name: entry["stats"][name] for name in kept},
            "extra_info": entry["extra_info"],
        }
        for entry in output_json["benchmarks"]
    ]
