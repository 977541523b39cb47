"""Additive relationships from a pedigree, by tiles.

Legend: N animals in order of generation, so that parents come first; A (N, N) numerator relationships = T D Tᵀ with
T⁻¹ = I − ½P, P_ij = 1 where j is a parent of i, D the Mendelian sampling variances; F inbreeding.

References: Henderson (1976), Biometrics 32:69; Quaas (1976), Biometrics 32:949; Colleau (2002), Genet Sel Evol 34:409, products
with A without A.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from openreml_dist.covariance.indices import EVERYTHING, Index, Indices, Piece, Samples, Spans, as_indices
from openreml_dist.covariance.term import Selected, Term
from openreml_dist.errors import InputError
from openreml_dist.spellings import plainly, shown, written_elsewhere

# Codes of an unknown parent, in lower case; so are several zeros, such as 000, unless an animal is called so.
UNKNOWN = frozenset(
    {"", "0", "na", "n/a", "nan", "nat", "none", "null", "<na>", ".", "*", "-", "?", "-1", "-9", "unknown", "unk"}
)
WORK_BYTES = 16e6  # of a block of columns of A over all animals
PASS_BYTES = 256e6  # the same in a pass over many tiles, which shares it among the tiles of a block column


class PedigreeMatrix(Term):
    """A of a pedigree, without parameters, in the order of ``labels``.

    A column of A costs two walks through the generations, O(N); a pass over tiles takes each block column once.

    Args:
        animals: identifier of each animal, once.
        sires, dams: identifiers of its parents, or one of the codes ``UNKNOWN``. A parent that is no animal of the list is
            added as a founder.
        name: in messages.
    Raises:
        InputError: for an animal that is there twice, has a code of unknown parents for its name, or is its own ancestor; for
            parents that are written as 12.0 where the animals are 12.

    Attributes:
        labels: identifiers of all N animals: those given, then the parents that were added.
        inbreeding: F (N,).
    """

    is_stored = True

    def __init__(self, animals: Sequence[object], sires: Sequence[object], dams: Sequence[object], name: str) -> None:
        ids, sire_ids, dam_ids = _identifiers(animals, sires, dams)
        if not len(ids) == len(sire_ids) == len(dam_ids):
            raise InputError(f"{name}: animals, sires and dams differ in length: {len(ids)}, {len(sire_ids)}, {len(dam_ids)}")
        if not len(ids):
            raise InputError(f"{name}: the pedigree has no animals")
        place: dict[str, int] = {}
        for line, (animal, given) in enumerate(zip(ids, animals, strict=True)):
            if animal == "":
                raise InputError(
                    f"{name}: the pedigree has an animal that has no identifier: {given} stands for an unknown one"
                )
            if animal in place:
                parents = {tuple(side[at] or "unknown" for side in (sire_ids, dam_ids)) for at in (place[animal], line)}
                of = ", of different parents: " + "; ".join(" and ".join(pair) for pair in sorted(parents))
                raise InputError(f"{name}: the pedigree has an animal that is there twice: {animal}{of * (len(parents) > 1)}")
            place[animal] = len(place)
        _refuse_other_numbers(place, [*sire_ids, *dam_ids], name)
        for parent in (*sire_ids, *dam_ids):
            if parent:
                place.setdefault(parent, len(place))
        self.labels = tuple(place)
        self.name = name
        self.size = len(place)
        self._place = place
        sire, dam = (
            np.array([place[p] if p else -1 for p in column] + [-1] * (self.size - len(ids)), np.int64)
            for column in (sire_ids, dam_ids)
        )
        self._generations = _generations(sire, dam, self.labels, name)
        self._sire, self._dam = torch.from_numpy(sire), torch.from_numpy(dam)
        self.inbreeding = torch.zeros(self.size, dtype=torch.float64)
        self._D = torch.ones(self.size, dtype=torch.float64)
        self._find_inbreeding()

    def places_of(self, animals: Sequence[object]) -> Indices:
        """Where animals are among ``labels``.

        Raises:
            InputError: for one that the pedigree lacks.
        """
        identifiers = [_identifier(animal) for animal in animals]
        absent = [identifier for identifier in identifiers if identifier not in self._place]
        if absent:
            other = written_elsewhere(absent, self._place, plainly)
            hint = f"; it has {other[0][1]}, which may be the same written otherwise" if other else ""
            shown = other[0][0] if other else absent[0]
            raise InputError(
                f"{self.name}: {len(absent)} records are of animals that the pedigree lacks, such as {shown}{hint}"
            )
        return np.array([self._place[identifier] for identifier in identifiers], np.int64)

    def entries(self, rows: Samples, columns: Samples, eta: Tensor, device: torch.device) -> Tensor | None:
        """A on ``rows`` x ``columns``."""
        here = torch.tensor(as_indices(rows), device=device)
        blocks = [self._columns(part, device)[here] for part in self._parts(as_indices(columns), WORK_BYTES)]
        return torch.cat(blocks, dim=1)

    def pieces(self, spans: Spans, eta: Tensor, device: torch.device) -> Iterator[Piece]:
        """Pieces of A, block column by block column."""
        return self.pieces_at(None, spans, device)

    def pieces_at(self, index: Indices | None, spans: Spans, device: torch.device) -> Iterator[Piece]:
        """Pieces of A at the animals ``index`` (n,) of the samples, or of the animals themselves."""

        def animals(samples: range) -> Samples:
            return samples if index is None else index[samples.start : samples.stop]

        by_columns: dict[range, list[int]] = {}
        for number, (_, columns) in enumerate(spans):
            by_columns.setdefault(columns, []).append(number)
        done = 0
        for columns, numbers in by_columns.items():
            first = 0
            for part in self._parts(as_indices(animals(columns)), PASS_BYTES):
                A = self._columns(part, device)
                place = slice(first, first + len(part))
                first += len(part)
                for number in numbers:
                    values = A[_index(animals(spans[number][0]), device)]
                    finished = (done + (first / len(columns)) * len(numbers)) / len(spans)
                    yield Piece(number, EVERYTHING, place, values, finished)
            done += len(numbers)

    def selected(self, samples: Indices) -> Term:
        """A at some animals, in any order, repeated or not: those of records."""
        return _OfRecords(self, samples)

    def _parts(self, columns: Indices, num_bytes: float) -> list[Indices]:
        width = max(1, int(num_bytes / (8 * self.size)))
        return [columns[start : start + width] for start in range(0, len(columns), width)]

    def _columns(self, columns: Indices, device: torch.device, before: int | None = None) -> Tensor:
        """A[:, columns] (N, count) = T D Tᵀ E, of the first ``before`` generations alone if given."""
        generations = [g.to(device) for g in self._generations[:before]]
        parents = [side.to(device) for side in (self._sire, self._dam)]
        A = torch.zeros(self.size, len(columns), dtype=torch.float64, device=device)
        A[torch.from_numpy(columns).to(device), torch.arange(len(columns), device=device)] = 1.0
        # Tᵀ E: each animal hands half of what it has to its parents, the youngest first
        for animals in reversed(generations):
            for side in parents:
                known = animals[side[animals] >= 0]
                A.index_add_(0, side[known], A[known], alpha=0.5)
        A *= self._D.to(device)[:, None]
        # T: each animal has half of what its parents have, the oldest first
        for animals in generations:
            for side in parents:
                known = animals[side[animals] >= 0]
                A[known] += 0.5 * A[side[known]]
        return A

    def _find_inbreeding(self) -> None:
        """F_i = ½A_{sire, dam} and D_i = 1 − ¼Σ(1 + F_parent) over the known parents, generation by generation."""
        cpu = torch.device("cpu")
        for number, animals in enumerate(self._generations):
            sire, dam = self._sire[animals], self._dam[animals]
            for side in (sire, dam):
                known = side >= 0
                self._D[animals[known]] -= 0.25 * (1 + self.inbreeding[side[known]])
            both = animals[(sire >= 0) & (dam >= 0)]
            sires, which = torch.unique(self._sire[both], return_inverse=True)
            first = 0
            for part in self._parts(sires.numpy(), WORK_BYTES):
                A = self._columns(part, cpu, before=number)
                here = (which >= first) & (which < first + len(part))
                self.inbreeding[both[here]] = 0.5 * A[self._dam[both[here]], which[here] - first]
                first += len(part)


class _OfRecords(Selected):
    """A at the animals of records; a pass takes each block column once, as that over A does."""

    term: PedigreeMatrix
    is_stored = True

    def pieces(self, spans: Spans, eta: Tensor, device: torch.device) -> Iterator[Piece]:
        """Pieces of A, block column by block column."""
        return self.term.pieces_at(self.index, spans, device)


def _index(samples: Samples, device: torch.device) -> Index:
    return slice(samples.start, samples.stop) if isinstance(samples, range) else torch.from_numpy(samples).to(device)


def _identifier(value: object) -> str:
    """As text; empty where unknown."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # a table with unknown parents reads integers as floats
    text = str(value).strip()
    return "" if text.lower() in UNKNOWN else text


def _identifiers(
    animals: Sequence[object], sires: Sequence[object], dams: Sequence[object]
) -> tuple[list[str], list[str], list[str]]:
    """Animals, sires and dams as text; a parent of zeros alone, such as 000, is unknown where no animal is called so."""
    ids, *parents = ([_identifier(value) for value in column] for column in (animals, sires, dams))
    known = set(ids)
    sire_ids, dam_ids = (["" if set(p) == {"0"} and p not in known else p for p in column] for column in parents)
    return ids, sire_ids, dam_ids


def parent_remarks(animals: Sequence[object], sires: Sequence[object], dams: Sequence[object]) -> tuple[str, ...]:
    """In words, how many parents have no line of their own, and which names are both sire and dam. Local.

    Args: as those of ``PedigreeMatrix``.
    """
    ids, sire_ids, dam_ids = _identifiers(animals, sires, dams)
    of_sires, of_dams = Counter(filter(None, sire_ids)), Counter(filter(None, dam_ids))
    known = set(ids)
    added = [parent for parent in {**of_sires, **of_dams} if parent not in known]
    remarks = []
    if added:
        remarks.append(f"pedigree: {len(added):,} parents have no line of their own and are founders, such as {added[0]}")
    alike = written_elsewhere(added, ids, plainly)
    if alike:
        pair = " and ".join(map(shown, alike[0]))
        remarks.append(
            f"warning: pedigree: {len(alike):,} of them may be animals in another spelling, such as {pair}; if these are one, "
            "write both alike"
        )
    both = sorted(of_sires.keys() & of_dams.keys(), key=lambda parent: (-of_sires[parent] - of_dams[parent], parent))
    for names, beginning, end in (
        ([p for p in both if p not in known], "warning: pedigree", "; where it stands for an unknown parent, write 0 or NA"),
        ([p for p in both if p in known], "pedigree", ""),
    ):
        if names:
            most = f"{names[0]}, the sire of {of_sires[names[0]]:,} and the dam of {of_dams[names[0]]:,}"
            lines = "of no line of their own " if end else ""
            remarks.append(f"{beginning}: {len(names):,} names {lines}are both sire and dam, such as {most}{end}")
    return tuple(remarks)


def _refuse_other_numbers(animals: Mapping[str, int], parents: Sequence[str], name: str) -> None:
    """Raise where a parent without a line of its own is an animal whose number is written otherwise."""
    others = written_elsewhere([parent for parent in dict.fromkeys(parents) if parent and parent not in animals], animals)
    if others:
        parent, animal = others[0]
        raise InputError(
            f"{name}: the parent {parent} has no line of its own, but {animal} has, the same number written otherwise; "
            "write both alike"
        )


def _generations(sire: NDArray[np.int64], dam: NDArray[np.int64], labels: Sequence[str], name: str) -> list[Tensor]:
    """Animals by the length of their longest line of ancestors, founders first."""
    left = np.arange(len(sire))
    done = np.zeros(len(sire) + 1, bool)
    done[-1] = True  # an unknown parent
    generations = []
    while len(left):
        ready = done[sire[left]] & done[dam[left]]
        if not ready.any():
            raise InputError(f"{name}: the pedigree has a loop: {labels[left[0]]} or one of its ancestors is its own ancestor")
        generations.append(torch.from_numpy(left[ready]))
        done[left[ready]] = True
        left = left[~ready]
    return generations
