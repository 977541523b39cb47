"""Quality control of variants: which are left out, for what reason, and how that is told."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from openreml_dist.errors import ConfigError
from openreml_dist.prep.hwe import hwe_p_values
from openreml_dist.store.genotype_counts import GenotypeCounts

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class VariantFilters:
    """Thresholds; a variant is left out when it is beyond one of them."""

    max_missing: float = 1.0
    min_maf: float = 0.0
    min_hwe_pvalue: float = 0.0

    def __post_init__(self) -> None:
        """Raise ConfigError for a threshold that is no rate, frequency or probability."""
        for name, value, largest in (
            ("max_missing", self.max_missing, 1.0),
            ("min_maf", self.min_maf, 0.5),
            ("min_hwe_pvalue", self.min_hwe_pvalue, 1.0),
        ):
            if not 0.0 <= value <= largest:
                raise ConfigError(f"{name}={value} must lie between 0 and {largest:g}")


@dataclass
class Tally:
    """How many were left out, by reason, in the order of the tests; each is counted under the first test it failed."""

    left_out: dict[str, int]

    def leave_out(self, kept: Mask, failed: Mask, reason: str) -> None:
        """Remove ``failed`` from ``kept`` in place and count those that were still there."""
        count = int(np.count_nonzero(kept & failed))
        self.left_out[reason] = self.left_out.get(reason, 0) + count
        kept &= ~failed

    def add(self, other: Tally) -> None:
        """Add the counts of another block of variants."""
        for reason, count in other.left_out.items():
            self.left_out[reason] = self.left_out.get(reason, 0) + count

    def __str__(self) -> str:
        """Reasons with counts, those that left out nothing omitted."""
        parts = [f"{count:,} {reason}" for reason, count in self.left_out.items() if count]
        return "left out " + ", ".join(parts) if parts else "left out none"


def filter_variants(counts: GenotypeCounts, filters: VariantFilters) -> tuple[Mask, NDArray[np.float64], Tally]:
    """Apply the filters: missing calls, minor allele frequency, Hardy-Weinberg.

    Returns:
        kept (m,), exact Hardy-Weinberg p-values (m,), 1 where the variant was left out before that test, and the numbers
        left out.
    """
    tally = Tally({})
    kept = np.ones(len(counts.het), dtype=np.bool_)
    tally.leave_out(kept, counts.missing_rate > filters.max_missing, f"missing calls > {filters.max_missing:g}")
    tally.leave_out(kept, counts.minor_allele_frequency < filters.min_maf, f"MAF < {filters.min_maf:g}")
    p_value = np.ones(len(kept))
    p_value[kept] = hwe_p_values(counts.take(kept))
    tally.leave_out(kept, p_value < filters.min_hwe_pvalue, f"Hardy-Weinberg p < {filters.min_hwe_pvalue:g}")
    return kept, p_value, tally


def usable_variants(
    chromosome: NDArray[np.str_],
    biallelic: Mask,
    counts: GenotypeCounts,
    *,
    autosomes_only: bool = True,
    max_missing: float = 1.0,
    min_maf: float = 0.0,
) -> tuple[Mask, Tally]:
    """Which variants (m,) relationships are computed from, alike in a GRM and in an engine that reads genotypes.

    Allele frequencies are those of all samples that were counted.
    """
    tally = Tally({})
    kept = np.ones(len(chromosome), dtype=np.bool_)
    if autosomes_only:
        tally.leave_out(kept, ~autosomal(chromosome), "not autosomal")
    tally.leave_out(kept, ~biallelic, "not biallelic")
    tally.leave_out(kept, counts.called == 0, "missing in all samples")
    tally.leave_out(kept, counts.missing_rate > max_missing, f"missing calls > {max_missing:g}")
    tally.leave_out(kept, ~(counts.minor_allele_frequency > 0), "monomorphic")
    tally.leave_out(kept, counts.minor_allele_frequency < min_maf, f"MAF < {min_maf:g}")
    return kept, tally


def autosomal(chromosome: NDArray[np.str_]) -> Mask:
    """(m,) whether the chromosome is one of 1..22, also with the prefix chr."""
    autosomes = {str(number) for number in range(1, 23)}
    names = {name: name.lower().removeprefix("chr") in autosomes for name in set(chromosome.tolist())}
    return np.array([names[name] for name in chromosome.tolist()], dtype=np.bool_)
