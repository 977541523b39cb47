"""Sweep, Cholesky and products on every grid against dense linear algebra, by scaled residuals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch

from openreml_dist.errors import NotPositiveDefiniteError
from openreml_dist.grid import Counters, ProcessGrid, Transfer
from openreml_dist.layout import GridShape, TileLayout
from openreml_dist.linalg import cholesky_, multiply, sweep_inverse_
from openreml_dist.linalg.triangular import solve_lower, solve_lower_transposed
from openreml_dist.plan.memory import FitSize, memory
from openreml_dist.plan.work import cholesky_work, sweep_work
from openreml_dist.tiled import TiledSymmetric, Workspace
from tests.helpers.gloo import spawn
from tests.helpers.live import LiveBytes
from tests.helpers.oracle import random_positive_definite, tiled, whole

GRIDS = [(1, 1), (1, 2), (2, 1), (2, 2), (2, 3)]
SIZES = [(97, 32), (97, 97), (64, 16), (50, 7), (23, 1), (33, 40), (2, 1), (1, 5)]  # ragged, whole, one tile, ranks without
EPS = torch.finfo(torch.float64).eps
EXCHANGES = [(rows, columns, shared) for rows, columns in GRIDS for shared in (False, True) if rows * columns > 1 or not shared]
"""Grids whose ranks send panels, and grids whose ranks see the same panels."""


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
        "BᵀA⁻¹B": float((factor.quadratic(B) - B.mT @ exact).norm() / (B.mT @ exact).norm() / unit),
        "AB": float((multiply(tiled(A, tile_size, grid), B) - A @ B).norm() / (A @ B).norm() / (n * EPS)),
    }


def all_errors(rows: int, columns: int, shared: bool) -> list[dict[str, float]]:
    grid = ProcessGrid.connect(rows, columns, share_memory=shared)
    assert (grid.host is not None) == shared
    return [errors(grid, n, tile_size) for n, tile_size in SIZES]


@pytest.mark.parametrize(("rows", "columns", "shared"), EXCHANGES)
def test_scaled_residuals_are_small_on_every_grid(rows: int, columns: int, shared: bool) -> None:
    for (n, tile_size), found in zip(SIZES, spawn(all_errors, rows * columns, rows, columns, shared)[-1], strict=True):
        for what, error in found.items():
            assert error < 1, f"{what} for n={n}, tile {tile_size}, grid {rows} x {columns}: {error}"


def same_digits(rows: int, columns: int) -> bool:
    """Whether panels that all see and panels that are sent give the same tiles on this rank."""
    A = random_positive_definite(330)
    for algorithm in (lambda V: cholesky_(V).L, lambda V: sweep_inverse_(V).tiles):
        sent, seen = (algorithm(tiled(A, 40, ProcessGrid.connect(rows, columns, share_memory=s))) for s in (False, True))
        if not all(torch.equal(slab, seen.slabs[j]) for j, slab in sent.slabs.items()):
            return False
    return True


@pytest.mark.parametrize(("rows", "columns"), [(2, 1), (2, 3)])
def test_panels_seen_by_all_give_the_digits_of_panels_sent(rows: int, columns: int) -> None:
    assert all(spawn(same_digits, rows * columns, rows, columns))


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
    assert grid.broadcast_object(grid.rank, rank=1) == 1  # the ranks still meet afterwards
    return str(raised.value)


def test_failure_of_one_rank_becomes_everyones() -> None:
    assert spawn(one_rank_fails, 2, 1, 2) == ["only rank 1 knows"] * 2


COUNTED = [(130, 16), (130, 13), (40, 64)]


def counted(rows: int, columns: int, shared: bool) -> list[dict[str, Counters]]:
    """What this rank has counted in a sweep and in a factor, of each size."""
    grid = ProcessGrid.connect(rows, columns, share_memory=shared)
    found = []
    for n, tile_size in COUNTED:
        counters = {}
        for factorise in (sweep_inverse_, cholesky_):
            V = tiled(random_positive_definite(n), tile_size, grid)
            grid.counters = counters[factorise.__name__] = Counters()
            factorise(V)
        found.append(counters)
    return found


@pytest.mark.parametrize(("rows", "columns", "shared"), [*EXCHANGES, (2, 4, False)])
def test_work_is_what_the_planner_computes_and_the_docstrings_say(rows: int, columns: int, shared: bool) -> None:
    ranks = rows * columns
    everyone = spawn(counted, ranks, rows, columns, shared)
    for which, (n, b) in enumerate(COUNTED):
        layout = TileLayout(n, b, GridShape(rows, columns, shared))
        scalars = 2 if ranks > 1 else 0  # the failing minor and log|V|
        panels = n * n * (1 / rows + 1 / columns)
        ragged = b * (n / rows + n / columns + 2 * b)  # tiles do not divide evenly
        bounds = {
            "sweep_inverse_": panels + n * b * (1 / rows + 1 / columns) + 2 * b * b,
            "cholesky_": panels / 2 + n * b / columns + b * b,
        }
        for name, work in (("sweep_inverse_", sweep_work(layout)), ("cholesky_", cholesky_work(layout))):
            for rank in range(ranks):
                counters, at = everyone[rank][which][name], layout.grid.coordinates(rank)
                assert counters.flops == work.flops[at]
                assert counters.bytes_received == 8 * (work.words.sum(axis=0)[at] + scalars)
                assert counters.messages_received == work.messages.sum(axis=0)[at] + scalars
                assert counters.bytes_received <= 8 * (bounds[name] + ragged + scalars)
            leading, in_panels = (n**3, 5 * n * n * b) if name == "sweep_inverse_" else (n**3 / 3, 2 * n * n * b)
            assert leading * 0.9 <= work.flops.sum() <= leading + in_panels + 4 * n * b * b


COLUMNS = 3


def counted_in_solves(rows: int, columns: int) -> list[Counters]:
    """What this rank has counted in a forward and in a backward substitution."""
    grid = ProcessGrid.connect(rows, columns)
    n, tile_size = COUNTED[0]
    B = torch.ones(n, COLUMNS, dtype=torch.float64)
    L = cholesky_(tiled(random_positive_definite(n), tile_size, grid)).L
    found = []
    for solve in (solve_lower, solve_lower_transposed):
        grid.counters = Counters()
        solve(L, B)
        found.append(grid.counters)
    return found


@pytest.mark.parametrize(("rows", "columns"), GRIDS)
def test_solves_cost_what_their_docstrings_say(rows: int, columns: int) -> None:
    (n, b), ranks = COUNTED[0], rows * columns
    everyone = spawn(counted_in_solves, ranks, rows, columns)
    received, tiles = n * COLUMNS, -(-n // b)
    for which, (along, across) in enumerate([(rows, columns), (columns, rows)]):
        assert sum(found[which].flops for found in everyone) == pytest.approx(n * n * COLUMNS, rel=2 * b / n)
        for found in everyone:
            ragged = b * COLUMNS
            words = received * ((along > 1) / across + 2 * (across > 1)) + ragged
            assert found[which].bytes_received <= 8 * words
            assert found[which].messages_received <= (across > 1) * (tiles + 1) + (along > 1) * (tiles / across + 1)


DELAY_SHARE = 0.1  # of the flops of a step, the time that every message takes
TILES = 24


class SlowGrid:
    """Makes every message of a grid take ``delay``, in virtual time: a flop is a unit, and so is a unit of waiting."""

    def __init__(self, grid: ProcessGrid, delay: int) -> None:
        self.grid, self.delay, self.waited, self.alone = grid, delay, 0, 0
        self._broadcast_ = grid._broadcast_
        grid._broadcast_ = self.broadcast_  # type: ignore[method-assign]

    @property
    def now(self) -> int:
        return self.grid.counters.flops + self.waited

    def broadcast_(self, values: torch.Tensor, source: int, group: Any) -> Any:
        transfer = self._broadcast_(values, source, group)
        return transfer if transfer.work is None else SlowTransfer(self, transfer, self.now + self.delay)


@dataclass(frozen=True)
class SlowTransfer:
    slow: SlowGrid
    transfer: Transfer
    arrives: int

    def has_arrived(self) -> bool:
        return self.slow.now >= self.arrives

    def wait(self) -> None:
        self.slow.waited += max(0, self.arrives - self.slow.now)
        self.transfer.wait()


def waited(rows: int, columns: int) -> dict[str, tuple[float, float]]:
    """Delays that this rank has waited for in a sweep and a factor: as they are, and if it did nothing meanwhile."""
    grid = ProcessGrid.connect(rows, columns, share_memory=False)
    n, b = 20 * TILES, 20
    found = {}
    for factorise in (sweep_inverse_, cholesky_):
        counted = []
        for overlapped in (True, False):
            slow = SlowGrid(grid, delay=round(DELAY_SHARE * 2 * b * n * n / 2 / (rows * columns)))
            if not overlapped:
                slow.delay *= 1000  # so that what is computed meanwhile is nothing beside it
            V = tiled(random_positive_definite(n), b, grid)
            grid.counters.flops = 0
            factorise(V)
            counted.append(slow.waited / slow.delay)
            grid._broadcast_ = slow._broadcast_  # type: ignore[method-assign]
        found[factorise.__name__] = tuple(counted)
    return found


@pytest.mark.parametrize(("rows", "columns"), [(1, 2), (2, 1), (2, 2), (2, 3)])
def test_messages_travel_while_the_rank_computes(rows: int, columns: int) -> None:
    for found in spawn(waited, rows * columns, rows, columns):
        overlapped, one_by_one = found["sweep_inverse_"]
        assert one_by_one > 1.9 * TILES  # two to three messages a step wait for each other
        assert overlapped < 0.1 * one_by_one  # the first panel, before which there is nothing to compute
        overlapped, one_by_one = found["cholesky_"]
        assert overlapped < 0.5 * one_by_one  # towards the end there is little to compute


def live_bytes(rows: int, columns: int, shared: bool, n: int, tile_size: int) -> dict[str, int]:
    """The most bytes of tensors alive at once on this rank during a sweep, and the largest tensor."""
    live = LiveBytes(every=1)
    grid = ProcessGrid.connect(rows, columns, share_memory=shared)
    V = TiledSymmetric(TileLayout(n, tile_size, grid.shape), grid)
    for i, j, tile in V.tiles():
        tile.fill_(1.0)
        if i == j:
            tile.diagonal().add_(2.0)
    sweep_inverse_(V, live.look)
    return {"most": live.most, "largest": live.largest, "slabs": V.num_bytes()}


def test_a_workspace_serves_matrices_of_either_precision() -> None:
    layout, grid = TileLayout(50, 20, GridShape(1, 1)), ProcessGrid.single()
    workspace = Workspace(torch.float32)
    for dtype in (torch.float32, torch.float64, torch.float32):
        V = TiledSymmetric(layout, grid, dtype, workspace)
        for _, _, tile in V.tiles():
            assert tile.dtype == dtype and tile.is_contiguous() and not bool(tile.any())
            tile.fill_(torch.nan)


@pytest.mark.parametrize(("rows", "columns", "shared"), EXCHANGES)
def test_no_rank_holds_more_than_slabs_panels_and_tiles(rows: int, columns: int, shared: bool) -> None:
    n, b = 1000, 50
    everyone = spawn(live_bytes, rows * columns, rows, columns, shared, n, b)
    planned = memory(TileLayout(n, b, GridShape(rows, columns, shared)), FitSize())
    for seen in everyone:
        assert seen["most"] <= planned.matrix + planned.panels + planned.tiles
        assert seen["largest"] < 8 * n * n / 10  # no tensor is near n x n
    fullest = max(seen["most"] for seen in everyone)
    assert fullest >= 0.9 * (planned.matrix + planned.panels)
    assert sum(seen["slabs"] for seen in everyone) <= 8 * (n * n + n * b) / 2
