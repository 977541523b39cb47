"""Covariance structures by tiles."""

from openreml_dist.covariance.blocks import BlockDiagonal
from openreml_dist.covariance.component import VarianceComponent
from openreml_dist.covariance.correlation import AR1Correlation, CompoundSymmetry, Exchangeable
from openreml_dist.covariance.covariance import Covariance
from openreml_dist.covariance.dense import DenseMatrix
from openreml_dist.covariance.distance import Exponential, Matern
from openreml_dist.covariance.dummies import DummyMatrix
from openreml_dist.covariance.features import FeatureKernel, FeatureMatrix
from openreml_dist.covariance.grouping import Grouping, SameLevel
from openreml_dist.covariance.identity import Heterogeneous, Identity, IdentityMatrix, Weighted
from openreml_dist.covariance.indices import Piece, Samples, Spans
from openreml_dist.covariance.kernel import Kernel, KernelSource, StoredMatrix
from openreml_dist.covariance.operators import HadamardProduct, KroneckerProduct, Sum
from openreml_dist.covariance.parameters import Log, Logit, Parameter, ParameterMap, Quantity, Transform
from openreml_dist.covariance.pedigree import PedigreeMatrix
from openreml_dist.covariance.propagation import CovariancePropagation
from openreml_dist.covariance.scaled import Scaled
from openreml_dist.covariance.small import DiagonalLevels, FactorAnalytic, SmallMatrix, Unstructured
from openreml_dist.covariance.structures import (
    AR1Matrix,
    CompoundSymmetricMatrix,
    DiagonalMatrix,
    EquicorrelationMatrix,
    ScalarMatrix,
)
from openreml_dist.covariance.term import DiagonalTerm, Term

__all__ = [
    "AR1Correlation",
    "AR1Matrix",
    "BlockDiagonal",
    "CompoundSymmetricMatrix",
    "CompoundSymmetry",
    "Covariance",
    "CovariancePropagation",
    "DenseMatrix",
    "DiagonalLevels",
    "DiagonalMatrix",
    "DiagonalTerm",
    "DummyMatrix",
    "EquicorrelationMatrix",
    "Exchangeable",
    "Exponential",
    "FactorAnalytic",
    "FeatureKernel",
    "FeatureMatrix",
    "Grouping",
    "HadamardProduct",
    "Heterogeneous",
    "Identity",
    "IdentityMatrix",
    "Kernel",
    "KernelSource",
    "KroneckerProduct",
    "Log",
    "Logit",
    "Matern",
    "Parameter",
    "ParameterMap",
    "PedigreeMatrix",
    "Piece",
    "Quantity",
    "SameLevel",
    "Samples",
    "ScalarMatrix",
    "Scaled",
    "SmallMatrix",
    "Spans",
    "StoredMatrix",
    "Sum",
    "Term",
    "Transform",
    "Unstructured",
    "VarianceComponent",
    "Weighted",
]
