"""Whole fits from stores on disk, in units U of LAPACK's factor and inverse at the same n, and the memory that they take.

    python benchmarks/fit.py STORES --pheno FILE --repeats 3
    python benchmarks/fit.py --simulate 10000 --repeats 3

U is ``torch.linalg.cholesky`` + ``torch.cholesky_inverse`` in float64 with all threads, in the same round. ``fit`` is from
ranks that are ready to a result in hand (``timings.fit``); ``process`` is the whole program with its start-up. Memory is the
peak of resident memory less that of a process that has imported the same libraries. Written to ``benchmarks/results/NAME.md``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from record import keep
from rounds import remark_on

from openreml_dist.plan.load import OtherLoad

UNIT = """
import sys, time, torch
n = int(sys.argv[1])
torch.set_num_threads(int(sys.argv[2]))
V = torch.ones(n, n, dtype=torch.float64)
V.diagonal().add_(2.0)
torch.cholesky_inverse(torch.linalg.cholesky(V[:1000, :1000]))
begun = time.perf_counter()
torch.cholesky_inverse(torch.linalg.cholesky(V))
print(time.perf_counter() - begun)
"""

BASELINE = """
from pathlib import Path
from openreml_dist.app import estimation, fit, forecast, launch, predictions, session
from openreml_dist.app.report import result_files, terminal
import hydra, matplotlib.figure, matplotlib.backends.backend_agg, pandas, zarr
print(next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")))
"""


def output(*command: str, environment: Mapping[str, str] | None = None) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout


def unit(n: int, environment: Mapping[str, str] | None = None) -> float:
    return float(output(sys.executable, "-c", UNIT, str(n), str(os.cpu_count()), environment=environment))


def fit(ranks: int, settings: list[str], environment: Mapping[str, str] | None = None) -> dict[str, float]:
    """One run: seconds of the fit and of the process, seconds of its start-up, and the peak memory of the fullest rank."""
    program = [sys.executable, "-m", "openreml_dist.app.fit"]
    if ranks > 1:
        program = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
        program += ["-m", "openreml_dist.app.fit"]
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        output(*program, *settings, f"run_dir={folder}/run", environment=environment)
        seconds = time.perf_counter() - begun
        result = json.loads(Path(folder, "run", "result.json").read_text())
    return {
        "n": result["num_samples"],
        "fit": result["timings"]["fit"],
        "startup": result["timings"]["startup"],
        "process": seconds,
        "memory": max(rank["peak_memory_bytes"] for rank in result["profile"]),
        "planned": result["planned_memory_bytes"],
        "noise": max(
            (e / c["se"] for e, c in zip(result["monte_carlo_se"], result["components"], strict=True) if c["se"]), default=0
        ),
    }


def simulated(n: int, folder: str) -> list[str]:
    """Settings of a fit of simulated people: features instead of genotypes, one GRM."""
    import numpy as np

    from openreml_dist.store.grm_writer import create_grm

    rng, m, chunk = np.random.default_rng(1), 2 * n, 2048
    Z = rng.standard_normal((n, m), dtype=np.float32)
    ids = np.arange(n).astype(str)
    path = f"{folder}/simulated.grm.zarr"
    writer = create_grm(path, family_id=ids, sample_id=ids, chunk_size=chunk, settings={}, attributes={})
    for i, j in writer.unfinished_tiles():
        writer.write_tile(i, j, Z[i * chunk : (i + 1) * chunk] @ Z[j * chunk : (j + 1) * chunk].T / m)
    writer.finalise()
    y = Z @ rng.standard_normal(m) / m**0.5 * 0.7 + 0.7 * rng.standard_normal(n)
    pheno = Path(folder, "y.phen")
    pheno.write_text("".join(f"{i} {i} {value:.8f}\n" for i, value in zip(ids, y, strict=True)))
    return [f"data.grm={path}", f"data.pheno={pheno}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stores", nargs="*", help="GRM stores of one fit")
    parser.add_argument("--simulate", type=int, help="number of samples, instead of stores")
    parser.add_argument("--settings", nargs="*", default=[], help="of openreml-fit, such as data.pheno=FILE")
    parser.add_argument("--methods", nargs="+", default=["auto", "hutchinson"])
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--name", default="fit", help="of the file of results")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        stores = [f"data.grm=[{','.join(arguments.stores)}]"]
        settings = simulated(arguments.simulate, folder) if arguments.simulate else stores
        settings += [*arguments.settings, "solver.lrt=false"]
        baseline = 1024 * int(output(sys.executable, "-c", BASELINE))
        n = fit(1, settings)["n"]
        rounds, load = [], OtherLoad()
        for _ in range(arguments.repeats):
            found = {"U": unit(n)}
            for ranks in arguments.ranks:
                for method in arguments.methods:
                    found[ranks, method] = fit(ranks, [*settings, f"solver.traces={method}"])
            rounds.append(found)
        remark = remark_on(load)
    lines = [
        f"n = {n:,}, {len(arguments.stores) or 1} GRM; {os.cpu_count()} cores shared by the ranks; "
        f"median of {arguments.repeats} rounds; "
        f"U = {statistics.median(found['U'] for found in rounds):.2f} s; imports alone hold {baseline / 1e9:.2f} GB a rank. "
        f"{remark}",
        "",
        "| ranks | traces | fit, U | whole process, U | start-up, s | MC error / SE | GB above imports | planned GB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for ranks in arguments.ranks:
        for method in arguments.methods:
            runs = [(found[ranks, method], found["U"]) for found in rounds]
            median = {key: statistics.median(run[key] for run, _ in runs) for key in ("startup", "noise", "memory", "planned")}
            ratios = [statistics.median(run[key] / u for run, u in runs) for key in ("fit", "process")]
            lines.append(
                f"| {ranks} | {method} | {ratios[0]:.2f} | {ratios[1]:.2f} | {median['startup']:.2f} | {median['noise']:.2g} "
                f"| {(median['memory'] - baseline) / 1e9:.3f} | {median['planned'] / 1e9:.3f} |"
            )
    keep(arguments.name, lines)


if __name__ == "__main__":
    main()
