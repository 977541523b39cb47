"""``openreml-plan``: what a fit will take, before it is started; and the rates of this machine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from openreml_dist.app.cli import compose, exit_with
from openreml_dist.app.given import always, refuse_unread, rules_for
from openreml_dist.app.report.plan_tables import (
    genotype_head,
    genotype_memory_table,
    genotype_time_table,
    head,
    machine_table,
    memory_table,
    time_table,
)
from openreml_dist.config import PlanConfig
from openreml_dist.errors import ConfigError
from openreml_dist.layout import GridShape, TileLayout, choose_tile_size
from openreml_dist.plan.batch import BatchJob
from openreml_dist.plan.cost import EVALUATIONS, plan
from openreml_dist.plan.genotype_cost import plan_genotypes
from openreml_dist.plan.genotypes import GenotypeFit
from openreml_dist.plan.load import remark
from openreml_dist.plan.machine import PRESETS, Machine, as_json, calibration_file, load_machine
from openreml_dist.plan.memory import FitSize, check_memory


def _measured(_: PlanConfig) -> str | None:
    return "mode=calibrate measures this machine, for fits of any size"


def _on_gpu(settings: PlanConfig) -> str | None:
    is_gpu = settings.machine in PRESETS and not PRESETS[settings.machine].cores
    return f"a rank of {settings.machine} is a GPU, which has neither threads nor memory to share" if is_gpu else None


def _grms(settings: PlanConfig) -> str | None:
    return None if settings.num_kernels or settings.genotypes else "there are no stores to read (num_kernels=0)"


def _matrices(settings: PlanConfig) -> str | None:
    return None if settings.genotypes is None else "a fit of genotypes has no matrices of all samples; leave one of the two out"


def _of_genotypes(settings: PlanConfig) -> str | None:
    return None if settings.genotypes is not None else "it is one of genotypes=NxM, a fit without GRMs"


def _nodes(settings: PlanConfig) -> str | None:
    return _on_gpu(settings) and "GPUs are put on nodes by format=sbatch" if settings.format == "table" else None


FORMATS = ("table", "sbatch")
GPUS_OF_A_NODE, CPUS_OF_A_GPU = 4, 8
OF_MATRICES = ("num_samples", "num_kernels", "num_generated", "traces", "tile_size", "grid.rows", "grid.columns")


RULES = rules_for(
    PlanConfig(),
    {
        **dict.fromkeys(OF_MATRICES, _matrices),
        **dict.fromkeys(("num_components", "mcse"), _of_genotypes),
        **dict.fromkeys(("kernel_cache_gb", "read_gb_per_second"), _grms),
        "threads": _on_gpu,
        "ranks_per_node": _nodes,
        "grid.share_memory": lambda settings: _matrices(settings) or _on_gpu(settings),
        "chunk_size": lambda settings: _matrices(settings) or _grms(settings),
    },
)
RULES_OF_CALIBRATION = {**dict.fromkeys(RULES, _measured), "mode": always}


def main() -> None:
    """Entry point."""
    exit_with("plan", lambda: compose("plan", PlanConfig, run))


def run(settings: PlanConfig) -> int:
    """Calibrate, or print a plan.

    Returns:
        0; a plan that does not fit is an error.
    """
    if settings.mode not in ("plan", "calibrate"):
        raise ConfigError(f"mode: {settings.mode!r} is neither plan nor calibrate")
    if settings.format not in FORMATS:
        raise ConfigError(f"format: {settings.format!r} is neither {' nor '.join(FORMATS)}")
    refuse_unread(settings, PlanConfig(), RULES_OF_CALIBRATION if settings.mode == "calibrate" else RULES)
    if settings.mode == "calibrate":
        return _calibrate()
    return _plan(settings) if settings.genotypes is None else _plan_genotypes(settings)


def _calibrate() -> int:
    from openreml_dist.app.report.run_directory import write_text
    from openreml_dist.app.report.terminal import Terminal
    from openreml_dist.plan.calibrate import calibrate

    terminal, path = Terminal(0), calibration_file()
    path.parent.mkdir(parents=True, exist_ok=True)  # before the measurement, which is lost where it cannot be kept
    machine = calibrate(_read_a_store, lambda what: terminal.say(f"measuring: {what}"))
    write_text(path, as_json(machine))
    terminal.show(machine_table(machine))
    terminal.say("", f"kept for openreml-plan and openreml-fit: {path}")
    if busy := remark(machine.other_cores):
        terminal.say(f"warning: {busy} meanwhile, and forecasts will say too much; measure again when nothing else runs")
    return 0


def _read_a_store(folder: Path) -> Iterator[int]:
    """Write a GRM of 15 chunks, then read it, from the page cache."""
    import numpy as np

    from openreml_dist.store.grm import lower_tiles, open_grm
    from openreml_dist.store.grm_writer import create_grm

    n, chunk = 5000, 1000
    ids = np.arange(n).astype(str)
    path = str(folder / "calibrate.grm.zarr")
    writer = create_grm(path, family_id=ids, sample_id=ids, chunk_size=chunk, settings={}, attributes={})
    tile = np.random.default_rng(1).standard_normal((chunk, chunk), dtype=np.float32)  # hard to compress, as a GRM is
    for i, j in writer.unfinished_tiles():
        writer.write_tile(i, j, tile + tile.T if i == j else tile)
    writer.finalise()
    store = open_grm(path)
    for i, j in sorted(lower_tiles(n, chunk)):
        yield store.read_chunk(i, j).nbytes


def _plan(settings: PlanConfig) -> int:
    from openreml_dist.app.report.terminal import Terminal

    size = check(settings)
    machine = _machine(settings)
    grid = GridShape.choose(settings.ranks, settings.grid.rows, settings.grid.columns)
    if machine.cores and 1 < settings.ranks <= _ranks_on_node(settings, machine):  # all on one host
        grid = replace(grid, shares_memory=settings.grid.share_memory)
    tile_size = settings.tile_size or choose_tile_size(size, grid, on_gpu=machine.cores == 0)
    fit = FitSize(
        num_kernels=settings.num_kernels,
        num_generated=settings.num_generated,
        num_fixed=settings.num_fixed,
        chunk_size=settings.chunk_size,
        cache_bytes=1e9 * settings.kernel_cache_gb,
    ).with_traces(settings.traces)
    made = plan(TileLayout(size, tile_size, grid), fit, machine)
    if settings.format == "sbatch":
        check_memory(made.layout, fit, machine.memory_bytes, on_device=machine.cores == 0)
        host = made.memory.total if machine.cores else made.memory.kernels + made.memory.chunks
        print(_batch(settings, machine, host, made.fit_seconds[settings.traces]).header(head(made, fit)))
        return 0
    terminal = Terminal(0)
    terminal.say(head(made, fit))
    if busy := remark(machine.other_cores):
        terminal.say(f"{machine.name} was measured while {busy}: openreml-plan mode=calibrate measures again")
    terminal.show(memory_table(made), time_table(made))
    check_memory(made.layout, fit, machine.memory_bytes, on_device=machine.cores == 0)
    return 0


def _ranks_on_node(settings: PlanConfig, machine: Machine) -> int:
    if settings.ranks_per_node is not None:
        return min(settings.ranks_per_node, settings.ranks)
    if machine.cores:
        return 1 if settings.format == "sbatch" else settings.ranks
    return min(GPUS_OF_A_NODE, settings.ranks)


def _batch(settings: PlanConfig, machine: Machine, host_bytes: float, seconds: float | None) -> BatchJob:
    """What to ask SLURM for; ``machine`` is what a rank has."""
    on_node = _ranks_on_node(settings, machine)
    cpus = (settings.threads or max(1, machine.cores // on_node)) if machine.cores else CPUS_OF_A_GPU
    return BatchJob(settings.ranks, on_node, cpus, machine.cores == 0, host_bytes, seconds)


def _machine(settings: PlanConfig) -> Machine:
    """What each of the ranks has of the machine, with what the user knows better."""
    machine = load_machine(settings.machine)
    if machine.cores:
        on_node = _ranks_on_node(settings, machine)
        machine = machine.shared_by(on_node, settings.threads or max(1, machine.cores // on_node))
        machine = replace(machine, memory_bytes=machine.memory_bytes / on_node)
    if settings.memory_gb is not None:
        machine = replace(machine, memory_bytes=1e9 * settings.memory_gb)
    if settings.read_gb_per_second is not None:
        machine = replace(machine, read_bytes=1e9 * settings.read_gb_per_second)
    return machine


def _plan_genotypes(settings: PlanConfig) -> int:
    from openreml_dist.app.report.terminal import Terminal

    _check_numbers(settings)
    if not 0 < settings.mcse < 1:
        raise ConfigError(f"mcse: {settings.mcse} is not a share of the standard error between 0 and 1")
    machine, (n, m) = _machine(settings), _samples_and_variants(str(settings.genotypes))
    cache = 1e9 * settings.kernel_cache_gb
    fit = GenotypeFit(n, m, settings.num_components, settings.num_fixed, settings.ranks, cache, machine.cores == 0)
    made, terminal = plan_genotypes(fit, machine, settings.mcse), Terminal(0)
    if settings.format == "sbatch":
        fit.check(machine.memory_bytes)
        seconds = None if made is None else made.read_seconds + made.fit_seconds
        print(_batch(settings, machine, fit.memory.total, seconds).header(genotype_head(fit, machine)))
        return 0
    terminal.say(genotype_head(fit, machine))
    if busy := remark(machine.other_cores):
        terminal.say(f"{machine.name} was measured while {busy}: openreml-plan mode=calibrate measures again")
    terminal.show(genotype_memory_table(fit))
    if made is None:
        terminal.say(f"{machine.name} was calibrated without genotypes: openreml-plan mode=calibrate measures again for a time")
    else:
        terminal.show(genotype_time_table(made))
    fit.check(machine.memory_bytes)
    return 0


def _samples_and_variants(given: str) -> tuple[int, int]:
    numbers = given.lower().replace(",", "").replace("_", "").split("x")
    if len(numbers) != 2 or not all(number.strip().isdecimal() and int(number) > 0 for number in numbers):
        raise ConfigError(f"genotypes: {given!r} is not people x SNPs, as in genotypes=500000x600000")
    return int(numbers[0]), int(numbers[1])


def _check_numbers(settings: PlanConfig) -> None:
    for name in (
        "num_samples",
        "num_components",
        "num_kernels",
        "num_generated",
        "num_fixed",
        "ranks",
        "ranks_per_node",
        "tile_size",
        "chunk_size",
        "threads",
        "memory_gb",
    ):
        value = getattr(settings, name)
        if value is not None and value < (0 if name == "num_kernels" else 1):
            raise ConfigError(f"{name}: {value} is too small")


def check(settings: PlanConfig) -> int:
    """Refuse numbers that no run could have; the number of samples.

    Raises:
        ConfigError: names the setting.
    """
    _check_numbers(settings)
    if settings.traces not in EVALUATIONS:
        raise ConfigError(f"traces: {settings.traces!r} is none of {', '.join(EVALUATIONS)}")
    if settings.num_samples is None:
        raise ConfigError("num_samples is not given: openreml-plan num_samples=100000 ranks=8 machine=h100-nvlink")
    return settings.num_samples


if __name__ == "__main__":
    main()
