"""Wall time by phase."""

from __future__ import annotations

import time

import torch


class Stopwatch:
    """Adds up seconds by phase; waits for the device first, which works on after a call has returned."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._last = self._now()
        self.seconds: dict[str, float] = {}

    def lap(self, phase: str) -> None:
        """Count the time since the last lap (or the start) to ``phase``."""
        now = self._now()
        self.seconds[phase] = self.seconds.get(phase, 0.0) + now - self._last
        self._last = now

    def _now(self) -> float:
        if self._device.type != "cpu":
            torch.accelerator.synchronize(self._device)
        return time.perf_counter()
