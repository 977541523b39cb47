"""The random terms and the residual that the settings say, as structures; with greml a term for each GRM too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from openreml_dist.app.inputs.grm_list import component_names, grm_paths
from openreml_dist.config import FitConfig
from openreml_dist.errors import ConfigError
from openreml_dist.models import Genomic, Pedigree, Structure, parse_structure
from openreml_dist.models.structures import Product

GREML = ("greml", "greml_multi")  # a variance for each GRM, and the residual
Grms = Mapping[str, tuple[Any, int]]
"""Open GRM stores by name, with the bytes of each that a rank may keep."""


def random_terms(settings: FitConfig) -> dict[str, str]:
    """Random terms by name, in words: those of the model; in greml first one for each GRM that none of them names.

    Raises:
        ConfigError: for words that cannot be read, a term that has the name of a GRM and is another.
    """
    terms = dict(settings.model.random)
    if settings.model.name not in GREML or has_several_traits(settings):
        return terms
    used = grms_used(terms, settings)
    column = settings.model.columns.get("id", "id")
    alone = [name for name in grm_names(settings) if name not in used]
    taken = [name for name in alone if name in terms]
    if taken:
        raise ConfigError(
            f"model.random.{taken[0]}: {taken[0]} is the GRM of data.grm, and a term of its own in {settings.model.name}; "
            f'give this term another name, or write genomic({column}, "{taken[0]}") into it'
        )
    return {name: f'genomic({column}, "{name}")' for name in alone} | terms


def structures_of(settings: FitConfig, grms: Grms, pedigree: Any) -> dict[str, Structure]:
    """Random terms by name, and the residual if it is given.

    Raises:
        ConfigError: for words that cannot be read, a random term that is called residual.
    """
    return _parsed(random_terms(settings), settings, grms, pedigree)


def grm_names(settings: FitConfig) -> list[str]:
    """What the GRMs are called in terms."""
    return [] if settings.data.grm is None else component_names(grm_paths(settings.data))


def named_grms(settings: FitConfig) -> Grms:
    """In place of open stores, their names: what a term refers to can then be told before anything is opened."""
    return {name: (name, 0) for name in grm_names(settings)}


def grms_used(terms: Mapping[str, str], settings: FitConfig) -> set[str]:
    """GRMs that some of these terms, or the residual, refer to."""
    found = _parsed(terms, settings, named_grms(settings), None).values()
    return {factor.grm for structure in found for factor in factors(structure) if isinstance(factor, Genomic)}


def _parsed(terms: Mapping[str, str], settings: FitConfig, grms: Grms, pedigree: Any) -> dict[str, Structure]:
    """Terms and, if it is given, the residual, each from its words."""
    if "residual" in terms:
        raise ConfigError("model.random.residual: give the term another name, or write it as model.residual")
    found = {name: parse_structure(text, f"model.random.{name}", grms, pedigree) for name, text in terms.items()}
    if settings.model.residual is not None:
        found["residual"] = parse_structure(settings.model.residual, "model.residual", grms, pedigree)
    return found


def genetic_terms(settings: FitConfig) -> set[str] | None:
    """Names of the random terms of relationships between individuals; None where all of them are, in greml as it stands."""
    if not settings.model.is_of_records:
        return None
    structures = structures_of(settings, named_grms(settings), None)
    return {
        name for name, term in structures.items() if any(isinstance(factor, Genomic | Pedigree) for factor in factors(term))
    }


def factors(structure: Structure) -> Iterator[Structure]:
    """Of a product its factors, else the structure itself."""
    yield from structure.factors if isinstance(structure, Product) else (structure,)


def has_several_traits(settings: FitConfig) -> bool:
    """Whether a record is of one of several traits."""
    columns = settings.data.pheno_column
    return bool(settings.model.traits) or (isinstance(columns, list) and len(columns) > 1)
