"""The content of ``result.json``, and the records of ``steps.jsonl``."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Any

from openreml_dist.app.report.provenance import input_digests, versions
from openreml_dist.app.report.results import Results
from openreml_dist.app.report.warnings import warnings
from openreml_dist.reml import FitResult, Iteration
from openreml_dist.reml.likelihood_ratio import VarianceTests


def result_json(results: Results) -> dict[str, Any]:
    """Estimates, then what they were made from and what that took; None where there is no standard error."""
    inputs, tests = results.inputs, results.predictions.fixed_tests
    return {
        **_estimates(results.fit, inputs.fixed_names, results.tests, results.num_samples),
        "warnings": [*warnings(results.fit), *results.engine.warnings],
        "trait": inputs.trait,
        **({"traits": [asdict(row) for row in results.traits]} if results.traits else {}),
        "dropped": inputs.dropped,
        "num_ranks": len(results.profile),
        "timings": asdict(results.timings),
        "profile": results.profile,
        "planned_memory_bytes": results.planned_memory_bytes,
        "versions": versions(),
        "inputs": {**input_digests(results.settings), **results.digests},
        "command": sys.argv,
        "settings": asdict(results.settings),
        "remarks": results.remarks,
        **results.engine.record,
        **({} if tests is None else {"fixed_tests": tests}),
    }


def step_record(iteration: Iteration, parameters: tuple[str, ...]) -> dict[str, Any]:
    """One accepted iterate; every number belongs to its θ."""
    step = iteration.step
    return {
        "iteration": iteration.number,
        "theta": dict(zip(parameters, step.theta.tolist(), strict=True)),
        "loglik": step.loglik,
        "score": step.score.tolist(),
        "ai": step.AI.tolist(),
        "beta": step.beta.tolist(),
        "at_bound": [name for name, held in zip(parameters, iteration.at_bound.tolist(), strict=True) if held],
        "largest_move_se": iteration.largest_move,
        "evaluations": iteration.evaluations,
        "evaluation": str(step.evaluation),
        "monte_carlo_error_se": iteration.noise,
        "trace_error": step.trace_error,
        "seconds": step.seconds,
    }


def _estimates(fit: FitResult, fixed_names: tuple[str, ...], tests: VarianceTests | None, num_samples: int) -> dict[str, Any]:
    """What was found, as numbers, lists and texts."""
    return {
        "status": str(fit.status),
        "exit_code": fit.status.exit_code,
        "message": fit.message,
        "num_samples": num_samples,
        "num_fixed_effects": len(fixed_names),
        "num_iterations": fit.num_iterations,
        "loglik": fit.loglik,
        **({} if tests is None else asdict(tests)),
        **_variance_components(fit),
        "estimates": [asdict(estimate) for estimate in fit.estimates],
        "parameters": list(fit.parameters),
        "confounded": list(fit.confounded),
        "unknown": list(fit.unknown),
        "theta_covariance": fit.theta_covariance.tolist(),
        "monte_carlo_se": fit.monte_carlo_se.tolist(),
        "fixed_effects": [
            {"name": name, "estimate": estimate, "se": se}
            for name, estimate, se in zip(fixed_names, fit.beta.tolist(), fit.beta_se.tolist(), strict=True)
        ],
        "fixed_effects_covariance": fit.beta_covariance.tolist(),
        "history": [step_record(iteration, fit.parameters) for iteration in fit.iterations],
    }


def _variance_components(fit: FitResult) -> dict[str, Any]:
    """Variances with their proportions, where they add up."""
    if not fit.is_linear:
        return {}
    return {
        "components": [asdict(component) for component in fit.components],
        "phenotypic_variance": fit.total[0],
        "phenotypic_variance_se": fit.total[1],
    }
