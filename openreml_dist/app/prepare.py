"""``openreml-prepare``: PLINK 1 files into a genotype store with quality control."""

from __future__ import annotations

import time
from typing import NoReturn

from openreml_dist.app.cli import compose, exit_with
from openreml_dist.app.given import refuse_unread, rules_for, workers_are_chosen
from openreml_dist.config import PrepareConfig
from openreml_dist.errors import files_named

RULES = rules_for(
    PrepareConfig(), dict.fromkeys(("dask.workers", "dask.memory_limit"), lambda settings: workers_are_chosen(settings.dask))
)


def main() -> NoReturn:
    """Run the program and exit with its code."""
    exit_with("prepare", lambda: compose("prepare", PrepareConfig, run))


def run(settings: PrepareConfig) -> int:
    """Import the genotypes, then say what was written and what to do next. Returns the exit code."""
    from openreml_dist.prep.prepare import prepare
    from openreml_dist.store.genotypes import open_genotypes

    refuse_unread(settings, PrepareConfig(), RULES)
    started = time.monotonic()
    with files_named(settings.out):
        prepare(settings)
    store = open_genotypes(settings.out)
    size = f"{store.dosages.num_variants:,} variants of {store.dosages.num_samples:,} samples"
    print(f"wrote {settings.out}: {size} in {time.monotonic() - started:.1f} s")
    print(f"next: openreml-grm source={settings.out} out={settings.out.rstrip('/').removesuffix('.vcz')}.grm.zarr")
    if store.dosages.is_packed:
        print(f"or openreml-fit data.genotypes={settings.out} data.pheno=FILE.phen solver=stochastic")
    return 0


if __name__ == "__main__":
    main()
