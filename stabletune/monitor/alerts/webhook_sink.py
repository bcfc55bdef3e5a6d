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


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any) -> None:
        """Leave the answer the error that it is."""


_opener = urllib.request.build_opener(_NoRedirect)


def _host_of(url: str) -> str:
    """The host of a URL that may be posted to; what is wrong with another is told without its secrets."""
    try:
        parts = urlsplit(url)
        is_whole = parts.port is None or parts.port > 0
    except ValueError:
        raise ValueError("url: must be a URL, but its host or port cannot be read. Copy it anew.") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or not is_whole:
        raise ValueError(f"url: must begin with http:// or https:// and name a host, but got {parts.scheme!r}.")
    if not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError("url: must hold no space, line break or letter beyond ASCII, but does. Percent-encode them.")
    if parts.username is not None or parts.password is not None:
        raise ValueError(
            "url: must hold no user and password, which would not be sent, but does. Use a token in its path."
        )
    return parts.hostname


class WebhookSink:
    """Posts each alert as JSON: its fields, and ``text``, which chat tools show.

    A post that fails or times out is logged, without the URL's path and query, which may hold a secret, and not tried
    again. While a hundred wait, further ones are dropped and that is logged. A process that ends, also by an exception,
    does as ``close`` does first; one that is killed does not.

    No redirect is followed: it would lead to an address that nobody named, and lose the alert on the way.

    Args:
        url: http or https, without a user and password.
        timeout: of one post, in seconds.
        name: of the training, put before the text.

    Raises:
        ValueError: the URL is neither or malformed, or the timeout not above 0; what it says holds no part of the URL
            but the scheme.
    """

    def __init__(self, url: str, *, timeout: float = 5.0, name: str = "training") -> None:
        host = _host_of(url)
        if not timeout > 0.0:
            raise ValueError(f"timeout: must be above 0 seconds, but got {timeout!r}.")
        self._url, self._host, self._timeout, self._name = url, host, timeout, name
        self._waiting: queue.Queue[dict[str, Any] | None] = queue.Queue(MOST_WAITING)
        self._thread: threading.Thread | None = None

    def __call__(self, alert: Alert) -> None:
        """Hand it to the thread, which is started if there is none."""
        if self._thread is None or not self._thread.is_alive():
            self._waiting = queue.Queue(MOST_WAITING)
            self._thread = threading.Thread(
                target=self._work, args=(self._waiting,), name="stabletune-webhook", daemon=True
            )
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
        thread, self._thread = self._thread, None  # a later alert has a thread and a queue of its own
        if thread is None or not thread.is_alive():
            return
        try:
            self._waiting.put(None, timeout=self._timeout)
        except queue.Full:
            _log.warning("stabletune: %s did not take the last alerts", self._host)
            return
        thread.join(2.0 * self._timeout)
        if thread.is_alive():
            _log.warning("stabletune: %s has not taken the last alerts yet", self._host)

    def _work(self, waiting: queue.Queue[dict[str, Any] | None]) -> None:
        while (content := waiting.get()) is not None:
            body = json.dumps(content, allow_nan=False).encode()
            headers = {"Content-Type": "application/json", "User-Agent": "stabletune"}
            try:
                request = urllib.request.Request(self._url, body, headers)
                with _opener.open(request, timeout=self._timeout) as answer:
                    answer.read(1)
            except Exception as error:
                _log.warning("stabletune: posting an alert to %s failed: %s", self._host, type(error).__name__)
