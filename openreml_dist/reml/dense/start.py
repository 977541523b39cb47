"""Where the iteration begins: Haseman–Elston regression, or equal shares of the phenotypic variance.

Legend: n samples, s probes, r variance components; K_k relationship matrices (V = Σ σ_k² K_k); e residuals of y on
X by least squares.
"""

from __future__ import annotations

import torch
from torch import Tensor

from openreml_dist.reml.dense.problem import Problem
from openreml_dist.reml.start import inside


def haseman_elston(problem: Problem, products: Tensor, Z: Tensor) -> Tensor:
    """Starting variances (r,), all positive: the regression of all products e_i e_j on the relationships.

    Solves Σ_l ⟨K_k, K_l⟩ σ_l² = eᵀK_k e (diagonal included; MINQUE(0) but for the p degrees of freedom of X), with
    ⟨K_k, K_l⟩ ≈ ⟨K_k Z, K_l Z⟩/s from random probes. Local.

    Args:
        problem: model and data.
        products: (r, n, s + 1), K_k [Z e].
        Z: (n, s) probes.
    References: Haseman & Elston (1972), Behav Genet 2:3; Zhou (2017), Ann Appl Stat 11:2027; Wu & Sankararaman (2018),
        Bioinformatics 34:i187, the probes.
    """
    n, p = problem.X.Q.shape
    count = Z.shape[1]
    e = problem.X.residuals(problem.y)
    phenotypic = float(e.square().sum()) / (n - p)
    KZ, Ke = products[:, :, :-1], products[:, :, -1].double()
    diagonal_means = (KZ * Z).sum(dim=(1, 2), dtype=torch.float64) / (count * n)
    largest = phenotypic / diagonal_means.cpu()  # of a component that alone explained everything
    flat = KZ.flatten(start_dim=1)
    gram = torch.stack([(flat * row).sum(dim=1, dtype=torch.float64) for row in flat]) / count
    solved = torch.linalg.lstsq(gram.cpu(), (Ke @ e).cpu()[:, None], driver="gelsd").solution[:, 0]
    return inside(solved, largest)
