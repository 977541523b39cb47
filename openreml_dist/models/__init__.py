"""Mixed models of a table of records: a formula for the fixed effects, words for the random ones."""

from openreml_dist.models.levels import CompoundSymmetric, Diagonal, FactorAnalytic, Regression, Unstructured
from openreml_dist.models.mixed_model import MixedModel
from openreml_dist.models.positions import AR1, Exponential, Matern
from openreml_dist.models.relationships import Genomic, Pedigree, Relationship
from openreml_dist.models.structures import Group, Heterogeneous, Independent, Structure
from openreml_dist.models.words import parse_structure

__all__ = [
    "AR1",
    "CompoundSymmetric",
    "Diagonal",
    "Exponential",
    "FactorAnalytic",
    "Genomic",
    "Group",
    "Heterogeneous",
    "Independent",
    "Matern",
    "MixedModel",
    "Pedigree",
    "Regression",
    "Relationship",
    "Structure",
    "Unstructured",
    "parse_structure",
]
