"""Seconds of every phase of a fit, from the work of each step and the rates of a machine.

A step of the sweep or of the factor lasts as long as on its slowest rank; closed forms such as n³/(3 N) miss that by a fifth.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from openreml_dist.layout import TileLayout
from openreml_dist.plan.machine import Machine
from openreml_dist.plan.memory import DOUBLE, SINGLE, FitSize, Memory, memory
from openreml_dist.plan.work import Geometry, Work, cholesky_work, sweep_work

EVALUATIONS = {  # of a typical fit: exact in float64 and float32, Cholesky in float64 and float32
    "exact": (6, 0, 0, 0),
    "auto": (1, 1, 1, 2),
    "hutchinson": (0, 0, 0, 3),
}


def seconds_of(work: Work, machine: Machine, single: bool) -> float:
    """Time of a sweep or a factor: in every step the pivot, the panel, then the update of the slowest rank and its messages."""
    update_rate = machine.update_flops_single if single else machine.update_flops
    scale = update_rate / machine.update_flops
    number = SINGLE if single else DOUBLE
    messages = machine.latency * work.messages + number / machine.link_bytes * work.words
    update = work.update_flops / update_rate
    together = np.maximum(update, messages) if machine.overlaps else update + messages
    steps = (
        machine.pivot_latency
        + (work.pivot_flops / (machine.pivot_flops * scale)).max(axis=(1, 2))
        + (work.panel_flops / (machine.panel_flops * scale)).max(axis=(1, 2))
        + together.max(axis=(1, 2))
    )
    return float(steps.sum())


@dataclass(frozen=True)
class Plan:
    """What a fit will take.

    Attributes:
        layout: n, tile size and grid.
        memory: on the fullest rank.
        phases: seconds of each phase of one exact evaluation in float64.
        read_seconds: reading the stores once.
        fit_seconds: of a typical fit, by the method of traces.
    """

    layout: TileLayout
    machine: Machine
    memory: Memory
    phases: dict[str, float]
    read_seconds: float
    fit_seconds: dict[str, float]

    @property
    def iteration_seconds(self) -> float:
        """One exact evaluation in float64."""
        return sum(self.phases.values())


def plan(layout: TileLayout, fit: FitSize, machine: Machine) -> Plan:
    """Predict memory and time of a fit."""
    g = Geometry(layout)
    words = float(g.words.max())
    held = memory(layout, fit)
    kept = held.kernels
    stored = SINGLE * words * fit.num_kernels
    again = (stored - kept) / machine.read_bytes + (kept / machine.load_bytes)  # seconds to have all kernels at hand once more
    sweep, factor = sweep_work(layout), cholesky_work(layout)

    def around(single: bool, exact: bool) -> dict[str, float]:
        """Phases beside the inverse or the factor."""
        number = SINGLE if single else DOUBLE
        columns = fit.num_fixed + fit.num_probes + 1 + fit.num_parameters
        rate = machine.panel_flops * (machine.update_flops_single / machine.update_flops if single else 1.0)
        products = 4 * words * columns / rate + 3 * number * words / machine.stream_bytes
        pass_over = stored * (number / SINGLE + 1) / machine.stream_bytes
        directions = (layout.grid.rows > 1) + (layout.grid.columns > 1)
        waits = (0 if exact else 3 * layout.num_tiles * directions) * machine.latency  # three triangular solves
        return {
            "assemble": again + (pass_over + 2 * number * words / machine.stream_bytes),
            "project": products * (1 if exact else 2) + waits,
            "traces": again + pass_over * (2 if exact else 1) + (4 * words * fit.num_kernels * fit.num_fixed / rate),
        }

    exact = around(single=False, exact=True) | {"invert": seconds_of(sweep, machine, single=False)}
    by_kind = (
        sum(exact.values()),
        sum(around(True, True).values()) + seconds_of(sweep, machine, single=True),
        sum(around(False, False).values()) + seconds_of(factor, machine, single=False),
        sum(around(True, False).values()) + seconds_of(factor, machine, single=True),
    )
    read = stored / machine.read_bytes
    fits = {
        method: read + sum(count * seconds for count, seconds in zip(counts, by_kind, strict=True))
        for method, counts in EVALUATIONS.items()
    }
    order = ("assemble", "invert", "project", "traces")
    return Plan(layout, machine, held, {name: exact[name] for name in order}, read, fits)


@dataclass(frozen=True)
class PlannedFit:
    """A fit of an engine, as the planner sees it before anything is computed.

    Attributes:
        layout: n, tile size and grid.
        size: what decides about memory and time beside it.
    """

    layout: TileLayout
    size: FitSize

    @property
    def memory(self) -> Memory:
        """Of the fullest rank."""
        return memory(self.layout, self.size)

    def on(self, machine: Machine) -> Plan:
        """Memory and seconds on a machine."""
        return plan(self.layout, self.size, machine)
