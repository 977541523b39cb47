"""``openreml-grm``: relationship matrices from a genotype store, or to and from GCTA's files."""

from __future__ import annotations

import time
from typing import NoReturn

from openreml_dist.app.cli import compose, exit_with
from openreml_dist.config import GrmConfig
from openreml_dist.errors import ConfigError

GCTA = "gcta:"


def main() -> NoReturn:
    """Run the program and exit with its code."""
    exit_with("grm", lambda: compose("grm", GrmConfig, run))


def run(settings: GrmConfig) -> int:
    """Make, import or export, then say what was written and what to do next. Returns the exit code.

    Raises:
        ConfigError: settings that do not go together.
    """
    from openreml_dist.prep.grm import import_gcta, make_grm, write_gcta

    if settings.by not in ("genome", "chromosome"):
        raise ConfigError(f"by: {settings.by!r} is neither genome nor chromosome")
    from_gcta, to_gcta = settings.source.startswith(GCTA), settings.out.startswith(GCTA)
    if from_gcta and to_gcta:
        raise ConfigError("source and out are both GCTA prefixes; copy the files")
    started = time.monotonic()
    if from_gcta:
        written = import_gcta(settings, settings.source.removeprefix(GCTA))
    elif to_gcta:
        written = write_gcta(settings, settings.out.removeprefix(GCTA))
    else:
        written = make_grm(settings)
    print(f"wrote {', '.join(written)} in {time.monotonic() - started:.1f} s")
    if not to_gcta:
        stores = written[0] if len(written) == 1 else f"[{','.join(written)}]"
        print(f"next: openreml-fit data.grm={stores} data.pheno=FILE")
    return 0


if __name__ == "__main__":
    main()
