"""Control variates: numbers that vary as a sample does, and whose means are known.

Legend: s probes, K components, c controls of each.

Coefficients that correct a sample are never estimated from that sample: the mean would be biased by 1/s of its spread.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Controlled:
    """Samples with their controls.

    Attributes:
        values: (s, K).
        controls: (s, K, c) less their means.
    """

    values: Tensor
    controls: Tensor

    def coefficients(self) -> Tensor:
        """(K, c) of the regression of each component on its own controls. Local."""
        H, C = self.values - self.values.mean(dim=0), self.controls - self.controls.mean(dim=0)
        scale = C.norm(dim=0).clamp_min(torch.finfo(C.dtype).tiny)
        standard = (C / scale).permute(1, 0, 2)  # (K, s, c)
        gram = standard.mT @ standard
        right = standard.mT @ H.mT[:, :, None]
        fitted = torch.linalg.pinv(gram, rtol=1e-10, hermitian=True) @ right
        coefficients: Tensor = fitted[:, :, 0] / scale
        return coefficients

    def corrected(self, coefficients: Tensor) -> Tensor:
        """(s, K) of the same mean, by coefficients (K, c) from elsewhere. Local."""
        return self.values - (self.controls * coefficients).sum(dim=2)

    def cross_corrected(self) -> Tensor:
        """(s, K), each half by the coefficients of the other. Local."""
        half = len(self.values) // 2
        parts = Controlled(self.values[:half], self.controls[:half]), Controlled(self.values[half:], self.controls[half:])
        first, second = parts
        return torch.cat([first.corrected(second.coefficients()), second.corrected(first.coefficients())])

    def joined(self, other: Controlled) -> Controlled:
        """Both samples."""
        return Controlled(torch.cat([self.values, other.values]), torch.cat([self.controls, other.controls]))

    def less(self, other: Tensor) -> Controlled:
        """Values less others (s, K), the same controls."""
        return Controlled(self.values - other, self.controls)
