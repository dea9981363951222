"""xpnet describe: follow one training step from the recorded Program down to machine code, without data."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from xpnet.backend import Backend
from xpnet.commands import runs
from xpnet.commands.apply import place_of
from xpnet.commands.arguments import UsageError, name_list, whole
from xpnet.commands.config_file import apply_config
from xpnet.commands.defaults import default_rate, resolve
from xpnet.commands.loop_options import add_accumulate, add_batch_size
from xpnet.commands.network_options import NETWORK, add_network, check_network, network_of, sizes_between
from xpnet.commands.optimizer_options import add_optimizer, make_optimizer
from xpnet.engines.choice import MOST_THREADS
from xpnet.engines.cuda.text import Data, cuda_source
from xpnet.engines.llvm.engine import text_for
from xpnet.engines.llvm.native import assembly
from xpnet.engines.llvm.thread_choice import MANY, threads_for
from xpnet.network.network import Network
from xpnet.program.calls import Program
from xpnet.program.grouping import describe as describe_launches
from xpnet.program.places import describe as describe_memory

# All are made of the Program: a GPU's code of the launches; the plan of launches that share no long sums, in which it
# fuses more, and a CPU's code of the plan.
SHOWN = {
    "program": "the recorded calls",
    "memory": "where each buffer lies",
    "launches": "the calls that a GPU makes in one kernel",
    "plan": "what the threads of a CPU do",
    "llvm": "the text that a CPU's code is compiled from",
    "assembly": "that code (extra: xpnet[jit])",
    "cuda": "the text of a GPU's kernels",
}
ENDS = (784, 10)  # the sizes of a network of --hidden, as of the digits
BESIDE = ("command", "run", "parser", "model", "show", "threads", "device")  # what may stand beside a run


def add_parser(commands: Any) -> None:
    """Add the command to the parser's commands."""
    command = commands.add_parser(
        "describe",
        help="print a training step: its Program, launches, plan and generated code",
        usage="%(prog)s [RUN|MODEL.safetensors] [OPTIONS]",
        allow_abbrev=False,
    )
    command.word_for = "model"
    command.add_argument(
        "--model",
        metavar="RUN|MODEL.safetensors",
        help="a run directory, whose options are taken too, or the file of a network, which remembers bytes as inputs "
        "(default: one of --layers, for samples of floats without weights)",
    )
    add_network(command)
    add_optimizer(command)
    group = command.add_argument_group("step")
    add_batch_size(group)
    add_accumulate(group)
    group.add_argument(
        "--threads",
        type=whole(1, MOST_THREADS),
        metavar="N",
        help="of the compiled step (default: as many as a run would take here)",
    )
    group = command.add_argument_group("output")
    group.add_argument(
        "--show",
        type=name_list("show", SHOWN),
        default=["program", "launches", "plan"],
        metavar="NAME[,NAME...]",
        help="; ".join(f"{name}: {about}" for name, about in SHOWN.items()) + " (default: program,launches,plan)",
    )
    command.set_defaults(run=run, parser=command)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    arguments, network, weighted = _network(arguments)
    optimizer = make_optimizer(arguments, default_rate(arguments))
    program = network.training_program(
        arguments.batch_size, optimizer, weighted, arguments.seed, accumulate=arguments.accumulate
    )
    scale = None if network.inputs is None else network.inputs.scale
    scales = {name: scale if name == "X" else None for name, _ in program.gathers}
    for name in arguments.show:
        text = _text(name, program, network.backend, scales, arguments.threads)
        print(text if len(arguments.show) == 1 else f"--- {name}: {SHOWN[name]}\n{text}\n", flush=True)
    return 0


def _network(arguments: argparse.Namespace) -> tuple[argparse.Namespace, Network, bool]:
    """Return the options in force, the network, and whether samples have weights.

    A run's own options replace all but those of what is shown.
    """
    if arguments.model is None:
        resolve(arguments)
        check_network(arguments)
        sizes = sizes_between(arguments, *ENDS)
        loss = "softmax_cross_entropy" if sizes[-1] > 1 else "squared_error"
        return arguments, network_of(arguments, sizes, loss), False
    path, command = Path(arguments.model), arguments.parser
    defaults, is_run = vars(command.parse_args([])), path.is_dir()
    given = sorted(name for name, value in vars(arguments).items() if name not in BESIDE and value != defaults[name])
    stray = given if is_run else [name for name in given if name in NETWORK]
    if stray:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in stray)
        raise UsageError(f"{path} sets {flags}; leave {flags} out")
    if not path.exists():
        raise FileNotFoundError(f"{path} is neither a run directory nor a model file; `xpnet train` makes both")
    if not is_run:
        resolve(arguments)
        return arguments, Network.load(path, device=arguments.device, dtype=arguments.dtype), False
    config = runs.read_config(path)
    apply_config(command, path / runs.CONFIG, all_known=False)
    of_run = argparse.Namespace(**vars(command.parse_args([])) | {name: getattr(arguments, name) for name in BESIDE})
    resolve(of_run)
    weighted = any(
        config[part].get(key) is not None for part, key in (("data", "weights"), ("options", "class-weight"))
    )
    return of_run, Network.load(path / runs.MODEL, **place_of(arguments, config)), weighted


def _text(name: str, program: Program, backend: Backend, scales: dict[str, float | None], threads: int | None) -> str:
    """Return a level as text.  scales: for each gathered array the factor of its bytes, None for floats."""
    if name == "program":
        return program.describe()
    if name == "memory":
        return describe_memory(program)
    if name == "launches":
        return describe_launches(program)
    if name == "cuda":
        types = {name: backend.dtype if scale is None else np.dtype(np.uint8) for name, scale in scales.items()}
        return cuda_source(program, backend.dtype, Data(types)).text.rstrip()
    compiled = text_for(program, backend, scales, threads or threads_for(program, backend, MANY))
    if name == "plan":
        return compiled.plan.describe()
    return (compiled.text if name == "llvm" else assembly(compiled.text)).rstrip()
