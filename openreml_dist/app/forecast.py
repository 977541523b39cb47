"""What this run will take: the plan for its own model, ranks and machine, and the refusal of what does not fit."""

from __future__ import annotations

import math
import socket
from pathlib import Path

import torch

from openreml_dist.app.run import Run
from openreml_dist.errors import ConfigError
from openreml_dist.grid import ProcessGrid
from openreml_dist.layout import TileLayout
from openreml_dist.plan.cost import Plan, plan
from openreml_dist.plan.load import remark
from openreml_dist.plan.machine import PRESETS, Machine, load_machine
from openreml_dist.plan.memory import Model, check_memory, memory

GPUS = {"H100": "h100-nvlink", "A100": "a100"}  # part of the name that a device gives itself -> preset
CGROUP = Path("/sys/fs/cgroup")


def forecast(run: Run, layout: TileLayout, model: Model) -> list[str]:
    """Lines that say what the run will cost, on rank 0. Collective.

    Raises:
        ConfigError: on every rank, if the fullest rank needs more memory than a rank has.
    """
    hosts = run.grid.gather(socket.gethostname())
    ranks_on_host = hosts.count(hosts[run.grid.rank])
    refuse_if_too_large(run.grid, layout, model, ranks_on_host)
    if not run.grid.is_root:
        return []
    needed = memory(layout, model)
    run.planned_memory_bytes = needed.total
    parts = ", ".join(f"{name} {num_bytes / 1e9:.2f}" for name, num_bytes in needed.parts().items() if num_bytes >= 5e6)
    lines = [f"plan: {needed.total / 1e9:.2f} GB on the fullest rank{f' ({parts})' if parts else ''}"]
    machine = _machine(run.grid, ranks_on_host)
    if machine is None:
        lines[0] += "; openreml-plan mode=calibrate measures this machine for a forecast of time"
    else:
        lines[0] += "; " + _time(plan(layout, model, machine), run.settings.solver.traces)
    return lines


def _time(made: Plan, traces: str) -> str:
    busy = remark(made.machine.other_cores)
    return (
        f"about {_duration(made.iteration_seconds)} an exact iteration, {_duration(made.fit_seconds[traces])} a fit; "
        f"stores are read at {made.machine.read_bytes / 1e9:.2g} GB/s a rank"
        + (f" (as measured by openreml-plan mode=calibrate while {busy}: measure again when nothing else runs)" if busy else "")
    )


def _duration(seconds: float) -> str:
    """Two digits, in the unit that a person would use."""
    for unit, length in (("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.2g} {unit}"
    return f"{seconds:.2g} s"


def _machine(grid: ProcessGrid, ranks_on_host: int) -> Machine | None:
    """The rates of this machine as this rank sees it, if they are known here: hosts may differ in that. Local."""
    if grid.device.type == "cuda":
        name = torch.cuda.get_device_name(grid.device)
        preset = next((preset for part, preset in GPUS.items() if part in name), None)
        return None if preset is None else PRESETS[preset]
    try:
        machine = load_machine("this")
    except ConfigError:
        return None
    return machine.shared_by(ranks_on_host, torch.get_num_threads())


def refuse_if_too_large(grid: ProcessGrid, layout: TileLayout, model: Model, ranks_on_host: int) -> None:
    """Raise on every rank if a rank has less memory than the fullest one needs. Collective.

    Raises:
        ConfigError: with the least number of ranks that would do.
    """
    available = min(grid.gather(available_bytes(grid.device, ranks_on_host)))
    check_memory(layout, model, available, on_device=grid.device.type != "cpu")


def available_bytes(device: torch.device, ranks_on_host: int) -> float:
    """Memory that this rank may still take: of its accelerator, or its share of the host's; infinite where unknown. Local."""
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
