"""Launch kernels and products on a GPU with arguments that are packed once, before the first step.

CuPy's `RawKernel` and `dot` look at every argument at every call, though from step to step none changes. `Prebound`
calls what they call: CuPy's bindings of the driver and of cuBLAS. `Wrapped` is for a CuPy whose bindings are others.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np

from xpnet.engines.cuda.text import BLOCK
from xpnet.engines.memory import Memory
from xpnet.engines.replay import bound_call
from xpnet.program.calls import Call, Program

LAUNCH_PARAMETERS = """f grid_dim_x grid_dim_y grid_dim_z block_dim_x block_dim_y block_dim_z shared_mem_bytes stream
    kernel_params extra"""
COOPERATIVE_PARAMETERS = LAUNCH_PARAMETERS.removesuffix(" extra")
PRODUCT_PARAMETERS = "handle transa transb m n k alpha A Atype lda B Btype ldb beta C Ctype ldc computeType algo"

# How cuBLAS multiplies float32 numbers: as they are, or with 10 bits of mantissa, by tensor cores, and adds in float32.
COMPUTE_TYPES = {"fp32": "CUBLAS_COMPUTE_32F", "tf32": "CUBLAS_COMPUTE_32F_FAST_TF32"}
# In full in every phase, without shortcuts, whatever a handle or the environment allows.
PEDANTIC = {"float32": "CUBLAS_COMPUTE_32F_PEDANTIC", "float64": "CUBLAS_COMPUTE_64F_PEDANTIC"}

Queue = tuple[int, int]  # the stream that takes the launches, and the handle of cuBLAS that takes the products


class Arguments:
    """The arguments of a kernel, as CuPy and as the driver take them: those that are numbers may be changed.

    values: arrays, by their address, and NumPy numbers.  address: of the packed arguments.
    """

    def __init__(self, values: Sequence[Any]) -> None:
        self.values = list(values)
        self.cells = [_cell(value) for value in values]
        self._packed = (ctypes.c_void_p * len(values))(*map(ctypes.addressof, self.cells))
        self.address = ctypes.addressof(self._packed)

    def set(self, position: int, number: int) -> None:
        """Change a number; a launch that was asked for before has read the old one."""
        self.cells[position].value = number
        self.values[position] = type(self.values[position])(number)


def _cell(value: Any) -> Any:
    """The address of an array, or a number, as ctypes has it."""
    if not isinstance(value, np.generic):
        return ctypes.c_void_p(value.data.ptr)
    dtype: Any = value.dtype
    return np.ctypeslib.as_ctypes_type(dtype)(value.item())


class Prebound:
    """Launches by CuPy's bindings of `cuLaunchKernel` and `cublasGemmEx`.

    precision: of the products, one of COMPUTE_TYPES.  deterministic: whether they are PEDANTIC, by a handle of cuBLAS
    of their own: its workspace is none that other products in other streams use at the same time.
    Whoever keeps a call that was made here keeps the kernel and its arguments too, as it holds their addresses alone.
    """

    def __init__(self, memory: Memory, precision: str, deterministic: bool = False) -> None:
        self._memory, self._cuda, self._handles = memory, memory.backend.xp.cuda, dict[int, int]()
        self._deterministic = deterministic
        dtype, cublas = memory.backend.dtype, self._cuda.cublas
        self._one, self._zero = np.ones(1, dtype), np.zeros(1, dtype)
        self._type = self._cuda.runtime.CUDA_R_32F if dtype == np.float32 else self._cuda.runtime.CUDA_R_64F
        name = COMPUTE_TYPES[precision] if dtype == np.float32 else "CUBLAS_COMPUTE_64F"
        self._compute = getattr(cublas, PEDANTIC[dtype.name] if deterministic else name)

    def queue(self) -> Queue:
        """Where launches go now: to the stream that is current in this thread."""
        stream = self._cuda.get_current_stream().ptr
        return stream, self._own_handle(stream) if self._deterministic else self._cuda.device.get_cublas_handle()

    def _own_handle(self, stream: int) -> int:
        """Return the handle for a stream, which is destroyed with this."""
        if stream not in self._handles:
            self._handles[stream] = handle = self._cuda.cublas.create()
            weakref.finalize(self, self._cuda.cublas.destroy, handle).atexit = False
        return self._handles[stream]

    def kernel(self, queue: Any, function: Any, n_blocks: int, arguments: Arguments) -> Callable[[], Any]:
        """Return the launch of a kernel."""
        launch, block = self._cuda.driver.launchKernel, (BLOCK, 1, 1)
        return partial(launch, _pointer(function), n_blocks, 1, 1, *block, 0, queue[0], arguments.address, 0)

    def cooperative(self, queue: Any, function: Any, n_blocks: int, arguments: Arguments) -> Callable[[], Any]:
        """Return the launch of a kernel whose blocks wait for each other: all of them are resident, or CUDA refuses."""
        launch, block = self._cuda.driver.launchCooperativeKernel, (BLOCK, 1, 1)
        return partial(launch, _pointer(function), n_blocks, 1, 1, *block, 0, queue[0], arguments.address)

    def launches_grids(self) -> bool:
        """Whether the device, and this CuPy, launches grids whose blocks wait for each other."""
        runtime, launch = self._cuda.runtime, getattr(self._cuda.driver, "launchCooperativeKernel", None)
        if launch is None or not takes(launch, COOPERATIVE_PARAMETERS):
            return False
        return bool(runtime.deviceGetAttribute(runtime.cudaDevAttrCooperativeLaunch, runtime.getDevice()))

    def resident_blocks(self, function: Any) -> int:
        """Return how many blocks of a kernel the device holds at once."""
        runtime, driver = self._cuda.runtime, self._cuda.driver
        device = runtime.getDevice()
        n = runtime.deviceGetAttribute(runtime.cudaDevAttrMultiProcessorCount, device)
        return int(n * driver.occupancyMaxActiveBlocksPerMultiprocessor(_pointer(function), BLOCK, 0))

    def product(self, queue: Any, call: Call) -> Callable[[], Any]:
        """Return the call of a product; cuBLAS's matrices go by columns, so it is given the transpose of each."""
        cublas, array = self._cuda.cublas, self._memory.array
        left, right = call.operands
        m, n = call.out.shape
        k = left.shape[0 if left.transposed else 1]
        return partial(
            cublas.gemmEx,
            queue[1],
            *(cublas.CUBLAS_OP_T if operand.transposed else cublas.CUBLAS_OP_N for operand in (right, left)),
            *(n, m, k, self._one.ctypes.data),
            *(array(right).data.ptr, self._type, right.shape[1]),
            *(array(left).data.ptr, self._type, left.shape[1], self._zero.ctypes.data),
            *(array(call.out).data.ptr, self._type, n, self._compute, cublas.CUBLAS_GEMM_DEFAULT),
        )


def _pointer(function: Any) -> Any:
    return getattr(function, "kernel", function).ptr  # a RawKernel has one, a Function is one


def numbers(program: Program, positions: Iterable[tuple[int, int]], dtype: np.dtype[Any]) -> list[Any]:
    """Return numbers of a Program, each at (call, operand), of the types that its kernels take."""
    found: list[Any] = []
    for index, position in positions:
        call = program.calls[index]
        number: Any = call.inputs[position]
        found.append(np.uint32(number) if call.operands[0].buffer.kind == "uint32" else dtype.type(number))
    return found


class Wrapped:
    """Launches by CuPy's public `RawKernel` and `dot`, which follow its current stream by themselves."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    def queue(self) -> None:
        """Where launches go now; not asked for."""

    def kernel(self, queue: Any, function: Any, n_blocks: int, arguments: Arguments) -> Callable[[], Any]:
        """Return the launch of a kernel."""
        return lambda: function((n_blocks,), (BLOCK,), tuple(arguments.values))

    def product(self, queue: Any, call: Call) -> Callable[[], Any]:
        """Return the call of a product."""
        return bound_call(self._memory, call)


def launcher(memory: Memory, precision: str, deterministic: bool = False) -> Prebound | Wrapped:
    """Return what launches: by CuPy's bindings if they are there and take what `Prebound` gives.

    Raises ValueError for products that `dot` cannot be asked for.
    """
    xp = memory.backend.xp
    try:
        known = [(xp.cuda.driver.launchKernel, LAUNCH_PARAMETERS), (xp.cuda.cublas.gemmEx, PRODUCT_PARAMETERS)]
        is_known = all(takes(binding, names) for binding, names in known)
    except (AttributeError, ImportError):
        is_known = False
    if is_known:
        return Prebound(memory, precision, deterministic)
    if precision != "fp32" or deterministic:
        name, found = ("deterministic", True) if deterministic else ("precision", precision)
        raise ValueError(
            f"{name} is {found!r}, which is an argument of CuPy's cublas.gemmEx, and CuPy {xp.__version__} has "
            f"another one, or none; install CuPy 14.2, or leave {name} out"
        )
    return Wrapped(memory)


def compiled(xp: Any, text: str, options: tuple[str, ...]) -> Any:
    """Return the compiled module of a text, whose kernels `get_function` finds.

    CuPy keeps what a `RawModule` has loaded until the process ends, so it is asked for the module itself, which is
    unloaded when nobody holds it; where it has none to give, for a `RawModule`.
    """
    try:
        compile_text = xp._core.core.compile_with_cache
    except AttributeError:
        return xp.RawModule(code=text, options=options)
    return compile_text(text, options, prepend_cupy_headers=False)


def takes(binding: Any, names: str) -> bool:
    """Whether a binding has parameters of these names, as the first line of its docstring says: Cython writes it."""
    signature = str(binding.__doc__).partition("(")[2].partition(")")[0]
    return [parameter.split()[-1] for parameter in signature.split(",") if parameter.strip()] == names.split()
