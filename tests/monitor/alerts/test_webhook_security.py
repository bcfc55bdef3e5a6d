"""What a webhook's URL may hold, that its secrets are told nobody, and that nothing can be put into its request."""

import json
import logging
import socket
import threading

import pytest

from stabletune.monitor.alerts.webhook_sink import WebhookSink
from stabletune.records import Alert

SECRET = "hunter2"
ACCEPTED = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


def alert(message="step 7: odd"):
    return Alert(step=7, level="spiked", previous="calm", message=message, loss=3.0)


@pytest.mark.parametrize(
    "url",
    [
        f"https://user:{SECRET}@example.org/hook",
        f"https://{SECRET}@example.org/hook",
        f"https://:{SECRET}@example.org/hook",
        f"user:{SECRET}@example.org",
        f"ftp://user:{SECRET}@example.org/",
        f"file:///home/{SECRET}",
        f"javascript://{SECRET}",
        f"https://[{SECRET}/hook",
        f"https://user:{SECRET}@ho\u2100st/hook",
        f"https://example.org:{SECRET}/hook",
        f"https://example.org:99999/{SECRET}",
        f"https://example.org:0/{SECRET}",
        f"https://example.org/hook\r\nX-Injected: {SECRET}",
        f"https://example.org/hook\n{SECRET}",
        f"https://example.org\r\nX-Injected: {SECRET}/hook",
        f"\thttps://example.org/{SECRET}",
        f"https://example.org/\x00{SECRET}",
        f"https://example.org/a b?{SECRET}",
        f"https://example.org/\xe9{SECRET}",
    ],
)
def test_a_url_that_cannot_be_posted_to_is_refused_without_its_secret(url):
    with pytest.raises(ValueError, match="url: must") as caught:
        WebhookSink(url)
    assert SECRET not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize("url", ["https://example.org/hook", "HTTP://example.org", "https://[::1]:8443/a?b=c%20d"])
def test_http_and_https_are_taken_and_not_shown(url):
    sink = WebhookSink(f"{url}#{SECRET}")
    assert SECRET not in repr(sink) + str(sink)


class OneShot:
    """Keeps the bytes of one request, and gives ``answer``."""

    def __init__(self, answer):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._answer, self.request = answer, b""
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}/hook?token={SECRET}"

    def wait(self):
        self._thread.join()
        self._listener.close()

    def _serve(self):
        connection, _ = self._listener.accept()
        with connection:
            while b"\r\n\r\n" not in self.request or len(self.request) < self._length():
                self.request += connection.recv(65536)
            connection.sendall(self._answer)

    def _length(self):
        head, _, _ = self.request.partition(b"\r\n\r\n")
        (length,) = (line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
        return len(head) + 4 + int(length.split(b":")[1])


@pytest.mark.parametrize(
    "name", ['x", "level": "calm', "x\r\nX-Injected: 1\r\n\r\n{}", "\x00\x1b[31m", "\ud800", "</script><script>", "\\"]
)
def test_what_a_name_or_a_message_holds_stays_in_its_string(name):
    server = OneShot(ACCEPTED)
    sink = WebhookSink(server.url, name=name)
    sink(alert(message=name))
    sink.close()
    server.wait()
    head, _, body = server.request.partition(b"\r\n\r\n")
    assert b"X-Injected" not in head
    content = json.loads(body)
    assert (content["name"], content["message"], content["level"]) == (name, name, "spiked")
    assert content["text"] == f"{name}: spiked: {name}"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed_and_is_logged(caplog, status):
    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        elsewhere.setblocking(False)
        location = f"http://127.0.0.1:{elsewhere.getsockname()[1]}/{SECRET}"
        head = f"HTTP/1.1 {status} Moved\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"
        server = OneShot(head.encode())
        sink = WebhookSink(server.url, timeout=30.0)
        sink(alert())
        server.wait()
        sink.close()
        with pytest.raises(BlockingIOError):
            elsewhere.accept()
    assert "posting an alert to 127.0.0.1 failed: HTTPError" in caplog.text
    assert SECRET not in caplog.text


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: ftp://127.0.0.1/x\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_no_answer_brings_the_secret_into_the_log(caplog, answer):
    caplog.set_level(logging.DEBUG)
    server = OneShot(answer)
    sink = WebhookSink(server.url)
    sink(alert())
    sink.close()
    server.wait()
    assert "failed" in caplog.text
    assert SECRET not in caplog.text and "/hook" not in caplog.text
