"""The system of all SNP effects at one θ, as large as there are SNPs, and the blocks that stand in for it.

    S = D½ Z M Zᵀ D½ + σ_e² I            H = the diagonal blocks of S, LLᵀ

Legend: m SNPs, b of a block, c vectors; Z, M, D as in ``problem``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from openreml_dist.reml.stochastic.problem import Problem, in_blocks


@dataclass(frozen=True)
class System:
    """S at one θ.

    Attributes:
        problem: genotypes and data.
        theta: (K + 1,) float64 on the device, the residual last.
        root: (m,) √D, float64.
        H_inv: (blocks, b, b) float32 or float64.
        L: (blocks, b, b) in the same precision.
        H_inv_diagonal: (m,) float64.
        h_log_determinant: of the m SNPs.
    """

    problem: Problem
    theta: Tensor
    root: Tensor
    H_inv: Tensor
    L: Tensor
    H_inv_diagonal: Tensor
    h_log_determinant: float

    @classmethod
    def at(cls, problem: Problem, theta: Tensor, dtype: torch.dtype = torch.float32) -> System | None:
        """S at θ, every block factored in float64; None where θ is not that of a positive definite V. Local.

        Cost: m b² flops.
        """
        theta = theta.to(problem.y.device)
        if bool((theta[:-1] < 0).any()) or float(theta[-1]) <= 0:
            return None
        root = (problem.weights @ theta[:-1]).sqrt()
        of_block = in_blocks(root[:, None], problem.grams)
        H_inv, L = (torch.empty_like(problem.grams, dtype=dtype) for _ in range(2))
        diagonals, log_determinant = [], 0.0
        padding = problem.grams.shape[0] * problem.grams.shape[1] - len(root)
        for number, (gram, own) in enumerate(zip(problem.grams, of_block, strict=True)):
            H = (own * gram) * own.mT
            H.diagonal().add_(theta[-1])
            factor, info = torch.linalg.cholesky_ex(H)
            if int(info) > 0:
                return None
            inverse = torch.cholesky_inverse(factor)
            H_inv[number], L[number] = inverse, factor
            diagonals.append(inverse.diagonal().clone())
            log_determinant += 2 * float(factor.diagonal().log().sum())
        log_determinant -= padding * float(theta[-1].log())
        return cls(problem, theta, root, H_inv, L, torch.cat(diagonals)[: len(root)], log_determinant)

    @property
    def residual(self) -> float:
        """σ_e²."""
        return float(self.theta[-1])

    def __matmul__(self, V: Tensor) -> Tensor:
        """SV (m, c) for V (m, c), in its precision. Collective. Cost: 4nmc flops."""
        root = self.root.to(V.dtype)[:, None]
        return (root * self.problem.projected_gram(root * V)).add_(V, alpha=self.residual)

    def precondition(self, V: Tensor) -> Tensor:
        """H⁻¹V (m, c) in the precision of V. Local. Cost: 2mbc flops."""
        return self._blockwise(self.H_inv, V)

    def half_of_H(self, V: Tensor) -> Tensor:
        """LV (m, c): with ±1 in V what a logarithm of S is sampled from. Local."""
        return self._blockwise(self.L, V)

    def _blockwise(self, blocks: Tensor, V: Tensor) -> Tensor:
        made = blocks @ in_blocks(V.to(blocks.dtype), blocks)
        return made.reshape(-1, V.shape[1])[: len(V)].to(V.dtype)
