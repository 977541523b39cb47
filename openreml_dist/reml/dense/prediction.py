"""Best linear unbiased predictions at one θ, at the records and elsewhere, with their error variances.

Legend: n records, p fixed effects; u_t the random effects of term V_t; m targets, at which C = cov(u_t, y) (m, n);
P = V⁻¹ − WWᵀ and FFᵀ = (XᵀV⁻¹X)⁻¹ as in ``projection``.

    û_t = C P y
    var(x̂β + û − xβ − u) = var(u) − C V⁻¹ Cᵀ + |xF − C W|²          û of any terms together; x = 0 for their own error

At the records y − Xβ = Σ_t u_t, so that the error of one term is, but for its sign, that of Xβ̂ and all the others. Where these
are diagonal, d together, the error variance needs nothing but the diagonal of V⁻¹:

    PEV_t = d − d² (V⁻¹)_ii + |XF − dW|²_i

References: Henderson (1975), Biometrics 31:423; Searle, Casella & McCulloch (1992), Variance Components, chapter 7.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from openreml_dist.covariance import Covariance, Sum, Term
from openreml_dist.covariance.indices import Indices
from openreml_dist.errors import InputError
from openreml_dist.grid import PhaseProgress
from openreml_dist.linalg import cholesky_, sweep_inverse_
from openreml_dist.reml.dense.cross_covariance import CrossCovariance, prior_variances
from openreml_dist.reml.dense.problem import Problem
from openreml_dist.reml.dense.projection import Projection
from openreml_dist.reml.prediction import Effects, NewRecords


class DensePredictor:
    """What is needed to predict at one θ.

    Args:
        problem: model and data.
        theta: (r,) on the CPU.
        Py: (n,).
        beta: (p,).
        P: with the tiles of V⁻¹, for error variances; None without them.
    """

    def __init__(
        self, problem: Problem, theta: Tensor, Py: Tensor, beta: Tensor, P: Projection | None, phase: PhaseProgress
    ) -> None:
        self.problem = problem
        self.theta = theta
        self.beta = beta.cpu()
        self.Py = Py.to(problem.grid.device)
        self._P = P
        self._phase = phase
        self._eta = problem.covariance.eta_by_term(theta)
        self._inverse_diagonal = None if P is None else P.diagonal_of_inverse.double()

    @classmethod
    def at(cls, problem: Problem, theta: Tensor, phase: PhaseProgress, error_variances: bool) -> DensePredictor:
        """Factor V(θ), or invert it for error variances.

        Collective. Cost: n³/3 flops, or n³; one pass over the stored kernels.

        Raises:
            NotPositiveDefiniteError: on every rank.
        """
        V = problem.assembled(theta, torch.float64, phase("assemble V"))
        V_inv = sweep_inverse_(V, phase("invert V")) if error_variances else cholesky_(V, phase("factor V"))
        P, Py = Projection.with_product(V_inv, problem.X, problem.y[:, None])
        beta, _ = P.fixed_effects(problem.y)
        return cls(problem, theta, Py[:, 0].contiguous(), problem.fit + beta, P if error_variances else None, phase)

    def records(self) -> list[Effects]:
        """û_t = V_t P y of every term at the n records, the residual among them: Σ_t û_t = y − Xβ̂.

        Collective. Cost: 2n² flops a term, one pass over the stored kernels. Error variances beside it: nothing but O(n p) if
        at most one term is not diagonal; else ``effects`` with n targets for each that is not, as many targets as levels
        for a grouping factor or repeated records.
        """
        covariance, problem = self.problem.covariance, self.problem
        phase = self._phase("random effects")
        products = covariance.terms_times(self.Py[:, None], self.theta, problem.grid, problem.layout, phase)
        predicted = [Effects(term.name, u.cpu()) for term, u in zip(covariance.terms, products[:, :, 0], strict=True)]
        if self._P is None:
            return predicted
        diagonals = [self._diagonal(term, eta) for term, eta in zip(covariance.terms, self._eta, strict=True)]
        return [
            Effects(made.name, made.values, *self._errors_at_records(number, diagonals))
            for number, made in enumerate(predicted)
        ]

    def effects(self, name: str, whole: Term, records: Indices, targets: Indices | None = None) -> Effects:
        """û of one term where it has no record: levels of a factor, animals of a pedigree, new samples.

        Collective. Cost: 2 n m flops; with error variances n² m flops, and sums of n m numbers in blocks of some columns.

        Args:
            name: of the term of the model.
            whole: the same term on everything, of which the model has ``whole.selected(records)``.
            records: (n,) which of ``whole`` each record is.
            targets: (m,) which of ``whole`` to predict; all by default.
        Raises:
            InputError: if the model has no such term, or ``whole`` is not one of the same parameters.
        """
        names = [term.name for term in self.problem.covariance.terms]
        if name not in names:
            raise InputError(f"prediction: the model has no term {name}; it has {', '.join(names)}")
        number = names.index(name)
        _check_whole(self.problem.covariance.terms[number], whole, records)
        targets = np.arange(whole.size) if targets is None else np.asarray(targets, np.int64)
        return self._effects_of(name, whole, self._eta[number], records, targets)

    def new_records(self, whole: Covariance, records: Indices, targets: Indices, x: Tensor) -> NewRecords:
        """Records of samples that were not in the fit: ŷ = xβ̂ + Σ_t û_t.

        Collective. Cost: that of ``effects`` for each term, and with error variances once more for their sum.

        Args:
            whole: the model on all samples, of which the fit has ``records``.
            records: (n,) the samples of the fit among all.
            targets: (m,) the new samples among all.
            x: (m, p) their fixed effects.
        Raises:
            InputError: if ``whole`` is another model, or x has another shape.
        """
        covariance = self.problem.covariance
        if whole.parameters != covariance.parameters or len(whole.terms) != len(covariance.terms):
            raise InputError(f"prediction: the fit estimated {covariance.parameters}, this model has {whole.parameters}")
        if x.shape != (len(targets), len(self.beta)):
            raise InputError(f"prediction: x {tuple(x.shape)} must be {len(targets)} samples by {len(self.beta)} effects")
        for own, term in zip(covariance.terms, whole.terms, strict=True):
            _check_whole(own, term, records)
        effects = [
            self._effects_of(term.name, term, eta, records, targets) for term, eta in zip(whole.terms, self._eta, strict=True)
        ]
        fitted = x.double().cpu() @ self.beta + torch.stack([made.values for made in effects]).sum(dim=0)
        if self._P is None:
            return NewRecords(fitted, None, effects)
        xF = x.double().to(self._P.F.device) @ self._P.F
        products, forms = self._cross(Sum(*whole.terms), torch.cat(self._eta), records, targets)
        prior = torch.stack([made.prior for made in effects if made.prior is not None]).sum(dim=0)
        prior += self.problem.jitter
        return NewRecords(fitted, prior - forms.cpu() + (xF - products[:, 1:]).square().sum(dim=1).cpu(), effects)

    # Error variances.

    def _errors_at_records(self, number: int, diagonals: list[Tensor | None]) -> tuple[Tensor, Tensor]:
        """var(u_t) and PEV (n,) of one term. Collective."""
        assert self._P is not None
        term, eta, own = self.problem.covariance.terms[number], self._eta[number], diagonals[number]
        everything = np.arange(self.problem.layout.size)
        if own is not None:
            return own.cpu(), self._error_of_diagonal(own, torch.zeros_like(self._P.W))
        others = [d for k, d in enumerate(diagonals) if k != number and d is not None]
        if len(others) == len(diagonals) - 1:
            rest = torch.stack([*others, torch.zeros_like(self.Py)]).sum(dim=0) + self.problem.jitter
            return self._prior(term, eta, everything), self._error_of_diagonal(rest, self._P.XF)
        first, inverse = term.distinct_rows or (everything, everything)
        found = self._effects_of(term.name, term, eta, everything, first)
        assert found.prior is not None and found.pev is not None
        return found.prior[inverse], found.pev[inverse]

    def _error_of_diagonal(self, d: Tensor, xF: Tensor) -> Tensor:
        """d − d² (V⁻¹)_ii + |xF − dW|²_i (n,) for independent effects with variances d. Local."""
        assert self._P is not None and self._inverse_diagonal is not None
        drift: Tensor = (xF - d[:, None] * self._P.W).square().sum(dim=1)
        return (d - d.square() * self._inverse_diagonal + drift).clamp_min(0).cpu()

    def _effects_of(self, name: str, term: Term, eta: Tensor, records: Indices, targets: Indices) -> Effects:
        """û, and var(u) and PEV if they are asked for. Collective."""
        m = len(targets)
        if self._diagonal(term, eta) is not None and not np.intersect1d(records, targets).size:
            products, forms = self.Py.new_zeros(m, 1 + self._num_fixed), self.Py.new_zeros(m)
        else:
            products, forms = self._cross(term, eta, records, targets)
        if self._P is None:
            return Effects(name, products[:, 0].cpu())
        prior = self._prior(term, eta, targets)
        pev = prior - forms.cpu() + products[:, 1:].square().sum(dim=1).cpu()
        return Effects(name, products[:, 0].cpu(), prior, pev.clamp_min(0))

    def _cross(self, term: Term, eta: Tensor, records: Indices, targets: Indices) -> tuple[Tensor, Tensor]:
        """C [Py W] (m, 1 + p), and with error variances the diagonal of C V⁻¹ Cᵀ (m,). Collective."""
        P = self._P
        right = self.Py[:, None] if P is None else torch.cat([self.Py[:, None], P.W], dim=1)
        C = CrossCovariance(term, eta, records, targets, self.problem.grid, self.problem.layout.tile_size)
        return C.times(right, None if P is None else P.tiles, self._phase(f"predict {term.name}"))

    def _prior(self, term: Term, eta: Tensor, targets: Indices) -> Tensor:
        """var(u) (m,) on the CPU. Collective."""
        return prior_variances(term, eta, targets, self.problem.grid).cpu()

    def _diagonal(self, term: Term, eta: Tensor) -> Tensor | None:
        return term.whole_diagonal(eta, self.problem.grid.device)

    @property
    def _num_fixed(self) -> int:
        return len(self.beta)


def extra_inverses(covariance: Covariance, theta: Tensor) -> float:
    """What error variances at the records cost beside one inverse of V, in inverses: the distinct rows, over n, of each term
    that is not diagonal, where there are several.

    Local; θ (r,) on the CPU.
    """
    dense = [
        len(rows[0]) if (rows := term.distinct_rows) else term.size
        for term, eta in zip(covariance.terms, covariance.eta_by_term(theta), strict=True)
        if term.whole_diagonal(eta, torch.device("cpu")) is None
    ]
    return sum(dense) / covariance.size if len(dense) > 1 else 0.0


def _check_whole(own: Term, whole: Term, records: Indices) -> None:
    """Refuse a term that is not the one of the model on more samples. Local."""
    if whole.name != own.name or len(whole.parameters) != len(own.parameters) or len(records) != own.size:
        raise InputError(
            f"prediction: {whole.name} ({len(whole.parameters)} parameters, {len(records)} records) is not the term {own.name} "
            f"of the model ({len(own.parameters)} parameters, {own.size} records)"
        )
    if len(records) and not 0 <= int(records.min()) <= int(records.max()) < whole.size:
        raise InputError(f"prediction: records must be among the {whole.size} samples of {whole.name}")
