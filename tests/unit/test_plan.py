"""The planner: arithmetic that the program itself must agree with, and refusals in words."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from openreml_dist.app import forecast
from openreml_dist.app.forecast import Forecast
from openreml_dist.app.plan import run
from openreml_dist.config import PlanConfig
from openreml_dist.errors import ConfigError
from openreml_dist.grid import ProcessGrid
from openreml_dist.layout import GridShape, TileLayout, choose_tile_size
from openreml_dist.plan import available
from openreml_dist.plan.batch import BatchJob
from openreml_dist.plan.cost import EVALUATIONS, plan, seconds_of
from openreml_dist.plan.genotype_cost import GenotypePlan, plan_genotypes
from openreml_dist.plan.genotypes import GenotypeFit
from openreml_dist.plan.machine import PRESETS, Machine, as_json, calibration_file, load_machine
from openreml_dist.plan.memory import FitSize, least_ranks, memory
from openreml_dist.plan.work import Geometry, cholesky_work, sweep_work
from openreml_dist.tiled import TiledSymmetric
from openreml_dist.traces import METHODS

CPU = Machine("a CPU", 1e11, 2e11, 8e10, 3e10, 0.0, 1e10, 1e15, 1e9, 2e-4, 4e9, False, 8e9, True, cores=2, threads=2)
OF_GENOTYPES = replace(CPU, unpack_genotypes=2e8, skinny_flops=3e10)
GRIDS = [(1, 1), (1, 2), (2, 1), (2, 2), (2, 3), (5, 1)]


@pytest.mark.parametrize(("rows", "columns"), GRIDS)
@pytest.mark.parametrize(("n", "b"), [(97, 32), (64, 16), (50, 7), (2, 1), (1, 5)])
def test_matrix_is_what_a_rank_stores(rows: int, columns: int, n: int, b: int) -> None:
    layout = TileLayout(n, b, GridShape(rows, columns))
    held = Geometry(layout).words
    for rank in range(layout.grid.size):
        grid = ProcessGrid(layout.grid, rank)
        assert 8 * held[layout.grid.coordinates(rank)] == TiledSymmetric(layout, grid).num_bytes()


def test_ranks_share_the_work() -> None:
    n, b = 3000, 100
    alone = TileLayout(n, b, GridShape(1, 1))
    for work_of in (sweep_work, cholesky_work):
        total = work_of(alone).flops.sum()
        for rows, columns in GRIDS:
            work = work_of(TileLayout(n, b, GridShape(rows, columns)))
            assert work.flops.sum() == total
            assert work.flops.max() < 1.25 * total / (rows * columns)


def test_time_is_that_of_the_slowest_rank_in_every_step() -> None:
    layout = TileLayout(3000, 100, GridShape(2, 3))
    work = sweep_work(layout)
    instant = replace(PRESETS["h100-ib"], latency=0.0, link_bytes=1e30, pivot_latency=0.0, update_flops=1.0, panel_flops=1e30)
    expected = work.update_flops.max(axis=(1, 2)).sum() + work.pivot_flops.sum() / instant.pivot_flops
    assert seconds_of(work, instant, single=False) == pytest.approx(expected, rel=1e-12)
    slow_link = replace(instant, update_flops=1e30, latency=1.0)
    assert seconds_of(work, slow_link, single=False) == pytest.approx(work.messages.max(axis=(1, 2)).sum(), rel=1e-6)
    both = replace(CPU, cores=0)
    hidden, added = replace(both, overlaps=True), replace(both, overlaps=False)
    assert seconds_of(work, hidden, single=False) < seconds_of(work, added, single=False)


def test_more_ranks_need_less_and_take_less() -> None:
    plans = []
    for ranks in (1, 4, 16, 64, 256, 1024):
        grid = GridShape.choose(ranks)
        layout = TileLayout(500_000, choose_tile_size(500_000, grid, on_gpu=True), grid)
        plans.append(plan(layout, FitSize(num_kernels=2, num_fixed=20), PRESETS["h100-ib"]))
    for fewer, more in itertools.pairwise(plans):
        assert more.memory.matrix < fewer.memory.matrix
        assert more.iteration_seconds < fewer.iteration_seconds
    assert plans[0].memory.matrix >= 8 * 500_000**2 / 2
    assert set(plans[0].fit_seconds) == set(EVALUATIONS) == set(METHODS)
    seconds = plans[0].fit_seconds
    assert seconds["hutchinson"] < seconds["auto"] < seconds["exact"]


def test_cores_are_shared_and_accelerators_are_not() -> None:
    assert CPU.shared_by(1, 2).update_flops == CPU.update_flops
    assert CPU.shared_by(1, 1).update_flops == CPU.update_flops / 2
    assert CPU.shared_by(2, 1).update_flops == CPU.update_flops / 2
    crowded = CPU.shared_by(4, 1)
    assert crowded.update_flops == CPU.update_flops / 4
    assert crowded.latency > CPU.latency
    assert PRESETS["a100"].shared_by(8, 1) is PRESETS["a100"]


def test_least_number_of_ranks_is_the_least() -> None:
    model, limit = FitSize(cache_bytes=0.0), 20e9
    ranks = least_ranks(200_000, 1024, model, limit, on_device=True)
    assert ranks is not None
    needed = [memory(TileLayout(200_000, 1024, GridShape.choose(r)), model).on_device for r in (ranks // 2, ranks)]
    assert needed[1] <= limit < needed[0]
    assert least_ranks(200_000, 1024, model, 1e6, on_device=True) is None


def test_calibration_is_kept_and_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(ConfigError, match="mode=calibrate first"):
        load_machine("this")
    calibration_file().parent.mkdir(parents=True)
    calibration_file().write_text(as_json(CPU))
    assert load_machine("this") == CPU
    calibration_file().write_text('{"name": 3}')
    with pytest.raises(ConfigError, match=r"machine\.json: not a calibration"):
        load_machine("this")


def test_this_machine_is_measured_and_planned_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert run(PlanConfig(mode="calibrate")) == 0
    machine = load_machine("this")
    assert machine.measured
    assert machine.threads == torch.get_num_threads()
    assert machine.latency * machine.link_bytes > 1e3, "a byte takes a tiny part of a message"
    assert machine.unpack_genotypes is not None and machine.skinny_flops is not None
    assert machine.skinny_flops > machine.unpack_genotypes, "a genotype is one number of a product"
    assert machine.update_flops > machine.stream_bytes / 8, "a product is bound by flops, an addition by memory"
    assert run(PlanConfig(num_samples=5_000, machine="this")) == 0
    assert machine.name in capsys.readouterr().out


def test_calibration_beside_other_programs_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the calibration, by a plan from it, by the forecast of a fit; not where nothing else ran, or before it was noted."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    calibration_file().parent.mkdir(parents=True)
    made = plan(TileLayout(1000, 192, GridShape(1, 1)), FitSize(), CPU)
    for cores, said in ((1.3, True), (0.01, False), (None, False)):
        machine = replace(CPU, other_cores=cores)
        with monkeypatch.context() as patched:
            patched.setattr("openreml_dist.plan.calibrate.calibrate", lambda *_, machine=machine: machine)
            assert run(PlanConfig(mode="calibrate")) == 0
        assert ("other programs held 1.3 of" in capsys.readouterr().out) == said
        assert load_machine("this") == machine
        assert run(PlanConfig(num_samples=5_000, machine="this")) == 0
        assert ("other programs held 1.3 of" in capsys.readouterr().out) == said
        assert ("other programs held 1.3 of" in Forecast(made.memory, replace(made, machine=machine)).line("auto")) == said
    new = ("other_cores", "unpack_genotypes", "skinny_flops")
    old = {name: value for name, value in asdict(CPU).items() if name not in new}
    calibration_file().write_text(json.dumps(old))
    assert load_machine("this") == CPU


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (PlanConfig(format="pbs"), "format: 'pbs' is neither table nor sbatch"),
        (PlanConfig(num_samples=10, ranks_per_node=0, machine="a100", format="sbatch"), "ranks_per_node: 0 is too small"),
        (PlanConfig(mode="guess"), "mode: 'guess' is neither plan nor calibrate"),
        (PlanConfig(machine="a100"), "num_samples is not given"),
        (PlanConfig(num_samples=0, machine="a100"), "num_samples: 0 is too small"),
        (PlanConfig(num_samples=10, traces="guess", machine="a100"), "traces: 'guess' is none of exact, auto, hutchinson"),
        (PlanConfig(num_samples=10, machine="cray"), "machine: 'cray' is none of this, h100-nvlink"),
        (PlanConfig(num_samples=500_000, ranks=4, machine="a100"), "does not fit: .* at least 16 such ranks are needed"),
        (PlanConfig(num_samples=10**7, machine="a100"), "no number of such ranks suffices"),
        (PlanConfig(genotypes="500", machine="a100"), "genotypes: '500' is not people x SNPs"),
        (PlanConfig(genotypes="5x0", machine="a100"), "genotypes: '5x0' is not people x SNPs"),
        (PlanConfig(genotypes="50x90", num_components=0, machine="a100"), "num_components: 0 is too small"),
        (PlanConfig(genotypes="50x90", mcse=0.0, machine="a100"), "mcse: 0.0 is not a share"),
        (
            PlanConfig(genotypes="500000x600000", machine="a100"),
            "does not fit: .* 2 such ranks with solver.kernel_cache_gb=0 would do",
        ),
    ],
)
def test_what_cannot_be_planned_is_refused(settings: PlanConfig, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        run(settings)


def test_plan_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(PlanConfig(num_samples=100_000, ranks=8, machine="h100-nvlink", num_kernels=3)) == 0
    printed = capsys.readouterr().out
    for words in (
        "8 ranks of H100, NVLink",
        "grid 4 x 2, tiles of 1,024",
        "matrix",
        "invert",
        "traces=hutchinson",
        "modelled",
        "4 GB/s",
    ):
        assert words in printed


def header(capsys: pytest.CaptureFixture[str], **settings: Any) -> dict[str, str]:
    """The options of the batch file of a plan; it is nothing but comments."""
    assert run(PlanConfig(format="sbatch", **settings)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "#!/bin/bash" and all(line.startswith("#") for line in lines)
    words = [word for line in lines if line.startswith("#SBATCH") for word in line.split()[1:]]
    return dict(word.removeprefix("--").split("=") for word in words)


def test_batch_file_asks_for_what_is_planned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    calibration_file().parent.mkdir(parents=True)
    calibration_file().write_text(as_json(OF_GENOTYPES))
    size = {"num_samples": 20_000, "memory_gb": 20.0}
    one, four = header(capsys, **size), header(capsys, ranks=4, **size)
    assert (one["nodes"], one["ntasks"], one["cpus-per-task"]) == ("1", "1", "2")
    assert (four["nodes"], four["ntasks"], four["ntasks-per-node"], four["cpus-per-task"]) == ("4", "4", "1", "2")
    assert "gpus-per-node" not in one
    shared = header(capsys, ranks=3, ranks_per_node=2, **size)
    assert (shared["nodes"], shared["ntasks"], shared["ntasks-per-node"], shared["cpus-per-task"]) == ("2", "3", "2", "1")

    needed = memory(TileLayout(20_000, choose_tile_size(20_000, GridShape(1, 1), on_gpu=False), GridShape(1, 1)), FitSize())
    assert needed.total * 1.2 < int(one["mem"].rstrip("G")) * 2**30 < needed.total * 1.2 + 6e9
    assert int(four["mem"].rstrip("G")) < int(one["mem"].rstrip("G"))
    assert header(capsys, genotypes="20000x50000", memory_gb=20.0)["time"] > "00:15:00"
    calibration_file().write_text(as_json(CPU))
    assert "time" not in header(capsys, genotypes="20000x50000", memory_gb=20.0), "its rates are not known"

    gpus = header(capsys, num_samples=250_000, ranks=8, machine="h100-ib")
    assert (gpus["nodes"], gpus["gpus-per-node"], gpus["ntasks-per-node"], gpus["account"]) == ("2", "4", "4", "ACCOUNT")
    with pytest.raises(ConfigError, match="does not fit"):
        header(capsys, num_samples=500_000, ranks=4, machine="a100")


@pytest.mark.parametrize(
    ("seconds", "time"), [(1.0, "00:15:00"), (1201.0, "01:01:00"), (4 * 3600.0, "12:00:00"), (86400.0, "3-00:00:00")]
)
def test_time_of_a_batch_file_has_a_margin_and_a_floor(seconds: float, time: str) -> None:
    assert f"--time={time}" in BatchJob(1, 1, 1, False, 1e9, seconds).header("a job")


def test_plan_of_genotypes_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(PlanConfig(genotypes="500000x600000", num_components=20, ranks=8, machine="h100-nvlink")) == 0
    printed = capsys.readouterr().out
    for words in (
        "500,000 samples, 600,000 SNPs, 20 components",
        "8 ranks of H100",
        "genotypes  ",
        "a typical fit",
        "not run on a GPU",
    ):
        assert words in printed
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    calibration_file().parent.mkdir(parents=True)
    for machine, words in ((CPU, "calibrated without genotypes"), (OF_GENOTYPES, "an estimate, measured rates")):
        calibration_file().write_text(as_json(machine))
        assert run(PlanConfig(genotypes="20000x50000")) == 0
        assert words in capsys.readouterr().out


def test_time_of_genotypes_follows_ranks_accuracy_and_what_is_kept() -> None:
    def made(error: float = 0.01, **settings: Any) -> GenotypePlan:
        planned = plan_genotypes(GenotypeFit(20_000, 50_000, **settings), OF_GENOTYPES, error)
        assert planned is not None
        return planned

    usual = made(cache_bytes=0.0)
    assert usual.pass_seconds > 4 * 20_000 * 50_000 / 3e10, "products and unpacking"
    assert made(cache_bytes=1e12).pass_seconds < usual.pass_seconds
    assert made(cache_bytes=0.0, ranks=2).pass_seconds < 0.6 * usual.pass_seconds
    assert made(error=0.02, cache_bytes=0.0).num_passes < usual.num_passes
    assert made(num_components=20, cache_bytes=0.0).num_passes > usual.num_passes
    assert OF_GENOTYPES.shared_by(2, 1).unpack_genotypes == 1e8


@pytest.mark.parametrize(("n", "m", "is_exact"), [(2000, 500_000, True), (200_000, 300_000, False)])
def test_engine_for_genotypes_is_the_cheaper_one(n: int, m: int, is_exact: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    grid, planned = ProcessGrid.single(), GenotypeFit(n, m)
    for machine, words in ((OF_GENOTYPES, "about"), (CPU, "flops")):  # whose rates of genotypes are known, and not
        monkeypatch.setattr(forecast, "load_machine", lambda _, machine=machine: machine)
        choice = forecast.choose_engine(grid, planned, 0.01, 1e12)
        assert choice.is_exact == is_exact and choice.words.startswith("dense, exact" if is_exact else "stochastic")
        assert words in choice.words
        small = forecast.choose_engine(grid, planned, 0.01, 1e6)
        assert not small.is_exact and "do not fit" in small.words
    assert "mode=calibrate" in forecast.genotype_line(grid, planned, 0.01)
    monkeypatch.setattr(forecast, "load_machine", lambda _: OF_GENOTYPES)
    assert "a genotype vector-pass, roughly" in forecast.genotype_line(grid, planned, 0.01)


def test_generated_terms_and_the_source_of_traces_are_planned_for(capsys: pytest.CaptureFixture[str]) -> None:
    def gigabytes(part: str, **settings: Any) -> float:
        assert run(PlanConfig(num_samples=50_000, machine="a100", **settings)) == 0
        line = next(line for line in capsys.readouterr().out.splitlines() if line.split()[:1] == [part])
        return float(line.split()[1])

    assert gigabytes("matrix") == pytest.approx(2 * gigabytes("matrix", traces="hutchinson"), rel=1e-3)
    assert gigabytes("vectors") > 10 * gigabytes("vectors", traces="exact")
    assert gigabytes("vectors", num_generated=4) - gigabytes("vectors") == pytest.approx(
        3 * 50_000 * (4 * 64 + 8) / 1e9, abs=2e-3
    )


def test_planning_starts_without_torch() -> None:
    code = "import sys, openreml_dist.app.plan; sys.exit('torch' in sys.modules or 'zarr' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_fit_that_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    layout, model, grid = TileLayout(20_000, 192, GridShape(1, 1)), FitSize(cache_bytes=1e9), ProcessGrid.single()
    needed = memory(layout, model)
    monkeypatch.setattr(available, "available_bytes", lambda *_: needed.total)
    available.refuse_if_too_large(grid, layout, model, 1)
    monkeypatch.setattr(available, "available_bytes", lambda *_: needed.total - 1)
    with pytest.raises(ConfigError, match=r"20,000 samples on 1 rank .* at least 2 such ranks .*, or solver.kernel_cache"):
        available.refuse_if_too_large(grid, layout, model, 1)


def test_available_memory_is_shared_by_the_ranks_of_a_host() -> None:
    cpu = torch.device("cpu")
    alone, shared = available.available_bytes(cpu, 1), available.available_bytes(cpu, 4)
    assert np.isinf(alone) or 0 < shared < alone
