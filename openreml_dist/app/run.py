"""What all parts of one run share."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openreml_dist.config import FitConfig

if TYPE_CHECKING:
    from openreml_dist.app.report.terminal import Terminal
    from openreml_dist.compat import REML
    from openreml_dist.covariance import Covariance
    from openreml_dist.grid import ProcessGrid


@dataclass
class Run:
    """Settings, ranks, terminal and folder of a run, and what its parts leave for ``result.json``.

    Attributes:
        timings: seconds that the parts have taken.
        planned_memory_bytes: of the fullest rank.
        more_results: further entries.
    """

    settings: FitConfig
    grid: ProcessGrid
    terminal: Terminal
    directory: Path
    timings: dict[str, Any] = field(default_factory=dict)
    planned_memory_bytes: float = 0.0
    more_results: dict[str, Any] = field(default_factory=dict)

    def reml(self, covariance: Covariance) -> REML:
        """The solver for a covariance, with the settings of this run."""
        from openreml_dist.compat import REML

        return REML(covariance, grid=self.grid, tile_size=self.settings.solver.tile_size, phase=self.terminal.phase)
