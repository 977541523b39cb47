"""Where the iteration begins: Haseman–Elston regression, or equal shares of the phenotypic variance.

Legend: n samples, r variance components; K_k relationship matrices (V = Σ σ_k² K_k); e residuals of y on X by least squares.
"""

from __future__ import annotations

import torch
from torch import Tensor

from openreml_dist.errors import ConfigError
from openreml_dist.grid import Progress
from openreml_dist.reml.step import PhaseProgress, Problem

SMALLEST_SHARE = 0.01  # of the phenotypic variance, so that the start lies inside the bounds


def starting_values(problem: Problem, method: str, phase: PhaseProgress) -> Tensor:
    """Starting variances (r,), all positive.

    ``haseman-elston`` solves Σ_l ⟨K_k, K_l⟩ σ_l² = eᵀK_k e, the regression of all products e_i e_j on the relationships
    (diagonal included; MINQUE(0) but for the p degrees of freedom of X), in one pass over the stored kernels. ``equal``
    gives every component the same share of the phenotypic variance.

    Collective. Cost: (r² + 3r) n² flops.

    Raises:
        ConfigError: for another method, or a covariance that is not a sum of variance components.
    References: Haseman & Elston (1972), Behav Genet 2:3; Zhou (2017), Ann Appl Stat 11:2027.
    """
    if method not in ("haseman-elston", "equal"):
        raise ConfigError(f"solver.start: {method!r} is not haseman-elston, equal, or a list of variances")
    if not problem.covariance.is_linear:
        raise ConfigError(f"solver.start: {method} needs a sum of variance components; give starting values")
    residuals = problem.y - problem.X.Q @ (problem.X.Q.mT @ problem.y)
    gram, products, diagonal_means = _moments(problem, residuals, phase("starting values"))
    n, p = problem.X.Q.shape
    phenotypic = float(residuals.square().sum()) / (n - p)
    shares = phenotypic / diagonal_means  # of a component that alone explained everything
    if method == "equal":
        return shares / len(shares)
    solved = torch.linalg.lstsq(gram, products[:, None], driver="gelsd").solution[:, 0]
    return torch.minimum(torch.maximum(solved, SMALLEST_SHARE * shares), shares)


def _moments(problem: Problem, e: Tensor, progress: Progress) -> tuple[Tensor, Tensor, Tensor]:
    """⟨K_k, K_l⟩ (r, r), eᵀK_k e (r,) and mean diagonals (r,), on the CPU."""
    covariance, layout, grid = problem.covariance, problem.layout, problem.grid
    r = len(covariance.parameters)
    ones = torch.ones(r, dtype=torch.float64)
    sums = torch.zeros(r, r + 2, dtype=torch.float64, device=grid.device)
    mine = layout.tiles(grid.rank)
    with grid.together("reading the kernels for starting values"):
        for done, (i, j) in enumerate(mine, start=1):
            rows, columns = layout.span(i), layout.span(j)
            dtiles = list(covariance.dtiles(rows, columns, ones, grid.device))
            twice = 1 if i == j else 2
            for k, K in dtiles:
                for l, other in dtiles:
                    sums[k, l] += twice * torch.vdot(K.flatten(), other.flatten())
                sums[k, r] += twice * (e[rows.start : rows.stop] @ K @ e[columns.start : columns.stop])
                if i == j:
                    sums[k, r + 1] += K.diagonal().sum()
            progress(done / len(mine))
    grid.sum_(sums)
    moments = sums.cpu()
    return moments[:, :r], moments[:, r], moments[:, r + 1] / layout.size
