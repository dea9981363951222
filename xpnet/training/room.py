"""See that a GPU has room for a run: refuse one that does not fit, and tell what needs the memory where it ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from xpnet.backend import DeviceFull
from xpnet.data.dataset import Dataset
from xpnet.network.network import Network
from xpnet.training.callbacks import KeepBest
from xpnet.training.memory_plan import CONTEXT, Planned, mebibytes, memory_plan
from xpnet.training.optimizers import Optimizer
from xpnet.training.options import Settings, TrainOptions


@contextmanager
def room_for(
    network: Network, dataset: Dataset, optimizer: Optimizer, settings: Settings, options: TrainOptions
) -> Iterator[tuple[int, int]]:
    """Yield the bytes that are needed beside the data of training, and beside those of the validation.

    Raises DeviceFull for a run that the free memory is too small for, and where CuPy cannot allocate.
    """
    if network.backend.device == "cpu":
        yield 0, 0
        return
    planned = memory_plan(
        network,
        dataset,
        optimizer,
        batch_size=settings.batch,
        validation=options.validation,
        accumulate=settings.accumulate,
        early_stopping=any(isinstance(callback, KeepBest) for callback in options.callbacks),
        reduction=settings.reduction,
    )
    needed, free = mebibytes(planned.needed), mebibytes(planned.free or 0)
    if planned.needed > (planned.free or 0):
        raise DeviceFull(
            f"the run needs {needed} MiB of the GPU's memory, {free} MiB are free, "
            f"{_most_of(planned)}; {_cure(settings.batch)}"
        )
    try:
        yield planned.beside
    except MemoryError as error:
        if isinstance(error, DeviceFull) or type(error).__name__ != "OutOfMemoryError":  # CuPy's, of the device
            raise
        raise DeviceFull(
            f"the GPU's memory is full ({str(error).rstrip('.')}), the run needs {needed} MiB of it, "
            f"{_most_of(planned)}; {_cure(settings.batch)}"
        ) from error


def _most_of(planned: Planned) -> str:
    on_device = [item for item in planned.items if item.place == "device" and item.name != CONTEXT]
    largest = sorted(on_device, key=lambda item: -item.nbytes)[:3]
    return f"most of it for {', '.join(f'{item.name} ({mebibytes(item.nbytes)})' for item in largest)}"


def _cure(batch: int) -> str:
    return f"take a batch_size below {batch}, smaller layers or device='cpu' (`xpnet train --plan` lists all)"
