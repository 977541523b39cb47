"""Models over the columns of a table: words, data frames, what is left out, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from openreml_dist import MixedModel
from openreml_dist.app.report.prediction_files import covariates
from openreml_dist.errors import ConfigError, InputError
from openreml_dist.models import (
    AR1,
    CompoundSymmetric,
    Diagonal,
    Exponential,
    FactorAnalytic,
    Group,
    Heterogeneous,
    Independent,
    Matern,
    Pedigree,
    Regression,
    Relationship,
    Structure,
    Unstructured,
    parse_structure,
)

N = 24


def table() -> pd.DataFrame:
    rng = np.random.default_rng(3)
    return pd.DataFrame(
        {
            "y": rng.normal(size=N),
            "z": rng.normal(size=N),
            "block": np.repeat(["a", "b", "c"], 8),
            "plot": np.arange(N) // 2 + 100,
            "row": np.arange(N) // 6,
            "column": np.arange(N) % 6,
            "days": rng.uniform(0, 3, N),
            "id": [f"{i % 12:03d}" for i in range(N)],
            "sire": ["0"] * 6 + [f"{i % 3:03d}" for i in range(6)] + ["0"] * 6 + [f"{i % 3:03d}" for i in range(6)],
            "dam": [None] * 6 + [f"{3 + i % 3:03d}" for i in range(6)] + [None] * 6 + [f"{3 + i % 3:03d}" for i in range(6)],
        }
    )


def dense(structure: Structure, **settings: Any) -> tuple[torch.Tensor, tuple[str, ...], torch.Tensor]:
    """V without its residual at parameters that differ, the names of the parameters, and those values."""
    model = MixedModel.from_dataframe(table(), "y ~ 1", {"g": structure}, **settings)
    term = model.covariance.terms[0]
    eta = torch.linspace(0.3, 0.7, len(term.parameters), dtype=torch.float64)
    V = term.entries(range(N), range(N), eta, torch.device("cpu"))
    assert V is not None
    return V.double(), tuple(p.name for p in term.parameters), eta


def same(values: Any) -> np.ndarray:
    values = np.asarray(values)
    return (values[:, None] == values[None, :]).astype(float)


def check(structure: Structure, expected: Any, *names: str) -> None:
    """The covariance that a structure describes is ``expected`` of its parameters."""
    V, found, eta = dense(structure)
    assert found == names
    torch.testing.assert_close(V, torch.as_tensor(expected(*eta.tolist())))


def test_words_describe_the_covariances_they_say() -> None:
    data = table()
    blocks, plots = same(data["block"]), same(data["plot"])
    rows, columns = (np.abs(np.subtract.outer(data[c].to_numpy(), data[c].to_numpy())) for c in ("row", "column"))
    code = np.unique(data["block"], return_inverse=True)[1]
    check(Group("plot"), lambda s: s * plots, "g")
    check(Group("block", "plot"), lambda s: s * blocks * plots, "g")
    check(Diagonal("block") * Group("plot"), lambda a, b, c: np.diag([a, b, c])[code][:, code] * plots, "g.a", "g.b", "g.c")
    check(
        AR1("row") * AR1("column"), lambda s, r, c: s * r**rows * c**columns, "g", "g.row.correlation", "g.column.correlation"
    )
    check(
        CompoundSymmetric("block") * Group("row"),
        lambda s, r: s * (r + (1 - r) * blocks) * same(data["row"]),
        "g.variance",
        "g.correlation",
    )
    distance = np.hypot(rows, columns)
    check(Exponential("row", "column"), lambda s, ell: s * np.exp(-distance / ell), "g", "g.range")
    u = np.sqrt(3) * np.abs(np.subtract.outer(data["days"].to_numpy(), data["days"].to_numpy()))
    check(Matern("days"), lambda s, ell: s * (1 + u / ell) * np.exp(-u / ell), "g", "g.range")


def test_unstructured_levels_and_random_coefficients() -> None:
    data = table()

    def factored(a: float, b: float, c: float) -> np.ndarray:
        L = np.array([[a, 0.0], [b, c]])
        return L @ L.T

    covariates = np.column_stack([np.ones(N), data["days"]])
    check(
        Regression("1 + days") * Group("id"),
        lambda *L: covariates @ factored(*L) @ covariates.T * same(data["id"]),
        "g.L[1,1]",
        "g.L[days,1]",
        "g.L[days,days]",
    )
    V, names, _ = dense(FactorAnalytic("block", factors=1) * Group("plot"))
    assert names == ("g.loading1[a]", "g.loading1[b]", "g.loading1[c]", "g.specific[a]", "g.specific[b]", "g.specific[c]")
    assert float(torch.linalg.eigvalsh(V)[0]) > -1e-12


def test_pedigree_of_the_records_gives_tabular_relationships() -> None:
    V, _, eta = dense(Pedigree())
    A = V / eta[0]
    i, j = 6, 7  # 006 is of 000 and 003, 007 of 001 and 004: unrelated; 006 and 000 are child and parent
    assert (A[i, i], A[i, j], A[i, 0], A[i, 18], A[0, 1]) == (1.0, 0.0, 0.5, 1.0, 0.0)


def test_relationship_in_memory_finds_its_individuals_and_leaves_out_the_others() -> None:
    K = torch.eye(10, dtype=torch.float64) * 2
    model = MixedModel.from_dataframe(table(), "y ~ 1", {"g": Relationship("id", K, [f"{i:03d}" for i in range(10)])})
    assert len(model.y) == 20
    assert model.dropped == {"have an id that is not in the relationship matrix": 4}
    assert "left out: 4 records have an id" in model.report[1]


def test_individuals_of_a_relationship_matrix_differ() -> None:
    matrix = Relationship("id", torch.eye(3, dtype=torch.float64), ["000", "001", "000"])
    with pytest.raises(InputError, match="relationship matrix: sample 000 is there twice"):
        MixedModel.from_dataframe(table(), "y ~ 1", {"g": matrix})


def test_several_traits_are_stacked_and_each_has_its_own_effects() -> None:
    data = table()
    data.loc[:4, "z"] = np.nan
    data.loc[0, "days"] = np.nan
    structure = Unstructured("trait") * Group("id")
    model = MixedModel.from_dataframe(data, "1 + days", {"g": structure}, traits=["y", "z"])
    assert model.fixed_names == model.fixed_terms == ("y:Intercept", "y:days", "z:Intercept", "z:days")
    assert model.dropped == {"have no value of days": 2, "have no value of z": 4}
    assert model.records["trait"].tolist() == ["y"] * 23 + ["z"] * 19
    first = torch.tensor([True] * 23 + [False] * 19)
    assert bool((model.X[first][:, 2:] == 0).all() and (model.X[~first][:, :2] == 0).all())
    assert [p.name for p in model.covariance.terms[0].parameters] == ["g.L[y,y]", "g.L[z,y]", "g.L[z,z]"]
    assert model.covariance.parameters[-2:] == ("residual.y", "residual.z")


def test_parameters_are_fixed_shared_and_transformed() -> None:
    model = MixedModel.from_dataframe(
        table(),
        "y ~ 1",
        {"field": AR1("row") * AR1("column")},
        Heterogeneous("block"),
        fix={"residual.c": 0.5},
        share=[["field.row.correlation", "field.column.correlation"]],
        transform={"field": "log"},
    )
    assert model.covariance.parameters == ("field", "field.row.correlation", "residual.a", "residual.b")
    eta = model.covariance.map.eta(torch.tensor([0.0, 0.3, 1.0, 2.0], dtype=torch.float64))
    assert eta.tolist() == [1.0, 0.3, 0.3, 1.0, 2.0, 0.5]


@pytest.mark.parametrize(
    ("text", "structure"),
    [
        ("group(block, plot)", Group("block", "plot")),
        ("independent()", Independent()),
        ("regression(1 + days)", Regression("1 + days")),
        ("pedigree(animal, father, mother)", Pedigree("animal", "father", "mother")),
        ("matern(row, column, smoothness=2.5)", Matern("row", "column", smoothness=2.5)),
        ("factor_analytic(trait, factors=2)", FactorAnalytic("trait", 2)),
    ],
)
def test_text_is_read_as_python_would_write_it(text: str, structure: Structure) -> None:
    assert parse_structure(text, "model.random.g") == structure


def test_products_are_read_in_order() -> None:
    product = parse_structure("ar1(row) * ar1(column) * group(block)", "x")
    assert repr(product) == repr(AR1("row") * AR1("column") * Group("block"))


def refusals() -> list[tuple[Any, type[Exception], str]]:
    def model(fixed: str = "y ~ 1", random: Any = None, residual: Any = None, **settings: Any) -> Any:
        return lambda: MixedModel.from_dataframe(table(), fixed, random or {"g": Group("plot")}, residual, **settings)

    alike = {"plot": Group("plot"), "again": Group("plot")}
    return [
        (model("y ~ 1 + missing"), InputError, "no column missing; it has y, z"),
        (model(random={"g": Group("missing")}), InputError, "no column missing"),
        (model("y ~ 1 + ("), InputError, "formula 'y ~ 1"),
        (model("1 + days"), InputError, "no response"),
        (model("block ~ 1"), InputError, "response must be one column of numbers"),
        (model("y ~ 1 + days + I(2 * days)"), InputError, r"I\(2 \* days\) is a combination of days"),
        (model("y ~ 1 + C(id):C(days)"), InputError, "fixed effects for 24"),
        (model(random=alike), InputError, "plot and again group the records alike"),
        (model(random={"g": Group("days")}), InputError, "every sample has a level of its own"),
        (model(random={"residual": Group("plot")}), ConfigError, "residual; give it another name"),
        (model(random={"g": AR1("block")}), InputError, "g: block must be a number, not 'a'"),
        (model(random={"g": Unstructured("block") * Diagonal("row")}), ConfigError, "both have variances"),
        (model("1", traits=["y"]), ConfigError, "two or more"),
        (model("y ~ 1", traits=["y", "z"]), ConfigError, "right-hand side alone"),
        (model("1", traits=["y", "w"]), InputError, "no column w"),
        (model(fix={"h": 1.0}), InputError, "no parameter is named h; there are g, residual"),
        (model(fix={"g": -1.0}), InputError, "g is fixed at -1, outside its bounds"),
        (model(transform={"g": "sqrt"}), InputError, "'sqrt' is no transform"),
        (lambda: parse_structure("group(", "model.random.g"), ConfigError, "model.random.g: 'group\\(' cannot be read"),
        (lambda: parse_structure("nested(plot)", "r"), ConfigError, "no structure is called nested; there are ar1"),
        (lambda: parse_structure("plot", "r"), ConfigError, "'plot' is not a structure"),
        (lambda: parse_structure("ar1(a, b, c)", "r"), ConfigError, "ar1"),
        (lambda: parse_structure("genomic(id)", "r"), ConfigError, "needs a GRM: set data.grm"),
        (lambda: parse_structure("genomic(id, b)", "r", {"a": (None, 0)}), ConfigError, "no GRM is called b; data.grm has a"),
        (lambda: parse_structure("group(__import__('os').system('true'))", "r").bind(table(), "g"), KeyError, "import"),
    ]


@pytest.mark.parametrize("number", range(len(refusals())))
def test_what_cannot_be_used_is_named(number: int) -> None:
    make, error, words = refusals()[number]
    with pytest.raises(error, match=words):
        make()


def test_a_trait_without_a_record_is_named() -> None:
    data = table().assign(z=np.nan)
    with pytest.raises(InputError, match="no record of z has everything"):
        MixedModel.from_dataframe(data, "1", {"g": Unstructured("trait") * Group("id")}, traits=["y", "z"])


def test_columns_of_one_covariate() -> None:
    data = table().rename(columns={"days": "a[1]", "z": "a[2]"})
    model = MixedModel.from_dataframe(data, "y ~ C(block) * `a[1]` + `a[2]`", {"g": Group("plot")})
    assert model.fixed_names[:6] == ("Intercept", "C(block)[T.b]", "C(block)[T.c]", "a[1]", "a[2]", "C(block)[T.b]:a[1]")
    assert model.fixed_terms == ("Intercept", *["C(block)"] * 2, "a[1]", "a[2]", *["C(block):a[1]"] * 2)
    assert covariates(model.fixed_terms) == {"C(block)": [1, 2], "a[1]": [3], "a[2]": [4], "C(block):a[1]": [5, 6]}


def test_levels_are_those_of_the_analysed_records() -> None:
    data = table()
    levels = pd.Categorical(data["block"], categories=["c", "b", "a", "never"])
    data = data.assign(block=levels, y=data["y"].where(data["block"] != "b"))
    model = MixedModel.from_dataframe(data, "y ~ 1 + block", {"g": Group("plot")})
    assert model.fixed_names == ("Intercept", "block[T.a]")
    assert data["block"].cat.categories.tolist() == ["c", "b", "a", "never"]  # the caller's table stays as it is


def test_a_record_without_anything_is_no_model() -> None:
    data = table().assign(y=np.nan)
    with pytest.raises(InputError, match="24 have no value of y"):
        MixedModel.from_dataframe(data, "y ~ 1", {"g": Group("plot")})


def test_every_estimate_has_a_unit() -> None:
    terms = {"field": AR1("row") * AR1("column"), "g": Unstructured("block") * Group("row")}
    model = MixedModel.from_dataframe(table(), "y ~ 1", terms, transform={"field": "log"})
    theta = torch.tensor([0.1, 0.2, 0.3, 1.0, 0.1, 1.0, 0.2, 0.3, 1.0, 0.5], dtype=torch.float64)
    shown = [*model.covariance.map.quantities(), *model.covariance.summary(theta)]
    units = {quantity.name: quantity.unit for quantity in shown}
    assert units["field.row.correlation"] == units["g.correlation[a,b]"] == "correlation"
    assert (units["g.L[b,a]"], units["g.covariance[a,b]"], units["residual"]) == ("loading", "covariance", "variance")
    assert [quantity.unit for quantity in shown if quantity.name == "field"] == ["log variance", "variance"]


def test_whole_numbers_read_as_floats_are_the_same_labels() -> None:
    data = table()
    as_floats = data.assign(plot=data["plot"].astype(float))
    models = [MixedModel.from_dataframe(d, "y ~ 1", {"g": Group("plot")}) for d in (data, as_floats)]
    assert models[0].covariance.terms[0].K.labels.tolist() == models[1].covariance.terms[0].K.labels.tolist()


def test_a_column_that_is_there_twice_is_refused() -> None:
    data = pd.DataFrame(np.arange(12.0).reshape(4, 3), columns=["y", "x", "x"])
    with pytest.raises(InputError, match="the table has the column 'x' twice"):
        MixedModel.from_dataframe(data, "y ~ x", {})


def test_numbers_held_as_text_are_no_silent_factor() -> None:
    """A data frame of objects: pandas keeps a column so after a word was among its numbers."""
    y, x = np.random.default_rng(4).normal(size=(2, 30))
    text = pd.DataFrame({"y": y, "x": list(map(str, x))})
    with pytest.raises(InputError, match=r"column x holds numbers as text; make them numbers, or write C\(x\)"):
        MixedModel.from_dataframe(text, "y ~ x", {})
    text.loc[5, "x"] = "low"
    with pytest.raises(InputError, match=r"column x, record 6: 'low' is not a number, as 29 of 30 values are"):
        MixedModel.from_dataframe(text, "y ~ x", {})
    marks = text.assign(x=np.tile(["1", "2", "3"], 10))
    assert MixedModel.from_dataframe(marks, "y ~ C(x)", {}).fixed_names == ("Intercept", "C(x)[T.2]", "C(x)[T.3]")
