"""Where the iteration begins, as far as every engine has it in common.

Legend: r parameters θ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from openreml_dist.errors import ConfigError
from openreml_dist.reml.bounds import Bounds

SMALLEST_PROPORTION = 0.01  # of the phenotypic variance, so that the start lies inside the bounds


METHODS = ("auto", "haseman-elston", "equal")


@dataclass(frozen=True)
class Known:
    """A start from another fit: values of parameters by name. What has no value there, a method finds in the data."""

    values: Mapping[str, float]
    method: str = "auto"

    def over(self, found: Tensor, parameters: Sequence[str], bounds: Bounds) -> Tensor:
        """What the method found (r,), with the known values within the bounds in their places. Local."""
        known = [self.values.get(name, value) for name, value in zip(parameters, found.tolist(), strict=True)]
        return bounds.clip(found.new_tensor(known))


def choose_start(method: str, why_no_regression: str | None) -> str:
    """``haseman-elston`` or ``equal``. Local.

    Raises:
        ConfigError: for another method, or for regression where there is a reason against it.
    """
    if method not in METHODS:
        raise ConfigError(f"solver.start: {method!r} is not {', '.join(METHODS)}, a list of values, or a run directory")
    if method == "haseman-elston" and why_no_regression is not None:
        raise ConfigError(f"solver.start: haseman-elston {why_no_regression}; use auto, equal, or a list of values")
    if method == "auto":
        return "haseman-elston" if why_no_regression is None else "equal"
    return method


def inside(solved: Tensor, largest: Tensor) -> Tensor:
    """Variances (r,) of a regression, none of them below a hundredth of the largest it can have, or above that. Local."""
    return torch.minimum(torch.maximum(solved, SMALLEST_PROPORTION * largest), largest)
