"""Every tensor that an operation makes, as long as its memory lives."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten


class LiveTensors(TorchDispatchMode):
    """Counts the storages made inside the ``with`` block while they live.

    Attributes:
        peak_bytes: most bytes alive at once.
        largest_bytes: of any one storage.
    """

    def __init__(self) -> None:
        super().__init__()
        self._alive: dict[int, tuple[int, weakref.ref[torch.UntypedStorage]]] = {}
        self._bytes = 0
        self.peak_bytes = 0
        self.largest_bytes = 0

    def watch(self, tensor: torch.Tensor) -> None:
        """Count the memory of a tensor."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._alive:
            return
        size = storage.nbytes()
        self._alive[key] = (size, weakref.ref(storage, lambda _: self._forget(key)))
        self._bytes += size
        self.peak_bytes = max(self.peak_bytes, self._bytes)
        self.largest_bytes = max(self.largest_bytes, size)

    def _forget(self, key: int) -> None:
        self._bytes -= self._alive.pop(key)[0]

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for value in tree_flatten(result)[0]:
            if isinstance(value, torch.Tensor):
                self.watch(value)
        return result
