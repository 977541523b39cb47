"""``openreml-grm``: relationship matrices from a genotype store, and GRMs from and to GCTA's files."""

from __future__ import annotations

import time
from typing import NoReturn

from openreml_dist.app.cli import compose, exit_with
from openreml_dist.app.given import refuse_unread, rules_for, workers_are_chosen
from openreml_dist.config import GrmConfig
from openreml_dist.errors import ConfigError, files_named


def _only_converted(settings: GrmConfig) -> str | None:
    from openreml_dist.store.gcta import PREFIX

    if settings.source.startswith(PREFIX) or settings.out.startswith(PREFIX):
        return "a GRM is converted as it is; its SNPs, and who computes it, are chosen where it is made from a genotype store"
    return None


def _tiles(settings: GrmConfig) -> str | None:
    from openreml_dist.store.gcta import PREFIX

    return "GCTA's files have no tiles" if settings.out.startswith(PREFIX) else None


def _workers(settings: GrmConfig) -> str | None:
    return _only_converted(settings) or workers_are_chosen(settings.dask)


RULES = rules_for(
    GrmConfig(),
    {
        **dict.fromkeys(("by", "autosomes_only", "min_maf", "max_missing", "device", "dask.scheduler"), _only_converted),
        **dict.fromkeys(("dask.workers", "dask.memory_limit"), _workers),
        "chunk_size": _tiles,
    },
)


def main() -> NoReturn:
    """Run the program and exit with its code."""
    exit_with("grm", lambda: compose("grm", GrmConfig, run))


def run(settings: GrmConfig) -> int:
    """Make, import or export GRMs, then say what was written and what to do next. Returns the exit code."""
    from openreml_dist.prep.gcta_jobs import export_grm, import_grm
    from openreml_dist.prep.grm import make_grm
    from openreml_dist.store.gcta import PREFIX
    from openreml_dist.store.grm import open_grm

    if settings.by not in {"genome", "chromosome"}:
        raise ConfigError(f"by={settings.by} must be genome or chromosome")
    if settings.device not in {"cpu", "cuda"}:
        raise ConfigError(f"device={settings.device} must be cpu or cuda")
    refuse_unread(settings, GrmConfig(), RULES)
    started = time.monotonic()
    if settings.out.startswith(PREFIX):
        with files_named(settings.out):
            export_grm(settings)
        print(f"wrote {settings.out.removeprefix(PREFIX)}.grm.bin and .grm.id in {time.monotonic() - started:.1f} s")
        return 0
    with files_named(settings.out):
        if settings.source.startswith(PREFIX):
            import_grm(settings)
            outs = [settings.out]
        else:
            outs = make_grm(settings)
    for out in outs:
        store = open_grm(out)
        variants = store.attributes["num_variants"]
        of = "an unknown number of SNPs" if variants is None else f"{variants:,} SNPs"
        print(f"wrote {out}: {store.num_samples:,} samples, {of}, tiles of {store.chunk_size:,}")
    grm = outs[0] if len(outs) == 1 else f"[{','.join(outs)}]"
    print(f"done in {time.monotonic() - started:.1f} s")
    print(f"next: openreml-fit data.grm={grm} data.pheno=FILE.phen")
    return 0


if __name__ == "__main__":
    main()
