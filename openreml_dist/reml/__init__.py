"""REML: the solver, its engines, the iteration, the result, and the tests that follow it."""

from openreml_dist.reml.fixed import null_log_likelihood
from openreml_dist.reml.liability import LiabilityScale
from openreml_dist.reml.likelihood_ratio import VarianceTests, variance_tests
from openreml_dist.reml.outcome import Iteration, Status, Stopping
from openreml_dist.reml.prediction import Effects, NewRecords, Predictor
from openreml_dist.reml.remarks import Remark, remarks_on
from openreml_dist.reml.result import FitResult, VarianceEstimate
from openreml_dist.reml.solver import Solver
from openreml_dist.reml.traits import trait_estimates
from openreml_dist.reml.wald import WaldTest, wald_test

__all__ = [
    "Effects",
    "FitResult",
    "Iteration",
    "LiabilityScale",
    "NewRecords",
    "Predictor",
    "Remark",
    "Solver",
    "Status",
    "Stopping",
    "VarianceEstimate",
    "VarianceTests",
    "WaldTest",
    "null_log_likelihood",
    "remarks_on",
    "trait_estimates",
    "variance_tests",
    "wald_test",
]
