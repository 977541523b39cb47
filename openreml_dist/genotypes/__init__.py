"""Genotypes of two bits, and products with them: what a matrix-free engine multiplies by in place of n x n matrices."""

from openreml_dist.genotypes.operator import GenotypeOperator
from openreml_dist.genotypes.packed import GenotypeReader, PackedGenotypes

__all__ = ["GenotypeOperator", "GenotypeReader", "PackedGenotypes"]
