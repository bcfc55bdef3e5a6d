"""What becomes of a search whose cluster loses its head: it is said at once, and what Ray raises becomes a sentence.

Ray waits a minute for its head (``RAY_gcs_rpc_server_reconnect_timeout_s``): one that keeps its state can come back.
Whoever asks it something meanwhile waits in Ray's core, which then ends the process: so it is said from a thread.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Iterator

from stabletune.errors import ClusterError

SECONDS_BETWEEN_TRIES, SILENT_TRIES = 2.0, 3
_log = logging.getLogger(__name__)


@contextlib.contextmanager
def watched_cluster() -> Iterator[None]:
    """Watch the head of the cluster that this process is connected to while trials run.

    Raises:
        ClusterError: Ray raised an error of its own, or its client lost the connection.
    """
    from ray.exceptions import RayError

    is_over = threading.Event()
    watch = threading.Thread(target=_watch, args=(_place_of_head(), is_over), name="stabletune-head", daemon=True)
    watch.start()
    try:
        yield
    except BrokenPipeError:  # of the terminal, not of the cluster
        raise
    except (RayError, ConnectionError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise ClusterError(
            f"resources.address: the cluster must answer until the search has ended, but gave: {reason}. "
            "Start it again, and go on with --resume."
        ) from error
    finally:
        is_over.set()
        watch.join()


def _place_of_head() -> tuple[str, int] | None:
    """Host and port of the head; None for a client, whom Ray tells in Python."""
    import ray
    from ray.util.client import ray as client

    if client.is_connected():  # type: ignore[no-untyped-call]
        return None
    host, _, port = ray.get_runtime_context().gcs_address.rpartition(":")
    return host.strip("[]"), int(port)


def _watch(place: tuple[str, int] | None, is_over: threading.Event) -> None:
    n_silent = 0
    while place is not None and not is_over.wait(SECONDS_BETWEEN_TRIES):
        n_silent = 0 if _answers(place) else n_silent + 1
        if n_silent == SILENT_TRIES:
            _log.warning(
                "resources.address: the head of the cluster must answer until the search has ended, but does not at "
                "%s:%d. Unless it comes back with what it knew, Ray ends this process within a minute; every finished "
                "trial is kept. Start it again, and go on with --resume.",
                *place,
            )


def _answers(place: tuple[str, int]) -> bool:
    try:
        socket.create_connection(place, timeout=SECONDS_BETWEEN_TRIES).close()
    except OSError:
        return False
    return True
