"""What users of other programs met: names as R writes them, codes of unknown parents, words among numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.e2e.data import Cohort, write_lines
from tests.e2e.programs import Finished, fit

LAUNCHED = ("inside", "torchrun")


def passed(*settings: str, run_dir: Path, launched: str = "inside") -> Finished:
    run = fit(launched, run_dir, *settings)
    assert run.exit_code == 0, run.errors
    return run


def numbers(run: Finished) -> list[float]:
    values = [estimate[key] for estimate in run.result["estimates"] for key in ("value", "se")]
    values += [effect[key] for effect in run.result["fixed_effects"] for key in ("estimate", "se")]
    return [np.nan if value is None else value for value in [*values, run.result["loglik"]]]


@pytest.fixture
def field(tmp_path: Path) -> pd.DataFrame:
    """Yields of plots in blocks, with an effect of the soil and one of the dose."""
    rng = np.random.default_rng(31)
    block, dose = np.repeat(np.arange(12), 8), np.tile(["None", "Low", "High", "High"], 24)
    soil = rng.uniform(1, 9, 96).round(3)
    slope = 0.3 + 0.4 * rng.normal(size=12)[block]
    effects = 0.8 * rng.normal(size=12)[block] + rng.normal(size=96) + slope * soil + (dose == "None")
    return pd.DataFrame({"block": [f"b{i}" for i in block], "dose": dose, "soil": soil, "crop": effects.round(5)})


@pytest.mark.parametrize("launched", LAUNCHED)
def test_a_name_changes_nothing(field: pd.DataFrame, tmp_path: Path, launched: str) -> None:
    """Full stops, blanks, brackets, a tilde, letters beyond ASCII: in formulas, functions, factors and words."""
    field.to_csv(tmp_path / "plain.csv", index=False)
    names = {"block": "block no", "dose": "dose.g (ha)", "soil": "µ~soil[1]", "crop": "crop.mean"}
    field.rename(columns=names).to_csv(tmp_path / "named.csv", index=False)
    plain = passed(
        f"data.table={tmp_path / 'plain.csv'}",
        "model.fixed='crop ~ 1 + log(soil) + C(dose)'",
        "+model.random.b='group(block)'",
        run_dir=tmp_path / "plain",
    )
    named = passed(
        f"data.table={tmp_path / 'named.csv'}",
        "model.fixed='crop.mean ~ 1 + log(`µ~soil[1]`) + C(`dose.g (ha)`)'",
        "+model.random.b='group(`block no`)'",
        run_dir=tmp_path / "named",
        launched=launched,
    )
    assert numbers(named) == pytest.approx(numbers(plain), rel=1e-6, nan_ok=True)
    assert named.result["trait"] == "crop.mean"
    shown = [effect["name"] for effect in named.result["fixed_effects"]]
    assert shown == ["Intercept", "log(µ~soil[1])", "C(dose.g (ha))[T.Low]", "C(dose.g (ha))[T.None]"]


@pytest.mark.parametrize("launched", LAUNCHED)
def test_traits_and_covariates_of_any_name(cohort: Cohort, tmp_path: Path, launched: str) -> None:
    """As R writes them, in the tables of a bivariate model and in those of one trait."""
    n, grm = len(cohort.batch), f"data.grm={cohort.folder / 'main.grm.zarr'}"
    ids = pd.read_csv(cohort.folder / "traits.phen", sep="\t", dtype=str)[["FID", "IID"]]
    ages = pd.read_csv(cohort.folder / "numbers.qcovar", sep="\t", dtype=str)
    runs = []
    for one, two, age in (("a", "b", "age"), ("milk.kg (y)", "fat %", "age.years")):
        folder = tmp_path / f"table{len(runs)}"
        folder.mkdir()
        traits = ids.assign(**{one: cohort.traits[:n, 0], two: cohort.traits[:n, 0] + cohort.traits[:n, 2]})
        traits.to_csv(folder / "traits.tsv", sep="\t", index=False)
        ages.rename(columns={"age": age}).to_csv(folder / "ages.tsv", sep="\t", index=False)
        tables = (grm, f"data.pheno={folder / 'traits.tsv'}", f"data.qcovar={folder / 'ages.tsv'}")
        chosen = f"data.pheno_column=['{one}','{two}']"
        where = launched if runs else "inside"
        runs.append(passed("model=bivariate", *tables, chosen, run_dir=folder / "run", launched=where))
    assert numbers(runs[1])[-5:] == pytest.approx(numbers(runs[0])[-5:], rel=1e-5, nan_ok=True)
    assert [effect["name"] for effect in runs[1].result["fixed_effects"]] == [
        *("milk.kg (y):Intercept", "milk.kg (y):age.years", "fat %:Intercept", "fat %:age.years")
    ]


def test_columns_of_a_model_of_any_name(field: pd.DataFrame, tmp_path: Path) -> None:
    field.rename(columns={"crop": "crop, t/ha", "soil": "day.no", "block": "of subject"}).to_csv(
        tmp_path / "t.csv", index=False
    )
    columns = ("model.columns.y='crop, t/ha'", "model.columns.time=day.no", "model.columns.subject='of subject'")
    run = passed("model=random_regression", f"data.table={tmp_path / 't.csv'}", *columns, run_dir=tmp_path / "run")
    assert run.result["trait"] == "crop, t/ha"
    assert "subject.variance[day.no]" in [estimate["name"] for estimate in run.result["estimates"]]
    assert "random: subject = regression(1 + `day.no`) * group(`of subject`)" in run.output


@pytest.fixture
def herd() -> pd.DataFrame:
    """Two generations bred from 24 founders."""
    rng = np.random.default_rng(17)
    n = 96
    sire = [f"h{rng.integers(0, 12):02d}" if i >= 24 else "0" for i in range(n)]
    dam = [f"h{rng.integers(12, 24):02d}" if i >= 24 else "0" for i in range(n)]
    value = rng.normal(size=n)
    for i in range(24, n):
        value[i] = 0.5 * (value[int(sire[i][1:])] + value[int(dam[i][1:])]) + 0.5**0.5 * value[i]
    return pd.DataFrame({"id": [f"h{i:02d}" for i in range(n)], "sire": sire, "dam": dam, "y": 5 + value + rng.normal(size=n)})


@pytest.mark.parametrize("launched", LAUNCHED)
def test_unknown_parents_in_any_code(herd: pd.DataFrame, tmp_path: Path, launched: str) -> None:
    herd.to_csv(tmp_path / "zero.csv", index=False)
    zero = passed("model=animal_model", f"data.table={tmp_path / 'zero.csv'}", run_dir=tmp_path / "zero")
    assert "pedigree:" not in zero.output
    codes = ["*", "-", "-1", "000", "Unknown", "?", "NA", "", "."]
    coded = herd.copy()
    coded["sire"] = [codes[i % 9] if parent == "0" else parent for i, parent in enumerate(herd["sire"])]
    coded["dam"] = [codes[i % 7] if parent == "0" else parent for i, parent in enumerate(herd["dam"])]
    coded.to_csv(tmp_path / "coded.csv", index=False)
    run = passed("model=animal_model", f"data.table={tmp_path / 'coded.csv'}", run_dir=tmp_path / "coded", launched=launched)
    assert numbers(run) == pytest.approx(numbers(zero), rel=1e-6)


def test_parents_that_are_unusual_are_named(herd: pd.DataFrame, tmp_path: Path) -> None:
    strange = herd.replace({"0": "nobody"})
    strange.to_csv(tmp_path / "strange.csv", index=False)
    run = passed("model=animal_model", f"data.table={tmp_path / 'strange.csv'}", run_dir=tmp_path / "run")
    assert "pedigree: 1 parents have no line of their own and are founders, such as nobody" in run.output
    assert "warning: pedigree: 1 names of no line of their own are both sire and dam, such as nobody" in run.output
    written = herd.assign(id=herd["id"].str[1:].astype(int) + 1)
    for side in ("sire", "dam"):
        written[side] = ["" if parent == "0" else f"{int(parent[1:]) + 1}.0" for parent in herd[side]]
    written.to_csv(tmp_path / "floats.csv", index=False)
    run = fit("inside", tmp_path / "floats", "model=animal_model", f"data.table={tmp_path / 'floats.csv'}")
    assert run.exit_code == 2
    assert "has no line of its own, but" in run.errors and "same number written otherwise" in run.errors


def test_fields_with_blanks_and_levels_called_none(field: pd.DataFrame, tmp_path: Path) -> None:
    field.to_csv(tmp_path / "clean.csv", index=False)
    blanks = field.assign(dose=[f" {dose}{' ' * (i % 3)}" for i, dose in enumerate(field["dose"])])
    blanks.to_csv(tmp_path / "blanks.csv", index=False)
    model = ("model.fixed='crop ~ 1 + C(dose)'", "+model.random.b='group(block)'")
    clean, spaced = (
        passed(f"data.table={tmp_path / name}.csv", *model, run_dir=tmp_path / name) for name in ("clean", "blanks")
    )
    assert numbers(spaced) == numbers(clean)
    assert clean.result["num_samples"] == 96
    assert [effect["name"] for effect in clean.result["fixed_effects"]][1:] == ["C(dose)[T.Low]", "C(dose)[T.None]"]


@pytest.mark.parametrize(
    ("column", "hint"), [("crop", ", as 95 of 96 values are"), ("soil", "if soil is a factor, write C(soil)")]
)
def test_one_word_among_numbers_is_named(field: pd.DataFrame, tmp_path: Path, column: str, hint: str) -> None:
    words = field.astype({column: object})
    words.loc[40, column] = "7.2*"
    words.to_csv(tmp_path / "words.csv", index=False)
    model = ("model.fixed='crop ~ 1 + soil'", "+model.random.b='group(block)'")
    run = fit("inside", tmp_path / "run", f"data.table={tmp_path / 'words.csv'}", *model)
    assert run.exit_code == 2
    assert f"words.csv, line 42, column {column}: '7.2*' is not a number" in run.errors
    assert hint in run.errors
    assert ("C(crop)" in run.errors) is False


@pytest.mark.parametrize("launched", LAUNCHED)
def test_a_level_of_people_without_a_phenotype(cohort: Cohort, tmp_path: Path, launched: str) -> None:
    """It is no effect, of a model of records as of greml."""
    traits = pd.read_csv(cohort.folder / "traits.phen", sep="\t", dtype=str)
    batch = pd.read_csv(cohort.folder / "factors.covar", sep="\t", dtype=str)
    traits.iloc[:5, 2] = "NA"
    batch.loc[batch["IID"].isin(traits["IID"][:5]), "batch"] = "late"
    traits.to_csv(tmp_path / "t.phen", sep="\t", index=False)
    batch.to_csv(tmp_path / "b.covar", sep="\t", index=False)
    tables = (
        f"data.grm={cohort.folder / 'main.grm.zarr'}",
        f"data.pheno={tmp_path / 't.phen'}",
        f"data.covar={tmp_path / 'b.covar'}",
    )
    greml = passed(*tables, run_dir=tmp_path / "greml")
    gxe = passed("model=gxe", *tables, "model.columns.environment=batch", run_dir=tmp_path / "gxe", launched=launched)
    assert [effect["name"] for effect in greml.result["fixed_effects"]][1:] == ["batch=b1", "batch=b2"]
    assert [effect["name"] for effect in gxe.result["fixed_effects"]][1:] == ["batch[T.b1]", "batch[T.b2]"]


def test_tables_as_r_writes_them(cohort: Cohort, tmp_path: Path) -> None:
    traits = pd.read_csv(cohort.folder / "traits.phen", sep="\t", dtype=str).iloc[:, :3]
    grm, rows = f"data.grm={cohort.folder / 'main.grm.zarr'}", traits.to_numpy().tolist()
    quoted = write_lines(tmp_path / "q.phen", ['"FID" "IID" "height"', *(f'"{a}" "{b}" {c}' for a, b, c in rows)])
    named = write_lines(tmp_path / "n.phen", ["FID IID height", *(f"{i} {a} {b} {c}" for i, (a, b, c) in enumerate(rows, 1))])
    comma = write_lines(tmp_path / "c.csv", ["FID;IID;height", *(f"{a};{b};{c.replace('.', ',')}" for a, b, c in rows)])
    plain = passed(*cohort.data(), run_dir=tmp_path / "plain")
    assert numbers(passed(grm, f"data.pheno={quoted}", run_dir=tmp_path / "q")) == numbers(plain)
    for path, words in ((named, "row names? In R, write.table(..., row.names = FALSE)"), (comma, "decimal comma")):
        run = fit("inside", tmp_path / path.stem, grm, f"data.pheno={path}")
        assert run.exit_code == 2 and words in run.errors
