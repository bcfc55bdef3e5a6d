"""Why a worker process ended itself, left in the cluster's key-value store for the next attempt and the driver."""

from __future__ import annotations

from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_put

NAMESPACE = b"stabletune"


def leave(trial_id: str, sentence: str) -> None:
    """Leave the reason; called in a worker of the trial."""
    _internal_kv_put(_key(trial_id), sentence.encode(), overwrite=True, namespace=NAMESPACE)


def left(trial_id: str) -> str | None:
    """What an earlier attempt at this trial left, if anything."""
    found: bytes | None = _internal_kv_get(_key(trial_id), namespace=NAMESPACE)
    return None if found is None else found.decode()


def _key(trial_id: str) -> bytes:
    return f"last_words:{trial_id}".encode()
