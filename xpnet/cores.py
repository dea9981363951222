"""The processor's cores that this process may use, and the memory of the machine."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")  # of processes, on Linux; a container sees its own


def usable_cores() -> int:
    """Return the cores that this process is bound to, or fewer, as its group has time for; 1 at least."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota(GROUPS)
    return cores if quota is None else max(1, min(cores, int(quota)))


def memory() -> int | None:
    """Return this machine's memory in bytes, or None where the system does not say."""
    if not hasattr(os, "sysconf"):  # not a POSIX system
        return None
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):  # one that does not know
        return None


def _quota(folder: Path) -> float | None:
    """Return how many cores' time the group has, None without a limit."""
    with suppress(OSError, ValueError, ZeroDivisionError):  # version 2 of control groups: "200000 100000" or "max ..."
        quota, period = (folder / "cpu.max").read_text(encoding="ascii").split()
        return None if quota == "max" else int(quota) / int(period)
    with suppress(OSError, ValueError, ZeroDivisionError):  # version 1: -1 is no limit
        quota, period = (
            (folder / "cpu" / f"cpu.cfs_{name}_us").read_text(encoding="ascii") for name in ("quota", "period")
        )
        return int(quota) / int(period) if int(quota) > 0 else None
    return None
