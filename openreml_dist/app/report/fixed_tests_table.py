"""Tests of fixed effects on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from openreml_dist.app.report.numbers import Format


def fixed_tests_table(tests: Sequence[dict[str, Any]]) -> Table:
    """A line a covariate; ``NA`` and the reason where it could not be tested."""
    table = Table("covariate", box=None, pad_edge=False, header_style="bold")
    for column in ("Wald χ²", "df", "p"):
        table.add_column(column, justify="right", min_width=12)
    pvalue = Format.of([(None, test["pvalue"]) for test in tests])
    for test in tests:
        if test["statistic"] is None:
            table.add_row(test["name"], "NA", "", test["note"])
        else:
            table.add_row(test["name"], f"{test['statistic']:.4f}", str(test["df"]), pvalue(test["pvalue"]))
    return table
