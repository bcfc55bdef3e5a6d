"""What an attempt at a trial tells the next by the cluster's key-value store: that it began, and why it was ended."""

from __future__ import annotations

import itertools

from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_put

NAMESPACE = b"stabletune"


def leave(trial_id: str, sentence: str) -> None:
    """Leave the reason, unless there is one; called in a worker of the trial, or for one that cannot."""
    _internal_kv_put(_key(trial_id), sentence.encode(), overwrite=False, namespace=NAMESPACE)


def left(trial_id: str) -> str | None:
    """What an earlier attempt at this trial left, if anything."""
    found: bytes | None = _internal_kv_get(_key(trial_id), namespace=NAMESPACE)
    return None if found is None else found.decode()


def begin(trial_id: str) -> int:
    """Note that an attempt at this trial begins; returns which one it is, from 1."""
    return next(
        n
        for n in itertools.count(1)
        if not _internal_kv_put(_key(trial_id, f"attempt_{n}"), b"1", overwrite=False, namespace=NAMESPACE)
    )


def _key(trial_id: str, what: str = "last_words") -> bytes:
    return f"{what}:{trial_id}".encode()
