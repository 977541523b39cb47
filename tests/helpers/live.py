"""The most bytes of tensors alive at once, looked at whenever progress is reported."""

from __future__ import annotations

import gc
from collections.abc import Callable

import torch


class LiveBytes:
    """Counts on this rank, beyond what is alive when it is made."""

    def __init__(self, every: int = 8) -> None:
        self._every = every  # it takes longer than a step
        self._calls = 0
        self._before = _alive()
        self.most = 0

    def phase(self, _: str) -> Callable[[float], None]:
        """For ``REML(phase=...)``."""
        return self._look

    def _look(self, _: float) -> None:
        self._calls += 1
        if self._calls % self._every == 1:
            self.most = max(self.most, _alive() - self._before)


def _alive() -> int:
    storages = {}
    for thing in gc.get_objects():
        if type(thing) is torch.Tensor:
            storage = thing.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())
