"""Small PLINK files, a dense relationship matrix to compare with, and the programs as processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
from bed_reader import to_bed

SECONDS = 120


def genotypes(n: int, m: int, missing: float = 0.0, seed: int = 1) -> np.ndarray:
    """A1 counts as float64 (n, m), NaN for missing ones."""
    random = np.random.default_rng(seed)
    x = random.binomial(2, random.uniform(0.1, 0.9, m), (n, m)).astype(np.float64)
    x[random.random((n, m)) < missing] = np.nan
    return x


def write_plink(prefix: Path, x: np.ndarray, chromosome: list[str] | None = None) -> Path:
    n, m = x.shape
    properties = {
        "fid": [f"F{i}" for i in range(n)],
        "iid": [f"I{i}" for i in range(n)],
        "father": ["0"] * n,
        "mother": ["0"] * n,
        "sex": [1 + i % 2 for i in range(n)],
        "pheno": ["-9"] * n,
        "chromosome": chromosome or [str(1 + 3 * s // m) for s in range(m)],
        "sid": [f"rs{s}" for s in range(m)],
        "cm_position": [0] * m,
        "bp_position": [100 + s for s in range(m)],
        "allele_1": ["A"] * m,
        "allele_2": ["C"] * m,
    }
    to_bed(f"{prefix}.bed", x, properties=properties)
    return prefix


def dense_grm(x: np.ndarray) -> np.ndarray:
    """A_jk = (1/N_jk) Σ w_j w_k over the SNPs that both have called, one pair of whole matrices."""
    p = np.nanmean(x, axis=0) / 2
    polymorphic = (p > 0) & (p < 1)
    x, p = x[:, polymorphic], p[polymorphic]
    called = (~np.isnan(x)).astype(np.float64)
    w = np.nan_to_num((x - 2 * p) / np.sqrt(2 * p * (1 - p)))
    return w @ w.T / (called @ called.T)


def command(program: str, *settings: object) -> list[str]:
    return [sys.executable, "-m", f"openreml_dist.app.{program}", *map(str, settings)]


def run(program: str, *settings: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(program, *settings), capture_output=True, text=True, timeout=SECONDS, check=False)


def succeed(program: str, *settings: object) -> str:
    finished = run(program, *settings)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


def refuse(program: str, *settings: object) -> str:
    """The message of a run that must end with exit code 2 and without a traceback."""
    finished = run(program, *settings)
    assert finished.returncode == 2, finished.stdout + finished.stderr
    assert "Traceback" not in finished.stderr
    return finished.stderr
