"""Faults of ranks that a real mpiexec started: all end within seconds, one line says why, and the run resumes."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from launching import LIMIT, MPIEXEC, ended, environment, launch, ranks_of, started

from xpnet.cli import main
from xpnet.training.checkpoint import load_checkpoint

pytest.importorskip("mpi4py", reason="the extra test-mpi is not installed")

pytestmark = pytest.mark.full
TRAIN = ["-m", "xpnet", "train", "X.npy", "--labels", "labels.npy", "--engine", "replay", "--batch-size", "40"]
OTHER_VERSION = "import sys, xpnet, xpnet.cli; xpnet.__version__ = '9.9'; sys.exit(xpnet.cli.main(sys.argv[1:]))"
FULL = """
import sys, xpnet, mpi_cases
class Full(xpnet.Callback):
    def on_epoch_end(self, record, network):
        with open("/dev/full", "w") as file:
            file.write("a record")
comm = xpnet.communicator("mpi")
xpnet.train(mpi_cases.network(), mpi_cases.data(), xpnet.SGD(0.1), epochs=9, communicator=comm, callbacks=[Full()])
"""


@pytest.fixture(autouse=True)
def data(tmp_path, monkeypatch):
    """Rows with labels in the working directory, and others of another shape."""
    rng = np.random.default_rng(0)
    for name, n in (("", 400), ("fewer", 300)):
        np.save(tmp_path / f"{name}X.npy", rng.random((n, 6), dtype=np.float32))
        np.save(tmp_path / f"{name}labels.npy", rng.integers(0, 3, n))
    monkeypatch.chdir(tmp_path)


def lines(text):
    """The lines that xpnet wrote, without those of mpiexec."""
    return [line for line in text.splitlines() if line.startswith("xpnet")]


@pytest.mark.parametrize(
    ("own", "other", "said"),
    [
        ([*TRAIN, "--seed", "1"], [*TRAIN, "--seed", "2"], "rank 1 has seed 2, and rank 0 has 1"),
        (TRAIN, [*TRAIN[:3], "fewerX.npy", "--labels", "fewerlabels.npy", *TRAIN[6:]], "rank 1 has n_samples"),
        (TRAIN, ["-c", OTHER_VERSION, *TRAIN[2:]], "rank 1 has version 9.9"),
        (TRAIN, [*TRAIN[:3], "gone.npy", *TRAIN[4:]], "rank 1: there is no file "),
        ([*TRAIN, "--out", "."], TRAIN, "rank 0: --out . is not an empty directory"),
        (TRAIN, [*TRAIN, "--out", "elsewhere", "--threads", "2"], "rank 1: threads is 2"),
    ],
)
def test_a_rank_with_something_else_ends_all(own, other, said):
    with started((1, *own), (1, *other)) as process:
        text = process.communicate(timeout=60)[1]
    assert process.returncode != 0
    (line,) = [line for line in lines(text) if said in line]
    assert lines(text) == [line], "one line"
    assert not Path("elsewhere").exists(), "rank 0 alone writes"


def test_ranks_that_are_all_wrong_say_it_once():
    done = launch((2, *TRAIN, "--batch-size", "none"), check=False)
    assert done.returncode == 2 and done.stderr.count("error:") == 1


def running(process, folder):
    """The ranks of a run, once it has a checkpoint."""
    limit = time.monotonic() + 60
    while not (Path(folder) / "checkpoint.safetensors").exists():
        assert time.monotonic() < limit and process.poll() is None
        time.sleep(0.02)
    return ranks_of(process)


RUN = [*TRAIN, "--quiet", "--checkpoint-every", "5", "--out", "run"]


@pytest.mark.parametrize(("number", "code", "said"), [(signal.SIGINT, 130, "inter"), (signal.SIGTERM, 143, "termin")])
def test_a_signal_to_mpiexec_ends_all_with_a_checkpoint(number, code, said):
    with started((2, *RUN, "--epochs", "100000")) as process:
        pids = running(process, "run")
        assert len(pids) == 2
        process.send_signal(number)
        text = ended(process, pids)
    assert process.returncode & code == code and lines(text) == [f"xpnet: {said}{'rupted' if code == 130 else 'ated'}"]
    epoch = load_checkpoint("run/checkpoint.safetensors").progress.epoch
    assert main(["train", "--resume", "run", "--epochs", str(epoch + 1), "--quiet"]) == 0


def test_a_full_disk_at_rank_0_ends_all_with_its_cause():
    done = launch((2, "-c", FULL), check=False)
    assert done.returncode != 0 and "rank 0: [Errno 28] No space left on device" in done.stderr


def small_disk(*words):
    """The words of a shell that mounts a file system of 96 KiB, for itself alone, runs others, and copies the run."""
    mount = "mount -t tmpfs -o size=96k none disk || exit 99"
    return ["unshare", "--mount", "sh", "-c", f'{mount}; "$@"; code=$?; cp -r disk/. .; exit $code', "sh", *words]


def test_a_file_system_that_fills_ends_all_with_its_cause(tmp_path):
    (tmp_path / "disk").mkdir()
    may = small_disk("true")
    if shutil.which(may[0]) is None or subprocess.run(may, capture_output=True).returncode:
        pytest.skip("no file system may be mounted here")
    words = ["--out", "disk/run", "--hidden", "100", "--epochs", "100000", "--quiet", "--checkpoint-every", "1"]
    launch = small_disk(str(MPIEXEC), "-n", "2", sys.executable, *TRAIN, *words, "--optimizer", "adam")
    done = subprocess.run(launch, capture_output=True, text=True, timeout=LIMIT, env=environment())
    (line,) = lines(done.stderr)
    assert done.returncode and "No space left on device; free some space, or name another place" in line
    assert load_checkpoint("run/checkpoint.safetensors").history


def killed_and_resumed(number):
    """Kill one of two ranks at a moment, and resume with some number of ranks to the end."""
    draw = random.Random(number)
    options = ["--epochs", "15", "--dropout", "0.2", "--optimizer", "adam", "--seed", str(number)]
    options += ["--validation", "60", "--reduction", "fixed"]
    with started((2, *RUN, *options)) as process:
        pids = running(process, "run")
        time.sleep(0.4 * draw.random())
        if pids:
            os.kill(pids[draw.randrange(len(pids))], signal.SIGKILL)
        ended(process, pids)
    load_checkpoint("run/checkpoint.safetensors")
    launch((draw.choice([1, 1, 2, 2, 4]), "-m", "xpnet", "train", "--resume", "run", "--quiet"))
    assert main([*RUN[2:-1], "whole", *options, "--engine", "replay"]) == 0
    assert Path("run/model.safetensors").read_bytes() == Path("whole/model.safetensors").read_bytes()


def test_a_killed_rank_ends_all_and_the_run_resumes():
    killed_and_resumed(0)


@pytest.mark.parametrize("number", range(1, 21))
def test_of_twenty_kills_each_resumes(number):
    killed_and_resumed(number)


def commands_of(page):
    """The lines of a page's block that begin with mpiexec, as words."""
    text = (Path(__file__).parents[2] / page).read_text(encoding="utf-8")
    return [line.split() for line in text.splitlines() if line.startswith("mpiexec")]


def test_the_commands_of_readme_and_guide_run():
    found = commands_of("README.md")
    assert len(found) == 2 and found == commands_of("ci/guide/machines.md")
    for epochs, (_, _, n, *words) in enumerate(found, 1):
        done = launch((int(n), "-m", *words, "--epochs", epochs))
        assert "-> together" in done.stdout and f"epoch {epochs}" in done.stdout
