"""Predictions by machine code: the forward pass of many samples by one call, in blocks that stay in cache.

A `ForwardCode` is what threads can share, a `Forward` what each of them needs for itself.
"""

from __future__ import annotations

import ctypes
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np

from xpnet.backend import Backend
from xpnet.engines.blas import Gemm, numpy_gemm, products_on
from xpnet.engines.llvm.calling import Function, function_at
from xpnet.engines.llvm.engine import LEAST_FLOPS
from xpnet.engines.llvm.native import Native, kept, vector_bytes
from xpnet.engines.llvm.run import TABLE, ProgramText, program_text
from xpnet.engines.llvm.step import Library
from xpnet.engines.memory import Memory
from xpnet.program.calls import Program

FEW_NUMBERS = 1 << 14  # of rows that are copied rather than read where they lie
CALL_SAMPLES = 1 << 14  # of a call at most, so that Ctrl-C is not kept waiting
BLOCK_LEAST_FLOPS = 3e8  # of a product of a block of 256 samples beyond which NumPy's is faster than compiled code


def forward_text(program: Program, backend: Backend) -> ProgramText | None:
    """Return the text of an `inference_program` for this machine; None if its calls depend on the number of samples.

    Raises CannotPrint for unsupported calls, which only custom kernels contain.
    """
    gemm = numpy_gemm(backend.dtype)
    # Of one sample, NumPy's product takes longer than compiled code.
    least_flops = LEAST_FLOPS if program.capacity == 1 else BLOCK_LEAST_FLOPS
    library = None if gemm is None else Library(gemm.integer_bits, least_flops)
    text = program_text(
        program, backend.dtype, {"X": None}, library=library, in_place=True, vector_bytes=vector_bytes()
    )
    depends = text.numbers or (program.capacity > 1 and text.sizes.is_fixed)
    return None if depends else text


@dataclass(frozen=True)
class ForwardCode:
    """The machine code of a forward pass.

    program: an `inference_program` with one output.  gemm: NumPy's product, None if it is not found.
    calls_blas: whether the code calls it.  flops: of one sample.
    """

    program: Program
    extra_floats: int
    native: Native
    gemm: Gemm | None
    calls_blas: bool
    function: Function
    flops: float

    @property
    def n_outputs(self) -> int:
        """Number of outputs of a sample."""
        return self.program.buffers[self.program.outputs[0]].shape[0]

    @classmethod
    def of(cls, program: Program, backend: Backend, text: ProgramText) -> ForwardCode:
        """Return the code of a text from `forward_text`, from the cache or compiled."""
        gemm, native = numpy_gemm(backend.dtype), kept(text.text)
        function, flops = function_at(native.address), program.flops
        return cls(program, text.extra_floats, native, gemm, text.calls_blas, function, flops / program.capacity)


class Forward:
    """Runs a `ForwardCode` for one user at a time, with the weights as they are.

    owned: the network's flat vector.  n_few: rows that `few` takes at most.
    """

    def __init__(self, code: ForwardCode, backend: Backend, owned: Any) -> None:
        program, dtype = code.program, backend.dtype
        self.memory = Memory(program, backend, owned, None, code.extra_floats)
        self._function, self._gemm = code.function, code.gemm if code.calls_blas else None
        self._code = code  # keeps the machine code in memory
        n_inputs = program.gathers[0][1].shape[0]
        self.n_few = min(program.capacity, max(1, FEW_NUMBERS // n_inputs))
        self._samples = np.empty((self.n_few, n_inputs), dtype)
        self._results = np.empty((self.n_few, code.n_outputs), dtype)
        table = {"T": owned, "M": self.memory.floats, "U": self.memory.uints}
        addresses = {name: array.ctypes.data for name, array in table.items()}
        addresses["gemm"] = 0 if code.gemm is None else code.gemm.address
        ends = [self._samples.ctypes.data, self._results.ctypes.data]
        self._few = np.array([addresses.get(name, 0) for name in TABLE] + ends, np.int64)
        self._many = self._few.copy()
        self._few_address, self._many_address = self._few.ctypes.data, self._many.ctypes.data

    def few(self, rows: np.ndarray) -> np.ndarray:
        """Return the results (n, n_outputs) of `n_few` rows (n, n_inputs) at most, which it copies."""
        n = len(rows)
        self._samples[:n] = rows
        self._few[_N_SAMPLES] = n
        if self._gemm is None:  # a context that does nothing takes half a microsecond of the six of a row
            self._function(self._few_address, 0)
        else:
            with self._products():
                self._function(self._few_address, 0)
        return self._results[:n].copy()

    def many(self, rows: np.ndarray, results: np.ndarray) -> None:
        """Write the results (n, n_outputs), C-contiguous, of any number of rows (n, n_inputs)."""
        table = self._many
        with self._products():
            for start in range(0, len(rows), CALL_SAMPLES):
                part = rows[start : start + CALL_SAMPLES]
                if not (part.flags.c_contiguous and part.flags.aligned):
                    part = np.require(part, None, ["C", "A"])
                table[_N_SAMPLES], table[_SAMPLES] = len(part), _address(part)
                table[_RESULTS] = _address(results[start:])
                self._function(self._many_address, 0)

    def _products(self) -> AbstractContextManager[None]:
        # One thread: BLAS would share the small products of a block among its threads.
        return _NOTHING if self._gemm is None else products_on(self._gemm, 1)


def _address(array: np.ndarray) -> int:
    """Return where a C-contiguous array lies; `array.ctypes` takes five times as long."""
    if not array.flags.writeable:
        return int(array.ctypes.data)
    return ctypes.addressof(ctypes.c_char.from_buffer(array.data))


_NOTHING = nullcontext()
_N_SAMPLES, _SAMPLES, _RESULTS = TABLE.index("n_samples"), len(TABLE), len(TABLE) + 1
