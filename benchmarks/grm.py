"""``openreml-grm`` on CPUs against ``W @ W.T`` in NumPy float32 with the same threads.

    python benchmarks/grm.py STORE.vcz --threads 2 --repeats 5

Each round runs three processes, one after the other: NumPy's product of standardised genotypes that lie in memory (which
computes half of it and mirrors the rest), ours from the genotype store to sums in memory (decoding, standardising, products),
and the whole program to a GRM on disk. The CPU seconds beside them depend less on what else the cores do. Rates are the time of
NumPy over ours. Written to ``benchmarks/results/NAME.md``.
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

from record import keep
from rounds import quiet_rounds

from openreml_dist.plan.load import OtherLoad

TIMED = """
import json, os, sys, time
import numpy as np
def timed(compute):
    begun, spent = time.perf_counter(), time.process_time()
    compute()
    print(json.dumps([time.perf_counter() - begun, time.process_time() - spent]))
"""

PEER = f"""{TIMED}
n, m = map(int, sys.argv[1:])
W = np.random.default_rng(1).standard_normal((n, m), dtype=np.float32)
W[:256] @ W[:256].T
timed(lambda: W @ W.T)
"""

OURS = f"""{TIMED}
from openreml_dist.config import GrmConfig
from openreml_dist.prep.grm import chunk_size, tasks
from openreml_dist.prep.products import NumpyArithmetic
from openreml_dist.prep.relationship import relationship_blocks
from openreml_dist.store.genotypes import open_genotypes
from openreml_dist.store.grm import GrmVariants
store = open_genotypes(sys.argv[1])
n, p = store.dosages.num_samples, store.counts.allele_frequency
index = np.flatnonzero((p > 0) & (p < 1))
size = chunk_size(GrmConfig(), n)
count, span = -(-n // size), lambda i, end: slice(i * size, min(end * size, n))
def compute():
    dealt = tasks([(i, j) for i in range(count) for j in range(i + 1)], max(1, 256_000_000 // (8 * size**2)))
    for runs in dealt:
        blocks = [(span(i, i + 1), span(*columns)) for i, columns in runs]
        variants = GrmVariants(index, p[index])
        for _ in relationship_blocks(store.dosages, variants, blocks, NumpyArithmetic(), int(sys.argv[2])):
            pass
timed(compute)
"""


def run(program: str, *arguments: object, blas_threads: int) -> list[float]:
    """Wall and CPU seconds."""
    environment = os.environ | {f"{name}_NUM_THREADS": str(blas_threads) for name in ("OMP", "OPENBLAS", "MKL")}
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout)


def whole_program(source: str) -> list[float]:
    """Wall and CPU seconds of the processes, start-up included."""
    with tempfile.TemporaryDirectory() as folder:
        begun, spent = time.perf_counter(), os.times()
        command = [sys.executable, "-m", "openreml_dist.app.grm", f"source={source}", f"out={folder}/a.grm.zarr"]
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        seconds, now = time.perf_counter() - begun, os.times()
    return [seconds, now.children_user + now.children_system - spent.children_user - spent.children_system]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="genotype store of openreml-prepare")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="the whole program takes all cores")
    parser.add_argument("--repeats", type=int, default=5, help="quiet rounds")
    parser.add_argument("--most", type=int, default=12, help="rounds at most, for as many quiet ones")
    parser.add_argument("--name", default="grm", help="of the file of results")
    arguments = parser.parse_args()
    from openreml_dist.store.genotypes import open_dosages

    dosages = open_dosages(arguments.source)
    n, m = dosages.num_samples, dosages.num_variants

    def measure() -> tuple[dict[str, list[float]], float]:
        load = OtherLoad()
        found = {
            "W @ W.T": run(PEER, n, m, blas_threads=arguments.threads),
            "from the store to sums": run(OURS, arguments.source, arguments.threads, blas_threads=1),
            "whole openreml-grm": whole_program(arguments.source),
        }
        return found, load.cores() or 0.0

    rounds = quiet_rounds(measure, arguments.repeats, arguments.most)
    lines = [
        f"n = {n:,}, {m:,} SNPs, {arguments.threads} threads (the whole program {os.cpu_count()}). Medians; {rounds}.",
        "",
        "| | seconds | CPU seconds | rate beside W @ W.T | the same by CPU seconds | in single rounds |",
        "|---|---|---|---|---|---|",
    ]
    for name in rounds.found[0]:
        seconds, spent = (statistics.median(found[name][which] for found in rounds.found) for which in (0, 1))
        rates = [[found["W @ W.T"][which] / found[name][which] for found in rounds.found] for which in (0, 1)]
        cells = [f"{seconds:.2f}", f"{spent:.2f}", *(f"{statistics.median(rate):.2f}" for rate in rates)]
        lines.append(f"| {name} | {' | '.join(cells)} | {min(rates[0]):.2f} to {max(rates[0]):.2f} |")
    keep(arguments.name, lines)


if __name__ == "__main__":
    main()
