"""Where the iteration begins: Haseman–Elston regression on the products of genotypes, or equal parts of the variance.

Legend: n samples, m SNPs, K components; K_k = Zᵀ diag(w_k) Z, M and w as in ``problem``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from openreml_dist.reml.ridges import Gram
from openreml_dist.reml.start import inside
from openreml_dist.reml.stochastic.probes import Stream, normals, signs
from openreml_dist.reml.stochastic.problem import Problem

HALF_PASSES = 64  # spent on ⟨K_k, K_l⟩
WIDTH = 2  # vectors that tell derivatives apart


def haseman_elston(problem: Problem, seed: int) -> Tensor:
    """Starting variances (K + 1,), all positive: Σ_l ⟨MK_kM, MK_lM⟩ σ_l² = yᵀMK_kMy, within the complement of X.

    With u = Mz over the samples and f_k = MK_k u, ⟨MK_kM, MK_lM⟩ is the mean of f_kᵀf_l; ⟨MK_kM, M⟩ is exact.

    Collective. Cost: ``HALF_PASSES`` products with genotypes, and more for more than 30 components.

    References: Haseman & Elston (1972), Behav Genet 2:3; Wu & Sankararaman (2018), Bioinformatics 34:i187.
    """
    K, count = problem.weights.shape[1], max(2, HALF_PASSES // (1 + problem.weights.shape[1]))
    gram = torch.zeros(K + 1, K + 1, dtype=torch.float64)
    z = signs(problem.num_samples, range(count), seed, Stream.START, problem.y.device)
    ZMz = problem.Z.of_samples(problem.without_fixed(z.double()).float())
    for column in ZMz.mT:
        f = problem.without_fixed(problem.Z.of_variants(problem.weights.float() * column[:, None]).double())
        gram[:K, :K] += (f.mT @ f).cpu() / count
    gram[:K, K] = gram[K, :K] = (problem.own_diagonal @ problem.weights).cpu()
    gram[K, K] = problem.degrees_of_freedom
    squares = problem.X.residuals(problem.y).square().sum()
    forms = torch.cat([problem.ZMy.square() @ problem.weights, squares[None]]).cpu()
    solved = torch.linalg.lstsq(gram, forms[:, None], driver="gelsd").solution[:, 0]
    largest = float(squares) / gram[:, K]  # of a component that alone explained everything
    return inside(solved, largest)


def derivatives_gram(problem: Problem, seed: int) -> Gram:
    """How far the V_k differ beside X, from K_k M W and MW for a Gaussian W (n, ``WIDTH``).

    Collective. Cost: products with genotypes, K + 1 of ``WIDTH`` vectors.
    """
    W = normals(problem.num_samples, range(WIDTH), seed, problem.y.device)
    ZMW = problem.Z.of_samples(problem.without_fixed(W))
    kernels = [problem.Z.of_variants(w[:, None] * ZMW) for w in problem.weights.mT]
    products = torch.stack([*kernels, W])
    return Gram.of(torch.stack([problem.without_fixed(product) for product in products]), products.norm(dim=(1, 2)))


def equal_parts(problem: Problem) -> Tensor:
    """Variances (K + 1,) of components that explain the same proportion of the phenotypic variance each. Local."""
    weights = problem.weights
    means = torch.cat([problem.own_diagonal @ weights, weights.new_full((1,), problem.degrees_of_freedom)]).cpu()
    return float(problem.X.residuals(problem.y).square().sum()) / (len(means) * means)
