"""Any number of dialogues on rank 0, their requests evaluated on all ranks, round by round, so that no rank can diverge."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from openreml_dist.grid import ProcessGrid
from openreml_dist.reml.engine import Reply, Request
from openreml_dist.reml.outcome import Dialogue, Outcome

Ended = Outcome | Exception
"""How a dialogue ended: with its outcome, or with an error of its own."""


def drive(
    grid: ProcessGrid, dialogues: Sequence[Dialogue] | None, evaluate: Callable[[Sequence[Request]], Sequence[Reply]]
) -> list[Ended]:
    """Hold dialogues on rank 0 and evaluate their requests on all ranks, those of all dialogues together: a round.

    A dialogue that ends leaves the others talking. Collective: one broadcast a round.

    Args:
        grid: the ranks.
        dialogues: on rank 0, such as ``average_information(...)``; None elsewhere.
        evaluate: collective; answers all requests of a round, in order; each says whose it is.
    Returns:
        How each dialogue ended, the same on every rank; an error of an evaluation is raised, on every rank.
    """
    ended: dict[int, Ended] = {}
    replies: dict[int, Reply] = {} if dialogues is None else dict.fromkeys(range(len(dialogues)))
    while True:
        here = None if dialogues is None else {k: _next(dialogues[k], reply) for k, reply in replies.items()}
        said = grid.broadcast_object(here)
        assert said is not None
        ended |= {k: what for k, what in said.items() if not isinstance(what, Request)}
        requests = {k: replace(what, dialogue=k) for k, what in said.items() if isinstance(what, Request)}
        if not requests:
            return [ended[k] for k in sorted(ended)]
        replies = dict(zip(requests, evaluate(list(requests.values())), strict=True))


def _next(dialogue: Dialogue, reply: Reply) -> Request | Ended:
    """The next request of a dialogue that is told a reply (None at its beginning), or how it ended."""
    try:
        return dialogue.send(reply)
    except StopIteration as end:
        outcome: Outcome = end.value
        return outcome
    except Exception as error:
        return error
