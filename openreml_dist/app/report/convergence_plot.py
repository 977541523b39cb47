"""``convergence.png``: log-likelihood and variance components by iteration."""

from __future__ import annotations

from pathlib import Path

from openreml_dist.reml import FitResult
from openreml_dist.store.files import written_aside

DODGE = 0.02  # share of the axis between the intervals of two components


def plot_convergence(fit: FitResult, trait: str, path: Path) -> None:
    """Draw the path of a fit: ℓ below its last value on the left, the components with their 95 % intervals on the right."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    numbers = [iteration.number for iteration in fit.iterations]
    figure = Figure(figsize=(10, 4))
    left, right = figure.subplots(1, 2)
    figure.subplots_adjust(left=0.09, right=0.98, bottom=0.13, top=0.91, wspace=0.22)  # a layout engine draws all of it twice
    left.plot(numbers, [iteration.step.loglik for iteration in fit.iterations], "o-", color="black")
    left.set(xlabel="iteration", ylabel="logL", title=f"{trait}: {fit.status}, logL = {fit.loglik:.3f}")
    left.ticklabel_format(useOffset=False)
    for k, (estimate, label) in enumerate(zip(fit.estimates, _labels(fit), strict=False)):
        (line,) = right.plot(numbers, [float(i.step.theta[k]) for i in fit.iterations], "o-", label=label)
        if estimate.se is not None:
            right.errorbar(
                numbers[-1] + DODGE * (k + 1) * max(1, numbers[-1]),
                estimate.value,
                yerr=1.96 * estimate.se,
                color=line.get_color(),
                capsize=4,
            )
    shown = ("variance", "components") if fit.is_linear else ("estimate", "parameters")
    right.set(xlabel="iteration", ylabel=shown[0], title=f"{shown[1]}, 95 % interval at the end")
    right.set_ylim(bottom=min(0.0, right.get_ylim()[0]))
    right.axhline(0.0, color="lightgrey", linewidth=1, zorder=0)
    right.legend(frameon=False)
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.spines[["top", "right"]].set_visible(False)
    with written_aside(path) as aside:
        figure.savefig(aside, format="png", dpi=120)


def _labels(fit: FitResult) -> list[str]:
    """Names of θ; of variances that add up, with their share of the phenotypic variance and its standard error."""
    if not fit.is_linear:
        return list(fit.parameters)
    errors = ["" if c.proportion_se is None else f" ± {c.proportion_se:.3f}" for c in fit.components]
    return [f"{c.name}, {c.proportion:.3f}{error} of Vp" for c, error in zip(fit.components, errors, strict=True)]
