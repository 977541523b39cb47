"""Haplotypes of founders with the linkage disequilibrium and the allele frequencies of a population of constant size.

Two models give the same kind of answer: msprime's coalescent, and, where msprime is not installed, sequential copying after Li
and Stephens in numpy. Both return (positions, haplotypes): base pairs (sites,) increasing and unique, from 1, and derived
alleles 0/1 (sites, haplotypes), uint8, every site with a minor allele frequency of at least ``MIN_MAF``. They may return fewer
sites than asked for, where the sequence is too short to hold so many.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from openreml_dist.errors import ConfigError

Alleles: TypeAlias = NDArray[np.uint8]
Positions: TypeAlias = NDArray[np.int64]
FounderModel: TypeAlias = Callable[[int, int, int, np.random.Generator], tuple[Positions, Alleles]]

MIN_MAF = 0.01
POPULATION_SIZE = 10_000  # diploid individuals
RECOMBINATION_RATE = 1e-8  # crossovers a base pair and generation
MUTATION_RATE = 1.2e-8  # a base pair and generation
POOL_SIZE = 400  # haplotypes of the copying model that the others copy from
BLOCK_ALLELES = 4_000_000  # copied at a time


def choose_founder_model(name: str) -> tuple[str, FounderModel]:
    """Resolve the setting ``founders``: msprime, numpy, or auto.

    Returns:
        The name of the model and its function (haplotypes, sites, length in base pairs, generator).
    Raises:
        ConfigError: an unknown name, or msprime asked for and not installed.
    """
    installed = find_spec("msprime") is not None
    if name == "auto":
        name = "msprime" if installed else "numpy"
    if name == "msprime" and not installed:
        raise ConfigError(
            "founders=msprime: msprime is not installed; pip install 'openreml-dist[simulate]', or founders=numpy"
        )
    models: dict[str, FounderModel] = {"msprime": coalescent_haplotypes, "numpy": copied_haplotypes}
    if name not in models:
        raise ConfigError(f"founders={name}: give auto, msprime or numpy")
    return name, models[name]


def coalescent_haplotypes(
    num_haplotypes: int, num_sites: int, length: int, rng: np.random.Generator
) -> tuple[Positions, Alleles]:
    """Haplotypes (an even number of them) from the coalescent with recombination, by msprime; sites are a random sample."""
    import msprime

    ancestry_seed, mutation_seed = (int(seed) for seed in rng.integers(1, 2**31, size=2))
    trees = msprime.sim_ancestry(
        samples=num_haplotypes // 2,
        population_size=POPULATION_SIZE,
        sequence_length=length,
        recombination_rate=RECOMBINATION_RATE,
        random_seed=ancestry_seed,
    )
    model = msprime.BinaryMutationModel()
    trees = msprime.sim_mutations(trees, rate=MUTATION_RATE, model=model, random_seed=mutation_seed)
    # the diversity of a single site is 2 p (1 - p) n / (n - 1)
    diversity = trees.diversity(windows="sites", mode="site", span_normalise=False)
    common = np.flatnonzero(diversity >= 2 * MIN_MAF * (1 - MIN_MAF) * num_haplotypes / (num_haplotypes - 1))
    chosen = np.sort(rng.choice(common, min(num_sites, len(common)), replace=False))
    trees = trees.delete_sites(np.setdiff1d(np.arange(trees.num_sites), chosen))
    haplotypes = np.empty((len(chosen), num_haplotypes), np.uint8)
    for row, variant in zip(haplotypes, trees.variants(copy=False), strict=True):
        row[:] = variant.genotypes
    return trees.sites_position.astype(np.int64) + 1, haplotypes


def copied_haplotypes(num_haplotypes: int, num_sites: int, length: int, rng: np.random.Generator) -> tuple[Positions, Alleles]:
    """Haplotypes that copy from each other along the sequence, in numpy alone.

    Haplotype k copies one of the k before it and switches to another at rate 4Nr / k. A mutation arises in haplotype k with
    probability proportional to 1/k, and all that copy k there inherit it, which gives frequencies in proportion to 1/x. Behind
    the first ``POOL_SIZE`` haplotypes, all copy from these alone.

    References: Li and Stephens (2003), Genetics 165:2213, product of approximate conditionals.
    """
    pool_size = min(POOL_SIZE, num_haplotypes)
    num_raw = min(2 * num_sites + 50, length // 2)  # rare ones are left out below
    positions = np.sort(rng.choice(length, num_raw, replace=False)) + 1
    scaled_gaps = 4 * POPULATION_SIZE * RECOMBINATION_RATE * np.diff(positions, prepend=positions[0])
    weights = 1 / np.arange(1, pool_size)
    carrier = rng.choice(np.arange(1, pool_size), size=num_raw, p=weights / weights.sum())  # haplotype of each mutation
    pool = np.zeros((num_raw, pool_size), np.uint8)
    for k in range(1, pool_size):
        pool[:, k] = _copy(pool[:, :k], scaled_gaps / k, 1, rng)[:, 0]
        pool[carrier == k, k] = 1

    frequency = pool.mean(axis=1)
    common = np.flatnonzero((frequency >= MIN_MAF) & (frequency <= 1 - MIN_MAF))
    chosen = np.sort(rng.choice(common, min(num_sites, len(common)), replace=False))
    pool, scaled_gaps = pool[chosen], np.diff(np.cumsum(scaled_gaps)[chosen], prepend=0.0)
    haplotypes = np.empty((len(chosen), num_haplotypes), np.uint8)
    haplotypes[:, :pool_size] = pool
    step = max(1, BLOCK_ALLELES // max(1, len(chosen)))
    for start in range(pool_size, num_haplotypes, step):
        stop = min(start + step, num_haplotypes)
        haplotypes[:, start:stop] = _copy(pool, scaled_gaps / pool_size, stop - start, rng)
    frequency = haplotypes.mean(axis=1)
    kept = (frequency >= MIN_MAF) & (frequency <= 1 - MIN_MAF)
    return positions[chosen][kept], haplotypes[kept]


def _copy(pool: Alleles, switch_rate: NDArray[np.float64], num_copies: int, rng: np.random.Generator) -> Alleles:
    """Mosaics (sites, copies) of the columns of ``pool`` (sites, k) that switch with ``switch_rate`` before each site."""
    num_sites, num_sources = pool.shape
    switches = rng.random((num_sites, num_copies)) < -np.expm1(-switch_rate)[:, None]
    switches[:1] = True
    site = np.arange(num_sites)[:, None]
    last_switch = np.maximum.accumulate(np.where(switches, site, 0), axis=0)
    source = np.take_along_axis(rng.integers(0, num_sources, (num_sites, num_copies)), last_switch, axis=0)
    copies: Alleles = pool[site, source]
    return copies
