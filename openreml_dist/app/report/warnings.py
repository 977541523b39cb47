"""What a reader of the estimates should not overlook, on the terminal and in ``result.json``."""

from __future__ import annotations

from openreml_dist.reml import FitResult, Status


def warnings(fit: FitResult) -> list[str]:
    """A sentence each."""
    found = [
        f"{name} is on its bound, so it has no standard error"
        for name, held in zip(fit.parameters, fit.at_bound.tolist(), strict=True)
        if held
    ]
    found += [f"{name} has run to {limit}, so it has no standard error" for name, limit in _unit_correlations(fit)]
    if fit.unknown:
        values = zip(fit.parameters, fit.theta.tolist(), strict=True)
        kept = ", ".join(f"{name} = {value:.6g}" for name, value in values if name in fit.unknown)
        derived = [name for name in fit.unknown if name not in fit.parameters]
        following = f", nor on {', '.join(derived)}" if derived else ""
        found.append(
            f"the likelihood of these records does not depend on {kept}{following}: kept at the start, no estimate (NA); the "
            "others do not depend on it either"
        )
    if fit.is_linear:
        found += [f"{c.name} is negative ({c.variance:.6g})" for c in fit.components if c.variance < 0]
        found += [f"{c.name} is more than the whole variance" for c in fit.components if c.proportion > 1]
    if fit.confounded:
        along = f": logL does not change along {' nor '.join(fit.ridges)}" if fit.ridges else ""
        found.append(f"{', '.join(fit.confounded)} cannot be told apart by these records{along}; they have no estimate (NA)")
    if fit.status in (Status.ITERATION_LIMIT, Status.STALLED):
        found.append(f"{fit.status}: {fit.message}; the estimates are those of the last iteration")
    return found


def _unit_correlations(fit: FitResult) -> list[tuple[str, int]]:
    return [(e.name, 1 if e.value > 0 else -1) for e in fit.estimates if e.name in fit.unit_correlations]
