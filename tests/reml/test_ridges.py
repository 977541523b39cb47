"""What no phenotype could tell is found before the iteration, on any grid, from exact products and from those in float32."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from openreml_dist import Covariance, FitResult, Grouping, Identity, Kernel
from openreml_dist.covariance import Term
from openreml_dist.grid import ProcessGrid
from openreml_dist.reml.dense.engine import DenseEngine
from openreml_dist.reml.fitting import FitOptions, fit
from openreml_dist.reml.ridges import Ridges
from openreml_dist.reml.solver import Solver
from tests.helpers.engines import WholeMatrices
from tests.helpers.gloo import spawn
from tests.helpers.oracle import Case

N = 150
random = np.random.default_rng(8)
K1, K2 = (np.asarray(Z @ Z.T / 300, np.float32).astype(float) for Z in random.normal(size=(2, N, 300)))
PARTS = np.asarray(0.3 * K1 + 0.7 * K2, np.float32).astype(float)
NEAR = K1 + 1e-3 * K2
FAMILY, SEX = np.arange(N) // 3, np.arange(N) % 2
CENTRE = np.eye(N) - 1 / N
CENTRED = CENTRE @ K1 @ CENTRE
ONE, BY_FAMILY, BY_SEX = np.ones((N, 1)), np.eye(N // 3)[FAMILY], np.eye(2)[SEX]
EFFECTS = np.linalg.cholesky(1.2 * K1 + 1.8 * K2) @ random.normal(size=N)
Y = torch.tensor(EFFECTS + 0.6 * random.normal(size=N) + 0.7 * random.normal(size=N // 3)[FAMILY])

Model = tuple[list[Term], list[np.ndarray], np.ndarray]


def model(X: np.ndarray, *terms: tuple[str, object]) -> Model:
    """Terms and their matrices: a kernel, a factor, or the identity."""
    made: list[Term] = []
    whole = []
    for name, what in terms:
        if what is None:
            made.append(Identity(N, name))
            whole.append(np.eye(N))
        elif np.ndim(what) == 1:
            made.append(Grouping(np.asarray(what), name))
            whole.append(np.equal.outer(what, what).astype(float))
        else:
            made.append(Kernel.from_array(torch.tensor(np.asarray(what)), name))
            whole.append(np.asarray(what))
    return made, whole, X


RESIDUAL = ("residual", None)
MODELS: dict[str, tuple[Model, list[dict[str, float]], list[str]]] = {
    "identity": (model(ONE, ("same", np.eye(N)), RESIDUAL), [{"same": 1, "residual": -1}], []),
    "parts": (
        model(ONE, ("part1", K1), ("part2", K2), ("all", PARTS), RESIDUAL),
        [{"all": 1, "part1": -0.3, "part2": -0.7}],
        [],
    ),
    "twice": (model(ONE, ("a", K1), ("b", K1), RESIDUAL), [{"a": 1, "b": -1}], []),
    "three times": (
        model(ONE, ("a", K1), ("b", 2 * K1), ("c", 3 * K1), RESIDUAL),
        [{"a": 1, "c": -1 / 3}, {"b": 1, "c": -2 / 3}],
        [],
    ),
    "centred": (model(ONE, ("a", K1), ("b", CENTRED), RESIDUAL), [{"a": 1, "b": -1}], []),
    "fixed and random": (model(BY_FAMILY, ("family", FAMILY), ("a", K1), RESIDUAL), [], ["family"]),
    "two levels beside the mean": (model(ONE, ("sex", SEX), ("a", K1), RESIDUAL), [], []),
    "two levels that are fixed": (
        model(BY_SEX, ("sex", SEX), ("twice", K1), ("a", K1), RESIDUAL),
        [{"twice": 1, "a": -1}],
        ["sex"],
    ),
    "nearly": (model(ONE, ("a", K1), ("b", NEAR), RESIDUAL), [], []),
    "all else": (model(ONE, ("a", K1), ("b", K2), ("family", FAMILY), RESIDUAL), [], []),
    "two residuals": (model(ONE, ("e1", None), RESIDUAL), [{"e1": 1, "residual": -1}], []),
}


def dense(terms: list[Term], X: np.ndarray, grid: ProcessGrid | None = None, traces: str = "auto") -> DenseEngine:
    return Solver.of(Covariance(terms), grid or ProcessGrid.single(), 40).engine(Y, torch.tensor(X), traces, 64)


def found(engine: DenseEngine | WholeMatrices, constrain: bool = True) -> tuple[list[dict[str, float]], list[str]]:
    """Combinations, and what is unknown, by name."""
    gram = engine.gram()
    assert gram is not None
    ridges, names = Ridges.of(gram, engine.bounds(constrain)), engine.covariance.parameters
    combinations = [{name: part for name, part in zip(names, c.tolist(), strict=True) if part} for c in ridges.directions.mT]
    return combinations, [name for name, lost in zip(names, ridges.unknown.tolist(), strict=True) if lost]


def check(name: str, engine: DenseEngine | WholeMatrices) -> None:
    _, combinations, unknown = MODELS[name]
    assert found(engine) == ([pytest.approx(c, rel=1e-5) for c in combinations], unknown)


@pytest.mark.parametrize("name", MODELS)
def test_combinations_are_those_of_the_whole_matrices(name: str) -> None:
    (terms, whole, X), *_ = MODELS[name]
    case = Case(terms, [torch.tensor(K) for K in whole], Y, torch.tensor(X), torch.ones(len(terms)).double())
    check(name, WholeMatrices(case))
    for traces in ("auto", "exact"):
        check(name, dense(terms, X, traces=traces))


def on_a_grid() -> dict[str, tuple[list[dict[str, float]], list[str]]]:
    grid = ProcessGrid.connect()
    return {name: found(dense(terms, X, grid)) for name, ((terms, _, X), *_) in MODELS.items()}


def test_two_ranks_find_the_same() -> None:
    for rank in spawn(on_a_grid, 2):
        for name, (_, combinations, unknown) in MODELS.items():
            assert rank[name] == ([pytest.approx(c, rel=1e-5) for c in combinations], unknown)


def test_one_is_tied_that_the_others_make_up_for() -> None:
    """Not a part: at its bound the whole could not take its place. Without bounds the first will do."""
    (terms, _, X), *_ = MODELS["parts"]
    ((combination,), _) = found(dense(terms, X), constrain=False)
    assert combination == pytest.approx({"part1": 1, "part2": 0.7 / 0.3, "all": -1 / 0.3}, rel=1e-5)


def near(value: float | None) -> object:
    return None if value is None else pytest.approx(value, rel=1e-5, nan_ok=True)


def fitted(name: str, start: Tensor | str = "auto", **options: object) -> tuple[FitResult, list[str]]:
    (terms, _, X), *_ = MODELS[name]
    said: list[str] = []
    return fit(dense(terms, X), start, FitOptions(warn=said.append, **options)), said  # type: ignore[arg-type]


NOT_IDENTIFIED = [name for name, (_, combinations, unknown) in MODELS.items() if combinations or unknown]


@pytest.mark.parametrize("name", NOT_IDENTIFIED)
def test_what_is_said_before_is_what_is_said_at_the_end(name: str) -> None:
    _, combinations, unknown = MODELS[name]
    result, said = fitted(name)
    assert result.status == "not_identified"
    assert len(said) == len(combinations) + bool(unknown)
    assert set(result.confounded) == {member for c in combinations for member in c}
    assert list(result.unknown) == unknown
    assert result.num_iterations <= 8
    for estimate, se in zip(result.estimates, result.standard_errors.tolist(), strict=True):
        lost = estimate.name in result.confounded or estimate.name in unknown
        assert math.isnan(estimate.value) == math.isnan(se) == lost
    elsewhere, _ = fitted(name, torch.linspace(0.2, 1.3, len(result.theta), dtype=torch.float64))
    assert elsewhere.loglik == pytest.approx(result.loglik, abs=1e-7)
    assert elsewhere.status == result.status
    for one, other in zip(result.estimates, elsewhere.estimates, strict=True):
        assert one.value == near(other.value)
        assert one.se == near(other.se)
    assert result.total == tuple(map(near, elsewhere.total))


@pytest.mark.parametrize(("name", "alone"), [("twice", ["b", "residual"]), ("parts", ["part1", "part2", "residual"])])
@pytest.mark.parametrize("constrain", [True, False])
def test_what_is_known_is_that_of_the_model_without_what_is_tied(name: str, alone: list[str], constrain: bool) -> None:
    (terms, _, X), *_ = MODELS[name]
    result, _ = fitted(name, constrain=constrain)
    apart = fit(dense([term for term in terms if term.name in alone], X), "auto", FitOptions(constrain=constrain))
    assert result.loglik == pytest.approx(apart.loglik, abs=1e-5)  # all is its parts but for the rounding to float32
    assert result.estimates[-1].value == pytest.approx(apart.estimates[-1].value, rel=1e-5)
    assert result.standard_errors[-1] == pytest.approx(float(apart.standard_errors[-1]), rel=1e-5)
    assert result.total == pytest.approx(apart.total, rel=1e-5)


def test_where_a_part_is_on_its_bound_the_whole_is_on_its_own() -> None:
    """θ(0.3 K1 + 0.7 K2) would need more of K2, of which there is less than none."""
    values, vectors = np.linalg.eigh(K2)
    without = np.linalg.cholesky(K1) @ random.normal(size=N) + vectors @ (random.normal(size=N) / (0.3 + values))
    (terms, _, X), *_ = MODELS["parts"]
    solver = Solver.of(Covariance(terms), ProcessGrid.single(), 40)
    result = solver.fit(torch.tensor(without), torch.tensor(X))
    assert result.status == "converged_at_bound" and result.confounded == ()
    assert result.at_bound.tolist() == [False, True, True, False]
    apart = Solver.of(Covariance([terms[0], terms[3]]), ProcessGrid.single(), 40).fit(torch.tensor(without), torch.tensor(X))
    assert result.loglik == pytest.approx(apart.loglik, abs=1e-7)
    assert result.theta[[0, 3]].tolist() == pytest.approx(apart.theta.tolist(), rel=1e-5)
    assert result.standard_errors[[0, 3]].tolist() == pytest.approx(apart.standard_errors.tolist(), rel=1e-5)


def test_probes_to_the_end_name_them_too() -> None:
    """In float32 the information is not seen to be singular."""
    (terms, _, X), *_ = MODELS["parts"]
    result = fit(dense(terms, X, traces="hutchinson"), "auto", FitOptions())
    assert result.status == "not_identified"
    assert set(result.confounded) == {"part1", "part2", "all"}


def test_no_sentence_where_all_is_told() -> None:
    for name in set(MODELS) - set(NOT_IDENTIFIED):
        result, said = fitted(name)
        assert said == [] and result.confounded == () and result.status in ("converged", "converged_at_bound")
