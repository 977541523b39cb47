"""tr(P V_k) from random signs, over the SNPs or over the samples, with known means of what neighbouring SNPs say as controls.

Over the SNPs, z (m,):        tr(P V_k) = Σ_j w_jk (1 − σ_e² (S⁻¹)_jj) / D_j,          S x = z
    E z_j x_j = (S⁻¹)_jj;     controls z_j (H⁻¹z)_j and z_j (H⁻¹SH⁻¹z)_j, both of the mean (H⁻¹)_jj
Over the samples, u (n,):     tr(P V_k) = E Σ_j w_jk b_j x_j / D_j,  b = D½ Z M u,      S x = b
    controls b_j b_j of the mean H_jj − σ_e², and b_j (H⁻¹b)_j of the mean 1 − σ_e² (H⁻¹)_jj
In both                       σ_e² tr(P) = n − p − Σ_k θ_k tr(P V_k)

Over the SNPs the blocks say nearly all where SNPs are fewer than samples; over the samples the error is smaller where there are
several times as many. The sums are over SNPs that are not faint; what those add is in ``faint``.

Legend: n samples, p fixed effects, m SNPs, K components, s probes; S, H, D, w as in ``system`` and ``problem``.

References: Hutchinson (1990), Commun Stat Simul 19:433; Giles (2015), Acta Numerica 24:259, two levels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from openreml_dist.reml.stochastic.conjugate_gradients import MOST_STEPS, conjugate_gradients
from openreml_dist.reml.stochastic.controls import Controlled
from openreml_dist.reml.stochastic.faint import faint_variants
from openreml_dist.reml.stochastic.probes import Stream, signs
from openreml_dist.reml.stochastic.system import System

TOLERANCE = 1e-3  # residual of a probe: its bias is a twentieth of a percent of a standard error at 500,000 samples
SEVERAL = 1.5  # times as many SNPs as samples


class Space(Enum):
    """What probes are vectors over."""

    SNPS = "SNPs"
    SAMPLES = "samples"


def likely_space(S: System) -> Space:
    """That of the smaller error, as a rule. Local."""
    return Space.SAMPLES if S.problem.Z.num_variants > SEVERAL * S.problem.num_samples else Space.SNPS


@dataclass(frozen=True)
class Weighting:
    """How sums over SNPs become traces at one θ.

    Attributes:
        over: (m, K) w_jk / D_j, zero for faint SNPs.
        total: (K,) their sums.
    """

    over: Tensor
    total: Tensor

    @classmethod
    def of(cls, S: System) -> Weighting:
        """At the θ of a system. Local."""
        D = S.root.square()[:, None]
        over = torch.where(faint_variants(S)[:, None], 0.0, S.problem.weights / D)
        return cls(over, over.sum(dim=0))

    def form(self, A: Tensor, B: Tensor) -> Tensor:
        """Σ_j w_jk a_j b_j / D_j (s, K) for A and B (m, s). Local."""
        return (A * B).mT.double() @ self.over


@dataclass(frozen=True)
class Sampled:
    """What some probes say of the traces (s, K) of the SNPs that are not faint.

    Attributes:
        complete: from the solution.
        truncated: from that after so many steps.
        steps: of all probes together.
    """

    complete: Controlled
    truncated: Mapping[int, Controlled]
    steps: int

    def to_tensors(self) -> dict[str, Tensor]:
        """All of it, by name. Local."""
        of_steps = {f"truncated.{step}": one.values for step, one in self.truncated.items()}
        steps = self.complete.values.new_tensor([self.steps])
        return {"values": self.complete.values, "controls": self.complete.controls, "steps": steps, **of_steps}

    @classmethod
    def from_tensors(cls, found: Mapping[str, Tensor], device: torch.device) -> Sampled:
        """Of what ``to_tensors`` gave. Local."""
        on = {name: values.to(device) for name, values in found.items()}
        kept = [int(name.partition(".")[2]) for name in on if name.startswith("truncated.")]
        truncated = {step: Controlled(on[f"truncated.{step}"], on["controls"]) for step in kept}
        return cls(Controlled(on["values"], on["controls"]), truncated, int(on["steps"]))


@dataclass(frozen=True)
class Probes:
    """Numbered random signs of one stream, at one θ.

    Attributes:
        S: the system.
        weighting: at its θ.
        space: what they are vectors over.
        seed, stream: of the signs.
    """

    S: System
    weighting: Weighting
    space: Space
    seed: int
    stream: Stream

    def sample(self, numbers: range, keep: Sequence[int] = (), most: int = MOST_STEPS, tolerance: float = TOLERANCE) -> Sampled:
        """Solve Sx = b for every probe. Collective. Cost: 4nm flops a step and a probe.

        Args:
            numbers: of the probes.
            keep: numbers of steps whose result is kept beside the solution.
            most: steps.
            tolerance: of the residual.
        """
        S, weighting = self.S, self.weighting
        B = self._right_hand_sides(numbers)
        kept = {step: weighting.total.new_zeros(len(numbers), len(weighting.total)) for step in keep}
        seen: list[Tensor] = []

        def observe(step: int, going: Tensor, X: Tensor, SP: Tensor) -> None:
            if step == 1 and self.space is Space.SNPS:
                seen.append(weighting.form(B, S.precondition(SP)))  # zᵀH⁻¹SH⁻¹z
            if step in kept:
                kept[step][going] = self._traces(B[:, going], X)

        solution = conjugate_gradients(S, B, tolerance, most, observe)
        controls = [weighting.form(B, S.precondition(B)), *(seen or [weighting.form(B, B)])]
        centred = torch.stack([values - mean for values, mean in zip(controls, self._means(), strict=True)], dim=2)
        complete = self._traces(B, solution.X)
        truncated = {
            step: Controlled(torch.where((solution.steps < step)[:, None], complete, values), centred)
            for step, values in kept.items()
        }
        return Sampled(Controlled(complete, centred), truncated, int(solution.steps.sum()))

    def _right_hand_sides(self, numbers: range) -> Tensor:
        """(m, s) z, or D½ZMu, in the precision of the blocks."""
        S, problem = self.S, self.S.problem
        size = problem.Z.num_variants if self.space is Space.SNPS else problem.num_samples
        z = signs(size, numbers, self.seed, self.stream, S.root.device).to(S.H_inv.dtype)
        if self.space is Space.SNPS:
            return z
        Q = problem.X.Q.to(z.dtype)
        return S.root.to(z.dtype)[:, None] * problem.Z.of_samples(z - Q @ (Q.mT @ z))

    def _traces(self, B: Tensor, X: Tensor) -> Tensor:
        """(s, K) from right-hand sides and solutions (m, s)."""
        form = self.weighting.form(B, X)
        return self.weighting.total - self.S.residual * form if self.space is Space.SNPS else form

    def _means(self) -> tuple[Tensor, Tensor]:
        """(K,) of the two controls."""
        S, over = self.S, self.weighting.over
        of_inverse = S.H_inv_diagonal @ over
        if self.space is Space.SNPS:
            return of_inverse, of_inverse
        own = S.root.square() * S.problem.own_diagonal
        return self.weighting.total - S.residual * of_inverse, own @ over


@dataclass(frozen=True)
class TraceMap:
    """From the traces (K,) of SNPs that are not faint to tr(P V_k) of all K + 1 parameters, linearly.

    Attributes:
        origin: (K + 1,).
        slope: (K + 1, K).
    """

    origin: Tensor
    slope: Tensor

    @classmethod
    def of(cls, S: System, faint: Tensor) -> TraceMap:
        """At the θ of a system, with the traces (K,) of faint SNPs. Local."""
        theta = S.theta[:-1]
        of_residual = (S.problem.degrees_of_freedom - theta @ faint) / S.residual
        eye = torch.eye(len(faint), dtype=theta.dtype, device=theta.device)
        return cls(torch.cat([faint, of_residual[None]]), torch.cat([eye, -theta[None] / S.residual]))

    def traces(self, others: Tensor) -> Tensor:
        """(s, K + 1) for (s, K)."""
        return self.origin + others @ self.slope.mT
