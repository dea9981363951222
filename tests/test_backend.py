"""Which device is chosen, why, and what is said for each way in which CuPy can be broken."""

from __future__ import annotations

import dataclasses
import pickle
import subprocess
import sys
from types import SimpleNamespace

import fakecupy
import numpy as np
import pytest
from refusals import refusal, says

import xpnet
from xpnet import BackendUnavailable, select_backend
from xpnet.backend import Backend

EXTRAS = ["xpnet[cuda12]", "xpnet[cuda13]", "CuPy 14 or newer"]


def cupy_like(version="14.2.0", count=1, **replaced):
    """A stand-in with what the probe uses, on NumPy. An exception as a value is raised when it is called."""

    def answer(value):
        def call(*args):
            if isinstance(value, Exception):
                raise value
            return value

        return call

    runtime = SimpleNamespace(
        getDeviceCount=answer(count), getDevice=answer(0), getDeviceProperties=answer({"name": b"Stand-in GPU"})
    )
    names = {"__version__": version, "ones": np.ones, "asarray": np.asarray, "cuda": SimpleNamespace(runtime=runtime)}
    return SimpleNamespace(**{**names, **replaced})


class CUDARuntimeError(RuntimeError):
    """Named as CuPy's, whose texts these are."""


class DynamicLibNotFoundError(RuntimeError):
    pass


def failing_ones(error):
    def ones(*args, **keywords):
        raise error

    return ones


def ones_of(factor):
    return lambda *args, **keywords: factor * np.ones(*args, **keywords)


# Name -> (what `import cupy` finds: nothing, the text of a file, an empty folder, or a stand-in; parts of the reason).
BROKEN = {
    "absent": (None, ["CuPy is not installed", *EXTRAS]),
    "a library is missing": (
        "raise OSError('libcublas.so.12: cannot open shared object file')",
        ["cannot be imported", "OSError: libcublas.so.12", *EXTRAS],
    ),
    "one of its own parts is missing": (
        "import cupy_backends_that_are_not_there",
        ["cannot be imported", "cupy_backends_that_are_not_there", *EXTRAS],
    ),
    "made for another NumPy": (
        "raise AttributeError('_ARRAY_API not found')",
        ["cannot be imported", "AttributeError: _ARRAY_API not found", *EXTRAS],
    ),
    # CuPy frames its text: the cause is its last line but one, and the first line is a row of signs.
    "cupy's own diagnosis": (
        "raise ImportError('''\n================\nFailed to import CuPy.\n\nOriginal error:\n"
        "  ImportError: libcudart.so.12: cannot open\n================\n''')",
        ["cannot be imported", "libcudart.so.12", *EXTRAS],
    ),
    "too old": (cupy_like("13.6.0"), ["CuPy is 13.6.0", "xpnet needs 14 or newer", *EXTRAS]),
    "much too old": (cupy_like("9.0.0"), ["CuPy is 9.0.0", *EXTRAS]),
    # such a folder in the working directory imports as an empty package
    "an empty folder called cupy": ("", ["is not CuPy", "rename it", *EXTRAS]),
    "no driver": (
        cupy_like(count=CUDARuntimeError("cudaErrorInsufficientDriver: CUDA driver version is insufficient")),
        ["driver does not answer", "cudaErrorInsufficientDriver", "update the NVIDIA driver", "device='cpu'"],
    ),
    "forked from a process with CUDA": (
        cupy_like(count=CUDARuntimeError("cudaErrorInitializationError: initialization error")),
        ["forked from one that uses it", "cudaErrorInitializationError", "start processes by 'spawn'", "device='cpu'"],
    ),
    "no GPU": (cupy_like(count=0), ["no CUDA GPU is visible", "nvidia-smi", "CUDA_VISIBLE_DEVICES", "device='cpu'"]),
    # With a driver and CUDA_VISIBLE_DEVICES="" the runtime does not return 0, it fails with error 100.
    "no GPU, as CUDA says it": (
        cupy_like(count=CUDARuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected")),
        ["no CUDA GPU is visible", "nvidia-smi", "CUDA_VISIBLE_DEVICES", "device='cpu'"],
    ),
    "no NVRTC": (
        cupy_like(ones=failing_ones(DynamicLibNotFoundError('Failure finding "libnvrtc.so.12": No such file\n'))),
        ["NVRTC is missing", "libnvrtc.so.12", *EXTRAS],
    ),
    "no memory": (
        cupy_like(ones=failing_ones(CUDARuntimeError("cudaErrorMemoryAllocation: out of memory"))),
        ["sees a GPU but cannot compute", "out of memory", "device='cpu'"],
    ),
    "an error without a text": (
        cupy_like(ones=failing_ones(MemoryError())),
        ["sees a GPU but cannot compute", "MemoryError", "device='cpu'"],
    ),
    "a wrong result": (cupy_like(ones=ones_of(2)), ["computed 40.0", "instead of 12.0", "driver", "device='cpu'"]),
    "a result that is no number": (cupy_like(ones=ones_of(np.nan)), ["computed nan", "instead of 12.0"]),
}


@pytest.fixture(params=BROKEN)
def broken(request, monkeypatch, tmp_path):
    """Put a broken CuPy in the way; gives the parts that the reason must have."""
    found, parts = BROKEN[request.param]
    if isinstance(found, str):
        if found:
            (tmp_path / "cupy.py").write_text(found, encoding="utf-8")
        else:
            (tmp_path / "cupy").mkdir()
        monkeypatch.setitem(sys.modules, "cupy", None)  # so that what the file leaves there is taken away afterwards
        del sys.modules["cupy"]
        # The only place: an installed CuPy would win over an empty folder before it.
        monkeypatch.setattr(sys, "path", [str(tmp_path)])
    else:
        monkeypatch.setitem(sys.modules, "cupy", found)
    return parts


def test_auto_falls_back_to_the_cpu_with_the_reason(broken):
    backend = select_backend("auto", dtype="float64")
    assert (backend.name, backend.device, backend.xp, backend.dtype) == ("numpy", "cpu", np, np.float64)
    says(backend.reason, *broken)
    assert "\n" not in backend.reason and backend.reason in backend.describe()


def test_cuda_raises_with_cause_and_cure(broken):
    with pytest.raises(BackendUnavailable) as error:
        select_backend("cuda")
    says(error, *broken)
    assert "\n" not in str(error.value)


def test_the_library_error_is_the_cause(monkeypatch):
    cause = CUDARuntimeError("cudaErrorInsufficientDriver")
    monkeypatch.setitem(sys.modules, "cupy", cupy_like(count=cause))
    with pytest.raises(BackendUnavailable) as error:
        select_backend("cuda")
    assert error.value.__cause__ is cause


def test_a_gpu_that_answers_is_taken(monkeypatch):
    cupy = cupy_like()
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    for device in ("auto", "cuda"):
        backend = select_backend(device, dtype="float32")
        assert (backend.name, backend.device, backend.dtype) == ("cupy", "cuda", np.float32)
        assert backend.xp is cupy
        assert backend.reason == "Stand-in GPU answered the probe"
        assert backend.describe() == "cuda (cupy 14.2.0, float32): Stand-in GPU answered the probe"


def test_a_later_major_version_is_taken(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", cupy_like("15.0.0rc1"))
    assert select_backend("cuda").name == "cupy"


def test_the_cpu_is_chosen_without_a_look_at_cupy(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    backend = select_backend("cpu")
    assert (backend.name, backend.reason) == ("numpy", "device is cpu")
    assert backend.describe() == f"cpu (numpy {np.__version__}, float32): device is cpu"


@pytest.mark.parametrize(("value", "reason"), [("cpu", "XPNET_DEVICE is cpu"), (" CPU ", "XPNET_DEVICE is cpu")])
def test_the_environment_gives_the_default(monkeypatch, value, reason):
    monkeypatch.setenv("XPNET_DEVICE", value)
    monkeypatch.setitem(sys.modules, "cupy", cupy_like())
    assert select_backend().reason == reason
    assert select_backend("cuda").device == "cuda"  # an argument wins


@pytest.mark.parametrize("value", ["", " "])
def test_an_empty_environment_means_auto(monkeypatch, value):
    monkeypatch.setenv("XPNET_DEVICE", value)
    monkeypatch.setitem(sys.modules, "cupy", cupy_like())
    assert select_backend().device == "cuda"


def test_the_environment_can_ask_for_cuda(monkeypatch):
    monkeypatch.setenv("XPNET_DEVICE", "cuda")
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(BackendUnavailable, match="CuPy is not installed"):
        select_backend()


@pytest.mark.parametrize(
    ("environment", "arguments", "parts"),
    [
        (None, {"device": "gpu"}, ["device is 'gpu'", "'auto', 'cpu', 'cuda'"]),
        (None, {"device": "CUDA"}, ["device is 'CUDA'", "did you mean 'cuda'?"]),
        (None, {"device": 0}, ["device is 0", "'auto', 'cpu', 'cuda'"]),
        ("cdua", {}, ["XPNET_DEVICE is 'cdua'", "did you mean 'cuda'?"]),
        (None, {"device": "cpu", "dtype": "float16"}, ["dtype is 'float16'", "'float32', 'float64'"]),
        (None, {"device": "cpu", "dtype": "double64"}, ["dtype is 'double64'", "'float32', 'float64'"]),
        (None, {"device": "cpu", "dtype": int}, ["dtype is 'int64'", "'float32', 'float64'"]),
        # np.dtype(None) is float64, which nobody asked for
        (None, {"device": "cpu", "dtype": None}, ["dtype is ", "None", "'float32', 'float64'"]),
    ],
)
def test_unknown_values_are_refused(monkeypatch, environment, arguments, parts):
    if environment is not None:
        monkeypatch.setenv("XPNET_DEVICE", environment)
    with pytest.raises(ValueError) as error:
        select_backend(**arguments)
    says(error, *parts)


@pytest.mark.parametrize("dtype", ["float32", np.float32, np.dtype("float32"), ">f4"])
def test_float_types(dtype):
    found = select_backend("cpu", dtype).dtype
    assert found == np.float32 and isinstance(found, np.dtype) and found.isnative
    assert select_backend("cpu").dtype == np.float32
    assert select_backend("cpu", float).dtype == np.float64


def test_a_backend_is_a_value():
    backend = select_backend("cpu")
    with pytest.raises(dataclasses.FrozenInstanceError):
        backend.device = "cuda"
    assert backend == select_backend("cpu") and backend != select_backend("cpu", "float64")
    assert hash(backend) == hash(select_backend("cpu"))


def test_repr_shows_no_module():
    assert "<module" not in repr(select_backend("cpu"))


# Arrays


@pytest.mark.parametrize("size", [1, 63, 64, 1000])
@pytest.mark.parametrize("dtype", [None, np.float32, np.float64, np.uint32])
def test_zeros_start_on_64_bytes(backend, size, dtype):
    vectors = [backend.zeros(size, dtype) for _ in range(5)]  # one alone may be aligned by chance
    for vector in vectors:
        assert vector.shape == (size,)
        assert vector.dtype == (backend.dtype if dtype is None else dtype)
        assert backend.owns(vector) and not backend.to_host(vector).any()
        if backend.device == "cpu":
            assert vector.ctypes.data % 64 == 0 and vector.flags.c_contiguous and vector.flags.writeable


def test_to_device_and_back(backend):
    array = np.arange(6.0).reshape(2, 3)
    moved = backend.to_device(array)
    assert backend.owns(moved) and moved.dtype == backend.dtype and moved.shape == (2, 3)
    back = backend.to_host(moved)
    assert type(back) is np.ndarray
    np.testing.assert_array_equal(back, array)
    assert backend.to_device(array, np.uint8).dtype == np.uint8
    assert backend.to_device([1, 2]).dtype == backend.dtype


def test_what_is_there_already_is_not_copied(float64_cpu, fake_gpu):
    for backend in (float64_cpu, fake_gpu):
        moved = backend.to_device(np.arange(3.0))
        assert backend.to_device(moved) is moved
    array = np.arange(3.0)
    assert float64_cpu.to_device(array) is array and float64_cpu.to_host(array) is array


def test_owns_tells_a_library_from_another(backend):
    assert backend.owns(backend.zeros(1))
    assert not backend.owns([1.0]) and not backend.owns(1.0)
    assert backend.owns(np.zeros(1)) == (backend.device == "cpu")


def test_synchronize_waits_on_every_device(backend):
    assert backend.synchronize() is None


def test_synchronize_asks_the_current_stream():
    asked = []
    stream = SimpleNamespace(synchronize=lambda: asked.append("stream"))
    xp = SimpleNamespace(cuda=SimpleNamespace(get_current_stream=lambda: stream))
    Backend("cupy", "cuda", xp, np.dtype("float32")).synchronize()
    assert asked == ["stream"]


# Imports


def test_import_xpnet_loads_nothing_heavy():
    """`import xpnet` costs what `import numpy` costs, and no CUDA library is touched."""
    heavy = {"cupy", "tqdm", "safetensors", "pooch", "matplotlib", "pandas", "sklearn", "numba", "requests", "scipy"}
    code = f"import sys, xpnet; print(sorted({heavy} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_public_names():
    assert xpnet.select_backend is select_backend and xpnet.Backend is Backend
    assert issubclass(xpnet.BackendUnavailable, RuntimeError)


# --- more than one GPU, played by fakecupy ---------------------------------------------------------------------------


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", fakecupy)


def test_a_gpu_by_its_number_is_taken_and_told(two_gpus):
    first = select_backend("cuda")
    second = select_backend("cuda:1")
    assert (first.number, second.number) == (0, 1) and second.device == "cuda"
    assert select_backend("cuda") == second  # the current one of this thread from now on
    assert first.describe().startswith("cuda (cupy 14.2.0, float32): ")
    assert second.describe().startswith("cuda:1 (cupy 14.2.0, float32): ")
    assert second.is_on("cuda") and second.is_on("cuda:1") and not second.is_on("cuda:0") and not second.is_on("cpu")


def test_a_pickle_goes_back_to_the_gpu_of_its_number(two_gpus):
    first, second = select_backend("cuda:0"), select_backend("cuda:1")
    assert pickle.loads(pickle.dumps(first)).number == 0 and int(fakecupy.cuda.runtime.getDevice()) == 0
    found = pickle.loads(pickle.dumps(second))
    assert found == second and found.number == 1 and int(fakecupy.cuda.runtime.getDevice()) == 1
    found.check_here(X=found.zeros(3))


def test_a_gpu_that_is_not_there_is_refused(two_gpus):
    with refusal(
        BackendUnavailable, "device is cuda:2", "visible are cuda:0 to cuda:1", "choose one of these", "VISIBLE_DEVICES"
    ):
        select_backend("cuda:2")
    for device in ("cuda:", "cuda:x", "cuda:-1", "cpu:0"):
        with pytest.raises(ValueError, match=f"device is '{device}', choose one of 'auto', 'cpu', 'cuda'"):
            select_backend(device)


def test_arrays_of_another_gpu_are_refused_by_name(two_gpus):
    first = select_backend("cuda:0")
    X = first.to_device(np.ones((4, 2)))
    second = select_backend("cuda:1")
    network = xpnet.Network([4, 3], backend=second)
    with refusal(ValueError, "X is on cuda:0", "the network is on cuda:1", "pass network.backend.to_device(X)"):
        network.predict(X)
    assert network.predict(second.to_device(X)).shape == (3, 2)


def test_a_network_computes_on_its_own_gpu_alone(two_gpus):
    """CuPy launches on the current one, whichever the arrays are on."""
    network = xpnet.Network([4, 3], backend=select_backend("cuda:1"))
    X = network.backend.to_device(np.ones((4, 2)))
    select_backend("cuda:0")
    parts = ("GPU in this thread is cuda:0", "the network is on cuda:1", "call cupy.cuda.Device(1).use() first")
    with refusal(ValueError, *parts):
        network.predict(X)
    with refusal(ValueError, *parts):
        xpnet.train(network, xpnet.Dataset.from_labels(np.ones((4, 6)), [0, 1, 2] * 2), xpnet.SGD(), epochs=1)
    fakecupy.cuda.Device(1).use()
    assert network.predict(X).shape == (3, 2)
