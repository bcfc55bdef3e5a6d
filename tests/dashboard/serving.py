"""The dashboard of a folder on a free port of this machine, as ``stabletune dashboard`` serves it."""

import contextlib
import socket
import threading

import uvicorn

from stabletune.dashboard.server import build_app


@contextlib.contextmanager
def served(folder):
    """Its address, while it is served."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(build_app(folder), log_level="error"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
