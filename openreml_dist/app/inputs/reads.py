"""When ``openreml-fit`` reads a setting: a rule for each, which says why it does not, and what to do then.

Whatever is given and not read is refused by name: first from the settings alone, before the ranks meet; what only the described
model can tell, before the fit; what only a table can tell, when that is read (``records.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from openreml_dist.app.given import refuse_entries, refuse_unread, rules_for, standard_fit
from openreml_dist.app.inputs.terms import GREML, factors, grm_names, grms_used, named_grms, random_terms, structures_of
from openreml_dist.config import DENSE, FitConfig
from openreml_dist.covariance import Covariance
from openreml_dist.errors import ConfigError
from openreml_dist.models import Pedigree, Structure
from openreml_dist.models.formulas import columns_of
from openreml_dist.reml.likelihood_ratio import can_test_variances
from openreml_dist.reml.traits import traits_of
from openreml_dist.store.files import is_url

GENOTYPES_MODEL = "a model of genotypes has variances of components of SNPs and of independent residuals, and all covariates"
IDENTIFIERS = ("id", "subject")  # of model.columns: they name the records of a table in files of predictions too


def refuse_unread_settings(settings: FitConfig) -> None:
    """Refuse what the settings alone show to have no effect. Local: alike on every rank.

    Raises:
        ConfigError: names the setting, why nothing reads it, and what to do.
    """
    standard = standard_fit(settings)
    refuse_unread(settings, standard, RULES)
    refuse_entries(
        "model.columns", _columns_without_use(settings, standard), "neither a term nor model.fixed names that column"
    )
    if settings.data.grm is not None:
        refuse_entries("data.grm", _grms_without_term(settings), f"no term of {settings.model.name} names it; {_ADD_GRM}")


def refuse_other_models(settings: FitConfig) -> None:
    """Refuse what a model of genotypes has not, before its words are read. Local: alike on every rank.

    Raises:
        ConfigError: as above, with the engine that has it.
    """
    why = f"{GENOTYPES_MODEL}; {grm_commands(settings)}"
    if settings.model.name not in GREML:
        raise ConfigError(f"model={settings.model.name} with data.genotypes: {why}")
    names = ("fixed", "random", "residual", "fix", "share", "transform")
    rules = dict.fromkeys((f"model.{name}" for name in names), lambda _: why)
    refuse_unread(settings, standard_fit(settings), rules_for(settings, rules))


def refuse_unread_by(settings: FitConfig, covariance: Covariance) -> None:
    """Refuse what has no effect on this model, now that it is described. Local: alike on every rank.

    Raises:
        ConfigError: as above.
    """
    rules = {
        "output.fixed_in_hsq": lambda _: _no_hsq(covariance),
        "solver.num_probes": lambda _: _no_probes(covariance),
        "solver.seed": lambda _: _no_probes(covariance),
    }
    refuse_unread(settings, standard_fit(settings), rules_for(settings, rules))


def grm_commands(settings: FitConfig) -> str:
    """How the GRM is made that other models read in place of ``data.genotypes``."""
    genotypes = str(settings.data.genotypes).rstrip("/")
    if is_url(genotypes) or Path(genotypes).expanduser().is_dir():
        store, prepare = genotypes, ""
    else:
        store = f"{genotypes.removesuffix('.bed')}.vcz"
        prepare = f"openreml-prepare source={genotypes} out={store}, then "
    grm = f"{Path(store).name.removesuffix('.vcz')}.grm.zarr"
    return f"for other models make a GRM: {prepare}openreml-grm source={store} out={grm}, and give data.grm={grm}"


def _no_hsq(covariance: Covariance) -> str | None:
    theta = torch.ones(len(covariance.parameters), dtype=torch.float64)
    if can_test_variances(covariance) or traits_of(covariance, theta):
        return None
    return "GCTA has no table of such a model, so there is no result.hsq; the fixed effects are in result.json"


def _no_probes(covariance: Covariance) -> str | None:
    return None if covariance.is_linear else "random probes need a sum of variance components; this model is evaluated exactly"


def _structures(settings: FitConfig) -> Mapping[str, Structure]:
    return structures_of(settings, named_grms(settings), None)


def _grms_without_term(settings: FitConfig) -> list[str]:
    if not settings.model.is_of_records:
        return []
    used = grms_used(random_terms(settings), settings)
    return [name for name in grm_names(settings) if name not in used]


_ADD_GRM = "write it into one, such as '+model.random.NAME=\"genomic(id, GRM)\"', or leave it out"


def _pheno_column(settings: FitConfig) -> str | None:
    columns = settings.data.pheno_column
    if settings.data.table is not None:
        return "the columns of data.table are named in model.fixed, or in model.traits"
    if settings.model.name in GREML and not settings.model.random and isinstance(columns, list) and len(columns) > 1:
        return (
            f"{settings.model.name} has one phenotype; -m data.pheno_column={','.join(map(str, columns))} fits one after the "
            "other, model=bivariate all together"
        )
    return None


def _covariates(settings: FitConfig) -> str | None:
    return None if settings.data.table is None else "the covariates of data.table are columns of it, named in model.fixed"


def _pedigree(settings: FitConfig) -> str | None:
    if any(isinstance(factor, Pedigree) for term in _structures(settings).values() for factor in factors(term)):
        return None
    return "no term is a pedigree; take model=animal_model, or add '+model.random.NAME=\"pedigree(id, sire, dam)\"'"


def _prevalence(settings: FitConfig) -> str | None:
    if settings.model.name in GREML and not settings.model.random and settings.model.residual is None:
        return None
    return "the liability scale is one of greml, whose terms are those of its GRMs alone"


def _columns_without_use(settings: FitConfig, standard: FitConfig) -> list[str]:
    """Entries of ``model.columns`` that were given; those of the model's own file may wait for a term that was replaced."""
    needed, usual = _columns_needed(settings), standard.model.columns
    return [
        f"{name}={column}"
        for name, column in settings.model.columns.items()
        if usual.get(name) != column and column not in needed and not (name in IDENTIFIERS and settings.data.table is not None)
    ]


def _columns_needed(settings: FitConfig) -> set[str]:
    structures = _structures(settings).values()
    formula = () if settings.model.fixed is None else columns_of(settings.model.fixed)
    return {*formula, *settings.model.traits, *(c for term in structures for c in (*term.columns, *term.labels))}


def _traits(settings: FitConfig) -> str | None:
    if settings.data.table is None:
        return "they are columns of data.table; with data.pheno give data.pheno_column=[1,2]"
    return None if settings.model.is_of_records else "greml has one phenotype; take model=bivariate"


def _kernel_cache(settings: FitConfig) -> str | None:
    data = settings.data
    return None if data.grm is not None or data.genotypes is not None else "there are no GRM and no genotypes to keep"


def _grm(settings: FitConfig) -> str | None:
    if settings.data.genotypes is None:
        return None
    return "the components are those of the SNPs of data.genotypes; leave one of the two out"


def _genotypes_alone(settings: FitConfig) -> str | None:
    return None if settings.data.genotypes is not None else "it divides the SNPs of data.genotypes, which is not given"


def _stochastic_alone(settings: FitConfig) -> str | None:
    if settings.data.genotypes is not None and settings.solver.engine != DENSE:
        return None
    return "it is one of the stochastic engine, which reads data.genotypes=STORE.vcz or a PLINK prefix instead of data.grm"


def _dense_alone(settings: FitConfig) -> str | None:
    return "the stochastic engine has no tiles; take solver.engine=dense" if settings.is_stochastic else None


def _traces_by(settings: FitConfig) -> str | None:
    if not settings.is_stochastic:
        return None
    return "the stochastic engine takes as many random probes as solver.mcse asks for; solver.engine=dense has other traces"


def _constrain(settings: FitConfig) -> str | None:
    if not settings.is_stochastic:
        return None
    return "the stochastic engine takes square roots of variances, so it knows no negative ones; take solver.engine=dense"


def _probes(settings: FitConfig) -> str | None:
    if settings.is_stochastic:
        return None
    if settings.solver.traces != "exact" or settings.solver.start in ("auto", "haseman-elston"):
        return None
    return f"with solver.traces=exact and solver.start={settings.solver.start} no random probes are used"


def _format(settings: FitConfig) -> str | None:
    output = settings.output
    return None if output.blup or output.pev else "no table is written; output.blup=true or output.pev=true asks for one"


def _snp_effects(settings: FitConfig) -> str | None:
    if settings.data.genotypes is None:
        return None
    return "it is for effects of the SNPs behind a GRM; those of data.genotypes are written with output.blup=true"


RULES = rules_for(
    FitConfig(),
    {
        "data.grm": _grm,
        "data.pheno_column": _pheno_column,
        "data.qcovar": _covariates,
        "data.covar": _covariates,
        "data.pedigree": _pedigree,
        "model.prevalence": _prevalence,
        "model.traits": _traits,
        "model.partition": _genotypes_alone,
        "solver.mcse": _stochastic_alone,
        "solver.constrain": _constrain,
        "solver.tile_size": _dense_alone,
        "solver.traces": _traces_by,
        "solver.kernel_cache_gb": _kernel_cache,
        "solver.num_probes": _probes,
        "solver.seed": _probes,
        "output.format": _format,
        "output.snp_effects": _snp_effects,
    },
)
