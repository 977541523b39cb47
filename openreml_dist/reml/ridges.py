"""What no y can tell, decided before the iteration: combinations c of the parameters with Σ c_k M V_k M = 0.

ℓ depends on V through M V M alone, M = I − QQᵀ with the basis Q of X, so that for V = Σ θ_k V_k it is constant along c: a
relationship matrix beside its parts, a factor both fixed and random. For Gaussian W (n, m) the M V_k M W are dependent, almost
surely, exactly where the M V_k M are (of rank m and more).

Where M V_k M is a combination of the others with coefficients that their bounds allow, θ_k can stay on its own bound and no V
is lost: it is *tied* there, and what is left has a maximum of its own.

Legend: r parameters θ; d combinations.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from openreml_dist.reml.bounds import Bounds
from openreml_dist.reml.trust import bounded_step, positive_definite

LOST = 1e-5  # of its summands, that a combination is zero by: some hundred roundings of float32


@dataclass(frozen=True)
class Gram:
    """How far the M V_k M differ.

    Attributes:
        products: (r, r) ⟨M V_k M W, M V_l M W⟩, V_k in units of its size.
        sizes: (r,) ‖V_k W‖.
    """

    products: Tensor
    sizes: Tensor

    @classmethod
    def of(cls, projected: Tensor, sizes: Tensor) -> Gram:
        """From M V_k M W (r, n, m) and ‖V_k W‖ (r,). Local."""
        unit = torch.where(sizes > 0, sizes, 1.0)
        flat = projected.flatten(start_dim=1) / unit[:, None]
        return cls((flat @ flat.mT).cpu(), unit.cpu())


@dataclass(frozen=True)
class Ridges:
    """What was found.

    Attributes:
        unknown: (r,) parameters with M V_k M = 0, of which ℓ does not depend at all.
        tied: (r,) one parameter of each combination, to be kept where it is.
        directions: (r, d) the combinations, 1 at the parameter that is tied, 0 at those that others tie.
    """

    unknown: Tensor
    tied: Tensor
    directions: Tensor

    @classmethod
    def of(cls, gram: Gram, bounds: Bounds) -> Ridges:
        """Tie one parameter after the other, as long as what is left can make up for it. Local."""
        G = gram.products
        unknown = G.diagonal() < LOST**2
        free, made_up = ~unknown, torch.zeros_like(unknown)
        for k in range(len(G)):
            others = free & (torch.arange(len(G)) != k)
            if free[k] and _combination(G, k, others, bounds) is not None:
                free, made_up[k] = others, True
        found = {k: _combination(G, k, free, bounds) for k in made_up.nonzero().flatten().tolist()}
        directions = {k: c / gram.sizes * gram.sizes[k] for k, c in found.items() if c is not None}
        tied = torch.zeros_like(unknown)
        tied[list(directions)] = True
        none = G.new_zeros(len(G), 0)
        return cls(unknown, tied, torch.stack([*directions.values()], dim=1) if directions else none)

    def tie(self, theta: Tensor, bounds: Bounds) -> tuple[Tensor, Bounds]:
        """θ (r,) moved along the ridges until what is tied is on its bound, if it has one, and bounds that keep it there."""
        towards = torch.where(self.tied & bounds.lower.isfinite(), theta - bounds.lower, 0.0)
        moved = theta.clone()
        for c in self.directions.mT:
            k = int((self.tied & (c != 0)).nonzero())
            moved -= towards[k] * c
        moved = torch.where(self.tied & bounds.lower.isfinite(), bounds.lower, moved)
        moved = bounds.clip(moved)
        bounds = bounds.fixing(self.unknown, moved)
        lower, upper = (torch.where(self.tied, moved, bound) for bound in (bounds.lower, bounds.upper))
        return moved, replace(bounds, lower=lower, upper=upper, tied=self.tied, ridges=self.directions)

    def sentences(self, names: Sequence[str]) -> list[str]:
        """One of each combination, and of what is unknown."""
        told = []
        for c in self.directions.mT:
            members = [name for name, part in zip(names, c.tolist(), strict=True) if part]
            kept = names[int((self.tied & (c != 0)).nonzero())]
            told.append(
                f"{', '.join(members)} cannot be told apart beside the fixed effects, whatever the phenotype: logL does not "
                f"change along {combination(c.tolist(), names)}; {kept} is kept on its bound"
            )
        if bool(self.unknown.any()):
            lost = ", ".join(name for name, unknown in zip(names, self.unknown.tolist(), strict=True) if unknown)
            told.append(f"logL does not depend on {lost}: nothing is left of it beside the fixed effects")
        return told


def combination(parts: Sequence[float], names: Sequence[str]) -> str:
    """As in ``k1 - 0.333 k3``."""
    terms = [_summand(part, name) for part, name in zip(parts, names, strict=True) if abs(part) > 1e-6]
    return " ".join(terms).removeprefix("+ ")


def _combination(G: Tensor, k: int, others: Tensor, bounds: Bounds) -> Tensor | None:
    """c (r,) with c_k = 1, and others such that Σ c_j M V_j M = 0 whatever θ_k is above its bound; None if there is none."""
    if not bool(others.any()):
        return None
    unit = G.diagonal().clamp_min(torch.finfo(G.dtype).tiny).rsqrt()
    least = torch.where(bounds.lower.isfinite(), 0.0, -math.inf)[others]
    correlations = unit[:, None] * G * unit
    B = positive_definite(correlations[others][:, others])
    parts = bounded_step(correlations[others, k], B, torch.zeros_like(least), Bounds.of(least), math.inf).delta
    parts = torch.where(parts.abs() > LOST, parts, 0.0)
    c = torch.zeros_like(unit)
    c[others] = -parts * unit[others] / unit[k]
    c[k] = 1
    if float(c @ G @ c) > LOST**2 * float(c @ c):
        return None
    inverts = (bounds.lower > 0) & bounds.lower.isfinite()  # independent residuals: V stays invertible by one of them
    return None if inverts[k] and not bool((inverts & others & (c != 0)).any()) else c


def _summand(part: float, name: str) -> str:
    factor = "" if math.isclose(abs(part), 1, rel_tol=1e-6) else f"{abs(part):.3g} "
    return f"{'-' if part < 0 else '+'} {factor}{name}"
