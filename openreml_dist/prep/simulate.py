"""Simulated PLINK data with known truth: genotypes, phenotypes and covariates, deterministic by the seed.

One chromosome is held at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openreml_dist.config import SimulateConfig
from openreml_dist.errors import ConfigError
from openreml_dist.prep.simulate_files import (
    ALL_NAMES,
    NAME,
    Samples,
    require_bed_reader,
    write_plink,
    write_table,
    write_truth,
    written_aside,
)
from openreml_dist.prep.simulate_founders import choose_founder_model
from openreml_dist.prep.simulate_genotypes import Chromosome, Pedigree, simulate_chromosome
from openreml_dist.prep.simulate_traits import GeneticValues, Trait, causal_shares, make_trait
from openreml_dist.versions import OWN, version_of

MIN_SAMPLES = 10
MAX_CHROMOSOMES = 22


@dataclass(frozen=True)
class Simulated:
    """What was written."""

    prefix: Path  # of the PLINK files
    files: list[Path]
    truth: dict[str, Any]  # as in truth.json


def simulate(settings: SimulateConfig, tell: Callable[[str], None] = print) -> Simulated:
    """Simulate a data set and write it to ``settings.out``.

    Args:
        settings: see ``SimulateConfig``.
        tell: takes a line of progress for each chromosome.
    Raises:
        ConfigError: a setting that cannot be used, or a library that is not installed.
        InputError: files of an earlier run are in the way, or the folder cannot be written.
    """
    validate(settings)
    require_bed_reader()
    model_name, founders = choose_founder_model(settings.founders)
    seeds = np.random.SeedSequence(settings.seed).spawn(2 + settings.num_chromosomes)
    trait_rng, allele_rng, *chromosome_rngs = map(np.random.default_rng, seeds)
    counts = chromosome_counts(settings)
    pedigree = Pedigree(settings.num_samples, settings.family_size)
    samples = _make_samples(pedigree, trait_rng)
    genetic = GeneticValues(settings.num_samples, counts, settings, trait_rng)

    def chromosomes() -> Iterator[Chromosome]:
        for c, (count, rng) in enumerate(zip(counts, chromosome_rngs, strict=True)):
            chromosome = simulate_chromosome(pedigree, count, settings.missing_genotypes, founders, rng)
            genetic.add(c, chromosome.genotypes)
            tell(f"chromosome {c + 1} of {len(counts)}: {count:,} variants ({model_name})")
            yield chromosome

    folder = Path(settings.out)
    with written_aside(folder, settings.overwrite) as aside:
        write_plink(aside / NAME, samples, settings.num_variants, chromosomes(), allele_rng)
        values = genetic.scaled(settings.h2)
        trait = make_trait(values, samples.sex, settings, trait_rng)
        write_table(aside / f"{NAME}.phen", samples, trait.formatted())
        if settings.covariates:
            write_table(aside / f"{NAME}.qcovar", samples, trait.age)
            write_table(aside / f"{NAME}.covar", samples, samples.sex, trait.batch)
        truth = {
            "program": "openreml-simulate",
            "version": version_of(OWN),
            "settings": {key: value for key, value in asdict(settings).items() if key not in ("out", "overwrite")},
            "founders": model_name,
            "components": _describe_components(settings, counts, genetic, values),
            **_describe_trait(settings, values, trait),
        }
        write_truth(aside, truth)
    return Simulated(folder / NAME, [folder / name for name in ALL_NAMES if (folder / name).exists()], truth)


def validate(settings: SimulateConfig) -> None:
    """Check the settings with each other, before any work.

    Raises:
        ConfigError: names every setting that cannot be used, and what it may be.
    """
    s = settings
    faults = []

    def require(valid: bool, key: str, rule: str) -> None:
        if not valid:
            faults.append(f"{key}={getattr(s, key)}: {rule}")

    require(s.num_samples >= MIN_SAMPLES, "num_samples", f"at least {MIN_SAMPLES}")
    require(1 <= s.num_chromosomes <= MAX_CHROMOSOMES, "num_chromosomes", f"1 to {MAX_CHROMOSOMES}")
    require(s.num_variants >= s.num_chromosomes, "num_variants", f"at least one for each of {s.num_chromosomes} chromosomes")
    require(1 <= len(s.h2) <= s.num_chromosomes, "h2", "one value for each component, and no more than chromosomes")
    require(all(h2 >= 0 for h2 in s.h2) and sum(s.h2) < 1, "h2", "each 0 or above, with a sum below 1")
    require(1 <= s.family_size <= s.num_samples, "family_size", "from 1 (unrelated people) to num_samples")
    for key in ("missing_genotypes", "missing_phenotypes"):
        require(0 <= getattr(s, key) < 1, key, "a rate from 0 to below 1")
    if s.prevalence is not None:
        both = math.isfinite(s.prevalence) and 0 < round(s.prevalence * s.num_samples) < s.num_samples
        require(both, "prevalence", "between 0 and 1, so that there are cases and controls")
    require(s.seed >= 0, "seed", "0 or above")
    if s.num_causal is not None and not faults:
        parts = len(s.h2)
        most = [sum(chromosome_counts(s)[k::parts]) for k in range(parts)]
        shares = causal_shares(s.num_causal, most)
        valid = all(1 <= share <= own for share, own in zip(shares, most, strict=True))
        require(valid, "num_causal", f"at least one for each component, and no more than its variants {most}")
    if faults:
        raise ConfigError("; ".join(faults))


def chromosome_counts(settings: SimulateConfig) -> list[int]:
    """Variants of each chromosome, as equal as can be."""
    least, rest = divmod(settings.num_variants, settings.num_chromosomes)
    return [least + (c < rest) for c in range(settings.num_chromosomes)]


def _make_samples(pedigree: Pedigree, rng: np.random.Generator) -> Samples:
    return Samples(
        family_id=[f"F{family + 1}" for family in pedigree.family],
        sample_id=[f"I{i + 1}" for i in range(pedigree.num_samples)],
        sex=rng.integers(1, 3, pedigree.num_samples),
        have_parents=pedigree.family_size > 1,
    )


def _describe_components(
    settings: SimulateConfig, counts: list[int], genetic: GeneticValues, values: NDArray[np.float64]
) -> list[dict[str, Any]]:
    """Variances are of the sample: divided by n."""
    parts = len(settings.h2)
    return [
        {
            "chromosomes": list(range(k + 1, settings.num_chromosomes + 1, parts)),
            "num_variants": sum(counts[k::parts]),
            "num_causal": sum(int(mask.sum()) for mask in genetic.causal[k::parts]),
            "variance_nominal": settings.h2[k],
            "variance_realised": float(values[k].var()),
        }
        for k in range(parts)
    ]


def _describe_trait(settings: SimulateConfig, values: NDArray[np.float64], trait: Trait) -> dict[str, Any]:
    """Variances are of the sample, before phenotypes were lost; with a prevalence they are those of the liability."""
    known = ~np.isnan(trait.y)
    described: dict[str, Any] = {
        "trait": "quantitative" if trait.num_cases is None else "case/control by a liability threshold: 1 control, 2 case",
        "genetic_variance_realised": float(values.sum(axis=0).var()),
        "residual_variance_nominal": 1 - sum(settings.h2),
        "residual_variance_realised": trait.residual_variance,
        "total_variance_realised": trait.total_variance,
        "fixed_effects": trait.fixed_effects,
        "num_phenotypes": int(known.sum()),
    }
    if trait.num_cases is not None:
        described["proportion_of_cases"] = trait.num_cases / settings.num_samples
        described["num_cases"] = int((trait.y[known] == 2).sum())
    return described
