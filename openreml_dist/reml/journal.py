"""What a dialogue was told so far, as plain data: a fresh one that is fed the same goes on as if it had never stopped.

The journal of a whole fit begins with its opening, what was found out before the iteration.

A driver is a generator, whose radius, secant correction and schedule are its locals. Nothing of them is saved, since all of
them follow from the start and the replies. So the state of a fit is its replies, each with the request that it answered; going
on is to begin again and answer from the journal as long as it lasts, checking that the same is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from openreml_dist.errors import InputError
from openreml_dist.reml.engine import Reply, Request, Want
from openreml_dist.reml.outcome import Dialogue
from openreml_dist.reml.ridges import Gram
from openreml_dist.reml.step import Information, LogLikelihood, Step

TENSORS = ("score", "score_noise", "AI", "beta", "beta_covariance")
NUMBERS = ("loglik", "loglik_error", "loglik_seen_error", "trace_error")


@dataclass(frozen=True)
class Entry:
    """One reply, and what was asked.

    Attributes:
        theta: (r,).
        how: the name of the way of evaluating.
        want: what was asked for.
        reply: of an engine, without the way in which it was evaluated, which is the request's.
    """

    theta: Tensor
    how: str
    want: Want
    reply: Reply

    @classmethod
    def of(cls, request: Request, reply: Reply) -> Entry:
        """Of an exchange that has taken place."""
        return cls(request.theta, str(request.how), request.want, reply)

    def to_data(self) -> dict[str, Any]:
        """Lists, numbers and texts: JSON keeps each bit of them."""
        reply = self.reply
        data: dict[str, Any] = {"theta": self.theta.tolist(), "how": self.how, "want": str(self.want), "reply": None}
        if isinstance(reply, LogLikelihood):
            data["reply"] = {"loglik": reply.loglik, "loglik_error": reply.loglik_error}
        elif isinstance(reply, Information):
            data["reply"] = {"expected": reply.expected.tolist()}
        elif reply is not None:
            data["reply"] = {
                **{name: getattr(reply, name) for name in NUMBERS},
                **{name: getattr(reply, name).tolist() for name in TENSORS},
                "comparable": sorted(reply.comparable),
                "carried": {name: values.tolist() for name, values in reply.carried.items()},
                "seconds": dict(reply.seconds),
            }
        return data

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Entry:
        """Of what ``to_data`` gave."""
        theta, found = _tensor(data["theta"]), data["reply"]
        reply: Reply = None
        r = len(theta)
        if found is not None and "expected" in found:
            reply = Information(_tensor(found["expected"]).reshape(r, r))
        elif found is not None and "score" not in found:
            reply = LogLikelihood(found["loglik"], found["loglik_error"])
        elif found is not None:
            p = len(found["beta"])
            shapes = {"score": (r,), "score_noise": (r, r), "AI": (r, r), "beta": (p,), "beta_covariance": (p, p)}
            numbers: dict[str, Any] = {name: found[name] for name in NUMBERS}
            tensors: dict[str, Any] = {name: _tensor(found[name]).reshape(shape) for name, shape in shapes.items()}
            reply = Step(
                theta=theta,
                **numbers,
                **tensors,
                evaluation=data["how"],
                comparable=frozenset(found["comparable"]),
                carried={name: _tensor(values) for name, values in found["carried"].items()},
                seconds=found["seconds"],
            )
        return cls(theta, data["how"], Want(data["want"]), reply)

    def answer(self, request: Request) -> Reply:
        """The reply, if this is what was asked.

        Raises:
            InputError: if something else is asked now.
        """
        asked = (str(request.how), request.want)
        if not torch.equal(self.theta, request.theta) or (self.how, self.want) != asked:
            raise InputError(
                f"the fit cannot be continued: it asks for {_words(*asked)} at "
                f"{request.theta.tolist()}, where it was told {_words(self.how, self.want)} at {self.theta.tolist()}; "
                "the data, the settings or the program have changed; resume=never begins anew"
            )
        if isinstance(self.reply, Step):
            return self.reply.evaluated(request.how)
        return self.reply


@dataclass(frozen=True)
class Opening:
    """Where the iteration begins: (r,) values, and how far the derivatives of V differ, if that was asked."""

    theta: Tensor
    gram: Gram | None

    def to_data(self) -> dict[str, Any]:
        """Lists and numbers: JSON keeps each bit of them."""
        gram = None if self.gram is None else {"products": self.gram.products.tolist(), "sizes": self.gram.sizes.tolist()}
        return {"theta": self.theta.tolist(), "gram": gram}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Opening:
        """Of what ``to_data`` gave."""
        theta, gram = _tensor(data["theta"]), data["gram"]
        r = len(theta)
        return cls(theta, None if gram is None else Gram(_tensor(gram["products"]).reshape(r, r), _tensor(gram["sizes"])))


class Journal(Protocol):
    """Of one fit, kept where it outlives the process."""

    @property
    def opening(self) -> Opening | None:
        """Of the fit before, on every rank; None if this is the first."""

    @property
    def entries(self) -> Sequence[Entry]:
        """Every exchange of the fit before, in order; on rank 0."""

    def open(self, opening: Opening) -> None:
        """Begin to write. Local: rank 0."""

    def add(self, entry: Entry) -> None:
        """Write down an exchange that has taken place. Local: rank 0."""

    def resumed(self) -> None:
        """Told when all of the fit before has been gone through, and something is asked anew. Local: rank 0."""


def continued(
    dialogue: Dialogue,
    journal: Iterable[Entry],
    record: Callable[[Entry], None] | None = None,
    resumed: Callable[[], None] | None = None,
) -> Dialogue:
    """A fresh dialogue that is answered from the journal as long as it lasts, then by whoever is asked.

    Args:
        dialogue: not yet begun, of the same start, bounds and settings.
        journal: every exchange of the dialogue before, in order.
        record: told every new exchange at once.
        resumed: told when the journal, if there is anything in it, has come to its end before the dialogue.
    Raises:
        InputError: if the dialogue asks for something else than the one before.
    """
    known = iter(journal)
    reply: Reply = None
    is_replayed = False
    while True:
        try:
            request = dialogue.send(reply)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        entry = next(known, None)
        if entry is not None:
            reply, is_replayed = entry.answer(request), True
            continue
        if is_replayed and resumed is not None:
            resumed()
        is_replayed = False
        reply = yield request
        if record is not None:
            record(Entry.of(request, reply))


def _words(how: str, want: Want) -> str:
    return f"{want} ({how})"


def _tensor(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)
