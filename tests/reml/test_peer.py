"""The interface shared with torch-openreml 0.1.0a0, against that package; ours is told to add its 1e-6 to the diagonal."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from openreml_dist import REML
from openreml_dist.errors import ConfigError, InputError
from tests.helpers.oracle import Case, random_case

RIDGE = 1e-6


def both(case: Case) -> tuple[Any, Any]:
    peer = pytest.importorskip("torch_openreml", reason="torch-openreml is not installed")

    def dense(theta: Tensor) -> Tensor:
        return torch.einsum("k,kij->ij", theta, torch.stack(case.matrices))

    return REML(case.covariance, tile_size=29, jitter=RIDGE), peer.REML(map_theta_to_v=dense)


@pytest.mark.parametrize("seed", range(6))
def test_ai_step_and_blue_agree(seed: int) -> None:
    case = random_case(40 + 11 * seed, num_kernels=1 + seed % 3, num_fixed=2 + seed % 2, seed=seed)
    ours, peer = both(case)
    for mine, theirs in zip(ours.ai_step(case.y, case.X, case.theta), peer.ai_step(case.y, case.X, case.theta), strict=True):
        torch.testing.assert_close(mine, theirs.reshape(mine.shape), rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(
        ours.blue(case.y, case.X, case.theta), peer.blue(case.y, case.X, case.theta).flatten(), rtol=1e-8, atol=1e-8
    )


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
    ours, peer = both(case)
    start = torch.tensor([0.5, 0.5], dtype=torch.float64)
    theta, beta, count = ours.optimize(case.y, case.X, start, **options)
    their_theta, their_beta, their_count = peer.optimize(case.y, case.X, start, **options)
    assert count == their_count > 2
    torch.testing.assert_close(theta, their_theta, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(beta, their_beta.flatten(), rtol=1e-8, atol=1e-8)
    assert ours.is_converged() == peer.is_converged()


def test_history_of_optimize_belongs_to_one_theta_an_iteration(capsys: pytest.CaptureFixture[str]) -> None:
    case = random_case(60, num_kernels=1, grouping=False)
    reml = REML(case.covariance)
    assert not reml.is_converged()
    _, _, count = reml.optimize(case.y, case.X, torch.tensor([0.5, 0.5]), verbose=2)
    assert capsys.readouterr().err.count("iteration ") == count
    for theta, loglik, score in zip(*(reml.history[key] for key in ("theta", "loglik", "score")), strict=True):
        exact = case.oracle(theta)
        assert float(loglik) == pytest.approx(exact.loglik, rel=1e-10)
        torch.testing.assert_close(score, exact.score, rtol=1e-8, atol=1e-8)


def test_update_clips_and_says_what_changed() -> None:
    case = random_case(20, num_kernels=1, grouping=False)
    ours, peer = both(case)
    arguments = (torch.tensor([0.1, 0.9]).double(), torch.tensor([-1.0, 0.4]).double(), 0.5)
    for mine, theirs in zip(ours.update(*arguments, lb=0.0, ub=1.0), peer.update(*arguments, lb=0.0, ub=1.0), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_arguments_that_cannot_be_used_are_refused() -> None:
    case = random_case(20, num_kernels=1, grouping=False)
    with pytest.raises(TypeError, match="Covariance"):
        REML(torch.eye(3))  # type: ignore[arg-type]
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
