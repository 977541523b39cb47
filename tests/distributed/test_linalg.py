"""Sweep, Cholesky and products on every grid against dense linear algebra, by scaled residuals."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from openreml_dist.errors import NotPositiveDefiniteError
from openreml_dist.grid import ProcessGrid
from openreml_dist.layout import TileLayout
from openreml_dist.linalg import cholesky_, multiply, sweep_inverse_
from openreml_dist.tiled import TiledSymmetric
from tests.helpers.gloo import spawn
from tests.helpers.oracle import random_positive_definite, tiled, whole

GRIDS = [(1, 1), (1, 2), (2, 1), (2, 2), (2, 3)]
SIZES = [(97, 32), (97, 97), (64, 16), (50, 7), (23, 1), (33, 40), (2, 1), (1, 5)]  # ragged, whole, one tile, ranks without
EPS = torch.finfo(torch.float64).eps


def errors(grid: ProcessGrid, n: int, tile_size: int) -> dict[str, float]:
    """Scaled residuals of everything, in units of n · ε · cond."""
    A = random_positive_definite(n, seed=n)
    B = torch.randn(n, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    unit = n * EPS * torch.linalg.cond(A)
    identity = torch.eye(n, dtype=torch.float64)

    inverse = sweep_inverse_(tiled(A, tile_size, grid))
    lower = whole(inverse.tiles)
    A_inv = lower + lower.tril(-1).mT
    factor = cholesky_(tiled(A, tile_size, grid))
    L = whole(factor.L)
    half = factor.half_solve(B)
    exact = torch.linalg.solve(A, B)
    log_determinant = torch.logdet(A)
    return {
        "A A⁻¹ − I": float((A @ A_inv - identity).norm() / unit),
        "A⁻¹B": float((inverse @ B - exact).norm() / exact.norm() / unit),
        "LLᵀ − A": float((L @ L.mT - A).norm() / A.norm() / (n * EPS)),
        "solve": float((factor @ B - exact).norm() / exact.norm() / unit),
        "half solve": float((half.mT @ half - B.mT @ exact).norm() / (B.mT @ exact).norm() / unit),
        "log|A| by sweep": float(abs(inverse.log_determinant - log_determinant) / unit),  # |tr A⁻¹δA| ≤ n ε cond
        "log|A| by Cholesky": float(abs(factor.log_determinant - log_determinant) / unit),
        "AB": float((multiply(tiled(A, tile_size, grid), B) - A @ B).norm() / (A @ B).norm() / (n * EPS)),
    }


def all_errors(rows: int, columns: int) -> list[dict[str, float]]:
    grid = ProcessGrid.connect(rows, columns)
    return [errors(grid, n, tile_size) for n, tile_size in SIZES]


@pytest.mark.parametrize(("rows", "columns"), GRIDS)
def test_scaled_residuals_are_small_on_every_grid(rows: int, columns: int) -> None:
    for (n, tile_size), found in zip(SIZES, spawn(all_errors, rows * columns, rows, columns)[-1], strict=True):
        for what, error in found.items():
            assert error < 1, f"{what} for n={n}, tile {tile_size}, grid {rows} x {columns}: {error}"


def failing_minors(rows: int, columns: int) -> list[list[str]]:
    """Messages of both algorithms for matrices whose leading minor of a known order is the first to fail."""
    grid = ProcessGrid.connect(rows, columns)
    messages = []
    for n, tile_size, order in [(40, 8, 1), (40, 8, 23), (41, 8, 41), (40, 64, 17)]:
        A = random_positive_definite(n, seed=order)
        A[order - 1, order - 1] = -1.0
        for factorise in (sweep_inverse_, cholesky_):
            with pytest.raises(NotPositiveDefiniteError) as raised:
                factorise(tiled(A, tile_size, grid))
            messages.append([str(raised.value), f"order {order} of {n}"])
    return messages


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 2), (2, 3)])
def test_every_rank_raises_the_same_error_with_the_failing_minor(rows: int, columns: int) -> None:
    everyone = spawn(failing_minors, rows * columns, rows, columns)
    assert all(messages == everyone[0] for messages in everyone)
    for message, expected in everyone[0]:
        assert expected in message


def one_rank_fails(rows: int, columns: int) -> str:
    grid = ProcessGrid.connect(rows, columns)
    with pytest.raises(NotPositiveDefiniteError) as raised, grid.together("testing"):
        if grid.rank == 1:
            raise NotPositiveDefiniteError("only rank 1 knows")
    assert grid.share(grid.rank, rank=1) == 1  # the ranks still meet afterwards
    return str(raised.value)


def test_failure_of_one_rank_becomes_everyones() -> None:
    assert spawn(one_rank_fails, 2, 1, 2) == ["only rank 1 knows"] * 2


def traffic(rows: int, columns: int, n: int, tile_size: int) -> dict[str, int]:
    grid = ProcessGrid.connect(rows, columns)
    counts = {}
    for factorise in (sweep_inverse_, cholesky_):
        grid.counters.bytes_received = 0
        factorise(tiled(random_positive_definite(n), tile_size, grid))
        counts[factorise.__name__] = grid.counters.bytes_received
    return counts


@pytest.mark.parametrize(("rows", "columns"), [(1, 2), (2, 2), (2, 3)])
def test_no_rank_receives_more_than_the_docstrings_say(rows: int, columns: int) -> None:
    n, b = 130, 16
    panels, scalars = n * n * (1 / rows + 1 / columns), 2
    for counts in spawn(traffic, rows * columns, rows, columns, n, b):
        assert 0 < counts["sweep_inverse_"] <= 8 * (panels + n * b * (1 / rows + 1 / columns) + b * b * 2 + scalars)
        assert 0 < counts["cholesky_"] <= 8 * (panels / 2 + n * b / columns + b * b + scalars)


def live_bytes(rows: int, columns: int, n: int, tile_size: int) -> dict[str, Any]:
    """The most bytes of tensors alive at once on this rank during a sweep, and the largest tensor."""
    import gc

    grid = ProcessGrid.connect(rows, columns)
    V = TiledSymmetric(TileLayout(n, tile_size, grid.shape), grid)
    for i, j, tile in V.tiles():
        tile.fill_(1.0)
        if i == j:
            tile.diagonal().add_(2.0)
    seen = {"most": 0, "largest": 0}

    def look(_: float) -> None:
        storages = {
            t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in gc.get_objects() if type(t) is torch.Tensor
        }
        seen["most"] = max(seen["most"], sum(storages.values()))
        seen["largest"] = max(seen["largest"], *storages.values())

    gc.collect()
    sweep_inverse_(V, look)
    return {**seen, "slabs": V.num_bytes()}


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 2), (2, 2)])
def test_no_rank_holds_more_than_slabs_panels_and_tiles(rows: int, columns: int) -> None:
    n, b = 1000, 50
    everyone = spawn(live_bytes, rows * columns, rows, columns, n, b)
    for seen in everyone:
        panel = 8 * n * b * (1 / rows + 1 / columns)
        in_flight = 8 * n * b / max(rows, columns)  # a packed piece of a panel that is being sent
        assert seen["most"] <= seen["slabs"] + panel + in_flight + 8 * 6 * b * b
        assert seen["largest"] < 8 * n * n / 10  # no tensor is near n x n
    assert sum(seen["slabs"] for seen in everyone) <= 8 * (n * n + n * b) / 2
