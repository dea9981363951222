"""The options of the training loop: how long, in what batches, what is measured, what ends it early."""

from __future__ import annotations

import argparse

from xpnet.checks import check_option
from xpnet.commands.arguments import UsageError, in_flags, name_list, number, option, positive, whole
from xpnet.commands.defaults import told
from xpnet.commands.split_options import may_validate
from xpnet.data.dataset import Dataset
from xpnet.engines.choice import AUTO, ENGINES, FULL, MOST_THREADS, PRECISIONS, engine_names
from xpnet.network.layer import left_out
from xpnet.network.network import Network
from xpnet.recipe.defaults import BATCH_SIZE, BEST, LAST
from xpnet.tables.files import called
from xpnet.training.callbacks import Budget, Callback, EarlyStopping, KeepBest, StopAtScore
from xpnet.training.metrics import METRICS
from xpnet.training.options import batch_of
from xpnet.training.records import TRAIN_LOSS, VAL_ACCURACY, VAL_LOSS, VALIDATION, loss_to_watch, lower_is_better

MONITORED = {"end_with": VAL_LOSS, "target_score": VAL_ACCURACY}  # what each looks at without --monitor


def add_loop(command: argparse.ArgumentParser) -> None:
    """Add the options of the loop."""
    command.set_defaults(communicator=None, reduction=None)  # of one process, where no option says otherwise
    group = command.add_argument_group("loop")
    group.add_argument("--epochs", type=whole(0), metavar="N", help=f"at most {told('epochs')}")
    add_batch_size(group)
    add_accumulate(group)
    group.add_argument(
        "--engine",
        type=option("engine", (AUTO, *engine_names())),
        default=AUTO,
        metavar="NAME",
        help=f"what runs the steps: {', '.join(f'{name} {ENGINES[name].about}' for name in engine_names())}; "
        f"{AUTO} takes one that needs preparation where the run is long enough to repay it (default: %(default)s)",
    )
    group.add_argument(
        "--precision",
        type=option("precision", PRECISIONS),
        default=FULL,
        metavar="NAME",
        help="of the products of the steps: fp32, or on a CUDA GPU tf32, which leaves float32 numbers 10 bits of "
        "mantissa, for tensor cores (default: %(default)s)",
    )
    group.add_argument(
        "--deterministic",
        action="store_true",
        help="on a GPU, products in full by a handle of cuBLAS of their own, so that two runs agree to the bit "
        "whatever else it computes; on a CPU they do without it",
    )
    group.add_argument(
        "--threads",
        type=whole(1, MOST_THREADS),
        metavar="N",
        help="of the CPU that run a step (default: as many as pay for its size and the length of the run)",
    )
    add_metrics(group)
    group.add_argument(
        "--patience",
        type=whole(0),
        metavar="N",
        help=f"end after N epochs without a better value, 0 for never {told('patience')}",
    )
    group.add_argument(
        "--end-with",
        type=option("end-with", (BEST, LAST)),
        metavar="NAME",
        help=f"the weights to save: of the {BEST} epoch, by the value that --monitor names, or of the {LAST} one "
        f"(default: {BEST} where samples are held out, {LAST} with --ema or --target-score)",
    )
    group.add_argument(
        "--min-delta",
        type=number("0.001"),
        metavar="X",
        help="what a better value gains at least, for --patience (default: 0)",
    )
    group.add_argument(
        "--target-score", type=number("0.95"), metavar="SCORE", help="end at this value, or a loss that low"
    )
    group.add_argument(
        "--monitor",
        metavar="KEY",
        help=f"the value: {TRAIN_LOSS}, {VAL_LOSS}, {VAL_ACCURACY}, or {VALIDATION} and one of --metrics "
        f"(default: {VAL_LOSS} to choose the best epoch, {VAL_ACCURACY} for --target-score)",
    )
    group.add_argument("--max-seconds", type=positive("60"), metavar="S", help="end after S seconds")
    group.add_argument(
        "--max-steps", type=whole(1), metavar="N", help="end after N steps, of which --accumulate make an update"
    )


def check_stops(arguments: argparse.Namespace) -> None:
    """Refuse options that have no effect or no meaning; raises UsageError."""
    chooses = arguments.end_with == BEST
    for flag, is_used in (("min_delta", chooses), ("monitor", chooses or arguments.target_score is not None)):
        if getattr(arguments, flag) is not None and not is_used:
            wanted = "--patience, --target-score or --end-with best" if flag == "monitor" else "--patience"
            raise UsageError(f"--{flag.replace('_', '-')} goes with {wanted}; add one, or leave it out")
    if arguments.patience and arguments.end_with == LAST:
        raise UsageError(
            "--patience ends with the weights of the best epoch, not with what --end-with last or --ema takes; leave "
            "one of them out"
        )
    if chooses and arguments.ema is not None:
        raise UsageError("--end-with best takes one epoch's weights and --ema their average; leave one of them out")
    known = [TRAIN_LOSS, VAL_LOSS, VAL_ACCURACY, *(VALIDATION + name for name in arguments.metrics)]
    for monitor in _monitors(arguments):
        try:
            check_option("--monitor", monitor, known)
        except ValueError as error:
            raise UsageError(f"{error}; more come with --metrics") from None
        if monitor.startswith(VALIDATION) and not may_validate(arguments):
            raise UsageError(
                f"--validation {arguments.validation} leaves nothing to measure {monitor} on; hold some "
                f"samples out, or take --monitor {TRAIN_LOSS}"
            )
    _check_score(arguments)
    _stops(arguments)


def _check_score(arguments: argparse.Namespace) -> None:
    """Refuse a score that no run can reach: an accuracy above 1, a loss or an error of 0 or less."""
    score, monitor = arguments.target_score, arguments.monitor or MONITORED["target_score"]
    if score is None:
        return
    if not lower_is_better(monitor) and score > 1:
        raise UsageError(f"--target-score is {score:g}, and {monitor} is at most 1; give a part such as 0.95")
    if lower_is_better(monitor) and score < 0:
        raise UsageError(
            f"--target-score is {score:g}, and {monitor} is at least 0; give a number above it, such as 0.1"
        )


def make_stops(arguments: argparse.Namespace, validation: Dataset | None) -> list[Callback]:
    """Return the callbacks that end the training early; raises UsageError for a value that these data do not have."""
    for monitor in _monitors(arguments):
        if monitor.startswith(VALIDATION) and validation is None:
            raise UsageError(
                f"{monitor} needs samples held out, and {called(arguments.dataset)} has too few; hold some out with "
                f"--validation 1, or take --monitor {TRAIN_LOSS}"
            )
        if monitor == VAL_ACCURACY and validation is not None and not validation.is_classification:
            raise UsageError(
                f"{VAL_ACCURACY} needs classes, and {called(arguments.dataset)} has other targets; "
                f"take another --monitor, such as {VAL_LOSS}"
            )
    return _stops(arguments)


def best_by(arguments: argparse.Namespace, validation: Dataset | None) -> str:
    """Return the value by which one epoch is better than another: that of --monitor, or else a loss."""
    return arguments.monitor or loss_to_watch(validation is not None)


def _stops(arguments: argparse.Namespace) -> list[Callback]:
    stops: list[Callback] = []
    try:
        if arguments.end_with == BEST:
            monitor, least = arguments.monitor or MONITORED["end_with"], arguments.min_delta or 0.0
            patience = arguments.patience
            stops.append(EarlyStopping(patience, monitor, least) if patience else KeepBest(monitor, least))
    except ValueError as error:
        raise UsageError(in_flags(error, {"min_delta": "min_delta"})) from None
    if arguments.target_score is not None:
        stops.append(StopAtScore(arguments.target_score, arguments.monitor or MONITORED["target_score"]))
    if arguments.max_seconds is not None or arguments.max_steps is not None:
        stops.append(Budget(arguments.max_seconds, arguments.max_steps))
    return stops


def _monitors(arguments: argparse.Namespace) -> list[str]:
    """Return the values that --end-with best and --target-score watch."""
    is_watched = {"end_with": arguments.end_with == BEST, "target_score": arguments.target_score is not None}
    return [arguments.monitor or key for flag, key in MONITORED.items() if is_watched[flag]]


def add_batch_size(command: argparse._ActionsContainer) -> None:
    """Add --batch-size."""
    command.add_argument(
        "--batch-size", type=whole(1), default=BATCH_SIZE, metavar="N", help=f"samples a step (default: {BATCH_SIZE})"
    )


def add_accumulate(command: argparse._ActionsContainer) -> None:
    """Add --accumulate."""
    command.add_argument(
        "--accumulate", type=whole(1), default=1, metavar="K", help="batches to an update (default: %(default)s)"
    )


def add_metrics(command: argparse._ActionsContainer) -> None:
    """Add --metrics."""
    command.add_argument(
        "--metrics",
        type=name_list("metrics", METRICS),
        default=[],
        metavar="NAME[,NAME...]",
        help=f"measured beside loss and accuracy: {', '.join(METRICS)}",
    )


def count_updates(arguments: argparse.Namespace, network: Network, training: Dataset) -> int:
    """Return how many updates all epochs will make."""
    return arguments.epochs * -(-count_steps(arguments, network, training) // arguments.accumulate)


def count_steps(arguments: argparse.Namespace, network: Network, training: Dataset) -> int:
    """Return how many steps an epoch has."""
    batch = batch_of(arguments.batch_size, training.n_samples)
    return -(-(training.n_samples - left_out(network.layers, training.n_samples, batch)) // batch)
