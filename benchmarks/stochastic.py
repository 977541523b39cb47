"""Fits from genotypes beside the exact answer and beside ``bolt --reml``: error, genotype vector-passes, wall time.

    python benchmarks/stochastic.py --samples 4000 --snps 5000 --sets 4

Genotypes with linkage disequilibrium (haplotypes that copy their neighbour nine times in ten, in stretches of 200 SNPs) as
PLINK files; a trait of all SNPs. On every data set: the exact estimates by ``openreml-grm`` and a dense fit, the matrix-free
fit with two seeds, and BOLT-LMM if it is installed (Debian: bolt-lmm), all with the same threads, one after the other. Errors
are those of h² in its standard errors. Written to ``benchmarks/results/NAME.md``.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from record import keep
from rounds import remark_on

from openreml_dist.plan.load import OtherLoad

STRETCH, COPY = 200, 0.9
CODE = np.array([3, 2, 0], dtype=np.uint8)
PLAIN_PASSES = {0.2: 2604, 0.5: 5052, 0.8: 9242}  # of ``bolt --reml`` by default, as counted elsewhere on such data


def write_plink(prefix: Path, n: int, m: int, seed: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Write genotypes of n people at m SNPs; returns them standardised (n, m)."""
    rng = np.random.default_rng(seed)
    cut = np.quantile(rng.standard_normal(200_000), rng.uniform(0.05, 0.5, m))
    counts = np.zeros((m, n), np.uint8)
    for _ in range(2):
        latent = np.zeros(n)
        for j in range(m):
            fresh = rng.standard_normal(n)
            latent = COPY * latent + np.sqrt(1 - COPY**2) * fresh if j % STRETCH else fresh
            counts[j] += latent < cut[j]
    codes = CODE[counts]
    codes = np.pad(codes, ((0, 0), (0, -n % 4))).reshape(m, -1, 4)
    packed = codes[:, :, 0] | codes[:, :, 1] << 2 | codes[:, :, 2] << 4 | codes[:, :, 3] << 6
    Path(f"{prefix}.bed").write_bytes(b"\x6c\x1b\x01" + packed.astype(np.uint8).tobytes())
    Path(f"{prefix}.bim").write_text("".join(f"{1 + 22 * j // m} s{j} 0 {j + 1} A C\n" for j in range(m)))
    Path(f"{prefix}.fam").write_text("".join(f"{i} {i} 0 0 0 -9\n" for i in range(1, n + 1)))
    f = counts.mean(axis=1, keepdims=True) / 2
    return ((counts - 2 * f) / np.sqrt(2 * f * (1 - f))).T


def run(*command: str, environment: dict[str, str]) -> tuple[str, float]:
    begun = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return done.stdout, time.perf_counter() - begun


def fitted(settings: list[str], environment: dict[str, str]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        program = [sys.executable, "-m", "openreml_dist.app.fit", *settings, "solver.lrt=false", f"run_dir={folder}/run"]
        _, seconds = run(*program, environment=environment)
        result: dict[str, Any] = json.loads(Path(folder, "run", "result.json").read_text())
    return {**result, "wall": seconds, "h2": result["components"][0]["proportion"]}


def bolt(prefix: Path, threads: int, environment: dict[str, str]) -> tuple[float, float]:
    """h² and seconds."""
    command = ["bolt", f"--bfile={prefix}", f"--phenoFile={prefix}.pheno", "--phenoCol=y", "--reml", f"--numThreads={threads}"]
    said, seconds = run(*command, environment=environment)
    found = re.findall(r"h2g \(1,1\):\s*([\d.]+)", said)
    return float(found[-1]), seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=4000)
    parser.add_argument("--snps", type=int, default=5000)
    parser.add_argument("--h2", type=float, nargs="+", default=[0.2, 0.5, 0.8])
    parser.add_argument("--sets", type=int, default=4, help="data sets of each h2")
    parser.add_argument("--mcse", type=float, default=0.01)
    parser.add_argument("--name", default="stochastic", help="of the file of results")
    arguments = parser.parse_args()
    n, m, threads = arguments.samples, arguments.snps, len(os.sched_getaffinity(0))
    environment, load = {**os.environ}, OtherLoad()
    with_bolt = shutil.which("bolt") is not None
    rows = []
    for h2 in arguments.h2:
        found: list[dict[str, float]] = []
        for number in range(arguments.sets):
            with tempfile.TemporaryDirectory() as folder:
                prefix = Path(folder, "data")
                Z = write_plink(prefix, n, m, seed=number)
                rng = np.random.default_rng(100 + number)
                y = Z @ rng.standard_normal(m) * (h2 / m) ** 0.5 + rng.standard_normal(n) * (1 - h2) ** 0.5
                del Z
                lines = [f"{i} {i} {value:.8f}" for i, value in enumerate(y, 1)]
                Path(f"{prefix}.pheno").write_text("\n".join(["FID IID y", *lines, ""]))
                store, grm = f"{folder}/data.vcz", f"{folder}/data.grm.zarr"
                module = [sys.executable, "-m"]
                run(*module, "openreml_dist.app.prepare", f"source={prefix}", f"out={store}", environment=environment)
                _, made = run(*module, "openreml_dist.app.grm", f"source={store}", f"out={grm}", environment=environment)
                pheno = f"data.pheno={prefix}.pheno"
                exact = fitted([f"data.grm={grm}", pheno, "solver=exact"], environment)
                se = exact["components"][0]["proportion_se"]
                boltzmann = bolt(prefix, threads, environment) if with_bolt else (float("nan"), float("nan"))
                for seed in (1, 2):
                    settings = [f"data.genotypes={prefix}", pheno, "solver=stochastic", f"solver.mcse={arguments.mcse}"]
                    ours = fitted([*settings, f"solver.seed={seed}"], environment)
                    component = ours["components"][0]
                    found.append(
                        {
                            "error": (ours["h2"] - exact["h2"]) / se,
                            "said": ours["monte_carlo_se"][0] / component["se"],
                            "passes": sum(ours["passes"].values()),
                            "wall": ours["wall"],
                            "exact": exact["wall"] + made,
                            "bolt error": (boltzmann[0] - exact["h2"]) / se,
                            "bolt wall": boltzmann[1],
                        }
                    )
        median = {key: statistics.median(one[key] for one in found) for key in ("said", "passes", "wall", "exact", "bolt wall")}
        rms = {key: statistics.fmean(one[key] ** 2 for one in found) ** 0.5 for key in ("error", "bolt error")}
        work = (rms["bolt error"] ** 2 * PLAIN_PASSES.get(h2, float("nan"))) / (rms["error"] ** 2 * median["passes"])
        rows.append(
            f"| {h2} | {100 * rms['error']:.2f} | {100 * median['said']:.2f} | {median['passes']:,.0f} | {median['wall']:.1f} "
            f"| {100 * rms['bolt error']:.1f} | {median['bolt wall']:.1f} | {work:.0f} | {median['exact']:.1f} |"
        )
        print(rows[-1], flush=True)
    columns = [
        "h²",
        "error, % of SE",
        "it said",
        "passes",
        "s",
        "BOLT error, % of SE",
        "s",
        "variance x passes",
        "GRM and fit, s",
    ]
    passes = ", ".join(f"{passes:,} at h² {h2}" for h2, passes in PLAIN_PASSES.items())
    lines = [
        f"n = {n:,}, m = {m:,}, {arguments.sets} data sets, two seeds each, {threads} threads, target {arguments.mcse:g} SE. "
        f"{remark_on(load)}",
        "",
        f"| {' | '.join(columns)} |",
        "|---" * len(columns) + "|",
        *rows,
        "",
        "Work is variance x passes, BOLT's over ours. BOLT does not print its passes; as counted once on such data: "
        f"{passes}. It standardises by the variance of the sample, not by 2pq.",
    ]
    keep(arguments.name, lines)


if __name__ == "__main__":
    main()
