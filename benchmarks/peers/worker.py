"""One system in its own process, controlled by lines of JSON.

`python -m benchmarks.peers.worker SYSTEM DEVICE` says first whether it can work there, and then answers each line
with one: {"do": "set_up", ...}, {"do": "turn"}, {"do": "limits"}, or, as the first, {"do": "first_step", ...}. An
exception is answered by {"error": ...}; the process continues.
"""

from __future__ import annotations

import gc
import json
import math
import os
import sys
import time
import traceback
from typing import Any, TextIO

from .systems import System, load
from .works import N_SAMPLES, Data, Work, initial_parameters, make_data, make_order, mean_loss

MOST_STEPS = 1 << 20


class Job:
    """A system at one work, checked, with the number of steps in a turn."""

    def __init__(self, system: type[System], work: Work, seconds: float, threads: int, device: str) -> None:
        self.work, self.data = work, make_data(work)
        self.system = system(self.work, self.data, threads, device)
        self.unit = N_SAMPLES if self.system.whole_epochs else self.work.batch
        self.answer: dict[str, Any] = {"versions": self.system.versions()}
        if self.system.comparable:
            self.answer.update(self.check())
        if hasattr(self.system, "cost"):
            self.answer.update(self.system.cost())
        self.order = make_order(self.calibrate(seconds) * self.unit)
        # A length that is compiled already, or the turn's own. An epoch is long: its reset is warm-up enough.
        self.warm_up = self.order[: 0 if self.system.whole_epochs else self.work.checked_steps * self.unit]
        self.answer["steps"] = len(self.order) / self.work.batch

    def check(self) -> dict[str, float]:
        """Run the checked steps; returns what the reference returns."""
        self.system.reset()
        loss_sum = self.system.run(make_order(self.work.checked_steps * self.work.batch))
        parameters = self.system.parameters()
        return {
            "loss_sum": float(loss_sum),
            "loss_before": mean_loss(self.work, initial_parameters(self.work), self.data),
            "loss_after": mean_loss(self.work, parameters, self.data),
        }

    def calibrate(self, seconds: float) -> int:
        """Return how many units (steps, or epochs) take about `seconds`; that many have been run once."""
        self.system.reset()
        count = 1
        while True:
            order = make_order(count * self.unit)
            self.system.run(order)  # compiles what is new at this length
            elapsed = self.time(order)
            if elapsed >= seconds / 3 or count * self.unit >= MOST_STEPS * self.work.batch:
                break
            # At least four times as many; few lengths in all, since some systems compile each of them.
            count = max(4 * count, min(64 * count, math.ceil(count * seconds / elapsed)))
        count = min(max(1, round(count * seconds / elapsed)), MOST_STEPS)
        self.system.run(make_order(count * self.unit))
        return count

    def turn(self) -> dict[str, float]:
        """Start again from the initial weights, warm up, and time one run."""
        self.system.reset()
        if len(self.warm_up):
            self.system.run(self.warm_up)
        gc.collect()
        return {"seconds_per_step": self.time(self.order) / (len(self.order) / self.work.batch)}

    def time(self, order: Any) -> float:
        started = time.perf_counter()
        loss_sum = self.system.run(order)
        elapsed = time.perf_counter() - started
        if not math.isfinite(loss_sum):  # steps on NaN may take another time
            raise ArithmeticError(f"the loss is {loss_sum} after {len(order) // self.work.batch} steps")
        return elapsed


def first_step(system: type[System], work: Work, data: Data, threads: int, device: str) -> float:
    """Return the seconds until the first step is done, by a system whose package has only been imported."""
    order = make_order(work.batch)
    started = time.perf_counter()
    trained = system(work, data, threads, device)
    trained.reset()  # of a system that trains whole epochs this is a step already
    if not trained.whole_epochs:
        trained.run(order)
    return time.perf_counter() - started


def machine_limits(device: str) -> dict[str, float]:
    """FLOP/s and bytes/s of a large float32 product and a large copy: by CuPy, or NumPy and this process's threads."""
    from xpnet.backend import select_backend
    from xpnet.timing import harness

    return harness.limits(select_backend(device, "float32"), repeats=2, seconds=0.05)


def serve(name: str, device: str, requests: TextIO, answers: TextIO) -> None:
    """Answer until the requests end."""

    def answer(value: dict[str, Any]) -> None:
        answers.write(json.dumps(value) + "\n")
        answers.flush()

    try:
        system = load(name)
    except ModuleNotFoundError as error:
        root = (error.name or "").partition(".")[0]
        if root in ("benchmarks", "peers", "xpnet"):
            raise
        return answer({"missing": f"{root} is not installed"})
    started = time.perf_counter()
    reason = system.unusable(device)
    found_device = time.perf_counter() - started
    if reason is not None:
        return answer({"missing": reason})
    answer({"ready": name})
    job: Job | None = None
    for line in requests:
        request = json.loads(line)
        try:
            if request["do"] == "set_up":
                job = None  # frees the last work's memory before the next one's is taken
                work = Work.of_json(request["work"])
                job = Job(system, work, request["seconds"], request["threads"], device)
                answer(job.answer)
            elif request["do"] == "first_step":
                work = Work.of_json(request["work"])
                seconds = first_step(system, work, make_data(work), request["threads"], device)
                answer({"found_device": found_device, "seconds": seconds})
            elif request["do"] == "limits":
                answer(machine_limits(device))
            else:
                assert job is not None, "a turn needs a set_up before it"
                answer(job.turn())
        except Exception as error:
            traceback.print_exc()
            answer({"error": f"{type(error).__name__}: {error}"})


def main(name: str, device: str) -> None:
    """Keep stdout for the answers: what libraries print goes to stderr."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        serve(name, device, sys.stdin, answers)


if __name__ == "__main__":
    main(*sys.argv[1:])
