"""Tiled linear algebra on a process grid."""

from openreml_dist.linalg.cholesky import CholeskyFactor, cholesky_
from openreml_dist.linalg.forms import diagonal, quadratic_forms
from openreml_dist.linalg.sweep import Inverse, multiply, sweep_inverse_

__all__ = ["CholeskyFactor", "Inverse", "cholesky_", "diagonal", "multiply", "quadratic_forms", "sweep_inverse_"]
