"""REML: one step, the iteration, the result; the engines."""

from openreml_dist.reml.dense.null import null_log_likelihood
from openreml_dist.reml.dense.prediction import Effects, NewRecords, Predictor
from openreml_dist.reml.driver import Iteration, Status, Stopping
from openreml_dist.reml.remarks import Remark, remarks_on
from openreml_dist.reml.result import FitResult, VarianceEstimate
from openreml_dist.reml.wald import WaldTest, wald_test

__all__ = [
    "Effects",
    "FitResult",
    "Iteration",
    "NewRecords",
    "Predictor",
    "Remark",
    "Status",
    "Stopping",
    "VarianceEstimate",
    "WaldTest",
    "null_log_likelihood",
    "remarks_on",
    "wald_test",
]
