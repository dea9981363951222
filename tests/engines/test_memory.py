"""What engines share: one memory each, what is kept of batch sizes, and which steps have an update."""

from __future__ import annotations

import weakref

import numpy as np
import pytest
from features import FEATURES, network_of, program_of

from xpnet import select_backend
from xpnet.engines.cuda.engine import Cuda
from xpnet.engines.engine import Engine
from xpnet.engines.llvm.engine import Compiled
from xpnet.engines.memory import BySize, Memory
from xpnet.engines.replay import Replay
from xpnet.program.recorder import Recorder

ENGINES = (Replay, Cuda, Compiled)


@pytest.mark.parametrize("made", ENGINES)
def test_no_engine_is_the_base_of_another(made):
    assert made.__mro__[1] is Engine and len(made.__mro__) == len(Engine.__mro__) + 1


def test_the_full_batch_and_the_others_used_last_are_kept(monkeypatch):
    monkeypatch.setattr("xpnet.engines.memory._KEPT_BATCH_SIZES", 8)
    kept, made = BySize[int](100), []

    def make(batch):
        made.append(batch)
        return 2 * batch

    for batch in (7, 100, *range(1, 12), 100):
        assert kept.get(batch, make) == 2 * batch
    assert made == [7, 100, *range(1, 7), *range(8, 12)] and len(kept._made) == 9
    assert kept.get(7, make) == 14 and len(made) == 12  # it has been used since
    assert kept.get(1, make) == 2 and made[-1] == 1  # it was the first to go


@pytest.mark.parametrize("sizes", [[1 << i for i in range(11)], range(520, 540)], ids=["powers", "near"])
def test_predictions_of_many_sizes_are_recorded_once(sizes, monkeypatch):
    recorded = []
    original = Recorder.finish
    monkeypatch.setattr(Recorder, "finish", lambda *given: recorded.append(given) or original(*given))
    network = network_of({}, select_backend("cpu", "float64"))
    X = np.random.default_rng(0).standard_normal((6, 1024))
    once = None
    for _ in range(3):
        for n in sizes:
            np.testing.assert_allclose(network.predict(X[:, :n]), network.predict(X)[:, :n], rtol=1e-12)
            network.classify(X[:, :n]), network.evaluate_loss(X[:, :n], np.ones((3, n)) / 3)
        once = once or len(recorded)
    assert len(recorded) == once


def test_few_large_engines_are_kept(monkeypatch):
    monkeypatch.setattr("xpnet.network.idle_engines._MOST_BYTES", 1 << 20)
    network = network_of({"hidden": (64,)}, select_backend("cpu", "float64"))
    for n in range(1, 20):
        network.gradients(np.ones((6, 16 * n)), np.ones((3, 16 * n)))
    idle = network._idle._idle
    assert len(idle) == 8  # of about 0.2 MiB and more
    for n in range(1, 20):
        network.gradients(np.ones((6, n)), np.ones((3, n)))
    assert len(idle) > 8 and sum(engine.memory.nbytes for _, engine in idle) <= 1 << 20


def test_a_replay_on_the_memory_of_another_engine():
    """It steps where the other would; what is fed to one is read by both."""
    backend = select_backend("cpu", "float64")
    network = network_of({}, backend)
    program = program_of(FEATURES["optimizer Adam"], network, 4)
    engine = Replay(program, backend, network.owned)
    other = Replay(program, backend, network.owned, memory=engine.memory)
    engine.feed(3, X=np.ones((6, 3)))
    assert other.read("X", 3).sum() == 18 and np.shares_memory(other.state, engine.state)
    other.read("X", 2)[...] = 5.0
    assert engine.read("X", 3).sum() == 6 * 11


def test_memory_goes_with_its_engine():
    """By counting references, without the collector: arrays of a GPU's are large."""
    backend = select_backend("cpu", "float32")
    network = network_of({}, backend)
    engine = Replay(program_of({}, network, 4), backend, network.owned)
    engine.feed(3, X=np.ones((6, 3), np.float32), Y=np.ones((3, 3), np.float32))
    engine.execute(3)
    memory = weakref.ref(engine.memory)
    del engine
    assert memory() is None


def test_extra_floats_lie_behind_the_arena():
    backend = select_backend("cpu", "float32")
    network = network_of({}, backend)
    program = program_of(FEATURES["optimizer Adam"], network, 4)
    memory = Memory(program, backend, network.owned, extra_floats=5)
    assert memory.floats.size == program.n_floats - program.n_owned + 5
    memory.floats[-5:] = 1.0
    assert not memory.state.any() and not memory.slots.any() and not memory.results.any()


@pytest.mark.parametrize(("accumulate", "followed"), [(1, [0, 1, 2, 3, 4]), (2, [1, 3, 4]), (3, [2, 4]), (9, [4])])
def test_an_update_follows_every_so_many_steps_and_the_last(accumulate, followed):
    program = program_of({"accumulate": accumulate}, network_of({}, select_backend("cpu")), 4)
    assert [t for t in range(5) if program.has_update(t, 5)] == followed
