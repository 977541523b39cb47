"""Models that torch-openreml and this package are given alike, and every method that both have, called on them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

RIDGE = 1e-6  # what the peer adds to the diagonal of V, and ours is told to
F64 = torch.float64


@dataclass(frozen=True)
class Model:
    """``build`` makes V from the classes of either package; Z and G are for predictions."""

    name: str
    build: Callable[[ModuleType], Any]
    y: Tensor
    X: Tensor
    theta: Tensor
    Z: Tensor
    options: dict[str, Any] = field(default_factory=dict)

    def G(self, theta: Tensor) -> Tensor:
        q = self.Z.shape[1]
        return (2 * theta[0]).exp() * (torch.eye(q, dtype=theta.dtype) + 0.1)


def levels(generator: np.random.Generator, n: int, count: int) -> list[str]:
    """n levels of a factor, all ``count`` of them there."""
    return [f"L{k}" for k in generator.permutation(np.arange(n) % count)]


def one_factor(c: ModuleType, n: int, f: list[str], g: list[str]) -> Any:
    return c.Sum(c.CovariancePropagation(c.DummyMatrix(f, dtype=F64), c.ScalarMatrix(len(set(f)))), c.ScalarMatrix(n))


def interaction(c: ModuleType, n: int, f: list[str], g: list[str]) -> Any:
    Z_f, Z_g = (c.DummyMatrix(factor, dtype=F64) for factor in (f, g))
    return c.Sum(
        c.CovariancePropagation(Z_f, c.ScalarMatrix(len(set(f)))),
        c.HadamardProduct(
            c.CovariancePropagation(Z_f, c.IdentityMatrix(len(set(f)), dtype=F64)),
            c.CovariancePropagation(Z_g, c.ScalarMatrix(len(set(g)))),
        ),
        c.ScalarMatrix(n),
    )


def field_trial(c: ModuleType, n: int, f: list[str], g: list[str]) -> Any:
    Z, G = c.DummyMatrix(f, dtype=F64), c.ScalarMatrix(len(set(f)), param_names=["variety"])
    return c.Sum(c.KroneckerProduct(c.AR1Matrix(n // 4), c.EquicorrelationMatrix(4)), c.CovariancePropagation(Z, G))


def clusters(c: ModuleType, n: int, f: list[str], g: list[str]) -> Any:
    return c.KroneckerProduct(c.IdentityMatrix(n // 4, dtype=F64), c.CompoundSymmetricMatrix(4))


def blocks(c: ModuleType, n: int, f: list[str], g: list[str]) -> Any:
    return c.BlockDiagonal(c.AR1Matrix(n // 2), c.AR1Matrix(n - n // 2 - 1), c.IdentityMatrix(1, dtype=F64))


def variance_by_level(c: ModuleType, n: int, f: list[str], g: list[str]) -> Any:
    effects = c.KroneckerProduct(c.DiagonalMatrix(len(set(g))), c.IdentityMatrix(len(set(f)), dtype=F64))
    return c.Sum(c.CovariancePropagation(c.DummyMatrix(g, f, dtype=F64), effects), c.ScalarMatrix(n))


def hadamard(c: ModuleType, n: int, f: list[str], g: list[str]) -> Any:
    Z = c.DummyMatrix(f, dtype=F64)
    return c.Sum(
        c.HadamardProduct(c.AR1Matrix(n), c.EquicorrelationMatrix(n)), c.CovariancePropagation(Z, c.ScalarMatrix(len(set(f))))
    )


def by_keyword(c: ModuleType, n: int, f: list[str], g: list[str]) -> Any:
    effects = c.KroneckerProduct(a=c.ScalarMatrix(len(set(f))), b=c.EquicorrelationMatrix(len(set(g))))
    Z = c.DummyMatrix(f, g, dtype=F64)
    return c.Sum(genetic=c.CovariancePropagation(Z=Z, G=effects), residual=c.ScalarMatrix(n))


FORMS = (one_factor, interaction, field_trial, clusters, blocks, variance_by_level, hadamard, by_keyword)


def random_model(seed: int) -> Model:
    """One of the forms; y from the model at a θ that is near but not at the one the methods are called with."""
    from openreml_dist import covariance

    generator = np.random.default_rng(seed)
    form, n = FORMS[seed % len(FORMS)], 4 * int(generator.integers(7, 15))
    f, g = levels(generator, n, int(generator.integers(4, 8))), levels(generator, n, 3)
    V = form(covariance, n, f, g)
    truth = torch.tensor(generator.uniform(-0.4, 0.4, V.num_params))
    noise, normal = (torch.tensor(generator.standard_normal(shape)) for shape in (n, (n, 2)))
    X = torch.cat([torch.ones(n, 1, dtype=F64), normal], dim=1)
    y = torch.linalg.cholesky(V(truth)) @ noise + X @ torch.tensor([1.0, -0.5, 0.2], dtype=F64)
    theta = truth + torch.tensor(generator.uniform(-0.2, 0.2, len(truth)))
    Z = covariance.DummyMatrix(f, dtype=F64)()
    options = {"max_iter": 4, "eta": 0.5, "lb": -3.0, "ub": 3.0}
    return Model(form.__name__, lambda c: form(c, n, f, g), y, X, theta, Z, options)


def documented_model() -> Model:
    """The example of the peer's documentation, in float64."""
    from torch_openreml.example_data import john_alpha

    gen, rep, block = (john_alpha[column].tolist() for column in ("gen", "rep", "block"))

    def build(c: ModuleType) -> Any:
        Z = {name: c.DummyMatrix(factor, dtype=F64) for name, factor in (("gen", gen), ("rep", rep), ("block", block))}
        G_rep = c.IdentityMatrix(len(set(rep)), dtype=F64)
        return c.Sum(
            c.CovariancePropagation(Z["gen"], c.ScalarMatrix(len(set(gen)))),
            c.HadamardProduct(
                c.CovariancePropagation(Z["rep"], G_rep), c.CovariancePropagation(Z["block"], c.ScalarMatrix(len(set(block))))
            ),
            c.ScalarMatrix(len(gen)),
        )

    from openreml_dist.covariance import DummyMatrix

    X = torch.cat([torch.ones(len(gen), 1, dtype=F64), DummyMatrix(rep, drop_first=True, dtype=F64)()], dim=1)
    y = torch.tensor(john_alpha["yield"].to_numpy()).double()
    return Model("documented example", build, y, X, torch.zeros(3, dtype=F64), DummyMatrix(gen, dtype=F64)())


METHODS: dict[str, Callable[[Any, Model], Any]] = {
    "ai_step": lambda reml, m: reml.ai_step(m.y, m.X, m.theta),
    "blue": lambda reml, m: reml.blue(m.y, m.X, m.theta),
    "blup": lambda reml, m: reml.blup(m.y, m.X, m.Z, m.theta, m.G),
    "compute_v_dv": lambda reml, m: reml.compute_v_dv(m.theta),
    "marginal_predict": lambda reml, m: reml.marginal_predict(m.y, m.X, m.theta),
    "marginal_residual": lambda reml, m: reml.marginal_residual(m.y, m.X, m.theta),
    "update": lambda reml, m: reml.update(m.theta, torch.ones_like(m.theta), 0.5, lb=-0.1, ub=0.3),
    "optimize": lambda reml, m: reml.optimize(m.y, m.X, m.theta, **m.options)[::2],
    "is_converged": lambda reml, _: reml.is_converged(check_score=False, check_loglik=False, tol_delta=0.3),
    "history": lambda reml, _: [x for key in ("beta", "loglik", "score", "ai", "delta", "update") for x in updated(reml)[key]],
    "get_theta": lambda reml, _: reml.get_theta(),
    "blue of get_theta": lambda reml, m: reml.blue(m.y, m.X, reml.get_theta()),
    "get_beta of the best update": lambda reml, _: reml.get_beta("best", updated(reml)),
    "theta of history": lambda reml, _: reml.history["theta"],
    "get_beta": lambda reml, _: reml.get_beta(),
    "get_theta of the best update": lambda reml, _: reml.get_theta("best", updated(reml)),
    "loglik": lambda reml, m: reml.loglik(m.y, m.X, m.theta),
    "predict": lambda reml, m: reml.predict(m.y, m.X, m.Z, m.theta, m.G),
    "residual": lambda reml, m: reml.residual(m.y, m.X, m.Z, m.theta, m.G),
}
"""In this order: ``history`` and what follows it look at the ``optimize`` before."""


PAIRED_OTHERWISE = ("theta of history", "get_beta", "get_theta of the best update")
"""What the peer answers with a θ after an update beside numbers from before it, ours for one θ."""


def updated(reml: Any) -> Any:
    """The history of the θ that were updated; ours has an entry more, for the θ that ``optimize`` returns."""
    from openreml_dist import REML

    if not isinstance(reml, REML):
        return reml.history
    return {key: entries[:-1] for key, entries in reml.history.items()}


def answers(reml: Any, model: Model) -> dict[str, list[Tensor] | str]:
    """What every method returns, as tensors, or what it raises."""
    found: dict[str, list[Tensor] | str] = {}
    for name, method in METHODS.items():
        try:
            value = method(reml, model)
        except Exception as error:
            found[name] = f"{type(error).__name__}: {error}".splitlines()[0]
        else:
            values = value if isinstance(value, tuple | list) else [value]
            found[name] = [torch.as_tensor(part).double() for part in values]
    return found


def ours(model: Model, **options: Any) -> dict[str, list[Tensor] | str]:
    from openreml_dist import REML, covariance

    return answers(REML(model.build(covariance), jitter=RIDGE, **options), model)


def theirs(model: Model) -> dict[str, list[Tensor] | str]:
    import torch_openreml
    from torch_openreml import covariance

    return answers(torch_openreml.REML(model.build(covariance)), model)


def difference(mine: list[Tensor], their: list[Tensor]) -> float:
    """Largest difference of a number, relative to the largest number of its tensor where that is above 1."""
    return max(
        float((a - b.reshape(a.shape)).abs().max() / b.abs().max().clamp_min(1)) if a.numel() else 0.0
        for a, b in itertools.zip_longest(mine, their)
    )


def as_the_peer_pairs(found: dict[str, list[Tensor] | str]) -> dict[str, list[Tensor]]:
    """Our answers ``PAIRED_OTHERWISE`` with the θ and β that the peer gives."""
    thetas, numbers = (_tensors(found, name) for name in ("theta of history", "history"))
    count = len(thetas) - 1  # updates; history: β before each of them, then ℓ
    best = max(range(count), key=lambda i: float(numbers[count + i]))
    return dict(zip(PAIRED_OTHERWISE, (thetas[1:], [numbers[count - 1]], [thetas[best + 1]]), strict=True))


def put_together(their: dict[str, list[Tensor] | str], model: Model) -> dict[str, list[Tensor]]:
    """What the methods that fail there would answer, from those that work."""
    (fixed,), (u,), step = (_tensors(their, name) for name in ("marginal_predict", "blup", "ai_step"))
    fitted = fixed + model.Z @ u
    return {"loglik": [step[3]], "predict": [fitted], "residual": [model.y - fitted]}


def _tensors(found: dict[str, list[Tensor] | str], name: str) -> list[Tensor]:
    value = found[name]
    assert not isinstance(value, str), value
    return value


F, G_LEVELS = ["b", "a", "c", "a"], ["10", "2", "2", "10"]
Z_ANY = torch.arange(12, dtype=F64).reshape(4, 3) / 10 - 0.4

STRUCTURES: dict[str, Callable[[ModuleType], Any]] = {
    "ScalarMatrix": lambda c: c.ScalarMatrix(4),
    "ScalarMatrix, renamed": lambda c: c.ScalarMatrix(4, param_names=["g"]),
    "IdentityMatrix": lambda c: c.IdentityMatrix(3, dtype=F64),
    "DiagonalMatrix": lambda c: c.DiagonalMatrix(4),
    "AR1Matrix": lambda c: c.AR1Matrix(5),
    **{f"CompoundSymmetricMatrix({n})": lambda c, n=n: c.CompoundSymmetricMatrix(n) for n in (2, 3, 7)},
    **{f"EquicorrelationMatrix({n})": lambda c, n=n: c.EquicorrelationMatrix(n) for n in (2, 3, 7, 20)},
    "Sum": lambda c: c.Sum(c.AR1Matrix(4), c.ScalarMatrix(4), c.IdentityMatrix(4, dtype=F64)),
    "Sum of a product": lambda c: c.Sum(
        c.HadamardProduct(c.ScalarMatrix(4), c.AR1Matrix(4)), c.ScalarMatrix(4, param_names=["g"])
    ),
    "Sum by keyword": lambda c: c.Sum(x=c.HadamardProduct(c.ScalarMatrix(4), c.AR1Matrix(4)), y=c.ScalarMatrix(4)),
    "HadamardProduct": lambda c: c.HadamardProduct(c.AR1Matrix(4), c.EquicorrelationMatrix(4)),
    "KroneckerProduct": lambda c: c.KroneckerProduct(c.AR1Matrix(2), c.CompoundSymmetricMatrix(3)),
    "BlockDiagonal": lambda c: c.BlockDiagonal(c.AR1Matrix(2), c.IdentityMatrix(2, dtype=F64), c.CompoundSymmetricMatrix(3)),
    "CovariancePropagation": lambda c: c.CovariancePropagation(c.DummyMatrix(F, dtype=F64), c.AR1Matrix(3)),
    "CovariancePropagation by keyword": lambda c: c.CovariancePropagation(Z=c.DummyMatrix(F, dtype=F64), G=c.AR1Matrix(3)),
    "CovariancePropagation of an interaction": lambda c: c.CovariancePropagation(
        c.DummyMatrix(F, G_LEVELS, dtype=F64), c.AR1Matrix(6)
    ),
    "CovariancePropagation without a level": lambda c: c.CovariancePropagation(
        c.DummyMatrix(F, dtype=F64, drop_first=True), c.AR1Matrix(2)
    ),
    "CovariancePropagation of any Z": lambda c: c.CovariancePropagation(Z_ANY, c.CompoundSymmetricMatrix(3)),
    "CovariancePropagation of an identity": lambda c: c.CovariancePropagation(c.IdentityMatrix(3, dtype=F64), c.AR1Matrix(3)),
    "nested": lambda c: c.Sum(
        c.CovariancePropagation(
            c.DummyMatrix(F, dtype=F64), c.KroneckerProduct(c.AR1Matrix(3), c.IdentityMatrix(1, dtype=F64))
        ),
        c.BlockDiagonal(c.ScalarMatrix(2), c.Sum(c.ScalarMatrix(2), c.EquicorrelationMatrix(2))),
    ),
}

DUMMIES: dict[str, dict[str, Any]] = {
    "as they come": {},
    "order given": {"levels": [["c", "b", "a"], ["2", "10"]], "lex_order": False},
    "order sorted": {"levels": [["c", "b", "a"], ["2", "10"]]},
    "first dropped": {"drop_first": True},
    "levels that do not occur": {"levels": [["a", "b", "c", "d"], ["2", "10", "3"]]},
    "levels left out": {"levels": [["c", "b"], ["10", "2"]]},
    "another precision": {"dtype": F64},
}
