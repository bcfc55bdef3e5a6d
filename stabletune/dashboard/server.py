"""Serves the page and its data, to this machine alone unless told otherwise; only two fixed files and the state."""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import uvicorn
from plotly.offline import get_plotlyjs
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from stabletune.dashboard.state import StateReader, read_state
from stabletune.errors import ResourceError, StabletuneError

LOOPBACK = ("127.0.0.1", "localhost", "::1", "[::1]")
_log = logging.getLogger("stabletune")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def build_app(folder: Path, *, hosts: tuple[str, ...] = LOOPBACK) -> Starlette:
    """The application for one folder.

    Args:
        folder: a search's, or a watched training's.
        hosts: names under which it may be asked, so that no other site can reach it through a name of its own.
    """
    resources = files("stabletune.dashboard")
    style = (files("stabletune.results.report") / "page.css").read_text(encoding="utf-8")
    page, script = ((resources / name).read_text(encoding="utf-8") for name in ("page.html", "page.js"))

    def text(content: str, kind: str) -> Response:
        return Response(content, media_type=kind, headers=HEADERS)

    reader = StateReader(folder)

    def state(request: Request) -> Response:
        try:
            return JSONResponse(reader.read(), headers=HEADERS)
        except StabletuneError as error:
            return JSONResponse({"error": str(error)}, status_code=503, headers=HEADERS)
        except Exception as error:  # files of others: the page says so and asks again
            _log.exception("stabletune: %s cannot be shown", folder)
            return JSONResponse(
                {"error": f"{folder}: {type(error).__name__}: {error}"}, status_code=503, headers=HEADERS
            )

    return Starlette(
        routes=[
            Route("/", lambda request: text(page, "text/html")),
            Route("/page.css", lambda request: text(style, "text/css")),
            Route("/page.js", lambda request: text(script, "text/javascript")),
            Route("/plotly.js", lambda request: text(get_plotlyjs(), "text/javascript")),
            Route("/state", state),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))],
    )


def serve(folder: Path, *, host: str, port: int, announce: Callable[[str], None] = lambda url: None) -> None:
    """Serve until interrupted.

    Args:
        folder: a search's, or a watched training's.
        host: to listen on; one that is not this machine's loopback is open to the network.
        port: to listen on.
        announce: told the page's address once it is bound.

    Raises:
        OutputFolderError: the folder is neither a search's nor a watched training's.
        ResourceError: the address cannot be bound.
    """
    read_state(folder)
    if not host:
        raise ResourceError("--host: must name an address, but got ''. 0.0.0.0 opens the page to the network.")
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        reason = str(error.strerror).lower()
        if error.errno == errno.EADDRINUSE:
            raise ResourceError(
                f"--port: {host}:{port} must be free, but got {reason}. Name another with --port."
            ) from error
        raise ResourceError(
            f"--host: {host}:{port} must be an address of this machine, but got {reason}. Name another."
        ) from error
    app = build_app(folder, hosts=LOOPBACK if host in LOOPBACK else ("*",))
    announce(f"http://{f'[{host}]' if ':' in host else host}:{port}")
    with listener:
        uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listener])
