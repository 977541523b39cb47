"""Exact test of Hardy-Weinberg proportions.

Given n genotypes with r copies of the rarer allele, the number h of heterozygotes (r, r-2, ...) has under Hardy-Weinberg

    P(h) ∝ 2^h / (a! h! b!),   a = (r-h)/2,  b = n-h-a,   so that   P(h+2) / P(h) = 4 a b / ((h+2)(h+1)),

and the p-value is the sum of all P(h) no larger than that of the observed h (Wigginton, Cutler & Abecasis 2005, AJHG 76:887).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from openreml_dist.store.genotype_counts import GenotypeCounts

_TIE = 1e-8  # probabilities this close (relative) are the same number computed twice


def hwe_p_values(counts: GenotypeCounts) -> NDArray[np.float64]:
    """Two-sided exact p-values (m,); 1 for variants that are monomorphic or without a call. Below 1e-150 they may become 0."""
    genotypes = zip(counts.hom_ref.tolist(), counts.het.tolist(), counts.hom_alt.tolist(), strict=True)
    return np.array([_p_value(min(a, b), het, max(a, b)) for a, het, b in genotypes], dtype=np.float64)


def _p_value(hom_rare: int, het: int, hom_common: int) -> float:
    n, rare = hom_rare + het + hom_common, 2 * hom_rare + het
    if rare == 0:
        return 1.0
    mean = rare * (2 * n - rare) / (2 * n)
    reach = 200 + 20 * n**0.5  # 40 standard deviations or more; what lies farther adds nothing
    low = max(rare % 2, 2 * int((mean - reach) // 2) + rare % 2)
    h = np.arange(low, min(rare, mean + reach) + 1, 2, dtype=np.float64)
    a = (rare - h) / 2
    b = n - h - a
    log_ratio = np.log(4 * a[:-1] * b[:-1] / ((h[:-1] + 2) * (h[:-1] + 1)))
    log_p = np.concatenate([[0.0], np.cumsum(log_ratio)])
    log_p -= log_p.max()
    observed = (het - low) // 2
    if not 0 <= observed < len(h):
        return 0.0
    p = np.exp(log_p)
    return float(p[log_p <= log_p[observed] + _TIE].sum() / p.sum())
