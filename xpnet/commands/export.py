"""xpnet export: a run's model in a form that needs no xpnet."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from xpnet.commands import runs
from xpnet.commands.arguments import UsageError, option, whole
from xpnet.commands.image_data import format_of
from xpnet.datasets.mnist import FIGURE_SIDES
from xpnet.exporting.export import FORMATS, export
from xpnet.exporting.onnx_graph import OPSET
from xpnet.network.network import Network
from xpnet.tables.model import dtype_of, load


def add_parser(commands: Any) -> None:
    """Add the command to the parser's commands."""
    command = commands.add_parser(
        "export",
        help="write a run's model for other programs",
        usage="%(prog)s RUN|MODEL.safetensors --to FORMAT --out FILE",
        allow_abbrev=False,
    )
    command.word_for, command.word_needed = "model", True
    command.add_argument(
        "--model", metavar="RUN|MODEL.safetensors", help="a run directory, or the file of a network without one"
    )
    about = "; ".join(f"{name}: {form.about} ({form.suffix})" for name, form in FORMATS.items())
    command.add_argument(
        "--to", type=option("to", FORMATS), metavar="FORMAT", help=f"{about} (default: by the suffix of --out)"
    )
    command.add_argument("--out", required=True, metavar="FILE", help="a new file")
    command.add_argument(
        "--opset", type=whole(OPSET), metavar="N", help=f"of onnx: the version of its operators (default: {OPSET})"
    )
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    model, about = _model_of(Path(arguments.model))
    try:
        paths = export(model, arguments.out, arguments.to, opset=arguments.opset, **about)
    except FileExistsError as error:
        raise UsageError(f"--out {error}") from None
    for path in paths:
        print(f"{path}  {path.stat().st_size:,} bytes")
    return 0


def _model_of(path: Path) -> tuple[Any, dict[str, Any]]:
    """Return a model, and what its run knows of it beside: the scale of bytes, and the names of classes."""
    if not path.exists():
        raise FileNotFoundError(f"{path} is neither a run directory nor a model file; `xpnet train` makes both")
    if not path.is_dir():
        return Network.load(path, device="cpu"), {}
    config = runs.read_config(path)
    data = config["data"]
    if (path / runs.TABLE).is_file() or data.get("target") is not None:
        return load(path, device="cpu"), {}
    network = Network.load(path / runs.MODEL, device="cpu", dtype=dtype_of(config))
    about: dict[str, Any] = {"scale": data.get("scale")}
    if data.get("images") is not None:
        about["classes"] = format_of(data["images"]).classes
    elif data.get("dataset") in FIGURE_SIDES:
        about["classes"] = range(network.architecture.n_outputs)
    return network, about
