"""Traces tr(P V_k) by random probes, alone or as the difference from exact traces at another θ.

Legend: n samples, r parameters, s probes; Z (n, s) of ±1, so that E zᵀMz = tr M; h_k = zᵀP V_k z for each probe.
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

    References: Hutchinson (1990), Commun Stat Simul 19:433.
    """

    Z: Tensor
    VZ: Tensor

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
        return known + h.mean(dim=1), torch.cov(h).reshape(len(h), len(h)) / h.shape[1]


def draw_probes(n: int, count: int, seed: int) -> Tensor:
    """±1 with equal chances, (n, count) float32, from the seed alone; √n I, which makes no error, for n ≤ count. Local."""
    if n <= count:
        return math.sqrt(n) * torch.eye(n)
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(0, 2, (n, count), generator=generator, dtype=torch.int8)
    return signs.float() * 2 - 1
