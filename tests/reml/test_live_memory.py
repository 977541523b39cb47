"""What a rank holds during a whole fit, against the planner's formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from openreml_dist import REML, Covariance, Identity, Kernel
from openreml_dist.grid import ProcessGrid
from openreml_dist.layout import GridShape, TileLayout
from openreml_dist.plan.memory import FitSize, Memory, memory
from tests.helpers.gloo import spawn
from tests.helpers.live import LiveBytes
from tests.helpers.terms import Recorder

N, TILE, CHUNK, PROBES, FIXED = 2400, 100, 300, 4, 2
CACHE = 2e6  # bytes: some of the tiles
MODEL = FitSize(num_kernels=1, num_fixed=FIXED, num_probes=PROBES, chunk_size=CHUNK, cache_bytes=CACHE)


def most_bytes(rows: int, columns: int) -> int:
    """The most bytes of tensors alive at once on this rank during a fit, data included."""
    source = Recorder(N, CHUNK)
    source.matrix = source.matrix / 60
    live = LiveBytes()
    generator = torch.Generator().manual_seed(1)
    y = torch.randn(N, generator=generator, dtype=torch.float64)
    X = torch.cat([torch.ones(N, 1, dtype=torch.float64), torch.randn(N, 1, generator=generator, dtype=torch.float64)], dim=1)
    covariance = Covariance([Kernel(source, np.arange(N), cache_bytes=int(CACHE)), Identity(N)])
    reml = REML(covariance, grid=ProcessGrid.connect(rows, columns), tile_size=TILE, phase=live.phase)
    reml.fit(y, X, num_probes=PROBES)
    return live.most


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (2, 1), (2, 2)])
def test_live_tensors_are_those_of_the_plan(rows: int, columns: int) -> None:
    planned: Memory = memory(TileLayout(N, TILE, GridShape(rows, columns, shares_memory=rows * columns > 1)), MODEL)
    fullest = max(spawn(most_bytes, rows * columns, rows, columns))
    assert fullest == pytest.approx(planned.total, rel=0.1)
