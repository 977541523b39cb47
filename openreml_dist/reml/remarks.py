"""What is remarkable about y before it is fitted: outliers, spikes of equal values, codes, skewness. Nothing is left out.

The model is y ~ N(Xβ, V): one value far away can take the whole variance, and a code for a missing value or a group is fitted
as an amount. Thresholds are such that normal data are remarked on once in 1,000 times at most (docs/method.md).

Legend: n records, p fixed effects; SD is 1.4826 median |y − median y|, which half of the values can be wrong without changing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]

FAR = 6.0  # SD from the median
LARGEST_PART = 0.01  # of the records, that can be called outliers; more are a tail
LEAST_RECORDS, LEAST_FOR_SHAPE = 30, 100
MOST_LEVELS = 10  # of codes
LEAST_LEVELS = 6  # of counts that do not begin with 0: litters, scores
LARGEST_GAP, SEVERAL = 2, 5  # a level farther from the one before it stands apart, and is a code if it has several records
SPIKE_RECORDS, SPIKE_PART = 10, 0.01  # of a value that is there again and again; the part where it is not far away
SPIKE_RATIO = 10.0  # to the records of the values beside it, and to those that values have as a rule
MOST_SPIKES = 3  # values heaped at round numbers are no spikes
LARGE_SPIKE = 0.1  # the shape of what is left says little
SKEWED, SKEWED_COUNT = 1.5, 5.0  # an exponential distribution has 2; counts are skewed by nature
HEAVY = 5.0  # excess kurtosis; a Laplace distribution has 3
LARGEST_COUNT = 30.0  # median, above which counts are as good as amounts
MAD_TO_SD = 1.482602218505602
TAILS_TO_SD = 2.5631031310892007  # between the quantiles 0.1 and 0.9 of a normal distribution
CASE_CONTROL = ((0.0, 1.0), (1.0, 2.0))
BLOCK_ROWS = 100_000
NAMED = 5  # records named in a sentence
KEPT = 100  # records kept


@dataclass(frozen=True)
class Remark:
    """One thing that is remarkable.

    Attributes:
        kind: outliers, tails, spike, codes, skewness or kurtosis.
        of: phenotype, or residuals (of the fixed effects, by least squares).
        text: a sentence, without the records.
        count: records that it is about.
        records: their numbers from 0, the farthest first, at most ``KEPT``; none where no single one is meant.
        values: of y, one a record.
        distances: SD above or below the median, of the phenotype or the residuals; one a record.
    """

    kind: str
    of: str
    text: str
    count: int
    records: tuple[int, ...] = ()
    values: tuple[float, ...] = ()
    distances: tuple[float, ...] = ()

    def sentence(self, name: Callable[[int], str] = lambda record: f"record {record}") -> str:
        """The text with the farthest records, by their names."""
        if not self.records:
            return self.text
        told = [
            f"{name(record)} has {value:.6g} ({distance:+.3g} SD)"
            for record, value, distance in zip(self.records[:NAMED], self.values, self.distances, strict=False)
        ]
        more = f", and {self.count - len(told):,} more" if self.count > len(told) else ""
        return f"{self.text}: {', '.join(told)}{more}"


def remarks_on(y: Tensor | Array, X: Tensor | Array | None = None) -> list[Remark]:
    """Look at a phenotype, and at what the fixed effects leave of it. Local; cost n log n and 2np² flops.

    Two values, 0 and 1 or 1 and 2, are case and control: nothing is said of them.

    Args:
        y: (n,) finite, of one trait.
        X: (n, p) fixed effects; without, or with an intercept alone, y stands for its residuals.
    """
    values = _array(y)
    levels, counts = np.unique(values, return_counts=True)
    if len(values) < LEAST_RECORDS or tuple(levels) in CASE_CONTROL or len(levels) < 2:
        return []
    codes = _codes(levels, counts)
    if codes is not None:
        return [codes]
    is_count = bool((levels == np.floor(levels)).all() and levels[0] >= 0 and np.median(values) <= LARGEST_COUNT)
    few = len(levels) <= MOST_LEVELS
    spikes = [] if few else _spikes(values, levels, counts, is_count)
    spiked = np.isin(values, spikes)
    distance = np.where(spiked, 0.0, _distances(values, values[~spiked], is_count))
    found = [_spike(spike, values, spiked, is_count) for spike in spikes]
    if far := _outliers("phenotype", values, distance):
        found.append(far)
    has_tails = far is not None and far.kind == "tails"
    ordinary = ~spiked & ((np.abs(distance) <= FAR) | has_tails)
    if spiked.mean() > LARGE_SPIKE or ordinary.sum() < LEAST_RECORDS:
        return found
    of, rest = "phenotype", values
    if X is not None and X.shape[1] > 1:
        of, rest = "residuals", residuals(values, _array(X), ordinary)
        if not (is_count or few or has_tails):
            distance = np.where(ordinary, _distances(rest, rest[ordinary], False), 0.0)
            beyond = _outliers(of, values, distance)
            found += [beyond] if beyond else []
            ordinary &= np.abs(distance) <= FAR
    return [*found, *_shape(of, rest[ordinary], is_count)]


def residuals(y: Array, X: Array, used: NDArray[np.bool_]) -> Array:
    """y − Xβ̂ (n,), with β̂ by least squares over the records ``used``, which may leave X without full rank.

    The triangular factor of [X y] is made in blocks of rows, so that no copy of X is.
    """
    lengths = np.linalg.norm(X, axis=0)
    scale = np.where(lengths > 0, lengths, 1.0)
    p = X.shape[1]
    R = np.zeros((0, p + 1))
    for start in range(0, len(y), BLOCK_ROWS):
        rows = slice(start, start + BLOCK_ROWS)
        block = np.column_stack([X[rows] / scale, y[rows]])[used[rows]]
        R = np.asarray(np.linalg.qr(np.vstack([R, block]), mode="r"), np.float64)
    beta = np.linalg.lstsq(R[:p, :p], R[:p, p], rcond=1e-8)[0] / scale
    return np.asarray(y - X @ beta, np.float64)


def _codes(levels: Array, counts: NDArray[np.int64]) -> Remark | None:
    """A few whole numbers that are no counts 0, 1, 2, ... of something."""
    if len(levels) > MOST_LEVELS or (levels != np.floor(levels)).any() or _are_counts(levels, counts):
        return None
    listed = ", ".join(f"{level:g}" for level in levels)
    text = (
        f"all values are among {len(levels)} whole numbers ({listed}), fitted as amounts; if they are codes, of groups or of a "
        f"missing value, recode them: case and control are 0 and 1 or 1 and 2, and what is missing is NA"
    )
    return Remark("codes", "phenotype", text, int(counts.sum()))


def _are_counts(levels: Array, counts: NDArray[np.int64]) -> bool:
    """From 0, or 6 levels and more; rising, then falling, but for chance and for zeros; no level of several stands apart."""
    apart = np.flatnonzero(np.diff(levels) > LARGEST_GAP) + 1
    if (counts[apart] >= SEVERAL).any():
        return False
    if len(apart):
        levels, counts = levels[: apart[0]], counts[: apart[0]]
    if levels[0] != 0 and len(levels) < LEAST_LEVELS:
        return False
    filled = np.zeros(int(levels[-1] - levels[0]) + 1)
    filled[(levels - levels[0]).astype(np.int64)] = counts
    return _rises_then_falls(filled) or (len(levels) >= LEAST_LEVELS and _rises_then_falls(filled[1:]))


def _rises_then_falls(counts: Array) -> bool:
    """No step in the wrong direction by more than four standard errors of Poisson counts."""
    mode, steps = int(counts.argmax()), np.diff(counts)
    steps[:mode] *= -1
    return bool((steps <= 4 * np.sqrt(counts[1:] + counts[:-1])).all())


def _spikes(values: Array, levels: Array, counts: NDArray[np.int64], is_count: bool) -> list[float]:
    """Values of far more records than those beside them, and far from the others or of far more than values have as a rule.

    Zeros of counts are none; heaps at round numbers are too many to be any.
    """
    padded = np.concatenate([[0], counts, [0]])
    beside = np.maximum(padded[:-2], padded[2:])
    candidates = np.flatnonzero((counts >= SPIKE_RECORDS) & (counts >= SPIKE_RATIO * beside))
    if is_count:
        candidates = candidates[levels[candidates] != 0.0]
    far = np.abs(_distances(levels[candidates], values, is_count)) > FAR
    ascending = np.sort(counts)
    others = len(values) - counts[candidates]
    rule = ascending[np.searchsorted(np.cumsum(ascending), 0.25 * others)]  # lower quartile over the other records
    usual = (counts[candidates] < SPIKE_RATIO * rule) | (counts[candidates] < SPIKE_PART * len(values))
    found = candidates[far | ~usual]
    return levels[found].tolist() if len(found) <= MOST_SPIKES else []


def _spike(spike: float, y: Array, spiked: NDArray[np.bool_], is_count: bool) -> Remark:
    count = int((y == spike).sum())
    distance = float(_distances(np.array([spike]), y[~spiked], is_count)[0])
    far = f", {distance:+.3g} SD from the median of the others" if abs(distance) > FAR else ""
    text = (
        f"{count:,} of {len(y):,} records ({count / len(y):.1%}) have the value {spike:g}{far}: a code for a missing value, or "
        f"a limit of what can be measured?"
    )
    return Remark("spike", "phenotype", text, count)


def _distances(values: Array, reference: Array, is_count: bool) -> Array:
    """SD of each value from the median of ``reference``; of a count, on its own or on the logarithmic scale, what is less."""
    plain = _in_sds(values, reference, is_count)
    if not is_count:
        return plain
    logarithmic = _in_sds(np.log1p(np.maximum(values, 0.0)), np.log1p(reference), is_count)
    return np.where(np.abs(logarithmic) < np.abs(plain), logarithmic, plain)


def _in_sds(values: Array, reference: Array, is_count: bool) -> Array:
    """(values − median) / SD; on the wider side of a skewed distribution its own SD; 0 where most are equal.

    Where at least half of the reference are equal the median distance is 0, and of counts it is rough: then from the quantiles.
    """
    median = np.median(reference)
    below, above = reference[reference <= median], reference[reference >= median]
    both, left, right = (MAD_TO_SD * float(np.median(np.abs(part - median))) for part in (reference, below, above))
    if is_count or both == 0.0:
        low, middle, high = np.quantile(reference, (0.1, 0.5, 0.9))
        left = max(left, 2 * (middle - low) / TAILS_TO_SD)
        right = max(right, 2 * (high - middle) / TAILS_TO_SD)
        both = max(both, (high - low) / TAILS_TO_SD)
    if both == 0.0:
        return np.zeros_like(values)
    return (values - median) / np.where(values < median, max(left, both), max(right, both))


def _outliers(of: str, y: Array, distance: Array) -> Remark | None:
    """Records more than ``FAR`` SD away: outliers if they are few, else a heavy tail."""
    far = np.flatnonzero(np.abs(distance) > FAR)
    if not len(far):
        return None
    what = "" if of == "phenotype" else " after the fixed effects"
    few = len(far) <= max(1, LARGEST_PART * len(y))
    far = far[np.argsort(-np.abs(distance[far]), kind="stable")]
    kept = far[:KEPT]
    some = f"{len(far):,} of {len(y):,} records" + ("" if few else f" ({len(far) / len(y):.1%})")
    lie = "lies" if len(far) == 1 else "lie"
    text = f"{some} {lie} more than {FAR:g} SD from the median{what}" + ("" if few else ", tails far from normal")
    return Remark(
        "outliers" if few else "tails", of, text, len(far),
        tuple(kept.tolist()), tuple(y[kept].tolist()), tuple(distance[kept].tolist()),
    )  # fmt: skip


def _shape(of: str, values: Array, is_count: bool) -> list[Remark]:
    """Skewness m₃/m₂^1.5, else excess kurtosis m₄/m₂² − 3; of counts the skewness alone."""
    if len(values) < LEAST_FOR_SHAPE:
        return []
    centred = values - values.mean()
    size = np.abs(centred).max()
    if size == 0.0:
        return []
    centred = centred / size  # so that no power of it is out of range
    second, third, fourth = (float((centred**power).mean()) for power in (2, 3, 4))
    skewness, kurtosis = third / second**1.5, fourth / second**2 - 3
    what = "the phenotype" if of == "phenotype" else "what the fixed effects leave"
    if abs(skewness) > (SKEWED_COUNT if is_count else SKEWED):
        text = (
            f"{what} is strongly skewed (skewness {skewness:.2g}, of a normal distribution 0); standard errors and tests "
            f"assume a normal one, which logarithms or normal scores may have"
        )
        return [Remark("skewness", of, text, len(values))]
    if kurtosis > HEAVY and not is_count:
        text = (
            f"{what} has heavy tails (excess kurtosis {kurtosis:.2g}, of a normal distribution 0); standard errors and tests "
            f"assume a normal one"
        )
        return [Remark("kurtosis", of, text, len(values))]
    return []


def _array(values: Tensor | Array) -> Array:
    return values.detach().cpu().double().numpy() if isinstance(values, Tensor) else np.asarray(values, np.float64)
