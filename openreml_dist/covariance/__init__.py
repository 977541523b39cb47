"""Covariance structures by tiles."""

from openreml_dist.covariance.covariance import Covariance
from openreml_dist.covariance.grouping import Grouping
from openreml_dist.covariance.identity import Identity
from openreml_dist.covariance.kernel import Kernel, KernelSource
from openreml_dist.covariance.term import Piece, Spans, Term, VarianceComponent

__all__ = ["Covariance", "Grouping", "Identity", "Kernel", "KernelSource", "Piece", "Spans", "Term", "VarianceComponent"]
