"""Z, the standardised genotypes (m SNPs, n samples), applied to many vectors at once; samples are dealt to the ranks.

    Z = S⁻¹ (G − μ1ᵀ)     G counts of alleles, μ_j = 2f_j their means, S_jj = √(2f_j(1 − f_j)); a missing genotype counts as μ_j

G is multiplied as whole numbers, centring and scaling are corrections of rank 1 and of the diagonal. On a CUDA device with
Triton products with float32 vectors are those of ``kernels``; all others are of torch. Vectors over SNPs and over samples are
replicated: a product sums m x c numbers over the ranks, which is what scattering and gathering them would send too, and what a
rank then computes with them alone is nothing beside its products.

Legend: n samples over all ranks, m SNPs, c vectors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from openreml_dist.genotypes.packed import PackedGenotypes
from openreml_dist.grid import ProcessGrid
from openreml_dist.log import LOGGER

if TYPE_CHECKING:
    from openreml_dist.genotypes.kernels import Products


@dataclass
class GenotypeOperator:
    """Z on a grid of ranks, each of which has the genotypes of some samples.

    Attributes:
        packed: genotypes of this rank's samples.
        frequency: (m,) float64, of the counted allele; not 0 or 1.
        grid: the ranks.
        samples: which of all n samples are this rank's.
        num_samples: n.
        slices: bfloat16 numbers for a float32 one in products by ``kernels``, 1 to 3; 3 is all of it.
        passes: genotype vector-passes so far: one is Z and Zᵀ times one vector each.
    """

    packed: PackedGenotypes
    frequency: Tensor
    grid: ProcessGrid
    samples: range
    num_samples: int
    slices: int = 3
    passes: float = field(default=0.0)

    def __post_init__(self) -> None:
        """Means and scales of the genotypes."""
        self._kernels = kernels_of(self.packed, self.slices, self.frequency.device)
        self.mean = 2 * self.frequency
        self.scale = (2 * self.frequency * (1 - self.frequency)).rsqrt()

    @property
    def num_variants(self) -> int:
        """m."""
        return len(self.frequency)

    def gram(self, V: Tensor) -> Tensor:
        """ZZᵀV (m, c) in the precision of V (m, c): every tile is unpacked once, for both products.

        Collective. Cost: 4nmc flops, nm/4 bytes of genotypes over all ranks; one sum of m c numbers.
        """
        mean, scale = self._corrections(V)
        product = self._by_kernel(lambda kernels: kernels.gram(scale * V, mean), V)
        if product is None:
            product = self._own_gram((scale * V).mT.contiguous(), mean)
        self._count(V.shape[1], 2)
        return scale * self.grid.sum_(product).mT

    def of_samples(self, B: Tensor) -> Tensor:
        """ZB (m, c) in the precision of B (n, c). Collective: one sum of m c numbers. Cost: 2nmc flops."""
        mean, scale = self._corrections(B)
        own = B[self.samples.start : self.samples.stop]
        product = self._by_kernel(lambda kernels: kernels.of_samples(own, mean), B)
        if product is None:
            product, rows = B.new_zeros(B.shape[1], self.num_variants), own.mT.contiguous()
            for samples, G in self.packed.unpacked(mean[:, 0]):
                product.addmm_(rows[:, samples], G.mT)
        product.addmm_(own.sum(dim=0)[:, None], mean.mT, alpha=-1)
        self._count(B.shape[1], 1)
        return scale * self.grid.sum_(product).mT

    def of_variants(self, V: Tensor) -> Tensor:
        """ZᵀV (n, c) in the precision of V (m, c). Collective: one sum of n c numbers. Cost: 2nmc flops."""
        product = V.new_zeros(self.num_samples, V.shape[1])
        product[self.samples.start : self.samples.stop] = self.of_own_variants(V)
        return self.grid.sum_(product)

    def of_own_variants(self, V: Tensor) -> Tensor:
        """The rows of ZᵀV that are this rank's samples. Local."""
        mean, scale = self._corrections(V)
        scaled = scale * V
        product = self._by_kernel(lambda kernels: kernels.of_variants(scaled, mean), V)
        if product is None:
            U = scaled.mT.contiguous()
            shift, product = U @ mean, V.new_empty(V.shape[1], len(self.samples))
            for samples, G in self.packed.unpacked(mean[:, 0]):
                product[:, samples] = torch.addmm(shift, U, G, beta=-1)
        else:
            product -= scaled.mT @ mean
        self._count(V.shape[1], 1)
        return product.mT

    def _own_gram(self, U: Tensor, mean: Tensor) -> Tensor:
        """Of this rank's samples and vectors as rows U (c, m): BLAS multiplies few rows faster than few columns."""
        shift, product, total = U @ mean, torch.zeros_like(U), torch.zeros_like(U[:, :1])
        for _, G in self.packed.unpacked(mean[:, 0]):
            T = torch.addmm(shift, U, G, beta=-1)  # ZᵀV of these samples
            product.addmm_(T, G.mT)
            total += T.sum(dim=1, keepdim=True)
        return product.addmm_(total, mean.mT, alpha=-1)

    def _by_kernel(self, product: Callable[[Products], Tensor], vectors: Tensor) -> Tensor | None:
        """A product (r, c) with vectors as rows (c, r); None where torch is to make it: another precision, or no kernel."""
        if self._kernels is None or vectors.dtype != torch.float32:
            return None
        try:
            return product(self._kernels).mT.contiguous()
        except torch.OutOfMemoryError:
            raise
        except Exception as failure:  # of the compiler, the driver, or Triton itself: each has its own
            self._kernels = None
            LOGGER.warning("products of genotypes by operations of torch, slower: the kernel of Triton failed: %r", failure)
            return None

    def block_grams(self, size: int) -> Tensor:
        """Z_bZ_bᵀ (blocks, size, size) float32 of ``size`` neighbouring SNPs each, the last filled up with zeros.

        Collective. Cost: 2nm ``size`` flops; one sum of m ``size`` numbers.
        """
        m = self.num_variants
        count = -(-m // size)
        grams = torch.zeros(count, size, size, device=self.frequency.device)
        mean, scale = (values.float() for values in (self.mean, self.scale))
        for _, G in self.packed.unpacked(mean):
            Z = torch.zeros(count * size, G.shape[1], device=G.device)
            torch.mul(G - mean[:, None], scale[:, None], out=Z[:m])
            Z = Z.view(count, size, -1)
            grams.baddbmm_(Z, Z.mT)
        self._count(size / 2, 2)
        return self.grid.sum_(grams)

    def _corrections(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """μ and 1/S as columns (m, 1), in a precision."""
        return self.mean.to(like.dtype)[:, None], self.scale.to(like.dtype)[:, None]

    def _count(self, columns: float, products: int) -> None:
        self.passes += columns * products / 2
        self.grid.counters.flops += int(2 * products * len(self.samples) * self.num_variants * columns)


def own_samples(num_samples: int, grid: ProcessGrid) -> range:
    """Those of this rank: consecutive, as many as any other has to within one. Local."""
    rank, ranks = grid.rank, grid.shape.size
    return range(rank * num_samples // ranks, (rank + 1) * num_samples // ranks)


def kernels_of(packed: PackedGenotypes, slices: int, device: torch.device) -> Products | None:
    """Those of a CUDA device with Triton; None elsewhere, and a warning where Triton alone is missing. Local."""
    if device.type != "cuda":
        return None
    try:
        from openreml_dist.genotypes.kernels import Products
    except ImportError as failure:
        LOGGER.warning("products of genotypes by operations of torch, slower: Triton is missing: %s", failure)
        return None
    return Products(packed, slices)
