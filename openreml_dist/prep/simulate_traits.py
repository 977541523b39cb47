"""Phenotypes with known variance components: y = fixed effects + Σ g_k + e, or its liability threshold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from openreml_dist.config import SimulateConfig
from openreml_dist.prep.simulate_genotypes import Genotypes

INTERCEPT = 1.0
AGE_EFFECT = 0.02  # a year
SEX_EFFECTS = {1: 0.0, 2: 0.3}
BATCH_EFFECTS = {1: 0.0, 2: 0.2, 3: -0.1, 4: 0.4}
BLOCK = 256  # variants standardised at a time


class GeneticValues:
    """Genetic values of each component, summed up chromosome by chromosome."""

    def __init__(self, num_samples: int, variants: list[int], settings: SimulateConfig, rng: np.random.Generator) -> None:
        """Choose the causal variants: all, or ``num_causal`` shared among the components by their variants.

        Args:
            num_samples: n.
            variants: number of each chromosome; chromosome c (from 0) belongs to component c modulo the number of components.
            settings: ``h2`` and ``num_causal``.
            rng: of the trait.
        """
        parts = len(settings.h2)
        self.values = np.zeros((parts, num_samples))
        self.causal = [np.ones(count, bool) for count in variants]  # of each chromosome
        self._rng = rng
        if settings.num_causal is None:
            return
        sizes = [sum(variants[component::parts]) for component in range(parts)]
        for component, share in enumerate(causal_shares(settings.num_causal, sizes)):
            chosen = np.zeros(sizes[component], bool)
            chosen[rng.choice(len(chosen), share, replace=False)] = True
            ends = np.cumsum(variants[component::parts])
            self.causal[component::parts] = np.split(chosen, ends[:-1])

    def add(self, chromosome: int, genotypes: Genotypes) -> None:
        """Add a chromosome (from 0): Σ_i b_i (x_i − 2p_i) / √(2p_i(1 − p_i)) with b_i iid normal, over its causal variants."""
        component = chromosome % len(self.values)
        rows = np.flatnonzero(self.causal[chromosome])
        effects = self._rng.standard_normal(len(rows))
        for start in range(0, len(rows), BLOCK):
            x = genotypes[rows[start : start + BLOCK]].astype(np.float64)
            p = x.mean(axis=1, keepdims=True) / 2
            self.values[component] += effects[start : start + BLOCK] @ ((x - 2 * p) / np.sqrt(2 * p * (1 - p)))

    def scaled(self, variances: list[float]) -> NDArray[np.float64]:
        """The values with mean 0 and the variances asked for (components, samples)."""
        centred = self.values - self.values.mean(axis=1, keepdims=True)
        scaled: NDArray[np.float64] = centred / centred.std(axis=1, keepdims=True) * np.sqrt(variances)[:, None]
        return scaled


def causal_shares(num_causal: int, variants: list[int]) -> list[int]:
    """Causal variants of each component, in proportion to its ``variants``, with the sum ``num_causal``."""
    ends = [round(num_causal * sum(variants[: k + 1]) / sum(variants)) for k in range(len(variants))]
    return [end - start for start, end in zip([0, *ends], ends, strict=False)]


@dataclass(frozen=True)
class Trait:
    """The phenotype of n samples and what it was made of."""

    y: NDArray[np.float64]  # (n,); NaN where missing; 1 control, 2 case with a prevalence
    age: NDArray[np.int64]  # (n,) years
    batch: NDArray[np.int64]  # (n,)
    num_cases: int | None  # before phenotypes were lost; None for a quantitative trait
    residual_variance: float  # realised
    total_variance: float  # realised, of the quantitative trait or the liability, with the fixed effects
    fixed_effects: dict[str, float]

    def formatted(self) -> list[str]:
        """The phenotypes as text, NA where missing."""
        digits = 8 if self.num_cases is None else 0
        return ["NA" if np.isnan(value) else f"{value:.{digits}f}" for value in self.y]


def make_trait(
    genetic: NDArray[np.float64], sex: NDArray[np.int64], settings: SimulateConfig, rng: np.random.Generator
) -> Trait:
    """Add residuals and the effects of covariates to genetic values, apply the threshold, and lose phenotypes.

    With a prevalence the samples of highest liability are cases, in just that proportion.

    Args:
        genetic: (components, n), scaled.
        sex: (n,) 1 or 2.
        settings: ``h2``, ``covariates``, ``prevalence`` and ``missing_phenotypes``.
        rng: of the trait.
    """
    num_samples = len(sex)
    age = rng.integers(20, 80, num_samples)
    batch = rng.integers(1, 1 + len(BATCH_EFFECTS), num_samples)
    residual = np.sqrt(1 - sum(settings.h2)) * rng.standard_normal(num_samples)
    y = INTERCEPT + genetic.sum(axis=0) + residual
    effects = {"intercept": INTERCEPT}
    if settings.covariates:
        y += AGE_EFFECT * age + _by_level(SEX_EFFECTS, sex) + _by_level(BATCH_EFFECTS, batch)
        effects["age"] = AGE_EFFECT
        effects |= {f"sex={level}": effect for level, effect in SEX_EFFECTS.items() if effect}
        effects |= {f"batch={level}": effect for level, effect in BATCH_EFFECTS.items() if effect}
    total_variance = float(y.var())
    num_cases = None
    if settings.prevalence is not None:
        num_cases = round(num_samples * settings.prevalence)
        cases = np.argsort(y)[num_samples - num_cases :]
        y = np.ones(num_samples)
        y[cases] = 2
    y[rng.random(num_samples) < settings.missing_phenotypes] = np.nan
    return Trait(y, age, batch, num_cases, float(residual.var()), total_variance, effects)


def _by_level(effects: dict[int, float], level: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.array(list(effects.values()))[level - 1]
