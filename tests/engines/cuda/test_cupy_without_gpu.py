"""CuPy itself, without a GPU: what it makes of the arrays that engines bind, and NVRTC of the generated text.

Arrays of the real CuPy are laid over host memory. Whatever would launch, copy or allocate fails there, so nothing is
computed; but layout, overlap and arguments are judged by CuPy's own functions. NVRTC compiles without a device.
"""

from __future__ import annotations

import re
import struct
from dataclasses import replace
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import fakecuda
import fakecupy
import hostcuda
import numpy as np
import pytest
from features import FEATURES, OPTIMIZERS, OPTIONS, network_of, program_of

import xpnet
from xpnet import select_backend
from xpnet.backend import Backend
from xpnet.engines.cuda.chunk import chunk_source
from xpnet.engines.cuda.engine import Cuda
from xpnet.engines.cuda.launching import COOPERATIVE_PARAMETERS, LAUNCH_PARAMETERS, PRODUCT_PARAMETERS, Prebound, takes
from xpnet.engines.cuda.text import Data, cuda_source
from xpnet.engines.replay import Replay
from xpnet.kernels.activations import ACTIVATIONS
from xpnet.network.losses import LOSSES
from xpnet.network.programs import evaluation_program, inference_program
from xpnet.program.calls import WORDS

cupy = pytest.importorskip("cupy", "14", reason="CuPy is not installed; the extra gpu-check brings it")
linalg = pytest.importorskip("cupy._core._routines_linalg", reason="this CuPy has its predicates elsewhere")
memory_range = pytest.importorskip("cupy._core._memory_range", reason="this CuPy has its predicates elsewhere")

# Where a GPU answers, nothing that it could be asked to touch may lie in host memory.
host_memory = pytest.mark.skipif(cupy.is_available(), reason="there is a GPU; these tests ask what CuPy does without")
BATCHES = (32, 7, 2, 1)
# The helpers before the kernels are not all needed by each text.
QUIET = ("-diag-suppress=177",)


def ghost(host):
    """An array of CuPy over the memory of a NumPy array."""
    memory = cupy.cuda.memory.UnownedMemory(host.ctypes.data, host.nbytes, host, device_id=0)
    return cupy.ndarray(host.shape, host.dtype, memptr=cupy.cuda.memory.MemoryPointer(memory, 0))


class Kernel:
    """A kernel that is bound and never launched."""

    def __init__(self, text, name):
        self.kernel, self.c_types = SimpleNamespace(ptr=id(self)), hostcuda.c_types(text, name)

    def __call__(self, grid, block, args):
        raise AssertionError("nothing is launched here")


class Module:
    """In the place of `cupy.RawModule`, whose `get_function` compiles and loads into a device."""

    def __init__(self, **keywords):
        cupy.RawModule(**keywords)  # takes these keywords, and does nothing yet
        self._text = keywords["code"]

    def get_function(self, name):
        return Kernel(self._text, name)


class Ghosts(Backend):
    """CuPy as the engines see it, except that its memory is the host's; the bindings are a fake's: none loads here."""

    def __init__(self, dtype):
        names = {name: getattr(cupy, name) for name in (*WORDS, "ndarray")} | {"cuda": fakecupy.cuda}
        super().__init__("cupy", "cuda", SimpleNamespace(**names, RawModule=Module), np.dtype(dtype))

    def zeros(self, size, dtype=None):
        return ghost(np.zeros(size, self.dtype if dtype is None else dtype))


def bind(Engine, program, dtype, batches):
    """An engine of CuPy, and its steps at these batch sizes, as it binds them."""
    backend = Ghosts(dtype)
    engine = Engine(replace(program, constants=()), backend, backend.zeros(program.n_owned))  # a constant is uploaded
    for batch in batches:
        if batch <= program.capacity:
            yield engine, batch, engine.at(batch)


def programs_of(feature, capacity):
    """All Programs of a network: of training, evaluation and inference, and of a forward pass as in training."""
    network, weighted = network_of(feature, select_backend("cpu")), feature.get("weighted", False)
    architecture = network.architecture
    yield program_of(feature, network, capacity)
    yield evaluation_program(architecture, capacity, weighted, with_accuracy=True)
    for kind, seed in (("forward", None), ("predict", None), ("activations", 0)):
        yield inference_program(architecture, capacity, kind, seed)


def copied_by_product(a, b, out):
    """What CuPy's `dot` would refuse or copy, in words; asked of the functions that it asks itself."""
    found = []
    if not out.flags.c_contiguous or out.shape != (a.shape[0], b.shape[1]):
        found.append(f"out is {out.shape}, strides {out.strides}")
    if not a.dtype == b.dtype == out.dtype:
        found.append(f"types {a.dtype}, {b.dtype}, {out.dtype}")
    for name, matrix, transposed in (("left", a.T, 0), ("right", b, 1)):  # as `dot` hands them on
        try:
            used, _, _ = linalg._mat_to_cublas_contiguous(matrix, transposed)
        except RuntimeError:  # it tried to allocate
            used = None
        if used is not matrix:
            found.append(f"the {name} operand {matrix.shape}, strides {matrix.strides}, is copied")
        if memory_range.may_share_bounds(out, matrix):
            found.append(f"out overlaps the {name} operand")
    return found


def copied_by_elementwise(inputs, out, dtype):
    """What an elementwise function or a reduction would copy, or compute in another type."""
    arrays = [item for item in inputs if isinstance(item, cupy.ndarray)]
    found = [f"{item!r} has a type of its own" for item in inputs if isinstance(item, np.generic | np.ndarray)]
    if not all(array.flags.c_contiguous for array in (*arrays, out)):
        found.append("an operand is not C-contiguous")
    if any(array is not out and memory_range.may_share_bounds(array, out) for array in arrays):
        found.append("out overlaps an operand that is another object")
    if {array.dtype for array in (*arrays, out)} - {dtype, np.dtype(np.uint32)}:
        found.append("an operand is of another type")
    return found


def check_launch(call, kernel, arguments):
    """What a kernel is given must be what its parameters say: CuPy passes each as it is, and the driver knows none."""
    assert [type(cell) for cell in arguments.cells] == kernel.c_types
    for cell, value in zip(arguments.cells, arguments.values, strict=True):
        is_array = isinstance(value, cupy.ndarray)
        assert cell.value == (value.data.ptr if is_array else value) and (not is_array or value.flags.c_contiguous)
    function, *grid_and_block, shared, stream, packed, extra = call.args
    assert (function, packed) == (kernel.kernel.ptr, arguments.address)
    assert (shared, stream, extra) == (0, fakecuda.STREAM, 0)
    assert grid_and_block[1:3] == grid_and_block[4:] == [1, 1]
    grid, block = grid_and_block[:1], grid_and_block[3:4]
    assert 0 < grid[0] < 2**31 and 0 < block[0] <= 1024  # CuPy casts them to int
    with pytest.raises(RuntimeError):  # not a TypeError: CuPy took them all, and then asked for the device
        launch(tuple(grid), tuple(block), tuple(arguments.values))


def check_product(call, left, right, out):
    """What cuBLAS is given must be what CuPy's own `dot` would give it, which swaps the two."""
    assert copied_by_product(left, right, out) == [] and out.size > 1  # one number CuPy adds up in temporary arrays
    names = dict(zip(PRODUCT_PARAMETERS.split(), call.args, strict=True))
    pointers = [names[name] for name in "ABC"]
    assert pointers == [array.data.ptr for array in (right, left, out)]
    (m, k), n = left.shape, right.shape[1]
    assert [names[name] for name in ("m", "n", "k", "ldc")] == [n, m, k, n]
    used = {"a": linalg._mat_to_cublas_contiguous(right, 1), "b": linalg._mat_to_cublas_contiguous(left.T, 0)}
    for name, (matrix, transposed, lead) in used.items():
        if min(matrix.shape) > 1:  # else it lies both ways
            assert (names[f"trans{name}"], names[f"ld{name}"]) == (transposed, lead)


def launch(grid, block, arguments):
    """Hand arguments to CuPy's own launch, of a function that is in no module."""
    function = cupy.cuda.function.Function
    function.__new__(function)(grid, block, arguments, stream=SimpleNamespace(ptr=0))


# The arrays that engines bind


def bound_steps(name, Engine, dtype):
    """Every engine of a feature's Programs, with its steps at some batch sizes."""
    is_batch_norm = FEATURES[name].get("normalization") == "batch"  # needs two samples
    for capacity in (32,) if is_batch_norm else (32, 1):
        for program in programs_of(FEATURES[name], capacity):
            yield from bind(Engine, program, dtype, BATCHES[:3] if is_batch_norm else BATCHES)


@host_memory
@pytest.mark.parametrize("name", FEATURES)
def test_cupy_uses_every_operand_without_a_copy(name):
    n_products = 0
    for _, _, step in bound_steps(name, Replay, "float32"):
        for call in (*step.calls, *step.update):
            if call.func.__name__ == "dot":
                b, out = call.args
                assert copied_by_product(call.func.__self__, b, out) == []
                n_products += 1
            else:
                assert copied_by_elementwise(call.args, call.keywords["out"], np.dtype("float32")) == []
    assert n_products


@host_memory
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", FEATURES)
def test_prebound_launches_are_given_what_cupy_would_give(name, dtype):
    n_products = 0
    for engine, batch, step in bound_steps(name, Cuda, dtype):
        assert type(engine._launcher) is Prebound
        engine.memory.forget_arrays()
        program, kernels = engine.memory.at(batch), iter(step.kept)
        products = iter([call for call in program.calls if call.word == "matmul" and call.out.buffer.size > 1])
        for call in (*step.calls, *step.update):
            if call.func.__name__ == "launchKernel":
                check_launch(call, *next(kernels))
            else:
                said = next(products)
                check_product(call, *map(engine.memory.array, (*said.operands, said.out)))
                n_products += 1
        assert not list(kernels) and not list(products)
    assert n_products


def test_the_bindings_are_those_of_cupy():
    """By the docstrings that Cython writes, of cuBLAS's in the file: loading it needs cuBLAS."""
    launch_kernel, gemm = fakecupy.cuda.driver.launchKernel, fakecupy.cuda.cublas.gemmEx
    assert cupy.cuda.driver.launchKernel.__doc__.splitlines()[0] == launch_kernel.__doc__
    library = Path(find_spec("cupy_backends.cuda.libs.cublas").origin).read_bytes()
    assert gemm.__doc__.encode() in library
    assert takes(cupy.cuda.driver.launchCooperativeKernel, COOPERATIVE_PARAMETERS)
    assert hasattr(cupy.cuda.runtime, "cudaDevAttrCooperativeLaunch")
    assert takes(launch_kernel, LAUNCH_PARAMETERS) and takes(gemm, PRODUCT_PARAMETERS)
    assert not takes(gemm, LAUNCH_PARAMETERS)
    for name in ("CUBLAS_COMPUTE_32F_FAST_TF32", "CUBLAS_COMPUTE_64F", "CUBLAS_GEMM_DEFAULT", "CUBLAS_OP_T"):
        assert re.search(rf"\b{name}\b".encode(), library), name
    runtime = cupy.cuda.runtime
    assert (runtime.CUDA_R_32F, runtime.CUDA_R_64F) == (
        fakecupy.cuda.runtime.CUDA_R_32F,
        fakecupy.cuda.runtime.CUDA_R_64F,
    )
    assert callable(cupy.cuda.device.get_cublas_handle) and hasattr(cupy.cuda.function.Function, "ptr")


@host_memory
def test_what_cupy_would_copy_is_found():
    """The judges above, before operands that are known to be copied."""
    memory = ghost(np.zeros(64, np.float32))
    a, b, out = memory[:6].reshape(2, 3), memory[16:28].reshape(3, 4), memory[32:40].reshape(2, 4)
    assert copied_by_product(a, b, out) == []
    assert copied_by_product(a, memory[16:28].reshape(4, 3).T, out) == []
    assert copied_by_product(a, memory[16:34].reshape(3, 6)[:, :4], memory[40:48].reshape(2, 4)) == [
        "the right operand (3, 4), strides (24, 4), is copied"
    ]
    assert copied_by_product(memory[:12].reshape(2, 6)[:, :3], b, out)[0].startswith("the left operand")
    assert copied_by_product(a, b, memory[32:40].reshape(4, 2).T)[0].startswith("out is")
    assert copied_by_product(a, b, memory[4:12].reshape(2, 4)) == ["out overlaps the left operand"]
    assert copied_by_product(a, b, ghost(np.zeros((2, 4))))[0].startswith("types")
    dtype = np.dtype("float32")
    assert copied_by_elementwise([a, 2.0], a, dtype) == []
    assert copied_by_elementwise([a, 2.0], memory[:6].reshape(2, 3), dtype) != []
    assert copied_by_elementwise([b.T], b.T, dtype) != []
    assert copied_by_elementwise([a, np.float64(2)], a, dtype) != []
    assert copied_by_elementwise([ghost(np.zeros((2, 3)))], a, dtype) != []


@host_memory
def test_a_launch_refuses_what_is_no_argument():
    a = ghost(np.zeros(4, np.float32))
    for refused in ((([1], (1,), (a,))), ((1,), [1], (a,)), ((1,), (1,), ([1.0],)), ((1,), (1,), (np.ones(2),))):
        with pytest.raises(TypeError):
            launch(*refused)


# The generated text


def covering():
    """Every activation, loss, optimizer and option at least once; of all else, every pair."""
    names, one_output = list(LOSSES), ["squared_error", "huber", "sigmoid_cross_entropy", "hinge"]
    for i, activation in enumerate(name for name in ACTIVATIONS if name != "log_softmax"):
        loss = names[i] if i < len(names) else one_output[i % 4]
        feature = {
            "activation": activation,
            "loss": loss,
            "output": LOSSES[loss]().output or "identity",
            "outputs": 3 if i < len(names) else 1,
            "optimizer": OPTIMIZERS[i % len(OPTIMIZERS)],
            "options": dict(list(OPTIONS.items())[i % 3 :: 2]) if i % 4 else {},
            "normalization": (None, "batch", "layer")[i % 3],
            "dropout": (None, 0.25)[i % 2],
            "weighted": i % 4 in (1, 2),
            "uint8": i % 5 in (0, 3),
            "accumulate": 1 + i // 2 % 2,
            "hidden": ((7, 5), (60, 20))[i // 3 % 2],
        }
        yield pytest.param(feature, i, id=f"{activation}, {loss}")


def compile_text(text, architecture):
    """Compile a text with NVRTC as CuPy does; returns machine code, or fails with NVRTC's log."""
    nvrtc = cupy.cuda.nvrtc
    program = nvrtc.createProgram(text, "generated.cu", (), ())
    try:
        nvrtc.compileProgram(program, (f"-arch={architecture}", *hostcuda.NVRTC_OPTIONS, *QUIET))
    except nvrtc.NVRTCError:
        numbered = "\n".join(f"{i:>4} {line}" for i, line in enumerate(text.splitlines(), 1))
        pytest.fail(f"for {architecture}:\n{nvrtc.getProgramLog(program)}\n{numbered}", pytrace=False)
    else:
        assert nvrtc.getProgramLog(program).strip("\0\n ") == ""  # no warning either
        return nvrtc.getCUBIN(program)
    finally:
        nvrtc.destroyProgram(program)


def resources(machine_code):
    """What NVRTC's assembler gave each kernel: {name: (registers a thread, bytes of stack, where spills would lie)}."""
    start, size, count, names = (
        struct.unpack_from(form, machine_code, at)[0] for form, at in (("<Q", 40), ("<H", 58), ("<H", 60), ("<H", 62))
    )
    sections = [struct.unpack_from("<IIQQQQIIQQ", machine_code, start + size * i) for i in range(count)]

    def text_at(table, offset):
        first = sections[table][4] + offset
        return machine_code[first : machine_code.index(b"\0", first)].decode()

    found, notes = {}, [section for section in sections if text_at(names, section[0]) == ".nv.info"]
    (symbols,) = [section for section in sections if section[1] == 2]
    kernels = {
        number: text_at(symbols[6], struct.unpack_from("<I", machine_code, symbols[4] + 24 * number)[0])
        for number in range(symbols[5] // 24)
    }
    for _, _, _, _, first, length, *_ in notes:
        at = first
        while at < first + length:
            form, kind, n = struct.unpack_from("<BBH", machine_code, at)
            n = n if form == 4 else 0
            if form == 4 and n == 8:
                number, value = struct.unpack_from("<II", machine_code, at + 4)
                found.setdefault(kernels[number], {})[kind] = value
            at += 4 + n
    return {name: (its[0x2F], its.get(0x11, 0)) for name, its in found.items() if 0x2F in its}


@pytest.mark.parametrize(("feature", "i"), list(covering()))
def test_generated_text_compiles_for_gpus(feature, i):
    """Each feature in both float types and for both architectures; what predicts, and a chunk, in one."""
    network = network_of(feature, select_backend("cpu"))
    training, others = program_of(feature, network, 300 if i % 2 else 8), []  # by teams of threads, or by threads
    if i < len(LOSSES):
        others.append(evaluation_program(network.architecture, 8, feature["weighted"], with_accuracy=True))
        others.append(inference_program(network.architecture, 8, "predict"))
    pairs = list(product((np.float32, np.float64), ("sm_80", "sm_90")))
    for number, (dtype, architecture) in enumerate(pairs):
        data = {"X": np.uint8 if feature["uint8"] else dtype, "Y": dtype, "w": dtype, "weights": dtype}
        if number == i % len(pairs):
            ((name, (registers, stack)),) = resources(
                compile_text(chunk_source(training, dtype, Data(data)).text, architecture)
            ).items()
            # Of 65,536 registers: two blocks and more on a multiprocessor.  The stack is that of functions called.
            assert name == "chunk" and registers <= 128 and stack <= 64
        for program in [training, *(others if number == i % len(pairs) else ())]:
            text = cuda_source(program, dtype, Data(data)).text
            found = resources(compile_text(text, architecture))
            assert found.keys() == set(hostcuda.parameters(text))
            for name, (registers, stack) in found.items():  # three quarters, or half, of a multiprocessor's threads
                assert registers <= (40 if dtype == np.float32 else 64) and stack == 0, name


@pytest.mark.parametrize(
    ("dtype", "kind", "loads", "stores"),
    [
        (np.float32, np.float32, r"v4.\w32", r"v4.\w32"),
        (np.float32, np.uint8, "v4.u8", r"v4.\w32"),
        (np.float64, np.float64, r"v\d.\w\d\d", r"v\d.\w\d\d"),
    ],
)
def test_the_gather_loads_and_stores_vectors(dtype, kind, loads, stores):
    """Of X with 8 numbers a sample, as NVRTC's text for a machine has it; Y with 3 is moved number by number."""
    network = xpnet.Network([8, 3], backend=select_backend("cpu"))
    program, types = network.training_program(32, xpnet.SGD(), False), {"X": kind, "Y": dtype}
    nvrtc, found = cupy.cuda.nvrtc, []
    for is_aligned in (True, False):
        text = cuda_source(program, dtype, Data(types, is_aligned)).text
        compiled = nvrtc.createProgram(text, "generated.cu", (), ())
        nvrtc.compileProgram(compiled, ("-arch=compute_80", *hostcuda.NVRTC_OPTIONS, *QUIET))
        gather = nvrtc.getPTX(compiled).decode().partition(".entry gather(")[2]
        nvrtc.destroyProgram(compiled)
        found.append(
            [len(re.findall(rf"{word}\.global\S*\.{kind}\b", gather)) for word, kind in (("ld", loads), ("st", stores))]
        )
    assert found == [[1, 1], [0, 0]]


def test_an_error_shows_the_log_of_nvrtc():
    with pytest.raises(
        pytest.fail.Exception, match=r'(?s)sm_90.*generated.cu\(2\): error: identifier "y" is undefined'
    ):
        compile_text('extern "C" __global__ void kernel(float* x) {\n  *x = y;\n}\n', "sm_90")


# The fake GPU plays this CuPy


def test_the_fake_gpu_has_no_name_that_cupy_lacks():
    for ours, theirs in (
        (fakecupy, cupy),
        (fakecupy.ndarray, cupy.ndarray),
        (fakecupy.cuda.runtime, cupy.cuda.runtime),
    ):
        names = {name for name in vars(ours) if not name.startswith("_")} - {
            "annotations",
            "counts",
            "Counts",
            "memory",
            "Device",
        }
        assert names and not {name for name in names if not hasattr(theirs, name)}


@host_memory
@pytest.mark.parametrize("xp", [cupy, fakecupy], ids=["CuPy", "fake"])
def test_modules_are_read_late_and_take_what_cupy_takes(xp):
    module = xp.RawModule(code="this is no CUDA text", options=("-lineinfo",))
    with pytest.raises(RuntimeError):  # the first function asks for the device
        module.get_function("kernel")
    for refused in (
        lambda: xp.RawModule("text"),
        lambda: xp.RawModule(code=b"text"),
        lambda: xp.RawModule(code="text", options=["-lineinfo"]),
        lambda: module.get_function(0),
    ):
        with pytest.raises(TypeError):
            refused()
