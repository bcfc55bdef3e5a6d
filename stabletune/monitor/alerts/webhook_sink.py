"""Alerts posted to a URL, from a thread of their own: the training never waits for a network."""

from __future__ import annotations

import atexit
import json
import logging
import queue
import threading
import urllib.request
from typing import Any
from urllib.parse import urlsplit

from stabletune.records import Alert, as_data

MOST_WAITING = 100
_log = logging.getLogger("stabletune")


class WebhookSink:
    """Posts each alert as JSON: its fields, and ``text``, which chat tools show.

    A post that fails or times out is logged, without the URL's path and query, which may hold a secret, and not tried
    again. While a hundred wait, further ones are dropped and that is logged. A process that ends, also by an exception,
    does as ``close`` does first; one that is killed does not.

    Args:
        url: http or https.
        timeout: of one post, in seconds.
        name: of the training, put before the text.

    Raises:
        ValueError: the URL is neither, or the timeout not above 0.
    """

    def __init__(self, url: str, *, timeout: float = 5.0, name: str = "training") -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"url: must begin with http:// or https:// and name a host, but got {parts.scheme!r}.")
        if not timeout > 0.0:
            raise ValueError(f"timeout: must be above 0 seconds, but got {timeout!r}.")
        self._url, self._host, self._timeout, self._name = url, parts.hostname, timeout, name
        self._waiting: queue.Queue[dict[str, Any] | None] = queue.Queue(MOST_WAITING)
        self._thread: threading.Thread | None = None

    def __call__(self, alert: Alert) -> None:
        """Hand it to the thread, which is started if there is none."""
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._work, name="stabletune-webhook", daemon=True)
            self._thread.start()
            atexit.register(self.close)
        content = {"text": f"{self._name}: {alert.level}: {alert.message}", "name": self._name, **as_data(alert)}
        try:
            self._waiting.put_nowait(content)
        except queue.Full:
            _log.warning("stabletune: %d alerts wait for %s; this one is dropped", MOST_WAITING, self._host)

    def close(self) -> None:
        """Wait until what was handed over has been posted, for three timeouts at most; a later alert begins anew."""
        atexit.unregister(self.close)
        if self._thread is None or not self._thread.is_alive():
            return
        try:
            self._waiting.put(None, timeout=self._timeout)
        except queue.Full:
            _log.warning("stabletune: %s did not take the last alerts", self._host)
            return
        self._thread.join(2.0 * self._timeout)

    def _work(self) -> None:
        while (content := self._waiting.get()) is not None:
            body = json.dumps(content, allow_nan=False).encode()
            headers = {"Content-Type": "application/json", "User-Agent": "stabletune"}
            try:
                request = urllib.request.Request(self._url, body, headers)
                with urllib.request.urlopen(request, timeout=self._timeout) as answer:
                    answer.read(1)
            except Exception as error:
                _log.warning("stabletune: posting an alert to %s failed: %s", self._host, type(error).__name__)
