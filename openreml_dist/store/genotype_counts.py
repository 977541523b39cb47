"""Genotype counts of variants, and the frequencies and rates that follow from them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]
Dosage = NDArray[np.int8]


@dataclass(frozen=True, eq=False)
class GenotypeCounts:
    """How many samples have each genotype of each variant.

    Attributes:
        hom_ref, het, hom_alt: (m,) counts of samples with 0, 1 and 2 ALT alleles.
        num_samples: n, so that n minus the three counts is the number of missing calls.
    """

    hom_ref: Counts
    het: Counts
    hom_alt: Counts
    num_samples: int

    @property
    def called(self) -> Counts:
        """(m,) samples with a call."""
        return self.hom_ref + self.het + self.hom_alt

    @property
    def call_rate(self) -> NDArray[np.float64]:
        """(m,) proportion of samples with a call."""
        return self.called / self.num_samples

    @property
    def missing_rate(self) -> NDArray[np.float64]:
        """(m,) proportion of samples without a call."""
        return 1.0 - self.call_rate

    @property
    def allele_frequency(self) -> NDArray[np.float64]:
        """(m,) frequency of the ALT allele among the called genotypes, float64; NaN where nothing is called."""
        with np.errstate(invalid="ignore"):
            return (self.het + 2 * self.hom_alt) / (2 * self.called)

    @property
    def minor_allele_frequency(self) -> NDArray[np.float64]:
        """(m,) frequency of the rarer allele; NaN where nothing is called."""
        frequency = self.allele_frequency
        return np.minimum(frequency, 1.0 - frequency)

    def take(self, variants: NDArray[np.int64] | NDArray[np.bool_]) -> GenotypeCounts:
        """The counts of some of the variants, by indices or mask."""
        return GenotypeCounts(self.hom_ref[variants], self.het[variants], self.hom_alt[variants], self.num_samples)


def count_genotypes(dosage: Dosage) -> GenotypeCounts:
    """Count ALT dosages (m, n), -1 missing, over the samples."""
    hom_ref, het, hom_alt = (np.count_nonzero(dosage == alleles, axis=1).astype(np.int64) for alleles in (0, 1, 2))
    return GenotypeCounts(hom_ref, het, hom_alt, dosage.shape[1])


def concatenate_counts(parts: list[GenotypeCounts]) -> GenotypeCounts:
    """Join the counts of consecutive blocks of variants over the same samples."""
    hom_ref, het, hom_alt = (np.concatenate([getattr(part, name) for part in parts]) for name in ("hom_ref", "het", "hom_alt"))
    return GenotypeCounts(hom_ref, het, hom_alt, parts[0].num_samples)
