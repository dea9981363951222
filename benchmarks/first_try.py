"""Train public tables at the first try, and predict on spoilt rows of them.

    python benchmarks/public_tables.py FOLDER
    python benchmarks/first_try.py FOLDER

Each table is trained by `xpnet train FILE --target NAME` without another option, in a process of its own. The run then
predicts on 20 rows with gaps, an unseen category, an extra column and another order of columns. A line a table tells
what came of it. Ends with 1 if a table failed.
"""

from __future__ import annotations

import argparse
import csv
import importlib
import json
import multiprocessing
import os
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

if (root := str(Path(__file__).resolve().parents[1])) not in sys.path:
    sys.path.insert(0, root)

from benchmarks.public_tables import ROWS
from xpnet.cli import main as xpnet

# A forked process has the imports already, so that the time is that of the command alone.
CONTEXT: Any = multiprocessing.get_context("fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn")
TIMED_OUT = 124  # as `timeout` of a shell says it


def tried(facts: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Train one table and predict with it; returns what came of it.

    facts: the table's line of the index.  seconds: after which a command is ended.
    """
    result: dict[str, Any] = {key: facts[key] for key in ("name", "half", "n_rows", "n_columns")}
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        command = ["train", facts["file"], "--target", facts["target"]]
        result["train"], said, told = _run(command, Path(folder), seconds)
        result["seconds"] = round(time.perf_counter() - began, 1)
        result |= {"train_failure": _failure(told)} if result["train"] else _trained(Path(folder), said, told)
        if result["train"] == 0:
            result |= _predicted(facts, Path(folder), seconds)
    return result


def _run(command: list[str], folder: Path, seconds: float) -> tuple[int, str, str]:
    """Run a command of xpnet in a folder, in a process of its own; returns its exit code, stdout and stderr."""
    process = CONTEXT.Process(target=_command, args=(command, folder))
    process.start()
    process.join(seconds)
    if process.is_alive():
        process.kill()
        process.join()
        code = TIMED_OUT
    else:
        code = process.exitcode or 0
    return code, *((folder / name).read_text(encoding="utf-8", errors="replace") for name in ("stdout", "stderr"))


def _command(command: list[str], folder: Path) -> None:
    """Be the process of a command: stdout and stderr go into files of its folder."""
    os.chdir(folder)
    for name, stream in (("stdout", sys.stdout), ("stderr", sys.stderr)):
        with open(name, "wb") as file:
            os.dup2(file.fileno(), stream.fileno())
    sys.exit(xpnet(command))


def _failure(told: str) -> str:
    lines = told.strip().splitlines()
    return lines[-1] if lines else ""


def _trained(folder: Path, said: str, told: str) -> dict[str, Any]:
    """Return what the run directory and the summary tell of a training."""
    (run,) = (folder / "runs").iterdir()
    records = [json.loads(line) for line in (run / "history.jsonl").read_text(encoding="utf-8").splitlines()]
    preprocessing = json.loads((run / "table.json").read_text(encoding="utf-8"))
    summary = said.strip().splitlines()[-1]
    return {
        "summary": summary.split(" -> ")[0],
        "score": _score(summary),
        "epochs": records[-1]["epoch"],
        "chosen": records[-1].get("chosen_epoch", records[-1]["epoch"]),
        "n_decisions": len(preprocessing.get("decisions", ())),
        "n_warnings": told.count("warning:"),
    }


def _score(summary: str) -> str:
    """Return the accuracy or R2 that a summary tells, such as "accuracy 0.9333"; else the loss."""
    measures = dict(re.findall(r"validation (\w+) (-?[0-9.]+)", summary))
    name = next((name for name in ("accuracy", "r2", "loss") if name in measures), None)
    return "no validation" if name is None else f"{name} {measures[name]}"


def _predicted(facts: dict[str, Any], folder: Path, seconds: float) -> dict[str, Any]:
    """Predict on the spoilt rows; 0 is kept as exit code only if each row has a prediction without a gap."""
    (run,) = (folder / "runs").iterdir()
    out = folder / "predictions.csv"
    code, _, told = _run(["predict", str(run), facts["rows"], "--out", str(out)], folder, seconds)
    if code:
        return {"predict": code, "predict_failure": _failure(told)}
    with out.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))[1:]
    if len(rows) != ROWS or any(cell in ("", "nan", "inf") for row in rows for cell in row):
        return {"predict": 1, "predict_failure": f"{len(rows)} of {ROWS} rows, or a gap among the predictions"}
    return {"predict": 0}


def line(result: dict[str, Any]) -> str:
    """Return the line that tells of one table."""
    found = f"{result['name']:44} {result['n_rows']:>6} x {result['n_columns']:<4} {result['seconds']:5.1f} s"
    if result["train"]:
        return f"{found}  train {result['train']}: {result['train_failure']}"
    trained = f"{found}  {result['n_decisions']:2} decisions, epoch {result['chosen']} of {result['epochs']}"
    failure = f"  predict {result['predict']}: {result['predict_failure']}" if result["predict"] else ""
    return f"{trained}, {result['score']}{failure}"


def main(arguments: list[str] | None = None) -> int:
    """Try the tables; returns 1 if one failed."""
    parser = argparse.ArgumentParser(description="train public tables at the first try")
    parser.add_argument("folder", type=Path, help="what public_tables.py wrote")
    parser.add_argument("--seconds", type=float, default=60.0, help="for one command (default: %(default)s)")
    parser.add_argument("--only", default="", help="tables whose name has this text")
    parser.add_argument("--json", action="store_true", help="a line of JSON a table")
    options = parser.parse_args(arguments)
    importlib.import_module("pandas")
    index = (options.folder / "index.jsonl").read_text(encoding="utf-8").splitlines()
    results = []
    for facts in map(json.loads, index):
        if options.only in facts["name"]:
            results.append(tried(facts, options.seconds))
            print(json.dumps(results[-1]) if options.json else line(results[-1]), flush=True)
    trained = sum(result["train"] == 0 for result in results)
    predicted = sum(result.get("predict") == 0 for result in results)
    total = f"{trained} of {len(results)} tables trained at the first try, {predicted} predict"
    print(total, file=sys.stderr if options.json else sys.stdout)
    return 0 if predicted == len(results) else 1


if __name__ == "__main__":
    sys.exit(main())
