"""Run compiled functions and copies one after another by one call, so that nothing between them is left to Python.

A list of 8-byte integers says what to run, ENTRY numbers an entry. An entry is a function with its table, as
`xpnet.engines.llvm.run` prints it, or a copy. The first thread runs one list; the others then wait for the next one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from xpnet.engines.llvm.waiting import wait_text

HEAD = 4  # number of entries (END: no list will follow), their address, those of the threads' flags and `pause`
END = -1
ENTRY = 4  # address of the function (0: a copy), of its table, its threads (a copy: 4-byte words), a copy's target


def sequence_text(threads: int) -> str:
    """Print the function `run(head, thread)` for that number of threads, which wait for each other after each entry.

    The first thread returns at the end of the list, the others at END.
    """
    waits = "call void @wait(ptr %flags, i64 %thread, ptr %pause)" if threads > 1 else ""
    return _SEQUENCE.format(wait=waits, entry=ENTRY) + (wait_text(threads) if threads > 1 else "")


def call_entries(function: int, tables: np.ndarray, threads: int) -> np.ndarray:
    """Return entries (n, ENTRY) that call a function with each of these tables (n, width)."""
    entries = np.zeros((len(tables), ENTRY), np.int64)
    entries[:, 0], entries[:, 2] = function, threads
    entries[:, 1] = tables.ctypes.data + tables.strides[0] * np.arange(len(tables))
    return entries


def copy_entries(source: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return entries (n, ENTRY) that copy an array to each row of the targets (n, its size)."""
    entries = np.zeros((len(targets), ENTRY), np.int64)
    entries[:, 1], entries[:, 2] = source.ctypes.data, source.nbytes // 4
    entries[:, 3] = targets.ctypes.data + targets.strides[0] * np.arange(len(targets))
    return entries


def interleaved(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Return the list (n, ENTRY) that runs the first entry of each part, then the second of each, and so on."""
    return np.stack(parts, axis=1).reshape(-1, ENTRY)


_SEQUENCE = """\
define void @run(ptr %head, i64 %thread) nounwind "no-builtins" {{
entry:
  %list_at = getelementptr inbounds i64, ptr %head, i64 1
  %flags_at = getelementptr inbounds i64, ptr %head, i64 2
  %flags = load ptr, ptr %flags_at
  %pause_at = getelementptr inbounds i64, ptr %head, i64 3
  %pause = load ptr, ptr %pause_at
  br label %start
start:
  {wait}
  %n = load i64, ptr %head
  %list = load ptr, ptr %list_at
  %is_end = icmp slt i64 %n, 0
  br i1 %is_end, label %over, label %next
next:
  %i = phi i64 [ 0, %start ], [ %following, %come ]
  %is_left = icmp slt i64 %i, %n
  br i1 %is_left, label %begin, label %done
begin:
  %place = mul nsw i64 %i, {entry}
  %function_at = getelementptr inbounds i64, ptr %list, i64 %place
  %function = load ptr, ptr %function_at
  %table_at = getelementptr inbounds i64, ptr %function_at, i64 1
  %table = load ptr, ptr %table_at
  %size_at = getelementptr inbounds i64, ptr %function_at, i64 2
  %size = load i64, ptr %size_at
  %target_at = getelementptr inbounds i64, ptr %function_at, i64 3
  %target = load ptr, ptr %target_at
  %is_copy = icmp eq ptr %function, null
  br i1 %is_copy, label %who, label %whether
whether:
  %takes_part = icmp slt i64 %thread, %size
  br i1 %takes_part, label %call, label %come
call:
  call void %function(ptr %table, i64 %thread)
  br label %come
who:
  %is_first = icmp eq i64 %thread, 0
  %is_some = icmp sgt i64 %size, 0
  %copies = and i1 %is_first, %is_some
  br i1 %copies, label %copy, label %come
copy:
  %word = phi i64 [ 0, %who ], [ %later, %copy ]
  %from = getelementptr inbounds i32, ptr %table, i64 %word
  %value = load i32, ptr %from, align 4
  %to = getelementptr inbounds i32, ptr %target, i64 %word
  store i32 %value, ptr %to, align 4
  %later = add nsw i64 %word, 1
  %are_more = icmp slt i64 %later, %size
  br i1 %are_more, label %copy, label %come
come:
  {wait}
  %following = add nsw i64 %i, 1
  br label %next
done:
  %returns = icmp eq i64 %thread, 0
  br i1 %returns, label %over, label %start
over:
  ret void
}}
"""
