"""Choose where arrays live: NumPy on the CPU or CuPy on a CUDA GPU.

A `Backend` is a plain value that the caller holds and passes on; there is no current or default backend. This is the
only module that imports CuPy, and only when a GPU is requested or probed. Kernels take the backend's namespace `xp` as
their first argument.
"""

from __future__ import annotations

import importlib
import os
import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from xpnet.checks import check_option

__all__ = ["Backend", "BackendUnavailable", "DeviceFull", "select_backend"]

DEVICES = ("auto", "cpu", "cuda")
DTYPES = ("float32", "float64")
MINIMUM_CUPY = 14
BLOCK_BYTES = 1 << 24  # of a large array that are uploaded at a time
NO_CUPY = "CuPy is not installed"
_INSTALL = "for a CUDA GPU install CuPy 14 or newer: `pip install 'xpnet[cuda12]'` or `pip install 'xpnet[cuda13]'`"


class BackendUnavailable(RuntimeError):
    """The requested GPU cannot be used; the message gives the cause and the remedy."""


class DeviceFull(MemoryError):
    """The GPU has too little free memory for a run; the message tells what needs it."""


@dataclass(frozen=True)
class Backend:
    """An array library, the device it computes on, and the float type used there.

    name: "numpy" or "cupy".  device: "cpu" or "cuda".  xp: the array namespace.  dtype: np.float32 or np.float64.
    reason: why this device was chosen, as a sentence for the user.  number: of the GPU, as in cuda:0.
    """

    name: str
    device: str
    xp: Any = field(repr=False)
    dtype: np.dtype[Any]
    reason: str = ""
    number: int = 0

    def __reduce__(self) -> Any:
        return _restored, (type(self), self.name, self.device, self.dtype, self.reason, self.number)

    def __deepcopy__(self, memo: dict[int, Any]) -> Backend:
        return self

    def to_device(self, array: Any, dtype: Any = None) -> Any:
        """Return `array` on this device in `dtype` (default: the backend's); copy it only if it is elsewhere."""
        dtype = self.dtype if dtype is None else np.dtype(dtype)
        if self.device != "cpu" and isinstance(array, np.ndarray) and array.nbytes > BLOCK_BYTES:
            return self._uploaded(array, dtype)
        return self.xp.asarray(array, dtype=dtype)

    def _uploaded(self, array: np.ndarray, dtype: np.dtype[Any]) -> Any:
        """Upload block after block. CuPy would convert all of it at once, and page-lock as much memory for good."""
        if not array.flags.c_contiguous and array.T.flags.c_contiguous:
            return self._uploaded(array.T, dtype).T
        target = self.xp.empty(array.shape, dtype=dtype)
        n_rows = max(1, BLOCK_BYTES * len(array) // array.nbytes)
        for start in range(0, len(array), n_rows):
            target[start : start + n_rows].set(np.ascontiguousarray(array[start : start + n_rows], dtype=dtype))
        return target

    def to_host(self, array: Any) -> np.ndarray:
        """Return `array` as a NumPy array; from a GPU this copies and waits for the device."""
        if isinstance(array, np.ndarray):
            return array
        return np.asarray(self.xp.asnumpy(array))

    def zeros(self, size: int, dtype: Any = None) -> Any:
        """Return a vector (size,) of zeros whose memory starts on a 64-byte boundary."""
        dtype = self.dtype if dtype is None else np.dtype(dtype)
        if self.device != "cpu":
            return self.xp.zeros(size, dtype=dtype)  # CUDA allocations are aligned to 256 bytes or more
        padded = np.zeros(size + 64 // dtype.itemsize, dtype=dtype)
        start = -padded.ctypes.data % 64 // dtype.itemsize
        return padded[start : start + size]

    def owns(self, array: Any) -> bool:
        """Tell whether `array` is an array of this backend's library."""
        return isinstance(array, self.xp.ndarray)

    def check_here(self, **arrays: Any) -> None:
        """Refuse device arrays of another GPU than this one, and to compute while CuPy's current GPU is another.

        Raises ValueError.
        """
        if self.device == "cpu":
            return
        current = int(self.xp.cuda.runtime.getDevice())
        if current != self.number:
            raise ValueError(
                f"CuPy's current GPU in this thread is cuda:{current}, the network is on cuda:{self.number}, and CuPy "
                f"allocates and launches on the current one; call cupy.cuda.Device({self.number}).use() first"
            )
        for name, array in arrays.items():
            if (found := int(array.device.id)) != self.number:
                raise ValueError(
                    f"{name} is on cuda:{found}, the network is on cuda:{self.number}; "
                    f"pass network.backend.to_device({name})"
                )

    def is_on(self, device: str) -> bool:
        """Tell whether `device`, such as "cuda" or "cuda:1", is this backend's."""
        return device in (self.device, f"{self.device}:{self.number}")

    def free_memory(self) -> int | None:
        """Return how many bytes of the GPU's memory can be allocated; None on a CPU.

        Those count that CuPy's pool holds and nobody uses, and a limit that was set on the pool.
        """
        if self.device == "cpu":
            return None
        pool = self.xp.get_default_memory_pool()
        free = int(self.xp.cuda.runtime.memGetInfo()[0]) + int(pool.free_bytes())
        limit = int(pool.get_limit())
        return min(free, max(0, limit - int(pool.used_bytes()))) if limit else free

    def synchronize(self) -> None:
        """Wait until the device has finished all queued work; on the CPU, return at once."""
        if self.device != "cpu":
            self.xp.cuda.get_current_stream().synchronize()

    def describe(self) -> str:
        """Return device, library, float type and the reason for the choice in one line."""
        device = f"{self.device}:{self.number}" if self.number else self.device
        text = f"{device} ({self.name} {getattr(self.xp, '__version__', '')}".rstrip() + f", {self.dtype})"
        return f"{text}: {self.reason}" if self.reason else text


def select_backend(device: str | None = None, dtype: Any = "float32") -> Backend:
    """Choose the CPU or a GPU and say why.

    device: "auto" (a GPU if one works, else the CPU), "cpu", "cuda" (CuPy's current GPU), or "cuda:0", "cuda:1" and so
    on, which becomes the current one of this thread; None reads the environment variable XPNET_DEVICE and falls back to
    "auto".  dtype: "float32" or "float64".
    Raises ValueError for an unknown device or dtype, BackendUnavailable if the GPU asked for does not work.
    """
    device, source = asked_device(device)
    float_type = _float_type(dtype)
    if device == "cpu":
        return _cpu(float_type, f"{source} is cpu")
    try:
        number = device.partition(":")[2]
        cupy, gpu = probe_gpu(int(number) if number else None)
    except BackendUnavailable as failure:
        if device != "auto":
            raise
        return _cpu(float_type, str(failure))
    reason, current = f"{gpu} answered the probe", int(cupy.cuda.runtime.getDevice())
    if float_type == np.float32 and os.environ.get("CUPY_TF32", "0") not in ("", "0"):
        reason += "; CUPY_TF32 is set, so products outside of training steps round their inputs to TF32"
    return Backend("cupy", "cuda", cupy, float_type, reason, current)


def asked_device(device: str | None) -> tuple[str, str]:
    """Return the requested device and the source of the request, "device" or "XPNET_DEVICE".

    device: a name of DEVICES; None reads XPNET_DEVICE and falls back to "auto".  Raises ValueError for any other.
    """
    source = "device"
    if device is None:
        device, source = os.environ.get("XPNET_DEVICE", "").strip().lower() or "auto", "XPNET_DEVICE"
    return check_device(source, device), source


def check_device(argument: str, found: object) -> str:
    """Return `found` if it is one of DEVICES, or a GPU by its number such as "cuda:1"; raises ValueError."""
    kind, _, number = str(found).partition(":")
    if isinstance(found, str) and kind == "cuda" and number.isascii() and number.isdigit() and len(number) < 10:
        return found
    return check_option(argument, found, DEVICES)


def probe_gpu(number: int | None = None) -> tuple[Any, str]:
    """Return CuPy and the GPU's name after it has allocated, multiplied and run a kernel, or raise BackendUnavailable.

    A successful import proves little: the driver, the GPU, cuBLAS or NVRTC may still be missing, so each is used.
    """
    cupy = import_cupy()
    try:
        count = int(cupy.cuda.runtime.getDeviceCount())
    except Exception as error:  # CuPy raises its own classes here, and they cannot be imported without it
        if "InitializationError" in str(error):
            raise BackendUnavailable(
                f"CUDA cannot begin in this process ({_one_line(error)}), which was forked from one that uses it; "
                "start processes by 'spawn' (multiprocessing.get_context('spawn')), or use device='cpu'"
            ) from error
        if "NoDevice" not in str(error):
            raise BackendUnavailable(
                f"CuPy is installed but the CUDA driver does not answer ({_one_line(error)}); "
                "install or update the NVIDIA driver, or use device='cpu'"
            ) from error
        count = 0
    if count == 0:
        raise BackendUnavailable(
            "CuPy is installed but no CUDA GPU is visible; check nvidia-smi and "
            "CUDA_VISIBLE_DEVICES, or use device='cpu'"
        )
    if number is not None:
        if number >= count:
            raise BackendUnavailable(
                f"device is cuda:{number}, and the GPUs that are visible are cuda:0 to cuda:{count - 1}; choose one of "
                "these, or check CUDA_VISIBLE_DEVICES"
            )
        cupy.cuda.Device(number).use()
    try:
        ones = cupy.ones((2, 2), dtype=np.float32)
        total = float((ones.dot(ones) + ones).sum())
        properties = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.runtime.getDevice())
    except Exception as error:  # as above; a missing library shows as ImportError, OSError or RuntimeError
        raise BackendUnavailable(_probe_failure(error)) from error
    if total != 12.0:
        raise BackendUnavailable(f"the GPU computed {total} instead of 12.0; check the driver, or use device='cpu'")
    name = properties["name"]
    return cupy, name.decode() if isinstance(name, bytes) else str(name)


def import_cupy() -> Any:
    """Return CuPy; raises BackendUnavailable where it is not installed."""
    try:
        cupy = importlib.import_module("cupy")
    except ModuleNotFoundError as error:
        if error.name != "cupy":
            raise BackendUnavailable(f"CuPy cannot be imported ({_one_line(error)}); {_INSTALL}") from error
        raise BackendUnavailable(f"{NO_CUPY}; {_INSTALL}") from error
    except Exception as error:  # a broken install fails in many ways: ImportError, OSError, AttributeError
        raise BackendUnavailable(f"CuPy cannot be imported ({_one_line(error)}); {_INSTALL}") from error
    version = getattr(cupy, "__version__", None)
    if version is None:  # a folder called cupy in the working directory imports as an empty package
        places = ", ".join(getattr(cupy, "__path__", ())) or "an unknown place"
        raise BackendUnavailable(f"the package cupy from {places} is not CuPy; rename it, or {_INSTALL}")
    major = str(version).partition(".")[0]
    if not major.isdigit() or int(major) < MINIMUM_CUPY:
        raise BackendUnavailable(f"CuPy is {version}, xpnet needs {MINIMUM_CUPY} or newer; {_INSTALL}")
    return cupy


def _probe_failure(error: Exception) -> str:
    text = _one_line(error)
    if "nvrtc" in text.lower():
        return f"CuPy cannot compile kernels, NVRTC is missing ({text}); {_INSTALL}, which brings it along"
    return f"CuPy sees a GPU but cannot compute on it ({text}); {_INSTALL}, or use device='cpu'"


def _restored(
    kind: type[Backend], name: str, device: str, dtype: np.dtype[Any], reason: str, number: int = 0
) -> Backend:
    """Return a backend of a pickle, on the GPU of that number; where it cannot be used, the CPU, with a warning."""
    if device == "cpu":
        return kind(name, device, np, dtype, reason)
    try:
        return kind(name, device, probe_gpu(number)[0], dtype, reason, number)
    except BackendUnavailable as failure:
        warnings.warn(f"what was pickled on a GPU continues on the CPU: {failure}", stacklevel=3)
        return _cpu(dtype, str(failure))


def _cpu(float_type: np.dtype[Any], reason: str) -> Backend:
    return Backend("numpy", "cpu", np, float_type, reason)


def _float_type(dtype: Any) -> np.dtype[Any]:
    try:
        name = "None" if dtype is None else np.dtype(dtype).name  # np.dtype(None) would be float64
    except (TypeError, ValueError):
        name = str(dtype)
    return np.dtype(check_option("dtype", name, DTYPES))


def _one_line(error: Exception) -> str:
    """Return class and text of an error; of CuPy's framed diagnosis, its original error."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip(" =-")]
    if "Original error:" in lines[:-1]:
        return lines[lines.index("Original error:") + 1]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
