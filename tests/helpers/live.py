"""The most bytes of tensors alive at once, looked at whenever progress is reported."""

from __future__ import annotations

import gc
from collections.abc import Callable

import torch


class LiveBytes:
    """Counts on this rank, but for what is alive when it is made.

    Attributes:
        most: bytes at once.
        largest: bytes of one tensor.
    """

    def __init__(self, every: int = 8) -> None:
        gc.collect()
        self._every = every  # it takes longer than a step
        self._calls = 0
        self._before = _alive()
        self.most = 0
        self.largest = 0

    def phase(self, _: str) -> Callable[[float], None]:
        """For ``REML(phase=...)``."""
        return self.look

    def look(self, _: float) -> None:
        """For ``progress``."""
        self._calls += 1
        if self._calls % self._every == 1 % self._every:
            new = [count for place, count in _alive().items() if place not in self._before]
            self.most = max(self.most, sum(new))
            self.largest = max([self.largest, *new])


def _alive() -> dict[int, int]:
    """Bytes by place."""
    storages = (thing.untyped_storage() for thing in gc.get_objects() if type(thing) is torch.Tensor)
    return {storage.data_ptr(): storage.nbytes() for storage in storages}
