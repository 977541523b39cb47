"""Every test computes with as few threads as a rank of a full machine would have."""

from __future__ import annotations

import signal

import pytest
import torch
from hypothesis import settings

# What a script starts in the background ignores interrupts, and so would the programs that the tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("shared", deadline=None, print_blob=True)  # machines are busy; no test is about time
settings.load_profile("shared")


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)
