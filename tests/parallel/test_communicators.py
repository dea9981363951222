"""Communicators: what is refused, and that NCCL is called as its contract says, by a stand-in that counts."""

from __future__ import annotations

import argparse
import copy
import json
import os
import subprocess
import sys
import types

import numpy as np
import pytest
from ranks import Ranks
from refusals import refusal

import xpnet
from xpnet.cli import main
from xpnet.commands.together import together
from xpnet.parallel import nccl
from xpnet.parallel.mpi import Mpi, is_started_by_mpiexec, rank_given
from xpnet.parallel.nccl import Nccl, own_gpu
from xpnet.parallel.reduction import Reduction


def test_without_mpi4py_or_a_library_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    with refusal(ImportError, "mpi4py", "is not installed", "pip install 'xpnet[mpi-local]'"):
        xpnet.communicator("mpi")

    def refuse(name):
        raise RuntimeError("cannot load MPI library\nlibmpi.so: cannot open")

    module = types.ModuleType("mpi4py")
    module.__getattr__ = refuse
    monkeypatch.setitem(sys.modules, "mpi4py", module)
    monkeypatch.delitem(sys.modules, "mpi4py.MPI", raising=False)
    with refusal(ImportError, "needs an MPI library", "cannot load MPI library", "pip install 'xpnet[mpi-local]'"):
        xpnet.communicator("mpi")


class World:
    """MPI's communicator of one process."""

    Get_rank = staticmethod(lambda: 0)
    Get_size = staticmethod(lambda: 1)
    allgather = staticmethod(lambda value: [value])
    bcast = staticmethod(lambda value: value)


def test_a_fork_does_not_speak_for_its_parent(monkeypatch):
    mpi = Mpi(World, None)
    assert mpi.gather(3) == [3]
    monkeypatch.setattr(os, "getpid", lambda: 1)
    with refusal(RuntimeError, "process 1, a fork", "a process that mpiexec started", "communicator=None there"):
        mpi.gather(3)


def test_copies_are_the_same_world(monkeypatch):
    mpi = Mpi(World, None)
    assert copy.deepcopy(mpi) is mpi
    monkeypatch.setattr(Mpi, "world", classmethod(lambda cls: mpi))
    make, given = mpi.__reduce__()
    assert make(*given) is mpi


def test_the_rank_is_known_before_mpi_begins(monkeypatch):
    for name in ("PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert not is_started_by_mpiexec() and rank_given() == 0
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "3")
    assert is_started_by_mpiexec() and rank_given() == 3


class Backend:
    """cupyx.distributed's backend, over the ranks of a test; counts its calls and the elements sent."""

    def __init__(self, comm):
        self.comm, self.calls, self.group = comm, [], None

    def all_reduce(self, array, out):
        self.calls.append("all_reduce")
        out[...] = np.sum(self.comm.gather(array.copy()), axis=0)

    def send(self, array, peer):
        self.calls.append("send")
        self.group.append(("send", array.copy(), peer))

    def recv(self, array, peer):
        self.calls.append("recv")
        self.group.append(("recv", array, peer))

    def broadcast(self, array, root):
        self.calls.append("broadcast")
        array[...] = self.comm.gather(array.copy())[root]

    def groupStart(self):
        self.group = []

    def groupEnd(self):
        """Now what was sent meets what is received, as in NCCL."""
        sent = self.comm.gather([(peer, array) for kind, array, peer in self.group if kind == "send"])
        for kind, array, peer in self.group:
            if kind == "recv":
                array[...] = next(its for to, its in sent[peer] if to == self.comm.rank)
        self.group = None


@pytest.mark.parametrize("kind", ["fixed", "fast"])
def test_nccl_moves_arrays_in_groups_and_adds_alike(kind):
    def added(comm):
        reduction = Reduction(comm, kind)
        shards, message = reduction.shards(16), np.empty(10, np.float32)
        total = reduction.over(shards, message, np)
        for number in range(shards.first, shards.last):
            message[...] = np.random.default_rng(number).normal(size=10)
            total.add(number)
        total.finish()
        return message.tobytes()

    def work(comm):
        backend = Backend(comm)
        return added(Nccl(comm, backend, backend)), backend.calls

    expected, found = Ranks(2).run(added), Ranks(2).run(work)
    assert [message for message, _ in found] == expected
    calls = ["all_reduce"] if kind == "fast" else ["send", "recv"] * 2 + ["broadcast"] * 2
    assert [its for _, its in found] == [calls, calls], "a step's messages, and no more"


def test_each_rank_takes_a_gpu_of_its_machine(monkeypatch):
    assert Ranks(3).run(lambda comm: own_gpu(comm, 4)) == [0, 1, 2]

    def refused(comm):
        with refusal(RuntimeError, "2 ranks and 1 GPU", "NCCL needs one for each", "or take communicator='mpi'"):
            own_gpu(comm, 1)
        return True

    assert Ranks(2).run(refused) == [True, True]


def test_nccl_begins_with_mpi_and_one_gpu_a_rank(monkeypatch):
    used, began = [], []

    class Device:
        def __init__(self, number):
            self.use = lambda: used.append(number)

    runtime = types.SimpleNamespace(getDeviceCount=lambda: 2)
    cupy = types.SimpleNamespace(cuda=types.SimpleNamespace(Device=Device, runtime=runtime, nccl="nccl"))
    distributed = types.SimpleNamespace(init_process_group=lambda *given, **more: began.append((given, more)))
    monkeypatch.setattr(Mpi, "world", classmethod(lambda cls: Mpi(World, None)))
    monkeypatch.setattr(nccl, "_libraries", lambda: (cupy, distributed))
    comm = xpnet.communicator("nccl")
    assert (comm.name, comm.rank, comm.size, used) == ("nccl", 0, 1, [0])
    assert began == [((1, 0), {"backend": "nccl", "use_mpi": True})]
    assert comm.broadcast(3) == 3 and copy.deepcopy(comm) is comm


def test_cupy_without_nccl_is_named(monkeypatch):
    monkeypatch.setattr(Mpi, "world", classmethod(lambda cls: Mpi(World, None)))
    monkeypatch.setattr(nccl, "import_cupy", lambda: None)
    monkeypatch.setitem(sys.modules, "cupyx", None)
    with refusal(ImportError, "communicator='nccl' needs CuPy with NCCL", "has none", "pip install 'xpnet[cuda13]'"):
        xpnet.communicator("nccl")


ONE_RANK = """
import cupy, numpy as np, xpnet
comm = xpnet.communicator("nccl")
array = cupy.arange(6, dtype=cupy.float32)
comm.sum(array)
comm.gather_parts(array, [6])
received = cupy.empty(6, cupy.float32)
comm.exchange(array, [6], received, [6])
assert received.get().tolist() == [0, 1, 2, 3, 4, 5]
X = np.random.default_rng(0).normal(size=(4, 60)).astype(np.float32)
found = []
for given in ({"communicator": comm}, {"reduction": "fixed"}):
    network = xpnet.Network([4, 8, 3], device="cuda", seed=0)
    xpnet.train(network, xpnet.Dataset.from_labels(X, np.arange(60) % 3), xpnet.Adam(), epochs=2, **given)
    found.append(network.owned.get().tobytes())
assert found[0] == found[1]
"""


def test_one_rank_with_nccl_trains_as_one_without(gpu):
    pytest.importorskip("mpi4py", reason="the extra test-mpi is not installed")
    if "XPNET_EXECUTING_CUDA" in os.environ or not gpu.xp.cuda.nccl.available:
        pytest.skip("no NCCL here")
    done = subprocess.run([sys.executable, "-c", ONE_RANK], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr


def test_a_command_may_leave_mpi_alone(monkeypatch, tmp_path):
    monkeypatch.setenv("PMI_RANK", "0")
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    words = ["train", "--epochs", "0", "--quiet", "--hidden", "3", "--out", str(tmp_path / "run")]
    refused = refusal(ImportError, "'mpi' needs mpi4py", "is not installed", "pip install 'xpnet[mpi-local]'")
    with refused, together(argparse.Namespace(no_mpi=False, reduction=None)):
        pass
    assert main([*words, "--no-mpi"]) == 0
    assert "reduction" not in json.loads((tmp_path / "run/config.json").read_text(encoding="utf-8"))["options"]
