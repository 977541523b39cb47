"""How much memory a rank may still take, and the refusal of a fit that needs more."""

from __future__ import annotations

import math
import socket
from pathlib import Path

import torch

from openreml_dist.grid import ProcessGrid
from openreml_dist.layout import TileLayout
from openreml_dist.plan.memory import FitSize, check_memory

CGROUP = Path("/sys/fs/cgroup")


def refuse_if_too_large(grid: ProcessGrid, layout: TileLayout, fit: FitSize, ranks_on_host: int) -> None:
    """Raise on every rank if a rank has less memory than the fullest one needs. Collective.

    Raises:
        ConfigError: with the least number of ranks that would do.
    """
    available = min(grid.gather(available_bytes(grid.device, ranks_on_host)))
    check_memory(layout, fit, available, on_device=grid.device.type != "cpu")


def ranks_on_host(grid: ProcessGrid) -> int:
    """How many ranks share this rank's host. Collective."""
    hosts = grid.gather(socket.gethostname())
    return hosts.count(hosts[grid.rank])


def available_bytes(device: torch.device, ranks_on_host: int) -> float:
    """Memory that this rank may still take: of its accelerator, or its part of the host's; infinite where unknown. Local."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    return min(_free_on_host(), _free_in_cgroup()) / ranks_on_host


def _free_on_host() -> float:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:  # not Linux
        return math.inf
    return next((1024.0 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), math.inf)


def _free_in_cgroup() -> float:
    """What a scheduler or a container has left to this job (cgroup v2)."""
    try:
        path = CGROUP / Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines()[0].rpartition(":")[2].lstrip("/")
        limit, used = ((path / name).read_text(encoding="ascii").strip() for name in ("memory.max", "memory.current"))
    except (OSError, IndexError):
        return math.inf
    return math.inf if limit == "max" else max(0.0, float(limit) - float(used))
