"""What this run will take: the plan for its own model, ranks and machine, and the refusal of what does not fit."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from openreml_dist.errors import ConfigError
from openreml_dist.grid import ProcessGrid
from openreml_dist.layout import TileLayout, choose_tile_size
from openreml_dist.plan.available import ranks_on_host, refuse_if_too_large
from openreml_dist.plan.cost import Plan, PlannedFit
from openreml_dist.plan.genotype_cost import dense_flops, matrix_free_flops, plan_genotypes, relationship_flops
from openreml_dist.plan.genotypes import GenotypeFit
from openreml_dist.plan.load import remark
from openreml_dist.plan.machine import PRESETS, Machine, load_machine
from openreml_dist.plan.memory import FitSize, Memory

GPUS = {"H100": "h100-nvlink", "A100": "a100"}  # part of the name that a device gives itself -> preset


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
    sharing = ranks_on_host(grid)
    refuse_if_too_large(grid, planned.layout, planned.size, sharing)
    machine = _machine(grid, sharing) if grid.is_root else None
    return Forecast(planned.memory, None if machine is None else planned.on(machine))


def genotype_line(grid: ProcessGrid, fit: GenotypeFit, error: float) -> str:
    """What a fit of genotypes takes on these ranks, in words, once it is known to fit. Collective; the words are rank 0's.

    Args:
        grid: the ranks.
        fit: what is planned.
        error: Monte-Carlo error, in standard errors.
    """
    sharing = ranks_on_host(grid)
    machine = _machine(grid, sharing) if grid.is_root else None
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
    )


@dataclass(frozen=True)
class Choice:
    """Of an engine for genotypes: whether it is the exact one, and why, in words."""

    is_exact: bool
    words: str


def choose_engine(grid: ProcessGrid, fit: GenotypeFit, error: float, available: float) -> Choice:
    """Tiles of relationships where these take less time than probes, and fit into memory. Collective.

    By the rates of this machine where they are known, else by flops alone.

    Args:
        grid: the ranks.
        fit: of the matrix-free engine.
        error: its Monte-Carlo error, in standard errors.
        available: bytes of a rank.
    """
    sharing = ranks_on_host(grid)
    machine = _machine(grid, sharing) if grid.is_root else None
    layout = TileLayout(fit.num_samples, choose_tile_size(fit.num_samples, grid.shape, grid.device.type != "cpu"), grid.shape)
    size = FitSize(num_kernels=fit.num_components, num_fixed=fit.num_fixed, cache_bytes=fit.cache_bytes).with_traces("auto")
    dense = PlannedFit(layout, size)
    packed = float(fit.num_variants) * fit.num_samples / 4
    made = None if machine is None else plan_genotypes(fit, machine, error)
    if machine is None or made is None:
        exact, sampled = dense_flops(fit), matrix_free_flops(fit, error)
        compared = f"{exact:.1e} flops with relationships of {fit.num_samples:,} samples, {sampled:.1e} with products alone"
    else:
        exact = relationship_flops(fit) / machine.update_flops_single / grid.shape.size + dense.on(machine).fit_seconds["auto"]
        sampled = made.fit_seconds
        compared = f"about {_duration(exact)} with relationships of {fit.num_samples:,} samples, {_duration(sampled)} without"
    fits = dense.memory.needed(grid.device.type != "cpu") + packed <= available
    is_exact = fits and exact <= sampled
    if is_exact:
        words = f"dense, exact: {compared}"
    else:
        words = f"stochastic: {compared}" if fits else f"stochastic: relationships of {fit.num_samples:,} samples do not fit"
    found = grid.broadcast_object(Choice(is_exact, words) if grid.is_root else None)
    assert found is not None
    return found


def _machine(grid: ProcessGrid, sharing: int) -> Machine | None:
    """The rates of this machine as this rank sees it, if they are known here: hosts may differ in that. Local."""
    if grid.device.type == "cuda":
        name = torch.cuda.get_device_name(grid.device)
        preset = next((preset for part, preset in GPUS.items() if part in name), None)
        return None if preset is None else PRESETS[preset]
    try:
        machine = load_machine("this")
    except ConfigError:
        return None
    return machine.shared_by(sharing, torch.get_num_threads())


def _duration(seconds: float) -> str:
    """Two digits, in the unit that a person would use."""
    for unit, length in (("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.2g} {unit}"
    return f"{seconds:.2g} s"
