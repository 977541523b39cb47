"""Bytes that a rank will hold during a fit of genotypes, by part.

Tensors alive at once: the libraries themselves, some 300 MB a process, are loaded when a fit is planned.

Legend: n samples, m SNPs, K components, p fixed effects, b SNPs of a block, s probes at once; n/R samples of a rank.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from openreml_dist.errors import ConfigError
from openreml_dist.plan.memory import DOUBLE, MOST_RANKS, SINGLE

# of genotypes/packed.py, reml/stochastic/problem.py and evaluation.py, which this floor does not import; tests compare them
TILE_BYTES = 32e6  # of unpacked genotypes in single precision
DEVICE_TILE_BYTES = 512e6  # of them on a CUDA device
SMALLEST_TILE = 64  # samples
READ_BYTES = 64e6  # of codes that are taken apart at once
BLOCK = 1024  # neighbouring SNPs
WIDEST = 64  # probes at once, those of the last log|S|

SETUP_BLOCKS = 1  # in units of the Gram matrices
BLOCKS = 3  # the Gram matrices, inverses and factors
DEVICE_VECTORS = 3.5  # of a product there: slices of its vectors and of their parts for missing genotypes, filled up to blocks
PROBE_VECTORS = 10.5  # of the conjugate gradients and their products, a probe
ACCURATE_VECTORS = 10  # in double precision, a right-hand side of the components or fixed effects
COMPONENT_VECTORS = 4  # over SNPs, in double precision: the annotation, its weights, and those of the traces
START_VECTORS = 8  # over samples, a component


@dataclass(frozen=True)
class GenotypeMemory:
    """Bytes on a rank at its fullest moment.

    Attributes:
        genotypes: packed, of its own samples.
        unpacked: tiles in use, and those that are kept.
        blocks: of neighbouring SNPs.
        vectors: over SNPs and samples.
        reading: genotypes as they are read and taken apart.
    """

    genotypes: float
    unpacked: float = 0.0
    blocks: float = 0.0
    vectors: float = 0.0
    reading: float = 0.0

    @property
    def total(self) -> float:
        """Their sum."""
        return sum(self.parts().values())

    def parts(self) -> dict[str, float]:
        """Bytes by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True)
class GenotypeFit:
    """A fit of genotypes, before anything is read.

    Attributes:
        num_samples: n.
        num_variants: m.
        num_components: K.
        num_fixed: p.
        ranks: R.
        cache_bytes: memory of a rank that unpacked tiles may be kept in.
        on_device: whether a rank is a CUDA device.
    """

    num_samples: int
    num_variants: int
    num_components: int = 1
    num_fixed: int = 1
    ranks: int = 1
    cache_bytes: float = 1e9
    on_device: bool = False

    @property
    def own(self) -> int:
        """Samples of the fullest rank."""
        return -(-self.num_samples // self.ranks)

    @property
    def kept_bytes(self) -> float:
        """Of unpacked tiles, in single and in double precision."""
        return min(self.cache_bytes, (SINGLE + DOUBLE) * float(self.num_variants) * self.own)

    @property
    def memory(self) -> GenotypeMemory:
        """Of the fullest rank."""
        return max(self.moments().values(), key=lambda moment: moment.total)

    def moments(self) -> dict[str, GenotypeMemory]:
        """What the fullest rank holds at the moments that may be its fullest."""
        n, m, K, p = self.num_samples, float(self.num_variants), self.num_components, self.num_fixed
        packed, kept = m * self.own / 4, self.kept_bytes
        tile = self._tile()
        single, double = self._in_use(SINGLE, tile), self._in_use(DOUBLE, tile)
        gram = SINGLE * BLOCK * m if m >= BLOCK else SINGLE * m * m
        steady = DOUBLE * (m * (COMPONENT_VECTORS * K + p + 8) + n * (2 * p + 4))
        accurate, probe = max(K + 1, p), PROBE_VECTORS + self.on_device * DEVICE_VECTORS
        reads = -(-m * self.own // READ_BYTES)
        codes = min(READ_BYTES, m * self.own)
        return {
            "reading": GenotypeMemory(packed, reading=codes * (2 + (reads > 1) + self.ranks / 4)),
            "setup": GenotypeMemory(packed, kept, SETUP_BLOCKS * gram, steady + DOUBLE * m * p),
            "start": GenotypeMemory(packed, kept + single, gram, steady + START_VECTORS * DOUBLE * n * (K + 1)),
            "factors": GenotypeMemory(packed, kept, BLOCKS * gram, steady),
            "probes": GenotypeMemory(packed, kept + single, BLOCKS * gram, steady + SINGLE * probe * m * WIDEST),
            "solve": GenotypeMemory(
                packed, kept + double, BLOCKS * gram, steady + DOUBLE * accurate * (ACCURATE_VECTORS * m + 3 * n)
            ),
        }

    def check(self, available: float) -> None:
        """Refuse what does not fit.

        Raises:
            ConfigError: says what is needed, and what would do.
        """
        needed = self.memory
        if needed.total <= available:
            return
        parts = ", ".join(f"{name} {size / 1e9:.2f}" for name, size in needed.parts().items() if size >= 5e6)
        ranks = f"{self.ranks} {'rank' if self.ranks == 1 else 'ranks'}"
        raise ConfigError(
            f"does not fit: {self.num_samples:,} samples and {self.num_variants:,} SNPs on {ranks} take "
            f"{needed.total / 1e9:.2f} GB on the fullest rank ({parts}), "
            f"but {available / 1e9:.2f} GB are available to one; {self._advice(available)}"
        )

    def least_ranks(self, available: float) -> int | None:
        """The smallest power of two of ranks whose part fits; None if not even ``MOST_RANKS`` suffice."""
        ranks = 1
        while ranks <= MOST_RANKS:
            if replace(self, ranks=ranks).memory.total <= available:
                return ranks
            ranks *= 2
        return None

    def _advice(self, available: float) -> str:
        uncached = replace(self, cache_bytes=0.0)
        keep = (available - uncached.memory.total) / 1e9
        if keep >= 0:
            return f"solver.kernel_cache_gb={max(0.0, int(10 * keep) / 10):g} would do, which keeps fewer genotypes unpacked"
        enough = uncached.least_ranks(available)
        if enough is None:
            return (
                "no number of such ranks suffices: every rank holds blocks and vectors of all SNPs; "
                "choose fewer of these, or ranks with more memory"
            )
        return f"{enough} such ranks with solver.kernel_cache_gb=0 would do"

    def _tile(self) -> float:
        """Bytes of an unpacked tile in single precision."""
        m, size = self.num_variants, DEVICE_TILE_BYTES if self.on_device else TILE_BYTES
        width = max(SMALLEST_TILE, int(size / (SINGLE * m)) // SMALLEST_TILE * SMALLEST_TILE)
        return SINGLE * float(m) * min(width, self.own)

    def _in_use(self, number: int, tile: float) -> float:
        """Bytes of tiles that are not kept: one with its missing genotypes, where these are looked up, and the memory of one in
        the other precision, which waits to be used again."""
        per_genotype = self.cache_bytes / (float(self.num_variants) * self.own)
        first = 0 if number == DOUBLE else DOUBLE  # bytes a genotype that are kept before these
        if per_genotype >= first + number:
            return 0.0
        other = SINGLE + DOUBLE - number
        waits = 0.0 if per_genotype >= (0 if other == DOUBLE else DOUBLE) + other else tile * other / SINGLE
        return 2 * tile * number / SINGLE + tile / 2 + waits
