"""Choose how many threads run a compiled step, by counts of its Program and by the steps of a call, never by a clock.

Two threads halve the products, but each then reads what the other has written, a cache line at a time: activations and
their gradients, and weights that the other has updated. Wide batches of narrow layers are faster on one.
"""

from __future__ import annotations

import os

from xpnet.backend import Backend
from xpnet.cores import usable_cores
from xpnet.engines.blas import numpy_gemm
from xpnet.program.calls import Buffer, Call, Program

# Measured on two cores of an AMD EPYC, on which the choice was the faster one for 7 of 7 steps of 2 to 57 MFLOP.
FLOPS_PER_SECOND = 5e10  # of a compiled step on one thread
LINE_SECONDS, LINE_BYTES = 60e-9, 64  # to read a cache line that another core has written
CALL_SECONDS = 250e-6  # of a call: until the other thread has woken
MANY = 10**6  # steps of a call, where their number is not known
MOST_FLOPS = 2e8  # of a step: beyond, NumPy's products use both cores


def threads_for(program: Program, backend: Backend, steps: int) -> int:
    """Return the number of threads that should run a step: two where they pay and have cores.

    steps: of a call of the engine.
    """
    flops = program.flops
    exchanged = sum(exchanged_elements(program, call) for call in program.calls if call.word == "matmul")
    lines = exchanged * backend.dtype.itemsize / LINE_BYTES
    gained = steps * (0.5 * flops / FLOPS_PER_SECOND - lines * LINE_SECONDS)
    if gained < CALL_SECONDS or flops > MOST_FLOPS or not hasattr(os, "sched_getaffinity") or usable_cores() < 2:
        return 1
    gemm = numpy_gemm(backend.dtype)
    return 1 if gemm is None or gemm.own_threads() < 2 else 2  # a user who limits BLAS to one thread wants one


def exchanged_elements(program: Program, product: Call) -> float:
    """Return how many elements one of two threads reads in a product that the other has written: half of them.

    Samples are gathered by each thread for itself.
    """
    left, right = product.operands

    def size(buffer: Buffer) -> int:
        gathered = any(buffer.place == other.place for _, other in program.gathers)
        return 0 if gathered else buffer.size

    def is_owned(buffer: Buffer) -> bool:
        return buffer.kind == "float" and buffer.offset < program.n_owned

    if not is_owned(right.buffer):  # dW = dZ A^T, over the samples of both
        return (size(left.buffer) + size(right.buffer)) / 2
    weights = right.buffer.size
    if right.transposed:  # Z = W A: threads share the samples, or the features
        weights = min(weights, size(left.buffer) + product.out.buffer.size)
    return weights / 2
