"""The options of a training run, checked and resolved before its first step."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from xpnet.backend import Backend
from xpnet.checks import check_option, check_whole
from xpnet.data.dataset import Dataset
from xpnet.data.feed import Orders
from xpnet.engines.choice import (
    ENGINES,
    FULL,
    blas_threads,
    check_deterministic,
    check_precision,
    check_threads,
    choose_engine,
    engine_to_resume,
    threads_of,
)
from xpnet.network.layer import check_batch, left_out
from xpnet.network.network import Network
from xpnet.parallel.communicator import Communicator, Single
from xpnet.parallel.reduction import FAST, FIXED, REDUCTIONS, Reduction, check_ranks
from xpnet.program.calls import Program
from xpnet.program.shards import Shards
from xpnet.training.callbacks import Callback, KeepBest, StopAtScore
from xpnet.training.checkpoint import check_resume, moment_of
from xpnet.training.evaluation import check_compatible, check_metrics
from xpnet.training.optimizers import Optimizer
from xpnet.training.placing import deciding_engine, settle
from xpnet.training.records import Moment
from xpnet.training.schedules import Constant, Schedule

ALL, DEFAULT_BATCH = "all", 32  # of batch_size


class ClassNotTrained(UserWarning):
    """The validation has a class of which the data to train on have no sample."""


@dataclass(frozen=True)
class TrainOptions:
    """The keywords of `xpnet.train`, whose docstring explains each.

    Raises TypeError or ValueError for a value that no run can have.
    """

    epochs: int
    batch_size: int | Literal["all"] | None = None
    shuffle: bool | Orders = True
    seed: int = 0
    validation: Dataset | None = None
    callbacks: Sequence[Callback] = ()
    accumulate: int = 1
    metrics: Iterable[str] = ()
    engine: str = "auto"
    precision: str = FULL
    threads: int | None = None
    resume: str | os.PathLike[str] | Moment | None = None
    is_alone: bool = False
    communicator: Communicator | None = None
    reduction: str | None = None
    measures_start: bool = True
    deterministic: bool = False

    def __post_init__(self) -> None:
        metrics = check_metrics(self.metrics)
        if metrics and self.validation is None:
            raise ValueError(
                f"metrics is {metrics} and there is no validation; pass validation=, a Dataset to measure them on"
            )
        if not isinstance(self.callbacks, Iterable):
            raise TypeError(f"callbacks is {self.callbacks!r}; it must be a list of callbacks: callbacks=[...]")
        callbacks = tuple(self.callbacks)
        for callback in callbacks:
            if not isinstance(callback, Callback):
                raise TypeError(f"a callback is {callback!r}; it must be an instance of xpnet.Callback")
        checked = {
            "epochs": check_whole("epochs", self.epochs, at_least=0),
            "callbacks": callbacks,
            "accumulate": check_whole("accumulate", self.accumulate, at_least=1),
            "metrics": metrics,
            "shuffle": self.shuffle if hasattr(self.shuffle, "shuffle") else bool(self.shuffle),
            "seed": check_whole("seed", self.seed, at_least=0),
            "deterministic": bool(self.deterministic),
            "threads": None if self.threads is None else check_whole("threads", self.threads, at_least=1),
        }
        check_batch_size(self.batch_size)
        if self.reduction is not None:
            check_option("reduction", self.reduction, REDUCTIONS)
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    @property
    def adding(self) -> Reduction | None:
        """What adds the shards of a step; None where one process trains and asks for no fixed order."""
        alone = self.communicator is None or self.communicator.name == "single"
        kind = self.reduction or (None if alone else FIXED)
        communicator = self.communicator or Single()
        if kind is None or (kind == FAST and communicator.size == 1):
            return None
        return Reduction(communicator, kind)

    @property
    def is_led(self) -> bool:
        """Whether several processes train, of which the first decides."""
        return self.communicator is not None and self.communicator.size > 1

    @property
    def is_unwatched(self) -> bool:
        """Whether nobody needs the network between two epochs: neither the caller nor a callback."""
        return self.is_alone and all(callback.only_watches for callback in self.callbacks)


def best_of(options: TrainOptions, keep_best: bool) -> list[Callback]:
    """Return the callback that keeps the best weights, if there is a validation and no other callback chooses them."""
    chooses = any(isinstance(callback, (KeepBest, StopAtScore)) for callback in options.callbacks)
    if not keep_best or options.validation is None or chooses:
        return []
    moment = options.resume
    if isinstance(moment, Moment) and not any(name == "KeepBest" for name, _ in moment.callbacks):
        return []  # a run that kept none, as those of xpnet 0.1
    return [KeepBest()]


def check_batch_size(found: Any) -> None:
    """Refuse what is no number of samples, "all" or None."""
    if isinstance(found, str):
        check_option("batch_size", found, (ALL, "or a number"))
    elif found is not None:
        check_whole("batch_size", found, at_least=1)


def batch_of(batch_size: int | str | None, n_samples: int) -> int:
    """Return the samples of a full step: all, or 32 where nothing is said, if there are as many."""
    if batch_size == ALL:
        return n_samples
    return min(DEFAULT_BATCH if batch_size is None else int(batch_size), n_samples)


@dataclass(frozen=True)
class Settings:
    """How an epoch takes the samples.

    batch: samples a step.  accumulate: steps an update.  n_used: samples an epoch.  engine: the name of the engine.
    precision: of the products of the steps.  threads: of a compiled step.  blas_threads: of NumPy's products.
    reduction: adds the shards of a step; None where it is computed whole.  deterministic: on a GPU, see `xpnet.train`.
    """

    batch: int
    accumulate: int
    n_used: int
    shuffle: bool | Orders
    seed: int
    engine: str
    precision: str
    threads: int | None = None
    blas_threads: int | None = None
    reduction: Reduction | None = None
    deterministic: bool = False

    @property
    def n_steps(self) -> int:
        """Steps an epoch."""
        return -(-self.n_used // self.batch)

    @property
    def n_updates(self) -> int:
        """Updates an epoch."""
        return -(-self.n_steps // self.accumulate)


Prepared = tuple[Program, Settings, Moment | None]


def prepare(network: Network, dataset: Dataset, optimizer: Optimizer, options: TrainOptions) -> Prepared:
    """Return the Program of a step, the settings of the epochs, and the moment to resume from, if there is one.

    Raises ValueError or TypeError if network, data, optimizer, options and checkpoint do not fit each other.
    """
    check_compatible(network, dataset, "dataset")
    if options.validation is not None:
        check_compatible(network, options.validation, "validation")
        _warn_of_classes(dataset, options.validation)
    check_optimizer(optimizer)
    batch = batch_of(options.batch_size, dataset.n_samples)
    if options.batch_size == ALL and dataset.is_mapped:
        raise ValueError(
            f"batch_size is {ALL!r}, which takes all {batch} samples of a mapped file in one step; "
            "give a number, such as batch_size=128"
        )
    reduction = options.adding
    shards = None if reduction is None else _shards(network, reduction, batch)
    n_used = _samples_used(network, dataset.n_samples, batch, shards)
    moment = moment_of(options.resume)
    weighted = dataset.weights is not None
    program = network.training_program(batch, optimizer, weighted, options.seed, options.accumulate, shards)
    n_steps = options.epochs * -(-n_used // batch)
    settle(network, optimizer, program, n_steps, deciding_engine(options.engine, moment), options.precision)
    asked = engine_to_resume(options.engine, None if moment is None else moment.fit.get("engine"), network.backend)
    n_programs = 1 if options.validation is None else 2
    # By the steps of all processes, so that the choice does not depend on how many there are.
    n_runs = n_steps if shards is None else n_steps * shards.count
    engine = choose_engine(asked, program, network.backend, n_runs, n_programs)
    precision = check_precision(options.precision, engine, network.backend)
    if options.deterministic:
        check_deterministic(engine, network.backend, precision, None if reduction is None else reduction.kind)
    had: dict[str, Any] = {} if moment is None else moment.fit
    steps = n_steps if options.is_unwatched and not dataset.is_mapped else -(-n_used // batch)
    threads = _threads(options, engine, program, network.backend, steps, had)
    settings = Settings(
        batch,
        options.accumulate,
        n_used,
        options.shuffle,
        options.seed,
        engine,
        precision,
        *threads,
        reduction,
        options.deterministic and network.backend.device != "cpu",
    )
    if moment is not None:
        fingerprint = run_fingerprint(network, optimizer, dataset, settings)
        now = fingerprint.pop("blas_threads")
        if settings.threads in (None, 1):  # several threads of a step have a product each
            _warn_of_threads(had.get("blas_threads"), now)
        if options.threads is None or had.get("threads") is None:  # those that the run had, if it is compiled again
            del fingerprint["threads"]
        if "scale" not in had:  # of a file that xpnet 0.1 wrote
            del fingerprint["scale"]
        if options.engine == "auto":  # another only on another device, where the bits differ anyway
            del fingerprint["engine"]
        check_resume(moment, options.epochs, fingerprint, options.callbacks)
    return program, settings, moment


def _threads(
    options: TrainOptions, engine: str, program: Program, backend: Backend, steps: int, had: dict[str, Any]
) -> tuple[int | None, int | None]:
    """Return the threads of a compiled step and those of NumPy's products: asked for, of the run to resume, or chosen.

    steps: of a call of the engine.  had: what the run to resume said of itself, empty without one.
    """
    asked = check_threads(options.threads, engine, backend)
    if options.adding is not None:
        return _one_thread(asked, engine)
    found = had.get("threads") if had.get("engine") == engine else None
    threads = threads_of(engine, program, backend, steps, found if asked is None else asked)
    by_blas = blas_threads(program, backend, had.get("blas_threads")) if asked is None else asked
    return threads, by_blas if threads in (None, 1) else 1


def _one_thread(asked: int | None, engine: str) -> tuple[int | None, int | None]:
    """Return the threads of a step that is computed by shards, each on one."""
    if asked not in (None, 1):
        raise ValueError(
            f"threads is {asked} and the shards of a step are computed on one thread each; leave threads out, and "
            f"start {asked} processes: mpiexec -n {asked}"
        )
    return (1 if ENGINES[engine].threads else None), 1


def _shards(network: Network, reduction: Reduction, batch: int) -> Shards:
    """Return the cut of a step; refuses more processes than have work, and shards too small for a layer."""
    check_ranks(reduction, batch)
    shards = reduction.shards(batch)
    small = min(shards.sizes(batch))
    for layer in network.layers:
        if small < layer.least_batch:
            raise ValueError(
                f"a step of {batch} samples has a shard of {small} and {layer} needs {layer.least_batch} or more in "
                f"each of {shards.count}; take batch_size={shards.count * max(layer.least_batch, shards.size)}"
            )
    return shards


def _warn_of_threads(found: Any, now: int | None) -> None:
    """Say so if NumPy's products had another number of threads: the same bits were promised."""
    if found is not None and now is not None and found != now:
        warnings.warn(
            f"the run to resume had {found} threads of BLAS and there are {now} now, so that its sums may round "
            f"differently; for the same bits set OPENBLAS_NUM_THREADS={found}",
            stacklevel=5,
        )


def _warn_of_classes(dataset: Dataset, validation: Dataset) -> None:
    """Say so if a class is validated that is never trained on, as if sorted samples were cut in two."""
    if not (dataset.is_classification and validation.is_classification):
        return
    trained = dataset.labels if dataset.weights is None else dataset.labels[dataset.weights > 0]
    n_classes = max(2, dataset.n_outputs)
    held, known = (np.bincount(labels, minlength=n_classes) for labels in (validation.labels, trained))
    missing = np.flatnonzero((held > 0) & (known == 0))
    if missing.size:
        n_samples = int(held[missing[0]])
        found = f"{n_samples} sample{'s' * (n_samples != 1)} of class {missing[0]}"
        more = "" if missing.size == 1 else f", nor of {missing.size - 1} other classes there"
        warnings.warn(
            f"validation has {found} and the data to train on have none of it{more}: if they were sorted, shuffle them "
            "first, or take dataset.split(0.1, stratify=True)",
            ClassNotTrained,
            stacklevel=5,
        )


def check_optimizer(optimizer: Any) -> None:
    """Refuse what is no optimizer."""
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"optimizer is {optimizer!r}; it must be an optimizer such as xpnet.SGD(lr=0.1)")


def _samples_used(network: Network, n_samples: int, batch: int, shards: Shards | None = None) -> int:
    """Return how many samples an epoch takes: all, unless the last step is too short for a layer, as for BatchNorm."""
    check_batch(network.layers, batch)
    short = left_out(network.layers, n_samples % batch if shards else n_samples, shards.size if shards else batch)
    if not short:
        return n_samples
    layer = max(network.layers, key=lambda layer: layer.least_batch)
    needed, what = f"{type(layer).__name__} needs {layer.least_batch}", "a shard of " if shards else ""
    warnings.warn(
        f"the last step of an epoch would have {what}{short} sample{'s' * (short > 1)} and {needed}: each epoch leaves "
        f"out {short} of the {n_samples} samples, the last one in its order; another batch_size takes them all",
        stacklevel=5,
    )
    return n_samples - short


def run_fingerprint(network: Network, optimizer: Optimizer, dataset: Dataset, settings: Settings) -> dict[str, Any]:
    """Return what a run must have in common with the one that it resumes, by name, ready for JSON."""
    constant = isinstance(optimizer.schedule, Constant)
    return {
        "network": str(network.architecture),
        "architecture": json.dumps(network.to_spec()),
        "dtype": str(network.backend.dtype),
        "n_samples": dataset.n_samples,
        "sample weights": dataset.weights is not None,
        "mapped file": dataset.is_mapped,
        "scale": None if dataset.scale is None else f"{dataset.scale:.17g}",
        "batch_size": settings.batch,
        "accumulate": settings.accumulate,
        "shuffle": bool(settings.shuffle),
        "seed": settings.seed,
        "engine": settings.engine,
        "precision": settings.precision + ", deterministic" * settings.deterministic,
        "threads": settings.threads,
        "blas_threads": settings.blas_threads,
        "reduction": None if settings.reduction is None else settings.reduction.kind,
        "optimizer": _described(optimizer),
        "initial lr": f"{optimizer.lr}" if constant else _described(optimizer.schedule),
    }


def _described(value: Any) -> str:
    """Return type and settings, the same text in every process; the repr of a user's class may hold an address."""
    if not isinstance(value, (Optimizer, Schedule)):
        return str(getattr(value, "__qualname__", value))  # a function, by its name
    settings = [f"{name}={_described(item)}" for name, item in vars(value).items() if not name.startswith("_")]
    return f"{type(value).__name__}({', '.join(settings)})"
