"""xpnet info: what a bug report needs."""

from __future__ import annotations

import argparse
from typing import Any

import xpnet
from xpnet import bench
from xpnet.backend import BackendUnavailable, select_backend


def add_parser(commands: Any) -> None:
    """Add the command to the parser's commands."""
    command = commands.add_parser("info", help="print versions, threads and the GPU probe", allow_abbrev=False)
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    facts = bench.machine(xpnet.__version__)
    lines = {
        "xpnet": facts["xpnet"],
        "python": f"{facts['python']} on {facts['system']}",
        "numpy": facts["numpy"],
        "blas": facts["blas"],
        "cpu": facts["cpu"],
        "threads": f"{facts['cores']} cores; {facts['threads']}",
    }
    if facts["gpu"] is None:
        lines["gpu"] = f"none: {facts['no_gpu']}"
    else:
        lines["cupy"] = facts["cupy"]
        lines["cuda"] = f"driver {facts['cuda_driver']}, runtime {facts['cuda_runtime']}"
        lines["gpu"] = f"{facts['gpu']}, probe passed"
    try:
        lines["device"] = f"{select_backend().device} (auto; set XPNET_DEVICE or --device to choose)"
    except (ValueError, BackendUnavailable) as error:
        lines["device"] = f"none: {error}"
    for name, text in lines.items():
        print(f"{name:<8} {text}")
    return 0
