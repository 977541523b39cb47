"""The products of an elimination step, done while the next panel travels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from openreml_dist.grid import Counters, Transfer

Travelling = Iterator[Sequence[Transfer]]
"""What makes and sends a panel: pauses with the messages that are under way, and goes on when they have arrived."""


def multiply_lower_(A: Tensor, L: Tensor, out: Tensor, counters: Counters) -> Tensor:
    """out = AL with a lower triangular L (b, b), a quarter of whose zeros are left out. Local."""
    b = len(L)
    h = b // 2
    torch.mm(A, L[:, : b - h], out=out[:, : b - h])
    torch.mm(A[:, b - h :], L[b - h :, b - h :], out=out[:, b - h :])
    counters.flops += 2 * len(A) * (b * (b - h) + h * h)
    return out


def multiply_upper_(A: Tensor, L: Tensor, out: Tensor, counters: Counters) -> Tensor:
    """out = ALᵀ with a lower triangular L (b, b), a quarter of whose zeros are left out. Local."""
    b = len(L)
    h = b // 2
    torch.mm(A[:, :h], L[:h, :h].mT, out=out[:, :h])
    torch.mm(A, L[h:].mT, out=out[:, h:])
    counters.flops += 2 * len(A) * (b * (b - h) + h * h)
    return out


@dataclass(frozen=True)
class Update:
    """C −= sign · A Bᵀ for a part of one slab."""

    C: Tensor
    A: Tensor
    B: Tensor
    sign: int = 1

    @property
    def flops(self) -> int:
        """Two for each number of C and column of A."""
        return 2 * self.C.numel() * self.A.shape[1]

    def run_(self, counters: Counters) -> None:
        """Do it. Local."""
        if self.C.numel():
            self.C.addmm_(self.A, self.B.mT, alpha=-self.sign)
            counters.flops += self.flops


PAUSES = 3  # at most: for the pivot, the panel, the other side of it


def overlap(travelling: Travelling, updates: Sequence[Update], counters: Counters, on_accelerator: bool) -> None:
    """Do the updates of one panel while the next one travels.

    On the CPU what sends it is resumed as soon as its messages have arrived. The host of an accelerator runs ahead of it and
    cannot know; there it is resumed after each quarter of the flops, and the device waits for the messages in its own order.
    """
    total, done, quarters = sum(update.flops for update in updates), 0, 1
    under_way = next(travelling, None)
    for update in updates:
        update.run_(counters)
        done += update.flops
        while under_way is not None:
            if on_accelerator:
                ready = done * (PAUSES + 1) >= total * quarters
                quarters += ready
            else:
                ready = all(transfer.has_arrived() for transfer in under_way)
            if not ready:
                break
            under_way = next(travelling, None)
    for _ in travelling:
        pass
