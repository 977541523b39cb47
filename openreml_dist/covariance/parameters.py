"""Covariance parameters: names, units, bounds, and how the solver's θ maps to what the terms use.

Legend: η (m,) what the terms of V use: variances, correlations, ranges; θ (r,) what the solver moves: those that are free, each
once, perhaps transformed. Every η_i depends on one θ_k at most: η_i = f_i(θ_k).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor

from openreml_dist.errors import InputError

CORRELATION_LIMIT = 1 - 1e-6  # of a correlation that makes V singular at 1


class Transform(ABC):
    """η = f(θ) for one number, increasing."""

    @property
    def reach(self) -> tuple[float, float]:
        """Limits of η."""
        return -math.inf, math.inf

    @abstractmethod
    def forward(self, theta: Tensor) -> Tensor:
        """f(θ), differentiable."""

    @abstractmethod
    def slope(self, theta: float) -> float:
        """f′(θ)."""

    @abstractmethod
    def inverse(self, eta: float) -> float:
        """θ with f(θ) = η; ±inf where η is a limit that f does not reach."""


@dataclass(frozen=True)
class Untransformed(Transform):
    """η = θ."""

    def forward(self, theta: Tensor) -> Tensor:
        """θ."""
        return theta

    def slope(self, theta: float) -> float:
        """1."""
        return 1.0

    def inverse(self, eta: float) -> float:
        """η."""
        return eta


@dataclass(frozen=True)
class Log(Transform):
    """θ = scale·log η: the logarithm of a variance, or with scale ½ that of its standard deviation."""

    scale: float = 1.0

    @property
    def reach(self) -> tuple[float, float]:
        """0 to ∞."""
        return 0.0, math.inf

    def forward(self, theta: Tensor) -> Tensor:
        """exp(θ/scale)."""
        return (theta / self.scale).exp()

    def slope(self, theta: float) -> float:
        """exp(θ/scale)/scale."""
        return math.exp(theta / self.scale) / self.scale

    def inverse(self, eta: float) -> float:
        """scale·log η."""
        return self.scale * math.log(eta) if eta > 0 else -math.inf


@dataclass(frozen=True)
class Logit(Transform):
    """θ = log((η − low)/(high − η)), for a correlation between two limits."""

    low: float = -1.0
    high: float = 1.0

    @property
    def reach(self) -> tuple[float, float]:
        """Its two limits."""
        return self.low, self.high

    def forward(self, theta: Tensor) -> Tensor:
        """low + (high − low)/(1 + exp(−θ))."""
        return self.low + (self.high - self.low) * torch.sigmoid(theta)

    def slope(self, theta: float) -> float:
        """(high − low) s(1 − s) with s = 1/(1 + exp(−θ))."""
        s = 1 / (1 + math.exp(-theta)) if theta > -700 else 0.0
        return (self.high - self.low) * s * (1 - s)

    def inverse(self, eta: float) -> float:
        """log((η − low)/(high − η))."""
        if eta <= self.low:
            return -math.inf
        return math.log((eta - self.low) / (self.high - eta)) if eta < self.high else math.inf


UNTRANSFORMED = Untransformed()
NAMED_TRANSFORMS: dict[str, Transform] = {"identity": UNTRANSFORMED, "log": Log(), "logit": Logit()}


class Quantity(NamedTuple):
    """A number that is reported.

    Attributes:
        name: as shown.
        unit: one of those of ``Parameter``.
        levels: of a factor, that it is a variance of, or the two that it is a covariance or correlation between.
    """

    name: str
    unit: str
    levels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Parameter:
    """One covariance parameter of a term.

    Attributes:
        name: in reports, such as ``genetic`` or ``row.correlation``.
        unit: ``variance`` and ``covariance`` in squared units of y, ``loading`` in units of y, ``correlation`` and ``ratio``
            without a unit, ``range`` in units of the coordinates.
        lower, upper: bounds of η.
        transform: from θ to η; the bounds then hold by themselves where it does not reach them.
        vanishes: ∂V/∂η is zero on the lower bound, so that the score there says nothing.
        anonymous: named by its kind alone (``sigma^2``): an operator puts the place of its operand before it.
    """

    name: str
    unit: str = "variance"
    lower: float = -math.inf
    upper: float = math.inf
    transform: Transform = field(default=UNTRANSFORMED)
    vanishes: bool = False
    anonymous: bool = False

    @classmethod
    def variance(cls, name: str) -> Parameter:
        """σ² ≥ 0."""
        return cls(name, "variance", lower=0.0)

    @classmethod
    def correlation(cls, name: str, lower: float = -1.0, upper: float = 1.0) -> Parameter:
        """ρ strictly between its limits."""
        middle, half = (upper + lower) / 2, CORRELATION_LIMIT * (upper - lower) / 2
        return cls(name, "correlation", lower=middle - half, upper=middle + half)


@dataclass(frozen=True)
class ParameterMap:
    """From the solver's θ (r,) to the terms' η (m,).

    Attributes:
        parameters: all m, in the order of the terms, with unique names.
        free: r names, those of θ: of shared parameters the first.
        source: (m,) which θ each η comes from, −1 for a fixed one.
        fixed: (m,) values of the fixed, nan elsewhere.
    """

    parameters: tuple[Parameter, ...]
    free: tuple[str, ...]
    source: tuple[int, ...]
    fixed: tuple[float, ...]

    @classmethod
    def of(
        cls,
        parameters: Sequence[Parameter],
        fixed: Mapping[str, float] | None = None,
        shared: Sequence[Sequence[str]] = (),
        transforms: Mapping[str, str | Transform] | None = None,
    ) -> ParameterMap:
        """Fix, share and transform parameters by name.

        Args:
            parameters: of all terms.
            fixed: values that do not change.
            shared: groups of names that have one value.
            transforms: another transform than the parameter's own: ``log``, ``logit``, ``identity`` or an object.
        Raises:
            InputError: for a name that is not there, or that is there twice; a fixed value outside its bounds; shared
                parameters that differ in unit, transform or fixed value; a transform that does not reach the bounds.
        """
        fixed, transforms = fixed or {}, transforms or {}
        names = [parameter.name for parameter in parameters]
        if any(isinstance(group, str) for group in shared):
            raise InputError(f"covariance: shared parameters are given in groups of names, not as {shared!r}")
        _check_names(names, [*fixed, *(name for group in shared for name in group), *transforms])
        chosen = tuple(_with_transform(parameter, transforms.get(parameter.name)) for parameter in parameters)
        by_name = dict(zip(names, chosen, strict=True))
        for name, value in fixed.items():
            _check_fixed(by_name[name], value)
        leader: dict[str, str] = {}
        for group in shared:
            _check_shared([by_name[name] for name in group], leader, fixed)
            leader |= dict.fromkeys(group, group[0]) if group else {}
        values = {leader.get(name, name): float(value) for name, value in fixed.items()}
        leaders = [leader.get(name, name) for name in names]
        free = tuple(dict.fromkeys(name for name in leaders if name not in values))
        source = tuple(-1 if name in values else free.index(name) for name in leaders)
        return cls(chosen, free, source, tuple(values.get(name, math.nan) for name in leaders))

    @property
    def is_plain(self) -> bool:
        """θ is η: nothing fixed, shared or transformed."""
        return self.source == tuple(range(len(self.parameters))) and all(p.transform == UNTRANSFORMED for p in self.parameters)

    def eta(self, theta: Tensor) -> Tensor:
        """η (m,) float64, differentiable in θ (r,). Local."""
        if not self.parameters:
            return theta.new_zeros(0)
        return torch.stack(
            [
                theta.new_tensor(value) if k < 0 else parameter.transform.forward(theta[k])
                for parameter, k, value in zip(self.parameters, self.source, self.fixed, strict=True)
            ]
        )

    def quantities(self) -> list[Quantity]:
        """Names and units of θ (r,); of a transformed parameter such as ``log variance``. Local."""
        shown = []
        for k, name in enumerate(self.free):
            parameter = self.parameters[self.source.index(k)]
            scale = "" if parameter.transform == UNTRANSFORMED else f"{type(parameter.transform).__name__.lower()} "
            shown.append(Quantity(name, scale + parameter.unit))
        return shown

    def is_shown_by_theta(self, i: int) -> bool:
        """Whether η_i is a θ by its own name, so that it need not be reported twice."""
        k = self.source[i]
        return k >= 0 and self.free[k] == self.parameters[i].name and self.parameters[i].transform == UNTRANSFORMED

    def slopes(self, theta: Tensor) -> list[float]:
        """∂η_i/∂θ_{source i} (m,), 0 for a fixed one. Local."""
        return [
            0.0 if k < 0 else parameter.transform.slope(float(theta[k]))
            for parameter, k in zip(self.parameters, self.source, strict=True)
        ]

    def theta(self, eta: Tensor) -> Tensor:
        """θ (r,) whose η is nearest to the one given; of shared values the mean. Local."""
        theta = torch.zeros(len(self.free), dtype=torch.float64)
        for k in range(len(self.free)):
            places = [i for i, source in enumerate(self.source) if source == k]
            mean = sum(float(eta[i]) for i in places) / len(places)
            theta[k] = self.parameters[places[0]].transform.inverse(mean)
        return theta

    def bounds(self) -> tuple[Tensor, Tensor]:
        """Lower and upper bounds (r,) of θ: the narrowest of those that share it. Local."""
        lower, upper = torch.full((2, len(self.free)), math.inf, dtype=torch.float64)
        lower = -lower
        for parameter, k in zip(self.parameters, self.source, strict=True):
            if k >= 0:
                least, most = (_bound(parameter.transform, bound) for bound in (parameter.lower, parameter.upper))
                lower[k] = max(float(lower[k]), least)
                upper[k] = min(float(upper[k]), most)
        return lower, upper


def _bound(transform: Transform, eta: float) -> float:
    return transform.inverse(eta) if math.isfinite(eta) else eta


def _check_names(names: Sequence[str], asked: Sequence[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"covariance: two parameters have the same name: {', '.join(twice)}; name their terms differently")
    unknown = sorted(set(asked) - set(names))
    if unknown:
        raise InputError(f"covariance: no parameter is named {', '.join(unknown)}; there are {', '.join(names)}")


def _check_shared(group: Sequence[Parameter], leader: Mapping[str, str], fixed: Mapping[str, float]) -> None:
    """Of parameters that have one value all else is the same, and none has another value already."""
    names = ", ".join(parameter.name for parameter in group)
    taken = [parameter.name for parameter in group if parameter.name in leader]
    if taken:
        raise InputError(f"covariance: {', '.join(taken)} is in two groups of shared parameters; make them one")
    for what, kinds in (
        ("units", {parameter.unit for parameter in group}),
        ("transforms", {str(parameter.transform) for parameter in group}),
        ("fixed values", {fixed[parameter.name] for parameter in group if parameter.name in fixed}),
    ):
        if len(kinds) > 1:
            raise InputError(f"covariance: {names} are shared but have different {what}: {', '.join(map(str, sorted(kinds)))}")


def _with_transform(parameter: Parameter, transform: str | Transform | None) -> Parameter:
    if transform is None:
        return parameter
    named = NAMED_TRANSFORMS.get(transform) if isinstance(transform, str) else transform
    if not isinstance(named, Transform):
        raise InputError(
            f"covariance: {parameter.name}: {transform!r} is no transform; there are {', '.join(NAMED_TRANSFORMS)}"
        )
    least, most = named.reach
    if parameter.lower < least or parameter.upper > most:
        raise InputError(
            f"covariance: {parameter.name}: {transform} gives values from {least:g} to {most:g}, but it may be anything from "
            f"{parameter.lower:g} to {parameter.upper:g}"
        )
    return replace(parameter, transform=named)


def _check_fixed(parameter: Parameter, value: float) -> None:
    if not (math.isfinite(value) and parameter.lower <= value <= parameter.upper):
        raise InputError(
            f"covariance: {parameter.name} is fixed at {value:g}, outside its bounds {parameter.lower:g} to {parameter.upper:g}"
        )
