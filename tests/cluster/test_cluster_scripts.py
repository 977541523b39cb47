"""Every file of ``slurm/``: submitted and run to its end, or, where it needs GPUs, as far as SLURM itself would go."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import numpy as np
import psutil
import pytest

from openreml_dist.layout import GridShape, TileLayout, choose_tile_size
from openreml_dist.plan.memory import FitSize, memory
from tests.cluster.slurm import SCRIPTS, Slurm, directives, wait_until
from tests.e2e.data import Cohort
from tests.helpers.genotypes import write_bed

ONE_CORE = ("--cpus-per-task=1",)
NODES = "grid.share_memory=false"
FREE_ON_NODE, FREE_ON_GPU = 225e9, 76e9


@pytest.fixture(scope="module")
def plink(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The prefix of PLINK files of 60 people and 200 SNPs on two chromosomes, with a phenotype beside them."""
    folder = tmp_path_factory.mktemp("plink")
    rng = np.random.default_rng(3)
    x = rng.binomial(2, rng.uniform(0.2, 0.8, (200, 1)), (200, 60)).astype(np.int8)
    write_bed(folder / "a", x, [str(1 + s // 100) for s in range(200)])
    rows = [line.split() for line in (folder / "a.fam").read_text().splitlines()]
    trait = (x.T - x.mean(axis=1)) @ rng.normal(size=200) * 0.15 + rng.normal(size=60)
    (folder / "a.phen").write_text("".join(f"{row[0]} {row[1]} {value}\n" for row, value in zip(rows, trait, strict=True)))
    return folder / "a"


@pytest.mark.parametrize("script", sorted(path.name for path in SCRIPTS.glob("*.sbatch")))
def test_the_account_line_alone_needs_editing(slurm: Slurm, tmp_path: Path, script: str) -> None:
    """SLURM would start it as it stands; its bash is sound; the line to edit is one line."""
    text = (SCRIPTS / script).read_text()
    assert re.findall("ACCOUNT$", text, re.MULTILINE) == ["ACCOUNT"]
    assert "account" in directives(SCRIPTS / script)
    subprocess.run(["bash", "-n", SCRIPTS / script], check=True)
    slurm.output("sbatch", "--test-only", f"--chdir={tmp_path}", str(SCRIPTS / script))
    for other in set(re.findall(r"slurm/\w+\.sbatch", text)):
        assert (SCRIPTS.parent / other).is_file(), other


def test_plink_files_become_a_grm_and_a_heritability(slurm: Slurm, plink: Path, tmp_path: Path) -> None:
    """On two nodes by Dask over TLS, then again by chromosome, then by one fit of both GRMs, then from the genotypes."""
    two = ("--cpus-per-task=2",)
    job = slurm.run("prepare_grm.sbatch", str(plink), "out", folder=tmp_path, options=two)
    assert job.exit_code == 0, job.log
    assert "wrote out.vcz" in job.log and "wrote out.grm.zarr" in job.log
    assert not list(tmp_path.glob(".openreml-grm-*")), "the key of the certificate stays"
    assert not [process for process in psutil.process_iter() if str(tmp_path) in " ".join(_command(process))], (
        "they outlive the job"
    )

    by_chromosome = (str(plink), "out", "by=chromosome", "out=parts")
    job = slurm.run("prepare_grm.sbatch", *by_chromosome, folder=tmp_path, options=two, OPENREML_INTERFACE="lo")
    assert job.exit_code == 0, job.log
    assert "Dask scheduler at tls://127.0.0.1:" in job.log
    assert "wrote out.vcz" not in job.log, "genotypes that are complete are made again"
    assert len(list((tmp_path / "parts").glob("*.grm.zarr"))) == 2

    data = (f"data.pheno={plink}.phen", NODES)
    job = slurm.run("fit_multi_grm.sbatch", "parts", *data, "run_dir=multi", folder=tmp_path, options=ONE_CORE)
    assert job.exit_code == 0, job.log
    names = [part["name"] for part in json.loads((tmp_path / "multi/result.json").read_text())["components"]]
    assert names == ["chr1", "chr2", "residual"]
    assert slurm.run("fit_multi_grm.sbatch", "none", folder=tmp_path, options=ONE_CORE).exit_code == 2

    settings = (f"data.genotypes={plink}", *data, "solver.mcse=0.1", "run_dir=genotypes")
    job = slurm.run("fit_genotypes.sbatch", *settings, folder=tmp_path, options=ONE_CORE)
    assert job.exit_code == 0, job.log
    assert "2 ranks (slurm)" in job.log
    assert json.loads((tmp_path / "genotypes/result.json").read_text())["status"].startswith("converged")


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:  # it has just ended
        return []


def test_an_array_fits_every_phenotype_and_one_that_fails_leaves_the_others_alone(
    slurm: Slurm, cohort: Cohort, tmp_path: Path
) -> None:
    settings = [setting for setting in cohort.data() if "pheno_column" not in setting]
    number = slurm.submit("phenotypes.sbatch", "traits", *settings, folder=tmp_path, options=(*ONE_CORE, "--array=1,2,4"))
    jobs = slurm.wait(number)
    assert [job.exit_code for job in jobs] == [0, 0, 2], "\n".join(job.log for job in jobs)
    results = [json.loads((tmp_path / f"traits/{column}/result.json").read_text()) for column in (1, 2, 4)]
    assert [result.get("trait") for result in results] == ["quantitative", "disease", None]
    assert results[2]["exit_code"] == 2


def test_sizes_in_the_file_of_many_grms_are_those_of_the_planner() -> None:
    text = (SCRIPTS / "fit_multi_grm.sbatch").read_text()
    rows = re.findall(r"^# +([\d,]+) +(\d+) +(\d+)$", text, re.MULTILINE)
    assert len(rows) == 3
    fit = FitSize(num_kernels=22, num_fixed=20).with_traces("auto")
    for samples, *ranks in rows:
        n = int(samples.replace(",", ""))
        for count, free, on_gpu in zip(map(int, ranks), (FREE_ON_NODE, FREE_ON_GPU), (False, True), strict=True):
            needed = []
            for size in {count, max(1, count // 2)}:
                grid = GridShape.choose(size)
                layout = TileLayout(n, choose_tile_size(n, grid, on_gpu=on_gpu), grid)
                needed.append((size, memory(layout, fit).needed(on_gpu)))
            assert [size for size, num_bytes in needed if num_bytes <= free] == [count], samples


STAND_IN = """#!/bin/bash
# Of a fit: rank 0 and 1 wait for USR1 and end with 99, and when they are started again with 0.
echo "rank $SLURM_PROCID, start ${SLURM_RESTART_COUNT:-0}: $*"
[ "${SLURM_RESTART_COUNT:-0}" = 0 ] || exit 0
trap 'exit 99' USR1
touch "ready-$SLURM_PROCID"
for _ in $(seq 300); do sleep 0.1; done
"""


def test_the_signal_reaches_all_ranks_and_99_alone_requeues(slurm: Slurm, tmp_path: Path) -> None:
    """The batch script by itself: what a fit does at the signal is tested where the fit is."""
    python = tmp_path / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(STAND_IN)
    python.chmod(0o755)
    number = slurm.submit("fit_preemptible.sbatch", "run_dir=a", folder=tmp_path, options=ONE_CORE)
    wait_until(lambda: all((tmp_path / f"ready-{rank}").exists() for rank in (0, 1)))
    slurm.output("scancel", "--signal=USR1", "--batch", number)  # what --signal=B:USR1@120 does, at once
    [job] = slurm.wait(number)
    assert (job.exit_code, job.restarts) == (0, 1), job.log
    for words in ("rank 1, start 0", "interrupted, and put back into the queue (restart 1)", "rank 1, start 1"):
        assert words in job.log
    assert "resume=auto launcher.grace_seconds=90 run_dir=a" in job.log

    python.write_text("#!/bin/bash\nexit 3\n")
    job = slurm.run("fit_preemptible.sbatch", "run_dir=a", folder=tmp_path, options=ONE_CORE)
    assert (job.exit_code, job.restarts) == (3, 0), job.log
