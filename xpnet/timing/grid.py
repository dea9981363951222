"""The grid behind `xpnet bench`: training steps over widths and batch sizes, on every available device.

`measure` fills a result, a JSON-ready dict; `crossover` says where the GPU overtakes the CPU, `compare` joins the
results of two machines, `write` and `read` keep them in files.
"""

from __future__ import annotations

import json
import math
import os
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xpnet.backend import DTYPES, Backend, BackendUnavailable, asked_device, select_backend
from xpnet.checks import check_option, shown
from xpnet.cores import memory
from xpnet.engines.choice import ENGINES, check_engine, engine_facts, engine_names, make_engine
from xpnet.engines.engine import Engine
from xpnet.engines.replay import Replay
from xpnet.files import parse_json, read_whole, write_atomically
from xpnet.network.architecture import Architecture
from xpnet.network.network import Network
from xpnet.network.programs import training_program
from xpnet.program.calls import Program
from xpnet.timing import harness, machine
from xpnet.timing.ranks import Wire, step_seconds
from xpnet.training.optimizers import SGD

FORMAT = 1
N_CLASSES = 10
CPU_ENGINES = engine_names("cpu")
Result = dict[str, Any]

# The most steps in a call of `run`, which share its upload and its read as in training; fewer of large ones, since a
# call is the least that can be timed.
_CHUNK_STEPS, _CHUNK_FLOPS = 32, 10**10
_LEARNING_RATE = 1e-3  # small, so that thousands of steps on noise stay finite
_MEMORY_SHARE = 0.5
_NUMBERS = ("width", "batch", "seconds", "samples_per_second", "flops_per_second", "of_flops_limit")


def backends(device: str | None, dtype: str) -> list[Backend]:
    """Return the CPU and, if one works, the GPU for "auto"; else the one device that was asked for.

    device: as for `select_backend`; None reads XPNET_DEVICE.
    Raises ValueError for an unknown device or dtype, BackendUnavailable if "cuda" cannot be had.
    """
    if asked_device(device)[0] != "auto":
        return [select_backend(device, dtype)]
    cpu = select_backend("cpu", dtype)
    try:
        return [cpu, select_backend("cuda", dtype)]
    except BackendUnavailable:
        return [cpu]


def measure(
    backends: Sequence[Backend],
    widths: Iterable[int],
    batches: Iterable[int],
    *,
    version: str,
    features: int = 784,
    repeats: int = 9,
    seconds: float = 0.05,
    engine: str = Replay.name,
    tell: Callable[[list[dict[str, Any]]], object] = lambda points: None,
) -> Result:
    """Time a training step of features-width-width-10 for each width and batch size; the backends take turns.

    The network is relu with softmax cross-entropy and SGD, the step gathers its batch from synthetic data, and runs in
    chunks, as in training.  version: of xpnet.  repeats, seconds: as for `xpnet.timing.harness.take_turns`.
    engine: one of CPU_ENGINES, on the CPU; its preparation is not timed. A GPU always has its own.
    tell: called with the points of each width and batch size when they are measured.
    Returns {"format", "machine", "dtype", "features", "limits": {device: {"flops", "bytes"}}, "points"}. A point holds
    device, engine, threads (of a compiled one), width, batch, seconds (of one step, median), spread (their quartiles),
    samples_per_second, flops_per_second (counted from the Program) and of_flops_limit (share of the device's limit).
    Raises MemoryError before anything is timed if the largest network would not fit half of the memory, ValueError or
    ImportError if there is no such engine.
    """
    widths, batches = sorted(set(widths)), sorted(set(batches))
    engines = {b.device: engine if b.device == "cpu" else "" for b in backends}
    check_engine(check_option("engine", engine, CPU_ENGINES), "cpu" if "cpu" in engines else backends[0].device)
    _check_memory(widths[-1], batches[-1], features, backends[0].dtype.itemsize)
    limits = {backend.device: harness.limits(backend, repeats=repeats, seconds=seconds) for backend in backends}
    X, Y, _ = harness.synthetic_data(features, N_CLASSES, batches[-1], 1)
    data = {b.device: {"X": (b.to_device(X), None), "Y": (b.to_device(Y), None)} for b in backends}
    points: list[dict[str, Any]] = []
    for batch in batches:
        for width in widths:
            program = _program(features, width, batch)
            flops = sum(call.flops for call in program.calls)
            steps = max(1, min(_CHUNK_STEPS, _CHUNK_FLOPS // flops))
            order = np.random.default_rng(0).integers(0, len(X), steps * batch)
            runs = {
                b.device: _engine(program, b, data[b.device], [features, width, width], engines[b.device])
                for b in backends
            }
            works = {b.device: _chunk(runs[b.device], b, order) for b in backends}
            times = harness.take_turns(works, repeats=repeats, seconds=seconds)
            found = [
                {"device": device, **engine_facts(runs[device]), "width": width, "batch": batch}
                | _rates([chunk / steps for chunk in chunks], batch, flops, limits[device]["flops"])
                for device, chunks in times.items()
            ]
            points += found
            tell(found)
    return {
        "format": FORMAT,
        "machine": machine.facts(version),
        "dtype": str(backends[0].dtype),
        "features": features,
        "limits": limits,
        "points": points,
    }


def crossover(result: Result) -> dict[int, int | None]:
    """Return for each batch size the smallest width from which the GPU stays ahead up to the widest.

    None stands for "never"; a batch size that only one device was timed at is left out.
    """
    found: dict[int, int | None] = {}
    for batch, by_width in _by_batch(result).items():
        both = {width: rates for width, rates in by_width.items() if {"cpu", "cuda"} <= set(rates)}
        if not both:
            continue
        found[batch] = None
        for width in sorted(both, reverse=True):
            if both[width]["cuda"] <= both[width]["cpu"]:
                break
            found[batch] = width
    return found


def compare(a: Result, b: Result) -> list[dict[str, Any]]:
    """Join the results of two machines by width and batch size.

    Returns rows {"batch", "width", "join", "devices", "a", "b", "ratio"}: samples per second of each and b / a.
    join: "cpu" or "cuda", the same device of both, or "best", the faster device of each; devices: the two of the row.
    Raises ValueError if the results are of different networks or float types, or have no point in common.
    """
    for name in ("dtype", "features"):
        if a[name] != b[name]:
            raise ValueError(
                f"{name} of the first result is {a[name]}, of the second {b[name]}; only equal ones "
                f"can be compared: measure both with the same --{name}"
            )
    rows = []
    ours, theirs = _by_batch(a), _by_batch(b)
    for batch in sorted(set(ours) & set(theirs)):
        for width in sorted(set(ours[batch]) & set(theirs[batch])):
            first, second = ours[batch][width], theirs[batch][width]
            joins = {device: (device, device) for device in sorted(set(first) & set(second))}
            joins["best"] = (max(first, key=first.__getitem__), max(second, key=second.__getitem__))
            for join, (device_a, device_b) in joins.items():
                rates = first[device_a], second[device_b]
                rows.append(
                    {
                        "batch": batch,
                        "width": width,
                        "join": join,
                        "devices": [device_a, device_b],
                        "a": rates[0],
                        "b": rates[1],
                        "ratio": rates[1] / rates[0],
                    }
                )
    if not rows:
        raise ValueError(
            "the two results have no width and batch size in common; measure both with the same --widths and --batches"
        )
    return rows


def prepared(point: dict[str, Any]) -> str | None:
    """Return the name of a point's engine if it is one that was prepared, such as compiled; else None."""
    row = ENGINES.get(point.get("engine", ""))  # a file may name one that is not known here
    return None if row is None or row.repays is None else row.name


def write(path: str | os.PathLike[str], result: Result) -> None:
    """Write a result as JSON, whole or not at all."""
    write_atomically(path, (json.dumps(result, indent=1, allow_nan=False) + "\n").encode())


def read(path: str | os.PathLike[str]) -> Result:
    """Read what `write` wrote; raises FileNotFoundError, or ValueError in one line for any other file."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; `xpnet bench --out {path}` writes one")
    try:
        result = parse_json(read_whole(path))
    except ValueError:  # also bytes that are no text
        raise ValueError(f"{path} is not JSON; write it with `xpnet bench --out {path}`") from None
    fault = _fault(result)
    if fault is not None:
        raise ValueError(f"{path}: {fault}; write it with `xpnet bench --out {path}`")
    return result


def model(result: Result, ranks: Sequence[int], networks: Sequence[int]) -> list[dict[str, Any]]:
    """Return what `xpnet.timing.ranks` says of a result's points: a dict a point, network (Gbit/s) and number of ranks.

    efficiency: the part of a step that is not waiting.
    """
    found = []
    for point in result["points"]:
        program = _program(result["features"], point["width"], point["batch"])
        n_bytes = np.dtype(result["dtype"]).itemsize * program.buffers["gradient"].size
        for gbits in networks:
            for n in ranks:
                seconds = step_seconds(point["seconds"], n_bytes, n, Wire.of(gbits))
                facts = {name: point[name] for name in ("device", "engine", "width", "batch")}
                facts |= {"gbits": gbits, "ranks": n, "bytes": n_bytes, "seconds": seconds}
                found.append(facts | {"efficiency": point["seconds"] / seconds})
    return found


def _program(features: int, width: int, batch: int) -> Program:
    sizes = [features, width, width, N_CLASSES]
    architecture = Architecture.of_sizes(sizes, "relu", "identity", None, "softmax_cross_entropy")
    return training_program(architecture, batch, SGD(), False)


def _engine(program: Program, backend: Backend, data: Mapping[str, Any], sizes: list[int], engine: str) -> Engine:
    network = Network([*sizes, N_CLASSES], backend=backend)
    return make_engine(program, backend, network.parameters.flat, data, engine)


def _chunk(engine: Engine, backend: Backend, order: np.ndarray) -> harness.Work:
    """Return training steps through all of `order` as one piece of work."""
    rows = SGD(_LEARNING_RATE).slot_rows(len(order) // engine.program.batch)
    return harness.Work(lambda: engine.run(order, rows), backend.synchronize)


def _rates(seconds: list[float], batch: int, flops: int, flops_limit: float) -> dict[str, Any]:
    quartiles = statistics.quantiles(seconds, n=4, method="inclusive") if len(seconds) > 1 else seconds * 3
    median = quartiles[1]
    return {
        "seconds": median,
        "spread": [quartiles[0], quartiles[2]],
        "samples_per_second": batch / median,
        "flops_per_second": flops / median,
        "of_flops_limit": flops / median / flops_limit,
    }


def _check_memory(width: int, batch: int, features: int, item_size: int) -> None:
    """Refuse what would drive the machine out of memory; the weights are drawn on the host, whatever the device."""
    total = memory()
    if total is None:
        return
    program = _program(features, width, batch)
    n_data = max(harness.N_SAMPLES, batch) * (features + N_CLASSES)
    needed = (program.n_floats + 2 * program.n_owned + 2 * n_data) * item_size
    if needed > _MEMORY_SHARE * total:
        raise MemoryError(
            f"width {width} at batch {batch} with {features} features needs about {needed / 1e9:.1f} GB, "
            f"this machine has {total / 1e9:.1f} GB and half of it is used at most; "
            "give smaller --widths, --batches or --features"
        )


def _by_batch(result: Result) -> dict[int, dict[int, dict[str, float]]]:
    found: dict[int, dict[int, dict[str, float]]] = {}
    for point in result["points"]:
        by_width = found.setdefault(point["batch"], {})
        by_width.setdefault(point["width"], {})[point["device"]] = point["samples_per_second"]
    return dict(sorted(found.items()))


def _fault(result: Any) -> str | None:
    """Say what keeps a JSON value from being a result, or None."""
    if not isinstance(result, dict) or result.get("format") != FORMAT:
        found = result.get("format") if isinstance(result, dict) else type(result).__name__
        return f"its format is {shown(found)}; it must be {FORMAT}"
    kinds = {"machine": dict, "dtype": str, "features": int, "limits": dict, "points": list}
    for name, kind in kinds.items():
        if name not in result:
            return f"it has no {name!r}"
        if not isinstance(result[name], kind):
            return f"its {name!r} is {type(result[name]).__name__}; it must be {kind.__name__}"
    if result["dtype"] not in DTYPES:
        return f"its dtype is {shown(result['dtype'])}, choose one of {', '.join(DTYPES)}"
    for device, limit in result["limits"].items():
        for name in ("flops", "bytes"):
            if not isinstance(limit, dict) or not _is_positive(limit.get(name)):
                return f"its limit {name!r} of {shown(device)} is not a finite number above 0"
    if not result["points"]:
        return "it has no points"
    for number, point in enumerate(result["points"]):
        fault = _point_fault(point)
        if fault is not None:
            return f"point {number} {fault}"
    keys = {(point["device"], point["width"], point["batch"]) for point in result["points"]}
    return None if len(keys) == len(result["points"]) else "it has a point twice"


def _point_fault(point: Any) -> str | None:
    if not isinstance(point, dict):
        return f"is {type(point).__name__}; it must be an object"
    missing = [name for name in ("device", *_NUMBERS, "spread") if name not in point]
    if missing:
        return f"has no {missing[0]!r}"
    if point["device"] not in ("cpu", "cuda"):
        return f"has the device {shown(point['device'])}; it must be 'cpu' or 'cuda'"
    if not isinstance(point.get("engine", ""), str):  # files of before engines had names lack it
        return f"has the engine {shown(point['engine'])}; it must be a name"
    for name in _NUMBERS:
        if not _is_positive(point[name]):
            return f"has {shown(point[name])} as {name!r}; it must be a finite number above 0"
    for name in ("width", "batch"):
        if type(point[name]) is not int:
            return f"has {shown(point[name])} as {name!r}; it must be a whole number"
    spread = point["spread"]
    if not isinstance(spread, list) or len(spread) != 2 or not all(map(_is_positive, spread)):
        return "has a 'spread' that is not two finite numbers above 0"
    return None


def _is_positive(value: Any) -> bool:
    return type(value) in (int, float) and 0 < value < math.inf
