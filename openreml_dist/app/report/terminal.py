"""What rank 0 shows: what was read, a line an iteration, a bar within long phases, and the tables at the end."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from openreml_dist.app.report.decimals import decimals_notes
from openreml_dist.app.report.heartbeat import News
from openreml_dist.app.report.numbers import Format, Pair, columns
from openreml_dist.app.report.warnings import warnings
from openreml_dist.grid import Progress as Report
from openreml_dist.grid import no_progress
from openreml_dist.reml import FitResult, Iteration
from openreml_dist.reml.dense.schedule import LARGEST_NOISE
from openreml_dist.reml.likelihood_ratio import VarianceTests
from openreml_dist.reml.result import Estimate

SECONDS_BEFORE_BAR = 2.0
SHOWN_PARAMETERS = 6  # in the line of an iteration
WIDTH, PLACES = 15, 11  # of a parameter there: with what stands between, digits


class Terminal:
    """The terminal of rank 0; on other ranks it stays silent. Everything here is local.

    Attributes:
        news: what was shown last, also where rank 0 has no screen.
    """

    def __init__(self, rank: int) -> None:
        self.news = News()
        self._console = Console(quiet=rank != 0, highlight=False, soft_wrap=True)
        self._bar = Progress(
            TextColumn("  {task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._formats: list[Format] = []  # of the parameters in the lines of iterations, chosen by the first

    def say(self, *lines: str) -> None:
        """Print lines as they are."""
        for line in lines:
            self.news.hear(line)
            self._console.print(line, markup=False)

    def show(self, *tables: Table) -> None:
        """Print tables, with an empty line before each."""
        for table in tables:
            self.say("")
            self._console.print(table)

    def phase(self, name: str) -> Report:
        """Watch a phase: what is returned takes the finished part, and shows a bar once the phase has lasted a while."""
        if self._console.quiet:
            return no_progress
        note = self.news.begin(name)
        if self._bar.disable:
            return note
        begun = time.monotonic()
        task: TaskID | None = None

        def report(done: float) -> None:
            nonlocal task
            note(done)
            if task is None and done < 1.0 and time.monotonic() - begun > SECONDS_BEFORE_BAR:
                self._bar.start()
                task = self._bar.add_task(name, total=1.0)
            if task is not None:
                self._bar.update(task, completed=done)
                if done >= 1.0:
                    self._bar.remove_task(task)
                    self._bar.stop()

        return report

    def iteration(self, iteration: Iteration, parameters: tuple[str, ...]) -> None:
        """One line: ℓ, components, how far the next step would go, time."""
        step, shown = iteration.step, iteration.step.theta.tolist()[:SHOWN_PARAMETERS]
        if not self._formats:
            more = " ..." if len(parameters) > SHOWN_PARAMETERS else ""
            names = "".join(f"{name:>{WIDTH}}" for name in _shortened(parameters[:SHOWN_PARAMETERS])) + more
            self.say("", f"{'iter':>4}{'logL':>16}{names}{'next step/SE':>14}{'seconds':>9}  traces")
            largest = max(shown, key=abs, default=0.0)  # stands for one that starts at zero
            self._formats = [Format.of([(value or largest, None)], PLACES) for value in shown]
        values = "".join(f"{form.within(x, WIDTH - 1):>{WIDTH}}" for form, x in zip(self._formats, shown, strict=True))
        values += " ..." if len(step.theta) > SHOWN_PARAMETERS else ""
        seconds = sum(step.seconds.values())
        bounds = "  at bound" if bool(iteration.at_bound.any()) else ""
        self.news.iterated(iteration.number, step.loglik)
        trials = f"  {iteration.evaluations} evaluations" if iteration.evaluations > 1 else ""
        self.say(
            f"{iteration.number:4d}{step.loglik:16.5f}{values}{iteration.largest_move:14.1e}{seconds:9.2f}"
            f"  {step.evaluation}{bounds}{trials}"
        )

    def result(
        self,
        fit: FitResult,
        fixed_names: tuple[str, ...],
        tests: VarianceTests | None,
        traits: Sequence[Estimate] = (),
        fixed_in_hsq: bool = False,
        cautions: Sequence[str] = (),
    ) -> None:
        """Tables of components (or parameters), of traits if there are several, and of fixed effects, the tests and warnings.

        Args:
            fit: what was estimated.
            fixed_names: p names of the fixed effects.
            tests: None for models without tests of their variances.
            traits: rows of several traits.
            fixed_in_hsq: ``result.hsq`` has the fixed effects too.
            cautions: warnings of the engine.
        """
        self.say("")
        self._console.print(_components(fit) if fit.is_linear else _parameters(fit))
        if traits:
            self._console.print(_estimates(traits))
        self._console.print(_fixed_effects(fit, fixed_names))
        self.say(
            f"logL {fit.loglik:.5f}"
            if tests is None
            else f"logL {fit.loglik:.5f}   without genetic terms {tests.loglik_null:.5f}   "
            f"LRT {tests.lrt:.3f}   p = {tests.pvalue:.4g} ({tests.pvalue_note})"
        )
        noise = float((fit.monte_carlo_se / fit.standard_errors).nan_to_num().max())
        if noise > LARGEST_NOISE:
            errors = zip(fit.parameters, fit.monte_carlo_se.tolist(), strict=True)
            listed = ", ".join(f"{name} {error:.3g}" for name, error in errors)
            self.say(f"Monte-Carlo error of the variances, beside their SE: {listed} (at most {100 * noise:.2g} % of the SE)")
        found = [*warnings(fit), *cautions]
        if not fit.status.is_an_answer:
            found.append("result.hsq and predictions are written of fits that have converged to one answer alone")
        elif tests is not None or traits:  # else there is no result.hsq
            found += decimals_notes(fit, list(traits), fixed_names if fixed_in_hsq else ())
        self.say(*(f"warning: {warning}" for warning in found))


def _components(fit: FitResult) -> Table:
    table = _table("component", "variance", "SE", "proportion", "SE")
    *variances, total = columns([*((c.variance, c.se) for c in fit.components), fit.total])
    proportions = columns([(c.proportion, c.proportion_se) for c in fit.components])
    for component, variance, proportion in zip(fit.components, variances, proportions, strict=True):
        table.add_row(Text(component.name), *variance, *proportion)
    table.add_section()
    table.add_row("phenotypic (Vp)", *total, "", "")
    return table


def _estimates(rows: Sequence[Estimate]) -> Table:
    table = _table("source", "variance", "SE")
    for row, texts in zip(rows, columns(_pairs(rows)), strict=True):
        table.add_row(Text(row.name), *texts)
    return table


def _parameters(fit: FitResult) -> Table:
    table = _table("parameter", "estimate", "SE", "unit")
    for number, (estimate, texts) in enumerate(zip(fit.estimates, columns(_pairs(fit.estimates)), strict=True)):
        if number == len(fit.parameters):
            table.add_section()
        table.add_row(Text(estimate.name), *texts, estimate.unit)
    return table


def _fixed_effects(fit: FitResult, names: tuple[str, ...]) -> Table:
    table = _table("fixed effect", "estimate", "SE")
    rows = list(zip(fit.beta.tolist(), fit.beta_se.tolist(), strict=True))
    for name, texts in zip(names, columns(rows), strict=True):
        table.add_row(Text(name), *texts)
    return table


def _pairs(rows: Sequence[Estimate]) -> list[Pair]:
    return [(row.value, row.se) for row in rows]


def _shortened(names: Sequence[str]) -> list[str]:
    """At most 14 characters each, as different as the names: beginnings and ends, or else beginnings and numbers."""
    for start in sorted(range(14), key=lambda start: abs(start - 6)):
        short = [name if len(name) < WIDTH else f"{name[:start]}…{name[len(name) - 13 + start :]}" for name in names]
        if len(set(short)) == len(names):
            return short
    return [name if len(name) < WIDTH else f"{name[:10]}…{number}" for number, name in enumerate(names, 1)]


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for k, column in enumerate(columns):
        table.add_column(column, justify="left" if k == 0 else "right", min_width=20 if k == 0 else 12)
    return table
