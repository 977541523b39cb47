"""Where the six decimals of GCTA's ``.hsq`` do not show what was estimated, and the scale of y that would.

The file stays as GCTA prints it, because scripts read it by name, by place or as a table of numbers. What is said there is one
more line behind ``n`` with a name and a number, which all of them pass over: a sentence would turn R's column of numbers into
text.
"""

from __future__ import annotations

import math

from openreml_dist.app.report.numbers import Pair, telling
from openreml_dist.reml import FitResult
from openreml_dist.reml.result import Estimate

SHOWN_FROM = 99.5e-6  # what has three digits among six decimals
WANTED = 1e-3  # a scale gives the least of them four digits
NAME = "six_decimals_are_too_few_multiply_y_by"
OF_VARIANCES = ("variance", "covariance")  # units that follow the scale of y


def scale_of_y(fit: FitResult, traits: list[Estimate] | None = None) -> float | None:
    """The power of ten to multiply y by, so that six decimals show its variances; None where they do.

    Decisive are standard errors: an estimate of 2e-6 beside a standard error of 0.05 is as good as zero on any scale.
    """
    return _scale([pair for _, pair in _variances(fit, traits or [])], power=2)


def hsq_line(fit: FitResult, traits: list[Estimate] | None = None) -> str:
    """The line for ``result.hsq``; empty where six decimals are enough."""
    scale = scale_of_y(fit, traits)
    return "" if scale is None else f"{NAME}\t{scale:g}\n"


def decimals_notes(fit: FitResult, traits: list[Estimate] | None = None, fixed_names: tuple[str, ...] = ()) -> list[str]:
    """Sentences for the terminal: of the variances, and of the fixed effects, if they are in the file."""
    notes = []
    variances = _variances(fit, traits or [])
    scale = scale_of_y(fit, traits)
    if scale is not None:
        name, (value, se) = next(row for row in variances if _scale([row[1]], power=2) is not None)
        error = "" if se is None else f", SE {se:.3g}"
        notes.append(
            f"result.hsq has six decimals, too few for {name} ({value:.3g}{error}): multiply y by {_plain(scale)}, or take the "
            f"numbers from result.json, which has all digits"
        )
    for name, value, se in zip(fixed_names, fit.beta.tolist(), fit.beta_se.tolist(), strict=False):
        times = scale or 1.0
        shrink = _scale([(value * times, se * times)], power=1)
        if shrink is not None:
            how = f"divide {name} by" if name.lower() != "intercept" else "multiply y by"
            notes.append(
                f"result.hsq has six decimals, too few for the fixed effect of {name} ({value:.3g}, SE {se:.3g}): "
                f"{how} {_plain(shrink)}, or take it from result.json"
            )
    return notes


def _variances(fit: FitResult, traits: list[Estimate]) -> list[tuple[str, Pair]]:
    """The rows of ``result.hsq`` that are in squared units of y."""
    rows = traits or [*fit.estimates, Estimate("Vp", *fit.total)]
    return [(row.name, (row.value, row.se)) for row in rows if row.unit in OF_VARIANCES]


def _scale(pairs: list[Pair], power: int) -> float | None:
    """Smallest 10ᵏ with 10^(k·power) times each number that tells at least ``WANTED``; None if six decimals show them all."""
    least = min(telling(pairs), default=math.inf)
    if least >= SHOWN_FROM:
        return None
    return 10.0 ** math.ceil(math.log10(WANTED / least) / power)


def _plain(scale: float) -> str:
    return f"{scale:.0f}" if scale < 1e7 else f"{scale:.0e}".replace("e+0", "e").replace("e+", "e")
