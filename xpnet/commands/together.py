"""xpnet train under mpiexec: every process trains, and process 0 alone prints and writes the run's directory."""

from __future__ import annotations

import argparse
import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from xpnet.checks import check_option
from xpnet.commands import runs
from xpnet.commands.arguments import option
from xpnet.commands.resume import moment_to_resume, open_run
from xpnet.commands.wording import plain, system_message
from xpnet.parallel.communicator import Communicator, communicator, follows
from xpnet.parallel.mpi import is_started_by_mpiexec
from xpnet.parallel.reduction import FIXED, REDUCTIONS
from xpnet.training.others import RankFailed, is_shared
from xpnet.training.records import Moment


def add_together(group: argparse._ActionsContainer) -> None:
    """Add --reduction and --no-mpi."""
    group.add_argument(
        "--reduction",
        type=option("reduction", REDUCTIONS),
        metavar="NAME",
        help="how a step is added up over the processes that mpiexec starts: fixed, in one order, to the same bits for "
        "1, 2, 4 and 8 of them, or fast, as the MPI library likes (default: fixed under mpiexec; without it a step is "
        "computed whole, unless this option is given)",
    )
    group.add_argument("--no-mpi", action="store_true", help="train alone, also where mpiexec started the process")


class Together:
    """The processes of a run, until they have all come to its training and after.

    communicator: of the processes; None for one alone.
    """

    def __init__(self, communicator: Communicator | None) -> None:
        self.communicator = communicator
        self.is_led = communicator is not None and communicator.size > 1
        self.is_follower = follows(communicator)
        self._has_met = False

    def meet(self, error: BaseException | None = None) -> None:
        """Wait until every process is ready to train; raises RankFailed if one is not, unless all have that error.

        error: why this one is not.
        """
        if self._has_met or self.communicator is None:
            return
        self._has_met = True
        causes = self.communicator.gather(None if error is None else _cause(error))
        for rank, cause in enumerate(causes):
            if cause is not None and set(causes) != {cause}:
                raise RankFailed(f"rank {rank}: {cause}") from None

    def end(self, error: BaseException) -> None:
        """Let an error here end every process, unless all of them have it; returns where each ends by itself."""
        if not self._has_met:
            self.meet(error)
        elif self.communicator is not None and not is_shared(error):
            self.communicator.abort(f"rank {self.communicator.rank}: {_cause(error)}")

    @contextmanager
    def open_run(self, arguments: argparse.Namespace, config: dict[str, Any]) -> Iterator[tuple[Path, Moment | None]]:
        """Yield what `resume.open_run` does; a process that follows writes into a directory of its own, then gone."""
        if not self.is_follower:
            with open_run(arguments, config) as opened:
                yield opened
            return
        with tempfile.TemporaryDirectory() as folder:
            runs.write_config(Path(folder), config)
            yield Path(folder), None if arguments.resume is None else moment_to_resume(arguments)


@contextmanager
def together(arguments: argparse.Namespace) -> Iterator[Together]:
    """Join the processes that mpiexec started, or be alone; an error of one of them ends all.

    Those that follow print nothing, leave Ctrl-C and termination to process 0, and exit with its code.
    """
    found = Together(communicator("mpi") if is_started_by_mpiexec() and not arguments.no_mpi else None)
    arguments.communicator = found.communicator
    if found.communicator is not None and arguments.reduction is None:
        arguments.reduction = FIXED  # kept with the run, so that it resumes with any number of processes
    check_option("reduction", arguments.reduction or FIXED, REDUCTIONS)
    try:
        with _silent(found.is_follower):
            yield found
    except BaseException as error:
        try:
            found.end(error)
            raise
        finally:
            if found.is_follower:
                raise SystemExit(1)  # process 0 says why


@contextmanager
def _silent(is_follower: bool) -> Iterator[None]:
    """Print nothing and ignore signals meanwhile, in a process that follows."""
    if not is_follower:
        yield
        return
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


def _cause(error: BaseException) -> str:
    if isinstance(error, OSError):
        return plain(system_message(error))
    return plain(str(error)) or type(error).__name__
