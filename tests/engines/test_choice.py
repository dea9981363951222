"""Which engine runs a Program, and that training means the same on each: chosen once, told, resumed, refused."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager, nullcontext

import fakecupy
import numpy as np
import pytest
from refusals import refusal, says

import xpnet
from xpnet import SGD, Adam, Budget, Callback, Checkpoint, Dataset, Network, TrainingDiverged
from xpnet.backend import Backend
from xpnet.data import feed
from xpnet.engines import blas
from xpnet.engines import choice as engines
from xpnet.engines.blas import numpy_gemm
from xpnet.engines.choice import blas_threads, choose_engine, engine_facts, make_engine, threads_of
from xpnet.engines.llvm import native, thread_choice
from xpnet.program.recorder import record
from xpnet.training.checkpoint import load_checkpoint

NOT_OF_THE_RUN = ("seconds", "bytes_uploaded", "engine", "threads")


@pytest.fixture
def cheap(monkeypatch):
    """A call saved gains 1 ms and compiling takes a second: of a Program of 20 calls, 51 steps repay it."""
    monkeypatch.setattr(engines, "GAIN_SECONDS", (1e-3, 0.0, 0.0))
    monkeypatch.setattr(engines, "COMPILE_SECONDS", (1.0, 0.0))


@pytest.fixture(autouse=True)
def as_it_stands(quick):
    """Code is not optimised here."""


@pytest.fixture
def without_llvmlite(monkeypatch):
    """As where the extra is not installed."""
    monkeypatch.setitem(sys.modules, "llvmlite", None)


def labelled(n=23, weighted=False, dtype=float):
    rng = np.random.default_rng(4)
    X = rng.random((6, n)) if dtype is float else rng.integers(0, 256, (6, n), dtype=dtype)
    return Dataset.from_labels(X, rng.integers(0, 3, n), 3, rng.random(n) + 0.1 if weighted else None)


def trained(backend, dataset=None, optimizer=None, shape=None, **options):
    """The network of a short training, its records without times, and the optimizer."""
    network = Network([6, 7, 3], activation="tanh", backend=backend, seed=2, **(shape or {}))
    optimizer = optimizer or Adam(0.01)
    history = xpnet.train(
        network, dataset or labelled(), optimizer, **{"epochs": 2, "batch_size": 5, "keep_best": False, **options}
    )
    return network, history, optimizer


def bits(trained):
    network, history, optimizer = trained
    records = [{name: value for name, value in record.items() if name != "seconds"} for record in history]
    return network.owned.tobytes(), records, optimizer.steps_done


# --- the choice ------------------------------------------------------------------------------------------------------


def test_auto_counts_steps_and_calls(float64_cpu, cheap):
    for sizes in ([6, 3], [6, 7, 3]):
        program = Network(sizes, backend=float64_cpu).training_program(5, SGD(), False)
        most = 1000 // len(program.calls)  # n steps gain n * calls ms, compiling takes 1000
        assert choose_engine("auto", program, float64_cpu, most) == "replay"
        assert choose_engine("auto", program, float64_cpu, most + 1) == "compiled"
        assert choose_engine("replay", program, float64_cpu, 10**9) == "replay"
        assert choose_engine("compiled", program, float64_cpu, 0) == "compiled"


def test_auto_counts_operations_up_to_a_limit(float64_cpu, monkeypatch):
    program = Network([6, 7, 3], backend=float64_cpu).training_program(5, SGD(), False)
    flops = sum(call.flops for call in program.calls)
    monkeypatch.setattr(engines, "GAIN_SECONDS", (0.0, 1.0, 0.0))
    monkeypatch.setattr(engines, "COMPILE_SECONDS", (10.5 * flops, 0.0))
    chosen = [choose_engine("auto", program, float64_cpu, n) for n in (10, 11)]
    assert chosen == ["replay", "compiled"]
    monkeypatch.setattr(engines, "MOST_FLOPS", flops / 2)
    chosen = [choose_engine("auto", program, float64_cpu, n) for n in (21, 22)]
    assert chosen == ["replay", "compiled"]


def test_auto_counts_the_numbers_of_the_samples_of_a_step(float64_cpu, monkeypatch):
    monkeypatch.setattr(engines, "GAIN_SECONDS", (0.0, 0.0, 1.0))
    monkeypatch.setattr(engines, "COMPILE_SECONDS", (10.5 * 5 * (6 + 3), 0.0))
    program = Network([6, 7, 3], backend=float64_cpu).training_program(5, SGD(), False)
    chosen = [choose_engine("auto", program, float64_cpu, n) for n in (10, 11)]
    assert chosen == ["replay", "compiled"]


def test_a_call_takes_time_to_compile_too(float64_cpu, cheap, monkeypatch):
    program = Network([6, 7, 3], backend=float64_cpu).training_program(5, SGD(), False)
    monkeypatch.setattr(engines, "COMPILE_SECONDS", (0.0, 100 * 1e-3))
    chosen = [choose_engine("auto", program, float64_cpu, n) for n in (99, 101)]
    assert chosen == ["replay", "compiled"]


def test_auto_counts_the_validation_as_a_program_to_compile(float64_cpu, monkeypatch):
    dataset, n_steps = labelled(15), 3
    history = trained(float64_cpu, dataset=dataset, epochs=1, engine="replay")[1]
    assert history[-1]["steps"] == n_steps
    monkeypatch.setattr(engines, "_gain", lambda counts: 1.0)
    monkeypatch.setattr(engines, "COMPILE_SECONDS", (10.5, 0.0))

    def engine_of(epochs, **options):
        return trained(float64_cpu, dataset=dataset, epochs=epochs, **options)[1][-1]["engine"]

    assert [engine_of(n) for n in (3, 4)] == ["replay", "compiled"]
    assert [engine_of(n, validation=dataset) for n in (6, 8)] == ["replay", "compiled"]


def test_auto_compiles_from_where_the_readme_says():
    """784-100-200-10 at batch 32, validated: "from 74 epochs of the sample or 7 of MNIST on"."""
    backend = xpnet.select_backend("cpu", "float32")
    program = Network([784, 100, 200, 10], backend=backend).training_program(32, SGD(), False)
    for n_samples, epochs in ((4500, 74), (54000, 7)):
        steps = -(-n_samples // 32)
        chosen = [choose_engine("auto", program, backend, n * steps, 2) for n in (epochs - 1, epochs)]
        assert chosen == ["replay", "compiled"]


def test_large_batches_are_left_to_numpy(float64_cpu, monkeypatch):
    monkeypatch.setattr(engines, "MOST_SAMPLES", 8)
    network = Network([6, 3], backend=float64_cpu)
    programs = [network.training_program(batch, SGD(), False) for batch in (8, 9)]
    assert [choose_engine("auto", program, float64_cpu, 10**9) for program in programs] == ["compiled", "replay"]


def test_without_llvmlite(float64_cpu, without_llvmlite):
    program = Network([6, 3], backend=float64_cpu).training_program(5, SGD(), False)
    assert choose_engine("auto", program, float64_cpu, 10**9) == "replay"
    with pytest.raises(ImportError) as error:
        trained(float64_cpu, engine="compiled")
    says(error, "llvmlite", "is not installed", "pip install 'xpnet[jit]'")


def test_with_an_llvmlite_that_is_too_old(float64_cpu, monkeypatch):
    import llvmlite.binding

    monkeypatch.setattr(llvmlite.binding, "llvm_version_info", (15, 0, 7))
    program = Network([6, 3], backend=float64_cpu).training_program(5, SGD(), False)
    assert choose_engine("auto", program, float64_cpu, 10**9) == "replay"
    with pytest.raises(ImportError, match=r"LLVM 20 or newer, this llvmlite has 15.*--upgrade 'xpnet\[jit\]'"):
        choose_engine("compiled", program, float64_cpu, 1)


def test_on_a_gpu(fake_gpu):
    program = Network([6, 3], backend=fake_gpu).training_program(5, SGD(), False)
    assert choose_engine("auto", program, fake_gpu, 10**9) == "cuda"
    assert choose_engine("replay", program, fake_gpu, 10**9) == "replay"
    for engine, name in (("auto", "cuda"), ("replay", "replay")):
        assert trained(fake_gpu, engine=engine)[1].column("engine") == [name] * 3
    with pytest.raises(ValueError) as error:
        trained(fake_gpu, engine="compiled")
    says(error, "engine is 'compiled', which runs on cpu", "the device is cuda", "take device='cpu'")


def test_the_record_tells_the_precision_of_a_gpu(fake_gpu, float64_cpu, monkeypatch):
    in_float64 = Backend("cupy", "cuda", fakecupy, np.dtype("float64"))
    for backend, options, name in (
        (fake_gpu, {}, "fp32"),
        (fake_gpu, {"precision": "tf32"}, "tf32"),
        (in_float64, {}, "fp64"),
    ):
        assert trained(backend, **options)[1].column("precision") == [name] * 3
    assert (
        "precision" not in trained(float64_cpu)[1][-1] and "precision" not in trained(fake_gpu, engine="replay")[1][-1]
    )
    monkeypatch.delattr(fakecupy.cuda.cublas, "gemmEx")
    assert trained(fake_gpu)[1].column("precision") == ["fp32"] * 3
    with refusal(ValueError, "precision is 'tf32'", "CuPy's cublas.gemmEx", "CuPy 14.2.0 has", "leave precision out"):
        trained(fake_gpu, precision="tf32")


def test_a_precision_that_the_steps_cannot_have_is_refused_at_the_call(fake_gpu, float64_cpu):
    in_float64 = Backend("cupy", "cuda", fakecupy, np.dtype("float64"))
    for backend, options, found in (
        (float64_cpu, {}, "on the cpu in float64 by replay"),
        (xpnet.select_backend("cpu"), {"engine": "compiled"}, "on the cpu in float32 by compiled"),
        (fake_gpu, {"engine": "replay"}, "on the cuda in float32 by replay"),
        (in_float64, {}, "on the cuda in float64 by cuda"),
    ):
        network = Network([6, 3], backend=backend)
        with refusal(ValueError, "precision is 'tf32'", found, "needed are a CUDA GPU, float32", "take device='cuda'"):
            xpnet.epochs(network, labelled(), SGD(), epochs=1, precision="tf32", **options)
    with pytest.raises(ValueError, match="precision is 'fp16', choose one of 'fp32', 'tf32'"):
        xpnet.epochs(network, labelled(), SGD(), epochs=1, precision="fp16")


def test_a_run_goes_on_with_the_precision_that_it_had(fake_gpu, tmp_path):
    assert killed(fake_gpu, tmp_path / "c", precision="tf32") == "cuda"
    whole, resumed, other = (
        fake_gpu.to_host(trained(fake_gpu, **options)[0].owned).tobytes()
        for options in ({"precision": "tf32"}, {"precision": "tf32", "resume": tmp_path / "c"}, {})
    )
    assert resumed == whole != other
    with refusal(
        ValueError, "belongs to a run with precision tf32", "this one has precision fp32", "pass what that run had"
    ):
        trained(fake_gpu, resume=tmp_path / "c")


def test_unknown_engines_are_refused_at_the_call(float64_cpu):
    network = Network([6, 3], backend=float64_cpu)
    for engine in ("compile", "cuda", "", None):
        with pytest.raises(ValueError, match=r"engine is .*, choose one of 'auto', 'replay', 'compiled'"):
            xpnet.epochs(network, labelled(), SGD(), epochs=1, engine=engine)


def test_the_choice_is_made_once_by_the_epochs_asked_for(float64_cpu, cheap):
    """A budget that ends the run early does not change it, and neither does what was trained before."""
    assert trained(float64_cpu, epochs=2)[1].column("engine") == ["replay"] * 3
    history = trained(float64_cpu, epochs=200, callbacks=[Budget(steps=7)])[1]
    assert history.column("engine") == ["compiled"] * 3 and history.column("steps") == [0, 5, 2]
    assert all(record["threads"] >= 1 for record in history)
    assert "threads" not in trained(float64_cpu)[1][-1]


def test_what_cannot_be_compiled_is_replayed_with_a_warning(float64_cpu):
    def build(recorder):
        key = recorder.scalar_in(recorder.state("keys", 1, "uint32"), "key", 0)
        recorder.xp.add(key, recorder.batch, out=key)

    program = record(build, batch=4, n_parameters=1)
    with pytest.warns(UserWarning, match=r"depends on the batch length.*cannot be compiled, engine='replay' runs it"):
        engine = make_engine(program, float64_cpu, float64_cpu.zeros(1), engine="compiled")
    engine.run(np.arange(10), np.empty((3, 0)))
    assert engine_facts(engine) == {"engine": "replay"} and engine.keys[0] == 4 + 4 + 2


# --- the same training -----------------------------------------------------------------------------------------------


@pytest.mark.in_turn(
    options=[
        {},
        {"accumulate": 3},
        {"dataset": labelled(weighted=True), "accumulate": 2},
        {"dataset": labelled(dtype=np.uint8)},
        {"shape": {"dropout": 0.3, "normalization": "batch"}, "batch_size": 7},
        {"batch_size": "all", "shuffle": False},
    ],
    dtype=["float64", "float32"],
)
def test_compiled_training_is_replayed_training(options, dtype):
    backend = xpnet.select_backend("cpu", dtype)
    (replayed, records, _), (compiled, found, optimizer) = (
        trained(backend, engine=engine, validation=labelled(9), **options) for engine in ("replay", "compiled")
    )
    assert found.column("engine") == ["compiled"] * 3 and records.column("engine") == ["replay"] * 3
    tolerance = 1e-11 if dtype == "float64" else 2e-5
    assert abs(compiled.owned - replayed.owned).max() <= tolerance * abs(replayed.owned).max()
    assert optimizer.steps_done == trained(backend, engine="replay", **options)[2].steps_done
    for one, other in zip(records, found, strict=True):
        for name in set(one) - set(NOT_OF_THE_RUN):
            assert other[name] == pytest.approx(one[name], rel=1e-3 if dtype == "float32" else 1e-9), name


def test_a_mapped_file_is_trained_block_by_block(float64_cpu, tmp_path, monkeypatch):
    monkeypatch.setattr(feed, "BLOCK_BYTES", 10 * 72)
    monkeypatch.setattr(feed, "POOL_BYTES", 2 * 10 * 72)
    rng = np.random.default_rng(0)
    np.save(tmp_path / "rows.npy", rng.random((103, 6)))
    rows = np.load(tmp_path / "rows.npy", mmap_mode="r")
    dataset = Dataset.from_labels(rows.T, rng.integers(0, 3, 103), 3, rng.random(103) + 0.1)
    first, second = (trained(float64_cpu, dataset, engine=engine)[0].owned for engine in ("replay", "compiled"))
    np.testing.assert_allclose(second, first, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("engine", ["replay", "compiled"])
def test_chunks_and_the_cache_change_no_bit(float64_cpu, engine, tmp_path, monkeypatch):
    class Chunks(Callback):
        def __init__(self, size):
            self.size = size

        def steps_ahead(self):
            return self.size

    monkeypatch.setenv("XPNET_CACHE", str(tmp_path))  # empty: the first run compiles, the others find its code
    options = {"dataset": labelled(53), "shape": {"dropout": 0.3}, "accumulate": 2, "engine": engine}
    found = []
    for size in (None, None, 1, 3, 7):
        native.kept.cache_clear()
        found.append(bits(trained(float64_cpu, callbacks=[Chunks(size)], **options)))
    first, *others = found
    assert all(other == first for other in others)
    assert bool(list(tmp_path.glob("*.code"))) == (engine == "compiled")


# --- ends ------------------------------------------------------------------------------------------------------------


def test_divergence_names_the_step_and_restores_the_last_good_weights(float64_cpu):
    rng = np.random.default_rng(0)
    dataset, kept, texts = Dataset(rng.standard_normal((6, 20)), rng.standard_normal(20)), {}, []

    class Keep(Callback):
        def on_epoch_end(self, record, network):
            kept["owned"] = network.owned.copy()

    for engine in ("replay", "compiled"):
        network = Network([6, 4, 1], loss="squared_error", backend=float64_cpu)
        with pytest.raises(TrainingDiverged) as error:
            xpnet.train(network, dataset, SGD(1e3), epochs=50, batch_size=4, engine=engine, callbacks=[Keep()])
        np.testing.assert_array_equal(network.owned, kept["owned"])
        texts.append(re.search(r"(at|after) step \d+ of epoch \d+", str(error.value))[0])
    assert texts[0] == texts[1]


def test_an_interrupt_leaves_a_usable_network(float64_cpu):
    ends = []

    class Interrupted(Callback):
        def on_chunk_end(self, epoch, step, loss):
            if epoch == 2:
                raise KeyboardInterrupt

        def on_train_end(self, network):
            ends.append(np.isfinite(network.owned).all())

    network, optimizer = Network([6, 4, 3], backend=float64_cpu), Adam()
    options = {"epochs": 3, "batch_size": 4, "engine": "compiled"}
    with pytest.raises(KeyboardInterrupt):
        xpnet.train(network, labelled(), optimizer, callbacks=[Interrupted()], **options)
    assert ends == [True] and optimizer.steps_done >= 7
    assert xpnet.train(network, labelled(), optimizer, **options)[-1]["engine"] == "compiled"


def test_ctrl_c_is_heard_between_chunks(ctrl_c, float64_cpu):
    """The signal comes while machine code runs, of a training that would take days; unheard, it ends in a minute."""

    class Begun(Callback):
        timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))

        def on_epoch_end(self, record, network):
            if record["epoch"] == 0:
                self.timer.start()

    network, optimizer = Network([6, 7, 3], backend=float64_cpu), SGD(1e-6)
    options = {"epochs": 10**8, "batch_size": 5, "engine": "compiled", "callbacks": [Begun(), Budget(seconds=60)]}
    with pytest.raises(KeyboardInterrupt):
        xpnet.train(network, labelled(2000), optimizer, **options)
    assert np.isfinite(network.owned).all()


INTERRUPTED = """
import threading
import numpy as np, xpnet
from xpnet.engines import blas
from xpnet.engines import choice as engines

engines.threads_for = lambda *counts: 3
rng, start, started = np.random.default_rng(0), threading.Thread.start, []

def interrupted(thread):
    start(thread)
    started.append(thread)
    if len(started) == 2:
        raise KeyboardInterrupt

threading.Thread.start = interrupted
network = xpnet.Network([6, 7, 3], backend=xpnet.select_backend("cpu"))
dataset = xpnet.Dataset.from_labels(rng.random((6, 200)), rng.integers(0, 3, 200), 3)
try:
    xpnet.train(network, dataset, xpnet.SGD(), epochs=3, batch_size=5, engine="compiled")
except KeyboardInterrupt:
    for thread in started:
        thread.join()
    print(np.isfinite(network.owned).all())
"""


@pytest.mark.full
def test_ctrl_c_while_threads_start_leaves_none_waiting():
    """In a process of its own: a thread that waits for ever would keep it from ending."""
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, timeout=300)
    assert (done.stdout, done.stderr, done.returncode) == ("True\n", "", 0)


# --- going on --------------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """The process ends here."""


class Kill(Callback):
    """Ends the run after 8 steps."""

    def steps_ahead(self):
        return 8

    def on_pause(self, moment):
        if moment().progress.step + 5 * (moment().progress.epoch - 1) >= 8:
            raise Killed


def killed(backend, path, **options):
    with pytest.raises(Killed):
        trained(backend, callbacks=[Checkpoint(path, steps=1), Kill()], **options)
    return load_checkpoint(path).fit["engine"]


@pytest.mark.parametrize(("engine", "epochs", "others"), [("replay", 2, 80), ("compiled", 80, 3)])
def test_a_run_goes_on_with_the_engine_that_it_had(float64_cpu, tmp_path, cheap, engine, epochs, others):
    """Also for a number of epochs for which "auto" would by itself take the other one."""
    path = tmp_path / "c"
    assert killed(float64_cpu, path, epochs=epochs) == engine
    whole = bits(trained(float64_cpu, epochs=others, engine=engine))
    assert {record["engine"] for record in whole[1]} == {engine}
    assert trained(float64_cpu, epochs=others)[1][-1]["engine"] != engine
    for asked in ("auto", engine):
        assert bits(trained(float64_cpu, epochs=others, engine=asked, resume=path)) == whole
    other = {"replay": "compiled", "compiled": "replay"}[engine]
    with pytest.raises(ValueError) as error:
        trained(float64_cpu, epochs=others, engine=other, resume=path)
    says(error, f"belongs to a run with engine {engine}, this one has engine {other}", "pass what that run had")


def test_without_llvmlite_a_compiled_run_does_not_go_on_otherwise(float64_cpu, tmp_path, monkeypatch):
    killed(float64_cpu, tmp_path / "c", engine="compiled")
    monkeypatch.setitem(sys.modules, "llvmlite", None)
    with pytest.raises(ImportError) as error:
        trained(float64_cpu, resume=tmp_path / "c")
    says(error, "the run to resume had engine='compiled'", "llvmlite", "pip install 'xpnet[jit]'")


def test_on_another_device_auto_chooses_anew(fake_gpu, tmp_path, cheap):
    cpu = xpnet.select_backend("cpu", "float32")
    assert killed(fake_gpu, tmp_path / "gpu") == "cuda"
    assert killed(cpu, tmp_path / "cpu", engine="compiled") == "compiled"
    assert trained(cpu, resume=tmp_path / "gpu", epochs=80)[1].column("engine")[-1] == "compiled"
    assert trained(fake_gpu, resume=tmp_path / "cpu")[1].column("engine") == ["compiled", "compiled", "cuda"]


# --- threads ---------------------------------------------------------------------------------------------------------


def test_the_threads_of_a_run_do_not_depend_on_others_beside_it(float64_cpu, monkeypatch):
    """Another compiled run may have limited BLAS to one thread meanwhile."""
    gemm = numpy_gemm(float64_cpu.dtype)
    program = Network([784, 300, 10], backend=float64_cpu).training_program(64, SGD(), False)
    before = gemm.threads()
    monkeypatch.setattr(thread_choice, "usable_cores", lambda: 2)
    try:
        gemm.set_threads(2)
        alone = threads_of("compiled", program, float64_cpu, 100), blas_threads(program, float64_cpu)
        with gemm.on_threads(1):
            beside = threads_of("compiled", program, float64_cpu, 100), blas_threads(program, float64_cpu)
        assert beside == alone == (2, 2) and threads_of("replay", program, float64_cpu, 100) is None
    finally:
        gemm.set_threads(before)


@pytest.mark.parametrize(
    ("sizes", "batch", "threads"),
    [
        ([784, 100, 10], 32, [1, 2, 2]),  # for 1, 8 and 100 steps a call
        ([784, 100, 200, 10], 128, [2, 2, 2]),
        ([64, 100, 10], 200, [1, 1, 1]),  # what the threads would read of each other takes longer than they gain
        ([20, 64, 64, 2], 256, [1, 1, 1]),
        ([1024, 2048, 2048, 10], 64, [1, 1, 1]),  # NumPy's products use both cores
    ],
)
def test_two_threads_run_a_step_that_gains_by_it(monkeypatch, sizes, batch, threads):
    backend = xpnet.select_backend("cpu", "float32")
    program = Network(sizes, backend=backend).training_program(batch, SGD(), False)
    gemm = numpy_gemm(backend.dtype)
    before = gemm.threads()
    try:
        gemm.set_threads(2)
        for cores, expected in ((2, threads), (1, [1, 1, 1])):  # one core is what a container's quota may leave
            monkeypatch.setattr(thread_choice, "usable_cores", lambda cores=cores: cores)
            assert [threads_of("compiled", program, backend, steps) for steps in (1, 8, 100)] == expected
        gemm.set_threads(1)
        monkeypatch.setattr(thread_choice, "usable_cores", lambda: 2)
        assert threads_of("compiled", program, backend, 100) == 1
    finally:
        gemm.set_threads(before)


def test_the_steps_of_a_call_decide_on_threads(float64_cpu, monkeypatch):
    """Epochs by themselves are calls of their own; those that nobody looks at are run ahead."""

    class Looks(Callback):
        pass

    asked = []
    monkeypatch.setattr(engines, "threads_for", lambda program, backend, steps: asked.append(steps) or 1)
    for callbacks in ([], [Looks()]):
        trained(float64_cpu, engine="compiled", epochs=3, callbacks=callbacks)
    assert asked == [15, 5]


@pytest.mark.in_turn(shape=[([784, 100, 10], 1), ([784, 500, 10], 2)], engine=["replay", "compiled"])
def test_threads_of_blas_follow_the_largest_product(monkeypatch, shape, engine):
    """Of 5 and of 25 million operations."""
    sizes, threads = shape
    rng, found = np.random.default_rng(0), []
    dataset = Dataset.from_labels(rng.random((784, 64), dtype=np.float32), rng.integers(0, 10, 64), 10)
    network = Network(sizes, backend=xpnet.select_backend("cpu", "float32"), seed=1)
    gemm = numpy_gemm(network.backend.dtype)
    before = gemm.threads()
    products_on = blas.products_on
    monkeypatch.setattr(engines, "threads_for", lambda *counts: 1)

    @contextmanager
    def within(gemm, n):
        with products_on(gemm, n):
            found.append(None if gemm is None else gemm.threads())
            yield

    monkeypatch.setattr("xpnet.engines.replay.products_on", within)
    monkeypatch.setattr("xpnet.engines.llvm.calling.products_on", within)
    try:
        gemm.set_threads(2)
        for options, expected in (({}, threads), ({"threads": 1}, 1), ({"threads": 2}, 2)):
            found.clear()
            xpnet.train(network, dataset, SGD(), epochs=1, batch_size=32, engine=engine, **options)
            calls_blas = engine == "replay" or (threads == 2 and not options)
            assert found[1] in ((expected,) if calls_blas else (expected, None))  # [0]: of the untrained network
            assert gemm.threads() == 2
    finally:
        gemm.set_threads(before)


def test_threads_that_a_user_asks_for(float64_cpu, fake_gpu, tmp_path, monkeypatch):
    assert trained(float64_cpu, engine="compiled", threads=3)[1].column("threads") == [3] * 3
    assert killed(float64_cpu, tmp_path / "c", engine="compiled", threads=3) == "compiled"
    whole = bits(trained(float64_cpu, engine="compiled", threads=3))
    assert bits(trained(float64_cpu, resume=tmp_path / "c")) == whole
    assert bits(trained(float64_cpu, resume=tmp_path / "c", threads=3)) == whole
    with refusal(ValueError, "belongs to a run with threads 3", "this one has threads 2", "pass what that run had"):
        trained(float64_cpu, resume=tmp_path / "c", threads=2)
    for threads in (0, -1, 2.0, "2", True):
        with pytest.raises((TypeError, ValueError), match="threads is"):
            trained(float64_cpu, threads=threads)
    with refusal(ValueError, "threads is 257", "it must be 256 at most", "threads="):
        trained(float64_cpu, threads=257)
    with refusal(ValueError, "threads is 2", "the steps run on the cuda by cuda", "needed is the CPU", "leave threads"):
        trained(fake_gpu, threads=2)
    monkeypatch.setattr(engines, "numpy_gemm", lambda dtype: None)
    assert trained(float64_cpu, engine="compiled", threads=2)[1][-1]["threads"] == 2
    with refusal(ValueError, "threads is 2 and replay", "whose library is not OpenBLAS", "set its threads", "compiled"):
        trained(float64_cpu, engine="replay", threads=2)


def test_blas_is_left_alone_where_no_product_of_it_is_called(float64_cpu, monkeypatch):
    limited = []
    monkeypatch.setattr("xpnet.engines.llvm.calling.products_on", lambda *asked: limited.append(asked) or nullcontext())
    monkeypatch.setattr(engines, "threads_for", lambda *counts: 2)
    assert trained(float64_cpu, engine="compiled")[1][-1]["threads"] == 2
    assert set(limited) == {(None, 1)}


@pytest.mark.parametrize(("first", "then"), [(2, 1), (1, 2)])
def test_a_run_goes_on_with_the_threads_that_it_had(float64_cpu, tmp_path, monkeypatch, first, then):
    path = tmp_path / "c"
    # Sums over long rows, which two threads add up in parts.
    options = {"engine": "compiled", "batch_size": 23, "dataset": labelled(400), "epochs": 3}
    monkeypatch.setattr(engines, "threads_for", lambda *counts: first)
    assert killed(float64_cpu, path, **options) == "compiled"
    whole = bits(trained(float64_cpu, **options))
    monkeypatch.setattr(engines, "threads_for", lambda *counts: then)
    assert trained(float64_cpu, **options)[1][-1]["threads"] == then
    for asked in ("auto", "compiled"):
        assert bits(trained(float64_cpu, **options | {"engine": asked}, resume=path)) == whole
    assert {record["threads"] for record in whole[1]} == {first}


def test_another_number_of_blas_threads_is_said(float64_cpu, tmp_path, monkeypatch):
    path = tmp_path / "c"
    monkeypatch.setattr("xpnet.training.options.blas_threads", lambda *counts: 2)
    killed(float64_cpu, path, engine="replay")
    monkeypatch.setattr("xpnet.training.options.blas_threads", lambda *counts: 1)
    with pytest.warns(UserWarning, match="threads of BLAS") as found:
        trained(float64_cpu, resume=path)
    says(found[0].message, "had 2 threads of BLAS", "there are 1 now", "set OPENBLAS_NUM_THREADS=2")
