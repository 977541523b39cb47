"""What ``output`` asks for beside the estimates: random effects, effects of SNPs, tests of fixed effects."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from rich.table import Table
from torch import Tensor

from openreml_dist.app.inputs.grm_list import grm_paths
from openreml_dist.app.inputs.samples import Inputs
from openreml_dist.app.inputs.snp_source import SnpSource, open_snp_source, snp_effects
from openreml_dist.app.report.numbers import Format
from openreml_dist.app.report.prediction_files import blup_table, covariates, indi_blp, snp_blp
from openreml_dist.app.report.run_directory import BLUP_TABLE, INDI_BLP, SNP_BLP, write_text
from openreml_dist.app.run import Run
from openreml_dist.compat import REML
from openreml_dist.config import OutputConfig
from openreml_dist.covariance import Covariance, Identity, Kernel
from openreml_dist.errors import ConfigError, InputError
from openreml_dist.plan.memory import DOUBLE, Model
from openreml_dist.reml import FitResult, wald_test
from openreml_dist.reml.dense.prediction import extra_inverses
from openreml_dist.store.files import written_aside

FORMATS = ("tsv", "parquet")


def check_output(output: OutputConfig) -> None:
    """Refuse what cannot be written. Local: alike on every rank, before the ranks meet.

    Raises:
        ConfigError: names the setting.
    """
    if output.format not in FORMATS:
        raise ConfigError(f"output.format: {output.format!r} is not {' or '.join(FORMATS)}")
    if output.format == "parquet" and _wants_effects(output) and importlib.util.find_spec("pyarrow") is None:
        raise ConfigError(
            "output.format: parquet is written by pyarrow, which is not installed: pip install 'openreml-dist[parquet]', or "
            "take output.format=tsv"
        )


@dataclass(frozen=True)
class Outputs:
    """What is to be written after the fit.

    Attributes:
        run: settings, ranks, terminal and folder.
        inputs: samples and data.
        covariance: the model.
        snps: where the effects of SNPs come from; None if they are not asked for.
    """

    run: Run
    inputs: Inputs
    covariance: Covariance
    snps: SnpSource | None

    @classmethod
    def prepare(cls, run: Run, inputs: Inputs, covariance: Covariance) -> Outputs:
        """Open what is needed, so that nothing is refused after a long fit. Collective.

        Raises:
            ConfigError, InputError: for effects of SNPs that the GRMs or the model do not have.
        """
        genotypes = run.settings.output.snp_effects
        if genotypes is None:
            return cls(run, inputs, covariance, None)
        with run.grid.together("opening the genotypes"):
            *genetic, residual = covariance.terms
            of_grms = isinstance(residual, Identity) and all(isinstance(term, Kernel) for term in genetic)
            if not inputs.grm_rows or not of_grms:
                raise ConfigError("output.snp_effects: SNPs have effects in models of one variance a GRM alone")
            paths = grm_paths(run.settings.data)
            opened = open_snp_source(genotypes, paths, torch.get_num_threads()) if run.grid.is_root else None
        return cls(run, inputs, covariance, run.grid.share(opened))

    @property
    def notes(self) -> list[str]:
        """What the user should know before the fit begins."""
        lines, output = [], self.run.settings.output
        if output.pev:
            inverses = 1 + extra_inverses(self.covariance, torch.ones(len(self.covariance.parameters), dtype=torch.float64))
            exact = "an exact iteration" if inverses == 1 else f"{inverses:.2g} exact iterations"
            lines.append(f"output.pev: error variances of random effects will take as long as {exact}")
        if self.snps is not None:
            count, missing = len(self.snps.variants.index), self.snps.num_missing
            approximate = f"; the {missing:,} with a missing genotype have approximate effects" if missing else ""
            lines.append(f"output.snp_effects: {count:,} SNPs{approximate}")
        return lines

    def planned(self, model: Model) -> Model:
        """The model as the planner sees it: error variances are always computed in float64."""
        return replace(model, number_bytes=DOUBLE) if self.run.settings.output.pev else model

    def write(self, reml: REML, fit: FitResult, y: Tensor, X: Tensor) -> list[str]:
        """Predict and write. Collective; the files are written by rank 0.

        Returns:
            Names of the files.
        """
        output = self.run.settings.output
        if output.fixed_tests:
            self.run.more_results["fixed_tests"] = fixed_tests(fit, self.inputs.fixed_names)
        if not (_wants_effects(output) or self.snps):
            return []
        predictor = reml.predictor(y, X, fit, error_variances=output.pev)
        files: dict[str, Callable[[], Any]] = {}
        if _wants_effects(output):
            effects = predictor.records()
            if fit.is_linear:
                files[INDI_BLP] = lambda: indi_blp(self.inputs, effects, fit.theta, predictor.Py.cpu())
            files[f"{BLUP_TABLE}.{output.format}"] = lambda: blup_table(self.inputs, effects)
        if (source := self.snps) is not None:
            samples = self.inputs.grm_rows[0]  # a GRM has the samples of the store, in its order
            of_snps = snp_effects(source, samples, fit.theta.tolist(), predictor.Py.double().cpu().numpy(), self.run.grid)
            files[SNP_BLP] = lambda: snp_blp(source, of_snps)
        with self.run.grid.together("writing the predictions"):
            if self.run.grid.is_root:
                for name, content in files.items():
                    self._write(name, content())
        return [*files]

    def _write(self, name: str, content: Any) -> None:
        """Write text or a data frame aside and rename it into place. Local."""
        path = self.run.directory / name
        if isinstance(content, str):
            write_text(path, content)
            return
        with written_aside(path) as aside:
            if path.suffix == ".parquet":
                content.to_parquet(aside, index=False)
            else:
                content.to_csv(aside, sep="\t", index=False)

    @property
    def tables(self) -> list[Table]:
        """Tests of fixed effects for the terminal."""
        if "fixed_tests" not in self.run.more_results:
            return []
        table = Table("covariate", box=None, pad_edge=False, header_style="bold")
        for column in ("Wald χ²", "df", "p"):
            table.add_column(column, justify="right", min_width=12)
        tests = self.run.more_results["fixed_tests"]
        pvalue = Format.of([(None, test["pvalue"]) for test in tests])
        for test in tests:
            if test["statistic"] is None:
                table.add_row(test["name"], "NA", "", test["note"])
            else:
                table.add_row(test["name"], f"{test['statistic']:.4f}", str(test["df"]), pvalue(test["pvalue"]))
        return [table]


def fixed_tests(fit: FitResult, names: tuple[str, ...]) -> list[dict[str, Any]]:
    """A Wald test of each covariate but the intercept, all columns of a factor together."""
    tests: list[dict[str, Any]] = []
    for covariate, columns in covariates(names).items():
        try:
            tests.append({"name": covariate, **asdict(wald_test(fit, columns))})
        except InputError as error:  # after a long fit: the estimates are to be written all the same
            tests.append({"name": covariate, "statistic": None, "df": len(columns), "pvalue": None, "note": str(error)})
    return tests


def _wants_effects(output: OutputConfig) -> bool:
    return output.blup or output.pev
