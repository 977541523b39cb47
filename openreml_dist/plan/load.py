"""Cores that other programs hold while something is measured, from the kernel's own accounts.

A time measured beside other programs is not that of the machine. All busy time of the cores that this process may use, less the
time of this process and of its children that have ended, is that of others.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

STAT = Path("/proc/stat")
NOTICED = 0.15  # cores: above what an idle system does by itself
BUSY_FIELDS = (0, 1, 2, 5, 6, 7)  # user, nice, system, irq, softirq, steal; guests are within user


class OtherLoad:
    """Watches from when it is made. Local.

    A child counts as ours once it was waited for, and then with all of its time: start children after the watch, and let them
    end before it is read.
    """

    def __init__(self) -> None:
        self._begun, self._busy, self._own = time.perf_counter(), busy_seconds(), own_seconds()

    def cores(self) -> float | None:
        """Cores held by others, on average since the watch began; None where the system does not say (macOS)."""
        busy, seconds = busy_seconds(), time.perf_counter() - self._begun
        if busy is None or self._busy is None or seconds <= 0:
            return None
        return max(0.0, (busy - self._busy - (own_seconds() - self._own)) / seconds)


def busy_seconds(stat: Path = STAT) -> float | None:
    """Seconds that the cores open to this process have worked since the system began, for whomever."""
    try:
        lines = [line.split() for line in stat.read_text(encoding="ascii").splitlines() if line.startswith("cpu")]
        mine = {f"cpu{core}" for core in usable_cores()}
        ticks = sum(int(fields[1 + k]) for fields in lines if fields[0] in mine for k in BUSY_FIELDS)
    except (OSError, ValueError, IndexError):
        return None
    return ticks / os.sysconf("SC_CLK_TCK") if ticks else None  # a sandbox may show zeros


def own_seconds() -> float:
    """Seconds of this process and of the children that it has waited for."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


def remark(cores: float | None) -> str | None:
    """What to say of a measurement beside other programs; None where they held next to nothing or it is not known."""
    if cores is None or cores < NOTICED:
        return None
    return f"other programs held {cores:.1f} of the {len(usable_cores())} cores"


def usable_cores() -> frozenset[int]:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))
