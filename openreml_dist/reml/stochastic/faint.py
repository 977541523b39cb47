"""Traces of SNPs with little or no effect at a θ, as those of a component on its bound: whether it stays there depends on them.

S says less of a SNP the smaller its D_j is, and nothing where D_j = 0. With ±1 in z over such SNPs and 0 elsewhere,

    their part of tr(P V_k) = E Σ_j w_jk z_j (Z P Zᵀ z)_j,     σ_e² Z P Zᵀ = G − G D½ S⁻¹ D½ G,   G = Z M Zᵀ

and the blocks of neighbouring SNPs give controls: the same with the blocks of G and H for G and S, and with those of G alone.

Legend: m SNPs, b of a block, K components, s probes; S, H, D, w as in ``system`` and ``problem``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from openreml_dist.reml.stochastic.batches import Batches
from openreml_dist.reml.stochastic.conjugate_gradients import conjugate_gradients
from openreml_dist.reml.stochastic.controls import Controlled
from openreml_dist.reml.stochastic.probes import Stream, signs
from openreml_dist.reml.stochastic.problem import in_blocks
from openreml_dist.reml.stochastic.system import System

FAINT = 0.1  # of the mean D_j: from there on the error of probes of S is three times that of these
TOLERANCE = 1e-3  # residual of a probe: its bias is the square of it
BATCH = 32


def faint_variants(S: System) -> Tensor:
    """(m,) which SNPs S says too little of. Local."""
    D = S.root.square()
    return FAINT * D.mean() >= D


@dataclass(frozen=True)
class FaintTraces:
    """What faint SNPs add to the traces.

    Attributes:
        traces: (K,), zero where there are none.
        covariance: (K, K) of its Monte-Carlo error.
    """

    traces: Tensor
    covariance: Tensor


def faint_traces(S: System, seed: int, suffices: Callable[[FaintTraces], bool], most: int, batches: Batches) -> FaintTraces:
    """Batches of probes until they suffice, or are ``most``. Collective. Cost: one system a probe, if a SNP is faint."""
    faint = faint_variants(S)
    weights = torch.where(faint[:, None], S.problem.weights, 0.0)
    if not bool((weights > 0).any()):
        return FaintTraces(torch.zeros_like(weights[0]), weights.new_zeros(weights.shape[1], weights.shape[1]))
    means = _control_means(S, weights)

    def sample(begin: int) -> Controlled:
        numbers = range(begin, begin + BATCH)
        found = batches.found(
            S.theta,
            f"{Stream.FAINT.name}.{seed}.{begin}",
            lambda: vars(_sample(S, faint, weights, means, seed, numbers)),
        )
        return Controlled(**{name: values.to(S.root.device) for name, values in found.items()})

    pilot = sample(0)
    coefficients, values = pilot.coefficients(), pilot.cross_corrected()
    while True:
        covariance = torch.cov(values.mT).reshape(values.shape[1], -1) / len(values)
        found = FaintTraces(values.mean(dim=0), covariance)
        if len(values) >= most or suffices(found):
            return found
        values = torch.cat([values, sample(len(values)).corrected(coefficients)])


def _sample(S: System, faint: Tensor, weights: Tensor, means: Tensor, seed: int, numbers: range) -> Controlled:
    """Probes of these numbers, with their controls less the means (K, 2)."""
    blocks = S.problem.grams
    z = signs(len(faint), numbers, seed, Stream.FAINT, faint.device).to(S.H_inv.dtype)
    z *= faint.to(z.dtype)[:, None]
    root = S.root.to(z.dtype)[:, None]

    def in_block(V: Tensor) -> Tensor:
        return (blocks.to(V.dtype) @ in_blocks(V, blocks)).reshape(-1, V.shape[1])[: len(V)]

    def form(V: Tensor) -> Tensor:
        return (z * V).mT.double() @ weights

    Gz, Gz_near = S.problem.projected_gram(z), in_block(z)
    whole = form(Gz - S.problem.projected_gram(root * conjugate_gradients(S, root * Gz, TOLERANCE).X))
    near = form(Gz_near - in_block(root * S.precondition(root * Gz_near)))
    controls = torch.stack([near, form(Gz)], dim=2)
    return Controlled(whole / S.residual, (controls - means) / S.residual)


def _control_means(S: System, weights: Tensor) -> Tensor:
    """(K, 2). Cost: 2mb² flops."""
    blocks = S.problem.grams
    near = []
    for gram, root, inverse in zip(blocks, in_blocks(S.root[:, None], blocks), S.H_inv, strict=True):
        half = root.to(inverse.dtype) * gram.to(inverse.dtype)
        near.append(gram.diagonal().double() - (half * (inverse @ half)).sum(dim=0, dtype=torch.float64))
    return torch.stack([torch.cat(near)[: len(weights)] @ weights, S.problem.own_diagonal @ weights], dim=1)
