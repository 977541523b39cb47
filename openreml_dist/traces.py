"""Where tr(P V_k) may come from, by the names that settings, planner and solver use. Needs no torch: the planner has none."""

from __future__ import annotations

METHODS = ("auto", "exact", "hutchinson")

# Random probes where the user gives no number. ``exact`` uses them for a start by Haseman-Elston regression alone. Those of
# ``hutchinson`` leave a Monte-Carlo error of about a tenth of a standard error.
DEFAULT_PROBES = {"auto": 64, "exact": 64, "hutchinson": 128}


def number_of_probes(method: str, wanted: int | None = None) -> int:
    """The number wanted, or the default of the method."""
    return DEFAULT_PROBES[method] if wanted is None else wanted
