"""Where traces come from, as settings say: for the solver and for the planner, which starts without torch."""

from __future__ import annotations

from typing import Any

from openreml_dist.config import SolverConfig
from openreml_dist.plan.memory import DOUBLE, SINGLE

AUTO_PROBES, HUTCHINSON_PROBES = 64, 128  # by default; the latter leave a Monte-Carlo error of about a tenth of an SE


def traces_settings(solver: SolverConfig) -> dict[str, Any]:
    """The arguments of ``REML.fit`` that say where traces come from."""
    num_probes = solver.num_probes or (HUTCHINSON_PROBES if solver.traces == "hutchinson" else AUTO_PROBES)
    return {"traces": solver.traces, "num_probes": num_probes, "seed": solver.seed}


def planned_traces(solver: SolverConfig, is_linear: bool = True) -> dict[str, int]:
    """What the source of traces means for the memory of a ``Model``."""
    num_probes = 0 if solver.traces == "exact" or not is_linear else traces_settings(solver)["num_probes"]
    return {"num_probes": num_probes, "number_bytes": SINGLE if solver.traces == "hutchinson" else DOUBLE}
