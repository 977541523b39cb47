"""Random signs over SNPs, each vector of which depends on the seed, its stream and its number alone.

Legend: m SNPs, s probes.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import torch
from torch import Tensor


class Stream(IntEnum):
    """What probes are for: probes of different streams are independent."""

    START = 1
    FEW = 2
    DETERMINANT = 3
    FAINT = 4
    TRUNCATED = 5
    COMPLETE = 6
    FINAL_DETERMINANT = 7
    SIMULATED = 8


def signs(m: int, numbers: range, seed: int, stream: Stream, device: torch.device) -> Tensor:
    """±1 with equal chances (m, s) float32, for the probes of these numbers. Local: alike on every rank, and for any grid."""
    drawn = torch.empty(m, len(numbers))
    for column, number in enumerate(numbers):
        bits = np.random.Philox(key=(seed << 8) + stream, counter=[0, 0, number, 0]).random_raw(-(-m // 64))
        drawn[:, column] = torch.from_numpy(np.unpackbits(bits.view(np.uint8))[:m]).float()
    return drawn.mul_(2).sub_(1).to(device)


def normals(size: int, numbers: range, seed: int, device: torch.device) -> Tensor:
    """N(0, 1) (size, s) float64, likewise."""
    columns = [
        np.random.Generator(np.random.Philox(key=(seed << 8) + Stream.SIMULATED, counter=[0, 0, number, 0])).standard_normal(
            size
        )
        for number in numbers
    ]
    return torch.from_numpy(np.stack(columns, axis=1)).to(device)
