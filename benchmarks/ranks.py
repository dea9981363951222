"""Steps on one and on two ranks of this machine, beside two threads of one process and PyTorch's DDP over gloo.

`python benchmarks/ranks.py` starts one process, or two, of each system in turn, one thread each, and prints a table and
what the model of `xpnet.timing.ranks` says of two ranks. --torch PYTHON is an interpreter that has torch.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.peers.works import WORKS, Work, make_data  # noqa: E402

SEVEN = (1, 2, 3, 4, 5, 6, 7)
SYSTEMS = {  # name -> (ranks, options)
    "plain, 1 thread": (1, {"kind": None}),
    "plain, 2 threads": (1, {"kind": None, "threads": 2}),
    "fixed, 1 rank": (1, {"kind": "fixed"}),
    "fixed, 2 ranks": (2, {"kind": "fixed"}),
    "fast, 2 ranks": (2, {"kind": "fast"}),
    "DDP, 1 rank": (1, {"kind": "ddp"}),
    "DDP, 2 ranks": (2, {"kind": "ddp"}),
}


# --- a rank ----------------------------------------------------------------------------------------------------------


def xpnet_steps(work: Work, options: dict[str, Any], comm: Any) -> Any:
    """Return a function that runs n steps."""
    import xpnet
    from xpnet.data.feed import Whole
    from xpnet.engines.choice import make_engine
    from xpnet.network.programs import training_program
    from xpnet.parallel.reduction import Reduction

    data = make_data(work)
    kinds = {"hidden": work.hidden, "output": work.output}
    network = xpnet.Network(
        work.sizes, activation=kinds["hidden"], output=kinds["output"], loss=work.loss, device="cpu", dtype="float32"
    )
    optimizer = xpnet.SGD(work.lr)
    reduction = None if options["kind"] is None else Reduction(comm, options["kind"])
    shards = None if reduction is None else reduction.shards(work.batch)
    program = training_program(network.architecture, work.batch, optimizer, False, shards=shards)
    feed = Whole(xpnet.Dataset(data.X.T, data.Y.T), network.backend)
    threads = options.get("threads", 1)
    engine = make_engine(
        program, network.backend, network.owned, feed.sources, "compiled", "fp32", threads, 1, reduction
    )
    optimizer.attach(network, engine)
    rng = np.random.default_rng(0)

    def steps(n: int) -> None:
        engine.run(rng.integers(0, len(data.X), n * work.batch), np.full((n, 1), work.lr))

    steps.size = 4 * program.buffers["theta"].size  # type: ignore[attr-defined]
    return steps


def ddp_steps(work: Work, rank: int, ranks: int) -> Any:
    import torch

    torch.set_num_threads(1)
    data, names = make_data(work), {"sigmoid": torch.nn.Sigmoid, "relu": torch.nn.ReLU, "identity": torch.nn.Identity}
    layers = []
    for i, (n_in, n_out) in enumerate(zip(work.sizes, work.sizes[1:], strict=False)):
        last = i == len(work.sizes) - 2
        layers += [torch.nn.Linear(n_in, n_out), names[work.output if last else work.hidden]()]
    model = torch.nn.parallel.DistributedDataParallel(torch.nn.Sequential(*layers))
    optimizer = torch.optim.SGD(model.parameters(), lr=work.lr)
    X, Y = torch.from_numpy(data.X), torch.from_numpy(data.Y)
    labels, rng = Y.argmax(1), np.random.default_rng(0)
    own = slice(rank * work.batch // ranks, (rank + 1) * work.batch // ranks)

    def steps(n: int) -> None:
        for samples in torch.from_numpy(rng.integers(0, len(X), n * work.batch)).split(work.batch):
            part = samples[own]
            output = model(X[part])
            if work.loss == "softmax_cross_entropy":
                loss = torch.nn.functional.cross_entropy(output, labels[part])
            else:
                loss = 0.5 * ((output - Y[part]) ** 2).sum(1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return steps


def rank_of(words: list[str]) -> None:
    """Time the works of one system in this rank; rank 0 prints microseconds a step of each round."""
    options, numbers, rounds, seconds = json.loads(words[0]), json.loads(words[1]), int(words[2]), float(words[3])
    rank, ranks = int(os.environ.get("PMI_RANK", "0")), int(os.environ.get("PMI_SIZE", "1"))
    barrier: Any = lambda: None  # noqa: E731
    if options["kind"] == "ddp":
        import torch

        os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
        os.environ.setdefault("MASTER_PORT", "29531")
        torch.distributed.init_process_group("gloo", rank=rank, world_size=ranks)
        barrier = torch.distributed.barrier
    else:
        from xpnet.parallel.communicator import communicator

        comm = communicator("mpi")
        barrier = comm.barrier
    found: dict[str, Any] = {}
    for number in numbers:
        work = WORKS[number]
        if work.batch < ranks:
            continue
        steps = ddp_steps(work, rank, ranks) if options["kind"] == "ddp" else xpnet_steps(work, options, comm)
        steps(3)
        n = 4
        while True:  # all ranks must run as many steps
            barrier()
            started = time.perf_counter()
            steps(n)
            spent = time.perf_counter() - started
            if options["kind"] == "ddp":
                times = torch.tensor([spent], dtype=torch.float64)
                torch.distributed.all_reduce(times, torch.distributed.ReduceOp.MAX)
                spent = float(times)
            else:
                spent = max(comm.gather(spent))
            if spent > seconds / 3:
                break
            n *= 2
        rows = []
        for _ in range(rounds):
            barrier()
            started = time.perf_counter()
            steps(n)
            rows.append((time.perf_counter() - started) / n * 1e6)
        found[str(number)] = rows
    if options["kind"] == "fast":
        found["wire"] = wire_of(comm)
    if rank == 0:
        print(json.dumps(found), flush=True)


def wire_of(comm: Any) -> dict[str, float]:
    """Return the seconds of the smallest sum over the ranks, and the bytes a second of a large one."""
    spent = {}
    for size in (1, 1 << 20):
        array = np.zeros(size, np.float32)
        comm.sum(array)
        count = 2000 if size == 1 else 30
        comm.barrier()
        started = time.perf_counter()
        for _ in range(count):
            comm.sum(array)
        spent[size] = (time.perf_counter() - started) / count
    return {"seconds": spent[1], "bytes_per_second": 4 * (1 << 20) / (spent[1 << 20] - spent[1])}


# --- the table -------------------------------------------------------------------------------------------------------


def measured(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    ranks, options = SYSTEMS[name]
    python = arguments.torch if options["kind"] == "ddp" else sys.executable
    numbers = json.dumps(arguments.works)
    words = [python, __file__, "rank", json.dumps(options), numbers, str(arguments.rounds), str(arguments.seconds)]
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [str(Path(sys.executable).with_name("mpiexec")), "-n", str(ranks), *words]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--works", type=lambda text: [int(word) for word in text.split(",")], default=list(SEVEN))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.1)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--torch", help="an interpreter that has torch; without it DDP is left out")
    parser.add_argument("--out", help="a JSON file")
    arguments = parser.parse_args()
    names = [name for name in SYSTEMS if arguments.torch or not name.startswith("DDP")]
    found: dict[str, dict[str, list[float]]] = {name: {} for name in names}
    wires = []
    for _ in range(arguments.turns):
        for name in names:
            for number, rows in measured(name, arguments).items():
                if number == "wire":
                    wires.append(rows)
                else:
                    found[name].setdefault(number, []).extend(rows)
    print("| work | " + " | ".join(names) + " | model of 2 |")
    for number in map(str, arguments.works):
        medians = {name: statistics.median(found[name][number]) for name in names if number in found[name]}
        cells = [f"{medians[name]:,.1f}" if name in medians else "" for name in names]
        print(f"| {WORKS[int(number)]} | " + " | ".join([*cells, model(WORKS[int(number)], medians, wires)]) + " |")
    if arguments.out:
        Path(arguments.out).write_text(json.dumps({"times": found, "wires": wires}), encoding="utf-8")


def model(work: Work, medians: dict[str, float], wires: list[dict[str, float]]) -> str:
    """What two ranks should take: half of the step's products and the sum of the message."""
    if not wires or work.batch < 2:
        return ""
    n_bytes = 4 * sum(a * b + b for a, b in zip(work.sizes, work.sizes[1:], strict=False))
    alone, rest = medians["plain, 1 thread"], 0.0
    wire = {name: statistics.median(row[name] for row in wires) for name in wires[0]}
    return f"{(alone - rest) / 2 + rest + 1e6 * (wire['seconds'] + n_bytes / wire['bytes_per_second']):,.1f}"


if __name__ == "__main__":
    if sys.argv[1:2] == ["rank"]:
        rank_of(sys.argv[2:])
    else:
        main()
