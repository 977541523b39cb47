"""What a tile costs at a million samples, as a program of its own: JSON of seconds and kilobytes for each generated term.

A term is built, then its tiles are made in forked processes, whose greatest resident size starts at what the term holds.
"""

from __future__ import annotations

import json
import multiprocessing
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from resource import RUSAGE_SELF, getpagesize, getrusage
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from openreml_dist.covariance import (
    AR1Correlation,
    BlockDiagonal,
    CompoundSymmetry,
    CovariancePropagation,
    Exchangeable,
    Exponential,
    FactorAnalytic,
    FeatureKernel,
    Grouping,
    HadamardProduct,
    Heterogeneous,
    Identity,
    KroneckerProduct,
    Matern,
    PedigreeMatrix,
    SameLevel,
    Scaled,
    Sum,
    Term,
    Unstructured,
    Weighted,
)

N, ANIMALS, TRIALS = 10**6, 10**5, 2
CPU = torch.device("cpu")
random = np.random.default_rng(1)
levels = random.integers(0, 1000, N)
points = random.uniform(0, 1000, (N, 2))


@cache
def pedigree() -> PedigreeMatrix:
    """Ten generations, 200 sires in each; the parents of an animal are of the generation before it."""
    size = ANIMALS // 10
    born = np.arange(ANIMALS) // size
    sires = (born - 1) * size + random.integers(0, 200, ANIMALS)
    dams = (born - 1) * size + random.integers(200, size, ANIMALS)
    parents = (np.where(born > 0, 1 + parent, 0).tolist() for parent in (sires, dams))
    return PedigreeMatrix(range(1, ANIMALS + 1), *parents, "pedigree")


def sparse_effects() -> csr_matrix:
    """Two effects a record, of 500."""
    records = np.repeat(np.arange(N), 2)
    return csr_matrix((np.ones(2 * N), (records, random.integers(0, 500, 2 * N))), shape=(N, 500))


def field() -> Term:
    return KroneckerProduct(AR1Correlation(1000, "row"), AR1Correlation(1000, "column"))


def random_regression() -> Term:
    covariates = np.stack([np.ones(N), random.uniform(size=N), random.uniform(size=N)], axis=1)
    return HadamardProduct(CovariancePropagation(covariates, Unstructured(3, "G")), SameLevel(levels, "person"))


def animal_model() -> Term:
    """Three traits, repeated records of animals."""
    G = Unstructured(3, "G").selected(random.integers(0, 3, N))
    return HadamardProduct(G, pedigree().selected(random.integers(0, ANIMALS, N)))


TERMS: dict[str, Callable[[], Term]] = {
    "Identity": lambda: Identity(N),
    "Weighted": lambda: Weighted(points[:, 0] + 1),
    "Heterogeneous": lambda: Heterogeneous(levels % 10),
    "FeatureKernel": lambda: FeatureKernel(random.standard_normal((N, 4))),
    "Grouping": lambda: Grouping(levels, "group"),
    "PedigreeMatrix": pedigree,
    "AR1": lambda: AR1Correlation(N, "ar1"),
    "AR1 in continuous time": lambda: AR1Correlation(points[:, 0], "ar1"),
    "Exchangeable": lambda: Exchangeable(N, "alike"),
    "CompoundSymmetry": lambda: CompoundSymmetry(N, "cs"),
    "Exponential": lambda: Exponential(points, "space"),
    "Matern": lambda: Matern(points, 2.5, "space"),
    "Sum": lambda: Sum(Grouping(levels, "group"), Scaled(AR1Correlation(N, "ar1"), "series")),
    "HadamardProduct": lambda: HadamardProduct(Grouping(levels, "group"), AR1Correlation(N, "ar1")),
    "KroneckerProduct": field,
    "KroneckerProduct with a factor": lambda: KroneckerProduct(FactorAnalytic(4, 2, "G"), SameLevel(levels[: N // 4], "level")),
    "BlockDiagonal": lambda: BlockDiagonal(
        CompoundSymmetry(N // 2 - 50, "cs"), Scaled(AR1Correlation(N // 2 + 50, "ar1"), "series")
    ),
    "CovariancePropagation, sparse": lambda: CovariancePropagation(
        sparse_effects(), Scaled(AR1Correlation(500, "ar1"), "effect")
    ),
    "random regression": random_regression,
    "animal model": animal_model,
    "nested": lambda: Sum(
        Scaled(HadamardProduct(field(), Matern(points, 1.5, "space")), "plot"),
        BlockDiagonal(Grouping(levels[:1000], "group"), CompoundSymmetry(N - 1000, "cs")),
    ),
}


def cost(term: Term, eta: Tensor) -> tuple[float, int]:
    """Seconds of the slowest tile, or all its derivatives, and kilobytes beyond what was there. In a process of its own."""
    before, slowest, n = resident_kilobytes(), 0.0, term.size
    last, middle, any_64 = range(n - 64, n), range(n // 2 - 32, n // 2 + 32), np.random.default_rng(2).integers(0, n, 64)
    for rows, columns in ((range(64), range(64)), (last, last), (last, middle), (middle, middle), (any_64, any_64)):
        for make in (term.tile, term.derivatives):
            begun = time.perf_counter()
            make(rows, columns, eta, CPU)
            slowest = max(slowest, time.perf_counter() - begun)
    return slowest, getrusage(RUSAGE_SELF).ru_maxrss - before


def resident_kilobytes() -> int:
    """Of this process now; the most that it had may be some more."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * getpagesize() // 1024


def start(term: Term) -> Tensor:
    return term.start(torch.ones(1, dtype=torch.float64).expand(term.size), 0.5)


def best_cost(term: Term) -> tuple[float, int]:
    """The least of a few trials: another program may have slowed one down."""
    context = multiprocessing.get_context("fork")
    eta, costs = start(term), []
    for _ in range(TRIALS):
        answer = context.SimpleQueue()
        process = context.Process(target=_answer, args=(answer, term, eta))  # forked, so that nothing is pickled
        process.start()
        costs.append(answer.get())
        process.join()
    seconds, kilobytes = zip(*costs, strict=True)
    return min(seconds), min(kilobytes)


def _answer(answer: Any, term: Term, eta: Tensor) -> None:
    small = Unstructured(3, "G").selected(np.arange(1000) % 3)
    cost(small, start(small))  # maps what a process maps once
    answer.put(cost(term, eta))


def main() -> None:
    torch.set_num_threads(1)
    print(json.dumps({name: best_cost(make()) for name, make in TERMS.items()}))


if __name__ == "__main__":
    main()
