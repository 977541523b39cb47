"""Batches of probes that outlive the process: an evaluation that was cut off goes on behind the last one that was kept.

Which batches an evaluation takes, and in which order, follows from the batches before. So it is repeated from its beginning,
and told what was found as long as it asks for the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field

from torch import Tensor

Found = Mapping[str, Tensor]
"""What a batch found, by name; float64 on the CPU."""


def _nothing(*_: object) -> None:
    return None


@dataclass(frozen=True)
class Batches:
    """Those that are known, and where new ones go.

    Attributes:
        known: by key; the same on every rank.
        keep: told the key and what was found, of every new batch.
        drop: told when an evaluation has ended, and its batches are not needed any more.
        between: called before each new batch; collective, and may raise to end the fit on all ranks.
    """

    known: MutableMapping[str, Found] = field(default_factory=dict)
    keep: Callable[[str, Found], None] = _nothing
    drop: Callable[[], None] = _nothing
    between: Callable[[], None] = _nothing

    def found(self, theta: Tensor, what: str, make: Callable[[], Found]) -> Found:
        """A batch at θ, from memory if it can be. Collective if ``make`` is.

        Args:
            theta: (K + 1,).
            what: which signs, how many of them, and what is done with them.
            make: finds it.
        """
        key = f"{hashlib.sha256(theta.cpu().numpy().tobytes()).hexdigest()[:16]}.{what}"
        if key not in self.known:
            self.between()
            batch = {name: values.cpu() for name, values in make().items()}
            self.keep(key, batch)
            return batch
        return self.known[key]

    def end(self) -> None:
        """Of an evaluation. Local."""
        self.known.clear()
        self.drop()
