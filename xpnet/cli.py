"""The command line: a parser of all commands, and the exit codes.

Results go to stdout, progress and errors to stderr.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import xpnet
from xpnet.backend import BackendUnavailable, DeviceFull
from xpnet.commands import apply, bench, describe, export, find_lr, info, plot, reporting, train
from xpnet.commands.arguments import CommandParser, UsageError
from xpnet.commands.config_file import apply_config
from xpnet.commands.resume import apply_run
from xpnet.commands.signals import Terminated
from xpnet.commands.wording import plain, system_message, wrapped
from xpnet.parallel.mpi import rank_given
from xpnet.training.loop import TrainingDiverged
from xpnet.training.others import RankFailed
from xpnet.tuning import command as tune

EXAMPLES = (
    ("xpnet train", "on the digits inside the package"),
    ("xpnet train --dataset mnist --epochs 25", "on MNIST (extra: xpnet[download])"),
    ("xpnet train data.csv --target price", "on a table (extra: xpnet[data])"),
    ("xpnet tune data.csv --target price", "search its options (extra: xpnet[tune])"),
    ("xpnet train --config RUN/config.json", "repeat a run"),
    ("xpnet train --resume RUN", "continue a run that was stopped"),
    ("xpnet find-lr --optimizer adam", "an initial learning rate"),
    ("xpnet evaluate RUN", "a run on the data held out"),
    ("xpnet predict RUN X.npy --out Y.csv", "a run's model on other rows"),
    ("xpnet export RUN --out model.onnx", "a run's model for other programs (extra: xpnet[onnx])"),
    ("xpnet plot RUN", "its curves, mistakes and more (extra: xpnet[plot])"),
    ("xpnet report RUN RUN --out report.html", "one page about runs (extra: xpnet[plot])"),
    ("xpnet bench --out here.json", "which device is faster here"),
    ("xpnet describe --layers 2,3,1", "a training step, down to machine code"),
    ("xpnet info", "for a bug report"),
    ("xpnet info RUN", "the network of a run as a table"),
)
COMPLETES = "_ARGCOMPLETE"  # set by a shell that asks for completions, after register-python-argcomplete
FAILURE, USAGE, INTERRUPTED, TERMINATED = 1, 2, 130, 143


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 1 failure, 2 usage, 130 interrupted, 143 terminated."""
    # A daemon may start us with these streams closed.
    sys.stdin = sys.stdin or open(os.devnull, encoding="utf-8")  # noqa: SIM115
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  as long as the process
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")  # a path may have letters that a terminal does not
    try:
        parser = _parser()
        if COMPLETES in os.environ:
            _complete(parser)
        arguments = parser.parse_args(argv)
        if arguments.command is None:
            parser.print_help()
            return USAGE
        if getattr(arguments, "config", None) is not None:
            apply_config(arguments.parser, Path(arguments.config), given=arguments)
            arguments = parser.parse_args(argv)
        if getattr(arguments, "resume", None) is not None:
            (tune.apply_search if arguments.command == "tune" else apply_run)(arguments)
            arguments = parser.parse_args(argv)
        code: int = arguments.run(arguments)
        sys.stdout.flush()
        return code
    except UsageError as error:
        return USAGE if rank_given() else _fail(str(error), USAGE)  # equal in all processes: the first says it
    except BrokenPipeError:
        _drop_unwritable_stdout()  # the reader has gone, as with `| head`
        return FAILURE
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED)
    except Terminated:
        return _fail("terminated", TERMINATED)
    except OSError as error:
        _drop_unwritable_stdout()
        return _fail(system_message(error), FAILURE)
    except MemoryError as error:
        _drop_unwritable_stdout()
        if isinstance(error, DeviceFull):
            return _fail(str(error), FAILURE)
        found = f" ({error})" if str(error) else ""
        return _fail(f"too little memory is free{found}; take fewer samples, smaller --layers or batches", FAILURE)
    except (ValueError, TypeError, ImportError, BackendUnavailable, TrainingDiverged, RankFailed) as error:
        _drop_unwritable_stdout()
        return _fail(str(error) or type(error).__name__, FAILURE)


def _complete(parser: argparse.ArgumentParser) -> None:
    """Answer a shell that asks how a line may go on, and end; does nothing without argcomplete."""
    with suppress(ImportError):
        from argcomplete import autocomplete

        autocomplete(parser)


def _drop_unwritable_stdout() -> None:
    """Discard what stdout cannot take (reader gone, disk full), so that the flush at exit does not fail again."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(message: str, code: int) -> int:
    with suppress(OSError):  # the terminal has gone, or the disk is full: the exit code says it too
        print(wrapped(f"xpnet: {plain(message)}", sys.stderr), file=sys.stderr, flush=True)
    return code


def _examples() -> str:
    """Return the example commands, each beside its description, or above it on a narrow terminal."""
    column = max(len(command) for command, _ in EXAMPLES) + 5
    is_wide = shutil.get_terminal_size().columns >= column + max(len(text) for _, text in EXAMPLES)
    lines = (
        f"  {command}".ljust(column) + text if is_wide else f"  {command}\n      {text}" for command, text in EXAMPLES
    )
    return "\n".join(["examples (RUN is a run directory):", *lines])


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="xpnet",
        description="Train feed-forward networks on NumPy or CuPy.",
        epilog=_examples(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("-V", "--version", action="version", version=f"xpnet {xpnet.__version__}")
    commands = parser.add_subparsers(
        dest="command", metavar="COMMAND", title="commands", description="xpnet COMMAND --help lists its options"
    )
    train.add_parser(commands)
    tune.add_parser(commands)
    find_lr.add_parser(commands)
    apply.add_parsers(commands)
    export.add_parser(commands)
    plot.add_parser(commands)
    reporting.add_parser(commands)
    bench.add_parser(commands)
    describe.add_parser(commands)
    info.add_parser(commands)
    return parser
