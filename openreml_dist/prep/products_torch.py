"""The same arithmetic by torch on one device: a GPU of a worker. The only file of ``prep`` that imports torch."""

from __future__ import annotations

from threading import Lock

import numpy as np
import torch

from openreml_dist.errors import ConfigError
from openreml_dist.prep.products import Matrix, allele_scales
from openreml_dist.store.genotype_counts import Dosage


class TorchArithmetic:
    """Float32 products, never TF32; genotypes travel as int8, and sums stay on the device in float64."""

    variants_at_once = 1024

    def __init__(self, device: str) -> None:
        """Use ``device``."""
        self._device = torch.device(device)
        torch.set_float32_matmul_precision("highest")  # TF32 has three digits

    def standardised(self, dosage: Dosage, frequency: Matrix) -> torch.Tensor:
        """On the device."""
        x = self._there(dosage)
        counted, mean, scale = map(self._there, allele_scales(frequency, np.float32))
        w = (x - counted).float().sub_(mean).mul_(scale)
        return w.mul_(x >= 0)

    def missing(self, dosage: Dosage) -> torch.Tensor:
        """On the device."""
        return (self._there(dosage) < 0).float()

    def zeros(self, *shape: int) -> torch.Tensor:
        """On the device."""
        return torch.zeros(shape, dtype=torch.float64, device=self._device)

    def add_products_(self, total: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor, lock: Lock) -> None:
        """One product at a time."""
        with lock:
            total += rows.mT @ columns

    def add_squares_(self, total: torch.Tensor, w: torch.Tensor, lock: Lock) -> None:
        """In float64."""
        with lock:
            total += w.square().sum(dim=0, dtype=torch.float64)

    def numbers(self, total: torch.Tensor) -> Matrix:
        """Copied to the host."""
        return total.cpu().numpy()

    def _there(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self._device)


def num_gpus() -> int:
    """GPUs that this process sees.

    Raises:
        ConfigError: none.
    """
    if not torch.cuda.is_available():
        raise ConfigError("device=cuda: torch sees no CUDA device here")
    return torch.cuda.device_count()


def gpu_of_this_worker() -> TorchArithmetic:
    """The workers of a LocalCluster have numbers for names and take the GPUs in turn; any other takes the first that it sees.

    Raises:
        ConfigError: the worker sees no GPU.
    """
    from distributed import get_worker

    name, gpus = get_worker().name, num_gpus()
    return TorchArithmetic(f"cuda:{name % gpus if isinstance(name, int) else 0}")
