"""xpnet train --resume: continue a run from the checkpoint in its directory."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from xpnet.backend import DEVICES
from xpnet.commands import runs
from xpnet.commands.arguments import UsageError, whole
from xpnet.commands.config_file import apply_config
from xpnet.commands.report import say
from xpnet.commands.schedule_options import goes_by_epochs
from xpnet.files import write_atomically
from xpnet.tables.files import stem_of
from xpnet.training.checkpoint import Checkpoint, check_epochs, load_checkpoint
from xpnet.training.records import Moment

# What may stand beside --resume; all else is in the run's config.json.
ALLOWED = (
    "command",
    "run",
    "parser",
    "resume",
    "json",
    "quiet",
    "plan",
    "plot",
    "device",
    "data_dir",
    "epochs",
    "lr",
    "checkpoint_every",
    "no_mpi",
)


def add_resume(group: argparse._ActionsContainer) -> None:
    """Add --resume and --checkpoint-every."""
    group.add_argument(
        "--resume",
        metavar="RUN",
        help="continue the run in that directory, which was stopped or killed, to the same weights; "
        "--epochs may give it more, unless its schedule depends on their number, and --lr another constant rate",
    )
    group.add_argument(
        "--checkpoint-every",
        type=whole(1),
        metavar="STEPS",
        help="write the run's checkpoint after that many steps (default: every 30 seconds), and at the ends of epochs",
    )


def apply_run(
    arguments: argparse.Namespace, name: str = runs.CONFIG, allowed: Sequence[str] = ALLOWED, verb: str = "train"
) -> None:
    """Make the options of the run in arguments.resume the command's defaults.

    name: of the file that has them.  allowed: options that may stand beside --resume.  verb: of the command.
    Raises FileNotFoundError or ValueError if it is no run, UsageError for options that cannot stand beside --resume.
    """
    command, run = arguments.parser, Path(arguments.resume)
    config = runs.read_config(run, name, verb)
    defaults = vars(command.parse_args([]))
    given = sorted(vars(arguments).items())
    stray = [flag for flag, value in given if flag not in allowed and value != defaults[flag]]
    if stray:
        flags = ", ".join(f"--{flag.replace('_', '-')}" for flag in stray)
        raise UsageError(f"--resume takes all from {run / name}; leave {flags} out, or {verb} again without --resume")
    apply_config(command, run / name)
    backend = config.get("backend")
    device = backend.get("device") if isinstance(backend, dict) else None
    if device in DEVICES:
        command.set_defaults(device=device)


@contextmanager
def open_run(arguments: argparse.Namespace, config: dict[str, Any]) -> Iterator[tuple[Path, Moment | None]]:
    """Yield the run's directory, a new one unless it is resumed, and the moment to resume from, if there is one.

    No other process may train in the directory meanwhile.
    """
    is_new = arguments.resume is None
    run = runs.create_run(arguments.out, stem_of(arguments.dataset)) if is_new else Path(arguments.resume)
    with runs.locked(run):
        if is_new:
            runs.check_new(run)
            runs.write_config(run, config)
            (run / runs.HISTORY).touch()
        yield run, None if is_new else _moment(arguments, run)


def take_rate(arguments: argparse.Namespace) -> None:
    """Set a resumed run's first rate as its --lr, and the rate that was asked for, if it is another, as its new_lr."""
    arguments.new_lr = None
    if arguments.resume is not None:
        kept = runs.read_config(arguments.resume).get("options", {}).get("lr")
        if arguments.lr != kept:
            arguments.lr, arguments.new_lr = kept, arguments.lr


def _with_rate(moment: Moment, lr: float) -> Moment:
    if moment.lr is None:
        raise UsageError(f"--lr {lr:g} is for a constant rate, and the run's --schedule sets its own; leave --lr out")
    return replace(moment, lr=lr)


def _moment(arguments: argparse.Namespace, run: Path) -> Moment | None:
    _check_course(arguments, run)
    path = run / runs.CHECKPOINT
    if not path.is_file():
        say(f"{run} has no checkpoint yet: it starts again")
        write_atomically(run / runs.HISTORY, b"")
        return None
    moment = moment_to_resume(arguments)
    assert moment is not None
    last = moment.history[-1]
    if moment.is_over(arguments.epochs):
        reason = f", {last['stopped']}" if "stopped" in last else ""
        say(f"{run} has ended after epoch {last['epoch']}{reason}: nothing is left to train; --epochs N trains on to N")
    else:
        rate = "" if arguments.new_lr is None else f", at a learning rate of {arguments.new_lr:g}"
        say(f"{run} continues with epoch {moment.progress.epoch}, after step {moment.progress.step}{rate}")
    return moment


def moment_to_resume(arguments: argparse.Namespace) -> Moment | None:
    """Return the moment that the run's checkpoint holds, at another constant rate if one is asked for."""
    path = Path(arguments.resume) / runs.CHECKPOINT
    if not path.is_file():
        return None
    moment = load_checkpoint(path)
    if arguments.new_lr is not None:
        moment = _with_rate(moment, arguments.new_lr)
    check_epochs(moment, arguments.epochs)
    return moment


def _check_course(arguments: argparse.Namespace, run: Path) -> None:
    """Refuse other epochs where the learning rate goes by them: the steps done would have had other rates."""
    epochs = runs.read_config(run).get("epochs")
    if epochs != arguments.epochs and goes_by_epochs(arguments):
        raise UsageError(
            f"--schedule {arguments.schedule} of {run} goes over its {epochs} epochs, and --epochs is "
            f"{arguments.epochs}: the rates so far would have been others; leave --epochs out, or train "
            "again without --resume"
        )


def keep_epochs(arguments: argparse.Namespace, run: Path) -> None:
    """Write a changed number of epochs into the run's config.json."""
    kept = runs.read_config(run)
    if kept.get("epochs") != arguments.epochs:
        more = {"epochs": arguments.epochs}
        runs.write_config(run, kept | more | {"options": kept["options"] | more})


def make_checkpoint(arguments: argparse.Namespace, run: Path) -> Checkpoint:
    """Return the callback that keeps the checkpoint of a run."""
    return Checkpoint(run / runs.CHECKPOINT, steps=arguments.checkpoint_every)
