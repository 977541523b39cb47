"""Every method and structure against torch-openreml 0.1.0a0: docs/parity.md.

    python -m benchmarks.parity

Run at the root of a checkout. float64; ours with ``jitter=1e-6``, which is what torch-openreml adds. The models are those of
``tests/helpers/peer.py``, on which the tests insist.
"""

from __future__ import annotations

import argparse
import warnings
from importlib.metadata import version
from pathlib import Path

import torch
import torch_openreml
import torch_openreml.covariance as their_covariance

from openreml_dist import covariance
from tests.helpers.peer import (
    METHODS,
    PAIRED_OTHERWISE,
    STRUCTURES,
    Model,
    as_the_peer_pairs,
    difference,
    documented_model,
    ours,
    put_together,
    random_model,
    theirs,
)

NUM_MODELS = 20
AGREEMENT = 1e-8

PAGE = """# Parity with torch-openreml {version}

Written by `python -m benchmarks.parity`; `tests/reml/test_peer.py` insists on the same numbers on 1 and 2 ranks. Both
programs in float64 on one model; ours with `jitter=1e-6`, the ridge that torch-openreml always adds. A difference is the
largest of a number, divided by the largest number of its tensor where that is above 1. Agreement is asked to {agreement:.0e}.

## Methods

On the documented example (`john_alpha`, 72 plots, `optimize` from zero until it converges: {count} iterations in both) and on
{models} random models ({samples} samples, {parameters} parameters; sums, products, Kronecker products, blocks, interactions;
4 iterations of `optimize` with `eta=0.5` and bounds).

| method | documented example | {models} random models | torch-openreml raises |
|---|---|---|---|
{methods}

Where torch-openreml raises, ours is compared with what its other methods give: `loglik` with the last value of its `ai_step`,
`predict` with its `marginal_predict` + Z·`blup`, `residual` with y less that.

## Pairing of the history

`history["theta"][i]` is the θ at which `beta`, `loglik`, `score` and `ai` of entry i were computed, and the last entry is that
of the θ which `optimize` returns: `get_theta()` and `get_beta()` are what it returned, and `beta` is `blue` at that θ. In
torch-openreml an entry's θ is the one after the update, so that its `get_theta` and `get_beta` (and the two that `optimize`
returns) answer for two iterates. Ours paired like that are theirs:

| | documented example, as they are | paired like theirs | {models} random models, as they are | paired like theirs |
|---|---|---|---|---|
{pairing}

## Structures

V(θ), its derivatives, the natural parameters, and the names of the parameters (equal in every case):

| structure | parameters | largest difference |
|---|---|---|
{structures}

## What torch-openreml gets wrong, seen from outside

| | |
|---|---|
{defects}
"""


def extent(counts: list[int]) -> str:
    return f"{min(counts)} to {max(counts)}"


def cell(differences: list[float]) -> str:
    worst = max(differences)
    return f"{worst:.1e}" if worst < AGREEMENT else f"**{worst:.1e}**"


def method_rows(models: list[Model], pairs: list[tuple[dict, dict]]) -> list[str]:
    rows = []
    for name in METHODS:
        if name in PAIRED_OTHERWISE:
            continue
        raised = sorted({their[name].split(":")[0] for _, their in pairs if isinstance(their[name], str)})
        expected = [
            put_together(their, model)[name] if raised else their[name] for model, (_, their) in zip(models, pairs, strict=True)
        ]
        differences = [difference(mine[name], values) for (mine, _), values in zip(pairs, expected, strict=True)]
        rows.append(f"| `{name}` | {cell(differences[:1])} | {cell(differences[1:])} | {', '.join(raised)} |")
    return rows


def pairing_rows(pairs: list[tuple[dict, dict]]) -> list[str]:
    rows = []
    for name in PAIRED_OTHERWISE:
        plain = [difference(mine[name][: len(their[name])], their[name]) for mine, their in pairs]
        shifted = [difference(as_the_peer_pairs(mine)[name], their[name]) for mine, their in pairs]
        cells = (f"{plain[0]:.1e}", cell(shifted[:1]), f"{max(plain[1:]):.1e}", cell(shifted[1:]))
        rows.append(f"| `{name}` | {' | '.join(cells)} |")
    return rows


def structure_rows() -> list[str]:
    rows = []
    for name, build in STRUCTURES.items():
        mine, their = build(covariance), build(their_covariance)
        theta = torch.linspace(-0.4, 0.9, their.num_params, dtype=torch.float64)
        assert mine.param_names == their.param_names
        values = [(mine(theta), their(theta)), (mine.trans_params(theta), their.trans_params(theta))]
        if their.num_params:
            values.append((mine.map_theta_to_dv(theta), their.map_theta_to_dv(theta)))
        worst = max(difference([a], [b]) for a, b in values if a.numel())
        rows.append(f"| {name} | {', '.join(f'`{p}`' for p in mine.param_names)} | {cell([worst])} |")
    return rows


def defect_rows() -> list[str]:
    """What can be measured by calling it."""
    theta = torch.tensor([0.1, 0.2], dtype=torch.float64)
    V = their_covariance.AR1Matrix(3)
    by_function = torch_openreml.REML(map_theta_to_v=V).compute_v_dv(theta)[1]
    wrong = float((by_function - V.map_theta_to_dv(theta)).abs().max())
    raised = {}
    for name, call in {
        "`ScalarMatrix(3, no_grad_index=[0])`": lambda: their_covariance.ScalarMatrix(3, no_grad_index=[0]),
        "`DummyMatrix` of numbers": lambda: their_covariance.DummyMatrix([1, 2, 1]),
        "`update` with a bound for each parameter and one for all": lambda: torch_openreml.REML(V).update(
            theta, theta, 1.0, lb=0.0, ub=theta
        ),
        "`get_theta` before `optimize`": lambda: torch_openreml.REML(V).get_theta(),
    }.items():
        try:
            call()
        except Exception as error:
            raised[name] = type(error).__name__
    return [
        f"| derivative of `REML(map_theta_to_v=V)` with its own `V = AR1Matrix(3)` | wrong by {wrong:.1f} |",
        f"| `shape` of an operator | `{their_covariance.Sum(V, V).shape}` |",
        *(f"| {name} | raises {error} |" for name, error in raised.items()),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "docs" / "parity.md")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    models = [documented_model(), *map(random_model, range(NUM_MODELS))]
    pairs = [(ours(model), theirs(model)) for model in models]
    page = PAGE.format(
        version=version("torch-openreml"),
        agreement=AGREEMENT,
        models=NUM_MODELS,
        count=int(pairs[0][0]["optimize"][1]),
        samples=extent([len(model.y) for model in models[1:]]),
        parameters=extent([len(model.theta) for model in models[1:]]),
        methods="\n".join(method_rows(models, pairs)),
        pairing="\n".join(pairing_rows(pairs)),
        structures="\n".join(structure_rows()),
        defects="\n".join(defect_rows()),
    )
    arguments.out.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
