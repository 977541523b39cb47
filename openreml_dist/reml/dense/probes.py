"""Traces tr(P V_k) by random probes, alone or as the difference from exact traces at another θ.

Legend: n samples, r parameters, s probes, c controls; Z (n, s) of ±1, so that E zᵀMz = tr M; h_k = zᵀP V_k z for each probe.

P V_k is nearly a polynomial in the relationship matrices K, of which zᵀKz and |Kz|² are known with their means tr K and ‖K‖²:
the regression of h on these *controls* takes away two thirds of its Monte-Carlo error, at the cost of one pass over K.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Anchor:
    """A θ where the traces are known exactly.

    Attributes:
        traces: (r,) tr(P V_k).
        h: (r, s) what the probes say of them.
    """

    traces: Tensor
    h: Tensor

    @classmethod
    def carried(cls, values: Mapping[str, Tensor]) -> Anchor:
        """From what a ``Step`` carries."""
        return cls(values["anchor.traces"], values["anchor.h"])

    def to_carry(self) -> dict[str, Tensor]:
        """For a ``Step`` to carry: on the CPU."""
        return {"anchor.traces": self.traces.cpu(), "anchor.h": self.h.cpu()}


@dataclass(frozen=True)
class Probes:
    """Hutchinson probes, the same on every grid, with V_k Z for a V that is linear in θ, so that V_k does not change.

    Near an anchor θ_a, tr(P V_k) is taken as its exact value there plus what the probes say of the difference. Its error
    shrinks with the distance: common probes cancel.

    Attributes:
        Z: (n, s), replicated.
        VZ: (r, n, s) with V_k Z, replicated, float32, the precision of stored kernels.
        controls: (c, s) numbers that vary as h does, less their means, which are known; c may be 0.

    References: Hutchinson (1990), Commun Stat Simul 19:433.
    """

    Z: Tensor
    VZ: Tensor
    controls: Tensor

    @classmethod
    def of(cls, Z: Tensor, VZ: Tensor, norms: tuple[Tensor, Tensor] | None = None) -> Probes:
        """Probes, with zᵀV_kz and |V_kz|² as controls where ``norms``, tr V_k and ‖V_k‖² (r,), are known. Local."""
        if norms is None:
            return cls(Z, VZ, torch.zeros(0, Z.shape[1], dtype=torch.float64))
        forms = torch.stack([(Z * VZ_k).sum(dim=0, dtype=torch.float64) for VZ_k in VZ])
        squares = torch.stack([VZ_k.square().sum(dim=0, dtype=torch.float64) for VZ_k in VZ])
        controls = torch.cat([forms.cpu() - norms[0].cpu()[:, None], squares.cpu() - norms[1].cpu()[:, None]])
        varying = controls.abs().amax(dim=1) > 1e-9 * torch.cat(norms).cpu().abs()  # those of the identity do not
        return cls(Z, VZ, controls[varying])

    def first(self, count: int) -> Probes:
        """The first of them. Local."""
        return Probes(self.Z[:, :count], self.VZ[:, :, :count], self.controls[:, :count])

    def estimates(self, PZ: Tensor) -> Tensor:
        """h (r, s), float64, from PZ (n, s). Local."""
        h: Tensor = torch.stack([(PZ * VZ_k).sum(dim=0, dtype=torch.float64) for VZ_k in self.VZ])
        return h

    def traces(self, PZ: Tensor, anchor: Anchor | None) -> tuple[Tensor, Tensor]:
        """tr(P V_k) (r,) and the covariance (r, r) of its Monte-Carlo error. Local."""
        h = self.estimates(PZ)
        known = torch.zeros_like(h[:, 0])
        if anchor is not None:
            h, known = h - anchor.h.to(h.device), anchor.traces.to(h.device)
        elif h.shape[1] >= LEAST_PROBES * len(self.controls) > 0:
            h = controlled(h.cpu(), self.controls).to(h.device)
        return known + h.mean(dim=1), torch.cov(h).reshape(len(h), len(h)) / h.shape[1]


LEAST_PROBES = 16  # a control, for its coefficient to be worth estimating


def controlled(h: Tensor, controls: Tensor) -> Tensor:
    """h (r, s) less its regression on the controls (c, s), whose means are zero: of the same mean, and less spread.

    The coefficients that each half is corrected by come from the other half, so that they are independent of what they correct
    and the estimate has no bias. Local.
    """
    halves = controls.shape[1] // 2
    parts = [slice(0, halves), slice(halves, None)]
    corrected = torch.empty_like(h)
    for here, there in (parts, parts[::-1]):
        C, H = (values[:, there] - values[:, there].mean(dim=1, keepdim=True) for values in (controls, h))
        scale = C.norm(dim=1, keepdim=True)
        coefficients = torch.linalg.lstsq((C / scale).mT, H.mT, driver="gelsd").solution
        corrected[:, here] = h[:, here] - coefficients.mT @ (controls[:, here] / scale)
    return corrected


def draw_probes(n: int, count: int, seed: int) -> Tensor:
    """±1 with equal chances, (n, count) float32, from the seed alone; √n I, which makes no error, for n ≤ count. Local."""
    if n <= count:
        return math.sqrt(n) * torch.eye(n)
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(0, 2, (n, count), generator=generator, dtype=torch.int8)
    return signs.float() * 2 - 1
