"""A plan and a calibration as tables."""

from __future__ import annotations

from rich.table import Table

from openreml_dist.plan.cost import EVALUATIONS, Plan
from openreml_dist.plan.genotype_cost import GenotypePlan
from openreml_dist.plan.genotypes import GenotypeFit
from openreml_dist.plan.machine import Machine
from openreml_dist.plan.memory import FitSize


def head(plan: Plan, fit: FitSize) -> str:
    """What is planned, in a line."""
    layout, machine = plan.layout, plan.machine
    grid = layout.grid
    ranks = f"{grid.size:,} {'rank' if grid.size == 1 else 'ranks'}"
    return (
        f"{layout.size:,} samples, {fit.num_kernels} stored and {fit.num_generated} generated terms, "
        f"{fit.num_fixed} fixed effects; {ranks} of {machine.name}; grid {grid.rows} x {grid.columns}, "
        f"tiles of {layout.tile_size:,}"
    )


def memory_table(plan: Plan) -> Table:
    """GB of the fullest rank by part."""
    table = Table("memory of the fullest rank", "GB", box=None, header_style="bold")
    table.columns[1].justify = "right"
    for part, num_bytes in plan.memory.parts().items():
        table.add_row(part, f"{num_bytes / 1e9:.3f}")
    table.add_section()
    table.add_row("on the device", f"{plan.memory.on_device / 1e9:.3f}")
    table.add_row("with host memory", f"{plan.memory.total / 1e9:.3f}")
    return table


def time_table(plan: Plan) -> Table:
    """Seconds by phase, of an iteration and of typical fits."""
    machine = plan.machine
    title = "time, measured rates" if machine.measured else "time, modelled"
    table = Table(title, "seconds", box=None, header_style="bold")
    table.columns[1].justify = "right"
    table.add_row(f"read the stores once, at {machine.read_bytes / 1e9:.2g} GB/s a rank", f"{plan.read_seconds:.3g}")
    for phase, seconds in plan.phases.items():
        table.add_row(phase, f"{seconds:.3g}")
    table.add_row("one exact iteration", f"{plan.iteration_seconds:.3g}")
    table.add_section()
    for method, seconds in plan.fit_seconds.items():
        table.add_row(f"a fit with traces={method}, {sum(EVALUATIONS[method])} evaluations", f"{seconds:.3g}")
    return table


def genotype_head(fit: GenotypeFit, machine: Machine) -> str:
    """What is planned of genotypes, in a line."""
    ranks = f"{fit.ranks:,} {'rank' if fit.ranks == 1 else 'ranks'}"
    components = f"{fit.num_components} {'component' if fit.num_components == 1 else 'components'}"
    return (
        f"{fit.num_samples:,} samples, {fit.num_variants:,} SNPs, {components}, {fit.num_fixed} fixed effects, without GRMs; "
        f"{ranks} of {machine.name}, {fit.own:,} samples each"
    )


def genotype_memory_table(fit: GenotypeFit) -> Table:
    """GB of the fullest rank by part, at its fullest moment."""
    table = Table("memory of the fullest rank", "GB", box=None, header_style="bold")
    table.columns[1].justify = "right"
    for part, num_bytes in fit.memory.parts().items():
        table.add_row(part, f"{num_bytes / 1e9:.3f}")
    table.add_section()
    table.add_row("in all", f"{fit.memory.total / 1e9:.3f}")
    return table


def genotype_time_table(plan: GenotypePlan) -> Table:
    """Genotype vector-passes by phase, and seconds."""
    title = "an estimate, measured rates" if plan.machine.measured else "an estimate, modelled, not run on a GPU"
    table = Table(title, "passes", "seconds", box=None, header_style="bold")
    for column in table.columns[1:]:
        column.justify = "right"
    table.add_row(f"read the genotypes, at {plan.machine.read_bytes / 1e9:.2g} GB/s a rank", "", f"{plan.read_seconds:.3g}")
    table.add_row("a pass of one vector, of 32 at once", "1", f"{plan.pass_seconds:.3g}")
    for phase, passes in plan.passes.items():
        table.add_row(phase, f"{passes:,.0f}", "")
    table.add_section()
    table.add_row("a typical fit", f"{plan.num_passes:,.0f}", f"{plan.fit_seconds:.3g}")
    return table


def machine_table(machine: Machine) -> Table:
    """The rates of a machine."""
    table = Table(f"{machine.name}, {machine.threads} threads", "", box=None, header_style="bold")
    table.columns[1].justify = "right"
    rows = {
        "rank-b updates, float64": f"{machine.update_flops / 1e9:.1f} Gflop/s",
        "rank-b updates, float32": f"{machine.update_flops_single / 1e9:.1f} Gflop/s",
        "panels": f"{machine.panel_flops / 1e9:.1f} Gflop/s",
        "pivots": f"{machine.pivot_flops / 1e9:.1f} Gflop/s",
        "genotypes unpacked": _rate(machine.unpack_genotypes, "genotypes/s"),
        "products with genotypes, float32": _rate(machine.skinny_flops, "flop/s"),
        "memory": f"{machine.stream_bytes / 1e9:.1f} GB/s",
        "stores, from the page cache": f"{machine.read_bytes / 1e9:.2f} GB/s",
        "message": f"{machine.latency * 1e6:.0f} us + {1e9 / machine.link_bytes:.2f} s/GB",
    }
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def _rate(value: float | None, unit: str) -> str:
    return "not measured" if value is None else f"{value / 1e9:.2f} G{unit}"
