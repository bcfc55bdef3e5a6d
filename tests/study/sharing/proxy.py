"""A network between a driver and its server that breaks at a message of one's choice."""

import selectors
import socket
import threading


class Proxy:
    """Passes on what comes to ``port``; ``break_at`` cuts every connection through it.

    Args:
        server_port: where the messages go, on loopback.
    """

    def __init__(self, server_port):
        self._server_port = server_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._n_left, self._is_passed_on, self._meanwhile = None, False, lambda: None
        self._peers = {}
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._ends, self._end = socket.socketpair()
        self._selector.register(self._ends, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def break_at(self, n, *, is_passed_on, meanwhile=lambda: None):
        """Cut at the n-th message to the server from now on, from 0.

        ``is_passed_on``: the server gets it, only its answer is lost; ``meanwhile`` is called before anyone can connect
        again.
        """
        self._is_passed_on, self._meanwhile = is_passed_on, meanwhile
        self._n_left = n

    @property
    def has_broken(self):
        """Whether that message came; from now on nothing is cut."""
        has_broken, self._n_left = self._n_left is None, None
        return has_broken

    def close(self):
        self._end.send(b"x")
        self._thread.join()

    def _run(self):
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._ends:
                    self._cut()
                    self._listener.close()
                    return
                if key.fileobj is self._listener:
                    self._connect()
                elif key.fileobj in self._peers:
                    self._pass_on(key.fileobj, *self._peers[key.fileobj])

    def _connect(self):
        client, _ = self._listener.accept()
        server = socket.create_connection(("127.0.0.1", self._server_port))
        self._peers |= {client: (server, True), server: (client, False)}
        for end in (client, server):
            self._selector.register(end, selectors.EVENT_READ)

    def _pass_on(self, end, peer, is_to_server):
        try:
            message = end.recv(1 << 20)
        except ConnectionError:
            message = b""
        if is_to_server and message and self._n_left is not None:
            self._n_left -= 1
            if self._n_left < 0:
                self._n_left = None
                if self._is_passed_on:
                    peer.sendall(message)
                    peer.recv(1)  # the first of the answer: it is done
                self._cut()
                self._meanwhile()
                return
        if message:
            peer.sendall(message)
        else:
            self._cut(end, peer)

    def _cut(self, *ends):
        for end in ends or [*self._peers]:
            self._selector.unregister(end)
            del self._peers[end]
            end.close()
