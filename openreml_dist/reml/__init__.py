"""REML: one step, the iteration, the result."""

from openreml_dist.reml.api import REML
from openreml_dist.reml.driver import Iteration, Status, Stopping
from openreml_dist.reml.null import null_log_likelihood
from openreml_dist.reml.result import FitResult, VarianceEstimate

__all__ = ["REML", "FitResult", "Iteration", "Status", "Stopping", "VarianceEstimate", "null_log_likelihood"]
