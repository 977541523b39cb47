"""Everything that a finished run has to report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from openreml_dist.app.inputs.samples import Inputs
from openreml_dist.app.predictions import Predictions
from openreml_dist.config import FitConfig
from openreml_dist.reml import FitResult
from openreml_dist.reml.likelihood_ratio import VarianceTests
from openreml_dist.reml.result import Estimate


@dataclass(frozen=True)
class Timings:
    """Seconds.

    Attributes:
        startup: until the ranks were ready.
        read: from then on until the inputs were read.
        fit: from the same moment on until the estimates were there.
        phases: of the accepted evaluations together, by phase.
        tests: likelihood-ratio tests.
        predictions: what ``output`` asks for.
    """

    startup: float
    read: float
    fit: float
    phases: dict[str, float]
    tests: float
    predictions: float


@dataclass(frozen=True)
class EngineReport:
    """What one engine has to report and others have not.

    Attributes:
        record: entries of ``result.json``.
        warnings: beside those of every fit.
    """

    record: Mapping[str, Any] = field(default_factory=dict)
    warnings: Sequence[str] = ()


@dataclass(frozen=True)
class Results:
    """The records of all stages of a run.

    Attributes:
        settings: of the run.
        inputs: samples and data.
        remarks: what is remarkable about the phenotypes, as ``result.json`` has it; on rank 0.
        planned_memory_bytes: of the fullest rank.
        fit: the estimates.
        tests: of variances; None where the model has none to test.
        traits: of several traits; else empty.
        predictions: what was written beside the estimates.
        timings: seconds of the stages.
        profile: of each rank, what it has computed, received and waited for, and the most memory it has held.
        engine: what that alone has to report.
        digests: of inputs that it alone reads, by path.
    """

    settings: FitConfig
    inputs: Inputs
    remarks: list[dict[str, Any]]
    planned_memory_bytes: float
    fit: FitResult
    tests: VarianceTests | None
    traits: list[Estimate]
    predictions: Predictions
    timings: Timings
    profile: list[dict[str, float]]
    engine: EngineReport
    digests: Mapping[str, str]

    @property
    def num_samples(self) -> int:
        """Analysed samples, or records."""
        return len(self.inputs.y)


def seconds_by_phase(fit: FitResult) -> dict[str, float]:
    """Of all complete evaluations that were accepted, together. Local."""
    seconds: dict[str, float] = {}
    for iteration in fit.iterations:
        for phase, own in iteration.step.seconds.items():
            seconds[phase] = seconds.get(phase, 0.0) + own
    return seconds
