"""Every model of conf/model through the program, against a dense likelihood written out here, and the published answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from tests.e2e.data import Cohort, relationships, write_grm
from tests.e2e.programs import Finished, fit
from tests.helpers.answers import load, references
from tests.helpers.oracle import oracle

Matrix = np.ndarray
Build = Callable[[dict[str, float]], Matrix]


@dataclass(frozen=True)
class Expected:
    """What was fitted: settings, y and X of the analysed records, and V of the estimates by name."""

    settings: tuple[str, ...]
    y: Matrix
    X: Matrix
    V: Build


def same(values: Any) -> Matrix:
    values = np.asarray(values)
    return (values[:, None] == values[None, :]).astype(float)


def distances(values: Any) -> Matrix:
    values = np.asarray(values, float)
    return np.abs(values[:, None] - values[None, :])


def simulated(V: Matrix, rng: np.random.Generator) -> Matrix:
    return np.linalg.cholesky(V) @ rng.normal(size=len(V))


def saved(table: pd.DataFrame, folder: Path) -> str:
    path = folder / "records.csv"
    table.to_csv(path, index=False, float_format="%.17g")
    return f"data.table={path}"


def factor(values: dict[str, float], name: str, levels: tuple[str, str]) -> Matrix:
    """G (2, 2) from its Cholesky factor."""
    a, b = levels
    L = np.array([[values[f"{name}.L[{a},{a}]"], 0.0], [values[f"{name}.L[{b},{a}]"], values[f"{name}.L[{b},{b}]"]]])
    return L @ L.T


def greml_multi(folder: Path, cohort: Cohort) -> Expected:
    settings = (*cohort.data("main", "other"), f"data.covar={cohort.folder / 'factors.covar'}")
    order = np.arange(20, 120)
    X = np.column_stack([np.ones(100), *(cohort.batch[order] == level for level in (1, 2))])
    grms = {"main": cohort.main[np.ix_(order, order)], "other": cohort.other[np.ix_(order, order)]}
    V = lambda v: v["main"] * grms["main"] + v["other"] * grms["other"] + v["residual"] * np.eye(100)  # noqa: E731
    return Expected(settings, cohort.traits[order, 0], X, V)


def gxe(folder: Path, cohort: Cohort) -> Expected:
    covar = cohort.folder / "factors.covar"
    settings = (*cohort.data(), f"data.covar={covar}", "model.columns.environment=batch")
    n = len(cohort.batch)
    X = np.column_stack([np.ones(n), *(cohort.batch == level for level in (1, 2))])

    def V(v: dict[str, float]) -> Matrix:
        residual = np.diag([v[f"residual.b{b}"] for b in cohort.batch])
        return v["genetic"] * cohort.main + v["gxe"] * cohort.main * same(cohort.batch) + residual

    return Expected(settings, cohort.traits[:, 0], X, V)


def repeated_records(folder: Path, cohort: Cohort) -> Expected:
    rng = np.random.default_rng(5)
    person = rng.integers(0, 60, 150)
    K, P = cohort.main[np.ix_(person, person)], same(person)
    y = simulated(0.6 * K + 0.5 * P + 0.4 * np.eye(150), rng)
    table = pd.DataFrame({"id": [f"F{i}:I{i}" for i in person], "y": y, "age": rng.normal(size=150)})
    settings = (saved(table, folder), f"data.grm={cohort.folder / 'main.grm.zarr'}", "model.fixed='y ~ 1 + age'")
    X = np.column_stack([np.ones(150), table["age"]])
    return Expected(settings, y, X, lambda v: v["genetic"] * K + v["permanent"] * P + v["residual"] * np.eye(150))


def bivariate(folder: Path, cohort: Cohort) -> Expected:
    """Two traits of which a fifth of the second is missing, ids by IID alone."""
    rng = np.random.default_rng(6)
    K = relationships(rng, 90, 60)
    write_grm(folder / "two.grm.zarr", K, np.arange(90))
    G, R = np.array([[1.0, 0.6], [0.6, 1.2]]), np.array([[0.8, 0.2], [0.2, 0.5]])
    y = simulated(np.kron(G, K) + np.kron(R, np.eye(90)), rng).reshape(2, 90)
    kept = rng.random(90) > 0.2
    table = pd.DataFrame({"id": [f"I{i}" for i in range(90)], "milk": y[0] + 3, "fat": np.where(kept, y[1] - 1, np.nan)})
    trait = np.repeat([0, 1], [90, int(kept.sum())])
    person = np.concatenate([np.arange(90), np.flatnonzero(kept)])

    def V(v: dict[str, float]) -> Matrix:
        genetic, residual = (factor(v, name, ("milk", "fat"))[trait][:, trait] for name in ("genetic", "residual"))
        return genetic * K[np.ix_(person, person)] + residual * same(person)

    settings = (saved(table, folder), f"data.grm={folder / 'two.grm.zarr'}", "model.traits=[milk,fat]", "model.fixed='1'")
    X = np.column_stack([trait == 0, trait == 1]).astype(float)
    return Expected(settings, np.concatenate([table["milk"], table["fat"][kept]]), X, V)


def random_regression(folder: Path, cohort: Cohort) -> Expected:
    rng = np.random.default_rng(7)
    subject, time = np.repeat(np.arange(25), 5), np.tile(np.arange(5.0), 25)
    Phi = np.column_stack([np.ones(125), time])
    V = lambda v: Phi @ factor(v, "subject", ("1", "time")) @ Phi.T * same(subject) + v["residual"] * np.eye(125)  # noqa: E731
    truth = {"subject.L[1,1]": 1.0, "subject.L[time,1]": 0.2, "subject.L[time,time]": 0.4, "residual": 0.6}
    table = pd.DataFrame({"subject": subject, "time": time, "y": simulated(V(truth), rng) + 2 + time})
    return Expected((saved(table, folder),), table["y"].to_numpy(), Phi, V)


def spatial_ar1(folder: Path, cohort: Cohort) -> Expected:
    rng = np.random.default_rng(8)
    row, column = np.divmod(np.arange(144), 12)
    rows, columns = distances(row), distances(column)

    def V(v: dict[str, float]) -> Matrix:
        spatial = v["field.row.correlation"] ** rows * v["field.column.correlation"] ** columns
        return v["field"] * spatial + v["residual"] * np.eye(144)

    truth = {"field": 1.0, "field.row.correlation": 0.7, "field.column.correlation": 0.5, "residual": 0.3}
    variety = rng.permutation(144) % 4
    table = pd.DataFrame({"row": row, "column": column, "variety": variety, "y": simulated(V(truth), rng)})
    X = np.column_stack([np.ones(144), *(variety == level for level in (1, 2, 3))])
    return Expected((saved(table, folder), "model.fixed='y ~ 1 + C(variety)'"), table["y"].to_numpy(), X, V)


def animal_model(folder: Path, cohort: Cohort) -> Expected:
    """Five generations of random mating; the parents are in a table of their own, the first generation in none."""
    rng = np.random.default_rng(9)
    parents = [(-1, -1)] * 30
    for generation in range(1, 5):
        older = np.arange(30 * (generation - 1), 30 * generation)
        parents += [tuple(rng.choice(older, 2, replace=False)) for _ in range(30)]
    A = np.eye(150)
    for i, (s, d) in enumerate(parents):
        if s >= 0:
            A[i, :i] = A[:i, i] = 0.5 * (A[s, :i] + A[d, :i])
            A[i, i] = 1 + 0.5 * A[s, d]
    records = rng.permutation(np.arange(30, 150))
    y = simulated(0.5 * A[np.ix_(records, records)] + 0.5 * np.eye(120), rng)
    pedigree = folder / "pedigree.txt"
    lines = [f"{i:03d} {s:03d} {d:03d}" for i, (s, d) in enumerate(parents) if s >= 0]
    pedigree.write_text("\n".join(["id sire dam", *rng.permutation(lines)]).replace("000", "zero") + "\n")
    name = lambda i: f"{i:03d}".replace("000", "zero")  # noqa: E731
    table = pd.DataFrame({"id": [name(i) for i in records], "y": y})
    V = lambda v: v["genetic"] * A[np.ix_(records, records)] + v["residual"] * np.eye(120)  # noqa: E731
    return Expected((saved(table, folder), f"data.pedigree={pedigree}"), y, np.ones((120, 1)), V)


def greml(folder: Path, cohort: Cohort) -> Expected:
    """A term of pens is added beside the GRM, and pens are no fixed effect; a covariate is."""
    rng = np.random.default_rng(10)
    n = len(cohort.main)
    pen, age = rng.integers(0, 15, n), rng.normal(size=n)
    y = simulated(0.7 * cohort.main + 0.6 * same(pen) + 0.5 * np.eye(n), rng) + 0.3 * age
    for name, values in (("weight.phen", y), ("pen.covar", [f"p{k}" for k in pen]), ("age.qcovar", age)):
        lines = [f"F{i} I{i} {value}" for i, value in enumerate(values)]
        (folder / name).write_text("\n".join([f"FID IID {name.partition('.')[0]}", *rng.permutation(lines)]) + "\n")
    data = tuple(f"data.{kind}={folder}/{name}.{kind}" for kind, name in (("covar", "pen"), ("qcovar", "age")))
    settings = (f"data.grm={cohort.folder / 'main.grm.zarr'}", f"data.pheno={folder}/weight.phen", *data)
    V = lambda v: v["main"] * cohort.main + v["pens"] * same(pen) + v["residual"] * np.eye(n)  # noqa: E731
    return Expected(
        (*settings, "+model.random.pens='group(pen)'", "model.fixed='1 + age'"), y, np.column_stack([np.ones(n), age]), V
    )


MODELS = [greml, greml_multi, gxe, repeated_records, bivariate, random_regression, spatial_ar1, animal_model]


def check(run: Finished, expected: Expected) -> None:
    """The estimates maximise the dense likelihood, by its gradient, and their standard errors are its average information."""
    result = run.result
    names = result["parameters"]
    values = {estimate["name"]: estimate["value"] for estimate in result["estimates"]}
    free = [name for name in names if name not in result["history"][-1]["at_bound"]]
    y, X = torch.tensor(expected.y), torch.tensor(expected.X, dtype=torch.float64)

    def V(name: str, change: float) -> torch.Tensor:
        return torch.tensor(expected.V(values | {name: values[name] + change}))

    steps = {name: 1e-4 * max(abs(values[name]), 1e-2) for name in free}
    dV = [(V(name, h) - V(name, -h)) / (2 * h) for name, h in steps.items()]
    dense = oracle(V(names[0], 0.0), dV, y, X)
    errors = torch.linalg.inv(dense.AI).diagonal().sqrt()
    assert float((dense.score * errors).abs().max()) < 1e-4, dict(zip(free, dense.score.tolist(), strict=True))
    assert result["loglik"] == pytest.approx(dense.loglik, abs=1e-6)
    found = {estimate["name"]: estimate["se"] for estimate in result["estimates"]}
    for name, error in zip(free, errors.tolist(), strict=True):
        assert found[name] == pytest.approx(error, rel=1e-4), name
    assert [effect["estimate"] for effect in result["fixed_effects"]] == pytest.approx(dense.beta.tolist(), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("make", MODELS, ids=lambda make: make.__name__)
def test_model_maximises_the_dense_likelihood(make: Callable[[Path, Cohort], Expected], cohort: Cohort, tmp_path: Path) -> None:
    expected = make(tmp_path, cohort)
    run = fit("inside", tmp_path / "run", f"model={make.__name__}", *expected.settings)
    assert run.exit_code == 0, run.errors
    check(run, expected)
    assert run.result["num_samples"] == len(expected.y)


def test_terms_beside_a_grm_on_two_ranks_print_the_same(cohort: Cohort, tmp_path: Path) -> None:
    """The words say that the GRM is a term of its own; a parameter of greml can be held at a value."""
    expected = greml(tmp_path, cohort)
    alone, ranks = (fit(launched, tmp_path / launched, *expected.settings) for launched in ("inside", "torchrun"))
    assert ranks.exit_code == 0, ranks.errors
    assert ranks.result["parameters"] == ["main", "pens", "residual"]
    rows = dict(line.split("\t", 1) for line in alone.hsq.splitlines())
    assert [*rows][:7] == ["Source", "V(G)", "V(pens)", "V(e)", "Vp", "V(G)/Vp", "V(pens)/Vp"]
    main, pens, _ = alone.result["components"]
    assert (rows["V(G)"], rows["V(pens)"]) == tuple(f"{c['variance']:.6f}\t{c['se']:.6f}" for c in (main, pens))
    assert "Sum of V(G)/Vp" not in alone.hsq
    assert 'random: main = genomic(id, "main")' in ranks.output and "random: pens = group(pen)" in ranks.output
    for one, two in zip(alone.result["estimates"], ranks.result["estimates"], strict=True):
        assert two["value"] == pytest.approx(one["value"], rel=1e-7)
    held = fit("inside", tmp_path / "held", *cohort.data(), "+model.fix.residual=0.4")
    assert held.exit_code == 0, held.errors
    assert held.result["parameters"] == ["main"]
    X, V = np.ones((len(cohort.main), 1)), lambda v: v["main"] * cohort.main + 0.4 * np.eye(len(cohort.main))
    check(held, Expected((), cohort.traits[:, 0], X, V))


def test_bivariate_on_two_ranks_prints_the_same(cohort: Cohort, tmp_path: Path) -> None:
    expected = bivariate(tmp_path, cohort)
    settings = ("model=bivariate", *expected.settings)
    alone, ranks = fit("inside", tmp_path / "one", *settings), fit("torchrun", tmp_path / "two", *settings)
    assert ranks.exit_code == 0, ranks.errors
    for one, two in zip(alone.result["estimates"], ranks.result["estimates"], strict=True):
        assert (two["name"], two["value"], two["se"]) == (
            one["name"],
            *(pytest.approx(one[key], rel=1e-7) for key in ("value", "se")),
        )
    (correlation,) = (e for e in alone.result["estimates"] if e["name"] == "genetic.correlation[milk,fat]")
    assert abs(correlation["value"] - 0.6 / 1.2**0.5) < 3 * correlation["se"]
    rows = dict(line.split("\t", 1) for line in ranks.hsq.splitlines())
    assert list(rows) == [
        *("Source", "V(G)_tr1", "V(G)_tr2", "C(G)_tr12", "V(e)_tr1", "V(e)_tr2", "C(e)_tr12", "Vp_tr1", "Vp_tr2"),
        *("V(G)/Vp_tr1", "V(G)/Vp_tr2", "rG", "logL", "n"),
    ]
    assert rows["rG"] == f"{correlation['value']:.6f}\t{correlation['se']:.6f}"
    genetic, residual = (float(rows[f"V({source})_tr2"].split("\t")[0]) for source in ("G", "e"))
    assert float(rows["V(G)/Vp_tr2"].split("\t")[0]) == pytest.approx(genetic / (genetic + residual), abs=2e-6)
    for line in ("genetic.correlation[milk,fat]", "left out: ", "genetic (3 parameters)"):
        assert line in alone.output


def test_traits_of_a_phenotype_table_are_those_of_a_table_of_records(cohort: Cohort, tmp_path: Path) -> None:
    """``data.pheno_column`` with two columns, as for GCTA's --reml-bivar, and the same from one table."""
    n = len(cohort.batch)
    table = pd.DataFrame({"id": [f"I{i}" for i in range(n)], "age": cohort.age, "batch": cohort.batch})
    table["quantitative"], table["unrelated"] = cohort.traits[:, 0], cohort.traits[:, 2]
    grm = f"data.grm={cohort.folder / 'main.grm.zarr'}"
    by_table = (grm, saved(table, tmp_path), "model.traits=[quantitative,unrelated]", "model.fixed='1 + age + C(batch)'")
    covariates = (f"data.qcovar={cohort.folder / 'numbers.qcovar'}", f"data.covar={cohort.folder / 'factors.covar'}")
    by_tables = (*cohort.data(), *covariates, "data.pheno_column=[quantitative,unrelated]")
    one, two = (fit("inside", tmp_path / name, "model=bivariate", *s) for name, s in (("a", by_table), ("b", by_tables)))
    assert one.result["status"] == two.result["status"] == "converged_at_bound"  # a genetic correlation of -1
    for mine, theirs in zip(one.result["estimates"], two.result["estimates"], strict=True):
        assert mine["name"] == theirs["name"]
        if mine["name"] == "genetic.L[unrelated,unrelated]":  # beside its bound, a ten-thousandth of the start, which differs
            assert 0 < mine["value"] < 1e-4 and 0 < theirs["value"] < 1e-4
        else:
            assert mine["value"] == pytest.approx(theirs["value"], rel=1e-5, abs=1e-7)


def test_published_field_trial(tmp_path: Path) -> None:
    """AR1 x AR1 residual without a plot error: the answers of an independent program, and of ASReml-R to its digits."""
    _, (answer,) = load("published_stroup.nin")
    table = references() / "published_stroup.nin" / "data.csv"
    settings = (f"data.table={table}", "~model.random.field", "model.fixed='yield ~ 1 + C(gen)'")
    run = fit("inside", tmp_path / "run", "model=spatial_ar1", *settings, "model.residual='ar1(col) * ar1(row)'")
    assert run.exit_code == 0, run.errors
    found = {estimate["name"]: (estimate["value"], estimate["se"]) for estimate in run.result["estimates"]}
    names = {"residual": "residual", "rho_col": "residual.col.correlation", "rho_row": "residual.row.correlation"}
    for theirs, mine in names.items():
        estimate = answer["estimates"][theirs]
        assert found[mine] == pytest.approx((estimate["value"], estimate["se_AI"]), rel=1e-6)
    assert run.result["loglik"] == pytest.approx(answer["logL"], abs=1e-6)
    assert run.result["num_samples"] == answer["n"]


def test_published_random_slopes(tmp_path: Path) -> None:
    _, answers = load("sleepstudy_rs")
    table = references() / "sleepstudy_rs" / "data.csv"
    columns = ("model.columns.y=Reaction", "model.columns.time=Days", "model.columns.subject=Subject")
    run = fit("inside", tmp_path / "run", "model=random_regression", f"data.table={table}", *columns)
    found = {estimate["name"]: (estimate["value"], estimate["se"]) for estimate in run.result["estimates"]}
    names = ("subject.variance[1]", "subject.covariance[1,Days]", "subject.variance[Days]", "residual")
    exact = answers["exact"]
    for name, value, se in zip(names, exact["value"], exact["se_AI"], strict=True):
        assert found[name] == pytest.approx((value, se), rel=1e-6)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ([], "data.grm is needed"),
        (["data.grm=some.grm.zarr"], "data.pheno is needed"),
        (["model=animal_model"], "needs data.table or data.pheno"),
        (["model=animal_model", "data.table=none.csv"], "cannot read none.csv"),
        (["model=gxe", "data.table={table}", "model.fixed='y ~ 1'"], "genomic(id) needs a GRM: set data.grm"),
        (["model=gxe", "data.table={table}"], "model.fixed: a formula is needed"),
        (["model=random_regression", "data.table={table}"], "no column time, subject; it has id, y, sire"),
        (["model=animal_model", "data.table={table}"], "the pedigree has no column dam; it has id, y, sire"),
        (["model=animal_model", "data.table={loop}"], "the pedigree has a loop: b"),
        (["model=greml", "data.table={table}"], "data.grm is needed"),
        (["model=animal_model", "data.table={table}", "+model.random.herd='hird(y)'"], "no structure is called hird"),
        (["model=repeated_records", "data.table={table}", "model.fixed='y ~ 1'", "data.grm={grm}"], "no record has everything"),
    ],
)
def test_what_cannot_be_fitted_is_refused(settings: list[str], words: str, cohort: Cohort, tmp_path: Path) -> None:
    table, loop = tmp_path / "table.csv", tmp_path / "loop.csv"
    table.write_text("id,y,sire\na,1.0,0\nb,2.0,a\nc,3.5,a\n")
    loop.write_text("id,y,sire,dam\na,1.0,0,0\nb,2.0,c,0\nc,3.5,b,0\n")
    grm = cohort.folder / "main.grm.zarr"
    run = fit("inside", tmp_path / "run", *(s.format(table=table, loop=loop, grm=grm) for s in settings))
    assert run.exit_code == 2
    assert words in run.errors
