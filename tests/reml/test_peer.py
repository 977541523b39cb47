"""The interface shared with torch-openreml 0.1.0a0, against that package; ours is told to add its 1e-6 to the diagonal."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

from openreml_dist import REML, covariance
from openreml_dist.errors import ConfigError, InputError
from tests.helpers.gloo import spawn
from tests.helpers.oracle import Case, random_case
from tests.helpers.peer import (
    DUMMIES,
    G_LEVELS,
    METHODS,
    PAIRED_OTHERWISE,
    RIDGE,
    STRUCTURES,
    F,
    answers,
    as_the_peer_pairs,
    difference,
    documented_model,
    ours,
    put_together,
    random_model,
    theirs,
)

peer = pytest.importorskip("torch_openreml", reason="torch-openreml is not installed")

NUM_MODELS = 20
THEY_FAIL = {"loglik": "KeyError", "predict": "RuntimeError", "residual": "RuntimeError"}
Answers = dict[str, list[Tensor] | str]


def our_answers() -> list[Answers]:
    """For the documented example and every random model; tiles that do not divide n."""
    return [ours(documented_model(), tile_size=13), *(ours(random_model(seed), tile_size=11) for seed in range(NUM_MODELS))]


@pytest.fixture(scope="module")
def their_answers() -> list[Answers]:
    return [theirs(documented_model()), *(theirs(random_model(seed)) for seed in range(NUM_MODELS))]


@pytest.fixture(scope="module", params=[1, 2], ids=["1 rank", "2 ranks"])
def both(request: pytest.FixtureRequest, their_answers: list[Answers]) -> list[tuple[Answers, Answers]]:
    """(ours, theirs) for every model and rank."""
    return [pair for mine in spawn(our_answers, request.param) for pair in zip(mine, their_answers, strict=True)]


@pytest.mark.parametrize("method", [name for name in METHODS if name not in THEY_FAIL and name not in PAIRED_OTHERWISE])
def test_every_method_agrees(both: list[tuple[Answers, Answers]], method: str) -> None:
    for mine, their in both:
        assert difference(mine[method], their[method]) < 1e-8


def test_history_agrees_but_for_the_iteration_that_a_theta_belongs_to(both: list[tuple[Answers, Answers]]) -> None:
    for mine, their in both:
        for method, values in as_the_peer_pairs(mine).items():
            assert difference(values, their[method]) < 1e-8
        assert len(mine["theta of history"]) == len(their["theta of history"]) + 1
        assert difference(mine["get_beta"], mine["blue of get_theta"]) < 1e-10


def test_the_peer_still_answers_for_two_iterates(both: list[tuple[Answers, Answers]]) -> None:
    assert max(difference(mine["get_beta"], their["get_beta"]) for mine, their in both) > 1e-3


def test_models_converge_by_the_criterion_and_do_not(their_answers: list[Answers]) -> None:
    assert {float(their["is_converged"][0]) for their in their_answers} == {0.0, 1.0}


def test_what_fails_there_works_here(both: list[tuple[Answers, Answers]]) -> None:
    models = [documented_model(), *map(random_model, range(NUM_MODELS))]
    for (mine, their), model in zip(both, models * (len(both) // len(models)), strict=True):
        for method, expected in put_together(their, model).items():
            assert str(their[method]).startswith(THEY_FAIL[method])
            assert difference(mine[method], expected) < 1e-8


@pytest.mark.parametrize("name", STRUCTURES)
def test_structures_agree(name: str) -> None:
    mine, their = (STRUCTURES[name](package) for package in (covariance, peer.covariance))
    theta = torch.linspace(-0.4, 0.9, their.num_params, dtype=torch.float64)
    assert mine.param_names == their.param_names
    assert mine.num_params == their.num_params
    assert mine.shape == mine(theta).shape
    torch.testing.assert_close(mine(theta), their(theta), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(mine.map_theta_to_v(theta), their.map_theta_to_v(theta), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(mine.trans_params(theta), their.trans_params(theta), rtol=1e-12, atol=0)
    if their.num_params == 0:
        assert mine.map_theta_to_dv(theta).shape == (0, *mine.shape)  # theirs is None
        return
    for found, expected in (
        (mine.map_theta_to_dv(theta), their.map_theta_to_dv(theta)),
        (mine.grad(theta)[0], their.grad(theta)[0]),
    ):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)
    assert mine.grad(theta)[1] == their.grad(theta)[1]
    assert mine(theta.float()).dtype == their(theta).float().dtype
    torch.testing.assert_close(torch.func.jacfwd(mine)(theta).movedim(-1, 0), their.grad(theta)[0], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", DUMMIES)
def test_dummies_agree(name: str) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        mine, their = (package.DummyMatrix(F, G_LEVELS, **DUMMIES[name]) for package in (covariance, peer.covariance))
    assert {warning.category for warning in caught} == ({RuntimeWarning} if name == "levels left out" else set())
    assert mine.colnames == their.colnames
    assert mine.shape == their.shape
    torch.testing.assert_close(mine(), their(), rtol=0, atol=0)  # and of one dtype


@pytest.mark.parametrize("build", STRUCTURES.values(), ids=STRUCTURES)
def test_their_matrices_can_be_given(build: Any) -> None:
    V = build(peer.covariance)
    n = len(V(torch.zeros(V.num_params, dtype=torch.float64)))
    theta = torch.linspace(-0.4, 0.3, V.num_params, dtype=torch.float64)
    found_v, found_dv = REML(V).compute_v_dv(theta)
    torch.testing.assert_close(found_v, V(theta), rtol=1e-14, atol=0)
    expected = V.map_theta_to_dv(theta)
    torch.testing.assert_close(found_dv, torch.zeros(0, n, n).double() if expected is None else expected, rtol=1e-14, atol=0)


def fits_of_whole_matrices() -> list[Tensor]:
    """θ by ``fit``: V as tiles, as a matrix of the peer, as functions, as one function."""
    import torch_openreml.covariance as theirs

    model = random_model(0)
    V, W = model.build(covariance), model.build(theirs)
    makes = [REML(V), REML(W), REML(map_theta_to_v=V, map_theta_to_dv=V.map_theta_to_dv), REML(map_theta_to_v=V)]
    return [reml.fit(model.y, model.X, model.theta).theta for reml in makes]


@pytest.mark.parametrize("num_ranks", [1, 2])
def test_a_covariance_and_its_whole_matrix_give_one_fit(num_ranks: int) -> None:
    for expected, *others in spawn(fits_of_whole_matrices, num_ranks):
        for theta in others:
            torch.testing.assert_close(theta, expected, rtol=1e-7, atol=1e-9)


def test_whole_matrices_keep_the_precision_of_theta() -> None:
    V = peer.covariance.Sum(
        peer.covariance.CovariancePropagation(peer.covariance.DummyMatrix(F * 6), peer.covariance.ScalarMatrix(3)),
        peer.covariance.ScalarMatrix(24),
    )  # float32 designs, which refuse a float64 θ
    y = torch.randn(24, generator=torch.Generator().manual_seed(1))
    theta, _, _ = REML(V).optimize(y, torch.ones(24, 1), torch.zeros(2), max_iter=3)
    expected, _, _ = peer.REML(V).optimize(y, torch.ones(24, 1), torch.zeros(2), max_iter=3)
    torch.testing.assert_close(theta.float(), expected, rtol=1e-3, atol=1e-3)


def test_functions_of_theta_are_checked() -> None:
    y, X = torch.randn(6).double(), torch.ones(6, 1).double()
    with pytest.raises(InputError, match="give a value for each"):
        REML(map_theta_to_v=lambda theta: theta[0] * torch.eye(6)).fit(y, X)
    with pytest.raises(InputError, match=r"map_theta_to_v must give a tensor of shape \(6, 6\), not \(5, 5\)"):
        REML(map_theta_to_v=lambda theta: theta[0] * torch.eye(5)).loglik(y, X, torch.ones(1))
    with pytest.raises(InputError, match=r"map_theta_to_dv must give a tensor of shape \(1, 6, 6\), not list"):
        REML(map_theta_to_v=lambda theta: theta[0] * torch.eye(6), map_theta_to_dv=list).ai_step(y, X, torch.ones(1))
    with pytest.raises(InputError, match="one number a parameter"):
        REML(map_theta_to_v=lambda theta: theta * torch.eye(6)).loglik(y, X, torch.tensor(1.0))


def kernels(case: Case, **options: Any) -> tuple[Any, Any]:
    K = torch.stack(case.matrices)

    def dense(theta: Tensor) -> Tensor:
        return torch.einsum("k,kij->ij", theta, K)

    return REML(case.covariance, tile_size=29, jitter=RIDGE), peer.REML(map_theta_to_v=dense, **options)


@pytest.mark.parametrize("seed", range(3))
def test_variance_components_agree(seed: int) -> None:
    case = random_case(40 + 11 * seed, num_kernels=1 + seed % 3, num_fixed=2 + seed % 2, seed=seed)
    mine, their = kernels(case)
    for found, expected in zip(
        mine.ai_step(case.y, case.X, case.theta), their.ai_step(case.y, case.X, case.theta), strict=True
    ):
        torch.testing.assert_close(found, expected.reshape(found.shape), rtol=1e-8, atol=1e-8)


def test_what_is_not_required_is_nan() -> None:
    case = random_case(30)
    beta, _, _, loglik = REML(case.covariance).ai_step(case.y, case.X, case.theta, require_loglik=False, require_beta=False)
    assert beta.isnan().all()
    assert loglik.isnan()


@pytest.mark.parametrize(
    "options", [{}, {"eta": 0.5}, {"lb": 0.05, "ub": 0.9}, {"tol_score": 1e-2, "check_delta": False}, {"require_loglik": False}]
)
def test_optimize_takes_the_same_path(options: dict[str, Any]) -> None:
    case = random_case(120, num_kernels=1, grouping=False, seed=7)
    mine, their = kernels(case, map_theta_to_dv=lambda _: torch.stack(case.matrices))  # to differentiate takes it a minute
    start = torch.tensor([0.5, 0.5], dtype=torch.float64)
    theta, beta, count = mine.optimize(case.y, case.X, start, **options)
    their_theta, their_beta, their_count = their.optimize(case.y, case.X, start, **options)
    assert count == their_count > 2
    torch.testing.assert_close(theta, their_theta, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(mine.history["beta"][-2], their_beta.flatten(), rtol=1e-8, atol=1e-8)
    assert torch.equal(mine.get_theta(), theta)
    assert torch.equal(mine.get_beta(), beta)
    torch.testing.assert_close(beta, mine.blue(case.y, case.X, theta), rtol=1e-10, atol=1e-12)
    assert {len(entries) for entries in mine.history.values()} == {count + 1}
    assert mine.is_converged() or not their.is_converged()  # ours looks one θ further


def test_confounded_parameters_share_a_step() -> None:
    n = 20
    V = covariance.Sum(covariance.ScalarMatrix(n), covariance.ScalarMatrix(n))
    y, X = torch.randn(n, generator=torch.Generator().manual_seed(1)).double(), torch.ones(n, 1).double()
    theta, _, _ = REML(V).optimize(y, X, torch.zeros(2))
    torch.testing.assert_close(V.trans_params(theta), torch.full((2,), float(y.var()) / 2).double(), rtol=1e-6, atol=0)


def test_history_of_optimize_belongs_to_one_theta_an_iteration(capsys: pytest.CaptureFixture[str]) -> None:
    case = random_case(60, num_kernels=1, grouping=False)
    reml = REML(case.covariance)
    assert not reml.is_converged()
    with pytest.raises(InputError, match="call optimize first"):
        reml.get_theta()
    _, _, count = reml.optimize(case.y, case.X, torch.tensor([0.5, 0.5]), verbose=2)
    printed = capsys.readouterr().err
    assert printed.count("iteration ") == count
    assert f"converged after {count}" in printed
    for theta, loglik, score in zip(*(reml.history[key] for key in ("theta", "loglik", "score")), strict=True):
        exact = case.oracle(theta)
        assert float(loglik) == pytest.approx(exact.loglik, rel=1e-10)
        torch.testing.assert_close(score, exact.score, rtol=1e-8, atol=1e-8)


def test_the_best_iteration_is_that_of_the_highest_loglik() -> None:
    numbers = [torch.tensor(value) for value in (0.0, 1.0, 2.0)]
    history = {"theta": numbers, "beta": [-x for x in numbers], "loglik": [torch.tensor(x) for x in (-3.0, -1.0, float("nan"))]}
    reml = REML(random_case(20).covariance)
    assert float(reml.get_theta(history=history)) == 2
    assert float(reml.get_theta("best", history)) == 1
    assert float(reml.get_beta("best", history)) == -1
    with pytest.raises(InputError, match="require_loglik"):
        reml.get_theta("best", {**history, "loglik": [torch.tensor(float("nan"))] * 3})


def test_progress_bar_grows(capsys: pytest.CaptureFixture[str]) -> None:
    case = random_case(40, num_kernels=1, grouping=False)
    REML(case.covariance).optimize(case.y, case.X, torch.tensor([0.5, 0.5]), max_iter=2, verbose=1, tol_score=0.0)
    _, first, second = capsys.readouterr().err.split("\r")
    assert "1 of at most 2" in first
    assert first.count("#") == first.count(".") == 15
    assert "not converged after 2" in second


def test_update_clips_and_says_what_changed() -> None:
    theta, delta = torch.tensor([0.1, 0.9]).double(), torch.tensor([-1.0, 0.4]).double()
    upper = torch.tensor([1.0, 0.95])  # a bound for each, beside one for all, which the peer does not take
    updated, change = REML(random_case(20).covariance).update(theta, delta, 0.5, lb=0.0, ub=upper)
    torch.testing.assert_close(updated, torch.tensor([0.0, 0.95]).double())
    torch.testing.assert_close(change, torch.tensor([-0.1, 0.05]).double())


def test_v_is_needed_and_must_be_one() -> None:
    V = covariance.ScalarMatrix(6)
    with pytest.raises(TypeError, match="Covariance"):
        REML(torch.eye(3))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="V is needed"):
        REML()
    with pytest.raises(TypeError, match="must be functions, not int"):
        REML(map_theta_to_v=3)  # type: ignore[arg-type]
    first = REML(V, map_theta_to_v=lambda theta: theta[0] * torch.ones(6, 6))
    torch.testing.assert_close(first.compute_v_dv(torch.zeros(1))[0], torch.eye(6).double())


def test_arguments_that_cannot_be_used_are_refused() -> None:
    case = random_case(20, num_kernels=1, grouping=False)
    reml = REML(case.covariance)
    with pytest.raises(InputError, match="2 parameters"):
        reml.loglik(case.y, case.X, torch.ones(3))
    with pytest.raises(InputError, match="20 rows"):
        reml.loglik(case.y[:5], case.X, case.theta)
    with pytest.raises(InputError, match="finite"):
        reml.loglik(case.y * float("nan"), case.X, case.theta)
    with pytest.raises(InputError, match="combination"):
        reml.loglik(case.y, torch.cat([case.X, case.X[:, :1]], dim=1), case.theta)
    with pytest.raises(InputError, match="cannot estimate"):
        reml.loglik(case.y, torch.randn(20, 20).double(), case.theta)
    with pytest.raises(ConfigError, match="below its bound"):
        reml.fit(case.y, case.X, torch.tensor([-0.1, 1.0]))
    Z = torch.ones(20, 2)
    with pytest.raises(InputError, match="map_theta_to_g"):
        reml.blup(case.y, case.X, Z, case.theta)
    with pytest.raises(InputError, match=r"G \(3, 3\) must be"):
        reml.blup(case.y, case.X, Z, case.theta, lambda _: torch.eye(3))
    with pytest.raises(InputError, match=r"Covariance\.assemble"):
        REML(covariance.ScalarMatrix(20_000)).compute_v_dv(torch.zeros(1))


def test_g_can_be_given_once() -> None:
    model = random_model(0)
    V = model.build(covariance)
    once = REML(V, map_theta_to_g=model.G).blup(model.y, model.X, model.Z, model.theta)
    assert torch.equal(once, REML(V).blup(model.y, model.X, model.Z, model.theta, model.G))
    assert answers(REML(V), model)["blup"][0].shape == (model.Z.shape[1],)


def test_ranks_that_are_not_connected_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="init_process_group"):
        REML(covariance.ScalarMatrix(6))
