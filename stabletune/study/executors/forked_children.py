"""Processes that user code forks hold none of the worker's own connections.

A child that outlives its worker would keep them open, and Ray take the dead worker for a busy one for as long.
"""

from __future__ import annotations

import functools
import os
import stat


@functools.cache
def withhold_connections() -> None:
    """Have every child of this process close the sockets that are open now.

    To be called before any user code has opened one; only the first call counts.
    """
    own = {number: which for name in os.listdir("/dev/fd") if (which := _socket(number := int(name))) is not None}

    def close() -> None:
        for number, which in own.items():
            if _socket(number) == which:
                os.close(number)

    os.register_at_fork(after_in_child=close)


def _socket(number: int) -> int | None:
    """What tells an open socket from a later one of the same number; None for what is none."""
    try:
        status = os.fstat(number)
    except OSError:  # closed since
        return None
    return status.st_ino if stat.S_ISSOCK(status.st_mode) else None
