"""Every covariance term and operator with a dense matrix of its own making: one line a term feeds the whole contract.

A case is drawn at a size n from random numbers; its oracle builds V(η) whole, by another way than the term where there is one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.special import gamma, kv
from torch import Tensor

from openreml_dist.covariance import (
    AR1Correlation,
    BlockDiagonal,
    CompoundSymmetry,
    CovariancePropagation,
    DiagonalLevels,
    Exchangeable,
    Exponential,
    FactorAnalytic,
    FeatureKernel,
    Grouping,
    HadamardProduct,
    Heterogeneous,
    Identity,
    IdentityMatrix,
    Kernel,
    KroneckerProduct,
    Matern,
    PedigreeMatrix,
    SameLevel,
    Scaled,
    StoredMatrix,
    Sum,
    Term,
    Unstructured,
    Weighted,
)

Random = np.random.Generator
Dense = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Case:
    """A term, its dense matrix as a function of η, and an η inside the bounds.

    Attributes:
        summands: how often a pass may give one place.
    """

    term: Term
    dense: Dense
    eta: Tensor
    summands: int = 1


def case(term: Term, dense: Dense, *eta: float) -> Case:
    return Case(term, dense, torch.tensor(eta, dtype=torch.float64))


def constant(matrix: NDArray[np.floating] | Tensor) -> Dense:
    """A matrix without parameters."""
    return lambda _: torch.as_tensor(matrix).double()


def scaled(matrix: NDArray[np.floating] | Tensor) -> Dense:
    """One variance times a matrix."""
    return lambda eta: eta[0] * torch.as_tensor(matrix).double()


def slopes(dense: Dense, at: Tensor, step: float = 1e-3) -> list[Tensor]:
    """∂V/∂η_k by central differences of fourth order."""
    found = []
    for unit in torch.eye(len(at), dtype=torch.float64):
        near, far = (dense(at + h * unit) - dense(at - h * unit) for h in (step, 2 * step))
        found.append((8 * near - far) / (12 * step))
    return found


class Recorder:
    """A kernel source in chunks that remembers what was read."""

    in_memory = False

    def __init__(self, n: int = 50, chunk_size: int = 16) -> None:
        Z = np.random.default_rng(1).standard_normal((n, 60)).astype(np.float32)
        self.matrix = Z @ Z.T
        self.chunk_size = chunk_size
        self.reads: list[tuple[int, int]] = []

    def read_chunk(self, i: int, j: int) -> NDArray[np.floating]:
        self.reads.append((i, j))
        size = self.chunk_size
        return self.matrix[i * size : (i + 1) * size, j * size : (j + 1) * size].copy()


def heterogeneous(random: Random, n: int) -> Case:
    groups = np.array(["b", "a", "c"])[np.arange(n) % 3]
    member = torch.tensor(np.unique(groups)[:, None] == groups).double()
    return case(Heterogeneous(groups), lambda eta: torch.diag(eta @ member), 0.5, 1.5, 0.8)


def weighted(random: Random, n: int) -> Case:
    values = random.uniform(0.5, 2, n)
    return case(Weighted(values), constant(np.diag(values)))


def chunked(random: Random, n: int) -> tuple[Recorder, NDArray[np.int64], NDArray[np.floating]]:
    """A source in chunks of four, some of its rows in some order, and the matrix that they are."""
    source = Recorder(n + 5, chunk_size=4)
    index = random.permutation(n + 5)[:n]
    return source, index, source.matrix[np.ix_(index, index)]


def stored(random: Random, n: int) -> Case:
    source, index, K = chunked(random, n)
    return case(StoredMatrix(source, index, "stored"), constant(K))


def kernel(random: Random, n: int, cache_bytes: int = 0) -> Case:
    source, index, K = chunked(random, n)
    return case(Kernel(source, index, cache_bytes=cache_bytes), scaled(K), 0.7)


def array_kernel(random: Random, n: int) -> Case:
    Z = random.standard_normal((n, n + 3))
    return case(Kernel.from_array(Z @ Z.T, "array"), scaled(Z @ Z.T), 0.7)


def feature_kernel(random: Random, n: int) -> Case:
    Z = random.standard_normal((n, 6))
    return case(FeatureKernel(Z, "features"), scaled(sum(np.outer(z, z) for z in Z.T) / 6), 0.7)


def one_hot(random: Random, n: int, count: int) -> NDArray[np.floating]:
    """Levels in no order, each with a sample."""
    return np.eye(count)[random.permutation(np.arange(n) % count)]


def same_level(random: Random, n: int) -> Case:
    Z = one_hot(random, n, 3)
    return case(SameLevel(Z.argmax(axis=1), "level"), constant(Z @ Z.T))


def grouping(random: Random, n: int) -> Case:
    Z = one_hot(random, n, 3)
    return case(Grouping(np.array(["x", "z", "y"])[Z.argmax(axis=1)], "group"), scaled(Z @ Z.T), 0.7)


def pedigree(random: Random, n: int) -> Case:
    """Inbreeding, unknown parents, two founders that are parents alone, and animals listed in no order."""
    births = ["f0", "f1", *(f"a{k}" for k in range(n - 2))]
    parents = [(-1, -1), (-1, -1), (0, 1)] + [tuple(random.integers(-1, child, 2).tolist()) for child in range(3, n)]
    listed = random.permutation(np.arange(2, n)).tolist()
    sires, dams = ([births[parents[k][side]] if parents[k][side] >= 0 else "0" for k in listed] for side in (0, 1))
    term = PedigreeMatrix([births[k] for k in listed], sires, dams, "pedigree")
    order = [births.index(label) for label in term.labels]
    return case(term, constant(tabular(parents)[np.ix_(order, order)]))


def tabular(parents: Sequence[tuple[int, ...]]) -> NDArray[np.floating]:
    """A by the tabular method, parents before children, -1 unknown. Emik & Terrill (1949), J Hered 40:51."""
    A = np.zeros((len(parents), len(parents)))
    for child, (sire, dam) in enumerate(parents):
        for parent in (sire, dam):
            if parent >= 0:
                A[child, :child] += 0.5 * A[parent, :child]
        A[:child, child] = A[child, :child]
        A[child, child] = 1 + (0.5 * A[sire, dam] if min(sire, dam) >= 0 else 0)
    return A


def ar1(random: Random, n: int, correlation: float = 0.6, name: str = "ar1") -> Case:
    """Positions on a grid, some of them taken twice; powers by repeated multiplication."""
    positions = np.r_[0, random.integers(1, n, n - 1)]

    def dense(eta: Tensor) -> Tensor:
        powers = torch.cumprod(torch.cat([torch.ones(1, dtype=torch.float64), eta.expand(n)]), dim=0)
        return powers[np.abs(positions[:, None] - positions)]

    return case(AR1Correlation(positions, name), dense, correlation)


def ar1_in_time(random: Random, n: int) -> Case:
    times = torch.tensor(random.uniform(0, 5, n)).round(decimals=1)
    return case(
        AR1Correlation(times.numpy(), "time"), lambda eta: torch.exp((times[:, None] - times).abs() * eta[0].log()), 0.4
    )


def exchangeable(random: Random, n: int) -> Case:
    return case(Exchangeable(n, "alike"), lambda eta: eta[0] + (1 - eta[0]) * torch.eye(n, dtype=torch.float64), 0.3)


def compound_symmetry(random: Random, n: int) -> Case:
    eye = torch.eye(n, dtype=torch.float64)
    return case(CompoundSymmetry(n, "cs"), lambda eta: eta[0] * (eta[1] + (1 - eta[1]) * eye), 1.3, 0.3)


def matern(random: Random, n: int, smoothness: float = 1.5) -> Case:
    """By the Bessel function; two samples lie at one place."""
    points = random.uniform(0, 3, (n, 2))
    points[0] = points[-1]
    d = np.linalg.norm(points[:, None] - points, axis=-1)

    def dense(eta: Tensor) -> Tensor:
        u = np.sqrt(2 * smoothness) * d / eta.item()
        with np.errstate(invalid="ignore"):
            K = 2 ** (1 - smoothness) / gamma(smoothness) * u**smoothness * kv(smoothness, u)
        return torch.tensor(np.where(u == 0, 1.0, K))

    term = Exponential(points, "matern") if smoothness == 0.5 else Matern(points, smoothness, "matern")
    return case(term, dense, 0.9)


def unstructured(random: Random, n: int) -> Case:
    def dense(eta: Tensor) -> Tensor:
        L = torch.zeros(3, 3, dtype=torch.float64)
        L[0, 0], L[1, 0], L[1, 1], L[2, 0], L[2, 1], L[2, 2] = eta
        return L @ L.T

    return case(Unstructured(["a", "b", "c"], "G"), dense, 1.2, -0.4, 0.9, 0.3, 0.2, 0.7)


def factor_analytic(random: Random, n: int) -> Case:
    def dense(eta: Tensor) -> Tensor:
        first, second = eta[:4], torch.cat([eta.new_zeros(1), eta[4:7]])
        return torch.outer(first, first) + torch.outer(second, second) + torch.diag(eta[7:])

    return case(FactorAnalytic(4, 2, "FA"), dense, 0.9, -0.5, 0.4, 0.8, 0.6, 0.2, -0.3, 0.5, 0.4, 0.3, 0.2)


def diagonal_levels(random: Random, n: int) -> Case:
    return case(DiagonalLevels(3, "D"), torch.diag, 1.2, 0.4, 0.7)


# Operators: the oracle of an operand is part of that of the whole.


def joined(term: Term, dense: Callable[[list[Tensor]], Tensor], *operands: Case, extra: Sequence[float] = ()) -> Case:
    """A term whose η is first its own, then that of the operands."""
    counts = [len(extra), *(len(operand.eta) for operand in operands)]

    def whole(eta: Tensor) -> Tensor:
        own, *parts = eta.split(counts)
        V = dense([operand.dense(part) for operand, part in zip(operands, parts, strict=True)])
        return own[0] * V if extra else V

    eta = torch.cat([torch.tensor(extra, dtype=torch.float64), *(operand.eta for operand in operands)])
    return Case(term, whole, eta, math.prod(operand.summands for operand in operands))


def total(*operands: Case) -> Case:
    made = joined(Sum(*(o.term for o in operands)), sum, *operands)  # type: ignore[arg-type]
    return replace(made, summands=sum(o.summands for o in operands))


def product(*operands: Case) -> Case:
    return joined(HadamardProduct(*(o.term for o in operands)), lambda V: torch.stack(V).prod(dim=0), *operands)


def kronecker(*operands: Case) -> Case:
    return joined(KroneckerProduct(*(o.term for o in operands)), lambda V: reduce(torch.kron, V), *operands)


def blocks(*operands: Case) -> Case:
    return joined(BlockDiagonal(*(o.term for o in operands)), lambda V: torch.block_diag(*V), *operands)


def times_variance(operand: Case, name: str = "variance") -> Case:
    return joined(Scaled(operand.term, name), lambda V: V[0], operand, extra=[1.4])


def propagated(Z: Any, dense_Z: NDArray[np.floating], operand: Case) -> Case:
    D = torch.tensor(dense_Z)
    return joined(CovariancePropagation(Z, operand.term), lambda V: D @ V[0] @ D.T, operand)


def chosen(operand: Case, samples: NDArray[np.int64]) -> Case:
    return joined(operand.term.selected(samples), lambda V: V[0][samples][:, samples], operand)


def some_of(random: Random, operand: Case, n: int) -> Case:
    return chosen(operand, random.integers(0, operand.term.size, n))


@dataclass(frozen=True)
class OneHot:
    """As a ``DummyMatrix`` gives it."""

    codes: NDArray[np.int64]
    shape: tuple[int, int]


def by_codes(random: Random, n: int, operand: Case) -> Case:
    Z = one_hot(random, n, operand.term.size)
    return propagated(OneHot(Z.argmax(axis=1), Z.shape), Z, operand)


def by_array(random: Random, n: int, operand: Case) -> Case:
    Z = random.standard_normal((n, operand.term.size))
    return propagated(Z, Z, operand)


def by_sparse(random: Random, n: int, operand: Case) -> Case:
    """Few entries, and a record without any."""
    Z = random.standard_normal((n, operand.term.size)) * (random.uniform(size=(n, operand.term.size)) < 0.4)
    Z[0], Z[-1] = 0, 1
    return propagated(csr_matrix(Z), Z, operand)


def random_regression(random: Random, n: int) -> Case:
    """(1, t) G (1, t)ᵀ within a person."""
    G = case(Unstructured(2, "R"), lambda eta: _factor_2(eta) @ _factor_2(eta).T, 1.1, -0.3, 0.6)
    covariates = np.stack([np.ones(n), random.uniform(-1, 2, n)], axis=1)
    return product(propagated(covariates, covariates, G), same_level(random, n))


def _factor_2(eta: Tensor) -> Tensor:
    return torch.stack([torch.stack([eta[0], eta.new_zeros(())]), eta[1:]])


def random_regression_of_kin(random: Random, n: int) -> Case:
    kin = some_of(random, stored(random, n), n)
    covariates = random.standard_normal((n, 3))
    return product(propagated(covariates, covariates, unstructured(random, 3)), kin)


def multi_trait(random: Random, n: int) -> Case:
    """Trait by person with missing records: G and K at the trait and the person of each."""
    traits, people = random.integers(0, 3, n), random.integers(0, n, n)
    return product(chosen(unstructured(random, 3), traits), chosen(stored(random, n), people))


def field(random: Random, n: int) -> Case:
    return times_variance(kronecker(ar1(random, 3, name="row"), ar1(random, n // 3, -0.4, name="column")), "plot")


CASES: dict[str, Callable[[Random, int], Case]] = {
    "Identity": lambda _, n: case(Identity(n), scaled(np.eye(n)), 0.7),
    "IdentityMatrix": lambda _, n: case(IdentityMatrix(n), constant(np.eye(n))),
    "Weighted": weighted,
    "Heterogeneous": heterogeneous,
    "StoredMatrix": stored,
    "Kernel": kernel,
    "Kernel, some tiles kept": lambda random, n: kernel(random, n, cache_bytes=300),
    "Kernel of an array": array_kernel,
    "FeatureKernel": feature_kernel,
    "SameLevel": same_level,
    "Grouping": grouping,
    "PedigreeMatrix": pedigree,
    "AR1": ar1,
    "AR1, negative": lambda random, n: ar1(random, n, -0.7),
    "AR1, zero": lambda random, n: ar1(random, n, 0.0),
    "AR1 in continuous time": ar1_in_time,
    "Exchangeable": exchangeable,
    "CompoundSymmetry": compound_symmetry,
    "Exponential": lambda random, n: matern(random, n, 0.5),
    "Matern 3/2": matern,
    "Matern 5/2": lambda random, n: matern(random, n, 2.5),
    "Unstructured": unstructured,
    "FactorAnalytic": factor_analytic,
    "DiagonalLevels": diagonal_levels,
    "Sum": lambda random, n: total(ar1(random, n), grouping(random, n)),
    "Sum with a kernel": lambda random, n: total(kernel(random, n), times_variance(ar1(random, n))),
    "Scaled": lambda random, n: times_variance(ar1(random, n)),
    "Scaled diagonal": lambda random, n: times_variance(weighted(random, n)),
    "HadamardProduct": lambda random, n: product(ar1(random, n), grouping(random, n)),
    "HadamardProduct with a kernel": lambda random, n: product(ar1(random, n), kernel(random, n), same_level(random, n)),
    "HadamardProduct with a diagonal": lambda random, n: product(ar1(random, n), heterogeneous(random, n)),
    "HadamardProduct of a sum with a kernel": lambda random, n: product(
        grouping(random, n), total(stored(random, n), ar1(random, n))
    ),
    "KroneckerProduct": lambda random, n: kronecker(unstructured(random, 3), ar1(random, n)),
    "KroneckerProduct with a kernel": lambda random, n: kronecker(stored(random, n), unstructured(random, 3)),
    "KroneckerProduct of three": lambda random, _: kronecker(unstructured(random, 3), weighted(random, 2), ar1(random, 4)),
    "BlockDiagonal": lambda random, n: blocks(
        compound_symmetry(random, 3), times_variance(ar1(random, n)), grouping(random, 5)
    ),
    "BlockDiagonal with kernels": lambda random, n: blocks(
        kernel(random, n), times_variance(ar1(random, 3)), array_kernel(random, n)
    ),
    "CovariancePropagation by codes": lambda random, n: by_codes(random, n, unstructured(random, 3)),
    "CovariancePropagation by codes of a kernel": lambda random, n: by_codes(random, n, kernel(random, 4)),
    "CovariancePropagation by an array": lambda random, n: by_array(random, n, ar1(random, 5)),
    "CovariancePropagation by a sparse matrix": lambda random, n: by_sparse(random, n, unstructured(random, 3)),
    "CovariancePropagation by codes of a diagonal": lambda random, n: by_codes(random, n, heterogeneous(random, 4)),
    "CovariancePropagation of a diagonal": lambda random, n: by_sparse(random, n, heterogeneous(random, 7)),
    "selected": lambda random, n: some_of(random, exchangeable(random, n), n + 3),
    "selected blocks": lambda random, n: some_of(random, blocks(kernel(random, n), times_variance(ar1(random, 3))), n),
    "random regression": random_regression,
    "random regression of kin": random_regression_of_kin,
    "multi-trait": multi_trait,
    "multi-trait of a pedigree": lambda random, n: product(
        chosen(unstructured(random, 3), np.arange(n) % 3), some_of(random, pedigree(random, n), n)
    ),
    "AR1xAR1": field,
    "spatial": lambda random, n: product(field(random, n), times_variance(matern(random, 3 * (n // 3)))),
    "nested": lambda random, n: total(
        times_variance(kronecker(ar1(random, 3), total(stored(random, n), weighted(random, n)))),
        blocks(compound_symmetry(random, n), field(random, 6), feature_kernel(random, 2 * n - 6)),
    ),
    "nested propagation": lambda random, n: by_sparse(
        random, n, blocks(by_array(random, 4, factor_analytic(random, 4)), times_variance(pedigree(random, 5)))
    ),
}
