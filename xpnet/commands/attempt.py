"""The training of a run as the options describe it, and a second one if a table's first diverges."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from xpnet.commands import runs
from xpnet.commands.arguments import UsageError
from xpnet.commands.defaults import default_rate
from xpnet.commands.loop_options import best_by, count_steps, count_updates, make_stops
from xpnet.commands.network_options import make_network
from xpnet.commands.optimizer_options import make_optimizer
from xpnet.commands.report import Report, say
from xpnet.commands.resume import keep_epochs, make_checkpoint
from xpnet.commands.schedule_options import make_plateau, make_rate
from xpnet.commands.signals import Interruption, Terminated, signals_ignored
from xpnet.files import write_atomically
from xpnet.parallel.communicator import follows
from xpnet.recipe.attempt import LOWER, Attempt
from xpnet.recipe.samples import Data
from xpnet.recipe.units import metrics_for
from xpnet.training.callbacks import Callback, HistoryFile
from xpnet.training.loop import TrainingDiverged
from xpnet.training.options import batch_of
from xpnet.training.placing import settle
from xpnet.training.progress import ProgressBar
from xpnet.training.records import Moment

DIVERGED = "diverged_at"  # in config.json, the rate of a first attempt
# options of its keywords
OF_LOOP = (
    *("epochs", "batch_size", "seed", "accumulate", "engine", "precision", "threads", "deterministic"),
    *("communicator", "reduction"),
)


def make_attempt(arguments: argparse.Namespace, data: Data) -> Attempt:
    """Make what the options describe for these data; raises UsageError if they do not fit."""
    network = make_network(arguments, data)
    n_updates = count_updates(arguments, network, data.training)
    optimizer = make_optimizer(arguments, make_rate(arguments, default_rate(arguments), n_updates))
    if network.device_is_open:  # the device is that of the training before anything says which it is
        batch = batch_of(arguments.batch_size, data.training.n_samples)
        weighted = data.training.weights is not None
        program = network.training_program(batch, optimizer, weighted, arguments.seed, arguments.accumulate)
        n_steps = arguments.epochs * count_steps(arguments, network, data.training)
        settle(network, optimizer, program, n_steps, arguments.engine, arguments.precision)
    plateau = make_plateau(arguments, optimizer, data.validation is not None)
    metrics = metrics_for(arguments.metrics, data.table) if data.validation is not None else []
    options = {name: getattr(arguments, name) for name in OF_LOOP}
    return Attempt(network, optimizer, options, plateau, make_stops(arguments, data.validation), metrics)


def trained(
    arguments: argparse.Namespace,
    data: Data,
    attempt: Attempt,
    run: Path,
    resume: Moment | None,
    announce: Callable[[], None],
) -> Report:
    """Train in a run's directory, and return the report.

    resume: the moment to go on from.  announce: says what is trained, when nothing more can be refused.
    """
    report = Report(arguments.json, arguments.quiet, attempt.metrics, best_by(arguments, data.validation))
    interruption = Interruption(run / runs.CHECKPOINT)
    callbacks: list[Callback] = [
        *attempt.watchers(data),
        HistoryFile(run / runs.HISTORY),
        report,
        make_checkpoint(arguments, run),
        interruption,
    ]
    if sys.stderr.isatty() and not arguments.quiet:
        callbacks.insert(0, ProgressBar(sys.stderr))
    # A checkpoint that does not fit is refused here, before anything of the run is written over.
    records = attempt.records(data, callbacks=callbacks, resume=resume)
    keep_epochs(arguments, run)
    # Process 0 listens for all.
    listening = nullcontext() if follows(arguments.communicator) else interruption.listening()
    with resume_told(arguments, run), listening, _model_saved_at_the_end(attempt, run / runs.MODEL):
        announce()
        report.records = list(records)  # in a process that follows nobody calls the report
    return report


def lower_rate(arguments: argparse.Namespace) -> float:
    """Set the rate for another attempt after a divergence, and return the one of before."""
    before = default_rate(arguments)
    arguments.lr = before * LOWER
    return before


def may_try_again(arguments: argparse.Namespace, data: Data, run: Path) -> bool:
    """Whether a training that diverged is tried again: of a table, once, from the rate that it began with."""
    is_changed = arguments.new_lr is not None  # by --lr beside --resume
    return data.table is not None and not is_changed and DIVERGED not in runs.read_config(run)


def begin_again(
    arguments: argparse.Namespace,
    data: Data,
    run: Path,
    error: TrainingDiverged,
    config_of: Callable[[Attempt], dict[str, Any]],
) -> Attempt:
    """Return the attempt at a lower rate, and set the run's directory back to its beginning with that rate.

    config_of: returns the config of the run.  Raises the error where the options do not allow a lower rate.
    """
    before = lower_rate(arguments)
    try:
        attempt = make_attempt(arguments, data)
    except UsageError:
        raise error from None
    say(f"xpnet: {error.cause}; it begins again at a tenth of the learning rate, {arguments.lr:g}")
    # In this order, so that a run that is killed meanwhile resumes at one rate or at the other.
    (run / runs.CHECKPOINT).unlink(missing_ok=True)
    (run / runs.MODEL).unlink(missing_ok=True)
    runs.write_config(run, config_of(attempt) | {DIVERGED: before})
    write_atomically(run / runs.HISTORY, b"")
    return attempt


def say_if_untrained(report: Report, arguments: argparse.Namespace) -> None:
    """Warn of a run that ended before its first step, whose network is untrained; of others their callbacks warn."""
    last = report.records[-1]
    if last["epoch"] == 0 < arguments.epochs:
        why = last.get("stopped", "no epoch")
        say(f"xpnet: the run ended before its first step ({why}): its network is untrained; allow it more")


@contextmanager
def resume_told(arguments: argparse.Namespace, run: Path) -> Iterator[None]:
    """Say how a run goes on that is stopped meanwhile."""
    try:
        yield
    except (KeyboardInterrupt, Terminated):
        if not arguments.quiet:
            say(f"stopped; `xpnet train --resume {run}` continues from here")
        raise


@contextmanager
def _model_saved_at_the_end(attempt: Attempt, path: Path) -> Iterator[None]:
    """Save the weights reached so far as the model, whatever ends the training, a signal too.

    But a run that was refused, or that diverged in its first epoch, leaves no untrained network for a model.
    """
    has_ended = False
    try:
        yield
        has_ended = True
    finally:
        if has_ended or attempt.optimizer.steps_done > 0:
            with signals_ignored(), attempt.averaged():
                attempt.network.save(path)
