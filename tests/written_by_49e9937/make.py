"""Write the files beside this one: models, checkpoints, runs and pickles, and in expected.json what was made of them.

It was run once, with the code of commit 49e9937, and refuses any other: what it wrote shows what that code wrote.
To run it again, in an environment with the extra `test`:

    git worktree add /tmp/old 49e9937
    OPENBLAS_NUM_THREADS=1 PYTHONPATH=/tmp/old:tests python -m written_by_49e9937.make

It takes some seconds and replaces all files but cases.py and itself. Times are others at each turn, and on another
machine the last bits of what products and sums go into; cases.py says of which runs that is not so.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import pickle
import shutil
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from written_by_49e9937 import cases

import xpnet
from xpnet import checkpoint
from xpnet.cli import main as command_line

HERE = Path(__file__).resolve().parent
# What the package's code was: SHA-256 of its files, name by name.
OLD = "5c52114264ed1fb4aecea7d92d88392b58180a21de81238e1b3c0b3a50fb8c9f"


class Killed(BaseException):
    """The process ends here."""


class Kill(xpnet.Callback):
    """Ends a run at a moment, by its epoch and step; it stands behind the `Checkpoint` that writes it down."""

    def __init__(self, at: tuple[int, int]) -> None:
        self.at = at

    def on_pause(self, moment: Any) -> None:
        progress = moment().progress
        if (progress.epoch, progress.step) == self.at:
            raise Killed


def main() -> None:
    check_code()
    warnings.simplefilter("ignore")
    for folder in ("models", "checkpoints", "data", "runs", "pickles"):
        shutil.rmtree(HERE / folder, ignore_errors=True)
        (HERE / folder).mkdir()
    os.environ["XPNET_CACHE"] = ""
    expected = {"models": models(), "checkpoints": checkpoints(), **runs(), "estimators": estimators()}
    lines = (f"{json.dumps(part)}: {{\n" + ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}"
             for key, value in found.items()) + "\n}" for part, found in expected.items())  # fmt: skip
    (HERE / "expected.json").write_text("{" + ",\n".join(lines) + "}\n", encoding="utf-8")


def check_code() -> None:
    """Refuse any code but that of the commit."""
    package = Path(xpnet.__file__).parent
    found = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        found.update(f"{path.relative_to(package).as_posix()}\n".encode() + path.read_bytes())
    if found.hexdigest() != OLD:
        sys.exit(f"{package} is not the code of commit 49e9937: its sum is {found.hexdigest()}")


def models() -> dict[str, Any]:
    """Write models, and return what they predict."""
    found = {}
    for name in cases.MODELS:
        network = cases.model(name)
        network.save(HERE / "models" / f"{name}.safetensors")
        found[name] = cases.answers(network)
    return found


def checkpoints() -> dict[str, Any]:
    """Write checkpoints in the middle of runs, and return where the runs end when they go on from there."""
    found = {}
    for name, (kind, dtype, engine) in cases.RUNS.items():
        path = HERE / "checkpoints" / f"{name}.safetensors"
        with contextlib.suppress(Killed):
            kind(dtype, engine)(xpnet.Checkpoint(path, steps=kind.every), Kill(kind.at))
        progress = checkpoint.load_checkpoint(path).progress
        assert (progress.epoch, progress.step) == kind.at, (name, progress)
        found[name] = kind(dtype, engine)(resume=path).told()
        assert found[name] == kind(dtype, engine)().told(), name
    for kind in ("sums", "averages"):  # nothing was rounded, or 24 and 53 bits would not come to the same
        ends = [found[f"{kind}-{dtype}-replay"] for dtype in ("float32", "float64")]
        assert ends[0]["last"] == ends[1]["last"], kind
    assert found["averages-float64-compiled"]["last"] == found["averages-float64-replay"]["last"]
    return found


def runs() -> dict[str, Any]:
    """Write data and run directories, and return where killed runs end and what evaluate and predict say."""
    for name, array in cases.arrays().items():
        np.save(HERE / "data" / name, array)
    for name, text in cases.tables().items():
        (HERE / "data" / name).write_text(text, encoding="utf-8")
    found: dict[str, Any] = {"runs": {}, "evaluate": {}, "predict": {}}
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        shutil.copytree(HERE / "data", ".", dirs_exist_ok=True)
        for name, options in cases.TRAIN.items():
            with left_in_the_middle(Path(name), cases.KILLED.get(name), HERE / "runs" / name):
                command("train", *options, *cases.COMMON, "--out", name)
            if name not in cases.KILLED:
                shutil.copytree(name, HERE / "runs" / name)
            told = command("evaluate", name, *cases.EVALUATE[name], "--json").splitlines()
            found["evaluate"][name] = [json.loads(line) for line in told]
            command("predict", name, cases.PREDICT[name], "--out", "out.csv")
            found["predict"][name] = Path("out.csv").read_text(encoding="utf-8").splitlines()
            if name in cases.MORE_EPOCHS:
                command("train", "--resume", name, "--epochs", cases.MORE_EPOCHS[name], "--quiet")
            network = xpnet.Network.load(Path(name, "model.safetensors"), xpnet.select_backend("cpu", "float64"))
            history = [
                json.loads(line) for line in Path(name, "history.jsonl").read_text(encoding="utf-8").splitlines()
            ]
            found["runs"][name] = {"theta": cases.named(network.parameters), "history": cases.records(history)}
            # Its paths are absolute; here they begin where the command is run, so that they fit any machine.
            path = HERE / "runs" / name / "config.json"
            path.write_text(path.read_text(encoding="utf-8").replace(f"{Path.cwd()}{os.sep}", ""), encoding="utf-8")
    return found


def command(*words: str) -> str:
    """Run a command and return what it prints."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()) as err:
        code = command_line(words)
    assert code == 0, err.getvalue()
    return out.getvalue()


@contextlib.contextmanager
def left_in_the_middle(run: Path, at: tuple[int, int] | None, out: Path) -> Any:
    """Copy the directory of the run that is made meanwhile as it is when its checkpoint of that moment is written."""
    save = checkpoint.save_checkpoint

    def save_and_copy(path: Any, moment: Any) -> None:
        save(path, moment)
        if (moment.progress.epoch, moment.progress.step) == at:
            shutil.copytree(run, out)

    checkpoint.save_checkpoint = save_and_copy
    try:
        yield
    finally:
        checkpoint.save_checkpoint = save


def estimators() -> dict[str, Any]:
    """Pickle fitted estimators, and return what they say now and after they have gone on."""
    found = {}
    for name, model in cases.estimators().items():
        path = HERE / "pickles" / f"{name}.pickle"
        path.write_bytes(pickle.dumps(model))
        found[name] = {"now": cases.said(model)}
        if name in cases.GO_ON:
            again = pickle.loads(path.read_bytes())
            for one in (model, again):
                cases.GO_ON[name](one)
            found[name]["then"] = cases.said(again)
            assert found[name]["then"] == cases.said(model), name
    return found


def pickled(name: str, found: dict[str, Any]) -> None:
    """Pickle each value by itself, so that one that cannot be read hides no other."""
    parts = {key: pickle.dumps(value) for key, value in found.items()}
    (HERE / "pickles" / f"{name}.pickle").write_bytes(pickle.dumps(parts))


if __name__ == "__main__":
    main()
