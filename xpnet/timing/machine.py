"""Facts about the machine that a time was measured on."""

from __future__ import annotations

import os
import platform
import shutil
from datetime import UTC, datetime
from typing import Any

import numpy as np

from xpnet.backend import BackendUnavailable, probe_gpu
from xpnet.cores import memory


def facts(version: str) -> dict[str, Any]:
    """Return the machine's hardware and software as a JSON-ready dict.  version: of xpnet.

    Keys: xpnet, date (UTC), cpu, cores, memory (bytes, or None), system, python, numpy, blas, threads; gpu, cupy,
    cuda_driver and cuda_runtime, which are None without a usable GPU; no_gpu: why there is none, else None.
    """
    facts: dict[str, Any] = {
        "xpnet": version,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        **hardware(),
        "memory": memory(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "threads": threads(),
        "gpu": None,
        "cupy": None,
        "cuda_driver": None,
        "cuda_runtime": None,
        "no_gpu": None,
    }
    try:
        cupy, facts["gpu"] = probe_gpu()
    except BackendUnavailable as error:
        return {**facts, "no_gpu": str(error)}
    runtime = cupy.cuda.runtime
    driver, toolkit = runtime.driverGetVersion(), runtime.runtimeGetVersion()
    return {**facts, "cupy": cupy.__version__, "cuda_driver": driver, "cuda_runtime": toolkit}


def hardware() -> dict[str, Any]:
    """Return what a time on a CPU depends on, JSON-ready: its name, its cores, the system and the BLAS."""
    return {"cpu": _cpu_name(), "cores": os.cpu_count(), "system": platform.platform(), "blas": blas()}


def has_gpu() -> bool:
    """Whether the system knows a GPU of NVIDIA's, with or without a library that uses it."""
    return os.path.exists("/proc/driver/nvidia/version") or shutil.which("nvidia-smi") is not None


def blas() -> str:
    """Return name and version of the BLAS that NumPy was built with."""
    build = np.show_config(mode="dicts") or {}
    found = build.get("Build Dependencies", {}).get("blas", {})
    return f"{found.get('name', 'unknown')} {found.get('version', '')}".strip()


def threads() -> str:
    """Return what limits the threads of BLAS, and their number where threadpoolctl is installed."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    parts = [f"{name}={os.environ[name]}" for name in names if name in os.environ]
    try:
        from threadpoolctl import threadpool_info  # not a dependency
    except ImportError:
        return ", ".join(parts) or "BLAS is not limited"
    for pool in threadpool_info():
        n = pool["num_threads"]
        parts.append(f"{pool['internal_api']} {n} thread{'s' * (n != 1)}")
    return ", ".join(parts)


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:  # not Linux
        pass
    return platform.processor() or platform.machine() or "unknown"
