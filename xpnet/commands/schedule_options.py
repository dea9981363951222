"""The options of the learning rate's course over a run, and what they make: a schedule, or a callback."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import fields
from typing import Any

from xpnet.commands.arguments import UsageError, number, option, refuse_stray, whole
from xpnet.training.callbacks import ReduceOnPlateau
from xpnet.training.optimizers import Optimizer
from xpnet.training.schedules import Constant, Cosine, Exponential, InverseScaling, OneCycle, Schedule, Step, WarmUp

# One table from name to constructor; each takes lr first.
SCHEDULES: dict[str, Callable[..., Any]] = {
    "constant": Constant,
    "step": Step,
    "exponential": Exponential,
    "cosine": Cosine,
    "one-cycle": OneCycle,
    "inverse-scaling": InverseScaling,
}
# plateau is a callback that sees the epochs' losses; its parameters by the flags' names.
PLATEAU = {"factor": "factor", "plateau_patience": "patience", "plateau_threshold": "threshold", "lr_end": "lr_min"}
WARMS_UP = ("constant", "step", "exponential", "cosine", "inverse-scaling")
NEEDED = {"step": "every", "exponential": "factor"}
FLAGS: dict[str, list[str]] = {
    **{
        name: [field.name for field in fields(made) if field.name != "lr"]  # type: ignore[arg-type]
        for name, made in SCHEDULES.items()
    },
    "plateau": list(PLATEAU),
}
ALL_FLAGS = tuple(dict.fromkeys(flag for taken in FLAGS.values() for flag in taken))


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
    group.add_argument("--warmup", type=whole(1), metavar="STEPS", help="rise over so many steps to the first rate")
    group.add_argument(
        "--total-steps",
        type=whole(1),
        metavar="N",
        help="cosine, one-cycle: steps of the whole course (default: those of all epochs)",
    )
    group.add_argument("--every", type=whole(1), metavar="N", help="step: steps between two falls")
    for flag, text in (
        ("factor", "step (0.1), plateau (0.1), exponential: factor of a fall"),
        ("lr-end", "cosine, plateau: lowest rate (default: 0)"),
        ("rise", "one-cycle: part of the steps that rises (default: 0.3)"),
        ("div", "one-cycle: highest rate by the first (default: 25)"),
        ("final-div", "one-cycle: first rate by the last (default: 10000)"),
        ("power", "inverse-scaling: lr / (step + 1)^X (default: 0.5)"),
        ("plateau-threshold", "plateau: part by which a loss must be lower to be better (default: 0.0001)"),
    ):
        group.add_argument(f"--{flag}", type=number("0.5"), metavar="X", help=text)
    group.add_argument(
        "--plateau-patience",
        type=whole(0),
        metavar="N",
        help="plateau: epochs without a better validation loss before a fall (default: 10)",
    )


def make_rate(arguments: argparse.Namespace, lr: float, total_steps: int) -> float | Schedule:
    """Return the optimizer's lr: a number, or the schedule that the options say.  total_steps: updates of the run.

    Raises UsageError for options that do not fit each other.
    """
    name = arguments.schedule
    refuse_stray(arguments, ALL_FLAGS, "--schedule", name, FLAGS)
    if arguments.warmup is not None and name not in WARMS_UP:
        raise UsageError(f"--warmup goes with --schedule {', '.join(WARMS_UP)}, not with {name}; leave it out")
    if name in NEEDED and getattr(arguments, NEEDED[name]) is None:
        raise UsageError(f"--schedule {name} needs --{NEEDED[name]}; add it")
    if name == "plateau":
        return lr
    given = {flag: getattr(arguments, flag) for flag in FLAGS[name] if getattr(arguments, flag) is not None}
    if "total_steps" in FLAGS[name]:
        needed = 2 if name == "one-cycle" else 1
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
        raise UsageError(f"--schedule {name}: {error}") from None


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
        raise UsageError(f"--schedule plateau: {error}") from None


def describe_schedule(optimizer: Optimizer, plateau: list[ReduceOnPlateau]) -> dict[str, Any]:
    """{"schedule": ...} with all its numbers, JSON-ready; {} for a constant rate."""
    if plateau:
        parameters = {parameter: getattr(plateau[0], parameter) for parameter in PLATEAU.values()}
        return {"schedule": {"type": "plateau", **parameters}}
    return {} if isinstance(optimizer.schedule, Constant) else {"schedule": _described(optimizer.schedule)}


def _described(schedule: Schedule | float) -> Any:
    if not isinstance(schedule, Schedule):
        return schedule
    names = {made: name for name, made in SCHEDULES.items()} | {WarmUp: "warm-up"}
    values = {field.name: getattr(schedule, field.name) for field in fields(schedule)}  # type: ignore[arg-type]
    if isinstance(schedule, WarmUp):
        values["after"] = _described(schedule.after)
    return {"type": names[type(schedule)], **values}
