"""The exact Hardy-Weinberg test against published values and against exact fractions."""

from __future__ import annotations

from fractions import Fraction
from math import factorial

import numpy as np
import pytest

from openreml_dist.prep.hwe import hwe_p_values
from openreml_dist.store.genotype_counts import GenotypeCounts


def p_value(hom_ref: int, het: int, hom_alt: int) -> float:
    one = (np.array([count]) for count in (hom_ref, het, hom_alt))
    return float(hwe_p_values(GenotypeCounts(*one, hom_ref + het + hom_alt))[0])


def exact(hom_ref: int, het: int, hom_alt: int) -> float:
    n, rare = hom_ref + het + hom_alt, 2 * min(hom_ref, hom_alt) + het

    def weight(h: int) -> Fraction:
        a = (rare - h) // 2
        return Fraction(2**h, factorial(a) * factorial(h) * factorial(n - h - a))

    weights = {h: weight(h) for h in range(rare % 2, rare + 1, 2)}
    return float(sum(w for w in weights.values() if w <= weights[het]) / sum(weights.values()))


def test_values_of_the_authors_program() -> None:
    """snphwe 1.1.0, which wraps the authors' C code: snphwe(het, hom, hom)."""
    assert p_value(14, 57, 50) == pytest.approx(0.8422797565707926, rel=1e-12)
    assert p_value(10, 500, 5000) == pytest.approx(0.6515718999145375, rel=1e-10)


def test_equals_exact_fractions() -> None:
    random = np.random.default_rng(1)
    for _ in range(200):
        counts = random.multinomial(random.integers(1, 120), random.dirichlet([1, 1, 1])).tolist()
        assert p_value(*counts) == pytest.approx(exact(*counts), rel=1e-9), counts


def test_extremes() -> None:
    assert p_value(0, 0, 0) == p_value(40, 0, 0) == 1.0
    assert p_value(250_000, 0, 250_000) == 0.0
    assert p_value(125_000, 250_000, 125_000) == pytest.approx(1.0)
