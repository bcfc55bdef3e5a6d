"""Why a worker process ended itself or was ended, left in the cluster's key-value store for the next attempt."""

from __future__ import annotations

from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_put

NAMESPACE = b"stabletune"


def leave(trial_id: str, sentence: str) -> None:
    """Leave the reason, unless there is one; called in a worker of the trial, or for one that cannot."""
    _internal_kv_put(_key(trial_id), sentence.encode(), overwrite=False, namespace=NAMESPACE)


def left(trial_id: str) -> str | None:
    """What an earlier attempt at this trial left, if anything."""
    found: bytes | None = _internal_kv_get(_key(trial_id), namespace=NAMESPACE)
    return None if found is None else found.decode()


def doubt(trial_id: str) -> bool:
    """Note that this trial is tried again in another process; False where it was before."""
    return not _internal_kv_put(_key(trial_id, "doubted"), b"1", overwrite=False, namespace=NAMESPACE)


def _key(trial_id: str, what: str = "last_words") -> bytes:
    return f"{what}:{trial_id}".encode()
