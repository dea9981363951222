"""A training run at one moment, on disk: all that it needs to continue as if it had never stopped.

One safetensors file: arrays as named tensors, all else as JSON in its metadata. It is written aside and renamed, so it
is there whole or not at all. `xpnet.training.epoch` makes and restores a `Moment`. Never pickle.
"""

from __future__ import annotations

import json
import math
import os
import time
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xpnet.backend import Backend
from xpnet.checks import check_number, check_path, check_whole, one_line, shown
from xpnet.files import check_readable, check_target, json_text, parse_json, tensor_bytes, write_atomically
from xpnet.training.callbacks import Callback
from xpnet.training.optimizers import Snapshot
from xpnet.training.records import Moment, Progress, Record, is_record

if TYPE_CHECKING:
    from xpnet.network.network import Network

__all__ = ["Checkpoint"]

FORMAT = 1
NEEDED = {"train_loss", "steps", "seconds"}  # of a record
EPOCH_SECONDS = 1.0  # the ends of shorter epochs share a checkpoint,
WRITING = 20  # and so do those of epochs shorter than that many times the last writing, of a long history, say


class Checkpoint(Callback):
    """Keeps a file from which `train(..., resume=path)` continues exactly: to the same weights and records, bit by bit.

    It is written at the beginning, every `seconds`, at the end of every epoch that lasted a second and 20 times as long
    as writing took, and at the end of the training; with `steps` after that many steps instead (with `accumulate`, at
    the end of the update) and at the end of every epoch.  The previous file is replaced in one move; weights that are
    not finite are never written.
    """

    only_watches = True

    def __init__(self, path: str | os.PathLike[str], seconds: float = 30.0, steps: int | None = None) -> None:
        self.path = Path(check_path("path", path, 'Checkpoint("run.checkpoint")'))
        self.seconds = check_number("seconds", seconds, above=0, example='Checkpoint("run.safetensors", seconds=30)')
        self.steps = None if steps is None else check_whole("steps", steps, at_least=1)
        self._n_steps = 0

    def on_train_begin(self, network: Network, n_epochs: int, n_steps: int) -> None:
        check_target(self.path)
        self._n_steps, self._done, self._written, self._wait = n_steps, 0, -math.inf, self.seconds
        self._next, self._writing = self.steps, 0.0

    def steps_ahead(self) -> int | None:
        return None if self._next is None else self._next - self._done

    def on_chunk_end(self, epoch: int, step: int, loss: float) -> str | None:
        self._done = (epoch - 1) * self._n_steps + step
        self._wait = self.seconds if self.steps is None else math.inf  # steps need no clock
        return None

    def on_epoch_end(self, record: Record, network: Network) -> None:
        shared = max(EPOCH_SECONDS, min(self.seconds, WRITING * self._writing))
        self._wait = shared if self.steps is None else 0.0

    def on_last_record(self, record: Record) -> None:
        self._written = -math.inf

    def on_pause(self, moment: Callable[[], Moment]) -> None:
        if self._next is not None and self._done >= self._next:
            self._written = -math.inf
        now = time.monotonic()
        if now - self._written >= self._wait:
            save_checkpoint(self.path, moment())
            self._written = time.monotonic()
            self._writing = self._written - now
        if self.steps is not None:
            self._next = (self._done // self.steps + 1) * self.steps


def save_checkpoint(path: str | os.PathLike[str], moment: Moment) -> None:
    """Write a moment to `path`, replacing it in one move."""
    facts = vars(moment) | {"progress": vars(moment.progress), "format": FORMAT}  # asdict would copy the tensors
    tensors = facts.pop("tensors")
    del facts["path"]
    write_atomically(path, tensor_bytes(tensors, "checkpoint", facts))


def load_checkpoint(path: str | os.PathLike[str]) -> Moment:
    """Read what `save_checkpoint` wrote; raises FileNotFoundError, or ValueError in one line for any other file."""
    from safetensors import SafetensorError, safe_open

    path = Path(check_path("resume", path, 'train(..., resume="run.checkpoint")'))
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no checkpoint {path}; train with callbacks=[Checkpoint(path)], or leave resume out to start "
            "again"
        )
    check_readable(path)
    try:
        with safe_open(path, framework="numpy") as file:
            text = (file.metadata() or {}).get("checkpoint")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no dict
    except SafetensorError as error:
        raise ValueError(
            f"{path} is not a whole safetensors file ({one_line(error)}); start again without resume"
        ) from None
    if text is None:
        raise ValueError(f"{path} is a safetensors file but no checkpoint; name one that `Checkpoint` wrote")
    try:
        return _moment(parse_json(text), tensors, path)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise ValueError(
            f"{path} is no checkpoint that can be read ({type(error).__name__}: {one_line(error)}); "
            "start again without resume"
        ) from None


def moment_of(resume: str | os.PathLike[str] | Moment | None) -> Moment | None:
    """Return the moment to resume from, read from a file unless it has been read already."""
    return resume if resume is None or isinstance(resume, Moment) else load_checkpoint(resume)


def _moment(facts: dict[str, Any], tensors: dict[str, np.ndarray], path: Path) -> Moment:
    """Return the moment that a file's facts describe; raises errors of many kinds."""
    if facts["format"] != FORMAT:
        raise ValueError(f"its format is {shown(facts['format'])}; it must be {FORMAT}")
    progress = Progress(**facts["progress"])
    counts = (progress.epoch, progress.step, progress.samples, facts["steps_done"], facts["last_good_steps"])
    if not all(type(count) is int and count >= 0 for count in counts):
        raise ValueError(f"its counts are {counts}; they must be whole numbers")
    for number in (progress.loss, progress.weight, progress.seconds, progress.last_finite, facts["lr"]):
        if number is not None and not math.isfinite(number):
            raise ValueError(f"it holds the number {number}; all must be finite")
    if facts["lr"] is not None and (isinstance(facts["lr"], bool) or facts["lr"] <= 0):
        raise ValueError(f"its lr is {facts['lr']}; it must be a number above 0")
    history = [dict(record) for record in facts["history"]]
    if not all(is_record(record) and record.keys() >= NEEDED for record in history):
        raise ValueError("its history holds what is no record; each must have its numbers; start again")
    if [record["epoch"] for record in history] != list(range(len(history))) or not history:
        raise ValueError("the epochs of its history do not follow each other; they must be 0, 1, 2 and so on")
    return Moment(
        fit={"precision": "fp32", **facts["fit"]},  # the only one when files did not name it
        progress=progress,
        steps_done=facts["steps_done"],
        last_good_steps=facts["last_good_steps"],
        lr=facts["lr"],
        callbacks=[(str(name), dict(state)) for name, state in facts["callbacks"]],
        history=history,
        tensors=tensors,
        path=path,
    )


def check_epochs(moment: Moment, n_epochs: int) -> None:
    """Refuse fewer epochs than the moment has begun: its weights are already those of a longer run."""
    begun = moment.progress.epoch - (moment.progress.step == 0)
    if n_epochs < begun:
        raise ValueError(
            f"{_name(moment)} belongs to a run within or after epoch {begun}, and epochs is {n_epochs}; "
            f"give epochs={begun} or more, or leave resume out to start again"
        )


def check_resume(moment: Moment, n_epochs: int, fit: dict[str, Any], callbacks: Sequence[Callback]) -> None:
    """Refuse a moment that this run cannot continue; the message names what was found and what is needed."""
    check_epochs(moment, n_epochs)
    for name, needed in fit.items():
        found = moment.fit.get(name)
        if found != needed:
            raise ValueError(
                f"{_name(moment)} belongs to a run with {name} {one_line(found)}, this one has {name} {needed}; "
                "pass what that run had, or leave resume out to start again"
            )
    progress, n_samples = moment.progress, fit["n_samples"]
    if max(progress.samples, progress.step) > n_samples or (progress.samples == 0) != (progress.step == 0):
        raise ValueError(
            f"{_name(moment)} has done {progress.samples} samples in {progress.step} steps, which no epoch of "
            f"{n_samples} samples has; it must be what `Checkpoint` wrote; start again without resume"
        )
    found, needed = [name for name, _ in moment.callbacks], [type(c).__name__ for c in callbacks if _has_state(c)]
    if found != needed:
        raise ValueError(
            f"{_name(moment)} holds the state of the callbacks {one_line(', '.join(found) or 'none')}; this run has "
            f"{', '.join(needed) or 'none'}; pass callbacks=[...] as that run had them, in its "
            "order"
        )


def frozen(start: str, backend: Backend, owned: Any, snapshot: Snapshot) -> dict[str, np.ndarray]:
    """Return what a network and its optimizer hold as tensors on the host, whose names begin with `start`."""
    arrays = {"owned": owned, "state": snapshot.state, "keys": snapshot.keys}
    return {start + name: backend.to_host(array) for name, array in arrays.items()}


def thawed(start: str, moment: Moment, steps_done: int, network: Network, like: dict[str, Any]) -> tuple[Any, Snapshot]:
    """Return the owned vector and the optimizer's snapshot that `frozen` made into tensors, on the network's device.

    like: arrays of the shapes and types that they must have, by name.
    Raises ValueError for a tensor that is missing or does not fit, and for weights that are not finite.
    """
    arrays = dict[str, Any]()
    for name, needed in like.items():
        array = moment.tensors.get(start + name)
        if array is None or (array.shape, array.dtype) != (needed.shape, needed.dtype):
            found = "no such tensor" if array is None else f"{array.dtype} {array.shape}"
            raise ValueError(
                f"the checkpoint's {start}{name} is {found}; it must be {needed.dtype} {needed.shape}; "
                "start again without resume"
            )
        if name == "owned" and not np.isfinite(array).all():
            raise ValueError("the checkpoint's weights are not finite; start again without resume")
        arrays[name] = network.backend.to_device(array, array.dtype)
    return arrays["owned"], Snapshot(weakref.ref(network), steps_done, arrays["state"], arrays["keys"])


def _name(moment: Moment) -> Any:
    return "the checkpoint" if moment.path is None else moment.path


def states_of(
    callbacks: Sequence[Callback], backend: Backend
) -> tuple[list[tuple[str, dict[str, Any]]], dict[str, np.ndarray]]:
    """Return (name, state) of each callback that has one, and the arrays of these states by name, on the host."""
    found, arrays = list[tuple[str, dict[str, Any]]](), dict[str, np.ndarray]()
    for callback in callbacks:
        if not _has_state(callback):
            continue
        state = callback.state()
        ours = {name: value for name, value in state.items() if backend.owns(value) and _is_tensor(value)}
        arrays |= {f"callbacks.{len(found)}.{name}": backend.to_host(value) for name, value in ours.items()}
        others = {name: value for name, value in state.items() if name not in ours}
        try:
            _check_keys(others)
            found.append((type(callback).__name__, json.loads(json_text(others))))
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"the state of {type(callback).__name__} cannot be written ({error}); needed are numbers, texts, lists "
                "and dicts of them, or arrays of the network's backend by name: return these from state()"
            ) from None
    return found, arrays


def _check_keys(value: Any) -> None:
    """Refuse keys that JSON would turn into texts."""
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"the key {key!r} is no text")
            _check_keys(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _check_keys(item)


def _is_tensor(array: Any) -> bool:
    """Whether a safetensors file has the type of its elements."""
    return bool(array.dtype.kind in "biuf" and array.dtype.itemsize <= 8)


def load_states(callbacks: Sequence[Callback], moment: Moment, backend: Backend) -> None:
    """Restore each callback's state and arrays; raises ValueError for a state that it cannot restore."""
    stateful = (callback for callback in callbacks if _has_state(callback))
    for number, (callback, (name, state)) in enumerate(zip(stateful, moment.callbacks, strict=True)):
        start = f"callbacks.{number}."
        arrays = {
            key.removeprefix(start): backend.to_device(array, array.dtype)
            for key, array in moment.tensors.items()
            if key.startswith(start)
        }
        try:
            callback.load_state(state | arrays)
        except Exception as error:  # whatever a callback of a user's own may raise
            raise ValueError(
                f"the checkpoint's state of {name} cannot be restored ({type(error).__name__}: {error}); "
                "start again without resume"
            ) from error


def _has_state(callback: Callback) -> bool:
    """Whether a callback keeps a state, by its class: at one moment it may be empty."""
    return type(callback).state is not Callback.state
