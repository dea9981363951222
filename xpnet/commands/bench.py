"""xpnet bench: time training steps over widths and batch sizes, and compare the results of two machines."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import xpnet
from xpnet import plots
from xpnet.backend import DTYPES
from xpnet.commands.arguments import UsageError, add_device, check_writable, option, positive, size_list, whole
from xpnet.commands.report import warnings_said
from xpnet.commands.wording import table, width_of, wrapped
from xpnet.engines.choice import check_engine
from xpnet.engines.replay import Replay
from xpnet.timing import grid
from xpnet.timing.grid import Result
from xpnet.timing.ranks import FAST, FAST_FROM, SLOW

WIDTHS, BATCHES = [32, 64, 128, 256, 512, 1024, 2048], [32, 128, 1024]
# What only measuring uses. The parser's defaults are None, so that --compare can tell what was given.
DEFAULTS: dict[str, Any] = {
    "widths": WIDTHS,
    "batches": BATCHES,
    "features": 784,
    "dtype": "float32",
    "repeats": 9,
    "seconds": 0.05,
    "engine": Replay.name,
}

NETWORKS = [25, 400]  # Gbit/s
MODEL = (
    "a model, no measurement: a step of each rank's own samples by fast reduction is the step above, 2 log2(ranks) "
    "messages' ways and 2 (ranks - 1) / ranks of the gradient's bytes; behind it the part of it that is not waiting"
)


def add_parser(commands: Any) -> None:
    """Add the command to the parser's commands."""
    command = commands.add_parser(
        "bench",
        help="time training steps on every device of this machine",
        usage="%(prog)s [OPTIONS]",
        allow_abbrev=False,
    )
    command.add_argument(
        "--widths",
        type=size_list(1, "32,64,128"),
        metavar="N,N,...",
        help=f"of the two hidden layers (default: {_listed(WIDTHS)})",
    )
    command.add_argument(
        "--batches",
        type=size_list(1, "32,128"),
        metavar="N,N,...",
        help=f"samples a step (default: {_listed(BATCHES)})",
    )
    command.add_argument("--features", type=whole(1), metavar="N", help="inputs of the network (default: 784)")
    command.add_argument(
        "--dtype", type=option("dtype", DTYPES), metavar="NAME", help=f"{' or '.join(DTYPES)} (default: float32)"
    )
    command.add_argument(
        "--engine",
        type=option("engine", grid.CPU_ENGINES),
        metavar="NAME",
        help=f"what runs the steps on the CPU: {' or '.join(grid.CPU_ENGINES)}, without the time that preparing it "
        f"takes (default: {DEFAULTS['engine']})",
    )
    command.add_argument("--repeats", type=whole(1), metavar="N", help="turns of each device at a point (default: 9)")
    command.add_argument("--seconds", type=positive("0.05"), metavar="S", help="of a turn, about (default: 0.05)")
    command.add_argument("--out", metavar="FILE.json", help="where the result goes, for --compare")
    command.add_argument("--plot", metavar="FILE.png|FILE.svg", help="where a picture goes (extra: xpnet[plot])")
    command.add_argument(
        "--compare", nargs=2, metavar=("A.json", "B.json"), help="measure nothing, compare the results of two machines"
    )
    command.add_argument(
        "--ranks",
        type=size_list(1, "8,64,1024"),
        metavar="N,N,...",
        help="beside the times, a model of the same steps on that many ranks, each with its own samples",
    )
    command.add_argument(
        "--network",
        type=size_list(1, "25,400"),
        metavar="G,G,...",
        help=f"Gbit/s between these ranks (default: {_listed(NETWORKS)}); a message takes {SLOW * 1e6:g} us, "
        f"from {FAST_FROM:g} Gbit/s on {FAST * 1e6:g} us",
    )
    command.add_argument("--json", action="store_true", help="the result as one JSON line on stdout")
    command.add_argument("--quiet", action="store_true", help="no progress and no table, only the crossover")
    add_device(command, " (auto times every device there is)")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command; whatever would keep its files from being written is refused before anything is timed."""
    _check_options(arguments)
    ax = None if arguments.plot is None else plots.new_axes()
    if arguments.compare:
        _compare(arguments, ax)
    else:
        _measure(arguments, ax)
    return 0


def _check_options(arguments: argparse.Namespace) -> None:
    if arguments.compare:
        given = [
            name for name in (*DEFAULTS, "device", "out", "ranks", "network") if getattr(arguments, name) is not None
        ]
        if given:
            raise UsageError(f"--compare measures nothing and takes no --{given[0]}; leave one of them out")
        if arguments.quiet:
            raise UsageError("--compare prints nothing but its table and takes no --quiet; leave one of them out")
    if arguments.network is not None and arguments.ranks is None:
        raise UsageError("--network is of the model for many ranks; say how many, such as --ranks 8,64,1024")
    if arguments.plot is not None:
        try:
            plots.check_suffix(arguments.plot)
        except ValueError as error:
            raise UsageError(f"--plot {error}") from None
    if arguments.plot is not None and arguments.out is not None and Path(arguments.plot) == Path(arguments.out):
        raise UsageError(f"--out and --plot are both {arguments.out}; name two files")
    for name in ("out", "plot"):
        text = getattr(arguments, name)
        if text is not None:
            check_writable(f"--{name}", text)
    if arguments.out is not None and Path(arguments.out).suffix != ".json":
        raise UsageError(f"--out {arguments.out} ends in {Path(arguments.out).suffix!r}; name a .json file")


# --- measure ---------------------------------------------------------------------------------------------------------


def _measure(arguments: argparse.Namespace, ax: Any) -> None:
    options = {
        name: default if getattr(arguments, name) is None else getattr(arguments, name)
        for name, default in DEFAULTS.items()
    }
    dtype, widths, batches = options.pop("dtype"), set(options.pop("widths")), set(options.pop("batches"))
    backends = grid.backends(arguments.device, dtype)
    check_engine(options["engine"], backends[0].device)  # the CPU's, where it is timed
    total = len(widths) * len(batches)
    with warnings_said(), _progress(arguments.quiet, total, [backend.device for backend in backends]) as done:
        result = grid.measure(
            backends, widths, batches, version=xpnet.__version__, tell=lambda points: done(), **options
        )
    if arguments.ranks is not None:
        networks = NETWORKS if arguments.network is None else arguments.network
        result["model"] = grid.model(result, sorted(set(arguments.ranks)), sorted(set(networks)))
    if arguments.out is not None:
        grid.write(arguments.out, result)
    if ax is not None:
        plots.save(plots.samples_per_second(result, ax), arguments.plot)
    if arguments.json:
        print(json.dumps(result, allow_nan=False), flush=True)
        return
    if not arguments.quiet:
        print(_table(result))
    if arguments.ranks is not None:
        print(wrapped(MODEL, sys.stdout, "  "))
        print(_modelled(result), flush=True)
    for line in _crossover_lines(result):
        print(wrapped(line, sys.stdout, "  "), flush=True)


@contextmanager
def _progress(quiet: bool, total: int, devices: list[str]) -> Iterator[Any]:
    """Say on stderr what is timed; yields a function to call when a point is done, a bar where there is a terminal."""
    if quiet:
        yield lambda: None
        return
    print(f"timing {total} point{'s' * (total != 1)} on {' and '.join(devices)}", file=sys.stderr, flush=True)
    if not sys.stderr.isatty():
        yield lambda: None
        return
    from tqdm import tqdm  # costs half of `import numpy`

    with tqdm(total=total, desc="timing", unit="point", leave=False, file=sys.stderr) as bar:
        yield bar.update


def _table(result: Result) -> str:
    names = ["batch", "width", "device", "engine", "step", "quartiles", "samples/s", "GFLOP/s", "of limit"]
    rows = [names]
    for point in result["points"]:
        low, high = point["spread"]
        cells = [str(point["batch"]), str(point["width"]), point["device"], point["engine"], _time(point["seconds"])]
        cells += [f"{_time(low)} to {_time(high)}", f"{point['samples_per_second']:,.0f}"]
        rows.append([*cells, f"{point['flops_per_second'] / 1e9:,.1f}", f"{point['of_flops_limit']:.1%}"])
    first_out = [names.index(name) for name in ("quartiles", "engine", "of limit", "GFLOP/s", "samples/s")]
    return table(rows, [2, 3, 5], first_out, width_of(sys.stdout))


def _modelled(result: Result) -> str:
    """Return the model as a table: a row a point and network, for each number of ranks a step and its efficiency."""
    rows: dict[tuple[Any, ...], list[str]] = {}
    ranks = sorted({row["ranks"] for row in result["model"]})
    for row in result["model"]:
        key = row["batch"], row["width"], row["device"], row["gbits"]
        cells = rows.setdefault(key, [*map(str, key[:3]), f"{row['gbits']} Gbit/s"])
        cells.append(f"{_time(row['seconds'])} {row['efficiency']:.0%}")
    names = ["batch", "width", "device", "network", *(f"{n:,} ranks" for n in ranks)]
    return table([names, *rows.values()], [2, 3], [], width_of(sys.stdout))


def _time(seconds: float) -> str:
    """Return seconds as three digits in the largest unit that leaves one before the point."""
    rounded = float(f"{seconds:.3g}")
    unit, factor = next((pair for pair in (("s", 1.0), ("ms", 1e-3)) if rounded >= pair[1]), ("us", 1e-6))
    return f"{seconds / factor:.3g} {unit}" if rounded < 1000 * factor else f"{seconds / factor:.0f} {unit}"


def _crossover_lines(result: Result) -> Iterator[str]:
    if {point["device"] for point in result["points"]} != {"cpu", "cuda"}:
        reason = result["machine"]["no_gpu"]
        cause = f"no GPU was timed: {reason}" if reason else "only one device was timed, as asked"
        yield f"no crossover, which needs a CPU and a GPU; {cause}"
        return
    widths = [point["width"] for point in result["points"]]
    for batch, width in grid.crossover(result).items():
        if width is None:
            found = f"the GPU is not ahead at the widest, {max(widths)}"
        elif width == min(widths):
            found = f"the GPU is ahead at every width, from {width} on"
        else:
            found = f"the GPU is ahead from width {width} on"
        yield f"batch {batch}: {found}"


# --- compare ---------------------------------------------------------------------------------------------------------


def _compare(arguments: argparse.Namespace, ax: Any) -> None:
    a, b = (grid.read(path) for path in arguments.compare)
    rows = grid.compare(a, b)
    if ax is not None:
        plots.save(plots.comparison(a, b, ax), arguments.plot)
    if arguments.json:
        print(json.dumps({"a": a["machine"], "b": b["machine"], "rows": rows}, allow_nan=False), flush=True)
        return
    for letter, path, result in zip("ab", arguments.compare, (a, b), strict=True):
        engines = dict.fromkeys((grid.prepared(point), point["device"].upper()) for point in result["points"])
        prepared = "".join(f", {name} on the {device}" for name, device in engines if name)
        print(wrapped(f"{letter}: {path}{prepared}", sys.stdout, "  "))
    print(_compared(rows), flush=True)


def _compared(rows: Sequence[dict[str, Any]]) -> str:
    names = ["batch", "width", "devices", "a samples/s", "b samples/s", "b / a"]
    cells = [names]
    one_device = len({device for row in rows for device in row["devices"]}) == 1  # then it is also the best
    for row in rows:
        name = row["join"]
        if name == "best":
            if one_device:
                continue
            name = f"best: {row['devices'][0]}, {row['devices'][1]}"
        rates = [f"{row['a']:,.0f}", f"{row['b']:,.0f}", f"{row['ratio']:.3g}"]
        cells.append([str(row["batch"]), str(row["width"]), name, *rates])
    return table(cells, [2], [names.index("a samples/s"), names.index("b samples/s")], width_of(sys.stdout))


def _listed(sizes: list[int]) -> str:
    return ",".join(map(str, sizes))
