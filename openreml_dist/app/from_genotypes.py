"""A job of genotypes without a stored relationship matrix: for the matrix-free engine, or exactly where that is cheaper."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from openreml_dist.app.estimation import Job, refuse_beyond
from openreml_dist.app.forecast import choose_engine, genotype_line
from openreml_dist.app.from_matrices import job_of
from openreml_dist.app.given import given, standard_fit
from openreml_dist.app.inputs.model import GenotypeAnalysis, of_kernels, read_genotypes
from openreml_dist.app.predictions import PredictionRequest
from openreml_dist.app.report.lines import model_line
from openreml_dist.app.report.remarks import say_remarks
from openreml_dist.app.report.results import EngineReport
from openreml_dist.app.session import Session
from openreml_dist.app.snp_effects import SnpEffects
from openreml_dist.config import DENSE, STOCHASTIC, FitConfig
from openreml_dist.errors import ConfigError
from openreml_dist.genotypes import GenotypeOperator, PackedGenotypes
from openreml_dist.genotypes.operator import own_samples
from openreml_dist.genotypes.relationships import WIDEST, Relationships
from openreml_dist.grid import ProcessGrid
from openreml_dist.plan.available import available_bytes, ranks_on_host
from openreml_dist.plan.genotypes import GenotypeFit
from openreml_dist.reml import FitResult
from openreml_dist.reml.fitting import FitOptions
from openreml_dist.reml.fixed import null_log_likelihood
from openreml_dist.reml.likelihood_ratio import VarianceTests
from openreml_dist.reml.prediction import Predictor
from openreml_dist.reml.stochastic.accuracy import Target
from openreml_dist.reml.stochastic.engine import StochasticEngine
from openreml_dist.reml.stochastic.prediction import MarkerPredictor, effects_per_allele
from openreml_dist.reml.stochastic.problem import Problem
from openreml_dist.reml.stochastic.schedule import TOLERATED

OF_PROBES = ("solver.mcse",)  # settings that the matrix-free engine alone reads,
OF_TILES = ("solver.constrain", "solver.tile_size", "solver.traces", "output.pev")  # and the dense one
CERTAIN = 3.0  # Monte-Carlo errors
MOST_PROBES = 4096  # of the last step, where the user gives no number


def prepare(settings: FitConfig, here: Session) -> Job:
    """Read the tables, choose an engine, say what the fit will cost, and read the genotypes. Collective.

    Raises:
        InputError, ConfigError: for whatever cannot be used, done, or held in memory.
    """
    analysis, grid, solver = read_genotypes(settings, here.grid), here.grid, settings.solver
    inputs = analysis.inputs
    here.say(*inputs.report)
    remarks = say_remarks(here, inputs)
    (n, p), m, K = inputs.X.shape, len(analysis.kept), len(analysis.partition.names)
    planned = GenotypeFit(n, m, K, p, grid.shape.size, solver.kernel_cache_bytes, grid.device.type == "cuda")
    available = min(grid.gather(available_bytes(grid.device, ranks_on_host(grid))))
    if _is_exact(settings, planned, available, here):
        return _exact_job(settings, analysis, remarks, here)
    planned.check(available)

    Z = _genotypes(analysis, solver.kernel_cache_bytes, here)
    read = here.seconds()
    problem = Problem.of(Z, torch.from_numpy(analysis.partition.annotation), analysis.y, analysis.X)
    target = Target(solver.mcse, solver.num_probes or MOST_PROBES, solver.seed)
    engine = StochasticEngine(problem, analysis.partition.names, target, here.terminal.phase)
    refuse_beyond(engine, settings.output)
    how = f"{m:,} SNPs, products with their genotypes, Monte-Carlo error {solver.mcse:g} SE"
    expected = genotype_line(grid, planned, solver.mcse)
    here.say(model_line(engine.covariance, how, (n, p)), expected)
    snps = partial(_snp_effects, analysis) if settings.output.blup else None
    request = PredictionRequest(settings.output, [], snps)
    test = partial(_test, solver.lrt, analysis)
    report = partial(_report, engine)
    digests = {analysis.source.path: analysis.source.digest()}
    return Job(inputs, remarks, engine, request, test, planned.memory.total, read, report, digests, engine.remember)


def _is_exact(settings: FitConfig, planned: GenotypeFit, available: float, here: Session) -> bool:
    """Whether the dense engine is asked for, or is to be taken; what decided is said. Collective."""
    solver = settings.solver
    if solver.engine != "auto":
        return not settings.is_stochastic
    chosen = given(settings, standard_fit(settings))
    of_probes, of_tiles = ([name for name in names if name in chosen] for names in (OF_PROBES, OF_TILES))
    if of_probes and of_tiles:
        raise ConfigError(
            f"{of_tiles[0]} is for the dense engine, {of_probes[0]} for the stochastic one; leave one of the two out"
        )
    if of_probes or of_tiles:
        here.say(f"engine: {DENSE if of_tiles else STOCHASTIC}, as {' and '.join(of_tiles or of_probes)} asks")
        return bool(of_tiles)
    choice = choose_engine(here.grid, planned, solver.mcse, available)
    here.say(f"engine: {choice.words}")
    return choice.is_exact


def _exact_job(settings: FitConfig, analysis: GenotypeAnalysis, remarks: list[dict[str, Any]], here: Session) -> Job:
    """The dense engine, with relationships of the packed genotypes of all samples, which every rank holds. Collective."""
    grid, n, K = here.grid, len(analysis.rows), len(analysis.partition.names)
    with grid.together("reading the genotypes"):
        progress = here.terminal.phase("reading the genotypes")
        rows = analysis.rows
        packed = PackedGenotypes.read(analysis.source, analysis.kept, rows, grid.device, progress=progress, widest=WIDEST)
    frequency = torch.from_numpy(analysis.source.counts.allele_frequency[analysis.kept]).to(grid.device)
    annotation = torch.from_numpy(analysis.partition.annotation).double().to(grid.device)
    weights = annotation / annotation.sum(dim=0)
    matrices = {name: Relationships(packed, frequency, w) for name, w in zip(analysis.partition.names, weights.mT, strict=True)}
    inputs = replace(analysis.inputs, grm_rows=[np.arange(n)] * K)
    cache = int(settings.solver.kernel_cache_bytes / K)
    dense = of_kernels(settings, inputs, {name: (matrix, cache) for name, matrix in matrices.items()}, packed.width)
    snps = partial(_snp_effects_of, analysis, packed, frequency, weights) if settings.output.blup else None
    job = job_of(settings, dense, PredictionRequest(settings.output, [], snps), remarks, here)
    record = EngineReport({"engine": DENSE})
    digests = {analysis.source.path: analysis.source.digest()}
    return replace(job, inputs=analysis.inputs, report=lambda _: record, digests=digests)


def _snp_effects_of(
    analysis: GenotypeAnalysis,
    packed: PackedGenotypes,
    frequency: Tensor,
    w: Tensor,
    fit: FitResult,
    predictor: Predictor,
) -> SnpEffects:
    """As ``_snp_effects``, of the dense engine. Local: every rank has all genotypes."""
    Z = GenotypeOperator(packed, frequency, ProcessGrid.single(frequency.device), range(len(analysis.rows)), len(analysis.rows))
    per_allele = effects_per_allele(Z, w, fit.theta, predictor.Py.double())
    kept = analysis.kept
    return SnpEffects(analysis.source.variant_id[kept], analysis.source.alt[kept], per_allele.numpy())


def _genotypes(analysis: GenotypeAnalysis, cache_bytes: float, here: Session) -> GenotypeOperator:
    """Z of this rank's samples, standardised by the frequencies of all samples of the source. Collective."""
    grid, n = here.grid, len(analysis.rows)
    own = own_samples(n, grid)
    with grid.together("reading the genotypes"):
        rows, progress = analysis.rows[own.start : own.stop], here.terminal.phase("reading the genotypes")
        packed = PackedGenotypes.read(analysis.source, analysis.kept, rows, grid.device, cache_bytes, progress)
    frequency = analysis.source.counts.allele_frequency[analysis.kept]
    return GenotypeOperator(packed, torch.from_numpy(frequency).to(grid.device), grid, own, n)


def _test(reduced: bool, analysis: GenotypeAnalysis, fit: FitResult, _: FitOptions) -> VarianceTests:
    """All components at once, against the model without them, whose ℓ is exact; that of the fit has a Monte-Carlo error."""
    K = len(analysis.partition.names)
    null = null_log_likelihood(analysis.y, analysis.X)
    tests = VarianceTests.of(fit.loglik, null, null if reduced and K == 1 else None, num_random=K)
    error = 2 * fit.iterations[-1].step.loglik_error
    return replace(tests, pvalue_note=f"{tests.pvalue_note}; the LRT has a Monte-Carlo error of {error:.2g}")


def _snp_effects(analysis: GenotypeAnalysis, _: FitResult, predictor: Predictor) -> SnpEffects:
    """Of every SNP in every component, for its counted allele, and the residual's column of GCTA. Collective."""
    assert isinstance(predictor, MarkerPredictor)
    source, kept = analysis.source, analysis.kept
    per_allele = predictor.snp_effects_per_allele().numpy()
    return SnpEffects(source.variant_id[kept], source.alt[kept], np.asarray(per_allele))


def _report(engine: StochasticEngine, fit: FitResult) -> EngineReport:
    """Genotype vector-passes by phase, and an error of Monte Carlo beyond the wanted one. Local."""
    passes = {name: round(count, 1) for name, count in engine.passes.items()}
    record = {"engine": STOCHASTIC, "passes": passes}
    return EngineReport(record, [*_beyond_target(engine.target, fit), *_uncertain_bounds(fit)])


def _uncertain_bounds(fit: FitResult) -> list[str]:
    """Variances on their bound of which the probes do not say for certain that logL falls from there."""
    step = fit.iterations[-1].step
    doubts = CERTAIN * step.score_noise.diagonal().clamp_min(0).sqrt()
    return [
        f"whether {name} belongs on its bound is not certain: the slope of logL there is {slope:.2g}, give or take {doubt:.2g}"
        for name, held, slope, doubt in zip(
            fit.parameters, fit.at_bound.tolist(), step.score.tolist(), doubts.tolist(), strict=True
        )
        if held and slope + doubt > 0 and fit.status.is_an_answer
    ]


def _beyond_target(target: Target, fit: FitResult) -> list[str]:
    """How large the Monte-Carlo error is where it is larger than what was asked for, and what helps."""
    reached = float((fit.monte_carlo_se / fit.standard_errors).nan_to_num().max())
    if reached <= TOLERATED * target.error or not fit.status.is_an_answer:
        return []
    return [
        f"the Monte-Carlo error is {reached:.2g} of the SE, not the {target.error:g} that solver.mcse asks for: "
        f"{target.most:,} probes are not enough; solver.num_probes=N allows more"
    ]
