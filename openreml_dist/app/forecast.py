"""What this run will take: the plan for its own model, ranks and machine, and the refusal of what does not fit."""

from __future__ import annotations

import socket
from dataclasses import dataclass

import torch

from openreml_dist.errors import ConfigError
from openreml_dist.grid import ProcessGrid
from openreml_dist.layout import TileLayout, choose_tile_size
from openreml_dist.plan.available import refuse_if_too_large
from openreml_dist.plan.cost import Plan, PlannedFit, plan
from openreml_dist.plan.genotype_cost import GenotypePlan, plan_genotypes
from openreml_dist.plan.genotypes import GenotypeFit
from openreml_dist.plan.load import remark
from openreml_dist.plan.machine import PRESETS, Machine, load_machine
from openreml_dist.plan.memory import FitSize, Memory

GPUS = {"H100": "h100-nvlink", "A100": "a100"}  # part of the name that a device gives itself -> preset
WORTH_A_HINT = 0.5  # of the time, for what needs two commands more


@dataclass(frozen=True)
class Forecast:
    """What a run will take.

    Attributes:
        memory: on the fullest rank.
        plan: with seconds; None where the rates of the machine are not known, and on other ranks than 0.
    """

    memory: Memory
    plan: Plan | None

    def line(self, traces: str) -> str:
        """In words, for a method of traces."""
        parts = ", ".join(f"{name} {size / 1e9:.2f}" for name, size in self.memory.parts().items() if size >= 5e6)
        needed = f"plan: {self.memory.total / 1e9:.2f} GB on the fullest rank{f' ({parts})' if parts else ''}"
        if self.plan is None:
            return f"{needed}; openreml-plan mode=calibrate measures this machine for a forecast of time"
        busy = remark(self.plan.machine.other_cores)
        return (
            f"{needed}; about {_duration(self.plan.iteration_seconds)} an exact iteration, "
            f"{_duration(self.plan.fit_seconds[traces])} a fit; "
            f"stores are read at {self.plan.machine.read_bytes / 1e9:.2g} GB/s a rank"
            + (f" (rates measured while {busy}: openreml-plan mode=calibrate measures again)" if busy else "")
        )


def forecast(grid: ProcessGrid, planned: PlannedFit) -> Forecast:
    """What a fit takes on these ranks. Collective.

    Raises:
        ConfigError: on every rank, if the fullest rank needs more memory than a rank has.
    """
    hosts = grid.gather(socket.gethostname())
    ranks_on_host = hosts.count(hosts[grid.rank])
    refuse_if_too_large(grid, planned.layout, planned.size, ranks_on_host)
    machine = _machine(grid, ranks_on_host) if grid.is_root else None
    return Forecast(planned.memory, None if machine is None else planned.on(machine))


def genotype_line(grid: ProcessGrid, fit: GenotypeFit, error: float, instead: str) -> str:
    """What a fit of genotypes takes on these ranks, in words, once it is known to fit. Collective; the words are rank 0's.

    Args:
        grid: the ranks.
        fit: what is planned.
        error: Monte-Carlo error, in standard errors.
        instead: the commands of what may be cheaper.
    """
    hosts = grid.gather(socket.gethostname())
    machine = _machine(grid, hosts.count(hosts[grid.rank])) if grid.is_root else None
    memory = fit.memory
    parts = ", ".join(f"{name} {size / 1e9:.2f}" for name, size in memory.parts().items() if size >= 5e6)
    needed = f"plan: {memory.total / 1e9:.2f} GB on the fullest rank{f' ({parts})' if parts else ''}"
    made = None if machine is None else plan_genotypes(fit, machine, error)
    if machine is None or made is None:
        return f"{needed}; openreml-plan mode=calibrate measures this machine for a forecast of time"
    busy, modelled = remark(machine.other_cores), "" if machine.measured else ", modelled, not run on a GPU"
    return (
        f"{needed}; {_duration(made.pass_seconds)} a genotype vector-pass, roughly {made.num_passes:,.0f} of them, "
        f"{_duration(made.fit_seconds)} a fit{modelled}"
        + (f" (rates measured while {busy}: openreml-plan mode=calibrate measures again)" if busy else "")
        + _cheaper(made, grid, instead)
    )


def _cheaper(made: GenotypePlan, grid: ProcessGrid, instead: str) -> str:
    """A hint where the GRM of so few samples, made and fitted by the same ranks, take less time and fit into memory."""
    fit, machine, shape = made.fit, made.machine, grid.shape
    if fit.num_components > 1:  # of any partition
        return ""
    size = FitSize(num_kernels=fit.num_components, num_fixed=fit.num_fixed, cache_bytes=fit.cache_bytes)
    layout = TileLayout(fit.num_samples, choose_tile_size(fit.num_samples, shape, machine.cores == 0), shape)
    dense = plan(layout, size.with_traces("auto"), machine)
    making = fit.num_variants * float(fit.num_samples) ** 2 / machine.update_flops_single / shape.size  # half of 2n²m
    seconds = making + dense.fit_seconds["auto"]
    available = machine.memory_bytes / (shape.size if machine.cores else 1)
    if seconds > WORTH_A_HINT * made.fit_seconds or dense.memory.needed(machine.cores == 0) > available:
        return ""
    return f". A GRM of so few samples may be faster, about {_duration(seconds)} with its making, and is exact; {instead}"


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


def _duration(seconds: float) -> str:
    """Two digits, in the unit that a person would use."""
    for unit, length in (("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.2g} {unit}"
    return f"{seconds:.2g} s"
