"""The options of the learning rate's course over a run, and what they make: a schedule, or a callback."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import MISSING
from inspect import signature
from typing import Any, get_type_hints

from xpnet.commands.arguments import UsageError, in_flags, number, option, refuse_stray, whole
from xpnet.specs import defaults_of
from xpnet.training.callbacks import ReduceOnPlateau
from xpnet.training.optimizers import Optimizer
from xpnet.training.schedules import SCHEDULES, Constant, Schedule, WarmUp

# plateau is a callback that sees the epochs' losses; its parameters by the flags' names.
PLATEAU = {"factor": "factor", "plateau_patience": "patience", "plateau_threshold": "threshold", "lr_end": "lr_min"}
# For each schedule that can be chosen, the flags that it takes and their defaults. A warm-up goes before another one.
FLAGS: dict[str, dict[str, Any]] = {
    name: {flag: default for flag, default in defaults_of(made).items() if flag != "lr"}
    for name, made in SCHEDULES.items()
    if made is not WarmUp
} | {"plateau": {flag: signature(ReduceOnPlateau).parameters[parameter].default for flag, parameter in PLATEAU.items()}}
ALL_FLAGS = tuple(dict.fromkeys(flag for taken in FLAGS.values() for flag in taken))
MEANINGS = {
    "total_steps": "steps of the whole course (default: those of all epochs)",
    "every": "steps between two falls",
    "factor": "of a fall",
    "lr_end": "lowest rate",
    "rise": "part of the steps that rises",
    "div": "highest rate by the first",
    "final_div": "first rate by the last",
    "power": "lr / (step + 1)^X",
    "plateau_patience": "epochs without a better validation loss before a fall",
    "plateau_threshold": "part by which a loss must be lower to be better",
}


def add_schedule(command: argparse.ArgumentParser) -> None:
    """Add the options of the schedule.  A step of theirs is an update."""
    group = command.add_argument_group("schedule", "of the learning rate; its steps are updates")
    group.add_argument(
        "--schedule",
        type=option("schedule", FLAGS),
        default="constant",
        metavar="NAME",
        help=f"{', '.join(FLAGS)} (default: %(default)s)",
    )
    group.add_argument("--warmup", type=whole(1), metavar="STEPS", help="rise over that many steps to the first rate")
    counts = {flag: 1 for made in SCHEDULES.values() for flag, kind in get_type_hints(made).items() if kind is int}
    counts["plateau_patience"] = 0
    for flag in ALL_FLAGS:
        convert: Any = whole(counts[flag]) if flag in counts else number("0.5")
        metavar = "N" if flag in counts else "X"
        group.add_argument(f"--{flag.replace('_', '-')}", type=convert, metavar=metavar, help=_told(flag))


def make_rate(arguments: argparse.Namespace, lr: float, total_steps: int) -> float | Schedule:
    """Return the optimizer's lr: a number, or the schedule that the options describe.  total_steps: updates of the run.

    Raises UsageError for options that do not fit each other.
    """
    name = arguments.schedule
    refuse_stray(arguments, ALL_FLAGS, "--schedule", name, FLAGS)
    may_follow = [other for other in FLAGS if other in SCHEDULES and not SCHEDULES[other].warms_up]
    if arguments.warmup is not None and name not in may_follow:
        raise UsageError(f"--warmup goes with --schedule {', '.join(may_follow)}, not with {name}; leave it out")
    for flag, default in FLAGS[name].items():
        if default is MISSING and flag != "total_steps" and getattr(arguments, flag) is None:
            raise UsageError(f"--schedule {name} needs --{flag.replace('_', '-')}; add it")
    if name == "plateau":
        return lr
    given = {flag: getattr(arguments, flag) for flag in FLAGS[name] if getattr(arguments, flag) is not None}
    if "total_steps" in FLAGS[name]:
        needed = SCHEDULES[name].least_steps
        given.setdefault("total_steps", total_steps)
        if given["total_steps"] < needed:
            source = f"--epochs {arguments.epochs} give" if arguments.total_steps is None else "--total-steps say"
            raise UsageError(
                f"--schedule {name} goes over at least {needed} steps and {source} "
                f"{given['total_steps']}; give more epochs, or --schedule constant"
            )
    if arguments.warmup is not None and "total_steps" in given and arguments.total_steps is None:
        given["total_steps"] = max(1, total_steps - arguments.warmup)  # the rest of the run
    try:
        schedule: float | Schedule = SCHEDULES[name](lr, **given)
        if name == "constant":
            schedule = lr
        return schedule if arguments.warmup is None else WarmUp(schedule, arguments.warmup)
    except ValueError as error:
        raise UsageError(
            f"--schedule {name}: {in_flags(error, {'lr': 'lr', **{flag: flag for flag in given}})}"
        ) from None


def goes_by_epochs(arguments: argparse.Namespace) -> bool:
    """Whether the schedule's steps are those of all --epochs, as none are given."""
    return "total_steps" in FLAGS[arguments.schedule] and arguments.total_steps is None


def make_plateau(arguments: argparse.Namespace, optimizer: Optimizer, is_validated: bool) -> list[ReduceOnPlateau]:
    """Return the callback of --schedule plateau, if it is asked for."""
    if arguments.schedule != "plateau":
        return []
    if not is_validated:
        raise UsageError(
            "--schedule plateau goes by the validation loss, and no samples are held out; "
            "give some with --validation, or take another schedule"
        )
    given = {
        parameter: getattr(arguments, flag)
        for flag, parameter in PLATEAU.items()
        if getattr(arguments, flag) is not None
    }
    try:
        return [ReduceOnPlateau(optimizer, **given)]
    except ValueError as error:
        flags = {parameter: flag for flag, parameter in PLATEAU.items()}
        raise UsageError(f"--schedule plateau: {in_flags(error, flags)}") from None


def describe_end(arguments: argparse.Namespace, optimizer: Optimizer, n_updates: int) -> str | None:
    """Return a line for a schedule that ends before the run; None for others."""
    if arguments.total_steps is None:
        return None
    end = arguments.total_steps + (arguments.warmup or 0)
    if end >= n_updates:
        return None
    last = float(optimizer.schedule.values(end, 1)[0])
    return (
        f"--schedule {arguments.schedule} ends after {end} of {n_updates} updates, the others have the rate {last:g}; "
        "without --total-steps it goes over all"
    )


def describe_schedule(optimizer: Optimizer, plateau: Sequence[ReduceOnPlateau]) -> dict[str, Any]:
    """{"schedule": ...} with all its numbers, JSON-ready; {} for a constant rate."""
    if plateau:
        parameters = {parameter: getattr(plateau[0], parameter) for parameter in PLATEAU.values()}
        return {"schedule": {"type": "plateau", **parameters}}
    return {} if isinstance(optimizer.schedule, Constant) else {"schedule": optimizer.schedule.to_spec()}


def _told(flag: str) -> str:
    """Return the schedules that take a flag, its defaults, and what it means, for the help."""
    taken = {name: FLAGS[name][flag] for name in FLAGS if flag in FLAGS[name]}
    names = [name if default is MISSING else f"{name} ({default:g})" for name, default in taken.items()]
    return f"{', '.join(names)}: {MEANINGS.get(flag, flag.replace('_', ' '))}"
