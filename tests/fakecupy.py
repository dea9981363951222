"""The fake GPU: plays CuPy 14.2 on a machine that has none, so that manners can be tested there.

The module is the namespace and `ndarray` the array: it wraps a NumPy array and refuses what CuPy refuses, and
`counts` says what a GPU would be asked: transfers, allocations, launches, and copies that CuPy makes unasked.
Only the surface that xpnet may use exists here; any other name is an AttributeError.

Calibrated against CuPy 14.2: its source, and the package itself on the executing CUDA. Never yet against a device.
It is for machines without CuPy, and for what cannot be counted there: reads, launches and hidden copies by their cause.
Stricter on purpose: `dot` checks the shape of `out`, CuPy its size; `take` wants its indices on the device;
reductions refuse NumPy arrays; masks and mixed indices are refused.
"""

from __future__ import annotations

from collections import Counter as _Counter
from contextlib import contextmanager as _contextmanager
from operator import attrgetter as _attrgetter
from types import SimpleNamespace as _Namespace
from typing import Any as _Any

import fakecuda as _fakecuda
import hostcuda as _hostcuda
import numpy as _np

__version__ = "14.2.0"
float32, float64, uint8, uint32 = _np.float32, _np.float64, _np.uint8, _np.uint32
int32, int64, intp = _np.int32, _np.int64, _np.intp


class Counts(_Counter[_Any]):
    """What was asked since the last `reset`, as attributes; `named("launches")` splits one.

    uploads, upload_bytes, reads, read_bytes, allocations, allocation_bytes.  launches: of kernels.
    reads: device to host, each waits; get, float, int, bool, item, text, and a loop over elements (0 bytes).
    hidden_copies: each also counts as an allocation, not as a launch.
    cub: reductions along contiguous memory and 1x1 products; CuPy's CUB allocates there, even with out=.
    numpy_dispatch: np.f(device array) works in CuPy, several times slower; forbidden in xpnet.
    """

    _FIELDS = (
        "uploads",
        "upload_bytes",
        "reads",
        "read_bytes",
        "allocations",
        "allocation_bytes",
        "launches",
        "hidden_copies",
        "cub",
        "numpy_dispatch",
        "synchronizations",
    )

    def __getattr__(self, name: str) -> int:
        if name not in self._FIELDS:
            raise AttributeError(f"nothing named {name!r} is counted")
        return self[name]

    def reset(self) -> None:
        self.clear()

    def named(self, field: str) -> dict[str, int]:
        return {key[1]: n for key, n in self.items() if isinstance(key, tuple) and key[0] == field}

    @_contextmanager
    def measure(self) -> _Any:
        """`with counts.measure() as cost:` fills `cost`, Counts of the block alone, at its end."""
        before, cost = Counts(self), Counts()
        try:
            yield cost
        finally:
            cost.update(self - before)

    def _add(self, field: str, cause: str) -> None:
        self.update((field, (field, cause)))

    def _moved(self, field: str, n_bytes: int) -> None:
        self.update({f"{field}s": 1, f"{field}_bytes": n_bytes})

    def _copied(self, cause: str, host: _np.ndarray) -> None:
        self._add("hidden_copies", cause)
        self._moved("allocation", host.nbytes)


counts = Counts()


class _Ufunc:
    """An elementwise function: it takes out, dtype, casting; results are C-ordered."""

    def __init__(self, name: str, function: _np.ufunc) -> None:
        self.__name__, self.nin, self._function = name, function.nin, function

    def __call__(self, *args: _Any, out: _Any = None, **keywords: _Any) -> _Any:
        if keywords.keys() - {"dtype", "casting"}:
            raise TypeError(f"Wrong arguments {keywords}")
        if not self.nin <= len(args) <= self.nin + 1:
            raise TypeError(f"Wrong number of arguments for {self.__name__!r}: {len(args)}")
        if len(args) > self.nin:
            if out is not None:
                raise ValueError("Cannot specify 'out' as both a positional and keyword argument")
            args, out = args[:-1], args[-1]
        if isinstance(out, tuple):
            (out,) = out
        inputs = [x._host if isinstance(x, ndarray) else _scalar(x) for x in args]
        copied = [x for x in args if isinstance(x, ndarray) and x is not out and _overlap(x, out)]
        with _np.errstate(all="ignore"):
            if out is None:
                result = _made(self._function(*inputs, order="C", **keywords))
            else:
                self._function(*inputs, out=_host(out), **keywords)
                result = out
        for x in copied:  # the same memory through another object: CuPy compares objects
            counts._copied(self.__name__, x._host)
        counts._add("launches", self.__name__)
        return result


_WORDS = """add subtract multiply divide maximum minimum greater abs sign sqrt exp log log1p tanh
            bitwise_xor right_shift isfinite"""
_OPERATORS = "floor_divide less less_equal greater_equal equal not_equal negative"  # as operators only
_ufuncs = {name: _Ufunc(name, getattr(_np, name)) for name in (_WORDS + " " + _OPERATORS).split()}
(
    add,
    subtract,
    multiply,
    divide,
    maximum,
    minimum,
    greater,
    abs,
    sign,
    sqrt,
    exp,
    log,
    log1p,
    tanh,
    bitwise_xor,
    right_shift,
    isfinite,
) = (_ufuncs[name] for name in _WORDS.split())


def _operators(name: str) -> tuple[_Any, _Any, _Any]:
    ufunc = _ufuncs[name]
    return lambda a, b: ufunc(a, b), lambda a, b: ufunc(b, a), lambda a, b: ufunc(a, b, out=a)


_current = [0]  # the GPU that allocates and launches; there is one more, which `use` makes the current one


class _Device:
    """A GPU by its number."""

    def __init__(self, number: int) -> None:
        self.id = number

    def use(self) -> None:
        _current[0] = self.id


class ndarray:
    """A device array: nothing of NumPy sees inside it, except by `get`."""

    __slots__ = ("__weakref__", "_host", "device")
    __array_priority__ = 100  # as in CuPy: its operators win over NumPy's
    _host: _np.ndarray

    def __init__(self, shape: _Any, dtype: _Any = float) -> None:
        self._host, self.device = _np.empty(shape, dtype), _Device(_current[0])
        if self._host.dtype.kind == "f":
            self._host.fill(_np.nan)  # what nobody wrote must not pass for a result
        else:
            self._host.reshape(-1).view(_np.uint8).fill(0xA5)
        counts._moved("allocation", self._host.nbytes)

    shape, dtype = property(_attrgetter("_host.shape")), property(_attrgetter("_host.dtype"))
    size, ndim = property(_attrgetter("_host.size")), property(_attrgetter("_host.ndim"))
    nbytes, itemsize = property(_attrgetter("_host.nbytes")), property(_attrgetter("_host.itemsize"))
    T = property(lambda self: _wrap(self._host.T))  # a new object at every use, as in CuPy
    data = property(lambda self: _Namespace(ptr=self._host.ctypes.data))

    @property
    def flags(self) -> _Namespace:
        flags = self._host.flags
        return _Namespace(c_contiguous=flags.c_contiguous, f_contiguous=flags.f_contiguous)

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 0  # kDLCUDA, device 0

    def __dlpack__(self, *, stream: _Any = None, **keywords: _Any) -> _Any:
        return self  # stands for a capsule, which only `from_dlpack` can open

    def __array__(self, dtype: _Any = None, copy: _Any = None) -> _Any:
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`.")

    def __array_ufunc__(self, ufunc: _Any, method: str, *inputs: _Any, **keywords: _Any) -> _Any:
        counts["numpy_dispatch"] += 1
        name = {"absolute": "abs"}.get(ufunc.__name__, ufunc.__name__)
        function = matmul if name == "matmul" else _ufuncs.get(name)
        return function(*inputs, **keywords) if function and method == "__call__" else NotImplemented

    def __array_function__(self, function: _Any, types: _Any, args: _Any, keywords: _Any) -> _Any:
        counts["numpy_dispatch"] += 1
        ours = globals().get(function.__name__)
        return ours(*args, **keywords) if ours else NotImplemented

    def get(self) -> _np.ndarray:
        if not self._host.flags.c_contiguous:
            counts._copied("get", self._host)  # CuPy makes it C-ordered on the device first
        counts._moved("read", self._host.nbytes)
        return self._host.copy()

    def set(self, array: _Any, stream: _Any = None) -> None:
        if not isinstance(array, _np.ndarray) or array.dtype != self.dtype:
            raise TypeError(f"only a NumPy array of {self.dtype} can be set")
        if array.shape != self.shape:
            raise ValueError(f"Shape mismatch. Old shape: {self.shape}, new shape: {array.shape}")
        if not _whole(self._host):
            raise RuntimeError("Cannot set to non-contiguous array")
        counts._moved("upload", array.nbytes)
        self._host[...] = array

    def item(self) -> _Any:
        if self.size != 1:
            raise ValueError("can only convert an array of size 1 to a Python scalar")
        return self.get().item()

    def __bool__(self) -> bool:
        if self.size > 1:
            raise ValueError("The truth value of an array with more than one element is ambiguous.")
        return self.size == 1 and bool(self.item())

    def __float__(self) -> float:
        return float(self.get())

    def __int__(self) -> int:
        return int(self.get())

    def __repr__(self) -> str:
        return repr(self.get())

    def __format__(self, form: str) -> str:
        return format(self.get(), form)

    def __len__(self) -> int:
        return len(self._host)

    def __iter__(self) -> _Any:
        if self.ndim == 0:
            raise TypeError("iteration over a 0-d array")
        counts._moved("read", 0)  # CuPy hands out views; such a loop ends in a read of each
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: _Any) -> _Any:
        if isinstance(index, _np.ndarray | list):
            counts._copied("index", _np.asarray(index))
            counts._moved("upload", _np.asarray(index).nbytes)
            index = _wrap(_np.asarray(index))
        return take(self, index, 0) if isinstance(index, ndarray) else self._basic(index)

    def __setitem__(self, index: _Any, value: _Any) -> None:
        view = self._basic(index)
        if not isinstance(value, ndarray):
            view.fill(value)
            return
        if _np.broadcast_shapes(view.shape, value.shape) != view.shape:
            raise ValueError(f"Out shape is mismatched: {view.shape}, {value.shape}")
        same = (view.shape, view._host.strides) == (value.shape, value._host.strides)
        if same and view.data == value.data:
            return  # CuPy too does nothing for `x[...] = x`, which is how `x[...] += 1` ends
        if _overlap(value, view):
            if same and value.dtype == view.dtype and view.flags.c_contiguous:
                view.fill(_np.nan)  # CuPy copies between ranges of memory that overlap: their numbers are undefined
                return
            counts._copied("setitem", value._host)
        counts._add("launches", "copy")
        with _np.errstate(all="ignore"):
            view._host[...] = value._host

    def _basic(self, index: _Any) -> _Any:
        index = index if isinstance(index, tuple) else (index,)
        for i in index:
            if isinstance(i, bool | list | _np.ndarray | ndarray):
                raise TypeError(f"{type(i)} is no basic index; masks wait for a GPU")
        index = index if Ellipsis in index else (*index, Ellipsis)  # one element is a view too
        return _wrap(self._host[index])

    def fill(self, value: _Any) -> None:
        if isinstance(value, _np.ndarray | list | tuple) and _np.ndim(value):
            raise ValueError("non-scalar numpy.ndarray cannot be used for fill")
        counts._add("launches", "fill")
        with _np.errstate(all="ignore"):
            self._host[...] = value._host if isinstance(value, ndarray) else value

    def reshape(self, *shape: _Any) -> _Any:
        result = self._host.reshape(*shape)
        if self.size and not _np.may_share_memory(result, self._host):
            counts._copied("reshape", result)
        return _wrap(result)

    def view(self, dtype: _Any = None) -> _Any:
        return _wrap(self._host.view(self.dtype if dtype is None else dtype))

    def copy(self) -> _Any:
        counts._add("launches", "copy")
        return _made(self._host.copy())

    def astype(self, dtype: _Any, copy: bool = True) -> _Any:
        if not copy and self.dtype == dtype:
            return self
        counts._add("launches", "astype")
        with _np.errstate(all="ignore"):
            return _made(self._host.astype(dtype))

    def dot(self, b: _Any, out: _Any = None) -> _Any:
        if out is not None and _host(out).dtype != _np.result_type(self._host, _host(b)):
            raise ValueError("Not supported dtype combination.")
        if out is not None and not out.flags.c_contiguous:
            raise ValueError("Output array must be C-contiguous")
        return _product("dot", self, b, out)

    def take(self, *args: _Any, **keywords: _Any) -> _Any:
        return take(self, *args, **keywords)

    def sum(self, *args: _Any, **keywords: _Any) -> _Any:
        return sum(self, *args, **keywords)

    def max(self, *args: _Any, **keywords: _Any) -> _Any:
        return max(self, *args, **keywords)

    def argmax(self, *args: _Any, **keywords: _Any) -> _Any:
        return argmax(self, *args, **keywords)

    def __matmul__(self, b: _Any) -> _Any:
        return matmul(self, b)

    def __rmatmul__(self, a: _Any) -> _Any:
        return matmul(a, self)

    def __neg__(self) -> _Any:
        return _ufuncs["negative"](self)

    __add__, __radd__, __iadd__ = _operators("add")
    __sub__, __rsub__, __isub__ = _operators("subtract")
    __mul__, __rmul__, __imul__ = _operators("multiply")
    __truediv__, __rtruediv__, __itruediv__ = _operators("divide")
    __floordiv__, __rfloordiv__, __ifloordiv__ = _operators("floor_divide")
    __lt__, __le__ = _operators("less")[0], _operators("less_equal")[0]
    __gt__, __ge__ = _operators("greater")[0], _operators("greater_equal")[0]
    __eq__, __ne__ = _operators("equal")[0], _operators("not_equal")[0]
    __hash__ = None  # type: ignore[assignment]


def _wrap(host: _np.ndarray) -> ndarray:
    array = object.__new__(ndarray)
    array._host, array.device = host, _Device(_current[0])
    return array


def _made(result: _Any) -> ndarray:
    host = _np.asarray(result)  # NumPy returns scalars where CuPy returns 0-d arrays
    counts._moved("allocation", host.nbytes)
    return _wrap(host)


def _host(array: _Any) -> _np.ndarray:
    if not isinstance(array, ndarray):
        raise TypeError(f"expected a device array, got {type(array)}")
    return array._host


def _scalar(value: _Any) -> _Any:
    if not isinstance(value, bool | int | float | _np.number | _np.bool_):
        raise TypeError(f"Unsupported type {type(value)}")  # 0-d NumPy arrays too
    return value


def _overlap(a: ndarray, b: _Any) -> bool:
    return b is not None and bool(_np.may_share_memory(a._host, _host(b)))  # by bounds, as CuPy


def _whole(host: _np.ndarray) -> bool:
    return host.flags.c_contiguous or host.flags.f_contiguous


def _product(name: str, a: _Any, b: _Any, out: _Any) -> _Any:
    x, y = _host(a), _host(b)
    if not (1 <= x.ndim <= 2 and 1 <= y.ndim <= 2) or x.shape[-1] != y.shape[0]:
        raise ValueError(f"{name} of {x.shape} and {y.shape}")
    shape, dtype = x.shape[:-1] + y.shape[1:], _np.result_type(x, y)
    target = _np.empty(shape, dtype) if out is None else _host(out)
    if target.shape != shape:
        raise ValueError(f"Output array has an invalid size: {target.shape}, needed is {shape}")
    with _np.errstate(all="ignore"):
        _np.matmul(x, y, out=target)
    for host in (x, y):
        if not _whole(host) or host.dtype != dtype:
            counts._copied(f"{name} operand", host)
    if not target.flags.c_contiguous or target.dtype != dtype or _overlap(a, out) or _overlap(b, out):
        counts._copied(f"{name} out", target)  # computed elsewhere, then copied
    counts["cub"] += target.size == 1
    counts._add("launches", name)
    return _made(target) if out is None else out


def _reduction(name: str, *known: str) -> _Any:
    function = getattr(_np, name)

    def reduce(a: _Any, *args: _Any, **keywords: _Any) -> _Any:
        keywords |= dict(zip(known, args, strict=False))
        if keywords.keys() - set(known) or len(args) > len(known):
            raise TypeError(f"{name}() got an unexpected argument: {keywords}")
        host, axis, out = _host(a), keywords.pop("axis", None), keywords.pop("out", None)
        target = None if out is None else _host(out)
        with _np.errstate(all="ignore"):
            result = function(host, axis=axis, out=target, **keywords)
        last, first = axis in (None, -1, host.ndim - 1), axis in (None, 0, -host.ndim)
        counts["cub"] += (last and host.flags.c_contiguous) or (first and host.flags.f_contiguous)
        counts._add("launches", name)
        return _made(result) if out is None else out

    return reduce


sum: _Any = _reduction("sum", "axis", "dtype", "out", "keepdims")
max: _Any = _reduction("max", "axis", "out", "keepdims")
argmax: _Any = _reduction("argmax", "axis", "out", "keepdims")
all: _Any = _reduction("all", "axis", "out", "keepdims")
any: _Any = _reduction("any", "axis", "out", "keepdims")


def matmul(a: _Any, b: _Any, /, *, out: _Any = None) -> _Any:
    """CuPy 14.2 fails on a positional `out` here, though its elementwise functions take one."""
    return _product("matmul", a, b, out[0] if isinstance(out, tuple) else out)


def take(a: _Any, indices: _Any, axis: _Any = None, out: _Any = None) -> _Any:
    """Indices out of range wrap around silently, as in CuPy; there is no mode."""
    source, index = _host(a), _host(indices)
    if index.dtype.kind not in "iu":
        raise TypeError(f"indices are {index.dtype}, needed are integers")
    result = _np.take(source, index % (source.size if axis is None else source.shape[axis]), axis=axis)
    if out is not None and _host(out).dtype != result.dtype:
        raise TypeError("Output dtype mismatch")
    if out is not None and out.shape != result.shape:
        raise ValueError("Output shape mismatch")
    counts._add("launches", "take")
    if out is None:
        return _made(result)
    out._host[...] = result
    return out


def array(a: _Any, dtype: _Any = None) -> _Any:
    if isinstance(a, ndarray):
        return a.astype(a.dtype if dtype is None else dtype)
    host = _np.asarray(a, dtype)
    if host.dtype.kind not in "biuf":
        raise ValueError(f"Unsupported dtype {host.dtype}")
    counts._moved("upload", host.nbytes)
    return _made(_np.array(host, order="F" if host.flags.fnc else "C"))  # CuPy too keeps F order


def asarray(a: _Any, dtype: _Any = None) -> _Any:
    here = isinstance(a, ndarray) and dtype in (None, a.dtype) and a.device.id == _current[0]
    return a if here else array(a, dtype)


def from_dlpack(array: _Any, *, device: _Any = None, copy: _Any = None) -> _Any:
    """No copy of what lies on the GPU; what does not is refused: CuPy would copy it there unasked."""
    if not hasattr(array, "__dlpack_device__") or array.__dlpack_device__()[0] != 2:
        raise TypeError(f"{type(array)} does not lie on the GPU")
    return _wrap(_host(array.__dlpack__(stream=0)))


def asnumpy(a: _Any) -> _np.ndarray:
    return a.get() if isinstance(a, ndarray) else _np.asarray(a)


def ascontiguousarray(a: _Any, dtype: _Any = None) -> _Any:
    _host(a)
    a = asarray(a, dtype)
    return a if a.flags.c_contiguous else a.copy()


def concatenate(arrays: _Any, axis: int = 0) -> _Any:
    counts._add("launches", "concatenate")
    return _made(_np.concatenate([_host(a) for a in arrays], axis))


def empty(shape: _Any, dtype: _Any = float) -> _Any:
    return ndarray(shape, dtype)


def full(shape: _Any, fill_value: _Any, dtype: _Any = None) -> _Any:
    counts._add("launches", "fill")
    return _made(_np.full(shape, _scalar(fill_value), dtype))


def zeros(shape: _Any, dtype: _Any = float) -> _Any:
    return full(shape, 0, dtype)


def ones(shape: _Any, dtype: _Any = float) -> _Any:
    return full(shape, 1, dtype)


def arange(*range_: _Any, dtype: _Any = None) -> _Any:
    counts._add("launches", "arange")
    return _made(_np.arange(*range_, dtype=dtype))


class RawModule:
    """CUDA text, compiled for the CPU when its first function is asked for; a test that comes here needs a compiler."""

    def __init__(self, *, code: str, options: tuple[str, ...] = ()) -> None:
        if not isinstance(code, str) or not isinstance(options, tuple):
            raise TypeError(f"code must be a str and options a tuple, got {type(code)} and {type(options)}")
        self._code = code

    def get_function(self, name: str) -> _Any:
        if not isinstance(name, str):
            raise TypeError(f"name must be a str, got {type(name)}")
        if _hostcuda.compiler() is None:
            import pytest

            pytest.skip("no C++ compiler: generated CUDA kernels cannot run on the fake GPU")
        if name not in _hostcuda.parameters(self._code):
            raise RuntimeError(f"cannot find the function {name}: CUDA_ERROR_NOT_FOUND: named symbol not found")
        return RawKernel(self._code, name)


class RawKernel:
    """A kernel of a RawModule. CuPy checks no argument; here each must be what the parameter says."""

    def __init__(self, code: str, name: str) -> None:
        self._code, self.name = code, name
        self.kernel = _Namespace(code=code, name=name, parameters=_hostcuda.c_types(code, name))
        self.kernel.ptr = id(self.kernel)

    def __call__(self, grid: tuple[int, ...], block: tuple[int, ...], args: tuple[_Any, ...]) -> None:
        parameters = _hostcuda.parameters(self._code)[self.name]
        if len(args) != len(parameters):
            raise TypeError(f"{self.name} takes {len(parameters)} arguments, got {len(args)}")
        if not isinstance(grid, tuple) or not isinstance(block, tuple):
            raise TypeError(f"grid and block must be tuples, got {type(grid)} and {type(block)}")
        if not (len(grid) == len(block) == 1 and 0 < grid[0] < 2**31 and 0 < block[0] <= 1024):
            raise RuntimeError(f"CUDA_ERROR_INVALID_VALUE: invalid argument: grid {grid}, block {block}")
        values = []
        for (kind, name), argument in zip(parameters, args, strict=True):
            pointer, needed = kind.endswith("*"), self._dtype(kind.rstrip("*"))
            found = argument.dtype if isinstance(argument, ndarray if pointer else _np.generic) else type(argument)
            if found != needed:
                raise TypeError(f"{self.name}: {name} is {found}, needed is {'an array of ' * pointer}{needed}")
            if pointer and not argument.flags.c_contiguous:
                raise TypeError(f"{self.name}: {name} is not C-contiguous; a kernel sees memory, not strides")
            values.append(argument._host.ctypes.data if pointer else argument.item())
        with _np.errstate(all="ignore"):
            _hostcuda.call(self._code, self.name, grid[0], block[0], values)
        counts._add("launches", self.name)

    def _dtype(self, kind: str) -> _Any:
        kinds = {
            "int": "int32",
            "unsigned int": "uint32",
            "unsigned char": "uint8",
            "long long": "int64",
            "float": "float32",
            "double": "float64",
        }
        return _np.dtype(kinds[_hostcuda.plain_type(self._code, kind)])


class _Stream:
    """A stream or an event: what is asked is done at once, so nothing waits; `synchronize` is counted."""

    def __init__(self, *, non_blocking: bool = True, disable_timing: bool = True) -> None:
        self.ptr = _fakecuda.STREAM

    def synchronize(self) -> None:
        counts.update(["synchronizations"])

    def record(self, stream: _Any = None) -> None: ...

    def wait_event(self, event: _Any) -> None: ...


memory = {"free": 1 << 34}  # of the GPU, as far as a test says so: the fake counts none of its own


def get_default_memory_pool() -> _Any:
    return _Namespace(free_bytes=lambda: 0, used_bytes=lambda: 0, get_limit=lambda: 0)


cuda = _Namespace(
    get_current_stream=_Stream,
    Stream=_Stream,
    Event=_Stream,
    PinnedMemory=bytearray,
    PinnedMemoryPointer=lambda memory, offset: memory,
    **_fakecuda.bindings(counts),
    Device=_Device,
    runtime=_Namespace(
        CUDA_R_32F=0,
        CUDA_R_64F=1,
        getDeviceCount=lambda: 2,
        getDevice=lambda: _current[0],
        memGetInfo=lambda: (memory["free"], 1 << 34),
        getDeviceProperties=lambda device: {"name": b"Fake GPU"},
        runtimeGetVersion=lambda: 13000,
        driverGetVersion=lambda: 13000,
    ),
)
