"""Waiting for what another thread or a browser does."""

from __future__ import annotations

import time
from collections.abc import Callable


def until(condition: Callable[[], bool], seconds: float = 240.0) -> bool:
    """Wait for a condition on the server; software rendering on a busy machine is slow."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False
