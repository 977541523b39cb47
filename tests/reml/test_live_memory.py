"""What a rank holds during a whole fit, against the planner's formula."""

from __future__ import annotations

import gc
from collections.abc import Callable

import numpy as np
import pytest
import torch

from openreml_dist import REML, Covariance, Identity, Kernel
from openreml_dist.grid import ProcessGrid
from openreml_dist.layout import GridShape, TileLayout
from openreml_dist.plan.memory import Memory, Model, memory
from tests.helpers.gloo import spawn
from tests.helpers.terms import Recorder

N, TILE, CHUNK, PROBES, FIXED = 2400, 100, 300, 4, 2
CACHE = 2e6  # bytes: some of the tiles
MODEL = Model(num_kernels=1, num_fixed=FIXED, num_probes=PROBES, chunk_size=CHUNK, cache_bytes=CACHE)


def most_bytes(rows: int, columns: int) -> int:
    """The most bytes of tensors alive at once on this rank, looked at whenever progress is reported."""
    most, calls = 0, 0

    def look(_: float) -> None:
        nonlocal most, calls
        calls += 1
        if calls % 8 != 1:  # it takes longer than a step
            return
        storages = {}
        for thing in gc.get_objects():
            if type(thing) is torch.Tensor:
                storage = thing.untyped_storage()
                storages[storage.data_ptr()] = storage.nbytes()
        most = max(most, sum(storages.values()))

    def phase(_: str) -> Callable[[float], None]:
        return look

    grid = ProcessGrid.connect(rows, columns)
    source = Recorder(N, CHUNK)
    generator = torch.Generator().manual_seed(1)
    y = torch.randn(N, generator=generator, dtype=torch.float64)
    X = torch.cat([torch.ones(N, 1, dtype=torch.float64), torch.randn(N, 1, generator=generator, dtype=torch.float64)], dim=1)
    source.matrix = source.matrix / 60
    covariance = Covariance([Kernel(source, np.arange(N), cache_bytes=int(CACHE)), Identity(N)])
    del source
    reml = REML(covariance, grid=grid, tile_size=TILE, phase=phase)
    gc.collect()
    look(0.0)
    before, most, calls = most - y.nbytes - X.nbytes, 0, 0
    reml.fit(y, X, num_probes=PROBES)
    return most - before


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (2, 1), (2, 2)])
def test_live_tensors_are_those_of_the_plan(rows: int, columns: int) -> None:
    planned: Memory = memory(TileLayout(N, TILE, GridShape(rows, columns, shares_memory=rows * columns > 1)), MODEL)
    fullest = max(spawn(most_bytes, rows * columns, rows, columns))
    assert fullest == pytest.approx(planned.total, rel=0.1)
