"""``convergence.png``: log-likelihood and variance components by iteration."""

from __future__ import annotations

from pathlib import Path

from openreml_dist.reml import FitResult
from openreml_dist.reml.result import VarianceEstimate
from openreml_dist.store.files import written_aside

DODGE = 0.02  # share of the axis between the intervals of two components


def plot_convergence(fit: FitResult, trait: str, path: Path) -> None:
    """Draw the path of a fit: ℓ below its last value on the left, the components with their 95 % intervals on the right."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    numbers = [iteration.number for iteration in fit.iterations]
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(numbers, [iteration.step.loglik for iteration in fit.iterations], "o-", color="black")
    left.set(xlabel="iteration", ylabel="logL", title=f"{trait}: {fit.status}, logL = {fit.loglik:.3f}")
    left.ticklabel_format(useOffset=False)
    for k, component in enumerate(fit.components):
        (line,) = right.plot(numbers, [float(i.step.theta[k]) for i in fit.iterations], "o-", label=_label(component))
        if component.se is not None:
            right.errorbar(
                numbers[-1] + DODGE * (k + 1) * max(1, numbers[-1]),
                component.variance,
                yerr=1.96 * component.se,
                color=line.get_color(),
                capsize=4,
            )
    right.set(xlabel="iteration", ylabel="variance", title="components, 95 % interval at the end")
    right.set_ylim(bottom=min(0.0, right.get_ylim()[0]))
    right.axhline(0.0, color="lightgrey", linewidth=1, zorder=0)
    right.legend(frameon=False)
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.spines[["top", "right"]].set_visible(False)
    with written_aside(path) as aside:
        figure.savefig(aside, format="png", dpi=120)


def _label(component: VarianceEstimate) -> str:
    """Name and share of the phenotypic variance with its standard error."""
    se = "" if component.proportion_se is None else f" ± {component.proportion_se:.3f}"
    return f"{component.name}, {component.proportion:.3f}{se} of Vp"
