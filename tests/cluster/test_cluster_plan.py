"""SLURM takes what ``openreml-plan format=sbatch`` prints."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.slurm import Slurm


@pytest.mark.parametrize(
    "job",
    [
        ("num_samples=250000", "num_kernels=22", "ranks=8", "machine=h100-ib"),
        ("genotypes=500000x600000", "num_components=20", "ranks=8", "machine=a100"),
    ],
)
def test_header_is_accepted(slurm: Slurm, tmp_path: Path, job: tuple[str, ...]) -> None:
    command = [sys.executable, "-m", "openreml_dist.app.plan", *job, "format=sbatch"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    script = tmp_path / "job.sbatch"
    script.write_text(f"{printed}echo $SLURM_NNODES nodes, $SLURM_NTASKS tasks, $SLURM_GPUS_ON_NODE GPUs of each\n")
    slurm.output("sbatch", "--test-only", str(script))
    run = slurm.run(script, folder=tmp_path)
    assert (run.exit_code, run.log) == (0, "2 nodes, 8 tasks, 4 GPUs of each\n")
