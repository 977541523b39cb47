"""Genotype vector-passes and seconds of a fit of genotypes: an estimate, since data decide how many probes and steps there are.

A pass is Z and Zᵀ times a vector; a sweep takes up every genotype once, for as many vectors as are multiplied at once.

Legend: n samples, m SNPs, K components, p fixed effects, b SNPs of a block; n/R samples of a rank.
"""

from __future__ import annotations

from dataclasses import dataclass

from openreml_dist.plan.genotypes import BLOCK, GenotypeFit
from openreml_dist.plan.machine import Machine
from openreml_dist.plan.memory import DOUBLE, SINGLE

TOGETHER = 32  # vectors in one product
START = 34  # passes
FEW = 330  # of an evaluation by few probes, and of one that is anchored
FEW_EVALUATIONS, ANCHORED_EVALUATIONS = 2, 1
ACCURATE = 1200  # of the one at the wanted error: pilots, log|S|, solutions
PROBES = 1900  # of it, at m = n, heritability 0.5 and an error of 0.01: grows with (m/n)² ...
CROSSING = 2.0  # ... up to here, from where probes over samples need fewer
THIN_SWEEPS = 190  # of single vectors: the solutions behind Py, AI and var(β̂)
DOUBLE_SWEEPS = 40  # of these in double precision
THIN = 4  # vectors that cost as much as one
DOUBLE_PRICE = 2.5  # of unpacking in double precision
DENSE_PASSES = 8  # over the relationships, of a fit by the dense engine
DENSE_CUBES = 3.0  # n³ of its factors and inverses
EVALUATIONS = FEW_EVALUATIONS + ANCHORED_EVALUATIONS + 1


def typical_passes(fit: GenotypeFit, error: float) -> dict[str, float]:
    """Genotype vector-passes by phase, as ``result.json`` has them, for a Monte-Carlo error in standard errors. Local.

    A rule drawn from simulated traits of heritability 0.5; 0.2 takes half as many probes, 0.8 three times.
    """
    ratio = fit.num_variants / fit.num_samples
    spread = ratio**2 if ratio <= CROSSING else CROSSING**3 / ratio
    several = fit.num_components**0.1
    return {
        "setup": min(BLOCK, fit.num_variants) / 2 + (fit.num_fixed + 1) / 2,
        "start": float(START),
        "few probes": FEW_EVALUATIONS * FEW * several,
        "probes to the target": several * (ACCURATE + PROBES * spread * (0.01 / error) ** 2),
        "anchored probes": ANCHORED_EVALUATIONS * FEW * several,
    }


@dataclass(frozen=True)
class GenotypePlan:
    """What a fit of genotypes will take on a machine.

    Attributes:
        fit: what is planned.
        machine: whose rates are taken.
        passes: by phase.
        pass_seconds: of a vector, of ``TOGETHER`` at once.
        read_seconds: until the genotypes are in memory.
        fit_seconds: of a typical fit, without that.
    """

    fit: GenotypeFit
    machine: Machine
    passes: dict[str, float]
    pass_seconds: float
    read_seconds: float
    fit_seconds: float

    @property
    def num_passes(self) -> float:
        """Of all phases."""
        return sum(self.passes.values())


def plan_genotypes(fit: GenotypeFit, machine: Machine, error: float = 0.01) -> GenotypePlan | None:
    """Passes and seconds of a fit; None where a machine was calibrated before its rates of genotypes were. Local."""
    unpack, product = machine.unpack_genotypes, machine.skinny_flops
    if unpack is None or product is None:
        return None
    m, own = float(fit.num_variants), fit.own
    single, double = _unpacked_again(fit)
    gather = 0.0 if fit.ranks == 1 else machine.latency + 2 * SINGLE * m * TOGETHER / machine.link_bytes
    a_vector = (4 * m * own + 2 * m * min(BLOCK, m)) / product
    sweep = single * m * own / unpack
    passes = typical_passes(fit, error)
    total = sum(passes.values())
    thin = THIN_SWEEPS * (sweep + THIN * a_vector) + DOUBLE_SWEEPS * DOUBLE_PRICE * double * m * own / unpack
    factors = EVALUATIONS * 2 * m * BLOCK**2 / machine.panel_flops
    return GenotypePlan(
        fit,
        machine,
        passes,
        a_vector + (sweep + gather) / TOGETHER,
        m * fit.num_samples / 4 / machine.read_bytes + m * own / unpack,
        total * (a_vector + (sweep + gather) / TOGETHER) + thin + THIN_SWEEPS * gather / TOGETHER + factors,
    )


def relationship_flops(fit: GenotypeFit) -> float:
    """Of the lower triangles of all components' relationships, made from genotypes. Local."""
    return fit.num_components * fit.num_variants * float(fit.num_samples) ** 2


def dense_flops(fit: GenotypeFit) -> float:
    """Of a fit with these relationships, which are made twice where they are not kept. Local."""
    n = float(fit.num_samples)
    kept = min(1.0, fit.cache_bytes * fit.ranks / (SINGLE * fit.num_components * n * n / 2))
    return relationship_flops(fit) * (kept + DENSE_PASSES * (1 - kept)) + DENSE_CUBES * n**3


def matrix_free_flops(fit: GenotypeFit, error: float) -> float:
    """Of a fit by products alone. Local."""
    return 4.0 * fit.num_variants * fit.num_samples * sum(typical_passes(fit, error).values())


def _unpacked_again(fit: GenotypeFit) -> tuple[float, float]:
    """Proportion of the genotypes that every sweep unpacks, in single and in double precision, which is kept first."""
    number = float(fit.num_variants) * fit.own
    double = min(1.0, fit.cache_bytes / (DOUBLE * number))
    single = min(1.0, max(0.0, fit.cache_bytes - DOUBLE * number) / (SINGLE * number))
    return 1 - single, 1 - double
