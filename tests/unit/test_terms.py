"""The contract of covariance terms: each equals a dense matrix, whatever the samples, the tiles and the ranks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from openreml_dist.covariance import Covariance, Identity, Piece, Samples, Spans
from openreml_dist.covariance.indices import as_indices
from openreml_dist.covariance.term import forward_derivatives
from openreml_dist.grid import ProcessGrid
from openreml_dist.layout import GridShape, TileLayout
from tests.helpers.million import TERMS
from tests.helpers.oracle import whole
from tests.helpers.terms import CASES, Case, Dense, Recorder, slopes

CPU = torch.device("cpu")
CHECKOUT = Path(__file__).resolve().parents[2]
SIZES = st.integers(6, 11)
SEEDS = st.integers(0, 10**6)
names = pytest.mark.parametrize("name", CASES)
few = settings(max_examples=3, deadline=None)


def drawn(name: str, n: int, seed: int) -> Case:
    return CASES[name](np.random.default_rng(seed), n)


def assert_equal(found: Tensor | None, expected: Tensor, rtol: float = 1e-9) -> None:
    found = torch.zeros_like(expected) if found is None else found.double()
    torch.testing.assert_close(found, expected, rtol=rtol, atol=rtol * max(1.0, float(expected.abs().max())))


def draw_samples(data: st.DataObject, size: int) -> Samples:
    """A range, or any samples, some of them twice."""
    if data.draw(st.booleans()):
        start = data.draw(st.integers(0, size - 1))
        return range(start, data.draw(st.integers(start + 1, size)))
    return np.array(data.draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=12)), np.int64)


@names
@few
@given(st.data(), SIZES, SEEDS)
def test_a_tile_and_its_derivatives_equal_the_dense_matrix(name: str, data: st.DataObject, n: int, seed: int) -> None:
    case = drawn(name, n, seed)
    term, eta = case.term, case.eta
    assert case.dense(eta).shape == (term.size, term.size)
    rows, columns = draw_samples(data, term.size), draw_samples(data, term.size)
    here, there = as_indices(rows), as_indices(columns)

    def at(V: Tensor) -> Tensor:
        return V[here][:, there]

    def entries(eta: Tensor) -> Tensor:
        values = term.entries(rows, columns, eta, CPU)
        return values if values is not None else torch.zeros(len(here), len(there)) + 0 * eta.sum()

    assert_equal(term.tile(rows, columns, eta, CPU), at(case.dense(eta)))
    derivatives = term.derivatives(rows, columns, eta, CPU)
    assert len(derivatives) == len(term.parameters) == len(eta)
    by_autodiff = forward_derivatives(entries, eta)
    for k, (found, tangent, slope) in enumerate(zip(derivatives, by_autodiff, slopes(case.dense, eta), strict=True)):
        assert_equal(found, tangent, rtol=1e-12)
        assert_equal(found, at(slope))
        assert_equal(term.dtile(k, rows, columns, eta, CPU), at(slope))


def rebuilt(pieces: Iterable[Piece], spans: Spans, size: int, summands: int) -> Tensor:
    """The lower triangle of the matrix that the pieces make, no place given more often than ``summands``."""
    V, given = torch.zeros(2, size, size, dtype=torch.float64)
    shares = [0.0]
    for piece in pieces:
        rows, columns = spans[piece.tile]
        tile, times = (matrix[rows.start : rows.stop, columns.start : columns.stop] for matrix in (V, given))
        values = torch.diag(piece.values.double()) if piece.is_diagonal else piece.values.double()
        place = torch.arange(len(rows))[piece.rows][:, None], torch.arange(len(columns))[piece.columns][None, :]
        tile[place] += values
        times[place] += torch.ones_like(values)
        shares.append(piece.done)
    assert shares == sorted(shares) and shares[-1] <= 1 + 1e-12
    assert float(given.max()) <= summands
    return V.tril()


def lower_spans(size: int, tile_size: int) -> Spans:
    return TileLayout(size, tile_size, GridShape(1, 1)).spans(0)


@names
@few
@given(SIZES, SEEDS, st.integers(2, 20))
def test_every_pass_over_tiles_rebuilds_the_matrix(name: str, n: int, seed: int, tile_size: int) -> None:
    case = drawn(name, n, seed)
    term, eta, spans = case.term, case.eta, lower_spans(case.term.size, tile_size)
    V, dV = case.dense(eta), slopes(case.dense, eta)

    def check(pieces: Iterable[Piece], expected: Tensor) -> None:
        assert_equal(rebuilt(pieces, spans, term.size, case.summands), expected.tril())

    for _ in range(2):  # the second time from what was kept
        check(term.pieces(spans, eta, CPU), V)
    factor, pieces = term.scaled_pieces(spans, eta, CPU)
    check((piece.with_values(factor * piece.values.double()) for piece in pieces), V)
    joint = list(term.joint_pieces(spans, eta, CPU))
    check((piece for piece, _ in joint), V)
    parts = list(term.dpieces(spans, eta, CPU))
    for k, V_k in enumerate(dV):
        check((piece for which, piece in parts if which == k), V_k)
        check((piece.with_values(own[k]) for piece, own in joint if own[k] is not None), V_k)


@names
@few
@given(st.data(), SIZES, SEEDS)
def test_selected_samples_are_those_of_the_matrix(name: str, data: st.DataObject, n: int, seed: int) -> None:
    case = drawn(name, n, seed)
    samples = np.array(data.draw(st.lists(st.integers(0, case.term.size - 1), min_size=1, max_size=15)), np.int64)
    selected = case.term.selected(samples)
    assert [p.name for p in selected.parameters] == [p.name for p in case.term.parameters]
    assert selected.name == case.term.name and selected.is_stored <= case.term.is_stored
    spans, expected = lower_spans(len(samples), 4), case.dense(case.eta)[samples][:, samples]
    assert_equal(rebuilt(selected.pieces(spans, case.eta, CPU), spans, len(samples), case.summands), expected.tril())
    for k, slope in enumerate(slopes(case.dense, case.eta)):
        pieces = [piece for which, piece in selected.dpieces(spans, case.eta, CPU) if which == k]
        assert_equal(rebuilt(pieces, spans, len(samples), case.summands), slope[samples][:, samples].tril())


@names
@few
@given(SIZES, SEEDS)
def test_the_start_lies_inside_the_bounds_and_has_the_size_of_the_data(name: str, n: int, seed: int) -> None:
    case = drawn(name, n, seed)
    squares = 5 * torch.tensor(np.random.default_rng(seed).chisquare(1, case.term.size))
    eta = case.term.start(squares, 0.6)
    for value, parameter in zip(eta.tolist(), case.term.parameters, strict=True):
        assert parameter.lower < value < parameter.upper, parameter.name
    V = case.dense(eta)
    assert float(torch.linalg.eigvalsh(V)[0]) > -1e-9 * float(V.diagonal().max())
    if any(parameter.unit in ("variance", "loading") for parameter in case.term.parameters):
        assert 0.2 < float(V.diagonal().mean() / (0.6 * squares.mean())) < 5


@names
def test_parameters_are_told_apart_by_name(name: str) -> None:
    term = drawn(name, 9, 1).term
    assert len({parameter.name for parameter in term.parameters}) == len(term.parameters)
    assert Covariance([term, Identity(term.size, "noise")]).parameters[:-1] == tuple(p.name for p in term.parameters)


@names
def test_the_summary_has_the_derivatives_that_a_standard_error_needs(name: str) -> None:
    case = drawn(name, 9, 1)
    summary = case.term.summary(case.eta)
    assert all(value.ndim == 0 and bool(torch.isfinite(value)) for value in summary.values())
    if summary:
        gradients = torch.func.jacrev(case.term.summary)(case.eta)
        assert all(bool(torch.isfinite(gradient).all()) for gradient in gradients.values())


STORED = [
    name for name, make in CASES.items() if make(np.random.default_rng(0), 9).term.is_stored and "pedigree" not in name.lower()
]


@pytest.mark.parametrize("name", STORED)
@pytest.mark.parametrize("tile_size", [2, 3, 30])
def test_a_pass_reads_a_chunk_once_however_many_parameters(name: str, tile_size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[tuple[Recorder, int, int]] = []
    read = Recorder.read_chunk
    monkeypatch.setattr(Recorder, "read_chunk", lambda self, i, j: (reads.append((self, i, j)), read(self, i, j))[1])
    case = drawn(name, 9, 3)
    spans = lower_spans(case.term.size, tile_size)
    passes: list[Iterable[object]] = [
        case.term.pieces(spans, case.eta, CPU),
        case.term.scaled_pieces(spans, case.eta, CPU)[1],
        case.term.joint_pieces(spans, case.eta, CPU),
        case.term.dpieces(spans, case.eta, CPU),
    ]
    for one in passes:
        reads.clear()
        list(one)
        assert len(set(reads)) == len(reads)


# Parameters.


def dense_sum(*cases: Case) -> tuple[Covariance, Dense]:
    counts = [len(case.eta) for case in cases]

    def dense(eta: Tensor) -> Tensor:
        V: Tensor = sum(case.dense(own) for case, own in zip(cases, eta.split(counts), strict=True))  # type: ignore[assignment]
        return V

    return Covariance([case.term for case in cases]), dense


MODEL = ("field", "kernel", "noise")
FIELD = ("plot", "row.correlation", "column.correlation")


@few
@given(st.data(), SEEDS)
def test_fixed_shared_and_transformed_parameters(data: st.DataObject, seed: int) -> None:
    random, n = np.random.default_rng(seed), 12
    cases = [CASES["AR1xAR1"](random, n), CASES["Kernel"](random, n), CASES["Identity"](random, n)]
    plain, dense = dense_sum(*cases)
    names = plain.parameters
    assert names == (*FIELD, "genetic", "residual")
    kinds = {name: "logit" if "correlation" in name else "log" for name in names}
    transforms = {name: kinds[name] for name in data.draw(st.sets(st.sampled_from(names)))}
    shared = data.draw(st.sampled_from([[], [FIELD[1:]], [("genetic", "residual")], [FIELD[1:], ("genetic", "residual")]]))
    for group in shared:  # of shared parameters all are transformed alike
        for name in group:
            transforms.pop(name, None)
            if group[0] in transforms:
                transforms[name] = transforms[group[0]]
    fixed = dict.fromkeys(data.draw(st.sets(st.sampled_from(names), max_size=2)), 0.25)
    covariance = Covariance([case.term for case in cases], fixed=fixed, shared=shared, transforms=transforms)
    theta = torch.tensor(random.uniform(0.2, 0.8, len(covariance.parameters)))

    def eta_of(theta: Tensor) -> Tensor:
        values = dict(zip(covariance.parameters, theta, strict=True))
        leaders = {name: group[0] for group in shared for name in group}
        eta = []
        for name in names:
            leader = leaders.get(name, name)
            alike = [name for name in names if leaders.get(name, name) == leader]
            given = next((fixed[one] for one in alike if one in fixed), None)
            value = values[leader] if given is None else given
            kind = transforms.get(name) if given is None else None
            eta.append({"log": torch.exp, "logit": lambda t: torch.tanh(t / 2)}.get(kind or "", torch.as_tensor)(value))
        return torch.stack([torch.as_tensor(value, dtype=torch.float64) for value in eta])

    torch.testing.assert_close(torch.cat(covariance.eta_by_term(theta)), eta_of(theta))
    torch.testing.assert_close(covariance.map.eta(covariance.map.theta(eta_of(theta))), eta_of(theta))
    grid, layout = ProcessGrid.single(), TileLayout(n, 5, GridShape(1, 1))
    assert_equal(whole(covariance.assemble(theta, grid, layout)), dense(eta_of(theta)).tril())
    made = covariance.derivatives(theta, grid, layout)
    for V_k, slope in zip(made, slopes(lambda theta: dense(eta_of(theta)), theta), strict=True):
        assert_equal(whole(V_k), slope.tril())


@pytest.fixture(scope="module")
def costs() -> dict[str, tuple[float, int]]:
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(2**22)}  # what is freed is given back, not kept for the next tile
    command = [sys.executable, "-m", "tests.helpers.million"]
    done = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, check=True)
    costs: dict[str, tuple[float, int]] = json.loads(done.stdout)
    return costs


@pytest.mark.parametrize("name", TERMS)
def test_a_generated_tile_at_a_million_samples_costs_nothing(name: str, costs: dict[str, tuple[float, int]]) -> None:
    seconds, kilobytes = costs[name]
    assert seconds < 1
    assert kilobytes < 50_000
