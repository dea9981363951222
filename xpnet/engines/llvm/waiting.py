"""Print the function in which threads wait for each other: they look for a while, then sleep until they are woken.

The flags are FLAG 8-byte integers a thread, a cache line. The first counts how often the thread has come, the second
how many sleep until it comes again. The third of the first thread is the number of Linux's system call futex, 0 where
there is none: then the processor is offered to others.
"""

from __future__ import annotations

import ctypes
import platform
import sys
import time
from typing import Any

import numpy as np

FLAG = 8  # 8-byte elements from one thread's flag to the next: a cache line
SPINS = 20_000  # looks at another thread's flag before sleeping, some 20 microseconds
FUTEX = {"x86_64": 202, "aarch64": 98}  # number of the call, by machine


def wait_text(threads: int) -> str:
    """Print the function `wait(flags, thread, pause)`, in which each of these threads waits until all have come."""
    return _WAIT.format(threads=threads, flag=FLAG, spins=SPINS)


def new_flags(threads: int) -> np.ndarray:
    """Return the flags of threads of which none has come."""
    flags = np.zeros(FLAG * threads, np.int64)
    flags[2] = FUTEX.get(platform.machine(), 0) if sys.platform == "linux" else 0
    return flags


def pause_function(flags: np.ndarray) -> Any:
    """Return the C function to wait by: `syscall` where threads can sleep, else one that offers the processor."""
    try:
        process = ctypes.CDLL(None)
        return process.syscall if flags[2] else process.sched_yield
    except (AttributeError, OSError, TypeError):  # not a POSIX system
        return ctypes.CFUNCTYPE(ctypes.c_int)(_offer)


def address_of(function: Any) -> int:
    """Return the address of a `pause_function`."""
    return ctypes.cast(function, ctypes.c_void_p).value or 0


def _offer() -> int:
    time.sleep(0)
    return 0


# A thread counts up its flag, wakes those that sleep until it does, and looks at the others' until they have come as
# far. The fence keeps the count before the look at the sleepers: one who counts itself later finds the flag changed.
_WAIT = """\
define internal void @wait(ptr %flags, i64 %thread, ptr %pause) noinline nounwind {{
entry:
  %call_at = getelementptr inbounds i64, ptr %flags, i64 2
  %call = load i64, ptr %call_at
  %can_sleep = icmp ne i64 %call, 0
  %place = mul nsw i64 %thread, {flag}
  %mine = getelementptr inbounds i64, ptr %flags, i64 %place
  %before = load i64, ptr %mine
  %now = add i64 %before, 1
  store atomic i64 %now, ptr %mine release, align 8
  fence seq_cst
  %sleepers_at = getelementptr inbounds i64, ptr %mine, i64 1
  %sleepers = load atomic i64, ptr %sleepers_at monotonic, align 8
  %is_awaited = icmp ne i64 %sleepers, 0
  br i1 %is_awaited, label %wake, label %others
wake:
  %woken = call i64 (i64, ...) %pause(i64 %call, ptr %mine, i64 129, i64 2147483647)
  br label %others
others:
  %other = phi i64 [ 0, %entry ], [ 0, %wake ], [ %next, %come ]
  %its_place = mul nsw i64 %other, {flag}
  %its = getelementptr inbounds i64, ptr %flags, i64 %its_place
  br label %look
look:
  %looks = phi i64 [ 0, %others ], [ %more, %again ], [ 0, %offer ], [ 0, %sleep ]
  %stands = load atomic i64, ptr %its acquire, align 8
  %is_behind = icmp slt i64 %stands, %now
  br i1 %is_behind, label %again, label %come
again:
  %more = add i64 %looks, 1
  %is_long = icmp sgt i64 %more, {spins}
  br i1 %is_long, label %rest, label %look
rest:
  br i1 %can_sleep, label %sleep, label %offer
offer:
  %ignored = call i32 %pause()
  br label %look
sleep:
  %counted_at = getelementptr inbounds i64, ptr %its, i64 1
  %counted = atomicrmw add ptr %counted_at, i64 1 seq_cst
  %slept = call i64 (i64, ...) %pause(i64 %call, ptr %its, i64 128, i64 %stands, ptr null)
  %left = atomicrmw sub ptr %counted_at, i64 1 seq_cst
  br label %look
come:
  %next = add i64 %other, 1
  %are_more = icmp slt i64 %next, {threads}
  br i1 %are_more, label %others, label %over
over:
  ret void
}}
"""
