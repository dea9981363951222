"""xpnet info: what a bug report needs, and nothing private; and the network of a run."""

from __future__ import annotations

import argparse
import platform
import re
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import xpnet
from xpnet.backend import BackendUnavailable, select_backend
from xpnet.commands.wording import wrapped
from xpnet.cores import usable_cores
from xpnet.engines.llvm import code_cache
from xpnet.engines.llvm.engine import Compiled
from xpnet.network.network import Network
from xpnet.network.summary import summary
from xpnet.tables.model import MODEL
from xpnet.timing import machine

PACKAGES = ("safetensors", "tqdm", "pandas", "pyarrow", "openpyxl", "pooch", "matplotlib", "scikit-learn")
INDENT = 10


def add_parser(commands: Any) -> None:
    """Add the command to the parser's commands."""
    command = commands.add_parser(
        "info",
        help="versions, threads, memory and GPU, for a bug report; of a RUN, its network as a table",
        usage="%(prog)s [RUN|MODEL.safetensors]",
        allow_abbrev=False,
    )
    command.word_for = "model"
    command.add_argument(
        "--model", metavar="RUN|MODEL.safetensors", help="a run directory or the file of a network, to print as a table"
    )
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    if arguments.model is not None:
        path = Path(arguments.model)
        print(summary(Network.load(path / MODEL if path.is_dir() else path, device="cpu")))
        return 0
    facts = machine.facts(xpnet.__version__)
    memory = "unknown" if facts["memory"] is None else f"{facts['memory'] / 2**30:.1f} GiB"
    lines = {
        "xpnet": facts["xpnet"],
        "python": f"{facts['python']} ({platform.python_implementation()})",
        "numpy": facts["numpy"],
        "packages": ", ".join(_packages()),
        "system": _system(facts["system"]),
        "cpu": facts["cpu"],
        "memory": memory,
        "blas": facts["blas"],
        "threads": f"{_cores(facts['cores'])}, {usable_cores()} for this process; {facts['threads']}",
    }
    lines[Compiled.name] = f"{_llvmlite()}; {code_cache.describe()}"
    if facts["gpu"] is None:
        lines["gpu"] = f"none: {facts['no_gpu']}"
    else:
        lines["cupy"] = facts["cupy"]
        lines["cuda"] = f"driver {facts['cuda_driver']}, runtime {facts['cuda_runtime']}"
        lines["gpu"] = f"{facts['gpu']}, probe passed"
    try:
        device = select_backend().device
        which = "auto" if device == "cpu" else "auto, for work enough"
        lines["device"] = f"{device} ({which}; set XPNET_DEVICE or --device to choose)"
    except (ValueError, BackendUnavailable) as error:
        lines["device"] = f"none: {error}"
    for name, text in lines.items():
        print(wrapped(f"{name:<{INDENT - 1}} {_without_home(text)}", sys.stdout, " " * INDENT))
    return 0


def _cores(n: int) -> str:
    return f"{n} core{'s' * (n != 1)}"


def _packages() -> list[str]:
    """Return the optional packages that are installed, with their versions."""
    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return found


def _llvmlite() -> str:
    try:
        return f"llvmlite {metadata.version('llvmlite')}"
    except metadata.PackageNotFoundError:
        return "llvmlite is not installed: pip install 'xpnet[jit]'"


def _system(kernel: str) -> str:
    try:
        return f"{platform.freedesktop_os_release()['PRETTY_NAME']}, {kernel}"
    except (OSError, KeyError):  # not Linux, or one that does not say
        return kernel


def _without_home(text: str) -> str:
    """Return a text with ~ for the home directory, which the paths in an error may name."""
    try:
        home = str(Path.home())
    except RuntimeError:  # neither HOME nor an entry of the user
        return text
    return text if home == "/" else re.sub(rf"{re.escape(home)}(?!\w)", "~", text)
