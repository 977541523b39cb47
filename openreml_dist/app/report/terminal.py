"""What rank 0 shows: what was read, a line an iteration, a bar within long phases, and the tables at the end."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from openreml_dist.grid import Progress as Report
from openreml_dist.grid import no_progress
from openreml_dist.reml import FitResult, Iteration
from openreml_dist.reml.dense.evaluation import LARGEST_NOISE
from openreml_dist.reml.likelihood_ratio import VarianceTests
from openreml_dist.reml.result import Estimate

SECONDS_BEFORE_BAR = 2.0
SHOWN_PARAMETERS = 6  # in the line of an iteration


class Terminal:
    """The terminal of rank 0; on other ranks it stays silent. Everything here is local."""

    def __init__(self, rank: int) -> None:
        self._console = Console(quiet=rank != 0, highlight=False, soft_wrap=True)
        self._bar = Progress(
            TextColumn("  {task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=rank != 0 or not self._console.is_terminal,
        )
        self._header_is_due = True

    def say(self, *lines: str) -> None:
        """Print lines as they are."""
        for line in lines:
            self._console.print(line, markup=False)

    def show(self, *tables: Table) -> None:
        """Print tables, with an empty line before each."""
        for table in tables:
            self.say("")
            self._console.print(table)

    def phase(self, name: str) -> Report:
        """Watch a phase: what is returned takes the finished share, and shows a bar once the phase has lasted a while."""
        if self._bar.disable:
            return no_progress
        begun = time.monotonic()
        task: TaskID | None = None

        def report(share: float) -> None:
            nonlocal task
            if task is None and share < 1.0 and time.monotonic() - begun > SECONDS_BEFORE_BAR:
                self._bar.start()
                task = self._bar.add_task(name, total=1.0)
            if task is not None:
                self._bar.update(task, completed=share)
                if share >= 1.0:
                    self._bar.remove_task(task)
                    self._bar.stop()

        return report

    def iteration(self, iteration: Iteration, parameters: tuple[str, ...]) -> None:
        """One line: ℓ, components, how far the next step would go, time."""
        if self._header_is_due:
            more = " ..." if len(parameters) > SHOWN_PARAMETERS else ""
            names = "".join(f"{_shortened(name):>15}" for name in parameters[:SHOWN_PARAMETERS]) + more
            self.say("", f"{'iter':>4}{'logL':>16}{names}{'next step/SE':>14}{'seconds':>9}  traces")
            self._header_is_due = False
        step = iteration.step
        values = "".join(f"{value:15.6g}" for value in step.theta.tolist()[:SHOWN_PARAMETERS])
        values += " ..." if len(step.theta) > SHOWN_PARAMETERS else ""
        seconds = sum(step.seconds.values())
        bounds = "  at bound" if bool(iteration.at_bound.any()) else ""
        trials = f"  {iteration.evaluations} evaluations" if iteration.evaluations > 1 else ""
        self.say(
            f"{iteration.number:4d}{step.loglik:16.5f}{values}{iteration.largest_move:14.1e}{seconds:9.2f}"
            f"  {step.evaluation}{bounds}{trials}"
        )

    def result(
        self, fit: FitResult, fixed_names: tuple[str, ...], tests: VarianceTests | None, traits: Sequence[Estimate] = ()
    ) -> None:
        """Tables of components (or parameters), of traits if there are several, and of fixed effects, and the tests."""
        effects = _table("fixed effect", "estimate", "SE")
        for name, estimate, se in zip(fixed_names, fit.beta.tolist(), fit.beta_se.tolist(), strict=True):
            effects.add_row(Text(name), _six(estimate), _six(se))
        self.say("")
        self._console.print(_components(fit) if fit.is_linear else _parameters(fit))
        if traits:
            self._console.print(_estimates(traits))
        self._console.print(effects)
        self.say(
            f"logL {fit.loglik:.5f}"
            if tests is None
            else f"logL {fit.loglik:.5f}   without genetic terms {tests.loglik_null:.5f}   "
            f"LRT {tests.lrt:.3f}   p = {tests.pvalue:.4g} ({tests.pvalue_note})"
        )
        noise = float((fit.monte_carlo_se / fit.standard_errors).nan_to_num().max())
        if noise > LARGEST_NOISE:
            errors = zip(fit.parameters, fit.monte_carlo_se.tolist(), strict=True)
            listed = ", ".join(f"{name} {_six(error)}" for name, error in errors)
            self.say(f"Monte-Carlo error of the variances, beside their SE: {listed} (at most {noise:.0%} of the SE)")
        for warning in warnings(fit):
            self.say(f"warning: {warning}")


def warnings(fit: FitResult) -> list[str]:
    """What a reader of the estimates should not overlook."""
    found = [
        f"{name} is on its bound, so it has no standard error"
        for name, held in zip(fit.parameters, fit.at_bound.tolist(), strict=True)
        if held
    ]
    if fit.is_linear:
        found += [f"{c.name} is negative ({c.variance:.6g})" for c in fit.components if c.variance < 0]
        found += [f"{c.name} is more than the whole variance" for c in fit.components if c.proportion > 1]
    if fit.confounded:
        found.append(
            f"{', '.join(fit.confounded)} cannot be told apart (singular information); take no standard error seriously"
        )
    if fit.status.exit_code != 0:
        found.append(f"{fit.status}: {fit.message}; the estimates are those of the last iteration")
    return found


def _components(fit: FitResult) -> Table:
    table = _table("component", "variance", "SE", "proportion", "SE")
    for c in fit.components:
        table.add_row(c.name, _six(c.variance), _six(c.se), _six(c.proportion), _six(c.proportion_se))
    table.add_section()
    table.add_row("phenotypic (Vp)", _six(fit.total[0]), _six(fit.total[1]), "", "")
    return table


def _estimates(rows: Sequence[Estimate]) -> Table:
    table = _table("source", "variance", "SE")
    for row in rows:
        table.add_row(Text(row.name), _six(row.value), _six(row.se))
    return table


def _parameters(fit: FitResult) -> Table:
    table = _table("parameter", "estimate", "SE", "unit")
    for number, estimate in enumerate(fit.estimates):
        if number == len(fit.parameters):
            table.add_section()
        table.add_row(Text(estimate.name), _six(estimate.value), _six(estimate.se), estimate.unit)
    return table


def _shortened(name: str) -> str:
    """At most 14 characters: a beginning and an end."""
    return name if len(name) <= 14 else f"{name[:6]}…{name[-7:]}"


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for k, column in enumerate(columns):
        table.add_column(column, justify="left" if k == 0 else "right", min_width=20 if k == 0 else 12)
    return table


def _six(value: float | None) -> str:
    return "NA" if value is None else f"{value:.6f}"
