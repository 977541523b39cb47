"""``openreml-simulate``: a data set with known truth, to try the other programs on."""

from __future__ import annotations

import time
from typing import NoReturn

from openreml_dist.app.cli import compose, exit_with
from openreml_dist.config import SimulateConfig


def main() -> NoReturn:
    """Run the program and exit with its code."""
    exit_with("simulate", lambda: compose("simulate", SimulateConfig, run))


def run(settings: SimulateConfig) -> int:
    """Simulate, say what was made and what to do next. Returns the exit code."""
    from openreml_dist.prep.simulate import Simulated, simulate

    started = time.monotonic()
    made: Simulated = simulate(settings, tell=lambda line: print(line, flush=True))
    truth = made.truth
    print(
        f"made {settings.num_samples:,} samples x {settings.num_variants:,} variants on {settings.num_chromosomes} chromosomes "
        f"in {time.monotonic() - started:.1f} s: {', '.join(path.name for path in made.files)} in {settings.out}"
    )
    for number, part in enumerate(truth["components"], 1):
        print(
            f"component {number}: variance {part['variance_nominal']:g} from {part['num_causal']:,} causal variants, "
            f"chromosomes {', '.join(map(str, part['chromosomes']))}"
        )
    print(f"residual variance {truth['residual_variance_nominal']:g} (realised {truth['residual_variance_realised']:.4f})")
    if "num_cases" in truth:
        print(
            f"case/control by liability threshold: {truth['num_cases']:,} cases of {truth['num_phenotypes']:,} phenotypes "
            f"(proportion of cases {truth['proportion_of_cases']:g})"
        )
    print(f"next: openreml-prepare source={made.prefix} out={made.prefix}.vcz")
    return 0


if __name__ == "__main__":
    main()
