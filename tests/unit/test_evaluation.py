"""Which evaluation follows which."""

from __future__ import annotations

import pytest

from openreml_dist.reml.dense.schedule import (
    ANCHORED,
    ANCHORED_SINGLE,
    EXACT,
    EXACT_SINGLE,
    LARGEST_NOISE,
    PROBES_SINGLE,
    DenseSchedule,
    Evaluation,
    Traces,
)

AUTO = DenseSchedule("auto")


@pytest.mark.parametrize(
    ("last", "move", "noise", "following"),
    [
        (PROBES_SINGLE, 20.0, 0.1, PROBES_SINGLE),
        (PROBES_SINGLE, 1.0, 0.1, EXACT_SINGLE),
        (EXACT_SINGLE, 1.0, 0.0, ANCHORED_SINGLE),
        (ANCHORED_SINGLE, 1.0, 0.01, ANCHORED_SINGLE),
        (ANCHORED_SINGLE, 0.01, 0.001, EXACT),
        (EXACT, 0.1, 0.0, EXACT),
        (EXACT, 0.001, 0.0, ANCHORED),
        (ANCHORED, 1e-4, 0.5 * LARGEST_NOISE, ANCHORED),
        (ANCHORED, 1e-4, 2 * LARGEST_NOISE, EXACT),
    ],
)
def test_auto_goes_from_cheap_to_exact(last: Evaluation, move: float, noise: float, following: Evaluation) -> None:
    assert AUTO.first() == PROBES_SINGLE
    assert AUTO.following(last, move, noise) == following


@pytest.mark.parametrize(("method", "evaluation"), [("exact", EXACT), ("hutchinson", PROBES_SINGLE)])
def test_the_others_never_change(method: str, evaluation: Evaluation) -> None:
    schedule = DenseSchedule(method)
    assert (
        schedule.first() == schedule.following(evaluation, 1.0, 0.1) == schedule.following(evaluation, 0.0, 0.0) == evaluation
    )
    assert schedule.may_end(evaluation, 0.1 if method == "hutchinson" else 0.0)


def test_auto_ends_in_float64_with_little_noise() -> None:
    assert AUTO.may_end(EXACT, 0.0) and AUTO.may_end(ANCHORED, 0.9 * LARGEST_NOISE)
    assert not AUTO.may_end(ANCHORED, 1.1 * LARGEST_NOISE)
    assert not AUTO.may_end(EXACT_SINGLE, 0.0) and not AUTO.may_end(ANCHORED_SINGLE, 0.0)
    assert AUTO.negligible_move(0.0, 1e-6) <= LARGEST_NOISE
    assert DenseSchedule("exact").negligible_move(0.0, 1e-6) == 1e-6
    assert DenseSchedule("hutchinson").negligible_move(0.1, 1e-6) == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("method", "size", "num_probes", "is_linear", "chosen"),
    [
        ("auto", 5000, 64, True, "auto"),
        ("auto", 500, 64, True, "exact"),
        ("auto", 5000, 64, False, "exact"),
        ("hutchinson", 500, 64, True, "hutchinson"),
        ("hutchinson", 50, 64, True, "exact"),
        ("hutchinson", 500, 64, False, "exact"),
        ("exact", 5000, 64, True, "exact"),
    ],
)
def test_method_is_that_asked_for_where_it_makes_sense(
    method: str, size: int, num_probes: int, is_linear: bool, chosen: str
) -> None:
    assert DenseSchedule.choose(method, size, num_probes, is_linear) == DenseSchedule(chosen)


def test_an_evaluation_names_itself() -> None:
    assert str(EXACT) == "exact float64"


@pytest.mark.parametrize("after", [EXACT, EXACT_SINGLE, ANCHORED, ANCHORED_SINGLE, PROBES_SINGLE])
@pytest.mark.parametrize("before", [EXACT, EXACT_SINGLE, ANCHORED, ANCHORED_SINGLE, PROBES_SINGLE])
def test_scores_compare_within_a_precision_and_not_from_anchor_to_anchor(before: Evaluation, after: Evaluation) -> None:
    new_anchor = after.traces is Traces.EXACT and before.traces is not Traces.EXACT
    assert (str(before) in after.comparable) == (before.dtype == after.dtype and not new_anchor)


@pytest.mark.parametrize("method", ["auto", "hutchinson", "exact"])
def test_whatever_fails_but_exact_traces_in_float64_falls_back_on_these(method: str) -> None:
    schedule = DenseSchedule(method)
    assert schedule.fallback(EXACT) is None
    assert schedule.fallback(PROBES_SINGLE) == schedule.fallback(ANCHORED) == DenseSchedule("exact")
